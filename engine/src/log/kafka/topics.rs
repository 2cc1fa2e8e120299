//! What the list of topics asks for against what the cluster has.

use super::{
    client::{ANSWER, Kafka, classify},
    context::{Quiet, WriterContext},
    stores::TOMBSTONES_STAY,
};
use crate::log::LogError;
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    producer::{BaseProducer, Producer},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{Cleanup, Role, Topic};

/// The setting that says for how long a compacted topic keeps tombstones.
const DELETE_RETENTION: &str = "delete.retention.ms";

/// One difference between the list and the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
pub enum Difference {
    /// The topic does not exist.
    Missing {
        /// Its name on the cluster.
        topic: String,
        /// Partitions it is to have.
        partitions: u32,
    },
    /// It has fewer partitions than declared.
    TooFew {
        /// Its name on the cluster.
        topic: String,
        /// Partitions it has.
        has: u32,
        /// Partitions it is to have.
        wants: u32,
        /// Widening it would move keys away from their state.
        keyed: bool,
    },
    /// It has more partitions than declared.
    TooMany {
        /// Its name on the cluster.
        topic: String,
        /// Partitions it has.
        has: u32,
        /// Partitions it is to have.
        wants: u32,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { topic, partitions } => write!(f, "{topic} does not exist; it is to have {partitions} partitions"),
            Self::TooFew { topic, has, wants, .. } => write!(f, "{topic} has {has} partitions, {wants} are declared"),
            Self::TooMany { topic, has, wants } => {
                write!(f, "{topic} has {has} partitions, only {wants} are declared: set topics.partitions to {has}")
            }
        }
    }
}

/// What is to be known of topics with one replica: docs/decisions/hanging-transactions.md.
pub const UNREPLICATED: &str = "when the broker of a topic with one replica is restarted under load, Kafka may show what it aborted, or hold back what it committed; \
                                have three brokers and topics.replication 3 for orders and money, or the embedded log (docs/kafka.md)";

/// The cluster's topics beside the list.
#[derive(Debug, Default)]
pub struct Plan {
    /// What differs.
    pub differences: Vec<Difference>,
    /// Topics of the list with a partition that one broker alone has.
    pub unreplicated: Vec<String>,
}

/// Compares the list with the cluster.
///
/// # Errors
/// When the cluster does not answer.
pub fn plan(kafka: &Kafka) -> Result<Plan, LogError> {
    let client: BaseProducer<WriterContext> =
        kafka.plain().create_with_context(WriterContext::default()).map_err(|e| classify("topics", &e))?;
    let metadata =
        client.client().fetch_metadata(None, ANSWER).map_err(|e| classify(&format!("the cluster at {}", kafka.settings.brokers), &e))?;
    let has: BTreeMap<_, _> = metadata.topics().iter().filter(|t| t.error().is_none()).map(|t| (t.name(), t.partitions())).collect();
    let Plan { mut differences, mut unreplicated } = Plan::default();
    for (index, topic) in kafka.catalog.topics().iter().enumerate() {
        let (name, wants) = (kafka.name(index), topic.partitions);
        let partitions = has.get(name.as_str());
        if partitions.is_some_and(|all| all.iter().any(|p| p.replicas().len() < 2)) {
            unreplicated.push(name.clone());
        }
        match partitions.map(|all| all.len() as u32) {
            None => differences.push(Difference::Missing { topic: name, partitions: wants }),
            Some(has) if has < wants => differences.push(Difference::TooFew { topic: name, has, wants, keyed: topic.role != Role::Output }),
            Some(has) if has > wants => differences.push(Difference::TooMany { topic: name, has, wants }),
            Some(_) => {}
        }
    }
    Ok(Plan { differences, unreplicated })
}

/// Refuses to start on topics that are missing or of another partition count.
///
/// # Errors
/// Names every topic that differs, and says what to do.
pub fn check(differences: &[Difference]) -> Result<(), LogError> {
    if differences.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = differences.iter().map(|d| format!("  {d}")).collect();
    Err(LogError::Fatal(format!("the cluster's topics are not as declared; see `tillflow topics plan`:\n{}", list.join("\n"))))
}

/// Creates missing topics and widens outputs; never deletes, never widens what state is keyed by.
///
/// # Errors
/// When the cluster refuses.
pub async fn apply(kafka: &Kafka, differences: &[Difference]) -> Result<(), LogError> {
    let admin: AdminClient<Quiet> = kafka.producer().create_with_context(Quiet).map_err(|e| classify("topics", &e))?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let replication = kafka.settings.replication.unwrap_or(-1);
    let mut settings = BTreeMap::new();
    for (index, topic) in kafka.catalog.topics().iter().enumerate() {
        settings.insert(kafka.name(index), options_of(topic));
    }
    let mut new = Vec::new();
    let mut wider = Vec::new();
    for difference in differences {
        match difference {
            Difference::Missing { topic, partitions } => {
                let mut creation = NewTopic::new(topic, *partitions as i32, TopicReplication::Fixed(replication));
                for (key, value) in settings.get(topic).into_iter().flatten() {
                    creation = creation.set(key, value);
                }
                new.push(creation);
            }
            Difference::TooFew { topic, wants, keyed: false, .. } => wider.push(NewPartitions::new(topic, *wants as usize)),
            _ => {}
        }
    }
    let mut results = Vec::new();
    if !new.is_empty() {
        results.extend(admin.create_topics(&new, &options).await.map_err(|e| classify("creating topics", &e))?);
    }
    if !wider.is_empty() {
        results.extend(admin.create_partitions(&wider, &options).await.map_err(|e| classify("widening topics", &e))?);
    }
    for result in results {
        match result {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(LogError::Fatal(format!("{topic}: the cluster refuses it: {code}"))),
        }
    }
    Ok(())
}

/// For how long a topic keeps tombstones. Where the cluster doesn't say, which needs a right of its own, it is taken to be
/// as we create topics.
pub fn tombstones_stay(kafka: &Kafka, topic: usize) -> Duration {
    let name = kafka.name(topic);
    delete_retention(kafka, &name).unwrap_or_else(|why| {
        let hours = TOMBSTONES_STAY.as_secs() / 3_600;
        tracing::warn!(topic = name, "{DELETE_RETENTION} is not known, and taken for {hours} h: {why}");
        TOMBSTONES_STAY
    })
}

fn delete_retention(kafka: &Kafka, name: &str) -> Result<Duration, String> {
    let admin: AdminClient<Quiet> = kafka.producer().create_with_context(Quiet).map_err(|e| e.to_string())?;
    let settings = described(&admin, ResourceSpecifier::Topic(name))?;
    let stated = settings.get(DELETE_RETENTION).and_then(|entry| entry.value.as_deref()?.parse().ok());
    stated.map(Duration::from_millis).ok_or_else(|| "it is not among the topic's settings".into())
}

/// The settings of one topic or broker: each broker answers for itself alone.
pub fn described(admin: &AdminClient<Quiet>, of: ResourceSpecifier<'_>) -> Result<ConfigResource, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let mut answers = runtime.block_on(admin.describe_configs(&[of], &options)).map_err(|e| e.to_string())?;
    answers.pop().ok_or("no answer")?.map_err(|code| code.to_string())
}

fn options_of(topic: &Topic) -> Vec<(&'static str, String)> {
    let mut options = vec![("message.timestamp.type", "LogAppendTime".to_owned())];
    match topic.cleanup {
        Cleanup::Compact => {
            options.push(("cleanup.policy", "compact".into()));
            options.push(("max.compaction.lag.ms", (7 * 24 * 3_600_000_i64).to_string()));
            options.push(("segment.bytes", (64 << 20).to_string()));
            options.push((DELETE_RETENTION, TOMBSTONES_STAY.as_millis().to_string()));
        }
        Cleanup::Delete => {
            options.push(("cleanup.policy", "delete".into()));
            options.push(("retention.ms", topic.retention.map_or(-1, |r| r.as_millis() as i64).to_string()));
        }
    }
    // An order of 10,000 items is larger than the default of a megabyte.
    options.push(("max.message.bytes", (10 << 20).to_string()));
    options
}
