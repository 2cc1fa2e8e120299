//! What a processor declares, all in one place, before the first record: inputs, tables, outputs, timers, queries.

use crate::{Combine, Query, Result, keys};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};
use tillflow_schemas::{Event, Record, Reference};
use tillflow_state::{Key, Table, prefix_of};

/// Answers a query from committed state; `None` is "no such thing".
pub type QueryFn = Arc<dyn Fn(&Query<'_>) -> Result<Option<Value>> + Send + Sync>;

/// Says what is wrong with a definition, beyond its form.
pub type CheckFn = Arc<dyn Fn(&Event) -> Result<(), String> + Send + Sync>;

/// An output declared; emitting needs it.
pub struct Output<V>(PhantomData<fn(V)>);
/// A pre-aggregated output declared; combining needs it.
pub struct Combined<C>(PhantomData<fn(C)>);
/// A broadcast table declared: every task sees all of it.
pub struct Global<V>(PhantomData<fn() -> V>);
/// A kind of timer declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKind(pub(crate) u32);

macro_rules! handle {
    ($($name:ident),+) => {$(
        impl<T> Clone for $name<T> { fn clone(&self) -> Self { *self } }
        impl<T> Copy for $name<T> {}
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(stringify!($name)) }
        }
    )+};
}
handle!(Output, Combined, Global);

/// Collects what one processor declares.
pub struct Declare<'a> {
    settings: &'a Map<String, Value>,
    pub(crate) seen: Declared,
}

/// What one processor declared.
#[derive(Clone, Default)]
pub struct Declared {
    /// Schemas of the records it processes.
    pub inputs: Vec<&'static str>,
    /// Schemas of its own group's outputs that it processes too, at once, in the same transaction.
    pub follows: Vec<&'static str>,
    /// Schemas of its broadcast tables that keep versions by `valid_from`.
    pub globals: Vec<&'static str>,
    /// What it checks of definitions, by their schemas.
    pub checks: Vec<(&'static str, CheckFn)>,
    /// Schemas of its broadcast tables of which only the latest known counts.
    pub latest: Vec<&'static str>,
    /// Schemas it emits.
    pub outputs: Vec<&'static str>,
    /// Its tables.
    pub stores: Vec<&'static str>,
    /// Tables of others that it reads.
    pub reads: Vec<&'static str>,
    /// Its kinds of timers.
    pub timers: Vec<&'static str>,
    /// Its queries, by name.
    pub queries: BTreeMap<&'static str, QueryFn>,
    /// What is wrong with the declaration or with its settings.
    pub problems: Vec<String>,
}

impl<'a> Declare<'a> {
    /// A declaration under the given settings, by section.
    pub fn new(settings: &'a Map<String, Value>) -> Self {
        Self { settings, seen: Declared::default() }
    }

    /// What was declared.
    pub fn finish(self) -> Declared {
        self.seen
    }

    /// A section of the configuration, such as `loyalty`; what is absent has its default.
    pub fn settings<T: Serialize + DeserializeOwned + Default>(&mut self, section: &str) -> T {
        let Some(value) = self.settings.get(section) else { return T::default() };
        // Before serde, which would list all keys.
        let known = keys::flatten_below(section, &json!(T::default()));
        let read = match keys::unknown(&keys::flatten_below(section, value), &known) {
            Some(unknown) => Err(unknown),
            None => serde_json::from_value(value.clone()).map_err(|e| format!("{section}: {e}")),
        };
        read.unwrap_or_else(|problem| {
            self.seen.problems.push(problem);
            T::default()
        })
    }

    /// States what is wrong with the settings beyond their form, such as thresholds upside down.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.seen.problems.push(problem.into());
    }

    /// Processes these records.
    pub fn input<V: Record>(&mut self) {
        self.seen.inputs.push(V::SCHEMA);
    }

    /// Processes what another processor of the group emits, right after it and in the same transaction.
    pub fn follow<V: Record>(&mut self) {
        self.seen.follows.push(V::SCHEMA);
    }

    /// Looks up versions as of event time.
    pub fn global<V: Reference>(&mut self) -> Global<V> {
        self.seen.globals.push(V::SCHEMA);
        Global(PhantomData)
    }

    /// Checks definitions that are stated on their topic: what is wrong becomes a dead letter.
    pub fn check<V: Reference>(&mut self, check: impl Fn(&V) -> Result<(), String> + Send + Sync + 'static) {
        self.seen.checks.push((V::SCHEMA, Arc::new(move |event| V::of(event).map_or(Ok(()), &check))));
    }

    /// Looks up the latest known, whatever the event time: what depends on it is of class C.
    pub fn latest<V: Record>(&mut self) -> Global<V> {
        self.seen.latest.push(V::SCHEMA);
        Global(PhantomData)
    }

    /// Owns a table. The name, such as `loyalty.accounts`, is part of what is stored.
    pub fn store<K: Key, V: Serialize + DeserializeOwned>(&mut self, name: &'static str) -> Table<K, V> {
        self.seen.stores.push(name);
        Table::new(name)
    }

    /// Reads a table that another processor of the group owns.
    pub fn read<K: Key, V: Serialize + DeserializeOwned>(&mut self, name: &'static str) -> Table<K, V> {
        self.seen.reads.push(name);
        Table::new(name)
    }

    /// Emits these records.
    pub fn output<V: Record>(&mut self) -> Output<V> {
        self.seen.outputs.push(V::SCHEMA);
        Output(PhantomData)
    }

    /// Emits these records, those of one slot merged within a commit.
    pub fn combined<C: Combine>(&mut self) -> Combined<C> {
        self.seen.outputs.push(C::Out::SCHEMA);
        Combined(PhantomData)
    }

    /// Sets timers of this kind. The name, such as `loyalty.expiry`, is part of what is stored.
    pub fn timer(&mut self, name: &'static str) -> TimerKind {
        self.seen.timers.push(name);
        TimerKind(u32::from_be_bytes(prefix_of(name)))
    }

    /// Answers `/v1/users/{id}/NAME` (or `/v1/products/{id}/NAME`) from committed state.
    pub fn query(&mut self, name: &'static str, answer: impl Fn(&Query<'_>) -> Result<Option<Value>> + Send + Sync + 'static) {
        self.seen.queries.insert(name, Arc::new(answer));
    }
}
