//! What runs a group's processors on one partition. It knows nothing of logs: records go in, state and emissions come
//! out. The engine and the test driver both use it.

use crate::{Context, Error, Globals, Group, Outbox, Part, Place, Processor, Timer, traces::Traces, upcoming::Upcoming};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tillflow_schemas::{EVENT_ID_HORIZON, Event, Identity, Timestamp, Trace};
use tillflow_state::{StateError, Store, prefix_of, rows_under, seen, timers};

/// How deep processors may follow each other's outputs.
const DEEPEST_FOLLOWING: usize = 8;
/// Identities looked at between two records, at most, while old ones are forgotten.
const FORGET: usize = 256;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was processed.
    Processed,
    /// It had been seen before, and changed nothing.
    Duplicate,
}

/// Why a record or timer was undone.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is to blame: it goes to the dead letters.
    #[error("{processor}: {reason}")]
    Rejected {
        /// The processor that failed.
        processor: &'static str,
        /// What it said.
        reason: String,
    },
    /// The store is to blame: the task stops.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A timer whose processor failed; it was dropped.
#[derive(Debug)]
pub struct FailedTimer {
    /// The timer.
    pub timer: Timer,
    /// The processor that failed.
    pub processor: &'static str,
    /// What it said.
    pub reason: String,
}

/// A group's processors on one partition.
pub struct Task {
    group: Group,
    processors: Vec<Box<dyn Processor>>,
    routes: HashMap<&'static str, Vec<usize>>,
    followers: HashMap<&'static str, Vec<usize>>,
    follows: Vec<&'static str>,
    timer_owners: HashMap<u32, usize>,
    place: Place,
    store: Store,
    outbox: Outbox,
    clock: Timestamp,
    watermark: Timestamp,
    upcoming: Upcoming,
    traces: Traces,
    forgetting: seen::Walk,
}

impl Task {
    /// The group's task at `place`, over `store`.
    pub fn new(group: &Group, place: Place, store: Store) -> Self {
        let mut routes: HashMap<_, Vec<_>> = HashMap::new();
        let mut followers: HashMap<_, Vec<_>> = HashMap::new();
        let mut timer_owners = HashMap::new();
        for (i, part) in group.parts.iter().enumerate() {
            part.declared.inputs.iter().for_each(|s| routes.entry(*s).or_default().push(i));
            part.declared.follows.iter().for_each(|s| followers.entry(*s).or_default().push(i));
            timer_owners.extend(part.declared.timers.iter().map(|t| (u32::from_be_bytes(prefix_of(t)), i)));
        }
        Self {
            processors: group.parts.iter().map(|p| p.instance(&group.settings)).collect(),
            follows: followers.keys().copied().collect(),
            group: group.clone(),
            routes,
            followers,
            timer_owners,
            place,
            store,
            outbox: Outbox::default(),
            clock: Timestamp::MIN,
            watermark: Timestamp::MIN,
            upcoming: Upcoming::default(),
            traces: Traces::default(),
            forgetting: seen::Walk::default(),
        }
    }

    /// Processes one record in a savepoint: it is done by all processors or by none.
    ///
    /// Timers of the record's key that are due by its time fire first. A record with no time of its own takes the
    /// task's clock.
    ///
    /// # Errors
    /// When the record is rejected (its changes are undone) or the store fails.
    pub fn process(&mut self, event: &Event, globals: &Globals) -> Result<(Done, Vec<FailedTimer>), Failure> {
        let key = event.key().unwrap_or_default();
        let at = event.time().unwrap_or(self.clock.max(self.watermark));
        let mut failed = Vec::new();
        if event.time().is_some() && self.upcoming.may_be_due(key, at.millis(), &self.store)? {
            loop {
                match timers::first_of(&self.store, key)? {
                    Some(row) if row.fire_at <= at.millis() => failed.extend(self.fire(row, globals)?),
                    first => {
                        self.upcoming.know(key, first.as_ref());
                        break;
                    }
                }
            }
        }

        self.savepoint();
        let mut identities = Vec::new();
        // Only an event's own id is kept for a while; what happens once does so for ever.
        let told = |identity: &Identity| self.group.by_event_id || identity.within.is_none();
        for Identity { scope, id, within } in event.identities().into_iter().filter(told) {
            let row = seen::row(key, scope, &id, within.is_some());
            if seen::contains(&self.store, &row, at.millis(), within.map(|w| w.as_millis() as i64))? {
                return Ok((Done::Duplicate, failed));
            }
            identities.push(row);
        }
        identities.into_iter().for_each(|row| seen::record(&mut self.store, row, at.millis()));
        let parts = self.routes.get(event.schema()).cloned().unwrap_or_default();
        self.traces.begin_record();
        self.run(at, &parts, globals, |p, cx| p.process(event, cx))?;
        Ok((Done::Processed, failed))
    }

    /// Deletes all rows of a key: of every table that is kept by it, its timers and its identities. How many there were.
    ///
    /// # Errors
    /// When the store fails.
    pub fn erase(&mut self, key: &str) -> Result<usize, StateError> {
        let mut rows = timers::rows_of(&self.store, key)?;
        rows.extend(seen::rows_of(&self.store, key)?);
        for table in self.group.parts.iter().flat_map(|p| &p.declared.stores) {
            rows.extend(rows_under(&self.store, &prefix_of(table), key)?);
        }
        let erased = rows.len();
        rows.into_iter().for_each(|row| self.store.delete(row));
        Ok(erased)
    }

    /// The trace that the next record belongs to: what is emitted because of it will carry it.
    pub fn trace_next(&mut self, trace: Option<Trace>) {
        self.traces.set_next(trace);
    }

    /// Sets the event clock forward; it never goes back.
    pub fn set_clock(&mut self, clock: Timestamp) {
        self.clock = self.clock.max(clock);
    }

    /// Moves the watermark forward and fires what is due by it, in order. Returns the timers that failed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn advance(&mut self, watermark: Timestamp, globals: &Globals) -> Result<Vec<FailedTimer>, StateError> {
        Ok(self.advance_by(watermark, usize::MAX, globals)?.0)
    }

    /// As [`Task::advance`], firing at most `limit` timers; says whether none is left that is due.
    ///
    /// # Errors
    /// When the store fails.
    pub fn advance_by(&mut self, watermark: Timestamp, limit: usize, globals: &Globals) -> Result<(Vec<FailedTimer>, bool), StateError> {
        self.watermark = self.watermark.max(watermark);
        let until = self.watermark.millis();
        let mut failed = Vec::new();
        let mut fired = 0;
        while let Some(row) = self.upcoming.next(until, &self.store)? {
            failed.extend(self.fire(row, globals)?);
            fired += 1;
            if fired >= limit {
                return Ok((failed, false));
            }
        }
        self.forgetting.go_on(&mut self.store, until, EVENT_ID_HORIZON.as_millis() as i64, FORGET)?;
        Ok((failed, true))
    }

    /// Whether a timer may be due that was set for a time before the watermark.
    pub fn may_be_overdue(&self) -> bool {
        self.upcoming.is_due(self.watermark.millis())
    }

    /// Fires one timer in a savepoint; a failed one is dropped, or it would fail for ever.
    fn fire(&mut self, row: timers::TimerRow, globals: &Globals) -> Result<Option<FailedTimer>, StateError> {
        timers::remove(&mut self.store, &row);
        self.traces.begin_timer(&row);
        let fire_at = Timestamp::from_millis(row.fire_at);
        let timer = Timer { kind: row.kind, key: row.key, detail: row.detail, fire_at };
        let Some(&owner) = self.timer_owners.get(&timer.kind) else {
            return Ok(Some(FailedTimer { timer, processor: "", reason: "no processor declares timers of this kind any more".into() }));
        };
        self.savepoint();
        match self.run(fire_at, &[owner], globals, |p, cx| p.on_timer(&timer, cx)) {
            Ok(()) => Ok(None),
            Err(Failure::Rejected { processor, reason }) => Ok(Some(FailedTimer { timer, processor, reason })),
            Err(Failure::State(e)) => Err(e),
        }
    }

    fn savepoint(&mut self) {
        self.store.savepoint();
        self.outbox.savepoint();
    }

    /// Runs the named processors, then those that follow what was emitted, and keeps or undoes all of it.
    fn run(
        &mut self,
        now: Timestamp,
        parts: &[usize],
        globals: &Globals,
        mut call: impl FnMut(&mut dyn Processor, &mut Context<'_>) -> crate::Result<()>,
    ) -> Result<(), Failure> {
        let mut result = parts.iter().try_for_each(|&i| self.call(i, now, globals, &mut call));
        for depth in 0.. {
            let followed = std::mem::take(&mut self.outbox.followed);
            if result.is_err() || followed.is_empty() {
                break;
            }
            if depth == DEEPEST_FOLLOWING {
                result =
                    Err(Failure::Rejected { processor: "engine", reason: "processors follow each other's outputs in a circle".into() });
                break;
            }
            result = followed.iter().try_for_each(|event| {
                let followers = self.followers.get(event.schema()).cloned().unwrap_or_default();
                followers.iter().try_for_each(|&i| self.call(i, now, globals, &mut |p, cx| p.process(event, cx)))
            });
        }
        self.traces.end();
        match result {
            Ok(()) => self.outbox.release(),
            Err(_) => {
                self.store.rollback();
                self.outbox.rollback();
            }
        }
        result
    }

    fn call(
        &mut self,
        i: usize,
        now: Timestamp,
        globals: &Globals,
        call: &mut dyn FnMut(&mut dyn Processor, &mut Context<'_>) -> crate::Result<()>,
    ) -> Result<(), Failure> {
        let (Some(processor), Some(part)) = (self.processors.get_mut(i), self.group.parts.get(i)) else { return Ok(()) };
        let mut context = Context {
            now,
            watermark: self.watermark,
            place: self.place,
            store: &mut self.store,
            outbox: &mut self.outbox,
            globals,
            follows: &self.follows,
            upcoming: &mut self.upcoming,
            traces: &mut self.traces,
        };
        match catch_unwind(AssertUnwindSafe(|| call(&mut **processor, &mut context))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::State(e))) => Err(Failure::State(e)),
            Ok(Err(Error::Reject(reason))) => Err(Failure::Rejected { processor: part.name, reason }),
            Err(panic) => {
                // Whatever the processor held may be half done; what counts is in the store.
                *processor = part.instance(&self.group.settings);
                Err(Failure::Rejected { processor: part.name, reason: format!("panicked: {}", panic_message(&*panic)) })
            }
        }
    }

    /// The event clock: the greatest time seen.
    pub fn clock(&self) -> Timestamp {
        self.clock
    }
    /// Up to here all timers have fired.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }
    /// Where it stands among its group's.
    pub fn place(&self) -> Place {
        self.place
    }
    /// Its group.
    pub fn group(&self) -> &Group {
        &self.group
    }
    /// Its processors' descriptions, in order.
    pub fn parts(&self) -> &[Part] {
        &self.group.parts
    }
    /// Its state.
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// Its state, for the engine's own rows and for commit.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
    /// What it emitted since the last commit.
    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
    /// Whether something is to be committed.
    pub fn is_dirty(&self) -> bool {
        !self.store.is_clean() || !self.outbox.is_empty()
    }
    /// Bytes waiting to be committed.
    pub fn pending_bytes(&self) -> usize {
        self.store.pending_bytes() + self.outbox.bytes()
    }

    /// Forgets everything uncommitted and takes the clock and watermark that were committed.
    pub fn reset(&mut self, clock: Timestamp, watermark: Timestamp) {
        self.store.discard();
        self.outbox.discard();
        self.clock = clock;
        self.watermark = watermark;
        self.upcoming = Upcoming::default();
        self.traces = Traces::default();
        self.forgetting = seen::Walk::default();
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    tillflow_schemas::shorten(&text.unwrap_or_else(|| "without a message".into()))
}
