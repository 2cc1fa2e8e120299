//! The shop's own segments: from the configuration and from `segment_definitions`, read once a version.

use crate::email::{
    Span,
    definitions::{Condition, Problem, wrong},
    settings::EmailSettings,
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tillflow_engine_api::{Context, Declare, Global};
use tillflow_schemas::SegmentDefinition;

/// Names and prefixes of the built-in segments, which own ones may not take.
const BUILT_IN: &[&str] = &[
    "high_value",
    "frequent_buyer",
    "bought_category",
    "repeat_viewer",
    "abandoned_cart",
    "new",
    "active",
    "at_risk",
    "lapsed",
    "engaged",
    "disengaged",
    "location",
    "interest",
];

type Read = (Arc<SegmentDefinition>, Option<Arc<Condition>>);

/// The shop's own segments.
pub struct OwnSegments {
    configured: BTreeMap<String, Arc<Condition>>,
    definitions: Global<SegmentDefinition>,
    spend_window: Span,
    /// Definitions already read, by id, with the version read: reading is pure, so this only saves time.
    read: HashMap<String, Read>,
}

impl OwnSegments {
    /// Declares the table of definitions and reads those of the configuration.
    pub fn declare(d: &mut Declare<'_>, settings: &EmailSettings) -> Self {
        let mut configured = BTreeMap::new();
        for (name, value) in &settings.own_segments {
            match read(name, value, settings.segments.spend_window) {
                Ok(condition) => drop(configured.insert(name.clone(), Arc::new(condition))),
                Err(problem) => d.problem(format!("email.own_segments.{problem}")),
            }
        }
        Self { configured, definitions: d.global(), spend_window: settings.segments.spend_window, read: HashMap::new() }
    }

    /// Those that count now, by name. A definition of the topic stands before one of the same name in the
    /// configuration; one that is wrong counts as absent.
    pub fn current(&mut self, cx: &Context<'_>) -> Vec<(String, Arc<Condition>)> {
        let mut all = self.configured.clone();
        for (id, definition) in cx.lookup_all(&self.definitions) {
            let known = self.read.get(id).filter(|(version, _)| Arc::ptr_eq(version, definition));
            let condition = match known {
                Some((_, condition)) => condition.clone(),
                None => {
                    let condition = check(definition, self.spend_window).ok().map(Arc::new);
                    self.read.insert(id.to_owned(), (definition.clone(), condition.clone()));
                    condition
                }
            };
            match condition {
                Some(condition) => drop(all.insert(id.to_owned(), condition)),
                None => drop(all.remove(id)),
            }
        }
        all.into_iter().collect()
    }
}

/// Reads a definition of `segment_definitions`.
///
/// # Errors
/// Names the path of what is wrong.
pub fn check(definition: &SegmentDefinition, spend_window: Span) -> Result<Condition, Problem> {
    let fields: Map<String, Value> = definition
        .fields
        .iter()
        .filter(|(k, _)| k.as_str() != "name" && k.as_str() != "description")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    read(&definition.segment_id, &Value::Object(fields), spend_window)
}

/// What is wrong with a definition, under default settings: for those who take it in.
pub fn problems(definition: &SegmentDefinition) -> Option<Problem> {
    check(definition, Span::days(365)).err()
}

fn read(name: &str, value: &Value, spend_window: Span) -> Result<Condition, Problem> {
    let scope = name.split_once(':').map_or(name, |(scope, _)| scope);
    if BUILT_IN.contains(&scope) {
        return wrong(name, "is the name of a built-in segment; take another");
    }
    Condition::parse(value, name, spend_window)
}
