//! Rows of the stores, as they are: for `tillflow state` on a running instance. Only what is committed, only this
//! instance's tasks, only with an admin key.

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tillflow_engine::port::PortError;

/// Rows in one answer, at most.
const ROWS: usize = 1_000;
/// Bytes of values in one answer, about.
const BYTES: usize = 8 << 20;
/// How long a question waits for one of those before it to end.
const TURN_WITHIN: Duration = Duration::from_secs(1);
/// Rows begin with the number of their table.
const PREFIX: usize = 4;

/// Each task with the rows and bytes of its tables.
pub(crate) async fn tasks(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Result<Json<Value>, Problem> {
    caller.needs(Level::Admin)?;
    let mut tasks = Vec::new();
    for task in app.shop.readiness().tasks {
        let (group, partition) = (task.group.clone(), task.partition);
        let tables = reading(&app, move |app| {
            let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
            app.shop.rows(&group, partition, &[], None, &mut |key, value| {
                let sum = sums.entry(hex(key.get(..PREFIX).unwrap_or(key))).or_default();
                *sum = (sum.0 + 1, sum.1 + (key.len() + value.len()) as u64);
                true
            })?;
            Ok(sums.into_iter().map(|(prefix, (rows, bytes))| json!({"prefix": prefix, "rows": rows, "bytes": bytes})).collect::<Vec<_>>())
        });
        tasks.push(json!({"group": task.group, "partition": partition, "tables": tables.await?}));
    }
    Ok(Json(json!({ "tasks": tasks })))
}

/// Has a task process nothing until it is told to go on.
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((group, partition)): Path<(String, u32)>,
) -> Result<Json<Value>, Problem> {
    set_paused(&app, &caller, &group, partition, true)
}

/// Has a paused task go on.
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((group, partition)): Path<(String, u32)>,
) -> Result<Json<Value>, Problem> {
    set_paused(&app, &caller, &group, partition, false)
}

fn set_paused(app: &App, caller: &Caller, group: &str, partition: u32, paused: bool) -> Result<Json<Value>, Problem> {
    caller.needs(Level::Admin)?;
    app.shop.pause(group, partition, paused)?;
    Ok(Json(json!({"group": group, "partition": partition, "paused": paused})))
}

/// Which rows.
#[derive(Deserialize)]
pub(crate) struct Range {
    /// The first key, in hexadecimal.
    #[serde(default)]
    from: String,
    /// The key before which to end.
    to: Option<String>,
}

/// Rows of one task in the order of their keys, and where to go on.
pub(crate) async fn rows(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((group, partition)): Path<(String, u32)>,
    Query(range): Query<Range>,
) -> Result<Json<Value>, Problem> {
    caller.needs(Level::Admin)?;
    let bytes = |name: &str, text: &str| {
        unhex(text).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("{name} is a key in hexadecimal")))
    };
    let (from, to) = (bytes("from", &range.from)?, range.to.as_deref().map(|to| bytes("to", to)).transpose()?);
    let found = reading(&app, move |app| {
        let (mut rows, mut size, mut next) = (Vec::new(), 0, None);
        app.shop.rows(&group, partition, &from, to.as_deref(), &mut |key, value| {
            if rows.len() == ROWS || size > BYTES {
                next = Some(hex(key));
                return false;
            }
            size += value.len();
            rows.push(json!({"key": hex(key), "value": BASE64_STANDARD.encode(value)}));
            true
        })?;
        Ok(json!({"rows": rows, "next": next}))
    });
    Ok(Json(found.await?))
}

/// Reads off the threads that serve sockets: a store may have to read from disk. Waits its turn, for a moment.
pub(crate) async fn reading<T: Send + 'static>(
    app: &Arc<App>,
    read: impl FnOnce(&App) -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    let turn = tokio::time::timeout(TURN_WITHIN, app.queries.acquire()).await.map_err(|_| PortError::Busy)?;
    let _turn = turn.map_err(|_| PortError::Unavailable("shutting down".into()))?;
    let app = app.clone();
    tokio::task::spawn_blocking(move || read(&app)).await.unwrap_or_else(|_| Err(PortError::Failed("reading broke off".into())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_through_hexadecimal_and_back() {
        assert_eq!(unhex(&hex(&[0, 1, 0xfe])), Some(vec![0, 1, 0xfe]));
        assert_eq!((unhex("0"), unhex("zz")), (None, None));
    }
}
