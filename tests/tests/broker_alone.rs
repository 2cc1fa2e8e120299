//! Whether Kafka itself, without replicas and killed, keeps what it says of transactions. Bare clients, nothing of ours.

use rdkafka::{
    ClientConfig,
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
const KILLS: usize = 10;
/// Transactions between two kills: each producer's next ones lie on the partitions of the one that was open.
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

#[test]
#[ignore = "Kafka 4.3.1 fails it: docs/decisions/hanging-transactions.md"]
fn a_broker_that_is_killed_shows_no_record_that_it_has_aborted() {
    let mut kafka = Kafka::start();
    (0..TOPICS).for_each(|topic| kafka.create_topic(&format!("t{topic}"), PARTITIONS as i32, &[]));
    let (config, committed, stop) = (kafka.client(), AtomicUsize::new(0), AtomicBool::new(false));
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
        for _ in 0..KILLS {
            go_on();
            kafka.kill();
            kafka.start_again();
        }
        go_on();
        stop.store(true, Ordering::Release);
    });
    let shown = kafka.shown_though_aborted();
    assert!(shown.is_empty(), "{} partitions:\n{}", shown.len(), shown.join("\n"));
}
