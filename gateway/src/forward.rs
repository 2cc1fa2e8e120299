//! Questions that another instance can answer, because it owns the key.

use crate::{App, error::Problem, query::Question, request::REQUEST_ID};
use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// Says that an instance already passed the question on: it is not passed on again, however the keys move meanwhile.
const FORWARDED: &str = "x-tillflow-forwarded";

/// The largest answer that is passed on.
const MOST_BYTES: usize = 8 << 20;
/// How long the owner may take for its answer: it reads it from its own disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether another instance passed the question on.
pub(crate) fn is_forwarded(asker: &HeaderMap) -> bool {
    asker.contains_key(FORWARDED)
}

/// The client that asks other instances.
pub(crate) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(1))
        .timeout(ANSWER_WITHIN)
        .build()
}

/// Asks the instance at `address`, with this one's key: whether the asker may was decided here.
pub(crate) async fn ask(app: &Arc<App>, address: &str, question: &Question<'_>, asker: &HeaderMap) -> Result<Option<Value>, Problem> {
    let answer = pass_on(app, address, question, asker).await;
    app.metrics.forwarded(answer.is_ok());
    answer
}

async fn pass_on(app: &Arc<App>, address: &str, question: &Question<'_>, asker: &HeaderMap) -> Result<Option<Value>, Problem> {
    let moving = |message: String| Problem::unavailable(message).retry_after(1);
    if is_forwarded(asker) {
        return Err(moving(format!("the key is moving to {address}; try again shortly")));
    }
    let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let mut url = reqwest::Url::parse(&base).map_err(|e| moving(format!("the owner's address '{address}' is wrong: {e}")))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["v1", if question.group == "customers" { "users" } else { "products" }, question.key]);
        path.extend(question.path.split('/').filter(|s| !s.is_empty()));
    }
    let mut request = app.client.get(url).header(FORWARDED, "1");
    if let Some(id) = asker.get(REQUEST_ID) {
        request = request.header(REQUEST_ID, id);
    }
    let own = app.config.keys.own().and_then(|key| HeaderValue::try_from(format!("Bearer {}", key.reveal())).ok());
    // Without a server key, only what the asker shows itself can open the other door.
    if let Some(mut key) = own.or_else(|| asker.get(header::AUTHORIZATION).cloned()) {
        key.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, key);
    }
    let failed = |e: reqwest::Error| moving(format!("the owner of the key, {address}, does not answer: {}", e.without_url()));
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(moving(format!("{address} answers more than {MOST_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    let value: Option<Value> = serde_json::from_slice(&body).ok();
    match (status.as_u16(), value) {
        (200, Some(value)) => Ok(Some(value)),
        (404, _) => Ok(None),
        (401 | 403, _) => {
            Err(moving(format!("the owner of the key, {address}, does not take this instance's key: give all the same keys.server")))
        }
        (status, value) => {
            let said = value.as_ref().and_then(|v| v.pointer("/error/message")).and_then(Value::as_str).unwrap_or("no reason given");
            Err(moving(format!("the owner of the key, {address}, answers {status}: {said}")))
        }
    }
}
