//! The other inputs: stock levels, subscription events, loyalty commands.

use crate::{DecodeError, PlanId, ProductId, SubscriptionId, Timestamp, UserId, error::shorten, json};
use serde::{Deserialize, Serialize};

/// A product's stock level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Which product.
    #[serde(default)]
    pub product_id: ProductId,
    /// Pieces available now; a system that oversells may send a negative level.
    pub stock_level: i64,
    /// When it was counted; older than the newest seen is ignored.
    pub last_updated: Timestamp,
}

pub(crate) fn check_inventory(i: &Inventory) -> Result<(), DecodeError> {
    json::required_id("product_id", Some(i.product_id.as_str().to_owned()))?;
    json::check_time("last_updated", i.last_updated)?;
    if !(-1_000_000_000..=1_000_000_000).contains(&i.stock_level) {
        return Err(DecodeError::at("stock_level", format!("{} is not between -10^9 and 10^9", i.stock_level)));
    }
    Ok(())
}

/// Something that happened to a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FlatSubscription")]
#[allow(missing_docs, reason = "the contract names each field")]
pub struct SubscriptionEvent {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    pub user_id: UserId,
    pub timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<SubscriptionId>,
    pub plan_id: PlanId,
    #[serde(flatten)]
    pub action: SubscriptionAction,
    /// When it takes effect; `timestamp` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Timestamp>,
}

impl SubscriptionEvent {
    /// `effective_at`, else `timestamp`.
    pub fn effective(&self) -> Timestamp {
        self.effective_at.unwrap_or(self.timestamp)
    }
}

/// What happened to the subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract names each action")]
pub enum SubscriptionAction {
    Started {
        #[serde(skip_serializing_if = "Option::is_none")]
        trial_until: Option<Timestamp>,
    },
    Changed,
    Paused,
    Resumed,
    Skipped,
    Swapped {
        from: ProductId,
        to: ProductId,
    },
    Renewed,
    PaymentFailed,
    Cancelled {
        #[serde(default)]
        at_period_end: bool,
    },
}

/// The wire form, every field any action may have: serde's own way of flattening an enum forgets which field was wrong.
#[derive(Deserialize)]
struct FlatSubscription {
    #[serde(default, deserialize_with = "json::opt_text")]
    event_id: Option<String>,
    #[serde(default)]
    user_id: Option<UserId>,
    timestamp: Timestamp,
    #[serde(default)]
    subscription_id: Option<SubscriptionId>,
    #[serde(default)]
    plan_id: Option<PlanId>,
    action: String,
    #[serde(default)]
    trial_until: Option<Timestamp>,
    #[serde(default)]
    from: Option<ProductId>,
    #[serde(default)]
    to: Option<ProductId>,
    #[serde(default)]
    at_period_end: Option<bool>,
    #[serde(default)]
    effective_at: Option<Timestamp>,
}

impl TryFrom<FlatSubscription> for SubscriptionEvent {
    type Error = DecodeError;
    fn try_from(f: FlatSubscription) -> Result<Self, DecodeError> {
        use SubscriptionAction as A;
        let action = match f.action.as_str() {
            "started" => A::Started { trial_until: f.trial_until },
            "changed" => A::Changed,
            "paused" => A::Paused,
            "resumed" => A::Resumed,
            "skipped" => A::Skipped,
            "swapped" => A::Swapped { from: given("from", f.from)?, to: given("to", f.to)? },
            "renewed" => A::Renewed,
            "payment_failed" => A::PaymentFailed,
            "cancelled" => A::Cancelled { at_period_end: f.at_period_end.unwrap_or_default() },
            other => {
                let known = "started, changed, paused, resumed, skipped, swapped, renewed, payment_failed, cancelled";
                return Err(DecodeError::at("action", format!("'{}' is none of {known}", shorten(other))));
            }
        };
        Ok(Self {
            event_id: f.event_id,
            user_id: f.user_id.unwrap_or_default(),
            timestamp: f.timestamp,
            subscription_id: f.subscription_id,
            plan_id: f.plan_id.unwrap_or_default(),
            action,
            effective_at: f.effective_at,
        })
    }
}

fn given<T>(field: &str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or_else(|| DecodeError::at(field, "is missing"))
}

pub(crate) fn check_subscription(s: &SubscriptionEvent) -> Result<(), DecodeError> {
    let required = |field: &str, id: &str| json::required_id(field, Some(id.to_owned())).map(drop);
    let optional = |field: &str, id: Option<&str>| json::optional_id(field, id.map(str::to_owned)).map(drop);
    required("user_id", s.user_id.as_str())?;
    json::check_time("timestamp", s.timestamp)?;
    json::check_time("effective_at", s.effective())?;
    optional("event_id", s.event_id.as_deref())?;
    optional("subscription_id", s.subscription_id.as_ref().map(AsRef::as_ref))?;
    optional("plan_id", Some(s.plan_id.as_str()))?;
    match &s.action {
        SubscriptionAction::Started { trial_until: Some(until) } => json::check_not_beyond("trial_until", *until),
        SubscriptionAction::Swapped { from, to } => {
            required("from", from.as_str())?;
            required("to", to.as_str())
        }
        _ => Ok(()),
    }
}

/// A command to the loyalty programme, answered on `loyalty_updates` with the same `command_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FlatCommand")]
pub struct LoyaltyCommand {
    /// Obeyed once for good.
    pub command_id: String,
    /// Whose account.
    pub user_id: UserId,
    /// Event time.
    pub timestamp: Timestamp,
    /// What to do.
    #[serde(flatten)]
    pub action: LoyaltyAction,
}

/// What a loyalty command asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract names each action")]
pub enum LoyaltyAction {
    Redeem {
        reward_id: String,
    },
    Reverse {
        entry_id: String,
    },
    Spin {
        spin_id: String,
    },
    Adjust {
        points: i64,
        #[serde(default)]
        note: String,
    },
    Refer {
        referred_user_id: UserId,
    },
}

/// The wire form, as [`FlatSubscription`].
#[derive(Deserialize)]
struct FlatCommand {
    #[serde(deserialize_with = "json::text")]
    command_id: String,
    #[serde(default)]
    user_id: Option<UserId>,
    timestamp: Timestamp,
    action: String,
    #[serde(default, deserialize_with = "json::opt_text")]
    reward_id: Option<String>,
    #[serde(default, deserialize_with = "json::opt_text")]
    entry_id: Option<String>,
    #[serde(default, deserialize_with = "json::opt_text")]
    spin_id: Option<String>,
    #[serde(default)]
    points: Option<i64>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    referred_user_id: Option<UserId>,
}

impl TryFrom<FlatCommand> for LoyaltyCommand {
    type Error = DecodeError;
    fn try_from(f: FlatCommand) -> Result<Self, DecodeError> {
        use LoyaltyAction as A;
        let action = match f.action.as_str() {
            "redeem" => A::Redeem { reward_id: given("reward_id", f.reward_id)? },
            "reverse" => A::Reverse { entry_id: given("entry_id", f.entry_id)? },
            "spin" => A::Spin { spin_id: given("spin_id", f.spin_id)? },
            "adjust" => A::Adjust { points: given("points", f.points)?, note: f.note.unwrap_or_default() },
            "refer" => A::Refer { referred_user_id: given("referred_user_id", f.referred_user_id)? },
            other => {
                return Err(DecodeError::at("action", format!("'{}' is none of redeem, reverse, spin, adjust, refer", shorten(other))));
            }
        };
        Ok(Self { command_id: f.command_id, user_id: f.user_id.unwrap_or_default(), timestamp: f.timestamp, action })
    }
}

pub(crate) fn check_command(c: &LoyaltyCommand) -> Result<(), DecodeError> {
    let required = |field: &str, id: &str| json::required_id(field, Some(id.to_owned())).map(drop);
    required("user_id", c.user_id.as_str())?;
    required("command_id", &c.command_id)?;
    json::check_time("timestamp", c.timestamp)?;
    match &c.action {
        LoyaltyAction::Redeem { reward_id } => required("reward_id", reward_id),
        LoyaltyAction::Reverse { entry_id } => required("entry_id", entry_id),
        LoyaltyAction::Spin { spin_id } => required("spin_id", spin_id),
        LoyaltyAction::Refer { referred_user_id } => required("referred_user_id", referred_user_id.as_str()),
        LoyaltyAction::Adjust { .. } => Ok(()),
    }
}
