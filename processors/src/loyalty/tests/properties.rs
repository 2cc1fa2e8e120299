//! What holds at all times, whatever happens: the account is the sum of its entries, the tier the one they give, and
//! the lots hold the balance.

use super::{Shop, plain};
use crate::loyalty::{
    account::Account,
    tables::{Lot, OrderPoints},
    tiers::{default_tiers, tier_at},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tillflow_schemas::{EntryKind, LoyaltyUpdate, OrderId, Timestamp, UserId};
use tillflow_state::Table;

#[derive(Clone, Debug)]
enum Step {
    Order(u8, u32),
    Refund(u8, Option<u32>),
    RefundOfNone(u32),
    Cancel(u8),
    Redeem(&'static str),
    Reverse(u8),
    Spin(u8),
    Adjust(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..10_u8, 0..150_000_u32).prop_map(|(order, cents)| Step::Order(order, cents)),
        3 => (0..10_u8, prop::option::of(0..100_000_u32)).prop_map(|(order, cents)| Step::Refund(order, cents)),
        2 => (0..100_000_u32).prop_map(Step::RefundOfNone),
        1 => (0..10_u8).prop_map(Step::Cancel),
        4 => prop_oneof![Just("mug"), Just("bag"), Just("yacht")].prop_map(Step::Redeem),
        2 => (0..40_u8).prop_map(Step::Reverse),
        2 => (0..10_u8).prop_map(Step::Spin),
        1 => (-800..800_i64).prop_map(Step::Adjust),
    ]
}

/// All entries of a user, and what they must sum to.
#[derive(Default)]
struct Ledger {
    balance: i64,
    lifetime: i64,
    ids: BTreeSet<String>,
}

impl Ledger {
    fn take(&mut self, u: &LoyaltyUpdate) {
        self.balance += u.points;
        self.lifetime += u.lifetime_change;
        assert_eq!((u.balance, u.lifetime_points), (self.balance, self.lifetime), "{u:?}");
        assert_eq!(u.tier, tier_at(&default_tiers(), u.lifetime_points).unwrap().name, "{u:?}");
        assert!(self.ids.insert(u.entry_id.clone()), "two entries are called {}", u.entry_id);
        let takes_nothing = matches!(u.kind, EntryKind::Pending | EntryKind::Rejected);
        assert!(!takes_nothing || (u.points, u.lifetime_change) == (0, 0), "{u:?}");
        assert!(u.points >= 0 || u.balance >= 0 || u.kind == EntryKind::Refund, "only a refund may leave less than nothing: {u:?}");
    }
}

fn check(shop: &mut Shop, ledgers: &mut BTreeMap<UserId, Ledger>) {
    for update in shop.updates() {
        ledgers.entry(update.user_id.clone()).or_default().take(&update);
    }
    let store = shop.driver.task().store();
    for (user, ledger) in ledgers {
        let account = Table::<UserId, Account>::new("loyalty.accounts").get(store, user).unwrap().unwrap();
        assert_eq!((account.balance, account.lifetime_points), (ledger.balance, ledger.lifetime));
        assert_eq!(account.tier, tier_at(&default_tiers(), ledger.lifetime).unwrap().name);
        let mut in_lots = 0;
        let lots = Table::<(UserId, i64, u64), Lot>::new("loyalty.lots");
        lots.scan(store, user, |_, lot| {
            assert!(lot.remaining > 0);
            in_lots += lot.remaining;
            true
        })
        .unwrap();
        assert_eq!(in_lots, ledger.balance.max(0), "lots hold the balance");
        let (mut pending, mut orders) = (0, BTreeSet::new());
        let rows = Table::<(UserId, OrderId), OrderPoints>::new("loyalty.orders");
        rows.scan(store, user, |(_, order), row| {
            assert!((0..=row.points).contains(&row.left()) && row.forgiven <= row.expired, "{row:?}");
            pending += if row.pending { row.left() } else { 0 };
            orders.insert(format!("order:{order}"));
            true
        })
        .unwrap();
        assert_eq!(account.pending, pending);
        assert!(orders.is_subset(&ledger.ids), "every order has its entry");
        assert_eq!(account.reserved, 0, "every request was answered");
    }
}

fn history(return_window_days: u32, steps: Vec<(u8, i64, Step)>) {
    let mut rules = plain();
    rules["challenges"] = json!({});
    rules["return_window_days"] = json!(return_window_days);
    rules["spin"] = json!({"monthly_budget": 60});
    rules["rewards"] = json!({"mug": {"name": "A mug", "points": 80}, "bag": {"name": "A bag", "points": 300, "stock": 2}});
    let mut shop = Shop::with(rules);
    let mut ledgers = BTreeMap::new();
    let mut clock = super::moment("2026-01-01").millis();
    let end = clock + steps.iter().map(|(_, days, _)| days * 86_400_000).sum::<i64>() + 800 * 86_400_000;
    for (i, (user, days, step)) in steps.into_iter().enumerate() {
        clock += days * 86_400_000;
        // Some come late.
        let at = Timestamp::from_millis(if i % 7 == 6 { clock - 86_400_000 } else { clock }).to_string();
        let user = format!("u{user}");
        let amount = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
        let command = |action: &str, fields: Value| (format!("c{i}"), action.to_owned(), fields);
        let (id, action, fields) = match step {
            Step::Order(order, cents) => {
                shop.order(&at, &user, &format!("o{order}"), &amount(cents));
                check(&mut shop, &mut ledgers);
                continue;
            }
            Step::Refund(order, cents) => {
                shop.refund(&at, &user, &format!("r{i}"), json!({"order_id": format!("o{order}"), "amount": cents.map(amount)}));
                check(&mut shop, &mut ledgers);
                continue;
            }
            Step::RefundOfNone(cents) => {
                shop.refund(&at, &user, &format!("r{i}"), json!({"amount": amount(cents)}));
                check(&mut shop, &mut ledgers);
                continue;
            }
            Step::Cancel(order) => {
                shop.event(&at, &user, "order_cancelled", json!({"order_id": format!("o{order}")}));
                check(&mut shop, &mut ledgers);
                continue;
            }
            Step::Redeem(reward) => command("redeem", json!({"reward_id": reward})),
            Step::Reverse(of) => command("reverse", json!({"entry_id": format!("command:c{of}")})),
            Step::Spin(order) => command("spin", json!({"spin_id": format!("spin:1:o{order}")})),
            Step::Adjust(points) => command("adjust", json!({"points": points})),
        };
        shop.command(&at, &user, &id, &action, fields);
        let answered = |u: &LoyaltyUpdate| u.command_id.as_ref() == Some(&id);
        let updates = shop.updates();
        assert_eq!(updates.iter().filter(|u| answered(u)).count(), 1, "a command has one answer");
        for update in updates {
            ledgers.entry(update.user_id.clone()).or_default().take(&update);
        }
        check(&mut shop, &mut ledgers);
    }
    shop.driver.advance(Timestamp::from_millis(end));
    shop.deliver();
    check(&mut shop, &mut ledgers);
    for (user, ledger) in &ledgers {
        assert!(ledger.balance <= 0, "all points of {user} have expired");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_account_is_the_sum_of_its_entries(steps in prop::collection::vec((0..2_u8, 0..30_i64, step()), 1..50)) {
        history(0, steps);
    }

    #[test]
    fn the_account_is_the_sum_of_its_entries_with_a_return_window(steps in prop::collection::vec((0..2_u8, 0..30_i64, step()), 1..50)) {
        history(14, steps);
    }
}
