//! What failed is sent again once its cause is mended: it goes through the same processors, and counts once.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{Kafka, Run, Tillflow, until};

const LIMIT: Duration = Duration::from_secs(60);

fn order(id: &str, total: &str, currency: &str) -> Value {
    json!({
        "event_type": "order_completed", "user_id": "ada", "order_id": id, "timestamp": Timestamp::wall(), "total_amount": total,
        "currency": currency, "items": [{"product_id": "tea", "quantity": 1, "price": total}],
    })
}

fn balance(shop: &Tillflow) -> Option<i64> {
    shop.get("/v1/users/ada/loyalty").json::<Value>().ok()?["balance"].as_i64()
}

/// An order in a currency that the shop knows no rate of fails, the rate is stated, and the order is sent again.
fn a_mended_order_counts_once(place: impl Fn(Run) -> Run) {
    let run = || place(Tillflow::run()).set("time.grace_s", 0).set("shop.currency", "EUR").within(LIMIT);
    let mut shop = run().spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", json!([order("o1", "10.00", "USD"), order("o2", "20.00", "EUR")])).status(), 202);
    until("the good one counts", LIMIT, || balance(&shop) == Some(20));
    assert!(shop.stop().success(), "{}", shop.stderr());

    let dlq = |command: &str| {
        let run = Tillflow::command(["dlq", command, "--json"]);
        let run = if command == "retry" { run.arg("--all") } else { run };
        place(run).set("data_dir", shop.files().join("tillflow-data").display()).finish().ok().stdout
    };
    assert!(dlq("ls").contains("USD"), "{}", dlq("ls"));
    assert!(!dlq("retry").is_empty());
    assert_eq!(dlq("ls").trim(), "", "it is no longer listed");
    let _ = dlq("retry");

    let mut shop = run().in_directory_of(shop.files()).config("shop: {rates: {USD: \"0.5\"}}").spawn();
    shop.wait_until_ready();
    until("it counts", LIMIT, || balance(&shop) == Some(25));
    assert_eq!(shop.post("/v1/events", json!([order("o1", "10.00", "USD"), order("o3", "30.00", "EUR")])).status(), 202);
    // The third order of a month brings fifty points.
    until("the next one counts", LIMIT, || balance(&shop) >= Some(5 + 20 + 30 + 50));
    assert_eq!(balance(&shop), Some(105), "it counts once, also where its sender sends it again");
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn on_the_embedded_log() {
    a_mended_order_counts_once(|run| run);
}

#[test]
fn on_kafka() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    a_mended_order_counts_once(|run| run.on_kafka(&kafka.bootstrap(), &prefix, "one"));
}
