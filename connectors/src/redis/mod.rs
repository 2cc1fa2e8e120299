//! Redis: recommendations published to each user's channel and kept for a page that connects later, and the read models
//! `product:{product_id}` and `user:{user_id}`.
//!
//! The stream never waits for Redis. What is committed is taken in at once and conflated by key; one writer brings it to
//! Redis. A push is sent at most once: what can't be published now is of no use later. Read models become right again
//! after every outage: keys whose changes could not be held are read again from state, and so are all that are known
//! when Redis comes back without its data.

mod model;
mod pending;
mod refresh;
mod writer;

use model::{Key, of_record};
use parking_lot::Mutex;
use pending::Pending;
use prometheus::{IntCounter, IntGauge, Registry};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tillflow_engine::port::{Committed, Shop};
use tillflow_schemas::partition::partition;
use tokio::sync::{
    Notify,
    broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
};
use tokio_util::sync::CancellationToken;

/// The task groups whose state stands in Redis.
const GROUPS: [&str; 2] = ["customers", "products"];

/// How often it is looked which tasks are here.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The `redis` section of the configuration.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Where Redis is, `redis://[user:password@]host:port[/database]`; nothing goes to Redis where unset.
    pub url: Option<String>,
    /// Seconds after which a user's list of recommendations is gone.
    pub ttl_s: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { url: None, ttl_s: 24 * 3600 }
    }
}

impl RedisConfig {
    /// Looks at the settings alone; Redis is not asked.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn check(&self) -> Result<(), RedisError> {
        self.client().map(drop)
    }

    fn client(&self) -> Result<Option<redis::Client>, RedisError> {
        let Some(url) = self.url.as_deref() else { return Ok(None) };
        if self.ttl_s == 0 {
            return Err(RedisError::Ttl);
        }
        let client = redis::Client::open(url);
        client.map(Some).map_err(|e| RedisError::Address { url: without_password(url), reason: e.to_string() })
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("RedisConfig").field("url", &self.url.as_deref().map(without_password)).field("ttl_s", &self.ttl_s).finish()
    }
}

/// The address as it may be shown.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

/// Why nothing can go to Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The address makes no sense.
    #[error("redis.url {url}: {reason}; expected redis://host:port")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Lists that are gone at once.
    #[error("redis.ttl_s is 0; lists would be gone at once")]
    Ttl,
    /// A metric can't be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Names every key of a task group (`customers`, `products`) that this instance has state of.
pub type Keys = Arc<dyn Fn(&str, &mut dyn FnMut(&str)) + Send + Sync>;

/// Brings what is committed to Redis.
pub struct RedisConnector {
    shop: Shop,
    outputs: Receiver<Arc<Committed>>,
    client: redis::Client,
    ttl_s: u64,
    keys: Option<Keys>,
    shared: Arc<Shared>,
}

/// What the one who takes in and the one who writes share.
struct Shared {
    pending: Mutex<Pending>,
    work: Notify,
    metrics: Metrics,
    /// Group and partition of the tasks that are here. Every instance sees all outputs; each writes what it owns.
    own: Mutex<HashSet<(&'static str, u32)>>,
    /// Nothing more is taken in: what waits is written, then it is over.
    last: CancellationToken,
    /// Whether all keys of a task can be listed.
    lists: AtomicBool,
}

pub(crate) struct Metrics {
    connected: IntGauge,
    pending: IntGauge,
    published: IntCounter,
    dropped: IntCounter,
    written: IntCounter,
    refreshed: IntCounter,
    refused: IntCounter,
    outages: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("tillflow_redis_{name}_total"), help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("tillflow_redis_{name}"), help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        Ok(Self {
            connected: gauge("connected", "1 while Redis answers")?,
            pending: gauge("pending_keys", "Keys that wait to be written")?,
            published: counter("published", "Recommendations published")?,
            dropped: counter("dropped", "Recommendations not published, for want of a Redis or of room; their lists are set later")?,
            written: counter("written", "Keys written from committed records")?,
            refreshed: counter("refreshed", "Keys written anew from state")?,
            refused: counter("refused", "Keys that Redis holds another type under, and keeps")?,
            outages: counter("outages", "Times the connection broke or could not be made")?,
        })
    }
}

impl RedisConnector {
    /// A connector to the configured Redis, if there is one; it follows the outputs from now on.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(shop: Shop, config: &RedisConfig) -> Result<Option<Self>, RedisError> {
        let Some(client) = config.client()? else { return Ok(None) };
        let shared = Shared {
            pending: Mutex::default(),
            work: Notify::new(),
            metrics: Metrics::new(shop.metrics())?,
            own: Mutex::default(),
            last: CancellationToken::new(),
            lists: AtomicBool::new(false),
        };
        Ok(Some(Self { outputs: shop.subscribe(), shop, client, ttl_s: config.ttl_s, keys: None, shared: Arc::new(shared) }))
    }

    /// Has it ask for all keys when everything must be written anew. Without, it knows those it has seen since its start
    /// and those that Redis still has.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        self.shared.lists.store(true, Ordering::Relaxed);
        Self { keys: Some(keys), ..self }
    }

    /// Runs until `stop`; what is committed until then is still written, if Redis takes it within a second.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shop, outputs, client, ttl_s, keys, shared } = self;
        let writer = writer::Writer::new(client, ttl_s, shop.clone(), keys, shared.clone());
        tokio::join!(take_in(&shop, outputs, &shared, &stop), writer.run());
    }
}

/// Takes in what is committed, never waiting for Redis.
async fn take_in(shop: &Shop, mut outputs: Receiver<Arc<Committed>>, shared: &Shared, stop: &CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    look_around(shop, shared);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = look.tick() => look_around(shop, shared),
            received = outputs.recv() => match received {
                Ok(record) => shared.put(shop, &record),
                Err(RecvError::Lagged(missed)) => shared.missed(missed),
                Err(RecvError::Closed) => break,
            },
        }
    }
    loop {
        match outputs.try_recv() {
            Ok(record) => shared.put(shop, &record),
            Err(TryRecvError::Lagged(missed)) => shared.missed(missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    shared.last.cancel();
}

/// Sees which tasks are here. What a new one owns may have changed before we followed it.
fn look_around(shop: &Shop, shared: &Shared) {
    let tasks = shop.readiness().tasks;
    let running = tasks.iter().filter(|t| t.state == "running");
    let now: HashSet<_> = running.filter_map(|t| Some((GROUPS.into_iter().find(|g| *g == t.group)?, t.partition))).collect();
    let mut own = shared.own.lock();
    let new: HashSet<_> = now.difference(&own).copied().collect();
    *own = now;
    drop(own);
    if !new.is_empty() && shared.lists.load(Ordering::Relaxed) {
        shared.pending.lock().spoil_all();
        shared.work.notify_one();
    } else if !new.is_empty() {
        shared.pending.lock().spoil_known(|key| new.contains(&(key.kind.group(), home(shop, key))));
        shared.work.notify_one();
    }
}

/// The partition of the task that owns the key.
fn home(shop: &Shop, key: &Key) -> u32 {
    // All keyed topics of a group have its partition count.
    let topic = shop.catalog().of_schema(if key.kind.group() == "products" { "product_price" } else { "recommendations" });
    topic.map_or(0, |t| partition(key.id.as_bytes(), t.partitions))
}

impl Shared {
    fn owns(&self, shop: &Shop, key: &Key) -> bool {
        self.own.lock().contains(&(key.kind.group(), home(shop, key)))
    }

    fn put(&self, shop: &Shop, record: &Committed) {
        let Some((key, change)) = of_record(record) else { return };
        let mut pending = self.pending.lock();
        if !self.owns(shop, &key) {
            pending.know(key);
            return;
        }
        if pending.put(key, change) {
            self.metrics.dropped.inc();
        }
        drop(pending);
        self.work.notify_one();
    }

    fn missed(&self, records: u64) {
        tracing::warn!(records, "Redis' read models missed committed records; all are written anew");
        self.pending.lock().spoil_all();
        self.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let config = RedisConfig { url: Some("redis://u:s3cret@cache:6379/1".into()), ..RedisConfig::default() };
        assert_eq!(format!("{config:?}"), r#"RedisConfig { url: Some("redis://…@cache:6379/1"), ttl_s: 86400 }"#);
        assert_eq!(without_password("redis://cache"), "redis://cache");
    }
}
