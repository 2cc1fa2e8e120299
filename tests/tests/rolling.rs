//! A rolling restart under load, as a new version is rolled out: every order counts once, and how late is told.

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;
use tillflow_tests::{Kafka, Tillflow, cluster::PARTITIONS, until};

const LIMIT: Duration = Duration::from_secs(120);
/// Between two orders.
const PACE: Duration = Duration::from_millis(5);
/// Orders before the first restart, and after each.
const AT_REST: usize = 200;

/// Writes an order of one of a hundred users every [`PACE`], until told to stop; when each was written.
fn shop(kafka: &Kafka, topic: &str, stop: Receiver<()>) -> Vec<Instant> {
    let mut config = kafka.client();
    config.set("partitioner", "murmur2_random").set("enable.idempotence", "true").set("linger.ms", "0");
    let producer: BaseProducer = config.create().unwrap();
    let mut written = Vec::new();
    while stop.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let n = written.len();
        let order = json!({"event_type": "order_completed", "event_id": format!("e{n}"), "user_id": format!("u{}", n % 100), "order_id": n.to_string(),
            "timestamp": Timestamp::wall(), "total_amount": "10.00", "items": [{"product_id": "tea", "quantity": 1}]});
        let (key, value) = (format!("u{}", n % 100), order.to_string());
        written.push(Instant::now());
        producer.send(BaseRecord::to(topic).key(&key).payload(&value)).map_err(|(e, _)| e).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(LIMIT).unwrap();
    written
}

/// Reads the ledger as it is committed until there are as many orders in it as told; when each order's points came, as often
/// as they did.
fn ledger(kafka: &Kafka, topic: &str, expected: &AtomicUsize) -> BTreeMap<usize, Vec<Instant>> {
    let mut config = kafka.client();
    config.set("group.id", "rolling").set("isolation.level", "read_committed").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut from_the_start = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|p| from_the_start.add_partition_offset(topic, p as i32, Offset::Beginning).unwrap());
    consumer.assign(&from_the_start).unwrap();
    let mut came: BTreeMap<usize, Vec<Instant>> = BTreeMap::new();
    let mut entries = 0;
    while entries < expected.load(Ordering::SeqCst) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let entry: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        if entry["kind"] == "earn" {
            entries += 1;
            came.entry(entry["order_id"].as_str().unwrap().parse().unwrap()).or_default().push(Instant::now());
        }
    }
    came
}

#[test]
fn instances_restarted_one_after_the_other_lose_and_double_nothing() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let (events, points) = (format!("{prefix}user_events"), format!("{prefix}loyalty_updates"));
    let start = |id| Tillflow::run().on_kafka(&kafka.bootstrap(), &prefix, id).set("time.grace_s", 0).within(LIMIT).spawn();
    let mut instances = ["one", "two", "three"].map(start);
    instances.iter_mut().for_each(Tillflow::wait_until_ready);

    let (end, ended) = channel();
    let events = events.as_str();
    let expected = AtomicUsize::new(usize::MAX);
    let counted = || kafka.read(&points).iter().filter(|r| r.json()["kind"] == "earn").count();
    let (written, came, restarts) = thread::scope(|scope| {
        let shop = scope.spawn(move || shop(kafka, events, ended));
        let ledger = scope.spawn(|| ledger(kafka, &points, &expected));
        let at_rest = || {
            let before = counted();
            until("orders count", LIMIT, || counted() >= before + AT_REST);
        };
        at_rest();
        let restarts = instances.each_mut().map(|instance| {
            let started = Instant::now();
            assert!(instance.stop().success(), "{}", instance.stderr());
            instance.start_again();
            instance.wait_until_ready();
            let took = started.elapsed();
            at_rest();
            took
        });
        end.send(()).unwrap();
        let written = shop.join().unwrap();
        until("all count", LIMIT, || counted() >= written.len());
        expected.store(written.len(), Ordering::SeqCst);
        (written, ledger.join().unwrap(), restarts)
    });
    let doubled: Vec<_> = came.iter().filter(|(_, times)| times.len() > 1).map(|(n, _)| n).collect();
    let lost: Vec<_> = (0..written.len()).filter(|n| !came.contains_key(n)).collect();
    assert!(doubled.is_empty() && lost.is_empty(), "doubled: {doubled:?}, lost: {lost:?}");
    let mut late: Vec<_> = came.iter().map(|(n, times)| times[0].duration_since(written[*n]).as_millis()).collect();
    late.sort_unstable();
    let share = |hundredths: usize| late[(late.len() - 1) * hundredths / 100];
    let told = json!({"orders": late.len(), "restarts_ms": restarts.map(|r| r.as_millis() as u64), "late_ms": {"p50": share(50) as u64, "p99": share(99) as u64, "latest": share(100) as u64}});
    eprintln!("{told:#}");
}
