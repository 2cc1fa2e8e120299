//! Orders, tiers and multipliers.

use super::{Shop, moment, plain};
use serde_json::json;
use tillflow_schemas::{Product, Record};

#[test]
fn an_order_is_multiplied_by_the_tier_before_it() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "499.99").order("2026-03-02", "u", "o2", "1.00").order("2026-03-03", "u", "o3", "100");
    assert_eq!(
        shop.entries(),
        ["order:o1 earn +499/+499 → 499/499 bronze", "order:o2 earn +1/+1 → 500/500 silver", "order:o3 earn +125/+125 → 625/625 silver",]
    );
    assert_eq!(shop.told_of("tier_upgraded", "to"), ["silver"]);
    let now = shop.loyalty("u");
    assert_eq!(
        now,
        json!({"user_id": "u", "balance": 625, "lifetime_points": 625, "tier": "silver", "next_tier": "gold", "points_to_next": 1375,
            "pending": 0})
    );
}

#[test]
fn one_order_through_several_tiers_tells_of_the_highest_once() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "6000");
    let told = shop.told(&["tier_upgraded"]);
    assert_eq!(told.len(), 1);
    let data = &told[0].2;
    assert_eq!((data["from"].as_str(), data["to"].as_str()), (Some("bronze"), Some("platinum")));
    assert_eq!(data["benefits"]["free_shipping_over"], "50");
    let top = shop.loyalty("u");
    assert_eq!((&top["tier"], &top["next_tier"], &top["points_to_next"]), (&json!("platinum"), &json!(null), &json!(null)));
}

#[test]
fn an_order_comes_once_whatever_its_event_id_and_each_user_has_their_own() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "10").order("2026-03-20", "u", "o1", "10").order("2026-03-20", "v", "o1", "20");
    assert_eq!(shop.entries(), ["order:o1 earn +10/+10 → 10/10 bronze", "order:o1 earn +20/+20 → 20/20 bronze"]);
}

#[test]
fn a_total_is_as_given_else_the_sum_of_its_items_else_nothing_and_has_an_entry() {
    let mut shop = Shop::with(plain());
    let items = json!([{"product_id": "p", "quantity": 3, "price": "9.99"}, {"product_id": "q", "price": 0.5}]);
    shop.event("2026-03-01", "u", "order_completed", json!({"order_id": "o1", "total_amount": "25", "items": items}));
    shop.event("2026-03-01", "u", "order_completed", json!({"order_id": "o2", "items": items}));
    let unpriced = json!([{"product_id": "p", "quantity": 3, "price": "9.99"}, {"product_id": "q"}]);
    shop.event("2026-03-01", "u", "order_completed", json!({"order_id": "o3", "items": unpriced}));
    let points: Vec<_> = shop.updates().iter().map(|u| u.points).collect();
    assert_eq!(points, [25, 30, 0]);
}

#[test]
fn money_of_other_currencies_is_converted_or_refused() {
    let mut shop = Shop::configured(json!({"loyalty": plain(), "shop": {"currency": "EUR", "rates": {"USD": "0.5"}}}));
    let order = |id: &str, currency: &str| json!({"order_id": id, "total_amount": "100", "currency": currency});
    shop.event("2026-03-01", "u", "order_completed", order("o1", "USD"));
    shop.event("2026-03-01", "u", "order_completed", order("o2", "GBP"));
    assert_eq!(shop.entries(), ["order:o1 earn +50/+50 → 50/50 bronze"]);
    assert!(shop.failures()[0].contains("shop.rates.GBP"));
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "50"}));
    assert_eq!(shop.entries(), ["refund:r1 refund -25/-25 → 25/25 bronze"], "a refund without a currency has its order's");
}

#[test]
fn a_total_beyond_what_points_can_count_is_refused() {
    let mut shop = Shop::with(plain());
    let items: Vec<_> = (0..10_000).map(|_| json!({"product_id": "p", "quantity": 1_000_000, "price": 1_000_000_000_000_u64})).collect();
    shop.event("2026-03-01", "u", "order_completed", json!({"order_id": "o1", "items": items}));
    assert!(shop.updates().is_empty());
    assert!(shop.failures()[0].contains("more than points can count"));
}

#[test]
fn a_shop_has_its_own_tiers_also_by_what_was_spent() {
    let tiers = json!([
        {"name": "guest", "from": 0, "multiplier": 1},
        {"name": "friend", "from": 100, "multiplier": "1.1", "benefits": {"tea": true}},
    ]);
    let mut rules = plain();
    rules["tiers"] = tiers;
    rules["tier_by"] = json!("net_spend");
    rules["birthday"] = json!({"points": 0});
    let mut shop = Shop::with(rules);
    shop.command("2026-03-01", "u", "c1", "adjust", json!({"points": 500, "note": "welcome"}));
    assert_eq!(shop.entries(), ["command:c1 adjust +500/+500 → 500/500 guest"], "points do not decide here");
    shop.order("2026-03-01", "u", "o1", "100").order("2026-03-02", "u", "o2", "100");
    assert_eq!(shop.entries(), ["order:o1 earn +100/+100 → 600/600 friend", "order:o2 earn +110/+110 → 710/710 friend"]);
    shop.refund("2026-03-03", "u", "r1", json!({"order_id": "o1"})).refund("2026-03-03", "u", "r2", json!({"amount": "0.50"}));
    assert_eq!(shop.told_of("tier_downgraded", "to"), ["guest"]);
}

#[test]
fn a_week_of_double_points_for_tea_and_none_for_gift_cards() {
    let mut rules = plain();
    rules["earning"] = json!({
        "rules": [{"multiplier": 2, "categories": ["tea"], "from": moment("2026-03-01"), "until": moment("2026-03-08")}],
        "exclude_products": ["card"], "review_points": 5, "signup_points": 20,
    });
    let mut shop = Shop::with(rules);
    shop.driver.global(Product { product_id: "oolong".into(), category: "tea".into(), ..Product::default() });
    shop.event("2026-03-01", "u", "signed_up", json!({})).event("2026-03-01", "u", "signed_up", json!({}));
    let items = json!([{"product_id": "oolong", "price": 10}, {"product_id": "card", "price": 50}, {"product_id": "mug", "price": 7}]);
    shop.event("2026-03-02", "u", "order_completed", json!({"order_id": "o1", "items": items}));
    shop.event("2026-03-08", "u", "order_completed", json!({"order_id": "o2", "items": items}));
    for product in ["mug", "mug", "oolong"] {
        shop.event("2026-03-09", "u", "product_reviewed", json!({"product_id": product, "rating": 5}));
    }
    let points: Vec<_> = shop.updates().iter().map(|u| (u.entry_id.clone(), u.points)).collect();
    let expected = [("signup", 20), ("order:o1", 27), ("order:o2", 17), ("review:mug", 5), ("review:oolong", 5)];
    assert_eq!(points, expected.map(|(id, p)| (id.to_owned(), p)));
}

#[test]
fn an_update_carries_its_order_and_when() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01T10:30", "u", "o1", "10");
    let update = shop.updates().remove(0);
    assert_eq!(update.order_id, Some("o1".into()));
    assert_eq!(update.at, moment("2026-03-01T10:30"));
    assert_eq!(update.key(), "u");
    assert_eq!(update.note, "10 points for 10");
}
