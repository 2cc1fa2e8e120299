//! Whose clock moves when: what is stated for later, partitions that stand still, groups that run apart.

use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tillflow_engine::{
    Engine, EngineConfig, Wall,
    log::{NewRecord, TopicPartition, embedded::Embedded},
};
use tillflow_schemas::{Catalog, Codec, Timestamp, partition::partition};
use tillflow_state::{Durability, Shared};
use tillflow_tests::{
    Kafka, Tillflow,
    cluster::{PARTITIONS, Shop},
    compare::{differences, replayed},
    scratch, until,
    workload::{Line, Workload},
};

const LIMIT: Duration = Duration::from_secs(90);

fn tea(base: &str) -> Value {
    json!({"product_id": "tea", "name": "Tea", "category": "tea", "base_price": base, "currency": "EUR"})
}

#[test]
fn a_product_stated_for_tomorrow_is_no_dead_letter_and_counts_from_then() {
    let mut shop = Tillflow::run().set("time.grace_s", 0).spawn();
    shop.wait_until_ready();
    let post = |topic: &str, body: Value| assert_eq!(shop.post(&format!("/v1/topics/{topic}"), body).status(), 202);
    post("products", tea("10.00"));
    let mut later = tea("20.00");
    later["valid_from"] = json!(Timestamp::wall().plus(Duration::from_secs(86_400)));
    post("products", later);
    post("pricing_rules", json!({"scope": "default", "demand_score": 2}));
    post("inventory", json!({"product_id": "tea", "stock_level": 15}));
    // 10 + 10 × 0.05 × 2
    until("a price by the base of now", LIMIT, || {
        let price = shop.get("/v1/products/tea/price");
        price.status().is_success() && price.json::<Value>().is_ok_and(|p| p["price"] == "11.00")
    });
    let after = Timestamp::wall().plus(Duration::from_secs(3 * 86_400)).to_string();
    let address = shop.url().trim_start_matches("http://").to_owned();
    let data = shop.files().join("tillflow-data");
    let advance = Tillflow::command(["clock", "advance", &after]).set("data_dir", data.display()).set("listen", address);
    let _ = advance.finish().ok();
    until("a price by the base of then", LIMIT, || {
        let price = shop.json("/v1/products/tea/price");
        price["price"].as_str().is_some_and(|p| p.parse::<f64>().is_ok_and(|p| p > 20.0))
    });
    let metrics = shop.get("/metrics").text().unwrap();
    assert!(metrics.contains("tillflow_process_total{") && !metrics.contains("tillflow_dead_letters_total{"), "{metrics}");
}

/// One event of long ago in one partition, and others of now elsewhere: after five minutes of the wall's time the one
/// that stands is not waited for.
#[test]
fn a_partition_that_stands_still_does_not_hold_prices_back_for_ever() {
    let dir = scratch("stands");
    let catalog = Catalog::built_in(PARTITIONS).unwrap();
    let log = Embedded::open(&dir.join("log"), &catalog, Durability::Process, &Shared::new(8 << 20, 4 << 20)).unwrap();
    // Ten minutes a second.
    let wall = Wall::scaled(Timestamp::parse("2026-03-01T12:00:00Z").unwrap(), 600);
    let write = |topic: &str, key: &str, at: Timestamp, value: Value| {
        let to = TopicPartition { topic: catalog.index(topic).unwrap(), partition: partition(key.as_bytes(), PARTITIONS) };
        let value = Some(value.to_string().into_bytes());
        log.write(&[NewRecord { to, at, key: Some(key.into()), value, headers: Vec::new() }], std::iter::empty()).unwrap();
    };
    let user_in = |place: u32| (0..).map(|n| format!("u{n}")).find(|u| partition(u.as_bytes(), PARTITIONS) == place).unwrap();
    let view = |place: u32, at: Timestamp| {
        let user = user_in(place);
        write("user_events", &user, at, json!({"event_type": "product_viewed", "user_id": user, "product_id": "tea", "timestamp": at}));
    };
    let long_ago = Timestamp::parse("2026-03-01T02:00:00Z").unwrap();
    write("products", "tea", long_ago, json!({"product_id": "tea", "name": "Tea", "base_price": "100.00", "valid_from": long_ago}));
    write("pricing_rules", "default", long_ago, json!({"scope": "default", "demand_score": 2, "valid_from": long_ago}));
    view(0, long_ago);
    let config = EngineConfig { wall: wall.clone(), grace: Duration::ZERO, ..EngineConfig::default() };
    let groups = tillflow_processors::groups(&serde_json::Map::new());
    let engine = Engine::embedded(&log, &groups, &Arc::new(Codec::json()), &config).unwrap();
    until("the past is processed", LIMIT, || engine.is_drained().unwrap());
    write("inventory", "tea", wall.now(), json!({"product_id": "tea", "stock_level": 15, "last_updated": wall.now()}));
    (1..PARTITIONS).for_each(|place| view(place, wall.now()));
    let prices = TopicPartition { topic: catalog.index("product_prices").unwrap(), partition: partition(b"tea", PARTITIONS) };
    until("a price that follows stock", LIMIT, || {
        let records = log.read(prices, 0, usize::MAX).unwrap();
        records.iter().any(|r| serde_json::from_slice::<Value>(r.value.as_deref().unwrap()).unwrap()["price"] == "110.00")
    });
    engine.stop().unwrap();
}

/// A day of one shop: stock of few products that falls, and shoppers everywhere.
fn day() -> Workload {
    let start = Timestamp::parse("2026-03-01T00:00:00Z").unwrap();
    let line = |topic, key: &str, at, value| Line { topic, key: key.to_owned(), at, value };
    let mut lines = Vec::new();
    for p in 0..6 {
        let product = format!("p{p}");
        lines.push(line(
            "products",
            &product,
            start,
            json!({"product_id": product, "name": "Tea", "base_price": "10.00", "valid_from": start}),
        ));
    }
    for n in 0..400_u64 {
        let (at, user, product) = (start.plus(Duration::from_secs(60 + 180 * n)), format!("u{}", n % 23), format!("p{}", n % 6));
        if n % 8 == 0 {
            let stock = json!({"product_id": product, "stock_level": 60 - n / 8, "last_updated": at});
            lines.push(line("inventory", &product, at, stock));
        }
        let at = at.plus(Duration::from_secs(1));
        let view = json!({"event_type": "product_viewed", "user_id": user, "product_id": product, "timestamp": at});
        lines.push(line("user_events", &user, at, view));
    }
    Workload { end: lines[lines.len() - 1].at, lines }
}

#[test]
fn groups_that_run_apart_hear_each_other_s_clocks_and_decide_as_one() {
    let kafka = Kafka::shared();
    let shop = Shop::new(kafka, &kafka.bootstrap());
    let workload = day();
    let files = Arc::new(scratch("apart"));
    let expected = replayed(&workload, &files);
    let products: BTreeSet<_> = expected["product_prices"].iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(products.len(), 6);
    shop.send(kafka, &workload.lines);
    shop.mark(kafka, workload.end);
    let mut apart = ["customers", "products"].map(|group| shop.instance(group, 1).arg("--groups").arg(group).spawn());
    until("everything is processed", LIMIT, || shop.is_drained());
    for instance in &mut apart {
        assert!(instance.stop().success(), "{}", instance.stderr());
    }
    let wrong = differences(&expected, &shop.outputs(kafka));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
