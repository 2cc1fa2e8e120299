//! An instance that takes over the partitions of one that was killed, and has never seen their state.

use super::{
    bare,
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
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{Role, Timestamp, partition::partition};
use tillflow_state::{Durability, Memory, Store, Table};
use tillflow_tests::{Kafka, Process, Scratch, scratch};

/// Longest wait for an instance's end.
const END: Duration = Duration::from_secs(60);
/// Longest wait for a producer.
const PATIENCE: Duration = Duration::from_secs(60);

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
) -> Result<Value> {
    let changelogs = changelogs(prefix, mode)?;
    fill(kafka, changelogs.get("customers").context("customers have no changelog")?, table, megabytes)?;
    let (first_files, second_files) = (scratch("first"), scratch("second"));
    let first = run::instance(kafka, prefix, mode, workers, &first_files.join("state"));
    let second = Instance { id: "second".into(), data: second_files.join("state"), ..first.clone() };
    let topics = (run::input(prefix, "user_event")?, run::topic(prefix, mode, "peer_loyalty")?);
    let started = Timestamp::wall();
    let mut owner = first.start(first_files.path())?;
    until_ready(&mut owner, started);
    let (killed, at, mut heir) = Load::during(kafka, (&topics.0, &topics.1), traffic, rate, |load| {
        load.first_after(Moment::now());
        let killed = Moment::now();
        owner.kill();
        let heir = second.start(second_files.path())?;
        Ok((killed, load.first_after(killed), heir))
    })?;
    until_ready(&mut heir, killed.wall);
    let mut figures = told(&heir, killed, at)?;
    ensure!(heir.terminate(END).success(), "the second instance failed:\n{}", heir.stderr());
    let restored = restored(&heir);
    drop(first_files);
    let bare_files: Scratch = scratch("bare");
    let topics: Vec<String> = changelogs.into_values().collect();
    let bare = bare::restore(kafka, &topics, bare_files.path())?;
    let seconds = figures["restore_s"].as_f64().unwrap_or(f64::NAN);
    // A record is as large as the bare one's are on average: both read the same.
    let megabytes_a_record = bare["mb"].as_f64().unwrap_or_default() / bare["records"].as_f64().unwrap_or(f64::NAN);
    figures["restore"] = json!({"records": restored, "records_a_second": restored / seconds,
        "mb_a_second": restored * megabytes_a_record / seconds});
    figures["bare_restore"] = bare;
    Ok(figures)
}

/// What the second instance said, against what was seen.
fn told(heir: &Process, killed: Moment, first: Moment) -> Result<Value> {
    let all = Told::by(heir);
    let groups = all.iter().map(|told| told.tasks.len()).max().unwrap_or(0);
    let assigned = all.iter().find(|t| !t.tasks.is_empty()).context("it was never assigned anything")?;
    let whole = |t: &&Told| t.tasks.len() == groups && t.tasks.values().all(|(here, run)| here == run && *here == PARTITIONS as usize);
    let restored = all.iter().find(whole).context("its tasks never ran")?;
    let ready = all.iter().find(|t| t.ready).context("it was never ready")?;
    ensure!(ready.at_ms >= restored.at_ms, "it was ready {} ms before all tasks ran", restored.at_ms - ready.at_ms);
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e3;
    let first = first.wall.millis();
    Ok(json!({
        "kill_to_first_commit_s": seconds(killed.wall.millis(), first), "kill_to_assigned_s": seconds(killed.wall.millis(), assigned.at_ms),
        "assigned_to_first_commit_s": seconds(assigned.at_ms, first), "restore_s": seconds(assigned.at_ms, restored.at_ms),
        "ready_before_all_tasks_ran": false,
    }))
}

/// Records that an instance read to restore its stores, by what it says at its end.
fn restored(process: &Process) -> f64 {
    let said: Map<String, Value> = process.stdout().lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
    said.iter().filter(|(name, _)| name.contains("restore_total.")).filter_map(|(_, count)| count.as_f64()).sum()
}
