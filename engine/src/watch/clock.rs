//! Senders whose clock is wrong: their events lie in the future and are refused.

use super::{SHOWN_FOR, Warning, notes::Future};
use crate::config::FUTURE;
use std::{collections::BTreeMap, time::Instant};

/// Sources that are shown at once.
const SHOWN: usize = 16;

/// Sources of future events, lately.
#[derive(Default)]
pub struct Clocks(BTreeMap<String, (Future, Instant)>);

impl Clocks {
    /// Takes what was refused since the last look, by source.
    pub fn look(&mut self, now: Instant, future: BTreeMap<String, Future>) -> Vec<Warning> {
        self.0.retain(|_, (_, at)| now.saturating_duration_since(*at) < SHOWN_FOR);
        for (source, noted) in future {
            if self.0.len() >= SHOWN && !self.0.contains_key(&source) {
                continue;
            }
            let (known, at) = self.0.entry(source).or_insert_with(|| (Future::default(), now));
            (known.events, known.last, *at) = (known.events + noted.events, noted.last, now);
        }
        self.0.iter().map(|(source, (noted, _))| warning(source, noted)).collect()
    }
}

fn warning(source: &str, noted: &Future) -> Warning {
    Warning {
        kind: "clock",
        place: source.to_owned(),
        what: format!(
            "{} events of {source} lie more than {} minutes in the future and were refused, the last one {}",
            noted.events,
            FUTURE.as_secs() / 60,
            noted.last
        ),
        mend: "set that sender's clock (and this machine's: NTP), then `tillflow dlq retry`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_named_and_its_events_are_counted() {
        let (mut clocks, now) = (Clocks::default(), Instant::now());
        let noted = || BTreeMap::from([("till 3".to_owned(), Future { events: 2, last: "user_events 1/7".into() })]);
        clocks.look(now, noted());
        let found = clocks.look(now, noted());
        assert!(found.len() == 1 && found[0].what.starts_with("4 events of till 3") && found[0].what.ends_with("1/7"), "{found:?}");
        assert_eq!(clocks.look(now + SHOWN_FOR, BTreeMap::new()), []);
        let many = (0..100).map(|n| (format!("till {n}"), Future::default())).collect();
        assert_eq!(clocks.look(now, many).len(), SHOWN);
    }
}
