//! Where the topics are: the embedded log of a data directory, or a cluster; read and appended to outside any group.

use super::{InstanceArgs, Usage, remote::Remote, source::Instance};
use crate::{
    config::{Config, LogKind},
    running,
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tillflow_engine::log::{
    NewRecord, Reader, Record, Start, TopicPartition,
    embedded::{Embedded, EmbeddedReader},
    kafka::{self, Kafka, KafkaReader},
};
use tillflow_engine_api::Group;
use tillflow_schemas::{Catalog, Timestamp, Topic, partition::partition};
use tillflow_state::StateError;

/// Longest wait for the next record of a topic that is not read to its end.
const STALLED: Duration = Duration::from_secs(30);

/// Longest wait for a broker's answer while producing.
const ANSWER: Duration = Duration::from_secs(20);

/// Flags that say where the topics and the state are.
#[derive(Args, Debug, Default)]
pub struct PlaceArgs {
    /// Where the topics are; kafka where brokers are given, else embedded
    #[arg(long)]
    pub log: Option<LogKind>,
    /// Kafka's bootstrap servers
    #[arg(long, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,
    /// Where state (and the embedded log) lies; ./tillflow-data where nothing else is configured
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl PlaceArgs {
    /// The keys that the flags set.
    pub fn flags(&self) -> BTreeMap<String, Value> {
        let mut flags = BTreeMap::new();
        let mut set = |key: &str, value: Option<Value>| flags.extend(value.map(|v| (key.to_owned(), v)));
        set("log", self.log.map(|l| json!(l)));
        set("brokers", self.brokers.as_ref().map(|b| json!(b)));
        set("data_dir", self.data_dir.as_ref().map(|d| json!(d)));
        flags
    }
}

/// Where the topics are.
pub enum Place {
    /// In a data directory that no process runs on.
    Embedded(Embedded),
    /// On a cluster.
    Kafka(Kafka),
    /// In the data directory of an instance that runs, and is asked.
    Instance(Box<Remote>),
}

impl Place {
    /// The place that the configuration names; where an instance runs on the data directory, that instance.
    ///
    /// # Errors
    /// When there is no data directory, another process holds it that does not answer, or no brokers are configured.
    pub fn open(config: &Config) -> Result<Self> {
        Self::open_or_ask(&InstanceArgs::default(), config)
    }

    /// The same; the instance may be named.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open_or_ask(args: &InstanceArgs, config: &Config) -> Result<Self> {
        if config.log_kind() == LogKind::Kafka {
            return Ok(Self::Kafka(cluster(config)?));
        }
        let ask = || -> Result<Self> { Ok(Self::Instance(Box::new(Remote::new(Instance::new(args, config)?, config)?))) };
        if args.url.is_some() {
            return ask();
        }
        match embedded(config) {
            Ok(log) => Ok(Self::Embedded(log)),
            Err(e) if is_held(&e) => ask().map_err(|asked| anyhow!("{e:#}; the instance that runs on it can't be asked: {asked:#}")),
            Err(e) => Err(e),
        }
    }

    /// The list of topics.
    pub fn catalog(&self) -> &Catalog {
        match self {
            Self::Embedded(log) => log.catalog(),
            Self::Kafka(kafka) => &kafka.catalog,
            Self::Instance(remote) => remote.catalog(),
        }
    }

    /// The topic whose values have that schema, and its place in the list.
    ///
    /// # Errors
    /// When the list has none.
    pub fn topic(&self, schema: &str) -> Result<(usize, &Topic)> {
        let found = self.catalog().topics().iter().enumerate().find(|(_, t)| t.schema == schema);
        found.with_context(|| format!("no topic holds {schema}"))
    }

    /// All committed records of a topic, by partition and offset.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read_all(&self, topic: usize) -> Result<Vec<Record>> {
        let partitions = self.catalog().topics().get(topic).map_or(0, |t| t.partitions);
        let mut records = Vec::new();
        self.read((0..partitions).map(|partition| TopicPartition { topic, partition }), &mut |record| records.push(record))?;
        records.sort_by_key(|r| (r.at, r.offset));
        Ok(records)
    }

    /// Calls `take` with all committed records of these partitions, in order a partition.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read(&self, partitions: impl IntoIterator<Item = TopicPartition>, take: &mut dyn FnMut(Record)) -> Result<()> {
        let mut reader: Box<dyn Reader> = match self {
            Self::Embedded(log) => Box::new(EmbeddedReader::new(log)),
            Self::Kafka(kafka) => Box::new(KafkaReader::new(kafka, false)?),
            Self::Instance(remote) => return partitions.into_iter().try_for_each(|at| remote.read(at, take)),
        };
        let mut ends = Vec::new();
        for at in partitions {
            let (begin, end) = (reader.begin(at)?, reader.end(at)?);
            if begin < end {
                ends.push((at, end));
            }
        }
        reader.assign(&ends.iter().map(|(at, _)| (*at, Start::Earliest)).collect::<Vec<_>>())?;
        let mut progressed = Instant::now();
        while ends.iter().any(|(at, end)| reader.position(*at).is_none_or(|p| p < *end)) {
            let batch = reader.poll(Duration::from_millis(200))?;
            if !batch.is_empty() {
                progressed = Instant::now();
            } else if progressed.elapsed() > STALLED {
                bail!("the log has not answered for {} s", STALLED.as_secs());
            }
            batch.into_iter().for_each(&mut *take);
        }
        Ok(())
    }

    /// Appends records, all of them or an error.
    ///
    /// # Errors
    /// When the log refuses them; then none is written.
    pub fn append(&self, records: Vec<NewRecord>) -> Result<()> {
        match self {
            Self::Embedded(log) => Ok(log.write(&records, std::iter::empty())?),
            Self::Instance(remote) => remote.append(&records),
            Self::Kafka(kafka) => produce(kafka, &records).context("the cluster did not take it; nothing was written"),
        }
    }
}

/// One transaction: all records or none. Two commands at once can't both go through, since the second fences the first.
fn produce(kafka: &Kafka, records: &[NewRecord]) -> Result<()> {
    let config = kafka.transactional(&format!("{}.command", kafka.settings.app_id));
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    producer.init_transactions(ANSWER)?;
    producer.begin_transaction()?;
    for record in records {
        let topic = kafka.name(record.to.topic);
        let headers =
            record.headers.iter().fold(OwnedHeaders::new(), |h, (key, value)| h.insert(Header { key, value: Some(value.as_slice()) }));
        let mut message = BaseRecord::<[u8], [u8]>::to(&topic).partition(record.to.partition as i32).headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        producer.send(message).map_err(|(e, _)| e)?;
    }
    Ok(producer.commit_transaction(ANSWER)?)
}

/// A record with the partition of its key.
pub fn keyed(index: usize, topic: &Topic, key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord {
        to: TopicPartition { topic: index, partition: partition(key.as_bytes(), topic.partitions) },
        at: Timestamp::wall(),
        key: Some(key.as_bytes().to_vec()),
        value: Some(value),
        headers: Vec::new(),
    }
}

/// The embedded log of the configured data directory, which must be there already.
///
/// # Errors
/// When it is not there, or another process holds it.
pub fn embedded(config: &Config) -> Result<Embedded> {
    existing(&config.data_dir)?;
    running::open_embedded(config, &config.catalog()?, &config.data_dir)
}

/// Refuses a directory without an embedded log, rather than make an empty one.
///
/// # Errors
/// Says what is missing.
pub fn existing(data_dir: &Path) -> Result<()> {
    if !data_dir.join("embedded").join("CURRENT").exists() {
        bail!("{} holds no embedded log; --data-dir names another data directory, --brokers a cluster", data_dir.display());
    }
    Ok(())
}

/// Whether that is why something failed: another process holds the data directory.
pub fn is_held(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StateError::Held { .. }))
}

/// Refuses where an instance runs on the cluster.
///
/// # Errors
/// Names the group that has members, or says that the cluster does not answer.
pub fn refuse_where_someone_runs(kafka: &Kafka, groups: &[Group]) -> Result<()> {
    for group in groups {
        let name = kafka.group(group.name);
        let client: BaseConsumer = kafka.consumer(&name).create()?;
        // On a cluster that has just started, the groups' coordinator is not ready for a moment.
        let found = kafka::ask(&format!("who is in group {name}"), || client.fetch_group_list(Some(&name), ANSWER))?;
        if found.groups().iter().any(|g| !g.members().is_empty()) {
            bail!("an instance runs on that cluster: group {name} has members; stop it, and wait until its session has ended");
        }
    }
    Ok(())
}

/// The configured cluster, for asking and producing outside any group.
///
/// # Errors
/// When no brokers are configured.
pub fn cluster(config: &Config) -> Result<Kafka> {
    if config.brokers.is_none() {
        return Err(Usage("no brokers are configured; give --brokers HOST:PORT".into()).into());
    }
    let mut config = config.clone();
    // It joins no group, so it needs no name of its own, and leaves none in the data directory.
    config.instance.id.get_or_insert_with(|| "command".into());
    running::cluster(&config, &Arc::new(config.catalog()?))
}
