//! What gateway and connectors see of a running engine: append, query, tail, readiness. Both logs offer the same.

use crate::{
    log::{NewRecord, Record, TopicPartition},
    watch::Warning,
};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tillflow_schemas::{Catalog, Timestamp, Trace};
use tokio::sync::{broadcast, oneshot};

/// A record to be appended to a topic, by the schema of its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// Which topic, such as `user_event`.
    pub schema: &'static str,
    /// The key; the partition follows from it.
    pub key: Option<String>,
    /// What the partition follows from where there is no key.
    pub placed_by: Option<String>,
    /// The value as JSON, which is written as the topic states; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
}

/// A committed record of an output topic, as subscribers get it.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Topic name without prefix.
    pub topic: String,
    /// Schema of its value.
    pub schema: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// When the decision was made (event time) or, on a log that stamps records itself, logged.
    pub at: Timestamp,
    /// The key.
    pub key: String,
    /// The value as JSON; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Why a request to the engine failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// The log does not take records now: try again later.
    #[error("the log can't take records now: {0}")]
    Unavailable(String),
    /// As much is being read as may be at once: try again later.
    #[error("too many queries run at once; try again shortly")]
    Busy,
    /// The task that owns the key is being restored or moved: try again later.
    #[error("the state for this key is being restored; try again shortly")]
    Restoring,
    /// Another instance owns the key.
    #[error("the state for this key is at {0}")]
    Elsewhere(String),
    /// Another instance owns the key, and does not say where it can be asked.
    #[error("the state for this key is at the instance {0}, which states no address: configure `advertised` there")]
    Unreachable(String),
    /// No processor answers a query of this name.
    #[error("nothing answers {0}")]
    NoSuchQuery(String),
    /// The record is refused by the log.
    #[error("refused: {0}")]
    Refused(String),
    /// The query failed.
    #[error("{0}")]
    Failed(String),
}

/// One task, as seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskStatus {
    /// Its group.
    pub group: String,
    /// Its partition.
    pub partition: u32,
    /// `restoring`, `running` or `paused`.
    pub state: String,
    /// Records of the inputs not processed yet.
    pub lag: i64,
    /// The event clock.
    pub clock: Option<Timestamp>,
    /// Records restored and to restore, while restoring.
    pub restored: Option<(u64, u64)>,
}

/// Records of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSlice {
    /// The first offset there is.
    pub begin: i64,
    /// The next offset to be written.
    pub end: i64,
    /// The records, in the order of their offsets.
    pub records: Vec<Record>,
}

/// Whether the instance can serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readiness {
    /// All its tasks are restored and its workers run.
    pub ready: bool,
    /// Why not, in words; empty when ready.
    pub reason: String,
    /// Its tasks.
    pub tasks: Vec<TaskStatus>,
    /// What a person should look at; none of it keeps the instance from serving.
    pub warnings: Vec<Warning>,
}

/// What gateway and connectors see of a running engine.
pub trait Port: Send + Sync {
    /// Appends records in order; the answer comes once the log has them all, and then they survive a crash.
    fn append(&self, records: Vec<Append>) -> oneshot::Receiver<Result<(), PortError>>;

    /// Answers a query by name (`loyalty`, `price/history`, …) about a key of a group (`customers`, `products`) from
    /// committed state. Blocks for a read of the store. `Ok(None)` is "no such thing".
    ///
    /// # Errors
    /// When the key's task can't answer now, or nothing answers that query.
    fn query(&self, group: &str, name: &str, key: &str, rest: &str) -> Result<Option<Value>, PortError>;

    /// The names of the queries that a group answers.
    fn queries(&self, group: &str) -> Vec<&'static str>;

    /// The committed rows of a task of this instance with keys from `from` up to `to`, until told to stop. Blocks.
    ///
    /// # Errors
    /// When the task is not here, or its state can't be read now.
    fn rows(
        &self,
        group: &str,
        partition: u32,
        _from: &[u8],
        _to: Option<&[u8]>,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), PortError> {
        Err(PortError::Failed(format!("rows of {group} {partition} can't be looked at here")))
    }

    /// Has a task of this instance process nothing until it is told to go on, is opened anew, or the process ends.
    ///
    /// # Errors
    /// When the task is not here.
    fn pause(&self, group: &str, partition: u32, _paused: bool) -> Result<(), PortError> {
        Err(PortError::Refused(format!("{group} {partition} can't be paused here")))
    }

    /// Committed records of a partition from an offset on, as they are. Blocks. Only where no other process can open the
    /// log: a cluster's is read there.
    ///
    /// # Errors
    /// When the log can't be read here.
    fn read_log(&self, _at: TopicPartition, _from: i64, _limit: usize) -> Result<LogSlice, PortError> {
        Err(PortError::Refused("the log is not in this process; read it from the cluster".into()))
    }

    /// Appends records as they are, all of them or none; the answer comes once the log has them.
    fn append_raw(&self, _records: Vec<NewRecord>) -> oneshot::Receiver<Result<(), PortError>> {
        let (answer, receiver) = oneshot::channel();
        let _ = answer.send(Err(PortError::Refused("the log is not in this process; write to the cluster".into())));
        receiver
    }

    /// All committed records of output topics from now on, in log order a partition. A receiver that falls behind
    /// loses the oldest and is told so.
    fn subscribe(&self) -> broadcast::Receiver<Arc<Committed>>;

    /// The list of topics.
    fn catalog(&self) -> &Catalog;

    /// Whether the instance can serve.
    fn readiness(&self) -> Readiness;

    /// The metrics of this instance.
    fn metrics(&self) -> &prometheus::Registry;
}

/// A shared [`Port`].
pub type Shop = Arc<dyn Port>;
