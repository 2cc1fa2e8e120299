//! What comes before a task runs on the simulated cluster: offsets settle, its store is opened.

use super::{disk::SimBackend, log::SimLog, planted::Defect};
use crate::log::{
    ChangelogPosition, LogError, Opened, TopicPartition,
    kafka::{Stores, TOMBSTONES_STAY},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tillflow_schemas::Timestamp;
use tillflow_state::Store;

/// How long committed offsets may take to become stable before the one who holds them back is fenced.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a changelog with a transaction open on it is waited for, before restoring waits for it.
const BRIEF: Duration = Duration::from_secs(1);
/// Longest wait for them.
const LONGEST: Duration = Duration::from_secs(15);

impl SimLog {
    fn inputs_of(&self, partition: u32) -> Vec<TopicPartition> {
        self.inputs.iter().map(|&topic| TopicPartition { topic, partition }).collect()
    }

    /// Opens a task's store, unless it can't be used any more; then it begins anew.
    pub(super) fn open_store(&mut self, partition: u32) -> Result<Opened, LogError> {
        self.critical_step("crash before a store is opened")?;
        self.reach()?;
        let without_cause = self.may_open.get(&partition).is_none_or(|may| *may == 0);
        self.open.remove(&partition);
        let at = TopicPartition { topic: self.changelog, partition };
        let mut world = self.sim.0.lock();
        let end = world.partition(at).map_or(0, |p| p.end());
        if without_cause && !world.was_full(self.process) {
            world.violation(format!("{}-{partition} was restored without cause", self.group));
        }
        let machine = world.machine(self.process);
        let disk = world.disk(&machine, self.group, partition);
        let (planted, now) = (world.planted, world.now());
        {
            let mut disk = disk.write();
            if disk.holder.is_some_and(|h| h != self.client) {
                world.count("a store that another worker of the process still held");
                return Err(LogError::Unavailable(format!("{machine}/{}-{partition} is still open", self.group)));
            }
            disk.holder = Some(self.client);
            if disk.was_flushed && disk.position() == 0 {
                world.violation(format!("{}-{partition} was wiped", self.group));
            }
            let moment = |at: Duration| Timestamp::from_millis(at.as_millis() as i64);
            let old = Stores::missed_tombstones(moment(disk.written_at()), moment(now), disk.position(), end, TOMBSTONES_STAY);
            if old && planted != Some(Defect::OldStoreKept) {
                world.count("a store older than the changelog keeps tombstones is built anew");
                disk.wipe();
                disk.was_flushed = false;
            }
            if disk.position() > end {
                world.violation(format!("{}-{partition}: the store is at {}, its changelog ends at {end}", self.group, disk.position()));
                disk.wipe();
            }
        }
        let mut offset = disk.read().position();
        let inputs = self.inputs_of(partition);
        let expired = world.groups.get(self.group).is_some_and(|g| inputs.iter().all(|at| !g.offsets.contains_key(at)));
        if planted == Some(Defect::ExpiredIsAnew) && end > 0 && expired {
            let mut disk = disk.write();
            disk.wipe();
            disk.was_flushed = false;
            offset = end;
        }
        if planted == Some(Defect::NoOffsetIsZero) && expired {
            disk.write().forget_offsets();
            self.reader.forgets.insert(at);
        }
        drop(world);
        let backend = SimBackend { sim: self.sim.clone(), disk, process: self.process, holder: self.client, partition };
        self.open.insert(partition, backend.clone());
        Ok(Opened {
            store: Store::new(Box::new(backend.clone())),
            snapshots: Arc::new(backend),
            changelog: Some(ChangelogPosition { at, offset }),
        })
    }

    /// Whether no transaction holds a task's offsets back; who does so for long is fenced.
    pub(super) fn settle_offsets(&mut self, partition: u32, inputs: &[TopicPartition]) -> Result<bool, LogError> {
        if self.world(|w| w.planted == Some(Defect::EndBeforeStableOffsets)) && !self.settling.contains_key(&partition) {
            let at = TopicPartition { topic: self.changelog, partition };
            let end = self.world(|w| w.partition(at).map_or(0, |p| p.stable_end()));
            self.reader.early_ends.insert(at, end);
        }
        self.critical_step("crash while offsets settle")?;
        self.reach()?;
        let now = self.world(|w| w.now());
        let brief = self.settling.get(&partition).is_some_and(|settling| now > settling.began + BRIEF);
        let changelog = TopicPartition { topic: self.changelog, partition };
        let decided = self.world(|w| w.partition(changelog).is_none_or(|p| p.stable_end() == p.end()));
        if (brief || decided) && self.world(|w| w.groups.get(self.group).is_some_and(|group| group.are_stable(inputs))) {
            self.settling.remove(&partition);
            return Ok(true);
        }
        let settling = self.settling.entry(partition).or_insert_with(|| Settling { began: now, fenced: BTreeSet::new() });
        if now > settling.began + LONGEST {
            self.settling.remove(&partition);
            return Err(LogError::Unavailable("committed offsets do not become stable".into()));
        }
        if now < settling.began + PATIENCE {
            return Ok(false);
        }
        let writers: BTreeSet<String> = self.world(|w| {
            let offsets = w.groups.get(self.group).map(|g| &g.offsets);
            inputs.iter().filter_map(|at| Some(offsets?.get(at)?.writer.clone())).collect()
        });
        for id in writers {
            if id != self.id && self.settling.get_mut(&partition).is_some_and(|s| s.fenced.insert(id.clone())) {
                self.world(|w| w.count("a former owner's transaction decided"));
                self.initialise(&id)?;
            }
        }
        Ok(false)
    }
}

/// A partition whose offsets are waited for.
pub(super) struct Settling {
    began: Duration,
    fenced: BTreeSet<String>,
}
