//! The wall clock, given at start: the demo's runs faster than time, the simulation's stands until it is moved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
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
    /// Stands until it is moved.
    Manual(Arc<ManualClock>),
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
            Self::Manual(clock) => Timestamp::from_millis(clock.shown_ms.load(Ordering::Relaxed)),
        }
    }

    /// For measuring how long something takes; never goes back.
    pub fn instant(&self) -> Instant {
        match self {
            Self::Real | Self::Scaled { .. } => Instant::now(),
            Self::Manual(clock) => clock.started + clock.elapsed(),
        }
    }

    /// How long ago `earlier` was.
    pub fn elapsed(&self, earlier: Instant) -> Duration {
        self.instant().saturating_duration_since(earlier)
    }

    /// Waits.
    pub fn sleep(&self, duration: Duration) {
        match self {
            Self::Real | Self::Scaled { .. } => std::thread::sleep(duration),
            Self::Manual(clock) => clock.advance(duration),
        }
    }
}

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    elapsed_us: AtomicU64,
    shown_ms: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `from`.
    pub fn new(from: Timestamp) -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), elapsed_us: AtomicU64::new(0), shown_ms: AtomicI64::new(from.millis()) })
    }

    /// Time that has passed since it was made.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_us.load(Ordering::Relaxed))
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let before = self.elapsed_us.fetch_add(duration.as_micros() as u64, Ordering::Relaxed) / 1_000;
        let after = self.elapsed_us.load(Ordering::Relaxed) / 1_000;
        self.shown_ms.fetch_add((after - before) as i64, Ordering::Relaxed);
    }

    /// Sets what it shows forward or back, as an operator or a time server does; no time passes.
    pub fn jump(&self, by_ms: i64) {
        self.shown_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}
