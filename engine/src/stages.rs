//! Where a group's time goes, measured by batch: a look at the clock a record would cost more than it tells.

use parking_lot::Mutex;
use prometheus::{CounterVec, GaugeVec};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// What workers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waiting for records.
    Poll,
    /// Bytes to events.
    Decode,
    /// Processors, with what they read.
    Process,
    /// The part of processing that waits for reads of the backend, estimated from some of them.
    Store,
    /// Transactions: the log's and the local write.
    Commit,
}

/// Those that are known of each task. Poll is a worker's, for all of its tasks at once.
pub const STAGES_OF_A_TASK: [Stage; 4] = [Stage::Decode, Stage::Process, Stage::Store, Stage::Commit];
/// Averages and maxima are over one to two of this, as Kafka Streams' are.
const WINDOW: Duration = Duration::from_secs(30);

impl Stage {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Decode => "decode",
            Self::Process => "process",
            Self::Store => "store",
            Self::Commit => "commit",
        }
    }
}

/// Where a group's time goes.
#[derive(Clone)]
pub struct Stages {
    seconds: CounterVec,
    /// Average and maximum in milliseconds, of the stages that Kafka Streams has metrics of.
    latencies: BTreeMap<Stage, (GaugeVec, GaugeVec)>,
    windows: Arc<Mutex<Windows>>,
}

#[derive(Default)]
struct Windows {
    since: Option<Instant>,
    now: BTreeMap<(&'static str, Stage), Sum>,
    before: BTreeMap<(&'static str, Stage), Sum>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: u32,
    total: Duration,
    most: Duration,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.total += other.total;
        self.most = self.most.max(other.most);
    }
}

impl Stages {
    /// Counts into these.
    pub fn new(seconds: CounterVec, latencies: BTreeMap<Stage, (GaugeVec, GaugeVec)>) -> Self {
        Self { seconds, latencies, windows: Arc::default() }
    }

    /// A batch took this long.
    pub fn took(&self, group: &'static str, stage: Stage, took: Duration) {
        self.seconds.with_label_values(&[group, stage.name()]).inc_by(took.as_secs_f64());
        if self.latencies.contains_key(&stage) {
            self.windows.lock().now.entry((group, stage)).or_default().add(Sum { count: 1, total: took, most: took });
        }
    }

    /// States averages and maxima as of now.
    pub fn publish(&self, now: Instant) {
        let mut windows = self.windows.lock();
        let mut sums = windows.before.clone();
        windows.now.iter().for_each(|(id, sum)| sums.entry(*id).or_default().add(*sum));
        if now.saturating_duration_since(*windows.since.get_or_insert(now)) >= WINDOW {
            windows.since = Some(now);
            windows.before = windows.now.clone();
            // Where nothing happens any more, the average is 0 and not what it was.
            windows.now.values_mut().for_each(|sum| *sum = Sum::default());
        }
        drop(windows);
        for (stage, (average, most)) in &self.latencies {
            for ((group, _), sum) in sums.iter().filter(|((_, of), _)| of == stage) {
                average.with_label_values(&[group]).set(sum.total.as_secs_f64() * 1_000.0 / f64::from(sum.count.max(1)));
                most.with_label_values(&[group]).set(sum.most.as_secs_f64() * 1_000.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn value(metrics: &Metrics, name: &str) -> Option<f64> {
        let families = metrics.registry.gather();
        let family = families.iter().find(|f| f.name() == name)?;
        family.get_metric().first().map(|m| m.get_gauge().get_value())
    }

    #[test]
    fn averages_and_maxima_are_of_the_last_minute() {
        let (metrics, start) = (Metrics::new().unwrap(), Instant::now());
        let stages = &metrics.stages;
        stages.took("customers", Stage::Commit, Duration::from_millis(10));
        stages.took("customers", Stage::Commit, Duration::from_millis(30));
        stages.publish(start);
        assert_eq!(value(&metrics, "tillflow_commit_latency_avg"), Some(20.0));
        assert_eq!(value(&metrics, "tillflow_commit_latency_max"), Some(30.0));
        stages.publish(start + WINDOW);
        stages.took("customers", Stage::Commit, Duration::from_millis(2));
        stages.publish(start + WINDOW);
        assert_eq!(value(&metrics, "tillflow_commit_latency_max"), Some(30.0));
        stages.publish(start + WINDOW * 2);
        stages.publish(start + WINDOW * 2);
        assert_eq!(value(&metrics, "tillflow_commit_latency_max"), Some(2.0));
        let total = stages.seconds.with_label_values(&["customers", "commit"]).get();
        assert!((total - 0.042).abs() < 1e-9, "{total}");
    }
}
