//! `replay --compare DIR`: what came out differently than in an earlier replay, in words and as JSON.
//!
//! What depends on one key alone, and last values, are compared record by record; where two stages meet, how many
//! records there are depends on batching, so only their number is given (`topics.yaml`, class c).

mod emails;
mod points;
mod prices;

use super::input::Line;
use crate::commands::{Out, Usage};
use anyhow::{Context, Result, bail};
use prices::Sold;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    fs::File,
    hash::{Hash, Hasher},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};
use tillflow_engine::log::embedded::Embedded;
use tillflow_schemas::{Class, Role, Topic};

/// Examples given of each kind of difference.
const EXAMPLES: usize = 5;

/// Two values of one figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Both<T> {
    /// In the earlier replay.
    pub before: T,
    /// In this one.
    pub after: T,
}

impl<T> Both<T> {
    fn side(&mut self, after: bool) -> &mut T {
        if after { &mut self.after } else { &mut self.before }
    }
}

/// An earlier replay to compare with, and what of the input the comparison needs.
pub struct Baseline {
    dir: PathBuf,
    events: u64,
    sold: Sold,
}

impl Baseline {
    /// The replay whose outputs lie in `dir`; `lines` are the records of this one.
    ///
    /// # Errors
    /// When there is none, or this replay would write over it.
    pub fn open(dir: &Path, out: Option<&Path>, lines: &[Line]) -> Result<Self> {
        let path = dir.join("summary.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} holds no replay to compare with; make one with --out: {}", dir.display(), path.display()))?;
        let summary: Value = serde_json::from_str(&text).with_context(|| format!("{} can't be read", path.display()))?;
        if let (Ok(dir), Some(Ok(out))) = (dir.canonicalize(), out.map(Path::canonicalize))
            && dir == out
        {
            return Err(Usage(format!(
                "--out and --compare are both {}: the replay would write over what it compares with",
                dir.display()
            ))
            .into());
        }
        let events = summary.get("events").and_then(Value::as_u64).with_context(|| format!("{} lacks events", path.display()))?;
        Ok(Self { dir: dir.to_owned(), events, sold: Sold::of(lines) })
    }

    /// Compares the outputs of the replay on `log` with the earlier ones.
    ///
    /// # Errors
    /// When one of either can't be read.
    pub fn compare(self, log: &Embedded, events: u64) -> Result<Comparison> {
        let mut topics = BTreeMap::new();
        let (mut prices, mut points, mut emails) = (prices::Prices::default(), points::Points::default(), emails::Emails::default());
        for (index, topic) in log.catalog().topics().iter().enumerate().filter(|(_, t)| t.role == Role::Output) {
            let mut records = Both::default();
            let mut digests: HashMap<String, Both<u64>> = HashMap::new();
            let mut take = |after: bool, line: Value| {
                *records.side(after) += 1;
                let (key, value) = (line.get("key").and_then(Value::as_str).unwrap_or_default(), line.get("value").unwrap_or(&Value::Null));
                match topic.schema.as_str() {
                    "product_price" => prices.price(after, value),
                    "price_change" => prices.change(after, value),
                    "loyalty_update" => points.entry(after, value),
                    "email_trigger" => emails.trigger(after, value),
                    _ => {}
                }
                if topic.class != Some(Class::C) {
                    let digest = digests.entry(key.to_owned()).or_default().side(after);
                    *digest = digest_of(value, if topic.class == Some(Class::A) { *digest } else { 0 });
                }
            };
            earlier(&self.dir, topic, &mut |line| take(false, line))?;
            super::output::each(log, index, topic, &mut |line| take(true, line))?;
            let keys_changed = (topic.class != Some(Class::C)).then(|| digests.values().filter(|d| d.before != d.after).count());
            topics.insert(topic.name.clone(), TopicDifference { before: records.before, after: records.after, keys_changed });
        }
        let events = Both { before: self.events, after: events };
        Ok(Comparison {
            with: self.dir,
            events,
            prices: prices.compared(&self.sold),
            points: points.compared(),
            emails: emails.compared(),
            topics,
        })
    }
}

/// The lines of a topic that the earlier replay wrote.
fn earlier(dir: &Path, topic: &Topic, take: &mut dyn FnMut(Value)) -> Result<()> {
    let path = dir.join(format!("{}.jsonl", topic.name));
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    for (n, line) in BufReader::new(file).lines().enumerate() {
        let at = || format!("{}, line {}", path.display(), n + 1);
        let value: Value = serde_json::from_str(&line.with_context(at)?).with_context(at)?;
        if !value.is_object() {
            bail!("{}: is no record", at());
        }
        take(value);
    }
    Ok(())
}

fn digest_of(value: &Value, before: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, value.to_string()).hash(&mut hasher);
    hasher.finish()
}

/// How an output topic differs.
#[derive(Debug, Serialize)]
pub struct TopicDifference {
    before: u64,
    after: u64,
    /// Keys whose records differ; `None` where only numbers can be compared.
    keys_changed: Option<usize>,
}

/// What came out differently.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The directory compared with.
    with: PathBuf,
    /// Events read.
    events: Both<u64>,
    prices: prices::PriceDifference,
    points: points::PointDifference,
    emails: emails::EmailDifference,
    topics: BTreeMap<String, TopicDifference>,
}

impl Comparison {
    /// As part of the summary.
    pub fn to_json(&self) -> Value {
        json!(self)
    }

    /// Says it in words.
    ///
    /// # Errors
    /// When it can't be printed.
    pub fn tell(&self, out: Out<'_>) -> Result<()> {
        writeln!(out, "Compared with {}:", self.with.display())?;
        if self.events.before != self.events.after {
            let Both { before, after } = self.events;
            writeln!(out, "  Beware: that was made of {before} events, this of {after}; so not all that differs is the rules' doing.")?;
        }
        self.prices.tell(out)?;
        self.points.tell(out)?;
        self.emails.tell(out)?;
        writeln!(out, "Records by topic, before and now:")?;
        let rows = self.topics.iter().map(|(name, t)| {
            let changed = t.keys_changed.map_or("-".into(), |n| n.to_string());
            vec![name.clone(), t.before.to_string(), t.after.to_string(), changed]
        });
        Ok(crate::commands::table(out, &["topic", "before", "now", "keys that differ"], &rows.collect::<Vec<_>>())?)
    }
}
