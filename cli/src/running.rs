//! A running instance: the log, the engine, the gateway and the connectors, started together and stopped together.

use crate::{
    commands::Usage,
    config::{Config, LogKind},
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_connectors::{
    email::{Mailer, unsubscribe},
    redis::{Keys, RedisConnector},
};
use tillflow_engine::{
    Claimant, Engine, EngineConfig, Wall,
    log::{
        Reader,
        embedded::{Embedded, EmbeddedReader},
        kafka::{self, Kafka, KafkaReader, KafkaSettings, Purging, Stores},
    },
    port::Shop,
};
use tillflow_engine_api::Group;
use tillflow_gateway::{Gateway, SchemaStore};
use tillflow_schemas::{Catalog, Codec, registry};
use tillflow_state::{Durability, Shared, key, prefix_of};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// An instance that runs.
pub struct Running {
    /// Its engine.
    pub engine: Engine,
    /// The embedded log, where it has one.
    pub embedded: Option<Embedded>,
    /// Where it listens.
    pub address: SocketAddr,
    shutdown: CancellationToken,
    services: Vec<JoinHandle<Result<()>>>,
}

/// The file in the data directory that holds the built-in registry: the ids that Avro records in the topics name.
pub const SCHEMAS: &str = "schemas.json";

/// How often the embedded log is looked through for what may go.
const UPKEEP: Duration = Duration::from_secs(60);

/// What is wrong with the settings of what only a running instance has: addresses, Redis, the way mails leave. They are
/// looked at as they are written, nobody is asked.
pub fn problems(config: &Config) -> Vec<String> {
    let gateway = config.gateway.check_addresses().map_err(Into::into);
    let redis = config.redis.check().map_err(Into::into);
    let mail = config.mail().and_then(|mail| Ok(mail.check()?));
    [gateway, redis, mail].into_iter().filter_map(|checked: Result<()>| checked.err().map(|e| format!("{e:#}"))).collect()
}

/// The engine's part of the configuration.
pub fn engine_config(config: &Config, wall: &Wall) -> EngineConfig {
    EngineConfig {
        grace: Duration::from_secs(config.time.grace_s),
        idle_clock: config.time.idle,
        wait_for_input: Some(Duration::from_secs(config.time.wait_s)),
        wall: wall.clone(),
        commit_interval: Duration::from_millis(config.commit.interval_ms),
        commit_bytes: config.memory.uncommitted_mb << 20,
        workers: config.workers,
        upkeep: Some(UPKEEP),
        ..EngineConfig::default()
    }
}

/// The cluster of the configuration.
///
/// # Errors
/// When no brokers are configured or the instance's id can't be kept.
pub fn cluster(config: &Config, catalog: &Arc<Catalog>) -> Result<Kafka> {
    let brokers = config.brokers.clone().context("no brokers are configured: give --brokers HOST:PORT")?;
    let settings = KafkaSettings {
        brokers,
        app_id: config.app_id.clone(),
        instance_id: instance_id(config)?,
        prefix: config.topics.prefix.clone(),
        replication: config.topics.replication,
        session_timeout: Duration::from_secs(config.kafka.session_timeout_s),
        purging: Purging::default(),
        options: config.kafka.options.clone(),
    };
    Ok(Kafka::new(settings, catalog))
}

/// The configured id, else one made once and kept beside the state it belongs to.
fn instance_id(config: &Config) -> Result<String> {
    if let Some(id) = &config.instance.id {
        return Ok(id.clone());
    }
    let path = config.data_dir.join("instance-id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    std::fs::create_dir_all(&config.data_dir).with_context(|| format!("creating {}", config.data_dir.display()))?;
    let id = format!("{:08x}", rand::random::<u32>());
    std::fs::write(&path, &id).with_context(|| format!("writing {}", path.display()))?;
    Ok(id)
}

/// The memory that all stores share.
pub fn shared(config: &Config) -> Shared {
    Shared::new(config.memory.cache_mb << 20, config.memory.write_buffers_mb << 20)
}

/// Opens the embedded log of a data directory.
///
/// # Errors
/// When another process holds it, or it can't be read.
pub fn open_embedded(config: &Config, catalog: &Catalog, path: &Path) -> Result<Embedded> {
    let durability = if config.commit.fsync { Durability::Disk } else { Durability::Process };
    Ok(Embedded::open(&path.join("embedded"), catalog, durability, &shared(config))?)
}

/// Reads JSON and Avro. Avro is written only where a schema registry is configured, which is asked before the first
/// record, so that one which is absent or refuses is known at once; else the built-in one knows what clients register.
///
/// # Errors
/// When the registry does not answer or refuses our schemas, or the built-in one's file can't be read.
pub async fn codec(config: &Config, catalog: &Arc<Catalog>) -> Result<(Codec, Option<Arc<SchemaStore>>)> {
    let prefix = &config.topics.prefix;
    let Some(registry) = config.registry.connect()? else {
        let path = config.data_dir.join(SCHEMAS);
        let store = SchemaStore::open(&path).with_context(|| format!("the schema registry in {}", path.display()))?;
        let registry = store.registry();
        if let Err(e) = registry::register(registry.as_ref(), catalog, prefix) {
            tracing::warn!("the built-in registry does not take our own schemas: {e}");
        }
        return Ok((Codec::reading(registry, prefix), Some(Arc::new(store))));
    };
    let (codec, catalog) = (Codec::with_registry(registry, prefix), catalog.clone());
    Ok((tokio::task::spawn_blocking(move || codec.prepare(&catalog).map(|()| codec)).await??, None))
}

/// An instance's part in the groups.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Those that run here, by name; none: all.
    pub groups: Vec<String>,
    /// Whether its place is given up when it stops.
    pub leave: bool,
}

/// What the services beside the engine need.
struct Doors {
    wall: Wall,
    codec: Arc<Codec>,
    schemas: Option<Arc<SchemaStore>>,
    /// Reads the log outside any group.
    reader: Box<dyn Reader>,
}

impl Running {
    /// Starts everything the configuration asks for.
    ///
    /// # Errors
    /// When something can't start; nothing is left running.
    pub async fn start(config: &Config, groups: &[Group], wall: Wall, part: Part) -> Result<Self> {
        let problems = problems(config);
        if !problems.is_empty() {
            return Err(Usage(format!("configuration: {}", problems.join("\n  "))).into());
        }
        let catalog = Arc::new(config.catalog()?);
        let (codec, schemas) = codec(config, &catalog).await?;
        let codec = Arc::new(codec);
        let engine_config = EngineConfig { groups: part.groups, leave: part.leave, ..engine_config(config, &wall) };
        let read = codec.clone();
        let (engine, embedded, reader): (_, _, Box<dyn Reader>) = match config.log_kind() {
            LogKind::Embedded => {
                let log = open_embedded(config, &catalog, &config.data_dir)?;
                let reader = EmbeddedReader::new(&log);
                (Engine::embedded(&log, groups, &codec, &engine_config)?, Some(log), Box::new(reader))
            }
            LogKind::Kafka => {
                // The directory first: a second process must not reach the cluster.
                let stores = Stores::open(&config.data_dir, &shared(config))?;
                let kafka = cluster(config, &catalog)?;
                let reader = KafkaReader::new(&kafka, false)?;
                let claimant =
                    Claimant { instance: kafka.settings.instance_id.clone(), address: config.gateway.address()?, life: Uuid::new_v4() };
                if claimant.address.is_none() {
                    tracing::warn!(
                        "other instances can't ask this one about the keys it owns: listen is not one address; set advertised to host:port"
                    );
                }
                let engine_config = EngineConfig { claimant: Some(claimant), ..engine_config };
                let start = move |config: EngineConfig, groups: Vec<Group>| Engine::kafka(&kafka, &stores, &groups, &codec, &config);
                let began = Instant::now();
                prepare_topics(config, &catalog).await?;
                tracing::debug!(took = ?began.elapsed(), "the topics are there");
                let groups = groups.to_vec();
                (tokio::task::spawn_blocking(move || start(engine_config, groups)).await??, None, Box::new(reader))
            }
        };
        let shutdown = CancellationToken::new();
        let mut running = Self { engine, embedded, address: ([0, 0, 0, 0], 0).into(), shutdown, services: Vec::new() };
        if let Err(e) = running.serve(config, Doors { wall, codec: read, schemas, reader }).await {
            let _ = running.stop().await;
            return Err(e);
        }
        Ok(running)
    }

    async fn serve(&mut self, config: &Config, doors: Doors) -> Result<()> {
        let Doors { wall, codec, schemas, reader } = doors;
        let (listener, health) = config.gateway.bind().await?;
        self.address = listener.local_addr()?;
        tracing::info!(address = %self.address, "listening");
        let clock: tillflow_connectors::email::Clock = Arc::new(move || wall.now());
        let mail = config.mail()?;
        let mut gateway = Gateway::new(self.engine.port(), config.gateway.clone()).with_clock(clock.clone());
        if let Some(schemas) = schemas {
            gateway = gateway.with_schemas(schemas);
        }
        if !mail.sender.secret.is_empty() {
            let secret = mail.sender.secret.clone();
            gateway = gateway.with_unsubscribe(Arc::new(move |token| unsubscribe::verify(&secret, token)));
        }
        let shutdown = self.shutdown.clone();
        self.services.push(tokio::spawn(async move { gateway.serve(listener, health, shutdown).await.map_err(Into::into) }));
        if let Some(redis) = RedisConnector::new(self.engine.port(), &config.redis)? {
            let redis = redis.with_keys(keys_of(self.engine.port()));
            let shutdown = self.shutdown.clone();
            self.services.push(tokio::spawn(async move {
                redis.run(shutdown).await;
                Ok(())
            }));
        }
        if let Some((courier, sender)) = mail.open()? {
            let kept = config.data_dir.join("email.json");
            let mailer = Mailer::new(self.engine.port(), codec, reader, courier, sender, clock, kept)?;
            let shutdown = self.shutdown.clone();
            self.services.push(tokio::task::spawn_blocking(move || mailer.run(&shutdown).map_err(Into::into)));
        }
        Ok(())
    }

    /// Waits until a service or a worker ends by itself, which it should not.
    pub async fn failed(&mut self) -> anyhow::Error {
        loop {
            if self.engine.is_stopping() {
                return anyhow!("{}", self.engine.port().readiness().reason);
            }
            if let Some(at) = self.services.iter().position(JoinHandle::is_finished) {
                return match self.services.swap_remove(at).await {
                    Ok(Ok(())) => anyhow!("a service ended"),
                    Ok(Err(e)) => e,
                    Err(e) => anyhow!("a service panicked: {e}"),
                };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops everything: requests in flight end, workers commit.
    ///
    /// # Errors
    /// What went wrong first.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        let mut failure = None;
        for service in self.services {
            if let Ok(Err(e)) = service.await {
                failure.get_or_insert(e);
            }
        }
        let stopped = tokio::task::spawn_blocking(move || self.engine.stop()).await?;
        match (stopped, failure) {
            (Err(reason), _) => bail!(reason),
            (Ok(()), Some(e)) => Err(e),
            (Ok(()), None) => Ok(()),
        }
    }
}

/// Tables whose keys are those of the read models, by group.
const KEYED: [(&str, &[&str]); 2] =
    [("products", &["pricing.products"]), ("customers", &["loyalty.accounts", "subscriptions.entitled", "email.segments"])];

/// Names all products and users that this instance has state of.
fn keys_of(shop: Shop) -> Keys {
    Arc::new(move |group, visit| {
        let tables = KEYED.iter().find(|(name, _)| *name == group).map_or(&[][..], |(_, tables)| tables);
        for task in shop.readiness().tasks.iter().filter(|task| task.group == group) {
            for table in tables {
                let prefix = prefix_of(table);
                let to = key::after(&prefix);
                let listed = shop.rows(group, task.partition, &prefix, to.as_deref(), &mut |row, _| {
                    if let Some(id) = row.get(prefix.len()..).and_then(|mut rest| key::read_text(&mut rest)) {
                        visit(&id);
                    }
                    true
                });
                if let Err(e) = listed {
                    // It is listed once it is restored.
                    tracing::debug!(group, partition = task.partition, "keys of {table}: {e}");
                }
            }
        }
    })
}

/// Creates missing topics, where the configuration allows it.
///
/// # Errors
/// When topics are not as declared, or the cluster refuses.
pub async fn prepare_topics(config: &Config, catalog: &Arc<Catalog>) -> Result<()> {
    let kafka = cluster(config, catalog)?;
    let (of_brokers, of_topics) = (kafka.clone(), kafka.clone());
    let unfit = tokio::task::spawn_blocking(move || kafka::unfit(&of_brokers));
    let plan = tokio::task::spawn_blocking(move || kafka::plan(&of_topics)).await??;
    let unfit = unfit.await?;
    if !unfit.is_empty() {
        bail!("the brokers' settings do not let a shop run:\n  {}", unfit.join("\n  "));
    }
    let (missing, others): (Vec<_>, Vec<_>) = plan.differences.into_iter().partition(|d| matches!(d, kafka::Difference::Missing { .. }));
    kafka::check(&others)?;
    if missing.is_empty() {
        warn_of_unreplicated(&plan.unreplicated);
        return Ok(());
    }
    if !config.topics.create {
        kafka::check(&missing)?;
    }
    tracing::info!(topics = missing.len(), "creating missing topics");
    kafka::apply(&kafka, &missing).await?;
    // The cluster needs a moment until every broker knows them.
    for _ in 0..100 {
        let look = kafka.clone();
        let plan = tokio::task::spawn_blocking(move || kafka::plan(&look)).await??;
        if plan.differences.is_empty() {
            warn_of_unreplicated(&plan.unreplicated);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the topics were created, but the cluster does not show them all yet; try again")
}

fn warn_of_unreplicated(topics: &[String]) {
    if let Some(first) = topics.first() {
        tracing::warn!(topics = topics.len(), first, "topics with one replica: {}", kafka::UNREPLICATED);
    }
}
