//! Which rows and records are a user's.

use crate::commands::Place;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_engine::log::{Record, TopicPartition};
use tillflow_engine_api::Group;
use tillflow_schemas::{Role, Topic, partition::partition};
use tillflow_state::{Read, key};

/// A row of a store: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

// The engine's own tables; every other table's rows begin with the user.
const META: [u8; 4] = [0, 0, 0, 1];
const TIMERS_BY_TIME: [u8; 4] = [0, 0, 0, 2];
/// Bytes of a moment in a key.
const MOMENT: usize = 8;

/// The task group that is keyed by user.
pub fn group(groups: &[Group]) -> Result<&Group> {
    groups.iter().find(|g| g.upstream.is_none()).context("no task group is keyed by user")
}

/// The partition of a user's task.
pub fn home(place: &Place, group: &Group, user: &str) -> u32 {
    partition(user.as_bytes(), place.catalog().of_schema(group.lead).map_or(1, |t| t.partitions))
}

/// Whether a row of the user's task is the user's. A product with the user's id would be taken for the user.
pub fn is_of(user: &str, row: &[u8]) -> bool {
    let mut text = Vec::new();
    key::write_text(user, &mut text);
    let (Some(table), Some(rest)) = (row.first_chunk::<4>(), row.get(4..)) else { return false };
    match *table {
        META => false,
        TIMERS_BY_TIME => rest.get(MOMENT..).is_some_and(|identity| identity.starts_with(&text)),
        _ => rest.starts_with(&text),
    }
}

/// The user's rows, from the embedded state or, on a cluster, the changelog.
///
/// # Errors
/// When the log can't be read.
pub fn rows(place: &Place, group: &Group, user: &str) -> Result<Vec<Row>> {
    let home = home(place, group, user);
    let mut rows = Vec::new();
    match place {
        Place::Embedded(log) => log.state(group.name, home).scan(&[], None, &mut |key, value| {
            if is_of(user, key) {
                rows.push((key.to_vec(), value.to_vec()));
            }
            true
        })?,
        Place::Kafka(_) | Place::Instance(_) => {
            let mut last = BTreeMap::new();
            place.read([changelog(place, group, home)?], &mut |record| {
                if let Some(key) = record.key.filter(|key| is_of(user, key)) {
                    last.insert(key, record.value);
                }
            })?;
            rows.extend(last.into_iter().filter_map(|(key, value)| Some((key, value?))));
        }
    }
    Ok(rows)
}

/// The changelog of a group's task.
///
/// # Errors
/// When the list of topics has none.
pub fn changelog(place: &Place, group: &Group, partition: u32) -> Result<TopicPartition> {
    let topic = place.catalog().of_group(Role::Changelog, group.name).and_then(|t| place.catalog().index(&t.name));
    Ok(TopicPartition { topic: topic.with_context(|| format!("topics.yaml has no changelog of {}", group.name))?, partition })
}

/// Whether the records of a topic are keyed by user.
pub fn is_keyed_by_user(topic: &Topic) -> bool {
    topic.key == "user_id"
}

/// Whether a record is a user's: by its key, or by the ids in its value.
pub fn is_records(user: &str, topic: &Topic, record: &Record) -> bool {
    let by_key = is_keyed_by_user(topic) || matches!(topic.role, Role::Rekey) || topic.schema == "dead_letter";
    if by_key && record.key.as_deref() == Some(user.as_bytes()) {
        return true;
    }
    let mentioned = record.value.as_deref().is_some_and(|v| contains(v, user.as_bytes()));
    let value = mentioned.then(|| record.value.as_deref().and_then(|v| serde_json::from_slice::<Value>(v).ok())).flatten();
    value.is_some_and(|v| ["user_id", "anonymous_id"].iter().any(|field| v.get(field).and_then(Value::as_str) == Some(user)))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// The user's records, with those of every topic but the changelogs.
///
/// # Errors
/// When the log can't be read.
pub fn records(place: &Place, user: &str) -> Result<BTreeMap<usize, Vec<Record>>> {
    let mut found: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
    for (index, topic) in place.catalog().topics().iter().enumerate().filter(|(_, t)| t.role != Role::Changelog) {
        let partitions = (0..topic.partitions).map(|partition| TopicPartition { topic: index, partition });
        place.read(partitions, &mut |record| {
            if is_records(user, topic, &record) {
                found.entry(index).or_default().push(record);
            }
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_state::Key;

    #[test]
    fn rows_are_told_by_where_their_table_has_the_user() {
        let row = |table: [u8; 4], key: &dyn Fn(&mut Vec<u8>)| {
            let mut row = table.to_vec();
            key(&mut row);
            row
        };
        let text = |text: &str, out: &mut Vec<u8>| text.to_owned().write(out);
        for (of, row) in [
            (true, row([9, 9, 9, 9], &|out| (("u1".to_owned()), 7_i64).write(out))),
            (false, row([9, 9, 9, 9], &|out| text("u11", out))),
            (false, row([9, 9, 9, 9], &|out| text("xu1", out))),
            (true, row(TIMERS_BY_TIME, &|out| (5_i64, "u1".to_owned()).write(out))),
            (false, row(TIMERS_BY_TIME, &|out| (5_i64, "u2".to_owned()).write(out))),
            (true, row([0, 0, 0, 3], &|out| text("u1", out))),
            (true, tillflow_state::seen::row("u1", "event", "e", true)),
            (true, tillflow_state::seen::row("u1", "order", "o", false)),
            (false, tillflow_state::seen::row("u2", "event", "u1", true)),
            (false, row(META, &|out| text("u1", out))),
            (false, vec![1]),
        ] {
            assert_eq!(is_of("u1", &row), of, "{row:?}");
        }
    }
}
