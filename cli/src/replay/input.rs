//! Reads recorded topics: JSON lines or CSV, plain, gzip or zstd, merged by time.

use crate::commands::Usage;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};
use tillflow_schemas::{Catalog, Event, Role, Timestamp};

/// One recorded record.
#[derive(Debug)]
pub struct Line {
    /// When: the order in which records are taken; `Timestamp::MIN` is before everything.
    pub at: Timestamp,
    /// The topic's place in the catalogue: records of one moment are taken in that order.
    pub topic: usize,
    /// The key its partition follows from.
    pub key: Option<String>,
    /// What its partition follows from where there is no key.
    pub placed_by: Option<String>,
    /// The value as JSON.
    pub value: Option<Vec<u8>>,
}

/// Reads all files given as `[TOPIC=]FILE` and sorts their lines by time.
///
/// # Errors
/// Says which file, and for a file that is neither JSON lines nor CSV, which line.
pub fn read(sources: &[String], catalog: &Catalog, mut progress: impl FnMut(u64)) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for source in sources {
        let (topic, path) = topic_and_path(source, catalog)?;
        let read = read_file(topic, &path, catalog, &mut lines, &mut progress);
        read.with_context(|| format!("reading {path}"))?;
    }
    // Stable: lines of one moment and topic stay in file order.
    lines.sort_by_key(|l| (l.at, l.topic));
    Ok(lines)
}

/// Reads one file of a topic, its lines in the order they stand in.
///
/// # Errors
/// As [`read`].
pub fn read_as(topic: usize, path: &str, catalog: &Catalog, mut progress: impl FnMut(u64)) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    read_file(topic, path, catalog, &mut lines, &mut progress).with_context(|| format!("reading {path}"))?;
    Ok(lines)
}

fn topic_and_path(source: &str, catalog: &Catalog) -> Result<(usize, String)> {
    if let Some((name, path)) = source.split_once('=')
        && !Path::new(source).exists()
    {
        let topic =
            catalog.index(name).filter(|i| catalog.topics().get(*i).is_some_and(|t| matches!(t.role, Role::Input | Role::Reference)));
        let Some(topic) = topic else {
            let names: Vec<_> =
                catalog.topics().iter().filter(|t| matches!(t.role, Role::Input | Role::Reference)).map(|t| t.name.as_str()).collect();
            return Err(Usage(format!("{source}: '{name}' is not an input topic; those are {}", names.join(", "))).into());
        };
        return Ok((topic, path.to_owned()));
    }
    let default = catalog.of_schema("user_event").and_then(|t| catalog.index(&t.name)).context("no topic holds user events")?;
    Ok((default, source.to_owned()))
}

fn open(path: &str) -> Result<Box<dyn BufRead>> {
    let raw: Box<dyn Read> = if path == "-" { Box::new(std::io::stdin()) } else { Box::new(File::open(path)?) };
    let mut raw = BufReader::with_capacity(1 << 16, raw);
    // The content says what it is, so that `-` may be compressed too.
    let magic = raw.fill_buf()?.get(..4).map(<[u8]>::to_vec).unwrap_or_default();
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(raw))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(BufReader::new(zstd::Decoder::new(raw)?)),
        _ => Box::new(raw),
    })
}

fn read_file(topic: usize, path: &str, catalog: &Catalog, lines: &mut Vec<Line>, progress: &mut impl FnMut(u64)) -> Result<()> {
    let mut reader = open(path)?;
    let stem = path.trim_end_matches(".gz").trim_end_matches(".zst");
    let first = reader.fill_buf()?.iter().copied().find(|b| !b.is_ascii_whitespace());
    if stem.ends_with(".csv") || (!stem.ends_with("l") && first.is_some_and(|b| b != b'{')) {
        return read_csv(topic, reader, catalog, lines, progress);
    }
    for (n, line) in reader.split(b'\n').enumerate() {
        let line = line.with_context(|| format!("line {}", n + 1))?;
        if !line.iter().all(u8::is_ascii_whitespace) {
            lines.push(recorded(topic, line, catalog));
            progress(1);
        }
    }
    Ok(())
}

fn read_csv(topic: usize, reader: impl Read, catalog: &Catalog, lines: &mut Vec<Line>, progress: &mut impl FnMut(u64)) -> Result<()> {
    let mut csv = csv::ReaderBuilder::new().flexible(false).from_reader(reader);
    let header = csv.headers()?.clone();
    for (n, row) in csv.records().enumerate() {
        let row = row.with_context(|| format!("row {}", n + 2))?;
        let mut value = Map::new();
        for (name, cell) in header.iter().zip(row.iter()).filter(|(_, cell)| !cell.is_empty()) {
            value.insert(name.to_owned(), cell_value(cell));
        }
        lines.push(recorded(topic, serde_json::to_vec(&value)?, catalog));
        progress(1);
    }
    Ok(())
}

/// Objects and lists are JSON; true and false are booleans; the rest is text, which numeric fields read too.
fn cell_value(cell: &str) -> Value {
    match cell {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if cell.starts_with(['{', '[']) => serde_json::from_str(cell).unwrap_or_else(|_| Value::String(cell.to_owned())),
        // Whole numbers without a leading zero; an amount stays text, which keeps its digits.
        _ if cell.len() < 16 && !cell.starts_with('0') && cell.bytes().all(|b| b.is_ascii_digit()) => {
            cell.parse::<i64>().map_or_else(|_| Value::String(cell.to_owned()), Value::from)
        }
        _ => Value::String(cell.to_owned()),
    }
}

/// A line is the value, or `{"key", "timestamp", "value"}`. What can't be read goes in as it is: it will be a dead
/// letter, as it would be live.
fn recorded(topic: usize, line: Vec<u8>, catalog: &Catalog) -> Line {
    let schema = catalog.topics().get(topic).map_or("", |t| t.schema.as_str());
    if let Ok(event) = Event::decode(schema, None, Some(&line))
        && event.key().is_some()
    {
        return placed(topic, None, None, Some(line), Some(&event));
    }
    let wrapped = serde_json::from_slice::<Map<String, Value>>(&line)
        .ok()
        .filter(|m| m.contains_key("value") && m.keys().all(|k| ["key", "timestamp", "value"].contains(&k.as_str())));
    let Some(mut wrapped) = wrapped else {
        let event = Event::decode(schema, None, Some(&line)).ok();
        return placed(topic, None, None, Some(line), event.as_ref());
    };
    let key = wrapped.remove("key").and_then(|k| k.as_str().map(str::to_owned));
    let at = wrapped.remove("timestamp").and_then(|t| serde_json::from_value::<Timestamp>(t).ok());
    let value = wrapped.remove("value").filter(|v| !v.is_null()).map(|v| match v {
        Value::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    });
    let event = Event::decode(schema, key.as_deref(), value.as_deref()).ok();
    placed(topic, key, at, value, event.as_ref())
}

fn placed(topic: usize, key: Option<String>, at: Option<Timestamp>, value: Option<Vec<u8>>, event: Option<&Event>) -> Line {
    let stated = event.and_then(|e| e.time().or(e.valid_from()));
    let key = event.and_then(|e| e.key().map(str::to_owned)).or(key);
    let placed_by = event.and_then(|e| e.placed_by().map(str::to_owned));
    Line { at: at.or(stated).unwrap_or(Timestamp::MIN), topic, key, placed_by, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read_at_the_time_from_which_it_counts() {
        let catalog = Catalog::built_in(1).unwrap();
        let at = |schema: &str, line: &str| {
            let topic = catalog.of_schema(schema).and_then(|t| catalog.index(&t.name)).unwrap();
            recorded(topic, line.as_bytes().to_vec(), &catalog).at
        };
        for (schema, id) in [
            ("pricing_rule", "scope"),
            ("campaign", "campaign_id"),
            ("reward", "reward_id"),
            ("challenge", "challenge_id"),
            ("badge", "badge_id"),
            ("segment_definition", "segment_id"),
            ("template", "template_id"),
        ] {
            let from = "2026-03-01T10:00:00Z";
            let stated = format!("{{\"{id}\": \"default\", \"valid_from\": \"{from}\"}}");
            assert_eq!(at(schema, &stated), Timestamp::parse(from).unwrap(), "{schema}");
            assert_eq!(at(schema, &format!("{{\"{id}\": \"default\"}}")), Timestamp::MIN, "{schema}");
        }
    }
}
