//! The program `tillflow`.

mod replay;

use clap::{Parser, Subcommand};
use serde_json::Map;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns a shop's event stream into action while the shopper is still there.
#[derive(Parser, Debug)]
#[command(name = "tillflow", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the same processors on recorded events, with nothing else running
    Replay(replay::ReplayArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let result = match &cli.command {
        Command::Replay(args) => replay::run(args, &Map::new(), 4).map(|summary| {
            if args.json || args.out.is_none() {
                println!("{summary}");
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tillflow: {e:#}");
            ExitCode::FAILURE
        }
    }
}
