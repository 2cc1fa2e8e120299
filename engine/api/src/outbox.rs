//! What a task emits between two commits.

use crate::{Error, Result};
use std::{any::Any, collections::BTreeMap};
use tillflow_schemas::{Event, Record, Timestamp, Trace};

/// The largest value that may be emitted, in bytes: brokers refuse more than a megabyte by default.
pub const LARGEST_VALUE: usize = 900_000;

/// Records that may be merged before they are emitted: those of one slot become one within a commit.
pub trait Combine: Send + 'static {
    /// What is emitted.
    type Out: Record;
    /// Values of one slot are merged.
    fn slot(&self) -> String;
    /// Takes in another value of the slot. The order must not matter.
    fn absorb(&mut self, other: Self);
    /// The record to emit.
    fn finish(self) -> Self::Out;
}

/// A record to be written to the topic of its schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// Which topic, by the schema of its values.
    pub schema: &'static str,
    /// The key.
    pub key: String,
    /// JSON, or packed; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Event time of the decision.
    pub at: Timestamp,
    /// The trace it belongs to; of a merged one, that of the first record that had any.
    pub trace: Option<Trace>,
}

impl Emission {
    /// The emission of `value` at `at`.
    ///
    /// # Errors
    /// When it can't be written as JSON, or is larger than [`LARGEST_VALUE`].
    pub fn of<V: Record>(value: &V, at: Timestamp) -> Result<Self> {
        let bytes = tillflow_schemas::to_bytes(value).map_err(|e| Error::reject(e.to_string()))?;
        if bytes.len() > LARGEST_VALUE {
            return Err(Error::reject(format!("{} of {} bytes is larger than {LARGEST_VALUE}", V::SCHEMA, bytes.len())));
        }
        Ok(Self { schema: V::SCHEMA, key: value.key().to_owned(), value: Some(bytes), at, trace: None })
    }
}

trait Slot: Send {
    fn absorb(&mut self, other: Box<dyn Any>);
    fn finish(self: Box<Self>, at: Timestamp) -> Result<Emission>;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<C: Combine> Slot for C {
    fn absorb(&mut self, other: Box<dyn Any>) {
        if let Ok(other) = other.downcast::<C>() {
            Combine::absorb(self, *other);
        }
    }
    fn finish(self: Box<Self>, at: Timestamp) -> Result<Emission> {
        Emission::of(&Combine::finish(*self), at)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

type SlotKey = (&'static str, String);

/// A value that is merged, and the trace it belongs to.
struct Merged {
    slot: Box<dyn Slot>,
    trace: Option<Trace>,
}

/// What was emitted since the last commit, with a savepoint a record.
#[derive(Default)]
pub struct Outbox {
    emissions: Vec<Emission>,
    slots: BTreeMap<SlotKey, Merged>,
    bytes: usize,
    // Of the current record:
    kept: usize,
    kept_bytes: usize,
    fresh_slots: Vec<(SlotKey, Merged)>,
    /// Emitted by the current record and followed by another processor, not yet handed to it.
    pub(crate) followed: Vec<Event>,
}

impl Outbox {
    pub(crate) fn savepoint(&mut self) {
        self.kept = self.emissions.len();
        self.kept_bytes = self.bytes;
    }

    pub(crate) fn rollback(&mut self) {
        self.emissions.truncate(self.kept);
        self.bytes = self.kept_bytes;
        self.fresh_slots.clear();
        self.followed.clear();
    }

    pub(crate) fn release(&mut self) {
        for (key, fresh) in self.fresh_slots.drain(..) {
            match self.slots.get_mut(&key) {
                Some(merged) => {
                    merged.slot.absorb(fresh.slot.into_any());
                    merged.trace = merged.trace.take().or(fresh.trace);
                }
                None => {
                    self.bytes += 200;
                    self.slots.insert(key, fresh);
                }
            }
        }
    }

    pub(crate) fn emit(&mut self, emission: Emission) {
        self.bytes += emission.key.len() + emission.value.as_ref().map_or(0, Vec::len);
        self.emissions.push(emission);
    }

    pub(crate) fn combine<C: Combine>(&mut self, value: C, trace: Option<Trace>) {
        self.fresh_slots.push(((C::Out::SCHEMA, value.slot()), Merged { slot: Box::new(value), trace }));
    }

    /// Emits from outside a record: the engine's own records, such as dead letters.
    pub fn push(&mut self, emission: Emission) {
        self.emit(emission);
        self.savepoint();
    }

    /// Roughly how large it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.emissions.is_empty() && self.slots.is_empty()
    }

    /// Takes all emissions, merged ones last and in the order of their slots.
    ///
    /// # Errors
    /// When a merged record can't be written.
    pub fn take(&mut self, at: Timestamp) -> Result<Vec<Emission>> {
        let mut all = std::mem::take(&mut self.emissions);
        for merged in std::mem::take(&mut self.slots).into_values() {
            all.push(Emission { trace: merged.trace, ..merged.slot.finish(at)? });
        }
        self.discard();
        Ok(all)
    }

    /// Drops all: after an abort.
    pub fn discard(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Notification;

    #[test]
    fn what_no_broker_would_take_is_refused_when_it_is_emitted() {
        let of = |bytes| {
            let (user_id, title, at) = ("ann".into(), "x".repeat(bytes), Timestamp::EARLIEST);
            Emission::of(&Notification { user_id, kind: "told".into(), title, data: serde_json::Map::new(), at }, at)
        };
        assert!(of(LARGEST_VALUE - 1_000).is_ok());
        let error = of(LARGEST_VALUE).unwrap_err().to_string();
        assert!(error.contains("is larger than 900000"), "{error}");
    }
}
