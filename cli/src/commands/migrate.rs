//! `tillflow migrate --to-kafka`: an embedded data directory goes to a cluster and goes on there.
//!
//! Everything is one transaction: until it commits nobody sees any of it, and a migration that breaks off leaves
//! nothing. Topics keep their records; changelogs get the rows of the tasks' states, from which `run` restores them.
//! Offsets are the cluster's own, so each task's positions are translated: behind the last record that it had consumed.

use super::{Out, PlaceArgs, Usage, backup, migrate_writer::Writer, place};
use crate::{
    config::Config,
    progress::bar,
    running::{self, SCHEMAS},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tillflow_engine::{
    log::{
        Reader, Record, Start, TopicPartition,
        embedded::Embedded,
        kafka::{Kafka, KafkaReader},
    },
    worker::{META, Meta},
};
use tillflow_engine_api::Group;
use tillflow_schemas::{Cleanup, Role, Topic};
use tillflow_state::Read;

/// Records read from the embedded log at once.
const BATCH: usize = 1_000;
/// Longest wait for the cluster's answer to a question.
const ANSWER: Duration = Duration::from_secs(20);

/// Arguments of `tillflow migrate`.
#[derive(Args, Debug)]
#[command(
    long_about = "Take an embedded data directory to a Kafka cluster, where the shop goes on with the same balances, prices, carts and \
    timers.\n\nStop the instance first. The cluster's topics are created where they are missing, and must hold no records: it is \
    refused to mix two shops. Everything is written in one transaction, so that breaking off (Ctrl-C, a crash, a lost broker) leaves \
    nothing behind and the command can be given again; the data directory is only read. Afterwards start `tillflow run --brokers …` \
    with another data directory, empty but for what --new-data-dir put there, and don't run on the old one any more: there would be two \
    shops, each with its own mails.",
    after_help = "Example:\n  tillflow migrate --to-kafka --brokers localhost:9092 --data-dir ./tillflow-data --new-data-dir ./tillflow-kafka\n  \
    tillflow run --brokers localhost:9092 --data-dir ./tillflow-kafka"
)]
pub struct MigrateArgs {
    /// Where to: a Kafka cluster, the one that --brokers or the configuration names
    #[arg(long, required = true)]
    pub to_kafka: bool,
    /// The data directory with which it goes on; it gets what does not lie on the cluster, the schemas of the built-in registry
    #[arg(long, value_name = "DIR")]
    pub new_data_dir: Option<PathBuf>,
    /// Minutes that it may take; the cluster's transaction.max.timeout.ms is the limit, 15 minutes by default
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    pub minutes: u32,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Migrates.
///
/// # Errors
/// When either side can't be used, the cluster holds records already, or it is interrupted; then nothing was written.
pub fn run(args: &MigrateArgs, config: &Config, out: Out<'_>) -> Result<()> {
    if config.brokers.is_none() {
        return Err(Usage("say where to: --brokers HOST:PORT".into()).into());
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let log = place::embedded(config)?;
    let kafka = place::cluster(config)?;
    let groups = tillflow_processors::groups(&config.settings());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(running::prepare_topics(config, &kafka.catalog))?;
    // Decides what an earlier attempt left open, before anything is looked at.
    let writer = Writer::open(&kafka, Duration::from_secs(60 * u64::from(args.minutes)), 2 * groups.len())?;
    place::refuse_where_someone_runs(&kafka, &groups)?;
    refuse_where_records_are(&kafka)?;
    if let Some(dir) = &args.new_data_dir {
        backup::carry_schemas(&config.data_dir, dir)?;
    }

    writer.begin()?;
    let migration = Migration { log: &log, kafka: &kafka, groups: &groups, writer: &writer, interrupted: &interrupted };
    let written = match migration.write() {
        Ok(written) => written,
        Err(e) => {
            writer.abort();
            return Err(e.context("nothing was written to the cluster, and the command can be given again"));
        }
    };
    writer.commit().context("it is not known whether the cluster took it; `tillflow topics plan` and a look into its topics tell")?;
    report(&written, args, config, out)
}

/// Reads until the first committed record, or to the ends: what was aborted leaves offsets behind, but no records.
fn refuse_where_records_are(kafka: &Kafka) -> Result<()> {
    let mut reader = KafkaReader::new(kafka, false)?;
    let mut ends = Vec::new();
    for (topic, t) in kafka.catalog.topics().iter().enumerate() {
        for at in (0..t.partitions).map(|partition| TopicPartition { topic, partition }) {
            let (begin, end) = (reader.begin(at)?, reader.end(at)?);
            if begin < end {
                ends.push((at, end));
            }
        }
    }
    reader.assign(&ends.iter().map(|(at, _)| (*at, Start::Earliest)).collect::<Vec<_>>())?;
    let mut progressed = Instant::now();
    while ends.iter().any(|(at, end)| reader.position(*at).is_none_or(|p| p < *end)) {
        let before: Vec<_> = ends.iter().map(|(at, _)| reader.position(*at)).collect();
        if let Some(record) = reader.poll(Duration::from_millis(200))?.first() {
            let name = kafka.name(record.at.topic);
            bail!(
                "{name} holds records already, and two shops can't be mixed: set another topics.prefix and app_id, or delete the \
                 topics of a shop that is no more. If an earlier migration brought them, it is complete"
            );
        }
        if ends.iter().map(|(at, _)| reader.position(*at)).ne(before) {
            progressed = Instant::now();
        } else if progressed.elapsed() > ANSWER {
            bail!("the cluster has not answered for {} s", ANSWER.as_secs());
        }
    }
    Ok(())
}

/// What was written.
#[derive(Default)]
struct Written {
    records: BTreeMap<String, u64>,
    rows: BTreeMap<String, u64>,
}

/// One migration, its transaction open.
struct Migration<'a> {
    log: &'a Embedded,
    kafka: &'a Kafka,
    groups: &'a [Group],
    writer: &'a Writer,
    interrupted: &'a AtomicBool,
}

impl Migration<'_> {
    fn write(&self) -> Result<Written> {
        let mut written = Written::default();
        let topics = || self.log.catalog().topics().iter().enumerate().filter(|(_, t)| t.role != Role::Changelog);
        let partitions = |(topic, t): (usize, &Topic)| (0..t.partitions).map(move |partition| TopicPartition { topic, partition });
        let records: i64 = topics().flat_map(partitions).map(|at| self.log.end(at) - self.log.begin(at).unwrap_or_default()).sum();
        let progress = bar(Some(records.unsigned_abs()), "topics");
        for (index, topic) in topics() {
            let count = self.topic(index, topic, &progress)?;
            written.records.insert(topic.name.clone(), count);
        }
        // All are there, and their offsets known: positions can be told.
        self.writer.flush()?;
        progress.finish_and_clear();
        let progress = bar(None, "state");
        for (number, group) in self.groups.iter().enumerate() {
            let count = self.state(number, group, &progress)?;
            written.rows.insert(group.name.to_owned(), count);
        }
        self.writer.flush()?;
        progress.finish_and_clear();
        Ok(written)
    }

    /// Of each group that reads the partition, the next offset that it has not consumed; and behind these, of each, the
    /// offset after the record that it has not finished.
    fn positions(&self, at: TopicPartition, name: &str) -> Result<Vec<Option<i64>>> {
        let metas: Vec<_> = self.groups.iter().map(|g| Meta::read(&self.log.state(g.name, at.partition))).collect::<Result<_, _>>()?;
        let consumed = metas.iter().map(|meta| meta.offsets.get(name).copied());
        let unfinished = metas.iter().map(|meta| meta.unfinished.as_ref().filter(|(topic, _)| topic == name).map(|(_, after)| *after));
        Ok(consumed.chain(unfinished).collect())
    }

    fn topic(&self, index: usize, topic: &Topic, progress: &ProgressBar) -> Result<u64> {
        let mut count = 0;
        let mut versions = HashSet::new();
        for at in (0..topic.partitions).map(|partition| TopicPartition { topic: index, partition }) {
            let positions = self.positions(at, &topic.name)?;
            let all = positions.iter().take(self.groups.len()).flatten().min().copied();
            let mut offset = self.log.begin(at)?;
            loop {
                self.check()?;
                let records = self.log.read(at, offset, BATCH)?;
                let Some(last) = records.last() else { break };
                offset = last.offset + 1;
                progress.inc(records.len() as u64);
                for mut record in records {
                    let done = all.is_some_and(|all| record.offset < all);
                    // What the groups told each other and took is deleted on a cluster too.
                    if done && matches!(topic.role, Role::Internal | Role::Rekey) && topic.cleanup == Cleanup::Delete {
                        continue;
                    }
                    if topic.role == Role::Reference && (done || all.is_none()) {
                        state_validity(&mut record, &mut versions);
                    }
                    let by = positions.iter().enumerate().filter(|(_, p)| p.is_some_and(|p| record.offset < p));
                    self.writer.record(&self.kafka.name(index), &record, by.map(|(mark, _)| mark))?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// A group's state into its changelog.
    fn state(&self, number: usize, group: &Group, progress: &ProgressBar) -> Result<u64> {
        let catalog = self.log.catalog();
        let changelog =
            catalog.of_group(Role::Changelog, group.name).with_context(|| format!("topics.yaml has no changelog of {}", group.name))?;
        let topic = self.kafka.name(catalog.index(&changelog.name).unwrap_or_default());
        let mut count = 0;
        for partition in 0..changelog.partitions {
            let state = self.log.state(group.name, partition);
            let (mut meta, mut failure) = (None, None);
            state.scan(&[], None, &mut |key, value| {
                let sent = if key == META {
                    self.translated(number, partition, &state).and_then(|row| {
                        let sent = self.writer.row(&topic, partition, key, &row);
                        meta = Some(row);
                        sent
                    })
                } else {
                    self.writer.row(&topic, partition, key, value)
                };
                count += 1;
                progress.inc(1);
                failure = sent.and_then(|()| if count % BATCH as u64 == 0 { self.check() } else { Ok(()) }).err();
                failure.is_none()
            })?;
            failure.map_or(Ok(()), Err).with_context(|| format!("the state of {} {partition}", group.name))?;
        }
        Ok(count)
    }

    /// A task's meta row with the cluster's offsets.
    fn translated(&self, group: usize, partition: u32, state: &impl Read) -> Result<Vec<u8>> {
        let mut meta = Meta::read(state)?;
        let names: Vec<String> = std::mem::take(&mut meta.offsets).into_keys().collect();
        for name in names {
            let Some(index) = self.log.catalog().index(&name) else { continue };
            // Where nothing consumed was brought along, it begins with the first record.
            if let Some(offset) = self.writer.position(group, &self.kafka.name(index), partition) {
                meta.offsets.insert(name, offset);
            }
        }
        meta.unfinished = meta.unfinished.and_then(|(name, _)| {
            let topic = self.kafka.name(self.log.catalog().index(&name)?);
            Some((name, self.writer.position(self.groups.len() + group, &topic, partition)?))
        });
        Ok(meta.to_row()?)
    }

    fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// A later version of a reference record that does not say since when it counts, counts since it was logged: which the
/// cluster stamps anew. So it is said in the record.
fn state_validity(record: &mut Record, versions: &mut HashSet<Vec<u8>>) {
    let Some(key) = record.key.clone() else { return };
    if versions.insert(key) {
        return;
    }
    let value = record.value.as_deref().and_then(|v| serde_json::from_slice::<Value>(v).ok());
    if let Some(Value::Object(mut fields)) = value
        && fields.get("valid_from").is_none_or(Value::is_null)
    {
        fields.insert("valid_from".into(), json!(record.logged_at));
        record.value = Some(Value::Object(fields).to_string().into_bytes());
    }
}

fn report(written: &Written, args: &MigrateArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let schemas = config.data_dir.join(SCHEMAS);
    if args.new_data_dir.is_none() && schemas.exists() {
        tracing::warn!("copy {} into the data directory with which it goes on: Avro records name schemas by its ids", schemas.display());
    }
    if args.json {
        writeln!(out, "{}", json!({"records": written.records, "rows": written.rows}))?;
        return Ok(());
    }
    let (records, rows): (u64, u64) = (written.records.values().sum(), written.rows.values().sum());
    let topics = written.records.values().filter(|n| **n > 0).count();
    let brokers = config.brokers.as_deref().unwrap_or_default();
    writeln!(out, "Migrated {records} records of {topics} topics and {rows} rows of state to {brokers}.")?;
    let next = args.new_data_dir.as_ref().map_or("ANOTHER_DIRECTORY".into(), |dir| dir.display().to_string());
    writeln!(out, "Go on with: tillflow run --brokers {brokers} --data-dir {next}")?;
    writeln!(out, "Don't run on {} any more: there would be two shops.", config.data_dir.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Timestamp;

    #[test]
    fn later_versions_say_since_when_they_count() {
        let mut versions = HashSet::new();
        let mut version = |key: &str, value: &str| {
            let at = TopicPartition { topic: 0, partition: 0 };
            let logged_at = Timestamp::parse("2026-03-01T10:00:00Z").unwrap();
            let (key, value) = (Some(key.into()), Some(value.into()));
            let mut record = Record { at, offset: 0, logged_at, key, value, headers: Vec::new() };
            state_validity(&mut record, &mut versions);
            String::from_utf8(record.value.unwrap()).unwrap()
        };
        assert_eq!(version("a", "{\"low\":1}"), "{\"low\":1}");
        assert_eq!(version("a", "{\"low\":2}"), "{\"low\":2,\"valid_from\":\"2026-03-01T10:00:00.000Z\"}");
        let stated = "{\"valid_from\":\"2026-01-01T00:00:00.000Z\"}";
        assert_eq!(version("a", stated), stated);
        assert_eq!(version("b", "{}"), "{}");
        assert_eq!(version("b", "broken"), "broken");
    }

    #[test]
    fn without_a_cluster_or_a_data_directory_it_is_refused() {
        let args = MigrateArgs { to_kafka: true, new_data_dir: None, minutes: 1, json: false, place: PlaceArgs::default() };
        assert!(run(&args, &Config::default(), &mut Vec::new()).unwrap_err().is::<Usage>());
        let dir = tempfile::tempdir().unwrap();
        let config = Config { brokers: Some("127.0.0.1:1".into()), data_dir: dir.path().join("none"), ..Config::default() };
        let error = run(&args, &config, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("holds no embedded log"), "{error:#}");
    }
}
