//! Follows the triggers in the log and sees to it that each ends in `email_results`.

use super::{
    Courier, Delivery, EmailError, Sender, Templates,
    ledger::{Ledger, SENDING, Step, WAITING},
    positions::Positions,
    render,
};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use rand::Rng;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_engine::{
    log::{LogError, Reader, Record, Start, TopicPartition},
    port::{Append, Shop},
};
use tillflow_schemas::{Codec, EmailResult, EmailTrigger, Event, Timestamp};
use tokio_util::sync::CancellationToken;

/// Tells the time; the demo's runs faster.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How long to wait for records when there is nothing to do.
const POLL: Duration = Duration::from_millis(100);
/// Steps between two looks at the log.
const STEPS: usize = 64;
/// How often it is looked which tasks are here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is kept how far all is settled.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// The first wait after something went wrong; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Brings mails out.
pub struct Mailer {
    shop: Shop,
    codec: Arc<Codec>,
    reader: Box<dyn Reader>,
    courier: Box<dyn Courier>,
    sender: Sender,
    templates: Templates,
    clock: Clock,
    kept: PathBuf,
    /// Names this process in claims.
    me: String,
    ledger: Ledger,
    topics: Topics,
    /// Results that the log has not confirmed.
    unsaid: Vec<Append>,
    metrics: Metrics,
}

#[derive(Clone, Copy)]
struct Topics {
    triggers: usize,
    results: usize,
    templates: usize,
}

pub(crate) struct Metrics {
    pub(crate) results: IntCounterVec,
    waiting: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let results = IntCounterVec::new(Opts::new("tillflow_email_results_total", "Mails, by what became of them"), &["status"])?;
        let waiting = IntGauge::new("tillflow_email_waiting", "Mails that wait to be sent, by this instance or another")?;
        registry.register(Box::new(results.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self { results, waiting })
    }
}

impl Mailer {
    /// A mailer that reads the log with `reader` and keeps in `kept` how far all is settled.
    ///
    /// # Errors
    /// When a metric can't be registered.
    #[allow(clippy::too_many_arguments, reason = "each is a door to something else")]
    pub fn new(
        shop: Shop,
        codec: Arc<Codec>,
        reader: Box<dyn Reader>,
        courier: Box<dyn Courier>,
        sender: Sender,
        clock: Clock,
        kept: PathBuf,
    ) -> Result<Self, EmailError> {
        let topic = |schema: &str| {
            let catalog = shop.catalog();
            let found = catalog.of_schema(schema).and_then(|t| catalog.index(&t.name));
            found.ok_or_else(|| EmailError::Log(LogError::Fatal(format!("no topic holds {schema}"))))
        };
        let topics = Topics { triggers: topic("email_trigger")?, results: topic("email_result")?, templates: topic("template")? };
        let metrics = Metrics::new(shop.metrics())?;
        Ok(Self {
            codec,
            reader,
            courier,
            sender,
            templates: Templates::built_in()?,
            clock,
            kept,
            me: format!("{:016x}", rand::rng().random::<u64>()),
            ledger: Ledger::default(),
            topics,
            unsaid: Vec::new(),
            metrics,
            shop,
        })
    }

    /// Runs until `stop`, blocking. While the log is away it waits.
    ///
    /// # Errors
    /// When the log fails for good.
    pub fn run(mut self, stop: &CancellationToken) -> Result<(), EmailError> {
        let Some(targets) = self.begin(stop)? else { return Ok(()) };
        let mut own = HashSet::new();
        let (mut looked, mut kept): (Option<Instant>, Option<Instant>) = (None, None);
        let mut caught_up = false;
        let mut busy = false;
        while !stop.is_cancelled() {
            for record in self.poll(if busy { Duration::ZERO } else { POLL })? {
                self.take(record);
            }
            caught_up = caught_up || targets.iter().all(|(at, end)| self.reader.position(*at).is_none_or(|p| p >= *end));
            if !caught_up {
                continue;
            }
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                own = self.own();
                looked = Some(Instant::now());
            }
            busy = self.work(&own, stop);
            self.metrics.waiting.set(i64::try_from(self.ledger.waiting()).unwrap_or(i64::MAX));
            if kept.is_none_or(|at| at.elapsed() >= KEEP_EVERY) {
                self.keep();
                kept = Some(Instant::now());
            }
        }
        // Another instance, or the next start, may send what this one claimed and did not.
        for trigger in self.ledger.claimed(&self.me) {
            self.say(&trigger, WAITING, None, "not sent before the stop", (self.clock)());
        }
        self.confirm(stop);
        if caught_up {
            self.keep();
        }
        Ok(())
    }

    /// Starts to read where all before is settled; returns up to where to read before the first mail.
    fn begin(&mut self, stop: &CancellationToken) -> Result<Option<Vec<(TopicPartition, i64)>>, EmailError> {
        let positions = Positions::read(&self.kept);
        loop {
            match self.assign(&positions) {
                Ok(targets) => {
                    self.ledger = Ledger::new(positions.settled);
                    return Ok(Some(targets));
                }
                Err(LogError::Unavailable(reason)) => tracing::warn!("e-mail waits for the log: {reason}"),
                Err(e) => return Err(e.into()),
            }
            if pause(FIRST_WAIT, stop) {
                return Ok(None);
            }
        }
    }

    fn assign(&mut self, positions: &Positions) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let (mut from, mut targets) = (Vec::new(), Vec::new());
        for topic in [self.topics.templates, self.topics.results, self.topics.triggers] {
            let partitions = self.shop.catalog().topics().get(topic).map_or(0, |t| t.partitions);
            for partition in 0..partitions {
                let at = TopicPartition { topic, partition };
                let end = self.reader.end(at)?;
                targets.push((at, end));
                // Beyond the end: it is another log than the one that was read.
                let next = positions.next.get(&self.name(at)).copied().filter(|next| *next <= end);
                from.push((at, next.map_or(Start::Earliest, Start::Offset)));
            }
        }
        self.reader.assign(&from)?;
        Ok(targets)
    }

    fn name(&self, at: TopicPartition) -> String {
        format!("{}/{}", self.shop.catalog().topics().get(at.topic).map_or("", |t| t.name.as_str()), at.partition)
    }

    fn poll(&mut self, timeout: Duration) -> Result<Vec<Record>, EmailError> {
        match self.reader.poll(timeout) {
            Err(LogError::Unavailable(reason)) => {
                tracing::debug!("e-mail waits for the log: {reason}");
                Ok(Vec::new())
            }
            other => Ok(other?),
        }
    }

    fn take(&mut self, record: Record) {
        let catalog = self.shop.catalog();
        let Some(topic) = catalog.topics().get(record.at.topic) else { return };
        match self.codec.decode(topic, record.key.as_deref(), record.value.as_deref()) {
            Ok(Event::EmailTrigger(trigger)) => self.ledger.trigger(record.at.partition, trigger),
            Ok(Event::EmailResult(result)) => self.ledger.result(&result),
            Ok(Event::Template(template)) => {
                if let Err(e) = self.templates.apply(&template) {
                    tracing::warn!("the template is not taken: {e}");
                }
            }
            Ok(_) => {}
            Err(e) => tracing::warn!(topic = topic.name, partition = record.at.partition, offset = record.offset, "not read: {e}"),
        }
    }

    /// Partitions of the customers whose tasks are here: each instance sends its own users' mails.
    fn own(&self) -> HashSet<u32> {
        let tasks = self.shop.readiness().tasks;
        tasks.iter().filter(|t| t.group == "customers" && t.state == "running").map(|t| t.partition).collect()
    }

    /// Does what is due; whether there may be more.
    fn work(&mut self, own: &HashSet<u32>, stop: &CancellationToken) -> bool {
        let me = (!self.courier.is_repeatable()).then(|| self.me.clone());
        let mut done = 0;
        while done < STEPS && !stop.is_cancelled() && self.unsaid.is_empty() {
            let now = (self.clock)();
            let Some((step, trigger)) = self.ledger.next(now, |p| own.contains(&p), me.as_deref()) else { break };
            match step {
                Step::Claim => self.say(&trigger, SENDING, me.clone(), "being sent", now),
                Step::Expire => {
                    self.say(&trigger, "expired", None, &format!("was to go out at {}, more than 6 h ago", trigger.send_after), now);
                }
                Step::GiveUp => self.say(&trigger, "unknown", None, "who began to send it never said what came of it", now),
                Step::Send => self.send(&trigger, now),
            }
            done += 1;
            // What was sent is said before anything else is.
            if step == Step::Send && me.is_some() {
                break;
            }
        }
        self.confirm(stop);
        done > 0
    }

    /// What was said of consent since the mail was decided: nothing, or why it may not go out.
    fn withdrawn(&self, trigger: &EmailTrigger) -> Result<Option<String>, String> {
        let answer = self.shop.query("customers", "email", trigger.user_id.as_str(), "").map_err(|e| e.to_string())?.unwrap_or_default();
        if answer.get("may").is_some_and(|may| may == true) {
            return Ok(None);
        }
        Ok(Some(answer.get("why").and_then(Value::as_str).unwrap_or("nothing is known of the user").to_owned()))
    }

    fn send(&mut self, trigger: &EmailTrigger, now: Timestamp) {
        match self.withdrawn(trigger) {
            Ok(None) => {}
            Ok(Some(why)) => {
                self.bounced(trigger, false, now);
                return self.say(trigger, "suppressed", None, &format!("at sending: {why}"), now);
            }
            Err(why) => {
                tracing::debug!(trigger = trigger.trigger_id, "consent can't be looked at now: {why}");
                return self.ledger.put_off(&trigger.trigger_id, FIRST_WAIT);
            }
        }
        let delivery = match render(trigger, &self.templates, &self.sender) {
            Ok(message) => self.courier.send(&message).unwrap_or_else(|e| Delivery::TryAgain(e.to_string())),
            Err(e) => Delivery::Failed(e.to_string()),
        };
        match delivery {
            Delivery::Sent { provider_id, detail } => self.say(trigger, "sent", provider_id, &detail, now),
            Delivery::Bounced(why) => {
                self.bounced(trigger, true, now);
                self.say(trigger, "bounced", None, &why, now);
            }
            Delivery::Failed(why) => {
                self.bounced(trigger, false, now);
                self.say(trigger, "failed", None, &why, now);
            }
            Delivery::Unknown(why) => self.say(trigger, "unknown", None, &why, now),
            Delivery::TryAgain(why) if now > trigger.send_after + super::EXPIRES_AFTER => {
                self.bounced(trigger, false, now);
                self.say(trigger, "failed", None, &format!("not in 6 h: {why}"), now);
            }
            Delivery::TryAgain(why) => {
                let wait = backoff(self.ledger.tries(&trigger.trigger_id));
                tracing::warn!(trigger = trigger.trigger_id, "the mail is tried again in {} s: {why}", wait.as_secs());
                self.ledger.put_off(&trigger.trigger_id, wait);
            }
        }
    }

    /// Tells the campaigns, which give the mail's place under the cap back, and mail a dead address no more.
    fn bounced(&mut self, trigger: &EmailTrigger, hard: bool, now: Timestamp) {
        let value = json!({
            "event_id": format!("bounced:{}", trigger.trigger_id), "event_type": "email_bounced", "user_id": trigger.user_id,
            "timestamp": now, "message_id": trigger.trigger_id, "hard": hard,
        });
        self.unsaid.push(Append {
            schema: "user_event",
            key: Some(trigger.user_id.as_str().to_owned()),
            placed_by: None,
            value: Some(value.to_string().into_bytes()),
            trace: None,
        });
    }

    fn say(&mut self, trigger: &EmailTrigger, status: &str, provider_id: Option<String>, detail: &str, at: Timestamp) {
        let result = EmailResult {
            trigger_id: trigger.trigger_id.clone(),
            user_id: trigger.user_id.clone(),
            status: status.into(),
            provider_id,
            detail: detail.into(),
            at,
        };
        if status != SENDING && status != WAITING {
            self.ledger.result(&result);
            self.metrics.results.with_label_values(&[status]).inc();
        }
        match Event::EmailResult(result).to_json() {
            Ok(value) => {
                let key = Some(trigger.user_id.as_str().to_owned());
                self.unsaid.push(Append { schema: "email_result", key, placed_by: None, value, trace: None });
            }
            Err(e) => tracing::error!(trigger = trigger.trigger_id, "its result can't be written: {e}"),
        }
    }

    /// Writes what is to be said; while the log does not take it, nothing else is done.
    fn confirm(&mut self, stop: &CancellationToken) {
        while !self.unsaid.is_empty() {
            match self.shop.append(self.unsaid.clone()).blocking_recv() {
                Ok(Ok(())) => self.unsaid.clear(),
                failed => {
                    tracing::warn!(results = self.unsaid.len(), "results of mails wait for the log: {failed:?}");
                    if pause(FIRST_WAIT, stop) {
                        return;
                    }
                }
            }
        }
    }

    /// Keeps how far all is settled, where nothing waits.
    fn keep(&mut self) {
        self.ledger.forget((self.clock)());
        if self.ledger.waiting() > 0 || !self.unsaid.is_empty() {
            return;
        }
        let mut positions = Positions { settled: self.ledger.settled().clone(), ..Positions::default() };
        for topic in [self.topics.triggers, self.topics.results] {
            let partitions = self.shop.catalog().topics().get(topic).map_or(0, |t| t.partitions);
            for at in (0..partitions).map(|partition| TopicPartition { topic, partition }) {
                positions.next.extend(self.reader.position(at).map(|next| (self.name(at), next)));
            }
        }
        if let Err(e) = positions.write(&self.kept) {
            tracing::warn!("{}: {e}; a restart reads all triggers again", self.kept.display());
        }
    }
}

/// Doubles with every try, with jitter: servers that come back are not run over.
fn backoff(tries: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1))).min(LONGEST_WAIT);
    wait.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Waits; whether it is time to stop.
fn pause(wait: Duration, stop: &CancellationToken) -> bool {
    let until = Instant::now() + wait;
    while Instant::now() < until && !stop.is_cancelled() {
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.is_cancelled()
}
