//! How a record is stored.

use crate::log::{Headers, NewRecord, Record, TopicPartition};
use serde::{Deserialize, Serialize};
use tillflow_schemas::Timestamp;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    /// Event time, or the time of appending where the writer gave none.
    at: i64,
    #[serde(borrow)]
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers,
}

/// The stored form of a record.
pub fn encode(record: &NewRecord, now: Timestamp) -> Vec<u8> {
    let at = if record.at == Timestamp::MIN { now } else { record.at };
    let stored = Stored { at: at.millis(), key: record.key.as_deref(), value: record.value.as_deref(), headers: record.headers.clone() };
    postcard::to_allocvec(&stored).unwrap_or_default()
}

/// The record of a stored form; `None` when it is damaged.
pub fn decode(at: TopicPartition, offset: i64, bytes: &[u8]) -> Option<Record> {
    let stored: Stored<'_> = postcard::from_bytes(bytes).ok()?;
    Some(Record {
        at,
        offset,
        logged_at: Timestamp::from_millis(stored.at),
        key: stored.key.map(<[u8]>::to_vec),
        value: stored.value.map(<[u8]>::to_vec),
        headers: stored.headers,
    })
}
