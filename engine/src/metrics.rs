//! What the engine counts. Names are Kafka Streams' where it has one, with `_` for `-`.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The engine's metrics.
#[derive(Clone)]
pub struct Metrics {
    /// Where they are registered.
    pub registry: Registry,
    /// Records processed, by group.
    pub process_total: IntCounterVec,
    /// Records that had been seen before, by group.
    pub duplicates_total: IntCounterVec,
    /// Records put where they belong, by source topic.
    pub rekeyed_total: IntCounterVec,
    /// Records and timers that could not be processed, by source topic and processor.
    pub dead_letters_total: IntCounterVec,
    /// Events of a type this version does not know, by group.
    pub unknown_events_total: IntCounterVec,
    /// Records of erased users from before their erasure, by source topic.
    pub erased_total: IntCounterVec,
    /// Events later than the watermark, by group.
    pub late_total: IntCounterVec,
    /// Records emitted, by topic.
    pub emitted_total: IntCounterVec,
    /// Transactions committed, by group.
    pub commit_total: IntCounterVec,
    /// Transactions that did not go through, by group and reason.
    pub commit_failures_total: IntCounterVec,
    /// Time a commit takes, by group.
    pub commit_latency: HistogramVec,
    /// Records of the inputs not processed yet, by group and partition.
    pub records_lag: IntGaugeVec,
    /// Changelog records still to restore, by group and partition.
    pub restore_remaining: IntGaugeVec,
    /// Changelog records restored, by group and partition.
    pub restore_total: IntCounterVec,
    /// Milliseconds of event time, by group and partition.
    pub watermark_ms: IntGaugeVec,
    /// Bytes waiting to be committed, by group.
    pub pending_bytes: IntGaugeVec,
    /// Bytes of state on disk, by store directory.
    pub store_bytes: IntGaugeVec,
    /// Rows of state by estimate, by store directory.
    pub store_rows: IntGaugeVec,
}

impl Metrics {
    /// Metrics registered in a registry of their own.
    ///
    /// # Errors
    /// None: the names are distinct; a test registers them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("tillflow_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(format!("tillflow_{name}"), help), labels)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
        let commit_latency =
            HistogramVec::new(HistogramOpts::new("tillflow_commit_latency_seconds", "Time a commit takes").buckets(buckets), &["group"])?;
        registry.register(Box::new(commit_latency.clone()))?;
        Ok(Self {
            process_total: counter("process_total", "Records processed", &["group"])?,
            duplicates_total: counter("duplicates_total", "Records that had been seen before", &["group"])?,
            rekeyed_total: counter("rekeyed_total", "Records put where they belong", &["topic"])?,
            dead_letters_total: counter("dead_letters_total", "Records and timers that could not be processed", &["topic", "processor"])?,
            unknown_events_total: counter("unknown_events_total", "Events of a type this version does not know", &["group"])?,
            erased_total: counter("erased_records_total", "Records of erased users from before their erasure, dropped", &["topic"])?,
            late_total: counter("late_records_total", "Events later than the watermark", &["group"])?,
            emitted_total: counter("emitted_total", "Records emitted", &["topic"])?,
            commit_total: counter("commit_total", "Transactions committed", &["group"])?,
            commit_failures_total: counter("commit_failures_total", "Transactions that did not go through", &["group", "reason"])?,
            commit_latency,
            records_lag: gauge("records_lag", "Records of the inputs not processed yet", &["group", "partition"])?,
            restore_remaining: gauge("restore_remaining_records_total", "Changelog records still to restore", &["group", "partition"])?,
            restore_total: counter("restore_total", "Changelog records restored", &["group", "partition"])?,
            watermark_ms: gauge("watermark_ms", "Event time up to which timers have fired", &["group", "partition"])?,
            pending_bytes: gauge("pending_bytes", "Bytes waiting to be committed", &["group"])?,
            store_bytes: gauge("store_bytes", "Bytes of state on disk", &["store"])?,
            store_rows: gauge("store_rows", "Rows of state, estimated", &["store"])?,
            registry,
        })
    }

    /// The commit latency of one group.
    pub fn commit_latency_of(&self, group: &str) -> Histogram {
        self.commit_latency.with_label_values(&[group])
    }
}
