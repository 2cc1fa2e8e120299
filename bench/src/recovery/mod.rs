//! How soon an instance of the peers' job goes on that was killed, or whose place another takes; beside it Kafka Streams.

mod bare;
mod load;
mod restarts;
pub mod seed;
mod takeover;

use crate::{
    SEED, figures,
    load::{events, stock},
    peer::{
        Mode,
        run::{self, PARTITIONS},
    },
    streams::{self, Streams},
};
use anyhow::Result;
use load::Load;
use restarts::{Kills, Waits};
use serde::Serialize;
use serde_json::json;
use std::{fs, path::Path};
use takeover::Takeover;
use tillflow_tests::{Kafka, scratch};

/// The table whose rows are seeded.
const SEEDED: &str = "peer.sessions";
/// No end.
const ALL: u64 = u64::MAX;

/// How soon an instance goes on that was killed, or whose place another takes.
#[derive(clap::Args)]
pub struct Recovery {
    /// How neighbours are counted.
    #[arg(long, default_value = "bounded")]
    mode: Mode,
    /// Workers a task group.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Events a second, all the time.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Events processed before anything is killed.
    #[arg(long, default_value_t = 50_000)]
    events: u64,
    /// Different users among them.
    #[arg(long, default_value_t = 200_000)]
    users: usize,
    /// Different products.
    #[arg(long, default_value_t = 20_000)]
    products: usize,
    /// MB of rows that lie in the customers' stores beforehand, each in a run of its own. What events make comes on top.
    #[arg(long, value_delimiter = ',', default_value = "10,1000")]
    state_mb: Vec<u64>,
    #[command(flatten)]
    kills: Kills,
    /// MB of rows in the changelog that a new instance takes over; 0 for no takeover.
    #[arg(long, default_value_t = 100)]
    takeover_mb: u64,
    /// Kafka Streams, too, with a static id and no other state than events make.
    #[arg(long)]
    with_streams: bool,
}

/// One contender's restarts.
#[derive(Debug, Serialize)]
struct Restarts {
    contender: &'static str,
    state_mb: u64,
    #[serde(flatten)]
    waits: Waits,
}

impl Recovery {
    /// Runs it all.
    ///
    /// # Errors
    /// When an instance fails.
    pub fn run(&self, json: &Path) -> Result<()> {
        let kafka = Kafka::setup().for_load().heap_mb(1_024).property("log.cleaner.enable", "false").start();
        let mut restarts = Vec::new();
        println!("{:<28}{:>12}{:>14}{:>10}{:>22}", "kill -9 and start again", "state (MB)", "median (ms)", "worst", "until assigned (ms)");
        for megabytes in &self.state_mb {
            restarts.push(tell("peers' job", self.restarts(&kafka, *megabytes)?));
        }
        if self.with_streams
            && let Some(streams) = Streams::prepare(&kafka)?
        {
            restarts.push(tell("Kafka Streams, static id", self.streams(&kafka, &streams)?));
        }
        let takeover = if self.takeover_mb > 0 { Some(self.takeover(&kafka)?) } else { None };
        if let Some(takeover) = &takeover {
            println!("takeover: {:#}", json!(takeover));
        }
        let figures = json!({"rate": self.rate, "events_before": self.events, "restarts": restarts, "takeover": takeover});
        figures::keep(json, json!({ "recovery": figures }))
    }

    fn traffic(&self) -> impl Iterator<Item = (String, String)> + Send + use<> {
        events(ALL, self.users, self.products, SEED)
    }

    /// Topics of their own, with the first events in them.
    fn shop(&self, kafka: &Kafka, traffic: &mut impl Iterator<Item = (String, String)>) -> Result<String> {
        let prefix = kafka.prefix();
        run::create_topics(kafka, &prefix, &[self.mode])?;
        kafka.send(&run::input(&prefix, "inventory")?, stock(self.events, self.products, SEED));
        kafka.send(&run::input(&prefix, "user_event")?, traffic.take(self.events as usize));
        Ok(prefix)
    }

    fn restarts(&self, kafka: &Kafka, megabytes: u64) -> Result<Restarts> {
        let mut traffic = self.traffic();
        let prefix = self.shop(kafka, &mut traffic)?;
        let files = scratch("restarts");
        seed::grow(&files.join("state"), "customers", PARTITIONS, SEEDED, megabytes)?;
        let drained = run::drain_in(files, kafka, &prefix, self.mode, self.workers)?;
        let state = bytes_under(&drained.data());
        let instance = run::instance(kafka, &prefix, self.mode, self.workers, &drained.data());
        let topics = (run::input(&prefix, "user_event")?, run::topic(&prefix, self.mode, "peer_loyalty")?);
        let waits = Load::during(kafka, (&topics.0, &topics.1), &mut traffic, self.rate, |load| {
            self.kills.strike(load, || instance.start(drained.files.path()))
        })?;
        Ok(Restarts { contender: self.mode.name(), state_mb: state / 1_000_000, waits })
    }

    fn streams(&self, kafka: &Kafka, streams: &Streams<'_>) -> Result<Restarts> {
        let mut traffic = self.traffic();
        kafka.send(streams::INVENTORY, stock(self.events, self.products, SEED));
        kafka.send(streams::EVENTS, traffic.by_ref().take(self.events as usize));
        let files = scratch("streams");
        let mut process = streams.start(&files, Some("one"));
        streams.until_drained(&mut process)?;
        // The next start is as after a crash, too.
        process.kill();
        let waits = Load::during(kafka, (streams::EVENTS, streams::UPDATES), &mut traffic, self.rate, |load| {
            self.kills.strike(load, || Ok(streams.start(&files, Some("one"))))
        })?;
        Ok(Restarts { contender: "streams", state_mb: bytes_under(&files.join("state")) / 1_000_000, waits })
    }

    fn takeover(&self, kafka: &Kafka) -> Result<Takeover> {
        let mut traffic = self.traffic();
        let prefix = self.shop(kafka, &mut traffic)?;
        drop(run::drain(kafka, &prefix, self.mode, self.workers)?);
        takeover::run(kafka, &prefix, (self.mode, self.workers), SEEDED, self.takeover_mb, &mut traffic, self.rate)
    }
}

fn tell(name: &str, restarts: Restarts) -> Restarts {
    let said = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.0}"));
    let Waits { until_commit_ms: commit, until_assigned_ms: assigned } = &restarts.waits;
    println!("{name:<28}{:>12}{:>14}{:>10}{:>22}", restarts.state_mb, said(commit.median), said(commit.worst), said(assigned.median));
    restarts
}

/// Bytes of all files there.
fn bytes_under(place: &Path) -> u64 {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(it) if it.is_dir() => bytes_under(&entry.path()),
        Ok(it) => it.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}
