//! A cluster that goes out of reach, or can't do transactions, and stores that no longer go with their changelogs.

use std::{
    path::Path,
    time::{Duration, Instant},
};
use tillflow_schemas::{Timestamp, UserId, partition::partition};
use tillflow_state::{Backend, Directory, Durability, Read, Shared, Table};
use tillflow_tests::{
    Kafka, Run, Tillflow,
    cluster::PARTITIONS,
    orders::{earned, earned_at, orders, points_of},
    until,
};

const LIMIT: Duration = Duration::from_secs(90);
/// Longer than a session and a transaction last.
const LONG_OUTAGE: Duration = Duration::from_secs(15);

fn instance(brokers: &str, prefix: &str, id: &str) -> Run {
    Tillflow::run().on_kafka(brokers, prefix, id).set("time.grace_s", 0).within(LIMIT)
}

#[test]
fn brokers_out_of_reach_for_longer_than_a_session_are_waited_for_and_each_order_counts_once() {
    let kafka = Kafka::start();
    let (proxy, prefix) = (kafka.proxy(), kafka.prefix());
    let mut shop = instance(&proxy.address(), &prefix, "one").set("kafka.session_timeout_s", 6).spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..200)).status(), 202);
    proxy.go_down();
    let started = Instant::now();
    let refused = shop.post("/v1/events", orders(200..201));
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"), "{:?}", refused.headers());
    until("the outage is over", LIMIT, || {
        assert!(shop.process().is_running(), "{}", shop.stderr());
        started.elapsed() > LONG_OUTAGE
    });
    proxy.come_up();
    until("it takes orders again", LIMIT, || shop.post("/v1/events", orders(200..400)).status() == 202);
    until("each counts", LIMIT, || earned(&kafka, &prefix).len() >= 400);
    shop.wait_until_ready();
    assert_eq!(earned(&kafka, &prefix), (0..400).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn a_cluster_that_cant_do_transactions_ends_it_with_1_and_is_told_what_it_lacks() {
    // What a cluster of one node has out of the box in the settings of three.
    let kafka = Kafka::setup().property("transaction.state.log.replication.factor", "3").start();
    let prefix = kafka.prefix();
    let lacking = instance(&kafka.bootstrap(), &prefix, "one").finish();
    lacking.says(1, &[&format!("transactional id {prefix}app."), "transaction.state.log.replication.factor"]);
}

/// An instance that has counted the orders 0 to 15, and stopped.
fn stopped_after_sixteen_orders(kafka: &Kafka, prefix: &str) -> Tillflow {
    let mut shop = instance(&kafka.bootstrap(), prefix, "one").spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..16)).status(), 202);
    until("all count", LIMIT, || earned(kafka, prefix).len() == 16);
    assert!(shop.stop().success(), "{}", shop.stderr());
    shop
}

/// The store of a user's task below a directory that no process holds.
fn store(files: &Path, user: &str) -> Directory {
    let path = files.join("tillflow-data").join(format!("customers-{}", partition(user.as_bytes(), PARTITIONS)));
    Directory::open(&path, &[], &Shared::new(1 << 20, 1 << 20)).unwrap()
}

#[test]
fn a_store_older_than_the_deletions_its_changelog_keeps_is_built_anew_and_brings_nobody_back() {
    const ACCOUNTS: &str = "loyalty.accounts";
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut old = stopped_after_sixteen_orders(kafka, &prefix);
    // Another machine goes on in its place.
    let mut other = instance(&kafka.bootstrap(), &prefix, "one").spawn();
    other.wait_until_ready();
    assert_eq!(other.post("/v1/events", orders(16..64)).status(), 202);
    until("all count", LIMIT, || earned(kafka, &prefix).len() == 64);
    assert!(other.stop().success(), "{}", other.stderr());

    // Meanwhile the row of somebody in u1's partition was deleted, and compaction has taken even the deletion: the old
    // store alone still has it. And it is two days old.
    let home = partition(b"u1", PARTITIONS);
    let ghost = (0..).map(|n| format!("ghost-{n}")).find(|id| partition(id.as_bytes(), PARTITIONS) == home).unwrap();
    let accounts: Table<UserId, serde_json::Value> = Table::new(ACCOUNTS);
    {
        let store = store(old.files().path(), "u1");
        let mut rows = store.backend("default", &[], Durability::Volatile);
        let row = rows.get(&accounts.row(&UserId::from("u1"))).unwrap().expect("an account");
        let written = Timestamp::wall().millis() - 48 * 3_600_000;
        let when = [&[0, 0, 0, 1][..], b"at"].concat();
        let stale = [(accounts.row(&UserId::from(ghost.as_str())), row.to_vec()), (when, written.to_be_bytes().to_vec())];
        rows.apply(&mut stale.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice())))).unwrap();
        store.flush().unwrap();
    }
    old.start_again();
    old.wait_until_ready();
    assert!(old.stderr().contains("away for longer than the changelog keeps tombstones"), "{}", old.stderr());
    assert_eq!(old.json(&format!("/v1/users/{ghost}/loyalty"))["balance"], 0);
    for user in (0..8).map(|n| format!("u{n}")) {
        assert_eq!(old.json(&format!("/v1/users/{user}/loyalty"))["balance"], points_of(kafka, &prefix, &user), "{user}");
    }
    // Known orders do not count again, new ones do.
    assert_eq!(old.post("/v1/events", orders(60..80)).status(), 202);
    until("new ones count", LIMIT, || earned(kafka, &prefix).len() >= 80);
    assert_eq!(earned(kafka, &prefix), (0..80).collect::<Vec<_>>());
    assert!(old.stop().success(), "{}", old.stderr());
}

#[test]
fn a_store_whose_changelog_was_deleted_and_made_anew_is_built_anew_too() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut old = stopped_after_sixteen_orders(kafka, &prefix);
    // A start on the same topics finds nothing amiss.
    old.start_again();
    old.wait_until_ready();
    assert!(!old.stderr().contains("anew"), "{}", old.stderr());
    assert!(old.stop().success(), "{}", old.stderr());

    kafka.delete_topic(&format!("{prefix}tillflow.customers.changelog"));
    // Another machine fills the new one from the inputs, beyond where the old store stands.
    let mut other = instance(&kafka.bootstrap(), &prefix, "one").spawn();
    other.wait_until_ready();
    assert_eq!(other.post("/v1/events", orders(16..400)).status(), 202);
    until("all count", LIMIT, || earned_at(&other).len() == 400);
    assert!(other.stop().success(), "{}", other.stderr());
    old.start_again();
    old.wait_until_ready();
    assert!(old.stderr().contains("its changelog was deleted and made anew"), "{}", old.stderr());
    assert_eq!(earned_at(&old), (0..400).collect::<Vec<_>>());
    assert!(old.stop().success(), "{}", old.stderr());
}
