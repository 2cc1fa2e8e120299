//! The queues of a member's inputs, one each. An input that is held back is left in its own, of which the client fetches no more
//! once it is full.
//!
//! librdkafka's own pause would throw away what was fetched and not taken, and fetch it anew when it ends: a drain of 164 MB
//! had it fetch 1,280.

use super::{client::Kafka, context::MemberContext, reader::record};
use crate::log::{LogError, Record, TopicPartition};
use rdkafka::{
    consumer::{BaseConsumer, base_consumer::PartitionQueue},
    error::KafkaError,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

/// Records taken of one input at a time, at most.
const BATCH: usize = 1_000;

/// How often all queues are looked at, whatever they told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A worker's consumer.
pub type Consumer = BaseConsumer<MemberContext>;

/// Wakes the worker: something came.
#[derive(Clone)]
pub struct Bell(SyncSender<()>);

impl Bell {
    /// Rings it. It is heard once, however often it rang.
    pub fn ring(&self) {
        // Full: it has rung already.
        let _ = self.0.try_send(());
    }
}

/// The queues of a member's inputs.
pub struct Queues {
    bell: Bell,
    rung: Receiver<()>,
    inputs: BTreeMap<TopicPartition, Queue>,
    looked: Instant,
}

struct Queue {
    records: PartitionQueue<MemberContext>,
    /// Whether there may be any.
    filled: Arc<AtomicBool>,
    held: bool,
}

/// What was taken.
#[derive(Default)]
pub struct Taken {
    /// In the order of each input.
    pub records: Vec<Record>,
    /// What is wrong with inputs.
    pub errors: Vec<KafkaError>,
}

impl Queues {
    /// None yet.
    pub fn new() -> Self {
        let (bell, rung) = sync_channel(1);
        Self { bell: Bell(bell), rung, inputs: BTreeMap::new(), looked: Instant::now() }
    }

    /// What to ring when something else than a record came.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Gives an input that is about to be assigned a queue of its own. It is not held back.
    ///
    /// # Errors
    /// When the client has none for it.
    pub fn add(&mut self, consumer: &Arc<Consumer>, name: &str, at: TopicPartition) -> Result<(), LogError> {
        let records = consumer.split_partition_queue(name, at.partition as i32);
        let mut records = records.ok_or_else(|| LogError::Unavailable(format!("the client has no queue for {name} {}", at.partition)))?;
        let filled = Arc::new(AtomicBool::new(true));
        let (bell, fills) = (self.bell.clone(), filled.clone());
        records.set_nonempty_callback(move || {
            fills.store(true, Ordering::Release);
            bell.ring();
        });
        self.inputs.insert(at, Queue { records, filled, held: false });
        Ok(())
    }

    /// Forgets an input that is assigned no more.
    pub fn remove(&mut self, at: TopicPartition) {
        self.inputs.remove(&at);
    }

    /// Forgets all: their client is gone.
    pub fn clear(&mut self) {
        self.inputs.clear();
    }

    /// Holds an input back, or lets it go on.
    pub fn hold(&mut self, at: TopicPartition, held: bool) {
        if let Some(queue) = self.inputs.get_mut(&at) {
            queue.held = held;
        }
    }

    /// Takes what is there of inputs that are not held back.
    pub fn take(&self, kafka: &Kafka) -> Taken {
        let mut taken = Taken::default();
        for queue in self.inputs.values().filter(|queue| !queue.held) {
            // Told before it is looked: what comes meanwhile tells again.
            if !queue.filled.swap(false, Ordering::AcqRel) {
                continue;
            }
            let more = taken.records.len() + BATCH;
            while let Some(message) = queue.records.poll(Duration::ZERO) {
                match message {
                    Ok(message) => taken.records.extend(record(kafka, &message)),
                    Err(KafkaError::PartitionEOF(_)) => {}
                    Err(e) => taken.errors.push(e),
                }
                if taken.records.len() >= more {
                    queue.filled.store(true, Ordering::Release);
                    break;
                }
            }
        }
        taken
    }

    /// Waits until something comes, or for so long.
    pub fn wait(&mut self, limit: Duration) {
        // Either is a reason to look, and nobody can hang up: this holds a bell itself.
        let _ = self.rung.recv_timeout(limit);
        // Should a queue ever have been filled without a word.
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.inputs.values().for_each(|queue| queue.filled.store(true, Ordering::Release));
        }
    }
}
