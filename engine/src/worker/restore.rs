//! Brings a store up to the end of its changelog before its task runs. A crash never wipes a store: what it lacks is
//! the short tail that was committed and not yet written locally.

use super::commit::POSITION;
use crate::{
    log::{ChangelogPosition, Log, LogError, Opened, Start, TopicPartition},
    metrics::Metrics,
    status::Tasks,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tillflow_engine_api::Place;
use tillflow_state::{Snapshots, StateError, Store};

/// How long a slice waits for changelog records.
const SLICE: Duration = Duration::from_millis(20);

/// A task that does not run yet.
pub struct Restoring {
    /// Its store.
    pub store: Store,
    /// Its store, for queries.
    pub snapshots: Arc<dyn Snapshots>,
    /// Where the store stands; `None` where there is nothing to restore.
    pub changelog: Option<ChangelogPosition>,
    /// Its inputs.
    pub inputs: Vec<TopicPartition>,
    /// Its place.
    pub place: Place,
    /// The changelog's high watermark when restore began, and where it began.
    pub target: Option<(i64, i64)>,
}

impl Restoring {
    /// A task whose store was just opened.
    pub fn new(opened: Opened, inputs: Vec<TopicPartition>, place: Place) -> Self {
        Self { store: opened.store, snapshots: opened.snapshots, changelog: opened.changelog, inputs, place, target: None }
    }

    /// Whether the store holds all that was committed: by position, since the changelog has gaps.
    pub fn is_done(&self) -> bool {
        match (self.changelog, self.target) {
            (None, _) => true,
            (Some(changelog), Some((target, _))) => changelog.offset >= target,
            (Some(_), None) => false,
        }
    }
}

/// Moves all restoring tasks on by one slice.
///
/// # Errors
/// When the log or a store fails.
pub fn slice(
    log: &mut dyn Log,
    restoring: &mut BTreeMap<u32, Restoring>,
    group: &str,
    tasks: &Tasks,
    metrics: &Metrics,
) -> Result<(), LogError> {
    let Some(reader) = log.changelog() else { return Ok(()) };
    let mut fresh = false;
    for (partition, task) in restoring.iter_mut().filter(|(_, t)| t.target.is_none()) {
        let Some(changelog) = &mut task.changelog else { continue };
        let end = reader.end(changelog.at)?;
        tracing::info!(group, partition, from = changelog.offset, to = end, "restoring");
        task.target = Some((end, changelog.offset));
        fresh = true;
    }
    let behind: Vec<_> = restoring.values().filter(|t| !t.is_done()).filter_map(|t| t.changelog).collect();
    if behind.is_empty() {
        return Ok(());
    }
    if fresh {
        let starts: Vec<_> = behind.iter().map(|c| (c.at, if c.offset == 0 { Start::Earliest } else { Start::Offset(c.offset) })).collect();
        reader.assign(&starts)?;
    }

    let records = reader.poll(SLICE)?;
    let mut by_task: BTreeMap<TopicPartition, Vec<_>> = BTreeMap::new();
    for record in records {
        by_task.entry(record.at).or_default().push(record);
    }
    for (number, task) in restoring.iter_mut() {
        let (Some(changelog), Some((target, from))) = (&mut task.changelog, task.target) else { continue };
        let position = reader.position(changelog.at).unwrap_or(changelog.offset).max(changelog.offset);
        let records = by_task.remove(&changelog.at).unwrap_or_default();
        if position == changelog.offset && records.is_empty() {
            continue;
        }
        apply(&mut task.store, &records, position)?;
        changelog.offset = position;
        let label = number.to_string();
        metrics.restore_total.with_label_values(&[group, &label]).inc_by(records.len() as u64);
        metrics.restore_remaining.with_label_values(&[group, &label]).set((target - position).max(0));
        tasks.update(group, *number, |view| view.restored = Some(((position - from).max(0) as u64, (target - from).max(0) as u64)));
    }
    if restoring.values().all(Restoring::is_done) {
        // Else it would go on to fetch what the tasks themselves write.
        reader.assign(&[])?;
    }
    Ok(())
}

fn apply(store: &mut Store, records: &[crate::log::Record], position: i64) -> Result<(), StateError> {
    let position = position.to_be_bytes();
    let rows = records.iter().filter_map(|r| Some((r.key.as_deref()?, r.value.as_deref())));
    let mut all = rows.chain(std::iter::once((POSITION, Some(position.as_slice()))));
    store.backend_mut().apply(&mut all)
}
