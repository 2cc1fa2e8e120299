//! Commands over HTTP, through the whole program: each with its answer.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_tests::{Kafka, Tillflow, until};

const LIMIT: Duration = Duration::from_secs(60);

fn shop() -> Tillflow {
    let mut shop = Tillflow::run().set("time.grace.s", 0).set("loyalty.secret", "secret").spawn();
    shop.wait_until_ready();
    shop
}

/// A POST with its status and answer.
fn post(shop: &Tillflow, path: &str, body: Value) -> (u16, Value) {
    let answer = shop.post(path, body);
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().unwrap()).unwrap())
}

#[test]
fn points_are_spent_and_spins_are_spun_once_each_with_an_answer() {
    let shop = shop();
    assert_eq!(post(&shop, "/v1/topics/rewards", json!([{"reward_id": "mug", "name": "Mug", "points": 200}])).0, 202);
    let order = json!({"event_type": "order_completed", "user_id": "ada", "order_id": "o1", "total_amount": "300.00",
        "items": [{"product_id": "tea", "quantity": 1}]});
    assert_eq!(post(&shop, "/v1/events", order).0, 202);
    until("points", LIMIT, || shop.json("/v1/users/ada/loyalty")["balance"] == 300);

    let redeem = |id: &str| post(&shop, "/v1/users/ada/loyalty/redeem", json!({"reward_id": "mug", "command_id": id}));
    let (status, answer) = redeem("c1");
    assert_eq!((status, &answer["entry"]["kind"], &answer["entry"]["balance"]), (200, &json!("redeem"), &json!(100)), "{answer}");
    // The same command again is the same answer, and nothing more is spent.
    assert_eq!(redeem("c1").1["entry"]["entry_id"], answer["entry"]["entry_id"]);
    let (status, refused) = redeem("c2");
    assert_eq!(status, 409, "{refused}");
    assert_eq!(refused["error"]["message"], "Mug costs 200 points; 100 can be spent");
    assert_eq!(shop.json("/v1/users/ada/loyalty")["balance"], 100);

    let spin = |id: &str, command: &str| post(&shop, "/v1/users/ada/loyalty/spin", json!({"spin_id": id, "command_id": command}));
    let (status, won) = spin("spin:1:o1", "s1");
    assert_eq!((status, &won["entry"]["kind"]), (200, &json!("bonus")), "{won}");
    assert!(won["entry"]["points"].as_i64().unwrap() >= 10);
    let (status, used) = spin("spin:1:o1", "s2");
    assert_eq!((status, used["error"]["message"].as_str()), (409, Some("spin:1:o1 was used before")), "{used}");
    assert_eq!(spin("spin:1:nowhere", "s3").0, 409);
}

#[test]
fn a_subscription_is_changed_paused_skipped_and_cancelled_with_an_answer() {
    let shop = shop();
    let started = json!({"user_id": "ada", "plan_id": "basic_box", "action": "started", "subscription_id": "s1"});
    assert_eq!(post(&shop, "/v1/topics/subscription_events", started).0, 202);
    until("the subscription", LIMIT, || shop.json("/v1/users/ada/entitlements")["status"] == "active");
    let act = |body: Value| post(&shop, "/v1/users/ada/subscription", body);

    let (status, changed) = act(json!({"action": "change", "plan_id": "premium_box"}));
    assert_eq!((status, &changed["subscriptions"][0]["plan_id"]), (200, &json!("premium_box")), "{changed}");
    let (status, skipped) = act(json!({"action": "skip"}));
    assert_eq!((status, &skipped["subscriptions"][0]["next_box"]["skipped"]), (200, &json!(true)), "{skipped}");
    let (status, paused) = act(json!({"action": "pause", "event_id": "e-pause"}));
    assert_eq!((status, &paused["subscriptions"][0]["status"]), (200, &json!("paused")), "{paused}");
    assert_eq!(act(json!({"action": "pause", "event_id": "e-pause"})).0, 200, "sent again");
    assert_eq!(act(json!({"action": "resume"})).1["subscriptions"][0]["status"], "active");
    let (status, cancelled) = act(json!({"action": "cancel", "at_period_end": true}));
    assert_eq!((status, &cancelled["subscriptions"][0]["status"]), (200, &json!("cancelled")), "{cancelled}");

    let (status, refused) = act(json!({"action": "change", "plan_id": "no_such_plan"}));
    assert_eq!(status, 409, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("no_such_plan"), "{refused}");
    let (status, none) = post(&shop, "/v1/users/ben/subscription", json!({"action": "pause"}));
    assert_eq!(status, 409, "{none}");
}

#[test]
fn a_feature_that_is_denied_leads_to_one_suggestion_of_a_plan_that_has_it() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut shop = Tillflow::run().set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).spawn();
    shop.wait_until_ready();
    let tasks = shop.json("/readyz")["tasks"].as_array().unwrap().len();
    assert_eq!(tasks, 8, "ready means that both groups have their four partitions");
    let started = json!({"user_id": "ada", "plan_id": "basic_box", "action": "started"});
    assert_eq!(post(&shop, "/v1/topics/subscription_events", started).0, 202);
    until("the subscription", LIMIT, || shop.json("/v1/users/ada/entitlements")["status"] == "active");
    for _ in 0..3 {
        assert_eq!(shop.json("/v1/users/ada/entitlements/early_access")["upgrade_to"], "premium_box");
    }
    let suggestions = || {
        let notifications = kafka.read(&format!("{prefix}notifications"));
        notifications.iter().filter(|n| n.text().contains("upgrade_suggested") && n.text().contains("premium_box")).count()
    };
    until("the suggestion", LIMIT, || suggestions() == 1);
    assert!(shop.stop().success());
    assert_eq!(suggestions(), 1);
}

#[test]
fn prices_are_decided_on_request_quoted_and_ruled_without_a_restart() {
    let shop = shop();
    let tea = json!({"product_id": "tea", "name": "Tea", "category": "tea", "base_price": "100.00", "currency": "EUR"});
    assert_eq!(post(&shop, "/v1/topics/products", tea).0, 202);
    assert_eq!(post(&shop, "/v1/inventory", json!({"product_id": "tea", "stock_level": 50})).0, 202);
    // Decisions wait until it is known what shoppers did before.
    let view = json!({"event_type": "product_viewed", "user_id": "ada", "product_id": "tea"});
    assert_eq!(post(&shop, "/v1/events", view).0, 202);
    until("the price", LIMIT, || shop.get("/v1/products/tea/price").status().is_success());
    let (status, quote) = post(&shop, "/v1/pricing/quotes", json!({"product_ids": ["tea"], "cart_id": "c1"}));
    assert_eq!((status, &quote["prices"][0]["price"]), (200, &json!("100.00")), "{quote}");

    let put = |body: Value| {
        let client = reqwest::blocking::Client::new();
        let answer = client.put(format!("{}/v1/pricing/rules/product:tea", shop.url())).body(body.to_string()).send().unwrap();
        (answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().unwrap()).unwrap())
    };
    let (status, rule) = put(json!({"demand_score": 2, "low": 60, "author": "ada"}));
    assert_eq!((status, &rule["versions"][0]["version"], &rule["versions"][0]["author"]), (200, &json!(1), &json!("ada")), "{rule}");
    let (status, run) = post(&shop, "/v1/pricing/run", json!({"wait_s": 25}));
    assert_eq!((status, &run["decided"], &run["changed"]), (200, &json!(1), &json!(1)), "{run}");
    assert_eq!(run["changes"][0]["price"], "110.00", "{run}");
    let (_, checked) = post(&shop, "/v1/pricing/quotes/check", json!({"quote": quote["quote"]}));
    assert_eq!(
        (&checked["honoured"], &checked["prices"][0]["current"], &checked["prices"][0]["price"]),
        (&json!(true), &json!("110.00"), &json!("100.00"))
    );
    let (status, second) = put(json!({"demand_score": 3, "if_version": 1}));
    assert_eq!((status, &second["versions"][0]["version"]), (200, &json!(2)), "{second}");
    assert_eq!(put(json!({"low": 50, "high": 20})).0, 400);
}

#[test]
fn a_shop_without_shoppers_has_its_prices_decided_too() {
    let mut shop = shop();
    let tea = json!({"product_id": "tea", "name": "Tea", "category": "tea", "base_price": "100.00", "currency": "EUR"});
    assert_eq!(post(&shop, "/v1/topics/products", tea).0, 202);
    assert_eq!(post(&shop, "/v1/topics/pricing_rules", json!({"scope": "default", "demand_score": 2})).0, 202);
    // Nobody looks at anything: the clock that decides follows stock, and then the wall.
    let stock = |level: i64| assert_eq!(post(&shop, "/v1/inventory", json!({"product_id": "tea", "stock_level": level})).0, 202);
    stock(15);
    until("a price", LIMIT, || shop.get("/v1/products/tea/price").status().is_success());
    until("the price", LIMIT, || shop.json("/v1/products/tea/price")["price"] == "110.00");
    let history = shop.json("/v1/products/tea/price/history");
    assert_eq!(history["history"][0]["reason"], "Low stock (15)", "{history}");
    // It is decided once, also over a crash.
    shop.kill();
    shop.start_again();
    shop.wait_until_ready();
    assert_eq!(shop.json("/v1/products/tea/price")["price"], "110.00");
    let (status, run) = post(&shop, "/v1/pricing/run", json!({"wait_s": 25}));
    assert_eq!((status, &run["decided"], &run["changed"]), (200, &json!(1), &json!(0)), "{run}");
}
