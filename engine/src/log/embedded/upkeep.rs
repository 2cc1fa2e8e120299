//! What the embedded log forgets: records older than their topic's retention, and what newer records of the same key
//! replaced. A bounded step at a time, and only what every group has consumed.
//!
//! Records carry event time, and a history that was imported today is not to go today. So now and then a mark says up
//! to which offset a partition had come by then: what lies before a mark is at least as old as the mark. Compaction
//! keeps an index of each key's last offset, by the key's hash, and looks at each record once.
//!
//! Reference topics are not compacted: their records are versions, each valid from some time on.

use super::{Embedded, LOG, offset_of};
use crate::log::{LogError, TopicPartition};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{Cleanup, Role, Timestamp};
use tillflow_state::{Read, RocksBackend, StateError};

/// Records looked at in one step, at most.
const STEP: usize = 500;
/// A record is compacted once it was in the log as long: until then readers see every value.
const COMPACT_AFTER: Duration = Duration::from_secs(3_600);
/// Tombstones stay as long, for readers that were away; as Kafka's `delete.retention.ms`.
const TOMBSTONES_STAY: Duration = Duration::from_secs(24 * 3_600);
/// Marks in the time that records are kept: they go at most a thirtieth of it late.
const MARKS: u32 = 30;

const MAIN: &str = "default";
/// The next offset of a partition whose last records are gone.
const END: &[u8] = b"end/";
/// Time → the partition's end by then.
const MARK: &[u8] = b"mark/";
/// Up to where a partition is compacted.
const DONE: &[u8] = b"done/";
/// A key's hash → the offset of its last record.
const LAST: &[u8] = b"last/";
/// Offset of a tombstone that is to go → its key's hash.
const DEAD: &[u8] = b"dead/";

type Rows = Vec<(&'static str, Vec<u8>, Option<Vec<u8>>)>;

fn hash(key: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(Sha256::digest(key)).for_each(|(to, from)| *to = from);
    short
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_be_bytes)
}

impl Embedded {
    /// One step of all partitions. Of each, only records below `consumed` go; true when there is more to do now.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn tidy(&self, now: Timestamp, consumed: impl Fn(TopicPartition) -> Result<i64, StateError>) -> Result<bool, LogError> {
        let mut more = false;
        for (topic, t) in self.catalog().topics().iter().enumerate() {
            for at in (0..t.partitions).map(|partition| TopicPartition { topic, partition }) {
                match (t.cleanup, t.retention) {
                    (Cleanup::Delete, Some(retention)) => self.expire(at, retention, now, consumed(at)?)?,
                    (Cleanup::Compact, _) if !matches!(t.role, Role::Reference | Role::Changelog) => {
                        more |= self.compact_step(at, now, consumed(at)?)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(more)
    }

    fn rows_of(&self, kind: &[u8], at: TopicPartition) -> RocksBackend {
        self.inner.directory.backend(MAIN, &[kind, &self.prefix(at)].concat(), self.inner.durability)
    }

    /// The end of a partition as it was when records were last taken from it.
    pub(super) fn kept_end(&self, at: TopicPartition) -> Result<i64, StateError> {
        Ok(self.rows_of(END, at).get(&[])?.and_then(|v| number(&v)).unwrap_or(0))
    }

    /// Forgets what upkeep knows of a partition that begins anew.
    pub(super) fn forget_upkeep(&self, at: TopicPartition) -> Result<(), StateError> {
        [END, MARK, DONE, LAST, DEAD].iter().try_for_each(|kind| self.rows_of(kind, at).clear())
    }

    /// The row of the index that leads to a record, where it is the last of its key.
    pub(super) fn index_row(&self, at: TopicPartition, offset: i64) -> Result<Option<Vec<u8>>, LogError> {
        let key = self.read(at, offset, 1)?.pop().filter(|r| r.offset == offset).and_then(|r| r.key);
        let Some(key) = key else { return Ok(None) };
        let index = self.rows_of(LAST, at);
        let points_here = index.get(&hash(&key))?.and_then(|v| number(&v)) == Some(offset);
        Ok(points_here.then(|| index.row(&hash(&key))))
    }

    fn change(&self, rows: &Rows) -> Result<(), StateError> {
        self.inner
            .directory
            .write(rows.iter().map(|(family, key, value)| (*family, key.as_slice(), value.as_deref())), self.inner.durability)
    }

    /// The end that a partition had `age` ago or earlier; marks the present one now and then.
    fn end_before(&self, at: TopicPartition, now: Timestamp, age: Duration) -> Result<i64, LogError> {
        let (marks, end) = (self.rows_of(MARK, at), self.end(at));
        let (mut found, mut newest) = (0, None);
        marks.scan(&[], None, &mut |time, value| {
            let (time, marked) = (Timestamp::from_millis(number(time).unwrap_or(0)), number(value).unwrap_or(0));
            if time.plus(age) <= now {
                found = marked;
            }
            newest = Some((time, marked));
            true
        })?;
        let due = newest.is_none_or(|(time, marked)| marked != end && time.plus(age / MARKS) <= now);
        if due && self.begin(at)? < end {
            self.change(&vec![(MAIN, marks.row(&now.millis().to_be_bytes()), Some(end.to_be_bytes().to_vec()))])?;
        }
        Ok(found)
    }

    /// Takes marks away that led to `before`: all there was to do up to there is done.
    fn forget_marks(&self, at: TopicPartition, before: i64) -> Result<(), StateError> {
        let marks = self.rows_of(MARK, at);
        let mut rows = Rows::new();
        marks.scan(&[], None, &mut |time, value| {
            let old = number(value).unwrap_or(0) <= before;
            if old {
                rows.push((MAIN, marks.row(time), None));
            }
            old
        })?;
        self.change(&rows)
    }

    fn expire(&self, at: TopicPartition, retention: Duration, now: Timestamp, consumed: i64) -> Result<(), LogError> {
        let before = self.end_before(at, now, retention)?.min(consumed);
        if before <= 0 {
            return Ok(());
        }
        if self.begin(at)? < before {
            self.keep_end(at)?;
            self.inner.directory.delete_range(LOG, &self.key(at, 0), &self.key(at, before))?;
        }
        Ok(self.forget_marks(at, before)?)
    }

    fn keep_end(&self, at: TopicPartition) -> Result<(), StateError> {
        self.change(&vec![(MAIN, self.rows_of(END, at).row(&[]), Some(self.end(at).to_be_bytes().to_vec()))])
    }

    fn compact_step(&self, at: TopicPartition, now: Timestamp, consumed: i64) -> Result<bool, LogError> {
        let bound = self.end_before(at, now, COMPACT_AFTER)?.min(consumed);
        let done = self.rows_of(DONE, at);
        let from = done.get(&[])?.and_then(|v| number(&v)).unwrap_or(0);
        if from < bound {
            let (index, dead) = (self.rows_of(LAST, at), self.rows_of(DEAD, at));
            let (records, next) = self.read_on(at, from, STEP)?;
            let (mut rows, mut last) = (Rows::new(), BTreeMap::new());
            for record in records.iter().filter(|r| r.offset < bound) {
                // Erased, all but its place.
                let Some(key) = &record.key else {
                    rows.push((LOG, self.key(at, record.offset), None));
                    continue;
                };
                let hash = hash(key);
                let before = match last.insert(hash, record.offset) {
                    Some(before) => Some(before),
                    None => index.get(&hash)?.and_then(|v| number(&v)),
                };
                if let Some(before) = before {
                    rows.push((LOG, self.key(at, before), None));
                    rows.push((MAIN, dead.row(&before.to_be_bytes()), None));
                }
                if record.value.is_none() {
                    rows.push((MAIN, dead.row(&record.offset.to_be_bytes()), Some(hash.to_vec())));
                }
            }
            rows.extend(last.iter().map(|(hash, offset)| (MAIN, index.row(hash), Some(offset.to_be_bytes().to_vec()))));
            rows.push((MAIN, done.row(&[]), Some(next.min(bound).to_be_bytes().to_vec())));
            self.keep_end(at)?;
            self.change(&rows)?;
            if next < bound {
                return Ok(true);
            }
            self.forget_marks(at, bound)?;
        }
        self.bury(at, now)
    }

    /// Deletes tombstones that were there long enough.
    fn bury(&self, at: TopicPartition, now: Timestamp) -> Result<bool, LogError> {
        let (index, dead) = (self.rows_of(LAST, at), self.rows_of(DEAD, at));
        let mut waiting = Vec::new();
        dead.scan(&[], None, &mut |offset, hash| {
            waiting.extend(offset_of(offset).map(|offset| (offset, hash.to_vec())));
            waiting.len() < STEP
        })?;
        let mut rows = Rows::new();
        for (offset, hash) in &waiting {
            let tombstone = self.read(at, *offset, 1)?.pop().filter(|r| r.offset == *offset);
            if tombstone.is_some_and(|r| r.logged_at.plus(TOMBSTONES_STAY) > now) {
                break;
            }
            rows.push((LOG, self.key(at, *offset), None));
            rows.push((MAIN, dead.row(&offset.to_be_bytes()), None));
            // Its key may have come back since, in a record that is not compacted yet: then that one finds no former.
            if index.get(hash)?.and_then(|v| number(&v)) == Some(*offset) {
                rows.push((MAIN, index.row(hash), None));
            }
        }
        if rows.is_empty() {
            return Ok(false);
        }
        self.keep_end(at)?;
        let all = rows.iter().filter(|(family, ..)| *family == LOG).count() == STEP;
        self.change(&rows)?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{NewRecord, Reader, Start, embedded::EmbeddedReader};
    use proptest::prelude::*;
    use tillflow_schemas::Catalog;
    use tillflow_state::{Durability, Shared};

    const HOUR: Duration = Duration::from_secs(3_600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn open(dir: &tempfile::TempDir) -> Embedded {
        let catalog = Catalog::built_in(1).unwrap();
        Embedded::open(dir.path(), &catalog, Durability::Process, &Shared::new(8 << 20, 4 << 20)).unwrap()
    }

    fn at(log: &Embedded, topic: &str) -> TopicPartition {
        TopicPartition { topic: log.catalog().index(topic).unwrap(), partition: 0 }
    }

    fn write(log: &Embedded, to: TopicPartition, at: Timestamp, key: &str, value: Option<&str>) {
        let value = value.map(|v| v.as_bytes().to_vec());
        let record = NewRecord { to, at, key: Some(key.into()), value, headers: Vec::new() };
        log.write(&[record], std::iter::empty()).unwrap();
    }

    fn tidy(log: &Embedded, now: Timestamp, consumed: i64) {
        while log.tidy(now, |_| Ok(consumed)).unwrap() {}
    }

    /// Whoever reads from the start comes to the end, also where the last records are gone.
    fn offsets(log: &Embedded, at: TopicPartition) -> Vec<i64> {
        let mut reader = EmbeddedReader::new(log);
        reader.assign(&[(at, Start::Earliest)]).unwrap();
        let mut offsets = Vec::new();
        while reader.position(at) != Some(log.end(at)) {
            offsets.extend(reader.poll(Duration::ZERO).unwrap().iter().map(|r| r.offset));
        }
        offsets
    }

    #[test]
    fn records_go_by_the_time_they_were_in_the_log_and_the_end_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::wall();
        let (mut log, old) = (open(&dir), Timestamp::EARLIEST);
        let (inventory, spare) = (at(&log, "inventory"), at(&log, "price_changes"));
        (0..5).for_each(|n| write(&log, inventory, old, &format!("p{n}"), Some("1")));
        tidy(&log, now, i64::MAX);
        tidy(&log, now.plus(89 * DAY), i64::MAX);
        assert_eq!(offsets(&log, inventory), [0, 1, 2, 3, 4], "a history that was imported is kept as long as what is new");
        (5..8).for_each(|n| write(&log, inventory, old, &format!("p{n}"), Some("1")));
        tidy(&log, now.plus(91 * DAY), 3);
        assert_eq!(offsets(&log, inventory), [3, 4, 5, 6, 7], "what is not consumed stays");
        tidy(&log, now.plus(91 * DAY), i64::MAX);
        assert_eq!(offsets(&log, inventory), [5, 6, 7]);
        tidy(&log, now.plus(183 * DAY), i64::MAX);
        assert_eq!(offsets(&log, inventory), Vec::<i64>::new());
        drop(log);
        log = open(&dir);
        assert_eq!((log.end(inventory), log.begin(inventory).unwrap(), log.end(spare)), (8, 8, 0));
        write(&log, inventory, old, "p", Some("1"));
        assert_eq!(offsets(&log, inventory), [8]);
        log.clear(inventory).unwrap();
        drop(log);
        assert_eq!(open(&dir).end(inventory), 0);
    }

    #[test]
    fn a_key_whose_last_record_is_erased_leaves_no_trace_in_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let (log, now) = (open(&dir), Timestamp::wall());
        let segments = at(&log, "segments");
        ["ada", "ben"].iter().for_each(|user| write(&log, segments, now, user, Some("1")));
        tidy(&log, now, i64::MAX);
        tidy(&log, now.plus(2 * HOUR), i64::MAX);
        log.erase(segments, 0).unwrap();
        let mut left = Vec::new();
        log.rows_of(LAST, segments)
            .scan(&[], None, &mut |hash, _| {
                left.push(hash.to_vec());
                true
            })
            .unwrap();
        assert_eq!(left, [hash(b"ben").to_vec()]);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Write(u8, bool),
        Tidy { hours: u8, consumed: i64 },
        Restart,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (0..6_u8, prop::bool::weighted(0.7)).prop_map(|(key, value)| Act::Write(key, value)),
            3 => (0..30_u8, prop_oneof![4 => 0..40_i64, 1 => Just(i64::MAX)]).prop_map(|(hours, consumed)| Act::Tidy { hours, consumed }),
            1 => Just(Act::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// However writing, tidying and restarting follow each other: offsets go on, nobody misses a key's last value,
        /// nothing goes too early, and at last nothing is left but the last values.
        #[test]
        fn only_what_was_replaced_or_deleted_goes(acts in prop::collection::vec(act(), 1..60)) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = open(&dir);
            let segments = at(&log, "segments");
            let mut now = Timestamp::wall();
            // (time, key, whether it has a value), by offset.
            let mut model: Vec<(Timestamp, u8, bool)> = Vec::new();
            let mut committed = 0;
            let is_last = |model: &[(Timestamp, u8, bool)], offset: usize| model[offset + 1..].iter().all(|(_, k, _)| *k != model[offset].1);
            for act in acts {
                match act {
                    Act::Write(key, value) => {
                        write(&log, segments, now, &key.to_string(), value.then_some("v"));
                        model.push((now, key, value));
                    }
                    Act::Tidy { hours, consumed } => {
                        now = now.plus(HOUR * u32::from(hours));
                        // Groups never go back.
                        let consumed = consumed.max(committed);
                        committed = consumed;
                        let before = offsets(&log, segments);
                        tidy(&log, now, consumed);
                        let after = offsets(&log, segments);
                        for offset in before.into_iter().filter(|o| !after.contains(o)) {
                            let (written, key, value) = model[offset as usize];
                            let replaced = model.iter().skip(offset as usize + 1).zip(offset + 1..).any(|((then, k, _), later)| {
                                *k == key && later < consumed && then.plus(HOUR) <= now
                            });
                            prop_assert!(replaced || (!value && offset < consumed && written.plus(DAY) <= now), "offset {offset}");
                        }
                    }
                    Act::Restart => {
                        drop(log);
                        log = open(&dir);
                    }
                }
                prop_assert_eq!(log.end(segments), model.len() as i64);
                let left = offsets(&log, segments);
                for offset in (0..model.len()).filter(|o| is_last(&model, *o) && model[*o].2) {
                    prop_assert!(left.contains(&(offset as i64)), "offset {offset} holds a last value");
                }
            }
            // What is marked now is old enough then.
            tidy(&log, now.plus(HOUR), i64::MAX);
            tidy(&log, now.plus(2 * DAY), i64::MAX);
            let last = (0..model.len()).filter(|o| is_last(&model, *o) && model[*o].2).map(|o| o as i64);
            prop_assert_eq!(offsets(&log, segments), last.collect::<Vec<_>>());
        }
    }
}
