//! Before a task runs: transactions that a former owner may have left open are decided.

use super::{
    client::{ANSWER, Kafka, classify},
    context::{MemberContext, Quiet},
    reader::KafkaReader,
    transaction::initialised,
};
use crate::log::{LogError, TopicPartition};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// So long the worker itself waits for stable offsets, which nearly all are at once.
const GLANCE: Duration = Duration::from_millis(150);
/// How long committed offsets may take to become stable before the one who holds them back is fenced.
const PATIENCE: Duration = Duration::from_millis(300);
/// Longest wait in all: after a transaction's timeout of 10 s and the 10 s at which coordinators look for such, no
/// transaction is open any more.
const LONGEST: Duration = Duration::from_secs(25);
/// Where one is known to hang, it is not waited for as long again; nor for a changelog, which restoring waits for, too.
const BRIEF: Duration = Duration::from_secs(1);
/// Between two looks at a changelog.
const PAUSE: Duration = Duration::from_millis(20);

/// The partitions whose committed offsets a worker waits for. That may take as long as a transaction's timeout; so each
/// has a thread of its own, and the worker's other tasks go on.
pub struct Settling {
    kafka: Kafka,
    group: &'static str,
    /// Its own transactional id, which it has initialised already.
    own: String,
    clients: Option<Arc<Clients>>,
    under_way: BTreeMap<u32, UnderWay>,
    /// Partitions with committed offsets that never become stable.
    hanging: BTreeSet<u32>,
}

struct UnderWay {
    thread: JoinHandle<Result<Settled, LogError>>,
    /// The partition is another's: whoever holds its offsets back may be that one.
    given_up: Arc<AtomicBool>,
}

enum Settled {
    /// All transactions on the offsets are decided.
    Decided,
    /// One hangs in the offsets' topic, and none is open on the changelog, to which every transaction writes.
    Hangs,
}

impl Settling {
    /// None under way yet.
    pub fn new(kafka: &Kafka, group: &'static str, own: &str) -> Self {
        Self { kafka: kafka.clone(), group, own: own.to_owned(), clients: None, under_way: BTreeMap::new(), hanging: BTreeSet::new() }
    }

    /// Whether the committed offsets of a task's `inputs` are stable, and all transactions on its changelog decided; if not,
    /// that is seen to, and to be asked again.
    ///
    /// # Errors
    /// When they do not become stable, or the cluster does not answer.
    pub fn is_done(
        &mut self,
        member: &BaseConsumer<MemberContext>,
        reader: &KafkaReader,
        inputs: &[TopicPartition],
        changelog: TopicPartition,
    ) -> Result<bool, LogError> {
        let partition = changelog.partition;
        if let Some(under_way) = self.under_way.remove(&partition) {
            if !under_way.thread.is_finished() {
                self.under_way.insert(partition, under_way);
                return Ok(false);
            }
            let died = |_| Err(LogError::Unavailable("the thread that decides transactions died".into()));
            let settled = under_way.thread.join().unwrap_or_else(died)?;
            return Ok(self.note(partition, settled));
        }
        let list = self.kafka.list(inputs.iter().copied());
        // Where one is waited for, the next may well have to be, too: once is enough for the worker to stand.
        if self.under_way.is_empty() && member.committed_offsets(list.clone(), GLANCE).is_ok() && reader.is_decided(changelog)? {
            return Ok(self.note(partition, Settled::Decided));
        }
        let under_way = self.begin(list, changelog)?;
        self.under_way.insert(partition, under_way);
        Ok(false)
    }

    /// What was found; true, since either way the task may run.
    fn note(&mut self, partition: u32, settled: Settled) -> bool {
        match settled {
            Settled::Decided => self.hanging.remove(&partition),
            Settled::Hangs => {
                tracing::warn!(
                    group = self.group,
                    partition,
                    "a transaction hangs in __consumer_offsets (kafka-transactions.sh find-hanging shows it); the changelog says where to go on"
                );
                self.hanging.insert(partition)
            }
        };
        true
    }

    fn begin(&mut self, inputs: TopicPartitionList, changelog: TopicPartition) -> Result<UnderWay, LogError> {
        let clients = match &self.clients {
            Some(clients) => clients.clone(),
            None => self.clients.insert(Arc::new(Clients::new(&self.kafka, self.group)?)).clone(),
        };
        let longest = if self.hanging.contains(&changelog.partition) { BRIEF } else { LONGEST };
        let given_up = Arc::new(AtomicBool::new(false));
        let (kafka, group, own, ends) = (self.kafka.clone(), self.group, self.own.clone(), given_up.clone());
        let settle = move || settle(&kafka, &clients, group, &own, &inputs, changelog, longest, &ends);
        let thread = std::thread::Builder::new().name(format!("settle-{}", changelog.partition)).spawn(settle);
        let thread = thread.map_err(|e| LogError::Unavailable(format!("no thread to decide transactions: {e}")))?;
        Ok(UnderWay { thread, given_up })
    }

    /// These are not this worker's any more.
    pub fn give_up(&mut self, partitions: &[u32]) {
        for under_way in partitions.iter().filter_map(|partition| self.under_way.remove(partition)) {
            under_way.given_up.store(true, Ordering::Release);
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        let all: Vec<_> = self.under_way.keys().copied().collect();
        self.give_up(&all);
    }
}

/// What is asked outside the group's membership.
struct Clients {
    stable: BaseConsumer<Quiet>,
    /// Is told what is not yet decided, too.
    undecided: BaseConsumer<Quiet>,
    changelog: KafkaReader,
}

impl Clients {
    fn new(kafka: &Kafka, group: &str) -> Result<Self, LogError> {
        let mut config = kafka.consumer(&kafka.group(group));
        let stable = config.create_with_context(Quiet).map_err(|e| classify("committed offsets", &e))?;
        config.set("isolation.level", "read_uncommitted");
        let undecided = config.create_with_context(Quiet).map_err(|e| classify("committed offsets", &e))?;
        Ok(Self { stable, undecided, changelog: KafkaReader::new(kafka, true)? })
    }

    /// Who committed the offsets last, stable or not.
    fn writers(&self, inputs: &TopicPartitionList) -> Result<BTreeSet<String>, LogError> {
        let committed = self.undecided.committed_offsets(inputs.clone(), ANSWER).map_err(|e| classify("committed offsets", &e))?;
        Ok(committed.elements().iter().map(|e| e.metadata().to_owned()).filter(|m| !m.is_empty()).collect())
    }
}

/// Waits until the committed offsets of `inputs` are stable, and for a short while for the changelog.
///
/// Offsets carry the transactional id of the worker that committed them. A transaction of that id that is still open
/// holds them back until it times out; initialising a producer of that id decides it at once, and its owner, should
/// it wake, is fenced. Offsets are sent first: every transaction that is open on the changelog holds them back, too, and
/// only its markers may come to one before the other.
#[allow(clippy::too_many_arguments, reason = "the start of a thread, which owns what it uses")]
fn settle(
    kafka: &Kafka,
    clients: &Clients,
    group: &str,
    own: &str,
    inputs: &TopicPartitionList,
    changelog: TopicPartition,
    longest: Duration,
    given_up: &AtomicBool,
) -> Result<Settled, LogError> {
    let started = Instant::now();
    let mut fenced = BTreeSet::new();
    loop {
        match clients.stable.committed_offsets(inputs.clone(), PATIENCE) {
            Ok(_) if started.elapsed() > BRIEF || clients.changelog.is_decided(changelog)? => return Ok(Settled::Decided),
            // The markers of what is decided may be on their way.
            Ok(_) if started.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Ok(_) => std::thread::sleep(PAUSE),
            Err(_) if started.elapsed() > longest && clients.changelog.is_decided(changelog)? => return Ok(Settled::Hangs),
            Err(e) if started.elapsed() > longest => return Err(classify("committed offsets", &e)),
            Err(e) => tracing::debug!(group, "committed offsets are not stable yet: {e}"),
        }
        for id in clients.writers(inputs)? {
            if given_up.load(Ordering::Acquire) {
                return Err(LogError::Unavailable("the partition is another's".into()));
            }
            if id != own && fenced.insert(id.clone()) {
                tracing::info!(group, transactional_id = id, "deciding the transaction that a former owner left open");
                drop(initialised(kafka, &id)?);
            }
        }
    }
}
