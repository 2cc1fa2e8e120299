//! The log as it is: records read and appended raw, for commands on an instance whose embedded log no other process
//! can open. Only with an admin key.

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
    state::reading,
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::sync::Arc;
use tillflow_engine::{
    log::{NewRecord, Record, TopicPartition},
    port::PortError,
};
use tillflow_schemas::Timestamp;

/// Bytes of one request, at most.
pub(crate) const BYTES: usize = 64 << 20;
/// Records in one answer, at most.
const RECORDS: usize = 1_000;

/// Bytes, base64 in JSON.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A record in JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Raw {
    #[serde(default)]
    topic: String,
    #[serde(default)]
    partition: u32,
    #[serde(default)]
    offset: i64,
    at: Option<Timestamp>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    #[serde(default)]
    headers: Vec<(String, Bytes)>,
}

impl Raw {
    fn of(topic: &str, record: Record) -> Self {
        Self {
            topic: topic.to_owned(),
            partition: record.at.partition,
            offset: record.offset,
            at: Some(record.logged_at),
            key: record.key.map(Bytes),
            value: record.value.map(Bytes),
            headers: record.headers.into_iter().map(|(name, value)| (name, Bytes(value))).collect(),
        }
    }
}

/// Where to begin.
#[derive(Deserialize)]
pub(crate) struct From {
    #[serde(default)]
    from: i64,
}

fn index(app: &App, topic: &str) -> Result<usize, Problem> {
    app.shop.catalog().index(topic).ok_or_else(|| Problem::not_found(format!("there is no topic '{}'", tillflow_schemas::shorten(topic))))
}

/// Records of a partition from an offset on, with its first and next offset.
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((topic, partition)): Path<(String, u32)>,
    Query(From { from }): Query<From>,
) -> Result<Json<Value>, Problem> {
    caller.needs(Level::Admin)?;
    let at = TopicPartition { topic: index(&app, &topic)?, partition };
    let slice = reading(&app, move |app| app.shop.read_log(at, from, RECORDS)).await?;
    let records: Vec<_> = slice.records.into_iter().map(|record| Raw::of(&topic, record)).collect();
    Ok(Json(json!({"begin": slice.begin, "end": slice.end, "records": records})))
}

/// Appends records, all of them or none.
pub(crate) async fn append(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(records): Json<Vec<Raw>>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    caller.needs(Level::Admin)?;
    let mut new = Vec::with_capacity(records.len());
    for record in records {
        let topic = index(&app, &record.topic)?;
        if app.shop.catalog().topics().get(topic).is_none_or(|t| record.partition >= t.partitions) {
            return Err(Problem::not_found(format!("{} has no partition {}", record.topic, record.partition)));
        }
        new.push(NewRecord {
            to: TopicPartition { topic, partition: record.partition },
            at: record.at.unwrap_or(Timestamp::MIN),
            key: record.key.map(|b| b.0),
            value: record.value.map(|b| b.0),
            headers: record.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
        });
    }
    let count = new.len();
    let answer = app.shop.append_raw(new).await;
    answer.unwrap_or_else(|_| Err(PortError::Unavailable("shutting down".into())))?;
    Ok((StatusCode::ACCEPTED, Json(json!({"accepted": count}))))
}
