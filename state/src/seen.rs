//! De-duplication: which identities of a key were seen. Those that count for a while only are forgotten by a walk over
//! them, once a day of event time and a few at a time: that is cheaper than a second row for each that says when.

use crate::{Read, Result, Store, key};

/// Identities that count for good.
const FOR_GOOD: [u8; 4] = [0, 0, 0, 4];
/// Identities that count for a while.
const FOR_A_WHILE: [u8; 4] = [0, 0, 0, 5];
const DAY_MS: i64 = 24 * 3_600_000;

/// The row of an identity, which counts for a while or for good.
pub fn row(of: &str, scope: &str, id: &str, for_a_while: bool) -> Vec<u8> {
    let mut row = Vec::with_capacity(16 + of.len() + scope.len() + id.len());
    row.extend_from_slice(if for_a_while { &FOR_A_WHILE } else { &FOR_GOOD });
    key::write_text(of, &mut row);
    key::write_text(scope, &mut row);
    key::write_text(id, &mut row);
    row
}

/// Whether a row is an identity's. Most are new and are asked for once.
pub(crate) fn is_row(row: &[u8]) -> bool {
    row.starts_with(&FOR_GOOD) || row.starts_with(&FOR_A_WHILE)
}

/// Whether the identity of a row was recorded within `within_ms` of `at` (`None`: ever).
///
/// # Errors
/// When the storage fails.
pub fn contains(read: &(impl Read + ?Sized), row: &[u8], at: i64, within_ms: Option<i64>) -> Result<bool> {
    let before = read.get(row)?.as_deref().and_then(time);
    Ok(before.is_some_and(|before| within_ms.is_none_or(|within| at.abs_diff(before) <= within.unsigned_abs())))
}

/// Records the identity of a row at `at`.
pub fn record(store: &mut Store, row: Vec<u8>, at: i64) {
    store.put(row, at.to_be_bytes().to_vec());
}

fn time(value: &[u8]) -> Option<i64> {
    value.try_into().ok().map(i64::from_be_bytes)
}

/// A walk over the identities that count for a while.
pub struct Walk {
    /// Where it goes on; `None` between two walks.
    at: Option<Vec<u8>>,
    /// When the next one begins.
    next: i64,
}

impl Default for Walk {
    fn default() -> Self {
        Self { at: None, next: i64::MIN }
    }
}

impl Walk {
    /// Looks at up to `limit` rows, if a walk is due, and deletes those recorded longer than `within_ms` before the
    /// watermark.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn go_on(&mut self, store: &mut Store, watermark: i64, within_ms: i64, limit: usize) -> Result<()> {
        if watermark < self.next {
            return Ok(());
        }
        let (from, mut seen, mut last, mut over) = (self.at.take().unwrap_or_else(|| FOR_A_WHILE.to_vec()), 0, Vec::new(), Vec::new());
        store.scan(&from, key::after(&FOR_A_WHILE).as_deref(), &mut |row, value| {
            if time(value).is_none_or(|at| at.saturating_add(within_ms) < watermark) {
                over.push(row.to_vec());
            }
            seen += 1;
            if seen == limit {
                last = row.to_vec();
            }
            seen < limit
        })?;
        over.into_iter().for_each(|row| store.delete(row));
        if last.is_empty() {
            self.next = watermark.saturating_add(DAY_MS);
        } else {
            last.push(0);
            self.at = Some(last);
        }
        Ok(())
    }
}

/// The rows of all identities of `of`.
///
/// # Errors
/// When the storage fails.
pub fn rows_of(read: &(impl Read + ?Sized), of: &str) -> Result<Vec<Vec<u8>>> {
    let mut rows = crate::rows_under(read, &FOR_GOOD, of)?;
    rows.extend(crate::rows_under(read, &FOR_A_WHILE, of)?);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    const WEEK: i64 = 7 * DAY_MS;

    fn known(store: &Store, of: &str, scope: &str, id: &str, at: i64, within: Option<i64>) -> bool {
        contains(store, &row(of, scope, id, within.is_some()), at, within).unwrap()
    }

    #[test]
    fn an_identity_is_known_within_its_horizon_and_forgotten_after_it() {
        let mut store = Store::new(Box::new(Memory::default()));
        record(&mut store, row("u", "event", "e1", true), 1000);
        record(&mut store, row("u", "order", "o1", false), 1000);
        assert!(known(&store, "u", "event", "e1", 1000 + WEEK, Some(WEEK)));
        assert!(!known(&store, "u", "event", "e1", 1001 + WEEK, Some(WEEK)));
        assert!(!known(&store, "v", "event", "e1", 1000, Some(WEEK)));
        assert!(known(&store, "u", "order", "o1", i64::MAX, None));

        let mut walk = Walk::default();
        walk.go_on(&mut store, 1000 + WEEK, WEEK, 10).unwrap();
        assert!(known(&store, "u", "event", "e1", 1000, Some(WEEK)), "its time is not over");
        walk.go_on(&mut store, 1001 + WEEK, WEEK, 10).unwrap();
        assert!(known(&store, "u", "event", "e1", 1000, Some(WEEK)), "a walk a day is enough");
        walk.go_on(&mut store, 1000 + WEEK + DAY_MS, WEEK, 10).unwrap();
        assert!(!known(&store, "u", "event", "e1", 1000, Some(WEEK)));
        assert!(known(&store, "u", "order", "o1", 0, None));
    }

    #[test]
    fn a_walk_takes_a_few_at_a_time_and_misses_none_whatever_comes_meanwhile() {
        let mut store = Store::new(Box::new(Memory::default()));
        let id = |n: i64| row(&format!("u{n:03}"), "event", "e", true);
        (0..100).for_each(|n| record(&mut store, id(n), if n % 3 == 0 { WEEK } else { 0 }));
        let mut walk = Walk::default();
        for step in 0..11 {
            walk.go_on(&mut store, WEEK + 1, WEEK, 10).unwrap();
            record(&mut store, id(200 + step), WEEK);
        }
        let left: Vec<i64> = (0..100).filter(|n| store.get(&id(*n)).unwrap().is_some()).collect();
        assert_eq!(left, (0..100).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    }

    #[test]
    fn the_rows_of_one_key_are_all_found_and_no_others() {
        let mut store = Store::new(Box::new(Memory::default()));
        record(&mut store, row("u", "event", "e1", true), 1000);
        record(&mut store, row("u2", "event", "e1", true), 1000);
        record(&mut store, row("u", "order", "o1", false), 1000);
        let rows = rows_of(&store, "u").unwrap();
        assert_eq!(rows.len(), 2);
        rows.into_iter().for_each(|row| store.delete(row));
        assert_eq!(rows_of(&store, "u").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(rows_of(&store, "u2").unwrap().len(), 1);
    }
}
