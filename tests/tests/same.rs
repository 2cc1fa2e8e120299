//! One shop's records come to the same decisions in `replay`, on the embedded log and on Kafka.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_engine::{
    EngineConfig,
    log::kafka::{Kafka as Cluster, KafkaSettings, drained},
};
use tillflow_schemas::{Catalog, Role};
use tillflow_tests::{
    Kafka, Scratch, Tillflow,
    compare::{Outputs, differences, outputs_of},
    scratch, until,
    workload::Workload,
};

const PARTITIONS: u32 = 4;
const LONG: Duration = Duration::from_secs(600);
/// Related lists are the same below the cap on neighbours only: what is forgotten above it depends on what came first.
const NEIGHBOURS: u32 = 10_000;

/// The replay's outputs: what every other run is held against.
fn replayed(workload: &Workload, files: &Arc<Scratch>) -> Outputs {
    let out = files.join("out");
    let mut arguments = vec!["replay".to_owned()];
    arguments.extend(workload.files(files.path()));
    arguments.extend(["--out".into(), out.display().to_string()]);
    let _ = Tillflow::command(arguments).set("recommendations.neighbours", NEIGHBOURS).within(LONG).finish().ok();
    outputs_of(&out)
}

fn assert_nothing_is_empty(outputs: &Outputs, but: &[&str]) {
    let catalog = Catalog::built_in(PARTITIONS).unwrap();
    for topic in catalog.topics().iter().filter(|t| t.role == Role::Output && t.class.is_some_and(|c| c < tillflow_schemas::Class::C)) {
        assert!(!outputs[&topic.name].is_empty() || but.contains(&topic.name.as_str()), "{} is empty", topic.name);
    }
}

/// The groups' inputs, for looking at how far they are.
fn groups(catalog: &Catalog) -> Vec<(&'static str, Vec<usize>, u32)> {
    let of = |schema: &str| catalog.of_schema(schema).and_then(|t| catalog.index(&t.name));
    tillflow_processors::groups(&serde_json::Map::new())
        .iter()
        .map(|g| {
            let mut inputs: Vec<_> = g.inputs().into_iter().filter_map(of).collect();
            inputs.extend(catalog.of_group(Role::Rekey, g.name).and_then(|t| catalog.index(&t.name)));
            if g.upstream.is_none() {
                inputs.extend(of("clock_mark"));
            }
            (g.name, inputs, PARTITIONS)
        })
        .collect()
}

/// A shop's records on a cluster, and the way to see what became of them.
struct OnKafka {
    kafka: &'static Kafka,
    prefix: String,
    cluster: Cluster,
}

impl OnKafka {
    fn new() -> Self {
        let kafka = Kafka::shared();
        let prefix = kafka.prefix();
        let catalog = Arc::new(Catalog::built_in(PARTITIONS).unwrap());
        let settings = KafkaSettings {
            brokers: kafka.bootstrap(),
            app_id: format!("{prefix}app"),
            instance_id: "look".into(),
            prefix: prefix.clone(),
            replication: None,
            session_timeout: Duration::from_secs(10),
            options: BTreeMap::new(),
        };
        Self { kafka, prefix, cluster: Cluster::new(settings, &catalog) }
    }

    fn instance(&self, id: &str, workers: u32) -> Tillflow {
        Tillflow::run()
            .set("brokers", self.kafka.bootstrap())
            .set("topics.prefix", &self.prefix)
            .set("app_id", &self.cluster.settings.app_id)
            .set("instance.id", id)
            .set("workers", workers)
            .set("time.idle", false)
            .set("time.wait_s", 300)
            .set("recommendations.neighbours", NEIGHBOURS)
            .within(LONG)
            .spawn()
    }

    fn create_topics(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let missing = tillflow_engine::log::kafka::plan(&self.cluster).unwrap();
        runtime.block_on(tillflow_engine::log::kafka::apply(&self.cluster, &missing)).unwrap();
        until("the topics are there", LONG, || tillflow_engine::log::kafka::plan(&self.cluster).is_ok_and(|d| d.is_empty()));
    }

    fn send(&self, workload: &Workload) {
        let mut topics: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
        for line in &workload.lines {
            topics.entry(line.topic).or_default().push((line.key.clone(), line.value.to_string()));
        }
        for (topic, records) in topics {
            self.kafka.send(&format!("{}{topic}", self.prefix), records);
        }
    }

    /// The end of the input, in every partition.
    fn mark(&self, workload: &Workload) {
        let producer: BaseProducer = self.kafka.client().create().unwrap();
        let (topic, value) = (format!("{}tillflow.clock", self.prefix), json!({"at": workload.end}).to_string());
        for partition in 0..PARTITIONS {
            producer.send(BaseRecord::<(), str>::to(&topic).partition(partition as i32).payload(&value)).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }

    fn wait_until_drained(&self) {
        let groups = groups(&self.cluster.catalog);
        until("everything is processed", LONG, || drained(&self.cluster, &groups).unwrap_or(false));
    }

    fn outputs(&self) -> Outputs {
        let catalog = &self.cluster.catalog;
        let outputs = catalog.topics().iter().filter(|t| t.role == Role::Output);
        outputs
            .map(|topic| {
                let records = self.kafka.read(&format!("{}{}", self.prefix, topic.name));
                let raw = topic.schema == "dead_letter";
                (topic.name.clone(), records.iter().map(|r| (r.key().to_owned(), if raw { Value::Null } else { r.json() })).collect())
            })
            .collect()
    }
}

/// The workload, where its data is there.
fn workload(name: &str, few: usize) -> Option<Workload> {
    let workload = Workload::of(name, limit(few));
    if workload.is_none() {
        eprintln!("the data sets are not beside this checkout: nothing compared");
    }
    workload
}

/// How many events of a data set; all of them with `TILLFLOW_FULL=1`.
fn limit(few: usize) -> usize {
    if std::env::var_os("TILLFLOW_FULL").is_some() { usize::MAX } else { few }
}

fn on_kafka_as_in_replay(name: &str, few: usize, may_be_empty: &[&str]) {
    let Some(workload) = workload(name, few) else { return };
    let files = Arc::new(scratch("same"));
    let expected = replayed(&workload, &files);
    assert_nothing_is_empty(&expected, may_be_empty);
    let kafka = OnKafka::new();
    kafka.create_topics();
    kafka.send(&workload);
    kafka.mark(&workload);
    let started = Instant::now();
    let mut instance = kafka.instance("one", 1);
    kafka.wait_until_drained();
    eprintln!("{name}: {} records on Kafka in {:.1?}", workload.lines.len(), started.elapsed());
    assert!(instance.stop().success(), "{}", instance.stderr());
    let wrong = differences(&expected, &kafka.outputs());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_gift_shop_s_year_comes_to_the_same_on_kafka() {
    on_kafka_as_in_replay("online_retail", 1_500, &[]);
}

#[test]
fn clicks_carts_and_orders_come_to_the_same_on_kafka() {
    on_kafka_as_in_replay("rees46", 1_000, &["email_triggers", "entitlements", "notifications"]);
    on_kafka_as_in_replay("otto", 1_000, &["email_triggers", "entitlements", "notifications"]);
    on_kafka_as_in_replay("taobao", 1_000, &["email_triggers", "entitlements", "notifications"]);
    on_kafka_as_in_replay("yoochoose", 3_000, &["email_triggers", "entitlements", "notifications", "loyalty_updates"]);
}

#[test]
fn instances_killed_again_and_again_come_to_the_same_as_if_nothing_had_happened() {
    let Some(workload) = workload("online_retail", 1_500) else { return };
    let files = Arc::new(scratch("killed"));
    let expected = replayed(&workload, &files);
    let kafka = OnKafka::new();
    kafka.create_topics();
    kafka.send(&workload);
    kafka.mark(&workload);
    let mut instances = [kafka.instance("one", 2), kafka.instance("two", 2)];
    for round in 0..6 {
        let victim = &mut instances[round % 2];
        // Killed when it has come a little further, whatever it is doing then.
        let before = kafka.kafka.read(&format!("{}loyalty_updates", kafka.prefix)).len();
        let deadline = Instant::now() + Duration::from_secs(5);
        until("some progress, or a while", LONG, || {
            Instant::now() > deadline || kafka.kafka.read(&format!("{}loyalty_updates", kafka.prefix)).len() > before + 100
        });
        victim.kill();
        victim.start_again();
    }
    kafka.wait_until_drained();
    for instance in &mut instances {
        assert!(instance.stop().success(), "{}", instance.stderr());
        assert!(!instance.stderr().contains("building it anew"), "a store was wiped:\n{}", instance.stderr());
    }
    let wrong = differences(&expected, &kafka.outputs());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_embedded_log_behind_http_comes_to_the_same() {
    let Some(workload) = workload("online_retail", 1_000) else { return };
    let files = Arc::new(scratch("embedded"));
    let expected = replayed(&workload, &files);
    let mut shop = Tillflow::run()
        .set("time.idle", false)
        .set("commit.fsync", false)
        .set("recommendations.neighbours", NEIGHBOURS)
        .within(LONG)
        .spawn();
    shop.wait_until_ready();
    let mut lines = workload.lines.as_slice();
    while let Some(first) = lines.first() {
        // In the order of time: as many of one topic as follow each other.
        let together = lines.iter().take(1_000).take_while(|l| l.topic == first.topic).count();
        let (batch, rest) = lines.split_at(together);
        let answer = shop.post(&format!("/v1/topics/{}", first.topic), json!(batch.iter().map(|l| &l.value).collect::<Vec<_>>()));
        assert_eq!(answer.status().as_u16(), 202, "{:?}", answer.text());
        lines = rest;
    }
    // Killed in the middle of it all; what was answered with 202 is there.
    shop.kill();
    let data = shop.files().join("tillflow-data");
    let found = finished(&data, &workload);
    let wrong = differences(&expected, &found);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goes on with an embedded data directory to the end of its input, and reads what was decided.
fn finished(data: &std::path::Path, workload: &Workload) -> Outputs {
    use tillflow_engine::{
        Engine,
        log::{NewRecord, TopicPartition, embedded::Embedded},
    };
    let catalog = Catalog::built_in(PARTITIONS).unwrap();
    let shared = tillflow_state::Shared::new(64 << 20, 32 << 20);
    let log = Embedded::open(&data.join("embedded"), &catalog, tillflow_state::Durability::Process, &shared).unwrap();
    let clock = catalog.of_schema("clock_mark").and_then(|t| catalog.index(&t.name)).unwrap();
    let value = Some(serde_json::to_vec(&json!({"at": workload.end})).unwrap());
    let mark = |partition| NewRecord {
        to: TopicPartition { topic: clock, partition },
        at: workload.end,
        key: None,
        value: value.clone(),
        headers: Vec::new(),
    };
    log.write(&(0..PARTITIONS).map(mark).collect::<Vec<_>>(), std::iter::empty()).unwrap();
    let config = EngineConfig { idle_clock: false, wait_for_input: None, ..EngineConfig::default() };
    let settings = json!({"recommendations": {"neighbours": NEIGHBOURS}});
    let groups = tillflow_processors::groups(settings.as_object().unwrap());
    let engine = Engine::embedded(&log, &groups, &Arc::new(tillflow_schemas::Codec::json()), &config).unwrap();
    until("everything is processed", LONG, || engine.is_drained().unwrap());
    engine.stop().unwrap();
    let topics = catalog.topics().iter().enumerate().filter(|(_, t)| t.role == Role::Output);
    topics
        .map(|(topic, t)| {
            let read = |partition| log.read(TopicPartition { topic, partition }, 0, usize::MAX).unwrap();
            let records = (0..t.partitions).flat_map(read).map(|r| {
                let key = r.key.map(|k| String::from_utf8_lossy(&k).into_owned()).unwrap_or_default();
                (key, r.value.and_then(|v| serde_json::from_slice(&v).ok()).unwrap_or(Value::Null))
            });
            (t.name.clone(), records.collect())
        })
        .collect()
}
