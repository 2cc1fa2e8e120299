//! All that is stored of a user.

use super::stored;
use crate::{
    commands::{
        InstanceArgs, Out, Place,
        source::{Instance, Source},
        state::{fields, hex, table_of},
    },
    config::Config,
    progress::bar,
    replay::output,
};
use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use tillflow_engine::{log::embedded::Embedded, worker::Meta};
use tillflow_engine_api::{Globals, Group, Place as Seat, Query};
use tillflow_schemas::{Event, Role, Timestamp};

/// Prints it.
///
/// # Errors
/// When the log or the instance can't be read.
pub fn run(user: &str, instance: &InstanceArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let groups = tillflow_processors::groups(&config.settings());
    let group = stored::group(&groups)?;
    let progress = bar(None, "reading topics and state");
    progress.enable_steady_tick(std::time::Duration::from_millis(200));
    let place = Place::open_or_ask(instance, config)?;
    let rows = match &place {
        Place::Instance(_) => asked_rows(&Source::open(instance, config)?, group, user)?,
        _ => stored::rows(&place, group, user)?,
    };
    let records = records(&place, user)?;
    let answers = match &place {
        Place::Embedded(log) => Some(answers(log, group, user)),
        _ => asked_answers(&Instance::new(instance, config)?, group, user),
    };
    progress.finish_and_clear();
    let state = rows.iter().map(|(key, value)| {
        let key_fields = fields(key.get(4..).unwrap_or_default());
        json!({"group": group.name, "table": table_of(group, key), "key": key_fields, "key_hex": hex(key), "value": BASE64_STANDARD.encode(value)})
    });
    let exported = json!({
        "user_id": user, "exported_at": Timestamp::wall(), "answers": answers, "records": records, "state": state.collect::<Vec<_>>(),
    });
    writeln!(out, "{exported:#}")?;
    Ok(())
}

fn records(place: &Place, user: &str) -> Result<Map<String, Value>> {
    let mut by_topic = Map::new();
    for (index, records) in stored::records(place, user)? {
        let Some(topic) = place.catalog().topics().get(index) else { continue };
        by_topic.insert(topic.name.clone(), records.iter().map(|r| output::line(topic, r)).collect());
    }
    Ok(by_topic)
}

fn asked_rows(source: &Source, group: &Group, user: &str) -> Result<Vec<stored::Row>> {
    let mut rows = Vec::new();
    for partition in source.partitions(group) {
        source.scan(group.name, partition, &[], None, &mut |key, value| {
            if stored::is_of(user, key) {
                rows.push((key.to_vec(), value.to_vec()));
            }
            true
        })?;
    }
    Ok(rows)
}

fn queries(group: &Group) -> impl Iterator<Item = (&'static str, &tillflow_engine_api::QueryFn)> {
    group.parts.iter().flat_map(|p| &p.declared.queries).map(|(name, answer)| (*name, answer))
}

/// What the pages would see, worked out from the state at rest.
fn answers(log: &Embedded, group: &Group, user: &str) -> Map<String, Value> {
    let mut globals = Globals::default();
    let place = Place::Embedded(log.clone());
    for (index, topic) in log.catalog().topics().iter().enumerate().filter(|(_, t)| t.role == Role::Reference) {
        for record in place.read_all(index).unwrap_or_default() {
            let key = record.key.as_deref().and_then(|k| std::str::from_utf8(k).ok());
            if let Ok(event) = Event::decode(&topic.schema, key, record.value.as_deref()) {
                globals.apply(&event, record.logged_at);
            }
        }
    }
    let partitions = log.catalog().of_schema(group.lead).map_or(1, |t| t.partitions);
    let seat = Seat { partition: stored::home(&place, group, user), partitions };
    let state = log.state(group.name, seat.partition);
    let now = Meta::read(&state).map_or(Timestamp::MIN, |meta| meta.clock);
    let query = Query { key: user, rest: "", now, state: &state, globals: &globals, place: seat };
    queries(group).filter_map(|(name, answer)| Some((name.to_owned(), answer(&query).ok().flatten()?))).collect()
}

/// What the pages see, where an instance answers.
fn asked_answers(instance: &Instance, group: &Group, user: &str) -> Option<Map<String, Value>> {
    let mut answers = Map::new();
    for (name, _) in queries(group) {
        match instance.get(&format!("/v1/users/{}/{name}", segment(user))) {
            Ok(answer) => drop(answers.insert(name.to_owned(), answer)),
            Err(e) => {
                eprintln!("tillflow: answers are left out: {e:#}");
                return None;
            }
        }
    }
    Some(answers)
}

/// A user's id as a segment of a path.
fn segment(id: &str) -> String {
    id.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
