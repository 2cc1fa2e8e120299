//! One shop's records come to the same decisions in `replay`, on the embedded log and on Kafka.

use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_engine::EngineConfig;
use tillflow_schemas::Event;
use tillflow_tests::{
    Kafka, Tillflow,
    cluster::{PARTITIONS, Shop},
    compare::{Outputs, assert_nothing_is_empty, broken_invariants_of, differences, embedded_log, outputs_in, replayed, wrong_points},
    model::NaiveLoyalty,
    scratch, until,
    workload::Workload,
};

/// How many events of a data set; all of them with `TILLFLOW_FULL=1`.
fn limit(few: usize) -> usize {
    if is_full() { usize::MAX } else { few }
}

/// A year of half a million records is not through in minutes.
fn patience() -> Duration {
    Duration::from_secs(if is_full() { 3_600 } else { 600 })
}

fn is_full() -> bool {
    std::env::var_os("TILLFLOW_FULL").is_some()
}

/// What the points programme owes by a naive model.
fn points(workload: &Workload) -> NaiveLoyalty {
    let mut points = NaiveLoyalty::default();
    for line in workload.lines.iter().filter(|l| l.topic == "user_events") {
        match Event::from_value("user_event", Some(line.key.as_str()).filter(|key| !key.is_empty()), line.value.clone()) {
            Ok(Event::User(event)) => points.feed(&event),
            other => panic!("{}: {other:?}", line.value),
        }
    }
    points.advance(workload.end);
    points
}

/// A made-up shop's five weeks: compared wherever the tests run.
fn made_up() -> Workload {
    Workload::made_up(7, 2_000)
}

fn data_set_on_kafka(name: &str, few: usize, may_be_empty: &[&str]) {
    if let Some(workload) = Workload::of(name, limit(few)) {
        on_kafka_as_in_replay(name, &workload, may_be_empty);
    }
}

fn on_kafka_as_in_replay(name: &str, workload: &Workload, may_be_empty: &[&str]) {
    let files = Arc::new(scratch("same"));
    let expected = replayed(workload, &files);
    assert_nothing_is_empty(&expected, may_be_empty);
    let mut wrong = wrong_points(&points(workload), &expected);
    wrong.extend(broken_invariants_of(&workload.lines, &expected));
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    let kafka = Kafka::shared();
    let shop = Shop::new(kafka, &kafka.bootstrap());
    shop.send(kafka, &workload.lines);
    shop.mark(kafka, workload.end);
    let started = Instant::now();
    let mut instance = shop.instance("one", 1).spawn();
    until("everything is processed", patience(), || shop.is_drained());
    eprintln!("{name}: {} records on Kafka in {:.1?}", workload.lines.len(), started.elapsed());
    assert!(instance.stop().success(), "{}", instance.stderr());
    let found = shop.outputs(kafka);
    let mut wrong = differences(&expected, &found);
    wrong.extend(broken_invariants_of(&workload.lines, &found));
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
}

#[test]
fn a_made_up_shop_comes_to_the_same_on_kafka() {
    on_kafka_as_in_replay("made up", &made_up(), &[]);
}

#[test]
fn a_made_up_shop_behind_http_comes_to_the_same() {
    behind_http_as_in_replay("made up", &made_up());
}

#[test]
fn a_gift_shop_s_year_comes_to_the_same_on_kafka() {
    data_set_on_kafka("online_retail", 1_500, &[]);
}

#[test]
fn clicks_carts_and_orders_come_to_the_same_on_kafka() {
    data_set_on_kafka("rees46", 1_000, &["email_triggers", "entitlements", "notifications"]);
    data_set_on_kafka("otto", 1_000, &["email_triggers", "entitlements", "notifications"]);
    data_set_on_kafka("taobao", 1_000, &["email_triggers", "entitlements", "notifications"]);
    data_set_on_kafka("yoochoose", 3_000, &["email_triggers", "entitlements", "notifications", "loyalty_updates"]);
}

#[test]
fn the_embedded_log_behind_http_comes_to_the_same() {
    for (name, few) in [("online_retail", 600), ("rees46", 400), ("otto", 400), ("taobao", 400), ("yoochoose", 400)] {
        if let Some(workload) = Workload::of(name, limit(few)) {
            behind_http_as_in_replay(name, &workload);
        }
    }
}

fn behind_http_as_in_replay(name: &str, workload: &Workload) {
    let files = Arc::new(scratch("embedded"));
    let expected = replayed(workload, &files);
    let mut shop = Tillflow::run().set("time.idle", false).set("commit.fsync", false).within(patience()).spawn();
    shop.wait_until_ready();
    let mut lines = workload.lines.as_slice();
    while let Some(first) = lines.first() {
        // In the order of time: as many of one topic as follow each other.
        let together = lines.iter().take(1_000).take_while(|l| l.topic == first.topic).count();
        let (batch, rest) = lines.split_at(together);
        let answer = shop.post(&format!("/v1/topics/{}", first.topic), json!(batch.iter().map(|l| &l.value).collect::<Vec<_>>()));
        assert_eq!(answer.status().as_u16(), 202, "{:?}", answer.text());
        if first.topic == "products" {
            // Tables that all tasks share follow the log: what comes next is to find them as a replay does.
            let last = format!("/v1/products/{}/related", batch[batch.len() - 1].key);
            until("the products are known", patience(), || shop.get(&last).status().is_success());
        }
        lines = rest;
    }
    // Killed in the middle of it all; what was answered with 202 is there.
    shop.kill();
    let data = shop.files().join("tillflow-data");
    let found = finished(&data, workload);
    let mut wrong = differences(&expected, &found);
    wrong.extend(broken_invariants_of(&workload.lines, &found));
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
}

/// Goes on with an embedded data directory to the end of its input, and reads what was decided.
fn finished(data: &std::path::Path, workload: &Workload) -> Outputs {
    use tillflow_engine::{
        Engine,
        log::{NewRecord, TopicPartition},
    };
    let log = embedded_log(data);
    let catalog = log.catalog();
    let clock = catalog.of_schema("clock_mark").and_then(|t| catalog.index(&t.name)).unwrap();
    let value = Some(serde_json::to_vec(&json!({"at": workload.end})).unwrap());
    let mark = |partition| NewRecord {
        to: TopicPartition { topic: clock, partition },
        at: workload.end,
        key: None,
        value: value.clone(),
        headers: Vec::new(),
    };
    log.write(&(0..PARTITIONS).map(mark).collect::<Vec<_>>(), std::iter::empty()).unwrap();
    let config = EngineConfig { idle_clock: false, wait_for_input: None, ..EngineConfig::default() };
    let groups = tillflow_processors::groups(&serde_json::Map::new());
    let engine = Engine::embedded(&log, &groups, &Arc::new(tillflow_schemas::Codec::json()), &config).unwrap();
    until("everything is processed", patience(), || engine.is_drained().unwrap());
    engine.stop().unwrap();
    outputs_in(&log)
}
