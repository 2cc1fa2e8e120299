//! What the tasks of this process are doing, for queries, readiness and metrics.

use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tillflow_engine_api::Place;
use tillflow_schemas::Timestamp;
use tillflow_state::Snapshots;

/// What one task is doing.
#[derive(Clone)]
pub struct TaskView {
    /// Where it stands among its group's.
    pub place: Place,
    /// Its committed state; queries wait while it is restored.
    pub state: Option<Arc<dyn Snapshots>>,
    /// Records of the inputs not processed yet.
    pub lag: i64,
    /// The event clock.
    pub clock: Timestamp,
    /// Whether all that is written is processed and committed.
    pub drained: bool,
    /// Records restored and to restore, while restoring.
    pub restored: Option<(u64, u64)>,
    /// Records processed since it was opened here.
    pub processed: u64,
    /// The key with the largest share of its records lately, and that share in per cent.
    pub hottest: Option<(String, u32)>,
}

impl TaskView {
    /// A task that is being opened.
    pub fn opening(place: Place) -> Self {
        Self { place, state: None, lag: 0, clock: Timestamp::MIN, drained: false, restored: None, processed: 0, hottest: None }
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self::opening(Place { partition: 0, partitions: 4 })
    }
}

/// What the tasks of this process are doing, by group and partition.
#[derive(Clone, Default)]
pub struct Tasks {
    views: Arc<RwLock<BTreeMap<(String, u32), TaskView>>>,
    /// Groups of which it is known which partitions are here.
    members: Arc<RwLock<BTreeSet<String>>>,
    paused: Arc<RwLock<BTreeSet<(String, u32)>>>,
}

impl Tasks {
    /// States what a task is doing.
    pub fn set(&self, group: &str, partition: u32, view: TaskView) {
        self.views.write().insert((group.to_owned(), partition), view);
    }

    /// Changes what is stated of a task.
    pub fn update(&self, group: &str, partition: u32, change: impl FnOnce(&mut TaskView)) {
        if let Some(view) = self.views.write().get_mut(&(group.to_owned(), partition)) {
            change(view);
        }
    }

    /// The task is no longer here.
    pub fn remove(&self, group: &str, partition: u32) {
        let task = (group.to_owned(), partition);
        self.paused.write().remove(&task);
        self.views.write().remove(&task);
    }

    /// Has a task process nothing until it is told to go on, or is opened anew; `false` where it is not here.
    pub fn pause(&self, group: &str, partition: u32, paused: bool) -> bool {
        let task = (group.to_owned(), partition);
        if !self.views.read().contains_key(&task) {
            return false;
        }
        if paused {
            self.paused.write().insert(task)
        } else {
            self.paused.write().remove(&task)
        };
        true
    }

    /// The partitions of a group's tasks that are paused.
    pub fn paused(&self, group: &str) -> BTreeSet<u32> {
        self.paused.read().iter().filter(|(g, _)| g == group).map(|(_, partition)| *partition).collect()
    }

    /// The log has said which partitions of the group are here (`member`; it may be none), or that they no longer are.
    pub fn set_member(&self, group: &str, member: bool) {
        let mut members = self.members.write();
        if member {
            members.insert(group.to_owned());
        } else {
            members.remove(group);
        }
    }

    /// Whether it is known which partitions of the group are here.
    pub fn is_member(&self, group: &str) -> bool {
        self.members.read().contains(group)
    }

    /// What a task is doing.
    pub fn get(&self, group: &str, partition: u32) -> Option<TaskView> {
        self.views.read().get(&(group.to_owned(), partition)).cloned()
    }

    /// All tasks.
    pub fn all(&self) -> Vec<((String, u32), TaskView)> {
        self.views.read().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}
