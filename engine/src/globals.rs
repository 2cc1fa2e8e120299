//! Keeps the broadcast tables: reads their topics whole before the first event, then follows them.

use crate::log::{LogError, Reader, Record, Start, TopicPartition};
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tillflow_engine_api::Globals;
use tillflow_schemas::{Catalog, Codec, Role};

/// How long a registry that is away is left alone.
const REGISTRY_BACKOFF: Duration = Duration::from_millis(200);

/// The broadcast tables of a process, shared by its workers.
#[derive(Clone, Default)]
pub struct SharedGlobals {
    tables: Arc<RwLock<Globals>>,
    loaded: Arc<AtomicBool>,
    /// Up to where what the shop states is in the tables; what the engine itself writes is not waited for.
    stated: Arc<RwLock<BTreeMap<TopicPartition, i64>>>,
}

impl SharedGlobals {
    /// The tables, for a batch of records.
    pub fn read(&self) -> parking_lot::RwLockReadGuard<'_, Globals> {
        self.tables.read()
    }

    /// Whether everything that was in the topics at start is in the tables.
    pub fn loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether something that the shop stated is not in the tables yet, by what `has_more` knows of a position.
    pub fn lack(&self, has_more: impl Fn(TopicPartition, i64) -> bool) -> bool {
        self.stated.read().iter().any(|(at, position)| has_more(*at, *position))
    }

    /// Reads `topics` until `stop` is set.
    ///
    /// # Errors
    /// When the log fails for good.
    pub fn follow(
        &self,
        reader: &mut dyn Reader,
        topics: &[usize],
        catalog: &Catalog,
        codec: &Codec,
        stop: &AtomicBool,
    ) -> Result<(), LogError> {
        let mut following = self.begin(reader, topics, catalog)?;
        while !stop.load(Ordering::Acquire) {
            self.turn(reader, &mut following, catalog, codec)?;
            if !following.unread.is_empty() {
                std::thread::sleep(REGISTRY_BACKOFF);
            }
        }
        Ok(())
    }

    /// Begins to read `topics`.
    ///
    /// # Errors
    /// When the log fails.
    pub fn begin(&self, reader: &mut dyn Reader, topics: &[usize], catalog: &Catalog) -> Result<Following, LogError> {
        let partitions: Vec<_> = topics
            .iter()
            .flat_map(|&topic| {
                let count = catalog.topics().get(topic).map_or(0, |t| t.partitions);
                (0..count).map(move |partition| TopicPartition { topic, partition })
            })
            .collect();
        let targets = reader.ends(&partitions)?.into_iter().collect();
        reader.assign(&partitions.iter().map(|at| (*at, Start::Earliest)).collect::<Vec<_>>())?;
        let is_stated = |at: &TopicPartition| catalog.topics().get(at.topic).is_some_and(|t| t.role == Role::Reference);
        let stated = partitions.into_iter().filter(is_stated).collect();
        Ok(Following { targets, stated, unread: VecDeque::new() })
    }

    /// Takes what there is to read now.
    ///
    /// # Errors
    /// When the log fails for good.
    pub fn turn(&self, reader: &mut dyn Reader, following: &mut Following, catalog: &Catalog, codec: &Codec) -> Result<(), LogError> {
        if !self.loaded() && following.unread.is_empty() {
            following.targets.retain(|(at, end)| reader.position(*at).is_none_or(|p| p < *end));
            if following.targets.is_empty() {
                self.loaded.store(true, Ordering::Release);
                tracing::debug!("the broadcast tables are whole");
            }
        }
        if following.unread.is_empty() {
            following.unread.extend(reader.poll(Duration::from_millis(100))?);
            if following.unread.is_empty() {
                self.state(reader, following);
                return Ok(());
            }
        }
        let mut tables = self.tables.write();
        while let Some(record) = following.unread.pop_front() {
            let Some(topic) = catalog.topics().get(record.at.topic) else { continue };
            let (partition, offset) = (record.at.partition, record.offset);
            match codec.decode(topic, record.key.as_deref(), record.value.as_deref()) {
                Ok(event) => tables.apply(&event, record.logged_at),
                Err(e) if e.is_temporary() => {
                    tracing::warn!(topic = topic.name, partition, offset, "can't be read now, trying again: {e}");
                    following.unread.push_front(record);
                    break;
                }
                // The task that owns the partition makes a dead letter of it.
                Err(e) => tracing::warn!(topic = topic.name, partition, offset, "not taken: {e}"),
            }
        }
        drop(tables);
        if following.unread.is_empty() {
            self.state(reader, following);
        }
        Ok(())
    }

    /// Says up to where all that was read is in the tables.
    fn state(&self, reader: &dyn Reader, following: &Following) {
        let positions = following.stated.iter().filter_map(|at| Some((*at, reader.position(*at)?)));
        *self.stated.write() = positions.collect();
    }
}

/// How far the topics of the broadcast tables still have to be read before the tables are whole.
pub struct Following {
    targets: Vec<(TopicPartition, i64)>,
    /// Partitions of the topics by which the shop states something.
    stated: Vec<TopicPartition>,
    /// Polled and not taken yet: the registry was away.
    unread: VecDeque<Record>,
}
