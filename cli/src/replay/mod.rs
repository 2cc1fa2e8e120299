//! `tillflow replay`: the same processors on recorded events, in event time, with nothing else running.

mod compare;
pub mod input;
pub mod output;
mod rules;

use crate::{
    commands::{Out, Usage},
    progress::bar,
};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use compare::Baseline;
use input::Line;
use rules::Rules;
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tillflow_engine::{
    Engine, EngineConfig,
    log::{NewRecord, TopicPartition, embedded::Embedded},
};
use tillflow_schemas::{Catalog, Codec, Role, Timestamp, partition::partition};
use tillflow_state::{Durability, Shared};

/// Records appended in one write.
const BATCH: usize = 10_000;

/// Arguments of `tillflow replay`.
#[derive(Args, Debug)]
#[command(
    long_about = "Run the same processors on recorded events, in event time, with nothing else running: no broker, no wall clock.\n\n\
    Records of all files are taken in the order of their time. A line is the value, or {\"key\", \"timestamp\", \"value\"}; in CSV the \
    header names the fields. At the end every clock is set to the greatest time, so that what was due until then has happened. \
    Records that can't be processed are dead letters, as live: they end in dead_letters.jsonl and the exit code stays 0.",
    after_help = "Examples:\n  \
    tillflow replay events.jsonl --out results\n  \
    tillflow replay user_events=events.csv.gz inventory=stock.csv products=products.jsonl --until 2026-03-01T00:00:00Z --out results\n  \
    zcat events.jsonl.gz | tillflow replay - --json\n\n\
    What would other rules have changed? Replay twice:\n  \
    tillflow replay events.jsonl products=products.jsonl --out before\n  \
    tillflow replay events.jsonl products=products.jsonl --rules other.yaml --compare before"
)]
pub struct ReplayArgs {
    /// Recorded topics as [TOPIC=]FILE: JSON lines or CSV, plain, .gz or .zst; `-` is stdin; user_events where no topic is named
    #[arg(required = true, value_name = "[TOPIC=]FILE")]
    pub files: Vec<String>,
    /// Other rules: pricing rules with their scope (JSON lines or YAML), or YAML with sections as in tillflow.yaml and lists
    /// by reference topic. They count in the place of recorded ones of the same id, and above the configuration
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Write TOPIC.jsonl of every output topic, and summary.json, into this directory
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Say what came out differently than in the replay whose --out was this directory
    #[arg(long, value_name = "DIR")]
    pub compare: Option<PathBuf>,
    /// Set the clock to this time at the end, instead of the last record's: timers until then fire
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Print the summary as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the replay and prints what it came to.
///
/// # Errors
/// When a file can't be read, the settings or rules are wrong, or a directory can't be written.
pub fn run(args: &ReplayArgs, settings: &Map<String, Value>, partitions: u32, out: Out<'_>) -> Result<()> {
    let catalog = Catalog::built_in(partitions)?;
    let until = args.until.as_deref().map(|t| Timestamp::parse(t).map_err(|e| Usage(format!("--until: {e}")))).transpose()?;
    let rules = args.rules.as_deref().map(|file| Rules::read(file, &catalog)).transpose()?;
    let mut settings = settings.clone();
    let reading = bar(None, "reading");
    let mut lines = input::read(&args.files, &catalog, |n| reading.inc(n))?;
    reading.finish_and_clear();
    let events = lines.iter().filter(|l| catalog.topics().get(l.topic).is_some_and(|t| t.role == Role::Input)).count() as u64;
    let baseline = args.compare.as_deref().map(|dir| Baseline::open(dir, args.out.as_deref(), &lines)).transpose()?;
    if let Some(rules) = rules {
        settings = rules.settings(&settings);
        rules.apply(&mut lines);
    }

    let directory = tempfile::tempdir().context("a temporary directory")?;
    let log = Embedded::open(directory.path(), &catalog, Durability::Volatile, &Shared::new(256 << 20, 128 << 20))?;
    let end = until.into_iter().chain(lines.iter().map(|l| l.at)).max().unwrap_or(Timestamp::MIN);
    fill(&log, lines, end)?;
    let workers = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let config = EngineConfig { idle_clock: false, check_future: false, wait_for_input: None, workers, ..EngineConfig::default() };
    let engine = Engine::embedded(&log, &tillflow_processors::groups(&settings), &Arc::new(Codec::json()), &config)?;
    wait_until_drained(&engine)?;
    engine.stop().map_err(|e| anyhow!(e))?;

    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let outputs = output::write(&log, args.out.as_deref())?;
    let mut summary = json!({"events": events, "outputs": outputs});
    if let Some(baseline) = baseline {
        let comparison = baseline.compare(&log, events)?;
        if !args.json {
            comparison.tell(out)?;
        }
        if let Some(summary) = summary.as_object_mut() {
            summary.insert("compared".into(), comparison.to_json());
        }
    }
    if let Some(dir) = &args.out {
        write_summary(dir, &summary)?;
    }
    if args.json || (args.out.is_none() && args.compare.is_none()) {
        writeln!(out, "{summary}")?;
    }
    Ok(())
}

fn write_summary(dir: &Path, summary: &Value) -> Result<()> {
    let path = dir.join("summary.json");
    std::fs::write(&path, format!("{summary:#}\n")).with_context(|| format!("writing {}", path.display()))
}

/// Puts the records into the log, and after them the mark that sets every clock to the end.
fn fill(log: &Embedded, lines: Vec<Line>, end: Timestamp) -> Result<()> {
    let mut records = records_of(lines, log.catalog()).peekable();
    while records.peek().is_some() {
        log.write(&records.by_ref().take(BATCH).collect::<Vec<_>>(), std::iter::empty())?;
    }
    let marks = if end > Timestamp::MIN { marks(log.catalog(), end)? } else { Vec::new() };
    Ok(log.write(&marks, std::iter::empty())?)
}

/// Recorded lines as records, each in the partition of its key.
pub fn records_of(lines: Vec<Line>, catalog: &Catalog) -> impl Iterator<Item = NewRecord> {
    lines.into_iter().map(|line| {
        let partitions = catalog.topics().get(line.topic).map_or(1, |t| t.partitions);
        let home = line.key.as_ref().or(line.placed_by.as_ref()).map_or(0, |by| partition(by.as_bytes(), partitions));
        NewRecord {
            to: TopicPartition { topic: line.topic, partition: home },
            at: line.at.max(Timestamp::EARLIEST),
            key: line.key.map(String::into_bytes),
            value: line.value,
            headers: Vec::new(),
        }
    })
}

/// The marks that set the clock of every task forward to `at`.
///
/// # Errors
/// When the list of topics has none for them.
pub fn marks(catalog: &Catalog, at: Timestamp) -> Result<Vec<NewRecord>> {
    let topic = catalog.of_schema("clock_mark").context("no topic holds clock marks")?;
    let index = catalog.index(&topic.name).unwrap_or_default();
    let value = serde_json::to_vec(&json!({"at": at}))?;
    let mark = |partition| NewRecord {
        to: TopicPartition { topic: index, partition },
        at,
        key: None,
        value: Some(value.clone()),
        headers: Vec::new(),
    };
    Ok((0..topic.partitions).map(mark).collect())
}

/// Waits until all that is in the log is processed and committed.
///
/// # Errors
/// When the engine stops.
pub fn wait_until_drained(engine: &Engine) -> Result<()> {
    let progress = bar(Some(0), "processing");
    let mut most = 0;
    loop {
        if engine.is_stopping() {
            anyhow::bail!("the engine stopped: {}", engine.port().readiness().reason);
        }
        if engine.is_drained()? {
            progress.finish_and_clear();
            return Ok(());
        }
        let lag: i64 = engine.tasks().iter().map(|(_, view)| view.lag).sum();
        most = most.max(lag);
        progress.set_length(most.unsigned_abs());
        progress.set_position((most - lag).unsigned_abs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
