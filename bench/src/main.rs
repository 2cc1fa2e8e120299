//! Side by side on one real broker, in one run and on the same bytes: a bare transactional copy, the peers' job on
//! Tillflow's engine, and Tillflow with its default rules.

mod copy;
mod embedded;
mod figures;
mod latency;
mod length;
mod load;
mod peer;
mod plot;
mod product;
mod recovery;
mod replay;
mod scaling;
mod streams;
mod usage;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use peer::{Mode, check, instance::Instance, model::Model, run};
use serde_json::{Map, Value, json};
use std::{
    io,
    path::PathBuf,
    process::{Command, Stdio},
};
use streams::Streams;
use tillflow_tests::{Kafka, cluster::Shop};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records handed to the producer at once.
const BATCH: usize = 50_000;
const SEED: u64 = 7;

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
    /// Who runs.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "copy,exact,bounded,product")]
    contenders: Vec<Contender>,
    /// Whether the peers' job is compared with a model on one thread.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    check: bool,
    /// Events that Kafka Streams takes of them, which needs minutes for more.
    #[arg(long, default_value_t = 300_000)]
    streams_events: u64,
    /// Events that the broker is drained of before, uncounted: Java compiles while it runs. 0 for none.
    #[arg(long, default_value_t = 200_000)]
    warm_up: u64,
    /// Where the figures go, as JSON.
    #[arg(long, global = true, default_value = "bench.json")]
    json: PathBuf,
    /// Draws what --json holds of these runs into an SVG file, and runs nothing.
    #[arg(long)]
    plot: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Contender {
    /// The bare transactional copy.
    Copy,
    /// The peers' job, every pair counted.
    Exact,
    /// The peers' job, neighbours bounded.
    Bounded,
    /// The product with its default rules.
    Product,
    /// Kafka Streams doing the peers' job, where it is beside the clone.
    Streams,
}

impl Contender {
    /// Under which its figures are kept.
    fn key(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn title(self) -> &'static str {
        match self {
            Self::Copy => "bare transactional copy",
            Self::Exact => "peers' job, every pair",
            Self::Bounded => "peers' job, bounded",
            Self::Product => "tillflow, default rules",
            Self::Streams => "Kafka Streams",
        }
    }
}

#[derive(Subcommand)]
enum Part {
    /// From an event to a Redis message, a WebSocket message and a decision of the second stage.
    Latency(latency::Latency),
    /// What the embedded log takes and what is processed there, beside SQLite.
    Embedded(embedded::Embedded),
    /// Recorded events through `tillflow replay`.
    Replay(replay::Replay),
    /// The bare copy alone, in a process of its own so that what it uses can be told.
    #[command(hide = true)]
    Copy { brokers: String, input: String, output: String },
    /// An instance of the peers' job alone.
    #[command(hide = true)]
    Instance(Instance),
    /// How soon an instance goes on that was killed, or whose place another takes.
    Recovery(recovery::Recovery),
    /// Rate and memory by users, products and bytes of state.
    Scaling(scaling::Scaling),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(told()).init();
    match &arguments.part {
        Some(Part::Copy { brokers, input, output }) => {
            let seconds = copy::copy(brokers, input, output)?;
            let used = usage::of(std::process::id()).context("/proc can't be read")?;
            println!("{}", json!({"seconds": seconds, "cpu_s": used.cpu_s, "peak_rss_mb": used.peak_rss_mb}));
            Ok(())
        }
        Some(Part::Instance(instance)) => instance.run(),
        Some(Part::Latency(latency)) => latency.run(&arguments.json),
        Some(Part::Embedded(embedded)) => embedded.run(&arguments.json),
        Some(Part::Replay(replay)) => replay.run(&arguments.json),
        Some(Part::Recovery(recovery)) => recovery.run(&arguments.json),
        Some(Part::Scaling(scaling)) => scaling.run(&arguments.json),
        None => match &arguments.plot {
            Some(file) => plot::draw_drain(&arguments.json, file),
            None => compare(&arguments),
        },
    }
}

/// What is said on stderr: warnings, or what `RUST_LOG` asks for.
fn told() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,rdkafka=off"))
}

fn compare(arguments: &Arguments) -> Result<()> {
    // A cleaner that is at work in one run and not in the other would be a difference nobody asked for.
    let kafka = Kafka::setup().for_load().heap_mb(1_024).property("log.cleaner.enable", "false").start();
    if arguments.warm_up > 0 {
        warm_up(&kafka, arguments)?;
    }
    let prefix = kafka.prefix();
    run::create_topics(&kafka, &prefix, &[Mode::Exact, Mode::Bounded])?;
    let events = run::input(&prefix, "user_event")?;
    let mut model = Model::default();
    let bytes = fill(&kafka, &events, workload(arguments, arguments.events), &mut |event| {
        if arguments.check { model.take(event) } else { Ok(()) }
    })?;
    kafka.send(&run::input(&prefix, "inventory")?, load::stock(arguments.events, arguments.products, SEED));
    eprintln!("{} events, {:.0} MB", arguments.events, bytes as f64 / 1e6);
    let mut figures = Map::new();
    heading();
    for contender in &arguments.contenders {
        let drained = match contender {
            Contender::Copy => bare_copy(&kafka, &events, &format!("{prefix}copy"))?,
            Contender::Exact => peers(&kafka, &prefix, Mode::Exact, arguments, &model)?,
            Contender::Bounded => peers(&kafka, &prefix, Mode::Bounded, arguments, &model)?,
            Contender::Product => default_rules(&kafka, arguments)?,
            Contender::Streams => match kafka_streams(&kafka, arguments)? {
                Some(drained) => drained,
                None => continue,
            },
        };
        row(contender.title(), drained.get("events").and_then(Value::as_u64).unwrap_or(arguments.events), &drained);
        figures.insert(contender.key(), drained);
    }
    let figures = json!({
        "events": arguments.events, "users": arguments.users, "products": arguments.products, "workers": arguments.workers,
        "warm_up": arguments.warm_up, "bytes": bytes, "drain": figures,
    });
    figures::keep(&arguments.json, figures)
}

/// Has the broker do once what it does for the copy and the peers' job: Java compiles while it runs.
fn warm_up(kafka: &Kafka, arguments: &Arguments) -> Result<()> {
    let prefix = kafka.prefix();
    run::create_topics(kafka, &prefix, &[Mode::Exact])?;
    let events = run::input(&prefix, "user_event")?;
    fill(kafka, &events, workload(arguments, arguments.warm_up), &mut |_| Ok(()))?;
    bare_copy(kafka, &events, &format!("{prefix}copy"))?;
    run::drain(kafka, &prefix, Mode::Exact, arguments.workers)?;
    Ok(())
}

/// The first so many events.
fn workload(arguments: &Arguments, events: u64) -> impl Iterator<Item = (String, String)> {
    load::events(events, arguments.users, arguments.products, SEED)
}

/// Writes events and shows each to `look`; returns their bytes.
fn fill(
    kafka: &Kafka,
    topic: &str,
    events: impl Iterator<Item = (String, String)>,
    look: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<usize> {
    let mut bytes = 0;
    let mut events = events.peekable();
    while events.peek().is_some() {
        let batch: Vec<_> = events.by_ref().take(BATCH).collect();
        bytes += batch.iter().map(|(_, event)| event.len()).sum::<usize>();
        batch.iter().try_for_each(|(_, event)| look(event))?;
        kafka.send(topic, batch);
    }
    Ok(bytes)
}

fn bare_copy(kafka: &Kafka, input: &str, output: &str) -> Result<Value> {
    kafka.create_topic(output, run::PARTITIONS as i32, &[]);
    let program = std::env::current_exe()?;
    let copied = Command::new(program).args(["copy", &kafka.bootstrap(), input, output]).stdout(Stdio::piped()).output()?;
    if !copied.status.success() {
        bail!("the bare copy failed: {}", copied.status);
    }
    Ok(serde_json::from_slice(&copied.stdout)?)
}

fn peers(kafka: &Kafka, prefix: &str, mode: Mode, arguments: &Arguments, model: &Model) -> Result<Value> {
    let mut drained = run::drain(kafka, prefix, mode, arguments.workers)?;
    if arguments.check {
        let checked = check::check(model, mode, &drained.data(), &run::related(kafka, prefix, mode)?)?;
        eprintln!("{}: as the model says: {checked}", mode.name());
        if let Some(figures) = drained.figures.as_object_mut() {
            figures.insert("checked".into(), checked);
        }
    }
    Ok(drained.figures)
}

fn default_rules(kafka: &Kafka, arguments: &Arguments) -> Result<Value> {
    let shop = Shop::new(kafka, &kafka.bootstrap());
    kafka.send(&shop.topic("products"), load::catalogue(arguments.products).map(|(id, product)| (id, product.to_string())));
    kafka.send(&shop.topic("inventory"), load::stock(arguments.events, arguments.products, SEED));
    fill(kafka, &shop.topic("user_events"), workload(arguments, arguments.events), &mut |_| Ok(()))?;
    product::drain(&shop, &mut shop.instance("bench", arguments.workers).spawn())
}

fn kafka_streams(kafka: &Kafka, arguments: &Arguments) -> Result<Option<Value>> {
    let Some(streams) = Streams::prepare(kafka)? else { return Ok(None) };
    let events = arguments.events.min(arguments.streams_events);
    kafka.send(streams::INVENTORY, load::stock(events, arguments.products, SEED));
    fill(kafka, streams::EVENTS, workload(arguments, events), &mut |_| Ok(()))?;
    Ok(Some(streams.drain(events)?))
}

const COLUMNS: [(&str, &str); 6] = [
    ("CPU-s/M events", "cpu_s"),
    ("peak RSS (MB)", "peak_rss_mb"),
    ("changelog (MB)", "changelog_mb"),
    ("inner (MB)", "inner_mb"),
    ("outputs (MB)", "output_mb"),
    ("commit (ms)", "commit_ms_mean"),
];

fn heading() {
    print!("{:<28}{:>12}", "", "events/s");
    COLUMNS.iter().for_each(|(title, _)| print!("{title:>16}"));
    println!();
}

fn row(name: &str, events: u64, run: &Value) {
    let number = |field: &str| run[field].as_f64();
    print!("{name:<28}{:>12.0}", events as f64 / number("seconds").unwrap_or(f64::NAN));
    for (_, field) in COLUMNS {
        let scale = if field == "cpu_s" { 1e6 / events as f64 } else { 1.0 };
        match number(field) {
            Some(value) => print!("{:>16.1}", value * scale),
            None => print!("{:>16}", "-"),
        }
    }
    println!();
}
