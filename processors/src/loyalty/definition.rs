//! Definitions that a shop states on a topic: rewards, challenges, badges.

use super::{badges, challenges, rewards};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tillflow_schemas::{Change, DecodeError, Event};

/// Reads a definition from its record's fields; fields that are not `known` are ignored, as everywhere on topics.
pub(super) fn from_fields<T: DeserializeOwned>(fields: &BTreeMap<String, Value>, known: &[&str]) -> Result<T, String> {
    let fields: Map<_, _> = fields.iter().filter(|(k, _)| known.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())
}

/// What is wrong with a definition, where something is.
pub(super) fn check<T: DeserializeOwned>(
    fields: &BTreeMap<String, Value>,
    known: &[&str],
    problem: impl Fn(&T) -> Option<String>,
) -> Result<(), String> {
    problem(&from_fields(fields, known)?).map_or(Ok(()), Err)
}

/// What is wrong with a reward, challenge or badge: the field, where the words begin with one, and why.
pub fn problem(event: &Event) -> Option<DecodeError> {
    let wrong = match event {
        Event::Reward(Change { value: Some(reward), .. }) => rewards::check(reward),
        Event::Challenge(Change { value: Some(challenge), .. }) => challenges::check(challenge),
        Event::Badge(Change { value: Some(badge), .. }) => badges::check(badge),
        _ => Ok(()),
    };
    let words = wrong.err()?;
    let (field, reason) = words.split_once(": ").unwrap_or(("", &words));
    Some(DecodeError::at(field, reason))
}
