//! Tasks that fall behind: more waits minute by minute.

use super::{Task, Warning};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How long a stretch is whose least lag counts: lag goes up and down within a moment.
const STRETCH: Duration = Duration::from_secs(60);
/// Lag is told when it grew for so many stretches, one after the other.
const STRETCHES: usize = 5;
/// Less than this many records are caught up in a moment.
const FEW: i64 = 1_000;

/// How the lag of each task went lately.
#[derive(Default)]
pub struct Lags(BTreeMap<(String, u32), Course>);

struct Course {
    since: Instant,
    least: i64,
    /// The least lag of the stretches before, oldest first.
    before: VecDeque<i64>,
}

impl Lags {
    /// Looks at the tasks' lag.
    pub fn look(&mut self, now: Instant, tasks: &[Task<'_>]) -> Vec<Warning> {
        self.0.retain(|id, _| tasks.iter().any(|(task, _)| *task == id));
        let mut found = Vec::new();
        for (id, view) in tasks {
            let course = self.0.entry((*id).clone()).or_insert_with(|| Course { since: now, least: view.lag, before: VecDeque::new() });
            course.take(now, view.lag);
            if course.grows() {
                found.push(warning(id, course));
            }
        }
        found
    }
}

impl Course {
    fn take(&mut self, now: Instant, lag: i64) {
        self.least = self.least.min(lag);
        if now.saturating_duration_since(self.since) >= STRETCH {
            self.before.push_back(self.least);
            if self.before.len() > STRETCHES {
                self.before.pop_front();
            }
            (self.since, self.least) = (now, lag);
        }
    }

    fn grows(&self) -> bool {
        let pairs = || self.before.iter().zip(self.before.iter().skip(1));
        self.before.len() == STRETCHES && pairs().all(|(a, b)| a < b) && self.before.back().is_some_and(|lag| *lag >= FEW)
    }
}

fn warning((group, partition): &(String, u32), course: &Course) -> Warning {
    let (from, to) = (course.before.front().copied().unwrap_or(0), course.before.back().copied().unwrap_or(0));
    Warning {
        kind: "lag",
        place: format!("{group} {partition}"),
        what: format!("{group} {partition} falls behind: from {from} to {to} waiting records within {STRETCHES} minutes"),
        mend: "see in tillflow_task_seconds_total where its time goes; add workers or instances up to the number of partitions, a faster \
               disk where store is large, or look at the brokers where commit is"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::TaskView;

    fn run(lags: impl IntoIterator<Item = i64>) -> Vec<Warning> {
        let (mut watched, start) = (Lags::default(), Instant::now());
        let id = ("customers".to_owned(), 2);
        let mut found = Vec::new();
        for (n, lag) in lags.into_iter().enumerate() {
            let view = TaskView { lag, ..TaskView::example() };
            found = watched.look(start + Duration::from_secs(n as u64 * 10), &[(&id, &view)]);
        }
        found
    }

    #[test]
    fn lag_that_grows_for_five_minutes_is_told() {
        let found = run((0..40).map(|n| n * 500));
        assert!(found.len() == 1 && found[0].place == "customers 2" && found[0].mend.contains("workers"), "{found:?}");
    }

    #[test]
    fn lag_that_is_high_and_stays_or_small_or_caught_up_in_between_is_not() {
        assert_eq!(run((0..40).map(|_| 1_000_000)), []);
        assert_eq!(run((0..40).map(|n| n * 2)), []);
        assert_eq!(run((0..40).map(|n| if n % 12 == 0 { 0 } else { n * 500 })), []);
        assert_eq!(run((0..20).map(|n| n * 500)), [], "not for as long yet");
    }
}
