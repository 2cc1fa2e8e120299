//! Points of two replays.

use super::{Both, EXAMPLES};
use crate::commands::Out;
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_schemas::{LoyaltyUpdate, UserId};

/// What a user has in the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Account {
    balance: i64,
    lifetime_points: i64,
    tier: String,
}

/// Ledgers, collected.
#[derive(Debug, Default)]
pub struct Points {
    given: Both<i64>,
    taken: Both<i64>,
    accounts: BTreeMap<UserId, Both<Option<Account>>>,
}

impl Points {
    /// Takes a `loyalty_updates` record.
    pub fn entry(&mut self, after: bool, value: &Value) {
        let Ok(entry) = serde_json::from_value::<LoyaltyUpdate>(value.clone()) else { return };
        *self.given.side(after) += entry.points.max(0);
        *self.taken.side(after) -= entry.points.min(0);
        let account = Account { balance: entry.balance, lifetime_points: entry.lifetime_points, tier: entry.tier };
        *self.accounts.entry(entry.user_id).or_default().side(after) = Some(account);
    }

    /// What differs.
    pub fn compared(self) -> PointDifference {
        let mut found = PointDifference { given: self.given, taken: self.taken, users: self.accounts.len(), ..PointDifference::default() };
        for (user_id, both) in self.accounts {
            let tier = |account: &Option<Account>| account.as_ref().map(|a| a.tier.clone());
            found.tiers_changed += usize::from(tier(&both.before) != tier(&both.after));
            if both.before == both.after {
                continue;
            }
            found.users_changed += 1;
            if found.examples.len() < EXAMPLES {
                found.examples.push(PointExample { user_id, before: both.before, after: both.after });
            }
        }
        found
    }
}

/// How points differ.
#[derive(Debug, Default, Serialize)]
pub struct PointDifference {
    given: Both<i64>,
    taken: Both<i64>,
    users: usize,
    users_changed: usize,
    tiers_changed: usize,
    examples: Vec<PointExample>,
}

/// A user whose points differ.
#[derive(Debug, Serialize)]
struct PointExample {
    user_id: UserId,
    before: Option<Account>,
    after: Option<Account>,
}

impl PointDifference {
    /// Says it in words.
    pub fn tell(&self, out: Out<'_>) -> Result<()> {
        let Self { given, taken, users, users_changed, tiers_changed, .. } = self;
        writeln!(out, "Points: {} given instead of {}, {} taken instead of {}.", given.after, given.before, taken.after, taken.before)?;
        if *users_changed > 0 {
            writeln!(out, "  {users_changed} of {users} customers end with other points, {tiers_changed} in another tier.")?;
        }
        for e in &self.examples {
            let account = |a: &Option<Account>| a.as_ref().map_or("nothing".into(), |a| format!("{} points, {}", a.balance, a.tier));
            writeln!(out, "  {}: {} instead of {}", e.user_id, account(&e.after), account(&e.before))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_customer_differs_by_what_is_left_in_the_end() {
        let mut points = Points::default();
        let entry = |user: &str, change: i64, balance: i64, tier: &str| {
            json!({
                "entry_id": "e", "user_id": user, "kind": "earn", "points": change, "lifetime_change": change, "balance": balance,
                "lifetime_points": balance, "tier": tier, "note": "", "at": "2026-03-01T10:00:00.000Z",
            })
        };
        for (after, value) in [
            (false, entry("same", 10, 10, "bronze")),
            (true, entry("same", 10, 10, "bronze")),
            (false, entry("more", 10, 10, "bronze")),
            (true, entry("more", 600, 600, "silver")),
            (true, entry("new", -5, -5, "bronze")),
        ] {
            points.entry(after, &value);
        }
        let found = serde_json::to_value(points.compared()).unwrap();
        assert_eq!((&found["given"], &found["taken"]), (&json!({"before": 20, "after": 610}), &json!({"before": 0, "after": 5})));
        assert_eq!((&found["users"], &found["users_changed"], &found["tiers_changed"]), (&json!(3), &json!(2), &json!(2)));
        assert_eq!(
            found["examples"][1],
            json!({"user_id": "new", "before": null, "after": {"balance": -5, "lifetime_points": -5, "tier": "bronze"}})
        );
    }
}
