//! State that grows so fast that the disk will be full soon.

use super::{Task, Warning};
use crate::metrics::Metrics;
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::{Duration, Instant},
};

/// How often the size is remembered.
const STEP: Duration = Duration::from_secs(60);
/// So many sizes are remembered: an hour.
const STEPS: usize = 60;
/// Growth over less than this says little.
const LEAST: Duration = Duration::from_secs(600);
/// The disk is full soon when it is within this.
const SOON: Duration = Duration::from_secs(24 * 3_600);
/// Compaction makes files come and go: less growth than this is none.
const NOISE: u64 = 256 << 20;

/// A store as it is now.
pub struct Measured {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes it takes.
    pub bytes: u64,
    /// Bytes that are free there, where it can be told.
    pub free: Option<u64>,
}

/// How stores grew lately.
#[derive(Default)]
pub struct Stores(BTreeMap<PathBuf, VecDeque<(Instant, u64)>>);

impl Stores {
    /// Looks at the stores' sizes.
    pub fn look(&mut self, now: Instant, sizes: Vec<Measured>) -> Vec<Warning> {
        self.0.retain(|path, _| sizes.iter().any(|size| size.path == *path));
        sizes.into_iter().filter_map(|size| self.judge(now, &size)).collect()
    }

    fn judge(&mut self, now: Instant, size: &Measured) -> Option<Warning> {
        let course = self.0.entry(size.path.clone()).or_default();
        if course.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP) {
            course.push_back((now, size.bytes));
        }
        if course.len() > STEPS {
            course.pop_front();
        }
        let (since, before) = *course.front()?;
        let (passed, grown) = (now.saturating_duration_since(since), size.bytes.saturating_sub(before));
        let free = size.free?;
        if passed < LEAST || grown < NOISE {
            return None;
        }
        let full_in = passed.as_secs_f64() * free as f64 / grown as f64;
        (full_in < SOON.as_secs_f64()).then(|| warning(size, grown, passed, free, full_in))
    }
}

fn warning(size: &Measured, grown: u64, passed: Duration, free: u64, full_in: f64) -> Warning {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let path = size.path.display();
    Warning {
        kind: "store",
        place: name(&size.path),
        what: format!(
            "{path} grew by {:.1} GB to {:.1} GB within {} minutes, and {:.1} GB are free: at this rate the disk is full in {:.1} hours",
            gigabytes(grown),
            gigabytes(size.bytes),
            passed.as_secs() / 60,
            gigabytes(free),
            full_in / 3_600.0
        ),
        mend: "make room, or move data_dir to a larger disk: processing stops when it is full. `tillflow state ls` shows which table \
               grows; while history is being read in, this is to be expected"
            .into(),
    }
}

/// Sizes of the directories that these tasks' state lies in, each once; they are the metrics of stores too.
pub fn sizes(tasks: &[Task<'_>], metrics: &Metrics) -> Vec<Measured> {
    let sizes: BTreeMap<_, _> = tasks.iter().filter_map(|(_, view)| view.state.as_ref()?.size()).map(|s| (s.path.clone(), s)).collect();
    let measured = sizes.into_values().map(|size| {
        let store = name(&size.path);
        metrics.store_bytes.with_label_values(&[&store]).set(i64::try_from(size.bytes).unwrap_or(i64::MAX));
        metrics.store_rows.with_label_values(&[&store]).set(i64::try_from(size.rows).unwrap_or(i64::MAX));
        Measured { free: fs4::available_space(&size.path).ok(), path: size.path, bytes: size.bytes }
    });
    measured.collect()
}

fn name(path: &std::path::Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(minutes: u64, bytes: impl Fn(u64) -> u64, free: u64) -> Vec<Warning> {
        let (mut stores, start) = (Stores::default(), Instant::now());
        let mut found = Vec::new();
        for minute in 0..=minutes {
            let size = Measured { path: "data/customers-2".into(), bytes: bytes(minute), free: Some(free) };
            found = stores.look(start + STEP * minute as u32, vec![size]);
        }
        found
    }

    #[test]
    fn a_disk_that_will_be_full_within_a_day_is_told() {
        let found = run(30, |minute| minute * 100_000_000, 50_000_000_000);
        assert!(found.len() == 1 && found[0].what.contains("full in 8.3 hours") && found[0].place == "customers-2", "{found:?}");
    }

    #[test]
    fn a_large_disk_a_steady_store_and_a_short_look_are_no_cause() {
        assert_eq!(run(30, |minute| minute * 100_000_000, 5_000_000_000_000), []);
        assert_eq!(run(30, |minute| 10_000_000_000 + minute % 2 * 100_000_000, 1_000_000_000), []);
        assert_eq!(run(5, |minute| minute * 100_000_000, 1_000_000_000), []);
    }
}
