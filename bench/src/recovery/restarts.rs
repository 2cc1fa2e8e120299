//! An instance that is killed again and again, and started again at once with its state as it lies on disk.

use super::load::{Load, Moment};
use crate::{figures::Spread, peer::instance::Told};
use anyhow::Result;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Serialize;
use std::{thread, time::Duration};
use tillflow_tests::Process;

/// How instances are killed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Kills {
    /// How often an instance is killed.
    #[arg(long, default_value_t = 20)]
    pub kills: u32,
    /// Longest time that an instance is left alone before it is killed, in seconds. Stores are flushed every ten.
    #[arg(long, default_value_t = 12)]
    pub rest_s: u32,
}

/// From a kill, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Waits {
    /// Until the first order can be read as committed that was written after it.
    pub until_commit_ms: Summary,
    /// Of it, until the instance had tasks again, where it says so.
    pub until_assigned_ms: Summary,
}

/// What one looks at of many.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The one in the middle.
    pub median: Option<f64>,
    /// The greatest.
    pub worst: Option<f64>,
    /// Each, in the order in which they came.
    all: Vec<f64>,
}

impl Summary {
    fn of(durations: Vec<Duration>) -> Self {
        let all = durations.iter().map(|d| d.as_secs_f64() * 1e3).collect();
        let spread = Spread::of(durations);
        Self { median: spread.percentile_ms(0.5), worst: spread.percentile_ms(1.0), all }
    }
}

impl Kills {
    /// Kills and starts while the load goes on, each time once the load is caught up with.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn strike(self, load: &Load, mut start: impl FnMut() -> Result<Process>) -> Result<Waits> {
        let mut random = StdRng::seed_from_u64(1);
        let mut process = start()?;
        let (mut until_commit, mut until_assigned) = (Vec::new(), Vec::new());
        for n in 1..=self.kills {
            let rest = random.random_range(1_000..=u64::from(self.rest_s.max(1)) * 1_000);
            thread::sleep(Duration::from_millis(rest));
            load.catch_up();
            let killed = Moment::now();
            process.kill();
            process = start()?;
            let first = load.first_after(killed).since(killed);
            let assigned = Told::assigned(&Told::since(killed.wall, &process));
            let assigned = assigned.map(|at| Duration::from_millis(at.abs_diff(killed.wall.millis())));
            eprintln!("kill {n} after {rest} ms: tasks again after {assigned:?}, the first new commit after {first:?}");
            until_commit.push(first);
            until_assigned.extend(assigned);
        }
        process.kill();
        Ok(Waits { until_commit_ms: Summary::of(until_commit), until_assigned_ms: Summary::of(until_assigned) })
    }
}
