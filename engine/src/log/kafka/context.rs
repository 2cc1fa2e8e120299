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
use std::collections::{BTreeMap, VecDeque};

/// Of a worker's consumer.
#[derive(Default)]
pub struct MemberContext {
    changes: Mutex<VecDeque<Membership>>,
    ending: Mutex<Ending>,
}

/// How far a member is in giving its place up.
#[derive(Default, PartialEq)]
enum Ending {
    /// It is not: changes are kept for whoever polls.
    #[default]
    Not,
    /// Changes are answered at once; so many were.
    Answering(usize),
    /// librdkafka is told to end the membership: it waits for one answer at most, and ends with it. A second one would
    /// be waited for forever, since nobody is left to hear it.
    Last,
    /// That answer was given.
    Over,
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

    /// From now on changes are answered at once. False when that was so already.
    pub fn begin_to_end(&self) -> bool {
        let mut ending = self.ending.lock();
        let begins = *ending == Ending::Not;
        if begins {
            *ending = Ending::Answering(0);
        }
        begins
    }

    /// How many changes were answered at once.
    pub fn answered(&self) -> usize {
        match *self.ending.lock() {
            Ending::Answering(answered) => answered,
            _ => 0,
        }
    }

    /// From now on one change is answered, and no more.
    pub fn end(&self) {
        *self.ending.lock() = Ending::Last;
    }
}

impl ClientContext for MemberContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("consumer: {error}: {reason}");
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers = partitions.elements().iter().map(|e| e.partition() as u32).collect();
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let mut ending = self.ending.lock();
        if *ending != Ending::Not {
            if *ending != Ending::Over {
                answer(consumer, assign);
            }
            *ending = match *ending {
                Ending::Answering(answered) => Ending::Answering(answered + 1),
                _ => Ending::Over,
            };
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

/// Answers a change on behalf of a member that ends: it takes nothing, and gives all up.
pub fn answer<C: ConsumerContext>(consumer: &BaseConsumer<C>, assign: bool) {
    let answered = if assign {
        consumer.incremental_assign(&TopicPartitionList::new())
    } else {
        consumer.assignment().and_then(|all| consumer.incremental_unassign(&all))
    };
    if let Err(e) = answered {
        tracing::debug!("ending a membership: {e}");
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
