//! Follows the output topics from their ends and hands every committed record to subscribers.

use crate::{
    log::{LogError, Reader, Start, TopicPartition},
    port::Committed,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tillflow_schemas::{Catalog, Codec, Role};
use tokio::sync::broadcast;

/// Records a subscriber may fall behind before it loses the oldest.
pub const CAPACITY: usize = 16_384;

/// All partitions of the topics of a role.
pub fn partitions(catalog: &Catalog, role: Role) -> Vec<TopicPartition> {
    let of_role = catalog.topics().iter().enumerate().filter(|(_, t)| t.role == role);
    of_role.flat_map(|(topic, t)| (0..t.partitions).map(move |partition| TopicPartition { topic, partition })).collect()
}

/// Positions the reader at the ends of the output topics.
///
/// # Errors
/// When the log fails.
pub fn begin(reader: &mut dyn Reader, catalog: &Catalog) -> Result<(), LogError> {
    let mut from = Vec::new();
    for at in partitions(catalog, Role::Output) {
        from.push((at, Start::Offset(reader.end(at)?)));
    }
    reader.assign(&from)
}

/// Hands records to subscribers until `stop` is set.
///
/// # Errors
/// When the log fails for good.
pub fn follow(
    reader: &mut dyn Reader,
    catalog: &Catalog,
    codec: &Codec,
    to: &broadcast::Sender<Arc<Committed>>,
    stop: &AtomicBool,
) -> Result<(), LogError> {
    while !stop.load(Ordering::Acquire) {
        for record in reader.poll(Duration::from_millis(100))? {
            let Some(topic) = catalog.topics().get(record.at.topic) else { continue };
            let value = match record.value {
                // Subscribers get JSON whatever the topic's format.
                Some(bytes) if bytes.first() == Some(&0) => match codec.decode(topic, record.key.as_deref(), Some(&bytes)) {
                    Ok(event) => event.to_json().ok().flatten(),
                    Err(_) => Some(bytes),
                },
                value => value,
            };
            let committed = Committed {
                topic: topic.name.clone(),
                schema: topic.schema.clone(),
                partition: record.at.partition,
                offset: record.offset,
                at: record.logged_at,
                key: record.key.map(|k| String::from_utf8_lossy(&k).into_owned()).unwrap_or_default(),
                value,
            };
            // No subscriber is no error.
            let _ = to.send(Arc::new(committed));
        }
    }
    Ok(())
}
