//! Before a task runs: transactions that a former owner may have left open are decided.

use super::{
    client::{ANSWER, Kafka, classify},
    context::{MemberContext, Quiet, WriterContext},
};
use crate::log::{LogError, TopicPartition};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    producer::{BaseProducer, Producer},
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long committed offsets may take to become stable before the one who holds them back is fenced.
const PATIENCE: Duration = Duration::from_millis(300);
/// Longest wait in all: after a transaction's timeout of 10 s and the 10 s at which coordinators look for such, no
/// transaction is open any more.
const LONGEST: Duration = Duration::from_secs(25);
/// Where one hangs, the others are not waited for as long.
const AGAIN: Duration = Duration::from_secs(1);

/// Waits until the committed offsets of `inputs` are stable.
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
    hangs: bool,
) -> Result<(), LogError> {
    let list = kafka.list(inputs.iter().copied());
    let started = Instant::now();
    let (mut fenced, longest) = (BTreeSet::new(), if hangs { AGAIN } else { LONGEST });
    let mut reader = None;
    loop {
        match member.committed_offsets(list.clone(), PATIENCE) {
            Ok(_) => return Ok(()),
            Err(e) if started.elapsed() > longest => return Err(classify("committed offsets", &e)),
            Err(e) => tracing::debug!(group, "committed offsets are not stable yet: {e}"),
        }
        let reader = match &mut reader {
            Some(reader) => reader,
            none => none.insert(undecided_too(kafka, group)?),
        };
        for id in writers(reader, &list)? {
            if id != own && fenced.insert(id.clone()) {
                tracing::info!(group, transactional_id = id, "deciding the transaction that a former owner left open");
                fence(kafka, &id)?;
            }
        }
    }
}

/// A client that asks for offsets, stable or not.
fn undecided_too(kafka: &Kafka, group: &str) -> Result<BaseConsumer<Quiet>, LogError> {
    let mut config: ClientConfig = kafka.consumer(&kafka.group(group));
    config.set("isolation.level", "read_uncommitted");
    config.create_with_context(Quiet).map_err(|e| classify("committed offsets", &e))
}

/// Who committed the offsets last, stable or not.
fn writers(reader: &BaseConsumer<Quiet>, list: &TopicPartitionList) -> Result<BTreeSet<String>, LogError> {
    let committed = reader.committed_offsets(list.clone(), ANSWER).map_err(|e| classify("committed offsets", &e))?;
    Ok(committed.elements().iter().map(|e| e.metadata().to_owned()).filter(|m| !m.is_empty()).collect())
}

fn fence(kafka: &Kafka, id: &str) -> Result<(), LogError> {
    let producer: KafkaResult<BaseProducer<WriterContext>> = kafka.transactional(id).create_with_context(WriterContext::default());
    let producer = producer.map_err(|e| classify("fencing", &e))?;
    producer.init_transactions(LONGEST).map_err(|e| classify("fencing", &e))
}
