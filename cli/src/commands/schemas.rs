//! `tillflow schemas`: our schemas against those of the shop's schema registry.

use super::{Out, Usage};
use crate::config::Config;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tillflow_schemas::{
    Catalog,
    registry::{SchemaRegistry, SubjectReport, Verdict, check, register},
};

/// Arguments of `tillflow schemas`.
#[derive(Args, Debug)]
pub struct SchemasArgs {
    #[command(subcommand)]
    pub command: SchemasCommand,
}

/// What to do with the schemas.
#[derive(Subcommand, Debug)]
pub enum SchemasCommand {
    /// Compare with what is registered; exit 1 where somebody could not read what somebody wrote
    Check(SchemasOptions),
    /// Register the schema of every topic that may hold Avro; what is registered already stays as it is
    Register(SchemasOptions),
}

/// Which registry, and how to print.
#[derive(Args, Debug)]
pub struct SchemasOptions {
    /// The schema registry; registry.url of the configuration where absent
    #[arg(long, value_name = "URL")]
    pub registry_url: Option<String>,
    /// Print the result as a JSON list
    #[arg(long)]
    pub json: bool,
}

impl SchemasCommand {
    fn options(&self) -> &SchemasOptions {
        match self {
            Self::Check(options) | Self::Register(options) => options,
        }
    }

    /// The keys that the flags set.
    pub fn flags(&self) -> BTreeMap<String, Value> {
        self.options().registry_url.iter().map(|url| ("registry.url".to_owned(), json!(url))).collect()
    }
}

/// Checks or registers.
///
/// # Errors
/// When the registry does not answer or refuses, or a schema breaks somebody.
pub fn run(args: &SchemasArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let Some(registry) = config.registry.connect().context("registry.url")? else {
        return Err(Usage("no schema registry is configured; give --registry-url URL or set registry.url".into()).into());
    };
    let catalog = Catalog::built_in(config.topics.partitions)?;
    let (prefix, as_json) = (config.topics.prefix.as_str(), args.command.options().json);
    match &args.command {
        SchemasCommand::Check(_) => show_check(&check(registry.as_ref(), &catalog, prefix)?, as_json, out),
        SchemasCommand::Register(_) => show_register(registry.as_ref(), &catalog, prefix, as_json, out),
    }
}

fn show_check(reports: &[SubjectReport], as_json: bool, out: Out<'_>) -> Result<()> {
    let mut list = Vec::new();
    for report in reports {
        let (verdict, version, problems) = match &report.verdict {
            Verdict::New => ("new", None, &[][..]),
            Verdict::Same { version } => ("same", Some(*version), &[][..]),
            Verdict::Compatible { version } => ("compatible", Some(*version), &[][..]),
            Verdict::Broken { version, problems } => ("broken", Some(*version), problems.as_slice()),
        };
        if as_json {
            list.push(
                json!({"subject": report.subject, "schema": report.schema, "verdict": verdict, "version": version, "problems": problems}),
            );
            continue;
        }
        let version = version.map_or(String::new(), |v| format!(" (version {v})"));
        writeln!(out, "{verdict:<10}  {}{version}", report.subject)?;
        for problem in problems {
            writeln!(out, "            {problem}")?;
        }
    }
    if as_json {
        writeln!(out, "{:#}", json!(list))?;
    }
    let broken = reports.iter().filter(|r| matches!(r.verdict, Verdict::Broken { .. })).count();
    if broken > 0 {
        bail!("{broken} of {} schemas do not fit what is registered", reports.len());
    }
    Ok(())
}

fn show_register(registry: &dyn SchemaRegistry, catalog: &Catalog, prefix: &str, as_json: bool, out: Out<'_>) -> Result<()> {
    let ids = register(registry, catalog, prefix)?;
    if as_json {
        let list: Vec<_> = ids.iter().map(|(subject, id)| json!({"subject": subject, "id": id})).collect();
        writeln!(out, "{:#}", json!(list))?;
    } else {
        for (subject, id) in &ids {
            writeln!(out, "{id:>6}  {subject}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::BuiltInRegistry;

    #[test]
    fn what_was_registered_is_the_same_and_what_breaks_fails() {
        let (catalog, registry) = (Catalog::built_in(4).unwrap(), BuiltInRegistry::default());
        let mut out = Vec::new();
        show_register(&registry, &catalog, "", true, &mut out).unwrap();
        let ids: Vec<Value> = serde_json::from_slice(&out).unwrap();
        assert!(ids.iter().any(|i| i["subject"] == "user_events-value"), "{ids:?}");
        let mut out = Vec::new();
        show_check(&check(&registry, &catalog, "").unwrap(), false, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().lines().all(|l| l.starts_with("same ")));
        let broken = SubjectReport {
            subject: "s".into(),
            schema: "s".into(),
            verdict: Verdict::Broken { version: 2, problems: vec!["can't".into()] },
        };
        let mut out = Vec::new();
        assert!(show_check(&[broken], true, &mut out).is_err());
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap()[0]["verdict"], "broken");
    }

    #[test]
    fn without_a_registry_it_is_bad_usage() {
        let args = SchemasArgs { command: SchemasCommand::Check(SchemasOptions { registry_url: None, json: false }) };
        assert!(run(&args, &Config::default(), &mut Vec::new()).unwrap_err().is::<Usage>());
    }
}
