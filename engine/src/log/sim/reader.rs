//! Reads topics of the simulated cluster outside any group.

use super::{Sim, disk::without_offsets, planted::Defect, world::ProcessId};
use crate::log::{LogError, Reader, Record, Start, TopicPartition};
use crate::worker::META;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Records read of one partition in one poll, at most.
const BATCH: u64 = 60;

/// Reads topics outside any group.
pub struct SimReader {
    pub(super) sim: Sim,
    process: ProcessId,
    client: u64,
    /// Whether ends count what is not yet decided.
    undecided: bool,
    assigned: BTreeMap<TopicPartition, i64>,
    /// Planted: ends as they were before offsets were stable.
    pub(super) early_ends: BTreeMap<TopicPartition, i64>,
    /// Planted: changelogs of which offsets are not believed.
    pub(super) forgets: BTreeSet<TopicPartition>,
}

impl SimReader {
    /// A reader of a client of a process. What is written and not yet decided counts as there (`undecided`) or not.
    pub fn new(sim: &Sim, process: ProcessId, client: u64, undecided: bool) -> Self {
        Self {
            sim: sim.clone(),
            process,
            client,
            undecided,
            assigned: BTreeMap::new(),
            early_ends: BTreeMap::new(),
            forgets: BTreeSet::new(),
        }
    }

    fn unavailable(&self, what: &str) -> Option<LogError> {
        let world = self.sim.0.lock();
        if !world.is_alive(self.process) {
            return Some(LogError::Fatal("the process is gone".into()));
        }
        world.is_down().then(|| LogError::Unavailable(format!("{what}: the broker is gone")))
    }
}

impl Reader for SimReader {
    fn assign(&mut self, from: &[(TopicPartition, Start)]) -> Result<(), LogError> {
        let mut assigned = BTreeMap::new();
        for &(at, start) in from {
            let begin = self.begin(at)?;
            let position = match start {
                Start::Earliest => begin,
                Start::Latest => self.end(at)?,
                Start::Offset(offset) => offset.max(begin),
            };
            assigned.insert(at, position);
        }
        self.assigned = assigned;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let mut world = self.sim.0.lock();
        if !world.is_alive(self.process) {
            return Err(LogError::Fatal("the process is gone".into()));
        }
        let mut records = Vec::new();
        let mut moved = false;
        if !world.is_down() {
            for (&at, position) in &mut self.assigned {
                let batch = if world.faults.on { world.dice.between(1, BATCH) } else { BATCH * 10 };
                let Some(partition) = world.partition(at) else { continue };
                let (read, next) = partition.read(at, *position, batch as usize, false);
                let next = match read.last() {
                    // Planted: what lies between the last record and the end is not passed.
                    _ if world.planted == Some(Defect::RestoredByLastRecord) => read.last().map_or(*position, |r| r.offset + 1),
                    _ => next,
                };
                moved |= next > *position;
                *position = next;
                let forget = self.forgets.contains(&at);
                records.extend(read.into_iter().map(|mut r| {
                    if forget && r.key.as_deref() == Some(META) {
                        r.value = r.value.as_deref().and_then(without_offsets);
                    }
                    r
                }));
            }
        }
        if !moved {
            let until = world.now() + timeout;
            world.sleep_until(self.client, until);
        }
        Ok(records)
    }

    fn position(&self, at: TopicPartition) -> Option<i64> {
        self.assigned.get(&at).copied()
    }

    fn begin(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        if let Some(e) = self.unavailable("the begin of a topic") {
            return Err(e);
        }
        Ok(self.sim.0.lock().partition(at).map_or(0, |p| p.begin()))
    }

    fn end(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        if let Some(e) = self.unavailable("the end of a topic") {
            return Err(e);
        }
        if let Some(end) = self.early_ends.remove(&at) {
            return Ok(end);
        }
        let world = self.sim.0.lock();
        Ok(world.partition(at).map_or(0, |p| if self.undecided { p.end() } else { p.stable_end() }))
    }
}
