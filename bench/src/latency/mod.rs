//! From an event to what it brings: a Redis message, a WebSocket message, a decision of the second stage.
//!
//! The load is open: events are sent when they are due, and their time counts from then, so that a stall shows in all
//! events that it held up (Gil Tene's coordinated omission). An event whose message did not come is counted and shown.

mod hear;
mod matching;
mod offer;
mod traffic;

use crate::{
    figures::{self, Spread},
    length::length,
    usage,
};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hear::Ears;
use matching::{Matched, Measured};
use offer::Start;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;
use tillflow_tests::{
    Kafka, Redis, Tillflow,
    cluster::{PARTITIONS, Shop},
    until,
};
use tokio::runtime::Runtime;
use traffic::Traffic;

const LONG: Duration = Duration::from_secs(600);
/// Before the first event is due.
const RUN_UP: Duration = Duration::from_millis(500);
/// Messages are waited for until none came for so long.
const SILENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// From an event to what it brings.
#[derive(Args)]
pub struct Latency {
    /// Events offered a second, the most first.
    #[arg(long, value_delimiter = ',', default_value = "100,2000")]
    rate: Vec<usize>,
    /// For how long each is measured.
    #[arg(long = "for", value_parser = length, default_value = "30s")]
    length: Duration,
    /// For how long it is offered before that.
    #[arg(long, value_parser = length, default_value = "10s")]
    warm_up: Duration,
    /// Shoppers with a WebSocket, at most; the others are heard of from Redis alone.
    #[arg(long, default_value_t = 500)]
    sockets: usize,
    /// On which logs.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kafka,embedded")]
    log: Vec<Log>,
    /// Partitions a topic. A commit asks the brokers for each of those that it writes to, one after the other.
    #[arg(long, default_value_t = PARTITIONS)]
    partitions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Log {
    /// A real Kafka, which a producer with linger 0 writes to.
    Kafka,
    /// The embedded log, where each commit waits for the disk; events are posted.
    Embedded,
}

impl Log {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Embedded => "embedded",
        }
    }

    /// What the 99th percentile of pushes shall be at most.
    fn push_goal_ms(self) -> f64 {
        match self {
            Self::Kafka => 20.0,
            Self::Embedded => 5.0,
        }
    }
}

/// What the 99th percentile of decisions of the second stage shall be at most.
const DECISION_GOAL_MS: f64 = 50.0;

/// What brings the orders themselves: on Kafka nothing is sooner.
const PLAIN: &str = "a plain consumer";

/// A shop that runs.
struct Running {
    log: Log,
    tillflow: Tillflow,
    redis: Redis,
    kafka: Option<(Kafka, Shop)>,
    runtime: Runtime,
}

impl Latency {
    /// Measures, prints and keeps the figures.
    ///
    /// # Errors
    /// When something does not run.
    pub fn run(&self, json: &Path) -> Result<()> {
        heading();
        let mut rows = Vec::new();
        for log in &self.log {
            let mut shop = Running::start(*log, self.partitions)?;
            // From the highest on: a broker that has just started compiles for a while, and by then has compiled.
            for rate in self.rate.iter().copied().collect::<BTreeSet<_>>().into_iter().rev() {
                rows.extend(shop.measure(self, rate)?);
            }
        }
        figures::keep(json, json!({ "latency": rows, "latency_partitions": self.partitions }))
    }
}

impl Running {
    fn start(log: Log, partitions: u32) -> Result<Self> {
        let redis = Redis::start();
        let run = Tillflow::run().set("redis.url", redis.url()).set("topics.partitions", partitions).within(LONG);
        let (products, stock, orders) = (traffic::products(), traffic::stock(), traffic::orders());
        let (tillflow, kafka) = match log {
            Log::Kafka => {
                let kafka = Kafka::setup().for_load().heap_mb(1_024).start();
                let shop = Shop::with_partitions(&kafka, &kafka.bootstrap(), partitions);
                let tillflow = run.on_kafka(&kafka.bootstrap(), &shop.prefix, "bench").spawn();
                let text = |records: Vec<(String, Value)>| records.into_iter().map(|(id, record)| (id, record.to_string()));
                kafka.send(&shop.topic("products"), text(products));
                kafka.send(&shop.topic("inventory"), text(stock));
                kafka.send(&shop.topic("user_events"), text(orders));
                (tillflow, Some((kafka, shop)))
            }
            Log::Embedded => {
                let tillflow = run.spawn();
                for (path, records) in [("/v1/topics/products", products), ("/v1/inventory", stock), ("/v1/events", orders)] {
                    let records = records.into_iter().map(|(_, record)| record).collect();
                    tillflow.post(path, records).error_for_status().context("posting the catalogue")?;
                }
                (tillflow, None)
            }
        };
        let mut running = Self { log, tillflow, redis, kafka, runtime: Runtime::new()? };
        running.tillflow.wait_until_ready();
        let tillflow = &running.tillflow;
        let answer = |path: String| tillflow.get(&path).json::<Value>().unwrap_or_default();
        until("products, their stock and their neighbours are known", LONG, || {
            traffic::products().iter().all(|(id, _)| {
                let related = answer(format!("/v1/products/{id}/related"));
                let is_known = related.get("related").and_then(Value::as_array).is_some_and(|list| list.len() >= traffic::SHELF - 1);
                is_known && answer(format!("/v1/products/{id}")).get("stock_level").is_some_and(Value::is_number)
            })
        });
        Ok(running)
    }

    fn measure(&mut self, arguments: &Latency, rate: usize) -> Result<Vec<Value>> {
        let traffic = Traffic::new(&format!("r{rate}"), rate);
        let sockets = arguments.sockets.min(traffic.shoppers());
        let handle = self.runtime.handle().clone();
        let mut ears = Ears::default();
        ears.listen_to_redis(&self.redis)?;
        ears.listen_to_sockets(&handle, &self.tillflow.ws_url(), &traffic, sockets)?;
        match &self.kafka {
            Some((kafka, shop)) => {
                ears.listen_to_events(kafka, &shop.topic("user_events"))?;
                ears.listen_to_decisions(kafka, &shop.topic("related_products"))?;
            }
            None => ears.listen_to_read_models(&self.redis)?,
        }
        let measured = Measured { first: traffic.within(arguments.warm_up), end: traffic.within(arguments.warm_up + arguments.length) };
        let start = Start {
            started: Instant::now() + RUN_UP,
            wall: Timestamp::from_millis(Timestamp::wall().millis() + RUN_UP.as_millis() as i64),
            events: measured.end,
        };
        let id = self.tillflow.process().id();
        let cpu = || usage::of(id).context("/proc can't be read").map(|u| u.cpu_s);
        let before = cpu()?;
        let offered = match &self.kafka {
            Some((kafka, shop)) => offer::to_kafka(kafka, &shop.topic("user_events"), &traffic, start)?,
            None => offer::to_gateway(&handle, self.tillflow.url(), &traffic, start)?,
        };
        let cores = (cpu()? - before) / start.started.elapsed().as_secs_f64();
        wait_for_silence(&ears);
        ears.stop();
        let accepted = offered.accepted.iter().filter(|(n, _)| *n >= measured.first);
        let accepted = Matched { took: accepted.map(|(_, took)| *took).collect(), missing: offered.refused };
        let pushes = |heard: &[_], of: &dyn Fn(usize) -> bool| matching::pushes(&traffic, start.started, measured, heard, of);
        let goal = self.log.push_goal_ms();
        let parts = [
            ("accepted", accepted, None),
            (PLAIN, matching::decisions(&traffic, start.started, measured, &ears.orders()), None),
            ("Redis message", pushes(&ears.redis_pushes(&traffic), &|_| true), Some(goal)),
            ("WebSocket message", pushes(&ears.socket_pushes(&traffic), &|shopper| shopper < sockets), Some(goal)),
            ("second stage", matching::decisions(&traffic, start.started, measured, &ears.decisions()), Some(DECISION_GOAL_MS)),
        ];
        let asked = parts.into_iter().filter(|(what, ..)| *what != if self.kafka.is_some() { "accepted" } else { PLAIN });
        Ok(asked.map(|(what, matched, goal)| row(self.log, rate, what, matched, goal, cores)).collect())
    }
}

/// Until what is still on its way has come.
fn wait_for_silence(ears: &Ears) {
    let (mut heard, mut since, began) = (ears.len(), Instant::now(), Instant::now());
    while since.elapsed() < SILENCE && began.elapsed() < LONG {
        std::thread::sleep(LOOK);
        if ears.len() != heard {
            (heard, since) = (ears.len(), Instant::now());
        }
    }
}

const COLUMNS: [(&str, &str); 5] =
    [("p50 (ms)", "p50_ms"), ("p99 (ms)", "p99_ms"), ("p99.9 (ms)", "p999_ms"), ("most (ms)", "max_ms"), ("goal p99", "goal_p99_ms")];

fn heading() {
    print!("{:<10}{:>9}  {:<20}{:>9}{:>11}", "log", "events/s", "from event to", "came", "none came");
    COLUMNS.iter().for_each(|(title, _)| print!("{title:>12}"));
    println!("{:>8}", "cores");
}

fn row(log: Log, rate: usize, what: &str, matched: Matched, goal: Option<f64>, cores: f64) -> Value {
    let (spread, missing) = (Spread::of(matched.took), matched.missing);
    let row = json!({
        "log": log.name(), "rate": rate, "to": what, "came": spread.len(), "none_came": missing,
        "p50_ms": spread.percentile_ms(0.5), "p99_ms": spread.percentile_ms(0.99), "p999_ms": spread.percentile_ms(0.999),
        "max_ms": spread.percentile_ms(1.0), "goal_p99_ms": goal, "instance_cores": cores,
    });
    print!("{:<10}{rate:>9}  {what:<20}{:>9}{missing:>11}", log.name(), spread.len());
    for (_, field) in COLUMNS {
        match row.get(field).and_then(Value::as_f64) {
            Some(value) => print!("{value:>12.1}"),
            None => print!("{:>12}", "-"),
        }
    }
    println!("{cores:>8.2}");
    row
}
