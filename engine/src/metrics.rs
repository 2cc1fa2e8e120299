//! What the engine counts. Names are Kafka Streams' where it has one, with `_` for `-`.

use crate::{
    stages::{Stage, Stages},
    watch::Notes,
};
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};
use std::cell::RefCell;

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
    /// The share of a task's hottest key lately, by group and partition.
    pub hot_key_percent: IntGaugeVec,
    /// The warnings that count now, by kind and place.
    pub warnings: IntGaugeVec,
    /// Warnings that were logged, by kind.
    pub warnings_total: IntCounterVec,
    /// Where a group's time goes.
    pub stages: Stages,
    /// Where a task's time goes, by group, partition and stage.
    pub task_seconds: CounterVec,
    /// What workers note for the warnings.
    pub notes: Notes,
}

impl Metrics {
    /// Metrics registered in a registry of their own.
    ///
    /// # Errors
    /// None: the names are distinct; a test registers them.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::naming(&RefCell::default())
    }

    /// The same; `names` gets the name of each.
    fn naming(names: &RefCell<Vec<String>>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let register = |metric: Box<dyn Collector>| {
            names.borrow_mut().extend(metric.desc().iter().map(|d| d.fq_name.clone()));
            registry.register(metric)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("tillflow_{name}"), help), labels)?;
            register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(format!("tillflow_{name}"), help), labels)?;
            register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let decimal = |name: String, help: String| {
            let gauge = GaugeVec::new(Opts::new(format!("tillflow_{name}"), help), &["group"])?;
            register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let latency = |stage: Stage, what: &str| {
            let name = stage.name();
            let average = decimal(format!("{name}_latency_avg"), format!("Milliseconds that {what} takes, on average of the last minute"))?;
            let most = decimal(format!("{name}_latency_max"), format!("Milliseconds that {what} took at most, in the last minute"))?;
            Ok::<_, prometheus::Error>((stage, (average, most)))
        };
        let latencies =
            [latency(Stage::Poll, "a poll")?, latency(Stage::Process, "a batch of records")?, latency(Stage::Commit, "a commit")?];
        let seconds = CounterVec::new(
            Opts::new("tillflow_stage_seconds_total", "Seconds spent in poll, decode, process, store, commit"),
            &["group", "stage"],
        )?;
        register(Box::new(seconds.clone()))?;
        let task_seconds = CounterVec::new(
            Opts::new("tillflow_task_seconds_total", "Seconds spent in decode, process, store, commit"),
            &["group", "partition", "stage"],
        )?;
        register(Box::new(task_seconds.clone()))?;
        let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
        let commit_latency =
            HistogramVec::new(HistogramOpts::new("tillflow_commit_latency_seconds", "Time a commit takes").buckets(buckets), &["group"])?;
        register(Box::new(commit_latency.clone()))?;
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
            hot_key_percent: gauge("hot_key_percent", "Share of a task's hottest key lately, sampled", &["group", "partition"])?,
            warnings: gauge("warnings", "Warnings that count now: 1 each", &["kind", "place"])?,
            warnings_total: counter("warnings_total", "Warnings logged", &["kind"])?,
            stages: Stages::new(seconds, latencies.into()),
            task_seconds,
            notes: Notes::default(),
            registry,
        })
    }

    /// The commit latency of one group.
    pub fn commit_latency_of(&self, group: &str) -> Histogram {
        self.commit_latency.with_label_values(&[group])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let table = include_str!("../../docs/metrics.md");
        let listed = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
        let others = ["tillflow_gateway_", "tillflow_redis_", "tillflow_email_"];
        let is_ours = |name: &&str| name.starts_with("tillflow_") && !others.iter().any(|prefix| name.starts_with(prefix));
        let listed: BTreeSet<_> = listed.filter(is_ours).collect();
        let names = RefCell::default();
        Metrics::naming(&names).unwrap();
        let names = names.into_inner();
        assert_eq!(listed, names.iter().map(String::as_str).collect(), "left: docs/metrics.md, right: what is registered");
    }
}
