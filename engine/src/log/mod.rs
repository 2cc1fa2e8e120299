//! The log that the engine runs on. Three implementations: Kafka, an embedded one, and one for simulation.

pub mod embedded;
pub mod kafka;
#[cfg(feature = "simulation")]
pub mod sim;
mod tenure;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;
use tillflow_state::{Snapshots, StateError, Store};

/// One partition of one topic; the topic is its place in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Place in the catalogue.
    pub topic: usize,
    /// Partition.
    pub partition: u32,
}

/// Headers of a record.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A committed record, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it lies.
    pub at: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// The log's own timestamp: event time where the log keeps the writer's, append time on Kafka.
    pub logged_at: Timestamp,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Headers,
}

impl Record {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    /// Where to.
    pub to: TopicPartition,
    /// Event time.
    pub at: Timestamp,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Headers,
}

/// What one task adds to a transaction.
pub struct TaskCommit<'a> {
    /// The task's partition.
    pub partition: u32,
    /// Positions of inputs: the next offset to be processed. At first of all, then of those that went on; never empty, since the
    /// offsets are what fences a replaced worker.
    pub offsets: Vec<(TopicPartition, i64)>,
    /// Its changed rows, last write a key.
    pub rows: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// One transaction of a worker.
pub struct Transaction<'a> {
    /// What its tasks emitted, in order.
    pub records: Vec<NewRecord>,
    /// Its tasks' positions and changed rows.
    pub tasks: Vec<TaskCommit<'a>>,
}

/// Changelog positions after a commit, by partition; empty where the log applied the rows itself.
pub type Positions = BTreeMap<u32, i64>;

/// Why a transaction did not go through.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It was aborted: nothing of it is visible. Positions go back to those committed.
    #[error("aborted: {0}")]
    Aborted(String),
    /// Nobody knows: it may have gone through or not. The log has been asked to decide it; the tasks restore.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Another worker took this one's place.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The log refuses for good: rights are missing.
    #[error("refused: {0}")]
    Denied(String),
    /// The log applied nothing since the disk failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why the log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// For now: try again.
    #[error("{0}")]
    Unavailable(String),
    /// Another process took this instance's place.
    #[error("{0}")]
    Fenced(String),
    /// For good: configuration or permissions are wrong.
    #[error("{0}")]
    Fatal(String),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a poll brought.
#[derive(Debug, Default)]
pub struct Polled {
    /// Records of the started inputs, in offset order a partition.
    pub records: Vec<Record>,
    /// What happened to the worker's membership, in order.
    pub changes: Vec<Membership>,
}

/// A change of what a worker owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// These partitions are its own from now on.
    Assigned(Vec<u32>),
    /// These are asked back: commit, then [`Log::release`] them.
    Revoked(Vec<u32>),
    /// These are already another's: drop what is uncommitted, then release them.
    Lost(Vec<u32>),
}

/// A worker's way to the log: one group member with one transactional writer.
pub trait Log {
    /// Waits up to `timeout` for records of started inputs or a change of membership.
    ///
    /// # Errors
    /// When the log fails.
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError>;

    /// Opens the store of a task.
    ///
    /// # Errors
    /// When the store can't be opened.
    fn open(&mut self, partition: u32) -> Result<Opened, LogError>;

    /// Decides transactions that a former owner of a task's inputs may have left open; false while that takes longer, and
    /// is to be asked again. Where to go on is said by the store, once it is restored: offsets that a group keeps may
    /// expire.
    ///
    /// # Errors
    /// When the log fails.
    fn settle(&mut self, partition: u32, inputs: &[TopicPartition]) -> Result<bool, LogError>;

    /// Begins to deliver an input from an offset; started again, it moves there. Whether it was held back before is forgotten.
    ///
    /// # Errors
    /// When the log fails.
    fn start(&mut self, inputs: &[(TopicPartition, Option<i64>)]) -> Result<(), LogError>;

    /// Holds delivery of an input back, or lets it go on.
    ///
    /// # Errors
    /// When the log fails.
    fn pause(&mut self, input: TopicPartition, paused: bool) -> Result<(), LogError>;

    /// Whether committed records lie at or beyond `position`, as far as the log knows now.
    fn has_more(&self, input: TopicPartition, position: i64) -> bool;

    /// When the log last learned what [`Log::has_more`] tells; `None` where it always knows.
    fn learned(&self) -> Option<Instant> {
        None
    }

    /// Committed records from `position` on, as far as the log knows now.
    fn lag(&self, input: TopicPartition, position: i64) -> i64;

    /// The next offset to be delivered of an input: it moves past control records and compaction's gaps too.
    fn reached(&self, input: TopicPartition) -> i64;

    /// Gives partitions up, after a revocation.
    ///
    /// # Errors
    /// When the log fails.
    fn release(&mut self, partitions: &[u32]) -> Result<(), LogError>;

    /// For how long the next transaction is better left alone; what comes in meanwhile belongs to it. Zero where one may follow
    /// the last at once.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Writes a transaction: all of it or nothing.
    ///
    /// # Errors
    /// Says what is known of the outcome.
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Positions, CommitError>;

    /// Reads changelogs; `None` where the log keeps state itself.
    fn changelog(&mut self) -> Option<&mut dyn Reader>;

    /// Deletes records of an internal topic below an offset: they were consumed.
    fn purge(&mut self, before: &[(TopicPartition, i64)]);

    /// Ends membership: for good (`leave`), or to be taken up again by the next start of this instance.
    fn close(&mut self, leave: bool);
}

/// The opened store of a task.
pub struct Opened {
    /// For its one writer, the task.
    pub store: Store,
    /// For queries.
    pub snapshots: Arc<dyn Snapshots>,
    /// Where it stands in its changelog; `None` where the log keeps state itself.
    pub changelog: Option<ChangelogPosition>,
}

/// Where a store stands in its changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangelogPosition {
    /// The changelog's partition.
    pub at: TopicPartition,
    /// All records before this offset are in the store; 0 where it is empty.
    pub offset: i64,
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first record there is.
    Earliest,
    /// With the first record to come.
    Latest,
    /// With the first record at or after this offset.
    Offset(i64),
}

/// Reads committed records outside any group.
pub trait Reader: Send {
    /// Reads these partitions from now on, and no others.
    ///
    /// # Errors
    /// When the log fails.
    fn assign(&mut self, from: &[(TopicPartition, Start)]) -> Result<(), LogError>;

    /// Waits up to `timeout` for records.
    ///
    /// # Errors
    /// When the log fails.
    fn poll(&mut self, timeout: Duration) -> Result<Vec<Record>, LogError>;

    /// The next offset to be read; it moves past control records and compaction's gaps too.
    fn position(&self, at: TopicPartition) -> Option<i64>;

    /// The first offset there is.
    ///
    /// # Errors
    /// When the log fails.
    fn begin(&mut self, at: TopicPartition) -> Result<i64, LogError>;

    /// The last stable offset: all transactions before it are decided.
    ///
    /// # Errors
    /// When the log fails.
    fn end(&mut self, at: TopicPartition) -> Result<i64, LogError>;

    /// As [`Reader::end`], of several: asked together where that is one request.
    ///
    /// # Errors
    /// When the log fails.
    fn ends(&mut self, of: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        of.iter().map(|at| Ok((*at, self.end(*at)?))).collect()
    }
}
