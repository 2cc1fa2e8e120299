//! The counters that a task moves with every record, found once.

use crate::{
    metrics::Metrics,
    stages::{STAGES_OF_A_TASK, Stage},
};
use prometheus::{Counter, IntCounter};
use rustc_hash::FxHashMap;
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::Topic;

/// The counters of one task.
pub struct Counters {
    /// Records processed.
    pub processed: IntCounter,
    /// Records emitted, by topic.
    emitted: FxHashMap<usize, IntCounter>,
    /// Seconds, by stage.
    seconds: BTreeMap<Stage, Counter>,
}

impl Counters {
    /// Those of the task of `group` that has `partition`.
    pub fn new(group: &str, partition: u32, metrics: &Metrics) -> Self {
        let label = partition.to_string();
        let seconds = |stage: Stage| (stage, metrics.task_seconds.with_label_values(&[group, &label, stage.name()]));
        Self {
            processed: metrics.process_total.with_label_values(&[group]),
            emitted: FxHashMap::default(),
            seconds: STAGES_OF_A_TASK.map(seconds).into(),
        }
    }

    /// A stage took this long.
    pub fn took(&self, stage: Stage, took: Duration) {
        if let Some(seconds) = self.seconds.get(&stage) {
            seconds.inc_by(took.as_secs_f64());
        }
    }

    /// A record is emitted to a topic.
    pub fn emitted(&mut self, index: usize, topic: &Topic, metrics: &Metrics) {
        self.emitted.entry(index).or_insert_with(|| metrics.emitted_total.with_label_values(&[&topic.name])).inc();
    }
}
