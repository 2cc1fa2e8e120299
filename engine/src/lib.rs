//! What runs the processors: logs, tasks, transactions, restore, time, dead letters, metrics.

pub mod config;
pub mod log;
pub mod metrics;
pub mod port;
pub mod wall;
