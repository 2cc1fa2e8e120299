//! One input of a task: records fetched and not yet processed, decoded once.

use super::partition::Shared;
use crate::log::{Record, TopicPartition};
use std::{collections::VecDeque, time::Instant};
use tillflow_schemas::{ClockMark, Event, Record as _, Role, Timestamp};

/// Header of a watermark: the partition of the task that tells it.
pub const SOURCE: &str = "tillflow.source";
/// Header of a watermark: milliseconds.
pub const WATERMARK: &str = "tillflow.watermark";
/// Header of a re-keyed record: the topic it was found in.
pub const FOUND_IN: &str = "tillflow.topic";

/// One input of a task.
pub struct Input {
    /// Where it is read.
    pub at: TopicPartition,
    /// Its role: records of the shop's own topics move the clock and may lie in a foreign partition.
    pub role: Role,
    /// Whether it holds definitions, which the broadcast tables take: here they are only checked, in no order.
    pub definitions: bool,
    /// The next offset to be processed.
    pub position: i64,
    /// The next offset to be fetched.
    pub fetched: i64,
    /// Fetched, not processed.
    pub queue: VecDeque<Pending>,
    /// Whether delivery is held back.
    pub paused: bool,
}

/// A record that waits.
pub struct Pending {
    /// As read.
    pub record: Record,
    /// What it says.
    pub content: Content,
    /// Records are taken in the order of this; one without a time is taken at once. A watermark has the time it tells:
    /// a decision that it lets fall rests on all that lies before it in the other inputs.
    pub time: Option<Timestamp>,
    /// When it was delivered.
    pub delivered: Instant,
}

/// What a record says.
#[allow(clippy::large_enum_variant, reason = "nearly all are events; a box each would cost more than it saves")]
pub enum Content {
    /// It is for the processors.
    Event(Event),
    /// It is in order, and no processor's: a definition.
    Definition,
    /// An upstream task has come this far.
    Watermark(u32, Timestamp),
    /// All clocks go forward to here: the end of an input.
    Mark(Timestamp),
    /// It can't be read, for this reason.
    Broken(String),
    /// It can't be read now: the registry is away.
    Later(String),
}

/// Decodes a record once.
pub fn decode(record: Record, delivered: Instant, shared: &Shared) -> Pending {
    let content = content(&record, shared);
    let time = match &content {
        Content::Event(event) => event.time(),
        Content::Mark(at) => Some(*at),
        Content::Watermark(_, at) => Some(*at).filter(|at| *at != IDLE),
        _ => None,
    };
    Pending { record, content, time, delivered }
}

fn content(record: &Record, shared: &Shared) -> Content {
    let (catalog, codec) = (&shared.catalog, &shared.codec);
    if let (Some(source), Some(at)) = (number(record, SOURCE), number(record, WATERMARK)) {
        return Content::Watermark(source as u32, Timestamp::from_millis(at));
    }
    let Some(mut topic) = catalog.topics().get(record.at.topic) else { return Content::Broken("of an unknown topic".into()) };
    if topic.role == Role::Rekey {
        let found_in = record.header(FOUND_IN).and_then(|n| std::str::from_utf8(n).ok()).and_then(|n| catalog.get(n));
        let Some(found_in) = found_in else { return Content::Broken("re-keyed from an unknown topic".into()) };
        topic = found_in;
    }
    match codec.decode(topic, record.key.as_deref(), record.value.as_deref()) {
        Ok(Event::ClockMark(ClockMark { at })) => Content::Mark(at),
        Ok(event) => match shared.definitions.get(&record.at.topic) {
            Some(checks) => checks.iter().find_map(|check| check(&event).err()).map_or(Content::Definition, Content::Broken),
            None => Content::Event(event),
        },
        Err(e) if e.is_temporary() => Content::Later(e.to_string()),
        Err(e) => Content::Broken(e.to_string()),
    }
}

fn number(record: &Record, header: &str) -> Option<i64> {
    record.header(header)?.try_into().ok().map(i64::from_be_bytes)
}

/// The watermark of a task that never saw an event, or none for long, and waits for none: others need not wait for it.
pub const IDLE: Timestamp = Timestamp::MAX;

/// Schema of the mark that sets clocks forward.
pub const MARK: &str = ClockMark::SCHEMA;
