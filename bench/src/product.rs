//! The product itself, with its default rules, on the same events.

use crate::{peer::run::LOOK_EVERY, usage};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tillflow_tests::{Tillflow, cluster::Shop, until};

const LONG: Duration = Duration::from_secs(3_600);

/// Drains the backlog of a shop by this instance of it, which has just started.
///
/// # Errors
/// When the instance can't be asked.
pub fn drain(shop: &Shop, instance: &mut Tillflow) -> Result<Value> {
    instance.wait_until_ready();
    let until_ready = usage::of(instance.process().id()).context("/proc can't be read")?;
    let started = Instant::now();
    let mut looked = started;
    until("everything is processed", LONG, || {
        let is_time = looked.elapsed() >= LOOK_EVERY;
        if is_time {
            looked = Instant::now();
        }
        is_time && shop.is_drained()
    });
    let seconds = started.elapsed().as_secs_f64();
    let used = usage::of(instance.process().id()).context("/proc can't be read")?;
    let metrics = instance.get("/metrics").text()?;
    let sum =
        |name: &str| metrics.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    let commits = sum("tillflow_commit_latency_seconds_count");
    Ok(json!({
        "seconds": seconds, "cpu_s": used.cpu_s, "cpu_s_until_ready": until_ready.cpu_s, "peak_rss_mb": used.peak_rss_mb, "commits": commits,
        "commit_ms_mean": 1_000.0 * sum("tillflow_commit_latency_seconds_sum") / commits.max(1.0),
        "commit_ms_p99_at_most": percentile_ms(&metrics, 0.99),
    }))
}

/// The upper bound of the histogram's bucket that holds the percentile, over all groups.
fn percentile_ms(metrics: &str, share: f64) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for line in metrics.lines().filter(|l| l.starts_with("tillflow_commit_latency_seconds_bucket")) {
        let bound = line.split("le=\"").nth(1)?.split('"').next()?.parse().unwrap_or(f64::INFINITY);
        let count: f64 = line.rsplit(' ').next()?.parse().ok()?;
        match buckets.iter_mut().find(|(b, _)| *b == bound) {
            Some((_, sum)) => *sum += count,
            None => buckets.push((bound, count)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last()?.1;
    buckets.iter().find(|(_, count)| *count >= share * all).map(|(bound, _)| bound * 1_000.0)
}
