//! Warnings a person can act on: each says what, where and what to do. A thread beside the workers looks every few
//! seconds at what they noted; nothing is judged on their way. One kind of warning a file.

mod clock;
mod commit;
mod hot_key;
mod lag;
mod notes;
mod skew;
mod store;

pub use hot_key::HotKeys;
pub use notes::Notes;

use crate::{
    metrics::Metrics,
    status::{TaskView, Tasks},
};
use parking_lot::RwLock;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);
/// How often the thread looks whether it is to end.
const WAKE: Duration = Duration::from_millis(100);
/// A warning that stays is told again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// What has happened, such as a slow commit, is shown for this long.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// `slow_commit`, `lag`, `store`, `hot_key`, `skew` or `clock`.
    pub kind: &'static str,
    /// Where: a group, a task, a store, a source of records.
    pub place: String,
    /// What was seen.
    pub what: String,
    /// What to do.
    pub mend: String,
}

/// A task as the rules see it.
pub(crate) type Task<'a> = (&'a (String, u32), &'a TaskView);

/// The warnings that count now, for readiness and console.
#[derive(Clone, Default)]
pub struct Warnings(Arc<RwLock<Told>>);

/// Warnings by kind and place, each with when it was last logged.
type Told = BTreeMap<(&'static str, String), (Warning, Instant)>;

impl Warnings {
    /// All of them.
    pub fn all(&self) -> Vec<Warning> {
        self.0.read().values().map(|(warning, _)| warning.clone()).collect()
    }

    /// Takes those that were found now in the place of the former ones. Logged when they are new, and again now and then.
    fn set(&self, found: Vec<Warning>, now: Instant, metrics: &Metrics) {
        let mut kept = self.0.write();
        let mut before = std::mem::take(&mut *kept);
        for warning in found {
            let id = (warning.kind, warning.place.clone());
            let told = before.remove(&id).map(|(_, told)| told).filter(|told| now.saturating_duration_since(*told) < AGAIN);
            if told.is_none() {
                tracing::warn!(kind = warning.kind, place = warning.place, "{}; {}", warning.what, warning.mend);
                metrics.warnings_total.with_label_values(&[warning.kind]).inc();
            }
            metrics.warnings.with_label_values(&[warning.kind, &warning.place]).set(1);
            kept.insert(id, (warning, told.unwrap_or(now)));
        }
        for (kind, place) in before.into_keys() {
            tracing::info!(kind, place, "no longer so");
            // Places come and go: a gauge of each that ever was would grow.
            let _ = metrics.warnings.remove_label_values(&[kind, &place]);
        }
    }
}

/// What remembers between two looks.
pub struct Watch {
    tasks: Tasks,
    metrics: Metrics,
    warnings: Warnings,
    commits: commit::Commits,
    lags: lag::Lags,
    stores: store::Stores,
    skew: skew::Skew,
    clocks: clock::Clocks,
}

impl Watch {
    /// Watches these tasks.
    pub fn new(tasks: &Tasks, metrics: &Metrics, warnings: &Warnings) -> Self {
        Self {
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            warnings: warnings.clone(),
            commits: commit::Commits::default(),
            lags: lag::Lags::default(),
            stores: store::Stores::default(),
            skew: skew::Skew::default(),
            clocks: clock::Clocks::default(),
        }
    }

    /// Looks until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut looked = Instant::now();
        while !stop.load(Ordering::Acquire) {
            std::thread::park_timeout(WAKE);
            if looked.elapsed() >= EVERY {
                looked = Instant::now();
                self.look(looked);
            }
        }
    }

    /// Looks once.
    pub fn look(&mut self, now: Instant) {
        let tasks = self.tasks.all();
        let running: Vec<Task<'_>> = tasks.iter().map(|(id, view)| (id, view)).filter(|(_, view)| view.state.is_some()).collect();
        let (slow, future) = self.metrics.notes.take();
        let mut found = self.commits.look(now, slow);
        found.extend(self.lags.look(now, &running));
        found.extend(self.stores.look(now, store::sizes(&running, &self.metrics)));
        found.extend(self.skew.look(now, &running));
        found.extend(hot_key::look(&running, &self.metrics));
        found.extend(self.clocks.look(now, future));
        self.warnings.set(found, now, &self.metrics);
        self.metrics.stages.publish(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_told_when_it_is_new_and_again_when_it_stays_for_long() {
        let (warnings, metrics, start) = (Warnings::default(), Metrics::new().unwrap(), Instant::now());
        let warning = Warning { kind: "lag", place: "customers 1".into(), what: "a".into(), mend: "b".into() };
        let told = || metrics.warnings_total.with_label_values(&["lag"]).get();
        let gauges = || metrics.registry.gather().iter().find(|f| f.name() == "tillflow_warnings").map_or(0, |f| f.get_metric().len());
        for seconds in [0, 5, 10] {
            warnings.set(vec![warning.clone()], start + Duration::from_secs(seconds), &metrics);
        }
        assert_eq!((told(), gauges(), warnings.all()), (1, 1, vec![warning.clone()]));
        warnings.set(vec![warning.clone()], start + AGAIN, &metrics);
        assert_eq!(told(), 2);
        warnings.set(Vec::new(), start + AGAIN, &metrics);
        assert_eq!((gauges(), warnings.all()), (0, Vec::new()));
    }
}
