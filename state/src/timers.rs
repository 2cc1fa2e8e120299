//! Timers, the only source of "later": rows of the store, so they survive restarts and are undone with a record.
//!
//! Each is kept twice: by time, for the watermark, and by key, for "before an event of this key".

use crate::{Key, Read, Result, Store, key};

const BY_TIME: [u8; 4] = [0, 0, 0, 2];
const BY_KEY: [u8; 4] = [0, 0, 0, 3];

/// A timer that is set. Ordered as they fire: by time, then key, then kind, then detail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerRow {
    /// Event time, milliseconds.
    pub fire_at: i64,
    /// Whose it is.
    pub key: String,
    /// Which kind: the prefix of its declared name.
    pub kind: u32,
    /// Distinguishes timers of one kind and key.
    pub detail: String,
}

type Identity = (String, u32, String);

impl TimerRow {
    fn write_identity(&self, row: &mut Vec<u8>) {
        key::write_text(&self.key, row);
        self.kind.write(row);
        key::write_text(&self.detail, row);
    }
    fn by_time(&self, fire_at: i64) -> Vec<u8> {
        let mut row = Vec::with_capacity(24 + self.key.len() + self.detail.len());
        row.extend_from_slice(&BY_TIME);
        fire_at.write(&mut row);
        self.write_identity(&mut row);
        row
    }
    fn by_key(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(16 + self.key.len() + self.detail.len());
        row.extend_from_slice(&BY_KEY);
        self.write_identity(&mut row);
        row
    }
}

/// Sets a timer; one of the same key, kind and detail is replaced.
///
/// # Errors
/// When the storage fails.
pub fn set(store: &mut Store, timer: &TimerRow) -> Result<()> {
    cancel(store, timer)?;
    store.put(timer.by_time(timer.fire_at), Vec::new());
    store.put(timer.by_key(), timer.fire_at.to_be_bytes().to_vec());
    Ok(())
}

/// Cancels the timer of the same key, kind and detail, whatever its time.
///
/// # Errors
/// When the storage fails.
pub fn cancel(store: &mut Store, timer: &TimerRow) -> Result<()> {
    let row = timer.by_key();
    if let Some(at) = store.get(&row)?.as_deref().and_then(fire_at) {
        store.delete(timer.by_time(at));
        store.delete(row);
    }
    Ok(())
}

/// Takes a timer away that is known to be set, for that time.
pub fn remove(store: &mut Store, timer: &TimerRow) {
    store.delete(timer.by_time(timer.fire_at));
    store.delete(timer.by_key());
}

/// When the timer of that key, kind and detail fires, if it is set.
///
/// # Errors
/// When the storage fails.
pub fn get(read: &(impl Read + ?Sized), timer: &TimerRow) -> Result<Option<i64>> {
    Ok(read.get(&timer.by_key())?.as_deref().and_then(fire_at))
}

/// The first timers that fire at `from` or later, at most `limit`, in order. Whoever knows that there is none before
/// spares the scan what has fired and is not compacted away yet: a queue's head is where its tombstones lie.
///
/// # Errors
/// When the storage fails.
pub fn next(read: &(impl Read + ?Sized), from: i64, limit: usize) -> Result<Vec<TimerRow>> {
    let mut begin = BY_TIME.to_vec();
    from.write(&mut begin);
    by_time_from(read, &begin, limit)
}

/// The timers that come after this one.
///
/// # Errors
/// When the storage fails.
pub fn after(read: &(impl Read + ?Sized), row: &TimerRow, limit: usize) -> Result<Vec<TimerRow>> {
    let mut begin = row.by_time(row.fire_at);
    begin.push(0);
    by_time_from(read, &begin, limit)
}

fn by_time_from(read: &(impl Read + ?Sized), begin: &[u8], limit: usize) -> Result<Vec<TimerRow>> {
    let mut found = Vec::new();
    read.scan(begin, key::after(&BY_TIME).as_deref(), &mut |row, _| {
        let mut rest = row.get(BY_TIME.len()..).unwrap_or_default();
        let timer = <(i64, Identity)>::read(&mut rest);
        found.extend(timer.map(|(fire_at, (key, kind, detail))| TimerRow { fire_at, key, kind, detail }));
        found.len() < limit
    })?;
    Ok(found)
}

/// The first timer of `key`.
///
/// # Errors
/// When the storage fails.
pub fn first_of(read: &(impl Read + ?Sized), of: &str) -> Result<Option<TimerRow>> {
    let mut from = BY_KEY.to_vec();
    key::write_text(of, &mut from);
    let mut found: Option<TimerRow> = None;
    read.scan(&from, key::after(&from).as_deref(), &mut |row, value| {
        let mut rest = row.get(BY_KEY.len()..).unwrap_or_default();
        if let (Some((key, kind, detail)), Some(fire_at)) = (Identity::read(&mut rest), fire_at(value)) {
            let timer = TimerRow { fire_at, key, kind, detail };
            if found.as_ref().is_none_or(|f| timer < *f) {
                found = Some(timer);
            }
        }
        true
    })?;
    Ok(found)
}

/// The rows of all timers of `key`.
///
/// # Errors
/// When the storage fails.
pub fn rows_of(read: &(impl Read + ?Sized), of: &str) -> Result<Vec<Vec<u8>>> {
    let by_key = crate::rows_under(read, &BY_KEY, of)?;
    let mut rows = Vec::with_capacity(2 * by_key.len());
    for row in by_key {
        let identity = row.get(BY_KEY.len()..).and_then(|mut rest| Identity::read(&mut rest));
        let at = read.get(&row)?.as_deref().and_then(fire_at);
        rows.extend(identity.zip(at).map(|((key, kind, detail), fire_at)| TimerRow { fire_at, key, kind, detail }.by_time(fire_at)));
        rows.push(row);
    }
    Ok(rows)
}

fn fire_at(value: &[u8]) -> Option<i64> {
    value.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    fn timer(fire_at: i64, key: &str, kind: u32) -> TimerRow {
        TimerRow { fire_at, key: key.into(), kind, detail: String::new() }
    }

    #[test]
    fn timers_are_found_in_the_order_they_fire_and_setting_again_moves_them() {
        let mut store = Store::new(Box::new(Memory::default()));
        for t in [timer(30, "a", 1), timer(10, "b", 1), timer(20, "a", 2), timer(-5, "c", 1)] {
            set(&mut store, &t).unwrap();
        }
        assert_eq!(next(&store, i64::MIN, 2).unwrap(), [timer(-5, "c", 1), timer(10, "b", 1)]);
        assert_eq!(first_of(&store, "a").unwrap(), Some(timer(20, "a", 2)));
        set(&mut store, &timer(5, "a", 1)).unwrap();
        assert_eq!(first_of(&store, "a").unwrap(), Some(timer(5, "a", 1)));
        cancel(&mut store, &timer(0, "c", 1)).unwrap();
        cancel(&mut store, &timer(0, "a", 1)).unwrap();
        assert_eq!(next(&store, 10, 1).unwrap(), [timer(10, "b", 1)]);
        assert_eq!(next(&store, 11, 9).unwrap(), [timer(20, "a", 2)]);
        assert_eq!(next(&store, 21, 9).unwrap(), []);
        assert_eq!(get(&store, &timer(0, "a", 2)).unwrap(), Some(20));
        for row in rows_of(&store, "a").unwrap() {
            store.delete(row);
        }
        assert_eq!(next(&store, i64::MIN, 9).unwrap(), [timer(10, "b", 1)]);
        assert_eq!(first_of(&store, "a").unwrap(), None);
    }
}
