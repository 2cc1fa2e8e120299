//! Before a task runs: transactions that a former owner may have left open are decided.

use super::{
    client::{ANSWER, Kafka, classify},
    context::{MemberContext, Quiet, WriterContext},
};
use crate::log::{LogError, TopicPartition};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    producer::{BaseProducer, Producer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long committed offsets may take to become stable before the one who holds them back is fenced.
const PATIENCE: Duration = Duration::from_millis(300);
/// Longest wait in all: a transaction's timeout and a little more.
const LONGEST: Duration = Duration::from_secs(15);

/// The stable committed offsets of `inputs`.
///
/// Offsets carry the transactional id of the worker that committed them. A transaction of that id that is still open
/// holds them back until it times out; initialising a producer of that id decides it at once, and its owner, should
/// it wake, is fenced.
pub fn settle(
    kafka: &Kafka,
    member: &BaseConsumer<MemberContext>,
    group: &str,
    own: &str,
    inputs: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
    let list = kafka.list(inputs.iter().copied());
    let started = Instant::now();
    let mut fenced = BTreeSet::new();
    loop {
        match member.committed_offsets(list.clone(), PATIENCE) {
            Ok(committed) => return Ok(offsets(kafka, &committed)),
            Err(e) if started.elapsed() > LONGEST => return Err(classify("committed offsets", &e)),
            Err(e) => tracing::debug!(group, "committed offsets are not stable yet: {e}"),
        }
        for id in writers(kafka, group, &list)? {
            if id != own && fenced.insert(id.clone()) {
                tracing::info!(group, transactional_id = id, "deciding the transaction that a former owner left open");
                fence(kafka, &id)?;
            }
        }
    }
}

fn offsets(kafka: &Kafka, list: &TopicPartitionList) -> BTreeMap<TopicPartition, i64> {
    let elements = list.elements();
    let offsets = elements.iter().filter_map(|e| match e.offset() {
        Offset::Offset(offset) => Some((TopicPartition { topic: kafka.topic(e.topic())?, partition: e.partition() as u32 }, offset)),
        _ => None,
    });
    offsets.collect()
}

/// Who committed the offsets last, stable or not.
fn writers(kafka: &Kafka, group: &str, list: &TopicPartitionList) -> Result<BTreeSet<String>, LogError> {
    let mut config: ClientConfig = kafka.consumer(&kafka.group(group));
    config.set("isolation.level", "read_uncommitted");
    let reader: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(|e| classify("committed offsets", &e))?;
    let committed = reader.committed_offsets(list.clone(), ANSWER).map_err(|e| classify("committed offsets", &e))?;
    Ok(committed.elements().iter().map(|e| e.metadata().to_owned()).filter(|m| !m.is_empty()).collect())
}

fn fence(kafka: &Kafka, id: &str) -> Result<(), LogError> {
    let producer: KafkaResult<BaseProducer<WriterContext>> = kafka.transactional(id).create_with_context(WriterContext::default());
    let producer = producer.map_err(|e| classify("fencing", &e))?;
    producer.init_transactions(LONGEST).map_err(|e| classify("fencing", &e))
}
