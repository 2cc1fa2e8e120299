//! Subscriptions, from plans and events to entitlements, answers and boxes: every value here follows from the plans as
//! they are stated, worked out by hand.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{
    Decided, Story, Tillflow,
    compare::{embedded_log, outputs_in},
    until, with,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A day of 2026 at midnight, given as `04-01`.
fn on(day: &str) -> String {
    format!("2026-{day}T00:00:00.000Z")
}

fn subscription(story: &mut Story, user: &str, day: &str, action: &str, more: Value) {
    let event = json!({"user_id": user, "timestamp": on(day), "action": action, "event_id": format!("{user}-{day}-{action}")});
    story.tell("subscription_events", with(event, &more));
}

/// Plan, status and their end, of each record of entitlements.
fn standing(decided: &Decided, user: &str) -> Vec<String> {
    decided.told("entitlements", user, &["plan_id", "status", "since", "until"])
}

#[test]
fn each_built_in_plan_entitles_to_what_it_states() {
    let mut shop = Story::new();
    let plans = ["basic_box", "premium_box", "deluxe_box"];
    for plan in plans {
        subscription(&mut shop, plan, "04-01", "started", json!({"plan_id": plan, "subscription_id": "s"}));
    }
    let decided = shop.decide();
    for (plan, features) in plans.into_iter().zip([
        json!({"target_item_count": 4, "exclusive_item": false, "shipping_speed": "standard", "priority_shipping": false}),
        json!({
            "target_item_count": 6, "exclusive_item": true, "num_exclusive_items": 1, "shipping_speed": "standard",
            "early_access": true, "priority_shipping": false,
        }),
        json!({
            "target_item_count": 8, "exclusive_item": true, "num_exclusive_items": 3, "shipping_speed": "priority",
            "personalized_recommendations": true, "early_access": true, "dedicated_support": true, "priority_shipping": true,
        }),
    ]) {
        let (since, until) = (on("04-01"), on("05-01"));
        let expected = json!({"user_id": plan, "plan_id": plan, "status": "active", "features": features, "since": since, "until": until});
        assert_eq!(decided.of("entitlements", plan), [&expected]);
    }
}

#[test]
fn a_change_is_worth_the_difference_of_prices_for_what_is_left() {
    let mut shop = Story::new();
    // Half of April's 30 days are left: (99.99 − 29.99) / 2, (59.99 − 29.99) / 2; a lower plan waits for the renewal.
    for (user, from, to) in [("ann", "basic_box", "deluxe_box"), ("bob", "basic_box", "premium_box"), ("cleo", "deluxe_box", "basic_box")] {
        subscription(&mut shop, user, "04-01", "started", json!({"plan_id": from, "subscription_id": "s"}));
        subscription(&mut shop, user, "04-16", "changed", json!({"plan_id": to}));
        subscription(&mut shop, user, "05-01", "renewed", json!({"plan_id": ""}));
    }
    let decided = shop.decide();
    let change = |user: &str| decided.of("notifications", user).into_iter().find(|n| n["kind"] == "plan_changed").unwrap()["data"].clone();
    for (user, direction, proration, effective) in
        [("ann", "upgrade", "35.00", "04-16"), ("bob", "upgrade", "15.00", "04-16"), ("cleo", "downgrade", "0.00", "05-01")]
    {
        let data = change(user);
        assert_eq!(
            (&data["direction"], &data["proration"], &data["effective_at"]),
            (&json!(direction), &json!(proration), &json!(on(effective)))
        );
    }
    let plans = |user| decided.told("entitlements", user, &["plan_id", "since"]);
    assert_eq!(plans("ann")[..2], [format!("basic_box {}", on("04-01")), format!("deluxe_box {}", on("04-16"))]);
    let cleo = plans("cleo");
    assert_eq!((&cleo[0], cleo.last().unwrap()), (&format!("deluxe_box {}", on("04-01")), &format!("basic_box {}", on("05-01"))));
}

#[test]
fn without_a_renewal_a_subscription_is_past_due_for_seven_days_and_then_expired() {
    let mut shop = Story::new();
    let of = |plan: &str| json!({"plan_id": plan, "subscription_id": "s"});
    subscription(&mut shop, "ann", "04-01", "started", of("basic_box"));
    subscription(&mut shop, "bob", "04-01", "started", of("basic_box"));
    subscription(&mut shop, "bob", "04-30", "renewed", of("basic_box"));
    subscription(&mut shop, "bob", "05-10", "paused", of("basic_box"));
    subscription(&mut shop, "bob", "05-20", "resumed", of("basic_box"));
    subscription(&mut shop, "bob", "05-25", "cancelled", json!({"plan_id": "basic_box", "subscription_id": "s", "at_period_end": true}));
    subscription(
        &mut shop,
        "cleo",
        "04-01",
        "started",
        json!({"plan_id": "basic_box", "subscription_id": "s", "trial_until": on("04-15")}),
    );
    subscription(&mut shop, "cleo", "04-20", "cancelled", of("basic_box"));
    // The first payment fails: the seven days begin then.
    subscription(&mut shop, "dora", "04-01", "started", of("basic_box"));
    subscription(&mut shop, "dora", "04-05", "payment_failed", of("basic_box"));
    let decided = shop.until(&on("06-30")).decide();
    let line = |plan: &str, status: &str, since: &str, until: Option<&str>| {
        // A renewal at the period's very end is in time: what follows begins a moment later.
        let since = if status == "past_due" { on(since).replace(".000Z", ".001Z") } else { on(since) };
        format!("{plan} {status} {since} {}", until.map_or("null".to_owned(), on))
    };
    assert_eq!(
        standing(&decided, "ann"),
        [
            line("basic_box", "active", "04-01", Some("05-01")),
            line("basic_box", "past_due", "05-01", Some("05-08")),
            line("null", "expired", "05-08", None),
        ]
    );
    assert_eq!(decided.last("entitlements", "ann")["features"], json!({}));
    assert_eq!(
        standing(&decided, "bob"),
        [
            line("basic_box", "active", "04-01", Some("05-01")),
            line("basic_box", "active", "04-01", Some("06-01")),
            line("null", "paused", "05-10", None),
            line("basic_box", "active", "05-20", Some("06-01")),
            line("basic_box", "cancelled", "05-25", Some("06-01")),
            line("null", "cancelled", "06-01", None),
        ]
    );
    // A trial that nobody pays for is past due at its end.
    assert_eq!(
        standing(&decided, "cleo"),
        [
            line("basic_box", "trialing", "04-01", Some("04-15")),
            line("basic_box", "past_due", "04-15", Some("04-22")),
            line("null", "cancelled", "04-20", None),
        ]
    );
    assert_eq!(
        standing(&decided, "dora"),
        [
            line("basic_box", "active", "04-01", Some("05-01")),
            format!("basic_box past_due {} {}", on("04-05"), on("04-12")),
            line("null", "expired", "04-12", None),
        ]
    );
}

#[test]
fn the_newest_active_subscription_counts_and_a_tier_adds_to_it() {
    let mut shop = Story::new();
    // Its own plans, and a version bought: what is changed in June counts from the renewal on.
    let club = |seats: Value, from: Option<&str>| {
        json!({"plan_id": "club", "name": "Club", "price": "5", "interval": "month", "valid_from": from.map(on),
            "features": {"seats": seats, "free_shipping_over": "80"}})
    };
    shop.tell("plans", club(json!("2"), None)).tell("plans", club(json!(3), Some("04-10")));
    subscription(&mut shop, "ann", "04-01", "started", json!({"plan_id": "deluxe_box", "subscription_id": "old"}));
    subscription(&mut shop, "ann", "04-05", "started", json!({"plan_id": "club", "subscription_id": "new"}));
    subscription(&mut shop, "ann", "04-20", "cancelled", json!({"subscription_id": "new", "plan_id": "club"}));
    // Of two that start at one moment the last to arrive counts.
    for id in ["a", "b"] {
        let plan = if id == "a" { "premium_box" } else { "club" };
        subscription(&mut shop, "bob", "04-05", "started", json!({"plan_id": plan, "subscription_id": id, "event_id": id}));
    }
    subscription(&mut shop, "bob", "05-05", "renewed", json!({"plan_id": "club", "subscription_id": "b"}));
    // Silver: free shipping over 50, which is better than the club's 80.
    let order = json!({"event_type": "order_completed", "user_id": "bob", "order_id": "o", "total_amount": "600", "timestamp": on("04-07"), "items": []});
    shop.tell("user_events", order);
    let decided = shop.decide();
    assert_eq!(decided.told("entitlements", "ann", &["plan_id", "status"])[..3], ["deluxe_box active", "club active", "deluxe_box active"]);
    let seats: Vec<_> = decided.of("entitlements", "bob").into_iter().map(|e| (e["plan_id"].clone(), e["features"].clone())).collect();
    let club = |features: Value| (json!("club"), features);
    assert_eq!(seats[1..3], [club(json!({"seats": 2, "free_shipping_over": 80})), club(json!({"seats": 2, "free_shipping_over": 50}))]);
    assert_eq!(seats.last().unwrap(), &club(json!({"seats": 3, "free_shipping_over": 50})));
}

/// A shop that decides as soon as it can.
fn open_shop() -> Tillflow {
    let mut shop = Tillflow::run().set("time.grace.s", 0).set("subscriptions.boxes.cut_off_hours", 0).spawn();
    shop.wait_until_ready();
    shop
}

/// A product for boxes, or as `more` says, of which there are so many.
fn shelve(shop: &Tillflow, id: &str, stock: u32, more: Value) {
    let product = json!({"product_id": id, "name": id, "category": "tea", "base_price": "5", "box_eligible": true});
    assert_eq!(shop.post("/v1/topics/products", with(product, &more)).status(), 202);
    let stock = json!([{"product_id": id, "stock_level": stock, "last_updated": Timestamp::wall()}]);
    assert_eq!(shop.post("/v1/inventory", stock).status(), 202);
}

fn wait_for_stock(shop: &Tillflow, id: &str, stock: u32) {
    until("the stock is known", LIMIT, || shop.get(&format!("/v1/products/{id}")).json::<Value>().is_ok_and(|p| p["stock_level"] == stock));
}

/// One with so many exclusive and other products in stock.
fn shop_with_a_shelf(exclusives: usize, standard: usize) -> Tillflow {
    let shop = open_shop();
    let ids: Vec<_> = (0..exclusives).map(|n| format!("e{n}")).chain((0..standard).map(|n| format!("s{n:02}"))).collect();
    ids.iter().for_each(|id| shelve(&shop, id, 9, json!({"exclusive": id.starts_with('e')})));
    ids.iter().for_each(|id| wait_for_stock(&shop, id, 9));
    shop
}

/// What becomes now of a customer's subscription to the basic box, or of what `more` says.
fn subscribe(shop: &Tillflow, user: &str, action: &str, more: Value) {
    let event = json!({"user_id": user, "subscription_id": user, "plan_id": "basic_box", "action": action, "timestamp": Timestamp::wall()});
    assert_eq!(shop.post("/v1/topics/subscription_events", with(event, &more)).status(), 202);
}

/// The box of a customer, once it is packed: its products, exclusive ones marked.
fn packed(shop: &Tillflow, user: &str) -> Vec<String> {
    let mut contents = Value::Null;
    until("the box is packed", LIMIT, || {
        contents = shop.json(&format!("/v1/users/{user}/box"))["latest"].clone();
        contents["items"].as_array().is_some_and(|items| !items.is_empty())
    });
    assert_eq!(contents["period"], 0);
    let items = contents["items"].as_array().unwrap().iter();
    items.map(|i| format!("{}{}", i["product_id"].as_str().unwrap(), if i["exclusive"] == true { "*" } else { "" })).collect()
}

/// The draws are those of a ChaCha8 and a SHA-256 written down apart from this program: all twenty products by id,
/// shuffled, the exclusive ones first as the plan has them, then others to its number.
#[test]
fn a_box_holds_what_its_seed_draws_exclusives_first() {
    let shop = shop_with_a_shelf(5, 15);
    for (user, subscription, plan, contents) in [
        ("ann", "basic", "basic_box", "s10 s02 s03 s09"),
        ("bob", "premium", "premium_box", "e0* s14 s05 s03 s12 s13"),
        ("cleo", "deluxe", "deluxe_box", "e4* e0* e1* s01 s07 s11 s00 s09"),
    ] {
        subscribe(&shop, user, "started", json!({"subscription_id": subscription, "plan_id": plan}));
        assert_eq!(packed(&shop, user).join(" "), contents, "{plan}");
    }
    // Anywhere else it is the same.
    let another = shop_with_a_shelf(5, 15);
    subscribe(&another, "bob", "started", json!({"subscription_id": "premium", "plan_id": "premium_box"}));
    assert_eq!(packed(&another, "bob"), packed(&shop, "bob"));
}

#[test]
fn has_feature_takes_null_blank_false_in_any_case_and_zero_for_no() {
    let mut shop = Tillflow::run().set("time.grace.s", 0).spawn();
    shop.wait_until_ready();
    let no = [json!(null), json!(""), json!("  "), json!("false"), json!("FALSE"), json!(false), json!(0), json!("0"), json!("0.00")];
    let yes = [(json!("4"), json!(4)), (json!("True"), json!(true)), (json!("no"), json!("no")), (json!(-1), json!(-1))];
    let stated = no.iter().chain(yes.iter().map(|(stated, _)| stated)).enumerate();
    let features: serde_json::Map<_, _> = stated.map(|(n, value)| (format!("f{n}"), value.clone())).collect();
    let plan = json!({"plan_id": "club", "name": "Club", "price": "5", "interval": "month", "version": 1, "features": features});
    assert_eq!(shop.post("/v1/topics/plans", plan).status(), 202);
    let answer = |feature: &str| shop.json(&format!("/v1/users/ann/entitlements/{feature}"));
    assert_eq!(answer("f99"), json!({"feature": "f99", "has": false, "value": null, "because": "nothing gives it: no plan"}));
    subscribe(&shop, "ann", "started", json!({"plan_id": "club"}));
    until("the plan counts", LIMIT, || shop.json("/v1/users/ann/entitlements")["status"] == "active");
    for (n, value) in no.iter().enumerate() {
        assert_eq!(answer(&format!("f{n}"))["has"], false, "{value}");
    }
    for (n, (stated, typed)) in yes.iter().enumerate() {
        let answer = answer(&format!("f{}", no.len() + n));
        assert_eq!((&answer["has"], &answer["value"]), (&json!(true), typed), "{stated}");
        assert_eq!(answer["because"], "plan club (active)");
    }
}

#[test]
fn a_box_holds_only_what_is_for_boxes_in_stock_open_to_the_plan_and_not_had_lately_and_a_short_one_is_said() {
    let mut shop = open_shop();
    let days_ago = |days: u64| Timestamp::wall().minus(Duration::from_secs(days * 24 * 3600));
    for (order, product, days) in [("o1", "old", 61), ("o2", "bought", 59), ("o3", "returned", 10)] {
        let items = json!([{"product_id": product, "quantity": 1}]);
        let bought =
            json!({"event_type": "order_completed", "user_id": "ann", "order_id": order, "items": items, "timestamp": days_ago(days)});
        assert_eq!(shop.post("/v1/events", bought).status(), 202);
    }
    let cancelled = json!({"event_type": "order_cancelled", "user_id": "ann", "order_id": "o3", "timestamp": days_ago(9)});
    assert_eq!(shop.post("/v1/events", cancelled).status(), 202);
    for plan in ["club", "vips"] {
        let features = json!({"target_item_count": "10", "early_access": if plan == "vips" { "true" } else { "false" }});
        let plan = json!({"plan_id": plan, "name": plan, "price": "5", "interval": "month", "version": 1, "features": features});
        assert_eq!(shop.post("/v1/topics/plans", plan).status(), 202);
    }
    let tomorrow = Timestamp::wall() + Duration::from_secs(24 * 3600);
    let shelf = [
        ("good", 9, json!({})),
        ("old", 9, json!({})),
        ("returned", 9, json!({})),
        ("bought", 9, json!({})),
        ("sold_out", 0, json!({})),
        ("loose", 9, json!({"box_eligible": false})),
        ("gated", 9, json!({"early_access_until": tomorrow})),
    ];
    shelf.iter().for_each(|(id, stock, more)| shelve(&shop, id, *stock, more.clone()));
    shelf.iter().for_each(|(id, stock, _)| wait_for_stock(&shop, id, *stock));
    let sorted = |user: &str| {
        let mut items = packed(&shop, user);
        items.sort();
        items
    };
    subscribe(&shop, "ann", "started", json!({"plan_id": "club"}));
    assert_eq!(sorted("ann"), ["good", "old", "returned"]);
    // Early access opens what is not on sale yet; and others bought nothing.
    subscribe(&shop, "bob", "started", json!({"plan_id": "vips"}));
    assert_eq!(sorted("bob"), ["bought", "gated", "good", "old", "returned"]);
    // The next box would hold nothing of the last.
    assert_eq!(shop.json("/v1/users/bob/box")["next"]["items"], json!([]));
    assert!(shop.stop().success());
    let decided = Decided(outputs_in(&embedded_log(&shop.files().join("tillflow-data"))));
    for (user, got) in [("ann", 3), ("bob", 5)] {
        let short = decided.of("notifications", user).into_iter().find(|n| n["kind"] == "box_short").map(|n| n["data"].clone());
        assert_eq!(short, Some(json!({"box_id": format!("{user}:0"), "period": 0, "wanted": 10, "got": got})));
    }
}

#[test]
fn a_box_comes_by_itself_when_its_period_begins_and_not_to_who_has_not_paid() {
    let shop = shop_with_a_shelf(0, 12);
    // Period 0 begins with the trial's end, in two seconds.
    let trial_until = Timestamp::wall() + Duration::from_secs(2);
    for user in ["ann", "bob"] {
        subscribe(&shop, user, "started", json!({"trial_until": trial_until}));
    }
    subscribe(&shop, "ann", "renewed", json!({}));
    until("both trials count", LIMIT, || {
        ["ann", "bob"].iter().all(|user| shop.json(&format!("/v1/users/{user}/entitlements"))["plan_id"] == "basic_box")
    });
    assert_eq!(packed(&shop, "ann").len(), 4);
    assert_eq!(shop.json("/v1/users/ann/box")["latest"]["at"], json!(trial_until));
    until("the other one's trial is over", LIMIT, || shop.json("/v1/users/bob/entitlements")["status"] == "past_due");
    assert_eq!(shop.json("/v1/users/bob/box")["latest"], Value::Null);
}

#[test]
fn a_box_holds_what_its_customer_wanted_instead_and_a_skipped_one_does_not_come() {
    let shop = shop_with_a_shelf(0, 12);
    let trial_until = Timestamp::wall() + Duration::from_secs(4);
    let next = |user: &str| shop.json(&format!("/v1/users/{user}/box"))["next"].clone();
    for user in ["ann", "bob"] {
        subscribe(&shop, user, "started", json!({"trial_until": trial_until}));
        subscribe(&shop, user, "renewed", json!({}));
        until("the next box can be seen", LIMIT, || next(user)["items"].as_array().is_some_and(|items| items.len() == 4));
    }
    let drawn: Vec<_> = (0..4).map(|n| next("ann")["items"][n]["product_id"].as_str().unwrap().to_owned()).collect();
    let wanted = (0..12).map(|n| format!("s{n:02}")).find(|id| !drawn.contains(id)).unwrap();
    subscribe(&shop, "ann", "swapped", json!({"from": drawn[1], "to": wanted}));
    subscribe(&shop, "bob", "skipped", json!({}));
    assert_eq!(packed(&shop, "ann"), [&drawn[0], &wanted, &drawn[2], &drawn[3]].map(String::as_str));
    until("the period of the skipped box has begun", LIMIT, || next("bob")["period"] == 1);
    assert_eq!(shop.json("/v1/users/bob/box")["latest"], Value::Null);
}
