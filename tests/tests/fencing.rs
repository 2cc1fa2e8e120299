//! A transaction that its owner left open, asleep, is ended by whoever takes the partitions over: the metadata of committed
//! offsets names the owner. Here nothing else ends one.

use std::time::Duration;
use tillflow_tests::{
    Api, Kafka, Run, Tillflow,
    cluster::PARTITIONS,
    orders::{earned, earned_at, orders},
    until,
};

const LIMIT: Duration = Duration::from_secs(90);

fn instance(brokers: &str, prefix: &str, id: &str) -> Run {
    Tillflow::run().on_kafka(brokers, prefix, id).set("time.grace_s", 0).set("kafka.session_timeout_s", 6).within(LIMIT)
}

/// How many of the customers' tasks run at an instance.
fn running(shop: &Tillflow) -> u32 {
    let ready: serde_json::Value = shop.get("/readyz").json().expect("JSON");
    let tasks = ready["tasks"].as_array().into_iter().flatten();
    tasks.filter(|t| t["group"] == "customers" && t["state"] == "running").count() as u32
}

#[test]
fn a_transaction_that_a_sleeper_left_open_is_ended_by_the_next_owner_where_no_timeout_ends_it() {
    // Brokers look for transactions that have timed out once a day.
    let kafka = Kafka::setup().property("transaction.abort.timed.out.transaction.cleanup.interval.ms", "86400000").start();
    let (proxy, prefix) = (kafka.proxy(), kafka.prefix());
    let mut sleeper = instance(&proxy.address(), &prefix, "one").spawn();
    let mut other = instance(&kafka.bootstrap(), &prefix, "two").spawn();
    until("each has a half", LIMIT, || [&sleeper, &other].map(running) == [PARTITIONS / 2; 2]);
    assert_eq!(other.post("/v1/events", orders(0..40)).status(), 202);
    until("all count", LIMIT, || earned(&kafka, &prefix).len() == 40);

    // It falls asleep with its request to commit on the way.
    proxy.hold(Api::EndTxn, "customers.one-");
    assert_eq!(other.post("/v1/events", orders(40..80)).status(), 202);
    until("it commits", LIMIT, || proxy.holds());
    sleeper.process().freeze();
    until("the other has all and counts all", LIMIT, || running(&other) == PARTITIONS && earned(&kafka, &prefix).len() >= 80);
    other.wait_until_ready();
    assert_eq!(earned(&kafka, &prefix), (0..80).collect::<Vec<_>>());
    let said = other.stderr();
    let ended = said.lines().filter(|l| l.contains("deciding the transaction that a former owner left open"));
    assert!(ended.into_iter().any(|l| l.contains(&format!("{prefix}app.customers.one-0"))), "{said}");

    // Its request arrives before it wakes: awake, it may close the connection first.
    proxy.release();
    until("the late commit is answered", LIMIT, || proxy.answered().is_some());
    assert!(proxy.refused_late(), "a late commit was answered with {:?}", proxy.answered());
    sleeper.process().thaw();
    until("each has a half again", LIMIT, || [&sleeper, &other].map(running) == [PARTITIONS / 2; 2]);
    assert_eq!(sleeper.post("/v1/events", orders(80..120)).status(), 202);
    until("all count", LIMIT, || earned(&kafka, &prefix).len() >= 120);
    for shop in [&mut sleeper, &mut other] {
        shop.wait_until_ready();
        until("it knows them all", LIMIT, || earned_at(shop).len() >= 120);
        assert_eq!(earned_at(shop), (0..120).collect::<Vec<_>>());
        assert!(shop.process().is_running());
    }
    assert_eq!(earned(&kafka, &prefix), (0..120).collect::<Vec<_>>());
    for shop in [&mut sleeper, &mut other] {
        assert!(shop.stop().success(), "{}", shop.stderr());
    }
}
