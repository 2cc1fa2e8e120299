//! Where a mail's link to unsubscribe leads: a page with one button, and the one click of RFC 8058.

use crate::{App, error::Problem, ingest};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::json;
use std::sync::Arc;
use tillflow_schemas::Event;

/// Says of which user and mail a token is.
pub type ReadToken = Arc<dyn Fn(&str) -> Option<(String, String)> + Send + Sync>;

/// Nothing from elsewhere, and nothing but the form.
const POLICY: &str = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Unsubscribe</title><h1>Unsubscribe</h1><p>You will get no more of these mails.</p>
<form method="post"><button name="List-Unsubscribe" value="One-Click">Unsubscribe</button></form>"#;

fn read(app: &App, token: &str) -> Result<(String, String), Problem> {
    let unknown = || Problem::not_found("this link is not one of ours");
    app.unsubscribe.as_ref().and_then(|read| read(token)).ok_or_else(unknown)
}

/// A look at a link changes nothing: mail programs look too.
pub(crate) async fn page(State(app): State<Arc<App>>, Path(token): Path<String>) -> Result<Response, Problem> {
    read(&app, &token)?;
    Ok(([(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))], Html(PAGE)).into_response())
}

pub(crate) async fn leave(State(app): State<Arc<App>>, Path(token): Path<String>) -> Result<Response, Problem> {
    let (user, mail) = read(&app, &token)?;
    let event = json!({
        "event_id": format!("unsubscribed:{mail}"), "event_type": "email_unsubscribed", "user_id": user, "message_id": mail,
        "timestamp": (app.wall)(),
    });
    let event = Event::decode("user_event", None, Some(event.to_string().as_bytes()))?;
    ingest::append(&app, vec![ingest::encode(&event)?]).await?;
    Ok((StatusCode::OK, Json(json!({ "unsubscribed": true }))).into_response())
}
