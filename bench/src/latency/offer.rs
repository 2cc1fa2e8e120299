//! Sends events when they are due, whether or not the ones before were taken yet.

use super::traffic::Traffic;
use anyhow::{Result, anyhow};
use parking_lot::Mutex;
use rdkafka::{
    error::KafkaError,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;
use tillflow_tests::Kafka;
use tokio::{runtime::Handle, sync::Semaphore};

/// Keep-alive connections to the gateway, at most; events wait for one, and their time goes on meanwhile.
const CONNECTIONS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(600);

/// When events are due: number 0 at `started`, which by the wall clock is `wall`.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The moment.
    pub started: Instant,
    /// The same moment, for timestamps.
    pub wall: Timestamp,
    /// So many events are sent.
    pub events: usize,
}

impl Start {
    /// Calls `send` with each event when it is due; late ones at once.
    fn pace(&self, traffic: &Traffic, mut send: impl FnMut(String, String, usize) -> Result<()>) -> Result<()> {
        for n in 0..self.events {
            let due = traffic.due(n);
            let at = Timestamp::from_millis(self.wall.millis() + due.as_millis() as i64);
            let (key, value) = traffic.record(n, at);
            let value = value.to_string();
            std::thread::sleep((self.started + due).saturating_duration_since(Instant::now()));
            send(key, value, n)?;
        }
        Ok(())
    }
}

/// What came of the sending itself.
#[derive(Debug, Default)]
pub struct Offered {
    /// How long each took until it was accepted, from when it was due, by its number; empty where nobody answers.
    pub accepted: Vec<(usize, Duration)>,
    /// How many were refused.
    pub refused: usize,
}

/// Writes to a topic, with linger 0.
///
/// # Errors
/// When the broker does not take them.
pub fn to_kafka(kafka: &Kafka, topic: &str, traffic: &Traffic, start: Start) -> Result<Offered> {
    let mut config = kafka.client();
    config.set("partitioner", "murmur2_random").set("linger.ms", "0").set("socket.nagle.disable", "true");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    // Connected to all partitions before the first is due.
    producer.client().fetch_metadata(Some(topic), PATIENCE)?;
    let mut refused = 0;
    start.pace(traffic, |key, value, _| match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
            refused += 1;
            Ok(())
        }
        sent => sent.map_err(|(error, _)| anyhow!("writing to {topic}: {error}")),
    })?;
    // What a broker that can't keep up takes later counts, too.
    producer.flush(LONG)?;
    Ok(Offered { accepted: Vec::new(), refused })
}

/// Posts each event by itself, several at a time over connections that stay.
///
/// # Errors
/// When the gateway can't be called.
pub fn to_gateway(runtime: &Handle, url: &str, traffic: &Traffic, start: Start) -> Result<Offered> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let (url, places) = (format!("{url}/v1/events"), Arc::new(Semaphore::new(CONNECTIONS)));
    let (accepted, refused) = (Arc::new(Mutex::new(Vec::with_capacity(start.events))), Arc::new(AtomicUsize::new(0)));
    let mut posts = Vec::with_capacity(start.events);
    start.pace(traffic, |_, value, n| {
        let request = client.post(&url).header("content-type", "application/json").body(value);
        let (places, accepted, refused, due) = (places.clone(), accepted.clone(), refused.clone(), start.started + traffic.due(n));
        posts.push(runtime.spawn(async move {
            // Never closed.
            let _place = places.acquire().await;
            // The body is read, so that the connection is free for the next.
            let answer = async { request.send().await?.error_for_status()?.bytes().await };
            match answer.await {
                Ok(_) => accepted.lock().push((n, due.elapsed())),
                Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
            }
        }));
        Ok(())
    })?;
    posts.into_iter().try_for_each(|post| runtime.block_on(post))?;
    let accepted = std::mem::take(&mut *accepted.lock());
    Ok(Offered { accepted, refused: refused.load(Ordering::Relaxed) })
}
