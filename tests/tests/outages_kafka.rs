//! A cluster that goes out of reach, or can't do transactions, and stores that no longer go with their changelogs.

use std::{
    path::Path,
    time::{Duration, Instant},
};
use tillflow_engine::worker::POSITION;
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

/// The row that says when a store was last written to.
const WRITTEN: &[u8] = &[0, 0, 0, 1, b'a', b't'];

/// Writes into the store of u1's task, which no process holds: the account of somebody whom its changelog does not know, and
/// one row of the engine's own. Who it is.
fn with_a_ghost(files: &Path, row: &[u8], value: i64) -> String {
    let home = partition(b"u1", PARTITIONS);
    let ghost = (0..).map(|n| format!("ghost-{n}")).find(|id| partition(id.as_bytes(), PARTITIONS) == home).unwrap();
    let accounts: Table<UserId, serde_json::Value> = Table::new("loyalty.accounts");
    let store = store(files, "u1");
    let mut rows = store.backend("default", &[], Durability::Volatile);
    let account = rows.get(&accounts.row(&UserId::from("u1"))).unwrap().expect("an account");
    let written = [(accounts.row(&UserId::from(ghost.as_str())), account.to_vec()), (row.to_vec(), value.to_be_bytes().to_vec())];
    rows.apply(&mut written.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice())))).unwrap();
    store.flush().unwrap();
    ghost
}

/// The store was put aside for one that knows no ghost; known orders do not count again, new ones do.
fn is_built_anew(shop: &mut Tillflow, kafka: &Kafka, prefix: &str, why: &str, ghost: &str, known: u32) {
    shop.wait_until_ready();
    let said = shop.stderr();
    assert_eq!(said.matches("building the store anew").count(), 1, "{said}");
    assert!(said.contains(why), "{said}");
    let aside = format!("customers-{}.aside", partition(b"u1", PARTITIONS));
    assert!(shop.files().join("tillflow-data").join(aside).is_dir());
    assert_eq!(shop.json(&format!("/v1/users/{ghost}/loyalty"))["balance"], 0);
    for user in (0..8).map(|n| format!("u{n}")) {
        assert_eq!(shop.json(&format!("/v1/users/{user}/loyalty"))["balance"], points_of(kafka, prefix, &user), "{user}");
    }
    assert_eq!(shop.post("/v1/events", orders(known - 4..known + 16)).status(), 202);
    until("new ones count", LIMIT, || earned(kafka, prefix).len() >= known as usize + 16);
    assert_eq!(earned(kafka, prefix), (0..known + 16).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn a_store_older_than_the_deletions_its_changelog_keeps_is_built_anew_and_brings_nobody_back() {
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
    let two_days_ago = Timestamp::wall().millis() - 48 * 3_600_000;
    let ghost = with_a_ghost(old.files().path(), WRITTEN, two_days_ago);
    old.start_again();
    is_built_anew(&mut old, kafka, &prefix, "away for longer than the changelog keeps tombstones", &ghost, 64);
}

#[test]
fn a_store_beyond_the_end_of_its_changelog_is_put_aside_and_built_anew() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut shop = stopped_after_sixteen_orders(kafka, &prefix);
    // As after brokers that lost the changelog's last records, with which somebody came: the store alone has them.
    let ghost = with_a_ghost(shop.files().path(), POSITION, 1_000_000);
    shop.start_again();
    is_built_anew(&mut shop, kafka, &prefix, "it is ahead of its changelog", &ghost, 16);
    // The new one goes with its changelog.
    shop.start_again();
    shop.wait_until_ready();
    assert_eq!(shop.stderr().matches("building the store anew").count(), 1, "{}", shop.stderr());
    assert_eq!(earned_at(&shop), (0..32).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
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

#[test]
fn input_that_was_deleted_before_it_was_processed_ends_it_with_1_and_is_named_and_none_is_skipped_in_silence() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut shop = stopped_after_sixteen_orders(kafka, &prefix);
    let topic = format!("{prefix}user_events");
    let home = partition(b"u1", PARTITIONS);
    let at_home = |n: &u32| partition(format!("u{}", n % 8).as_bytes(), PARTITIONS) == home;
    let end = || kafka.read(&topic).iter().filter(|r| r.partition == home as i32).map(|r| r.offset + 1).max().unwrap();
    let position = end();
    // While nothing runs orders arrive, and in one partition the first of them go before anybody has read them.
    let send = |ids: std::ops::Range<u32>| {
        let orders = orders(ids);
        let records = orders.as_array().unwrap().iter().map(|o| (o["user_id"].as_str().unwrap().to_owned(), o.to_string()));
        kafka.send(&topic, records);
    };
    send(16..32);
    let gone_below = end();
    assert!(gone_below > position);
    send(32..48);
    kafka.delete_records(&topic, home, gone_below);

    let again = || instance(&kafka.bootstrap(), &prefix, "one").set("listen", "127.0.0.1:0").in_directory_of(shop.files());
    let place = format!("{topic} {home} has offsets {gone_below} to {}, and {position} is to be read next", end());
    for _ in 0..2 {
        again().finish().says(1, &["records that were not processed yet are gone", &place, "tillflow reset"]);
        let counted = earned(kafka, &prefix);
        assert_eq!(counted.iter().copied().filter(at_home).collect::<Vec<_>>(), (0..16).filter(at_home).collect::<Vec<_>>());
    }
    // What it names as the way to go on is one.
    until("the instance's session has ended, and the state is forgotten", LIMIT, || {
        let reset = Tillflow::command(["reset", "--yes"]).on_kafka(&kafka.bootstrap(), &prefix, "one").finish();
        assert!(reset.exit.success() || reset.stderr.contains("an instance runs"), "{}", reset.stderr);
        reset.exit.success()
    });
    shop.start_again();
    shop.wait_until_ready();
    let left: Vec<_> = (0..48).filter(|n| *n >= 32 || !at_home(n)).collect();
    until("what is left counts", LIMIT, || earned(kafka, &prefix).len() >= left.len());
    assert_eq!(earned(kafka, &prefix), left);
    assert!(shop.stop().success(), "{}", shop.stderr());
}
