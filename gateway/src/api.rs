//! The routes, each with what it does: one list makes the router and the OpenAPI document.

use crate::{
    App, access, commands, console, health, ingest, log, metrics, openapi, pricing, query, registry, request, segment, sockets, state,
    unsubscribe,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, delete, get, post, put},
};
use std::sync::Arc;
use tower_http::compression::CompressionLayer;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Everyone.
    Nothing,
    /// A write key.
    Write,
    /// A server key.
    Server,
    /// An admin key.
    Admin,
    /// The user's own token, or a server key.
    User,
}

/// One route, as the document tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub about: &'static str,
    pub needs: Needs,
}

struct Routes {
    router: Router<Arc<App>>,
    all: Vec<Route>,
}

impl Routes {
    fn add(mut self, method: &'static str, path: &'static str, needs: Needs, about: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        self.router = self.router.route(path, handler);
        self.all.push(Route { method, path, about, needs });
        self
    }
}

/// Where the queries of a user and of a product lie; the document lists what stands behind them.
pub(crate) const QUERIES: [(&str, &str); 2] = [("customers", "/v1/users/{id}/{*path}"), ("products", "/v1/products/{id}/{*path}")];

#[rustfmt::skip]
fn routes() -> Routes {
    use Needs::{Admin, Nothing, Server, User, Write};
    Routes { router: Router::new(), all: Vec::new() }
        .add("get", "/healthz", Nothing, "The process lives", get(health::live))
        .add("get", "/readyz", Nothing, "The instance can serve: its tasks are restored", get(health::ready))
        .add("get", "/metrics", Nothing, "Metrics in Prometheus' text form", get(health::metrics))
        .add("post", "/v1/events", Write, "One event of a shopper, or a list", post(ingest::events))
        .add("post", "/v1/inventory", Server, "Stock levels, one or a list", post(ingest::inventory))
        .add("post", "/v1/topics/{topic}", Server, "Records of an input or reference topic, one or a list", post(ingest::topic))
        .add("delete", "/v1/topics/{topic}/{key}", Server, "Delete what a reference topic says of one id", delete(ingest::delete))
        .add("post", "/v1/track", Write, "Segment: an event", post(segment::track))
        .add("post", "/v1/identify", Write, "Segment: who a visitor is", post(segment::identify))
        .add("post", "/v1/page", Write, "Segment: a page viewed", post(segment::page))
        .add("post", "/v1/batch", Write, "Segment: several messages", post(segment::batch))
        .add("get", "/v1/users/{id}/{*path}", User, "What is known of a user", get(query::user))
        .add("post", "/v1/users/{id}/loyalty/redeem", User, "Redeem a reward", post(commands::redeem))
        .add("post", "/v1/users/{id}/loyalty/spin", User, "Spin the wheel", post(commands::spin))
        .add("get", "/v1/users/{id}/subscription", User, "The user's subscriptions", get(query::subscription))
        .add("post", "/v1/users/{id}/subscription", User, "Change, pause, resume, skip, swap or cancel a subscription", post(commands::subscription))
        .add("get", "/v1/products", Server, "Several products: ?ids=a,b", get(query::products))
        .add("get", "/v1/products/{id}", Server, "What is known of a product", get(query::product))
        .add("get", "/v1/products/{id}/{*path}", Server, "What is known of a product", get(query::product_path))
        .add("post", "/v1/pricing/run", Server, "Decide about prices now", post(pricing::run))
        .add("post", "/v1/pricing/quotes", Write, "Promise the prices of a cart, signed", post(pricing::quote))
        .add("post", "/v1/pricing/quotes/check", Write, "Whether a quote is still honoured, and what to charge", post(pricing::check))
        .add("get", "/v1/pricing/rules/{scope}", Server, "A scope's pricing rule and its versions", get(pricing::rule))
        .add("put", "/v1/pricing/rules/{scope}", Admin, "A new version of a scope's pricing rule", put(pricing::put_rule))
        .add("get", "/v1/state", Admin, "The tasks of this instance and their stores", get(state::tasks))
        .add("get", "/v1/state/{group}/{partition}", Admin, "Rows of a task's store", get(state::rows))
        .add("post", "/v1/tasks/{group}/{partition}/pause", Admin, "Have a task of this instance process nothing for now", post(state::pause))
        .add("post", "/v1/tasks/{group}/{partition}/resume", Admin, "Have a paused task go on", post(state::resume))
        .add("post", "/v1/log", Admin, "Append records as they are", post(log::append).layer(DefaultBodyLimit::max(log::BYTES)))
        .add("get", "/v1/log/{topic}/{partition}", Admin, "Records of a partition as they are", get(log::read))
        .add("get", "/ws/recommendations/{user_id}", User, "WebSocket: each message a list of product ids", get(sockets::web_socket))
        .add("get", "/sse/recommendations/{user_id}", User, "Server-sent events: each a list of product ids", get(sockets::event_stream))
        .add("get", "/unsubscribe/{token}", Nothing, "A page to unsubscribe from mails", get(unsubscribe::page))
        .add("post", "/unsubscribe/{token}", Nothing, "Unsubscribe by one click (RFC 8058)", post(unsubscribe::leave))
        .add("get", "/schemas/types", Server, "Schema registry: the kinds of schemas it keeps", get(registry::types))
        .add("get", "/schemas/ids/{id}", Server, "Schema registry: a schema by its id", get(registry::schema))
        .add("get", "/subjects", Server, "Schema registry: the subjects", get(registry::subjects))
        .add("post", "/subjects/{subject}", Server, "Schema registry: whether a subject has a schema", post(registry::look_up))
        .add("get", "/subjects/{subject}/versions", Server, "Schema registry: a subject's versions", get(registry::versions))
        .add("post", "/subjects/{subject}/versions", Server, "Schema registry: register a schema", post(registry::register))
        .add("get", "/subjects/{subject}/versions/{version}", Server, "Schema registry: one version", get(registry::version))
        .add("post", "/compatibility/subjects/{subject}/versions/{version}", Server, "Schema registry: whether a schema may follow", post(registry::compatible))
        .add("get", "/config", Server, "Schema registry: the level of compatibility", get(registry::config))
        .add("put", "/config", Server, "Schema registry: set the level of compatibility", put(registry::set_config))
        .add("get", "/config/{subject}", Server, "Schema registry: a subject's level", get(registry::config_of))
        .add("put", "/config/{subject}", Server, "Schema registry: set a subject's level", put(registry::set_config_of))
        .add("get", "/openapi.json", Nothing, "This document", get(openapi::document))
}

/// All routes that the document tells of.
pub(crate) fn all() -> Vec<Route> {
    routes().all
}

/// Everything over HTTP.
pub(crate) fn router(app: &Arc<App>) -> Router {
    routes()
        .router
        .merge(console::routes())
        .fallback(request::unknown)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(app.clone(), access::admit))
        .layer(middleware::from_fn_with_state(app.clone(), metrics::measure))
        .layer(middleware::from_fn(request::dress))
        .with_state(app.clone())
}
