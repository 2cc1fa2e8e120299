//! The floor of a restore: a plain consumer that reads the changelogs, and write batches into RocksDB.

use crate::peer::{
    instance::{CACHE, WRITE_BUFFERS},
    run::PARTITIONS,
};
use anyhow::{Context, Result};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde::Serialize;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tillflow_state::{Directory, Durability, Shared};
use tillflow_tests::Kafka;

/// Records in a write batch at most, as in a restore of the engine.
const BATCH: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// How fast changelogs were read into stores.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Restored {
    records: f64,
    mb: f64,
    seconds: f64,
    records_a_second: f64,
    mb_a_second: f64,
}

impl Restored {
    fn new(records: f64, mb: f64, seconds: f64) -> Self {
        Self { records, mb, seconds, records_a_second: records / seconds, mb_a_second: mb / seconds }
    }

    /// So many records as large as these, on average.
    pub fn alike(self, records: f64, seconds: f64) -> Self {
        Self::new(records, self.mb * records / self.records, seconds)
    }
}

/// Reads these topics from their beginning to their end into stores under `data`, on one thread.
///
/// # Errors
/// When they can't be read or written.
pub fn restore(kafka: &Kafka, topics: &[String], data: &Path) -> Result<Restored> {
    let mut config = kafka.client();
    config.set("group.id", "bare").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("isolation.level", "read_committed");
    // As the engine's.
    config.set("fetch.wait.max.ms", "50").set("queued.max.messages.kbytes", "16384").set("fetch.message.max.bytes", "2097152");
    let consumer: BaseConsumer = config.create()?;
    let shared = Shared::new(CACHE, WRITE_BUFFERS);
    let (mut all, mut stores) = (TopicPartitionList::new(), Vec::new());
    for (number, topic) in topics.iter().enumerate() {
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
            stores.push(Directory::open(&data.join(format!("{number}-{partition}")), &[], &shared)?);
        }
    }
    consumer.assign(&all)?;
    let (started, mut left, mut records, mut bytes) = (Instant::now(), all.count(), 0, 0);
    while left > 0 {
        let (mut batches, mut waiting): (Vec<_>, _) = (stores.iter().map(|_| Vec::new()).collect(), 0);
        while waiting < BATCH && left > 0 {
            match consumer.poll(PATIENCE).context("the changelogs can't be read to their end")? {
                Ok(message) => {
                    let topic = topics.iter().position(|topic| topic == message.topic());
                    let place = topic.map(|number| number * PARTITIONS as usize + message.partition() as usize);
                    let batch: &mut Vec<_> = place.and_then(|place| batches.get_mut(place)).context("a partition nobody asked for")?;
                    bytes += message.key_len() + message.payload_len();
                    batch.push(message);
                    waiting += 1;
                }
                Err(KafkaError::PartitionEOF(_)) => left -= 1,
                Err(e) => return Err(e.into()),
            }
        }
        records += waiting;
        for (store, batch) in stores.iter().zip(&batches).filter(|(_, batch)| !batch.is_empty()) {
            store.write(batch.iter().filter_map(|m| Some(("default", m.key()?, m.payload()))), Durability::Volatile)?;
        }
    }
    Ok(Restored::new(records as f64, bytes as f64 / 1e6, started.elapsed().as_secs_f64()))
}
