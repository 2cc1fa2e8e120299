//! `tillflow evaluate`: how good the recommendations are, on recorded events.

use super::{Out, Usage};
use crate::{config::Config, progress::bar, replay::input};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::HashSet;
use tillflow_processors::recommendations::{
    RecommendationsSettings,
    evaluate::{Protocol, evaluate},
};
use tillflow_schemas::{Catalog, Event, UserEvent, UserId};

/// Arguments of `tillflow evaluate`.
#[derive(Args, Debug)]
#[command(
    long_about = "Measure the recommendations on recorded events.\n\nLearns TRAIN; then, for each product_viewed of TEST but a \
    user's first, ranks before seeing it, and looks whether the product is in the list. Both files hold user_events as replay \
    takes them, and are taken in the order of time. The rules and weights are those of the configuration.\n\nPrints one line of \
    JSON: predictions; hr_at_20, the share of them that were in the list; mrr_at_20, the mean of 1/rank; coverage, the share of \
    TRAIN's products that were in any list; nonrepeat, the same lists judged only where another product came than the one just \
    seen. Shares are of 1.",
    after_help = "Examples:\n  tillflow evaluate march.jsonl april.jsonl\n  tillflow evaluate march.jsonl.gz april.jsonl.gz --top 10 --frozen"
)]
pub struct EvaluateArgs {
    /// What to learn: user_events as JSON lines or CSV, plain, .gz or .zst; `-` is stdin
    pub train: String,
    /// What to predict, in the same form
    pub test: String,
    /// Length of the lists
    #[arg(long, default_value_t = 20, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub top: u32,
    /// Let a list hold products that were already seen in the session
    #[arg(long)]
    pub repeats: bool,
    /// Learn nothing from TEST; otherwise it is learned as it passes, as live
    #[arg(long)]
    pub frozen: bool,
}

/// Learns, predicts and prints what came out.
///
/// # Errors
/// When a file can't be read or holds no events, the section `recommendations` is wrong, or there was nothing to predict.
pub fn run(args: &EvaluateArgs, config: &Config, out: Out<'_>) -> Result<()> {
    if args.train == "-" && args.test == "-" {
        return Err(Usage("only one of TRAIN and TEST can be stdin".into()).into());
    }
    let settings: RecommendationsSettings =
        serde_json::from_value(config.recommendations.clone().into()).map_err(|e| Usage(format!("configuration: recommendations: {e}")))?;
    // What a user did counts once, however often it is in the files.
    let mut seen = HashSet::new();
    let train = read(&args.train, &mut seen)?;
    let test = read(&args.test, &mut seen)?;
    let protocol = Protocol { top: args.top as usize, repeats: args.repeats, frozen: args.frozen };
    let progress = bar(Some((train.len() + test.len()) as u64), "evaluating");
    let quality = evaluate(progress.wrap_iter(train.into_iter()), progress.wrap_iter(test.into_iter()), &settings, protocol);
    progress.finish_and_clear();
    if quality.predictions == 0 {
        bail!("{}: no user has a second product_viewed, so there is nothing to predict", args.test);
    }
    writeln!(out, "{}", serde_json::to_string(&quality)?)?;
    Ok(())
}

/// The events of a file that can be read; says how many can't.
fn read(path: &str, seen: &mut HashSet<(UserId, String)>) -> Result<Vec<UserEvent>> {
    let catalog = Catalog::built_in(1)?;
    let topic = catalog.of_schema("user_event").and_then(|t| catalog.index(&t.name)).context("no topic holds user events")?;
    let progress = bar(None, format!("reading {path}"));
    let lines = input::read_as(topic, path, &catalog, |n| progress.inc(n));
    progress.finish_and_clear();
    let lines = lines?;
    let (mut events, mut broken, mut first) = (Vec::with_capacity(lines.len()), 0_u64, None);
    for line in lines {
        match Event::decode("user_event", line.key.as_deref(), line.value.as_deref()) {
            Ok(Event::User(event)) => {
                let id = event.who().cloned().zip(event.event_id.clone());
                if id.is_none_or(|id| seen.insert(id)) {
                    events.push(event);
                }
            }
            Ok(_) => broken += 1,
            Err(e) => {
                broken += 1;
                first.get_or_insert(e);
            }
        }
    }
    if broken > 0 {
        let why = first.map_or(String::new(), |e| format!("; the first: {e}"));
        eprintln!("tillflow: {path}: {broken} records are no user events and are left out{why}");
    }
    if events.is_empty() {
        bail!("{path} holds no user events");
    }
    Ok(events)
}
