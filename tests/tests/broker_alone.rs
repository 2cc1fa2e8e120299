//! Whether Kafka itself ends each transaction in all its partitions when a broker goes. Bare clients, nothing of ours.

use rdkafka::{
    ClientConfig,
    admin::{NewTopic, TopicReplication},
    error::KafkaResult,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};
use tillflow_tests::{Kafka, until};

const LONG: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);
const TOPICS: usize = 40;
const PARTITIONS: usize = 12;
const PRODUCERS: usize = 12;
/// Partitions that a transaction writes to.
const TOUCHED: usize = 28;
/// Brokers that go, one after the other.
const LOSSES: usize = 10;
/// Transactions between two of them: each producer's next ones lie on the partitions of the one that was open.
const BETWEEN: usize = 600;

/// Commits transactions until it is told to stop, or one fails.
fn transactions(config: &ClientConfig, number: usize, committed: &AtomicUsize, stop: &AtomicBool) -> KafkaResult<()> {
    let mut config = config.clone();
    config.set("transactional.id", format!("bare-{number}")).set("transaction.timeout.ms", "10000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    producer.init_transactions(PATIENCE)?;
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        producer.begin_transaction()?;
        for part in 0..TOUCHED {
            let place = 131 * number + 37 * n + part;
            let topic = format!("t{}", place % TOPICS);
            let record = BaseRecord::<(), _>::to(&topic).partition((place / TOPICS % PARTITIONS) as i32).payload("of a transaction");
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.commit_transaction(PATIENCE)?;
        committed.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

/// Has transactions written, each partition with a replica on every broker, while brokers go and come back.
fn lose_brokers(brokers: &mut [Kafka], lose: impl Fn(&mut Kafka)) {
    let topics: Vec<_> = (0..TOPICS).map(|topic| format!("t{topic}")).collect();
    let replicas = || TopicReplication::Fixed(brokers.len() as i32);
    let new: Vec<_> = topics.iter().map(|topic| NewTopic::new(topic, PARTITIONS as i32, replicas())).collect();
    let created = brokers[0].administer(async |admin, options| admin.create_topics(&new, options).await);
    created.into_iter().for_each(|topic| drop(topic.expect("a topic")));
    let mut config = brokers[0].client();
    config.set("bootstrap.servers", brokers.iter().map(Kafka::bootstrap).collect::<Vec<_>>().join(","));
    let (committed, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for number in 0..PRODUCERS {
            let (config, committed, stop) = (&config, &committed, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    // The next producer decides what a failed one left open.
                    let _ = transactions(config, number, committed, stop);
                }
            });
        }
        let go_on = || {
            let before = committed.load(Ordering::Acquire);
            until("transactions are committed", LONG, || committed.load(Ordering::Acquire) >= before + BETWEEN);
        };
        for n in 0..LOSSES {
            go_on();
            let broker = n % brokers.len();
            lose(&mut brokers[broker]);
            brokers[broker].start_again();
        }
        go_on();
        stop.store(true, Ordering::Release);
    });
    let skipped: Vec<_> = brokers.iter().flat_map(Kafka::skipped_markers).collect();
    assert!(skipped.is_empty(), "{} transactions:\n{}", skipped.len(), skipped.join("\n"));
}

#[test]
#[ignore = "Kafka 4.3.1 fails it: docs/decisions/hanging-transactions.md"]
fn a_broker_alone_that_is_killed_ends_its_transactions_everywhere() {
    lose_brokers(&mut [Kafka::start()], |broker| _ = broker.kill());
}

#[test]
#[ignore = "Kafka 4.3.1 fails it: docs/decisions/hanging-transactions.md"]
fn a_broker_alone_that_is_stopped_ends_its_transactions_everywhere() {
    lose_brokers(&mut [Kafka::start()], |broker| _ = broker.stop());
}

#[test]
#[ignore = "takes minutes, and tells of Kafka alone"]
fn three_brokers_of_which_one_is_killed_end_their_transactions_everywhere() {
    let setup = Kafka::setup().property("transaction.state.log.replication.factor", "3").property("min.insync.replicas", "2");
    let first = setup.property("transaction.state.log.min.isr", "2").start();
    let (second, third) = (first.joined_by(2), first.joined_by(3));
    lose_brokers(&mut [first, second, third], |broker| _ = broker.kill());
}
