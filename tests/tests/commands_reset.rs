//! State that is forgotten and made anew from the topics: the same, or by the rules that count now.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{Kafka, Run, Tillflow, until};

const LONG: Duration = Duration::from_secs(60);

fn order(user: &str) -> Value {
    json!({
        "event_type": "order_completed", "event_id": format!("e-{user}"), "user_id": user, "order_id": format!("o-{user}"),
        "timestamp": Timestamp::wall(), "total_amount": "77.00", "items": [{"product_id": "p1", "quantity": 1, "price": "77.00"}],
    })
}

fn balance(shop: &Tillflow, user: &str) -> Option<i64> {
    shop.get(&format!("/v1/users/{user}/loyalty")).json::<Value>().ok()?["balance"].as_i64()
}

fn started(run: Run) -> Tillflow {
    let mut shop = run.within(LONG).spawn();
    shop.wait_until_ready();
    shop
}

fn ledger(shop: &Tillflow, user: &str) -> String {
    shop.json(&format!("/v1/users/{user}/loyalty/ledger")).to_string()
}

#[test]
fn an_embedded_shop_is_made_anew_by_the_rules_that_count_now() {
    let mut shop = started(Tillflow::run());
    let files = shop.files().clone();
    assert!(shop.post("/v1/events", json!([order("ann"), order("bob")])).status().is_success());
    until("the points are there", LONG, || ["ann", "bob"].iter().all(|u| balance(&shop, u) == Some(77)));
    let before = ledger(&shop, "ann");
    let reset = |arguments: &[&str]| {
        let run = arguments.iter().fold(Tillflow::command(["reset"]), |run, a| run.arg(*a));
        run.set("data_dir", files.join("tillflow-data").display()).finish()
    };
    let running = reset(&["--yes"]);
    assert!(running.code() == 1 && running.stderr.contains("another process"), "{}", running.stderr);
    assert!(shop.stop().success());
    let unsure = reset(&[]);
    assert!(unsure.code() == 2 && unsure.stderr.contains("backup"), "{}", unsure.stderr);
    let forgot = reset(&["--yes", "--json"]).ok().json();
    assert!(forgot["rows"].as_u64() > Some(0) && forgot["records"].as_u64() > Some(0), "{forgot}");
    assert_eq!(reset(&["--yes", "--json"]).ok().json()["rows"], 0, "all is forgotten");

    let mut shop = started(Tillflow::run().in_directory_of(&files));
    until("the points are there again", LONG, || ["ann", "bob"].iter().all(|u| balance(&shop, u) == Some(77)));
    assert_eq!(ledger(&shop, "ann"), before, "entries are the same, their ids too");
    assert!(shop.stop().success());

    // From a moment on: what was written before it is passed over, once and for all.
    let since = Timestamp::wall();
    until("that moment has passed", LONG, || Timestamp::wall() > since);
    let mut shop = started(Tillflow::run().in_directory_of(&files));
    assert!(shop.post("/v1/events", json!([order("cid")])).status().is_success());
    until("the points are there", LONG, || balance(&shop, "cid") == Some(77));
    assert!(shop.stop().success());
    let wrong = reset(&["--yes", "--since", "yesterday"]);
    assert!(wrong.code() == 2 && wrong.stderr.contains("--since"), "{}", wrong.stderr);
    assert_eq!(reset(&["--yes", "--json", "--since", &since.to_string()]).ok().json()["passed_over"], 2);
    let mut shop = started(Tillflow::run().in_directory_of(&files));
    until("the points are there again", LONG, || balance(&shop, "cid") == Some(77));
    assert_eq!(["ann", "bob"].map(|user| balance(&shop, user)), [Some(0); 2]);
    assert!(shop.stop().success());

    // Other rules: twice the points, from the first order on.
    let _ = reset(&["--yes"]).ok();
    let rules = "loyalty:\n  earning:\n    rules:\n      - {multiplier: 2}\n";
    let mut shop = started(Tillflow::run().in_directory_of(&files).config(rules));
    until("the points are doubled", LONG, || balance(&shop, "ann") == Some(154));
    assert!(shop.stop().success());
}

#[test]
fn a_shop_on_kafka_is_made_anew_though_its_stores_are_on_the_disk() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let cluster = |run: Run| {
        let run = run.set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).set("app_id", format!("{prefix}app"));
        run.set("kafka.session_timeout_s", 6)
    };
    let mut shop = started(cluster(Tillflow::run()));
    assert!(shop.post("/v1/events", json!([order("ann"), order("bob")])).status().is_success());
    until("the points are there", LONG, || ["ann", "bob"].iter().all(|u| balance(&shop, u) == Some(77)));
    let before = ledger(&shop, "ann");
    let reset = || cluster(Tillflow::command(["reset", "--yes", "--json"])).finish();
    let running = reset();
    assert!(running.code() == 1 && running.stderr.contains("an instance runs"), "{}", running.stderr);
    assert!(shop.stop().success());
    let mut done = None;
    until("the instance's session has ended", LONG, || {
        done = Some(reset()).filter(|done| done.exit.success());
        done.is_some()
    });
    assert!(done.unwrap().json()["rows"].as_u64() > Some(0));
    let updates = || kafka.read(&format!("{prefix}loyalty_updates")).len();
    assert_eq!(updates(), 0);
    shop.start_again();
    shop.wait_until_ready();
    until("the points are there again", LONG, || ["ann", "bob"].iter().all(|u| balance(&shop, u) == Some(77)));
    assert_eq!(ledger(&shop, "ann"), before);
    assert_eq!(updates(), 2, "an entry an order");
    assert!(shop.stop().success());

    // Nothing was written since: the stores learn from their changelogs where to go on.
    let passed_over = || cluster(Tillflow::command(["reset", "--yes", "--json", "--since", &Timestamp::wall().to_string()])).finish();
    let mut done = None;
    until("the instance's session has ended", LONG, || {
        done = Some(passed_over()).filter(|done| done.exit.success());
        done.is_some()
    });
    assert_eq!(done.unwrap().json()["passed_over"], 2);
    shop.start_again();
    shop.wait_until_ready();
    assert!(shop.post("/v1/events", json!([order("cid")])).status().is_success());
    until("new ones count", LONG, || balance(&shop, "cid") == Some(77));
    assert_eq!(["ann", "bob"].map(|user| balance(&shop, user)), [Some(0); 2]);
    assert!(shop.stop().success());
}
