//! How to reach the cluster, and the client configurations derived from it.

use super::purge::Purging;
use crate::{
    config::COMMIT_TIMEOUT,
    log::{LogError, TopicPartition},
};
use rdkafka::{ClientConfig, TopicPartitionList, error::KafkaError, types::RDKafkaErrorCode};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_schemas::Catalog;

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port,…`
    pub brokers: String,
    /// Prefix of consumer groups and transactional ids.
    pub app_id: String,
    /// Stable name of this instance; static member ids are made from it.
    pub instance_id: String,
    /// Goes before every topic name.
    pub prefix: String,
    /// Replicas of topics that are created; `None` is the broker's default.
    pub replication: Option<i32>,
    /// After so long without a heartbeat a member counts as dead.
    pub session_timeout: Duration,
    /// How sparingly consumed records of internal topics are deleted.
    pub purging: Purging,
    /// Further librdkafka settings, such as `security.protocol` and `sasl.*`.
    pub options: BTreeMap<String, String>,
}

/// A cluster, with the list of topics.
#[derive(Clone)]
pub struct Kafka {
    /// How to reach it.
    pub settings: Arc<KafkaSettings>,
    /// The list of topics.
    pub catalog: Arc<Catalog>,
}

/// Longest wait for a broker's answer to a single question.
pub const ANSWER: Duration = Duration::from_secs(10);
/// How long an answer is asked for again that says "not now": a busy broker takes some time over new topics.
pub const PASSING: Duration = Duration::from_secs(45);

/// A time to wait, in whole milliseconds: rdkafka has librdkafka wait for those, and for what is left of one it polls without a rest.
pub fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_nanos().div_ceil(1_000_000) as u64)
}

impl Kafka {
    /// The cluster of these settings.
    pub fn new(settings: KafkaSettings, catalog: &Arc<Catalog>) -> Self {
        Self { settings: Arc::new(settings), catalog: catalog.clone() }
    }

    /// A topic's name on the cluster.
    pub fn name(&self, topic: usize) -> String {
        let name = self.catalog.topics().get(topic).map_or("", |t| t.name.as_str());
        format!("{}{name}", self.settings.prefix)
    }

    /// The topic of a name on the cluster.
    pub fn topic(&self, name: &str) -> Option<usize> {
        self.catalog.index(name.strip_prefix(self.settings.prefix.as_str())?)
    }

    /// A list of partitions, for librdkafka.
    pub fn list(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for at in partitions {
            list.add_partition(&self.name(at.topic), at.partition as i32);
        }
        list
    }

    /// The consumer group of a task group.
    pub fn group(&self, group: &str) -> String {
        format!("{}.{group}", self.settings.app_id)
    }

    /// The transactional id of a worker.
    pub fn transactional_id(&self, group: &str, worker: u32) -> String {
        format!("{}.{group}.{}-{worker}", self.settings.app_id, self.settings.instance_id)
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers);
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.ms", "20");
        config.set("reconnect.backoff.max.ms", "1000");
        // Each produces and consumes tens of records a second at least; idle connections are not worth closing.
        config.set("connections.max.idle.ms", "0");
        config.set("broker.address.family", "any");
        for (key, value) in &self.settings.options {
            config.set(key, value);
        }
        config
    }

    /// A consumer's configuration.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.base();
        config.set("group.id", group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("isolation.level", "read_committed");
        config.set("fetch.wait.max.ms", "50");
        config.set("fetch.queue.backoff.ms", "5");
        config.set("fetch.error.backoff.ms", "50");
        config.set("queued.max.messages.kbytes", "4096");
        config.set("fetch.message.max.bytes", "2097152");
        config.set("topic.metadata.refresh.interval.ms", "60000");
        config
    }

    /// The configuration of a worker's consumer. A static member can't leave (librdkafka sends no request for it): its
    /// session has to end. So one that is to leave is none.
    pub fn member(&self, group: &str, worker: u32, leave: bool) -> ClientConfig {
        let mut config = self.consumer(&self.group(group));
        config.set("group.protocol", "classic");
        if !leave {
            config.set("group.instance.id", self.member_id(group, worker));
        }
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("session.timeout.ms", self.settings.session_timeout.as_millis().to_string());
        config.set("heartbeat.interval.ms", (self.settings.session_timeout.as_millis() / 4).to_string());
        config.set("max.poll.interval.ms", "300000");
        // Each input has a queue of its own.
        config.set("queued.max.messages.kbytes", "1024");
        config.set("fetch.message.max.bytes", "1048576");
        config
    }

    /// A producer's configuration.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config.set("enable.idempotence", "true");
        config.set("compression.type", "lz4");
        config.set("linger.ms", "2");
        config.set("batch.size", "1000000");
        config.set("message.max.bytes", "10000000");
        config.set("queue.buffering.max.messages", "2000000");
        config.set("queue.buffering.max.kbytes", "262144");
        config.set("partitioner", "murmur2_random");
        config
    }

    /// The configuration of a producer that only asks, or writes what does no harm twice: it needs no id. To close a
    /// consumer takes a tenth of a second.
    pub fn plain(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("enable.idempotence", "false");
        config
    }

    /// The configuration of a worker's producer.
    pub fn transactional(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", COMMIT_TIMEOUT.as_millis().to_string());
        // Back-to-back transactions otherwise cost 100 ms each: the coordinator answers CONCURRENT_TRANSACTIONS while it
        // writes the last one's markers, which takes a millisecond or two. Doubled with each answer.
        config.set("retry.backoff.ms", "1");
        config
    }
}

/// Asks again while the answer is one that passes: a topic just created has no leader for a moment, a broker that
/// restarts is away for some.
///
/// # Errors
/// Any other answer, and that one once it was given for too long.
pub fn ask<T>(what: &str, mut question: impl FnMut() -> Result<T, KafkaError>) -> Result<T, LogError> {
    use RDKafkaErrorCode as E;
    let deadline = Instant::now() + PASSING;
    loop {
        match question() {
            Ok(answer) => return Ok(answer),
            Err(e) => match e.rdkafka_error_code() {
                Some(
                    E::NotLeaderForPartition
                    | E::LeaderNotAvailable
                    | E::UnknownTopicOrPartition
                    | E::UnknownPartition
                    | E::CoordinatorNotAvailable
                    | E::CoordinatorLoadInProgress
                    | E::BrokerTransportFailure
                    | E::OperationTimedOut
                    | E::UnknownTopic
                    | E::AllBrokersDown
                    | E::KafkaStorageError
                    | E::UnknownLeaderEpoch
                    | E::FencedLeaderEpoch
                    | E::OffsetNotAvailable,
                ) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                _ => return Err(classify(what, &e)),
            },
        }
    }
}

/// What an error of the client means for the engine.
pub fn classify(what: &str, error: &KafkaError) -> LogError {
    use RDKafkaErrorCode as E;
    let text = format!("{what}: {error}");
    match error.rdkafka_error_code() {
        Some(
            E::TopicAuthorizationFailed
            | E::GroupAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::TransactionalIdAuthorizationFailed,
        ) => LogError::Fatal(format!("{text}; grant the rights that docs/kafka.md lists")),
        Some(E::Authentication | E::SaslAuthenticationFailed | E::UnsupportedSASLMechanism | E::UnsupportedVersion) => {
            LogError::Fatal(format!("{text}; check kafka.options"))
        }
        Some(E::InvalidSessionTimeout | E::InvalidTransactionTimeout) => {
            LogError::Fatal(format!("{text}; docs/kafka.md lists the brokers' settings that are needed"))
        }
        _ => LogError::Unavailable(text),
    }
}

/// What is said when another process took `id` over, and what to do.
pub fn taken_over(reason: &str, id: &str) -> String {
    format!("{reason}; another process runs as '{id}': give each its own instance.id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_milliseconds_and_never_shorter() {
        let waits = [0, 1, 999_999, 1_000_000, 1_000_001, 50_000_000].map(|nanos| whole_millis(Duration::from_nanos(nanos)).as_nanos());
        assert_eq!(waits, [0, 1_000_000, 1_000_000, 1_000_000, 2_000_000, 50_000_000]);
    }
}
