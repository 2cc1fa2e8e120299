//! What every request gets: an id, a span, and errors as JSON whoever made them.

use crate::error::Problem;
use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderValue, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

/// By which a request is found again in the logs of all that it passed.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The answer where no route is.
pub(crate) async fn unknown(uri: Uri) -> Problem {
    Problem::not_found(format!("there is no {}", tillflow_schemas::shorten(uri.path())))
}

/// Gives the request an id and a span, and the answer that id; an error that is not JSON yet becomes it.
pub(crate) async fn dress(mut request: Request, next: Next) -> Response {
    let given =
        request.headers().get(REQUEST_ID).filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    let id = given.cloned().or_else(|| HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).ok());
    let id = id.unwrap_or_else(|| HeaderValue::from_static("-"));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    // The path alone: a query may hold a key.
    let span = tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id = id.to_str().unwrap_or("-"));
    let mut response = async {
        let response = as_json(next.run(request).await).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn as_json(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, 1_000).await.unwrap_or_default();
    let problem = Problem::of_status(status, String::from_utf8_lossy(&text).into_owned());
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::CONTENT_TYPE);
    let mut response = problem.into_response();
    for (name, value) in &parts.headers {
        response.headers_mut().append(name, value.clone());
    }
    response
}

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"))
}
