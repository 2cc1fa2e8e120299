//! What runs the processors: logs, tasks, transactions, restore, time, dead letters, metrics.

mod append;
pub mod config;
mod engine;
mod globals;
pub mod log;
pub mod metrics;
pub mod owners;
pub mod port;
pub mod stages;
pub mod status;
mod tail;
mod wall;
pub mod watch;
pub mod wiring;
pub mod worker;

pub use config::EngineConfig;
pub use engine::{Engine, StartError};
pub use globals::{Following, SharedGlobals};
pub use owners::Claimant;
pub use wall::{ManualClock, Wall};
pub use wiring::WiringError;
