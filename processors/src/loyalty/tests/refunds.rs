//! Refunds and cancellations.

use super::{Shop, plain};
use serde_json::json;

#[test]
fn partial_refunds_of_an_order_take_their_share_and_the_last_one_takes_the_rest() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "499.99");
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "100"}));
    shop.refund("2026-03-03", "u", "r2", json!({"order_id": "o1", "amount": "100"}));
    shop.refund("2026-03-04", "u", "r3", json!({"order_id": "o1", "amount": "299.99"}));
    shop.refund("2026-03-05", "u", "r4", json!({"order_id": "o1", "amount": "50"}));
    assert_eq!(
        shop.entries(),
        [
            "order:o1 earn +499/+499 → 499/499 bronze",
            "refund:r1 refund -99/-99 → 400/400 bronze",
            "refund:r2 refund -100/-100 → 300/300 bronze",
            "refund:r3 refund -300/-300 → 0/0 bronze",
            "refund:r4 refund +0/+0 → 0/0 bronze",
        ]
    );
}

#[test]
fn a_refund_without_amount_is_that_of_its_items_and_without_items_that_of_the_whole_order() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100").order("2026-03-01", "u", "o2", "100");
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "items": [{"product_id": "p", "quantity": 2, "price": "12.50"}]}));
    shop.refund("2026-03-02", "u", "r2", json!({"order_id": "o2"}));
    let entries = shop.entries();
    assert_eq!(entries[2..], ["refund:r1 refund -25/-25 → 175/175 bronze", "refund:r2 refund -100/-100 → 75/75 bronze"]);
}

#[test]
fn a_refund_of_more_than_the_order_takes_no_more_than_it_earned() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100").order("2026-03-01", "u", "o2", "40");
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "1000"}));
    assert_eq!(shop.sums("u"), (40, 40, "bronze".into()));
}

#[test]
fn a_refund_comes_once_by_its_refund_id_else_by_its_event_id() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100");
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "10"}));
    shop.refund("2026-03-09", "u", "r1", json!({"order_id": "o1", "amount": "10"}));
    for at in ["2026-03-10", "2026-03-30"] {
        let fields = json!({"event_id": "same", "order_id": "o1", "amount": "10"});
        shop.event(at, "u", "order_refunded", fields);
    }
    let entries = shop.entries();
    assert_eq!(entries[1..], ["refund:r1 refund -10/-10 → 90/90 bronze", "refund:same refund -10/-10 → 80/80 bronze"]);
}

#[test]
fn a_refund_without_any_id_has_an_entry_of_its_own() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100");
    for _ in 0..2 {
        let event = json!({"event_type": "order_refunded", "user_id": "u", "amount": "10", "timestamp": "2026-03-02T00:00:00Z"});
        shop.driver.send_json("user_event", event);
    }
    let ids: std::collections::BTreeSet<_> = shop.updates().into_iter().map(|u| u.entry_id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(shop.sums("u"), (80, 80, "bronze".into()));
}

#[test]
fn a_refund_that_names_no_order_takes_what_its_amount_would_earn_now() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "500");
    shop.refund("2026-03-02", "u", "r1", json!({"amount": "10.50"}));
    shop.refund("2026-03-03", "u", "r2", json!({"amount": "10.50"}));
    shop.refund("2026-03-04", "u", "r3", json!({"items": [{"product_id": "p", "quantity": 2, "price": 5}]}));
    shop.refund("2026-03-05", "u", "r4", json!({}));
    let entries = shop.entries();
    assert_eq!(
        entries[1..],
        [
            "refund:r1 refund -13/-13 → 487/487 bronze",
            "refund:r2 refund -10/-10 → 477/477 bronze",
            "refund:r3 refund -10/-10 → 467/467 bronze",
            "refund:r4 refund +0/+0 → 467/467 bronze",
        ]
    );
    assert_eq!(shop.told_of("tier_downgraded", "to"), ["bronze"]);
}

#[test]
fn a_refund_that_names_no_order_takes_at_most_the_lifetime_points() {
    let mut shop = Shop::with(plain());
    shop.refund("2026-03-01", "u", "r0", json!({"amount": "70"}));
    shop.order("2026-03-01", "u", "o1", "50").refund("2026-03-02", "u", "r1", json!({"amount": "70"}));
    assert_eq!(
        shop.entries(),
        ["refund:r0 refund +0/+0 → 0/0 bronze", "order:o1 earn +50/+50 → 50/50 bronze", "refund:r1 refund -50/-50 → 0/0 bronze"]
    );
}

#[test]
fn a_refund_of_points_already_spent_leaves_the_balance_negative_and_new_earnings_fill_it_first() {
    let mut rules = plain();
    rules["rewards"] = json!({"mug": {"name": "A mug", "points": 80}});
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "100").command("2026-03-02", "u", "c1", "redeem", json!({"reward_id": "mug"}));
    shop.refund("2026-03-03", "u", "r1", json!({"order_id": "o1"}));
    shop.order("2026-03-04", "u", "o2", "50").command("2026-03-05", "u", "c2", "redeem", json!({"reward_id": "mug"}));
    shop.order("2026-03-06", "u", "o3", "60");
    assert_eq!(
        shop.entries(),
        [
            "order:o1 earn +100/+100 → 100/100 bronze",
            "command:c1 redeem -80/+0 → 20/100 bronze",
            "refund:r1 refund -100/-100 → -80/0 bronze",
            "order:o2 earn +50/+50 → -30/50 bronze",
            "command:c2 rejected +0/+0 → -30/50 bronze",
            "order:o3 earn +60/+60 → 30/110 bronze",
        ]
    );
    shop.advance("2027-04-01");
    assert_eq!(shop.entries(), ["expire:order:o3 expire -30/+0 → 0/110 bronze"], "what filled the gap can't expire too");
}

#[test]
fn a_refund_takes_its_own_order_s_points_before_others() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100").order("2026-04-01", "u", "o2", "100");
    shop.refund("2026-04-02", "u", "r1", json!({"order_id": "o2"})).advance("2027-03-02");
    let entries = shop.entries();
    assert_eq!(entries[3..], ["expire:order:o1 expire -100/+0 → 0/100 bronze"]);
}

#[test]
fn what_of_the_order_s_points_has_expired_is_not_taken_from_the_balance_again() {
    let mut rules = plain();
    rules["rewards"] = json!({"mug": {"name": "A mug", "points": 40}});
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "100").command("2026-03-02", "u", "c1", "redeem", json!({"reward_id": "mug"}));
    shop.order("2027-02-28", "u", "o2", "200").advance("2027-03-02");
    shop.refund("2027-03-03", "u", "r1", json!({"order_id": "o1", "amount": "50"}));
    shop.refund("2027-03-04", "u", "r2", json!({"order_id": "o1", "amount": "50"}));
    let entries = shop.entries();
    assert_eq!(
        entries[2..],
        [
            "order:o2 earn +200/+200 → 260/300 bronze",
            "expire:order:o1 expire -60/+0 → 200/300 bronze",
            "refund:r1 refund +0/-50 → 200/250 bronze",
            "refund:r2 refund -40/-50 → 160/200 bronze",
        ]
    );
}

#[test]
fn a_refund_before_its_order_waits_and_is_applied_right_after_the_order_s_earning() {
    let mut shop = Shop::with(plain());
    shop.refund("2026-03-01", "u", "r1", json!({"order_id": "o1", "amount": "150"}));
    shop.refund("2026-03-02", "u", "r2", json!({"order_id": "o1", "amount": "50"}));
    assert!(shop.entries().is_empty());
    shop.order("2026-03-30", "u", "o1", "600").advance("2026-05-30");
    assert_eq!(
        shop.entries(),
        [
            "order:o1 earn +600/+600 → 600/600 silver",
            "refund:r1 refund -150/-150 → 450/450 bronze",
            "refund:r2 refund -50/-50 → 400/400 bronze",
        ]
    );
    let tiers = shop.told(&["tier_upgraded", "tier_downgraded"]);
    let kinds: Vec<_> = tiers.iter().map(|t| t.1.as_str()).collect();
    assert_eq!(kinds, ["tier_upgraded", "tier_downgraded"], "as if the refunds had come right after it");
    assert!(shop.failures().is_empty());
}

#[test]
fn a_refund_whose_order_does_not_come_within_thirty_days_is_a_dead_letter() {
    let mut shop = Shop::with(plain());
    shop.refund("2026-03-01", "u", "r1", json!({"order_id": "o1", "amount": "15"}));
    shop.advance("2026-03-30T23:59");
    assert!(shop.failures().is_empty());
    shop.advance("2026-03-31");
    let failures = shop.failures();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("refund r1 ") && failures[0].contains("names order o1") && failures[0].contains("15"), "{failures:?}");
    shop.order("2026-04-01", "u", "o1", "100");
    assert_eq!(shop.entries(), ["order:o1 earn +100/+100 → 100/100 bronze"], "it is gone for good");
}

#[test]
fn a_refund_that_names_another_user_s_order_ends_as_a_dead_letter() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100").refund("2026-03-02", "v", "r1", json!({"order_id": "o1"})).advance("2026-04-30");
    assert_eq!(shop.entries(), ["order:o1 earn +100/+100 → 100/100 bronze"]);
    assert!(shop.failures()[0].contains("user v did not place"));
}

#[test]
fn a_refund_in_a_currency_without_a_rate_is_refused_before_it_waits() {
    let mut shop = Shop::configured(json!({"loyalty": plain(), "shop": {"currency": "EUR"}}));
    shop.refund("2026-03-01", "u", "r1", json!({"order_id": "o1", "amount": "15", "currency": "USD"}));
    assert!(shop.failures()[0].contains("shop.rates.USD"));
}

#[test]
fn refunds_that_wait_are_bounded() {
    let mut shop = Shop::with(plain());
    for i in 0..=1_000 {
        shop.refund("2026-03-01", "u", &format!("r{i}"), json!({"order_id": format!("o{i}")}));
    }
    assert_eq!(shop.failures().len(), 1);
}

#[test]
fn a_tier_lost_by_a_refund_is_told_and_the_next_order_earns_the_lower_tier_s_points() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "520").refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "100"}));
    shop.order("2026-03-03", "u", "o2", "10");
    let entries = shop.entries();
    assert_eq!(entries[1..], ["refund:r1 refund -100/-100 → 420/420 bronze", "order:o2 earn +10/+10 → 430/430 bronze"]);
    let told = shop.told(&["tier_downgraded"]);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].2["from"].as_str(), told[0].2["to"].as_str()), (Some("silver"), Some("bronze")));
}

#[test]
fn a_cancelled_order_loses_its_points_as_if_refunded_whole() {
    let mut shop = Shop::with(plain());
    shop.event("2026-03-01", "u", "order_cancelled", json!({"order_id": "o2"}));
    shop.order("2026-03-01", "u", "o1", "100").refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "30"}));
    shop.event("2026-03-03", "u", "order_cancelled", json!({"order_id": "o1"}));
    shop.refund("2026-03-04", "u", "r2", json!({"order_id": "o1"}));
    shop.order("2026-03-05", "u", "o2", "10");
    assert_eq!(
        shop.entries(),
        [
            "order:o1 earn +100/+100 → 100/100 bronze",
            "refund:r1 refund -30/-30 → 70/70 bronze",
            "cancel:o1 refund -70/-70 → 0/0 bronze",
            "refund:r2 refund +0/+0 → 0/0 bronze",
            "order:o2 earn +10/+10 → 10/10 bronze",
            "cancel:o2 refund -10/-10 → 0/0 bronze",
        ]
    );
}
