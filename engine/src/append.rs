//! Appending from outside: the gateway's records, in order, many requests in one write.

use crate::{
    log::{NewRecord, TopicPartition, embedded::Embedded},
    port::{Append, PortError},
};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::Arc;
use tillflow_schemas::{Catalog, Codec, TRACEPARENT, Timestamp, partition::partition};
use tokio::sync::oneshot;

/// Requests that may wait.
const WAITING: usize = 4_096;
/// Requests written at once, at most.
const TOGETHER: usize = 256;

/// Where a request's answer goes.
pub type Answer = oneshot::Sender<Result<(), PortError>>;

/// Appends on behalf of the gateway.
pub trait Appender: Send + Sync {
    /// Appends records in order and answers once they are safe.
    fn append(&self, records: Vec<NewRecord>, answer: Answer);
}

/// Places records by their keys, written as their topics state.
///
/// # Errors
/// When a schema has no topic.
pub fn place(catalog: &Catalog, codec: &Codec, records: Vec<Append>) -> Result<Vec<NewRecord>, PortError> {
    records
        .into_iter()
        .map(|r| {
            let topic = catalog.of_schema(r.schema).ok_or_else(|| PortError::Refused(format!("no topic holds {}", r.schema)))?;
            let index = catalog.index(&topic.name).unwrap_or_default();
            let home = r.key.as_ref().or(r.placed_by.as_ref()).map_or(0, |by| partition(by.as_bytes(), topic.partitions));
            Ok(NewRecord {
                to: TopicPartition { topic: index, partition: home },
                at: Timestamp::MIN,
                key: r.key.map(String::into_bytes),
                value: r.value.map(|json| codec.written(topic, json)),
                headers: r.trace.map(|trace| (TRACEPARENT.into(), trace.as_str().into())).into_iter().collect(),
            })
        })
        .collect()
}

/// Appends to the embedded log: requests that come together share a write, and so an fsync.
pub struct EmbeddedAppender(Sender<(Vec<NewRecord>, Answer)>);

impl EmbeddedAppender {
    /// Starts the thread that writes. It ends when the appender is dropped.
    pub fn start(log: &Embedded) -> (Arc<Self>, std::thread::JoinHandle<()>) {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING);
        let log = log.clone();
        let thread = std::thread::spawn(move || write(&log, &receiver));
        (Arc::new(Self(sender)), thread)
    }
}

fn write(log: &Embedded, requests: &Receiver<(Vec<NewRecord>, Answer)>) {
    while let Ok(first) = requests.recv() {
        let mut records = Vec::new();
        let mut answers = Vec::new();
        for (more, answer) in std::iter::once(first).chain(requests.try_iter().take(TOGETHER)) {
            records.extend(more);
            answers.push(answer);
        }
        let outcome = log.write(&records, std::iter::empty()).map_err(|e| PortError::Unavailable(e.to_string()));
        for answer in answers {
            // Who asked may have gone.
            let _ = answer.send(outcome.clone());
        }
    }
}

impl Appender for EmbeddedAppender {
    fn append(&self, records: Vec<NewRecord>, answer: Answer) {
        if let Err(TrySendError::Full((_, answer)) | TrySendError::Disconnected((_, answer))) = self.0.try_send((records, answer)) {
            let _ = answer.send(Err(PortError::Unavailable("too many requests wait to be written".into())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::BuiltInRegistry;

    #[test]
    fn with_a_registry_what_is_decided_becomes_avro_and_what_the_shop_sends_stays_json() {
        let catalog = Catalog::built_in(4).unwrap();
        let record =
            |schema, value: &str| Append { schema, key: Some("u1".into()), placed_by: None, value: Some(value.into()), trace: None };
        let result = r#"{"trigger_id": "t", "user_id": "u1", "status": "sent", "detail": "", "at": "2026-03-01T10:00:00.000Z"}"#;
        let event = r#"{"event_type": "page_viewed", "user_id": "u1", "timestamp": "2026-03-01T10:00:00.000Z"}"#;
        let appended = |codec: &Codec| {
            let records =
                vec![record("email_result", result), record("user_event", event), Append { value: None, ..record("customer", "") }];
            place(&catalog, codec, records).unwrap()
        };
        let codec = Codec::with_registry(Arc::new(BuiltInRegistry::default()), "");
        let [sent, told, deleted] = appended(&codec).try_into().unwrap();
        assert_eq!(sent.value.as_ref().unwrap()[0], 0);
        let results = catalog.get("email_results").unwrap();
        assert_eq!(codec.decode(results, None, sent.value.as_deref()), codec.decode(results, None, Some(result.as_bytes())));
        assert_eq!((told.value.unwrap(), deleted.value), (event.as_bytes().to_vec(), None));
        assert_eq!(appended(&Codec::json())[0].value.as_deref(), Some(result.as_bytes()), "no registry is configured");
    }
}
