//! A worker: one thread, one way to the log, the tasks it owns. Its loop is the engine.

mod commit;
mod dead_letter;
pub mod input;
mod meta;
mod partition;
mod restore;

pub use commit::POSITION;
pub use meta::{META, Meta};
pub use partition::{Partition, Shared, Step};

use crate::{
    globals::SharedGlobals,
    log::{CommitError, Log, LogError, Membership, TopicPartition},
    stages::Stage,
    status::{TaskView, Tasks},
};
use restore::Restoring;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tillflow_engine_api::{Group, Place, Task};
use tillflow_state::StateError;

/// Records processed between two looks at the log, at most.
const BURST: usize = 2_000;
/// For how long records are processed between two looks at the log.
const BURST_TIME: Duration = Duration::from_millis(50);
/// Records processed between two looks at the clock.
const LOOK_EVERY: usize = 16;
/// How long a poll waits when there is nothing to do.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// How long a poll waits when there is something to do, once it is known what an input holds.
const WAITING_POLL: Duration = Duration::from_millis(5);
/// How long the broadcast tables are left alone until it is looked again whether they are whole.
const TABLES_POLL: Duration = Duration::from_millis(1);
/// How often lag and clocks are stated.
const STATE_EVERY: Duration = Duration::from_millis(200);
/// How long what failed and may pass, such as a full disk, is left alone before it is tried again.
const BACKOFF: Duration = Duration::from_secs(1);

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The log failed for good.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// One thread's share of a group.
pub struct Worker<L: Log> {
    log: L,
    group: Group,
    /// Topics of the group's inputs.
    inputs: Vec<usize>,
    partitions: u32,
    shared: Arc<Shared>,
    globals: SharedGlobals,
    tasks: Tasks,
    running: BTreeMap<u32, Partition>,
    restoring: BTreeMap<u32, Restoring>,
    /// To be opened at that time or later, unless a poll before says that they are another's.
    opening: BTreeMap<u32, Instant>,
    /// Since when the broadcast tables lack something that was stated.
    lacking_since: Option<Instant>,
    last_commit: Instant,
    last_stated: Instant,
}

impl<L: Log> Worker<L> {
    /// A worker of `group`, whose inputs are these topics of `partitions` partitions each.
    pub fn new(
        log: L,
        group: &Group,
        inputs: Vec<usize>,
        partitions: u32,
        shared: &Arc<Shared>,
        globals: &SharedGlobals,
        tasks: &Tasks,
    ) -> Self {
        Self {
            log,
            group: group.clone(),
            inputs,
            partitions,
            shared: shared.clone(),
            globals: globals.clone(),
            tasks: tasks.clone(),
            running: BTreeMap::new(),
            restoring: BTreeMap::new(),
            opening: BTreeMap::new(),
            lacking_since: None,
            last_commit: shared.config.wall.instant(),
            last_stated: shared.config.wall.instant(),
        }
    }

    /// Runs until `stop` is set; then commits what is done and closes.
    ///
    /// # Errors
    /// When log or state fail for good, or another instance took this one's place.
    pub fn run(&mut self, stop: &AtomicBool, leave: bool) -> Result<(), WorkerError> {
        while !stop.load(Ordering::Acquire) {
            self.turn()?;
        }
        self.finish(leave)
    }

    /// Goes round the loop once.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn turn(&mut self) -> Result<(), WorkerError> {
        self.poll()?;
        self.restore()?;
        let idle = self.process()?;
        if self.should_commit(idle) {
            self.commit()?;
        }
        self.state_progress(false);
        Ok(())
    }

    /// Commits what is done and closes.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn finish(&mut self, leave: bool) -> Result<(), WorkerError> {
        self.commit()?;
        self.state_progress(true);
        self.log.close(leave);
        Ok(())
    }

    /// What it holds in memory: records that wait to be processed, and bytes that wait to be committed.
    pub fn held(&self) -> (usize, usize) {
        self.running.values().fold((0, 0), |(records, bytes), p| (records + p.queued(), bytes + p.pending_bytes()))
    }

    /// Takes what the log delivers: records, and changes of what this worker owns.
    fn poll(&mut self) -> Result<(), WorkerError> {
        let paused = self.tasks.paused(self.group.name);
        let at_work = |is: fn(&Partition) -> bool| self.running.iter().any(|(number, p)| is(p) && !paused.contains(number));
        let wait = if at_work(Partition::is_busy) || !self.restoring.is_empty() {
            Duration::ZERO
        } else if at_work(Partition::is_waiting) {
            WAITING_POLL
        } else {
            IDLE_POLL
        };
        // What is processed waits for the rest's end alone.
        let rest = if self.is_dirty() { self.log.rest() } else { Duration::ZERO };
        let wait = if rest.is_zero() { wait } else { wait.min(rest) };
        let started = self.shared.config.wall.instant();
        let polled = match self.log.poll(wait) {
            Ok(polled) => polled,
            Err(LogError::Unavailable(reason)) => {
                tracing::warn!(group = self.group.name, "the log does not answer: {reason}");
                self.shared.config.wall.sleep(IDLE_POLL);
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        let polled_for = self.took(Stage::Poll, started);
        let delivers = !polled.records.is_empty();
        let (mut records, mut began) = (polled.records.into_iter().peekable(), polled_for);
        while let Some(record) = records.next() {
            let number = record.at.partition;
            let Some(partition) = self.running.get_mut(&number) else { continue };
            partition.deliver(record, polled_for);
            if records.peek().is_none_or(|next| next.at.partition != number) {
                let ended = self.shared.config.wall.instant();
                partition.took(Stage::Decode, ended.saturating_duration_since(began));
                began = ended;
            }
        }
        if delivers {
            self.took(Stage::Decode, polled_for);
        }
        for change in polled.changes {
            tracing::info!(group = self.group.name, ?change, "membership");
            match change {
                Membership::Assigned(partitions) => {
                    let now = self.shared.config.wall.instant();
                    for number in partitions {
                        self.tasks.set(self.group.name, number, TaskView::opening(self.place(number)));
                        self.opening.insert(number, now);
                    }
                    self.tasks.set_member(self.group.name, true);
                }
                Membership::Revoked(partitions) => {
                    self.commit()?;
                    self.give_up(&partitions)?;
                }
                Membership::Lost(partitions) => {
                    self.tasks.set_member(self.group.name, false);
                    self.give_up(&partitions)?;
                }
            }
        }
        self.open_due()?;
        for partition in self.running.values_mut() {
            partition.regulate(&mut self.log)?;
        }
        Ok(())
    }

    fn place(&self, partition: u32) -> Place {
        Place { partition, partitions: self.partitions }
    }

    /// Opens tasks that are now this worker's: the store, then (where the log has changelogs) what the store lacks.
    ///
    /// Where former transactions are not decided yet, the log does not answer or the disk is full, that is tried again
    /// later, and other tasks go on.
    fn open_due(&mut self) -> Result<(), WorkerError> {
        let now = self.shared.config.wall.instant();
        let due: Vec<_> = self.opening.iter().filter(|(_, at)| **at <= now).map(|(number, _)| *number).collect();
        for number in due {
            match self.try_open(self.place(number)) {
                Ok(None) => {}
                Ok(Some(restoring)) => {
                    self.opening.remove(&number);
                    self.restoring.insert(number, restoring);
                }
                Err(e) if passes(&e) => {
                    tracing::warn!(group = self.group.name, partition = number, "can't be opened now, trying again: {e}");
                    self.opening.insert(number, self.after_backoff());
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The task with its store; none as long as transactions of former owners are not decided.
    fn try_open(&mut self, place: Place) -> Result<Option<Restoring>, LogError> {
        let inputs: Vec<_> = self.inputs.iter().map(|&topic| TopicPartition { topic, partition: place.partition }).collect();
        if !self.log.settle(place.partition, &inputs)? {
            return Ok(None);
        }
        let opened = self.log.open(place.partition)?;
        Ok(Some(Restoring::new(opened, inputs, place)))
    }

    fn after_backoff(&self) -> Instant {
        self.shared.config.wall.instant() + BACKOFF
    }

    fn give_up(&mut self, partitions: &[u32]) -> Result<(), WorkerError> {
        for number in partitions {
            self.running.remove(number);
            self.restoring.remove(number);
            self.opening.remove(number);
            self.tasks.remove(self.group.name, *number);
        }
        Ok(self.log.release(partitions)?)
    }

    /// Moves restoring tasks on by a slice; those that are done begin to run.
    fn restore(&mut self) -> Result<(), WorkerError> {
        if self.restoring.is_empty() {
            return Ok(());
        }
        match restore::slice(&mut self.log, &mut self.restoring, self.group.name, &self.tasks, &self.shared.metrics) {
            Err(e) if passes(&e) => {
                // From where the stores stand: what was read and not written would be missed.
                tracing::warn!(group = self.group.name, "restoring begins again: {e}");
                let later = self.after_backoff();
                self.opening.extend(std::mem::take(&mut self.restoring).into_keys().map(|number| (number, later)));
                return Ok(());
            }
            result => result?,
        }
        if !self.globals.loaded() {
            return Ok(());
        }
        let done: Vec<_> = self.restoring.iter().filter(|(_, r)| r.is_done()).map(|(n, _)| *n).collect();
        for number in done {
            let Some(restored) = self.restoring.remove(&number) else { continue };
            let task = Task::new(&self.group, restored.place, restored.store);
            let partition = Partition::new(task, &restored.inputs, &self.shared)?;
            self.log.start(&partition.starts())?;
            self.tasks.update(self.group.name, number, |view| {
                view.state = Some(restored.snapshots);
                view.restored = None;
                view.clock = partition.clock();
            });
            self.running.insert(number, partition);
            tracing::debug!(group = self.group.name, partition = number, "running");
        }
        Ok(())
    }

    /// Whether what the shop has stated is to be waited for, such as a rule that was written before the records at hand.
    /// The log knows best where it is inside the process; of another's it knows the topics that are inputs, too.
    fn waits_for_tables(&mut self) -> bool {
        let config = &self.shared.config;
        if self.running.is_empty() || !self.globals.lack(|at, position| self.log.has_more(at, position)) {
            self.lacking_since = None;
            return false;
        }
        let since = *self.lacking_since.get_or_insert_with(|| config.wall.instant());
        let waits = config.wait_for_input.is_none_or(|limit| config.wall.elapsed(since) < limit);
        if waits {
            config.wall.sleep(TABLES_POLL);
        }
        waits
    }

    /// Processes records of all tasks in turn; true when none has any left.
    fn process(&mut self) -> Result<bool, WorkerError> {
        if self.waits_for_tables() {
            return Ok(false);
        }
        let paused = self.tasks.paused(self.group.name);
        let globals = self.globals.read();
        let mut idle = true;
        let tasks = self.running.len().max(1);
        let (share, time) = ((BURST / tasks).max(1), BURST_TIME / u32::try_from(tasks).unwrap_or(1));
        let wall = &self.shared.config.wall;
        let (began, mut reads) = (wall.instant(), Duration::ZERO);
        for (_, partition) in self.running.iter_mut().filter(|(number, _)| !paused.contains(number)) {
            let (started, mut worked) = (wall.instant(), false);
            for n in 0..share {
                if n % LOOK_EVERY == 0 && wall.elapsed(started) > time {
                    break;
                }
                match partition.step(&globals, &self.log)? {
                    Step::Processed => worked = true,
                    Step::Waiting => break,
                    Step::Empty => {
                        partition.pass_gaps(&self.log);
                        partition.tick(&globals, &self.log)?;
                        break;
                    }
                }
            }
            let waited = partition.store().take_read_time();
            reads += waited;
            if worked {
                idle = false;
                partition.took(Stage::Process, wall.elapsed(started));
                partition.took(Stage::Store, waited);
            }
        }
        drop(globals);
        if !idle {
            self.took(Stage::Process, began);
            self.shared.metrics.stages.took(self.group.name, Stage::Store, reads);
        }
        Ok(idle)
    }

    fn is_dirty(&self) -> bool {
        self.running.values().any(Partition::is_dirty)
    }

    /// When the input is drained, otherwise by time or size. What comes in during a commit is the next one's; what comes in while
    /// the log rests is still this one's.
    fn should_commit(&self, idle: bool) -> bool {
        let bytes: usize = self.running.values().map(Partition::pending_bytes).sum();
        let config = &self.shared.config;
        let drained = || idle || self.running.values().all(|p| p.is_drained(&self.log));
        let due = || config.wall.elapsed(self.last_commit) >= config.commit_interval || drained();
        self.is_dirty() && (bytes >= config.commit_bytes || (self.log.rest().is_zero() && due()))
    }

    /// Commits all tasks in one transaction, and deals with what may come of it.
    fn commit(&mut self) -> Result<(), WorkerError> {
        let wall = self.shared.config.wall.clone();
        let started = wall.instant();
        let shares: Vec<_> = self.running.iter().map(|(number, partition)| (*number, partition.pending_bytes())).collect();
        let outcome = commit::commit(&mut self.log, &mut self.running);
        self.last_commit = wall.instant();
        let (group, metrics) = (self.group.name, &self.shared.metrics);
        let failed = |reason: &str| metrics.commit_failures_total.with_label_values(&[group, reason]).inc();
        match outcome {
            Ok(false) => Ok(()),
            Ok(true) => {
                metrics.commit_total.with_label_values(&[group]).inc();
                let took = wall.elapsed(started);
                metrics.commit_latency_of(group).observe(took.as_secs_f64());
                metrics.stages.took(group, Stage::Commit, took);
                self.share_out(took, &shares);
                metrics.notes.committed(group, took);
                let consumed: Vec<_> = self.running.values().flat_map(Partition::consumed).collect();
                self.log.purge(&consumed);
                Ok(())
            }
            Err(commit::Failed::Log(CommitError::Aborted(reason))) => {
                failed("aborted");
                tracing::warn!(group, "transaction aborted, going back to the last commit: {reason}");
                self.rewind()
            }
            Err(commit::Failed::Log(CommitError::Unknown(reason))) => {
                failed("unknown");
                tracing::warn!(group, "outcome of the transaction unknown, restoring: {reason}");
                self.reopen(self.last_commit);
                Ok(())
            }
            Err(commit::Failed::Log(CommitError::Fenced(reason))) => {
                failed("fenced");
                Err(LogError::Fenced(reason).into())
            }
            Err(commit::Failed::Log(CommitError::Denied(reason))) => {
                failed("denied");
                Err(LogError::Fatal(reason).into())
            }
            Err(commit::Failed::Log(CommitError::State(e))) => {
                // Nothing was written: go back and try again once there may be room.
                failed("storage");
                tracing::error!(group, "nothing could be committed: {e}");
                self.shared.config.wall.sleep(BACKOFF);
                self.rewind()
            }
            Err(commit::Failed::Local(e)) => {
                // The log is ahead of the stores: only restore may use them again.
                failed("local");
                tracing::error!(group, "committed, but not written locally: {e}");
                self.reopen(self.after_backoff());
                Ok(())
            }
            Err(commit::Failed::State(e)) => Err(e.into()),
        }
    }

    /// A transaction is all tasks' at once: each counts the part of its time that its bytes are of all.
    fn share_out(&self, took: Duration, shares: &[(u32, usize)]) {
        let all: usize = shares.iter().map(|(_, bytes)| bytes).sum();
        for (number, bytes) in shares.iter().filter(|(_, bytes)| *bytes > 0) {
            if let Some(partition) = self.running.get(number) {
                partition.took(Stage::Commit, took.mul_f64(*bytes as f64 / all as f64));
            }
        }
    }

    /// Drops what is uncommitted and delivers it again.
    fn rewind(&mut self) -> Result<(), WorkerError> {
        for partition in self.running.values_mut() {
            partition.rewind();
            self.log.start(&partition.starts())?;
        }
        Ok(())
    }

    /// Closes all tasks, to be opened as if they were newly assigned.
    fn reopen(&mut self, at: Instant) {
        let all = std::mem::take(&mut self.running).into_keys().chain(std::mem::take(&mut self.restoring).into_keys());
        for number in all {
            // Queries let the stores go, too: they are opened anew.
            self.tasks.update(self.group.name, number, |view| view.state = None);
            self.opening.insert(number, at);
        }
    }

    /// A batch went through a stage since `started`; when it ended.
    fn took(&self, stage: Stage, started: Instant) -> Instant {
        let ended = self.shared.config.wall.instant();
        self.shared.metrics.stages.took(self.group.name, stage, ended.saturating_duration_since(started));
        ended
    }

    fn state_progress(&mut self, now: bool) {
        if !now && self.shared.config.wall.elapsed(self.last_stated) < STATE_EVERY {
            return;
        }
        self.last_stated = self.shared.config.wall.instant();
        let (group, metrics) = (self.group.name, &self.shared.metrics);
        let mut bytes = 0;
        for (number, partition) in &self.running {
            let (lag, clock, drained) =
                (partition.lag(&self.log), partition.clock(), !partition.is_dirty() && partition.is_drained(&self.log));
            let label = number.to_string();
            metrics.records_lag.with_label_values(&[group, &label]).set(lag);
            metrics.watermark_ms.with_label_values(&[group, &label]).set(partition.watermark().millis());
            bytes += partition.pending_bytes();
            let (processed, hottest) = partition.seen();
            self.tasks.update(group, *number, |view| {
                (view.lag, view.clock, view.drained) = (lag, clock, drained);
                (view.processed, view.hottest) = (processed, hottest);
            });
        }
        metrics.pending_bytes.with_label_values(&[group]).set(bytes as i64);
    }
}

/// Whether an error may be over some time later.
fn passes(error: &LogError) -> bool {
    matches!(error, LogError::Unavailable(_) | LogError::State(StateError::Full { .. }))
}
