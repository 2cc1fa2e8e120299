//! A worker's transactional producer.

use super::{
    client::{Kafka, classify, taken_over},
    context::{WriterContext, pack},
};
use crate::log::{CommitError, LogError, NewRecord, Positions, TopicPartition, Transaction};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::time::{Duration, Instant};

/// Longest wait for the coordinator; the transaction's own timeout is 10 s.
const PATIENCE: Duration = Duration::from_secs(12);
/// Between a commit's end and the next transaction's first send: while the coordinator writes the last one's markers it
/// refuses a new one, and librdkafka then waits its whole retry backoff.
const PAUSE: Duration = Duration::from_millis(10);

/// A producer that is fenced as often within [`FENCED_WITHIN`] has a rival.
const FENCED_AT_MOST: usize = 3;
/// Once may be a new owner of partitions that wanted a transaction decided.
const FENCED_WITHIN: Duration = Duration::from_secs(60);

/// A worker's transactional producer.
pub struct Writer {
    kafka: Kafka,
    id: String,
    producer: BaseProducer<WriterContext>,
    last_commit: Option<Instant>,
    broken: bool,
    /// When it was fenced lately.
    fenced: Vec<Instant>,
}

impl Writer {
    /// Makes the producer and takes over its transactional id: an open transaction of a former life is decided.
    pub fn new(kafka: &Kafka, id: String) -> Result<Self, LogError> {
        let producer = initialised(kafka, &id)?;
        Ok(Self { kafka: kafka.clone(), id, producer, last_commit: None, broken: false, fenced: Vec::new() })
    }

    /// Its transactional id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes one transaction.
    pub fn commit(
        &mut self,
        transaction: &Transaction<'_>,
        changelog: usize,
        group: &ConsumerGroupMetadata,
    ) -> Result<Positions, CommitError> {
        if self.broken {
            self.producer = initialised(&self.kafka, &self.id).map_err(|e| undecided("", e))?;
            self.broken = false;
        }
        if let Some(rest) = self.last_commit.and_then(|at| PAUSE.checked_sub(at.elapsed())) {
            std::thread::sleep(rest);
        }
        self.producer.context().take();
        let written = self.write(transaction, changelog, group);
        self.last_commit = Some(Instant::now());
        match written {
            Ok(()) => {
                let delivered = self.producer.context().take();
                Ok(delivered.into_iter().map(|(at, next)| (at.partition, next)).collect())
            }
            Err(e) => Err(self.recover(&e)),
        }
    }

    fn write(&self, transaction: &Transaction<'_>, changelog: usize, group: &ConsumerGroupMetadata) -> KafkaResult<()> {
        self.producer.begin_transaction()?;
        for record in &transaction.records {
            self.send(record)?;
        }
        for task in &transaction.tasks {
            let at = TopicPartition { topic: changelog, partition: task.partition };
            let topic = self.kafka.name(changelog);
            for (key, value) in &task.rows {
                self.send_raw(|| {
                    let record = BaseRecord::with_opaque_to(&topic, pack(at)).partition(at.partition as i32).key(*key);
                    match value {
                        Some(value) => record.payload(*value),
                        None => record,
                    }
                })?;
            }
        }
        // librdkafka sends nothing for an empty list, and then nothing would fence a replaced worker.
        let mut offsets = TopicPartitionList::new();
        for (at, offset) in transaction.tasks.iter().flat_map(|t| &t.offsets) {
            let name = self.kafka.name(at.topic);
            offsets.add_partition_offset(&name, at.partition as i32, Offset::Offset(*offset))?;
            if let Some(mut element) = offsets.find_partition(&name, at.partition as i32) {
                element.set_metadata(&self.id);
            }
        }
        assert!(offsets.count() > 0, "a transaction without offsets fences nobody");
        self.producer.send_offsets_to_transaction(&offsets, group, PATIENCE)?;
        // Serves the delivery reports, which say how far the changelog was written.
        self.producer.flush(PATIENCE)?;
        self.commit_transaction()
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

    fn send(&self, record: &NewRecord) -> KafkaResult<()> {
        let topic = self.kafka.name(record.to.topic);
        self.send_raw(|| {
            let mut message = BaseRecord::with_opaque_to(&topic, 0).partition(record.to.partition as i32);
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
                    self.producer.poll(Duration::from_millis(5));
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
            Some(E::FencedInstanceId) => return CommitError::Fenced(taken_over(&text, &self.id)),
            Some(E::TransactionalIdAuthorizationFailed | E::TopicAuthorizationFailed | E::GroupAuthorizationFailed) => {
                return CommitError::Denied(format!("{text}; grant the rights that docs/kafka.md lists"));
            }
            Some(E::Fenced | E::InvalidProducerEpoch | E::ProducerFenced) => {
                self.fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
                self.fenced.push(Instant::now());
                if self.fenced.len() >= FENCED_AT_MOST {
                    return CommitError::Fenced(taken_over(&format!("{text}, {FENCED_AT_MOST} times within a minute"), &self.id));
                }
            }
            _ => {}
        }
        let abortable = match error {
            KafkaError::Transaction(e) => e.txn_requires_abort(),
            // Production errors come before the commit was asked for.
            KafkaError::MessageProduction(_) | KafkaError::SetPartitionOffset(_) | KafkaError::Flush(_) => true,
            _ => false,
        };
        if abortable && self.producer.abort_transaction(PATIENCE).is_ok() {
            return CommitError::Aborted(text);
        }
        // The outcome is decided by initialising the id anew: an open transaction is aborted, a prepared one finished.
        self.broken = true;
        match initialised(&self.kafka, &self.id) {
            Ok(producer) => {
                self.producer = producer;
                self.broken = false;
                CommitError::Unknown(text)
            }
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

fn initialised(kafka: &Kafka, id: &str) -> Result<BaseProducer<WriterContext>, LogError> {
    let what = || format!("transactional id {id}");
    let producer: BaseProducer<WriterContext> =
        kafka.transactional(id).create_with_context(WriterContext::default()).map_err(|e| classify(&what(), &e))?;
    producer.init_transactions(PATIENCE).map_err(|e| match producer.client().fatal_error() {
        Some((cause, _)) => classify(&what(), &KafkaError::Global(cause)),
        None => classify(&what(), &e),
    })?;
    Ok(producer)
}
