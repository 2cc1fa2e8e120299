//! RocksDB beneath stores: one directory, opened by one process; stores are prefixes of a column family.

use crate::{Backend, Read, Result, Size, Snapshots, StateError, key};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, ErrorKind, FlushOptions,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions, checkpoint::Checkpoint,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Version of what is stored. A directory of a newer one is refused.
pub const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = &[0, 0, 0, 1, b'f', b'o', b'r', b'm', b'a', b't'];

/// What all directories of a process share: one block cache and one limit for write buffers.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    write_buffers: WriteBufferManager,
    /// How many write-ahead logs are kept to be written over.
    spare_logs: usize,
}

/// So many were measured: docs/decisions/logs-written-over.md.
const SPARE_LOGS: usize = 4;

impl Shared {
    /// Caches of these sizes, in bytes. Write buffers count within the cache.
    pub fn new(cache: usize, write_buffers: usize) -> Self {
        let cache = Cache::new_lru_cache(cache);
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(write_buffers, true, cache.clone());
        Self { cache, write_buffers, spare_logs: 0 }
    }

    /// For directories whose every write waits for the disk: write-ahead logs are written over instead of being made anew. A file
    /// that keeps its length is on disk with its data alone; one that grows takes a commit of the file system's journal.
    /// Such a directory takes no [`Durability::Volatile`] writes.
    #[must_use]
    pub fn reusing_logs(mut self) -> Self {
        self.spare_logs = SPARE_LOGS;
        self
    }

    fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_block_size(16 * 1024);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // In small parts: a file's whole filter is megabytes, which are read and checked anew whenever the cache lets them go.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 * 1024);
        table.set_pin_top_level_index_and_filter(true);
        table.set_format_version(5);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_write_buffer_size(32 << 20);
        // Most of what is asked for and not in the cache above was never written: a new event's id, a new shopper's rows.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(FILTER_SHARE);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_max_open_files(512);
        options.set_max_background_jobs(2);
        options.set_recycle_log_file_num(self.spare_logs);
        options.set_keep_log_file_num(3);
        options.set_max_log_file_size(4 << 20);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options
    }
}

/// Part of a write buffer that filters keys which are not in it: 8 bits a row of 125 bytes would be 0.008.
const FILTER_SHARE: f64 = 0.03;

/// How much a write is worth when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In memory; the log brings it back.
    Volatile,
    /// In the operating system's hands: survives a crash of the process.
    Process,
    /// On disk: survives a crash of the machine.
    Disk,
}

/// Bytes that must be free on a disk that was full, before a directory is opened anew: opening writes what its
/// write-ahead log holds.
const ROOM: u64 = 8 << 20;

/// An open directory.
#[derive(Clone)]
pub struct Directory {
    opened: Arc<Opened>,
}

struct Opened {
    /// `None` once it could not be opened again.
    db: RwLock<Option<DB>>,
    path: PathBuf,
    /// Its column families, beside the default one.
    families: Vec<String>,
    shared: Shared,
}

impl Directory {
    /// Opens `path`, creating it where it does not exist, with these column families beside the default one.
    ///
    /// # Errors
    /// When another process holds it, its format is newer, or it is damaged.
    pub fn open(path: &Path, families: &[&str], shared: &Shared) -> Result<Self> {
        let fail = |detail: String| StateError::Storage { path: path.to_owned(), detail };
        std::fs::create_dir_all(path).map_err(|e| fail(format!("can't be created: {e}")))?;
        let families: Vec<_> = families.iter().map(|name| (*name).to_owned()).collect();
        let db = RwLock::new(Some(open(path, &families, shared)?));
        Ok(Self { opened: Arc::new(Opened { db, path: path.to_owned(), families, shared: shared.clone() }) })
    }

    /// Closes the database and opens it again: after a failed write RocksDB takes no other, though there may be room again.
    /// Whether the failed write is in it is known afterwards only, by reading.
    ///
    /// # Errors
    /// When there is still no room, or opening fails; then this can be tried again.
    pub fn reopen(&self) -> Result<()> {
        let path = &self.opened.path;
        if let Ok(free) = fs4::available_space(path)
            && free < ROOM
        {
            return Err(StateError::Full { path: path.clone(), detail: format!("no space left on device ({free} bytes are free)") });
        }
        let mut db = self.opened.db.write();
        // The old one holds the directory's lock.
        drop(db.take());
        *db = Some(open(path, &self.opened.families, &self.opened.shared)?);
        Ok(())
    }

    /// The database, which stays open meanwhile. Readers may hold it twice: a row that is visited may lead to another.
    fn db(&self) -> Result<MappedRwLockReadGuard<'_, DB>> {
        let closed = |_| StateError::Storage {
            path: self.opened.path.clone(),
            detail: "could not be opened again after a failed write; make room and start anew".into(),
        };
        RwLockReadGuard::try_map(self.opened.db.read_recursive(), Option::as_ref).map_err(closed)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }

    /// The rows of `family` that start with `prefix`, as a backend whose keys are without it.
    pub fn backend(&self, family: &'static str, prefix: &[u8], durability: Durability) -> RocksBackend {
        RocksBackend { directory: self.clone(), family, prefix: prefix.to_vec(), durability }
    }

    /// Writes rows of several families at once; `None` deletes.
    ///
    /// # Errors
    /// When the storage fails; then none of them is visible, though all may be once it is opened again.
    pub fn write<'a>(&self, rows: impl IntoIterator<Item = (&'a str, &'a [u8], Option<&'a [u8]>)>, durability: Durability) -> Result<()> {
        let db = self.db()?;
        // Ascending keys find their place in a write buffer from the one before. Of equal ones the last stays the last.
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(family, key, _)| (*family, *key));
        let mut batch = WriteBatch::default();
        for (family, key, value) in rows {
            let family = self.family(&db, family)?;
            match value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
        let mut options = WriteOptions::default();
        match durability {
            Durability::Volatile => options.disable_wal(true),
            Durability::Process => {}
            Durability::Disk => options.set_sync(true),
        }
        db.write_opt(batch, &options).map_err(|e| self.fail(&e))
    }

    /// Deletes the rows of `family` from `from` (inclusive) to `to` (exclusive).
    ///
    /// # Errors
    /// When the storage fails.
    pub fn delete_range(&self, family: &str, from: &[u8], to: &[u8]) -> Result<()> {
        let db = self.db()?;
        db.delete_range_cf(self.family(&db, family)?, from, to).map_err(|e| self.fail(&e))
    }

    /// The last key of `family` that starts with `prefix`.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn last(&self, family: &str, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        let end = key::after(prefix).unwrap_or_else(|| vec![0xff; 64]);
        let db = self.db()?;
        let mut rows = db.iterator_cf(self.family(&db, family)?, IteratorMode::From(&end, Direction::Reverse));
        // `end` itself belongs to the next prefix.
        let row = rows.by_ref().find(|row| row.as_ref().map_or(true, |(k, _)| **k < *end));
        let Some(row) = row else { return Ok(None) };
        let (key, _) = row.map_err(|e| self.fail(&e))?;
        Ok(key.starts_with(prefix).then(|| key.into_vec()))
    }

    /// Brings everything written so far to disk.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn flush(&self) -> Result<()> {
        self.db()?.flush().map_err(|e| self.fail(&e))
    }

    /// Begins to bring everything written so far to disk, and does not wait for it.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn flush_soon(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        self.db()?.flush_opt(&options).map_err(|e| self.fail(&e))
    }

    /// Rewrites the files of these families, so that what was deleted or overwritten is in none of them any more.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn compact(&self, families: &[&str]) -> Result<()> {
        let db = self.db()?;
        for name in families {
            let family = self.family(&db, name)?;
            db.flush_cf(family).map_err(|e| self.fail(&e))?;
            db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// A consistent copy at `to`, which must not exist; files are linked where the file system can.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn checkpoint(&self, to: &Path) -> Result<()> {
        Checkpoint::new(&*self.db()?).and_then(|c| c.create_checkpoint(to)).map_err(|e| self.fail(&e))
    }

    /// Bytes in use, as RocksDB counts live files and write buffers, and rows by estimate; of all column families.
    pub fn size(&self) -> Size {
        let db = self.db().ok();
        let sum = |property: &str| {
            let names = std::iter::once("default").chain(self.opened.families.iter().map(String::as_str));
            let of = |name| db.as_ref()?.property_int_value_cf(self.family(db.as_ref()?, name).ok()?, property).ok()?;
            names.filter_map(of).sum::<u64>()
        };
        Size {
            path: self.opened.path.clone(),
            bytes: sum("rocksdb.live-sst-files-size") + sum("rocksdb.cur-size-all-mem-tables"),
            rows: sum("rocksdb.estimate-num-keys"),
        }
    }

    fn family<'a>(&self, db: &'a DB, name: &str) -> Result<&'a rocksdb::ColumnFamily> {
        db.cf_handle(name)
            .ok_or_else(|| StateError::Storage { path: self.opened.path.clone(), detail: format!("has no column family {name}") })
    }

    fn fail(&self, e: &rocksdb::Error) -> StateError {
        classify(&self.opened.path, e)
    }
}

fn open(path: &Path, families: &[String], shared: &Shared) -> Result<DB> {
    let names = std::iter::once("default").chain(families.iter().map(String::as_str));
    let descriptors = names.map(|name| ColumnFamilyDescriptor::new(name, shared.options()));
    let db = DB::open_cf_descriptors(&shared.options(), path, descriptors).map_err(|e| classify(path, &e))?;
    check_format(&db, path)?;
    Ok(db)
}

fn check_format(db: &DB, path: &Path) -> Result<()> {
    match db.get(FORMAT_KEY).map_err(|e| classify(path, &e))? {
        None => db.put(FORMAT_KEY, FORMAT.to_be_bytes()).map_err(|e| classify(path, &e)),
        Some(found) => match <[u8; 4]>::try_from(found.as_slice()).map(u32::from_be_bytes) {
            Ok(found) if found <= FORMAT => Ok(()),
            Ok(found) => Err(StateError::NewerFormat { path: path.to_owned(), found, known: FORMAT }),
            Err(_) => Err(StateError::Corrupt { path: path.to_owned(), detail: "its format version is not a number".into() }),
        },
    }
}

fn classify(path: &Path, e: &rocksdb::Error) -> StateError {
    let (path, detail) = (path.to_owned(), e.to_string());
    if detail.contains("lock hold by") || detail.contains("While lock file") {
        StateError::Held { path }
    } else if detail.contains("No space left") || detail.contains("disk quota") {
        StateError::Full { path, detail }
    } else if e.kind() == ErrorKind::Corruption {
        StateError::Corrupt { path, detail }
    } else {
        StateError::Storage { path, detail }
    }
}

/// A store's rows within a directory.
#[derive(Clone)]
pub struct RocksBackend {
    directory: Directory,
    family: &'static str,
    prefix: Vec<u8>,
    durability: Durability,
}

impl RocksBackend {
    /// The directory it lies in.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The full key of a row.
    pub fn row(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    /// Deletes all its rows.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn clear(&self) -> Result<()> {
        let to = key::after(&self.prefix).unwrap_or_else(|| vec![0xff; 64]);
        self.directory.delete_range(self.family, &self.prefix, &to)
    }

    fn scan_with(&self, options: ReadOptions, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let start = self.row(from);
        let end = match to {
            Some(to) => Some(self.row(to)),
            None => key::after(&self.prefix),
        };
        let mut options = options;
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let db = self.directory.db()?;
        let family = self.directory.family(&db, self.family)?;
        for row in db.iterator_cf_opt(family, options, IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = row.map_err(|e| self.directory.fail(&e))?;
            if !visit(key.get(self.prefix.len()..).unwrap_or_default(), &value) {
                break;
            }
        }
        Ok(())
    }
}

impl Read for RocksBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        let db = self.directory.db()?;
        let family = self.directory.family(&db, self.family)?;
        let value = db.get_pinned_cf(family, self.row(key)).map_err(|e| self.directory.fail(&e))?;
        Ok(value.map(|v| v.as_ref().into()))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.scan_with(ReadOptions::default(), from, to, visit)
    }
}

impl Backend for RocksBackend {
    fn apply(&mut self, writes: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<()> {
        let rows: Vec<_> = writes.map(|(k, v)| (self.row(k), v)).collect();
        self.directory.write(rows.iter().map(|(k, v)| (self.family, k.as_slice(), *v)), self.durability)
    }
}

impl Snapshots for RocksBackend {
    fn read(&self, reading: &mut dyn FnMut(&dyn Read)) {
        match self.directory.db() {
            Ok(db) => reading(&SnapshotRead { backend: self, db: &db, snapshot: &db.snapshot() }),
            // Each read says why it can't be.
            Err(_) => reading(self),
        }
    }

    fn size(&self) -> Option<Size> {
        Some(self.directory.size())
    }
}

struct SnapshotRead<'a> {
    backend: &'a RocksBackend,
    db: &'a DB,
    snapshot: &'a rocksdb::Snapshot<'a>,
}

impl Read for SnapshotRead<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        let family = self.backend.directory.family(self.db, self.backend.family)?;
        let value = self.snapshot.get_pinned_cf(family, self.backend.row(key)).map_err(|e| self.backend.directory.fail(&e))?;
        Ok(value.map(|v| v.as_ref().into()))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.snapshot);
        self.backend.scan_with(options, from, to, visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_one_directory_are_apart_and_a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::new(8 << 20, 4 << 20);
        let directory = Directory::open(dir.path(), &["state"], &shared).unwrap();
        let (mut a, b) = (directory.backend("state", &[1], Durability::Process), directory.backend("state", &[2], Durability::Process));
        a.apply(&mut [(b"k".as_slice(), Some(b"v".as_slice()))].into_iter()).unwrap();
        assert_eq!(a.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
        assert_eq!(b.get(b"k").unwrap(), None);
        Snapshots::read(&a, &mut |read| {
            let mut writer = a.clone();
            writer.apply(&mut [(b"k".as_slice(), None)].into_iter()).unwrap();
            assert!(read.get(b"k").unwrap().is_some(), "a snapshot stands still");
        });
        assert!(matches!(Directory::open(dir.path(), &["state"], &shared), Err(StateError::Held { .. })));
    }

    #[test]
    fn a_newer_format_and_damaged_files_are_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::new(8 << 20, 4 << 20);
        let directory = Directory::open(dir.path(), &[], &shared).unwrap();
        directory.write([("default", FORMAT_KEY, Some(&(FORMAT + 1).to_be_bytes()[..]))], Durability::Disk).unwrap();
        drop(directory);
        assert!(matches!(Directory::open(dir.path(), &[], &shared), Err(StateError::NewerFormat { found, .. }) if found == FORMAT + 1));
        std::fs::write(dir.path().join("CURRENT"), "nonsense").unwrap();
        assert!(matches!(Directory::open(dir.path(), &[], &shared), Err(StateError::Corrupt { .. })));
    }

    #[test]
    fn a_log_that_was_written_over_gives_back_what_is_new_and_nothing_old() {
        let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shared = Shared::new(8 << 20, 4 << 20).reusing_logs();
        let directory = Directory::open(dir.path(), &["state"], &shared).unwrap();
        let row = |n: u32| n.to_be_bytes();
        let write = |round: u8, rows: std::ops::Range<u32>| {
            for n in rows {
                directory.write([("state", row(n).as_slice(), Some([round; 100].as_slice()))], Durability::Disk).unwrap();
            }
        };
        for round in 0..4 {
            write(round, 0..1_000);
            directory.flush().unwrap();
        }
        write(4, 0..3);
        directory.write([("state", row(3).as_slice(), None)], Durability::Disk).unwrap();

        // As a crash leaves it: what lies on disk while the process is at work.
        let mut longest = 0;
        for file in std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap()) {
            std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
            if file.path().extension().is_some_and(|e| e == "log") {
                longest = longest.max(file.metadata().unwrap().len());
            }
        }
        assert!(longest > 50_000, "four rows were written since; a log of {longest} bytes was made anew");
        let after = Directory::open(crashed.path(), &["state"], &shared).unwrap().backend("state", &[], Durability::Disk);
        let rounds = [0, 2, 3, 4, 999].map(|n| after.get(&row(n)).unwrap().map(|value| value[0]));
        assert_eq!(rounds, [Some(4), Some(4), None, Some(3), Some(3)]);
    }
}
