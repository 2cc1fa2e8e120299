//! Waiting for a condition, with a limit.

use std::time::{Duration, Instant};

/// How often a condition is looked at. Not a wait for anything: only how soon its coming true is seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Returns once `condition` holds.
///
/// # Panics
/// When it doesn't within `limit`, naming `what`.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, limit, || condition().then_some(()));
}

/// Returns what `look` finds, once it finds something.
///
/// # Panics
/// When it doesn't within `limit`, naming `what`.
#[track_caller]
pub fn until_some<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < limit, "still not after {limit:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
