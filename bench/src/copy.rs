//! The floor: the same bytes from one topic to another, transactionally, and nothing else.

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Between commits, as Tillflow's own under load.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// Copies all that `input` holds now to `output`; returns the seconds it took from the first record on.
///
/// # Errors
/// When the broker does not do what it is asked.
pub fn copy(brokers: &str, input: &str, output: &str) -> Result<f64> {
    let id = format!("copy-{}", std::process::id());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", &id)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", &id)
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "1000000")
        .create()?;
    producer.init_transactions(PATIENCE)?;
    let metadata = consumer.fetch_metadata(Some(input), PATIENCE)?;
    let partitions = metadata.topics().first().context("the topic is not there")?.partitions();
    let mut left = 0;
    for partition in partitions {
        left += consumer.fetch_watermarks(input, partition.id(), PATIENCE)?.1;
    }
    consumer.subscribe(&[input])?;
    let (mut started, mut open) = (None, None::<Instant>);
    let mut positions = BTreeMap::new();
    while left > 0 || open.is_some() {
        if let Some(message) = consumer.poll(Duration::from_millis(10)) {
            let message = message?;
            started.get_or_insert_with(Instant::now);
            if open.is_none() {
                producer.begin_transaction()?;
                open = Some(Instant::now());
            }
            let mut record = BaseRecord::to(output).key(message.key().unwrap_or_default()).payload(message.payload().unwrap_or_default());
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(1));
                record = back;
            }
            positions.insert(message.partition(), message.offset() + 1);
            left -= 1;
        }
        if open.is_some_and(|since| left == 0 || since.elapsed() >= COMMIT_EVERY) {
            let mut offsets = TopicPartitionList::new();
            for (partition, offset) in &positions {
                offsets.add_partition_offset(input, *partition, Offset::Offset(*offset))?;
            }
            producer.send_offsets_to_transaction(&offsets, &consumer.group_metadata().context("not a member")?, PATIENCE)?;
            producer.commit_transaction(PATIENCE)?;
            open = None;
        }
    }
    Ok(started.map_or(0.0, |at| at.elapsed().as_secs_f64()))
}
