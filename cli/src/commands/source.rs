//! Where state is looked at: in an embedded data directory, or by asking the instance that runs.

use super::{place, state::hex};
use crate::config::{Config, LogKind};
use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use reqwest::blocking::{Client, Response};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tillflow_engine::log::embedded::Embedded;
use tillflow_engine_api::Group;
use tillflow_state::Read;

/// Longest wait for an instance's answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Which running instance.
#[derive(Args, Debug, Default)]
pub struct InstanceArgs {
    /// Ask this running instance, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// An admin key of the instance; the first keys.admin of the configuration where absent
    // An id of its own: `state get` takes a key of another kind.
    #[arg(id = "admin_key", long = "key", value_name = "KEY", env = "TILLFLOW_KEY", hide_env_values = true)]
    pub key: Option<String>,
}

/// A running instance.
pub struct Instance {
    client: Client,
    url: String,
    key: Option<String>,
}

impl Instance {
    /// The instance that the flags name, else the one that the configuration describes.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(args: &InstanceArgs, config: &Config) -> Result<Self> {
        let url = args.url.clone().unwrap_or_else(|| format!("http://{}", config.gateway.listen));
        let configured = || config.gateway.keys.admin.first().map(|k| k.reveal().to_owned());
        let key = args.key.clone().or_else(configured);
        Ok(Self { client: Client::builder().timeout(ANSWER).build()?, url: url.trim_end_matches('/').to_owned(), key })
    }

    /// The answer to GET of a path.
    ///
    /// # Errors
    /// When there is none, or it is a refusal.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.client.get(format!("{}{path}", self.url)))
    }

    /// The answer to POST of JSON to a path.
    ///
    /// # Errors
    /// When there is none, or it is a refusal.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.answer(self.client.post(format!("{}{path}", self.url)).json(body))
    }

    fn answer(&self, request: reqwest::blocking::RequestBuilder) -> Result<Value> {
        let request = self.key.iter().fold(request, |request, key| request.bearer_auth(key));
        let answer: Response = request.send().with_context(|| format!("no instance answers at {}", self.url))?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{} answers {status}: {}", self.url, answer.text().unwrap_or_default().trim());
        }
        answer.json().with_context(|| format!("{} gives no JSON", self.url))
    }
}

/// Where state is looked at.
pub enum Source {
    /// In a data directory that no process runs on.
    Directory(Box<Embedded>),
    /// On a running instance, with the tasks that it has.
    Instance(Instance, Vec<Tables>),
}

#[derive(Deserialize)]
struct Told {
    tasks: Vec<Tables>,
}

/// A task's tables, as an instance tells.
#[derive(Deserialize)]
pub struct Tables {
    group: String,
    partition: u32,
    tables: Vec<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    prefix: String,
    rows: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Row>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    key: String,
    value: String,
}

impl Source {
    /// The data directory, unless an instance is named, runs on it, or the log is Kafka: then that instance.
    ///
    /// # Errors
    /// When neither can be looked at.
    pub fn open(args: &InstanceArgs, config: &Config) -> Result<Self> {
        if args.url.is_some() || config.log_kind() == LogKind::Kafka {
            return Self::ask(args, config);
        }
        match place::embedded(config) {
            Ok(log) => Ok(Self::Directory(Box::new(log))),
            Err(e) if place::is_held(&e) => {
                Self::ask(args, config).map_err(|asked| anyhow!("{e:#}; or name the instance that runs on it with --url ({asked:#})"))
            }
            Err(e) => Err(e),
        }
    }

    fn ask(args: &InstanceArgs, config: &Config) -> Result<Self> {
        let instance = Instance::new(args, config)?;
        let told: Told = serde_json::from_value(instance.get("/v1/state")?).with_context(|| format!("{} tells no tasks", instance.url))?;
        Ok(Self::Instance(instance, told.tasks))
    }

    /// The partitions of a group that are here.
    pub fn partitions(&self, group: &Group) -> Vec<u32> {
        match self {
            Self::Directory(log) => (0..log.catalog().of_schema(group.lead).map_or(0, |t| t.partitions)).collect(),
            Self::Instance(_, tasks) => tasks.iter().filter(|t| t.group == group.name).map(|t| t.partition).collect(),
        }
    }

    /// Rows and bytes by the number that a table's rows begin with.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn sums(&self, group: &Group) -> Result<Vec<([u8; 4], u64, u64)>> {
        let mut sums: BTreeMap<[u8; 4], (u64, u64)> = BTreeMap::new();
        let mut add = |prefix: [u8; 4], rows, bytes| {
            let sum = sums.entry(prefix).or_default();
            *sum = (sum.0 + rows, sum.1 + bytes);
        };
        match self {
            Self::Directory(log) => {
                for partition in self.partitions(group) {
                    log.state(group.name, partition).scan(&[], None, &mut |row, value| {
                        add(row.first_chunk().copied().unwrap_or_default(), 1, (row.len() + value.len()) as u64);
                        true
                    })?;
                }
            }
            Self::Instance(_, tasks) => {
                for sum in tasks.iter().filter(|t| t.group == group.name).flat_map(|t| &t.tables) {
                    add(u32::from_str_radix(&sum.prefix, 16).unwrap_or_default().to_be_bytes(), sum.rows, sum.bytes);
                }
            }
        }
        Ok(sums.into_iter().map(|(prefix, (rows, bytes))| (prefix, rows, bytes)).collect())
    }

    /// Calls `visit` with the rows of a task from `from` up to `to`, until told to stop.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn scan(
        &self,
        group: &str,
        partition: u32,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let instance = match self {
            Self::Directory(log) => return Ok(log.state(group, partition).scan(from, to, visit)?),
            Self::Instance(instance, _) => instance,
        };
        let to = to.map_or(String::new(), |to| format!("&to={}", hex(to)));
        let mut next = Some(hex(from));
        while let Some(from) = next.take() {
            let answer = instance.get(&format!("/v1/state/{group}/{partition}?from={from}{to}"))?;
            let page: Rows = serde_json::from_value(answer).context("rows of an instance")?;
            for row in page.rows {
                let key = (0..row.key.len()).step_by(2).filter_map(|i| u8::from_str_radix(row.key.get(i..i + 2)?, 16).ok());
                let value = BASE64_STANDARD.decode(&row.value).context("a value of an instance")?;
                if !visit(&key.collect::<Vec<_>>(), &value) {
                    return Ok(());
                }
            }
            next = page.next;
        }
        Ok(())
    }
}
