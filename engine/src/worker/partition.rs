//! One task with its inputs: takes their records in the order of event time and keeps its clock.

use super::{
    dead_letter,
    input::{Content, FOUND_IN, IDLE, Input, Pending, SOURCE, WATERMARK, decode},
    meta::Meta,
};
use crate::{
    config::{EngineConfig, FUTURE, LIVE},
    log::{Log, NewRecord, Record, TopicPartition},
    metrics::Metrics,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_engine_api::{Done, FailedTimer, Failure, Globals, Task};
use tillflow_schemas::{Catalog, Codec, Event, Record as _, Role, Timestamp, UserEventKind, partition::partition};
use tillflow_state::{StateError, Store};

/// Timers fired in one step, at most: a clock that jumps far is followed with commits in between.
const TIMERS_AT_ONCE: usize = 500;
/// Downstream is told a watermark once it moved this far, in milliseconds.
const ANNOUNCE_STEP: i64 = 1_000;

/// What the tasks of a worker share.
pub struct Shared {
    /// The list of topics.
    pub catalog: Arc<Catalog>,
    /// Bytes to events.
    pub codec: Arc<Codec>,
    /// How the engine runs.
    pub config: EngineConfig,
    /// What is counted.
    pub metrics: Metrics,
    /// Topics by which this group tells its watermark.
    pub announces: Vec<usize>,
    /// Topics by which the upstream group tells its own, and its number of partitions.
    pub listens: (Vec<usize>, u32),
    /// Where this group's re-keyed records go.
    pub rekeyed: Option<usize>,
    /// Topic of a schema.
    pub topics: BTreeMap<String, usize>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record was processed.
    Processed,
    /// An input that may hold an earlier record is waited for.
    Waiting,
    /// There is nothing to process.
    Empty,
}

/// One task with its inputs.
pub struct Partition {
    task: Task,
    inputs: Vec<Input>,
    committed: Meta,
    upstream: BTreeMap<(usize, u32), Timestamp>,
    announced: Timestamp,
    idle: bool,
    /// Dead letters and re-keyed records.
    raw: Vec<NewRecord>,
    /// Whether positions moved since the last commit.
    moved: bool,
    /// Since when an empty input that has lag is waited for.
    waiting: Option<Instant>,
    /// Whether timers may be due by the watermark: they fire before the next record.
    advancing: bool,
    /// The input whose record made them due, and the offset after it.
    unfinished: Option<(usize, i64)>,
    shared: Arc<Shared>,
}

impl Partition {
    /// The task over a store that is up to date, with inputs that begin where it stood.
    ///
    /// # Errors
    /// When the store fails.
    pub fn new(mut task: Task, inputs: &[TopicPartition], shared: &Arc<Shared>) -> Result<Self, StateError> {
        let meta = Meta::read(task.store())?;
        task.reset(meta.clock, meta.watermark);
        let role = |at: &TopicPartition| shared.catalog.topics().get(at.topic).map_or(Role::Internal, |t| t.role);
        let inputs =
            inputs.iter().map(|at| Input { at: *at, role: role(at), position: 0, fetched: 0, queue: Default::default(), paused: false });
        let mut partition = Self {
            task,
            inputs: inputs.collect(),
            committed: meta,
            upstream: BTreeMap::new(),
            announced: Timestamp::MIN,
            idle: false,
            raw: Vec::new(),
            moved: false,
            waiting: None,
            advancing: false,
            unfinished: None,
            shared: shared.clone(),
        };
        partition.inputs.sort_by_key(|i| i.at);
        partition.rewind();
        Ok(partition)
    }

    /// Goes back to what was committed.
    pub fn rewind(&mut self) {
        let meta = self.committed.clone();
        self.task.reset(meta.clock, meta.watermark);
        self.announced = meta.announced;
        self.upstream = meta.upstream.iter().filter_map(|((topic, p), at)| Some(((self.shared.catalog.index(topic)?, *p), *at))).collect();
        self.raw.clear();
        self.moved = false;
        self.waiting = None;
        // A commit may have come before all timers fired that were due.
        self.advancing = meta.watermark > Timestamp::MIN;
        self.unfinished = None;
        for i in 0..self.inputs.len() {
            let offset = self.inputs.get(i).and_then(|input| self.committed.offsets.get(self.topic_name(input.at))).copied();
            if let Some(input) = self.inputs.get_mut(i) {
                input.queue.clear();
                input.paused = false;
                input.position = offset.unwrap_or(0);
                input.fetched = input.position;
            }
        }
        if let Some((topic, after)) = meta.unfinished
            && let Some(i) = self.inputs.iter().position(|input| self.topic_name(input.at) == topic)
        {
            self.unfinished = Some((i, after));
            // Delivered again, it is passed over.
            self.inputs.iter_mut().skip(i).take(1).for_each(|input| input.fetched = after);
        }
    }

    /// Takes the offsets of a store that was restored anew.
    ///
    /// # Errors
    /// When the store fails.
    pub fn reload(&mut self) -> Result<(), StateError> {
        self.task.reset(Timestamp::MIN, Timestamp::MIN);
        self.committed = Meta::read(self.task.store())?;
        self.rewind();
        Ok(())
    }

    /// Where delivery of each input is to begin; `None` is the earliest record.
    pub fn starts(&self) -> Vec<(TopicPartition, Option<i64>)> {
        self.inputs.iter().map(|i| (i.at, self.committed.offsets.get(self.topic_name(i.at)).copied())).collect()
    }

    fn topic_name(&self, at: TopicPartition) -> &str {
        self.shared.catalog.topics().get(at.topic).map_or("", |t| t.name.as_str())
    }

    /// Takes a delivered record.
    pub fn deliver(&mut self, record: Record) {
        let Some(input) = self.inputs.iter_mut().find(|i| i.at == record.at) else { return };
        // Delivered again after a seek, or fetched before it.
        if record.offset < input.fetched {
            return;
        }
        input.fetched = record.offset + 1;
        input.queue.push_back(decode(record, self.shared.config.wall.instant(), &self.shared.catalog, &self.shared.codec));
    }

    /// Holds delivery back where much waits, and lets it go on where little does.
    ///
    /// # Errors
    /// When the log fails.
    pub fn regulate(&mut self, log: &mut dyn Log) -> Result<(), crate::log::LogError> {
        let limit = self.shared.config.queue_records;
        for input in &mut self.inputs {
            let pause = if input.paused { input.queue.len() > limit / 4 } else { input.queue.len() >= limit };
            if pause != input.paused {
                input.paused = pause;
                log.pause(input.at, pause)?;
            }
        }
        Ok(())
    }

    /// Fires timers that are due; else processes the record with the smallest time among the inputs' heads.
    ///
    /// # Errors
    /// When the store fails.
    pub fn step(&mut self, globals: &Globals, log: &dyn Log) -> Result<Step, StateError> {
        if self.advancing {
            self.advance(self.task.watermark(), globals)?;
            if !self.advancing
                && let Some((i, after)) = self.unfinished.take()
            {
                self.pass(i, after);
            }
            return Ok(Step::Processed);
        }
        // At one time, what tells that all before it is there comes last.
        let tells = |p: &Pending| matches!(p.content, Content::Mark(_) | Content::Watermark(..));
        let head = |input: &Input| input.queue.front().map(|p| (p.time, tells(p)));
        let first = self
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(i, input)| Some((head(input)?, i)))
            .min_by_key(|((time, tells), i)| (*time, *tells, *i));
        let Some(((time, _), i)) = first else {
            self.waiting = None;
            return Ok(Step::Empty);
        };
        if time.is_some() && self.may_bring_earlier(i, log) {
            let config = &self.shared.config;
            let since = *self.waiting.get_or_insert_with(|| config.wall.instant());
            // The end of an input is the end of all of them, however long it takes.
            let is_mark = |p: &Pending| matches!(p.content, Content::Mark(_));
            let mark = self.inputs.get(i).and_then(|input| input.queue.front()).is_some_and(is_mark);
            if mark || config.wait_for_input.is_none_or(|limit| config.wall.elapsed(since) < limit) {
                return Ok(Step::Waiting);
            }
        } else {
            self.waiting = None;
        }
        if let Some(Pending { content: Content::Later(_), .. }) = self.inputs.get(i).and_then(|input| input.queue.front()) {
            return self.retry_decoding(i);
        }
        let Some((pending, role)) = self.inputs.get_mut(i).and_then(|input| Some((input.queue.pop_front()?, input.role))) else {
            return Ok(Step::Empty);
        };
        let offset = pending.record.offset + 1;
        self.process(pending, role, globals)?;
        if self.advancing {
            self.unfinished = Some((i, offset));
        } else {
            self.pass(i, offset);
        }
        Ok(Step::Processed)
    }

    /// All before `offset` of an input is done.
    fn pass(&mut self, i: usize, offset: i64) {
        if let Some(input) = self.inputs.get_mut(i) {
            input.position = offset;
        }
        self.moved = true;
    }

    /// Whether an input without a head may still bring a record earlier than the head of input `i`.
    ///
    /// The log knows what inputs hold as of some moments ago. For what tells that all before it is there that is not
    /// enough: what was written before it came must be known. Other records need not wait for an answer.
    fn may_bring_earlier(&self, i: usize, log: &dyn Log) -> bool {
        let mut empty = self.inputs.iter().filter(|input| input.queue.is_empty()).peekable();
        if empty.peek().is_none() {
            return false;
        }
        let head = self.inputs.get(i).and_then(|input| input.queue.front());
        let tells = head.filter(|p| matches!(p.content, Content::Mark(_) | Content::Watermark(..)));
        let outdated = tells.zip(log.learned()).is_some_and(|(p, learned)| learned < p.delivered);
        outdated || empty.any(|input| has_more(input, log))
    }

    fn retry_decoding(&mut self, i: usize) -> Result<Step, StateError> {
        let Some(pending) = self.inputs.get_mut(i).and_then(|input| input.queue.pop_front()) else { return Ok(Step::Empty) };
        let again = decode(pending.record, pending.delivered, &self.shared.catalog, &self.shared.codec);
        let still = matches!(again.content, Content::Later(_));
        if let Some(input) = self.inputs.get_mut(i) {
            input.queue.push_front(again);
        }
        Ok(if still { Step::Waiting } else { Step::Processed })
    }

    fn process(&mut self, pending: Pending, role: Role, globals: &Globals) -> Result<(), StateError> {
        let Pending { record, content, time, .. } = pending;
        match content {
            Content::Watermark(source, at) => {
                self.upstream.insert((record.at.topic, source), at);
                self.follow_upstream(globals)
            }
            Content::Mark(at) => {
                self.idle = false;
                self.task.set_clock(at);
                self.advance(at, globals)
            }
            Content::Broken(reason) | Content::Later(reason) => {
                self.dead_letter(&record, "decoder", &reason);
                Ok(())
            }
            Content::Event(event) => {
                let shops_own = matches!(role, Role::Input | Role::Reference | Role::Rekey);
                if shops_own && self.lies_in_the_future(time) {
                    let at = time.unwrap_or_default();
                    self.dead_letter(
                        &record,
                        "clock",
                        &format!("timestamp: {at} lies more than 5 minutes in the future; check the sender's clock"),
                    );
                    return Ok(());
                }
                if matches!(role, Role::Input | Role::Reference) && self.rekey(&record, &event) {
                    return Ok(());
                }
                self.run(&record, &event, globals)?;
                if shops_own && event.schema() != tillflow_schemas::Product::SCHEMA && event.schema() != tillflow_schemas::Customer::SCHEMA
                {
                    self.move_clock(time, globals)?;
                }
                Ok(())
            }
        }
    }

    fn run(&mut self, record: &Record, event: &Event, globals: &Globals) -> Result<(), StateError> {
        let group = self.task.group().name;
        let metrics = &self.shared.metrics;
        if let Event::User(e) = event {
            if matches!(e.kind, UserEventKind::Unknown { .. }) {
                metrics.unknown_events_total.with_label_values(&[group]).inc();
            }
            if e.timestamp < self.task.watermark() {
                metrics.late_total.with_label_values(&[group]).inc();
            }
        }
        match self.task.process(event, globals) {
            Ok((done, failed)) => {
                metrics.process_total.with_label_values(&[group]).inc();
                if done == Done::Duplicate {
                    metrics.duplicates_total.with_label_values(&[group]).inc();
                }
                self.bury(failed);
                Ok(())
            }
            Err(Failure::Rejected { processor, reason }) => {
                self.dead_letter(record, processor, &reason);
                Ok(())
            }
            Err(Failure::State(e)) => Err(e),
        }
    }

    fn lies_in_the_future(&self, time: Option<Timestamp>) -> bool {
        self.shared.config.check_future && time.is_some_and(|t| t > self.shared.config.wall.now() + FUTURE)
    }

    /// Puts a record that another client placed in a foreign partition where its id belongs.
    fn rekey(&mut self, record: &Record, event: &Event) -> bool {
        let (Some(id), Some(topic)) = (event.key(), self.shared.rekeyed) else { return false };
        let own = self.task.place();
        let home = partition(id.as_bytes(), own.partitions);
        if home == own.partition {
            return false;
        }
        let found_in = self.topic_name(record.at).to_owned();
        self.shared.metrics.rekeyed_total.with_label_values(&[&found_in]).inc();
        let mut headers = record.headers.clone();
        headers.push((FOUND_IN.into(), found_in.into_bytes()));
        self.raw.push(NewRecord {
            to: TopicPartition { topic, partition: home },
            at: event.time().unwrap_or(record.logged_at),
            key: Some(id.as_bytes().to_vec()),
            value: record.value.clone(),
            headers,
        });
        true
    }

    fn move_clock(&mut self, time: Option<Timestamp>, globals: &Globals) -> Result<(), StateError> {
        let Some(time) = time.filter(|_| self.task.group().upstream.is_none()) else { return Ok(()) };
        self.idle = false;
        self.task.set_clock(time);
        self.advance(self.task.clock() - self.shared.config.grace, globals)
    }

    /// The clock of a group with an upstream is the least of its watermarks, once all have told theirs.
    fn follow_upstream(&mut self, globals: &Globals) -> Result<(), StateError> {
        let (topics, sources) = &self.shared.listens;
        let heard = topics.iter().flat_map(|t| (0..*sources).map(|s| self.upstream.get(&(*t, s)).copied().unwrap_or(Timestamp::MIN)));
        match heard.filter(|at| *at != IDLE).min() {
            Some(at) if at > Timestamp::MIN => {
                self.task.set_clock(at);
                self.advance(at, globals)
            }
            _ => Ok(()),
        }
    }

    fn advance(&mut self, watermark: Timestamp, globals: &Globals) -> Result<(), StateError> {
        let (failed, done) = self.task.advance_by(watermark, TIMERS_AT_ONCE, globals)?;
        self.advancing = !done;
        self.bury(failed);
        Ok(())
    }

    /// With nothing to process, the clock of a live task goes on with the wall.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tick(&mut self, globals: &Globals, log: &dyn Log) -> Result<(), StateError> {
        let config = &self.shared.config;
        if !config.idle_clock || self.task.group().upstream.is_some() || !self.is_drained(log) {
            return Ok(());
        }
        let (wall, clock) = (config.wall.now(), self.task.clock());
        if clock == Timestamp::MIN {
            self.idle = true;
        } else if wall > clock.plus(Duration::from_secs(1)) && wall <= clock + LIVE {
            let watermark = wall - config.grace;
            self.task.set_clock(wall);
            self.advance(watermark, globals)?;
        }
        Ok(())
    }

    /// Takes what lies behind the last record, such as control records, as consumed. To be called when all delivered
    /// records are processed.
    pub fn pass_gaps(&mut self, log: &dyn Log) {
        for input in self.inputs.iter_mut().filter(|i| i.queue.is_empty()) {
            let reached = log.reached(input.at);
            if reached > input.position {
                input.position = reached;
                input.fetched = input.fetched.max(reached);
                self.moved = true;
            }
        }
    }

    /// Whether all that was written to its inputs is processed.
    pub fn is_drained(&self, log: &dyn Log) -> bool {
        !self.advancing && self.inputs.iter().all(|i| i.queue.is_empty() && !has_more(i, log))
    }

    /// Whether there is something to process now: timers, or records that were delivered and wait for no others.
    pub fn is_busy(&self) -> bool {
        self.advancing || (self.waiting.is_none() && self.inputs.iter().any(|i| !i.queue.is_empty()))
    }

    /// Records of the inputs not processed yet.
    pub fn lag(&self, log: &dyn Log) -> i64 {
        self.inputs.iter().map(|i| if i.queue.is_empty() && !has_more(i, log) { 0 } else { log.lag(i.at, i.position) }).sum()
    }

    fn dead_letter(&mut self, record: &Record, processor: &str, reason: &str) {
        let topic = self.topic_name(record.at).to_owned();
        self.shared.metrics.dead_letters_total.with_label_values(&[topic.as_str(), processor]).inc();
        tracing::debug!(topic, partition = record.at.partition, offset = record.offset, processor, "dead letter: {reason}");
        let at = self.task.clock().max(Timestamp::EARLIEST);
        self.raw.extend(dead_letter::of_record(&self.shared.catalog, record, processor, reason, at));
    }

    fn bury(&mut self, failed: Vec<FailedTimer>) {
        for timer in failed {
            self.shared.metrics.dead_letters_total.with_label_values(&["timer", timer.processor]).inc();
            let (group, place) = (self.task.group().name, self.task.place());
            self.raw.extend(dead_letter::of_timer(&self.shared.catalog, group, place.partition, &timer));
        }
    }

    /// Whether a commit has something to write.
    pub fn is_dirty(&self) -> bool {
        self.moved || self.task.is_dirty() || !self.raw.is_empty() || self.news().is_some()
    }

    /// Records that were delivered and wait to be processed.
    pub fn queued(&self) -> usize {
        self.inputs.iter().map(|i| i.queue.len()).sum()
    }

    /// Bytes waiting to be committed.
    pub fn pending_bytes(&self) -> usize {
        self.task.pending_bytes() + self.raw.iter().map(|r| r.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
    }

    /// The watermark that downstream does not know yet.
    fn news(&self) -> Option<Timestamp> {
        // Not before the decisions that it lets fall.
        if self.shared.announces.is_empty() || self.advancing {
            return None;
        }
        let watermark = if self.idle && self.task.clock() == Timestamp::MIN { IDLE } else { self.task.watermark() };
        let moved =
            watermark.millis().saturating_sub(self.announced.millis()) >= ANNOUNCE_STEP || (self.announced == IDLE && watermark != IDLE);
        (watermark != Timestamp::MIN && moved).then_some(watermark)
    }

    /// Writes where it stands into its store and hands over what it emitted, for one transaction.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prepare(&mut self, records: &mut Vec<NewRecord>) -> Result<(), StateError> {
        let clock = self.task.clock().max(Timestamp::EARLIEST);
        let emissions =
            self.task.outbox_mut().take(clock).map_err(|e| StateError::Value { store: "outbox".into(), detail: e.to_string() })?;
        for emission in emissions {
            let Some(&topic) = self.shared.topics.get(emission.schema) else { continue };
            let Some(target) = self.shared.catalog.topics().get(topic) else { continue };
            self.shared.metrics.emitted_total.with_label_values(&[&target.name]).inc();
            let to = TopicPartition { topic, partition: partition(emission.key.as_bytes(), target.partitions) };
            let value = emission.value.map(|json| match self.shared.codec.encode(target, &json) {
                Ok(std::borrow::Cow::Owned(bytes)) => bytes,
                _ => json,
            });
            records.push(NewRecord { to, at: emission.at, key: Some(emission.key.into_bytes()), value, headers: Vec::new() });
        }
        records.append(&mut self.raw);
        if let Some(watermark) = self.news() {
            self.announce(watermark, records);
        }
        self.meta().write(self.task.store_mut())
    }

    /// Tells every downstream task how far this one has come; the signals before it are before it in each partition.
    fn announce(&mut self, watermark: Timestamp, records: &mut Vec<NewRecord>) {
        self.announced = watermark;
        let source = i64::from(self.task.place().partition);
        for &topic in &self.shared.announces {
            let partitions = self.shared.catalog.topics().get(topic).map_or(0, |t| t.partitions);
            records.extend((0..partitions).map(|partition| NewRecord {
                to: TopicPartition { topic, partition },
                at: watermark.min(Timestamp::LATEST),
                key: None,
                value: None,
                headers: vec![
                    (SOURCE.into(), source.to_be_bytes().to_vec()),
                    (WATERMARK.into(), watermark.millis().to_be_bytes().to_vec()),
                ],
            }));
        }
    }

    fn meta(&self) -> Meta {
        Meta {
            offsets: self.inputs.iter().filter(|i| i.position > 0).map(|i| (self.topic_name(i.at).to_owned(), i.position)).collect(),
            clock: self.task.clock(),
            watermark: self.task.watermark(),
            upstream: self
                .upstream
                .iter()
                .map(|((topic, p), at)| ((self.topic_name(TopicPartition { topic: *topic, partition: *p }).to_owned(), *p), *at))
                .collect(),
            announced: self.announced,
            unfinished: self.unfinished.and_then(|(i, after)| Some((self.topic_name(self.inputs.get(i)?.at).to_owned(), after))),
        }
    }

    /// Positions of all inputs, for the transaction.
    pub fn offsets(&self) -> Vec<(TopicPartition, i64)> {
        self.inputs.iter().map(|i| (i.at, i.position)).collect()
    }

    /// Inputs that only Tillflow writes, with the offset below which they are consumed once this commit is through.
    pub fn consumed(&self) -> impl Iterator<Item = (TopicPartition, i64)> {
        self.inputs.iter().filter(|i| matches!(i.role, Role::Internal | Role::Rekey)).map(|i| (i.at, i.position))
    }

    /// What was prepared is committed.
    pub fn committed(&mut self) {
        self.committed = self.meta();
        self.moved = false;
    }

    /// The task's store.
    pub fn store(&self) -> &Store {
        self.task.store()
    }
    /// The task's store, for commit and restore.
    pub fn store_mut(&mut self) -> &mut Store {
        self.task.store_mut()
    }
    /// The event clock.
    pub fn clock(&self) -> Timestamp {
        self.task.clock()
    }
    /// Timers up to here have fired.
    pub fn watermark(&self) -> Timestamp {
        self.task.watermark()
    }
}

/// Whether an input may bring more records. What was delivered, and what lies between records, is behind it.
fn has_more(input: &Input, log: &dyn Log) -> bool {
    log.has_more(input.at, input.fetched.max(log.reached(input.at)))
}
