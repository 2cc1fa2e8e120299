//! The log of a running instance, read and appended to through its admin routes.

use super::source::Instance;
use crate::config::Config;
use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use tillflow_engine::log::{NewRecord, Record, TopicPartition};
use tillflow_schemas::{Catalog, Timestamp};

/// The log of a running instance.
pub struct Remote {
    instance: Instance,
    catalog: Catalog,
}

#[derive(Deserialize)]
struct Slice {
    begin: i64,
    end: i64,
    records: Vec<Raw>,
}

#[derive(Deserialize)]
struct Raw {
    offset: i64,
    at: Timestamp,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

impl Remote {
    /// The log of that instance, which must answer.
    ///
    /// # Errors
    /// When it does not, or gives no one with this key a look.
    pub fn new(instance: Instance, config: &Config) -> Result<Self> {
        let remote = Self { instance, catalog: config.catalog()? };
        remote.slice(TopicPartition { topic: 0, partition: 0 }, i64::MAX)?;
        Ok(remote)
    }

    /// The list of topics.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn name(&self, topic: usize) -> &str {
        self.catalog.topics().get(topic).map_or("", |t| t.name.as_str())
    }

    fn slice(&self, at: TopicPartition, from: i64) -> Result<Slice> {
        let answer = self.instance.get(&format!("/v1/log/{}/{}?from={from}", self.name(at.topic), at.partition))?;
        serde_json::from_value(answer).context("records of an instance")
    }

    /// Calls `take` with the records of a partition that are there now.
    ///
    /// # Errors
    /// When the instance does not answer.
    pub fn read(&self, at: TopicPartition, take: &mut dyn FnMut(Record)) -> Result<()> {
        let mut slice = self.slice(at, 0)?;
        let (mut next, end) = (slice.begin, slice.end);
        loop {
            for raw in std::mem::take(&mut slice.records) {
                next = raw.offset + 1;
                take(raw.record(at)?);
            }
            if next >= end {
                return Ok(());
            }
            slice = self.slice(at, next)?;
            if slice.records.is_empty() {
                return Ok(());
            }
        }
    }

    /// Appends records, all of them or an error.
    ///
    /// # Errors
    /// When the instance does not take them.
    pub fn append(&self, records: &[NewRecord]) -> Result<()> {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| BASE64_STANDARD.encode(b));
        let raw = |record: &NewRecord| {
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| json!([name, BASE64_STANDARD.encode(value)])).collect();
            json!({
                "topic": self.name(record.to.topic), "partition": record.to.partition, "at": record.at, "key": bytes(&record.key),
                "value": bytes(&record.value), "headers": headers,
            })
        };
        self.instance.post("/v1/log", &records.iter().map(raw).collect::<Value>()).map(drop)
    }
}

impl Raw {
    fn record(self, at: TopicPartition) -> Result<Record> {
        let bytes = |text: String| BASE64_STANDARD.decode(text).context("bytes of a record");
        let headers = self.headers.into_iter().map(|(name, value)| Ok((name, bytes(value)?)));
        Ok(Record {
            at,
            offset: self.offset,
            logged_at: self.at,
            key: self.key.map(bytes).transpose()?,
            value: self.value.map(bytes).transpose()?,
            headers: headers.collect::<Result<_>>()?,
        })
    }
}
