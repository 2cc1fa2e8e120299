//! Reads topics outside any group.

use super::{
    client::{ANSWER, Kafka, ask, classify},
    context::Quiet,
    topic_id::topic_id,
};
use crate::log::{LogError, Reader, Record, Start, TopicPartition};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;

const BATCH: usize = 5_000;

/// Reads topics outside any group.
pub struct KafkaReader {
    kafka: Kafka,
    consumer: BaseConsumer<Quiet>,
    /// Sees what is not yet decided, too: the true end of a changelog.
    ends: BaseConsumer<Quiet>,
    assigned: BTreeMap<TopicPartition, i64>,
}

impl KafkaReader {
    /// A reader with nothing assigned. What is written and not yet decided counts as there (`undecided`) or not.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn new(kafka: &Kafka, undecided: bool) -> Result<Self, LogError> {
        let mut config = kafka.consumer(&format!("{}.reader", kafka.settings.app_id));
        config.set("auto.offset.reset", "earliest");
        let consumer = config.create_with_context(Quiet).map_err(|e| classify("making a reader", &e))?;
        if undecided {
            config.set("isolation.level", "read_uncommitted");
        }
        let ends = config.create_with_context(Quiet).map_err(|e| classify("making a reader", &e))?;
        Ok(Self { kafka: kafka.clone(), consumer, ends, assigned: BTreeMap::new() })
    }

    fn watermarks(&self, at: TopicPartition) -> Result<(i64, i64), LogError> {
        let name = self.kafka.name(at.topic);
        ask(&format!("the ends of {name}"), || self.ends.fetch_watermarks(&name, at.partition as i32, ANSWER))
    }

    /// The id that the cluster gave a topic; `None` where it gives none.
    ///
    /// # Errors
    /// When the cluster does not answer, or refuses.
    pub fn topic_id(&self, topic: usize) -> Result<Option<String>, LogError> {
        let name = self.kafka.name(topic);
        ask(&format!("the id of {name}"), || topic_id(self.ends.client(), &name, ANSWER))
    }

    fn note_positions(&mut self) {
        if let Ok(positions) = self.consumer.position() {
            for e in positions.elements() {
                if let (Some(topic), Offset::Offset(offset)) = (self.kafka.topic(e.topic()), e.offset()) {
                    let at = TopicPartition { topic, partition: e.partition() as u32 };
                    if let Some(position) = self.assigned.get_mut(&at) {
                        *position = (*position).max(offset);
                    }
                }
            }
        }
    }
}

impl Reader for KafkaReader {
    fn assign(&mut self, from: &[(TopicPartition, Start)]) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        self.assigned.clear();
        for &(at, start) in from {
            let (begin, end) = self.watermarks(at)?;
            let offset = match start {
                Start::Earliest => begin,
                Start::Latest => end,
                Start::Offset(offset) => offset.max(begin),
            };
            self.assigned.insert(at, offset);
            list.add_partition_offset(&self.kafka.name(at.topic), at.partition as i32, Offset::Offset(offset))
                .map_err(|e| classify("assigning", &e))?;
        }
        self.consumer.assign(&list).map_err(|e| classify("assigning", &e))
    }

    fn poll(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        let deadline = Instant::now() + timeout;
        while records.len() < BATCH {
            let wait = if records.is_empty() { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => records.extend(record(&self.kafka, &message)),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(e)) => tracing::debug!("reading: {e}"),
                None => break,
            }
        }
        self.note_positions();
        Ok(records)
    }

    fn position(&self, at: TopicPartition) -> Option<i64> {
        self.assigned.get(&at).copied()
    }

    fn begin(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        Ok(self.watermarks(at)?.0)
    }

    fn end(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        Ok(self.watermarks(at)?.1)
    }
}

/// A message as a record.
pub fn record(kafka: &Kafka, message: &BorrowedMessage<'_>) -> Option<Record> {
    let headers =
        message.headers().map(|headers| headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect());
    Some(Record {
        at: TopicPartition { topic: kafka.topic(message.topic())?, partition: message.partition() as u32 },
        offset: message.offset(),
        logged_at: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or_default()),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    })
}
