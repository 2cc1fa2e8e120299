//! De-duplication: which identities of a key were seen, and rows that expire by event time.

use crate::{Key, Read, Result, Store, key};

const SEEN: [u8; 4] = [0, 0, 0, 4];
const EXPIRES: [u8; 4] = [0, 0, 0, 5];
const HOUR_MS: i64 = 3_600_000;

fn row(of: &str, scope: &str, id: &str) -> Vec<u8> {
    let mut row = SEEN.to_vec();
    key::write_text(of, &mut row);
    key::write_text(scope, &mut row);
    key::write_text(id, &mut row);
    row
}

/// Whether `id` was recorded for `of` within `within_ms` of `at` (`None`: ever).
///
/// # Errors
/// When the storage fails.
pub fn contains(read: &(impl Read + ?Sized), of: &str, scope: &str, id: &str, at: i64, within_ms: Option<i64>) -> Result<bool> {
    let before = read.get(&row(of, scope, id))?.as_deref().and_then(|v| v.try_into().ok()).map(i64::from_be_bytes);
    Ok(before.is_some_and(|before| within_ms.is_none_or(|within| at.abs_diff(before) <= within.unsigned_abs())))
}

/// Records `id` of `of` at `at`, to be forgotten `within_ms` later.
pub fn record(store: &mut Store, of: &str, scope: &str, id: &str, at: i64, within_ms: Option<i64>) {
    let row = row(of, scope, id);
    if let Some(within) = within_ms {
        expire(store, &row, at.saturating_add(within));
    }
    store.put(row, at.to_be_bytes().to_vec());
}

/// Has `row` deleted once the watermark has passed `at`, by hour; [`sweep`] does it.
fn expire(store: &mut Store, row: &[u8], at: i64) {
    let mut index = EXPIRES.to_vec();
    hour_after(at).write(&mut index);
    index.extend_from_slice(row);
    store.put(index, Vec::new());
}

fn hour_after(at: i64) -> i64 {
    at.div_euclid(HOUR_MS).saturating_add(1).saturating_mul(HOUR_MS)
}

/// Deletes up to `limit` rows whose hour the watermark has passed; returns how many were looked at.
/// `within_ms` is the horizon of the rows: one recorded again meanwhile stays.
///
/// # Errors
/// When the storage fails.
pub fn sweep(store: &mut Store, watermark: i64, within_ms: i64, limit: usize) -> Result<usize> {
    let mut to = EXPIRES.to_vec();
    watermark.saturating_add(1).write(&mut to);
    let mut due = Vec::new();
    store.scan(&EXPIRES, Some(&to), &mut |row, _| {
        due.push(row.to_vec());
        due.len() < limit
    })?;
    for index in &due {
        if let Some(row) = index.get(EXPIRES.len() + 8..) {
            let recorded = store.get(row)?.as_deref().and_then(|v| v.try_into().ok()).map(i64::from_be_bytes);
            if recorded.is_some_and(|at| hour_after(at.saturating_add(within_ms)) <= watermark) {
                store.delete(row.to_vec());
            }
        }
        store.delete(index.clone());
    }
    Ok(due.len())
}

/// The rows of all identities of `of`, those included by which they expire.
///
/// # Errors
/// When the storage fails.
pub fn rows_of(read: &(impl Read + ?Sized), of: &str) -> Result<Vec<Vec<u8>>> {
    let mut rows = crate::rows_under(read, &SEEN, of)?;
    let own: std::collections::BTreeSet<_> = rows.iter().cloned().collect();
    // By hour, of all keys: erasures are few, and what expires is a week's.
    read.scan(&EXPIRES, key::after(&EXPIRES).as_deref(), &mut |index, _| {
        if index.get(EXPIRES.len() + 8..).is_some_and(|row| own.contains(row)) {
            rows.push(index.to_vec());
        }
        true
    })?;
    Ok(rows)
}

/// The first hour at which [`sweep`] has something to do.
///
/// # Errors
/// When the storage fails.
pub fn next_sweep(read: &(impl Read + ?Sized)) -> Result<Option<i64>> {
    let mut next = None;
    read.scan(&EXPIRES, key::after(&EXPIRES).as_deref(), &mut |row, _| {
        next = row.get(EXPIRES.len()..).and_then(|mut rest| i64::read(&mut rest));
        false
    })?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    #[test]
    fn an_identity_is_known_within_its_horizon_and_forgotten_after_it() {
        let mut store = Store::new(Box::new(Memory::default()));
        let week = 7 * 24 * HOUR_MS;
        record(&mut store, "u", "event", "e1", 1000, Some(week));
        record(&mut store, "u", "order", "o1", 1000, None);
        assert!(contains(&store, "u", "event", "e1", 1000 + week, Some(week)).unwrap());
        assert!(!contains(&store, "u", "event", "e1", 1001 + week, Some(week)).unwrap());
        assert!(!contains(&store, "v", "event", "e1", 1000, Some(week)).unwrap());
        assert!(contains(&store, "u", "order", "o1", i64::MAX, None).unwrap());

        assert_eq!(sweep(&mut store, 1000 + week, week, 10).unwrap(), 0, "its hour is not over");
        assert_eq!(next_sweep(&store).unwrap(), Some(week + HOUR_MS));
        assert_eq!(sweep(&mut store, week + HOUR_MS, week, 10).unwrap(), 1);
        assert!(!contains(&store, "u", "event", "e1", 1000, Some(week)).unwrap());
        assert!(contains(&store, "u", "order", "o1", 0, None).unwrap());
    }

    #[test]
    fn the_rows_of_one_key_are_all_found_and_no_others() {
        let mut store = Store::new(Box::new(Memory::default()));
        record(&mut store, "u", "event", "e1", 1000, Some(1000));
        record(&mut store, "u2", "event", "e1", 1000, Some(1000));
        record(&mut store, "u", "order", "o1", 1000, None);
        let rows = rows_of(&store, "u").unwrap();
        assert_eq!(rows.len(), 3);
        rows.into_iter().for_each(|row| store.delete(row));
        assert_eq!(rows_of(&store, "u").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(rows_of(&store, "u2").unwrap().len(), 2);
    }
}
