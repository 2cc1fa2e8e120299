//! Points for orders, as the peers' job has them: floor(total × multiplier of the tier), tiers by lifetime points.

use super::output::LoyaltyUpdate;
use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Deserialize, Serialize};
use tillflow_engine_api::{Context, Declare, Error, Output, Processor, Result};
use tillflow_schemas::{Event, OrderId, UserEvent, UserEventKind, UserId};
use tillflow_state::Table;

/// Tiers from the highest: name, lifetime points it begins at, multiplier in hundredths.
const TIERS: [(&str, i64, i64); 4] = [("platinum", 5_000, 200), ("gold", 2_000, 150), ("silver", 500, 125), ("bronze", i64::MIN, 100)];

/// The tier of so many lifetime points, and its multiplier in hundredths.
pub fn tier(lifetime: i64) -> (&'static str, i64) {
    let tier = TIERS.iter().find(|(_, from, _)| lifetime >= *from);
    tier.map_or(("bronze", 100), |(name, _, multiplier)| (name, *multiplier))
}

/// What a customer has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Points that can be spent.
    pub balance: i64,
    /// Points ever earned.
    pub lifetime: i64,
}

/// What an order brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Points.
    pub points: i64,
    /// When, in milliseconds.
    pub at: i64,
}

/// The customers' accounts.
pub const ACCOUNTS: &str = "peer.accounts";

/// The processor. An order that was seen before does not reach it.
pub struct Loyalty {
    accounts: Table<UserId, Account>,
    ledger: Table<(UserId, OrderId), Entry>,
    updates: Output<LoyaltyUpdate>,
}

impl Processor for Loyalty {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        Self { accounts: d.store(ACCOUNTS), ledger: d.store("peer.ledger"), updates: d.output() }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::User(UserEvent { kind: UserEventKind::OrderCompleted(order), user_id: Some(user_id), timestamp, .. }) = event else {
            return Ok(());
        };
        let mut account = cx.get(&self.accounts, user_id)?.unwrap_or_default();
        let (_, multiplier) = tier(account.lifetime);
        let points = (order.total().decimal() * Decimal::new(multiplier, 2)).floor().to_i64();
        let points = points.ok_or_else(|| Error::reject("total_amount: too large for points"))?;
        account.balance = account.balance.saturating_add(points);
        account.lifetime = account.lifetime.saturating_add(points);
        cx.put(&self.accounts, user_id, &account)?;
        cx.put(&self.ledger, &(user_id.clone(), order.order_id.clone()), &Entry { points, at: timestamp.millis() })?;
        let update = LoyaltyUpdate {
            user_id: user_id.clone(),
            order_id: order.order_id.clone(),
            points,
            balance: account.balance,
            tier: tier(account.lifetime).0,
        };
        cx.emit(&self.updates, update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tillflow_engine_api::testing::Driver;

    #[test]
    fn an_order_brings_the_floor_of_its_total_times_the_tier_s_multiplier_and_counts_once() {
        let mut shop = Driver::of::<Loyalty>();
        let order = |id: &str, total: &str, second: u32| {
            json!({"event_type": "order_completed", "user_id": "u1", "order_id": id, "total_amount": total, "items": [],
                "timestamp": format!("2026-01-01T00:00:{second:02}Z")})
        };
        for (id, total, second) in [("o1", "499.99", 1), ("o2", "1.01", 2), ("o1", "499.99", 3), ("o3", "10.00", 4)] {
            shop.send_json("user_event", order(id, total, second));
        }
        let updates = shop.emissions::<LoyaltyUpdate>();
        let updates: Vec<serde_json::Value> = updates.iter().map(|e| serde_json::from_slice(e.value.as_ref().unwrap()).unwrap()).collect();
        let points: Vec<i64> = updates.iter().map(|u| u["points"].as_i64().unwrap()).collect();
        // The second makes silver, so the last counts one and a quarter times.
        assert_eq!(points, [499, 1, 12]);
        assert_eq!(updates[2]["balance"], 512);
        assert_eq!(updates[2]["tier"], "silver");
    }
}
