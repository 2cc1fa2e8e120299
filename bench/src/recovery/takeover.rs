//! An instance that takes over the partitions of one that was killed, and has never seen their state.

use super::{
    bare::{self, Restored},
    load::{Load, Moment},
    seed::Rows,
};
use crate::peer::{
    Mode, catalog,
    instance::{Instance, Told, until_ready},
    run::{self, PARTITIONS},
};
use anyhow::{Context, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{Role, Timestamp, partition::partition};
use tillflow_state::{Memory, Store, Table};
use tillflow_tests::{Kafka, Process, scratch};

/// Longest wait for an instance's end.
const END: Duration = Duration::from_secs(60);
/// Longest wait for a producer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it took, in seconds, and how fast stores were restored.
#[derive(Debug, Serialize)]
pub struct Takeover {
    rows_mb: u64,
    kill_to_assigned_s: f64,
    assigned_to_first_commit_s: f64,
    kill_to_first_commit_s: f64,
    restore: Restored,
    bare_restore: Restored,
}

/// The changelogs of the job's groups, as they are called on the cluster.
fn changelogs(prefix: &str, mode: Mode) -> Result<BTreeMap<String, String>> {
    let catalog = catalog(mode, PARTITIONS)?;
    let of = catalog.topics().iter().filter(|t| t.role == Role::Changelog);
    Ok(of.filter_map(|t| Some((t.of.clone()?, format!("{prefix}{}", t.name)))).collect())
}

/// Writes rows into the changelog of the customers until they are so large, in MB. They are as valid as others: whoever opens
/// the stores next restores them.
fn fill(kafka: &Kafka, topic: &str, table: &'static str, megabytes: u64) -> Result<()> {
    let mut config = kafka.client();
    config.set("enable.idempotence", "true").set("compression.type", "lz4").set("linger.ms", "5");
    let producer: BaseProducer = config.create()?;
    let table = Table::new(table);
    let (mut bytes, mut rows) = (0, Rows::new());
    while bytes < megabytes * 1_000_000 {
        let (user, row) = rows.next().context("there are always more rows")?;
        let mut store = Store::new(Box::new(Memory::default()));
        table.put(&mut store, &user, &row)?;
        for (key, value) in store.pending() {
            bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
            let to = partition(user.as_bytes(), PARTITIONS) as i32;
            let mut record = BaseRecord::to(topic).partition(to).key(key).payload(value.unwrap_or_default());
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(5));
                record = back;
            }
        }
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Runs an instance, kills it for good under load, and starts another at once that has nothing.
///
/// # Errors
/// When an instance fails, or says that it is ready before it is.
pub fn run(
    kafka: &Kafka,
    prefix: &str,
    (mode, workers): (Mode, u32),
    table: &'static str,
    megabytes: u64,
    traffic: &mut (impl Iterator<Item = (String, String)> + Send),
    rate: u32,
) -> Result<Takeover> {
    let changelogs = changelogs(prefix, mode)?;
    fill(kafka, changelogs.get("customers").context("customers have no changelog")?, table, megabytes)?;
    let (first_files, second_files) = (scratch("first"), scratch("second"));
    let first = run::instance(kafka, prefix, mode, workers, &first_files.join("state"));
    let second = Instance { id: "second".into(), data: second_files.join("state"), ..first.clone() };
    let topics = (run::input(prefix, "user_event")?, run::topic(prefix, mode, "peer_loyalty")?);
    let started = Timestamp::wall();
    let mut owner = first.start(first_files.path())?;
    until_ready(&mut owner, started);
    let (killed, first, mut heir) = Load::during(kafka, (&topics.0, &topics.1), traffic, rate, |load| {
        load.first_after(Moment::now());
        let killed = Moment::now();
        owner.kill();
        let heir = second.start(second_files.path())?;
        Ok((killed, load.first_after(killed), heir))
    })?;
    until_ready(&mut heir, killed.wall);
    let (assigned, running) = told(&heir, killed)?;
    ensure!(heir.terminate(END).success(), "the second instance failed:\n{}", heir.stderr());
    let bare_files = scratch("bare");
    let topics: Vec<String> = changelogs.into_values().collect();
    let bare_restore = bare::restore(kafka, &topics, bare_files.path())?;
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e3;
    let (killed, first) = (killed.wall.millis(), first.wall.millis());
    Ok(Takeover {
        rows_mb: megabytes,
        kill_to_assigned_s: seconds(killed, assigned),
        assigned_to_first_commit_s: seconds(assigned, first),
        kill_to_first_commit_s: seconds(killed, first),
        restore: bare_restore.alike(restored(&heir), seconds(assigned, running)),
        bare_restore,
    })
}

/// When the second instance had its first tasks, and when all of them ran, in milliseconds of the wall clock.
fn told(heir: &Process, killed: Moment) -> Result<(i64, i64)> {
    let all = Told::since(killed.wall, heir);
    let groups = all.iter().map(|told| told.tasks.len()).max().unwrap_or(0);
    let assigned = Told::assigned(&all).context("it was never assigned anything")?;
    let whole = |t: &&Told| t.tasks.len() == groups && t.tasks.values().all(|(here, run)| here == run && *here == PARTITIONS as usize);
    let running = all.iter().find(whole).context("its tasks never ran")?.at_ms;
    let ready = all.iter().find(|t| t.ready).context("it was never ready")?.at_ms;
    ensure!(ready >= running, "it said that it was ready {} ms before all tasks ran", running - ready);
    Ok((assigned, running))
}

/// Records that an instance read to restore its stores, by what it says at its end.
fn restored(process: &Process) -> f64 {
    let said: Map<String, Value> = process.stdout().lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
    said.iter().filter(|(name, _)| name.contains("restore_total.")).filter_map(|(_, count)| count.as_f64()).sum()
}
