//! A task that can't run yet, since somebody's transaction on its changelog or its offsets is still open, does not hold
//! up the other tasks of its worker; a start does not wait for nothing; and what is started again is read again.

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::time::Duration;
use tillflow_engine::log::{
    Log, Membership, TopicPartition,
    kafka::{KafkaLog, Stores},
};
use tillflow_schemas::partition::partition;
use tillflow_state::Shared;
use tillflow_tests::{
    Kafka, Scratch, Tillflow,
    cluster::{PARTITIONS, Shop},
    orders::{earned, orders},
    scratch, until,
};

const LIMIT: Duration = Duration::from_secs(90);
/// Starts after which it is no chance any more that nobody asked in vain.
const STARTS: usize = 6;

/// A shop whose first sixteen orders have counted, stopped, and the partition of user `u1`.
fn stopped_shop(kafka: &Kafka, prefix: &str) -> (Tillflow, i32) {
    let mut shop = Tillflow::run().on_kafka(&kafka.bootstrap(), prefix, "one").set("time.grace_s", 0).within(LIMIT).spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..16)).status(), 202);
    until("all count", LIMIT, || earned(kafka, prefix).len() == 16);
    assert!(shop.stop().success(), "{}", shop.stderr());
    (shop, partition(b"u1", PARTITIONS) as i32)
}

/// A writer that nobody knows, with a transaction open that times out after the test only.
fn stranger(kafka: &Kafka, prefix: &str) -> BaseProducer {
    let mut config = kafka.client();
    config.set("transactional.id", format!("{prefix}stranger")).set("transaction.timeout.ms", "600000");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// While `held` can't run: the orders of all other partitions count, its own do not, and the instance says that it isn't
/// ready. Once the stranger's transaction is over, all count once.
fn the_others_go_on(mut shop: Tillflow, kafka: &Kafka, prefix: &str, held: i32, stranger: &BaseProducer) {
    let is_held = |n: &u32| partition(format!("u{}", n % 8).as_bytes(), PARTITIONS) as i32 == held;
    let (waiting, free): (Vec<u32>, Vec<u32>) = (0..200).partition(|n| *n >= 16 && is_held(n));
    assert!(!waiting.is_empty() && free.len() > 16, "users of more than one partition");
    shop.start_again();
    assert_eq!(shop.post("/v1/events", orders(16..200)).status(), 202);
    until("those of the other partitions count", LIMIT, || earned(kafka, prefix) == free);
    assert_eq!(shop.get("/v1/users/u1/loyalty").status(), 503);
    let readiness = shop.get("/readyz");
    assert_eq!(readiness.status(), 503);
    let reason = readiness.text().unwrap();
    assert!(reason.contains("restored"), "{reason}");
    stranger.abort_transaction(LIMIT).unwrap();
    until("all count", LIMIT, || earned(kafka, prefix).len() >= 200);
    shop.wait_until_ready();
    assert_eq!(earned(kafka, prefix), (0..200).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}

/// Asked without a connection, librdkafka looks for the coordinator in vain, and again only after half a second.
#[test]
fn who_starts_is_connected_before_it_asks_for_its_transactional_ids() {
    let kafka = Kafka::shared();
    let shop = Tillflow::run().on_kafka(&kafka.bootstrap(), &kafka.prefix(), "one").env("RUST_LOG", "tillflow_engine=debug");
    let mut shop = shop.within(LIMIT).spawn();
    let said = |shop: &Tillflow, words: &[&str]| shop.stderr().lines().filter(|l| words.iter().all(|w| l.contains(w))).count();
    let in_vain = |shop: &Tillflow| said(shop, &["asking again", "Timed out"]);
    shop.wait_until_ready();
    assert!(shop.stop().success(), "{}", shop.stderr());
    // The first start may have waited for the coordinator's own topic.
    let (joined, before) = (said(&shop, &["joining"]), in_vain(&shop));
    for _ in 0..STARTS {
        shop.start_again();
        shop.wait_until_ready();
        assert!(shop.stop().success(), "{}", shop.stderr());
    }
    assert!(said(&shop, &["joining"]) >= joined + 2 * STARTS, "each group asks once a start: {}", shop.stderr());
    // A busy machine may still be late with an answer.
    assert!(in_vain(&shop) <= before + STARTS / 2, "{}", shop.stderr());
}

#[test]
fn while_one_task_is_restored_the_others_go_on() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let (shop, held) = stopped_shop(kafka, &prefix);
    // A changelog is read to its end, and not beyond what is decided.
    let stranger = stranger(kafka, &prefix);
    let topic = format!("{prefix}tillflow.customers.changelog");
    stranger.send(BaseRecord::to(&topic).partition(held).key("nobody").payload("nothing")).map_err(|(e, _)| e).unwrap();
    stranger.flush(LIMIT).unwrap();
    the_others_go_on(shop, kafka, &prefix, held, &stranger);
}

#[test]
fn while_one_task_waits_for_its_committed_offsets_the_others_go_on() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let (shop, held) = stopped_shop(kafka, &prefix);
    let stranger = stranger(kafka, &prefix);
    let group: BaseConsumer = kafka.client().set("group.id", format!("{prefix}app.customers")).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&format!("{prefix}user_events"), held, Offset::Offset(1)).unwrap();
    stranger.send_offsets_to_transaction(&offsets, &group.group_metadata().unwrap(), LIMIT).unwrap();
    the_others_go_on(shop, kafka, &prefix, held, &stranger);
}

/// A shop's topics, and a worker of the group `customers` that has partition 0 of `user_events`, which holds these records.
fn reader(kafka: &Kafka, brokers: &str, files: &Scratch, records: usize, value: &[u8]) -> (KafkaLog, TopicPartition) {
    let shop = Shop::new(kafka, brokers);
    let stores = Stores::open(&files.join("stores"), &Shared::new(8 << 20, 4 << 20)).unwrap();
    let lead = shop.cluster.catalog.index("user_events").unwrap();
    let producer: BaseProducer = kafka.client().create().unwrap();
    for _ in 0..records {
        producer.send(BaseRecord::<(), _>::to(&shop.topic("user_events")).partition(0).payload(value)).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(LIMIT).unwrap();
    let mut log = KafkaLog::join(&shop.reached(), "customers", 0, &[lead], &stores, true).unwrap();
    until("the group gives it the partition", LIMIT, || {
        let changes = log.poll(Duration::from_millis(50)).unwrap().changes;
        changes.iter().any(|c| matches!(c, Membership::Assigned(partitions) if partitions.contains(&0)))
    });
    (log, TopicPartition { topic: lead, partition: 0 })
}

/// What an input was held back with must not stay with the client: a task whose queue was full when its transaction was aborted
/// waited for ever.
#[test]
fn an_input_that_was_held_back_is_read_when_it_is_started_again() {
    const RECORDS: usize = 20;
    let kafka = Kafka::shared();
    let files = scratch("held");
    let (mut log, input) = reader(kafka, &kafka.bootstrap(), &files, RECORDS, b"one");
    let read_from_the_first = |log: &mut KafkaLog| {
        log.start(&[(input, Some(0))]).unwrap();
        let mut read = 0;
        until("all is read", LIMIT, || {
            read += log.poll(Duration::from_millis(50)).unwrap().records.len();
            read >= RECORDS
        });
        assert_eq!(read, RECORDS);
    };
    read_from_the_first(&mut log);
    log.pause(input, true).unwrap();
    read_from_the_first(&mut log);
    log.pause(input, true).unwrap();
    log.release(&[0]).unwrap();
    read_from_the_first(&mut log);
    log.close(true);
}

/// librdkafka's own pause throws away what is fetched and not taken: eight times as much was fetched as there was.
#[test]
fn what_is_held_back_is_fetched_once_and_comes_in_its_order() {
    const RECORDS: usize = 40_000;
    let value = [b'x'; 400];
    let kafka = Kafka::start();
    let proxy = kafka.proxy();
    let files = scratch("once");
    let (mut log, input) = reader(&kafka, &proxy.address(), &files, RECORDS, &value);
    let before = proxy.answered_bytes();
    log.start(&[(input, Some(0))]).unwrap();
    let mut next = 0;
    until("all is read", LIMIT, || {
        let records = log.poll(Duration::from_millis(50)).unwrap().records;
        for record in &records {
            assert_eq!(record.offset, next);
            next += 1;
        }
        if !records.is_empty() {
            log.pause(input, true).unwrap();
            assert!(log.poll(Duration::from_millis(5)).unwrap().records.is_empty(), "it is held back");
            log.pause(input, false).unwrap();
        }
        next == RECORDS as i64
    });
    let (all, fetched) = ((RECORDS * value.len()) as u64, proxy.answered_bytes() - before);
    assert!((all..all * 3 / 2).contains(&fetched), "{fetched} bytes came for {all}");
    log.close(true);
}
