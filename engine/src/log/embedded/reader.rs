//! Reads topics of the embedded log outside any group.

use super::Embedded;
use crate::log::{LogError, Reader, Record, Start, TopicPartition};
use std::{collections::BTreeMap, time::Duration};

const BATCH: usize = 1_000;

/// Reads topics of the embedded log.
pub struct EmbeddedReader {
    log: Embedded,
    positions: BTreeMap<TopicPartition, i64>,
}

impl EmbeddedReader {
    /// A reader of `log`, with nothing assigned.
    pub fn new(log: &Embedded) -> Self {
        Self { log: log.clone(), positions: BTreeMap::new() }
    }
}

impl Reader for EmbeddedReader {
    fn assign(&mut self, from: &[(TopicPartition, Start)]) -> Result<(), LogError> {
        let mut positions = BTreeMap::new();
        for &(at, start) in from {
            let position = match start {
                Start::Earliest => self.log.begin(at)?,
                Start::Latest => self.log.end(at),
                Start::Offset(offset) => offset,
            };
            positions.insert(at, position);
        }
        self.positions = positions;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let seen = self.log.writes();
        let mut records = Vec::new();
        for (&at, position) in &mut self.positions {
            let (batch, next) = self.log.read_on(at, *position, BATCH)?;
            *position = next;
            records.extend(batch);
        }
        if records.is_empty() {
            self.log.wait(seen, timeout);
        }
        Ok(records)
    }

    fn position(&self, at: TopicPartition) -> Option<i64> {
        self.positions.get(&at).copied()
    }

    fn begin(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        self.log.begin(at)
    }

    fn end(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        Ok(self.log.end(at))
    }
}
