//! What a value of a feature means, and how values from several sources become one.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::{collections::BTreeMap, str::FromStr};

/// How values of one feature that are neither yes nor no are merged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// The greatest number: more is better, as of `target_item_count`.
    Max,
    /// The smallest number: less is better, as of `free_shipping_over`.
    Min,
    /// The value named last in this list, from worst to best, as of `shipping_speed`.
    Rank(Vec<String>),
}

/// Somebody or something that gives features: a plan, a tier, a grant.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// In words, such as `plan premium_box (active)`.
    pub name: String,
    /// Values by feature.
    pub features: BTreeMap<String, Value>,
}

/// A feature's merged value and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Typed: `"4"` is 4, `"TRUE"` is true.
    pub value: Value,
    /// In words.
    pub because: String,
}

/// Whether a customer with this value of a feature has the feature: not if there is none, or it is null, blank,
/// `false` in any case, or zero.
pub fn has_feature(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(yes)) => *yes,
        Some(Value::Number(n)) => !is_zero(&n.to_string()),
        Some(Value::String(text)) => {
            let text = text.trim();
            !text.is_empty() && !text.eq_ignore_ascii_case("false") && !is_zero(text)
        }
        Some(Value::Array(_) | Value::Object(_)) => true,
    }
}

fn is_zero(text: &str) -> bool {
    // A decimal would round 1e-40 to zero, so only what has no other digit is zero.
    decimal(text).is_some_and(|d| d.is_zero()) && !text.split(['e', 'E']).next().unwrap_or_default().contains(|c| matches!(c, '1'..='9'))
}

fn decimal(text: &str) -> Option<Decimal> {
    Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

/// A value by its type: text that says yes, no or a number is that.
pub fn typed(value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return Value::Bool(text.eq_ignore_ascii_case("true"));
    }
    // Only what JSON itself would call a number, and short enough to keep all its digits: `007` stays text.
    match serde_json::from_str::<Number>(text) {
        Ok(number) if text.len() <= 15 => Value::Number(number),
        _ => value.clone(),
    }
}

/// The number a value states, if it states one.
pub fn number(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(n) => decimal(&n.to_string()),
        Value::String(text) => decimal(text.trim()),
        _ => None,
    }
}

/// Merges what several sources give. What one denies another may give; two that both give are merged by or, or by the
/// feature's rule; the earlier source counts where no rule tells them apart. `overrides` replace what was merged.
/// `priority_shipping` is derived from `shipping_speed`.
pub fn merge(sources: &[Source], overrides: &[Source], rules: &BTreeMap<String, Merge>) -> BTreeMap<String, Given> {
    let mut merged: BTreeMap<String, Given> = BTreeMap::new();
    for source in sources {
        for (feature, value) in &source.features {
            let given = Given { value: typed(value), because: source.name.clone() };
            let both = match merged.remove(feature) {
                Some(before) => better(before, given, rules.get(feature)),
                None => given,
            };
            merged.insert(feature.clone(), both);
        }
    }
    for source in overrides {
        for (feature, value) in &source.features {
            merged.insert(feature.clone(), Given { value: typed(value), because: source.name.clone() });
        }
    }
    let is_overridden = overrides.iter().any(|o| o.features.contains_key("priority_shipping"));
    if let Some(speed) = merged.get("shipping_speed").filter(|_| !is_overridden) {
        let is_priority = speed.value.as_str().is_some_and(|s| s.trim().eq_ignore_ascii_case("priority"));
        let derived = Given { value: is_priority.into(), because: format!("shipping_speed of {}", speed.because) };
        let both = match merged.remove("priority_shipping") {
            Some(stated) => better(stated, derived, None),
            None => derived,
        };
        merged.insert("priority_shipping".to_owned(), both);
    }
    merged
}

fn better(a: Given, b: Given, rule: Option<&Merge>) -> Given {
    match (has_feature(Some(&a.value)), has_feature(Some(&b.value))) {
        (true, false) | (false, false) => return a,
        (false, true) => return b,
        (true, true) => {}
    }
    if a.value == b.value {
        return Given { because: format!("{} and {}", a.because, b.because), ..a };
    }
    let takes_b = match rule {
        Some(Merge::Rank(values)) => {
            let rank = |v: &Value| values.iter().rposition(|name| v.as_str().is_some_and(|v| v.trim().eq_ignore_ascii_case(name)));
            rank(&b.value) > rank(&a.value)
        }
        rule => match (number(&a.value), number(&b.value)) {
            (Some(a), Some(b)) => {
                if rule == Some(&Merge::Min) {
                    b < a
                } else {
                    b > a
                }
            }
            // A limit says more than a plain yes.
            (None, Some(_)) => a.value.is_boolean(),
            _ => false,
        },
    };
    if takes_b { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn source(name: &str, features: Value) -> Source {
        Source { name: name.into(), features: serde_json::from_value(features).unwrap() }
    }

    fn merged(sources: &[Source], rules: &[(&str, Merge)]) -> BTreeMap<String, Value> {
        let rules = rules.iter().map(|(f, m)| ((*f).to_owned(), m.clone())).collect();
        merge(sources, &[], &rules).into_iter().map(|(f, g)| (f, g.value)).collect()
    }

    #[test]
    fn null_blank_false_in_any_case_and_zero_are_no_feature_and_all_else_is_one() {
        assert!(!has_feature(None));
        for no in [json!(null), json!(false), json!(""), json!("  "), json!("false"), json!("False"), json!("FALSE"), json!(" fAlSe ")] {
            assert!(!has_feature(Some(&no)), "{no}");
        }
        for zero in [json!(0), json!(0.0), json!(-0.0), json!("0"), json!("0.00"), json!("-0"), json!(" 0 "), json!("0e3")] {
            assert!(!has_feature(Some(&zero)), "{zero}");
        }
        for yes in
            [json!(true), json!("true"), json!("TRUE"), json!(4), json!("4"), json!(-1), json!("standard"), json!("no"), json!(0.001)]
        {
            assert!(has_feature(Some(&yes)), "{yes}");
        }
        for yes in [json!("falsey"), json!("1e-40"), json!(1e-40), json!([]), json!({}), json!("null")] {
            assert!(has_feature(Some(&yes)), "{yes}");
        }
    }

    #[test]
    fn values_are_typed_beside_the_answer() {
        for (stated, meant) in [
            (json!("4"), json!(4)),
            (json!(" 4 "), json!(4)),
            (json!("49.95"), json!(49.95)),
            (json!("True"), json!(true)),
            (json!("false"), json!(false)),
            (json!("standard"), json!("standard")),
            (json!("007"), json!("007")),
            (json!("1234567890123456789"), json!("1234567890123456789")),
            (json!(null), json!(null)),
        ] {
            assert_eq!(typed(&stated), meant, "{stated}");
        }
    }

    #[test]
    fn plan_and_tier_merge_booleans_by_or_and_the_rest_by_the_feature_s_rule() {
        let plan = source(
            "plan",
            json!({"support": "false", "early": "true", "free_over": "80", "seats": "4", "speed": "standard", "theme": "red", "gift": "0"}),
        );
        let tier = source(
            "tier",
            json!({"support": "true", "early": "false", "free_over": "50", "seats": 2, "speed": "Priority", "theme": "blue", "gift": "mug"}),
        );
        let speeds = Merge::Rank(["standard", "expedited", "priority"].map(str::to_owned).to_vec());
        let all = merged(&[plan, tier], &[("free_over", Merge::Min), ("seats", Merge::Max), ("speed", speeds)]);
        assert_eq!(
            serde_json::to_value(all).unwrap(),
            json!({"early": true, "free_over": 50, "gift": "mug", "seats": 4, "speed": "Priority", "support": true, "theme": "red"})
        );
    }

    #[test]
    fn a_smaller_limit_does_not_win_by_being_none() {
        let free = |value| source("s", json!({"free_over": value}));
        assert_eq!(merged(&[free(json!("0")), free(json!("50"))], &[("free_over", Merge::Min)])["free_over"], json!(50));
        assert_eq!(merged(&[free(json!("true")), free(json!("50"))], &[("free_over", Merge::Min)])["free_over"], json!(50));
    }

    #[test]
    fn priority_shipping_is_derived_from_the_speed() {
        assert_eq!(merged(&[source("p", json!({"shipping_speed": "priority"}))], &[])["priority_shipping"], json!(true));
        assert_eq!(merged(&[source("p", json!({"shipping_speed": "standard"}))], &[])["priority_shipping"], json!(false));
        assert_eq!(
            merged(&[source("p", json!({"shipping_speed": "standard", "priority_shipping": true}))], &[])["priority_shipping"],
            json!(true)
        );
        assert!(!merged(&[source("p", json!({"seats": 1}))], &[]).contains_key("priority_shipping"));
    }

    #[test]
    fn an_override_replaces_what_was_merged_and_says_so() {
        let given = merge(&[source("plan", json!({"seats": "4"}))], &[source("override", json!({"seats": "0"}))], &BTreeMap::new());
        assert_eq!(given["seats"], Given { value: json!(0), because: "override".into() });
        let given = merge(
            &[source("plan", json!({"shipping_speed": "priority"}))],
            &[source("override", json!({"priority_shipping": false}))],
            &BTreeMap::new(),
        );
        assert_eq!(given["priority_shipping"].value, json!(false));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            (-5_i64..5).prop_map(Value::from),
            (-2_i64..9).prop_map(|n| n.to_string().into()),
            prop::sample::select(vec!["", " ", "false", "TRUE", "standard", "priority", "x"]).prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn a_customer_has_what_any_source_gives_and_nothing_else(values in prop::collection::vec(any_value(), 1..5), rule in 0..4) {
            let sources: Vec<_> = values.iter().map(|v| source("s", json!({"f": v}))).collect();
            let rules = match rule {
                0 => vec![],
                1 => vec![("f", Merge::Max)],
                2 => vec![("f", Merge::Min)],
                _ => vec![("f", Merge::Rank(vec!["standard".into(), "priority".into()]))],
            };
            let value = &merged(&sources, &rules)["f"];
            prop_assert_eq!(has_feature(Some(value)), values.iter().any(|v| has_feature(Some(v))));
        }

        #[test]
        fn typing_a_value_never_changes_the_answer(value in any_value()) {
            prop_assert_eq!(has_feature(Some(&typed(&value))), has_feature(Some(&value)));
        }
    }
}
