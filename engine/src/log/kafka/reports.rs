//! Hears a producer's reports of delivery on a thread of their own.
//!
//! To commit or abort, librdkafka waits until all that was handed over is delivered and the reports of it are heard. While it
//! waits it sends at once what would otherwise wait for more (`linger.ms`), and it goes on the moment the last report is heard. So
//! whoever commits must not be the one who hears.

#![allow(unsafe_code, reason = "rdkafka's own flush hears the reports itself, and looks whether all are there every 100 ms")]

use super::context::WriterContext;
use crate::log::LogError;
use rdkafka::{
    bindings::rd_kafka_flush,
    error::{IsError, KafkaError, KafkaResult},
    producer::{BaseProducer, Producer},
};
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long the thread may hear nothing until it looks whether it is still needed. rdkafka polls without a rest for the last
/// millisecond of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A producer whose reports are heard.
pub struct Heard {
    producer: Arc<BaseProducer<WriterContext>>,
    given_up: Arc<AtomicBool>,
}

impl Heard {
    /// Begins to hear the reports of `producer`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn new(producer: BaseProducer<WriterContext>) -> Result<Self, LogError> {
        let (producer, given_up) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let (heard, over) = (producer.clone(), given_up.clone());
        let hear = move || {
            while !over.load(Ordering::Acquire) {
                heard.poll(LOOK_EVERY);
            }
        };
        std::thread::Builder::new()
            .name("reports".into())
            .spawn(hear)
            .map_err(|e| LogError::Unavailable(format!("a thread for reports of delivery: {e}")))?;
        Ok(Self { producer, given_up })
    }

    /// Sends all that was handed over, and waits until the reports of it are heard.
    ///
    /// # Errors
    /// When some are not within `limit`. Whether all was delivered is said by the transaction.
    pub fn flush(&self, limit: Duration) -> KafkaResult<()> {
        let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client lives as long as the producer, and librdkafka's calls may come from any thread.
        let flushed = unsafe { rd_kafka_flush(self.producer.client().native_ptr(), limit) };
        if flushed.is_error() { Err(KafkaError::Flush(flushed.into())) } else { Ok(()) }
    }
}

impl Deref for Heard {
    type Target = BaseProducer<WriterContext>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl Drop for Heard {
    /// The client ends once its thread has seen it: nobody waits for that.
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Release);
    }
}
