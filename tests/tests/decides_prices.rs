//! Prices, from a shop's records to `price_changes` and `product_prices`: every figure here is worked out by hand from
//! the formulas, in the comment beside it.

use serde_json::{Value, json};
use tillflow_schemas::Timestamp;
use tillflow_tests::{Decided, Story, with};

/// On 1 March 2026.
fn at(time: &str) -> String {
    format!("2026-03-01T{time}:00.000Z")
}

/// A product at 100, with more that is known of it.
fn product(story: &mut Story, id: &str, more: Value) {
    story.tell("products", with(json!({"product_id": id, "name": id, "category": "tea", "base_price": "100", "currency": "EUR"}), &more));
}

fn stock(story: &mut Story, id: &str, level: i64, time: &str) {
    story.tell("inventory", json!({"product_id": id, "stock_level": level, "last_updated": time}));
}

fn rule(story: &mut Story, value: Value) {
    story.tell("pricing_rules", value);
}

/// New price and reason of each change.
fn changes(decided: &Decided, product: &str) -> Vec<String> {
    decided.told("price_changes", product, &["new_price", "reason"])
}

#[test]
fn base_100_current_100_score_2_stock_15_becomes_110() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "product:pot", "version": 3, "demand_score": 2}));
    rule(&mut shop, json!({"scope": "product:cup", "demand_score": 10}));
    for id in ["pot", "cup"] {
        product(&mut shop, id, json!({}));
        stock(&mut shop, id, 15, &at("10:00"));
    }
    let decided = shop.decide();
    // current + base·0.05·score = 100 + 100·0.05·2.
    assert_eq!(
        decided.of("price_changes", "pot"),
        [&json!({
            "product_id": "pot", "old_price": "100.00", "new_price": "110.00", "currency": "EUR", "reason": "Low stock (15)",
            "demand_score": 2.0, "stock_level": 15, "rule": "product:pot@3", "mode": "live", "decided_at": at("10:00"),
        })]
    );
    assert_eq!(
        decided.of("product_prices", "pot"),
        [
            &json!({"product_id": "pot", "price": "100.00", "currency": "EUR", "since": "2000-01-01T00:00:00.000Z"}),
            &json!({"product_id": "pot", "price": "110.00", "currency": "EUR", "since": at("10:00")}),
        ]
    );
    // 100 + 100·0.05·10 = 150, bounded to 15 % above.
    let cup = decided.last("price_changes", "cup");
    assert_eq!((&cup["new_price"], &cup["bounded_by"]), (&json!("115.00"), &json!(["max_change"])));
}

/// Events of so many shoppers, each once, at a time of the day.
fn shoppers(shop: &mut Story, product: &str, event_type: &str, count: u32, time: &str, more: Value) {
    for n in 0..count {
        let user = format!("{product}-{n}");
        let mut event = json!({"event_type": event_type, "user_id": user, "timestamp": at(time), "product_id": product});
        if event_type == "order_completed" {
            event["order_id"] = json!(format!("{product}-{time}-{n}"));
            event["items"] = json!([{"product_id": product, "quantity": 3, "price": "1.00"}]);
        }
        shop.tell("user_events", with(event, &more));
    }
}

/// A refund, or as `more` says, of the order that one of those shoppers placed at 09:50.
fn undone(shop: &mut Story, product: &str, shopper: u32, time: &str, more: Value) {
    let (user, order) = (format!("{product}-{shopper}"), format!("{product}-09:50-{shopper}"));
    shop.tell(
        "user_events",
        with(json!({"event_type": "order_refunded", "user_id": user, "refund_id": "r", "order_id": order, "timestamp": at(time)}), &more),
    );
}

#[test]
fn the_demand_score_is_made_of_views_adds_checkouts_and_orders_and_fades() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "default", "multiplier": 0.01}));
    let mut expected = Vec::new();
    let mut sells = |shop: &mut Story, id: &'static str, score: f64, price: &'static str| {
        product(shop, id, json!({}));
        stock(shop, id, 15, &at("10:00"));
        expected.push((id, score, price));
    };
    // The decision is at 10:00; the bucket from 09:45 ends then, so nothing of it has faded. Score = 10·(1 − 2^(−(S·c/50 + v/10))).
    // S = 50·1; C = 0.4/(50 + 20), c = C/0.02 = 0.29, at least 0.5: 10·(1 − 2^−0.5) = 2.93.
    sells(&mut shop, "viewed", 2.9, "102.90");
    shoppers(&mut shop, "viewed", "product_viewed", 50, "09:50", json!({}));
    // S = 20·1.5, c = 0.5: 10·(1 − 2^−0.3) = 1.88.
    sells(&mut shop, "looked_at_long", 1.9, "101.90");
    shoppers(&mut shop, "looked_at_long", "product_viewed", 20, "09:50", json!({"dwell_ms": 30_000}));
    // S = 10·3; no view: C = 0.4/20, c = 1: 10·(1 − 2^−0.6) = 3.40. An event counts once whatever its quantity.
    sells(&mut shop, "added", 3.4, "103.40");
    shoppers(&mut shop, "added", "added_to_cart", 10, "09:50", json!({"quantity": 7}));
    // Added six hours before: 5·3 counts half. S = 7.5 + 5·5, c = 1: 10·(1 − 2^−0.65) = 3.63.
    sells(&mut shop, "checked_out", 3.6, "103.60");
    shoppers(&mut shop, "checked_out", "added_to_cart", 5, "03:50", json!({}));
    shoppers(&mut shop, "checked_out", "checkout_started", 5, "09:50", json!({"product_id": null, "cart_id": "c"}));
    // S = 2·10; C = 2.4/20, c = 6, at most 2; v = 6/3: 10·(1 − 2^−(0.8 + 0.2)) = 5, printed without a decimal.
    sells(&mut shop, "ordered", 5.0, "105.00");
    shoppers(&mut shop, "ordered", "order_completed", 2, "09:50", json!({}));
    // The same six hours before: S = 10, v = 2: 10·(1 − 2^−(0.4 + 0.2)) = 3.40.
    sells(&mut shop, "ordered_early", 3.4, "103.40");
    shoppers(&mut shop, "ordered_early", "order_completed", 2, "03:50", json!({}));
    // One of the two cancelled: S = 10, C = 1.4/20, c = 2; v = 1: 10·(1 − 2^−(0.4 + 0.1)) = 2.93.
    sells(&mut shop, "cancelled", 2.9, "102.90");
    shoppers(&mut shop, "cancelled", "order_completed", 2, "09:50", json!({}));
    undone(&mut shop, "cancelled", 0, "09:55", json!({"event_type": "order_cancelled"}));
    // The same where the cancellation came first; and where what came first was the refund of one of two times three pieces,
    // for which the order still stands: S = 20, v = 5/3: 10·(1 − 2^(−(0.8 + 0.167))) = 4.88.
    sells(&mut shop, "cancelled_early", 2.9, "102.90");
    undone(&mut shop, "cancelled_early", 0, "09:46", json!({"event_type": "order_cancelled"}));
    shoppers(&mut shop, "cancelled_early", "order_completed", 2, "09:50", json!({}));
    sells(&mut shop, "returned_early", 4.9, "104.90");
    let one_piece = json!([{"product_id": "returned_early", "quantity": 1, "price": "1.00"}]);
    undone(&mut shop, "returned_early", 1, "09:46", json!({"items": one_piece}));
    shoppers(&mut shop, "returned_early", "order_completed", 2, "09:50", json!({}));
    // One shopper who looks again and again is one view in 30 minutes: S = 1, c·1/50 = (0.4/21/0.02)/50 = 0.019: 0.13.
    sells(&mut shop, "reloaded", 0.1, "100.10");
    for minute in 46..56 {
        shoppers(&mut shop, "reloaded", "product_viewed", 1, &format!("09:{minute}"), json!({}));
    }
    // The bucket from 10:00 is open when the decision is made.
    sells(&mut shop, "too_late", 0.0, "100.00");
    shoppers(&mut shop, "too_late", "order_completed", 2, "10:00", json!({}));
    shop.tell("user_events", json!({"event_type": "page_viewed", "user_id": "x", "timestamp": at("10:00")}));
    let decided = shop.decide();
    for (id, score, price) in expected {
        // 100 + 100·0.01·score; less than half a per cent is no change.
        let change = decided.of("price_changes", id);
        if score < 0.5 {
            assert!(change.is_empty(), "{id}: {change:?}");
            continue;
        }
        assert_eq!((&change[0]["demand_score"], &change[0]["new_price"]), (&json!(score), &json!(price)), "{id}");
        assert_eq!(change.len(), 1, "{id}");
    }
    // Low stock has lifted the price to the most by then, and three days later nothing of the demand is left: 100 is asked
    // for, 127.50 is 15 % below 150.
    stock(&mut shop, "ordered", 60, "2026-03-04T11:00:00Z");
    let decided = shop.decide();
    let last = decided.told("price_changes", "ordered", &["old_price", "new_price", "reason"]).pop();
    assert_eq!(last, Some("150.00 127.50 Moderate stock (60), demand score: 0".into()));
}

#[test]
fn moderate_stock_goes_by_the_score_once_an_hour_each_product_at_its_own_second() {
    let mut shop = Story::new();
    for (id, score) in [("pot", 3.0), ("cup", 3.4)] {
        rule(&mut shop, json!({"scope": format!("product:{id}"), "demand_score": score, "max_change": 0.5}));
        product(&mut shop, id, json!({}));
        stock(&mut shop, id, 60, &at("10:00"));
    }
    let decided = shop.until(&at("15:00")).decide();
    // base + base·0.05·score, and the same an hour later: no change.
    assert_eq!(changes(&decided, "pot"), ["115.00 Moderate stock (60), demand score: 3"]);
    assert_eq!(changes(&decided, "cup"), ["117.00 Moderate stock (60), demand score: 3.4"]);
    let decided_at = |id| decided.last("price_changes", id)["decided_at"].as_str().unwrap().to_owned();
    for id in ["pot", "cup"] {
        assert!(decided_at(id) > at("10:00") && decided_at(id) <= at("11:00"), "{}", decided_at(id));
    }
    assert_ne!(decided_at("pot"), decided_at("cup"));
}

#[test]
fn high_stock_is_marked_down_once_a_day_where_a_floor_is_known_and_never_rises() {
    let mut shop = Story::new();
    product(&mut shop, "floored", json!({"cost": "60"}));
    product(&mut shop, "unknown", json!({}));
    product(&mut shop, "wanted", json!({"cost": "60"}));
    for id in ["floored", "unknown", "wanted"] {
        stock(&mut shop, id, 140, &at("10:00"));
    }
    // Three pieces in three days are one a day: demand is not low.
    shoppers(&mut shop, "wanted", "order_completed", 1, "09:50", json!({}));
    // "dropped" was low at 2 for a moment; a rule then says 0, later 1.
    product(&mut shop, "dropped", json!({}));
    stock(&mut shop, "dropped", 15, &at("10:00"));
    for (score, from) in [(2, "09:00"), (0, "10:30"), (1, "18:00")] {
        rule(&mut shop, json!({"scope": "product:dropped", "demand_score": score, "valid_from": at(from)}));
    }
    stock(&mut shop, "dropped", 140, &at("18:00"));
    let decided = shop.until("2026-03-02T11:30:00Z").decide();
    // 100·0.95, and after 24 hours 95·0.95.
    let low = "High stock (140), low demand";
    assert_eq!(changes(&decided, "floored"), [format!("95.00 {low}"), format!("90.25 {low}")]);
    let days: Vec<_> = decided.of("price_changes", "floored").iter().map(|c| c["decided_at"].as_str().unwrap().to_owned()).collect();
    assert!(days[0] == at("10:00") && days[1].as_str() >= "2026-03-02T10:00:00.000Z", "{days:?}");
    assert_eq!(changes(&decided, "unknown"), [""; 0], "no floor, no markdown, and demand lifts nothing");
    assert!(!changes(&decided, "wanted").contains(&format!("95.00 {low}")), "sold a piece a day");
    // min(110, 100 + 100·0.05·1).
    assert_eq!(changes(&decided, "dropped"), ["110.00 Low stock (15)", "105.00 High stock (140), demand score: 1"]);
}

#[test]
fn no_price_leaves_its_bounds_and_each_that_bites_is_named() {
    let mut shop = Story::new();
    let mut sells = |id: &str, level: i64, parameters: Value, more: Value| {
        rule(&mut shop, with(json!({"scope": format!("product:{id}")}), &parameters));
        product(&mut shop, id, more);
        stock(&mut shop, id, level, &at("10:00"));
    };
    // 110 is asked for.
    sells("most", 15, json!({"demand_score": 2}), json!({"max_price": "108"}));
    // A markdown asks for 95.
    sells("least", 140, json!({}), json!({"min_price": "98"}));
    sells("cost", 140, json!({}), json!({"cost": "97"}));
    sells("margin", 140, json!({"min_margin": 0.05}), json!({"cost": "94"}));
    // 150 is asked for: 115 is 15 % above; an hour later 175: 132.25 is 15 %, 125 is 25 % above the price a day ago.
    sells("twice", 15, json!({"demand_score": 10}), json!({}));
    // 300 is asked for, 200 allowed: 150 is half above the base.
    sells("far", 15, json!({"demand_score": 10, "multiplier": 0.2, "max_change": 1, "max_change_24h": 1}), json!({}));
    // 110 is asked for, .99 below it taken.
    sells("charming", 15, json!({"demand_score": 2, "charm_endings": [0.99]}), json!({}));
    // Less than half a per cent: 100.40.
    sells("little", 15, json!({"demand_score": 0.4, "multiplier": 0.01}), json!({}));
    for (id, parameters, more) in [
        ("fixed", json!({"demand_score": 9}), json!({"tags": ["price_fixed"]})),
        ("pinned", json!({"demand_score": 9, "pin": true}), json!({})),
        ("stopped", json!({"demand_score": 9, "kill_switch": true}), json!({})),
    ] {
        sells(id, 15, parameters, more);
    }
    sells("sold_out", 0, json!({"demand_score": 9}), json!({}));
    let decided = shop.until(&at("11:30")).decide();
    let first = |id: &str| decided.of("price_changes", id).first().map(|c| (c["new_price"].clone(), c["bounded_by"].clone()));
    for (id, price, bounds) in [
        ("most", "108.00", json!(["max_price"])),
        ("least", "98.00", json!(["min_price"])),
        ("cost", "97.00", json!(["cost_floor"])),
        ("margin", "98.70", json!(["cost_floor"])),
        ("twice", "115.00", json!(["max_change"])),
        ("far", "150.00", json!(["max_change", "base_range"])),
        ("charming", "109.99", json!(["charm"])),
    ] {
        assert_eq!(first(id), Some((json!(price), bounds)), "{id}");
    }
    for id in ["little", "fixed", "pinned", "stopped", "sold_out"] {
        assert_eq!(first(id), None, "{id}");
    }
    let second = decided.of("price_changes", "twice")[1];
    assert_eq!((&second["old_price"], &second["new_price"]), (&json!("115.00"), &json!("125.00")));
    assert_eq!(second["bounded_by"], json!(["max_change", "max_change_24h"]));
}

#[test]
fn a_crossing_is_decided_at_its_moment_and_in_a_cool_down_once_at_its_end() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "category:tea", "version": 1, "demand_score": 2}));
    product(&mut shop, "calm", json!({}));
    for (level, time) in [(60, "08:00"), (15, "12:30")] {
        stock(&mut shop, "calm", level, &at(time));
    }
    product(&mut shop, "busy", json!({}));
    for (level, time) in [(15, "10:00"), (60, "10:10"), (12, "10:20")] {
        stock(&mut shop, "busy", level, &at(time));
    }
    let decided = shop.until(&at("12:30")).decide();
    // The hourly 110 at moderate stock; then 110 + 10 as soon as stock is low.
    assert_eq!(changes(&decided, "calm"), ["110.00 Moderate stock (60), demand score: 2", "120.00 Low stock (15)"]);
    let crossed = decided.last("price_changes", "calm");
    assert_eq!((&crossed["decided_at"], &crossed["rule"]), (&json!(at("12:30")), &json!("category:tea@1")));
    // 110 at once, twice across the threshold in the hour after: once, when the hour is over, from the level of then.
    assert_eq!(changes(&decided, "busy")[..2], ["110.00 Low stock (15)", "120.00 Low stock (12)"]);
    assert_eq!(decided.of("price_changes", "busy")[1]["decided_at"], at("11:00"));
}

#[test]
fn stock_that_comes_before_its_product_is_a_crossing_when_the_product_comes() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "default", "demand_score": 2}));
    stock(&mut shop, "pot", 15, &at("10:00"));
    product(&mut shop, "pot", json!({"valid_from": at("10:20")}));
    let decided = shop.until(&at("10:20")).decide();
    assert_eq!(changes(&decided, "pot"), ["110.00 Low stock (15)"]);
    assert_eq!(decided.last("price_changes", "pot")["decided_at"], at("10:20"));
}

#[test]
fn a_stated_base_price_is_the_price_at_once_and_a_floor_raised_above_the_price_lifts_it() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "default", "demand_score": 0}));
    let prices = [("90", "50", "10:30"), ("90", "95", "11:10")];
    product(&mut shop, "pot", json!({"cost": "50"}));
    for (base, cost, from) in prices {
        product(&mut shop, "pot", json!({"base_price": base, "cost": cost, "valid_from": at(from)}));
    }
    stock(&mut shop, "pot", 60, &at("10:00"));
    let decided = shop.until(&at("11:10")).decide();
    let told = decided.told("price_changes", "pot", &["old_price", "new_price", "reason", "decided_at"]);
    let lifted = format!("90.00 95.00 Moderate stock (60), demand score: 0 {}", at("11:10"));
    assert_eq!(told, [format!("100.00 90.00 Base price changed {}", at("10:30")), lifted], "hard limits pass the hour's rest");
    let since = decided.last("product_prices", "pot")["since"].as_str().unwrap().to_owned();
    assert_eq!(Timestamp::parse(&since).unwrap().to_string(), at("11:10"));
}

#[test]
fn a_rule_on_trial_publishes_what_it_would_do_and_changes_nothing() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "default", "demand_score": 2, "mode": "shadow"}));
    product(&mut shop, "pot", json!({}));
    stock(&mut shop, "pot", 15, &at("10:00"));
    let decided = shop.until(&at("14:00")).decide();
    assert_eq!(decided.told("price_changes", "pot", &["new_price", "mode"]), ["110.00 shadow"], "said once");
    assert_eq!(decided.told("product_prices", "pot", &["price"]), ["100.00"]);
}

#[test]
fn rules_are_merged_field_by_field_and_amounts_rounded_half_to_even() {
    let mut shop = Story::new();
    rule(&mut shop, json!({"scope": "default", "demand_score": 2}));
    rule(&mut shop, json!({"scope": "category:tea", "multiplier": 0.1}));
    rule(&mut shop, json!({"scope": "product:pot", "max_change": 1}));
    // 2.505 and 2.515 are added.
    for (id, base) in [("pot", "100"), ("cup", "100"), ("down", "100.20"), ("up", "100.60")] {
        let category = if base == "100" { "tea" } else { "coffee" };
        product(&mut shop, id, json!({"base_price": base, "category": category}));
        stock(&mut shop, id, 15, &at("10:00"));
    }
    rule(&mut shop, json!({"scope": "category:coffee", "demand_score": 0.5}));
    let decided = shop.decide();
    let first = |id: &str| decided.of("price_changes", id)[0]["new_price"].clone();
    // 100 + 100·0.1·2: for the pot alone more than 15 % at once is allowed.
    assert_eq!((first("pot"), first("cup")), (json!("120.00"), json!("115.00")));
    assert_eq!((first("down"), first("up")), (json!("102.70"), json!("103.12")));
}

#[test]
fn a_price_that_rose_does_not_fall_within_six_hours_and_one_between_crossed_limits_stays() {
    let mut shop = Story::new();
    for (score, from) in [(2, "09:00"), (0, "11:00")] {
        rule(&mut shop, json!({"scope": "category:tea", "demand_score": score, "valid_from": at(from)}));
    }
    product(&mut shop, "pot", json!({}));
    stock(&mut shop, "pot", 15, &at("10:00"));
    stock(&mut shop, "pot", 60, &at("12:00"));
    // It must not be under its cost of 100, nor over 90.
    product(&mut shop, "torn", json!({"cost": "100", "max_price": "90"}));
    stock(&mut shop, "torn", 15, &at("10:00"));
    let decided = shop.until(&at("17:30")).decide();
    assert_eq!(changes(&decided, "pot"), ["110.00 Low stock (15)", "100.00 Moderate stock (60), demand score: 0"]);
    let fell = decided.last("price_changes", "pot")["decided_at"].as_str().unwrap().to_owned();
    assert!(fell >= at("16:00") && fell <= at("17:00"), "{fell}");
    assert_eq!(changes(&decided, "torn"), [""; 0]);
}

#[test]
fn what_is_refunded_weighs_nothing_and_growing_interest_is_no_low_demand() {
    let mut shop = Story::new();
    for id in ["kept", "returned"] {
        product(&mut shop, id, json!({}));
        shoppers(&mut shop, id, "order_completed", 4, "09:50", json!({}));
        stock(&mut shop, id, 60, &at("10:00"));
    }
    (0..4).for_each(|n| undone(&mut shop, "returned", n, "09:55", json!({})));
    // Looked at today as never before: no markdown, though the stock is high and a floor known.
    product(&mut shop, "watched", json!({"cost": "60"}));
    shoppers(&mut shop, "watched", "product_viewed", 10, "09:30", json!({}));
    stock(&mut shop, "watched", 140, &at("10:00"));
    let decided = shop.until(&at("11:30")).decide();
    assert!(decided.of("price_changes", "kept")[0]["demand_score"].as_f64() > Some(0.0));
    assert_eq!(changes(&decided, "returned"), [""; 0]);
    assert_eq!(changes(&decided, "watched"), [""; 0]);
}
