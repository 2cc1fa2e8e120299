//! `tillflow backup` and `restore`: a consistent copy of an embedded data directory, and back again.

use super::{Out, PlaceArgs, Usage, place};
use crate::{
    config::{Config, LogKind},
    progress::bar,
    running::SCHEMAS,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};
use tillflow_schemas::Timestamp;
use tillflow_state::FORMAT;

/// Written last: a copy without it is not whole.
const MANIFEST: &str = "backup.json";
const EMBEDDED: &str = "embedded";

/// Arguments of `tillflow backup`.
#[derive(Args, Debug)]
#[command(long_about = "Copy an embedded data directory: topics, state, timers, positions and schemas, as of one moment.\n\n\
    Stop the instance first. On one file system, files are linked instead of copied, which takes no time and no room; \
    to survive the disk, give a directory on another one.")]
pub struct BackupArgs {
    /// Where to; must not exist yet
    pub dir: PathBuf,
    /// Print what was copied as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Arguments of `tillflow restore`.
#[derive(Args, Debug)]
#[command(long_about = "Bring a backup back as the data directory.\n\nIt refuses to overwrite: move an embedded log that \
    is there already away first. The instance goes on where the backup was made.")]
pub struct RestoreArgs {
    /// The backup
    pub dir: PathBuf,
    /// Print what was restored as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Copies the data directory to `args.dir`.
///
/// # Errors
/// When the target exists, another process holds the data directory, or the disk fails; nothing whole is left then.
pub fn backup(args: &BackupArgs, config: &Config, out: Out<'_>) -> Result<()> {
    only_embedded(config)?;
    if args.dir.exists() {
        bail!("{} exists already; name a directory that does not", args.dir.display());
    }
    let log = place::embedded(config)?;
    fs::create_dir_all(&args.dir).with_context(|| format!("creating {}", args.dir.display()))?;
    log.directory().checkpoint(&args.dir.join(EMBEDDED))?;
    carry_schemas(&config.data_dir, &args.dir)?;
    let manifest = json!({
        "tillflow": env!("CARGO_PKG_VERSION"), "format": FORMAT, "partitions": config.topics.partitions, "made_at": Timestamp::wall(),
    });
    let path = args.dir.join(MANIFEST);
    fs::write(&path, format!("{manifest:#}\n")).with_context(|| format!("writing {}", path.display()))?;
    File::open(&path)?.sync_all()?;
    report("Backed up", &config.data_dir, &args.dir, size(&args.dir)?, args.json, out)
}

/// Brings `args.dir` back.
///
/// # Errors
/// When it is no whole backup, the data directory has a log already, or the disk fails; the data directory is as before
/// then.
pub fn restore(args: &RestoreArgs, config: &Config, out: Out<'_>) -> Result<()> {
    only_embedded(config)?;
    check_manifest(&args.dir, config)?;
    let target = config.data_dir.join(EMBEDDED);
    if target.exists() {
        bail!("{} holds a log already; move it away first, or choose another --data-dir", config.data_dir.display());
    }
    fs::create_dir_all(&config.data_dir).with_context(|| format!("creating {}", config.data_dir.display()))?;
    // Beside, then renamed: a copy that breaks off is never taken for the whole.
    let beside = config.data_dir.join("embedded.part");
    if beside.exists() {
        fs::remove_dir_all(&beside).with_context(|| format!("removing {}", beside.display()))?;
    }
    let progress = bar(Some(size(&args.dir.join(EMBEDDED))?), "copying bytes");
    let bytes = copy(&args.dir.join(EMBEDDED), &beside, &progress)?;
    progress.finish_and_clear();
    // The log comes last: where it is, all is there.
    carry_schemas(&args.dir, &config.data_dir)?;
    fs::rename(&beside, &target).with_context(|| format!("renaming {}", beside.display()))?;
    File::open(&config.data_dir)?.sync_all()?;
    report("Restored", &args.dir, &config.data_dir, bytes, args.json, out)
}

/// Copies the built-in registry from one data directory to another, where there is one: records name schemas by its ids.
///
/// # Errors
/// When other schemas are there already, or the disk fails.
pub fn carry_schemas(from: &Path, to: &Path) -> Result<()> {
    let (source, target) = (from.join(SCHEMAS), to.join(SCHEMAS));
    if !source.exists() {
        return Ok(());
    }
    let schemas = fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
    if target.exists() {
        let there = fs::read(&target).with_context(|| format!("reading {}", target.display()))?;
        if there != schemas {
            bail!("{} holds other schemas than {}; move it away first", target.display(), source.display());
        }
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let beside = target.with_extension("part");
    fs::write(&beside, schemas).with_context(|| format!("writing {}", beside.display()))?;
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, &target).with_context(|| format!("renaming {}", beside.display()))?;
    Ok(File::open(to)?.sync_all()?)
}

fn only_embedded(config: &Config) -> Result<()> {
    if config.log_kind() == LogKind::Kafka {
        let why = "on Kafka, topics and changelogs are the backup: stores are rebuilt from them; --log embedded names an embedded log";
        return Err(Usage(why.into()).into());
    }
    Ok(())
}

fn check_manifest(dir: &Path, config: &Config) -> Result<()> {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).with_context(|| format!("{} is no whole backup: {MANIFEST} is missing", dir.display()))?;
    let manifest: Value = serde_json::from_str(&text).with_context(|| format!("{} can't be read", path.display()))?;
    let number = |key: &str| manifest.get(key).and_then(Value::as_u64).with_context(|| format!("{} lacks {key}", path.display()));
    let (format, partitions) = (number("format")?, number("partitions")?);
    if format > u64::from(FORMAT) {
        bail!("the backup holds format {format}, this version knows up to {FORMAT}; use the version that made it, or newer");
    }
    if partitions != u64::from(config.topics.partitions) {
        let has = config.topics.partitions;
        return Err(Usage(format!(
            "the backup has {partitions} partitions, the configuration {has}: set topics.partitions to {partitions}"
        ))
        .into());
    }
    Ok(())
}

/// Copies a directory and brings it to disk; its bytes.
fn copy(from: &Path, to: &Path, progress: &ProgressBar) -> Result<u64> {
    fs::create_dir(to).with_context(|| format!("creating {}", to.display()))?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            bytes += copy(&source, &target, progress)?;
        } else {
            let copied = fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
            progress.inc(copied);
            bytes += copied;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()?;
    Ok(bytes)
}

fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

fn report(what: &str, from: &Path, to: &Path, bytes: u64, as_json: bool, out: Out<'_>) -> Result<()> {
    if as_json {
        writeln!(out, "{}", json!({"from": from, "to": to, "bytes": bytes}))?;
    } else {
        writeln!(out, "{what} {} to {}: {bytes} bytes.", from.display(), to.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::Place, replay::marks, running::open_embedded};
    use tillflow_schemas::Catalog;

    #[test]
    fn what_was_backed_up_comes_back_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let catalog = Catalog::built_in(4).unwrap();
        let log = open_embedded(&config, &catalog, &config.data_dir).unwrap();
        log.write(&marks(&catalog, Timestamp::EARLIEST).unwrap(), std::iter::empty()).unwrap();

        fs::write(config.data_dir.join(SCHEMAS), "{}").unwrap();

        let to = BackupArgs { dir: dir.path().join("copy"), json: true, place: PlaceArgs::default() };
        let error = backup(&to, &config, &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("another process"), "{error:#}");
        drop(log);
        let mut out = Vec::new();
        backup(&to, &config, &mut out).unwrap();
        assert!(serde_json::from_slice::<Value>(&out).unwrap()["bytes"].as_u64().unwrap() > 0);
        assert!(backup(&to, &config, &mut Vec::new()).unwrap_err().to_string().contains("exists already"));

        // What comes after the backup is not in it.
        let log = open_embedded(&config, &catalog, &config.data_dir).unwrap();
        log.write(&marks(&catalog, Timestamp::EARLIEST).unwrap(), std::iter::empty()).unwrap();
        drop(log);
        let from = RestoreArgs { dir: to.dir.clone(), json: false, place: PlaceArgs::default() };
        assert!(restore(&from, &config, &mut Vec::new()).unwrap_err().to_string().contains("holds a log already"));
        let mut elsewhere = Config { data_dir: dir.path().join("again"), ..Config::default() };
        restore(&from, &elsewhere, &mut Vec::new()).unwrap();
        let place = Place::open(&elsewhere).unwrap();
        assert_eq!(place.read_all(place.topic("clock_mark").unwrap().0).unwrap().len(), 4);
        drop(place);
        assert_eq!(fs::read_to_string(elsewhere.data_dir.join(SCHEMAS)).unwrap(), "{}");

        elsewhere.data_dir = dir.path().join("third");
        fs::create_dir(&elsewhere.data_dir).unwrap();
        fs::write(elsewhere.data_dir.join(SCHEMAS), "[]").unwrap();
        assert!(restore(&from, &elsewhere, &mut Vec::new()).unwrap_err().to_string().contains("holds other schemas"));
        assert!(!elsewhere.data_dir.join(EMBEDDED).exists());

        elsewhere.data_dir = dir.path().join("fourth");
        elsewhere.topics.partitions = 8;
        let error = restore(&from, &elsewhere, &mut Vec::new()).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("topics.partitions to 4"), "{error}");
        fs::remove_file(to.dir.join(MANIFEST)).unwrap();
        assert!(restore(&from, &Config::default(), &mut Vec::new()).unwrap_err().to_string().contains("no whole backup"));
    }
}
