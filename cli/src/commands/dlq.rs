//! `tillflow dlq`: dead letters by topic, processor and error; sent again or set aside.

use super::{Out, Place, PlaceArgs, Usage, printable, table};
use crate::{config::Config, replay::output};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tillflow_engine::log::{Headers, NewRecord, Record, TopicPartition};
use tillflow_schemas::{Catalog, DeadLetterStatus, Timestamp, partition::partition};

/// Arguments of `tillflow dlq`.
#[derive(Args, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    pub command: DlqCommand,
}

/// What to do with dead letters.
#[derive(Subcommand, Debug)]
pub enum DlqCommand {
    /// Count dead letters by source topic, processor and error
    Ls(DlqOptions),
    /// Show each with its error and its original bytes
    Show(DlqOptions),
    /// Append the original bytes to the topic they came from again, once what failed is mended
    ///
    /// They go behind all that is there, and every processor that reads the topic sees them. None did anything with them
    /// before, since a failure undoes a record for all; what fails again becomes a dead letter again with one attempt
    /// more. Each is sent once: what was retried or dropped is no longer listed. A definition that is sent again counts
    /// as stated now, above what was stated of its id since.
    Retry(DlqOptions),
    /// Set dead letters aside: they are no longer listed. Their bytes stay in the topic as long as it keeps records
    Drop(DlqOptions),
}

/// Which dead letters, where, and how to print.
#[derive(Args, Debug, Default)]
pub struct DlqOptions {
    /// Only these: TOPIC/PARTITION/OFFSET of the record that failed, as `show` prints it
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only those from this topic
    #[arg(long)]
    pub topic: Option<String>,
    /// Only those of this processor
    #[arg(long)]
    pub processor: Option<String>,
    /// Only those whose error contains this text
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// All of them: retry and drop ask for this where nothing else says which
    #[arg(long)]
    pub all: bool,
    /// Also those that were retried or dropped
    #[arg(long)]
    pub settled: bool,
    /// At most this many, the oldest first
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl DlqCommand {
    /// Which, where, and how to print.
    pub fn options(&self) -> &DlqOptions {
        match self {
            Self::Ls(options) | Self::Show(options) | Self::Retry(options) | Self::Drop(options) => options,
        }
    }
}

impl DlqOptions {
    fn wants(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|w| w == has);
        (self.ids.is_empty() || self.ids.contains(&letter.id()))
            && is(&self.topic, &letter.topic)
            && is(&self.processor, &letter.processor)
            && self.error.as_ref().is_none_or(|text| letter.error.contains(text))
            && (self.settled || letter.status.is_none())
    }

    fn says_which(&self) -> bool {
        self.all || !self.ids.is_empty() || self.topic.is_some() || self.processor.is_some() || self.error.is_some()
    }
}

/// A dead letter.
struct Letter {
    record: Record,
    topic: String,
    partition: String,
    offset: String,
    processor: String,
    error: String,
    attempts: String,
    /// `retried` or `dropped`.
    status: Option<String>,
}

impl Letter {
    fn of(record: Record, statuses: &BTreeMap<String, String>) -> Self {
        let header = |name: &str| record.header(name).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        let (topic, partition, offset) = (header("source_topic"), header("source_partition"), header("source_offset"));
        let (processor, error, attempts) = (header("processor"), header("error"), header("attempts"));
        let mut letter = Self { record, topic, partition, offset, processor, error, attempts, status: None };
        letter.status = statuses.get(&letter.id()).cloned();
        letter
    }

    fn id(&self) -> String {
        format!("{}/{}/{}", self.topic, self.partition, self.offset)
    }

    /// The record as it was, for the topic it came from; else why that can't be.
    fn again(&self, catalog: &Catalog) -> Result<NewRecord, String> {
        let Some((topic, t)) = catalog.topics().iter().enumerate().find(|(_, t)| t.name == self.topic) else {
            return Err("a timer has no bytes to send; it fires again by itself if its processor sets it again".into());
        };
        if let Some(bytes) = self.record.header("truncated") {
            let length = String::from_utf8_lossy(bytes);
            return Err(format!("only the beginning of its {length} bytes was kept; the whole lies at its source, while that is kept"));
        }
        let home = self.partition.parse().ok().filter(|p| *p < t.partitions);
        let headers: Headers = vec![("attempts".into(), self.attempts.clone().into_bytes())];
        Ok(NewRecord {
            to: TopicPartition { topic, partition: home.ok_or("its partition is no more")? },
            at: self.record.logged_at,
            key: self.record.key.clone(),
            value: self.record.value.clone(),
            headers,
        })
    }
}

/// Lists, shows, retries or drops.
///
/// # Errors
/// When the log fails, or retry and drop don't know which.
pub fn run(args: &DlqArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let options = args.command.options();
    let settles = matches!(args.command, DlqCommand::Retry(_) | DlqCommand::Drop(_));
    if settles && !options.says_which() {
        return Err(Usage("say which: IDs, --topic, --processor, --error, or --all".into()).into());
    }
    let place = Place::open(config)?;
    let mut letters = read(&place)?;
    letters.retain(|l| options.wants(l));
    letters.truncate(options.limit.unwrap_or(usize::MAX));
    if let Some(unknown) = options.ids.iter().find(|id| !letters.iter().any(|l| l.id() == **id)) {
        bail!("there is no open dead letter {unknown}");
    }
    match &args.command {
        DlqCommand::Ls(_) => list(&letters, options.json, out),
        DlqCommand::Show(_) => show(&place, &letters, options.json, out),
        DlqCommand::Retry(_) => settle(&place, &letters, "retried", options.json, out),
        DlqCommand::Drop(_) => settle(&place, &letters, "dropped", options.json, out),
    }
}

/// All dead letters, the oldest first.
fn read(place: &Place) -> Result<Vec<Letter>> {
    let mut statuses = BTreeMap::new();
    for record in place.read_all(place.topic("dead_letter_status")?.0)? {
        if let Some(status) = record.value.as_deref().and_then(|v| serde_json::from_slice::<DeadLetterStatus>(v).ok()) {
            statuses.insert(status.id, status.status);
        }
    }
    let records = place.read_all(place.topic("dead_letter")?.0)?;
    let mut letters: Vec<Letter> = records.into_iter().map(|r| Letter::of(r, &statuses)).collect();
    letters.sort_by_key(|l| l.record.logged_at);
    Ok(letters)
}

fn list(letters: &[Letter], as_json: bool, out: Out<'_>) -> Result<()> {
    let mut groups: BTreeMap<(&str, &str, &str), (u64, Timestamp, Timestamp)> = BTreeMap::new();
    for letter in letters {
        let at = letter.record.logged_at;
        let group = groups.entry((&letter.topic, &letter.processor, &letter.error)).or_insert((0, at, at));
        *group = (group.0 + 1, group.1.min(at), group.2.max(at));
    }
    let mut rows = Vec::new();
    for ((topic, processor, error), (count, first, last)) in groups {
        if as_json {
            let group = json!({"topic": topic, "processor": processor, "error": error, "count": count, "first": first, "last": last});
            writeln!(out, "{group}")?;
        } else {
            rows.push(vec![count.to_string(), printable(topic, 60), printable(processor, 40), last.to_string(), printable(error, 200)]);
        }
    }
    match (as_json, rows.is_empty()) {
        (true, _) => {}
        (false, true) => writeln!(out, "There are no dead letters.")?,
        (false, false) => table(out, &["count", "topic", "processor", "last", "error"], &rows)?,
    }
    Ok(())
}

fn show(place: &Place, letters: &[Letter], as_json: bool, out: Out<'_>) -> Result<()> {
    let topic = place.topic("dead_letter")?.1;
    for letter in letters {
        let mut line = output::line(topic, &letter.record);
        if as_json {
            if let Some(object) = line.as_object_mut() {
                object.insert("id".into(), json!(letter.id()));
                object.insert("status".into(), json!(letter.status));
            }
            writeln!(out, "{line}")?;
            continue;
        }
        let status = letter.status.as_ref().map_or(String::new(), |s| format!(", {s}"));
        writeln!(
            out,
            "{}  {}, attempt {}{status}",
            printable(&letter.id(), 200),
            letter.record.logged_at,
            printable(&letter.attempts, 10)
        )?;
        writeln!(out, "  {}: {}", printable(&letter.processor, 40), printable(&letter.error, 1_000))?;
        let text = |field: &str| line.get(field).map_or(String::new(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        writeln!(out, "  key    {}", printable(&text("key"), 200))?;
        writeln!(out, "  value  {}", printable(&text("value"), 1_000))?;
    }
    Ok(())
}

/// Notes what became of them, and sends the retried ones, all in one write.
fn settle(place: &Place, letters: &[Letter], status: &str, as_json: bool, out: Out<'_>) -> Result<()> {
    let (topic, t) = place.topic("dead_letter_status")?;
    let mut records = Vec::new();
    let mut refused = 0_u64;
    let mut settled = BTreeSet::new();
    for letter in letters.iter().filter(|l| l.status.is_none()) {
        let id = letter.id();
        // One record that failed twice over has two letters and goes out once.
        if settled.contains(&id) {
            continue;
        }
        if status == "retried" {
            match letter.again(place.catalog()) {
                Ok(record) => records.push(record),
                Err(reason) => {
                    refused += 1;
                    eprintln!("tillflow: {}: {reason}", printable(&id, 200));
                    continue;
                }
            }
        }
        let value = serde_json::to_vec(&DeadLetterStatus { id: id.clone(), status: status.into(), at: Timestamp::wall() })?;
        records.push(NewRecord {
            to: TopicPartition { topic, partition: partition(id.as_bytes(), t.partitions) },
            at: Timestamp::wall(),
            key: Some(id.clone().into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        });
        settled.insert(id);
    }
    if !records.is_empty() {
        place.append(records)?;
    }
    if as_json {
        writeln!(
            out,
            "{}",
            json!({"status": status, "count": settled.len(), "refused": refused, "ids": settled.iter().map(|i| Value::from(i.as_str())).collect::<Vec<_>>()})
        )?;
    } else {
        writeln!(out, "{} {status}.", settled.len())?;
    }
    if refused > 0 {
        bail!("{refused} could not be {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::open_embedded;

    /// A data directory with two letters of one kind and one timer's.
    fn prepared() -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let catalog = Catalog::built_in(4).unwrap();
        let log = open_embedded(&config, &catalog, dir.path()).unwrap();
        let topic = catalog.index("dead_letters").unwrap();
        let letter = |source: &str, offset: &str, error: &str| NewRecord {
            to: TopicPartition { topic, partition: 1 },
            at: Timestamp::EARLIEST,
            key: Some(b"u1".to_vec()),
            value: Some(b"{broken".to_vec()),
            headers: [
                ("source_topic", source),
                ("source_partition", "2"),
                ("source_offset", offset),
                ("processor", "decode"),
                ("error", error),
                ("attempts", "1"),
            ]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .to_vec(),
        };
        let letters =
            [letter("user_events", "7", "not JSON"), letter("user_events", "8", "not JSON"), letter("timer of customers", "9", "x")];
        log.write(&letters, std::iter::empty()).unwrap();
        (dir, config)
    }

    fn print(config: &Config, command: DlqCommand) -> Result<Vec<Value>> {
        let mut out = Vec::new();
        let result = run(&DlqArgs { command }, config, &mut out);
        let lines = String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        result.map(|()| lines)
    }

    fn options() -> DlqOptions {
        DlqOptions { json: true, ..DlqOptions::default() }
    }

    #[test]
    fn letters_are_counted_by_what_failed_and_shown_with_their_bytes() {
        let (_dir, config) = prepared();
        let groups = print(&config, DlqCommand::Ls(options())).unwrap();
        assert_eq!(groups.len(), 2);
        let group = groups.iter().find(|g| g["topic"] == "user_events").unwrap();
        assert_eq!((&group["count"], &group["processor"], &group["error"]), (&json!(2), &json!("decode"), &json!("not JSON")));
        let shown = print(&config, DlqCommand::Show(DlqOptions { error: Some("JSON".into()), limit: Some(1), ..options() })).unwrap();
        assert_eq!((&shown[0]["id"], &shown[0]["value"]), (&json!("user_events/2/7"), &json!("{broken")));
        let mut out = Vec::new();
        run(&DlqArgs { command: DlqCommand::Show(DlqOptions::default()) }, &config, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("decode: not JSON"));
    }

    #[test]
    fn a_retried_letter_is_in_its_topic_once_and_no_longer_listed() {
        let (_dir, config) = prepared();
        assert!(print(&config, DlqCommand::Retry(options())).unwrap_err().is::<Usage>());
        let one = || DlqOptions { ids: vec!["user_events/2/7".into()], ..options() };
        assert_eq!(print(&config, DlqCommand::Retry(one())).unwrap()[0]["count"], 1);
        assert!(print(&config, DlqCommand::Retry(one())).is_err());
        print(&config, DlqCommand::Drop(DlqOptions { topic: Some("user_events".into()), ..options() })).unwrap();
        let left = print(&config, DlqCommand::Show(options())).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0]["id"], "timer of customers/2/9");
        assert_eq!(print(&config, DlqCommand::Show(DlqOptions { settled: true, ..options() })).unwrap().len(), 3);
        assert!(print(&config, DlqCommand::Retry(DlqOptions { all: true, ..options() })).unwrap_err().to_string().contains("1 could not"));

        let place = Place::open(&config).unwrap();
        let sent = place.read_all(place.topic("user_event").unwrap().0).unwrap();
        assert_eq!(sent.len(), 1);
        assert_eq!(
            (sent[0].at.partition, sent[0].value.as_deref(), sent[0].header("attempts")),
            (2, Some(&b"{broken"[..]), Some(&b"1"[..]))
        );
    }
}
