//! The other inputs: stock levels, subscription events, loyalty commands.

use crate::{DecodeError, PlanId, ProductId, SubscriptionId, Timestamp, UserId, json};
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
#[allow(missing_docs, reason = "the contract names each field")]
pub struct SubscriptionEvent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(default)]
    pub user_id: UserId,
    pub timestamp: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<SubscriptionId>,
    #[serde(default)]
    pub plan_id: PlanId,
    #[serde(flatten)]
    pub action: SubscriptionAction,
    /// When it takes effect; `timestamp` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
        #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// A command to the loyalty programme, answered on `loyalty_updates` with the same `command_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoyaltyCommand {
    /// Obeyed once for good.
    pub command_id: String,
    /// Whose account.
    #[serde(default)]
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
