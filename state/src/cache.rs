//! Committed rows in memory, above a backend: what a task asks for again and again, absent rows among them.

use quick_cache::{Weighter, unsync};
use std::{cell::RefCell, sync::Arc};

type Row = Option<Arc<[u8]>>;

/// Bytes of rows that a store keeps.
const CAPACITY: u64 = 4 << 20;
/// What a row costs beside its bytes.
const OVERHEAD: u64 = 64;
/// How many rows are expected, for the first allocation: it grows.
const EXPECTED_ROWS: usize = 1_000;

#[derive(Clone)]
struct Bytes;

impl Weighter<Arc<[u8]>, Row> for Bytes {
    fn weight(&self, key: &Arc<[u8]>, row: &Row) -> u64 {
        key.len() as u64 + row.as_ref().map_or(0, |r| r.len() as u64) + OVERHEAD
    }
}

/// The rows read or written lately.
pub struct Cache(RefCell<unsync::Cache<Arc<[u8]>, Row, Bytes>>);

impl Default for Cache {
    fn default() -> Self {
        Self(RefCell::new(unsync::Cache::with_weighter(EXPECTED_ROWS, CAPACITY, Bytes)))
    }
}

impl Cache {
    /// The row of `key`, where it is known: `Some(None)` is known to be absent.
    pub fn get(&self, key: &[u8]) -> Option<Row> {
        self.0.borrow().get(key).cloned()
    }

    /// Keeps a committed row.
    pub fn keep(&self, key: Arc<[u8]>, row: Row) {
        self.0.borrow_mut().insert(key, row);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}
