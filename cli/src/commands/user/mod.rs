//! `tillflow user`: all that is stored of a user, and its erasure.

mod erase;
mod export;
mod stored;

use super::{InstanceArgs, Out, PlaceArgs};
use crate::config::Config;
use anyhow::Result;
use clap::{Args, Subcommand};

/// Arguments of `tillflow user`.
#[derive(Args, Debug)]
pub struct UserArgs {
    #[command(subcommand)]
    pub command: UserCommand,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum UserCommand {
    /// Print all that is stored of a user, as one JSON object
    ///
    /// `answers` is what the shop's pages see (points, ledger, entitlements, segments), `records` what the topics hold, as
    /// replay writes it, `state` the rows of the stores with their values in base64. An instance that runs on the data directory
    /// is asked; it wants an admin key where keys are configured.
    #[command(after_help = "Example:\n  tillflow user export user123 > user123.json")]
    Export {
        /// The user's id
        user: String,
        #[command(flatten)]
        instance: InstanceArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Erase a user from every store, topic and read model; prints what was erased, and by when all copies are gone
    ///
    /// Stop all instances first: a running one holds what it knows. Rows of the stores go at once, and so do records of an
    /// embedded log. On Kafka the rows' and compacted topics' tombstones are written in one transaction; records of the
    /// other topics go when their retention is over, which is the date that is printed. A record of `erased_users` keeps
    /// them from being processed again, by a store made anew or a replay. What the user does later counts and is stored.
    #[command(after_help = "Example:\n  tillflow user erase user123 --yes")]
    Erase {
        /// The user's id
        user: String,
        /// Really: it can't be undone
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

impl UserCommand {
    /// Where.
    pub fn place(&self) -> &PlaceArgs {
        match self {
            Self::Export { place, .. } | Self::Erase { place, .. } => place,
        }
    }
}

/// Exports or erases.
///
/// # Errors
/// When the log or the instance can't be used.
pub fn run(args: &UserArgs, config: &Config, out: Out<'_>) -> Result<()> {
    match &args.command {
        UserCommand::Export { user, instance, .. } => export::run(user, instance, config, out),
        UserCommand::Erase { user, yes, .. } => erase::run(user, *yes, config, out),
    }
}
