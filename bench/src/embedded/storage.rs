//! The same records, in transactions of the same size, into the embedded log and into SQLite.

use crate::load;
use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tillflow_engine::log::{NewRecord, TopicPartition, embedded::Embedded};
use tillflow_schemas::{Catalog, Timestamp, partition::partition};
use tillflow_state::{Durability, Shared};
use tillflow_tests::scratch;

const PARTITIONS: u32 = 4;
const SEED: u64 = 7;
/// Different records; written over and over.
const EVENTS: u64 = 100_000;
const USERS: usize = 200_000;
const PRODUCTS: usize = 20_000;
/// As the product's own by default.
const CACHE: usize = 128 << 20;
const WRITE_BUFFERS: usize = 64 << 20;

/// What is written, and how.
struct Load {
    catalog: Catalog,
    /// Of the records.
    topic: usize,
    records: Vec<NewRecord>,
    /// Records a transaction.
    batch: usize,
    length: Duration,
}

type Store = fn(&Load, bool) -> Result<f64>;

/// Their names, whether a transaction waits for the disk, and how it is done.
const STORES: [(&str, bool, Store); 4] = [
    ("embedded log, fsync", true, into_log),
    ("SQLite, WAL, synchronous FULL", true, into_sqlite),
    ("embedded log, no fsync", false, into_log),
    ("SQLite, WAL, synchronous NORMAL", false, into_sqlite),
];

/// Measures each by each number of records a transaction.
pub fn measure(batches: &[usize], length: Duration) -> Result<Vec<Value>> {
    let catalog = Catalog::built_in(PARTITIONS)?;
    let topic = catalog.of_schema("user_event").and_then(|t| catalog.index(&t.name)).context("there is no topic of user_event")?;
    let record = |(user, event): (String, String)| NewRecord {
        to: TopicPartition { topic, partition: partition(user.as_bytes(), PARTITIONS) },
        at: Timestamp::EARLIEST,
        key: Some(user.into_bytes()),
        value: Some(event.into_bytes()),
        headers: Vec::new(),
    };
    let records = load::events(EVENTS, USERS, PRODUCTS, SEED).map(record).collect();
    let mut load = Load { catalog, topic, records, batch: 1, length };
    println!("{:<44}{:>14}{:>14}", "records stored, nothing processed", "a transaction", "records/s");
    let mut rows = Vec::new();
    for &batch in batches {
        load.batch = batch.max(1);
        for (name, waits, store) in STORES {
            let rate = store(&load, waits).with_context(|| name.to_owned())?;
            println!("{name:<44}{batch:>14}{rate:>14.0}");
            rows.push(json!({"storage": name, "waits_for_disk": waits, "batch": batch, "records_per_s": rate}));
        }
    }
    Ok(rows)
}

impl Load {
    /// Writes one transaction after the other; how many records in how many seconds.
    fn write(&self, mut write: impl FnMut(&[NewRecord]) -> Result<()>) -> Result<(u64, f64)> {
        let (started, mut written) = (Instant::now(), 0);
        for batch in self.records.chunks(self.batch).cycle() {
            write(batch)?;
            written += batch.len() as u64;
            if started.elapsed() >= self.length {
                break;
            }
        }
        Ok((written, started.elapsed().as_secs_f64()))
    }
}

fn rate(written: (u64, f64), there: u64) -> Result<f64> {
    ensure!(there == written.0, "{} records were written, and {there} are there", written.0);
    Ok(written.0 as f64 / written.1)
}

fn into_log(load: &Load, waits: bool) -> Result<f64> {
    let files = scratch("log");
    let durability = if waits { Durability::Disk } else { Durability::Process };
    let log = Embedded::open(files.path(), &load.catalog, durability, &Shared::new(CACHE, WRITE_BUFFERS))?;
    let written = load.write(|records| Ok(log.write(records, std::iter::empty())?))?;
    rate(written, (0..PARTITIONS).map(|partition| log.end(TopicPartition { topic: load.topic, partition }) as u64).sum())
}

/// A table with the log's own key.
fn into_sqlite(load: &Load, waits: bool) -> Result<f64> {
    let files = scratch("sqlite");
    let sqlite = Connection::open(files.join("records.db"))?;
    let mode: String = sqlite.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite's journal is {mode}");
    sqlite.pragma_update(None, "synchronous", if waits { "FULL" } else { "NORMAL" })?;
    sqlite.execute_batch(
        "CREATE TABLE records (topic INTEGER, partition INTEGER, offset INTEGER, at INTEGER, key BLOB, value BLOB,
         PRIMARY KEY (topic, partition, offset)) WITHOUT ROWID",
    )?;
    let (mut begin, mut commit) = (sqlite.prepare("BEGIN IMMEDIATE")?, sqlite.prepare("COMMIT")?);
    let mut insert = sqlite.prepare("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)")?;
    let mut ends = [0_i64; PARTITIONS as usize];
    let written = load.write(|records| {
        begin.execute([])?;
        for record in records {
            let end = ends.get_mut(record.to.partition as usize).context("a partition")?;
            insert.execute(params![record.to.topic as i64, record.to.partition, *end, record.at.millis(), record.key, record.value])?;
            *end += 1;
        }
        commit.execute([])?;
        Ok(())
    })?;
    let there: i64 = sqlite.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
    rate(written, there as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_every_record_that_is_timed() {
        let rows = measure(&[7], Duration::from_millis(20)).unwrap();
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row["records_per_s"].as_f64().unwrap() > 0.0));
        assert!(rate((3, 1.0), 2).is_err());
    }
}
