//! Kafka Streams doing the peers' job: the program that lies beside the clone, built once and outside of it.

use crate::{
    peer::run::{LOOK_EVERY, PARTITIONS},
    usage,
};
use anyhow::{Context, Result, ensure};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tillflow_tests::{Kafka, Process, Scratch, scratch, until};

/// Its topics' names stand in its source.
pub const EVENTS: &str = "user_events";
/// Stock levels.
pub const INVENTORY: &str = "inventory";
/// Points earned.
pub const UPDATES: &str = "loyalty_updates";
const SIGNALS: &str = "signals";
const OUTPUTS: [&str; 3] = [UPDATES, "related_products", "price_changes"];
/// Its application's name, and so its group's.
const GROUP: &str = "peer";
const THREADS: &str = "2";
/// Markers of transactions behind the last record of a partition that its committed offset need not be beyond: one a thread.
const MARKERS: i64 = 2;
const SOURCES: [&str; 2] = ["pom.xml", "src/main/java/peer/Main.java"];
const ANSWER: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3_600);

/// The program, and the broker on which its topics are.
pub struct Streams<'a> {
    kafka: &'a Kafka,
    built: PathBuf,
}

impl<'a> Streams<'a> {
    /// Builds it where it is not built, and creates its topics; `None` where it can't be had, which is said on stderr.
    ///
    /// # Errors
    /// When its sources can't be copied, or Maven does not build them.
    pub fn prepare(kafka: &'a Kafka) -> Result<Option<Self>> {
        let stated = std::env::var_os("TILLFLOW_PEERS").map(PathBuf::from);
        let peers = stated.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/peers"));
        let sources = peers.join("kafka-streams");
        let lacks = if !SOURCES.iter().all(|file| sources.join(file).exists()) {
            format!("its sources are not at {} (TILLFLOW_PEERS names another place)", sources.display())
        } else if let Some(program) = ["mvn", "java"].into_iter().find(|program| !runs(program)) {
            format!("there is no {program}")
        } else {
            for topic in [EVENTS, INVENTORY, SIGNALS].iter().chain(&OUTPUTS) {
                // It writes event times, which may be long past.
                kafka.create_topic(topic, PARTITIONS as i32, &[("retention.ms", "-1")]);
            }
            return Ok(Some(Self { kafka, built: built(&sources)? }));
        };
        eprintln!("SKIPPED: Kafka Streams: {lacks}");
        Ok(None)
    }

    /// Starts it with its state in these files, with a static id or without.
    pub fn start(&self, files: &Scratch, id: Option<&str>) -> Process {
        Process::spawn("streams", files.path(), Path::new("java"), |command| {
            let classes = self.built.join("target/classes");
            command.arg("-cp").arg(format!("{}:{}", classes.display(), self.built.join("target/libs/*").display()));
            command.args(["peer.Main", &self.kafka.bootstrap()]).arg(files.join("state")).arg(THREADS).args(id);
        })
    }

    /// Waits until all that was written is processed and committed; since when it is.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn until_drained(&self, process: &mut Process) -> Result<Instant> {
        let mut config = self.kafka.client();
        config.set("group.id", GROUP).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create()?;
        let (mut before, mut looked) = (None, Instant::now());
        until("Kafka Streams has processed everything", LONG, || {
            assert!(process.is_running(), "Kafka Streams has ended:\n{}", process.stderr());
            if looked.elapsed() < LOOK_EVERY {
                return false;
            }
            looked = Instant::now();
            let Some(now) = look(&consumer) else { return false };
            let is_done = now.iter().all(|(committed, end)| committed + MARKERS >= *end);
            match before.take().filter(|(then, _)| is_done && *then == now) {
                // Between two looks nothing moved: nothing was under way.
                Some(same) => before = Some(same),
                None => {
                    before = Some((now, looked));
                    return false;
                }
            }
            true
        });
        Ok(before.map_or_else(Instant::now, |(_, since)| since))
    }

    /// Drains what is in its inputs, so many events, and says what that took.
    ///
    /// # Errors
    /// When its use can't be told.
    pub fn drain(&self, events: u64) -> Result<Value> {
        let files = scratch("streams");
        let mut process = self.start(&files, None);
        until("Kafka Streams runs", LONG, || {
            assert!(process.is_running(), "Kafka Streams has ended:\n{}", process.stderr());
            process.stderr().contains("from REBALANCING to RUNNING")
        });
        let started = Instant::now();
        let seconds = self.until_drained(&mut process)?.duration_since(started).as_secs_f64();
        let used = usage::of(process.id()).context("/proc can't be read")?;
        process.kill();
        let topics = self.kafka.topics();
        let changelogs = topics.keys().filter(|t| t.starts_with(GROUP) && t.ends_with("-changelog"));
        let bytes = |topics: &mut dyn Iterator<Item = &str>| topics.map(|t| self.kafka.bytes_of(t)).sum::<u64>() as f64 / 1e6;
        Ok(json!({
            "events": events, "seconds": seconds, "cpu_s": used.cpu_s, "peak_rss_mb": used.peak_rss_mb,
            "changelog_mb": bytes(&mut changelogs.map(String::as_str)),
            "inner_mb": bytes(&mut [SIGNALS].into_iter()), "output_mb": bytes(&mut OUTPUTS.into_iter()),
        }))
    }
}

/// The committed offset and the last stable one of every partition it reads.
fn look(consumer: &BaseConsumer) -> Option<Vec<(i64, i64)>> {
    let mut list = TopicPartitionList::new();
    for topic in [EVENTS, INVENTORY, SIGNALS] {
        for partition in 0..PARTITIONS {
            list.add_partition(topic, partition as i32);
        }
    }
    let numbers = |list: &TopicPartitionList| -> Vec<i64> {
        let number = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        list.elements().iter().map(|e| number(e.offset())).collect()
    };
    let committed = numbers(&consumer.committed_offsets(list.clone(), ANSWER).ok()?);
    list.set_all_offsets(Offset::End).ok()?;
    let ends = numbers(&consumer.offsets_for_times(list, ANSWER).ok()?);
    Some(committed.into_iter().zip(ends).collect())
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("-version").output().is_ok_and(|done| done.status.success())
}

/// Where the program is built: a copy of its sources, so that nothing is written beside the clone.
fn built(sources: &Path) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set: where is the program to be built?")?;
    let place = Path::new(&home).join(".cache/tillflow/peers/kafka-streams");
    let same = |file: &&str| fs::read(sources.join(file)).ok().is_some_and(|text| fs::read(place.join(file)).is_ok_and(|t| t == text));
    if SOURCES.iter().all(same) {
        return Ok(place);
    }
    // The final name appears once all is there.
    let building = place.with_extension(std::process::id().to_string());
    for file in SOURCES {
        let to = building.join(file);
        fs::create_dir_all(to.parent().unwrap_or(&building)).with_context(|| format!("creating {}", building.display()))?;
        fs::copy(sources.join(file), &to).with_context(|| format!("copying {file} to {}", to.display()))?;
    }
    eprintln!("building Kafka Streams' program in {}", place.display());
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-q", "package", "dependency:copy-dependencies", "-DoutputDirectory=target/libs"]).current_dir(&building);
    let done = maven.output().context("running mvn")?;
    let said = [done.stdout, done.stderr].concat();
    ensure!(done.status.success(), "mvn did not build {}: {}", building.display(), String::from_utf8_lossy(&said));
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    fs::rename(&building, &place).with_context(|| format!("renaming {}", building.display()))?;
    Ok(place)
}
