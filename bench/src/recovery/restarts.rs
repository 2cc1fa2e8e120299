//! An instance that is killed again and again, and started again at once with its state as it lies on disk.

use super::load::{Load, Moment};
use anyhow::Result;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
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

impl Kills {
    /// Kills and starts while the load goes on; what is counted is when the first order can be read as committed that was
    /// written after the kill.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn strike(self, load: &Load, mut start: impl FnMut() -> Result<Process>) -> Result<Value> {
        let mut random = StdRng::seed_from_u64(1);
        let mut process = start()?;
        load.first_after(Moment::now());
        let (mut from_start, mut from_kill) = (Vec::new(), Vec::new());
        for n in 1..=self.kills {
            let rest = random.random_range(1_000..=u64::from(self.rest_s.max(1)) * 1_000);
            thread::sleep(Duration::from_millis(rest));
            let killed = Moment::now();
            process.kill();
            let started = Moment::now();
            process = start()?;
            let first = load.first_after(killed);
            from_start.push(first.since(started));
            from_kill.push(first.since(killed));
            eprintln!("kill {n} after {rest} ms: {} ms from the start to the first new commit", first.since(started));
        }
        process.kill();
        Ok(json!({"kills": self.kills, "from_start_ms": summary(from_start), "from_kill_ms": summary(from_kill)}))
    }
}

fn summary(mut all: Vec<u64>) -> Value {
    let in_order = all.clone();
    all.sort_unstable();
    json!({"median": all.get(all.len().saturating_sub(1) / 2), "worst": all.last(), "all": in_order})
}
