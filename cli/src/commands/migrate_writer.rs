//! The one transaction of a migration, and the offsets that its records got.

use anyhow::{Context, Result, anyhow};
use rdkafka::{
    ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};
use tillflow_engine::log::{Record, kafka::Kafka};

/// Longest wait for the coordinator.
const ANSWER: Duration = Duration::from_secs(60);
/// How long room in the producer's queue is waited for.
const ROOM: Duration = Duration::from_secs(60);

/// What delivery reports tell.
#[derive(Default)]
struct Told {
    /// The offset behind the last record of a partition that lies before a mark.
    positions: HashMap<(String, i32), Vec<Option<i64>>>,
    failure: Option<KafkaError>,
}

/// Keeps what delivery reports tell. A record's opaque is a bit for each mark that it lies before.
struct Reports {
    told: Mutex<Told>,
    marks: usize,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, before: usize) {
        let Ok(mut told) = self.told.lock() else { return };
        match result {
            Ok(message) if before != 0 => {
                let positions =
                    told.positions.entry((message.topic().to_owned(), message.partition())).or_insert_with(|| vec![None; self.marks]);
                for (_, position) in positions.iter_mut().enumerate().filter(|(mark, _)| before & (1 << mark) != 0) {
                    *position = (*position).max(Some(message.offset() + 1));
                }
            }
            Ok(_) => {}
            Err((e, _)) => drop(told.failure.get_or_insert_with(|| e.clone())),
        }
    }
}

/// The producer of the migration.
pub struct Writer {
    producer: ThreadedProducer<Reports>,
}

impl Writer {
    /// Takes over the migration's transactional id: what an earlier one left open is aborted.
    ///
    /// # Errors
    /// When the cluster refuses, for one because the transaction may not take so long.
    pub fn open(kafka: &Kafka, longest: Duration, marks: usize) -> Result<Self> {
        let mut config = kafka.transactional(&format!("{}.migrate", kafka.settings.app_id));
        config.set("transaction.timeout.ms", longest.as_millis().to_string());
        let reports = Reports { told: Mutex::default(), marks };
        let producer: ThreadedProducer<Reports> = config.create_with_context(reports)?;
        producer.init_transactions(ANSWER).map_err(|e| match e.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InvalidTransactionTimeout) => {
                anyhow!(
                    "the cluster does not let a transaction take {} minutes: give fewer --minutes, or raise its transaction.max.timeout.ms",
                    longest.as_secs() / 60
                )
            }
            _ => anyhow!(e).context("the cluster does not give a transaction"),
        })?;
        Ok(Self { producer })
    }

    /// Begins the transaction.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn begin(&self) -> Result<()> {
        Ok(self.producer.begin_transaction()?)
    }

    /// Sends a record to its partition; `before` are the marks that it lies before, such as a
    /// group's position.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn record(&self, topic: &str, record: &Record, before: impl Iterator<Item = usize>) -> Result<()> {
        let before = before.fold(0, |bits, mark| bits | 1 << mark);
        self.send(|| {
            let mut message = BaseRecord::with_opaque_to(topic, before).partition(record.at.partition as i32);
            if let Some(key) = &record.key {
                message = message.key(key.as_slice());
            }
            if let Some(value) = &record.value {
                message = message.payload(value.as_slice());
            }
            if !record.headers.is_empty() {
                let headers = record.headers.iter();
                message = message.headers(
                    headers.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value.as_slice()) })),
                );
            }
            message
        })
    }

    /// Sends a row of a changelog.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn row(&self, topic: &str, partition: u32, key: &[u8], value: &[u8]) -> Result<()> {
        self.send(|| BaseRecord::with_opaque_to(topic, 0).partition(partition as i32).key(key).payload(value))
    }

    fn send<'a>(&self, message: impl Fn() -> BaseRecord<'a, [u8], [u8], usize>) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.producer.send(message()) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if started.elapsed() < ROOM => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((e, message)) => return Err(anyhow!(e).context(format!("a record of {}", message.topic))),
            }
        }
    }

    /// Waits until all that was sent is written.
    ///
    /// # Errors
    /// When a record was not.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(24 * 3_600)).context("waiting for the cluster to take the records")?;
        let failure = self.producer.context().told.lock().ok().and_then(|told| told.failure.clone());
        failure.map_or(Ok(()), |e| Err(anyhow!(e).context("the cluster did not take a record")))
    }

    /// The offset behind the last record of a partition that lies before a mark. To be asked after a flush.
    pub fn position(&self, mark: usize, topic: &str, partition: u32) -> Option<i64> {
        let told = self.producer.context().told.lock().ok()?;
        *told.positions.get(&(topic.to_owned(), partition as i32))?.get(mark)?
    }

    /// Commits: from now on all of it is there.
    ///
    /// # Errors
    /// When the outcome is not known.
    pub fn commit(&self) -> Result<()> {
        Ok(self.producer.commit_transaction(ANSWER)?)
    }

    /// Aborts, as far as the cluster can be reached; else it does so itself when the transaction's time is over.
    pub fn abort(&self) {
        if let Err(e) = self.producer.abort_transaction(ANSWER) {
            tracing::warn!("the cluster aborts the transaction by itself once its time is over: {e}");
        }
    }
}
