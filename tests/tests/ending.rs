//! An instance that is told to stop does so, whatever its group is waiting for.

use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;
use tillflow_tests::{
    Kafka, Tillflow,
    cluster::PARTITIONS,
    orders::{earned, orders},
    until,
};

const LIMIT: Duration = Duration::from_secs(90);

/// How many tasks run at an instance.
fn running(shop: &Tillflow) -> u32 {
    let ready: serde_json::Value = shop.get("/readyz").json().expect("JSON");
    ready["tasks"].as_array().into_iter().flatten().filter(|task| task["state"] == "running").count() as u32
}

/// Whether a group waits for its members to join once more.
fn waits(kafka: &Kafka, group: &str) -> bool {
    let client: BaseConsumer = kafka.client().set("group.id", "look").create().expect("a client");
    let groups = client.fetch_group_list(Some(group), LIMIT).expect("the group");
    groups.groups().iter().any(|g| g.state() == "PreparingRebalance")
}

#[test]
fn an_instance_ends_within_its_time_while_its_groups_wait_for_a_member_that_sleeps() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    // A sleeper is waited for until its session is over: for longer than this test takes.
    let instance = |id| {
        let instance = Tillflow::run().on_kafka(&kafka.bootstrap(), &prefix, id).set("time.grace_s", 0);
        instance.set("kafka.session_timeout_s", 20).within(LIMIT).spawn()
    };
    let (mut sleeper, mut told) = (instance("one"), instance("two"));
    until("each has a half of both groups", LIMIT, || [&sleeper, &told].map(running) == [PARTITIONS; 2]);
    assert_eq!(told.post("/v1/events", orders(0..40)).status(), 202);
    until("all count", LIMIT, || earned(kafka, &prefix).len() == 40);

    sleeper.process().freeze();
    // A third one asks both groups for a share: they can't give it one before the sleeper has heard of it.
    let third = instance("three");
    until("both groups wait", LIMIT, || ["customers", "products"].iter().all(|group| waits(kafka, &format!("{prefix}app.{group}"))));
    assert!(told.stop().success(), "{}", told.stderr());
    drop(third);
    sleeper.process().thaw();
    assert_eq!(earned(kafka, &prefix), (0..40).collect::<Vec<_>>());
}
