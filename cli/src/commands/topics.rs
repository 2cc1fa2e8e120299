//! `tillflow topics`: what the list of topics asks for against what the cluster has.

use super::{Out, PlaceArgs, place};
use crate::config::Config;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tillflow_engine::log::kafka::{Difference, apply, plan};

/// Arguments of `tillflow topics`.
#[derive(Args, Debug)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub command: TopicsCommand,
}

/// What to do with the topics.
#[derive(Subcommand, Debug)]
pub enum TopicsCommand {
    /// Show which topics are missing or have another number of partitions, and what `apply` would do about it
    Plan(TopicsOptions),
    /// Create missing topics and widen outputs; never deletes, never widens what state is keyed by
    ///
    /// Exits with 1 where differences remain that it may not mend: they are named.
    Apply(TopicsOptions),
}

/// Where, and how to print.
#[derive(Args, Debug)]
pub struct TopicsOptions {
    /// Print the differences as a JSON list
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl TopicsCommand {
    /// Where, and how to print.
    pub fn options(&self) -> &TopicsOptions {
        match self {
            Self::Plan(options) | Self::Apply(options) => options,
        }
    }
}

/// Plans, or plans and applies.
///
/// # Errors
/// When the cluster does not answer or refuses, or something is left that can't be mended.
pub fn run(args: &TopicsArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let kafka = place::cluster(config)?;
    let differences = plan(&kafka)?.differences;
    show(&differences, args.command.options().json, out)?;
    if matches!(args.command, TopicsCommand::Plan(_)) || differences.is_empty() {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(apply(&kafka, &differences))?;
    let left = differences.iter().filter(|d| remedy(d).is_none()).count();
    if left > 0 {
        bail!("{left} differences are left that would move keys away from their state; see above");
    }
    Ok(())
}

/// What `apply` does about a difference; `None` where it is for people to decide.
fn remedy(difference: &Difference) -> Option<&'static str> {
    match difference {
        Difference::Missing { .. } => Some("create"),
        Difference::TooFew { keyed: false, .. } => Some("widen"),
        Difference::TooFew { .. } | Difference::TooMany { .. } => None,
    }
}

fn show(differences: &[Difference], as_json: bool, out: Out<'_>) -> Result<()> {
    if as_json {
        let list: Vec<_> = differences
            .iter()
            .map(|d| {
                let mut value = json!(d);
                if let Some(object) = value.as_object_mut() {
                    object.insert("apply".into(), json!(remedy(d)));
                }
                value
            })
            .collect();
        writeln!(out, "{:#}", json!(list))?;
        return Ok(());
    }
    if differences.is_empty() {
        writeln!(out, "The cluster has every topic as declared.")?;
    }
    for difference in differences {
        let what = remedy(difference).unwrap_or("leave");
        writeln!(out, "{what:<7} {difference}")?;
        if matches!(difference, Difference::TooFew { keyed: true, .. }) {
            writeln!(
                out,
                "        widening it would move keys away from their state: set topics.partitions back, or bring what was recorded into new topics (docs/commands.md)"
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_says_what_apply_does_and_keyed_topics_are_left_alone() {
        let differences = [
            Difference::Missing { topic: "user_events".into(), partitions: 4 },
            Difference::TooFew { topic: "price_changes".into(), has: 2, wants: 4, keyed: false },
            Difference::TooFew { topic: "inventory".into(), has: 2, wants: 4, keyed: true },
            Difference::TooMany { topic: "products".into(), has: 8, wants: 4 },
        ];
        let mut out = Vec::new();
        show(&differences, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in ["create  user_events", "widen   price_changes", "leave   inventory", "topics.partitions back", "leave   products"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let mut out = Vec::new();
        show(&differences, true, &mut out).unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
        assert_eq!(list[0], json!({"difference": "missing", "topic": "user_events", "partitions": 4, "apply": "create"}));
        assert_eq!(list[3]["apply"], json!(null));
    }

    #[test]
    fn without_brokers_it_is_bad_usage() {
        let options = TopicsOptions { json: false, place: PlaceArgs::default() };
        let args = TopicsArgs { command: TopicsCommand::Plan(options) };
        let error = run(&args, &Config::default(), &mut Vec::new()).unwrap_err();
        assert!(error.is::<super::super::Usage>(), "{error}");
    }
}
