//! Apache Kafka as the log: classic group protocol with static ids, one transactional producer a worker.
//!
//! What is known of librdkafka here, each read in its source or measured: control records move a consumer's position;
//! a rebalance may be answered after the poll that brought it, with an empty list at first; `ListOffsets` of a
//! read-committed consumer gives the last stable offset.

mod append;
mod brokers;
mod client;
mod context;
mod drained;
mod member;
mod purge;
mod queues;
mod reader;
mod reports;
mod settle;
mod stores;
mod topic_id;
mod topics;
mod transaction;
mod watch;
mod worker;

pub use append::{KafkaAppender, write_now};
pub use brokers::unfit;
pub(crate) use client::taken_over;
pub use client::{Kafka, KafkaSettings, ask};
pub use drained::drained;
pub use purge::Purging;
pub use reader::KafkaReader;
pub use stores::{Stores, TOMBSTONES_STAY};
pub use topics::{Difference, Plan, UNREPLICATED, apply, check, plan};
pub use worker::KafkaLog;
