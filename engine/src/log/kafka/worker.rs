//! A worker's way to Kafka: a static member of the group, with the topics that go with its partitions.

use super::{
    client::{Kafka, classify},
    context::unassign,
    member::Member,
    purge::Purge,
    queues::Queues,
    reader::{KafkaReader, record},
    settle::Settling,
    stores::{OpenStores, Stores},
    topics::tombstones_stay,
    transaction::Writer,
    watch::Watch,
};
use crate::log::{
    CommitError, Log, LogError, Membership, Opened, Polled, Positions, Reader, Record, TopicPartition, Transaction, tenure::Tenure,
};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::KafkaError, types::RDKafkaErrorCode};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tillflow_schemas::Role;

/// How often the ends of the inputs are asked for, and positions looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same where somebody waits for them. Shorter polls are rests between commits, which the ends are nothing to.
const LOOK_SOONEST: Duration = Duration::from_millis(5);

/// A worker's way to Kafka.
pub struct KafkaLog {
    kafka: Kafka,
    group: &'static str,
    changelog: usize,
    /// By which a changelog that was made anew is told from the one before.
    changelog_id: Option<String>,
    member: Member,
    writer: Writer,
    stores: OpenStores,
    reader: KafkaReader,
    started: BTreeSet<TopicPartition>,
    queues: Queues,
    ends: BTreeMap<TopicPartition, i64>,
    /// All ends are at least of then.
    learned: Instant,
    positions: BTreeMap<TopicPartition, i64>,
    looked: Instant,
    watch: Watch,
    settling: Settling,
    purge: Purge,
    /// The topic that is subscribed to.
    lead: usize,
    /// Partitions that the group gave this worker.
    tenure: Tenure<String>,
}

impl KafkaLog {
    /// Joins `group` as its `worker`-th member of this instance. `inputs` are the group's topics, the first of which
    /// is subscribed to; the others follow its partitions. With `leave` it gives its membership up when it is closed.
    ///
    /// # Errors
    /// When the cluster can't be reached, or refuses.
    pub fn join(kafka: &Kafka, group: &'static str, worker: u32, inputs: &[usize], stores: &Stores, leave: bool) -> Result<Self, LogError> {
        let changelog = kafka.catalog.of_group(Role::Changelog, group).and_then(|t| kafka.catalog.index(&t.name));
        let changelog = changelog.ok_or_else(|| LogError::Fatal(format!("topics.yaml has no changelog of {group}")))?;
        // Takes over the id first: what a former life left open is decided while nothing is assigned.
        let began = Instant::now();
        let writer = Writer::new(kafka, kafka.transactional_id(group, worker))?;
        let initialised = began.elapsed();
        let queues = Queues::new();
        let member = Member::join(kafka, group, worker, inputs, leave, queues.bell())?;
        let subscribed = began.elapsed();
        let reader = KafkaReader::new(kafka, true)?;
        let changelog_id = reader.topic_id(changelog)?;
        tracing::debug!(group, worker, ?initialised, ?subscribed, identified = ?began.elapsed(), "joining");
        let settling = Settling::new(kafka, group, writer.id());
        Ok(Self {
            kafka: kafka.clone(),
            group,
            changelog,
            changelog_id,
            member,
            writer,
            stores: OpenStores::new(stores, group),
            reader,
            started: BTreeSet::new(),
            queues,
            ends: BTreeMap::new(),
            learned: Instant::now(),
            positions: BTreeMap::new(),
            looked: Instant::now(),
            watch: Watch::new(),
            settling,
            purge: Purge::new(kafka),
            lead: inputs.first().copied().unwrap_or_default(),
            tenure: Tenure::new(),
        })
    }

    /// Asks for the last stable offset of all started inputs, in one request a broker.
    fn look_at_ends(&mut self) {
        if self.started.is_empty() {
            return;
        }
        let asked = Instant::now();
        // Not on the member's connection: there the broker answers only after the fetch before it, which may wait for records.
        match self.reader.stable_ends(self.started.iter().copied()) {
            Ok(ends) => {
                if ends.len() == self.started.len() {
                    self.learned = asked;
                }
                self.ends.extend(ends);
            }
            Err(e) => tracing::debug!(group = self.group, "the inputs' ends: {e}"),
        }
    }

    /// Joins anew where partitions have been left without an owner.
    fn watch_group(&mut self) -> Result<(), LogError> {
        let partitions = self.kafka.catalog.topics().get(self.lead).map_or(0, |t| t.partitions);
        let name = self.kafka.name(self.lead);
        // On the reader's connection, too.
        if self.watch.is_to_rebalance(self.reader.asked(), &self.kafka.group(self.group), &self.member.id(), &name, partitions) {
            self.start_over()?;
        }
        Ok(())
    }

    /// Gives the membership up, and joins with nothing in hand.
    fn start_over(&mut self) -> Result<(), LogError> {
        let name = self.kafka.name(self.lead);
        self.member.consumer.unsubscribe();
        self.member.consumer.subscribe(&[name.as_str()]).map_err(|e| classify(&name, &e))
    }

    fn look_at_positions(&mut self) {
        if let Ok(positions) = self.member.consumer.position() {
            self.positions.extend(numbers(&self.kafka, &positions));
        }
    }

    /// Hears what the client tells of the group. Records come in the inputs' own queues; should one come here, it counts.
    fn hear(&mut self, records: &mut Vec<Record>) -> Result<(), LogError> {
        loop {
            let e = match self.member.consumer.poll(Duration::ZERO) {
                None => return Ok(()),
                Some(Ok(message)) => {
                    records.extend(record(&self.kafka, &message));
                    continue;
                }
                Some(Err(e)) => e,
            };
            self.refuse(&e)?;
        }
    }

    /// What comes of an error while reading.
    fn refuse(&mut self, e: &KafkaError) -> Result<(), LogError> {
        match (e.rdkafka_error_code(), classify("reading", e)) {
            (Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId), _) if self.member.fenced().is_some() => Ok(()),
            (_, e @ LogError::Fatal(_)) => Err(e),
            (Some(RDKafkaErrorCode::Fatal), e) => Err(LogError::Fatal(e.to_string())),
            // Whose partitions are another's by now may find that one's input deleted: it is told so below.
            (Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange), _)
                if !self.tenure.goes_on(self.member.number().as_ref()) =>
            {
                Ok(())
            }
            (Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange), e) => {
                Err(LogError::Fatal(format!("{e}: {}", lost(&self.kafka, &mut self.reader, &self.positions))))
            }
            (_, e) => {
                tracing::debug!(group = self.group, "{e}");
                Ok(())
            }
        }
    }

    /// Takes inputs from the client. Whoever has them next reads them.
    fn unassign(&mut self, inputs: &[TopicPartition]) -> Result<(), KafkaError> {
        unassign(&self.member.consumer, &self.kafka.list(inputs.iter().copied()))?;
        inputs.iter().for_each(|at| self.queues.remove(*at));
        Ok(())
    }

    /// Moves an assigned input elsewhere.
    fn assign_at(&mut self, inputs: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let again: Vec<_> = inputs.iter().map(|(at, _)| *at).filter(|at| self.started.contains(at)).collect();
        if !again.is_empty() {
            self.unassign(&again).map_err(|e| classify("moving inputs", &e))?;
        }
        let mut list = TopicPartitionList::new();
        for (at, offset) in inputs {
            let name = self.kafka.name(at.topic);
            list.add_partition_offset(&name, at.partition as i32, Offset::Offset(*offset)).map_err(|e| classify(&name, &e))?;
            self.queues.add(&self.member.consumer, &name, *at)?;
        }
        self.member.consumer.incremental_assign(&list).map_err(|e| classify("starting inputs", &e))?;
        self.started.extend(inputs.iter().map(|(at, _)| *at));
        self.positions.extend(inputs.iter().copied());
        Ok(())
    }
}

impl Log for KafkaLog {
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        let mut polled = Polled::default();
        let deadline = Instant::now() + timeout;
        loop {
            // A change of membership is dealt with before what comes after it.
            self.hear(&mut polled.records)?;
            if self.member.consumer.context().next_change_waits() || self.member.fenced().is_some() {
                break;
            }
            let taken = self.queues.take(&self.kafka);
            polled.records.extend(taken.records);
            taken.errors.iter().try_for_each(|e| self.refuse(e))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !polled.records.is_empty() || left.is_zero() {
                break;
            }
            self.queues.wait(left.min(LOOK_EVERY));
        }
        if let Some(reason) = self.member.fenced() {
            self.queues.clear();
            self.member.join_anew(&reason)?;
            polled.changes.push(self.tenure.end());
        }
        polled.changes.extend(self.tenure.lost());
        while let Some(change) = self.member.consumer.context().next_change() {
            if let Membership::Assigned(_) = &change {
                // The inputs are assigned once their task is restored; the group only needs to know that it was heard.
                let none = TopicPartitionList::new();
                self.member.consumer.incremental_assign(&none).map_err(|e| classify("taking an assignment", &e))?;
            }
            let told = self.tenure.hear(change, self.member.number());
            if told.start_over {
                tracing::warn!(
                    group = self.group,
                    member = self.member.id(),
                    "the group took this member for dead: joining with nothing in hand"
                );
                self.start_over()?;
            }
            polled.changes.push(told.change);
        }
        // Who waits for a moment waits for what is asked for here.
        let due = if timeout.is_zero() { LOOK_EVERY } else { timeout.clamp(LOOK_SOONEST, LOOK_EVERY) };
        if !timeout.is_zero() || polled.records.is_empty() || self.looked.elapsed() >= due {
            self.look_at_positions();
        }
        if self.looked.elapsed() >= due {
            self.look_at_ends();
            self.stores.flush_sometimes();
            self.purge.go_on();
            self.looked = Instant::now();
            if polled.changes.is_empty() {
                self.watch_group()?;
            }
        }
        Ok(polled)
    }

    fn open(&mut self, partition: u32) -> Result<Opened, LogError> {
        let changelog = TopicPartition { topic: self.changelog, partition };
        let reader = &mut self.reader;
        self.stores.open(
            partition,
            changelog,
            || reader.end(changelog),
            self.changelog_id.as_deref(),
            || tombstones_stay(&self.kafka, self.changelog),
        )
    }

    fn settle(&mut self, partition: u32, inputs: &[TopicPartition]) -> Result<bool, LogError> {
        self.writer.mend()?;
        let changelog = TopicPartition { topic: self.changelog, partition };
        self.settling.is_done(&self.member.consumer, &self.reader, inputs, changelog)
    }

    fn start(&mut self, inputs: &[(TopicPartition, Option<i64>)]) -> Result<(), LogError> {
        let mut starts = Vec::new();
        for &(at, offset) in inputs {
            let begin = match offset {
                Some(offset) => offset,
                None => self.reader.begin(at)?,
            };
            starts.push((at, begin));
        }
        let tasks: BTreeSet<_> = starts.iter().map(|(at, _)| at.partition).collect();
        tasks.into_iter().for_each(|partition| self.stores.restored(partition));
        self.assign_at(&starts)?;
        // What was written before now is taken in the order of its time; so it must be known to be there.
        self.look_at_ends();
        Ok(())
    }

    fn pause(&mut self, input: TopicPartition, paused: bool) -> Result<(), LogError> {
        self.queues.hold(input, paused);
        Ok(())
    }

    fn has_more(&self, input: TopicPartition, position: i64) -> bool {
        self.lag(input, position) > 0
    }

    fn learned(&self) -> Option<Instant> {
        Some(self.learned)
    }

    fn lag(&self, input: TopicPartition, position: i64) -> i64 {
        (self.ends.get(&input).copied().unwrap_or(0) - position).max(0)
    }

    fn reached(&self, input: TopicPartition) -> i64 {
        self.positions.get(&input).copied().unwrap_or(0)
    }

    fn release(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        let gone: Vec<_> = self.started.iter().copied().filter(|at| partitions.contains(&at.partition)).collect();
        self.settling.give_up(partitions);
        self.stores.close(partitions);
        for at in &gone {
            self.started.remove(at);
            self.ends.remove(at);
            self.positions.remove(at);
        }
        self.unassign(&gone).map_err(|e| classify("giving partitions up", &e))
    }

    fn rest(&self) -> Duration {
        self.writer.rest()
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Positions, CommitError> {
        let Some(group) = self.member.consumer.group_metadata() else {
            return Err(CommitError::Aborted("not a member of the group".into()));
        };
        // Asked after: whoever is still the same member was so then.
        if !self.tenure.goes_on(self.member.number().as_ref()) {
            return Err(CommitError::Aborted("the group took this member for dead, and what it holds may be another's".into()));
        }
        self.writer.commit(transaction, self.changelog, &group)
    }

    fn changelog(&mut self) -> Option<&mut dyn Reader> {
        Some(&mut self.reader)
    }

    fn purge(&mut self, before: &[(TopicPartition, i64)]) {
        self.purge.consumed(before);
    }

    fn close(&mut self, _: bool) {
        self.stores.close_all();
        self.member.end();
    }
}

/// What is said of inputs that do not hold what is to be read next, and what to do.
fn lost(kafka: &Kafka, reader: &mut KafkaReader, positions: &BTreeMap<TopicPartition, i64>) -> String {
    let mut places = Vec::new();
    for (&at, &next) in positions {
        if let (Ok(begin), Ok(end)) = (reader.begin(at), reader.end(at))
            && !(begin..=end).contains(&next)
        {
            places.push(format!("{} {} has offsets {begin} to {end}, and {next} is to be read next", kafka.name(at.topic), at.partition));
        }
    }
    format!(
        "records that were not processed yet are gone from the cluster ({}). Lengthen the topic's retention; to go on, have the state \
         made anew from what the inputs still hold (`tillflow reset`; what followed from older records is lost with it, so make a backup first)",
        places.join("; ")
    )
}

/// The numeric offsets of a list.
pub fn numbers(kafka: &Kafka, list: &TopicPartitionList) -> Vec<(TopicPartition, i64)> {
    let elements = list.elements();
    let offsets = elements.iter().filter_map(|e| match e.offset() {
        Offset::Offset(offset) => Some((TopicPartition { topic: kafka.topic(e.topic())?, partition: e.partition() as u32 }, offset)),
        _ => None,
    });
    offsets.collect()
}
