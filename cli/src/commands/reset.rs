//! `tillflow reset`: the state is forgotten, and made anew from the topics.

use super::{Out, Place, PlaceArgs, Usage, place};
use crate::{
    config::{Config, LogKind},
    progress::bar,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tillflow_engine::{
    log::{
        NewRecord, Reader, TopicPartition,
        kafka::{Kafka, KafkaReader},
    },
    worker::{META, Meta},
};
use tillflow_engine_api::Group;
use tillflow_schemas::{Catalog, Cleanup, Role, Timestamp};
use tillflow_state::Read;

/// Tombstones in one transaction.
const BATCH: usize = 10_000;
/// Longest wait for the brokers.
const ANSWER: Duration = Duration::from_secs(30);

/// Arguments of `tillflow reset`.
#[derive(Args, Debug)]
#[command(
    long_about = "Forget all state and all decisions, and have them made anew from the input topics: after a processor was added that is to \
    catch up on history, or a fault in one was mended.\n\nStop the instances first. What the shop wrote stays; state, outputs and what the \
    task groups told each other go. The next `tillflow run` reads the inputs from the first record that is kept: what their retention has \
    deleted counts no longer, points among it; --since passes over more. Mails and pushes of decisions older than six hours do not go out again. To go back to an \
    earlier moment instead, bring a backup back (tillflow restore).\n\nIf it breaks off, give it again before an instance starts.",
    after_help = "Example:\n  tillflow backup before-reset && tillflow reset --yes"
)]
pub struct ResetArgs {
    /// Really: without a backup it can't be undone
    #[arg(long)]
    pub yes: bool,
    /// Read what customers did and what was in stock from then on only (RFC 3339, the time at which the log took it): what was written
    /// earlier counts no longer. Definitions, products and customers are read whole
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Print what was forgotten as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Resets.
///
/// # Errors
/// When an instance runs, or the log fails; given again, it goes on.
pub fn run(args: &ResetArgs, config: &Config, out: Out<'_>) -> Result<()> {
    if !args.yes {
        return Err(Usage("a reset forgets all state; make a backup first, then give --yes".into()).into());
    }
    let since = args.since.as_deref().map(|t| Timestamp::parse(t).map_err(|e| Usage(format!("--since: {e}")))).transpose()?;
    let groups = tillflow_processors::groups(&config.settings());
    let place = match config.log_kind() {
        LogKind::Embedded => Place::Embedded(place::embedded(config)?),
        LogKind::Kafka => Place::Kafka(place::cluster(config)?),
    };
    let derived = derived(place.catalog());
    let (records, rows) = match &place {
        Place::Embedded(log) => {
            let (mut records, mut rows) = (0, 0);
            // State goes last: it holds the positions, and without them all is read again whatever is left.
            for &at in &derived {
                records += log.end(at) - log.begin(at)?;
                log.clear(at)?;
            }
            for group in &groups {
                for partition in 0..log.catalog().of_schema(group.lead).map_or(0, |t| t.partitions) {
                    let state = log.state(group.name, partition);
                    state.scan(&[], None, &mut |_, _| {
                        rows += 1;
                        true
                    })?;
                    state.clear()?;
                }
            }
            (records.unsigned_abs(), rows)
        }
        _ => on_kafka(&place, &derived, &groups)?,
    };
    let passed_over = since.map_or(Ok(0), |since| begin_at(since, &place, &groups))?;
    if args.json {
        writeln!(out, "{}", json!({"records": records, "rows": rows, "passed_over": passed_over}))?;
    } else {
        writeln!(out, "Forgot {rows} rows of state and {records} records; the next `tillflow run` makes them anew.")?;
        if let Some(since) = since {
            writeln!(out, "It passes over {passed_over} records that were written before {since}.")?;
        }
    }
    Ok(())
}

/// Has all tasks begin with the input records that were written from `since` on; how many are passed over.
fn begin_at(since: Timestamp, place: &Place, groups: &[Group]) -> Result<u64> {
    let catalog = place.catalog();
    let inputs: Vec<_> = catalog.topics().iter().enumerate().filter(|(_, t)| t.role == Role::Input).collect();
    let mut passed_over = 0;
    let mut starts: BTreeMap<u32, BTreeMap<String, i64>> = BTreeMap::new();
    for (topic, t) in inputs {
        for partition in 0..t.partitions {
            let mut next = None;
            place.read([TopicPartition { topic, partition }], &mut |record| {
                if record.logged_at < since {
                    next = Some(record.offset + 1);
                    passed_over += 1;
                }
            })?;
            if let Some(next) = next {
                starts.entry(partition).or_default().insert(t.name.clone(), next);
            }
        }
    }
    let mut rows = Vec::new();
    for group in groups {
        for (&partition, offsets) in &starts {
            rows.push((group, partition, Meta { offsets: offsets.clone(), ..Meta::default() }.to_row()?));
        }
    }
    match place {
        Place::Embedded(log) => {
            let row = |(group, partition, row): &(&Group, u32, Vec<u8>)| (log.state(group.name, *partition).row(META), row.clone());
            let rows: Vec<_> = rows.iter().map(row).collect();
            log.write(&[], rows.iter().map(|(key, row)| (key.clone(), Some(row.as_slice()))))?;
        }
        // A store learns it from its changelog.
        _ => {
            let record = |(group, partition, row): (&Group, u32, Vec<u8>)| {
                let changelog = catalog.of_group(Role::Changelog, group.name).and_then(|t| catalog.index(&t.name));
                let topic = changelog.with_context(|| format!("topics.yaml has no changelog of {}", group.name))?;
                let to = TopicPartition { topic, partition };
                Ok(NewRecord { to, at: Timestamp::wall(), key: Some(META.to_vec()), value: Some(row), headers: Vec::new() })
            };
            place.append(rows.into_iter().map(record).collect::<Result<_>>()?)?;
        }
    }
    Ok(passed_over)
}

/// The partitions that hold what follows from the shop's own topics. Clock marks are somebody's word, and stay.
fn derived(catalog: &Catalog) -> Vec<TopicPartition> {
    let is_derived = |role, schema: &str| match role {
        Role::Output | Role::Rekey => true,
        Role::Internal => schema != "clock_mark" && schema != "dead_letter_status",
        _ => false,
    };
    let topics = catalog.topics().iter().enumerate().filter(|(_, t)| is_derived(t.role, &t.schema));
    topics.flat_map(|(topic, t)| (0..t.partitions).map(move |partition| TopicPartition { topic, partition })).collect()
}

fn on_kafka(place: &Place, derived: &[TopicPartition], groups: &[Group]) -> Result<(u64, u64)> {
    let Place::Kafka(kafka) = place else { bail!("a running instance can't be reset; stop it") };
    place::refuse_where_someone_runs(kafka, groups)?;
    let catalog = &kafka.catalog;
    let is_compacted = |at: &TopicPartition| catalog.topics().get(at.topic).is_some_and(|t| t.cleanup == Cleanup::Compact);
    let progress = bar(None, "forgetting");
    let (mut records, mut rows) = (0, 0);
    let (compacted, others): (Vec<_>, Vec<_>) = derived.iter().copied().partition(is_compacted);
    records += delete(kafka, &others)?;
    // A compacted topic forgets by tombstones; a store that is on a disk learns them from its changelog too.
    for at in compacted {
        records += bury(place, at, &progress)?;
    }
    for group in groups {
        let changelog =
            catalog.of_group(Role::Changelog, group.name).with_context(|| format!("topics.yaml has no changelog of {}", group.name))?;
        let topic = catalog.index(&changelog.name).unwrap_or_default();
        for partition in 0..changelog.partitions {
            rows += bury(place, TopicPartition { topic, partition }, &progress)?;
        }
    }
    progress.finish_and_clear();
    Ok((records, rows))
}

/// Deletes all records of these partitions; how many there were, control records among them.
fn delete(kafka: &Kafka, partitions: &[TopicPartition]) -> Result<u64> {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition_offset(&kafka.name(at.topic), at.partition as i32, Offset::End)?;
    }
    let admin: AdminClient<DefaultClientContext> = kafka.producer().create()?;
    let before = ends(kafka, partitions)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deleted = runtime.block_on(admin.delete_records(&list, &AdminOptions::new().operation_timeout(Some(ANSWER))))?;
    for element in deleted.elements() {
        element.error().with_context(|| format!("deleting the records of {} {}", element.topic(), element.partition()))?;
    }
    Ok(before)
}

fn ends(kafka: &Kafka, partitions: &[TopicPartition]) -> Result<u64> {
    let mut reader = KafkaReader::new(kafka, false)?;
    let mut count = 0;
    for &at in partitions {
        count += reader.end(at)? - reader.begin(at)?;
    }
    Ok(count.unsigned_abs())
}

/// Writes a tombstone for every key of a partition that has a value.
fn bury(place: &Place, at: TopicPartition, progress: &indicatif::ProgressBar) -> Result<u64> {
    let mut keys = BTreeSet::new();
    place.read([at], &mut |record| {
        if let Some(key) = record.key {
            if record.value.is_some() {
                keys.insert(key)
            } else {
                keys.remove(&key)
            };
        }
    })?;
    let count = keys.len() as u64;
    let mut keys = keys.into_iter().peekable();
    while keys.peek().is_some() {
        let tombstone = |key| NewRecord { to: at, at: Timestamp::wall(), key: Some(key), value: None, headers: Vec::new() };
        let batch: Vec<_> = keys.by_ref().take(BATCH).map(tombstone).collect();
        progress.inc(batch.len() as u64);
        place.append(batch)?;
    }
    Ok(count)
}
