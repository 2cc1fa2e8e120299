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
    consumed: Before,
    done: Before,
    asked: Instant,
    under_way: Option<JoinHandle<Before>>,
}

impl Purge {
    /// Nothing was consumed or deleted yet.
    pub fn new(kafka: &Kafka) -> Self {
        Self { kafka: kafka.clone(), consumed: Before::new(), done: Before::new(), asked: Instant::now(), under_way: None }
    }

    /// Learns what was consumed, for [`Self::go_on`].
    pub fn consumed(&mut self, before: &[(TopicPartition, i64)]) {
        self.consumed.extend(before.iter().copied());
    }

    /// Has the cluster delete what was consumed, once that is worth while; never waits. To be called also when nothing is
    /// consumed any more: the last records come while the request before is under way, or sooner than the next is due.
    pub fn go_on(&mut self) {
        let Purging { every, records } = self.kafka.settings.purging;
        if self.asked.elapsed() < every || self.under_way.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        if let Some(thread) = self.under_way.take() {
            self.done.extend(thread.join().unwrap_or_default());
        }
        let Some(news) = worth_while(&self.consumed, &self.done, records) else { return };
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

/// What is consumed and not deleted, where that is at least so many records.
fn worth_while(consumed: &Before, done: &Before, records: i64) -> Option<Before> {
    let more = |at, offset: i64| offset - done.get(at).unwrap_or(&0);
    let news: Before = consumed.iter().filter(|(at, offset)| more(at, **offset) > 0).map(|(at, offset)| (*at, *offset)).collect();
    let sum: i64 = news.iter().map(|(at, offset)| more(at, *offset)).sum();
    (sum >= records.max(1)).then_some(news)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_waits_until_enough_more_is_consumed_in_all() {
        let before = |offsets: [i64; 2]| -> Before { (0..).map(|partition| TopicPartition { topic: 0, partition }).zip(offsets).collect() };
        let news = |consumed, done, records| worth_while(&before(consumed), &before(done), records);
        assert_eq!(news([9, 10], [0, 0], 20), None);
        assert_eq!(news([10, 10], [0, 0], 20), Some(before([10, 10])));
        assert_eq!(news([10, 10], [10, 10], 0), None, "nothing to delete is never worth while");
        assert_eq!(news([30, 10], [10, 10], 20).map(|n| n.len()), Some(1), "only what is new is asked for");
    }
}
