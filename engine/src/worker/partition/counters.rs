//! The counters that a task moves with every record, found once.

use crate::metrics::Metrics;
use prometheus::IntCounter;
use rustc_hash::FxHashMap;
use tillflow_schemas::Topic;

/// The counters of one task.
pub struct Counters {
    /// Records processed.
    pub processed: IntCounter,
    /// Records emitted, by topic.
    emitted: FxHashMap<usize, IntCounter>,
}

impl Counters {
    /// Those of a task of `group`.
    pub fn new(group: &str, metrics: &Metrics) -> Self {
        Self { processed: metrics.process_total.with_label_values(&[group]), emitted: FxHashMap::default() }
    }

    /// A record is emitted to a topic.
    pub fn emitted(&mut self, index: usize, topic: &Topic, metrics: &Metrics) {
        self.emitted.entry(index).or_insert_with(|| metrics.emitted_total.with_label_values(&[&topic.name])).inc();
    }
}
