//! Restarts under load, by a new version that is rolled out or by crashes: every order counts once, and how late is told.

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
/// Longest wait for all of a load.
const ALL: Duration = Duration::from_secs(600);
/// Between two orders.
const PACE: Duration = Duration::from_millis(5);
/// Orders that count before the first restart, and after each.
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

/// Reads the ledger as it is committed, and counts, until there are as many orders in it as expected; when each order's points
/// came, as often as they did.
fn ledger(kafka: &Kafka, topic: &str, counted: &AtomicUsize, expected: &AtomicUsize) -> BTreeMap<usize, Vec<Instant>> {
    let mut config = kafka.client();
    config.set("group.id", "rolling").set("isolation.level", "read_committed").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut from_the_start = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|p| from_the_start.add_partition_offset(topic, p as i32, Offset::Beginning).unwrap());
    consumer.assign(&from_the_start).unwrap();
    let (mut came, began) = (BTreeMap::<usize, Vec<Instant>>::new(), Instant::now());
    while began.elapsed() < ALL && counted.load(Ordering::SeqCst) < expected.load(Ordering::SeqCst) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let entry: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        if entry["kind"] == "earn" {
            counted.fetch_add(1, Ordering::SeqCst);
            came.entry(entry["order_id"].as_str().unwrap().parse().unwrap()).or_default().push(Instant::now());
        }
    }
    came
}

/// What became of a load of orders.
struct Load {
    written: Vec<Instant>,
    came: BTreeMap<usize, Vec<Instant>>,
}

impl Load {
    /// Orders are written while `work` is done, and until all of them count. It is given the way to let some more count.
    fn during<T>(kafka: &Kafka, prefix: &str, work: impl FnOnce(&dyn Fn()) -> T) -> (Self, T) {
        let (events, points) = (format!("{prefix}user_events"), format!("{prefix}loyalty_updates"));
        let (events, points) = (events.as_str(), points.as_str());
        let (end, ended) = channel();
        let (counted, expected) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let more = || {
            let before = counted.load(Ordering::SeqCst);
            until("orders count", LIMIT, || counted.load(Ordering::SeqCst) >= before + AT_REST);
        };
        thread::scope(|scope| {
            // Dropped when something here fails: then no more is written.
            let end = end;
            let shop = scope.spawn(move || shop(kafka, events, ended));
            let ledger = scope.spawn(|| ledger(kafka, points, &counted, &expected));
            more();
            let done = work(&more);
            end.send(()).unwrap();
            let written = shop.join().unwrap();
            expected.store(written.len(), Ordering::SeqCst);
            until("all count", ALL, || ledger.is_finished());
            (Self { written, came: ledger.join().unwrap() }, done)
        })
    }

    fn counts_once(&self) {
        let doubled: Vec<_> = self.came.iter().filter(|(_, times)| times.len() > 1).map(|(n, _)| n).collect();
        let lost: Vec<_> = (0..self.written.len()).filter(|n| !self.came.contains_key(n)).collect();
        assert!(doubled.is_empty() && lost.is_empty(), "doubled: {doubled:?}, lost: {lost:?}");
    }

    /// How late each order counted, in milliseconds, the earliest first.
    fn late(&self) -> Vec<u128> {
        let mut late: Vec<_> = self.came.iter().map(|(n, times)| times[0].duration_since(self.written[*n]).as_millis()).collect();
        late.sort_unstable();
        late
    }

    /// How long after a moment the first order counted that was written after it, in milliseconds.
    fn next(&self, moment: Instant) -> u128 {
        let new = self.came.iter().filter(|(n, _)| self.written[**n] > moment).map(|(_, times)| times[0]);
        new.min().expect("an order after it").duration_since(moment).as_millis()
    }
}

/// The value that so many hundredths of them do not exceed.
fn share(sorted: &[u128], hundredths: usize) -> u64 {
    sorted[(sorted.len() - 1) * hundredths / 100] as u64
}

fn instance(kafka: &Kafka, prefix: &str, id: &str) -> Tillflow {
    let mut instance = Tillflow::run().on_kafka(&kafka.bootstrap(), prefix, id).set("time.grace_s", 0).within(LIMIT).spawn();
    instance.wait_until_ready();
    instance
}

#[test]
fn instances_restarted_one_after_the_other_lose_and_double_nothing() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut instances = ["one", "two", "three"].map(|id| instance(kafka, &prefix, id));
    let (load, restarts) = Load::during(kafka, &prefix, |more| {
        instances.each_mut().map(|instance| {
            let started = Instant::now();
            assert!(instance.stop().success(), "{}", instance.stderr());
            instance.start_again();
            instance.wait_until_ready();
            let took = started.elapsed().as_millis() as u64;
            more();
            took
        })
    });
    load.counts_once();
    let late = load.late();
    let late = json!({"p50": share(&late, 50), "p99": share(&late, 99), "latest": share(&late, 100)});
    eprintln!("{:#}", json!({"orders": load.written.len(), "restarts_ms": restarts, "late_ms": late}));
}

/// `cargo test --workspace --test rolling -- --ignored --nocapture` prints the figures.
#[test]
#[ignore = "twenty restarts, for the figures of docs/status.md"]
fn after_each_of_twenty_crashes_the_next_commit_is_told() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut instance = instance(kafka, &prefix, "one");
    let (load, crashes) = Load::during(kafka, &prefix, |more| {
        let crash = || {
            instance.kill();
            let crashed = Instant::now();
            instance.start_again();
            more();
            crashed
        };
        std::iter::repeat_with(crash).take(20).collect::<Vec<_>>()
    });
    load.counts_once();
    let mut next: Vec<_> = crashes.into_iter().map(|crashed| load.next(crashed)).collect();
    next.sort_unstable();
    eprintln!(
        "{:#}",
        json!({"orders": load.written.len(), "next_commit_ms": {"median": share(&next, 50), "worst": share(&next, 100), "all": next.iter().map(|ms| *ms as u64).collect::<Vec<_>>()}})
    );
}
