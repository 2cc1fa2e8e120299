//! A real Kafka: one node, KRaft, from its jars.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::{Exit, Process, Proxy, Record, Scratch, free_port, scratch, unique, until};

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
pub enum Place<K> {
    /// To the partition of its key.
    Key(K),
    /// To a partition, without a key.
    Partition(u32),
}

/// How a broker is started.
#[derive(Debug, Clone)]
pub struct KafkaSetup {
    heap_mb: u32,
    optimise: bool,
    properties: String,
}

impl Default for KafkaSetup {
    fn default() -> Self {
        Self { heap_mb: 512, optimise: false, properties: String::new() }
    }
}

impl KafkaSetup {
    /// The Java heap; 512 MB unless told.
    #[must_use]
    pub fn heap_mb(mut self, megabytes: u32) -> Self {
        self.heap_mb = megabytes;
        self
    }

    /// With Java's optimising compiler and Kafka's own settings of it: a second slower to start, right for load.
    #[must_use]
    pub fn for_load(mut self) -> Self {
        self.optimise = true;
        self
    }

    /// A broker property over those of `tests/kafka.properties`.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        let _ = writeln!(self.properties, "{name}={value}");
        self
    }

    /// With rights that [`Kafka::acls`] changes; what no rule is about is everybody's.
    #[must_use]
    pub fn with_rights(self) -> Self {
        self.property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .property("allow.everyone.if.no.acl.found", "true")
            .property("super.users", "User:nobody")
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(self) -> Kafka {
        Kafka::start_with(self)
    }
}

/// A broker. Killed when dropped; the shared one, when the test process ends.
#[derive(Debug)]
pub struct Kafka {
    setup: KafkaSetup,
    port: u16,
    controller_port: u16,
    proxied_port: u16,
    proxy_port: u16,
    files: Scratch,
    process: Process,
    prefix: String,
}

impl Kafka {
    /// The broker that all tests of this process share, which none of them may stop. Topics there need names of
    /// their own: see [`Kafka::prefix`].
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A broker of the test's own, to be stopped and started at will.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(KafkaSetup::default())
    }

    /// With other settings than usual.
    #[must_use]
    pub fn setup() -> KafkaSetup {
        KafkaSetup::default()
    }

    /// One more broker of the same cluster; the first stays its only controller.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn joined_by(&self, id: u32) -> Self {
        Self::begin(self.setup.clone(), Some(id), self.controller_port)
    }

    fn start_with(setup: KafkaSetup) -> Self {
        Self::begin(setup, None, free_port())
    }

    /// Starts a broker with a directory of its own, which is also the controller unless it has an `id`.
    fn begin(setup: KafkaSetup, id: Option<u32>, controller_port: u16) -> Self {
        let files = scratch("kafka");
        let (port, proxied_port, proxy_port) = (free_port(), free_port(), free_port());
        let mut properties = include_str!("../kafka.properties")
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER@", &controller_port.to_string())
            .replace("@PROXIED@", &proxied_port.to_string())
            .replace("@PROXY@", &proxy_port.to_string())
            .replace("@DIR@", &files.path().display().to_string());
        if let Some(id) = id {
            let _ = writeln!(properties, "process.roles=broker\nnode.id={id}");
            let _ = writeln!(properties, "listeners=DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied_port}");
        }
        properties.push_str(&setup.properties);
        fs::write(files.join("server.properties"), properties).expect("the broker's properties");
        fs::create_dir(files.join("data")).expect("the broker's directory");
        for entry in fs::read_dir(prepared().join("formatted")).expect("a formatted directory") {
            let entry = entry.expect("a file of it");
            fs::copy(entry.path(), files.join("data").join(entry.file_name())).expect("a copy of it");
        }
        if let Some(id) = id {
            let meta = files.join("data").join("meta.properties");
            let first = fs::read_to_string(&meta).expect("the directory's description");
            let others = first.lines().filter(|line| !line.starts_with("node.id") && !line.starts_with("directory.id"));
            // 16 bytes in Base64.
            let directory = format!("{:A<22}", format!("broker{id}"));
            let own = [format!("node.id={id}"), format!("directory.id={directory}")];
            let lines: Vec<_> = others.map(str::to_owned).chain(own).collect();
            fs::write(&meta, lines.join("\n")).expect("the directory's description");
        }
        let process = launch(&setup, &files);
        let mut kafka = Self { setup, port, controller_port, proxied_port, proxy_port, files, process, prefix: unique("t") };
        kafka.wait_until_up();
        kafka
    }

    /// `127.0.0.1:PORT`, for clients.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A fresh prefix at every call, `t-7.` say: for `topics.prefix` and groups on the shared broker.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}.", unique(&self.prefix))
    }

    /// A proxy in front of this broker: clients given [`Proxy::address`] as their brokers stay behind it.
    ///
    /// # Panics
    /// When there is one already: a broker knows one address of a proxy.
    #[must_use]
    pub fn proxy(&self) -> Proxy {
        Proxy::kafka(self.proxy_port, self.proxied_port)
    }

    /// SIGKILL: a broker that crashes.
    pub fn kill(&mut self) -> Exit {
        self.process.kill()
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Exit {
        self.process.terminate(Duration::from_secs(30))
    }

    /// The same broker once more, with its port and its records. Kills it if it still runs.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = launch(&self.setup, &self.files);
        self.wait_until_up();
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.process.thaw();
    }

    /// What it complained of.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// A client's configuration with nothing but the brokers.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    /// Creates a topic.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let created = self.administer(async |admin, options| admin.create_topics([&topic], options).await);
        for result in created {
            result.unwrap_or_else(|(topic, code)| panic!("{topic} is not created: {code}"));
        }
    }

    /// Deletes a topic, and waits until it is gone.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn delete_topic(&self, name: &str) {
        let deleted = self.administer(async |admin, options| admin.delete_topics(&[name], options).await);
        for result in deleted {
            result.unwrap_or_else(|(topic, code)| panic!("{topic} is not deleted: {code}"));
        }
        until(&format!("{name} is gone"), Duration::from_secs(20), || !self.topics().contains_key(name));
    }

    /// Deletes a partition's records before an offset, as retention does.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: u32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, Offset::Offset(before)).expect("an offset");
        let answer = self.administer(async |admin, options| admin.delete_records(&list, options).await);
        for element in answer.elements() {
            element.error().unwrap_or_else(|code| panic!("records of {topic} are not deleted: {code}"));
        }
    }

    /// Runs one command of the admin client.
    ///
    /// # Panics
    /// When it fails as a whole.
    pub fn administer<T>(
        &self,
        command: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> Result<T, KafkaError>,
    ) -> T {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(command(&admin, &options)).expect("an answer to the admin client")
    }

    /// Adds or removes access rules, in the words of Kafka's own `kafka-acls`. The broker needs an authorizer:
    /// [`KafkaSetup::with_rights`].
    ///
    /// # Panics
    /// When it refuses.
    pub fn acls(&self, arguments: &[&str]) {
        self.tool("AclCommand", arguments);
    }

    /// What the broker said of transactions whose markers it did not write: it takes partitions without a leader for deleted
    /// ones (docs/decisions/hanging-transactions.md).
    #[must_use]
    pub fn skipped_markers(&self) -> Vec<String> {
        self.process.stderr().lines().filter(|line| line.contains("likely deleted already")).map(str::to_owned).collect()
    }

    /// Runs one of Kafka's own tools.
    fn tool(&self, class: &str, arguments: &[&str]) {
        let mut command = Command::new("java");
        command.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(prepared().join("libs/*")).arg(format!("org.apache.kafka.tools.{class}"));
        let output = command.args(["--bootstrap-server", &self.bootstrap()]).args(arguments).output().expect("java runs");
        assert!(output.status.success(), "{class} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The topics there are and their numbers of partitions, internal ones of Kafka's own left out.
    #[must_use]
    pub fn topics(&self) -> HashMap<String, usize> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).expect("metadata");
        let topics = metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len()));
        topics.filter(|(name, _)| !name.starts_with("__")).collect()
    }

    /// Bytes of a topic's records, as they lie on the broker's disk.
    #[must_use]
    pub fn bytes_of(&self, topic: &str) -> u64 {
        let Ok(directories) = fs::read_dir(self.files.join("data")) else { return 0 };
        let of_topic = |name: &str| name.rsplit_once('-').is_some_and(|(of, _)| of == topic);
        let partitions = directories.flatten().filter(|d| d.file_name().to_str().is_some_and(of_topic));
        let files = partitions.filter_map(|d| fs::read_dir(d.path()).ok()).flatten().flatten();
        let segments = files.filter(|f| f.path().extension().is_some_and(|e| e == "log"));
        segments.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
    }

    /// Writes records as (key, value), keyed by murmur2 as Java clients do, and waits until the broker has them.
    ///
    /// # Panics
    /// When it doesn't take them.
    pub fn send<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, topic: &str, records: impl IntoIterator<Item = (K, V)>) {
        self.put(topic, records.into_iter().map(|(key, value)| (Place::Key(key), value)));
    }

    /// As [`Self::send`], each to its place.
    ///
    /// # Panics
    /// When the broker doesn't take them.
    pub fn put<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, topic: &str, records: impl IntoIterator<Item = (Place<K>, V)>) {
        let mut config = self.client();
        config.set("partitioner", "murmur2_random").set("enable.idempotence", "true").set("linger.ms", "1");
        let producer: BaseProducer = config.create().expect("a producer");
        for (place, value) in records {
            let mut record = BaseRecord::to(topic).payload(value.as_ref());
            record = match &place {
                Place::Key(key) => record.key(key.as_ref()),
                Place::Partition(partition) => record.partition(*partition as i32),
            };
            while let Err((error, same)) = producer.send(record) {
                let full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
                assert!(full, "not sent to {topic}: {error}");
                producer.poll(Duration::from_millis(20));
                record = same;
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap_or_else(|error| panic!("not sent to {topic}: {error}"));
    }

    /// All committed records of a topic, partition by partition in order.
    #[must_use]
    pub fn read(&self, topic: &str) -> Vec<Record> {
        self.read_with(topic, "read_committed")
    }

    /// All records of a topic, those of aborted and open transactions among them.
    #[must_use]
    pub fn read_uncommitted(&self, topic: &str) -> Vec<Record> {
        self.read_with(topic, "read_uncommitted")
    }

    /// To the end as the broker tells it at each partition; transaction markers and compaction leave gaps, so
    /// offsets alone don't say when all is read.
    fn read_with(&self, topic: &str, isolation: &str) -> Vec<Record> {
        let mut config = self.client();
        config.set("group.id", "tests").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", isolation).set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("metadata");
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        assert!(partitions > 0, "no topic {topic}");
        let mut wanted = TopicPartitionList::new();
        for partition in 0..partitions {
            wanted.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&wanted).expect("an assignment");
        let mut ended = vec![false; partitions];
        let mut records = Vec::new();
        while ended.contains(&false) {
            match consumer.poll(Duration::from_secs(30)) {
                Some(Ok(message)) => records.push(Record::from(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => ended[partition as usize] = true,
                Some(Err(error)) => panic!("{topic} can't be read: {error}"),
                None => panic!("{topic} can't be read to its end within 30 s"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    fn wait_until_up(&mut self) {
        let client = self.client();
        let mut consumer: Option<BaseConsumer> = None;
        until("Kafka answers", Duration::from_secs(60), || {
            assert!(self.process.is_running(), "Kafka has ended:\n{}", self.process.stderr());
            // No client before the port is open: one that is refused waits longer and longer to try again.
            if consumer.is_none() && std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
                return false;
            }
            let consumer = consumer.get_or_insert_with(|| client.create().expect("a consumer"));
            consumer.fetch_metadata(None, Duration::from_secs(5)).is_ok_and(|metadata| !metadata.brokers().is_empty())
        });
    }
}

fn launch(setup: &KafkaSetup, files: &Scratch) -> Process {
    let kafka = prepared();
    Process::spawn("kafka", files.path(), Path::new("java"), |command| {
        command.arg(format!("-Xmx{}m", setup.heap_mb));
        if setup.optimise {
            // As Kafka's own script starts it.
            command.arg(format!("-Xms{}m", setup.heap_mb)).args([
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
            ]);
        } else {
            command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        }
        command.arg(format!("-XX:SharedArchiveFile={}", kafka.join("classes.jsa").display()));
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        // For Kafka::skipped_markers.
        command.arg("-Dorg.slf4j.simpleLogger.log.kafka.coordinator.transaction.TransactionMarkerChannelManager=info");
        command.arg("-cp").arg(kafka.join("libs/*"));
        command.arg("kafka.Kafka").arg(files.join("server.properties"));
    })
}

/// Where `scripts/kafka prepare` put the jars.
fn prepared() -> &'static Path {
    static PREPARED: OnceLock<PathBuf> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kafka");
        let output = Command::new(script).arg("prepare").output().expect("scripts/kafka runs");
        assert!(output.status.success(), "no Kafka: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
    })
}
