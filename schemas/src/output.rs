//! Output topics: what Tillflow decides. Field names are the contract's; extend, never rename.

use crate::{CampaignId, Money, OrderId, PlanId, ProductId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A price that changed (or, in shadow mode, would have).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct PriceChange {
    pub product_id: ProductId,
    pub old_price: Money,
    pub new_price: Money,
    pub currency: Option<String>,
    /// In words, for the shop; never shown to shoppers.
    pub reason: String,
    /// 0 to 10, one decimal.
    pub demand_score: f64,
    pub stock_level: Option<i64>,
    /// Scope and version of the rule, such as `category:tea@3`.
    pub rule: String,
    /// Guardrails that bit, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounded_by: Vec<String>,
    pub mode: Mode,
    pub decided_at: Timestamp,
}

/// Whether a decision becomes the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    Live,
    /// It is only published.
    Shadow,
}

/// The price in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct ProductPrice {
    pub product_id: ProductId,
    pub price: Money,
    pub currency: Option<String>,
    pub since: Timestamp,
}

/// What is bought or seen together with a product, best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct RelatedProducts {
    pub product_id: ProductId,
    pub related: Vec<Related>,
}

/// One neighbour of a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Related {
    pub product_id: ProductId,
    pub score: f64,
    /// Times the two were seen together.
    pub count: u64,
}

/// A push to one shopper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Recommendations {
    pub user_id: UserId,
    pub items: Vec<RecommendedItem>,
    /// The event type that caused the push.
    pub trigger: String,
    pub generated_at: Timestamp,
}

/// One recommended product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct RecommendedItem {
    pub product_id: ProductId,
    pub score: f64,
    /// The products of the session that led here.
    pub because: Vec<ProductId>,
}

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct LoyaltyUpdate {
    pub entry_id: String,
    pub user_id: UserId,
    pub kind: EntryKind,
    /// Signed change of the balance.
    pub points: i64,
    /// Signed change of the lifetime sum.
    pub lifetime_change: i64,
    pub balance: i64,
    pub lifetime_points: i64,
    pub tier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    pub note: String,
    pub at: Timestamp,
}

/// What a ledger entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract names each kind")]
pub enum EntryKind {
    Earn,
    Bonus,
    Pending,
    Release,
    Redeem,
    Reversal,
    Expire,
    Refund,
    Adjust,
    Rejected,
}

/// Something worth telling a user or the shop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Notification {
    pub user_id: UserId,
    /// `tier_upgraded`, `badge_awarded`, `spin_granted`, …
    pub kind: String,
    pub title: String,
    pub data: Map<String, Value>,
    pub at: Timestamp,
}

/// What a user may do now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Entitlements {
    pub user_id: UserId,
    pub plan_id: Option<PlanId>,
    pub status: String,
    pub features: BTreeMap<String, Value>,
    pub since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A curated box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct BoxContents {
    pub box_id: String,
    pub user_id: UserId,
    pub period: u32,
    pub items: Vec<BoxItem>,
    pub at: Timestamp,
}

/// One product of a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct BoxItem {
    pub product_id: ProductId,
    pub exclusive: bool,
    pub because: String,
}

/// The segments a user is in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct Segments {
    pub user_id: UserId,
    pub segments: Vec<String>,
    pub entered: Vec<String>,
    pub left: Vec<String>,
    pub at: Timestamp,
}

/// An e-mail to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct EmailTrigger {
    /// Deterministic: the same decision made again has the same id.
    pub trigger_id: String,
    pub user_id: UserId,
    pub campaign_id: CampaignId,
    pub template: String,
    pub to: String,
    pub data: Map<String, Value>,
    /// Why this mail, in words.
    pub because: String,
    pub send_after: Timestamp,
}

/// What became of an e-mail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct EmailResult {
    pub trigger_id: String,
    pub user_id: UserId,
    /// `sent`, `suppressed`, `capped`, `expired`, `bounced`, `failed` or `unknown`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    pub detail: String,
    pub at: Timestamp,
}
