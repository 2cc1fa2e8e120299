//! `tillflow config`: what is in force, what each key means, and where its value came from.

use super::{Out, PlaceArgs, Usage, meanings::stated, printable};
use crate::{
    config::{Config, Origins, defaults},
    running,
};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tillflow_engine_api::keys::{flatten, is_group};

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
    /// The file counts alone: what is given by environment variables, such as keys, is missing to it.
    Check {
        /// The file
        file: PathBuf,
    },
}

const MASK: &str = "<secret>";

/// What a key means; what a shop names itself goes with the key it stands below.
fn meaning(key: &str) -> Option<&'static str> {
    std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(above, _)| above)).find_map(stated)
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
    let defaults = defaults();
    let mut effective = flatten(&serde_json::to_value(config)?);
    effective.retain(|key, _| !is_group(key, &defaults));
    for (key, default) in &defaults {
        if !is_group(key, &effective) {
            effective.entry(key.clone()).or_insert_with(|| default.clone());
        }
    }
    let row = |(key, value): (String, Value)| Row {
        value: masked(&key, &value),
        default: defaults.get(&key).cloned().unwrap_or(Value::Null),
        source: origins.get(&key).map_or_else(|| "default".into(), ToString::to_string),
        meaning: meaning(&key).unwrap_or_default(),
        key,
    };
    Ok(effective.into_iter().map(row).collect())
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
    let problems = [problems(&config), running::problems(&config)].concat();
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
        let without: Vec<_> = defaults().into_keys().filter(|k| stated(k).is_none()).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn every_key_is_in_the_documentation() {
        let documentation = include_str!("../../../docs/configuration.md");
        let missing: Vec<_> = defaults().into_keys().filter(|k| !documentation.contains(&format!("`{k}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn keys_of_sections_are_listed_with_their_defaults_whether_set_or_not() {
        let (config, origins) = loaded("pricing:\n  low: 30\nloyalty:\n  rewards: {mug: {name: A mug, points: 400}}\n  spin: {}\n", &[]);
        let rows = rows(&config, &origins).unwrap();
        let row = |key: &str| rows.iter().find(|r| r.key == key).map(|r| (&r.value, &r.default));
        assert_eq!(row("pricing.low"), Some((&json!(30), &json!(20))));
        assert_eq!(row("pricing.high"), Some((&json!(100), &json!(100))));
        assert_eq!(row("loyalty.spin.per_order"), Some((&json!(1), &json!(1))));
        assert_eq!(row("email.smtp.rate"), Some((&json!(10), &json!(10))));
        assert_eq!(row("loyalty.rewards.mug.points"), Some((&json!(400), &Value::Null)));
        for group in ["pricing", "loyalty.spin", "loyalty.rewards"] {
            assert_eq!(row(group), None, "{group} is listed by its parts");
        }
        assert!(rows.iter().all(|r| !r.meaning.is_empty()));
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
            ("email:\n  outbox: mails\n", "postal_address"),
            ("email:\n  smtp: {host: mail, user: shop}\n", "user and password"),
            ("redis:\n  url: nonsense\n", "redis.url"),
            ("redis:\n  url: redis://localhost\n  ttl_s: 0\n", "redis.ttl_s"),
            ("listen: 0.0.0.0:8080\n", "without keys"),
            ("listen: nowhere\n", "listen: 'nowhere'"),
            ("listen: 0.0.0.0:8080\nadvertised: nowhere\nkeys: {server: s}\n", "advertised"),
        ] {
            let error = checked(yaml).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(part), "{part}: {error}");
        }
    }
}
