//! What a processor can do while it processes: time, tables, outputs, timers, lookups. No I/O, no wall clock.

use crate::{Combine, Combined, Emission, Global, Globals, Outbox, Output, Result, TimerKind, traces::Traces, upcoming::Upcoming};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tillflow_schemas::{Record, Timestamp};
use tillflow_state::{Key, Store, Table, timers, timers::TimerRow};

/// A timer that fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    pub(crate) kind: u32,
    /// Whose it is.
    pub key: String,
    /// Distinguishes timers of one kind and key.
    pub detail: String,
    /// When it was due: the processor's `now`.
    pub fire_at: Timestamp,
}

impl Timer {
    /// Whether it is of that kind.
    pub fn is(&self, kind: TimerKind) -> bool {
        self.kind == kind.0
    }
}

/// Where a task stands among its group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The task's partition.
    pub partition: u32,
    /// The group's number of partitions.
    pub partitions: u32,
}

/// What a processor can do while it processes.
pub struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) watermark: Timestamp,
    pub(crate) place: Place,
    pub(crate) store: &'a mut Store,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) globals: &'a Globals,
    pub(crate) follows: &'a [&'static str],
    pub(crate) upcoming: &'a mut Upcoming,
    pub(crate) traces: &'a mut Traces,
}

impl Context<'_> {
    /// Event time of the record or timer.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// All earlier events of this task have been processed; a later one with an earlier time is late.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Where the task stands among its group's.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get<K: Key, V: Serialize + DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>> {
        Ok(table.get(self.store, key)?)
    }

    /// Writes the value of `key`.
    ///
    /// # Errors
    /// When the value can't be encoded.
    pub fn put<K: Key, V: Serialize + DeserializeOwned>(&mut self, table: &Table<K, V>, key: &K, value: &V) -> Result<()> {
        Ok(table.put(self.store, key, value)?)
    }

    /// Deletes `key`.
    pub fn delete<K: Key, V: Serialize + DeserializeOwned>(&mut self, table: &Table<K, V>, key: &K) {
        table.delete(self.store, key);
    }

    /// Visits the rows whose key starts with `prefix` (a tuple's first fields, or `()` for all), in key order, until
    /// `visit` returns false.
    ///
    /// # Errors
    /// When the store fails.
    pub fn scan<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Key,
        visit: impl FnMut(K, V) -> bool,
    ) -> Result<()> {
        Ok(table.scan(self.store, prefix, visit)?)
    }

    /// The rows whose key starts with `prefix`, in key order. For rows known to be few.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rows<K: Key, V: Serialize + DeserializeOwned>(&self, table: &Table<K, V>, prefix: &impl Key) -> Result<Vec<(K, V)>> {
        let mut rows = Vec::new();
        self.scan(table, prefix, |k, v| {
            rows.push((k, v));
            true
        })?;
        Ok(rows)
    }

    /// Emits a record, under its own key.
    ///
    /// # Errors
    /// When it is too large.
    pub fn emit<V: Record>(&mut self, _: &Output<V>, value: V) -> Result<()> {
        self.outbox.emit(Emission { trace: self.traces.now().cloned(), ..Emission::of(&value, self.now)? });
        if self.follows.contains(&V::SCHEMA) {
            self.outbox.followed.push(value.into_event());
        }
        Ok(())
    }

    /// Emits a tombstone: the key's record is gone.
    pub fn emit_tombstone<V: Record>(&mut self, _: &Output<V>, key: &str) {
        let trace = self.traces.now().cloned();
        self.outbox.emit(Emission { schema: V::SCHEMA, key: key.to_owned(), value: None, at: self.now, trace });
    }

    /// Emits a value merged with the others of its slot within this commit.
    pub fn combine<C: Combine>(&mut self, _: &Combined<C>, value: C) {
        self.outbox.combine(value, self.traces.now().cloned());
    }

    /// Sets a timer of `key`; one of the same kind, key and detail is replaced. One that is already due fires right
    /// after this record.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_timer(&mut self, kind: TimerKind, key: &str, detail: &str, fire_at: Timestamp) -> Result<()> {
        let row = timer_row(kind, key, detail, fire_at.millis());
        timers::set(self.store, &row)?;
        self.upcoming.set(&row);
        self.traces.timer_set(&row);
        Ok(())
    }

    /// Cancels a timer, if it is set.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cancel_timer(&mut self, kind: TimerKind, key: &str, detail: &str) -> Result<()> {
        Ok(timers::cancel(self.store, &timer_row(kind, key, detail, 0))?)
    }

    /// When a timer fires, if it is set.
    ///
    /// # Errors
    /// When the store fails.
    pub fn timer_at(&self, kind: TimerKind, key: &str, detail: &str) -> Result<Option<Timestamp>> {
        Ok(timers::get(self.store, &timer_row(kind, key, detail, 0))?.map(Timestamp::from_millis))
    }

    /// The version of `id` in a broadcast table that counts now (or the latest known, where it was declared so).
    pub fn lookup<V: Record>(&self, _: &Global<V>, id: &str) -> Option<Arc<V>> {
        self.globals.get::<V>(id, self.now)
    }

    /// All records of a broadcast table that count now, by id.
    pub fn lookup_all<V: Record>(&self, _: &Global<V>) -> impl Iterator<Item = (&str, &Arc<V>)> {
        self.globals.all::<V>(self.now)
    }
}

fn timer_row(kind: TimerKind, key: &str, detail: &str, fire_at: i64) -> TimerRow {
    TimerRow { fire_at, key: key.to_owned(), kind: kind.0, detail: detail.to_owned() }
}

/// A query: what is asked, and the committed state to answer it from.
pub struct Query<'a> {
    /// The user or product.
    pub key: &'a str,
    /// The rest of the path after the query's name, such as a feature; empty where there is none.
    pub rest: &'a str,
    /// The task's event clock.
    pub now: Timestamp,
    /// Committed state of the task that owns the key.
    pub state: &'a dyn tillflow_state::Read,
    /// Broadcast tables.
    pub globals: &'a Globals,
    /// Where the task stands among its group's.
    pub place: Place,
}

impl Query<'_> {
    /// The value of `key` in a table.
    ///
    /// # Errors
    /// When the store fails.
    pub fn get<K: Key, V: Serialize + DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>> {
        Ok(table.get(self.state, key)?)
    }

    /// The rows whose key starts with `prefix`, in key order, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rows<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Key,
        limit: usize,
    ) -> Result<Vec<(K, V)>> {
        let mut rows = Vec::new();
        table.scan(self.state, prefix, |k, v| {
            rows.push((k, v));
            rows.len() < limit
        })?;
        Ok(rows)
    }

    /// The version of `id` in a broadcast table that counts at the event clock.
    pub fn lookup<V: Record>(&self, _: &Global<V>, id: &str) -> Option<Arc<V>> {
        self.globals.get::<V>(id, self.now)
    }

    /// All records of a broadcast table that count at the event clock, by id.
    pub fn lookup_all<V: Record>(&self, _: &Global<V>) -> impl Iterator<Item = (&str, &Arc<V>)> {
        self.globals.all::<V>(self.now)
    }
}
