//! Erased users: what a task has of them goes, and what was recorded of them before is not processed once more.

use super::Partition;
use crate::log::{NewRecord, Record, TopicPartition};
use tillflow_engine_api::Globals;
use tillflow_schemas::{Cleanup, ErasedUser, Event, Role, Timestamp, partition::partition};
use tillflow_state::StateError;

impl Partition {
    /// Whether a record is of a user who was erased after it. What has no time of its own is as old as its place in the log;
    /// a deletion is taken whenever it comes.
    pub(super) fn is_erased(&self, record: &Record, event: &Event, globals: &Globals) -> bool {
        let at = event.time().unwrap_or(record.logged_at);
        match event {
            Event::Customer(change) => change.value.is_some() && globals.is_erased(&change.id, at),
            event => event.user().is_some_and(|user| globals.is_erased(user.as_str(), at)),
        }
    }

    /// Deletes all rows of a user, and with them what compacted outputs say of the user. Who has no rows was erased at rest
    /// already, outputs included.
    pub(super) fn erase(&mut self, erased: &ErasedUser) -> Result<(), StateError> {
        let (user, at) = (erased.user_id.as_str(), self.task.clock().max(Timestamp::EARLIEST));
        if self.task.erase(user)? == 0 {
            return Ok(());
        }
        let outputs = self.shared.catalog.topics().iter().enumerate();
        let stated = outputs.filter(|(_, t)| t.role == Role::Output && t.cleanup == Cleanup::Compact && t.key == "user_id");
        self.raw.extend(stated.map(|(topic, t)| NewRecord {
            to: TopicPartition { topic, partition: partition(user.as_bytes(), t.partitions) },
            at,
            key: Some(user.as_bytes().to_vec()),
            value: None,
            headers: Vec::new(),
        }));
        Ok(())
    }
}
