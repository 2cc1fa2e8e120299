//! The return window: points that wait.

use super::{Shop, plain};
use serde_json::{Value, json};

fn fourteen_days() -> Value {
    let mut rules = plain();
    rules["return_window_days"] = json!(14);
    rules
}

#[test]
fn within_the_return_window_points_are_in_neither_sum() {
    let mut shop = Shop::with(fourteen_days());
    shop.order("2026-03-01", "u", "o1", "600").order("2026-03-02", "u", "o2", "100");
    assert_eq!(shop.entries(), ["order:o1 pending +0/+0 → 0/0 bronze", "order:o2 pending +0/+0 → 0/0 bronze"]);
    assert_eq!(shop.loyalty("u")["pending"], 700);
    shop.advance("2026-03-15");
    assert_eq!(shop.entries(), ["release:o1 release +600/+600 → 600/600 silver"]);
    assert_eq!(shop.told_of("tier_upgraded", "to"), ["silver"]);
    shop.advance("2026-03-16");
    assert_eq!(shop.entries(), ["release:o2 release +100/+100 → 700/700 silver"], "at the tier before the order");
    assert_eq!(shop.loyalty("u")["pending"], 0);
    shop.advance("2027-03-15");
    assert_eq!(shop.entries(), ["expire:release:o1 expire -600/+0 → 100/700 silver"]);
}

#[test]
fn a_refund_within_the_window_cancels_pending_points_first() {
    let mut shop = Shop::with(fourteen_days());
    shop.order("2026-03-01", "u", "o1", "100").refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "30"}));
    shop.advance("2026-03-16").refund("2026-03-17", "u", "r2", json!({"order_id": "o1"}));
    assert_eq!(
        shop.entries(),
        [
            "order:o1 pending +0/+0 → 0/0 bronze",
            "refund:r1 refund +0/+0 → 0/0 bronze",
            "release:o1 release +70/+70 → 70/70 bronze",
            "refund:r2 refund -70/-70 → 0/0 bronze",
        ]
    );
}

#[test]
fn a_refund_of_no_order_cancels_the_oldest_pending_points_and_takes_the_rest_from_what_is_earned() {
    let mut shop = Shop::with(fourteen_days());
    shop.order("2026-03-01", "u", "o0", "50").advance("2026-03-20").entries();
    shop.order("2026-03-20", "u", "o1", "100").order("2026-03-21", "u", "o2", "100");
    shop.refund("2026-03-22", "u", "r1", json!({"amount": "130"}));
    assert_eq!(shop.loyalty("u")["pending"], 70);
    shop.refund("2026-03-23", "u", "r2", json!({"amount": "90"})).advance("2026-04-30");
    assert_eq!(
        shop.entries()[2..],
        [
            "refund:r1 refund +0/+0 → 50/50 bronze",
            "refund:r2 refund -20/-20 → 30/30 bronze",
            "release:o1 release +0/+0 → 30/30 bronze",
            "release:o2 release +0/+0 → 30/30 bronze",
        ]
    );
}

#[test]
fn points_cancelled_by_a_refund_of_no_order_are_not_taken_again_by_one_that_names_it() {
    let mut shop = Shop::with(fourteen_days());
    shop.order("2026-03-01", "u", "o1", "100").refund("2026-03-02", "u", "r1", json!({"amount": "60"}));
    shop.refund("2026-03-03", "u", "r2", json!({"order_id": "o1"})).advance("2026-04-01");
    assert_eq!(shop.sums("u"), (0, 0, "bronze".into()));
    assert_eq!(shop.loyalty("u")["pending"], 0);
}
