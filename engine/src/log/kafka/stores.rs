//! The stores of this instance's tasks: one RocksDB a task, without write-ahead log, since the changelog is one.

use crate::{
    log::{ChangelogPosition, LogError, Opened, TopicPartition},
    worker::POSITION,
};
use fs4::fs_std::FileExt;
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_state::{Directory, Durability, Read, Shared, StateError, Store};

/// How often stores are flushed: after a crash at most this much of the changelog is read again.
const FLUSH_EVERY: Duration = Duration::from_secs(10);

/// The data directory of a process.
#[derive(Clone)]
pub struct Stores {
    path: PathBuf,
    shared: Shared,
    /// Locked as long as the process lives.
    _lock: Arc<File>,
}

impl Stores {
    /// Takes the data directory for this process.
    ///
    /// # Errors
    /// When another process holds it, or it can't be made.
    pub fn open(path: &Path, shared: &Shared) -> Result<Self, StateError> {
        let fail = |e: std::io::Error| StateError::Storage { path: path.to_owned(), detail: e.to_string() };
        std::fs::create_dir_all(path).map_err(fail)?;
        let lock = File::create(path.join("LOCK")).map_err(fail)?;
        match lock.try_lock_exclusive() {
            Ok(true) => Ok(Self { path: path.to_owned(), shared: shared.clone(), _lock: Arc::new(lock) }),
            Ok(false) => Err(StateError::Held { path: path.to_owned() }),
            Err(e) => Err(fail(e)),
        }
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn directory(&self, group: &str, partition: u32) -> PathBuf {
        self.path.join(format!("{group}-{partition}"))
    }
}

/// The stores that one worker has open.
pub struct OpenStores {
    stores: Stores,
    group: &'static str,
    open: BTreeMap<u32, Directory>,
    flushed: Instant,
}

impl OpenStores {
    /// No stores of `group` yet.
    pub fn new(stores: &Stores, group: &'static str) -> Self {
        Self { stores: stores.clone(), group, open: BTreeMap::new(), flushed: Instant::now() }
    }

    /// Opens a task's store. `end` is the end of its changelog: a store that claims to be beyond it belongs to another
    /// log, and is put aside for a new one.
    pub fn open(&mut self, partition: u32, changelog: TopicPartition, end: i64) -> Result<Opened, LogError> {
        self.open.remove(&partition);
        let path = self.stores.directory(self.group, partition);
        let mut directory = Directory::open(&path, &[], &self.stores.shared)?;
        let mut offset = position(&directory)?;
        if offset > end {
            tracing::warn!(
                group = self.group,
                partition,
                offset,
                end,
                "the store is ahead of its changelog, which must be a new one: building it anew"
            );
            drop(directory);
            put_aside(&path)?;
            directory = Directory::open(&path, &[], &self.stores.shared)?;
            offset = 0;
        }
        let backend = directory.backend("default", &[], Durability::Volatile);
        self.open.insert(partition, directory);
        Ok(Opened {
            store: Store::new(Box::new(backend.clone())),
            snapshots: Arc::new(backend),
            changelog: Some(ChangelogPosition { at: changelog, offset }),
        })
    }

    /// Closes stores: the next owner may be another worker of this process.
    pub fn close(&mut self, partitions: &[u32]) {
        for partition in partitions {
            if let Some(directory) = self.open.remove(partition)
                && let Err(e) = directory.flush()
            {
                tracing::warn!(group = self.group, partition, "closing the store: {e}");
            }
        }
    }

    /// Closes all stores.
    pub fn close_all(&mut self) {
        let all: Vec<_> = self.open.keys().copied().collect();
        self.close(&all);
    }

    /// Flushes stores now and then, to keep the tail short that a crash leaves to be read again.
    pub fn flush_sometimes(&mut self) {
        if self.flushed.elapsed() < FLUSH_EVERY {
            return;
        }
        self.flushed = Instant::now();
        for (partition, directory) in &self.open {
            if let Err(e) = directory.flush() {
                tracing::warn!(group = self.group, partition, "flushing the store: {e}");
            }
        }
    }
}

fn position(directory: &Directory) -> Result<i64, StateError> {
    let row = directory.backend("default", &[], Durability::Volatile).get(POSITION)?;
    Ok(row.and_then(|v| v.try_into().ok()).map_or(0, i64::from_be_bytes))
}

/// Renames a store; a former one put aside is deleted.
fn put_aside(path: &Path) -> Result<(), LogError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".aside");
    let fail = |e: std::io::Error| LogError::State(StateError::Storage { path: path.to_owned(), detail: e.to_string() });
    if Path::new(&aside).exists() {
        std::fs::remove_dir_all(&aside).map_err(fail)?;
    }
    std::fs::rename(path, &aside).map_err(fail)
}
