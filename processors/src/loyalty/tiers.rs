//! Tiers: which one an account is in, what an order earns there, and what it brings.

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_schemas::Money;

/// One tier of the programme.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Shown to shoppers.
    pub name: String,
    /// Lifetime points (or net spend, see `tier_by`) from which it counts; the first tier's is 0.
    pub from: i64,
    /// An order's total times this gives its points.
    pub multiplier: Factor,
    /// Features it brings beside those of the tiers below.
    #[serde(default)]
    pub benefits: BTreeMap<String, Value>,
}

/// A factor such as 1.25: a decimal, given as a number or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(from = "Money", into = "Money")]
pub struct Factor(pub Decimal);

impl Factor {
    /// Times one.
    pub const ONE: Self = Self(Decimal::ONE);
}

impl From<Money> for Factor {
    fn from(money: Money) -> Self {
        Self(money.decimal())
    }
}

impl From<Factor> for Money {
    fn from(factor: Factor) -> Self {
        factor.0.into()
    }
}

/// The tiers of a shop that configures none.
pub fn default_tiers() -> Vec<Tier> {
    let tier = |name: &str, from, hundredths, benefits: &[(&str, &str)]| Tier {
        name: name.into(),
        from,
        multiplier: Factor(Decimal::new(hundredths, 2)),
        benefits: benefits.iter().map(|(feature, value)| ((*feature).to_owned(), Value::from(*value))).collect(),
    };
    vec![
        tier("bronze", 0, 100, &[]),
        tier("silver", 500, 125, &[("free_shipping_over", "50")]),
        tier("gold", 2000, 150, &[("expedited_shipping", "true"), ("early_access_sales", "true"), ("birthday_bonus", "true")]),
        tier("platinum", 5000, 200, &[("dedicated_support", "true"), ("exclusive_drops", "true"), ("annual_gift", "true")]),
    ]
}

/// The features that a tier of the default programme brings, those of the tiers below it included; none for an
/// unknown tier. For a shop's own tiers: [`super::LoyaltySettings::benefits`].
pub fn benefits(tier: &str) -> BTreeMap<String, Value> {
    benefits_of(&default_tiers(), tier)
}

/// The features of `tier` and of those below it, the higher tier's value where two state one.
pub fn benefits_of(tiers: &[Tier], tier: &str) -> BTreeMap<String, Value> {
    let Some(at) = tiers.iter().position(|t| t.name == tier) else { return BTreeMap::new() };
    tiers.iter().take(at + 1).flat_map(|t| t.benefits.clone()).collect()
}

/// The tier at `measure` (lifetime points, or whole units of net spend); the lowest below all. `tiers` ascend.
pub fn tier_at(tiers: &[Tier], measure: i64) -> Option<&Tier> {
    tiers.iter().rev().find(|t| t.from <= measure).or(tiers.first())
}

/// The tier above `measure`.
pub fn next_tier(tiers: &[Tier], measure: i64) -> Option<&Tier> {
    tiers.iter().skip(1).find(|t| t.from > measure)
}

/// What an amount earns: `floor(amount × multiplier)`; `None` beyond what points can count.
pub fn points(amount: Money, multiplier: Factor) -> Option<i64> {
    amount.decimal().checked_mul(multiplier.0)?.floor().to_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_the_total_times_the_tier_s_multiplier_rounded_down() {
        let tiers = default_tiers();
        let earn = |total, lifetime| points(Money::parse(total).unwrap(), tier_at(&tiers, lifetime).unwrap().multiplier).unwrap();
        assert_eq!(earn("499.99", 0), 499);
        assert_eq!(earn("1.00", 499), 1);
        assert_eq!(earn("100", 500), 125);
        assert_eq!(earn("0.99", 1999), 1, "0.99 × 1.25 = 1.2375");
        assert_eq!(earn("33.33", 2000), 49);
        assert_eq!(earn("33.33", 5000), 66);
        assert_eq!(earn("0", 5000), 0);
        assert_eq!(points(Money::parse("79228162514264337593543950335").unwrap(), Factor::ONE), None);
    }

    #[test]
    fn a_tier_begins_at_its_threshold() {
        let tiers = default_tiers();
        let name = |lifetime| tier_at(&tiers, lifetime).unwrap().name.as_str();
        let names = [-5, 0, 499, 500, 1999, 2000, 4999, 5000, i64::MAX].map(name);
        assert_eq!(names, ["bronze", "bronze", "bronze", "silver", "silver", "gold", "gold", "platinum", "platinum"]);
        assert_eq!(next_tier(&tiers, 500).unwrap().name, "gold");
        assert_eq!(next_tier(&tiers, -5).unwrap().name, "silver");
        assert_eq!(next_tier(&tiers, 5000), None);
    }

    #[test]
    fn benefits_are_those_of_the_tier_and_of_all_below() {
        assert!(benefits("bronze").is_empty());
        assert_eq!(benefits("silver"), [("free_shipping_over".to_owned(), Value::from("50"))].into());
        let platinum: Vec<_> = benefits("platinum").into_keys().collect();
        assert_eq!(
            platinum,
            [
                "annual_gift",
                "birthday_bonus",
                "dedicated_support",
                "early_access_sales",
                "exclusive_drops",
                "expedited_shipping",
                "free_shipping_over"
            ]
        );
        assert_eq!(benefits("gold").len(), 4);
        assert!(benefits("tin").is_empty());
    }

    #[test]
    fn a_factor_is_read_from_a_number_or_text() {
        for json in ["1.25", "\"1.25\""] {
            assert_eq!(serde_json::from_str::<Factor>(json).unwrap(), Factor(Decimal::new(125, 2)));
        }
    }
}
