//! The parameters of pricing: the built-in defaults, the `pricing` section above them, and the rules a shop states by
//! scope — default, category, product — merged field by field, the most specific last.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use tillflow_schemas::{Mode, Money, PricingRule};

/// A fraction, factor or other plain number of a rule; in JSON a number or a decimal string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub Decimal);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // Money reads a float by its digits, never through binary.
        Money::deserialize(d).map(|m| Self(m.decimal())).map_err(|e| {
            use serde::de::Error;
            D::Error::custom(e.to_string().replace("an amount", "a number"))
        })
    }
}

const fn hundredths(n: i64) -> Number {
    Number(Decimal::from_parts(n as u32, 0, 0, false, 2))
}
const fn thousandths(n: i64) -> Number {
    Number(Decimal::from_parts(n as u32, 0, 0, false, 3))
}

macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)+) => {
        /// All parameters of a decision; the `pricing` section states the shop's defaults.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct PricingParameters { $($(#[$doc])* pub $name: $type,)+ }

        impl Default for PricingParameters {
            fn default() -> Self { Self { $($name: $default,)+ } }
        }

        /// What one rule states; the rest comes from the wider scope.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Layer {
            $($(#[$doc])* pub $name: Option<$type>,)+
            /// A remark, for people.
            pub note: Option<String>,
        }

        impl PricingParameters {
            /// Takes over what the layer states.
            pub fn merge(&mut self, layer: &Layer) {
                $(if let Some(value) = &layer.$name { self.$name = value.clone(); })+
            }
        }
    };
}

parameters! {
    /// Stock below this many pieces is low: the price drifts up from where it is.
    low: i64 = 20;
    /// Stock above this many pieces is high: the price does not rise.
    high: i64 = 100;
    /// By how much of the base price one point of the demand score moves the price, as a fraction.
    multiplier: Number = hundredths(5);
    /// Orders a view to expect of a product without history, as a fraction.
    conversion_prior: Number = hundredths(2);
    /// A demand score set by hand, 0 to 10, instead of the one that events make.
    demand_score: Option<Number> = None;
    /// Largest change of one decision, as a fraction of the current price.
    max_change: Number = hundredths(15);
    /// Largest distance from the price in force 24 hours ago, as a fraction of it.
    max_change_24h: Number = hundredths(25);
    /// Furthest below the base price, as a fraction of it.
    max_below_base: Number = hundredths(30);
    /// Furthest above the base price, as a fraction of it.
    max_above_base: Number = hundredths(50);
    /// Least margin above cost, as a fraction of cost.
    min_margin: Number = hundredths(0);
    /// Smallest change worth making, as a fraction of the current price.
    min_change: Number = thousandths(5);
    /// No change this soon after the last one, in minutes.
    cool_down_minutes: u32 = 60;
    /// No change in the other direction this soon after the last one, in minutes.
    turn_minutes: u32 = 360;
    /// What a markdown of high stock in low demand takes off the current price, as a fraction.
    markdown: Number = hundredths(5);
    /// No second markdown this soon after the last one, in hours.
    markdown_hours: u32 = 24;
    /// Demand is low only below this many pieces sold a day.
    markdown_velocity: Number = hundredths(100);
    /// Demand is low only while the last 24 hours are not above this many times the 24 hours before.
    markdown_growth: Number = hundredths(110);
    /// Endings a price is brought down to, such as 0.99 and 0.95; none by default.
    charm_endings: Vec<Number> = Vec::new();
    /// `live`: decisions become the price; `shadow`: they are only published.
    mode: Mode = Mode::Live;
    /// Stops every change, also one that a hard limit demands.
    kill_switch: bool = false;
    /// Holds the price where it is, also against a hard limit.
    pin: bool = false;
}

impl PricingParameters {
    /// What is wrong, naming the field.
    pub fn problem(&self) -> Option<String> {
        let ranges = [
            ("multiplier", self.multiplier, 0, 10),
            ("max_change", self.max_change, 0, 1),
            ("max_change_24h", self.max_change_24h, 0, 1),
            ("max_below_base", self.max_below_base, 0, 1),
            ("max_above_base", self.max_above_base, 0, 100),
            ("min_margin", self.min_margin, 0, 100),
            ("min_change", self.min_change, 0, 1),
            ("markdown", self.markdown, 0, 1),
            ("markdown_velocity", self.markdown_velocity, 0, 1_000_000),
            ("markdown_growth", self.markdown_growth, 0, 1_000),
            ("demand_score", self.demand_score.unwrap_or_default(), 0, 10),
        ];
        if let Some((field, value, least, most)) =
            ranges.into_iter().find(|(_, v, least, most)| v.0 < Decimal::from(*least) || v.0 > Decimal::from(*most))
        {
            return Some(format!("{field}: {} is not between {least} and {most}", value.0));
        }
        if self.conversion_prior.0 < Decimal::new(1, 6) || self.conversion_prior.0 > Decimal::ONE {
            return Some(format!("conversion_prior: {} is not between 0.000001 and 1", self.conversion_prior.0));
        }
        if self.low < 0 {
            return Some(format!("low: {} is below 0", self.low));
        }
        if self.low > self.high {
            return Some(format!("low: {} is above high {}; low must not exceed high", self.low, self.high));
        }
        if self.charm_endings.len() > 10 {
            return Some(format!("charm_endings: {} endings; at most 10", self.charm_endings.len()));
        }
        let ending = self.charm_endings.iter().find(|e| e.0 < Decimal::ZERO || e.0 >= Decimal::ONE)?;
        Some(format!("charm_endings: {} is not at least 0 and below 1, such as 0.99", ending.0))
    }
}

impl Layer {
    /// What a rule states.
    ///
    /// # Errors
    /// Names the parameter that is unknown, mistyped or out of range.
    pub fn of(rule: &PricingRule) -> Result<Self, String> {
        let parameters = rule.parameters.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let layer: Self = tillflow_schemas::json::from_value(serde_json::Value::Object(parameters)).map_err(|e| e.to_string())?;
        // A single layer may state one threshold only; whether both fit is known once merged.
        let mut alone = PricingParameters::default();
        alone.merge(&layer);
        match (layer.low, layer.high) {
            (Some(low), None) => alone.high = alone.high.max(low),
            (None, Some(high)) => alone.low = alone.low.min(high),
            _ => {}
        }
        alone.problem().map_or(Ok(layer), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(parameters: serde_json::Value) -> Result<Layer, String> {
        let mut rule = json!({"scope": "default"});
        rule.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
        Layer::of(&serde_json::from_value(rule).unwrap())
    }

    #[test]
    fn a_narrower_scope_changes_only_what_it_states() {
        let mut p = PricingParameters::default();
        p.merge(&layer(json!({"low": 10, "multiplier": "0.1"})).unwrap());
        p.merge(&layer(json!({"multiplier": 0.02, "mode": "shadow"})).unwrap());
        let expected = PricingParameters { low: 10, multiplier: hundredths(2), mode: Mode::Shadow, ..PricingParameters::default() };
        assert_eq!(p, expected);
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_said_by_field() {
        for (parameters, words) in [
            (json!({"lwo": 3}), "unknown field `lwo`"),
            (json!({"low": "many"}), "low"),
            (json!({"multiplier": "lots"}), "multiplier"),
            (json!({"low": 30, "high": 20}), "low: 30 is above high 20"),
            (json!({"demand_score": 11}), "demand_score: 11 is not between 0 and 10"),
            (json!({"mode": "loud"}), "mode"),
            (json!({"max_change": -0.1}), "max_change: -0.1"),
            (json!({"conversion_prior": 0}), "conversion_prior"),
            (json!({"charm_endings": [1.5]}), "charm_endings: 1.5"),
        ] {
            let error = layer(parameters.clone()).unwrap_err();
            assert!(error.contains(words), "{parameters}: {error}");
        }
        assert!(layer(json!({"high": 5, "note": "a trial", "charm_endings": ["0.99", 0.95]})).is_ok());
    }
}
