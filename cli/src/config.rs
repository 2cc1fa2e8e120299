//! The configuration: `tillflow.yaml`, then `TILLFLOW_…` variables, then flags. Unknown keys are errors that name the
//! nearest key.

use anyhow::{Context, Result, anyhow, bail};
use figment::{
    Figment,
    providers::{Format, Serialized, Yaml},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tillflow_connectors::{email::MailConfig, redis::RedisConfig};
use tillflow_engine_api::keys::{Keys, flatten, flatten_below, no_such, unknown};
use tillflow_gateway::GatewayConfig;
use tillflow_schemas::{Catalog, CatalogError, ConfluentRegistry, RegistryError, SchemaRegistry};

/// Sections that belong to the systems; each checks its own.
pub const SYSTEMS: [&str; 6] = ["shop", "pricing", "recommendations", "loyalty", "subscriptions", "email"];

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `embedded` or `kafka`; kafka where brokers are given, else embedded.
    pub log: Option<LogKind>,
    /// Kafka's bootstrap servers, `host:port,…`.
    pub brokers: Option<String>,
    /// Where state (and the embedded log) lies.
    pub data_dir: PathBuf,
    /// Prefix of consumer groups and transactional ids.
    pub app_id: String,
    /// This instance among several.
    pub instance: Instance,
    /// The topics.
    pub topics: Topics,
    /// Event time.
    pub time: Time,
    /// Commits.
    pub commit: Commit,
    /// Worker threads a task group.
    pub workers: u32,
    /// Memory limits.
    pub memory: Memory,
    /// How to reach Kafka.
    pub kafka: KafkaOptions,
    /// The schema registry.
    pub registry: Registry,
    /// HTTP: `listen`, `health_listen`, `keys`, `origins`, `limits`.
    #[serde(flatten)]
    pub gateway: GatewayConfig,
    /// Redis as an output.
    pub redis: RedisConfig,
    /// The `shop` section.
    pub shop: Map<String, Value>,
    /// The `pricing` section.
    pub pricing: Map<String, Value>,
    /// The `recommendations` section.
    pub recommendations: Map<String, Value>,
    /// The `loyalty` section.
    pub loyalty: Map<String, Value>,
    /// The `subscriptions` section.
    pub subscriptions: Map<String, Value>,
    /// The `email` section.
    pub email: Map<String, Value>,
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Inside the process, in the data directory.
    Embedded,
    /// Apache Kafka.
    Kafka,
}

/// This instance among several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// A name that stays the same over restarts and is no other instance's; made once and kept in the data directory
    /// where absent.
    pub id: Option<String>,
}

/// The topics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Topics {
    /// Partitions of each topic that does not state its own.
    pub partitions: u32,
    /// Goes before every topic name on Kafka.
    pub prefix: String,
    /// Replicas of topics that are created on Kafka; the broker's default where absent.
    pub replication: Option<i32>,
    /// Whether missing topics are created.
    pub create: bool,
    /// Inputs whose clients are not trusted to put records where their keys say: all of their records are re-keyed.
    pub untrusted: Vec<String>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { partitions: 4, prefix: String::new(), replication: None, create: true, untrusted: Vec::new() }
    }
}

/// Event time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Time {
    /// Seconds that timers wait for late events.
    pub grace_s: u64,
    /// Whether the clock of an idle task goes on with the wall; off for comparisons.
    pub idle: bool,
    /// Seconds that an input without a record at hand is waited for while the log says that it has some: they may be
    /// earlier than those of other inputs.
    pub wait_s: u64,
}

impl Default for Time {
    fn default() -> Self {
        Self { grace_s: 10, idle: true, wait_s: 10 }
    }
}

/// Commits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// Milliseconds between commits under load, at most.
    pub interval_ms: u64,
    /// Whether a commit on the embedded log waits for the disk; off, it survives a crash of the process only.
    pub fsync: bool,
}

impl Default for Commit {
    fn default() -> Self {
        Self { interval_ms: 100, fsync: true }
    }
}

/// Memory limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Megabytes of RocksDB's block cache, for all tasks together.
    pub cache_mb: usize,
    /// Megabytes of RocksDB's write buffers, for all tasks together.
    pub write_buffers_mb: usize,
    /// Megabytes of uncommitted changes of a worker, before a commit comes sooner.
    pub uncommitted_mb: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { cache_mb: 128, write_buffers_mb: 64, uncommitted_mb: 32 }
    }
}

/// How to reach Kafka.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaOptions {
    /// Seconds without a heartbeat after which another instance takes over.
    pub session_timeout_s: u64,
    /// librdkafka settings, such as `security.protocol` and `sasl.username`.
    pub options: BTreeMap<String, String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { session_timeout_s: 10, options: BTreeMap::new() }
    }
}

/// The schema registry, for Avro.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Registry {
    /// Where it is, in Confluent's REST form; JSON alone is read and written where absent.
    pub url: Option<String>,
    /// Milliseconds that it may take for an answer.
    pub timeout_ms: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self { url: None, timeout_ms: 5_000 }
    }
}

/// How long an id that the registry does not know is taken as unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

impl Registry {
    /// The registry, where one is configured. It is not asked yet.
    ///
    /// # Errors
    /// The URL is none.
    pub fn connect(&self) -> Result<Option<Arc<dyn SchemaRegistry>>, RegistryError> {
        let Some(url) = &self.url else { return Ok(None) };
        Ok(Some(Arc::new(ConfluentRegistry::new(url, Duration::from_millis(self.timeout_ms), UNKNOWN_FOR)?)))
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// A flag of the command.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Where the values came from that are not defaults, by key.
pub type Origins = BTreeMap<String, Origin>;

impl Default for Config {
    fn default() -> Self {
        Self {
            log: None,
            brokers: None,
            data_dir: "./tillflow-data".into(),
            app_id: "tillflow".into(),
            instance: Instance::default(),
            topics: Topics::default(),
            time: Time::default(),
            commit: Commit::default(),
            workers: 1,
            memory: Memory::default(),
            kafka: KafkaOptions::default(),
            registry: Registry::default(),
            gateway: GatewayConfig::default(),
            redis: RedisConfig::default(),
            shop: Map::new(),
            pricing: Map::new(),
            recommendations: Map::new(),
            loyalty: Map::new(),
            subscriptions: Map::new(),
            email: Map::new(),
        }
    }
}

impl Config {
    /// Loads the configuration: `file`, else `./tillflow.yaml` where it exists, else defaults; then the environment;
    /// then `flags`, by key. Says of each value that is no default where it came from.
    ///
    /// # Errors
    /// Names unknown keys with the nearest known one, and values of a wrong type.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &BTreeMap<String, Value>,
    ) -> Result<(Self, Origins)> {
        let known = defaults();
        let mut origins = Origins::new();
        let mut note = |keys: Keys, origin: &Origin| origins.extend(keys.into_keys().map(|k| (k, origin.clone())));
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        let default = Path::new("tillflow.yaml");
        if let Some(path) = file.or_else(|| default.exists().then_some(default)) {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let given: Value = serde_norway::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
            let given = flatten(&given);
            if let Some(unknown) = unknown(&given, &known) {
                bail!("{}: {unknown}", path.display());
            }
            note(given, &Origin::File(path.to_owned()));
            figment = figment.merge(Yaml::string(&text));
        }
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix("TILLFLOW_").map(str::to_lowercase) else { continue };
            let Some(key) = key_of(&name, &known) else { bail!("{variable}: {}", no_such(&name, &known)) };
            // As YAML reads it: 4 is a number, true a boolean, {USD: "0.9"} a map.
            let value: Value = serde_norway::from_str(&text).unwrap_or(Value::String(text));
            let given = flatten_below(&key, &value);
            if let Some(unknown) = unknown(&given, &known) {
                bail!("{variable}: {unknown}");
            }
            note(given, &Origin::Environment(variable));
            figment = figment.merge(Serialized::default(&key, value));
        }
        for (key, value) in flags {
            note(flatten_below(key, value), &Origin::Flag);
            figment = figment.merge(Serialized::default(key, value));
        }
        let config = figment.extract().map_err(|e| anyhow!("{e}"))?;
        Ok((config, origins))
    }

    /// The list of topics, as this shop has it.
    ///
    /// # Errors
    /// Names what is wrong in the section `topics`.
    pub fn catalog(&self) -> Result<Catalog, CatalogError> {
        Catalog::built_in(self.topics.partitions)?.untrusted(&self.topics.untrusted)
    }

    /// Which log it asks for.
    pub fn log_kind(&self) -> LogKind {
        self.log.unwrap_or(if self.brokers.is_some() { LogKind::Kafka } else { LogKind::Embedded })
    }

    /// The systems' sections.
    pub fn settings(&self) -> Map<String, Value> {
        let mut email = self.email.clone();
        email.retain(|key, _| !MailConfig::KEYS.contains(&key.as_str()));
        let sections = [&self.shop, &self.pricing, &self.recommendations, &self.loyalty, &self.subscriptions, &email];
        SYSTEMS.iter().zip(sections).map(|(name, section)| ((*name).to_owned(), Value::Object(section.clone()))).collect()
    }

    /// How mails leave: the part of the `email` section that is the connector's.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn mail(&self) -> Result<MailConfig> {
        let of = self.email.iter().filter(|(key, _)| MailConfig::KEYS.contains(&key.as_str()));
        let of: Map<String, Value> = of.map(|(key, value)| (key.clone(), value.clone())).collect();
        serde_json::from_value(Value::Object(of)).context("email")
    }
}

/// Every key with its default, those of the systems' sections included.
pub fn defaults() -> Keys {
    let mut defaults = flatten(&json!(Config::default()));
    defaults.retain(|key, _| !SYSTEMS.contains(&key.as_str()));
    defaults.extend(flatten(&Value::Object(tillflow_processors::defaults())));
    defaults.extend(flatten_below("email", &json!(MailConfig::default())));
    defaults
}

/// The key that a variable stands for: `loyalty_spin_per_order` for `loyalty.spin.per_order`. It may hold several
/// (`loyalty_spin`), or be a part of one that is unset by default (`email_quiet_hours_from`).
fn key_of(name: &str, known: &Keys) -> Option<String> {
    let groups = known.keys().flat_map(|key| key.match_indices('.').filter_map(|(at, _)| key.get(..at)));
    if let Some(key) = known.keys().map(String::as_str).chain(groups).find(|key| key.replace('.', "_") == name) {
        return Some(key.to_owned());
    }
    let unset = known.iter().filter(|(_, default)| default.is_null());
    let part = |(key, _): (&String, &Value)| Some(format!("{key}.{}", name.strip_prefix(&key.replace('.', "_"))?.strip_prefix('_')?));
    unset.filter_map(part).max_by_key(|key| key.rfind('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(yaml: &str, environment: &[(&str, &str)]) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        Config::load(Some(file.path()), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), &BTreeMap::new())
            .map(|(config, _)| config)
    }

    #[test]
    fn the_environment_goes_over_the_file_and_the_file_over_the_defaults() {
        let config = load(
            "topics:\n  partitions: 8\nloyalty:\n  secret: s\n",
            &[("TILLFLOW_BROKERS", "b:9092"), ("TILLFLOW_DATA_DIR", "/d"), ("TILLFLOW_TOPICS_PREFIX", "x-")],
        )
        .unwrap();
        assert_eq!((config.topics.partitions, config.topics.prefix.as_str(), config.topics.create), (8, "x-", true));
        assert_eq!((config.brokers.as_deref(), config.data_dir.as_path()), (Some("b:9092"), Path::new("/d")));
        assert_eq!(config.log_kind(), LogKind::Kafka);
        assert_eq!(config.settings()["loyalty"]["secret"], "s");
    }

    #[test]
    fn a_mistyped_key_or_value_is_named_with_the_nearest_key() {
        for (yaml, environment, part) in [
            ("topics:\n  partition: 8\n", vec![], "topics.partitions"),
            ("brokrs: b\n", vec![], "brokers"),
            ("", vec![("TILLFLOW_TOPIC_PARTITIONS", "8")], "topics.partitions"),
            ("topics:\n  partitions: many\n", vec![], "partitions"),
            ("topics: [", vec![], "YAML"),
            ("pricing:\n  lwo: 5\n", vec![], "the nearest is 'pricing.low'"),
            ("loyalty:\n  spin: {per_oder: 2}\n", vec![], "the nearest is 'loyalty.spin.per_order'"),
            ("email:\n  smtp: {hots: mail}\n", vec![], "the nearest is 'email.smtp.host'"),
            ("", vec![("TILLFLOW_LOYALTY_SPIN_PER_ODER", "2")], "the nearest is 'loyalty.spin.per_order'"),
            ("", vec![("TILLFLOW_LOYALTY_SPIN", "{per_oder: 2}")], "the nearest is 'loyalty.spin.per_order'"),
            ("", vec![("TILLFLOW_SHOP_RATES_USD", "0.9")], "the nearest is 'shop.rates'"),
        ] {
            let error = format!("{:#}", load(yaml, &environment).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let known = defaults();
        for key in known.keys() {
            assert_eq!(key_of(&key.replace('.', "_"), &known).as_deref(), Some(key.as_str()));
        }
    }

    #[test]
    fn a_variable_sets_a_key_of_any_depth_or_several_at_once() {
        let config = load(
            "loyalty:\n  spin: {per_order: 2, off_countries: [DE]}\n",
            &[
                ("TILLFLOW_LOYALTY_SPIN_PER_ORDER", "3"),
                ("TILLFLOW_LOYALTY_EARNING_REVIEW_POINTS", "5"),
                ("TILLFLOW_SUBSCRIPTIONS_BOXES_CUT_OFF_HOURS", "24"),
                ("TILLFLOW_RECOMMENDATIONS_WEIGHTS_ADD", "2.5"),
                ("TILLFLOW_EMAIL_SEGMENTS_AT_RISK", "20d"),
                ("TILLFLOW_EMAIL_QUIET_HOURS_FROM", "21:00"),
                ("TILLFLOW_EMAIL_QUIET_HOURS_UNTIL", "08:00"),
                ("TILLFLOW_EMAIL_SMTP_HOST", "mail"),
                ("TILLFLOW_SHOP_RATES", "{USD: '0.9'}"),
                ("TILLFLOW_KAFKA_OPTIONS", "{sasl.username: shop}"),
            ],
        )
        .unwrap();
        let settings = config.settings();
        assert_eq!(settings["loyalty"], json!({"spin": {"per_order": 3, "off_countries": ["DE"]}, "earning": {"review_points": 5}}));
        assert_eq!(settings["subscriptions"], json!({"boxes": {"cut_off_hours": 24}}));
        assert_eq!(settings["recommendations"], json!({"weights": {"add": 2.5}}));
        assert_eq!(settings["email"], json!({"segments": {"at_risk": "20d"}, "quiet_hours": {"from": "21:00", "until": "08:00"}}));
        assert_eq!(settings["shop"], json!({"rates": {"USD": "0.9"}}));
        assert_eq!(config.mail().unwrap().smtp.host.as_deref(), Some("mail"));
        assert_eq!(config.kafka.options, BTreeMap::from([("sasl.username".to_owned(), "shop".to_owned())]));
    }
}
