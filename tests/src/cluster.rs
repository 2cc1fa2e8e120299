//! A shop's records on a Kafka cluster, instances that process them, and the way to see what became of them.

use crate::{Kafka, Place, Run, Tillflow, compare::Outputs, until, workload::Line};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tillflow_engine::{
    EngineConfig,
    log::kafka::{Kafka as Cluster, KafkaSettings, Purging, apply, drained, plan},
    metrics::Metrics,
    wiring::wire,
};
use tillflow_schemas::{Catalog, Codec, Role, Timestamp, partition::partition};

/// Partitions of every topic, unless told otherwise.
pub const PARTITIONS: u32 = 4;
const LONG: Duration = Duration::from_secs(3_600);

/// A shop whose topics lie on a cluster under a prefix of their own.
pub struct Shop {
    /// The prefix.
    pub prefix: String,
    brokers: String,
    partitions: u32,
    /// The cluster.
    pub cluster: Cluster,
}

impl Shop {
    /// Creates its topics. Instances use `brokers`; this looks on without them.
    ///
    /// # Panics
    /// When the cluster refuses.
    #[must_use]
    pub fn new(kafka: &Kafka, brokers: &str) -> Self {
        Self::with_partitions(kafka, brokers, PARTITIONS)
    }

    /// The same with so many partitions a topic.
    ///
    /// # Panics
    /// When the cluster refuses.
    #[must_use]
    pub fn with_partitions(kafka: &Kafka, brokers: &str, partitions: u32) -> Self {
        let prefix = kafka.prefix();
        let catalog = Arc::new(Catalog::built_in(partitions).expect("the list of topics"));
        let settings = KafkaSettings {
            brokers: kafka.bootstrap(),
            app_id: format!("{prefix}app"),
            instance_id: "look".into(),
            prefix: prefix.clone(),
            replication: None,
            session_timeout: Duration::from_secs(10),
            purging: Purging::default(),
            options: BTreeMap::new(),
        };
        let shop = Self { prefix, brokers: brokers.to_owned(), partitions, cluster: Cluster::new(settings, &catalog) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let missing = plan(&shop.cluster).expect("a plan").differences;
        runtime.block_on(apply(&shop.cluster, &missing)).expect("topics");
        until("the topics are there", LONG, || plan(&shop.cluster).is_ok_and(|plan| plan.differences.is_empty()));
        shop
    }

    /// The cluster as instances reach it.
    #[must_use]
    pub fn reached(&self) -> Cluster {
        let settings = KafkaSettings { brokers: self.brokers.clone(), ..KafkaSettings::clone(&self.cluster.settings) };
        Cluster::new(settings, &self.cluster.catalog)
    }

    /// An instance, to be spawned: its clock follows events alone, and it waits for inputs however long it takes.
    #[must_use]
    pub fn instance(&self, id: &str, workers: u32) -> Run {
        Tillflow::run()
            .set("brokers", &self.brokers)
            .set("topics.prefix", &self.prefix)
            .set("app_id", &self.cluster.settings.app_id)
            .set("instance.id", id)
            .set("workers", workers)
            .set("topics.partitions", self.partitions)
            .set("time.idle", false)
            .set("time.wait_s", 300)
            .within(LONG)
    }

    /// The name of a topic there.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes records, those of `user_events` after those of the other topics.
    pub fn send(&self, kafka: &Kafka, lines: &[Line]) {
        let mut topics: BTreeMap<&str, Vec<(Place<&str>, String)>> = BTreeMap::new();
        for line in lines {
            // A guest's event has no key; its id says where it lies.
            let by_id = || Place::Partition(partition(line.value["event_id"].as_str().unwrap_or_default().as_bytes(), self.partitions));
            let place = if line.key.is_empty() { by_id() } else { Place::Key(line.key.as_str()) };
            topics.entry(line.topic).or_default().push((place, line.value.to_string()));
        }
        for (topic, records) in topics {
            kafka.put(&self.topic(topic), records);
        }
    }

    /// Writes the mark that ends the input, into every partition.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub fn mark(&self, kafka: &Kafka, end: Timestamp) {
        let producer: BaseProducer = kafka.client().create().expect("a producer");
        let (topic, value) = (self.topic("tillflow.clock"), json!({"at": end}).to_string());
        for partition in 0..self.partitions {
            producer.send(BaseRecord::<(), str>::to(&topic).partition(partition as i32).payload(&value)).map_err(|(e, _)| e).expect("sent");
        }
        producer.flush(Duration::from_secs(10)).expect("delivered");
    }

    /// Whether all that was written is processed and committed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        drained(&self.cluster, &self.groups()).unwrap_or(false)
    }

    fn groups(&self) -> Vec<(&'static str, Vec<usize>, u32)> {
        let (groups, metrics) = (tillflow_processors::groups(&serde_json::Map::new()), Metrics::new().expect("metrics"));
        let wired = wire(&groups, &self.cluster.catalog, &Arc::new(Codec::json()), &EngineConfig::default(), &metrics).expect("wired");
        wired.groups.iter().map(|w| (w.group.name, w.inputs.clone(), w.partitions)).collect()
    }

    /// How far the changelogs have come: grows with every commit.
    #[must_use]
    pub fn progress(&self, kafka: &Kafka) -> i64 {
        let Ok(reader) = kafka.client().set("group.id", "look").create::<BaseConsumer>() else { return 0 };
        let changelogs = self.cluster.catalog.topics().iter().filter(|t| t.role == Role::Changelog);
        let ends = changelogs.flat_map(|t| (0..self.partitions).map(|p| (self.topic(&t.name), p as i32)));
        ends.map(|(topic, p)| reader.fetch_watermarks(&topic, p, Duration::from_secs(5)).map_or(0, |(_, end)| end)).sum()
    }

    /// All committed outputs.
    #[must_use]
    pub fn outputs(&self, kafka: &Kafka) -> Outputs {
        let outputs = self.cluster.catalog.topics().iter().filter(|t| t.role == Role::Output);
        outputs
            .map(|topic| {
                let records = kafka.read(&self.topic(&topic.name));
                let raw = topic.schema == "dead_letter";
                (topic.name.clone(), records.iter().map(|r| (r.key().to_owned(), if raw { Value::Null } else { r.json() })).collect())
            })
            .collect()
    }
}
