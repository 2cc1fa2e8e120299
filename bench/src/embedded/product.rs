//! `tillflow run` on the embedded log, to which a shop's traffic is posted in requests of a thousand events: how fast it is
//! taken (decoded, checked, in the log), and how fast it is processed by both task groups under the default rules.

use crate::{load, usage};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tillflow_tests::{Tillflow, until};

const SEED: u64 = 7;
const USERS: usize = 200_000;
const PRODUCTS: usize = 20_000;
/// As many as one request may have.
const REQUEST: usize = 1_000;
const LONG: Duration = Duration::from_secs(3_600);
/// Lag is stated every 200 ms; it is none when it was stated so several times.
const SETTLED: Duration = Duration::from_secs(1);

/// Measures it with and without fsync.
pub fn measure(events: u64) -> Result<Vec<Value>> {
    println!(
        "{:<44}{:>14}{:>14}{:>14}{:>14}",
        format!("{events} events posted to the product"),
        "taken/s",
        "processed/s",
        "CPU-s/M",
        "peak RSS (MB)"
    );
    [true, false].into_iter().map(|fsync| run(events, fsync)).collect()
}

fn run(events: u64, fsync: bool) -> Result<Value> {
    // Recorded traffic: no wall clock goes on beside it.
    let run = Tillflow::run().set("commit.fsync", fsync).set("time.idle", false).set("time.wait_s", 300).within(LONG);
    let mut tillflow = run.spawn();
    tillflow.wait_until_ready();
    post(&tillflow, "/v1/topics/products", load::catalogue(PRODUCTS).map(|(_, product)| product.to_string()))?;
    post(&tillflow, "/v1/inventory", load::stock(events, PRODUCTS, SEED).map(|(_, stock)| stock))?;
    settle(&tillflow);
    let id = tillflow.process().id();
    let used = || usage::of(id).context("/proc can't be read");
    let before = used()?.cpu_s;
    let started = Instant::now();
    post(&tillflow, "/v1/events", load::events(events, USERS, PRODUCTS, SEED).map(|(_, event)| event))?;
    let taken = started.elapsed();
    let processed = settle(&tillflow).duration_since(started);
    let used = used()?;
    let rate = |time: Duration| events as f64 / time.as_secs_f64();
    let cpu = (used.cpu_s - before) * 1e6 / events as f64;
    let name = if fsync { "embedded log, fsync" } else { "embedded log, no fsync" };
    println!("{name:<44}{:>14.0}{:>14.0}{cpu:>14.1}{:>14}", rate(taken), rate(processed), used.peak_rss_mb);
    Ok(json!({
        "waits_for_disk": fsync, "events": events, "taken_per_s": rate(taken), "processed_per_s": rate(processed),
        "cpu_s_per_million": cpu, "peak_rss_mb": used.peak_rss_mb,
    }))
}

/// Posts records, one request after the other.
fn post(tillflow: &Tillflow, path: &str, records: impl Iterator<Item = String>) -> Result<()> {
    // Made before they are timed would need all in memory; made meanwhile costs a fraction of what the product takes.
    let mut records = records.peekable();
    let client = reqwest::blocking::Client::builder().timeout(LONG).build()?;
    while records.peek().is_some() {
        let batch: Vec<String> = records.by_ref().take(REQUEST).collect();
        let request = client.post(format!("{}{path}", tillflow.url())).header("content-type", "application/json");
        let answer = request.body(format!("[{}]", batch.join(","))).send()?;
        if !answer.status().is_success() {
            bail!("{path} answers {}: {}", answer.status(), answer.text()?);
        }
    }
    Ok(())
}

/// Waits until no group has anything left; returns since when.
fn settle(tillflow: &Tillflow) -> Instant {
    let mut since = None;
    until("everything is processed", LONG, || {
        let lags = tillflow.get("/metrics").text().unwrap_or_default();
        let mut lags = lags.lines().filter(|l| l.starts_with("tillflow_records_lag{")).peekable();
        let is_drained = lags.peek().is_some() && lags.all(|l| l.ends_with(" 0"));
        let drained = is_drained.then(|| *since.get_or_insert_with(Instant::now));
        if drained.is_none() {
            since = None;
        }
        drained.is_some_and(|at| at.elapsed() >= SETTLED)
    });
    since.unwrap_or_else(Instant::now)
}
