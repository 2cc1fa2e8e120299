//! A constant load, and when the points of its orders can be read by whoever reads what is committed.

use crate::peer::run::PARTITIONS;
use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;
use tillflow_tests::{Kafka, until, until_some};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);
/// Whoever is no further behind has caught up.
const SOON: Duration = Duration::from_secs(1);
/// Longest wait for an order to count.
const LONG: Duration = Duration::from_secs(600);

/// One moment by both clocks: for spans, and for what other processes tell.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Of this process.
    pub at: Instant,
    /// Of the wall.
    pub wall: Timestamp,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { at: Instant::now(), wall: Timestamp::wall() }
    }

    /// The time since an earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        self.at.duration_since(earlier.at)
    }
}

/// A load under way.
pub struct Load {
    /// When each order was written, until it counts.
    written: Mutex<HashMap<String, Instant>>,
    /// Of each order that counts, in the order in which they do: when it was written, and when its points could be read.
    counted: Mutex<Vec<(Instant, Moment)>>,
    stop: AtomicBool,
}

#[derive(Deserialize)]
struct Update {
    order_id: String,
}

impl Load {
    /// Writes `rate` of these events a second to `events` while `work` is done, and reads `updates`.
    ///
    /// # Errors
    /// When the work fails.
    pub fn during<T>(
        kafka: &Kafka,
        (events, updates): (&str, &str),
        traffic: &mut (impl Iterator<Item = (String, String)> + Send),
        rate: u32,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let load = Self { written: Mutex::default(), counted: Mutex::default(), stop: AtomicBool::new(false) };
        thread::scope(|scope| {
            let end = End(&load.stop);
            let watch = scope.spawn(|| {
                let _end = End(&load.stop);
                load.watch(kafka, updates).context("reading updates")
            });
            let write = scope.spawn(|| {
                let _end = End(&load.stop);
                load.write(kafka, events, traffic, rate).context("writing events")
            });
            let done = work(&load);
            drop(end);
            for thread in [watch, write] {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of the load died")))?;
            }
            done
        })
    }

    /// Waits until an order counts soon after it was written. What came in while nobody processed would else hold up the next
    /// measurement, too.
    ///
    /// # Panics
    /// As `first_after`.
    pub fn catch_up(&self) {
        until("orders count soon after they were written", LONG, || {
            let now = Moment::now();
            self.first_after(now).since(now) < SOON
        });
    }

    /// The first moment at which an order counts that was written after this one.
    ///
    /// # Panics
    /// When none does for long, or the load has ended.
    pub fn first_after(&self, moment: Moment) -> Moment {
        until_some("an order counts that was written after a moment", LONG, || {
            assert!(!self.stop.load(Ordering::Acquire), "the load has ended");
            let counted = self.counted.lock();
            counted.iter().find(|(written, _)| *written > moment.at).map(|(_, at)| *at)
        })
    }

    fn write(&self, kafka: &Kafka, topic: &str, traffic: &mut impl Iterator<Item = (String, String)>, rate: u32) -> Result<()> {
        let mut config = kafka.client();
        config.set("partitioner", "murmur2_random").set("enable.idempotence", "true").set("linger.ms", "0");
        let producer: BaseProducer = config.create()?;
        let (began, mut sent) = (Instant::now(), 0.0);
        while !self.stop.load(Ordering::Acquire) {
            let due = began.elapsed().as_secs_f64() * f64::from(rate);
            while sent < due {
                let (user, event) = traffic.next().context("there is no more traffic")?;
                if let Some(order) = order(&event) {
                    self.written.lock().insert(order.to_owned(), Instant::now());
                }
                producer.send(BaseRecord::to(topic).key(&user).payload(&event)).map_err(|(e, _)| e)?;
                sent += 1.0;
            }
            producer.poll(Duration::ZERO);
            thread::sleep(TICK);
        }
        Ok(producer.flush(PATIENCE)?)
    }

    /// From the end of `topic` on, as committed.
    fn watch(&self, kafka: &Kafka, topic: &str) -> Result<()> {
        let mut config = kafka.client();
        config.set("group.id", "watch").set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create()?;
        let mut ends = TopicPartitionList::new();
        for partition in 0..PARTITIONS as i32 {
            let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
            ends.add_partition_offset(topic, partition, Offset::Offset(end))?;
        }
        consumer.assign(&ends)?;
        while !self.stop.load(Ordering::Acquire) {
            let Some(message) = consumer.poll(Duration::from_millis(20)) else { continue };
            let (message, now) = (message?, Moment::now());
            let update: Update = serde_json::from_slice(message.payload().unwrap_or_default())?;
            if let Some(written) = self.written.lock().remove(&update.order_id) {
                self.counted.lock().push((written, now));
            }
        }
        Ok(())
    }
}

/// Ends the load, also when the work panics or one of its threads fails: the others would else be waited for in vain.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The id of the order that an event completes.
fn order(event: &str) -> Option<&str> {
    event.split_once(r#""order_id":""#)?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_s_id_is_found_in_its_event() {
        let orders: Vec<_> = crate::load::events(1_000, 10, 10, 7).filter(|(_, e)| e.contains("order_completed")).collect();
        assert!(orders.iter().all(|(_, e)| order(e).is_some_and(|id| e.contains(&format!(r#""order_id":"{id}","total"#)))));
        assert_eq!(order(r#"{"event_type":"product_viewed"}"#), None);
    }
}
