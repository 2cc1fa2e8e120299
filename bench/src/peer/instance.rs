//! The engine with the peers' job, in a process of its own so that what it uses can be told.

use super::{Mode, catalog, groups};
use anyhow::{Context, Result, anyhow};
use signal_hook::{consts::SIGTERM, flag};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tillflow_engine::{
    Engine, EngineConfig,
    log::kafka::{Kafka, KafkaSettings, Purging, Stores},
};
use tillflow_schemas::Codec;
use tillflow_state::Shared;

/// As the product's defaults are.
const CACHE: usize = 128 << 20;
const WRITE_BUFFERS: usize = 64 << 20;

/// What an instance needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Instance {
    /// Where the cluster is.
    #[arg(long)]
    pub brokers: String,
    /// Goes before every topic and group.
    #[arg(long)]
    pub prefix: String,
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
            instance_id: "bench".into(),
            prefix: self.prefix.clone(),
            replication: None,
            session_timeout: Duration::from_secs(10),
            purging: Purging::default(),
            options: BTreeMap::new(),
        };
        Ok(Kafka::new(settings, &catalog(self.mode, self.partitions)?))
    }

    /// Runs until it is told to stop by SIGTERM; says on stdout when it is ready.
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
        let mut ready = false;
        while !stop.load(Ordering::Acquire) && !engine.is_stopping() {
            if !ready && shop.readiness().ready {
                ready = true;
                println!("ready");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("{}", metrics(shop.metrics()));
        engine.stop().map_err(|reason| anyhow!(reason))
    }
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
