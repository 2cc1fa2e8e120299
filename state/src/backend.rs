//! Where committed state lives: a sorted map of bytes. RocksDB in production, a `BTreeMap` in tests and simulation.

use crate::Result;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Committed state, as readers see it.
pub trait Read {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the storage fails.
    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>>;

    /// Visits the rows from `from` (inclusive) to `to` (exclusive; `None` is the end) in key order until `visit`
    /// returns false.
    ///
    /// # Errors
    /// When the storage fails.
    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()>;
}

/// Committed state, as its one writer sees it.
pub trait Backend: Read + Send {
    /// Makes all `writes` visible and (as far as the backend promises) durable at once.
    ///
    /// # Errors
    /// When the storage fails; then none of them is visible.
    fn apply(&mut self, writes: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<()>;
}

/// A backend in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl Memory {
    /// All rows, for comparison.
    pub fn rows(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.0
    }
}

impl Read for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        Ok(self.0.get(key).map(|v| v.as_slice().into()))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for (k, v) in self.0.range(from.to_vec()..) {
            if to.is_some_and(|to| k.as_slice() >= to) || !visit(k, v) {
                break;
            }
        }
        Ok(())
    }
}

impl Backend for Memory {
    fn apply(&mut self, writes: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<()> {
        for (k, v) in writes {
            match v {
                Some(v) => self.0.insert(k.to_vec(), v.to_vec()),
                None => self.0.remove(k),
            };
        }
        Ok(())
    }
}

/// Committed state that other threads may read while its writer goes on.
pub trait Snapshots: Send + Sync {
    /// Reads from one moment of committed state.
    fn read(&self, reading: &mut dyn FnMut(&dyn Read));

    /// How large what it lies in is; `None` where it lies on no disk.
    fn size(&self) -> Option<Size> {
        None
    }
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// The directory.
    pub path: PathBuf,
    /// Bytes on disk and in write buffers.
    pub bytes: u64,
    /// Rows, by estimate.
    pub rows: u64,
}
