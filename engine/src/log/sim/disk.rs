//! A disk: what was written is there while the process lives; what was flushed is there after a crash.

use super::{Sim, planted::Defect};
use crate::worker::{META, Meta, POSITION};
use parking_lot::RwLock;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tillflow_state::{Backend, Read, Snapshots, StateError};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Which store: of which machine, group and partition.
pub type StoreId = (String, &'static str, u32);

/// A task's store on a machine's disk.
#[derive(Debug, Default)]
pub struct Disk {
    rows: Rows,
    /// What changed since the last flush, as it was then.
    unflushed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Who has it open.
    pub holder: Option<u64>,
    /// When a commit was last written to it, as far as was flushed; and since.
    flushed_at: Duration,
    written_at: Duration,
    /// Whether it ever held what survives a crash.
    pub(super) was_flushed: bool,
}

impl Disk {
    /// All rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Up to where of its changelog it is written.
    pub fn position(&self) -> i64 {
        self.rows.get(POSITION).and_then(|v| v.as_slice().try_into().ok()).map_or(0, i64::from_be_bytes)
    }

    /// When a commit was last written to it.
    pub fn written_at(&self) -> Duration {
        self.written_at
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        let before = match value {
            Some(value) => self.rows.insert(key.to_vec(), value.to_vec()),
            None => self.rows.remove(key),
        };
        self.unflushed.entry(key.to_vec()).or_insert(before);
    }

    /// Makes everything durable.
    pub fn flush(&mut self) {
        self.unflushed.clear();
        self.flushed_at = self.written_at;
        self.was_flushed |= self.position() > 0;
    }

    /// The process died: what was not flushed is gone.
    pub fn crash(&mut self) {
        for (key, before) in std::mem::take(&mut self.unflushed) {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.written_at = self.flushed_at;
        self.holder = None;
    }

    /// Planted: takes the offsets out of the task's own row.
    pub(super) fn forget_offsets(&mut self) {
        let forgotten = self.rows.get(META).and_then(|row| without_offsets(row));
        if let Some(row) = forgotten {
            self.write(META, Some(&row));
        }
    }

    /// Begins anew, with nothing.
    pub fn wipe(&mut self) {
        *self = Self { holder: self.holder, was_flushed: self.was_flushed, ..Self::default() };
    }
}

/// Planted: a task's own row without the offsets in it.
pub fn without_offsets(row: &[u8]) -> Option<Vec<u8>> {
    let meta: Meta = postcard::from_bytes(row).ok()?;
    postcard::to_allocvec(&Meta { offsets: BTreeMap::new(), ..meta }).ok()
}

/// An open store.
#[derive(Clone)]
pub struct SimBackend {
    pub(super) sim: Sim,
    pub(super) disk: Arc<RwLock<Disk>>,
    pub(super) process: u64,
    pub(super) holder: u64,
    pub(super) partition: u32,
}

impl SimBackend {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("store-{}", self.partition))
    }

    /// Writes rows past the task, as planted defects do.
    pub(super) fn plant<'a>(&self, rows: impl Iterator<Item = &'a (&'a [u8], Option<&'a [u8]>)>) {
        let mut disk = self.disk.write();
        rows.for_each(|(key, value)| disk.write(key, *value));
    }
}

impl Read for SimBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>, StateError> {
        Ok(self.disk.read().rows.get(key).map(|row| row.as_slice().into()))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StateError> {
        for (key, value) in self.disk.read().rows.range(from.to_vec()..) {
            if to.is_some_and(|to| key.as_slice() >= to) || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl Backend for SimBackend {
    fn apply(&mut self, writes: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<(), StateError> {
        let mut world = self.sim.0.lock();
        let gone = || StateError::Storage { path: self.path(), detail: "the process is gone".into() };
        if !world.is_alive(self.process) || self.disk.read().holder != Some(self.holder) {
            return Err(gone());
        }
        if world.now() < world.disk_full_until(self.process) {
            world.count("disk full");
            return Err(StateError::Full { path: self.path(), detail: "no space left on device".into() });
        }
        let (on, torn, flush, now) = (world.faults.on, world.faults.torn, world.faults.flush, world.now());
        if on && world.dice.one_in(torn) {
            // The batch is one record of the store's own log: half of it is none of it.
            if world.planted == Some(Defect::TornWrite) {
                let mut disk = self.disk.write();
                writes.enumerate().filter(|(i, _)| i % 2 == 0).for_each(|(_, (k, v))| disk.write(k, v));
                disk.flush();
            }
            world.count("crash within the local write");
            world.kill(self.process);
            return Err(gone());
        }
        let mut disk = self.disk.write();
        writes.for_each(|(key, value)| disk.write(key, value));
        disk.written_at = now;
        if on && world.dice.one_in(flush) {
            disk.flush();
        }
        Ok(())
    }
}

impl Snapshots for SimBackend {
    fn read(&self, reading: &mut dyn FnMut(&dyn Read)) {
        reading(self);
    }
}
