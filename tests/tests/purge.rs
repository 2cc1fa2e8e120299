//! What the groups tell each other goes from the cluster once it is consumed, and nothing is processed twice for it.

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tillflow_engine::{
    Engine, EngineConfig,
    log::kafka::{Kafka as Cluster, Purging, Stores},
};
use tillflow_schemas::{Codec, Timestamp};
use tillflow_state::Shared;
use tillflow_tests::{
    Kafka,
    cluster::{PARTITIONS, Shop},
    compare::{broken_invariants_of, differences, replayed},
    scratch, until,
    workload::{Line, Workload},
};

const LIMIT: Duration = Duration::from_secs(120);
// Products, and orders of two of them each.
const PRODUCTS: usize = 6;
const ORDERS: usize = 400;

fn workload() -> Workload {
    let start = Timestamp::parse("2026-03-01T00:00:00Z").unwrap();
    let product = |n: usize| format!("p{}", n % PRODUCTS);
    let mut lines: Vec<Line> = (0..PRODUCTS)
        .map(|n| {
            let value = json!({"product_id": product(n), "stock_level": 15, "last_updated": start});
            Line { topic: "inventory", key: product(n), at: start, value }
        })
        .collect();
    lines.splice(
        0..0,
        (0..PRODUCTS).map(|n| {
            let value = json!({"product_id": product(n), "name": "Tea", "category": "tea", "base_price": "10.00", "valid_from": start});
            Line { topic: "products", key: product(n), at: start, value }
        }),
    );
    lines.extend((0..ORDERS).map(|n| {
        let (user, at) = (format!("u{}", n % 23), start.plus(Duration::from_secs(30 * n as u64)));
        let items = [n, n + 1 + n % 3].map(|p| json!({"product_id": product(p), "quantity": 1}));
        let value = json!({"event_type": "order_completed", "user_id": user, "order_id": format!("o{n}"), "timestamp": at,
            "total_amount": "10.00", "items": items});
        Line { topic: "user_events", key: user, at, value }
    }));
    let end = lines.last().unwrap().at;
    Workload { lines, end }
}

/// The first offset that is left in each partition of a topic.
fn begins(kafka: &Kafka, topic: &str) -> Vec<i64> {
    let reader: BaseConsumer = kafka.client().create().unwrap();
    (0..PARTITIONS as i32).map(|p| reader.fetch_watermarks(topic, p, LIMIT).unwrap().0).collect()
}

#[test]
fn consumed_records_between_the_groups_go_and_nothing_is_processed_twice() {
    let kafka = Kafka::shared();
    let shop = Shop::new(kafka, &kafka.bootstrap());
    let workload = workload();
    let files = Arc::new(scratch("purge"));
    let expected = replayed(&workload, &files);
    assert!(["related_products", "product_prices", "price_changes"].iter().all(|topic| !expected[*topic].is_empty()));
    assert_eq!(broken_invariants_of(&workload.lines, &expected), Vec::<String>::new());

    let mut settings = shop.cluster.settings.as_ref().clone();
    settings.purging = Purging { every: Duration::ZERO, records: 1 };
    let cluster = Cluster::new(settings, &shop.cluster.catalog);
    let config = EngineConfig { idle_clock: false, wait_for_input: None, ..EngineConfig::default() };
    let groups = tillflow_processors::groups(&serde_json::Map::new());
    let start = |data: &str| {
        let stores = Stores::open(&files.join(data), &Shared::new(64 << 20, 32 << 20)).unwrap();
        Engine::kafka(&cluster, &stores, &groups, &Arc::new(Codec::json()), &config).unwrap()
    };
    let topics = ["tillflow.demand_signals", "tillflow.item_pairs"].map(|t| shop.topic(t));
    let purged = || topics.each_ref().map(|t| begins(kafka, t).iter().sum::<i64>());

    let (first, rest) = workload.lines.split_at(workload.lines.len() / 2);
    shop.send(kafka, first);
    let engine = start("one");
    until("the first half is processed", LIMIT, || shop.is_drained());
    until("what was consumed is gone", LIMIT, || purged().iter().all(|begin| *begin > 0));
    engine.stop().unwrap();
    let half = purged();

    // An empty disk: state comes back from the changelog, and the inputs go on where they stood.
    let engine = start("two");
    shop.send(kafka, rest);
    shop.mark(kafka, workload.end);
    until("everything is processed", LIMIT, || shop.is_drained());
    until("more is gone", LIMIT, || purged().iter().zip(half).all(|(now, then)| *now > then));
    engine.stop().unwrap();
    assert!(begins(kafka, &shop.topic("user_events")).iter().all(|begin| *begin == 0), "only what is between the groups goes");
    let found = shop.outputs(kafka);
    let mut wrong = differences(&expected, &found);
    wrong.extend(broken_invariants_of(&workload.lines, &found));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
