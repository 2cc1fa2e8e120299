//! What comes into a shop's flow over HTTP, and what goes out to its pages: events and stock in, queries answered,
//! recommendations pushed, the console. Everything it knows of the engine is [`Shop`].
//!
//! ```no_run
//! # async fn run(shop: tillflow_engine::port::Shop) -> Result<(), tillflow_gateway::GatewayError> {
//! use tillflow_gateway::{Gateway, GatewayConfig};
//! let config = GatewayConfig::default();
//! let (listener, health) = config.bind().await?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! Gateway::new(shop, config).serve(listener, health, stop).await
//! # }
//! ```

mod access;
mod config;
mod console;
mod error;
mod forward;
mod health;
mod ingest;
mod log;
mod metrics;
mod push;
mod query;
mod request;
mod server;
mod sockets;
mod state;

pub use config::{GatewayConfig, Keys, Limits, Secret};
pub use error::GatewayError;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use std::sync::Arc;
use tillflow_engine::port::Shop;
use tillflow_schemas::Timestamp;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::compression::CompressionLayer;

/// Tells the time. The demo's clock runs faster than the wall's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The HTTP side of one instance.
pub struct Gateway {
    shop: Shop,
    config: GatewayConfig,
    wall: Clock,
}

/// What all handlers share.
struct App {
    shop: Shop,
    config: GatewayConfig,
    wall: Clock,
    keyring: access::Keyring,
    origins: access::Origins,
    metrics: metrics::Metrics,
    /// Requests that wait for the log.
    appends: Semaphore,
    /// Slots of bodies on their way.
    bytes: Semaphore,
    /// Queries running.
    queries: Semaphore,
    /// Room for sockets and event streams.
    room: Arc<Semaphore>,
    /// WebSockets, which outlive the connection they came by.
    sockets: TaskTracker,
    hub: Arc<push::Hub>,
    feed: console::feed::Feed,
    /// Asks other instances.
    client: reqwest::Client,
    stop: CancellationToken,
}

impl Gateway {
    /// A gateway to that shop.
    pub fn new(shop: Shop, config: GatewayConfig) -> Self {
        Self { shop, config, wall: Arc::new(Timestamp::wall) }
    }

    /// The same with another clock: a missing timestamp is its time, and nothing may lie far ahead of it.
    #[must_use]
    pub fn with_clock(self, wall: Clock) -> Self {
        Self { wall, ..self }
    }

    /// Serves until `shutdown`; then requests in flight end, sockets are closed, all within two seconds. `health` gets
    /// the three health routes alone.
    ///
    /// # Errors
    /// When the address lies beyond loopback and no keys are configured.
    pub async fn serve(self, listener: TcpListener, health: Option<TcpListener>, shutdown: CancellationToken) -> Result<(), GatewayError> {
        let address = listener.local_addr()?;
        self.config.check(address)?;
        let Self { shop, config, wall } = self;
        let app = Arc::new(App {
            keyring: access::Keyring::new(&config),
            origins: access::Origins::new(&config, address.ip().is_loopback()),
            metrics: metrics::Metrics::new()?,
            appends: Semaphore::new(config.limits.appends_in_flight.min(Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(ingest::slots(config.limits.bytes_in_flight.max(config.limits.body_bytes))),
            queries: Semaphore::new(config.limits.queries_in_flight.min(Semaphore::MAX_PERMITS)),
            room: Arc::new(Semaphore::new(config.limits.sockets.min(Semaphore::MAX_PERMITS))),
            sockets: TaskTracker::new(),
            hub: Arc::default(),
            feed: console::feed::Feed::new(),
            client: forward::client()?,
            stop: shutdown.clone(),
            shop,
            wall,
            config,
        });
        let connections = app.config.limits.connections;
        tracing::info!(%address, keys = app.config.keys.any(), "listening");
        let following = push::follow(app.clone(), app.shop.subscribe());
        let gathering = console::feed::gather(app.clone(), app.shop.subscribe());
        let main = server::serve(listener, router(&app), connections, shutdown.clone());
        let health = async {
            if let Some(listener) = health {
                server::serve(listener, health_routes(&app), 64, shutdown.clone()).await;
            }
        };
        let sockets = async {
            shutdown.cancelled().await;
            app.sockets.close();
            let _ = tokio::time::timeout(server::END_WITHIN, app.sockets.wait()).await;
        };
        tokio::join!(following, gathering, main, health, sockets);
        Ok(())
    }
}

fn health_routes(app: &Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(request::unknown)
        .layer(middleware::from_fn(request::dress))
        .with_state(app.clone())
}

fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/v1/events", post(ingest::events))
        .route("/v1/inventory", post(ingest::inventory))
        .route("/v1/topics/{topic}", post(ingest::topic))
        .route("/v1/topics/{topic}/{key}", axum::routing::delete(ingest::delete))
        .route("/v1/users/{id}/{*path}", get(query::user))
        .route("/v1/products", get(query::products))
        .route("/v1/products/{id}", get(query::product))
        .route("/v1/products/{id}/{*path}", get(query::product_path))
        .route("/v1/state", get(state::tasks))
        .route("/v1/log", post(log::append).layer(axum::extract::DefaultBodyLimit::max(log::BYTES)))
        .route("/v1/log/{topic}/{partition}", get(log::read))
        .route("/v1/state/{group}/{partition}", get(state::rows))
        .route("/ws/recommendations/{user_id}", get(sockets::web_socket))
        .route("/sse/recommendations/{user_id}", get(sockets::event_stream))
        .merge(console::routes())
        .fallback(request::unknown)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(app.clone(), access::admit))
        .layer(middleware::from_fn_with_state(app.clone(), metrics::measure))
        .layer(middleware::from_fn(request::dress))
        .with_state(app.clone())
}
