//! The program `tillflow`.

mod config;
mod demo;
mod replay;
mod run;
mod running;

use clap::{Parser, Subcommand};
use config::Config;
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns a shop's event stream into action while the shopper is still there.
#[derive(Parser, Debug)]
#[command(name = "tillflow", version, about)]
struct Cli {
    /// The configuration file; ./tillflow.yaml where it exists
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run task groups, connectors and the HTTP gateway until stopped
    Run(run::RunArgs),
    /// See it at work: a simulated shop on the embedded log, with the console
    Demo(demo::DemoArgs),
    /// Run the same processors on recorded events, with nothing else running
    Replay(replay::ReplayArgs),
}

/// Exit code of bad usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(filter)
        .init();
    let flags = match &cli.command {
        Command::Run(args) => args.flags(),
        Command::Demo(_) | Command::Replay(_) => BTreeMap::new(),
    };
    let config = match Config::load(cli.config.as_deref(), std::env::vars(), &flags) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("tillflow: configuration: {e:#}");
            return USAGE.into();
        }
    };
    let result = match &cli.command {
        Command::Run(args) => run::run(args, &config),
        Command::Demo(args) => demo::run(args, &config),
        Command::Replay(args) => replay::run(args, &config.settings(), config.topics.partitions).map(|summary| {
            if args.json || args.out.is_none() {
                println!("{summary}");
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tillflow: {e:#}");
            // A wrong setting is found by the processor it belongs to, once they are put together.
            if e.downcast_ref::<tillflow_engine::WiringError>().is_some() { USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}
