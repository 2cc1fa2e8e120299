//! Follows the output topics, and what is known of products, from their ends and hands every committed record to
//! subscribers. Follows who owns which task, too, from the beginning.

use crate::{
    log::{LogError, Reader, Record, Start, TopicPartition},
    owners::Owners,
    port::Committed,
};
use serde_json::{Map, Value};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tillflow_schemas::{Catalog, Codec, ProductStatus, Record as _, Role, TaskOwner, Topic};
use tokio::sync::broadcast;

/// Schema of the topic of dead letters.
const DEAD_LETTER: &str = "dead_letter";

/// Records a subscriber may fall behind before it loses the oldest.
pub const CAPACITY: usize = 16_384;

/// All partitions of the topics that subscribers follow.
fn partitions(catalog: &Catalog) -> Vec<TopicPartition> {
    let followed = |topic: &Topic| topic.role == Role::Output || topic.schema == ProductStatus::SCHEMA;
    let topics = catalog.topics().iter().enumerate().filter(|(_, t)| followed(t));
    topics.flat_map(|(topic, t)| (0..t.partitions).map(move |partition| TopicPartition { topic, partition })).collect()
}

/// Positions the reader at the ends of the output topics, and where it is told who owns what.
///
/// # Errors
/// When the log fails.
pub fn begin(reader: &mut dyn Reader, catalog: &Catalog) -> Result<(), LogError> {
    let mut from: Vec<_> = partitions(catalog).into_iter().map(|at| (at, Start::Latest)).collect();
    let owners = catalog.topics().iter().enumerate().filter(|(_, t)| t.schema == TaskOwner::SCHEMA);
    from.extend(
        owners.flat_map(|(topic, t)| (0..t.partitions).map(move |partition| (TopicPartition { topic, partition }, Start::Earliest))),
    );
    reader.assign(&from)
}

/// Hands records to subscribers until `stop` is set.
///
/// # Errors
/// When the log fails for good; when another process took this one's place.
pub fn follow(
    reader: &mut dyn Reader,
    catalog: &Catalog,
    codec: &Codec,
    to: &broadcast::Sender<Arc<Committed>>,
    owners: &Owners,
    stop: &AtomicBool,
) -> Result<(), LogError> {
    while !stop.load(Ordering::Acquire) {
        for record in reader.poll(Duration::from_millis(100))? {
            let Some(topic) = catalog.topics().get(record.at.topic) else { continue };
            if topic.schema == TaskOwner::SCHEMA {
                owners.hear(&record)?;
                continue;
            }
            let value = match &record.value {
                _ if topic.schema == DEAD_LETTER => Some(told(&record)),
                // Subscribers get JSON whatever the topic's format.
                Some(bytes) if bytes.first() == Some(&0) => match codec.decode(topic, record.key.as_deref(), Some(bytes)) {
                    Ok(event) => event.to_json().ok().flatten(),
                    Err(_) => Some(bytes.clone()),
                },
                value => (*value).clone(),
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

/// A dead letter as JSON: where it came from and why, which its headers say, and its bytes as far as they are text.
fn told(letter: &Record) -> Vec<u8> {
    let text = |bytes: &[u8]| Value::String(String::from_utf8_lossy(bytes).into_owned());
    let mut told: Map<String, Value> = letter.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    told.insert("value".into(), letter.value.as_deref().map_or(Value::Null, text));
    Value::Object(told).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Timestamp;

    #[test]
    fn a_dead_letter_says_why_whatever_its_bytes_are() {
        let letter = Record {
            at: TopicPartition { topic: 0, partition: 0 },
            offset: 3,
            logged_at: Timestamp::from_millis(0),
            key: None,
            value: Some(vec![0xff, b'{']),
            headers: vec![("source_topic".into(), b"user_events".to_vec()), ("error".into(), b"not UTF-8".to_vec())],
        };
        let told: Value = serde_json::from_slice(&told(&letter)).unwrap();
        assert_eq!((&told["source_topic"], &told["error"]), (&Value::from("user_events"), &Value::from("not UTF-8")));
        assert_eq!(told["value"], "\u{fffd}{");
    }

    #[test]
    fn outputs_and_product_status_are_followed() {
        let catalog = Catalog::built_in(2).unwrap();
        let followed: Vec<&str> = partitions(&catalog).iter().map(|at| catalog.topics()[at.topic].schema.as_str()).collect();
        for (schema, expected) in [("product_status", 2), ("price_change", 2), ("user_event", 0), ("shop_fact", 0)] {
            assert_eq!(followed.iter().filter(|s| **s == schema).count(), expected, "{schema}");
        }
    }
}
