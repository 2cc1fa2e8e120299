//! Internal topics: how the two groups speak to each other. Free to change between versions that drain first.

use crate::{ProductId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Demand for one product in one 15-minute bucket, counted by one customers task within one commit.
/// A refund or cancellation takes back: counts may be negative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one counter an event kind")]
pub struct DemandSignal {
    pub product_id: ProductId,
    /// Start of the bucket.
    pub bucket: Timestamp,
    #[serde(default)]
    pub views: i64,
    #[serde(default)]
    pub long_views: i64,
    #[serde(default)]
    pub adds: i64,
    #[serde(default)]
    pub checkouts: i64,
    #[serde(default)]
    pub orders: i64,
    /// Pieces sold.
    #[serde(default)]
    pub units: i64,
}

/// Pairs of products seen together, from the first's view, counted by one customers task within one commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ItemPairs {
    /// The product whose neighbours these are.
    pub product_id: ProductId,
    /// The customers partition that saw them: a random sample of all sessions.
    pub source: u32,
    /// Its other products.
    pub pairs: Vec<ItemPair>,
}

/// One neighbour within [`ItemPairs`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ItemPair {
    /// The other product.
    pub other: ProductId,
    /// Start of the event-time bucket in which they were seen.
    pub bucket: Timestamp,
    /// Weight, in the processor's fixed-point unit.
    pub weight: u64,
    /// Times seen together.
    pub count: u64,
    /// When they were last seen together.
    pub at: Timestamp,
    /// Weight of the other product in its source's sample at `at`: the background it must stand out from.
    pub other_total: u64,
    /// Weight of all products in the source's sample at `at`.
    pub sample_total: u64,
}

/// A request to the owner of a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProductCommand {
    /// Whose owner is asked.
    pub product_id: ProductId,
    /// Identifies the request: answered once.
    pub request_id: String,
    /// Event time.
    pub at: Timestamp,
    /// What is asked, such as `reserve`.
    pub action: String,
    /// Whom to answer.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The request's own fields.
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// A message to the task that owns a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomerSignal {
    /// Whose owner is told.
    pub user_id: UserId,
    /// Identifies the message: heard once.
    pub signal_id: String,
    /// Event time.
    pub at: Timestamp,
    /// What is said, such as `reserved`, `refused` or `joined`.
    pub kind: String,
    /// The message's own fields.
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// A fact for the one owner of what concerns the whole shop: limits, budgets, referrals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShopFact {
    /// What it is about; the key.
    pub scope: String,
    /// Identifies the fact: counted once.
    pub fact_id: String,
    /// Event time.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// The fact's own fields.
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// What the customers tasks need to know of a product "now": latest known, never a version of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the outputs")]
pub struct ProductStatus {
    pub product_id: ProductId,
    pub stock_level: Option<i64>,
    pub price: Option<crate::Money>,
    pub at: Timestamp,
}

/// Sets the event clock of every task forward: the end of an input, or `tillflow clock advance`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockMark {
    /// The new time.
    pub at: Timestamp,
}

/// Bytes from one group's processors to another's, in a form of their own: where a record an event is too many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// Places it; see [`Parcel::key_of`].
    pub key: String,
    /// What only its sender and its receiver can read.
    pub body: Vec<u8>,
}

impl Parcel {
    /// A key that lies in `partition` of `partitions`: a parcel may be for all keys of a task.
    pub fn key_of(partition: u32, partitions: u32) -> String {
        let lies_there = |key: &String| crate::partition::partition(key.as_bytes(), partitions) == partition;
        (0_u32..).map(|n| n.to_string()).find(lies_there).unwrap_or_default()
    }
}

/// A dead letter's fate, decided by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterStatus {
    /// `topic/partition/offset` of the record that failed.
    pub id: String,
    /// `retried` or `dropped`.
    pub status: String,
    /// When.
    pub at: Timestamp,
}

/// Which instance owns a task, and so answers for its keys: written in the first transaction after it took the task over.
/// Or which life of an instance has its place in a group: written before it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOwner {
    /// `group/partition`; of a place `group@instance`.
    pub task: String,
    /// The instance's name.
    pub instance: String,
    /// Where other instances ask it, as a URL; `None` where it is not configured.
    #[serde(default)]
    pub address: Option<String>,
    /// Tells a process from others that were given the same name.
    #[serde(default)]
    pub life: Option<String>,
}
