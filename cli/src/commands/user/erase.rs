//! A user's erasure.

use super::stored;
use crate::{
    commands::{Out, Place, Usage, place},
    config::{Config, LogKind},
};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tillflow_engine::{
    log::{NewRecord, TopicPartition},
    worker::Meta,
};
use tillflow_schemas::{Catalog, Cleanup, ErasedUser, Record as _, Role, Timestamp, partition::partition};
use tillflow_state::Backend;

/// After how long a compacted topic forgets what a tombstone deletes (`max.compaction.lag.ms`).
const COMPACTED_WITHIN: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Erases, and prints what.
///
/// # Errors
/// When an instance runs, or the log fails; given again, it goes on.
pub fn run(user: &str, really: bool, config: &Config, out: Out<'_>) -> Result<()> {
    if user.is_empty() {
        return Err(Usage("an empty id is no user".into()).into());
    }
    if !really {
        return Err(
            Usage(format!("erasing '{user}' can't be undone; `tillflow user export` shows what there is; give --yes to erase it")).into()
        );
    }
    // At rest: a running instance holds what it knows.
    let place = match config.log_kind() {
        LogKind::Embedded => Place::Embedded(place::embedded(config)?),
        LogKind::Kafka => Place::Kafka(place::cluster(config)?),
    };
    let groups = tillflow_processors::groups(&config.settings());
    let group = stored::group(&groups)?;
    if let Place::Kafka(kafka) = &place {
        place::refuse_where_someone_runs(kafka, &groups)?;
    }
    let (home, rows, records) = (stored::home(&place, group, user), stored::rows(&place, group, user)?, stored::records(&place, user)?);
    let mut writes: Vec<NewRecord> = Vec::new();
    let mut erased = Map::new();
    let (marked_in, marker) = marker(&place, group.name, home, user)?;
    for (index, found) in records.iter().filter(|(index, _)| **index != marked_in) {
        let name = place.catalog().topics().get(*index).map_or("", |t| t.name.as_str());
        erased.insert(name.to_owned(), json!(found.len()));
        // What compaction leaves needs a tombstone, also for those who read the topic.
        let compacted = place.catalog().topics().get(*index).is_some_and(|t| t.cleanup == Cleanup::Compact && stored::is_keyed_by_user(t));
        if compacted && found.iter().max_by_key(|r| r.offset).is_some_and(|last| last.value.is_some()) {
            writes.push(tombstone(place.catalog(), *index, user.as_bytes()));
        }
    }
    let tombstones: Vec<_> = writes.iter().filter_map(|w| place.catalog().topics().get(w.to.topic)).map(|t| t.name.clone()).collect();
    match &place {
        Place::Embedded(log) => {
            log.state(group.name, home).apply(&mut rows.iter().map(|(key, _)| (key.as_slice(), None)))?;
            for record in records.iter().filter(|(index, _)| **index != marked_in).flat_map(|(_, found)| found) {
                log.erase(record.at, record.offset)?;
            }
            log.compact()?;
        }
        Place::Kafka(_) | Place::Instance(_) => {
            let to = stored::changelog(&place, group, home)?;
            writes.extend(rows.iter().map(|(key, _)| deletion(to, key)));
        }
    }
    writes.push(marker);
    place.append(writes)?;
    let proof = json!({
        "user_id": user, "erased_at": Timestamp::wall(), "state_rows": rows.len(), "records": erased, "tombstones": tombstones,
        "redis_keys": redis(user, config)?, "gone_by": gone_by(&place, &records.keys().copied().collect::<Vec<_>>()),
    });
    writeln!(out, "{proof}")?;
    Ok(())
}

/// What tells every instance, every replay and every store made anew that the user was erased, and its topic. Dated after
/// all that the user's task has seen: a demo's clock is ahead of the wall.
fn marker(place: &Place, group: &str, home: u32, user: &str) -> Result<(usize, NewRecord)> {
    let topic = place.catalog().of_schema(ErasedUser::SCHEMA).and_then(|t| place.catalog().index(&t.name));
    let topic = topic.context("topics.yaml has no topic of erased users")?;
    let clock = match place {
        Place::Embedded(log) => Meta::read(&log.state(group, home))?.clock,
        Place::Kafka(_) | Place::Instance(_) => Timestamp::MIN,
    };
    let erased = ErasedUser { user_id: user.into(), erased_at: Timestamp::wall().max(clock) };
    let partitions = place.catalog().topics().get(topic).map_or(1, |t| t.partitions);
    let to = TopicPartition { topic, partition: partition(user.as_bytes(), partitions) };
    let (key, value) = (Some(user.as_bytes().to_vec()), Some(serde_json::to_vec(&erased)?));
    Ok((topic, NewRecord { to, at: erased.erased_at, key, value, headers: Vec::new() }))
}

fn tombstone(catalog: &Catalog, topic: usize, key: &[u8]) -> NewRecord {
    let partitions = catalog.topics().get(topic).map_or(1, |t| t.partitions);
    deletion(TopicPartition { topic, partition: partition(key, partitions) }, key)
}

fn deletion(to: TopicPartition, key: &[u8]) -> NewRecord {
    NewRecord { to, at: Timestamp::wall(), key: Some(key.to_vec()), value: None, headers: Vec::new() }
}

/// When the last copy is gone; `None` where a topic keeps it until somebody deletes it.
fn gone_by(place: &Place, topics: &[usize]) -> Option<Timestamp> {
    let now = Timestamp::wall();
    if let Place::Embedded(_) = place {
        return Some(now);
    }
    let kept = topics.iter().filter_map(|index| place.catalog().topics().get(*index)).map(|t| match t.cleanup {
        Cleanup::Compact => Some(COMPACTED_WITHIN),
        // Purged once consumed.
        Cleanup::Delete if matches!(t.role, Role::Internal | Role::Rekey) => Some(COMPACTED_WITHIN),
        Cleanup::Delete => t.retention,
    });
    let longest = kept.chain([Some(COMPACTED_WITHIN)]).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    Some(now.plus(longest))
}

/// Deletes the user's read models; how many there were.
fn redis(user: &str, config: &Config) -> Result<Value> {
    let Some(url) = &config.redis.url else { return Ok(Value::Null) };
    let delete = || -> ::redis::RedisResult<u64> {
        let mut connection = ::redis::Client::open(url.as_str())?.get_connection_with_timeout(Duration::from_secs(5))?;
        ::redis::cmd("DEL").arg(format!("user:{user}")).arg(format!("user:{user}:recommendations")).query(&mut connection)
    };
    Ok(json!(delete().context("erased everywhere but in Redis, which does not answer; give the command again once it does")?))
}
