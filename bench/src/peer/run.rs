//! Drains the backlog through an instance of the peers' job, and says what that took.

use super::{
    Mode, catalog, groups,
    instance::{Instance, until_ready},
};
use crate::usage;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tillflow_engine::log::kafka::{apply, drained, plan};
use tillflow_schemas::{Catalog, Role, Timestamp};
use tillflow_tests::{Kafka, Record, Scratch, scratch, until};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 4;
const LONG: Duration = Duration::from_secs(3_600);
/// A look at the lag asks the broker, which has better things to do.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An instance that has drained the backlog.
pub struct Drained {
    /// Its directory, with its state.
    pub files: Scratch,
    /// What it took.
    pub figures: Value,
}

/// Creates the topics of the modes.
///
/// # Errors
/// When the broker refuses.
pub fn create_topics(kafka: &Kafka, prefix: &str, modes: &[Mode]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for mode in modes {
        let cluster = instance(kafka, prefix, *mode, 1, Path::new("")).cluster()?;
        runtime.block_on(apply(&cluster, &plan(&cluster)?.differences))?;
        until("the topics are there", LONG, || plan(&cluster).is_ok_and(|plan| plan.differences.is_empty()));
    }
    Ok(())
}

/// An instance on these topics, with its state there.
pub fn instance(kafka: &Kafka, prefix: &str, mode: Mode, workers: u32, data: &Path) -> Instance {
    let (prefix, data) = (prefix.to_owned(), data.to_owned());
    Instance { brokers: kafka.bootstrap(), prefix, id: "bench".into(), data, mode, partitions: PARTITIONS, workers }
}

/// Runs the job until all lag is gone, that of the topics between its stages included.
///
/// # Errors
/// When the instance fails.
pub fn drain(kafka: &Kafka, prefix: &str, mode: Mode, workers: u32) -> Result<Drained> {
    drain_in(scratch("peer"), kafka, prefix, mode, workers)
}

/// The same by an instance whose state is in this directory, from a drain before.
///
/// # Errors
/// When the instance fails.
pub fn drain_in(files: Scratch, kafka: &Kafka, prefix: &str, mode: Mode, workers: u32) -> Result<Drained> {
    let told = instance(kafka, prefix, mode, workers, &files.join("state"));
    let begun = Timestamp::wall();
    let mut process = told.start(files.path())?;
    until_ready(&mut process, begun);
    let used_before = usage::of(process.id()).context("/proc can't be read")?;
    let started = Instant::now();
    let cluster = told.cluster()?;
    let inputs = inputs(&cluster.catalog, mode);
    let mut looked = started;
    until("everything is processed", LONG, || {
        assert!(process.is_running(), "the instance has ended:\n{}", process.stderr());
        if looked.elapsed() < LOOK_EVERY {
            return false;
        }
        looked = Instant::now();
        drained(&cluster, &inputs).unwrap_or(false)
    });
    let seconds = started.elapsed().as_secs_f64();
    let used = usage::of(process.id()).context("/proc can't be read")?;
    let exit = process.terminate(Duration::from_secs(60));
    if !exit.success() {
        bail!("the instance failed: {exit}\n{}", process.stderr());
    }
    eprint!("{}", process.stderr());
    let metrics: Map<String, Value> = process.stdout().lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
    let written = written(kafka, prefix, &cluster.catalog);
    let figures = json!({
        "seconds": seconds, "cpu_s": used.cpu_s, "cpu_s_until_ready": used_before.cpu_s, "peak_rss_mb": used.peak_rss_mb,
        "changelog_mb": written.0 as f64 / 1e6, "inner_mb": written.1 as f64 / 1e6, "output_mb": written.2 as f64 / 1e6,
        "metrics": metrics,
    });
    Ok(Drained { files, figures })
}

impl Drained {
    /// Where its stores are.
    pub fn data(&self) -> PathBuf {
        self.files.join("state")
    }
}

/// The lists of related products that a mode emitted.
///
/// # Errors
/// When the list of topics is wrong.
pub fn related(kafka: &Kafka, prefix: &str, mode: Mode) -> Result<Vec<Record>> {
    Ok(kafka.read(&topic(prefix, mode, "peer_related")?))
}

/// The groups' inputs, as the engine wires them.
fn inputs(catalog: &Catalog, mode: Mode) -> Vec<(&'static str, Vec<usize>, u32)> {
    let of = |schema: &str| catalog.of_schema(schema).and_then(|t| catalog.index(&t.name));
    let all = groups(mode).into_iter().map(|group| {
        let mut inputs: Vec<_> = group.inputs().into_iter().filter_map(of).collect();
        inputs.extend(catalog.of_group(Role::Rekey, group.name).and_then(|t| catalog.index(&t.name)));
        (group.name, inputs, PARTITIONS)
    });
    all.collect()
}

/// Bytes on the broker's disk: of changelogs, of topics between the stages, of outputs.
fn written(kafka: &Kafka, prefix: &str, catalog: &Catalog) -> (u64, u64, u64) {
    let mut sums = (0, 0, 0);
    for topic in catalog.topics() {
        let bytes = kafka.bytes_of(&format!("{prefix}{}", topic.name));
        match topic.role {
            Role::Changelog => sums.0 += bytes,
            Role::Internal | Role::Rekey => sums.1 += bytes,
            Role::Output => sums.2 += bytes,
            Role::Input | Role::Reference => {}
        }
    }
    sums
}

/// A topic of a mode.
///
/// # Errors
/// When the list of topics is wrong.
pub fn topic(prefix: &str, mode: Mode, schema: &str) -> Result<String> {
    let catalog = catalog(mode, PARTITIONS)?;
    let topic = catalog.of_schema(schema).with_context(|| format!("there is no topic of {schema}"))?;
    Ok(format!("{prefix}{}", topic.name))
}

/// The topic that the job and the bare copy read.
///
/// # Errors
/// When the list of topics is wrong.
pub fn input(prefix: &str, schema: &str) -> Result<String> {
    topic(prefix, Mode::Exact, schema)
}
