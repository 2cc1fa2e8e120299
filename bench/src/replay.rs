//! Recorded events through `tillflow replay`: files in, files out, no broker. Timed from the start of the process to its end.

use crate::{figures, load, usage};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tillflow_tests::{Tillflow, scratch, until, workload::Workload};

const SEED: u64 = 7;
const LONG: Duration = Duration::from_secs(4 * 3_600);

/// Recorded events through `tillflow replay`.
#[derive(Args)]
pub struct Replay {
    /// Generated events; 0 for none.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Different users among them.
    #[arg(long, default_value_t = 200_000)]
    users: usize,
    /// Different products.
    #[arg(long, default_value_t = 20_000)]
    products: usize,
    /// Events of Online Retail, the first of the year; all unless told, 0 for none.
    #[arg(long)]
    retail: Option<usize>,
}

impl Replay {
    /// Measures, prints and keeps the figures.
    ///
    /// # Errors
    /// When something does not run.
    pub fn run(&self, json: &Path) -> Result<()> {
        println!(
            "{:<20}{:>12}{:>12}{:>12}{:>12}{:>12}{:>16}{:>17}{:>16}",
            "", "events", "records", "seconds", "events/s", "records/s", "CPU-s/M events", "CPU-s/M records", "peak RSS (MB)"
        );
        let mut rows = Vec::new();
        if self.retail != Some(0) {
            // Where the data is not beside the checkout, that is said.
            rows.extend(Workload::of("online_retail", self.retail.unwrap_or(usize::MAX)).map(|year| retail(&year)).transpose()?);
        }
        if self.events > 0 {
            rows.push(self.generated()?);
        }
        figures::keep(json, json!({ "replay": rows }))
    }

    /// The traffic of the drain, with its catalogue and stock.
    fn generated(&self) -> Result<Value> {
        let files = scratch("generated");
        let mut records = 0;
        let mut write = |topic: &str, lines: &mut dyn Iterator<Item = String>| -> Result<String> {
            let path: PathBuf = files.join(format!("{topic}.jsonl"));
            let mut file = BufWriter::new(File::create(&path)?);
            for line in lines {
                records += 1;
                writeln!(file, "{line}")?;
            }
            file.flush()?;
            Ok(format!("{topic}={}", path.display()))
        };
        let inputs = vec![
            write("products", &mut load::catalogue(self.products).map(|(_, product)| product.to_string()))?,
            write("inventory", &mut load::stock(self.events, self.products, SEED).map(|(_, stock)| stock))?,
            write("user_events", &mut load::events(self.events, self.users, self.products, SEED).map(|(_, event)| event))?,
        ];
        replay("generated", self.events as usize, records, inputs, &files.join("out"))
    }
}

fn retail(year: &Workload) -> Result<Value> {
    let files = scratch("retail");
    let events = year.lines.iter().filter(|line| line.topic == "user_events").count();
    replay("Online Retail", events, year.lines.len(), year.files(files.path()), &files.join("out"))
}

fn replay(name: &str, events: usize, records: usize, inputs: Vec<String>, out: &Path) -> Result<Value> {
    let mut run = Tillflow::command(std::iter::once("replay".to_owned()).chain(inputs));
    run = run.arg("--out").arg(out.display().to_string());
    let started = Instant::now();
    let mut process = run.start();
    let mut used = usage::Usage::default();
    until("the replay ends", LONG, || {
        // Of a process that has ended there is nothing to be read: its last look is at most one look old.
        used = usage::of(process.id()).unwrap_or(used);
        !process.is_running()
    });
    let seconds = started.elapsed().as_secs_f64();
    let exit = process.wait(Duration::ZERO);
    if !exit.success() {
        bail!("the replay of {name} failed: {exit}\n{}", process.stderr());
    }
    let summary = std::fs::read_to_string(out.join("summary.json")).context("the replay's summary")?;
    let summary: Value = serde_json::from_str(&summary)?;
    let (rate, cpu) = (|n: usize| n as f64 / seconds, |n: usize| used.cpu_s * 1e6 / n as f64);
    print!("{name:<20}{events:>12}{records:>12}{seconds:>12.1}{:>12.0}{:>12.0}", rate(events), rate(records));
    println!("{:>16.1}{:>17.1}{:>16}", cpu(events), cpu(records), used.peak_rss_mb);
    Ok(json!({
        "input": name, "events": events, "records": records, "seconds": seconds, "events_per_s": rate(events),
        "records_per_s": rate(records), "cpu_s_per_million_events": cpu(events), "cpu_s_per_million_records": cpu(records),
        "peak_rss_mb": used.peak_rss_mb, "outputs": summary.get("outputs"),
    }))
}
