//! Challenges.

use super::{Shop, plain};
use serde_json::json;
use tillflow_schemas::{Challenge, Product};

fn rules(challenges: serde_json::Value) -> serde_json::Value {
    let mut rules = plain();
    for (id, rule) in challenges.as_object().unwrap() {
        rules["challenges"][id] = rule.clone();
    }
    rules
}

#[test]
fn the_third_order_of_a_month_brings_fifty_points_right_after_its_own_once_a_month() {
    let mut shop = Shop::new();
    for (at, order) in [("2026-03-01", "o1"), ("2026-03-31T23:59", "o2"), ("2026-04-01", "o3"), ("2026-04-02", "o4")] {
        shop.order(at, "u", order, "10");
    }
    assert_eq!(shop.entries().len(), 4, "two a month complete nothing");
    shop.order("2026-04-03", "u", "o5", "10").order("2026-04-04", "u", "o6", "10").order("2026-04-05", "u", "o7", "10");
    assert_eq!(
        shop.entries(),
        [
            "order:o5 earn +10/+10 → 50/50 bronze",
            "challenge:three_purchases:2026-04 bonus +50/+50 → 100/100 bronze",
            "order:o6 earn +10/+10 → 110/110 bronze",
            "order:o7 earn +10/+10 → 120/120 bronze",
        ]
    );
    let told = shop.told(&["challenge_completed"]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].2["month"], "2026-04");
}

#[test]
fn an_order_that_comes_late_counts_in_the_month_of_its_event_time() {
    let mut shop = Shop::new();
    for (at, order) in [("2026-03-30", "o1"), ("2026-03-31", "o2"), ("2026-04-01", "o3"), ("2026-03-31T12:00", "o4")] {
        shop.order(at, "u", order, "10");
    }
    assert_eq!(shop.entries().last().unwrap(), "challenge:three_purchases:2026-03 bonus +50/+50 → 90/90 bronze");
}

#[test]
fn months_are_those_of_the_shop_s_zone() {
    let mut shop = Shop::configured(json!({"shop": {"timezone": "Asia/Tokyo"}}));
    shop.order("2026-02-28T15:00", "u", "o1", "10").order("2026-03-05", "u", "o2", "10").order("2026-03-31T14:59", "u", "o3", "10");
    assert_eq!(shop.entries().last().unwrap(), "challenge:three_purchases:2026-03 bonus +50/+50 → 80/80 bronze");
}

#[test]
fn the_bonus_is_not_multiplied_and_the_tier_is_looked_at_after_both() {
    let mut shop = Shop::new();
    shop.order("2026-03-01", "u", "o1", "480").order("2026-03-02", "u", "o2", "0").order("2026-03-03", "u", "o3", "30");
    let entries = shop.entries();
    assert_eq!(
        entries[2..],
        ["order:o3 earn +30/+30 → 510/510 silver", "challenge:three_purchases:2026-03 bonus +50/+50 → 560/560 silver"]
    );
    assert_eq!(shop.told_of("tier_upgraded", "lifetime_points"), ["560"]);
    shop.order("2026-04-01", "u", "p1", "0").order("2026-04-02", "u", "p2", "0").order("2026-04-03", "u", "p3", "0");
    assert_eq!(shop.entries().last().unwrap(), "challenge:three_purchases:2026-04 bonus +50/+50 → 610/610 silver");
}

#[test]
fn a_refund_does_not_undo_the_bonus_and_comes_after_it_when_it_waited() {
    let mut shop = Shop::new();
    shop.refund("2026-03-01", "u", "r1", json!({"order_id": "o3"}));
    shop.order("2026-03-02", "u", "o1", "10").order("2026-03-02", "u", "o2", "10").order("2026-03-02", "u", "o3", "10");
    let entries = shop.entries();
    assert_eq!(
        entries[2..],
        [
            "order:o3 earn +10/+10 → 30/30 bronze",
            "challenge:three_purchases:2026-03 bonus +50/+50 → 80/80 bronze",
            "refund:r1 refund -10/-10 → 70/70 bronze",
        ]
    );
}

#[test]
fn the_built_in_challenge_can_be_switched_off() {
    let mut shop = Shop::with(plain());
    for order in ["o1", "o2", "o3"] {
        shop.order("2026-03-01", "u", order, "10");
    }
    assert_eq!(shop.sums("u").0, 30);
}

#[test]
fn a_shop_s_own_challenge_for_spending_completes_with_the_order_that_reaches_it() {
    let mut shop = Shop::with(rules(json!({"big": {"name": "Big month", "points": 30, "goal": "spend", "target": "99.50"}})));
    shop.order("2026-03-01", "u", "o1", "99.49").order("2026-03-02", "u", "o2", "0.01").order("2026-03-03", "u", "o3", "500");
    let entries = shop.entries();
    assert_eq!(entries[2], "challenge:big:2026-03 bonus +30/+30 → 129/129 bronze");
    assert_eq!(entries.len(), 4);
}

#[test]
fn a_challenge_of_the_topic_counts_pieces_of_a_category() {
    let mut shop = Shop::with(plain());
    shop.driver.global(Product { product_id: "oolong".into(), category: "tea".into(), ..Product::default() });
    let fields = json!({"name": "Tea", "points": 15, "goal": "category", "category": "tea", "target": 5, "colour": "green"});
    let fields = fields.as_object().unwrap().clone().into_iter().collect();
    shop.driver.global(Challenge { challenge_id: "tea".into(), fields, valid_from: None });
    let items = json!([{"product_id": "oolong", "quantity": 3, "price": 1}, {"product_id": "mug", "quantity": 9, "price": 1}]);
    shop.event("2026-03-01", "u", "order_completed", json!({"order_id": "o1", "items": items}));
    shop.event("2026-03-02", "u", "order_completed", json!({"order_id": "o2", "items": items}));
    assert_eq!(shop.entries().last().unwrap(), "challenge:tea:2026-03 bonus +15/+15 → 39/39 bronze");
}

#[test]
fn a_row_of_three_months_with_an_order_each_brings_its_bonus_and_a_new_row_begins() {
    let mut shop = Shop::with(rules(json!({"streak": {"points": 7, "goal": "streak", "target": 3}})));
    let months = ["2025-11", "2025-12", "2026-02", "2026-03", "2026-03", "2026-04", "2026-05", "2026-06", "2026-07"];
    for (i, month) in months.iter().enumerate() {
        shop.order(&format!("{month}-15T0{i}:00"), "u", &format!("o{i}"), "1");
    }
    let bonuses: Vec<_> = shop.updates().into_iter().map(|u| u.entry_id).filter(|id| id.starts_with("challenge")).collect();
    assert_eq!(bonuses, ["challenge:streak:2026-04", "challenge:streak:2026-07"]);
}
