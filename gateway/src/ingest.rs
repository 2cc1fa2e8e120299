//! Records in: `POST /v1/events`, `/v1/inventory`, `/v1/topics/{topic}`.

use crate::{
    App,
    access::{Caller, Keyring, Level},
    error::Problem,
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};
use tillflow_engine::port::Append;
use tillflow_schemas::{DecodeError, Event, Needs, Role, TRACEPARENT, Timestamp, Trace, UserEvent, UserEventKind};
use tokio::sync::{SemaphorePermit, TryAcquireError};

/// How far an event's time may lie after the wall clock: clocks of shops and phones are not exact.
pub(crate) const AHEAD: Duration = Duration::from_secs(5 * 60);

/// How long a client may take to send a body.
const BODY_WITHIN: Duration = Duration::from_secs(20);

/// Bytes of a body too large that are read all the same.
const MOST_DRAINED: usize = 64 << 20;

/// How long the log may take to confirm. What happens to the records afterwards is unknown to the client, who may send
/// them again: the same `event_id` counts once.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

/// What counts as one slot of the byte budget.
const SLOT: usize = 4 << 10;

pub(crate) async fn events(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    take(&app, &caller, "user_event", request).await.unwrap_or_else(Problem::into_response)
}

pub(crate) async fn inventory(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    take(&app, &caller, "inventory", request).await.unwrap_or_else(Problem::into_response)
}

/// Any input or reference topic, so that a shop without Kafka can state its catalogue, customers and rules.
pub(crate) async fn topic(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let name = name.replace('-', "_");
    let taken = match schema(&app, &name, &[Role::Input, Role::Reference]) {
        Ok(schema) => take(&app, &caller, &schema, request).await,
        Err(problem) => Err(problem),
    };
    taken.unwrap_or_else(Problem::into_response)
}

/// Deletes what a reference topic says of one id.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, Problem> {
    caller.needs(Level::Server)?;
    let schema = schema(&app, &name.replace('-', "_"), &[Role::Reference])?;
    caller.needs(needed(&app, &schema))?;
    let bad = |e: DecodeError| Problem::new(StatusCode::BAD_REQUEST, "bad_key", e.to_string());
    let event = Event::decode(&schema, Some(&key), None).map_err(bad)?;
    let record = encode(&event).map_err(bad)?;
    append(&app, vec![record]).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": 1 }))).into_response())
}

fn schema(app: &App, topic: &str, roles: &[Role]) -> Result<String, Problem> {
    match app.shop.catalog().get(topic) {
        Some(t) if roles.contains(&t.role) => Ok(t.schema.clone()),
        _ => {
            let topics = app.shop.catalog().topics().iter().filter(|t| roles.contains(&t.role));
            let names = topics.map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(Problem::not_found(format!("nothing can be sent to '{}' this way; there are: {names}", tillflow_schemas::shorten(topic))))
        }
    }
}

/// The key that records of this schema need.
fn needed(app: &App, schema: &str) -> Level {
    match app.shop.catalog().of_schema(schema).map(|t| t.needs) {
        Some(Needs::Admin) => Level::Admin,
        _ if schema == "user_event" => Level::Write,
        _ => Level::Server,
    }
}

/// What is wrong with one record of a request.
#[derive(Serialize)]
pub(crate) struct Fault {
    index: usize,
    field: String,
    reason: String,
}

impl Fault {
    pub fn new(index: usize, error: DecodeError) -> Self {
        Self { index, field: error.field, reason: error.reason }
    }
}

async fn take(app: &App, caller: &Caller, schema: &str, request: Request) -> Result<Response, Problem> {
    let needed = needed(app, schema);
    let headers = request.headers().clone();
    let signed = Keyring::is_signed(&headers);
    if !signed {
        caller.needs(needed)?;
    }
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|e| e.as_bytes() != b"identity") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", "send the body as it is, without compression"));
    }
    let (_slots, body) = read(app, request).await?;
    let signer = if signed { app.keyring.signer(&headers, &body, Timestamp::wall())? } else { caller.clone() };
    let caller = &signer;
    caller.needs(needed)?;
    let now = (app.wall)();
    let mut faults = Vec::new();
    let mut good = Vec::new();
    match items(&body) {
        Ok(items) if items.len() > app.config.limits.records => {
            return Err(Problem::too_large(format!("{} records; at most {} go into one request", items.len(), app.config.limits.records)));
        }
        Ok(items) => {
            good.reserve(items.len());
            for (index, item) in items.iter().enumerate() {
                match one(app, caller, schema, item.get(), now) {
                    Ok(record) => good.push(record),
                    Err(e) => faults.push(Fault::new(index, e)),
                }
            }
        }
        Err(e) => faults.push(Fault::new(0, e)),
    }
    let accepted = good.len();
    if accepted > 0 {
        append(app, traced(good, &headers)).await?;
    }
    app.metrics.taken(schema, accepted, faults.len());
    if faults.is_empty() {
        return Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": accepted }))).into_response());
    }
    let message = format!("{} of {} records are wrong; the others were taken", faults.len(), accepted + faults.len());
    let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_records", message);
    let mut body = json!({ "accepted": accepted, "errors": faults });
    if let (Value::Object(body), Value::Object(error)) = (&mut body, problem.body()) {
        body.extend(error);
    }
    Ok(problem.with_body(body))
}

/// Reads the body within the budget of bytes, which is given back when the request is done.
async fn read(app: &App, request: Request) -> Result<(SemaphorePermit<'_>, Vec<u8>), Problem> {
    let most = app.config.limits.body_bytes;
    let stated = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let large = || Problem::too_large(format!("the body is larger than {most} bytes"));
    if stated.is_some_and(|n| n > most) {
        drain(request.into_body()).await;
        return Err(large());
    }
    let slots = u32::try_from(stated.unwrap_or(most).div_ceil(SLOT).max(1)).unwrap_or(u32::MAX);
    let slots = app.bytes.try_acquire_many(slots).map_err(|e| match e {
        TryAcquireError::NoPermits => Problem::overloaded("too many bytes are on their way; try again shortly"),
        TryAcquireError::Closed => closed(),
    })?;
    let body: Body = request.into_body();
    let read = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, most)).await;
    match read {
        Ok(Ok(bytes)) => Ok((slots, bytes.into())),
        Ok(Err(e)) if is_too_large(&e) => Err(large()),
        Ok(Err(e)) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_body", format!("the body broke off: {e}"))),
        Err(_) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", format!("the body took longer than {} s", BODY_WITHIN.as_secs())))
        }
    }
}

/// Reads a body that is too large and forgets it, within bounds: most clients read no answer before they have sent all.
async fn drain(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut left = MOST_DRAINED;
    let all = async {
        while let Some(Ok(chunk)) = chunks.next().await
            && chunk.len() <= left
        {
            left -= chunk.len();
        }
    };
    let _ = tokio::time::timeout(BODY_WITHIN, all).await;
}

/// A body that is one JSON value; an empty one is `{}`.
pub(crate) async fn json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Problem> {
    let (_slots, body) = read(app, request).await?;
    let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body.as_slice() };
    tillflow_schemas::json::read(body).map_err(|e: DecodeError| Problem::new(StatusCode::BAD_REQUEST, "bad_request", e.to_string()))
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if e.to_string() == "length limit exceeded" {
            return true;
        }
        source = e.source();
    }
    false
}

/// The number of slots a budget of bytes has.
pub(crate) fn slots(bytes: usize) -> usize {
    bytes.div_ceil(SLOT).min(tokio::sync::Semaphore::MAX_PERMITS)
}

/// One record or a list of them, not parsed further.
fn items(body: &[u8]) -> Result<Vec<&RawValue>, DecodeError> {
    let text = std::str::from_utf8(body).map_err(|e| DecodeError::at("", format!("not UTF-8: byte {} breaks it", e.valid_up_to())))?.trim();
    let read = if text.starts_with('[') { serde_json::from_str(text) } else { serde_json::from_str(text).map(|one| vec![one]) };
    read.map_err(|e| DecodeError::at("", format!("not JSON: {}", if text.is_empty() { "the body is empty".into() } else { e.to_string() })))
}

/// Checks one record and makes it ready for the log.
pub(crate) fn one(app: &App, caller: &Caller, schema: &str, text: &str, now: Timestamp) -> Result<Append, DecodeError> {
    let time_field = match schema {
        "inventory" => Some("last_updated"),
        "user_event" | "subscription_event" | "loyalty_command" => Some("timestamp"),
        _ => None,
    };
    let text = match time_field {
        Some(field) => with_time(text, field, now),
        None => Cow::Borrowed(text),
    };
    let mut event = Event::decode(schema, None, Some(text.as_bytes()))?;
    if let Some(problem) = tillflow_processors::problem(&event) {
        return Err(problem);
    }
    let time = match &event {
        Event::User(e) => Some(e.timestamp),
        Event::Inventory(v) => Some(v.last_updated),
        Event::Subscription(v) => Some(v.timestamp),
        Event::Command(v) => Some(v.timestamp),
        _ => None,
    };
    if let (Some(name), Some(time)) = (time_field, time)
        && time > now + AHEAD
    {
        return Err(DecodeError::at(name, format!("{time} lies more than 5 minutes after now, {now}")));
    }
    match &mut event {
        Event::User(e) => {
            if !caller.may(Level::Server) {
                check_behaviour(caller, e)?;
            }
            if matches!(e.kind, UserEventKind::Unknown { .. }) {
                app.metrics.unknown();
            }
            e.event_id.get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
        }
        Event::Subscription(e) => {
            e.event_id.get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
        }
        _ => {}
    }
    let record = encode(&event)?;
    let size = record.value.as_ref().map_or(0, Vec::len);
    if size > app.config.limits.record_bytes {
        return Err(DecodeError::at("", format!("{size} bytes as a record; at most {} are taken", app.config.limits.record_bytes)));
    }
    Ok(record)
}

/// What anyone who reads a page's source may say: what a shopper does, not what a shop does.
fn check_behaviour(caller: &Caller, event: &UserEvent) -> Result<(), DecodeError> {
    use UserEventKind as K;
    match &event.kind {
        K::ProductViewed { .. }
        | K::AddedToCart { .. }
        | K::RemovedFromCart { .. }
        | K::CheckoutStarted { .. }
        | K::RecommendationShown { .. }
        | K::RecommendationClicked { .. }
        | K::PageViewed { .. }
        | K::SignedUp { referrer_id: None }
        | K::Unknown { .. } => {}
        K::SignedUp { .. } => return Err(DecodeError::at("referrer_id", "a referral needs a server key")),
        _ => return Err(DecodeError::at("event_type", format!("{} needs a server key", event.event_type()))),
    }
    // An event that carries both joins them for good, so the user's own word is needed.
    if let (Some(user), Some(_)) = (&event.user_id, &event.anonymous_id)
        && caller.user.as_deref() != Some(user.as_str())
    {
        return Err(DecodeError::at("anonymous_id", "joining it to a user_id needs that user's token or a server key"));
    }
    Ok(())
}

/// The record with the time of receipt, where it states none. The rest keeps its digits: amounts never pass through
/// binary. What is not an object is left to the decoder, which says so.
fn with_time<'a>(text: &'a str, field: &str, now: Timestamp) -> Cow<'a, str> {
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(text) else { return Cow::Borrowed(text) };
    if fields.get(field).is_some_and(|time| time.get() != "null") {
        return Cow::Borrowed(text);
    }
    let Ok(time) = serde_json::value::to_raw_value(&now.millis()) else { return Cow::Borrowed(text) };
    fields.insert(Cow::Borrowed(field), &time);
    serde_json::to_string(&fields).map_or(Cow::Borrowed(text), Cow::Owned)
}

pub(crate) fn encode(event: &Event) -> Result<Append, DecodeError> {
    let owned = |id: Option<&str>| id.map(str::to_owned);
    Ok(Append {
        schema: event.schema(),
        key: owned(event.key()),
        placed_by: owned(event.placed_by().filter(|_| event.key().is_none())),
        value: event.to_json()?,
        trace: None,
    })
}

/// The records of a request belong to the trace that it states.
pub(crate) fn traced(mut records: Vec<Append>, headers: &HeaderMap) -> Vec<Append> {
    let trace = headers.get(TRACEPARENT).and_then(|header| Trace::read(header.as_bytes()));
    if trace.is_some() {
        records.iter_mut().for_each(|record| record.trace.clone_from(&trace));
    }
    records
}

/// Hands records to the log and waits for its word.
pub(crate) async fn append(app: &App, records: Vec<Append>) -> Result<(), Problem> {
    let _turn = match app.appends.try_acquire() {
        Ok(turn) => turn,
        Err(TryAcquireError::NoPermits) => return Err(Problem::overloaded("too many requests wait for the log; try again shortly")),
        Err(TryAcquireError::Closed) => return Err(closed()),
    };
    match tokio::time::timeout(CONFIRM_WITHIN, app.shop.append(records)).await {
        Ok(Ok(answer)) => Ok(answer?),
        Ok(Err(_)) => Err(closed()),
        Err(_) => Err(Problem::unavailable("the log did not confirm in time; with the same event_id it is safe to send again")),
    }
}

fn closed() -> Problem {
    Problem::unavailable("shutting down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_filled_in_where_none_is_stated_and_nothing_else_is_touched() {
        let now = Timestamp::from_millis(5);
        let stated = r#"{ "timestamp": "2026-03-01T10:00:00Z", "a": 1.10 }"#;
        assert_eq!(with_time(stated, "timestamp", now), stated);
        assert_eq!(
            with_time(r#"{"total_amount": 12345678901.123456789}"#, "timestamp", now),
            r#"{"timestamp":5,"total_amount":12345678901.123456789}"#
        );
        assert_eq!(with_time(r#"{"timestamp":null}"#, "timestamp", now), r#"{"timestamp":5}"#);
        for other in ["[]", "3", "{", r#""timestamp""#] {
            assert_eq!(with_time(other, "timestamp", now), other);
        }
    }
}
