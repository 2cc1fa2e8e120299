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
use tillflow_schemas::Timestamp;
use tillflow_state::{Backend, Directory, Durability, Read, Shared, StateError, Store};

/// How often stores are flushed: after a crash at most this much of the changelog is read again.
const FLUSH_EVERY: Duration = Duration::from_secs(10);

/// How long a query may hold a store that is to be opened again. Whoever holds it longer is not waited for here, since other
/// tasks have to go on.
const HELD_AT_MOST: Duration = Duration::from_millis(20);

/// For how long a changelog keeps tombstones: its `delete.retention.ms` when we create it.
pub const TOMBSTONES_STAY: Duration = Duration::from_secs(24 * 3_600);
/// So much earlier they are taken for gone: clocks differ.
const MARGIN: Duration = Duration::from_secs(3_600);
/// No changelog loses tombstones as soon as that: a store written to of late, as after a crash, is not asked about.
const OF_LATE: Duration = Duration::from_secs(60);

/// Key of the row that says when a store was last written to, or earlier; milliseconds.
const WRITTEN: &[u8] = &[0, 0, 0, 1, b'a', b't'];

/// Key of the row that says which changelog a store was made from: the id that the cluster gave the topic.
const MADE_FROM: &[u8] = &[0, 0, 0, 1, b'o', b'f'];

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

    /// Whether a store may have missed deletions: its tail of the changelog is older than tombstones stay there. One
    /// offset beyond its position is the marker of its own last transaction, not a tail.
    pub fn missed_tombstones(written: Timestamp, now: Timestamp, position: i64, end: i64, stay: Duration) -> bool {
        position > 0 && end > position + 1 && now > written.plus(stay.saturating_sub(MARGIN))
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
    /// When they were last looked at, and at which position each stood then.
    looked: Timestamp,
    positions: BTreeMap<u32, i64>,
    /// When each was opened that is not restored yet: once it is, it holds all that the changelog held at that time.
    opened: BTreeMap<u32, Timestamp>,
}

impl OpenStores {
    /// No stores of `group` yet.
    pub fn new(stores: &Stores, group: &'static str) -> Self {
        Self {
            stores: stores.clone(),
            group,
            open: BTreeMap::new(),
            flushed: Instant::now(),
            looked: Timestamp::wall(),
            positions: BTreeMap::new(),
            opened: BTreeMap::new(),
        }
    }

    /// Opens a task's store. `end` asks for the end of its changelog, and `id` is what the cluster calls the topic: a store
    /// that claims to be beyond the end, or is of a topic of another id, belongs to another log, and is put aside for a new
    /// one; so is one that was away for longer than the changelog keeps tombstones, which `stay` says.
    pub fn open(
        &mut self,
        partition: u32,
        changelog: TopicPartition,
        end: impl FnOnce() -> Result<i64, LogError>,
        id: Option<&str>,
        stay: impl FnOnce() -> Duration,
    ) -> Result<Opened, LogError> {
        self.open.remove(&partition);
        let path = self.stores.directory(self.group, partition);
        let mut directory = self.directory(&path)?;
        let mut offset = position(&directory)?;
        let opened = Timestamp::wall();
        // Asked once the store is this worker's alone: until then another one of this process may have committed, which
        // moves both.
        let end = end()?;
        let anew = if offset > end {
            Some("it is ahead of its changelog, which must be a new one")
        } else if made_from(&directory)?.zip(id).is_some_and(|(old, id)| old != id) {
            Some("its changelog was deleted and made anew")
        } else if let Some(at) = written(&directory)?
            && Timestamp::wall() > at.plus(OF_LATE)
            && Stores::missed_tombstones(at, Timestamp::wall(), offset, end, stay())
        {
            Some("it was away for longer than the changelog keeps tombstones")
        } else {
            None
        };
        if let Some(why) = anew {
            tracing::warn!(group = self.group, partition, offset, end, "building the store anew, the old one is put aside: {why}");
            drop(directory);
            put_aside(&path)?;
            directory = Directory::open(&path, &[], &self.stores.shared)?;
            offset = 0;
        }
        self.positions.insert(partition, offset);
        self.opened.insert(partition, opened);
        let mut backend = directory.backend("default", &[], Durability::Volatile);
        if let Some(id) = id
            && made_from(&directory)?.is_none()
        {
            backend.apply(&mut std::iter::once((MADE_FROM, Some(id.as_bytes()))))?;
        }
        self.open.insert(partition, directory);
        Ok(Opened {
            store: Store::new(Box::new(backend.clone())),
            snapshots: Arc::new(backend),
            changelog: Some(ChangelogPosition { at: changelog, offset }),
        })
    }

    /// Opens a store. The data directory is this process's own; but a query may hold a store for a moment longer than its task,
    /// and another worker until it hears that the task is no longer its own: not before its commit is over, which may wait for
    /// brokers for half a minute.
    fn directory(&self, path: &Path) -> Result<Directory, LogError> {
        let started = Instant::now();
        loop {
            match Directory::open(path, &[], &self.stores.shared) {
                Err(StateError::Held { .. }) if started.elapsed() < HELD_AT_MOST => std::thread::sleep(Duration::from_millis(5)),
                Err(StateError::Held { path }) => {
                    let path = path.display();
                    return Err(LogError::Unavailable(format!(
                        "{path} is still open in this process: another worker commits, or a query reads"
                    )));
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// Closes stores: the next owner may be another worker of this process.
    pub fn close(&mut self, partitions: &[u32]) {
        self.note_time();
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

    /// Notes how late a store that was restored is, and begins to flush it: a process that crashes again and again would
    /// otherwise read ever more of the changelog, and, a minute later, ask for how long tombstones stay there, whenever it starts.
    /// Told again, as after an aborted transaction, it notes nothing: the store may be days younger than when it was opened.
    pub fn restored(&mut self, partition: u32) {
        if let Some((directory, at)) = self.open.get(&partition).zip(self.opened.remove(&partition))
            && let Err(e) = note(directory, at)
        {
            self.not_noted(partition, &e);
        }
        self.flush_soon(partition);
    }

    fn not_noted(&self, partition: u32, e: &StateError) {
        tracing::warn!(group = self.group, partition, "noting when the store was written: {e}");
    }

    /// Begins to flush stores now and then, to keep the tail short that a crash leaves to be read again. Nobody waits for the disk.
    pub fn flush_sometimes(&mut self) {
        if self.flushed.elapsed() < FLUSH_EVERY {
            return;
        }
        self.flushed = Instant::now();
        self.note_time();
        self.open.keys().for_each(|partition| self.flush_soon(*partition));
    }

    fn flush_soon(&self, partition: u32) {
        if let Some(Err(e)) = self.open.get(&partition).map(Directory::flush_soon) {
            tracing::warn!(group = self.group, partition, "flushing the store: {e}");
        }
    }

    /// Notes of all stores that have moved since the last look that they were written to at that look: a process may
    /// have stood still for days between its last commit and now.
    fn note_time(&mut self) {
        let at = self.looked;
        self.looked = Timestamp::wall();
        for (number, directory) in &self.open {
            let noted = position(directory).and_then(|now| {
                let has_moved = self.positions.insert(*number, now) != Some(now);
                if has_moved { note(directory, at) } else { Ok(()) }
            });
            if let Err(e) = noted {
                self.not_noted(*number, &e);
            }
        }
    }
}

impl Drop for OpenStores {
    fn drop(&mut self) {
        self.close_all();
    }
}

fn note(directory: &Directory, at: Timestamp) -> Result<(), StateError> {
    let at = at.millis().to_be_bytes();
    directory.backend("default", &[], Durability::Volatile).apply(&mut std::iter::once((WRITTEN, Some(at.as_slice()))))
}

fn written(directory: &Directory) -> Result<Option<Timestamp>, StateError> {
    let row = directory.backend("default", &[], Durability::Volatile).get(WRITTEN)?;
    Ok(row.as_deref().and_then(|v| v.try_into().ok()).map(|v| Timestamp::from_millis(i64::from_be_bytes(v))))
}

fn made_from(directory: &Directory) -> Result<Option<String>, StateError> {
    let row = directory.backend("default", &[], Durability::Volatile).get(MADE_FROM)?;
    Ok(row.map(|id| String::from_utf8_lossy(&id).into_owned()))
}

fn position(directory: &Directory) -> Result<i64, StateError> {
    let row = directory.backend("default", &[], Durability::Volatile).get(POSITION)?;
    Ok(row.as_deref().and_then(|v| v.try_into().ok()).map_or(0, i64::from_be_bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_s_end_is_asked_for_once_nobody_else_can_move_the_store() {
        let files = tempfile::tempdir().unwrap();
        let stores = Stores::open(files.path(), &Shared::new(1 << 20, 1 << 20)).unwrap();
        let mut open = OpenStores::new(&stores, "customers");
        let changelog = TopicPartition { topic: 0, partition: 3 };
        let end = || {
            let again = Directory::open(&stores.directory("customers", 3), &[], &stores.shared);
            assert!(matches!(again, Err(StateError::Held { .. })), "it is not open yet");
            Ok(0)
        };
        let opened = open.open(3, changelog, end, None, || TOMBSTONES_STAY).unwrap();
        assert_eq!(opened.changelog.unwrap().offset, 0);
    }

    #[test]
    fn a_store_that_another_worker_has_not_given_up_yet_is_waited_for() {
        let files = tempfile::tempdir().unwrap();
        let stores = Stores::open(files.path(), &Shared::new(1 << 20, 1 << 20)).unwrap();
        let (mut old, mut new) = (OpenStores::new(&stores, "customers"), OpenStores::new(&stores, "customers"));
        let open = |by: &mut OpenStores| by.open(3, TopicPartition { topic: 0, partition: 3 }, || Ok(0), None, || TOMBSTONES_STAY);
        open(&mut old).unwrap();
        let Err(LogError::Unavailable(why)) = open(&mut new) else { panic!("it is not waited for") };
        assert!(why.contains("customers-3"), "{why}");
        old.close(&[3]);
        open(&mut new).unwrap();
    }

    #[test]
    fn a_restored_store_is_not_asked_about_again_soon_though_it_is_killed_before_its_next_flush() {
        let files = tempfile::tempdir().unwrap();
        let stores = Stores::open(files.path(), &Shared::new(1 << 20, 1 << 20)).unwrap();
        let changelog = TopicPartition { topic: 0, partition: 3 };
        let mut asked = 0;
        let mut open = |open: &mut OpenStores| {
            let stay = || {
                asked += 1;
                TOMBSTONES_STAY
            };
            open.open(3, changelog, || Ok(20), None, stay).unwrap();
            asked
        };
        let mut life = OpenStores::new(&stores, "customers");
        assert_eq!(open(&mut life), 0, "a new store has missed nothing");
        let directory = life.open.get(&3).unwrap();
        let long_ago = Timestamp::from_millis(Timestamp::wall().millis() - 2 * OF_LATE.as_millis() as i64);
        note(directory, long_ago).unwrap();
        let position = 10_i64.to_be_bytes();
        directory.backend("default", &[], Durability::Volatile).apply(&mut std::iter::once((POSITION, Some(position.as_slice())))).unwrap();
        assert_eq!(open(&mut life), 1);
        assert_eq!(open(&mut life), 2, "it was not restored");
        life.restored(3);
        assert_eq!(open(&mut life), 2);
    }

    #[test]
    fn inputs_that_start_again_after_an_abort_make_no_store_older_than_it_is() {
        let files = tempfile::tempdir().unwrap();
        let stores = Stores::open(files.path(), &Shared::new(1 << 20, 1 << 20)).unwrap();
        let mut open = OpenStores::new(&stores, "customers");
        open.open(3, TopicPartition { topic: 0, partition: 3 }, || Ok(0), None, || TOMBSTONES_STAY).unwrap();
        open.restored(3);
        let later = Timestamp::wall().plus(Duration::from_secs(24 * 3_600));
        note(open.open.get(&3).unwrap(), later).unwrap();
        open.restored(3);
        assert_eq!(written(open.open.get(&3).unwrap()).unwrap(), Some(later));
    }

    #[test]
    fn only_a_store_with_an_old_tail_may_have_missed_deletions() {
        let written = Timestamp::EARLIEST;
        let (soon, late) = (written.plus(Duration::from_secs(3_600)), written.plus(Duration::from_secs(25 * 3_600)));
        let missed = |now, position, end| Stores::missed_tombstones(written, now, position, end, TOMBSTONES_STAY);
        assert!(missed(late, 10, 20));
        assert!(!missed(soon, 10, 20), "tombstones are still there");
        assert!(!missed(late, 10, 11), "nothing was written since");
        assert!(!missed(late, 0, 20), "it is empty: it reads everything");
        assert!(!Stores::missed_tombstones(written, late, 10, 20, 2 * TOMBSTONES_STAY), "this changelog keeps them for longer");
    }
}
