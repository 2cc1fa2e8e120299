//! How the engine runs.

use crate::{owners::Claimant, wall::Wall};
use std::time::Duration;

/// How the engine runs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How far the watermark stays behind the event clock.
    pub grace: Duration,
    /// Whether an idle task's clock goes on with the wall.
    pub idle_clock: bool,
    /// Whether events that lie too far in the future are refused; not so in a replay.
    pub check_future: bool,
    /// The wall clock.
    pub wall: Wall,
    /// How long an empty input is waited for that has records which may be earlier; `None`: however long it takes.
    pub wait_for_input: Option<Duration>,
    /// Commits under load are at most this far apart.
    pub commit_interval: Duration,
    /// Commits come sooner when this many bytes wait.
    pub commit_bytes: usize,
    /// Records that wait to be processed, a task's input; delivery is held back above it.
    pub queue_records: usize,
    /// The groups that run here, by name; none: all. The others run elsewhere, and are told and listened to all the same.
    pub groups: Vec<String>,
    /// Workers a group.
    pub workers: u32,
    /// How often the embedded log is looked through for what may go: by retention, and by compaction; `None`: never.
    pub upkeep: Option<Duration>,
    /// Whether membership is given up when the engine stops; otherwise it is kept for the next start of this instance.
    pub leave: bool,
    /// As whom it states which tasks it owns; `None` where there are no other instances.
    pub claimant: Option<Claimant>,
}

impl EngineConfig {
    /// Whether a task group runs here.
    pub fn runs(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|name| name == group)
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            idle_clock: true,
            check_future: true,
            wall: Wall::Real,
            wait_for_input: Some(Duration::from_secs(10)),
            commit_interval: Duration::from_millis(100),
            commit_bytes: 32 << 20,
            queue_records: 4_000,
            groups: Vec::new(),
            workers: 1,
            upkeep: None,
            leave: false,
            claimant: None,
        }
    }
}

/// An event may lie this far beyond the wall clock.
pub const FUTURE: Duration = Duration::from_secs(300);
/// A transaction that takes longer is aborted by the brokers.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A task is live when its clock is at most this far behind the wall.
pub const LIVE: Duration = Duration::from_secs(300);
