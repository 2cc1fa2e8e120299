//! A worker's way to the embedded log. Its partitions are fixed: one process, nothing to rebalance.

use super::{Embedded, NotWritten};
use crate::log::{CommitError, Log, LogError, Membership, Opened, Polled, Positions, Reader, TopicPartition, Transaction};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tillflow_state::Store;

/// Records delivered of one input in one poll, at most.
const BATCH: usize = 1_000;

/// Consumed records of a partition that are deleted at once, at least. RocksDB goes through all range deletions of its write
/// buffer again when there is one more: one a commit took more than a core at a hundred events a second.
const PURGED_AT_ONCE: i64 = 5_000;

/// A worker's way to the embedded log.
pub struct EmbeddedLog {
    log: Embedded,
    group: &'static str,
    partitions: Vec<u32>,
    announced: bool,
    positions: BTreeMap<TopicPartition, i64>,
    paused: BTreeSet<TopicPartition>,
    /// Up to where consumed records were deleted.
    purged: BTreeMap<TopicPartition, i64>,
}

impl EmbeddedLog {
    /// The way of the worker of `group` that owns `partitions`.
    pub fn new(log: &Embedded, group: &'static str, partitions: Vec<u32>) -> Self {
        Self {
            log: log.clone(),
            group,
            partitions,
            announced: false,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            purged: BTreeMap::new(),
        }
    }
}

impl Log for EmbeddedLog {
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        if !self.announced {
            self.announced = true;
            return Ok(Polled { changes: vec![Membership::Assigned(self.partitions.clone())], ..Polled::default() });
        }
        let seen = self.log.writes();
        let mut records = Vec::new();
        for (&at, position) in self.positions.iter_mut().filter(|(at, _)| !self.paused.contains(at)) {
            let (batch, next) = self.log.read_on(at, *position, BATCH)?;
            *position = next;
            records.extend(batch);
        }
        if records.is_empty() && !timeout.is_zero() {
            self.log.wait(seen, timeout);
        }
        Ok(Polled { records, changes: Vec::new() })
    }

    fn open(&mut self, partition: u32) -> Result<Opened, LogError> {
        self.log.mend()?;
        let backend = self.log.state(self.group, partition);
        Ok(Opened { store: Store::new(Box::new(backend.clone())), snapshots: Arc::new(backend), changelog: None })
    }

    fn settle(&mut self, _: u32, _: &[TopicPartition]) -> Result<bool, LogError> {
        Ok(true)
    }

    fn start(&mut self, inputs: &[(TopicPartition, Option<i64>)]) -> Result<(), LogError> {
        for &(at, offset) in inputs {
            let offset = offset.map_or_else(|| self.log.begin(at), Ok)?;
            self.positions.insert(at, offset);
            self.paused.remove(&at);
        }
        Ok(())
    }

    fn pause(&mut self, input: TopicPartition, paused: bool) -> Result<(), LogError> {
        if paused {
            self.paused.insert(input);
        } else {
            self.paused.remove(&input);
        }
        Ok(())
    }

    fn has_more(&self, input: TopicPartition, position: i64) -> bool {
        position < self.log.end(input)
    }

    fn lag(&self, input: TopicPartition, position: i64) -> i64 {
        (self.log.end(input) - position).max(0)
    }

    fn reached(&self, input: TopicPartition) -> i64 {
        self.positions.get(&input).copied().unwrap_or(0)
    }

    fn release(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        self.positions.retain(|at, _| !partitions.contains(&at.partition));
        Ok(())
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Positions, CommitError> {
        let state = transaction.tasks.iter().flat_map(|task| {
            let backend = self.log.state(self.group, task.partition);
            task.rows.iter().map(move |(key, value)| (backend.row(key), *value))
        });
        match self.log.write(&transaction.records, state) {
            Ok(()) => Ok(Positions::new()),
            // Whoever writes next opens the storage again, perhaps before this is looked at.
            Err(NotWritten::Perhaps(e)) => Err(CommitError::Unknown(e.to_string())),
            Err(NotWritten::Nothing(e)) => Err(e.into()),
        }
    }

    fn changelog(&mut self) -> Option<&mut dyn Reader> {
        None
    }

    fn purge(&mut self, before: &[(TopicPartition, i64)]) {
        for &(at, offset) in before {
            let purged = self.purged.entry(at).or_default();
            if offset - *purged < PURGED_AT_ONCE {
                continue;
            }
            *purged = offset;
            if let Err(e) = self.log.purge(at, offset) {
                tracing::warn!(topic = at.topic, partition = at.partition, "consumed records can't be deleted: {e}");
            }
        }
    }

    fn close(&mut self, _: bool) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::NewRecord;
    use tillflow_schemas::{Catalog, Timestamp};
    use tillflow_state::{Durability, Shared};

    #[test]
    fn consumed_records_are_deleted_many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::built_in(1).unwrap();
        let log = Embedded::open(dir.path(), &catalog, Durability::Process, &Shared::new(8 << 20, 4 << 20)).unwrap();
        let at = TopicPartition { topic: catalog.index("user_events").unwrap(), partition: 0 };
        let record = |n: i64| NewRecord { to: at, at: Timestamp::from_millis(n), key: None, value: Some(vec![0]), headers: Vec::new() };
        let records: Vec<_> = (0..3 * PURGED_AT_ONCE).map(record).collect();
        log.write(&records, std::iter::empty()).unwrap();

        let mut worker = EmbeddedLog::new(&log, "customers", vec![0]);
        let mut begins = Vec::new();
        for consumed in [1, PURGED_AT_ONCE - 1, PURGED_AT_ONCE + 7, 2 * PURGED_AT_ONCE + 6, 2 * PURGED_AT_ONCE + 7] {
            worker.purge(&[(at, consumed)]);
            begins.push(log.begin(at).unwrap());
        }
        assert_eq!(begins, [0, 0, PURGED_AT_ONCE + 7, PURGED_AT_ONCE + 7, 2 * PURGED_AT_ONCE + 7]);
    }
}
