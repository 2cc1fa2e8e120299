//! The schemas of this version: `schemas/*.avsc`, built into the program.
//!
//! Re-keyed records, changelogs and dead letters have none: the first and the last are other topics' bytes as
//! they came, and a changelog is the state store's own encoding.

use super::Schema;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

macro_rules! schemas {
    ($($name:literal,)+) => {
        const TEXTS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../", $name, ".avsc"))),)+];
    };
}

// In the order of the list of topics.
schemas! {
    "pricing_rule",
    "plan",
    "campaign",
    "reward",
    "challenge",
    "badge",
    "segment_definition",
    "template",
    "product",
    "customer",
    "erased_user",
    "inventory",
    "subscription_event",
    "loyalty_command",
    "user_event",
    "product_command",
    "demand_signal",
    "item_pairs",
    "customer_signal",
    "clock_mark",
    "shop_fact",
    "product_status",
    "dead_letter_status",
    "task_owner",
    "product_price",
    "price_change",
    "related_products",
    "recommendations",
    "loyalty_update",
    "notification",
    "entitlements",
    "box_contents",
    "segments",
    "email_trigger",
    "email_result",
}

static PARSED: LazyLock<BTreeMap<&'static str, Arc<Schema>>> =
    LazyLock::new(|| TEXTS.iter().filter_map(|(name, text)| Some((*name, Arc::new(Schema::parse(text).ok()?)))).collect());

/// The schema of that name, such as `price_change`.
pub fn built_in(name: &str) -> Option<Arc<Schema>> {
    PARSED.get(name).cloned()
}

/// The text of `schemas/<name>.avsc`.
pub fn built_in_text(name: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// All names and texts, in the order of the list of topics.
pub fn built_ins() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXTS.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalog, Format, Role};

    #[test]
    fn every_topic_that_holds_records_of_its_own_has_a_schema_and_every_schema_parses() {
        for topic in Catalog::built_in(4).unwrap().topics() {
            let bare = matches!(topic.role, Role::Rekey | Role::Changelog) || topic.format == Format::Bytes;
            assert_eq!(built_in(&topic.schema).is_none(), bare, "{}", topic.name);
        }
        assert_eq!(built_ins().count(), PARSED.len());
    }

    #[test]
    fn every_record_and_field_is_documented_and_lies_in_the_namespace() {
        fn walk(schema: &serde_json::Value) {
            if let Some(fields) = schema.get("fields").and_then(|f| f.as_array()) {
                for part in fields.iter().chain([schema]) {
                    assert!(part["doc"].as_str().is_some_and(|doc| doc.ends_with(['.', '…'])), "{}: no documentation", part["name"]);
                }
            }
            match schema {
                serde_json::Value::Object(members) => members.values().for_each(walk),
                serde_json::Value::Array(values) => values.iter().for_each(walk),
                _ => {}
            }
        }
        for (name, text) in built_ins() {
            let schema: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(schema["namespace"], "com.tillflow", "{name}");
            walk(&schema);
        }
    }
}
