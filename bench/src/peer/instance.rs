//! The engine with the peers' job, in a process of its own so that what it uses can be told.

use super::{Mode, catalog, groups};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use signal_hook::{consts::SIGTERM, flag};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tillflow_engine::{
    Engine, EngineConfig,
    log::kafka::{Kafka, KafkaSettings, Purging, Stores},
    port::Readiness,
};
use tillflow_schemas::{Codec, Timestamp};
use tillflow_state::Shared;
use tillflow_tests::{Process, until};

/// Less than the product's default of 128 MB: what the job counts lies in memory, and it reads few rows.
pub const CACHE: usize = 96 << 20;
/// As the product's default is.
pub const WRITE_BUFFERS: usize = 64 << 20;
const LONG: Duration = Duration::from_secs(3_600);

/// What an instance needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Instance {
    /// Where the cluster is.
    #[arg(long)]
    pub brokers: String,
    /// Goes before every topic and group.
    #[arg(long)]
    pub prefix: String,
    /// Its name among instances.
    #[arg(long)]
    pub id: String,
    /// Where its state goes.
    #[arg(long)]
    pub data: PathBuf,
    /// How neighbours are counted.
    #[arg(long)]
    pub mode: Mode,
    /// Partitions of every topic.
    #[arg(long)]
    pub partitions: u32,
    /// Workers a task group.
    #[arg(long)]
    pub workers: u32,
}

impl Instance {
    /// Its cluster.
    ///
    /// # Errors
    /// When the list of topics is wrong.
    pub fn cluster(&self) -> Result<Kafka> {
        let settings = KafkaSettings {
            brokers: self.brokers.clone(),
            app_id: format!("{}{}", self.prefix, self.mode.name()),
            instance_id: self.id.clone(),
            prefix: self.prefix.clone(),
            replication: None,
            session_timeout: Duration::from_secs(10),
            purging: Purging::default(),
            options: BTreeMap::new(),
        };
        Ok(Kafka::new(settings, &catalog(self.mode, self.partitions)?))
    }

    /// Starts it as a process of its own, which writes what it says into `logs`.
    ///
    /// # Errors
    /// When this program can't be found.
    pub fn start(&self, logs: &Path) -> Result<Process> {
        let program = std::env::current_exe()?;
        Ok(Process::spawn(&format!("instance-{}", self.id), logs, &program, |command| {
            command.arg("instance").args(["--brokers", &self.brokers, "--prefix", &self.prefix, "--id", &self.id]);
            command.args(["--mode", self.mode.name()]).arg("--data").arg(&self.data);
            command.args(["--partitions", &self.partitions.to_string(), "--workers", &self.workers.to_string()]);
        }))
    }

    /// Runs until it is told to stop by SIGTERM; says on stdout whether it is ready, and which tasks run, whenever that changes.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn run(&self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        flag::register(SIGTERM, stop.clone())?;
        let config = EngineConfig { idle_clock: false, workers: self.workers, ..EngineConfig::default() };
        let stores = Stores::open(&self.data, &Shared::new(CACHE, WRITE_BUFFERS))?;
        let engine = Engine::kafka(&self.cluster()?, &stores, &groups(self.mode), &Arc::new(Codec::json()), &config)
            .context("starting the engine")?;
        let shop = engine.port();
        let mut said = Told::default();
        while !stop.load(Ordering::Acquire) && !engine.is_stopping() {
            let now = Told::of(shop.readiness());
            if (&now.reason, &now.tasks) != (&said.reason, &said.tasks) {
                println!("{}", serde_json::to_string(&now)?);
                said = now;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("{}", metrics(shop.metrics()));
        engine.stop().map_err(|reason| anyhow!(reason))
    }
}

/// What an instance says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// When, by the wall clock.
    pub at_ms: i64,
    /// Whether all its tasks run.
    pub ready: bool,
    /// Why not.
    pub reason: String,
    /// By group: tasks that it has, and how many of them run.
    pub tasks: BTreeMap<String, (usize, usize)>,
}

impl Told {
    fn of(readiness: Readiness) -> Self {
        let mut tasks = BTreeMap::<String, (usize, usize)>::new();
        for task in readiness.tasks {
            let (here, run) = tasks.entry(task.group).or_default();
            *here += 1;
            *run += usize::from(task.state == "running");
        }
        Self { at_ms: Timestamp::wall().millis(), ready: readiness.ready, reason: readiness.reason, tasks }
    }

    /// All that a process has said since this moment.
    pub fn since(moment: Timestamp, process: &Process) -> Vec<Self> {
        let all = process.stdout();
        let all = all.lines().filter_map(|line| serde_json::from_str::<Self>(line).ok());
        all.filter(|told| told.at_ms >= moment.millis()).collect()
    }

    /// When it had its first tasks.
    pub fn assigned(all: &[Self]) -> Option<i64> {
        all.iter().find(|told| !told.tasks.is_empty()).map(|told| told.at_ms)
    }
}

/// Waits until a process that was started at this moment says that it is ready.
pub fn until_ready(process: &mut Process, started: Timestamp) {
    until("the instance is ready", LONG, || {
        assert!(process.is_running(), "the instance has ended:\n{}", process.stderr());
        Told::since(started, process).last().is_some_and(|told| told.ready)
    });
}

/// The engine's counters as one line of JSON: the sum of each over its labels, and of histograms their mean.
fn metrics(registry: &prometheus::Registry) -> serde_json::Value {
    let mut all = serde_json::Map::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let label: Vec<&str> = metric.get_label().iter().map(|l| l.value()).collect();
            let name = format!("{}.{}", family.name(), label.join("."));
            let histogram = metric.get_histogram();
            let value = match family.get_field_type() {
                prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
                prometheus::proto::MetricType::HISTOGRAM => histogram.get_sample_sum() / (histogram.get_sample_count().max(1) as f64),
                _ => continue,
            };
            all.insert(name, value.into());
        }
    }
    all.into()
}
