//! Definitions that a shop states on a topic: rewards, challenges, badges.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Reads a definition from its record's fields; fields that are not `known` are ignored, as everywhere on topics.
pub(super) fn from_fields<T: DeserializeOwned>(fields: &BTreeMap<String, Value>, known: &[&str]) -> Result<T, String> {
    let fields: Map<_, _> = fields.iter().filter(|(k, _)| known.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())
}
