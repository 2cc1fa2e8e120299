//! Reads topics outside any group.

use super::{
    client::{ANSWER, Kafka, ask, classify, whole_millis},
    context::Quiet,
    topic_id::topic_id,
    worker::numbers,
};
use crate::log::{LogError, Reader, Record, Start, TopicPartition};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;

const BATCH: usize = 5_000;
/// Longest wait for a first connection; what is asked next says why there is none.
const CONNECTING: Duration = Duration::from_secs(2);
/// The broker answers the requests of a connection in turn: what is asked beside a fetch that finds nothing waits so long, in ms.
const BRIEF_FETCH: &str = "5";

/// Reads topics outside any group.
pub struct KafkaReader {
    kafka: Kafka,
    consumer: BaseConsumer<Quiet>,
    /// Sees what is not yet decided, too: the true end of a changelog.
    undecided: Option<BaseConsumer<Quiet>>,
    assigned: BTreeMap<TopicPartition, i64>,
}

impl KafkaReader {
    /// A reader with nothing assigned. What is written and not yet decided counts as there (`undecided`) or not; where it does, as for
    /// who restores, ends are asked for while it reads.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn new(kafka: &Kafka, undecided: bool) -> Result<Self, LogError> {
        let mut config = kafka.consumer(&format!("{}.reader", kafka.settings.app_id));
        config.set("auto.offset.reset", "earliest");
        if undecided {
            config.set("fetch.wait.max.ms", BRIEF_FETCH);
        }
        let consumer = connected(kafka, &config)?;
        config.set("isolation.level", "read_uncommitted");
        let undecided = undecided.then(|| connected(kafka, &config)).transpose()?;
        Ok(Self { kafka: kafka.clone(), consumer, undecided, assigned: BTreeMap::new() })
    }

    /// The client that questions go to: where there are two, the one that never reads.
    pub fn asked(&self) -> &BaseConsumer<Quiet> {
        self.undecided.as_ref().unwrap_or(&self.consumer)
    }

    /// The last stable offsets of partitions, those that are known.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn stable_ends(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let answered = self.listed(&self.consumer, partitions, Offset::End);
        answered.map(|offsets| numbers(&self.kafka, &offsets)).map_err(|e| classify("the last stable offsets", &e))
    }

    /// Whether no transaction is open on a partition: its last stable offset is its end.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn is_decided(&self, at: TopicPartition) -> Result<bool, LogError> {
        let stable = self.stable_ends([at])?;
        Ok(stable == [(at, self.one(at, Offset::End)?)])
    }

    /// The first or the last offsets of partitions, by one request a broker.
    fn listed(
        &self,
        consumer: &BaseConsumer<Quiet>,
        partitions: impl IntoIterator<Item = TopicPartition>,
        which: Offset,
    ) -> KafkaResult<TopicPartitionList> {
        let mut list = self.kafka.list(partitions);
        list.set_all_offsets(which)?;
        consumer.offsets_for_times(list, ANSWER)
    }

    /// As [`KafkaReader::listed`], of all partitions that are asked for.
    fn all(&self, partitions: &[TopicPartition], which: Offset) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names: BTreeSet<_> = partitions.iter().map(|at| self.kafka.name(at.topic)).collect();
        let others = if names.len() > 1 { format!(" and {} other topics", names.len() - 1) } else { String::new() };
        ask(&format!("the ends of {}{others}", names.first().map_or("", String::as_str)), || {
            let offsets = self.listed(self.asked(), partitions.iter().copied(), which)?;
            offsets.elements().iter().try_for_each(|e| e.error())?;
            let offsets: BTreeMap<_, _> = numbers(&self.kafka, &offsets).into_iter().collect();
            let all = partitions.iter().all(|at| offsets.contains_key(at));
            if all { Ok(offsets) } else { Err(KafkaError::OffsetFetch(RDKafkaErrorCode::LeaderNotAvailable)) }
        })
    }

    fn one(&self, at: TopicPartition, which: Offset) -> Result<i64, LogError> {
        Ok(self.all(&[at], which)?.get(&at).copied().unwrap_or_default())
    }

    /// The id that the cluster gave a topic; `None` where it gives none.
    ///
    /// # Errors
    /// When the cluster does not answer, or refuses.
    pub fn topic_id(&self, topic: usize) -> Result<Option<String>, LogError> {
        let name = self.kafka.name(topic);
        ask(&format!("the id of {name}"), || topic_id(self.asked().client(), &name, ANSWER))
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

/// A consumer that has a connection. Asked for offsets before, librdkafka looks for the partitions' leaders once in vain, and again only
/// after 0.7 s; a request for metadata waits for the connection.
fn connected(kafka: &Kafka, config: &ClientConfig) -> Result<BaseConsumer<Quiet>, LogError> {
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(|e| classify("making a reader", &e))?;
    if let Err(e) = consumer.fetch_metadata(Some(&kafka.name(0)), CONNECTING) {
        tracing::debug!("a reader connects: {e}");
    }
    Ok(consumer)
}

impl Reader for KafkaReader {
    fn assign(&mut self, from: &[(TopicPartition, Start)]) -> Result<(), LogError> {
        let all: Vec<_> = from.iter().map(|(at, _)| *at).collect();
        let latest: Vec<_> = from.iter().filter(|(_, start)| *start == Start::Latest).map(|(at, _)| *at).collect();
        let (begins, ends) = (self.all(&all, Offset::Beginning)?, self.all(&latest, Offset::End)?);
        let mut list = TopicPartitionList::new();
        self.assigned.clear();
        for &(at, start) in from {
            let begin = begins.get(&at).copied().unwrap_or_default();
            let offset = match start {
                Start::Earliest => begin,
                Start::Latest => ends.get(&at).copied().unwrap_or(begin),
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
            match self.consumer.poll(whole_millis(wait)) {
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
        self.one(at, Offset::Beginning)
    }

    fn end(&mut self, at: TopicPartition) -> Result<i64, LogError> {
        self.one(at, Offset::End)
    }

    fn ends(&mut self, of: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        self.all(of, Offset::End)
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
