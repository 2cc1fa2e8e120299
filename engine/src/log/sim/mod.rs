//! A log that exists only in memory and fails as it is told: the broker, the group, the transactions, the disks and the
//! time of a simulated cluster, all decided by one seed.
//!
//! It models what `log::kafka` makes of Apache Kafka, step by step, so that the real worker, tasks and restore run on
//! it. Everything that waits lets everything else go on meanwhile ([`Others`]), on one thread.

mod commit;
mod dice;
mod disk;
mod group;
mod log;
mod opening;
mod partition;
mod planted;
mod reader;
mod steps;
mod transactions;
mod world;

pub use dice::Dice;
pub use disk::Disk;
pub use log::{SimLog, Start as JoinAs};
pub use partition::Data;
pub use planted::Defect;
pub use reader::SimReader;
pub use world::{Faults, ProcessId, Sim, World};

use std::time::Duration;

/// Everything that goes on while one call waits.
pub trait Others {
    /// Lets all others go on for so long.
    fn run_for(&self, duration: Duration);
}
