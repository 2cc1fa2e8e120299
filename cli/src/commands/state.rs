//! `tillflow state`: a look into the stores of an embedded data directory, or of a running instance.

use super::{InstanceArgs, Out, PlaceArgs, Usage, printable, source::Source, table};
use crate::config::Config;
use anyhow::{Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tillflow_engine_api::{Group, keys};
use tillflow_schemas::Timestamp;
use tillflow_state::{Key, key, prefix_of};

/// Bytes of a value that are printed where people read.
const SHOWN: usize = 48;

/// Arguments of `tillflow state`.
#[derive(Args, Debug)]
#[command(
    long_about = "Look into the tables of the tasks' state.\n\nLooks into the data directory where no instance runs on it, else asks the \
    instance that does (--url names another one; on Kafka there is no other way). An instance shows what is committed, of its own tasks \
    alone, and asks for an admin key where keys are configured.",
    after_help = "Examples:\n  tillflow state ls\n  tillflow state get loyalty.accounts u1\n  \
    tillflow state dump loyalty.accounts --json --url http://shop-2:8080 --key ADMIN_KEY"
)]
pub struct StateArgs {
    #[command(subcommand)]
    pub command: StateCommand,
}

/// What to look at.
#[derive(Subcommand, Debug)]
pub enum StateCommand {
    /// List the tables with their rows and bytes
    Ls {
        #[command(flatten)]
        options: StateOptions,
    },
    /// Show the rows of a table whose key begins with KEY, such as a user_id
    Get {
        /// The table, as `state ls` names it
        table: String,
        /// The first field of the key
        key: String,
        #[command(flatten)]
        options: StateOptions,
    },
    /// Show all rows of a table
    Dump {
        /// The table, as `state ls` names it
        table: String,
        /// Stop after this many rows
        #[arg(long, value_name = "ROWS")]
        limit: Option<usize>,
        #[command(flatten)]
        options: StateOptions,
    },
}

/// Where, and how to print.
#[derive(Args, Debug, Default)]
pub struct StateOptions {
    /// Print one JSON object a line, with values in base64 and whole
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub instance: InstanceArgs,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl StateCommand {
    /// Where, and how to print.
    pub fn options(&self) -> &StateOptions {
        match self {
            Self::Ls { options } | Self::Get { options, .. } | Self::Dump { options, .. } => options,
        }
    }
}

/// A table's name and how its rows begin.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    prefix: [u8; 4],
}

/// The engine's own tables, which every task has.
const RESERVED: [(&str, u32); 5] =
    [("engine", 1), ("engine.timers_by_time", 2), ("engine.timers_by_key", 3), ("engine.seen", 4), ("engine.seen_lately", 5)];

/// Looks into the stores.
///
/// # Errors
/// When there is no such directory, table or row, or another process holds the directory.
pub fn run(args: &StateArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let groups = tillflow_processors::groups(&config.settings());
    // A wrong table is told before the directory is opened.
    let find = |name: &str| find_table(&groups, name);
    match &args.command {
        StateCommand::Ls { options } => list(&Source::open(&options.instance, config)?, &groups, options.json, out),
        StateCommand::Get { table, key, options } => {
            let wanted = find(table)?;
            let mut from = wanted.prefix.to_vec();
            key::write_text(key, &mut from);
            let mut printer = Printer { out, as_json: options.json, left: usize::MAX, printed: 0, failure: None };
            rows(&Source::open(&options.instance, config)?, &groups, &wanted, &from, &mut printer)?;
            if printer.printed == 0 {
                bail!("{table} has no row whose key begins with '{key}'");
            }
            Ok(())
        }
        StateCommand::Dump { table, limit, options } => {
            let wanted = find(table)?;
            let mut printer = Printer { out, as_json: options.json, left: limit.unwrap_or(usize::MAX), printed: 0, failure: None };
            rows(&Source::open(&options.instance, config)?, &groups, &wanted, &wanted.prefix, &mut printer)
        }
    }
}

fn tables(group: &Group) -> Vec<Named> {
    let own = group.parts.iter().flat_map(|p| &p.declared.stores).map(|name| Named { name: (*name).to_owned(), prefix: prefix_of(name) });
    let reserved = RESERVED.iter().map(|(name, prefix)| Named { name: (*name).to_owned(), prefix: prefix.to_be_bytes() });
    own.chain(reserved).collect()
}

/// The name of the table that a row belongs to.
pub fn table_of(group: &Group, row: &[u8]) -> String {
    let prefix = row.first_chunk().copied().unwrap_or_default();
    tables(group).into_iter().find(|t| t.prefix == prefix).map_or_else(|| format!("unknown ({})", hex(&prefix)), |t| t.name)
}

fn find_table(groups: &[Group], name: &str) -> Result<Named> {
    let all: Vec<Named> = groups.iter().flat_map(tables).collect();
    if let Some(found) = all.iter().find(|t| t.name == name) {
        return Ok(found.clone());
    }
    let nearest = keys::nearest(name, all.iter().map(|t| t.name.as_str()));
    let hint = nearest.map_or(String::new(), |near| format!("the nearest is '{near}', "));
    Err(Usage(format!("there is no table '{name}'; {hint}`tillflow state ls` lists all")).into())
}

fn list(source: &Source, groups: &[Group], as_json: bool, out: Out<'_>) -> Result<()> {
    let mut printed = Vec::new();
    for group in groups {
        let names: BTreeMap<[u8; 4], String> = tables(group).into_iter().map(|t| (t.prefix, t.name)).collect();
        // Tables without rows are listed too: their names are what `get` and `dump` take.
        let mut sums: BTreeMap<String, (u64, u64)> = names.values().map(|name| (name.clone(), (0, 0))).collect();
        for (prefix, rows, bytes) in source.sums(group)? {
            // A table of a former version, or of a processor that is no more.
            let name = names.get(&prefix).cloned().unwrap_or_else(|| format!("unknown ({})", hex(&prefix)));
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + rows, sum.1 + bytes);
        }
        for (name, (rows, bytes)) in sums {
            if as_json {
                writeln!(out, "{}", json!({"group": group.name, "table": name, "rows": rows, "bytes": bytes}))?;
            } else {
                printed.push(vec![group.name.to_owned(), name, rows.to_string(), bytes.to_string()]);
            }
        }
    }
    if !as_json {
        table(out, &["group", "table", "rows", "bytes"], &printed)?;
    }
    Ok(())
}

/// Prints rows until told to stop.
struct Printer<'a> {
    out: Out<'a>,
    as_json: bool,
    left: usize,
    printed: usize,
    failure: Option<std::io::Error>,
}

impl Printer<'_> {
    /// Prints a row; whether to go on.
    fn row(&mut self, group: &str, partition: u32, key: &[u8], value: &[u8]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.printed += 1;
        let fields = fields(key);
        let printed = if self.as_json {
            let row = json!({
                "group": group, "partition": partition, "key": fields, "key_hex": hex(key),
                "bytes": value.len(), "value": BASE64_STANDARD.encode(value),
            });
            writeln!(self.out, "{row}")
        } else {
            let key: Vec<String> = fields.iter().map(|f| f.as_str().map_or_else(|| f.to_string(), |t| printable(t, 80))).collect();
            let more = if value.len() > SHOWN { "…" } else { "" };
            let shown = hex(value.get(..SHOWN).unwrap_or(value));
            writeln!(self.out, "{group}/{partition}  {}  {} bytes  {shown}{more}", key.join(" | "), value.len())
        };
        self.failure = printed.err();
        self.failure.is_none()
    }
}

/// Prints the rows of a table that begin with `from`, of every task.
fn rows(source: &Source, groups: &[Group], wanted: &Named, from: &[u8], printer: &mut Printer<'_>) -> Result<()> {
    for group in groups.iter().filter(|g| tables(g).iter().any(|t| t.name == wanted.name)) {
        for partition in source.partitions(group) {
            source.scan(group.name, partition, from, key::after(from).as_deref(), &mut |row, value| {
                printer.row(group.name, partition, row.get(wanted.prefix.len()..).unwrap_or_default(), value)
            })?;
        }
    }
    printer.failure.take().map_or(Ok(()), |e| Err(e.into()))
}

/// The fields of a key, as far as its bytes tell: text, moments, numbers; the rest as hexadecimal.
pub fn fields(mut key: &[u8]) -> Vec<Value> {
    let mut fields = Vec::new();
    while !key.is_empty() {
        let mut rest = key;
        let text = key::read_text(&mut rest).filter(|t| !t.is_empty() && !t.chars().any(char::is_control));
        if let Some(text) = text {
            fields.push(Value::String(text));
            key = rest;
            continue;
        }
        rest = key;
        if let Some(number) = i64::read(&mut rest).filter(|n| n.unsigned_abs() < 1 << 53) {
            // Milliseconds from 2000 to 2100 are most likely a moment.
            let is_moment = (946_684_800_000..4_102_444_800_000).contains(&number);
            fields.push(if is_moment { json!(Timestamp::from_millis(number)) } else { json!(number) });
            key = rest;
            continue;
        }
        rest = key;
        if key.len() == 4 {
            fields.extend(u32::read(&mut rest).map(Value::from));
        } else if let (true, Some(rest)) = (key.len() > 2, key.strip_prefix(&[0, 0])) {
            // Empty text, as timers without detail have it.
            fields.push(json!(""));
            key = rest;
            continue;
        } else {
            fields.push(if key == [0, 0] { json!("") } else { json!({"hex": hex(key)}) });
        }
        break;
    }
    fields
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::open_embedded;
    use tillflow_schemas::Catalog;
    use tillflow_state::Backend;

    #[test]
    fn keys_read_as_far_as_their_bytes_tell() {
        let written = |key: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            key(&mut bytes);
            fields(&bytes)
        };
        assert_eq!(written(&|out| "u1".to_owned().write(out)), [json!("u1")]);
        let moment = 1_772_359_200_000_i64;
        assert_eq!(written(&|out| ("u1".to_owned(), moment).write(out)), [json!("u1"), json!("2026-03-01T10:00:00.000Z")]);
        assert_eq!(written(&|out| (-5_i64, "p1".to_owned()).write(out)), [json!(-5), json!("p1")]);
        assert_eq!(written(&|out| ("u1".to_owned(), 7_u32).write(out)), [json!("u1"), json!(7)]);
        assert_eq!(fields(&[1, 2, 3]), [json!({"hex": "010203"})]);
    }

    #[test]
    fn tables_are_listed_by_name_and_rows_found_by_the_first_field() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let groups = tillflow_processors::groups(&config.settings());
        let name = groups[0].parts[0].declared.stores[0];
        let log = open_embedded(&config, &Catalog::built_in(4).unwrap(), dir.path()).unwrap();
        for user in ["u1", "u2"] {
            let mut row = prefix_of(name).to_vec();
            user.to_owned().write(&mut row);
            log.state(groups[0].name, 2).apply(&mut [(row.as_slice(), Some(b"value".as_slice()))].into_iter()).unwrap();
        }
        let print = |command| {
            let mut out = Vec::new();
            run(&StateArgs { command }, &config, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let options = || StateOptions { json: true, ..StateOptions::default() };
        let error = print(StateCommand::Ls { options: options() }).unwrap_err();
        assert!(format!("{error:#}").contains("another process"), "{error:#}");
        drop(log);
        let listed = print(StateCommand::Ls { options: options() }).unwrap();
        let row = listed.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).find(|r| r["table"] == name).unwrap();
        assert_eq!((&row["group"], &row["rows"]), (&json!(groups[0].name), &json!(2)));
        let found = print(StateCommand::Get { table: name.into(), key: "u2".into(), options: options() }).unwrap();
        let row: Value = serde_json::from_str(&found).unwrap();
        assert_eq!((&row["key"], &row["bytes"], &row["value"]), (&json!(["u2"]), &json!(5), &json!("dmFsdWU=")));
        let dumped = print(StateCommand::Dump { table: name.into(), limit: Some(1), options: StateOptions::default() }).unwrap();
        assert_eq!(dumped, format!("{}/2  u1  5 bytes  76616c7565\n", groups[0].name));
        assert!(print(StateCommand::Get { table: name.into(), key: "u3".into(), options: options() }).is_err());
        let error = print(StateCommand::Dump { table: format!("{name}s"), limit: None, options: options() }).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains(name), "{error}");
    }
}
