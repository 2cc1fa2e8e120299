//! The gateway's records onto Kafka: an idempotent producer outside any transaction.

use super::client::{Kafka, classify};
use crate::{
    append::{Answer, Appender},
    log::{LogError, NewRecord},
    port::PortError,
};
use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// How long a record may take to be written.
const TIMEOUT_MS: &str = "10000";
/// How long a look for what was written waits.
const STEP: Duration = Duration::from_millis(5);

/// One request: answered when its last record is.
struct Waiting {
    left: AtomicUsize,
    failure: Mutex<Option<String>>,
    answer: Mutex<Option<Answer>>,
}

impl Waiting {
    fn done(&self, failure: Option<String>) {
        if let Some(failure) = failure {
            self.failure.lock().get_or_insert(failure);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(answer) = self.answer.lock().take()
        {
            let outcome = self.failure.lock().take().map_or(Ok(()), |e| Err(PortError::Unavailable(e)));
            // Who asked may have gone.
            let _ = answer.send(outcome);
        }
    }
}

struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Arc<Waiting>) {
        waiting.done(result.as_ref().err().map(|(e, _)| e.to_string()));
    }
}

/// Appends the gateway's records.
pub struct KafkaAppender {
    kafka: Kafka,
    producer: ThreadedProducer<Deliveries>,
}

impl KafkaAppender {
    /// An appender with its own connection.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn new(kafka: &Kafka) -> Result<Self, LogError> {
        let mut config = kafka.producer();
        config.set("message.timeout.ms", TIMEOUT_MS);
        let producer = config.create_with_context(Deliveries).map_err(|e| classify("making a producer", &e))?;
        Ok(Self { kafka: kafka.clone(), producer })
    }
}

impl Appender for KafkaAppender {
    fn append(&self, records: Vec<NewRecord>, answer: Answer) {
        // One more than there are records, so that it is not answered before all are sent.
        let waiting =
            Arc::new(Waiting { left: AtomicUsize::new(records.len() + 1), failure: Mutex::new(None), answer: Mutex::new(Some(answer)) });
        for record in &records {
            let topic = self.kafka.name(record.to.topic);
            if let Err((e, back)) = self.producer.send(message(&topic, record, &waiting)) {
                back.delivery_opaque.done(Some(e.to_string()));
            }
        }
        waiting.done(None);
    }
}

fn message<'a>(topic: &'a str, record: &'a NewRecord, waiting: &Arc<Waiting>) -> BaseRecord<'a, [u8], [u8], Arc<Waiting>> {
    let mut message = BaseRecord::with_opaque_to(topic, waiting.clone()).partition(record.to.partition as i32);
    if let Some(key) = &record.key {
        message = message.key(key.as_slice());
    }
    if let Some(value) = &record.value {
        message = message.payload(value.as_slice());
    }
    if !record.headers.is_empty() {
        let add = |h: OwnedHeaders, (key, value): &(String, Vec<u8>)| h.insert(Header { key, value: Some(value.as_slice()) });
        message = message.headers(record.headers.iter().fold(OwnedHeaders::new(), add));
    }
    message
}

/// Writes a few records that do no harm twice, and returns once they are written. Not by the appender: an idempotent
/// producer asks for an id first, and where its connection is new it looks again only after half a second.
///
/// # Errors
/// When they can't be written.
pub fn write_now(kafka: &Kafka, records: &[NewRecord]) -> Result<(), LogError> {
    let mut config = kafka.plain();
    config.set("linger.ms", "0").set("message.timeout.ms", TIMEOUT_MS);
    let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries).map_err(|e| classify("making a producer", &e))?;
    let (answer, mut answered) = oneshot::channel();
    let waiting =
        Arc::new(Waiting { left: AtomicUsize::new(records.len() + 1), failure: Mutex::new(None), answer: Mutex::new(Some(answer)) });
    for record in records {
        let topic = kafka.name(record.to.topic);
        if let Err((e, back)) = producer.send(message(&topic, record, &waiting)) {
            back.delivery_opaque.done(Some(e.to_string()));
        }
    }
    waiting.done(None);
    loop {
        match answered.try_recv() {
            Ok(outcome) => return outcome.map_err(|e| LogError::Unavailable(e.to_string())),
            Err(_) => {
                producer.poll(STEP);
            }
        }
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        // What was accepted and not answered yet may still be delivered.
        let _ = self.producer.flush(Duration::from_secs(1));
    }
}
