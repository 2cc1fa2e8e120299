//! The `loyalty` section of the configuration, and what is wrong with one.

use super::{
    badges::BadgeRule,
    challenges::ChallengeRule,
    rewards::RewardRule,
    tiers::{Factor, Tier, benefits_of, default_tiers, next_tier, tier_at},
};
use crate::loyalty::Account;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{ProductId, Timestamp};

/// A day, as durations in settings count it.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The secret of a shop that sets none. Whoever knows it can foresee every spin, so production sets its own.
pub const DEVELOPMENT_SECRET: &str = "tillflow-development-secret";

/// The `loyalty` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoyaltySettings {
    /// The tiers, lowest first; the first begins at 0.
    pub tiers: Vec<Tier>,
    /// What decides the tier: `lifetime_points` or `net_spend`.
    pub tier_by: TierBy,
    /// Days in which an order can be returned: its points wait so long before they count. 0: they count at once.
    pub return_window_days: u32,
    /// When points expire.
    pub expiry: ExpirySettings,
    /// What orders earn beyond the tier's multiplier, and what else earns.
    pub earning: EarningSettings,
    /// Spins: prizes drawn with each order.
    pub spin: SpinSettings,
    /// Referrals.
    pub referral: ReferralSettings,
    /// Birthdays.
    pub birthday: BirthdaySettings,
    /// The largest number of points one `adjust` command may give or take; absent: no limit.
    pub adjust_limit: Option<i64>,
    /// Key of the draw of spins. The default is public: set your own in production, and keep it.
    pub secret: String,
    /// Rewards by id; those of the topic `rewards` come before these.
    pub rewards: BTreeMap<String, RewardRule>,
    /// Challenges by id, beside the built-in `three_purchases`; those of the topic `challenges` come before these.
    pub challenges: BTreeMap<String, ChallengeRule>,
    /// Badges by id, beside the built-in `first_purchase`, `loyalty_veteran` and `top_spender`; those of the topic
    /// `badges` come before these.
    pub badges: BTreeMap<String, BadgeRule>,
}

impl Default for LoyaltySettings {
    fn default() -> Self {
        Self {
            tiers: default_tiers(),
            tier_by: TierBy::default(),
            return_window_days: 0,
            expiry: ExpirySettings::default(),
            earning: EarningSettings::default(),
            spin: SpinSettings::default(),
            referral: ReferralSettings::default(),
            birthday: BirthdaySettings::default(),
            adjust_limit: None,
            secret: DEVELOPMENT_SECRET.into(),
            rewards: BTreeMap::new(),
            challenges: BTreeMap::new(),
            badges: BTreeMap::new(),
        }
    }
}

/// What decides the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TierBy {
    /// Points ever earned less those refunded.
    #[default]
    LifetimePoints,
    /// Order totals less refunds, in whole units of the shop's currency.
    NetSpend,
}

/// When points expire.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpirySettings {
    /// Days after earning; 0: never.
    pub days: u32,
    /// Days before expiry at which the user is warned.
    pub warn_days: u32,
    /// Countries (ISO 3166 alpha-2) whose customers' points never expire.
    pub off_countries: Vec<String>,
}

impl Default for ExpirySettings {
    fn default() -> Self {
        Self { days: 365, warn_days: 30, off_countries: Vec::new() }
    }
}

/// What orders earn beyond the tier's multiplier, and what else earns.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarningSettings {
    /// Further multipliers. Of those that fit an item the greatest counts.
    pub rules: Vec<EarningRule>,
    /// Products that earn nothing.
    pub exclude_products: Vec<ProductId>,
    /// Categories that earn nothing.
    pub exclude_categories: Vec<String>,
    /// Points for the first review of each product; 0: none.
    pub review_points: i64,
    /// Points for signing up; 0: none.
    pub signup_points: i64,
}

/// A multiplier by date, product or category.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EarningRule {
    /// What an item's amount counts for.
    pub multiplier: Factor,
    /// Only these products; none listed: any.
    #[serde(default)]
    pub products: Vec<ProductId>,
    /// Only these categories; none listed: any.
    #[serde(default)]
    pub categories: Vec<String>,
    /// From this moment of event time on.
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// Before this moment of event time.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Spins.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpinSettings {
    /// Spins that each order grants, 0 to 64.
    pub per_order: u32,
    /// What can be won.
    pub prizes: Vec<Prize>,
    /// Points that all spins of a calendar month may win together; absent: no limit.
    pub monthly_budget: Option<i64>,
    /// Countries (ISO 3166 alpha-2) whose customers get no spins.
    pub off_countries: Vec<String>,
}

impl Default for SpinSettings {
    fn default() -> Self {
        let prize = |points, weight| Prize { points, code: None, weight };
        Self { per_order: 1, prizes: vec![prize(10, 80), prize(25, 18), prize(100, 2)], monthly_budget: None, off_countries: Vec::new() }
    }
}

/// A prize: points, a code, or both.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prize {
    /// Points won.
    #[serde(default)]
    pub points: i64,
    /// Discount code won.
    #[serde(default)]
    pub code: Option<String>,
    /// How often it comes, against the sum of all weights.
    pub weight: u32,
}

/// Referrals.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReferralSettings {
    /// Points for both at the referred user's first order; 0: no referrals.
    pub points: i64,
}

impl Default for ReferralSettings {
    fn default() -> Self {
        Self { points: 100 }
    }
}

/// Birthdays.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BirthdaySettings {
    /// Points once a year; 0: none.
    pub points: i64,
    /// The lowest tier that gets them.
    pub from_tier: String,
}

impl Default for BirthdaySettings {
    fn default() -> Self {
        Self { points: 50, from_tier: "gold".into() }
    }
}

impl LoyaltySettings {
    /// The features that a tier brings, those of the tiers below it included.
    pub fn benefits(&self, tier: &str) -> BTreeMap<String, Value> {
        benefits_of(&self.tiers, tier)
    }

    /// What decides the account's tier.
    pub(super) fn measure(&self, account: &Account) -> i64 {
        match self.tier_by {
            TierBy::LifetimePoints => account.lifetime_points,
            TierBy::NetSpend => account.net_spend.decimal().floor().to_i64().unwrap_or(i64::MAX),
        }
    }

    /// The tier the account is in.
    pub(super) fn tier(&self, account: &Account) -> Option<&Tier> {
        tier_at(&self.tiers, self.measure(account))
    }

    /// The tier above the account's.
    pub(super) fn next_tier(&self, account: &Account) -> Option<&Tier> {
        next_tier(&self.tiers, self.measure(account))
    }

    /// Whether `tier` is `least` or above it.
    pub(super) fn reaches(&self, tier: &str, least: &str) -> bool {
        let at = |name| self.tiers.iter().position(|t| t.name == name);
        at(least).is_some_and(|least| at(tier) >= Some(least))
    }

    /// What is wrong with the section, in words.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |right: bool, problem: String| {
            if !right {
                problems.push(format!("loyalty.{problem}"));
            }
        };
        check(self.tiers.first().is_some_and(|t| t.from == 0), "tiers: the first tier begins at 0; add one".into());
        for (lower, upper) in self.tiers.iter().zip(self.tiers.iter().skip(1)) {
            check(
                lower.from < upper.from,
                format!("tiers: {} begins at {}, not above {} at {}", upper.name, upper.from, lower.name, lower.from),
            );
        }
        for tier in &self.tiers {
            check(!tier.name.is_empty(), "tiers: a tier has no name".into());
            check(!tier.multiplier.0.is_sign_negative(), format!("tiers: the multiplier of {} is below 0", tier.name));
            check(self.tiers.iter().filter(|t| t.name == tier.name).count() == 1, format!("tiers: two tiers are called {}", tier.name));
        }
        check(
            self.expiry.days == 0 || self.expiry.warn_days < self.expiry.days,
            format!("expiry.warn_days: {} is not below expiry.days {}", self.expiry.warn_days, self.expiry.days),
        );
        check(self.spin.per_order <= 64, format!("spin.per_order: {} is above 64", self.spin.per_order));
        check(self.spin.per_order == 0 || self.spin.prizes.iter().any(|p| p.weight > 0), "spin.prizes: no prize has a weight".into());
        check(self.spin.prizes.iter().all(|p| p.points >= 0), "spin.prizes: a prize takes points away".into());
        check(self.spin.monthly_budget.is_none_or(|b| b >= 0), "spin.monthly_budget: is below 0".into());
        check(!self.secret.is_empty(), "secret: is empty".into());
        check(
            self.birthday.points == 0 || self.tiers.iter().any(|t| t.name == self.birthday.from_tier),
            format!("birthday.from_tier: no tier is called '{}'", self.birthday.from_tier),
        );
        for (name, points) in [
            ("referral.points", self.referral.points),
            ("birthday.points", self.birthday.points),
            ("earning.review_points", self.earning.review_points),
            ("earning.signup_points", self.earning.signup_points),
            ("adjust_limit", self.adjust_limit.unwrap_or(0)),
        ] {
            check(points >= 0, format!("{name}: {points} is below 0"));
        }
        for (i, rule) in self.earning.rules.iter().enumerate() {
            check(!rule.multiplier.0.is_sign_negative(), format!("earning.rules[{i}].multiplier: is below 0"));
            let upside_down = matches!((rule.from, rule.until), (Some(from), Some(until)) if from >= until);
            check(!upside_down, format!("earning.rules[{i}]: from is not before until"));
        }
        for (id, rule) in &self.rewards {
            check(rule.problem().is_none(), format!("rewards.{id}: {}", rule.problem().unwrap_or_default()));
        }
        for (id, rule) in &self.challenges {
            check(rule.problem().is_none(), format!("challenges.{id}: {}", rule.problem().unwrap_or_default()));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(section: Value) -> Vec<String> {
        serde_json::from_value::<LoyaltySettings>(section).unwrap().problems()
    }

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(LoyaltySettings::default().problems(), Vec::<String>::new());
        assert_eq!(LoyaltySettings::default().benefits("silver").len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_name() {
        let tiers = json!([{"name": "a", "from": 0, "multiplier": 1}, {"name": "b", "from": 0, "multiplier": "1.5"}]);
        assert_eq!(problems(json!({"tiers": tiers, "birthday": {"points": 0}})), ["loyalty.tiers: b begins at 0, not above a at 0"]);
        assert_eq!(problems(json!({"spin": {"prizes": []}})), ["loyalty.spin.prizes: no prize has a weight"]);
        assert_eq!(problems(json!({"birthday": {"from_tier": "tin"}})), ["loyalty.birthday.from_tier: no tier is called 'tin'"]);
        assert_eq!(problems(json!({"expiry": {"days": 20}})), ["loyalty.expiry.warn_days: 30 is not below expiry.days 20"]);
        assert_eq!(problems(json!({"challenges": {"c": {"points": 5, "goal": "category", "target": 2}}})).len(), 1);
        let unknown = serde_json::from_value::<LoyaltySettings>(json!({"expiry": {"day": 1}})).unwrap_err();
        assert!(unknown.to_string().contains("unknown field `day`"), "{unknown}");
    }
}
