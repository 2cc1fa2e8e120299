//! Reference topics: what a shop states about itself. Compacted; a null value deletes; the key is the id where
//! the value does not carry one. Each may carry `valid_from` (contract.md, Topics).

use crate::{DecodeError, Money, PlanId, ProductId, Timestamp, UserId, json};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One product of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// The id, as the key.
    #[serde(default)]
    pub product_id: ProductId,
    /// Shown to shoppers.
    #[serde(default)]
    pub name: String,
    /// Shown to shoppers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Scope of pricing rules, segments and diversification.
    #[serde(default)]
    pub category: String,
    /// The price that pricing drifts around. Must be stated: taken for 0, a missing one would give the product away.
    pub base_price: Money,
    /// ISO 4217 code; `shop.currency` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// What the shop paid: the hard floor of its price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Hard floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_price: Option<Money>,
    /// Hard ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Money>,
    /// Goes into boxes of plans with `exclusive_item` only.
    #[serde(default)]
    pub exclusive: bool,
    /// May go into boxes.
    #[serde(default)]
    pub box_eligible: bool,
    /// Until then for those with `early_access` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_access_until: Option<Timestamp>,
    /// `price_fixed`, `replenishable` and the shop's own.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// Since when this version counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
}

/// What is known of a customer, and what they consented to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Customer {
    pub user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// `YYYY-MM-DD` or `MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub birthday: Option<String>,
    /// ISO 3166 alpha-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// IANA name such as `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Absent is no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consent: Option<Consent>,
    pub interests: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
}

/// Consent to marketing mail, with its proof.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Consent {
    pub status: ConsentStatus,
    #[serde(default)]
    pub at: Option<Timestamp>,
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default)]
    pub text_version: Option<String>,
}

/// Where consent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentStatus {
    /// Mail may be sent.
    Granted,
    /// Asked, not yet confirmed (double opt-in): no mail.
    Pending,
    /// Taken back: no mail.
    Withdrawn,
}

/// A user who was erased. Written by `tillflow user erase`; what was recorded of them before is dropped wherever it is
/// read once more, and what they do later counts: the person may come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErasedUser {
    /// Who.
    #[serde(default)]
    pub user_id: UserId,
    /// Up to when what was recorded of them is dropped.
    pub erased_at: Timestamp,
}

/// The parameters of pricing for one scope; what is absent comes from the wider scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PricingRule {
    /// `default`, `category:C` or `product:P`.
    pub scope: String,
    /// The parameters given, by name; pricing checks and merges them.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, Value>,
    /// Counts up with each version of this scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Since when this version counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
}

/// A subscription plan, one version of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Plan {
    #[serde(default)]
    pub plan_id: PlanId,
    #[serde(default)]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Must be stated, be it 0.
    pub price: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// `week`, `month`, `quarter` or `year`.
    #[serde(default)]
    pub interval: String,
    #[serde(default)]
    pub version: u64,
    #[serde(default)]
    pub features: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
}

macro_rules! definition {
    ($($(#[$doc:meta])* $name:ident, $id:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            /// The id, as the key.
            #[serde(deserialize_with = "json::text")]
            pub $id: String,
            /// The definition's fields, by name; its system checks them.
            #[serde(flatten)]
            pub fields: BTreeMap<String, Value>,
            /// Since when this version counts.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub valid_from: Option<Timestamp>,
        }
    )+};
}

definition! {
    /// An e-mail campaign: trigger, segment, waits, exit conditions, template, caps.
    Campaign, campaign_id;
    /// A reward that points buy: name, points, stock.
    Reward, reward_id;
    /// A challenge of the loyalty programme.
    Challenge, challenge_id;
    /// A badge of the loyalty programme.
    Badge, badge_id;
    /// A segment in the shop's own words.
    SegmentDefinition, segment_id;
    /// An e-mail template.
    Template, template_id;
}

/// A version of a reference record, or its deletion.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<T> {
    /// The record's id.
    pub id: String,
    /// The new version; `None` deletes.
    pub value: Option<T>,
}

pub(crate) fn check_product(p: &Product) -> Result<(), DecodeError> {
    json::check_amount("base_price", p.base_price)?;
    for (field, amount) in [("cost", p.cost), ("min_price", p.min_price), ("max_price", p.max_price)] {
        if let Some(amount) = amount {
            json::check_amount(field, amount)?;
        }
    }
    if let (Some(min), Some(max)) = (p.min_price, p.max_price)
        && min > max
    {
        return Err(DecodeError::at("min_price", format!("{min} is above max_price {max}")));
    }
    p.early_access_until.map_or(Ok(()), |until| json::check_not_beyond("early_access_until", until))?;
    json::check_currency("currency", p.currency.clone())?;
    Ok(())
}

pub(crate) fn check_plan(p: &Plan) -> Result<(), DecodeError> {
    json::check_amount("price", p.price)?;
    json::check_currency("currency", p.currency.clone())?;
    if p.features.is_empty() {
        return Err(DecodeError::at("features", "is empty; a plan states at least one feature"));
    }
    if !["week", "month", "quarter", "year"].contains(&p.interval.as_str()) {
        return Err(DecodeError::at("interval", format!("'{}' is not week, month, quarter or year", crate::error::shorten(&p.interval))));
    }
    Ok(())
}

pub(crate) fn check_rule(r: &PricingRule) -> Result<(), DecodeError> {
    let scope = r.scope.as_str();
    let names = |kind: &str| scope.strip_prefix(kind).is_some_and(|name| !name.is_empty());
    if !(scope == "default" || names("category:") || names("product:")) {
        return Err(DecodeError::at("scope", format!("'{}' is not default, category:NAME or product:ID", crate::error::shorten(scope))));
    }
    let number = |name: &str| {
        r.parameters.get(name).and_then(|v| match v {
            Value::Number(n) => n.to_string().parse::<Decimal>().ok(),
            Value::String(s) => s.parse().ok(),
            _ => None,
        })
    };
    if let (Some(low), Some(high)) = (number("low"), number("high"))
        && low > high
    {
        return Err(DecodeError::at("low", format!("{low} is above high {high}; low must not exceed high")));
    }
    Ok(())
}
