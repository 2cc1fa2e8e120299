//! The wall clock, given at start: the demo's runs faster than time.

use std::time::Instant;
use tillflow_schemas::Timestamp;

/// The wall clock.
#[derive(Clone, Debug)]
pub enum Wall {
    /// The machine's.
    Real,
    /// Starts at a moment and runs at a multiple of real time.
    Scaled {
        /// When it was started.
        started: Instant,
        /// What it showed then.
        from: Timestamp,
        /// Seconds it shows a real second.
        speed: u32,
    },
}

impl Wall {
    /// A wall clock that shows `from` now and runs `speed` times as fast as time.
    pub fn scaled(from: Timestamp, speed: u32) -> Self {
        Self::Scaled { started: Instant::now(), from, speed }
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Real => Timestamp::wall(),
            Self::Scaled { started, from, speed } => from.plus(started.elapsed().saturating_mul(*speed)),
        }
    }
}
