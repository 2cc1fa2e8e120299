//! The program `tillflow`.

mod commands;
mod config;
mod demo;
mod progress;
mod replay;
mod run;
mod running;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use commands::{Usage, backup, clock, dlq, doctor, evaluate, import, migrate, reset, schemas, state, topics, user};
use config::Config;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns a shop's event stream into action while the shopper is still there.
#[derive(Parser, Debug)]
#[command(name = "tillflow", version, about, after_help = AFTER)]
struct Cli {
    /// The configuration file; ./tillflow.yaml where it exists
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
Begin with:
  tillflow demo                               a simulated shop, its console at http://127.0.0.1:8080/
  tillflow replay events.jsonl --out results  what your own recorded events would have led to
  tillflow run                                the real thing: POST events to /v1/events

Every key of the configuration is also an environment variable: topics.partitions is TILLFLOW_TOPICS_PARTITIONS.
Exit codes: 0 done, 1 failed, 2 bad usage or configuration. Results go to stdout, all else to stderr.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run task groups, connectors and the HTTP gateway until stopped
    Run(run::RunArgs),
    /// See it at work: a simulated shop on the embedded log, with the console
    Demo(demo::DemoArgs),
    /// Run the same processors on recorded events, with nothing else running
    Replay(replay::ReplayArgs),
    /// Measure the recommendations on recorded events
    Evaluate(evaluate::EvaluateArgs),
    /// Show the effective configuration: each key, its value, where that came from and what it means
    Config(commands::config::ConfigArgs),
    /// Compare the topics of a Kafka cluster with those it is to have, and create what is missing
    Topics(topics::TopicsArgs),
    /// Compare the schemas with those of a schema registry, or register them
    Schemas(schemas::SchemasArgs),
    /// Look into the stores of a data directory
    State(state::StateArgs),
    /// Look at records that could not be processed; send them again or set them aside
    Dlq(dlq::DlqArgs),
    /// Set the event clock of an idle instance forward
    Clock(clock::ClockArgs),
    /// Copy an embedded data directory, consistently
    Backup(backup::BackupArgs),
    /// Bring a backup back as the data directory
    Restore(backup::RestoreArgs),
    /// Bring a shop's history into its log, with mails and pushes off
    Import(import::ImportArgs),
    /// Take an embedded data directory to a Kafka cluster, and go on there
    Migrate(migrate::MigrateArgs),
    /// Forget all state, and have it made anew from the topics
    Reset(reset::ResetArgs),
    /// Export or erase all that is stored of a user
    User(user::UserArgs),
    /// Check what an instance needs, and say how to mend what is wrong
    Doctor(doctor::DoctorArgs),
    /// Print the completions of a shell
    ///
    /// For bash: source <(tillflow completions bash). For zsh, write them to a file _tillflow on the fpath; for fish, to
    /// ~/.config/fish/completions/tillflow.fish.
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// The keys that its flags set.
    fn flags(&self) -> BTreeMap<String, Value> {
        match self {
            Self::Run(args) => args.flags(),
            Self::Demo(_) | Self::Replay(_) | Self::Evaluate(_) | Self::Completions { .. } => BTreeMap::new(),
            Self::Config(args) => args.place.flags(),
            Self::Topics(args) => args.command.options().place.flags(),
            Self::Schemas(args) => args.command.flags(),
            Self::State(args) => args.command.options().place.flags(),
            Self::Dlq(args) => args.command.options().place.flags(),
            Self::Clock(args) => args.command.place().flags(),
            Self::Backup(args) => args.place.flags(),
            Self::Restore(args) => args.place.flags(),
            Self::Import(args) => args.place.flags(),
            Self::Migrate(args) => args.place.flags(),
            Self::Doctor(args) => args.place.flags(),
            Self::Reset(args) => args.place.flags(),
            Self::User(args) => args.command.place().flags(),
        }
    }
}

/// Exit code of bad usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A server tells what happens; of a command, only what goes wrong is news.
    let level = if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_env_filter(filter).init();
    let mut out = BufWriter::new(io::stdout());
    let result = perform(&cli, &mut out).and_then(|()| Ok(out.flush()?));
    let Err(e) = result else { return ExitCode::SUCCESS };
    if e.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)) {
        // Who read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    // What was found before goes out first.
    let _ = out.flush();
    eprintln!("tillflow: {e:#}");
    // A wrong setting is found by the processor it belongs to, once they are put together.
    let is_usage = e.is::<Usage>()
        || matches!(e.downcast_ref(), Some(tillflow_engine::StartError::Wiring(_)))
        || matches!(e.downcast_ref(), Some(tillflow_gateway::GatewayError::Open(_)));
    if is_usage { USAGE.into() } else { ExitCode::FAILURE }
}

/// The variables that may be keys of the configuration: all but those that flags read.
fn environment() -> impl Iterator<Item = (String, String)> {
    let flags = flag_variables();
    std::env::vars().filter(move |(name, _)| !flags.contains(name))
}

/// The variables that flags of commands read.
fn flag_variables() -> BTreeSet<String> {
    let mut variables = BTreeSet::new();
    each(&mut Cli::command(), "tillflow", &mut |command, _| {
        variables.extend(command.get_arguments().filter_map(|a| a.get_env()?.to_str().map(str::to_owned)));
    });
    variables
}

/// Visits a command and all below it, with their paths.
fn each(command: &mut clap::Command, path: &str, visit: &mut dyn FnMut(&mut clap::Command, &str)) {
    visit(command, path);
    let names: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).filter(|name| name != "help").collect();
    for name in names {
        if let Some(below) = command.find_subcommand_mut(&name) {
            each(below, &format!("{path} {name}"), visit);
        }
    }
}

fn perform(cli: &Cli, out: &mut dyn Write) -> Result<()> {
    // These two need no configuration, and must work where it is broken.
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "tillflow", &mut script);
            return Ok(out.write_all(&script)?);
        }
        Command::Config(commands::config::ConfigArgs { command: Some(commands::config::ConfigCommand::Check { file }), .. }) => {
            return commands::config::check(file, out);
        }
        _ => {}
    }
    let loaded = Config::load(cli.config.as_deref(), environment(), &cli.command.flags());
    let (config, origins) = loaded.map_err(|e| Usage(format!("configuration: {e:#}")))?;
    // These two tell what is wrong in their own way.
    if !matches!(cli.command, Command::Config(_) | Command::Doctor(_)) {
        let problems = commands::config::problems(&config);
        if !problems.is_empty() {
            return Err(Usage(format!("configuration: {}", problems.join("\n  "))).into());
        }
    }
    match &cli.command {
        Command::Run(args) => run::run(args, &config),
        Command::Demo(args) => demo::run(args, &config),
        Command::Replay(args) => replay::run(args, &config.settings(), config.topics.partitions, out),
        Command::Evaluate(args) => evaluate::run(args, &config, out),
        Command::Config(args) => commands::config::show(&config, &origins, args.json, out),
        Command::Topics(args) => topics::run(args, &config, out),
        Command::Schemas(args) => schemas::run(args, &config, out),
        Command::State(args) => state::run(args, &config, out),
        Command::Dlq(args) => dlq::run(args, &config, out),
        Command::Clock(args) => clock::run(args, &config, out),
        Command::Backup(args) => backup::backup(args, &config, out),
        Command::Restore(args) => backup::restore(args, &config, out),
        Command::Import(args) => import::run(args, &config, out),
        Command::Migrate(args) => migrate::run(args, &config, out),
        Command::Reset(args) => reset::run(args, &config, out),
        Command::User(args) => user::run(args, &config, out),
        Command::Doctor(args) => doctor::run(args, &config, out),
        Command::Completions { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_of_each_command_says_what_it_does_and_what_each_option_means() {
        let mut root = Cli::command();
        root.build();
        let mut seen = Vec::new();
        each(&mut root, "tillflow", &mut |command, path| {
            assert!(command.get_about().is_some(), "{path} says nothing");
            // clap looks at this where debug assertions are on, which they are not here.
            let ids: BTreeSet<_> = command.get_arguments().map(clap::Arg::get_id).collect();
            assert_eq!(ids.len(), command.get_arguments().count(), "{path}: two arguments share an id");
            let help = command.render_long_help().to_string();
            for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{path}: {} says nothing", argument.get_id());
                let name = argument.get_long().map_or_else(|| argument.get_id().as_str().to_uppercase(), |long| format!("--{long}"));
                assert!(argument.is_positional() || help.contains(&name), "{path}: {name} is not in {help}");
            }
            seen.push(path.to_owned());
        });
        for path in ["tillflow config check", "tillflow dlq retry", "tillflow state dump", "tillflow completions"] {
            assert!(seen.iter().any(|s| s == path), "{path} in {seen:?}");
        }
    }

    #[test]
    fn the_variables_of_flags_are_no_keys() {
        let flags = flag_variables();
        assert!(flags.contains("TILLFLOW_KEY"), "{flags:?}");
        for flag in flags {
            let error = Config::load(None, [(flag, "x".to_owned())], &BTreeMap::new());
            assert!(error.is_err(), "a key would be shadowed by a flag's variable");
        }
    }

    #[test]
    fn completions_and_checks_need_no_configuration() {
        let run = |words: &[&str]| {
            let cli = Cli::try_parse_from(words).unwrap();
            let mut out = Vec::new();
            perform(&cli, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let script = run(&["tillflow", "--config", "/does/not/exist", "completions", "bash"]).unwrap();
        assert!(script.contains("dlq") && script.contains("--data-dir"), "{script}");
        let error = run(&["tillflow", "config", "check", "/does/not/exist"]).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
        let error = run(&["tillflow", "--config", "/does/not/exist", "state", "ls"]).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("/does/not/exist"), "{error}");
    }
}
