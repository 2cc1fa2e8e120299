//! One task with its inputs: takes their records in the order of event time and keeps its clock.

mod clock;
mod counters;
mod erasure;
mod outgoing;
mod place;

use super::{
    input::{Content, Input, Pending, decode},
    meta::Meta,
};
use crate::{
    config::{EngineConfig, FUTURE},
    log::{Log, NewRecord, Record, TopicPartition},
    metrics::Metrics,
    stages::Stage,
    watch::HotKeys,
};
use counters::Counters;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_engine_api::{CheckFn, Done, Failure, Globals, Task};
use tillflow_schemas::{Catalog, Codec, Event, Record as _, Role, TRACEPARENT, Timestamp, Trace, UserEventKind, shorten};
use tillflow_state::{StateError, Store};

/// Headers by which producers say who they are, the first that is there counts.
const SENDERS: [&str; 4] = ["source", "client_id", "client.id", "ce_source"];

/// What the tasks of a worker share.
pub struct Shared {
    /// The list of topics.
    pub catalog: Arc<Catalog>,
    /// Bytes to events.
    pub codec: Arc<Codec>,
    /// How the engine runs.
    pub config: EngineConfig,
    /// What is counted.
    pub metrics: Metrics,
    /// Topics by which this group tells its watermark.
    pub announces: Vec<usize>,
    /// Topics by which the upstream group tells its own, and its number of partitions.
    pub listens: (Vec<usize>, u32),
    /// Where this group's re-keyed records go.
    pub rekeyed: Option<usize>,
    /// Topics of definitions that no group processes, with what processors check of them: the tasks of this group bury
    /// what is wrong.
    pub definitions: BTreeMap<usize, Vec<CheckFn>>,
    /// Topic of a schema.
    pub topics: BTreeMap<String, usize>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record was processed.
    Processed,
    /// An input that may hold an earlier record is waited for.
    Waiting,
    /// There is nothing to process.
    Empty,
}

/// One task with its inputs.
pub struct Partition {
    task: Task,
    inputs: Vec<Input>,
    committed: Meta,
    upstream: BTreeMap<(usize, u32), Timestamp>,
    announced: Timestamp,
    /// Whether downstream need not wait for it: it never saw an event, or has stood still for long.
    idle: bool,
    /// Since when, by the wall, it has nothing to process and its clock stands.
    stands_since: Option<Timestamp>,
    /// Dead letters and re-keyed records.
    raw: Vec<NewRecord>,
    /// Whether it is committed that this instance owns the task, where that is stated at all.
    claimed: bool,
    /// Whether this owner has committed the positions of all inputs.
    told: bool,
    /// Whether positions moved since the last commit.
    moved: bool,
    /// Counts of this task's group and of the topics it emits to: looking them up costs as much as a small record.
    counters: Counters,
    /// Records processed, and the keys that many of them are of.
    processed: u64,
    keys: HotKeys,
    /// Since when an empty input that has lag is waited for.
    waiting: Option<Instant>,
    /// Whether timers may be due by the watermark: they fire before the next record.
    advancing: bool,
    /// The input whose record made them due, and the offset after it.
    unfinished: Option<(usize, i64)>,
    shared: Arc<Shared>,
}

impl Partition {
    /// The task over a store that is up to date, with inputs that begin where it stood.
    ///
    /// # Errors
    /// When the store fails.
    pub fn new(mut task: Task, inputs: &[TopicPartition], shared: &Arc<Shared>) -> Result<Self, StateError> {
        let meta = Meta::read(task.store())?;
        task.reset(meta.clock, meta.watermark);
        let role = |at: &TopicPartition| shared.catalog.topics().get(at.topic).map_or(Role::Internal, |t| t.role);
        let inputs = inputs.iter().map(|at| Input {
            at: *at,
            role: role(at),
            definitions: shared.definitions.contains_key(&at.topic),
            position: 0,
            fetched: 0,
            queue: Default::default(),
            paused: false,
        });
        let (task_group, number) = (task.group().name, task.place().partition);
        let mut partition = Self {
            task,
            inputs: inputs.collect(),
            committed: meta,
            upstream: BTreeMap::new(),
            announced: Timestamp::MIN,
            idle: false,
            stands_since: None,
            raw: Vec::new(),
            claimed: shared.config.claimant.is_none(),
            told: false,
            moved: false,
            counters: Counters::new(task_group, number, &shared.metrics),
            processed: 0,
            keys: HotKeys::default(),
            waiting: None,
            advancing: false,
            unfinished: None,
            shared: shared.clone(),
        };
        partition.inputs.sort_by_key(|i| i.at);
        partition.rewind();
        Ok(partition)
    }

    fn topic_name(&self, at: TopicPartition) -> &str {
        self.shared.catalog.topics().get(at.topic).map_or("", |t| t.name.as_str())
    }

    /// Takes a record that was delivered `now`.
    pub fn deliver(&mut self, record: Record, now: Instant) {
        let Some(input) = self.inputs.iter_mut().find(|i| i.at == record.at) else { return };
        // Delivered again after a seek, or fetched before it.
        if record.offset < input.fetched {
            return;
        }
        input.fetched = record.offset + 1;
        input.queue.push_back(decode(record, now, &self.shared));
    }

    /// Holds delivery back where much waits, and lets it go on where little does.
    ///
    /// # Errors
    /// When the log fails.
    pub fn regulate(&mut self, log: &mut dyn Log) -> Result<(), crate::log::LogError> {
        let limit = self.shared.config.queue_records;
        for input in &mut self.inputs {
            let pause = if input.paused { input.queue.len() > limit / 4 } else { input.queue.len() >= limit };
            if pause != input.paused {
                input.paused = pause;
                log.pause(input.at, pause)?;
            }
        }
        Ok(())
    }

    /// Fires timers that are due; else processes the record with the smallest time among the inputs' heads.
    ///
    /// # Errors
    /// When the store fails.
    pub fn step(&mut self, globals: &Globals, log: &dyn Log) -> Result<Step, StateError> {
        if self.advancing {
            self.advance(self.task.watermark(), globals)?;
            if !self.advancing
                && let Some((i, after)) = self.unfinished.take()
            {
                self.pass(i, after);
            }
            return Ok(Step::Processed);
        }
        // At one time, what tells that all before it is there comes last.
        let tells = |p: &Pending| matches!(p.content, Content::Mark(_) | Content::Watermark(..));
        let head = |input: &Input| input.queue.front().map(|p| (p.time, tells(p)));
        let first = self
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(i, input)| Some((head(input)?, i)))
            .min_by_key(|((time, tells), i)| (*time, *tells, *i));
        let Some(((time, _), i)) = first else {
            self.waiting = None;
            return Ok(Step::Empty);
        };
        if time.is_some() && self.may_bring_earlier(i, log) {
            let config = &self.shared.config;
            let since = *self.waiting.get_or_insert_with(|| config.wall.instant());
            // The end of an input is the end of all of them, however long it takes.
            let is_mark = |p: &Pending| matches!(p.content, Content::Mark(_));
            let mark = self.inputs.get(i).and_then(|input| input.queue.front()).is_some_and(is_mark);
            if mark || config.wait_for_input.is_none_or(|limit| config.wall.elapsed(since) < limit) {
                return Ok(Step::Waiting);
            }
        } else {
            self.waiting = None;
        }
        if let Some(Pending { content: Content::Later(_), .. }) = self.inputs.get(i).and_then(|input| input.queue.front()) {
            return self.retry_decoding(i);
        }
        let Some((pending, role)) = self.inputs.get_mut(i).and_then(|input| Some((input.queue.pop_front()?, input.role))) else {
            return Ok(Step::Empty);
        };
        let offset = pending.record.offset + 1;
        self.process(pending, role, globals)?;
        if self.advancing {
            self.unfinished = Some((i, offset));
        } else {
            self.pass(i, offset);
        }
        Ok(Step::Processed)
    }

    /// Whether an input without a head may still bring a record earlier than the head of input `i`.
    ///
    /// The log knows what inputs hold as of some moments ago. For what tells that all before it is there that is not
    /// enough: what was written before it came must be known. Other records need not wait for an answer.
    fn may_bring_earlier(&self, i: usize, log: &dyn Log) -> bool {
        let mut empty = self.inputs.iter().filter(|input| input.queue.is_empty() && !input.definitions).peekable();
        if empty.peek().is_none() {
            return false;
        }
        let head = self.inputs.get(i).and_then(|input| input.queue.front());
        let tells = head.filter(|p| matches!(p.content, Content::Mark(_) | Content::Watermark(..)));
        let outdated = tells.zip(log.learned()).is_some_and(|(p, learned)| learned < p.delivered);
        outdated || empty.any(|input| has_more(input, log))
    }

    fn retry_decoding(&mut self, i: usize) -> Result<Step, StateError> {
        let Some(pending) = self.inputs.get_mut(i).and_then(|input| input.queue.pop_front()) else { return Ok(Step::Empty) };
        let again = decode(pending.record, pending.delivered, &self.shared);
        let still = matches!(again.content, Content::Later(_));
        if let Some(input) = self.inputs.get_mut(i) {
            input.queue.push_front(again);
        }
        Ok(if still { Step::Waiting } else { Step::Processed })
    }

    fn process(&mut self, pending: Pending, role: Role, globals: &Globals) -> Result<(), StateError> {
        let Pending { record, content, time, .. } = pending;
        match content {
            Content::Watermark(source, at) => {
                self.upstream.insert((record.at.topic, source), at);
                self.follow_upstream(globals)
            }
            Content::Mark(at) => {
                self.idle = false;
                self.task.set_clock(at);
                self.advance(at, globals)
            }
            Content::Definition => Ok(()),
            Content::Broken(reason) | Content::Later(reason) => {
                self.dead_letter(&record, "decoder", &reason);
                Ok(())
            }
            Content::Event(event) => {
                // What is stated, such as a product, may be valid from some later time on.
                let states = matches!(event.schema(), tillflow_schemas::Product::SCHEMA | tillflow_schemas::Customer::SCHEMA);
                let happened = !states && matches!(role, Role::Input | Role::Reference | Role::Rekey);
                if happened && self.lies_in_the_future(time) {
                    let at = time.unwrap_or_default();
                    self.note_future(&record, &event, at);
                    self.dead_letter(
                        &record,
                        "clock",
                        &format!("timestamp: {at} lies more than 5 minutes in the future; check the sender's clock"),
                    );
                    return Ok(());
                }
                if matches!(role, Role::Input | Role::Reference) && self.rekey(&record, &event) {
                    return Ok(());
                }
                if let Event::ErasedUser(change) = &event {
                    // Taken back, what is gone stays gone; what comes again counts.
                    return change.value.as_ref().map_or(Ok(()), |erased| self.erase(erased));
                }
                if self.is_erased(&record, &event, globals) {
                    self.shared.metrics.erased_total.with_label_values(&[self.topic_name(record.at)]).inc();
                } else {
                    self.run(&record, &event, globals)?;
                }
                if happened {
                    self.move_clock(record.at.topic, time, globals)?;
                }
                // What another task had to say came late, and so did the timers that it led to.
                if !self.advancing && self.task.may_be_overdue() {
                    self.advance(self.task.watermark(), globals)?;
                }
                Ok(())
            }
        }
    }

    fn run(&mut self, record: &Record, event: &Event, globals: &Globals) -> Result<(), StateError> {
        self.processed += 1;
        self.follow_trace(record);
        let group = self.task.group().name;
        let metrics = &self.shared.metrics;
        if let Event::User(e) = event {
            if matches!(e.kind, UserEventKind::Unknown { .. }) {
                metrics.unknown_events_total.with_label_values(&[group]).inc();
            }
            if e.timestamp < self.task.watermark() {
                metrics.late_total.with_label_values(&[group]).inc();
            }
        }
        if let Some(key) = event.key() {
            self.keys.see(record.offset, key);
        }
        match self.task.process(event, globals) {
            Ok((done, failed)) => {
                self.counters.processed.inc();
                if done == Done::Duplicate {
                    metrics.duplicates_total.with_label_values(&[group]).inc();
                }
                self.bury(failed);
                Ok(())
            }
            Err(Failure::Rejected { processor, reason }) => {
                self.dead_letter(record, processor, &reason);
                Ok(())
            }
            Err(Failure::State(e)) => Err(e),
        }
    }

    /// Has what is emitted because of a record carry the trace that it belongs to.
    fn follow_trace(&mut self, record: &Record) {
        let trace = if record.headers.is_empty() { None } else { record.header(TRACEPARENT).and_then(Trace::read) };
        if let Some(trace) = &trace {
            let (topic, partition, offset) = (self.topic_name(record.at), record.at.partition, record.offset);
            tracing::debug!(trace_id = trace.id(), group = self.task.group().name, topic, partition, offset, "processing");
        }
        self.task.trace_next(trace);
    }

    /// Names the sender of an event that lies in the future, as far as it can be told: by a header, else whose event it is.
    fn note_future(&self, record: &Record, event: &Event, at: Timestamp) {
        let topic = self.topic_name(record.at);
        let told = SENDERS.iter().find_map(|name| record.header(name)).and_then(|name| std::str::from_utf8(name).ok());
        let source = told.map_or_else(|| format!("of key {}", shorten(event.key().unwrap_or_default())), shorten);
        let last = format!("at {topic} {} {} with the time {at}", record.at.partition, record.offset);
        self.shared.metrics.notes.future(&format!("{topic}, {source}"), last);
    }

    /// Records processed, and the key with the largest share of them lately.
    pub fn seen(&self) -> (u64, Option<(String, u32)>) {
        (self.processed, self.keys.hottest())
    }

    fn lies_in_the_future(&self, time: Option<Timestamp>) -> bool {
        self.shared.config.check_future && time.is_some_and(|t| t > self.shared.config.wall.now() + FUTURE)
    }

    /// Whether all that was written to its inputs is processed.
    pub fn is_drained(&self, log: &dyn Log) -> bool {
        !self.advancing && self.inputs.iter().all(|i| i.queue.is_empty() && !has_more(i, log))
    }

    /// Whether there is something to process now: timers, or records that were delivered and wait for no others.
    pub fn is_busy(&self) -> bool {
        self.advancing || (self.waiting.is_none() && self.inputs.iter().any(|i| !i.queue.is_empty()))
    }

    /// Whether what was delivered waits for an input that may hold something earlier.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Records of the inputs not processed yet.
    pub fn lag(&self, log: &dyn Log) -> i64 {
        self.inputs.iter().map(|i| if i.queue.is_empty() && !has_more(i, log) { 0 } else { log.lag(i.at, i.position) }).sum()
    }

    /// Records that were delivered and wait to be processed.
    pub fn queued(&self) -> usize {
        self.inputs.iter().map(|i| i.queue.len()).sum()
    }

    /// A stage of this task took this long.
    pub fn took(&self, stage: Stage, took: Duration) {
        self.counters.took(stage, took);
    }

    /// The task's store.
    pub fn store(&self) -> &Store {
        self.task.store()
    }

    /// The task's store, for commit and restore.
    pub fn store_mut(&mut self) -> &mut Store {
        self.task.store_mut()
    }

    /// The event clock.
    pub fn clock(&self) -> Timestamp {
        self.task.clock()
    }

    /// Timers up to here have fired.
    pub fn watermark(&self) -> Timestamp {
        self.task.watermark()
    }
}

/// Whether an input may bring more records. What was delivered, and what lies between records, is behind it.
fn has_more(input: &Input, log: &dyn Log) -> bool {
    log.has_more(input.at, input.fetched.max(log.reached(input.at)))
}
