//! What a task hands to the next commit: emissions, dead letters, re-keyed records, its own rows.

use super::Partition;
use crate::{
    log::{NewRecord, Record, TopicPartition},
    worker::{dead_letter, input::FOUND_IN},
};
use tillflow_engine_api::FailedTimer;
use tillflow_schemas::{Event, Keyed, TRACEPARENT, Timestamp, partition::partition};
use tillflow_state::StateError;

impl Partition {
    /// Puts a record that another client placed in a foreign partition where its id belongs, or any record of an input
    /// whose clients are not trusted to place them.
    pub(super) fn rekey(&mut self, record: &Record, event: &Event) -> bool {
        let (Some(id), Some(topic)) = (event.placed_by(), self.shared.rekeyed) else { return false };
        let own = self.task.place();
        let home = partition(id.as_bytes(), own.partitions);
        let untrusted = self.shared.catalog.topics().get(record.at.topic).is_some_and(|t| t.keyed == Keyed::Untrusted);
        if home == own.partition && !untrusted {
            return false;
        }
        let found_in = self.topic_name(record.at).to_owned();
        self.shared.metrics.rekeyed_total.with_label_values(&[&found_in]).inc();
        let mut headers = record.headers.clone();
        headers.push((FOUND_IN.into(), found_in.into_bytes()));
        self.raw.push(NewRecord {
            to: TopicPartition { topic, partition: home },
            at: event.time().unwrap_or(record.logged_at),
            // A guest's event has none: a key would be a user's id.
            key: event.key().map(|key| key.as_bytes().to_vec()),
            value: record.value.clone(),
            headers,
        });
        true
    }

    pub(super) fn dead_letter(&mut self, record: &Record, processor: &str, reason: &str) {
        let topic = self.topic_name(record.at).to_owned();
        self.shared.metrics.dead_letters_total.with_label_values(&[topic.as_str(), processor]).inc();
        tracing::debug!(topic, partition = record.at.partition, offset = record.offset, processor, "dead letter: {reason}");
        let at = self.task.clock().max(Timestamp::EARLIEST);
        self.raw.extend(dead_letter::of_record(&self.shared.catalog, record, processor, reason, at));
    }

    pub(super) fn bury(&mut self, failed: Vec<FailedTimer>) {
        for timer in failed {
            self.shared.metrics.dead_letters_total.with_label_values(&["timer", timer.processor]).inc();
            let (group, place) = (self.task.group().name, self.task.place());
            self.raw.extend(dead_letter::of_timer(&self.shared.catalog, group, place.partition, &timer));
        }
    }

    /// Whether a commit has something to write.
    pub fn is_dirty(&self) -> bool {
        self.moved || !self.claimed || self.task.is_dirty() || !self.raw.is_empty() || self.has_news()
    }

    /// Bytes waiting to be committed.
    pub fn pending_bytes(&self) -> usize {
        self.task.pending_bytes() + self.raw.iter().map(|r| r.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
    }

    /// Writes where it stands into its store and hands over what it emitted, for one transaction; with its watermark where
    /// watermarks are told in it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prepare(&mut self, tell: bool, records: &mut Vec<NewRecord>) -> Result<(), StateError> {
        let clock = self.task.clock().max(Timestamp::EARLIEST);
        let emissions =
            self.task.outbox_mut().take(clock).map_err(|e| StateError::Value { store: "outbox".into(), detail: e.to_string() })?;
        for emission in emissions {
            let Some(&topic) = self.shared.topics.get(emission.schema) else { continue };
            let Some(target) = self.shared.catalog.topics().get(topic) else { continue };
            self.counters.emitted(topic, target, &self.shared.metrics);
            let to = TopicPartition { topic, partition: partition(emission.key.as_bytes(), target.partitions) };
            let value = emission.value.map(|json| self.shared.codec.written(target, json));
            let headers = emission.trace.map_or_else(Vec::new, |trace| {
                tracing::debug!(trace_id = trace.id(), topic = target.name, key = emission.key, "emitting");
                vec![(TRACEPARENT.into(), trace.as_str().into())]
            });
            records.push(NewRecord { to, at: emission.at, key: Some(emission.key.into_bytes()), value, headers });
        }
        records.append(&mut self.raw);
        if let Some(claimant) = self.shared.config.claimant.as_ref().filter(|_| !self.claimed) {
            records.extend(claimant.claim(&self.shared.catalog, self.task.group().name, self.task.place().partition, clock));
        }
        if tell {
            self.announce(records);
        }
        self.meta().write(self.task.store_mut())
    }
}
