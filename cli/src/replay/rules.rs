//! `replay --rules FILE`: other rules than those recorded and configured.

use super::input::Line;
use crate::{commands::Usage, config::SYSTEMS};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt::Display, path::Path};
use tillflow_processors::pricing::Layer;
use tillflow_schemas::{Catalog, Event, PricingRule, Record as _, Role, Timestamp};

/// Rules that count instead of those recorded and configured.
#[derive(Debug, Default)]
pub struct Rules {
    /// Systems' sections, as in tillflow.yaml.
    sections: Map<String, Value>,
    /// Records of reference topics.
    lines: Vec<Line>,
}

impl Rules {
    /// Reads a file: pricing rules (JSON lines, a list, or one), or YAML with systems' sections and reference topics by
    /// name.
    ///
    /// # Errors
    /// Bad usage: says what in the file is no rule, and why.
    pub fn read(path: &Path, catalog: &Catalog) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text, catalog).map_err(|e| Usage(format!("--rules {}: {e}", path.display())).into())
    }

    fn parse(text: &str, catalog: &Catalog) -> Result<Self, String> {
        let json_lines: Result<Vec<Value>, _> = text.lines().filter(|l| !l.trim().is_empty()).map(serde_json::from_str).collect();
        let given = match json_lines {
            Ok(list) if list.iter().all(Value::is_object) => list,
            _ => match serde_norway::from_str(text).map_err(|e| format!("is neither YAML nor JSON lines: {e}"))? {
                Value::Array(list) => list,
                one => vec![one],
            },
        };
        let mut rules = Self::default();
        for value in given {
            let Value::Object(object) = value else { return Err(format!("holds {value}, which is no rule")) };
            if object.contains_key("scope") {
                rules.record(PricingRule::SCHEMA, Value::Object(object), catalog)?;
            } else {
                object.into_iter().try_for_each(|(name, value)| rules.named(&name, value, catalog))?;
            }
        }
        if rules.sections.is_empty() && rules.lines.is_empty() {
            return Err("holds no rules".into());
        }
        Ok(rules)
    }

    /// A section of the configuration, or a list of records of a reference topic.
    fn named(&mut self, name: &str, value: Value, catalog: &Catalog) -> Result<(), String> {
        if SYSTEMS.contains(&name) {
            if !value.is_object() {
                return Err(format!("{name}: a section has keys"));
            }
            merge(self.sections.entry(name).or_insert(Value::Object(Map::new())), value);
            return Ok(());
        }
        let Some(topic) = catalog.get(name).filter(|t| t.role == Role::Reference) else {
            let topics = catalog.topics().iter().filter(|t| t.role == Role::Reference).map(|t| t.name.as_str());
            let known: Vec<_> = SYSTEMS.into_iter().chain(topics).collect();
            return Err(format!("there is no '{name}'; a rules file holds pricing rules (each with a scope), or: {}", known.join(", ")));
        };
        let Value::Array(records) = value else { return Err(format!("{name}: is a list of records")) };
        records.into_iter().try_for_each(|record| self.record(&topic.schema, record, catalog))
    }

    fn record(&mut self, schema: &str, value: Value, catalog: &Catalog) -> Result<(), String> {
        let wrong = |e: &dyn Display| format!("{schema} {value}: {e}");
        let event = Event::from_value(schema, None, value.clone()).map_err(|e| wrong(&e))?;
        let mut at = Timestamp::MIN;
        if let Event::PricingRule(change) = &event
            && let Some(rule) = &change.value
        {
            Layer::of(rule).map_err(|e| wrong(&e))?;
            at = rule.valid_from.unwrap_or(at);
        }
        let topic = catalog.of_schema(schema).and_then(|t| catalog.index(&t.name)).ok_or_else(|| wrong(&"there is no topic for it"))?;
        let key = event.key().filter(|k| !k.is_empty()).ok_or_else(|| wrong(&"it has no id"))?.to_owned();
        self.lines.push(Line { at, topic, key: Some(key), placed_by: None, value: Some(value.to_string().into_bytes()) });
        Ok(())
    }

    /// The settings under these rules: key by key above those configured.
    pub fn settings(&self, configured: &Map<String, Value>) -> Map<String, Value> {
        let mut settings = Value::Object(configured.clone());
        merge(&mut settings, Value::Object(self.sections.clone()));
        match settings {
            Value::Object(settings) => settings,
            _ => Map::new(),
        }
    }

    /// Puts the rules among the recorded lines, in the place of recorded ones of the same id.
    pub fn apply(self, lines: &mut Vec<Line>) {
        let own: BTreeSet<_> = self.lines.iter().map(|l| (l.topic, l.key.clone())).collect();
        lines.retain(|l| !own.contains(&(l.topic, l.key.clone())));
        lines.extend(self.lines);
        lines.sort_by_key(|l| (l.at, l.topic));
    }
}

/// Lays a value over another, key by key.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Result<Rules, String> {
        Rules::parse(text, &Catalog::built_in(4).unwrap())
    }

    #[test]
    fn rules_come_as_json_lines_lists_and_sections() {
        for text in [
            "{\"scope\": \"default\", \"low\": 5}\n{\"scope\": \"category:tea\", \"low\": 6}\n",
            "[{\"scope\": \"default\", \"low\": 5},\n {\"scope\": \"category:tea\", \"low\": 6}]",
            "- {scope: default, low: 5}\n- {scope: 'category:tea', low: 6}\n",
            "pricing_rules:\n  - {scope: default, low: 5}\n  - {scope: 'category:tea', low: 6}\n",
        ] {
            let keys: Vec<_> = parsed(text).unwrap().lines.into_iter().filter_map(|l| l.key).collect();
            assert_eq!(keys, ["default", "category:tea"], "{text}");
        }
        let rules = parsed("pricing: {low: 5}\nloyalty:\n  spin: {per_order: 2}\n").unwrap();
        let configured = json!({"pricing": {"high": 7}, "loyalty": {"spin": {"prizes": []}}});
        let settings = rules.settings(configured.as_object().unwrap());
        assert_eq!(Value::Object(settings), json!({"pricing": {"high": 7, "low": 5}, "loyalty": {"spin": {"prizes": [], "per_order": 2}}}));
    }

    #[test]
    fn a_rule_stands_in_the_place_of_the_recorded_one() {
        let rules = parsed("{\"scope\": \"default\", \"low\": 5}").unwrap();
        let topic = rules.lines[0].topic;
        let recorded = |key: &str, at| Line { at, topic, key: Some(key.into()), placed_by: None, value: Some(b"{}".to_vec()) };
        let mut lines = vec![recorded("default", Timestamp::EARLIEST), recorded("product:p1", Timestamp::EARLIEST)];
        rules.apply(&mut lines);
        assert_eq!(lines.iter().filter_map(|l| l.key.as_deref()).collect::<Vec<_>>(), ["default", "product:p1"]);
        assert!(String::from_utf8_lossy(lines[0].value.as_deref().unwrap()).contains("low"));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for (text, words) in [
            ("", "no rules"),
            ("{\"scope\": \"default\", \"lwo\": 5}", "lwo"),
            ("{\"scope\": \"default\", \"low\": 50, \"high\": 5}", "low: 50"),
            ("prices: {low: 5}", "there is no 'prices'"),
            ("pricing: 5", "a section has keys"),
            ("plans: {a: 1}", "is a list"),
            ("just words", "no rule"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
