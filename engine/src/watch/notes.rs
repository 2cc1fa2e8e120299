//! What workers note in passing, and the watch takes.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Sources of future events that are told apart between two looks; further ones are counted as one.
const SOURCES: usize = 32;
/// The name of those further ones.
const OTHERS: &str = "others";

/// Events refused since they lie in the future, of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Future {
    /// How many.
    pub events: u64,
    /// Where the last one lies, and what it says.
    pub last: String,
}

/// The slowest commit of each group since the last look.
pub type Slowest = BTreeMap<&'static str, Duration>;

/// What workers noted since the last look.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<(Slowest, BTreeMap<String, Future>)>>);

impl Notes {
    /// A commit of a group took this long.
    pub fn committed(&self, group: &'static str, took: Duration) {
        let mut notes = self.0.lock();
        let slowest = notes.0.entry(group).or_default();
        *slowest = took.max(*slowest);
    }

    /// An event was refused since it lies in the future.
    pub fn future(&self, source: &str, last: String) {
        let mut notes = self.0.lock();
        let name = if notes.1.len() < SOURCES || notes.1.contains_key(source) { source } else { OTHERS };
        let noted = notes.1.entry(name.to_owned()).or_default();
        noted.events += 1;
        noted.last = last;
    }

    /// All of it; the notes begin anew.
    pub fn take(&self) -> (Slowest, BTreeMap<String, Future>) {
        std::mem::take(&mut *self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_counts_and_sources_are_bounded() {
        let notes = Notes::default();
        notes.committed("customers", Duration::from_secs(2));
        notes.committed("customers", Duration::from_secs(1));
        (0..100).for_each(|n| notes.future(&format!("till {n}"), n.to_string()));
        let (slowest, future) = notes.take();
        assert_eq!(slowest["customers"], Duration::from_secs(2));
        assert_eq!((future.len(), future[OTHERS].events), (SOURCES + 1, 100 - SOURCES as u64));
        assert!(notes.take().0.is_empty());
    }
}
