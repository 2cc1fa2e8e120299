//! What scenarios over the whole system stand on: a real Kafka, a real Redis, an SMTP server that remembers, a
//! browser, a TCP proxy that loses what it is told to, and the `tillflow` binary itself as a process that can be
//! killed, stopped and continued.
//!
//! ```no_run
//! use tillflow_tests::{Kafka, Redis, Tillflow};
//!
//! let kafka = Kafka::shared();
//! let redis = Redis::start();
//! let shop = Tillflow::run()
//!     .set("brokers", kafka.bootstrap())
//!     .set("topics.prefix", kafka.prefix())
//!     .set("redis.url", redis.url())
//!     .spawn();
//! shop.post("/v1/events", serde_json::json!({ "event_type": "product_viewed", "user_id": "u1", "product_id": "p1" }));
//! ```
//!
//! Nothing here outlives the test process: a child is killed when its handle is dropped, and by the kernel when the
//! test process dies. Nothing sleeps for a fixed time: [`until`] looks again until a condition holds.

mod binary;
mod browser;
pub mod cluster;
pub mod compare;
mod invariants;
mod kafka;
pub mod model;
pub mod orders;
mod ports;
mod process;
mod proxy;
mod records;
mod redis;
mod scratch;
pub mod simulation;
mod smtp;
mod story;
mod wait;
pub mod workload;

pub use binary::{Finished, Run, Tillflow, can_have_disks};
pub use browser::{Browser, Page};
pub use kafka::{Kafka, KafkaSetup, Place};
pub use ports::free_port;
pub use process::{Exit, Process};
pub use proxy::{Api, Fault, Proxy};
pub use records::Record;
pub use redis::Redis;
pub use scratch::{Scratch, scratch, unique};
pub use smtp::{Mail, Smtp, SmtpReply};
pub use story::{Decided, Story, with};
pub use wait::{until, until_some};
