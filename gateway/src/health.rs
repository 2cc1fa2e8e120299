//! `/healthz`, `/readyz` and `/metrics`: for probes and Prometheus, without a key.

use crate::{App, error::Problem};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus::{Encoder, TextEncoder};
use serde_json::{Value, json};
use std::sync::Arc;

/// The process lives.
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The instance can serve: all its tasks are restored.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let readiness = app.shop.readiness();
    let stopping = app.stop.is_cancelled();
    let reason = if stopping { "shutting down" } else { &readiness.reason };
    let mut body =
        json!({ "ready": readiness.ready && !stopping, "reason": reason, "tasks": readiness.tasks, "warnings": readiness.warnings });
    if readiness.ready && !stopping {
        return Json(body).into_response();
    }
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason).retry_after(1);
    if let (Value::Object(body), Value::Object(error)) = (&mut body, problem.body()) {
        body.extend(error);
    }
    problem.with_body(body)
}

/// The engine's and the gateway's metrics in Prometheus' text form.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut families = app.shop.metrics().gather();
    families.extend(app.metrics.registry.gather());
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder
        .encode(&families, &mut text)
        .map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("metrics: {e}")))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT))], text).into_response())
}
