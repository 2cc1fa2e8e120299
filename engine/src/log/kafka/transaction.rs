//! A worker's transactional producer.

use super::{
    client::{Kafka, PASSING, classify, taken_over},
    context::{WriterContext, pack},
    member::Fences,
    reports::Heard,
};
use crate::log::{CommitError, LogError, NewRecord, Positions, TaskCommit, TopicPartition, Transaction};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    client::Client,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, Instant},
};

/// Longest wait for the coordinator; the transaction's own timeout is 10 s.
const PATIENCE: Duration = Duration::from_secs(12);
/// Where a former life left a transaction open, the coordinator ends it, which takes some tens of milliseconds, and says
/// meanwhile that it is not ready. librdkafka asks again after half a second; a new client asks at once.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Or after so many times what the connection took: the coordinator has to be found, connected to and asked.
const CONNECTIONS: u32 = 4;
/// How often a new client asks before the last one waits for as long as it takes.
const ATTEMPTS: usize = 12;
/// Where a coordinator keeps its transactions, and how long it may take to read them.
const COORDINATORS_LOG: &str = "__transaction_state";
const LOADING: Duration = Duration::from_secs(180);
/// How long a broker may take to answer at all.
const A_MOMENT: Duration = Duration::from_secs(2);
/// How long a full queue is left alone until it is tried again.
const STEP: Duration = Duration::from_millis(1);
/// Who commits whenever the input is drained rests a quarter as long as a commit takes, at most so long: brokers that are slow
/// are asked less.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Brokers that take no longer need no rest.
const SWIFT: Duration = Duration::from_millis(10);
/// How a commit's time counts in what a commit takes, as one in so many: one that is held up makes no long rest.
const SMOOTHING: u32 = 4;

/// A worker's transactional producer.
pub struct Writer {
    kafka: Kafka,
    /// What the topics are called on the cluster.
    names: Vec<String>,
    id: String,
    producer: Heard,
    /// When the last one ended.
    last_commit: Option<Instant>,
    /// How long one takes, smoothed.
    takes: Duration,
    broken: bool,
    /// Once may be a new owner of partitions that wanted a transaction decided.
    fences: Fences,
}

impl Writer {
    /// Makes the producer and takes over its transactional id: an open transaction of a former life is decided.
    pub fn new(kafka: &Kafka, id: String) -> Result<Self, LogError> {
        let producer = Heard::new(started(kafka, &id)?)?;
        let names = (0..kafka.catalog.topics().len()).map(|topic| kafka.name(topic)).collect();
        Ok(Self {
            kafka: kafka.clone(),
            names,
            id,
            producer,
            last_commit: None,
            takes: Duration::ZERO,
            broken: false,
            fences: Fences::default(),
        })
    }

    /// Its transactional id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// After a failure whose outcome nobody knows: initialises its id anew, which decides the transaction. Until then it
    /// may hold committed offsets back, and nobody else decides it.
    ///
    /// # Errors
    /// When the coordinator does not answer, or refuses.
    pub fn mend(&mut self) -> Result<(), LogError> {
        if self.broken {
            self.producer = Heard::new(initialised(&self.kafka, &self.id)?)?;
            self.broken = false;
        }
        Ok(())
    }

    fn name(&self, topic: usize) -> &str {
        self.names.get(topic).map_or("", String::as_str)
    }

    /// For how long the brokers are still better left alone.
    pub fn rest(&self) -> Duration {
        let wanted = if self.takes < SWIFT { Duration::ZERO } else { (self.takes / 4).min(LONGEST_PAUSE) };
        self.last_commit.and_then(|ended| wanted.checked_sub(ended.elapsed())).unwrap_or_default()
    }

    /// Writes one transaction.
    pub fn commit(
        &mut self,
        transaction: &Transaction<'_>,
        changelog: usize,
        group: &ConsumerGroupMetadata,
    ) -> Result<Positions, CommitError> {
        self.mend().map_err(|e| undecided("", e))?;
        // Who can't wait, since too much is held or partitions are asked back.
        std::thread::sleep(self.rest());
        self.producer.context().take();
        let started = Instant::now();
        let written = self.write(transaction, changelog, group);
        self.last_commit = Some(Instant::now());
        self.takes = (self.takes * (SMOOTHING - 1) + started.elapsed()) / SMOOTHING;
        match written {
            Ok(()) => {
                let delivered = self.producer.context().take();
                let positions: Positions = delivered.into_iter().map(|(at, next)| (at.partition, next)).collect();
                match transaction.tasks.iter().find(|task| !positions.contains_key(&task.partition)) {
                    // Its rows are in the changelog, and where is not known: restoring finds them.
                    Some(task) => Err(CommitError::Unknown(format!("nothing was heard of where partition {}'s rows lie", task.partition))),
                    None => Ok(positions),
                }
            }
            Err(e) => Err(self.recover(&e)),
        }
    }

    fn write(&self, transaction: &Transaction<'_>, changelog: usize, group: &ConsumerGroupMetadata) -> KafkaResult<()> {
        let started = Instant::now();
        self.producer.begin_transaction()?;
        // Offsets go first: while the coordinator still writes the last transaction's markers it refuses a new one, and librdkafka
        // asks for offsets again after its retry backoff, for partitions only after 20 ms. It sends nothing for an empty list, and
        // then nothing would fence a replaced worker.
        let mut offsets = TopicPartitionList::new();
        for (at, offset) in transaction.tasks.iter().flat_map(|t| &t.offsets) {
            let name = self.name(at.topic);
            offsets.add_partition_offset(name, at.partition as i32, Offset::Offset(*offset))?;
            if let Some(mut element) = offsets.find_partition(name, at.partition as i32) {
                element.set_metadata(&self.id);
            }
        }
        assert!(offsets.count() > 0, "a transaction without offsets fences nobody");
        self.producer.send_offsets_to_transaction(&offsets, group, PATIENCE)?;
        let with_offsets = started.elapsed();
        // And of each partition its first record: the client then tells the coordinator of all partitions at once.
        let mut known = BTreeSet::new();
        let (firsts, others): (Vec<_>, Vec<_>) = transaction.records.iter().partition(|record| known.insert(record.to));
        for record in firsts {
            self.send(record)?;
        }
        for task in &transaction.tasks {
            self.send_rows(task, changelog, 0..1)?;
        }
        for record in others {
            self.send(record)?;
        }
        for task in &transaction.tasks {
            self.send_rows(task, changelog, 1..task.rows.len())?;
        }
        let handed_over = started.elapsed();
        self.producer.flush(PATIENCE)?;
        let delivered = started.elapsed();
        self.commit_transaction()?;
        tracing::debug!(id = self.id, partitions = known.len() + transaction.tasks.len(), ?with_offsets, ?handed_over, ?delivered, committed = ?started.elapsed(), "transaction");
        Ok(())
    }

    fn commit_transaction(&self) -> KafkaResult<()> {
        let started = Instant::now();
        loop {
            match self.producer.commit_transaction(PATIENCE) {
                Err(KafkaError::Transaction(e)) if e.is_retriable() && !e.txn_requires_abort() && started.elapsed() < PATIENCE => {}
                result => return result,
            }
        }
    }

    /// Writes some of a task's rows to its changelog.
    fn send_rows(&self, task: &TaskCommit<'_>, changelog: usize, rows: Range<usize>) -> KafkaResult<()> {
        let at = TopicPartition { topic: changelog, partition: task.partition };
        let topic = self.name(changelog);
        let last = task.rows.len().saturating_sub(1);
        for (n, (key, value)) in task.rows.iter().enumerate().take(rows.end).skip(rows.start) {
            // They are written in order: where the last one is, the others are before it.
            let watched = if n == last { pack(at) } else { 0 };
            self.send_raw(|| {
                let record = BaseRecord::with_opaque_to(topic, watched).partition(at.partition as i32).key(*key);
                match value {
                    Some(value) => record.payload(*value),
                    None => record,
                }
            })?;
        }
        Ok(())
    }

    fn send(&self, record: &NewRecord) -> KafkaResult<()> {
        let topic = self.name(record.to.topic);
        self.send_raw(|| {
            let mut message = BaseRecord::with_opaque_to(topic, 0).partition(record.to.partition as i32);
            if let Some(key) = &record.key {
                message = message.key(key.as_slice());
            }
            if let Some(value) = &record.value {
                message = message.payload(value.as_slice());
            }
            if !record.headers.is_empty() {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &record.headers {
                    headers = headers.insert(Header { key, value: Some(value.as_slice()) });
                }
                message = message.headers(headers);
            }
            message
        })
    }

    fn send_raw<'a>(&self, message: impl Fn() -> BaseRecord<'a, [u8], [u8], usize>) -> KafkaResult<()> {
        let started = Instant::now();
        let mut waiting = message();
        loop {
            match self.producer.send(waiting) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(STEP);
                    waiting = back;
                }
                Err((e, _)) => return Err(e),
            }
        }
    }

    /// What is known of the outcome after an error, and a producer that can go on.
    fn recover(&mut self, error: &KafkaError) -> CommitError {
        use RDKafkaErrorCode as E;
        let mut text = error.to_string();
        let mut code = error.rdkafka_error_code();
        if code == Some(E::Fatal)
            && let Some((cause, reason)) = self.producer.client().fatal_error()
        {
            code = Some(cause);
            text = format!("{text}: {reason}");
        }
        match code {
            Some(E::TransactionalIdAuthorizationFailed | E::TopicAuthorizationFailed | E::GroupAuthorizationFailed) => {
                return CommitError::Denied(format!("{text}; grant the rights that docs/kafka.md lists"));
            }
            // A new owner of partitions may have wanted a transaction decided. Of another process with this name the owners'
            // topic tells, and this is the last resort. Whether the static id is another's (FENCED_INSTANCE_ID) its member
            // knows: a membership that was lost and regained since is refused in the same words.
            Some(E::Fenced | E::InvalidProducerEpoch | E::ProducerFenced) if self.fences.again() => {
                return CommitError::Fenced(taken_over(&text, &self.id));
            }
            _ => {}
        }
        let abortable = match error {
            KafkaError::Transaction(e) => e.txn_requires_abort(),
            // Production errors come before the commit was asked for.
            KafkaError::MessageProduction(_) | KafkaError::SetPartitionOffset(_) | KafkaError::Flush(_) => true,
            _ => false,
        };
        if abortable {
            match self.producer.abort_transaction(PATIENCE) {
                Ok(()) => return CommitError::Aborted(text),
                Err(e) => text = format!("{text}; aborting it: {e}"),
            }
        }
        // The outcome is decided by initialising the id anew: an open transaction is aborted, a prepared one finished.
        self.broken = true;
        match self.mend() {
            Ok(()) => CommitError::Unknown(text),
            Err(e) => undecided(&format!("{text}; and then: "), e),
        }
    }
}

/// After an id that could not be initialised anew: tried again, unless no trial can help.
fn undecided(before: &str, error: LogError) -> CommitError {
    match error {
        LogError::Fatal(text) => CommitError::Denied(format!("{before}{text}")),
        e => CommitError::Unknown(format!("{before}{e}")),
    }
}

/// A producer that has taken `id` over: what a former holder left open is ended, and that one is fenced.
pub fn initialised(kafka: &Kafka, id: &str) -> Result<BaseProducer<WriterContext>, LogError> {
    let what = || format!("transactional id {id}");
    let mut trials = 0..ATTEMPTS;
    loop {
        let producer: BaseProducer<WriterContext> =
            kafka.transactional(id).create_with_context(WriterContext::default()).map_err(|e| classify(&what(), &e))?;
        let brief = match connect(producer.client()) {
            Ok(took) => trials.next().map(|_| AGAIN_AFTER.max(took * CONNECTIONS)),
            // Brokers that can't be reached are waited for, and named, by what follows.
            Err(_) => None,
        };
        match producer.init_transactions(brief.unwrap_or(PATIENCE)) {
            Ok(()) => return Ok(producer),
            Err(e) if brief.is_some() && passes(&e) => tracing::debug!(id, "asking again: {e}"),
            Err(e) => {
                return Err(match producer.client().fatal_error() {
                    Some((cause, _)) => classify(&what(), &KafkaError::Global(cause)),
                    None => lacking(classify(&what(), &e), e.rdkafka_error_code()),
                });
            }
        }
    }
}

/// Connects a client to a broker, and says how long that took. Without a connection it would look for the coordinator in vain,
/// and only after half a second again. The first answer about the cluster ends the connection that it came on, since librdkafka
/// 2.10: bootstrap servers are given up for the brokers that they name. So it is asked for twice.
fn connect<C: ClientContext>(client: &Client<C>) -> KafkaResult<Duration> {
    client.fetch_metadata(None, A_MOMENT)?;
    let known = Instant::now();
    client.fetch_metadata(None, A_MOMENT)?;
    Ok(known.elapsed())
}

/// As [`initialised`], and waits for brokers that are away for a while, and for a coordinator that reads its log after a crash:
/// a process may be started together with them.
fn started(kafka: &Kafka, id: &str) -> Result<BaseProducer<WriterContext>, LogError> {
    let began = Instant::now();
    loop {
        match initialised(kafka, id) {
            Err(LogError::Unavailable(why)) if began.elapsed() < awaited(kafka) => tracing::warn!(id, "waiting: {why}"),
            result => return result,
        }
    }
}

/// For how long what is not there may be waited for. A coordinator whose topic the cluster can't make never comes.
fn awaited(kafka: &Kafka) -> Duration {
    let client: KafkaResult<BaseProducer<WriterContext>> = kafka.plain().create_with_context(WriterContext::default());
    match client.and_then(|client| client.client().fetch_metadata(None, A_MOMENT)) {
        Err(_) => PASSING,
        Ok(cluster) if cluster.topics().iter().any(|t| t.name() == COORDINATORS_LOG) => LOADING,
        Ok(_) => Duration::ZERO,
    }
}

/// Whether it may go well a moment later: the coordinator has not answered yet, is being elected, or is still ending the
/// last transaction.
fn passes(e: &KafkaError) -> bool {
    matches!(e, KafkaError::Transaction(e) if e.is_retriable() && !e.is_fatal())
}

/// A cluster whose transaction coordinator never answers usually can't make the coordinator's topic.
fn lacking(error: LogError, code: Option<RDKafkaErrorCode>) -> LogError {
    match (error, code) {
        (LogError::Unavailable(text), Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::CoordinatorNotAvailable)) => {
            LogError::Unavailable(format!(
                "{text}; where all else of the cluster answers, it has fewer brokers than `transaction.state.log.replication.factor` asks \
                 for: lower it in the brokers' settings"
            ))
        }
        (error, _) => error,
    }
}
