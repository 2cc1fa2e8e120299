//! A shop on Kafka goes on with another number of partitions: what was recorded is taken out of its topics as docs/commands.md says,
//! and imported into new ones.

use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Command, time::Duration};
use tillflow_schemas::{Catalog, Role};
use tillflow_tests::{
    Kafka, Run, Tillflow,
    orders::{earned, orders},
    until,
};

const LIMIT: Duration = Duration::from_secs(90);
const BEFORE: u32 = 4;
const AFTER: u32 = 6;

/// What everybody's ledger says; nothing of those whose state is being restored.
fn ledgers(shop: &Tillflow) -> BTreeMap<String, Value> {
    let of = |user: String| {
        let ledger = shop.get(&format!("/v1/users/{user}/loyalty/ledger"));
        let ledger = if ledger.status().is_success() { ledger.json().unwrap() } else { Value::Null };
        (user, ledger)
    };
    (0..8).map(|n| of(format!("u{n}"))).collect()
}

#[test]
fn what_was_recorded_comes_to_the_same_in_topics_of_more_partitions() {
    let kafka = Kafka::shared();
    let (old, new) = (kafka.prefix(), kafka.prefix());
    let cluster =
        |run: Run, prefix: &str, partitions: u32| run.on_kafka(&kafka.bootstrap(), prefix, "one").set("topics.partitions", partitions);
    let mut shop = cluster(Tillflow::run(), &old, BEFORE).set("time.grace_s", 0).within(LIMIT).spawn();
    shop.wait_until_ready();
    let tea = json!({"product_id": "tea", "name": "Tea", "category": "drinks", "base_price": "10.00"});
    assert_eq!(shop.post("/v1/topics/products", tea).status(), 202);
    let first = orders(0..40);
    assert_eq!(shop.post("/v1/events", first.clone()).status(), 202);
    until("all count", LIMIT, || earned(kafka, &old).len() == 40);
    let before = ledgers(&shop);
    assert!(before.values().all(|ledger| ledger["entries"].as_array().is_some_and(|entries| entries.len() >= 5)), "{before:?}");
    assert!(shop.stop().success(), "{}", shop.stderr());

    let mut import = Tillflow::command(["import"]).within(LIMIT);
    let catalog = Catalog::built_in(BEFORE).unwrap();
    for topic in catalog.topics().iter().filter(|t| matches!(t.role, Role::Input | Role::Reference)) {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &kafka.bootstrap(), "-X", "isolation.level=read_committed", "-C", "-e", "-q", "-f", "%s\n"]);
        let read = kcat.args(["-t", &format!("{old}{}", topic.name)]).output().expect("kcat");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        if !read.stdout.is_empty() {
            let file = format!("{}.jsonl", topic.name);
            import = import.arg(format!("{}={file}", topic.name)).file(&file, read.stdout);
        }
    }
    let _ = cluster(import, &new, AFTER).finish().ok();
    assert_eq!(kafka.topics()[&format!("{new}user_events")], AFTER as usize);

    let mut shop = cluster(Tillflow::run(), &new, AFTER).set("time.grace_s", 0).within(LIMIT).spawn();
    shop.wait_until_ready();
    until("each has what they had", LIMIT, || ledgers(&shop) == before);
    // What comes again is known, and what is new counts.
    assert_eq!(shop.post("/v1/events", first).status(), 202);
    assert_eq!(shop.post("/v1/events", orders(40..80)).status(), 202);
    until("the new ones count", LIMIT, || earned(kafka, &new).len() >= 80);
    assert_eq!(earned(kafka, &new), (0..80).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}
