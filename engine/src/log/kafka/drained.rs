//! Whether everything that is on the cluster has been processed and committed.

use super::{
    client::{ANSWER, Kafka, classify},
    context::Quiet,
    worker::numbers,
};
use crate::log::{LogError, TopicPartition};
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
};
use std::collections::BTreeMap;

/// Whether the committed offsets of all groups stand at the last stable offsets of all their inputs.
///
/// # Errors
/// When the cluster does not answer.
pub fn drained(kafka: &Kafka, groups: &[(&'static str, Vec<usize>, u32)]) -> Result<bool, LogError> {
    let before = look(kafka, groups)?;
    let done = before.iter().all(|(committed, end)| {
        committed.iter().all(|(at, offset)| end.get(at).is_none_or(|e| offset >= e))
            && end.iter().all(|(at, e)| *e == 0 || committed.contains_key(at))
    });
    // Between two looks of which nothing moved, nothing was under way.
    Ok(done && look(kafka, groups)? == before)
}

type Offsets = BTreeMap<TopicPartition, i64>;

fn look(kafka: &Kafka, groups: &[(&'static str, Vec<usize>, u32)]) -> Result<Vec<(Offsets, Offsets)>, LogError> {
    let mut all = Vec::new();
    for (group, inputs, partitions) in groups {
        let client: BaseConsumer<Quiet> =
            kafka.consumer(&kafka.group(group)).create_with_context(Quiet).map_err(|e| classify("committed offsets", &e))?;
        let inputs = inputs.iter().flat_map(|&topic| (0..*partitions).map(move |partition| TopicPartition { topic, partition }));
        let list = kafka.list(inputs);
        let committed = client.committed_offsets(list.clone(), ANSWER).map_err(|e| classify("committed offsets", &e))?;
        let mut ends = list;
        ends.set_all_offsets(Offset::End).map_err(|e| classify("ends", &e))?;
        let ends = client.offsets_for_times(ends, ANSWER).map_err(|e| classify("ends", &e))?;
        all.push((numbers(kafka, &committed).into_iter().collect(), numbers(kafka, &ends).into_iter().collect()));
    }
    Ok(all)
}
