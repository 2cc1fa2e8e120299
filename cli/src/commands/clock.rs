//! `tillflow clock`: the event clock of an instance that stands idle, set forward.

use super::{Out, Place, PlaceArgs, Usage};
use crate::{config::Config, replay::marks};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;
use tillflow_schemas::Timestamp;

/// Arguments of `tillflow clock`.
#[derive(Args, Debug)]
pub struct ClockArgs {
    #[command(subcommand)]
    pub command: ClockCommand,
}

/// What to do with the clock.
#[derive(Subcommand, Debug)]
pub enum ClockCommand {
    /// Set the event clock forward: timers until then fire, such as reminders, expiries and boxes
    ///
    /// Event time follows the events; where none come and the idle clock is off, it stands. This writes a mark into the
    /// log behind all that is there already; every task moves its clock to it. A time that has passed changes nothing,
    /// and no clock goes back. Works on a running instance, and on a data directory at rest: there the next start takes the mark.
    Advance {
        /// RFC 3339, such as 2026-01-31T12:00:00Z
        time: String,
        /// Print what was written as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

impl ClockCommand {
    /// Where.
    pub fn place(&self) -> &PlaceArgs {
        let Self::Advance { place, .. } = self;
        place
    }
}

/// Writes the marks.
///
/// # Errors
/// When the time is none, or the log can't be written to.
pub fn run(args: &ClockArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let ClockCommand::Advance { time, json, .. } = &args.command;
    let at = Timestamp::parse(time).map_err(Usage)?;
    if at < Timestamp::EARLIEST {
        return Err(Usage(format!("{at} lies before {}, the earliest time there is", Timestamp::EARLIEST)).into());
    }
    let place = Place::open(config)?;
    let marks = marks(place.catalog(), at)?;
    let count = marks.len();
    place.append(marks)?;
    if *json {
        writeln!(out, "{}", json!({"at": at, "marks": count}))?;
    } else {
        writeln!(out, "The clock is set to {at}: {count} marks, one a partition.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::open_embedded;
    use tillflow_schemas::Catalog;

    fn advance(time: &str) -> ClockArgs {
        ClockArgs { command: ClockCommand::Advance { time: time.into(), json: true, place: PlaceArgs::default() } }
    }

    #[test]
    fn every_partition_gets_a_mark_and_what_is_no_time_is_bad_usage() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let mut out = Vec::new();
        let error = run(&advance("2026-01-31T12:00:00Z"), &config, &mut out).unwrap_err();
        assert!(error.to_string().contains("holds no embedded log"), "{error}");
        drop(open_embedded(&config, &Catalog::built_in(4).unwrap(), &config.data_dir).unwrap());
        run(&advance("2026-01-31T12:00:00Z"), &config, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\"at\":\"2026-01-31T12:00:00.000Z\",\"marks\":4}\n");
        let place = Place::open(&config).unwrap();
        let (topic, _) = place.topic("clock_mark").unwrap();
        assert_eq!(place.read_all(topic).unwrap().len(), 4);
        assert!(run(&advance("tomorrow"), &config, &mut Vec::new()).unwrap_err().is::<Usage>());
    }
}
