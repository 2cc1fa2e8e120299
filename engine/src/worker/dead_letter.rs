//! What can't be processed: the original bytes, with where it came from and why, in the same transaction.

use crate::log::{Headers, NewRecord, Record, TopicPartition};
use sha2::{Digest, Sha256};
use tillflow_engine_api::FailedTimer;
use tillflow_schemas::{Catalog, TRACEPARENT, Timestamp, partition::partition};

/// Schema of the topic of dead letters.
pub const DEAD_LETTER: &str = "dead_letter";
/// Bytes of the original value that are kept; the rest stays at the source offset.
const KEPT: usize = 512 * 1024;
/// Bytes of the original key that are kept.
const KEY_KEPT: usize = 1_024;

/// Header names, as the contract gives them.
mod header {
    pub const TOPIC: &str = "source_topic";
    pub const PARTITION: &str = "source_partition";
    pub const OFFSET: &str = "source_offset";
    pub const PROCESSOR: &str = "processor";
    pub const ERROR: &str = "error";
    pub const ATTEMPTS: &str = "attempts";
    pub const TRUNCATED: &str = "truncated";
    pub const HASH: &str = "sha256";
}

/// The dead letter of a record.
pub fn of_record(catalog: &Catalog, record: &Record, processor: &str, error: &str, at: Timestamp) -> Option<NewRecord> {
    let source = catalog.topics().get(record.at.topic)?;
    let attempts = record.header(header::ATTEMPTS).and_then(|a| std::str::from_utf8(a).ok()?.parse::<u32>().ok()).unwrap_or(0) + 1;
    let mut headers: Headers = vec![
        (header::TOPIC.into(), source.name.clone().into_bytes()),
        (header::PARTITION.into(), record.at.partition.to_string().into_bytes()),
        (header::OFFSET.into(), record.offset.to_string().into_bytes()),
        (header::PROCESSOR.into(), processor.as_bytes().to_vec()),
        (header::ERROR.into(), error.as_bytes().to_vec()),
        (header::ATTEMPTS.into(), attempts.to_string().into_bytes()),
    ];
    headers.extend(record.header(TRACEPARENT).map(|trace| (TRACEPARENT.into(), trace.to_vec())));
    let mut value = record.value.clone();
    if let Some(bytes) = value.as_mut().filter(|v| v.len() > KEPT) {
        headers.push((header::TRUNCATED.into(), bytes.len().to_string().into_bytes()));
        headers.push((header::HASH.into(), hex(&Sha256::digest(&*bytes)).into_bytes()));
        bytes.truncate(KEPT);
    }
    let key = record.key.clone().map(|mut k| {
        k.truncate(KEY_KEPT);
        k
    });
    Some(NewRecord { to: place(catalog, key.as_deref(), record.at.partition)?, at, key, value, headers })
}

/// The dead letter of a timer: it has no bytes, so it is described.
pub fn of_timer(catalog: &Catalog, group: &str, partition: u32, failed: &FailedTimer) -> Option<NewRecord> {
    let timer = &failed.timer;
    let headers: Headers = vec![
        (header::TOPIC.into(), format!("timer of {group}").into_bytes()),
        (header::PARTITION.into(), partition.to_string().into_bytes()),
        (header::OFFSET.into(), timer.fire_at.millis().to_string().into_bytes()),
        (header::PROCESSOR.into(), failed.processor.as_bytes().to_vec()),
        (header::ERROR.into(), failed.reason.clone().into_bytes()),
        (header::ATTEMPTS.into(), b"1".to_vec()),
    ];
    let value = format!("timer of {} with detail '{}' due at {}", timer.key, timer.detail, timer.fire_at).into_bytes();
    let key = Some(timer.key.clone().into_bytes());
    Some(NewRecord { to: place(catalog, key.as_deref(), partition)?, at: timer.fire_at, key, value: Some(value), headers })
}

fn place(catalog: &Catalog, key: Option<&[u8]>, source: u32) -> Option<TopicPartition> {
    let to = catalog.of_schema(DEAD_LETTER)?;
    let partition = key.map_or(source % to.partitions, |k| partition(k, to.partitions));
    Some(TopicPartition { topic: catalog.index(&to.name)?, partition })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_cut_off_and_told_by_its_length_and_hash() {
        let catalog = Catalog::built_in(4).unwrap();
        let at = TopicPartition { topic: catalog.index("user_events").unwrap(), partition: 3 };
        let letter = |bytes: usize| {
            let value = Some(vec![b'a'; bytes]);
            let record = Record { at, offset: 7, logged_at: Timestamp::EARLIEST, key: None, value, headers: Vec::new() };
            of_record(&catalog, &record, "decoder", "not JSON", Timestamp::EARLIEST).unwrap()
        };
        let header = |letter: &NewRecord, name: &str| {
            letter.headers.iter().find(|(n, _)| n == name).map(|(_, value)| String::from_utf8(value.clone()).unwrap())
        };
        // The hash of a million times `a` is one of those in FIPS 180-2.
        let cut = letter(1_000_000);
        assert_eq!(cut.value.as_ref().unwrap().len(), KEPT);
        assert_eq!(header(&cut, header::TRUNCATED).as_deref(), Some("1000000"));
        let hash = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(header(&cut, header::HASH).as_deref(), Some(hash));
        let whole = letter(KEPT);
        assert_eq!((whole.value.unwrap().len(), header(&letter(KEPT), header::HASH)), (KEPT, None));
    }
}
