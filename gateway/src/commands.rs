//! Commands and their answers: `POST /v1/users/{id}/loyalty/redeem`, `/loyalty/spin`, `/subscription`.
//!
//! A command is an event on its input topic like any other; the answer is read from what is committed. 200 brings it, 409
//! says why it was refused, 503 that the log did not take it, and 202 that it is taken and its answer will come: sent
//! again with the same id it is obeyed once, and answered.

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
    ingest, query,
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use std::{future::Future, sync::Arc, time::Duration};
use tillflow_engine::port::Committed;
use tillflow_schemas::{LoyaltyCommand, Record as _, SubscriptionEvent};
use tokio::time::Instant;

/// How long a caller is kept waiting for the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often the state is looked at for an answer that no record brings.
const LOOK_EVERY: Duration = Duration::from_millis(25);

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// The command's id: the caller's, by which it may be sent again, or a new one.
fn take_id(fields: &mut Map<String, Value>, name: &str, headers: &HeaderMap) -> Result<String, Problem> {
    match fields.remove(name) {
        Some(Value::String(id)) => Ok(id),
        Some(_) => Err(bad(format!("{name}: is not a string"))),
        None => {
            let given = headers.get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned);
            Ok(given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()))
        }
    }
}

/// Redeems a reward: `{"reward_id", "command_id"?}`.
pub(crate) async fn redeem(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    obey(&app, &caller, &user, "redeem", request).await
}

/// Spins the wheel: `{"spin_id", "command_id"?}`.
pub(crate) async fn spin(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    obey(&app, &caller, &user, "spin", request).await
}

async fn obey(app: &Arc<App>, caller: &Caller, user: &str, action: &str, request: Request) -> Result<Response, Problem> {
    caller.needs_user(user)?;
    let headers = request.headers().clone();
    let mut fields = ingest::json::<Map<String, Value>>(app, request).await?;
    let id = take_id(&mut fields, "command_id", &headers)?;
    fields.extend([("command_id".into(), json!(id)), ("user_id".into(), json!(user)), ("action".into(), json!(action))]);
    let record = ingest::one(app, caller, LoyaltyCommand::SCHEMA, &Value::Object(fields).to_string(), (app.wall)())?;
    let mut waiter = app.answers.wait(user);
    let topic = topic_of(app, LoyaltyCommand::SCHEMA);
    // Obeyed before, it is not obeyed again, and nothing more is said of it in the log.
    let answer = match entry(app, user, &id).await {
        Some(entry) => Some(Ok(entry)),
        None => {
            ingest::append(app, vec![record]).await?;
            let heard = async {
                loop {
                    match said(&*waiter.next().await?, topic, "command_id", &id) {
                        Some(answer) => return Some(answer),
                        None => continue,
                    }
                }
            };
            match in_time(app, heard).await {
                Some(answer) => Some(answer),
                None => entry(app, user, &id).await.map(Ok),
            }
        }
    };
    Ok(match answer {
        Some(Ok(entry)) if entry.get("kind").is_some_and(|kind| kind == "rejected") => {
            let reason = entry.get("note").and_then(Value::as_str).unwrap_or("refused").to_owned();
            refused(&reason, json!({ "command_id": id, "entry": entry }))
        }
        Some(Ok(entry)) => Json(json!({ "command_id": id, "entry": entry })).into_response(),
        Some(Err(reason)) => refused(&reason, json!({ "command_id": id })),
        None => pending(json!({ "command_id": id })),
    })
}

/// Waits for an answer as long as a caller may be kept waiting.
async fn in_time<T>(app: &App, answer: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        () = app.stop.cancelled() => None,
        answer = tokio::time::timeout(ANSWER_WITHIN, answer) => answer.ok().flatten(),
    }
}

/// The topic that commands of a schema are on.
fn topic_of<'a>(app: &'a App, schema: &str) -> &'a str {
    app.shop.catalog().of_schema(schema).map_or("", |t| t.name.as_str())
}

/// What a record says of the command with this id: the ledger's entry, or why it could not be processed.
fn said(record: &Committed, topic: &str, field: &str, id: &str) -> Option<Result<Value, String>> {
    let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    if record.schema != "dead_letter" {
        return (value.get(field)?.as_str()? == id).then_some(Ok(value));
    }
    let letter: Value = serde_json::from_str(value.get("value")?.as_str()?).ok()?;
    let is_it = value.get("source_topic")?.as_str()? == topic && letter.get(field)?.as_str()? == id;
    is_it.then(|| Err(value.get("error").and_then(Value::as_str).unwrap_or("could not be processed").to_owned()))
}

/// The ledger's entry that answers a command, if it is among the newest.
async fn entry(app: &Arc<App>, user: &str, id: &str) -> Option<Value> {
    let question = query::Question { group: "customers", key: user, path: "loyalty/ledger" };
    let ledger = query::ask(app, &question, &HeaderMap::new()).await.ok()??;
    let entries = ledger.get("entries")?.as_array()?;
    entries.iter().find(|e| e.get("command_id").is_some_and(|c| c == id)).cloned()
}

fn refused(reason: &str, more: Value) -> Response {
    let problem = Problem::new(StatusCode::CONFLICT, "refused", reason);
    let mut body = problem.body();
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    problem.with_body(body)
}

/// The log has it; what comes of it will be known later.
fn pending(mut more: Value) -> Response {
    if let Some(more) = more.as_object_mut() {
        more.insert("status".into(), json!("pending"));
    }
    (StatusCode::ACCEPTED, Json(more)).into_response()
}

/// What a shopper may ask of a subscription, and what it is called on the topic.
const ACTIONS: [(&str, &str); 6] =
    [("change", "changed"), ("pause", "paused"), ("resume", "resumed"), ("skip", "skipped"), ("swap", "swapped"), ("cancel", "cancelled")];

/// Changes a subscription: `{"action", "subscription_id"?, "plan_id"?, "from"?, "to"?, "at_period_end"?, "event_id"?}`.
pub(crate) async fn subscription(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    caller.needs_user(&user)?;
    let headers = request.headers().clone();
    let mut fields = ingest::json::<Map<String, Value>>(&app, request).await?;
    let id = take_id(&mut fields, "event_id", &headers)?;
    let asked = fields.get("action").and_then(Value::as_str).unwrap_or_default();
    let Some((_, action)) = ACTIONS.iter().find(|(name, _)| *name == asked) else {
        let names: Vec<_> = ACTIONS.iter().map(|(name, _)| *name).collect();
        return Err(bad(format!("action: '{}' is none of {}", tillflow_schemas::shorten(asked), names.join(", "))));
    };
    // Whose it is, and when, is not the caller's to say.
    fields.remove("effective_at").map_or(Ok(()), |_| caller.needs(Level::Server))?;
    fields.remove("timestamp");
    fields.extend([("event_id".into(), json!(id)), ("user_id".into(), json!(user)), ("action".into(), json!(action))]);
    let record = ingest::one(&app, &caller, SubscriptionEvent::SCHEMA, &Value::Object(fields).to_string(), (app.wall)())?;
    let mut waiter = app.answers.wait(&user);
    let topic = topic_of(&app, SubscriptionEvent::SCHEMA);
    ingest::append(&app, vec![record]).await?;
    let answered = async {
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                record = waiter.next() => if let Some(Err(reason)) = said(&*record?, topic, "event_id", &id) {
                    return Some(Err(reason));
                },
                () = tokio::time::sleep_until(looked + LOOK_EVERY) => {
                    looked = Instant::now();
                    if let Some(standing) = standing(&app, &user, &id).await {
                        return Some(Ok(standing));
                    }
                }
            }
        }
    };
    Ok(match in_time(&app, answered).await {
        Some(Ok(standing)) => Json(json!({ "event_id": id, "subscriptions": standing })).into_response(),
        Some(Err(reason)) => refused(&reason, json!({ "event_id": id })),
        None => pending(json!({ "event_id": id })),
    })
}

/// The customer's subscriptions, once the event with this id is among those applied.
async fn standing(app: &Arc<App>, user: &str, id: &str) -> Option<Value> {
    let question = query::Question { group: "customers", key: user, path: "subscription" };
    let mut answer = match query::ask(app, &question, &HeaderMap::new()).await {
        Ok(answer) => answer?,
        Err(problem) => {
            tracing::debug!(reason = problem.message, "a customer's subscription can't be looked at now");
            return None;
        }
    };
    let applied = answer.get("applied")?.as_array()?.iter().any(|applied| applied == id);
    applied.then(|| answer.get_mut("subscriptions").map(Value::take)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Timestamp;

    fn record(schema: &str, value: Value) -> Committed {
        Committed {
            topic: String::new(),
            schema: schema.into(),
            partition: 0,
            offset: 0,
            at: Timestamp::from_millis(0),
            key: "u".into(),
            value: Some(value.to_string().into_bytes()),
        }
    }

    #[test]
    fn only_what_carries_the_command_s_id_answers_it() {
        let of = |record: &Committed| said(record, "loyalty_commands", "command_id", "c1");
        let entry = json!({ "command_id": "c1", "kind": "redeem" });
        assert_eq!(of(&record("loyalty_update", entry.clone())), Some(Ok(entry)));
        assert_eq!(of(&record("loyalty_update", json!({ "command_id": "c2" }))), None);
        assert_eq!(of(&record("loyalty_update", json!({ "kind": "earn" }))), None);
        let letter = |topic: &str, value: &str| record("dead_letter", json!({ "source_topic": topic, "error": "no", "value": value }));
        assert_eq!(of(&letter("loyalty_commands", r#"{"command_id": "c1"}"#)), Some(Err("no".into())));
        assert_eq!(of(&letter("user_events", r#"{"command_id": "c1"}"#)), None);
        assert_eq!(of(&letter("loyalty_commands", "\u{fffd}")), None);
    }
}
