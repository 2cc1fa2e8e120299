//! A task that a person pauses: the others go on, and nothing is lost or counted twice when it does, too.

use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tillflow_schemas::partition::partition;
use tillflow_tests::{
    Kafka, Tillflow,
    cluster::PARTITIONS,
    orders::{earned_at, orders},
    until,
};

const LIMIT: Duration = Duration::from_secs(60);

fn goes_on(mut shop: Tillflow) {
    shop.wait_until_ready();
    let home = partition(b"u1", PARTITIONS);
    // What the orders of its users are: order n is of u(n % 8).
    let held: BTreeSet<u32> = (0..64).filter(|n| partition(format!("u{}", n % 8).as_bytes(), PARTITIONS) == home).collect();
    assert!(!held.is_empty() && held.len() < 64);
    let tell = |what: &str| shop.post(&format!("/v1/tasks/customers/{home}/{what}"), json!({}));
    let state = || {
        let ready = shop.json("/readyz");
        let tasks = ready["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|t| t["group"] == "customers" && t["partition"] == home).cloned().unwrap();
        (ready["ready"] == true, task["state"].clone(), task["lag"].as_i64().unwrap())
    };
    assert_eq!(tell("pause").json::<Value>().unwrap(), json!({"group": "customers", "partition": home, "paused": true}));
    assert_eq!(shop.post("/v1/events", orders(0..64)).status(), 202);
    until("the others count", LIMIT, || earned_at(&shop).len() == 64 - held.len());
    until("its lag is told", LIMIT, || {
        let (ready, state, lag) = state();
        ready && state == "paused" && lag >= held.len() as i64
    });
    assert!(earned_at(&shop).iter().all(|n| !held.contains(n)));
    assert_eq!(tell("resume").status(), 200);
    until("it goes on", LIMIT, || earned_at(&shop) == (0..64).collect::<Vec<_>>());
    until("it has caught up", LIMIT, || state() == (true, json!("running"), 0));
    assert_eq!(shop.post("/v1/tasks/customers/99/pause", json!({})).status(), 503, "it is not here");
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn on_the_embedded_log() {
    goes_on(Tillflow::run().set("time.grace_s", 0).within(LIMIT).spawn());
}

#[test]
fn on_kafka() {
    let kafka = Kafka::shared();
    goes_on(Tillflow::run().on_kafka(&kafka.bootstrap(), &kafka.prefix(), "one").set("time.grace_s", 0).within(LIMIT).spawn());
}
