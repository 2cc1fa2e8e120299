//! One event followed by its trace: from HTTP through both task groups to what was decided because of it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{Tillflow, until};

const LONG: Duration = Duration::from_secs(60);
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn order(user: &str) -> Value {
    json!({
        "event_type": "order_completed", "event_id": format!("e-{user}"), "user_id": user, "order_id": format!("o-{user}"),
        "timestamp": Timestamp::wall(), "total_amount": "77.00",
        "items": [{"product_id": format!("cup-{user}"), "quantity": 1}, {"product_id": format!("tea-{user}"), "quantity": 1}],
    })
}

/// Keys of a topic's records, with the trace that each carries.
fn traces(shop: &Tillflow, topic: &str) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| String::from_utf8(BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap();
    let trace = |record: &Value| {
        let headers = record["headers"].as_array().unwrap();
        headers.iter().find(|h| h[0] == "traceparent").map(|h| text(&h[1]))
    };
    let records = (0..4).flat_map(|p| shop.json(&format!("/v1/log/{topic}/{p}"))["records"].as_array().cloned().unwrap());
    records.filter(|r| !r["key"].is_null()).map(|r| (text(&r["key"]), trace(&r))).collect()
}

#[test]
fn what_follows_from_an_event_carries_its_trace_and_nothing_else_does() {
    let mut shop = Tillflow::run().within(LONG).env("RUST_LOG", "info,tillflow_engine=debug").spawn();
    shop.wait_until_ready();
    let http = reqwest::blocking::Client::new();
    let post = |header: &str, body: Value| {
        let answer = http.post(format!("{}/v1/events", shop.url())).header("traceparent", header).json(&body).send().unwrap();
        assert_eq!(answer.status(), 202);
    };
    post(TRACE, order("ann"));
    post("no trace at all", order("bob"));
    assert!(shop.post("/v1/events", order("cid")).status().is_success());

    let of = |topic: &str, key: &str| traces(&shop, topic).into_iter().filter(|(k, _)| k == key).map(|(_, t)| t).collect::<Vec<_>>();
    let traced = Some(TRACE.to_owned());
    // The input, the first stage, what it tells the second one, and that one's output.
    for (topic, ann, others) in [
        ("user_events", "ann", ["bob", "cid"]),
        ("loyalty_updates", "ann", ["bob", "cid"]),
        ("tillflow.item_pairs", "cup-ann", ["cup-bob", "cup-cid"]),
        ("related_products", "cup-ann", ["cup-bob", "cup-cid"]),
    ] {
        let there = || [ann, others[0], others[1]].iter().all(|key| !of(topic, key).is_empty());
        if topic != "tillflow.item_pairs" {
            until(&format!("all records of {topic} are there"), LONG, there);
        }
        // What only passes between the stages may be gone again.
        assert!(of(topic, ann).iter().all(|trace| *trace == traced), "{topic} of {ann}: {:?}", of(topic, ann));
        for other in others {
            assert!(of(topic, other).iter().all(Option::is_none), "{topic} of {other}: {:?}", of(topic, other));
        }
    }
    assert!(shop.stop().success());
    let told = shop.stderr();
    for what in ["processing", "emitting"] {
        let line = |l: &&str| l.contains(what) && l.contains("4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(told.lines().any(|l| line(&l)), "{what} is told at debug level");
    }
}
