//! Deletes what was consumed of internal topics: now and then, in the background.

use super::{
    client::{ANSWER, Kafka},
    context::Quiet,
};
use crate::log::TopicPartition;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
};
use std::{
    collections::BTreeMap,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How sparingly consumed records are deleted.
#[derive(Clone, Copy, Debug)]
pub struct Purging {
    /// A worker asks at most as often.
    pub every: Duration,
    /// Only when as many records more are consumed.
    pub records: i64,
}

impl Default for Purging {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), records: 10_000 }
    }
}

/// Offsets before which records are to go.
type Before = BTreeMap<TopicPartition, i64>;

/// A worker's deletions.
pub struct Purge {
    kafka: Kafka,
    done: Before,
    asked: Instant,
    under_way: Option<JoinHandle<Before>>,
}

impl Purge {
    /// Nothing was deleted yet.
    pub fn new(kafka: &Kafka) -> Self {
        Self { kafka: kafka.clone(), done: Before::new(), asked: Instant::now(), under_way: None }
    }

    /// Has the cluster delete what was consumed, once that is worth while; never waits.
    pub fn consumed(&mut self, before: &[(TopicPartition, i64)]) {
        let Purging { every, records } = self.kafka.settings.purging;
        if self.asked.elapsed() < every {
            return;
        }
        match self.under_way.take() {
            Some(thread) if !thread.is_finished() => {
                self.under_way = Some(thread);
                return;
            }
            Some(thread) => self.done.extend(thread.join().unwrap_or_default()),
            None => {}
        }
        let more = |(at, offset): &(TopicPartition, i64)| offset - self.done.get(at).unwrap_or(&0);
        let news: Before = before.iter().filter(|b| more(b) > 0).copied().collect();
        if before.iter().map(more).filter(|n| *n > 0).sum::<i64>() < records {
            return;
        }
        self.asked = Instant::now();
        let kafka = self.kafka.clone();
        self.under_way = Some(std::thread::spawn(move || match delete(&kafka, &news) {
            Ok(deleted) => deleted,
            Err(reason) => {
                tracing::warn!("consumed records of internal topics stay on the cluster for now: {reason}");
                Before::new()
            }
        }));
    }
}

/// Deletes; returns what the cluster did delete.
fn delete(kafka: &Kafka, before: &Before) -> Result<Before, String> {
    // A client for each request: they are rare, and connections would be kept for nothing.
    let admin: AdminClient<Quiet> = kafka.producer().create_with_context(Quiet).map_err(|e| e.to_string())?;
    let mut list = TopicPartitionList::new();
    for (at, offset) in before {
        list.add_partition_offset(&kafka.name(at.topic), at.partition as i32, Offset::Offset(*offset)).map_err(|e| e.to_string())?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let answer = runtime.block_on(admin.delete_records(&list, &options)).map_err(|e| e.to_string())?;
    let mut deleted = Before::new();
    for element in answer.elements() {
        match element.error() {
            Ok(()) => {
                let at = kafka.topic(element.topic()).map(|topic| TopicPartition { topic, partition: element.partition() as u32 });
                deleted.extend(at.and_then(|at| Some((at, *before.get(&at)?))));
            }
            Err(e) => tracing::warn!(topic = element.topic(), partition = element.partition(), "consumed records can't be deleted: {e}"),
        }
    }
    Ok(deleted)
}
