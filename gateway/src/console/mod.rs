//! The console: one page at `/` that shows what flows now. Its files are built into the binary; it needs no other host.

pub(crate) mod feed;
mod view;

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
    sockets::{self, Listener},
};
use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response, sse::Event},
    routing::get,
};
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Only our own files, nothing inline, no frames: whatever text a shop's data holds, it stays text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// A file of the page: its path, its type and what is in it.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../../../web/console/index.html")),
    ("/console/console.css", "text/css; charset=utf-8", include_str!("../../../web/console/console.css")),
    ("/console/console.js", "text/javascript; charset=utf-8", include_str!("../../../web/console/console.js")),
    ("/console/icon.svg", "image/svg+xml", include_str!("../../../web/console/icon.svg")),
];

/// The page's files and its stream.
pub(crate) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new().route("/console/stream", get(stream));
    for (path, kind, text) in FILES {
        let tag = format!("\"{:x}\"", Sha256::digest(text.as_bytes())).replace(' ', "");
        router = router.route(path, get(move |headers: HeaderMap| async move { file(kind, text, &tag, &headers) }));
    }
    router
}

fn file(kind: &'static str, text: &'static str, tag: &str, asked: &HeaderMap) -> Response {
    let known = asked.get(header::IF_NONE_MATCH).is_some_and(|t| t.as_bytes() == tag.as_bytes());
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let fixed: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// What flows now, as server-sent events: all that is remembered first, then what is new each second.
async fn stream(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    caller.needs(Level::Admin)?;
    let listener = Listener::new(app.clone(), sockets::place(&app)?);
    // Followed before the picture is taken: nothing falls between.
    let ticks = app.feed.follow();
    let events = stream::unfold((ticks, true, listener), |(mut ticks, mut behind, listener)| async move {
        loop {
            if behind {
                // What was missed is in the new picture.
                ticks = ticks.resubscribe();
                let picture = Event::default().event("picture").data(listener.app().feed.picture(listener.app()));
                return Some((picture, (ticks, false, listener)));
            }
            match ticks.recv().await {
                Ok(tick) => return Some((Event::default().event("tick").data(&*tick), (ticks, false, listener))),
                Err(RecvError::Lagged(_)) => behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(sockets::sse(&app, events.map(Ok)))
}
