//! One partition of a topic, as a broker keeps it: records, markers, what is decided and what is not.

use crate::log::{Headers, Record, TopicPartition};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tillflow_schemas::Timestamp;

/// What became of a record's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Open,
    Aborted,
}

#[derive(Clone, Debug)]
struct Entry {
    offset: i64,
    at: Duration,
    logged_at: Timestamp,
    writer: u32,
    fate: Fate,
    /// A marker carries nothing for readers, and takes an offset all the same.
    marker: bool,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

/// What is appended.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// The log's timestamp.
    pub logged_at: Timestamp,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Headers,
}

/// One partition of a topic.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    entries: Vec<Entry>,
    begin: i64,
    next: i64,
    /// First offset of each writer's undecided transaction.
    open: BTreeMap<u32, i64>,
    /// Not fetched from before this moment: its leader is slow.
    pub slow_until: Duration,
}

impl Partition {
    /// The offset after the last record: the high watermark.
    pub fn end(&self) -> i64 {
        self.next
    }

    /// The first offset.
    pub fn begin(&self) -> i64 {
        self.begin
    }

    /// All transactions before it are decided.
    pub fn stable_end(&self) -> i64 {
        self.open.values().min().copied().unwrap_or(self.next)
    }

    /// Appends a record of `writer`'s transaction, or of none; returns its offset.
    pub fn append(&mut self, now: Duration, writer: Option<u32>, data: Data) -> i64 {
        let offset = self.next;
        self.next += 1;
        if let Some(writer) = writer {
            self.open.entry(writer).or_insert(offset);
        }
        let fate = if writer.is_some() { Fate::Open } else { Fate::Committed };
        let Data { logged_at, key, value, headers } = data;
        self.entries.push(Entry { offset, at: now, logged_at, writer: writer.unwrap_or(0), fate, marker: false, key, value, headers });
        offset
    }

    /// Writes the marker that decides `writer`'s transaction here.
    pub fn decide(&mut self, now: Duration, writer: u32, committed: bool) {
        let Some(first) = self.open.remove(&writer) else { return };
        let fate = if committed { Fate::Committed } else { Fate::Aborted };
        let from = self.entries.partition_point(|e| e.offset < first);
        for entry in self.entries.iter_mut().skip(from).filter(|e| e.writer == writer && e.fate == Fate::Open) {
            entry.fate = fate;
        }
        let offset = self.next;
        self.next += 1;
        let logged_at = Timestamp::default();
        self.entries.push(Entry { offset, at: now, logged_at, writer, fate, marker: true, key: None, value: None, headers: Vec::new() });
    }

    /// Up to `limit` committed records from `position` on, and the position after them, past markers and gaps. With
    /// `all`, what is undecided or was aborted is among them.
    pub fn read(&self, at: TopicPartition, position: i64, limit: usize, all: bool) -> (Vec<Record>, i64) {
        let end = if all { self.next } else { self.stable_end() };
        let mut position = position.max(self.begin);
        let mut records = Vec::new();
        let from = self.entries.partition_point(|e| e.offset < position);
        for entry in self.entries.iter().skip(from) {
            if entry.offset >= end || records.len() >= limit {
                return (records, position.max(entry.offset.min(end)));
            }
            position = entry.offset + 1;
            if !entry.marker && (all || entry.fate == Fate::Committed) {
                let (key, value, headers) = (entry.key.clone(), entry.value.clone(), entry.headers.clone());
                records.push(Record { at, offset: entry.offset, logged_at: entry.logged_at, key, value, headers });
            }
        }
        (records, position.max(end))
    }

    /// Deletes the records before `offset`.
    pub fn purge(&mut self, offset: i64) {
        let offset = offset.min(self.stable_end());
        if offset > self.begin {
            self.begin = offset;
            self.entries.retain(|e| e.offset >= offset);
        }
    }

    /// Compacts what lies below `upto`: the last record a key stays; tombstones written before `forget` go, and so do
    /// aborted records and markers. Offsets stay, so gaps appear.
    pub fn compact(&mut self, upto: i64, forget: Duration) {
        // The newest records lie in the active segment, which is never compacted.
        let upto = upto.min(self.stable_end()).min(self.next - 2);
        let mut last: BTreeMap<&[u8], i64> = BTreeMap::new();
        for e in self.entries.iter().filter(|e| e.offset < upto && !e.marker && e.fate == Fate::Committed) {
            if let Some(key) = &e.key {
                last.insert(key, e.offset);
            }
        }
        let keep: BTreeSet<i64> = last.into_values().collect();
        self.entries.retain(|e| e.offset >= upto || (keep.contains(&e.offset) && (e.value.is_some() || e.at >= forget)));
    }
}
