//! Writes what the processors decided: one JSON-lines file an output topic.

use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};
use tillflow_engine::log::{Record, TopicPartition, embedded::Embedded};
use tillflow_schemas::{Role, Topic};

const BATCH: usize = 1_000;

/// Writes `DIR/TOPIC.jsonl` of every output topic (or counts only, without a directory) and returns how many records
/// each holds.
///
/// # Errors
/// When the log or a file fails.
pub fn write(log: &Embedded, dir: Option<&Path>) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for (index, topic) in log.catalog().topics().iter().enumerate().filter(|(_, t)| t.role == Role::Output) {
        let mut file = match dir {
            Some(dir) => {
                let path = dir.join(format!("{}.jsonl", topic.name));
                Some(BufWriter::new(File::create(&path).with_context(|| format!("creating {}", path.display()))?))
            }
            None => None,
        };
        let mut count = 0;
        let mut merged = Merged::new(log, index, topic.partitions);
        while let Some(record) = merged.next()? {
            count += 1;
            if let Some(file) = &mut file {
                serde_json::to_writer(&mut *file, &line(topic, &record))?;
                file.write_all(b"\n")?;
            }
        }
        if let Some(mut file) = file {
            file.flush()?;
        }
        counts.insert(topic.name.clone(), count);
    }
    Ok(counts)
}

/// Calls `take` with every record of a topic, as it is written, in the order in which it is written.
///
/// # Errors
/// When the log fails.
pub fn each(log: &Embedded, index: usize, topic: &Topic, take: &mut dyn FnMut(Value)) -> Result<()> {
    let mut merged = Merged::new(log, index, topic.partitions);
    while let Some(record) = merged.next()? {
        take(line(topic, &record));
    }
    Ok(())
}

/// The `{"key", "timestamp", "value"}` form of a record.
pub fn line(topic: &Topic, record: &Record) -> Value {
    let mut line = Map::new();
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map_or_else(|_| json!({"base64": BASE64_STANDARD.encode(bytes)}), Value::from);
    line.insert("key".into(), record.key.as_deref().map_or(Value::Null, text));
    line.insert("timestamp".into(), json!(record.logged_at));
    let raw = topic.schema == "dead_letter";
    let value =
        record.value.as_deref().map_or(Value::Null, |v| if raw { text(v) } else { serde_json::from_slice(v).unwrap_or_else(|_| text(v)) });
    line.insert("value".into(), value);
    if raw {
        line.insert("headers".into(), record.headers.iter().map(|(k, v)| (k.clone(), text(v))).collect::<Map<_, _>>().into());
    }
    Value::Object(line)
}

/// The partitions of a topic, merged by timestamp.
struct Merged<'a> {
    log: &'a Embedded,
    partitions: Vec<(TopicPartition, i64, VecDeque<Record>)>,
}

impl<'a> Merged<'a> {
    fn new(log: &'a Embedded, topic: usize, partitions: u32) -> Self {
        Self { log, partitions: (0..partitions).map(|partition| (TopicPartition { topic, partition }, 0, VecDeque::new())).collect() }
    }

    fn next(&mut self) -> Result<Option<Record>> {
        for (at, position, queue) in self.partitions.iter_mut().filter(|(_, _, q)| q.is_empty()) {
            queue.extend(self.log.read(*at, *position, BATCH)?);
            *position = queue.back().map_or(*position, |r| r.offset + 1);
        }
        let first = self.partitions.iter_mut().filter(|(_, _, q)| !q.is_empty()).min_by_key(|(_, _, q)| q.front().map(|r| r.logged_at));
        Ok(first.and_then(|(_, _, queue)| queue.pop_front()))
    }
}
