//! The next timers of a task in memory, so that the store is searched once for many of them.

use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use tillflow_state::{Result, Store, timers, timers::TimerRow};

/// Timers fetched at once; few in tests, which so come to the edges.
const FETCH: usize = if cfg!(test) { 3 } else { 256 };
/// Timers kept at most.
const KEEP: usize = if cfg!(test) { 8 } else { 4_096 };
/// Keys at most of which it is kept when their first timer fires.
const KEYS: usize = 16_384;

/// A prefix of the store's timers, in order. A row may be stale, since its timer was cancelled or moved: the store says.
pub struct Upcoming {
    rows: VecDeque<TimerRow>,
    /// No timer fires before.
    from: i64,
    /// All timers that fire before are among the rows.
    horizon: i64,
    /// By key, before when none of the rows fires.
    first: FxHashMap<Box<str>, i64>,
    /// No timer of the key fires before: events of a key that comes again and again search the store once.
    of_key: FxHashMap<Box<str>, i64>,
}

impl Default for Upcoming {
    fn default() -> Self {
        Self { rows: VecDeque::new(), from: i64::MIN, horizon: i64::MIN, first: FxHashMap::default(), of_key: FxHashMap::default() }
    }
}

impl Upcoming {
    /// A timer was set.
    pub fn set(&mut self, row: &TimerRow) {
        self.from = self.from.min(row.fire_at);
        if let Some(from) = self.of_key.get_mut(row.key.as_str()) {
            *from = row.fire_at.min(*from);
        }
        // One beyond is found when the known ones have fired.
        if row.fire_at < self.horizon || self.rows.back().is_some_and(|last| row < last) {
            self.note(std::slice::from_ref(row));
            let place = self.rows.partition_point(|r| r < row);
            self.rows.insert(place, row.clone());
            if self.rows.len() > KEEP {
                self.horizon = self.rows.pop_back().map_or(self.horizon, |last| last.fire_at);
            }
        }
    }

    /// Whether a timer could be due by `at`; false is certain.
    pub fn is_due(&self, at: i64) -> bool {
        self.from <= at
    }

    /// Whether a timer of `key` could be due by `at`; false is certain. Timers ahead are fetched many at a time, so that
    /// the store is not searched for each key that has none.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn may_be_due(&mut self, key: &str, at: i64, store: &Store) -> Result<bool> {
        if self.from > at || self.of_key.get(key).is_some_and(|from| *from > at) {
            return Ok(false);
        }
        while self.horizon <= at && self.rows.len() + FETCH <= KEEP {
            let more = match self.rows.back() {
                Some(last) => timers::after(store, last, FETCH)?,
                None => timers::next(store, self.from, FETCH)?,
            };
            self.append(more);
        }
        Ok(self.horizon <= at || self.first.get(key).is_some_and(|from| *from <= at))
    }

    /// The store was searched: the first timer of `key` is this one.
    pub fn know(&mut self, key: &str, first: Option<&TimerRow>) {
        if self.of_key.len() >= KEYS {
            self.of_key.clear();
        }
        self.of_key.insert(key.into(), first.map_or(i64::MAX, |t| t.fire_at));
    }

    /// Takes the first timer that is due by `until`.
    pub fn next(&mut self, until: i64, store: &Store) -> Result<Option<TimerRow>> {
        let mut stale: Option<TimerRow> = None;
        while self.from <= until {
            if self.rows.is_empty() && self.horizon <= until {
                // A damaged store may have a row by time alone: it is passed over, not looked at for ever.
                let more = match &stale {
                    Some(row) => timers::after(store, row, FETCH)?,
                    None => timers::next(store, self.from, FETCH)?,
                };
                self.append(more);
            }
            self.from = self.rows.front().map_or(self.horizon, |first| first.fire_at);
            let Some(row) = self.rows.pop_front_if(|first| first.fire_at <= until) else { continue };
            if timers::get(store, &row)? == Some(row.fire_at) {
                return Ok(Some(row));
            }
            stale = Some(row);
        }
        Ok(None)
    }

    /// Takes the store's next [`FETCH`] timers after the known ones, or all that are left.
    fn append(&mut self, more: Vec<TimerRow>) {
        self.horizon = more.last().filter(|_| more.len() == FETCH).map_or(i64::MAX, |last| last.fire_at);
        self.note(&more);
        self.rows.extend(more);
    }

    fn note(&mut self, more: &[TimerRow]) {
        if self.first.len() + more.len() > 2 * KEEP {
            self.first.clear();
            let Self { rows, first, .. } = self;
            rows.iter().for_each(|row| lower(first, row));
        }
        more.iter().for_each(|row| lower(&mut self.first, row));
    }
}

fn lower(first: &mut FxHashMap<Box<str>, i64>, row: &TimerRow) {
    match first.get_mut(row.key.as_str()) {
        Some(from) => *from = row.fire_at.min(*from),
        None => drop(first.insert(row.key.as_str().into(), row.fire_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillflow_state::Memory;

    proptest! {
        /// Timers set, moved and cancelled between steps of the clock fire as they do when the store is searched each time.
        #[test]
        fn timers_fire_as_if_the_store_were_searched_for_each(
            steps in prop::collection::vec((0..4_u8, 0..300_i64, 0..120_u8), 1..400)
        ) {
            let mut store = Store::new(Box::new(Memory::default()));
            let mut upcoming = Upcoming::default();
            let mut clock = 0;
            for (what, time, key) in steps {
                let row = TimerRow { fire_at: clock + time, key: key.to_string(), kind: 1, detail: String::new() };
                match what {
                    0 | 1 => {
                        timers::set(&mut store, &row).unwrap();
                        upcoming.set(&row);
                    }
                    2 => timers::cancel(&mut store, &row).unwrap(),
                    3 if time % 2 == 0 => upcoming.know(&row.key, timers::first_of(&store, &row.key).unwrap().as_ref()),
                    _ => {
                        clock += time / 4;
                        loop {
                            let expected = timers::next(&store, i64::MIN, 1).unwrap().into_iter().find(|t| t.fire_at <= clock);
                            if let Some(t) = &expected {
                                prop_assert!(upcoming.may_be_due(&t.key, clock, &store).unwrap());
                            }
                            let found = upcoming.next(clock, &store).unwrap();
                            prop_assert_eq!(&found, &expected);
                            let Some(row) = found else { break };
                            timers::cancel(&mut store, &row).unwrap();
                        }
                    }
                }
            }
        }
    }
}
