//! Commits that come near the time after which the brokers abort them.

use super::{SHOWN_FOR, Warning, notes::Slowest};
use crate::config::COMMIT_TIMEOUT;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Commits that were slow lately.
#[derive(Default)]
pub struct Commits(BTreeMap<&'static str, (Duration, Instant)>);

impl Commits {
    /// Takes the slowest of each group since the last look.
    pub fn look(&mut self, now: Instant, slowest: Slowest) -> Vec<Warning> {
        self.0.retain(|_, (_, at)| now.saturating_duration_since(*at) < SHOWN_FOR);
        for (group, took) in slowest {
            if took > COMMIT_TIMEOUT / 2 {
                self.0.insert(group, (took, now));
            }
        }
        self.0.iter().map(|(group, (took, _))| warning(group, *took)).collect()
    }
}

fn warning(group: &str, took: Duration) -> Warning {
    Warning {
        kind: "slow_commit",
        place: group.to_owned(),
        what: format!(
            "a commit of {group} took {:.1} s; at {} s it is aborted and done again",
            took.as_secs_f64(),
            COMMIT_TIMEOUT.as_secs()
        ),
        mend: "look at the brokers' load and the network to them, or (embedded log) at the disk; smaller commits help: lower \
               commit.interval_ms or memory.uncommitted_mb"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_slower_than_half_its_time_is_shown_for_a_while() {
        let (mut commits, now) = (Commits::default(), Instant::now());
        assert_eq!(commits.look(now, Slowest::from([("customers", COMMIT_TIMEOUT / 2)])), []);
        let found = commits.look(now, Slowest::from([("customers", COMMIT_TIMEOUT.mul_f64(0.6)), ("products", Duration::ZERO)]));
        assert!(found.len() == 1 && found[0].what.contains("customers took 6.0 s; at 10 s"), "{found:?}");
        assert_eq!(commits.look(now + SHOWN_FOR / 2, Slowest::new()).len(), 1);
        assert_eq!(commits.look(now + SHOWN_FOR, Slowest::new()), []);
    }
}
