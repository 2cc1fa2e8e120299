//! What runs the processors: logs, tasks, transactions, restore, time, dead letters, metrics.

pub mod port;
