//! `tillflow config`: what is in force, what each key means, and where its value came from.

use super::{Out, PlaceArgs, Usage, printable};
use crate::config::{Config, Origins, SYSTEMS, flatten, is_open};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Arguments of `tillflow config`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
    /// Print a JSON list of {key, value, default, source, meaning}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// What else to do with the configuration.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check a file, the systems' sections included: exit 0 where it can be run with, 2 where something is wrong
    ///
    /// The file counts alone, without environment variables.
    Check {
        /// The file
        file: PathBuf,
    },
}

/// What a key means.
const MEANINGS: &[(&str, &str)] = &[
    ("advertised", "Where other instances ask this one about the keys it owns, host:port; listen where absent, if that is one address."),
    ("app_id", "Prefix of consumer groups and transactional ids on Kafka."),
    ("brokers", "Kafka's bootstrap servers, host:port,…"),
    ("commit.fsync", "Whether a commit on the embedded log waits for the disk; off, it survives a crash of the process only."),
    ("commit.interval_ms", "Milliseconds between commits under load, at most."),
    ("data_dir", "Where state (and the embedded log) lies."),
    ("email", "Segments, campaigns, quiet hours, templates: section of the e-mail system."),
    ("health_listen", "Another address for /healthz, /readyz and /metrics alone; these three ask for no key."),
    (
        "instance.id",
        "Name of this instance among several; the same over restarts, no other's. Made once and kept in data_dir where absent.",
    ),
    ("kafka.options", "librdkafka settings, such as security.protocol and sasl.username."),
    ("redis.url", "Where Redis is, redis://[user:password@]host:port[/database]; nothing goes to Redis where unset."),
    ("redis.ttl_s", "Seconds after which a user's latest list of recommendations is gone from Redis."),
    ("kafka.session_timeout_s", "Seconds without a heartbeat after which another instance takes over."),
    ("keys.admin", "Keys that may also see the console and set rules; one or a list."),
    ("keys.quote_secret", "Signs price quotes, the same for all instances; where absent, quotes hold until the process ends."),
    ("keys.server", "Keys of the shop's servers: may also report orders, refunds, stock and the catalogue, and ask about every user."),
    ("keys.user_secret", "Signs user tokens (JWT, HS256): a shopper's browser asks with one about itself."),
    ("keys.webhook_secret", "Signs webhooks of the shop's own systems (x-tillflow-signature), which then may what a server may."),
    ("keys.write", "Keys for browsers and apps: may report behaviour, nothing else; one or a list."),
    ("limits.appends_in_flight", "Requests whose records the log has not confirmed yet, at most."),
    ("limits.body_bytes", "Bytes of one request's body, at most."),
    ("limits.bytes_in_flight", "Bytes of all bodies being read or waiting for the log, at most."),
    ("limits.connections", "Open connections, at most."),
    ("limits.queries_in_flight", "Queries running at once, at most."),
    ("limits.record_bytes", "Bytes of one record as written to the log, at most."),
    ("limits.records", "Records in one request, at most."),
    ("limits.sockets", "Open WebSockets and event streams, at most."),
    ("listen", "Address and port of everything over HTTP. Beyond loopback it needs keys."),
    ("log", "embedded or kafka; where absent kafka if brokers are given, else embedded."),
    ("loyalty", "Tiers, points, challenges, rewards, the spin: section of the loyalty system."),
    ("memory.cache_mb", "Megabytes of the stores' block cache, for all tasks together."),
    ("memory.uncommitted_mb", "Megabytes of uncommitted changes a task group, before a commit comes sooner."),
    ("memory.write_buffers_mb", "Megabytes of the stores' write buffers, for all tasks together; they count within the cache."),
    ("origins", "Origins whose pages may call the gateway, such as https://shop.example; * is any."),
    ("pricing", "Thresholds, bounds and schedule: section of the pricing system."),
    ("recommendations", "Windows, weights and merchandising: section of the recommendation system."),
    ("registry.timeout_ms", "Milliseconds that the schema registry may take for an answer."),
    (
        "registry.url",
        "Schema registry (Confluent's REST interface), http://user:password@host:port; with it, Avro is read, and written where topics.yaml says so.",
    ),
    ("shop", "Currency and time zone: what all systems share."),
    ("subscriptions", "Plans, features and boxes: section of the subscription system."),
    ("time.grace_s", "Seconds that timers wait for late events."),
    ("time.idle", "Whether the clock of an idle task goes on with the wall; off for comparisons."),
    ("time.wait_s", "Seconds that an input whose records are on their way is waited for, since they may be earlier than others'."),
    ("topics.create", "Whether run creates missing topics on Kafka."),
    ("topics.partitions", "Partitions of each topic that does not state its own."),
    ("topics.prefix", "Goes before every topic name on Kafka."),
    ("topics.replication", "Replicas of topics that are created on Kafka; the broker's default where absent."),
    (
        "topics.untrusted",
        "Inputs whose clients don't put all records of an id into one partition: all of them are re-keyed, so that order holds.",
    ),
    ("workers", "Worker threads a task group."),
    // Parts of sections that may hold secrets.
    ("loyalty.secret", "Seeds spins and signs what must not be guessed; the same for all instances."),
    ("shop.currency", "The shop's currency, such as EUR; where absent, amounts count at face value."),
    ("shop.timezone", "The shop's time zone, such as Europe/Berlin."),
];

const MASK: &str = "<secret>";

/// What a key means; keys below a section go with the section.
fn meaning(key: &str) -> Option<&'static str> {
    let of = |wanted: &str| MEANINGS.iter().find(|(k, _)| *k == wanted).map(|(_, meaning)| *meaning);
    of(key).or_else(|| key.match_indices('.').rev().find_map(|(at, _)| key.get(..at).filter(|s| is_open(s)).and_then(of)))
}

/// One key, explained.
#[derive(Debug, serde::Serialize)]
struct Row {
    key: String,
    value: Value,
    default: Value,
    source: String,
    meaning: &'static str,
}

fn rows(config: &Config, origins: &Origins) -> Result<Vec<Row>> {
    let (effective, defaults) = (flatten(&serde_json::to_value(config)?), flatten(&serde_json::to_value(Config::default())?));
    // A section that states something is listed key by key, another one as a whole.
    let keys: BTreeMap<&String, &Value> = effective.iter().collect();
    let row = |(key, value): (&String, &Value)| Row {
        key: key.clone(),
        value: masked(key, value),
        default: defaults.get(key).cloned().unwrap_or(Value::Null),
        source: origins.get(key).map_or_else(|| "default".into(), ToString::to_string),
        meaning: meaning(key).unwrap_or_default(),
    };
    Ok(keys.into_iter().map(row).collect())
}

/// The value, unless it is a secret; of URLs, without the credentials.
fn masked(key: &str, value: &Value) -> Value {
    let Some(text) = value.as_str() else { return value.clone() };
    let last = key.rsplit('.').next().unwrap_or(key);
    let in_options = key.starts_with("kafka.options.");
    let secret = ["password", "secret", "token", "api_key", "apikey"].iter().any(|word| last.contains(word))
        || in_options && ["key.pem", "keystore", "jaas", "oauthbearer.config"].iter().any(|word| key.contains(word));
    if secret && !text.is_empty() {
        return json!(MASK);
    }
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((_, host)) = rest.split('/').next().and_then(|authority| authority.rsplit_once('@'))
    {
        let path = rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
        return json!(format!("{scheme}://{MASK}@{host}{path}"));
    }
    value.clone()
}

/// Prints the effective configuration.
///
/// # Errors
/// When it can't be printed.
pub fn show(config: &Config, origins: &Origins, as_json: bool, out: Out<'_>) -> Result<()> {
    let rows = rows(config, origins)?;
    if as_json {
        writeln!(out, "{:#}", json!(rows))?;
        return Ok(());
    }
    for row in rows {
        let default = if row.source == "default" { String::new() } else { format!(", default {}", plain(&row.default)) };
        writeln!(out, "{}: {}  ({}{default})\n    {}", row.key, plain(&row.value), row.source, row.meaning)?;
    }
    writeln!(out, "\nEnvironment: the key in upper case with _ for dots after TILLFLOW_, such as TILLFLOW_TOPICS_PARTITIONS.")?;
    writeln!(out, "Of {}, only what is set is listed; the rest has its default.", SYSTEMS.join(", "))?;
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        other => printable(&other.to_string(), 200),
    }
}

/// Checks a file by itself.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(file: &Path, out: Out<'_>) -> Result<()> {
    let config = Config::load(Some(file), std::iter::empty(), &BTreeMap::new()).map_err(|e| Usage(format!("{e:#}")))?.0;
    let problems = problems(&config);
    if !problems.is_empty() {
        let list: Vec<_> = problems.iter().map(|p| format!("  {p}")).collect();
        return Err(Usage(format!("{} can't be run with:\n{}", file.display(), list.join("\n"))).into());
    }
    writeln!(out, "{} is good.", file.display())?;
    Ok(())
}

/// What is wrong with a configuration beyond its keys and types: the systems' sections, and what does not go together.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    match config.catalog() {
        Ok(catalog) => problems.extend(tillflow_processors::groups(&config.settings()).iter().flat_map(|g| g.problems(&catalog))),
        Err(e) => problems.push(format!("topics: {e}")),
    }
    if config.log == Some(crate::config::LogKind::Kafka) && config.brokers.is_none() {
        problems.push("log: kafka needs brokers".into());
    }
    if let Err(e) = config.gateway.address() {
        problems.push(e.to_string());
    }
    if let Err(e) = config.registry.connect() {
        problems.push(format!("registry.url: {e}"));
    }
    // Two processors may share a section.
    let mut seen = std::collections::BTreeSet::new();
    problems.retain(|p| seen.insert(p.clone()));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::known_keys;

    fn loaded(yaml: &str, environment: &[(&str, &str)]) -> (Config, Origins) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(file.path()), environment, &BTreeMap::from([("workers".to_owned(), json!(3))])).unwrap()
    }

    fn checked(yaml: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let mut out = Vec::new();
        check(file.path(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_key_that_has_a_default_has_a_meaning() {
        let without: Vec<_> = known_keys().into_iter().filter(|k| meaning(k).is_none()).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn each_key_says_where_it_came_from_and_secrets_are_not_shown() {
        let yaml = "topics:\n  partitions: 8\nloyalty:\n  secret: hush-1\nkeys:\n  server: hush-2\nkafka:\n  options:\n    \
                    sasl.username: shop\n    sasl.password: hush-3\nregistry:\n  url: http://me:hush-4@registry:8081/x\n";
        let (config, origins) = loaded(yaml, &[("TILLFLOW_BROKERS", "b:9092")]);
        let mut out = Vec::new();
        show(&config, &origins, true, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("hush"), "{text}");
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        let row = |key: &str| rows.iter().find(|r| r["key"] == key).unwrap_or_else(|| panic!("{key} in {text}"));
        assert_eq!((&row("topics.partitions")["value"], &row("topics.partitions")["default"]), (&json!(8), &json!(4)));
        assert!(row("topics.partitions")["source"].as_str().unwrap().starts_with("file "));
        assert_eq!(row("brokers")["source"], "environment TILLFLOW_BROKERS");
        assert_eq!((&row("workers")["source"], &row("time.grace_s")["source"]), (&json!("flag"), &json!("default")));
        assert_eq!(row("loyalty.secret")["value"], MASK);
        assert_eq!(row("kafka.options.sasl.username")["value"], "shop");
        assert_eq!(row("kafka.options.sasl.password")["value"], MASK);
        assert_eq!(row("registry.url")["value"], "http://<secret>@registry:8081/x");
        let mut out = Vec::new();
        show(&config, &origins, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("hush") && text.contains("topics.partitions: 8  (file "), "{text}");
    }

    #[test]
    fn a_file_is_checked_with_the_systems_sections() {
        assert!(checked("topics:\n  partitions: 8\n").unwrap().contains("is good"));
        for (yaml, part) in [
            ("topics:\n  partition: 8\n", "topics.partitions"),
            ("pricing:\n  low: 200\n", "pricing.low"),
            ("loyalty:\n  secret: ''\n", "loyalty.secret"),
            ("log: kafka\n", "needs brokers"),
            ("registry:\n  url: ftp://x\n", "registry.url"),
            ("email:\n  nonsense: 1\n", "nonsense"),
        ] {
            let error = checked(yaml).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(part), "{part}: {error}");
        }
    }
}
