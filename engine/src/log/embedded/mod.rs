//! A log inside the process: one RocksDB that holds topics, state and offsets, so that one atomic batch commits all.
//!
//! Column family `log`: topic (4 bytes), partition (2), offset (8) → record. Column family `state`: group (4),
//! partition (2), row → value. There is no changelog: state is committed with the records it made.

mod reader;
mod record;
mod upkeep;
mod worker;

pub use reader::EmbeddedReader;
pub use worker::EmbeddedLog;

use super::{LogError, NewRecord, Record, TopicPartition};
use parking_lot::{Condvar, Mutex, RwLock};
use record::{decode, encode};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tillflow_schemas::{Catalog, Timestamp};
use tillflow_state::{Directory, Durability, Read, RocksBackend, Shared, StateError, prefix_of};

const LOG: &str = "log";
const STATE: &str = "state";

/// Why nothing is known to be written, and what is known of it.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// Nothing is.
    #[error("{0}")]
    Nothing(StateError),
    /// Nobody knows before the storage is opened again, which the next write does.
    #[error("{0}")]
    Perhaps(StateError),
}

impl From<NotWritten> for StateError {
    fn from(failure: NotWritten) -> Self {
        match failure {
            NotWritten::Nothing(e) | NotWritten::Perhaps(e) => e,
        }
    }
}

/// The embedded log of one process; workers, readers and the gateway share it.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Directory,
    catalog: Catalog,
    durability: Durability,
    /// The next offset of each partition, by topic. Readers see records below it.
    ends: RwLock<Vec<Vec<i64>>>,
    /// Held while offsets are given out and written, so that they become visible in order.
    writing: Mutex<()>,
    /// Counts writes; waiters look at it to learn that something was written.
    written: Mutex<u64>,
    wake: Condvar,
    /// A write failed, and nobody knows yet whether it is there.
    failed: AtomicBool,
}

impl Embedded {
    /// Opens the log in `path`.
    ///
    /// # Errors
    /// When another process holds the directory, or it is damaged or of a newer format.
    pub fn open(path: &Path, catalog: &Catalog, durability: Durability, shared: &Shared) -> Result<Self, StateError> {
        let shared = if durability == Durability::Disk { &shared.clone().reusing_logs() } else { shared };
        let directory = Directory::open(path, &[LOG, STATE], shared)?;
        let log = Self {
            inner: Arc::new(Inner {
                ends: RwLock::new(Vec::new()),
                directory,
                catalog: catalog.clone(),
                durability,
                writing: Mutex::new(()),
                written: Mutex::new(0),
                wake: Condvar::new(),
                failed: AtomicBool::new(false),
            }),
        };
        let ends = log.find_ends()?;
        log.check_partition_counts(&ends)?;
        *log.inner.ends.write() = ends;
        Ok(log)
    }

    /// A record beyond the declared partitions means that the count was lowered: its keys would be looked for elsewhere.
    fn check_partition_counts(&self, ends: &[Vec<i64>]) -> Result<(), StateError> {
        for (topic, t) in self.inner.catalog.topics().iter().enumerate() {
            let recorded = self.inner.directory.backend("default", b"partitions/", self.inner.durability);
            let before = recorded.get(t.name.as_bytes())?.and_then(|v| <[u8; 4]>::try_from(&*v).ok()).map(u32::from_be_bytes);
            let used = ends.get(topic).is_some_and(|e| e.iter().any(|end| *end > 0));
            if let Some(before) = before.filter(|b| *b != t.partitions && used) {
                return Err(StateError::Storage {
                    path: self.inner.directory.path().to_owned(),
                    detail: format!(
                        "topic {} has {before} partitions here and {} in the configuration; set topics.partitions back, or replay into a new data directory",
                        t.name, t.partitions
                    ),
                });
            }
            let key = recorded.row(t.name.as_bytes());
            self.inner
                .directory
                .write([("default", key.as_slice(), Some(t.partitions.to_be_bytes().as_slice()))], self.inner.durability)?;
        }
        Ok(())
    }

    fn find_ends(&self) -> Result<Vec<Vec<i64>>, StateError> {
        let of = |(topic, partitions): (usize, u32)| -> Result<Vec<_>, _> {
            (0..partitions).map(|partition| self.find_end(TopicPartition { topic, partition })).collect()
        };
        self.inner.catalog.topics().iter().map(|t| t.partitions).enumerate().map(of).collect()
    }

    fn find_end(&self, at: TopicPartition) -> Result<i64, StateError> {
        let last = self.inner.directory.last(LOG, &self.prefix(at))?;
        let after = last.and_then(|key| offset_of(&key)).map_or(0, |offset| offset + 1);
        // The last records may have gone by retention or compaction.
        Ok(after.max(self.kept_end(at)?))
    }

    fn prefix(&self, at: TopicPartition) -> Vec<u8> {
        let name = self.inner.catalog.topics().get(at.topic).map_or("", |t| t.name.as_str());
        let mut key = prefix_of(name).to_vec();
        key.extend_from_slice(&(at.partition as u16).to_be_bytes());
        key
    }

    fn key(&self, at: TopicPartition, offset: i64) -> Vec<u8> {
        let mut key = self.prefix(at);
        key.extend_from_slice(&offset.to_be_bytes());
        key
    }

    /// The list of topics.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// The directory it lies in.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// A task's rows.
    pub fn state(&self, group: &str, partition: u32) -> RocksBackend {
        let mut prefix = prefix_of(group).to_vec();
        prefix.extend_from_slice(&(partition as u16).to_be_bytes());
        self.inner.directory.backend(STATE, &prefix, self.inner.durability)
    }

    /// The next offset of a partition.
    pub fn end(&self, at: TopicPartition) -> i64 {
        self.inner.ends.read().get(at.topic).and_then(|p| p.get(at.partition as usize)).copied().unwrap_or(0)
    }

    /// After a failed write: opens the storage anew and finds out what is in it. Until then no task may go by what it reads.
    ///
    /// # Errors
    /// When the storage still fails; to be tried again.
    pub fn mend(&self) -> Result<(), StateError> {
        let _writing = self.inner.writing.lock();
        self.mend_for_writing()
    }

    fn mend_for_writing(&self) -> Result<(), StateError> {
        if !self.inner.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.inner.directory.reopen()?;
        *self.inner.ends.write() = self.find_ends()?;
        self.inner.failed.store(false, Ordering::Release);
        tracing::info!("the embedded log takes writes again");
        self.wake();
        Ok(())
    }

    /// Appends records and writes state rows, in one atomic batch.
    ///
    /// # Errors
    /// When the storage fails, or there is no such partition.
    pub fn write<'a>(&self, records: &[NewRecord], state: impl IntoIterator<Item = (Vec<u8>, Option<&'a [u8]>)>) -> Result<(), NotWritten> {
        let _writing = self.inner.writing.lock();
        self.mend_for_writing().map_err(NotWritten::Nothing)?;
        let mut ends = self.inner.ends.read().clone();
        let now = Timestamp::wall();
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(records.len());
        for record in records {
            let Some(end) = ends.get_mut(record.to.topic).and_then(|p| p.get_mut(record.to.partition as usize)) else {
                return Err(NotWritten::Nothing(StateError::Storage {
                    path: self.inner.directory.path().to_owned(),
                    detail: format!("there is no partition {} of topic {}", record.to.partition, record.to.topic),
                }));
            };
            rows.push((self.key(record.to, *end), encode(record, now)));
            *end += 1;
        }
        let state: Vec<_> = state.into_iter().collect();
        let log = rows.iter().map(|(k, v)| (LOG, k.as_slice(), Some(v.as_slice())));
        let state = state.iter().map(|(k, v)| (STATE, k.as_slice(), *v));
        self.inner.directory.write(log.chain(state), self.inner.durability).map_err(|e| {
            tracing::error!("nothing can be written until the storage is opened again: {e}");
            self.inner.failed.store(true, Ordering::Release);
            NotWritten::Perhaps(e)
        })?;
        *self.inner.ends.write() = ends;
        *self.inner.written.lock() += 1;
        self.inner.wake.notify_all();
        Ok(())
    }

    /// Up to `limit` records of a partition from an offset on.
    ///
    /// # Errors
    /// When the storage fails or a record is damaged.
    pub fn read(&self, at: TopicPartition, from: i64, limit: usize) -> Result<Vec<Record>, LogError> {
        Ok(self.read_on(at, from, limit)?.0)
    }

    /// As [`Embedded::read`], with the offset to go on from: it lies beyond gaps, also beyond one at the end.
    ///
    /// # Errors
    /// When the storage fails or a record is damaged.
    pub fn read_on(&self, at: TopicPartition, from: i64, limit: usize) -> Result<(Vec<Record>, i64), LogError> {
        let end = self.end(at);
        if from >= end {
            return Ok((Vec::new(), from));
        }
        let backend = self.inner.directory.backend(LOG, &self.prefix(at), self.inner.durability);
        let mut records = Vec::new();
        let mut damaged = None;
        backend.scan(&from.max(0).to_be_bytes(), Some(&end.to_be_bytes()), &mut |key, value| {
            match offset_of(key).and_then(|offset| decode(at, offset, value)) {
                Some(record) => records.push(record),
                None => damaged = Some(format!("a record of topic {} partition {} can't be read", at.topic, at.partition)),
            }
            records.len() < limit && damaged.is_none()
        })?;
        match damaged {
            Some(detail) => Err(StateError::Corrupt { path: self.inner.directory.path().to_owned(), detail }.into()),
            None => {
                let next = if records.len() < limit { end } else { records.last().map_or(end, |r| r.offset + 1) };
                Ok((records, next))
            }
        }
    }

    /// The first offset there is.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn begin(&self, at: TopicPartition) -> Result<i64, LogError> {
        let backend = self.inner.directory.backend(LOG, &self.prefix(at), self.inner.durability);
        let mut first = None;
        backend.scan(&[], None, &mut |key, _| {
            first = offset_of(key);
            false
        })?;
        Ok(first.unwrap_or_else(|| self.end(at)))
    }

    /// Deletes the records of a partition below `before`.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn purge(&self, at: TopicPartition, before: i64) -> Result<(), StateError> {
        // The last record stays: the end is found from it at the next start.
        let before = before.min(self.end(at) - 1);
        if before <= 0 {
            return Ok(());
        }
        self.inner.directory.delete_range(LOG, &self.key(at, 0), &self.key(at, before))
    }

    /// Erases a record. The last of a partition stays, without key and value: the end is found from it.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn erase(&self, at: TopicPartition, offset: i64) -> Result<(), LogError> {
        let _writing = self.inner.writing.lock();
        let (key, now) = (self.key(at, offset), Timestamp::wall());
        let empty = NewRecord { to: at, at: now, key: None, value: None, headers: Vec::new() };
        let left = (offset + 1 == self.end(at)).then(|| encode(&empty, now));
        let index = self.index_row(at, offset)?;
        let index = index.iter().map(|row| ("default", row.as_slice(), None));
        Ok(self.inner.directory.write(std::iter::once((LOG, key.as_slice(), left.as_deref())).chain(index), self.inner.durability)?)
    }

    /// Deletes all records of a partition, which begins anew.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn clear(&self, at: TopicPartition) -> Result<(), StateError> {
        let _writing = self.inner.writing.lock();
        self.inner.directory.backend(LOG, &self.prefix(at), self.inner.durability).clear()?;
        self.forget_upkeep(at)?;
        if let Some(end) = self.inner.ends.write().get_mut(at.topic).and_then(|p| p.get_mut(at.partition as usize)) {
            *end = 0;
        }
        Ok(())
    }

    /// Rewrites the files, so that what was erased is in none of them any more.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn compact(&self) -> Result<(), StateError> {
        self.inner.directory.compact(&[LOG, STATE, "default"])
    }

    /// How many writes there were; for [`Embedded::wait`].
    pub fn writes(&self) -> u64 {
        *self.inner.written.lock()
    }

    /// Waits until something is written after write number `seen`, or `timeout` is over.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut written = self.inner.written.lock();
        while *written == seen {
            if self.inner.wake.wait_until(&mut written, deadline).timed_out() {
                break;
            }
        }
    }

    /// Wakes all who wait, as if something were written.
    pub fn wake(&self) {
        *self.inner.written.lock() += 1;
        self.inner.wake.notify_all();
    }
}

fn offset_of(key: &[u8]) -> Option<i64> {
    key.last_chunk().map(|b| i64::from_be_bytes(*b))
}
