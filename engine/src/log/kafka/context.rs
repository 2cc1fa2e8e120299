//! What librdkafka tells in callbacks: kept, to be dealt with after the poll that brought it.

use crate::log::{Membership, TopicPartition};
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::DeliveryResult,
    producer::ProducerContext,
    types::RDKafkaRespErr,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicBool, Ordering},
};

/// Of a worker's consumer.
#[derive(Default)]
pub struct MemberContext {
    changes: Mutex<VecDeque<Membership>>,
    fatal: Mutex<Option<String>>,
    closing: AtomicBool,
}

impl MemberContext {
    /// The next change of membership.
    pub fn next_change(&self) -> Option<Membership> {
        self.changes.lock().pop_front()
    }

    /// Whether a change of membership waits to be dealt with.
    pub fn next_change_waits(&self) -> bool {
        !self.changes.lock().is_empty()
    }

    /// The error that ends this client, if one came.
    pub fn fatal(&self) -> Option<String> {
        self.fatal.lock().clone()
    }

    /// From now on revocations are answered at once: nobody polls any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for MemberContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("consumer: {error}: {reason}");
        if reason.contains("FENCED_INSTANCE_ID") || reason.contains("fenced") {
            self.fatal.lock().get_or_insert_with(|| reason.to_owned());
        }
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers = partitions.elements().iter().map(|e| e.partition() as u32).collect();
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answered = if assign { consumer.incremental_assign(&TopicPartitionList::new()) } else { unassign(consumer, partitions) };
            if let Err(e) = answered {
                tracing::debug!("answering a rebalance while closing: {e}");
            }
            return;
        }
        self.changes.lock().push_back(if assign {
            Membership::Assigned(numbers)
        } else if consumer.assignment_lost() {
            Membership::Lost(numbers)
        } else {
            Membership::Revoked(numbers)
        });
    }
}

/// Gives up those of `partitions` that are assigned; librdkafka refuses others.
pub fn unassign<C: ConsumerContext>(consumer: &BaseConsumer<C>, partitions: &TopicPartitionList) -> Result<(), KafkaError> {
    let assigned = consumer.assignment()?;
    let mut list = TopicPartitionList::new();
    for e in partitions.elements() {
        if assigned.find_partition(e.topic(), e.partition()).is_some() {
            list.add_partition(e.topic(), e.partition());
        }
    }
    consumer.incremental_unassign(&list)
}

/// Of a worker's producer: remembers how far each partition was written.
#[derive(Default)]
pub struct WriterContext {
    written: Mutex<BTreeMap<TopicPartition, i64>>,
}

impl WriterContext {
    /// The next offset after what was delivered to each watched partition since the last call.
    pub fn take(&self) -> BTreeMap<TopicPartition, i64> {
        std::mem::take(&mut self.written.lock())
    }
}

impl ClientContext for WriterContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("producer: {error}: {reason}");
    }
}

impl ProducerContext for WriterContext {
    /// The partition to be watched, packed; zero for those that are not.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, watched: usize) {
        use rdkafka::Message;
        if let (Ok(message), Some(at)) = (result, unpack(watched)) {
            let mut written = self.written.lock();
            let next = written.entry(at).or_insert(0);
            *next = (*next).max(message.offset() + 1);
        }
    }
}

/// A watched partition as a callback's opaque value.
pub fn pack(at: TopicPartition) -> usize {
    (at.topic << 16 | at.partition as usize) + 1
}

fn unpack(packed: usize) -> Option<TopicPartition> {
    let value = packed.checked_sub(1)?;
    Some(TopicPartition { topic: value >> 16, partition: (value & 0xffff) as u32 })
}

/// Of clients whose callbacks nobody needs.
pub struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("client: {error}: {reason}");
    }
}
impl ConsumerContext for Quiet {
    fn rebalance(&self, _: &BaseConsumer<Self>, _: RDKafkaRespErr, _: &mut TopicPartitionList) {}
}
