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
mod answers;
mod api;
mod commands;
mod config;
mod console;
mod denied;
mod error;
mod forward;
mod health;
mod ingest;
mod log;
mod metrics;
mod openapi;
mod pricing;
mod push;
mod query;
mod registry;
mod request;
mod segment;
mod server;
mod sockets;
mod state;
mod unsubscribe;

pub use config::{GatewayConfig, Keys, Limits, Secret};
pub use error::GatewayError;
pub use registry::SchemaStore;
pub use unsubscribe::ReadToken;

use axum::{Router, middleware, routing::get};
use std::sync::Arc;
use tillflow_engine::port::Shop;
use tillflow_schemas::Timestamp;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Tells the time. The demo's clock runs faster than the wall's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The HTTP side of one instance.
pub struct Gateway {
    shop: Shop,
    config: GatewayConfig,
    wall: Clock,
    schemas: Option<Arc<SchemaStore>>,
    unsubscribe: Option<ReadToken>,
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
    /// Commands that wait for what became of them.
    answers: Arc<answers::Answers>,
    denied: denied::Denied,
    /// One rule is written at a time, so that each has a version of its own.
    rules: tokio::sync::Mutex<()>,
    quote_secret: Vec<u8>,
    schemas: Option<Arc<SchemaStore>>,
    unsubscribe: Option<ReadToken>,
    /// Asks other instances.
    client: reqwest::Client,
    stop: CancellationToken,
}

impl Gateway {
    /// A gateway to that shop.
    pub fn new(shop: Shop, config: GatewayConfig) -> Self {
        Self { shop, config, wall: Arc::new(Timestamp::wall), schemas: None, unsubscribe: None }
    }

    /// Serves the built-in schema registry too.
    #[must_use]
    pub fn with_schemas(self, schemas: Arc<SchemaStore>) -> Self {
        Self { schemas: Some(schemas), ..self }
    }

    /// Serves the links to unsubscribe, whose tokens `read` knows.
    #[must_use]
    pub fn with_unsubscribe(self, read: ReadToken) -> Self {
        Self { unsubscribe: Some(read), ..self }
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
        let Self { shop, config, wall, schemas, unsubscribe } = self;
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
            answers: Arc::default(),
            denied: denied::Denied::default(),
            rules: tokio::sync::Mutex::default(),
            quote_secret: quote_secret(&config),
            schemas,
            unsubscribe,
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
        let main = server::serve(listener, api::router(&app), connections, shutdown.clone());
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

/// What quotes are signed with. Without one in the configuration they hold until this process ends.
fn quote_secret(config: &GatewayConfig) -> Vec<u8> {
    match &config.keys.quote_secret {
        Some(secret) => secret.reveal().as_bytes().to_vec(),
        None => [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].iter().flat_map(|id| id.into_bytes()).collect(),
    }
}
