//! Side by side on one real broker, in one run and on the same bytes: Tillflow with its default rules, and a bare
//! transactional copy.

mod copy;
mod load;
mod usage;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tillflow_tests::{Kafka, Tillflow, cluster::Shop, until};

const LONG: Duration = Duration::from_secs(3_600);
/// Records handed to the producer at once.
const BATCH: usize = 50_000;

/// The side-by-side benchmark.
#[derive(Parser)]
struct Arguments {
    /// Events of shoppers.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Different users among them.
    #[arg(long, default_value_t = 200_000)]
    users: usize,
    /// Different products.
    #[arg(long, default_value_t = 20_000)]
    products: usize,
    /// Workers a task group.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Where the figures go, as JSON.
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The bare copy alone, in a process of its own so that what it uses can be told.
    #[command(hide = true)]
    Copy { brokers: String, input: String, output: String },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Copy { brokers, input, output }) = &arguments.part {
        let seconds = copy::copy(brokers, input, output)?;
        let used = usage::of(std::process::id()).context("/proc can't be read")?;
        println!("{}", json!({"seconds": seconds, "cpu_s": used.cpu_s, "peak_rss_mb": used.peak_rss_mb}));
        return Ok(());
    }
    let kafka = Kafka::setup().for_load().heap_mb(1_024).start();
    let shop = Shop::new(&kafka, &kafka.bootstrap());
    let bytes = fill(&kafka, &shop, &arguments);
    eprintln!("{} events, {:.0} MB", arguments.events, bytes as f64 / 1e6);
    let copied = bare_copy(&kafka, &shop)?;
    let processed = tillflow(&shop, &arguments)?;
    report(&arguments, bytes, &copied, &processed)
}

/// Writes the workload; returns the bytes of the events.
fn fill(kafka: &Kafka, shop: &Shop, arguments: &Arguments) -> usize {
    let (products, stock): (Vec<_>, Vec<_>) = load::catalogue(arguments.products)
        .map(|(id, product, stock)| ((id.clone(), product.to_string()), (id, stock.to_string())))
        .unzip();
    kafka.send(&shop.topic("products"), products);
    kafka.send(&shop.topic("inventory"), stock);
    let mut bytes = 0;
    let mut events = load::events(arguments.events, arguments.users, arguments.products, 7).peekable();
    while events.peek().is_some() {
        let batch: Vec<_> = events.by_ref().take(BATCH).map(|(user, event)| (user, event.to_string())).collect();
        bytes += batch.iter().map(|(_, event)| event.len()).sum::<usize>();
        kafka.send(&shop.topic("user_events"), batch);
    }
    bytes
}

fn bare_copy(kafka: &Kafka, shop: &Shop) -> Result<Value> {
    let output = shop.topic("copy");
    kafka.create_topic(&output, tillflow_tests::cluster::PARTITIONS as i32, &[]);
    let program = std::env::current_exe()?;
    let run =
        Command::new(program).args(["copy", &kafka.bootstrap(), &shop.topic("user_events"), &output]).stdout(Stdio::piped()).output()?;
    if !run.status.success() {
        bail!("the bare copy failed: {}", run.status);
    }
    Ok(serde_json::from_slice(&run.stdout)?)
}

fn tillflow(shop: &Shop, arguments: &Arguments) -> Result<Value> {
    let mut instance: Tillflow = shop.instance("bench", arguments.workers).spawn();
    instance.wait_until_ready();
    let started = Instant::now();
    until("everything is processed", LONG, || shop.is_drained());
    let seconds = started.elapsed().as_secs_f64();
    let used = usage::of(instance.process().id()).context("/proc can't be read")?;
    let metrics = instance.get("/metrics").text()?;
    let sum =
        |name: &str| metrics.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    let commits = sum("tillflow_commit_latency_seconds_count");
    Ok(json!({
        "seconds": seconds, "cpu_s": used.cpu_s, "peak_rss_mb": used.peak_rss_mb, "commits": commits,
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

fn report(arguments: &Arguments, bytes: usize, copied: &Value, processed: &Value) -> Result<()> {
    let events = arguments.events as f64;
    let row = |name: &str, run: &Value| {
        let number = |field: &str| run[field].as_f64().unwrap_or(f64::NAN);
        println!(
            "{name:<28}{:>12.0}{:>16.1}{:>16.0}{:>18.1}{:>18.0}",
            events / number("seconds"),
            number("cpu_s") * 1e6 / events,
            number("peak_rss_mb"),
            number("commit_ms_mean"),
            number("commit_ms_p99_at_most"),
        );
    };
    println!(
        "{:<28}{:>12}{:>16}{:>16}{:>18}{:>18}",
        "", "events/s", "CPU-s/M events", "peak RSS (MB)", "commit mean (ms)", "commit p99 ≤ (ms)"
    );
    row("bare transactional copy", copied);
    row("tillflow, default rules", processed);
    let figures = json!({
        "events": arguments.events, "users": arguments.users, "products": arguments.products, "workers": arguments.workers,
        "bytes": bytes, "copy": copied, "tillflow": processed,
    });
    std::fs::write(&arguments.json, format!("{figures:#}\n")).with_context(|| format!("writing {}", arguments.json.display()))?;
    println!("written to {}", arguments.json.display());
    Ok(())
}
