//! One commit: everything the tasks did since the last one, in one transaction.

use super::Partition;
use crate::log::{CommitError, Log, TaskCommit, Transaction};
use std::collections::BTreeMap;
use tillflow_state::StateError;

/// Key of the row that says up to where of its changelog a store is written. Only ever in the store, never in the
/// changelog; it may be lower than the truth, never higher.
pub const POSITION: &[u8] = &[0, 0, 0, 1, b'p', b'o', b's'];

/// At which step a commit failed.
pub enum Failed {
    /// The log did not take it.
    Log(CommitError),
    /// The log took it, a store did not.
    Local(StateError),
    /// It could not be put together.
    State(StateError),
}

/// Commits; false when there was nothing to.
pub fn commit(log: &mut dyn Log, running: &mut BTreeMap<u32, Partition>) -> Result<bool, Failed> {
    let tell = running.values().any(Partition::has_news);
    let dirty: Vec<u32> = running.iter().filter(|(_, p)| p.is_dirty() || (tell && p.joins_news())).map(|(n, _)| *n).collect();
    if dirty.is_empty() {
        return Ok(false);
    }
    let mut records = Vec::new();
    for number in &dirty {
        if let Some(partition) = running.get_mut(number) {
            partition.prepare(tell, &mut records).map_err(Failed::State)?;
        }
    }
    let tasks = dirty.iter().filter_map(|number| {
        let partition = running.get(number)?;
        Some(TaskCommit { partition: *number, offsets: partition.offsets(), rows: partition.store().pending().collect() })
    });
    let transaction = Transaction { records, tasks: tasks.collect() };
    let positions = log.commit(&transaction).map_err(Failed::Log)?;
    drop(transaction);

    for number in &dirty {
        let Some(partition) = running.get_mut(number) else { continue };
        match positions.get(number) {
            Some(position) => {
                let position = position.to_be_bytes();
                partition.store_mut().apply(&[(POSITION, Some(position.as_slice()))]).map_err(Failed::Local)?;
            }
            // The log has put the rows into the backend itself.
            None => partition.store_mut().settle(),
        }
        partition.committed();
    }
    Ok(true)
}
