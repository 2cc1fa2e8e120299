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
mod error;
mod health;
mod ingest;
mod metrics;
mod request;
mod server;

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
use tokio_util::sync::CancellationToken;

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
            stop: shutdown.clone(),
            shop,
            wall,
            config,
        });
        let connections = app.config.limits.connections;
        tracing::info!(%address, keys = app.config.keys.any(), "listening");
        let main = server::serve(listener, router(&app), connections, shutdown.clone());
        match health {
            Some(listener) => {
                let health = server::serve(listener, health_routes(&app), 64, shutdown);
                tokio::join!(main, health);
            }
            None => main.await,
        }
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
        .fallback(request::unknown)
        .layer(middleware::from_fn_with_state(app.clone(), access::admit))
        .layer(middleware::from_fn_with_state(app.clone(), metrics::measure))
        .layer(middleware::from_fn(request::dress))
        .with_state(app.clone())
}
