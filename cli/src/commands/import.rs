//! `tillflow import`: a shop's history into its log, and nobody hears of it.
//!
//! The history is appended and processed here, with no gateway and no connector there: what follows from it stands in
//! state and topics, but is pushed to nobody. Each e-mail that it triggers gets its result at once, so that no sender
//! takes it up later.

use super::{Out, Place, PlaceArgs, Usage, place};
use crate::{
    config::{Config, LogKind},
    progress::bar,
    replay::{input, marks, records_of, wait_until_drained},
    running,
};
use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use tillflow_engine::{
    Engine, EngineConfig, Wall,
    log::{NewRecord, kafka::Stores},
};
use tillflow_schemas::{Codec, EmailResult, EmailTrigger, Timestamp};

/// Records appended in one write.
const BATCH: usize = 10_000;

/// Arguments of `tillflow import`.
#[derive(Args, Debug)]
#[command(
    long_about = "Bring a shop's history into its log: points, segments, recommendations, prices and balances follow from it as they \
    would have live, but no mail, notification or push goes out.\n\nStop the instances first; the history is processed here, then start \
    them again. Files are as `replay` takes them. Events that are there already (same user and event_id or order_id) count once, so a \
    broken-off import can be given again. Import before live events, or at least before those of the same users: what comes after later \
    events counts as late.",
    after_help = "Examples:\n  tillflow import orders-2025.jsonl.gz products=products.jsonl customers=customers.csv\n  \
    tillflow import orders-2025.jsonl.gz --brokers localhost:9092"
)]
pub struct ImportArgs {
    /// Recorded topics as [TOPIC=]FILE, as in replay
    #[arg(required = true, value_name = "[TOPIC=]FILE")]
    pub files: Vec<String>,
    /// Set the clock to this time at the end, instead of the last record's: timers until then fire, and their mails stay here
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Print what came of it as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Imports.
///
/// # Errors
/// When a file can't be read, an instance runs, or the log fails.
pub fn run(args: &ImportArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let catalog = Arc::new(config.catalog()?);
    let until = args.until.as_deref().map(|t| Timestamp::parse(t).map_err(|e| Usage(format!("--until: {e}")))).transpose()?;
    if until.is_some_and(|t| t > Timestamp::wall()) {
        return Err(Usage("--until lies in the future, and a clock never goes back".into()).into());
    }
    let reading = bar(None, "reading");
    let lines = input::read(&args.files, &catalog, |n| reading.inc(n))?;
    reading.finish_and_clear();
    let Some(last) = lines.iter().map(|l| l.at).max() else { return Err(Usage("the files hold no records".into()).into()) };

    let groups = tillflow_processors::groups(&config.settings());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The log may hold Avro already, of whichever registry `run` has.
    let (codec, _) = runtime.block_on(running::codec(config, &catalog))?;
    let codec = Arc::new(codec);
    let engine_config = EngineConfig { idle_clock: false, upkeep: None, leave: true, ..running::engine_config(config, &Wall::Real) };
    // What is there already stays as it is.
    let place = match config.log_kind() {
        LogKind::Embedded => Place::Embedded(running::open_embedded(config, &catalog, &config.data_dir)?),
        LogKind::Kafka => {
            runtime.block_on(running::prepare_topics(config, &catalog))?;
            let kafka = place::cluster(config)?;
            place::refuse_where_someone_runs(&kafka, &groups)?;
            Place::Kafka(kafka)
        }
    };
    let before = triggers(&place)?;
    let count = lines.len();
    let progress = bar(Some(count as u64), "appending");
    let mut records = records_of(lines, &catalog).peekable();
    while records.peek().is_some() {
        let batch: Vec<NewRecord> = records.by_ref().take(BATCH).collect();
        progress.inc(batch.len() as u64);
        place.append(batch)?;
    }
    progress.finish_and_clear();
    let end = until.unwrap_or(last).min(Timestamp::wall());
    if end > Timestamp::EARLIEST {
        place.append(marks(&catalog, end)?)?;
    }
    let engine = match &place {
        Place::Embedded(log) => Engine::embedded(log, &groups, &codec, &engine_config)?,
        Place::Kafka(_) | Place::Instance(_) => {
            let stores = Stores::open(&config.data_dir, &running::shared(config))?;
            Engine::kafka(&running::cluster(config, &catalog)?, &stores, &groups, &codec, &engine_config)?
        }
    };
    wait_until_drained(&engine)?;
    engine.stop().map_err(|e| anyhow!(e))?;
    let kept = settle(&place, &codec, &before)?;
    if args.json {
        writeln!(out, "{}", json!({"records": count, "clock": end, "mails_not_sent": kept}))?;
    } else {
        writeln!(out, "Imported {count} records up to {end}; {kept} e-mails that they would have triggered are not sent.")?;
    }
    Ok(())
}

/// The ids of all triggers there are.
fn triggers(place: &Place) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    each_trigger(place, &mut |trigger| ids.extend([trigger.trigger_id]))?;
    Ok(ids)
}

fn each_trigger(place: &Place, take: &mut dyn FnMut(EmailTrigger)) -> Result<()> {
    for record in place.read_all(place.topic("email_trigger")?.0)? {
        if let Some(trigger) = record.value.and_then(|v| serde_json::from_slice(&v).ok()) {
            take(trigger);
        }
    }
    Ok(())
}

/// Says of each new trigger that nothing is sent.
fn settle(place: &Place, codec: &Codec, before: &BTreeSet<String>) -> Result<usize> {
    let (index, topic) = place.topic("email_result")?;
    let mut results = Vec::new();
    let mut failure = None;
    each_trigger(place, &mut |trigger| {
        if before.contains(&trigger.trigger_id) {
            return;
        }
        let detail = "imported history brings no mail".to_owned();
        let (user_id, at) = (trigger.user_id.clone(), Timestamp::wall());
        let result = EmailResult { trigger_id: trigger.trigger_id, user_id, status: "suppressed".into(), provider_id: None, detail, at };
        let json = match serde_json::to_vec(&result) {
            Ok(json) => json,
            Err(e) => return failure = Some(e),
        };
        results.push(place::keyed(index, topic, result.user_id.as_str(), codec.written(topic, json)));
    })?;
    failure.map_or(Ok(()), Err)?;
    let count = results.len();
    if count > 0 {
        place.append(results)?;
    }
    Ok(count)
}
