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
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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
        config.set("message.timeout.ms", "10000");
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
            let mut message = BaseRecord::with_opaque_to(&topic, waiting.clone()).partition(record.to.partition as i32);
            if let Some(key) = &record.key {
                message = message.key(key.as_slice());
            }
            if let Some(value) = &record.value {
                message = message.payload(value.as_slice());
            }
            if !record.headers.is_empty() {
                let headers = record
                    .headers
                    .iter()
                    .fold(OwnedHeaders::new(), |h, (key, value)| h.insert(Header { key, value: Some(value.as_slice()) }));
                message = message.headers(headers);
            }
            if let Err((e, back)) = self.producer.send::<[u8], [u8]>(message) {
                back.delivery_opaque.done(Some(e.to_string()));
            }
        }
        waiting.done(None);
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        // What was accepted and not answered yet may still be delivered.
        let _ = self.producer.flush(Duration::from_secs(1));
    }
}
