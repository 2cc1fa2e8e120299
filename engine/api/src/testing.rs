//! Drives processors without any log: events in, time forward, emissions out. For tests of processors.
//!
//! It runs the same [`Task`] as the engine, over state in memory.

#![allow(clippy::panic, reason = "a test's driver fails the test")]

use crate::{Done, Error, Failure, Globals, Group, Place, Processor, Query, Task};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use tillflow_schemas::{Event, Record, Timestamp};
use tillflow_state::{Memory, Store};

/// How far the watermark stays behind the clock, as configured by default.
const GRACE: Duration = Duration::from_secs(10);

/// A group of processors on one partition, driven by a test. Methods panic where a test should fail.
pub struct Driver {
    task: Task,
    globals: Globals,
    emitted: Vec<crate::Emission>,
    /// Records and timers that failed, in words.
    pub failures: Vec<String>,
}

impl Driver {
    /// One processor with default settings.
    pub fn of<P: Processor + 'static>() -> Self {
        Self::with_settings::<P>(Value::Object(Map::new()))
    }

    /// One processor with settings by section, such as `{"loyalty": {…}}`.
    pub fn with_settings<P: Processor + 'static>(settings: Value) -> Self {
        let settings = settings.as_object().cloned().unwrap_or_default();
        Self::group(&Group::new::<tillflow_schemas::UserEvent>("test", None, &settings).with::<P>("tested"))
    }

    /// A whole group.
    ///
    /// # Panics
    /// When a processor finds its settings wrong.
    pub fn group(group: &Group) -> Self {
        let problems: Vec<_> = group.parts.iter().flat_map(|p| p.declared.problems.clone()).collect();
        assert!(problems.is_empty(), "{problems:?}");
        let task = Task::new(group, Place { partition: 0, partitions: 1 }, Store::new(Box::new(Memory::default())));
        Self { task, globals: Globals::default(), emitted: Vec::new(), failures: Vec::new() }
    }

    /// States a reference record, or a latest-known one, to all lookups; processors that take it as input get it by
    /// [`Driver::send`].
    pub fn global(&mut self, record: impl Record) -> &mut Self {
        self.globals.apply(&record.into_event(), self.task.clock());
        self
    }

    /// Processes one event; the watermark follows the clock.
    ///
    /// # Panics
    /// When the state fails.
    pub fn send(&mut self, event: Event) -> &mut Self {
        let done = self.task.process(&event, &self.globals);
        match done {
            Ok((Done::Processed | Done::Duplicate, failed)) => self.note(failed),
            Err(Failure::Rejected { processor, reason }) => self.failures.push(format!("{processor}: {reason}")),
            Err(Failure::State(e)) => panic!("{e}"),
        }
        if let Some(at) = event.time() {
            self.task.set_clock(at);
            self.advance(self.task.clock() - GRACE);
        }
        self
    }

    /// Processes one event given as JSON in the form of the contract.
    ///
    /// # Panics
    /// When it can't be decoded.
    pub fn send_json(&mut self, schema: &str, value: Value) -> &mut Self {
        let event = Event::from_value(schema, None, value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"));
        self.send(event)
    }

    /// Moves clock and watermark to `at`: what is due by then fires.
    ///
    /// # Panics
    /// When the state fails.
    pub fn advance(&mut self, at: Timestamp) -> &mut Self {
        let failed = self.task.advance(at, &self.globals).unwrap_or_else(|e| panic!("{e}"));
        self.task.set_clock(at);
        self.note(failed);
        self
    }

    fn note(&mut self, failed: Vec<crate::FailedTimer>) {
        self.failures.extend(failed.into_iter().map(|f| format!("{}: {}", f.processor, f.reason)));
    }

    /// Takes all emissions of a type since the last call, in order; tombstones are left out. Ends the commit, so
    /// merged records are included.
    ///
    /// # Panics
    /// When an emission is not of its type.
    pub fn emitted<V: Record + DeserializeOwned>(&mut self) -> Vec<V> {
        self.emissions::<V>()
            .into_iter()
            .filter_map(|e| e.value)
            .map(|bytes| tillflow_schemas::from_bytes(&bytes).unwrap_or_else(|e| panic!("{e}")))
            .collect()
    }

    /// Takes all emissions of a type since the last call, in order, tombstones included.
    ///
    /// # Panics
    /// When a merged record can't be written.
    pub fn emissions<V: Record>(&mut self) -> Vec<crate::Emission> {
        self.commit();
        let (these, others) = std::mem::take(&mut self.emitted).into_iter().partition(|e| e.schema == V::SCHEMA);
        self.emitted = others;
        these
    }

    /// Commits: state becomes visible to queries, merged records are emitted.
    ///
    /// # Panics
    /// When the state fails.
    pub fn commit(&mut self) {
        let at = self.task.clock();
        self.emitted.extend(self.task.outbox_mut().take(at).unwrap_or_else(|e| panic!("{e}")));
        self.task.store_mut().apply(&[]).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Answers a query such as `loyalty` of `u1` from committed state.
    ///
    /// # Errors
    /// As the query says.
    ///
    /// # Panics
    /// When no processor declares it.
    pub fn query(&mut self, name: &str, key: &str, rest: &str) -> Result<Option<Value>, Error> {
        self.commit();
        let answer =
            self.task.parts().iter().find_map(|p| p.declared.queries.get(name)).unwrap_or_else(|| panic!("no query {name}")).clone();
        answer(&Query { key, rest, now: self.task.clock(), state: self.task.store(), globals: &self.globals, place: self.task.place() })
    }

    /// The task, for what this driver has no word for.
    pub fn task(&mut self) -> &mut Task {
        &mut self.task
    }
}
