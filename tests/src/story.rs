//! A shop's story in event time: records in, through `tillflow replay`, and what was decided about each of its
//! customers and products.

use crate::{
    Tillflow,
    compare::{Outputs, broken_invariants, outputs_of},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Records of a shop, by topic, about to be replayed.
#[derive(Clone, Debug, Default)]
pub struct Story {
    records: BTreeMap<String, Vec<Value>>,
    until: Option<String>,
    config: String,
}

/// A record with more fields, or others in place of its own.
///
/// # Panics
/// When one of them is no object.
#[must_use]
#[track_caller]
pub fn with(mut record: Value, more: &Value) -> Value {
    let fields = more.as_object().expect("an object").clone();
    record.as_object_mut().expect("an object").extend(fields);
    record
}

/// What a replay decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided(pub Outputs);

impl Story {
    /// A shop of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more record of a topic.
    pub fn tell(&mut self, topic: &str, value: Value) -> &mut Self {
        self.records.entry(topic.to_owned()).or_default().push(value);
        self
    }

    /// Time passes to here after the last record.
    pub fn until(&mut self, time: &str) -> &mut Self {
        self.until = Some(time.to_owned());
        self
    }

    /// The shop's `tillflow.yaml`.
    pub fn config(&mut self, yaml: &str) -> &mut Self {
        yaml.clone_into(&mut self.config);
        self
    }

    /// Replays it. Every record must be taken, and no invariant broken.
    ///
    /// # Panics
    /// When it fails, or one is not.
    #[must_use]
    #[track_caller]
    pub fn decide(&self) -> Decided {
        let decided = self.decide_with_dead_letters();
        let broken = broken_invariants(&decided.0);
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        decided
    }

    /// Replays it, whatever becomes of its records.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn decide_with_dead_letters(&self) -> Decided {
        let mut run = Tillflow::command(["replay", "--out", "decided"]).config(&self.config);
        for (topic, records) in &self.records {
            let file = format!("{topic}.jsonl");
            run = run.file(&file, records.iter().map(|r| format!("{r}\n")).collect::<String>()).arg(format!("{topic}={file}"));
        }
        if let Some(time) = &self.until {
            run = run.arg("--until").arg(time);
        }
        Decided(outputs_of(&run.finish().ok().files.join("decided")))
    }
}

impl Decided {
    /// Records of an output of one key, in their order.
    #[must_use]
    pub fn of(&self, topic: &str, key: &str) -> Vec<&Value> {
        let records = self.0.get(topic).unwrap_or_else(|| panic!("{topic} is no output"));
        records.iter().filter(|(k, _)| k == key).map(|(_, value)| value).collect()
    }

    /// The last of them.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn last(&self, topic: &str, key: &str) -> &Value {
        self.of(topic, key).pop().unwrap_or_else(|| panic!("nothing of {key} in {topic}"))
    }

    /// Some fields of each of them, as text that reads well in a test: `earn 499 bronze`.
    #[must_use]
    pub fn told(&self, topic: &str, key: &str, fields: &[&str]) -> Vec<String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields_of = |r: &Value| fields.iter().map(|f| text(&r[*f])).collect::<Vec<_>>().join(" ");
        self.of(topic, key).into_iter().map(fields_of).collect()
    }
}
