//! The simulated cluster: brokers, groups, disks, processes, and what has gone wrong.

use super::{
    dice::Dice,
    disk::{Disk, StoreId},
    group::ConsumerGroup,
    partition::{Data, Partition},
    planted::Defect,
    transactions::{Marker, Transactions},
};
use crate::{ManualClock, log::TopicPartition};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A process, living or dead.
pub type ProcessId = u64;

/// How often things go wrong: each once in so many times, never where it is 0.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Whether anything goes wrong at all.
    pub on: bool,
    /// The process is killed at a step.
    pub crash: u64,
    /// The process stands still at a step, for longer than its session or not.
    pub freeze: u64,
    /// A step takes long.
    pub slow: u64,
    /// A transaction's end stays without an answer.
    pub lost_end: u64,
    /// A transaction has to be aborted.
    pub abort: u64,
    /// The process dies within a local write.
    pub torn: u64,
    /// The disk is full once the brokers have committed, and for a while.
    pub full: u64,
    /// A store is flushed after a local write.
    pub flush: u64,
    /// A partition is slow to fetch from.
    pub slow_partition: u64,
    /// How slow, at most, in milliseconds.
    pub slowest_ms: u64,
    /// Records of one input in one fetch, at most.
    pub fetched_at_once: u64,
    /// For how long a worker rests after each transaction.
    pub rest: Duration,
    /// A transaction's marker arrives late.
    pub slow_marker: u64,
    /// A compacted topic is compacted, at a look.
    pub compaction: u64,
}

/// One process.
#[derive(Clone, Debug, Default)]
struct Process {
    alive: bool,
    frozen_until: Duration,
    disk_full_until: Duration,
    /// Its disk was full once.
    was_full: bool,
    machine: String,
    clients: BTreeSet<u64>,
}

/// How long the changelog keeps tombstones.
pub const KEEP_TOMBSTONES: Duration = Duration::from_secs(24 * 3600);

/// The cluster.
pub struct World {
    clock: Arc<ManualClock>,
    /// Chance.
    pub dice: Dice,
    /// What goes wrong.
    pub faults: Faults,
    /// A defect that is planted.
    pub planted: Option<Defect>,
    pub(super) partitions: BTreeMap<TopicPartition, Partition>,
    compacted: BTreeSet<usize>,
    pub(super) transactions: Transactions,
    pub(super) groups: BTreeMap<&'static str, ConsumerGroup>,
    disks: BTreeMap<StoreId, Arc<RwLock<Disk>>>,
    processes: BTreeMap<ProcessId, Process>,
    wakes: BTreeMap<u64, Duration>,
    pub(super) late_ends: Vec<(Duration, String, u32)>,
    next_id: u64,
    down_until: Duration,
    /// What must never be seen.
    pub violations: Vec<String>,
    /// How often which fault happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// The cluster, shared by all who live in it.
#[derive(Clone)]
pub struct Sim(pub Arc<Mutex<World>>);

impl Sim {
    /// A cluster with these topics (partitions, compacted) and groups (name, partitions), whose members count as dead after
    /// a session without a heartbeat.
    pub fn new(
        clock: &Arc<ManualClock>,
        dice: Dice,
        faults: Faults,
        topics: &[(u32, bool)],
        groups: &[(&'static str, u32)],
        eager: bool,
        session: Duration,
    ) -> Self {
        let partitions = topics
            .iter()
            .enumerate()
            .flat_map(|(topic, (n, _))| (0..*n).map(move |partition| (TopicPartition { topic, partition }, Partition::default())));
        let mut transactions = Transactions::default();
        transactions.slow_marker = faults.slow_marker;
        Self(Arc::new(Mutex::new(World {
            clock: clock.clone(),
            dice,
            faults,
            planted: None,
            partitions: partitions.collect(),
            compacted: topics.iter().enumerate().filter(|(_, (_, compacted))| *compacted).map(|(i, _)| i).collect(),
            transactions,
            groups: groups.iter().map(|(name, n)| (*name, ConsumerGroup::new(*n, eager, session))).collect(),
            disks: BTreeMap::new(),
            processes: BTreeMap::new(),
            wakes: BTreeMap::new(),
            late_ends: Vec::new(),
            next_id: 1,
            down_until: Duration::ZERO,
            violations: Vec::new(),
            counts: BTreeMap::new(),
        })))
    }
}

impl World {
    /// Plants a defect.
    pub fn plant(&mut self, defect: Defect) {
        self.planted = Some(defect);
        self.transactions.unfenced = defect == Defect::NoFencing;
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<ManualClock> {
        self.clock.clone()
    }

    /// Notes that something happened.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Notes what must never be seen.
    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A number nobody else has: of a process or a client.
    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A process starts on a machine.
    pub fn start(&mut self, machine: &str) -> ProcessId {
        let id = self.fresh_id();
        self.processes.insert(id, Process { alive: true, machine: machine.to_owned(), ..Process::default() });
        id
    }

    /// Whether it lives.
    pub fn is_alive(&self, process: ProcessId) -> bool {
        self.processes.get(&process).is_some_and(|p| p.alive)
    }

    /// When a client has something to do again.
    pub fn wakes(&self, process: ProcessId, client: u64) -> Duration {
        let frozen = self.processes.get(&process).map_or(Duration::ZERO, |p| p.frozen_until);
        self.wakes.get(&client).copied().unwrap_or_default().max(frozen)
    }

    /// A client has nothing to do until then.
    pub(super) fn sleep_until(&mut self, client: u64, until: Duration) {
        self.wakes.insert(client, until);
    }

    pub(super) fn adopt(&mut self, process: ProcessId, client: u64) {
        if let Some(p) = self.processes.get_mut(&process) {
            p.clients.insert(client);
        }
    }

    pub(super) fn machine(&self, process: ProcessId) -> String {
        self.processes.get(&process).map(|p| p.machine.clone()).unwrap_or_default()
    }

    /// Kills a process: nothing it holds in memory is left, and of its disk what was flushed.
    pub fn kill(&mut self, process: ProcessId) {
        let Some(p) = self.processes.get_mut(&process).filter(|p| p.alive) else { return };
        p.alive = false;
        let (clients, machine) = (p.clients.clone(), p.machine.clone());
        for group in self.groups.values_mut() {
            clients.iter().for_each(|c| group.gone(*c));
        }
        for (_, disk) in self.disks.iter().filter(|((m, _, _), _)| *m == machine) {
            let mut disk = disk.write();
            if disk.holder.is_some_and(|h| clients.contains(&h)) {
                disk.crash();
                if self.planted == Some(Defect::WipedAfterCrash) {
                    disk.wipe();
                }
            }
        }
    }

    /// A process ends by itself; its stores are flushed if it closed them.
    pub fn end(&mut self, process: ProcessId) {
        self.kill(process);
    }

    /// A process stands still until then: no heartbeats, no steps.
    pub fn freeze(&mut self, process: ProcessId, until: Duration) {
        let Some(p) = self.processes.get_mut(&process) else { return };
        p.frozen_until = p.frozen_until.max(until);
        for group in self.groups.values_mut() {
            p.clients.iter().for_each(|c| group.set_reachable(*c, false));
        }
    }

    fn thaw(&mut self, now: Duration) {
        let down = self.is_down();
        for p in self.processes.values_mut().filter(|p| p.alive && p.frozen_until <= now) {
            for group in self.groups.values_mut() {
                p.clients.iter().for_each(|c| group.set_reachable(*c, !down));
            }
        }
    }

    /// The disk of a process's machine is full until then.
    pub fn fill_disk(&mut self, process: ProcessId, until: Duration) {
        if let Some(p) = self.processes.get_mut(&process) {
            p.disk_full_until = until;
            p.was_full = true;
        }
    }

    pub(super) fn disk_full_until(&self, process: ProcessId) -> Duration {
        self.processes.get(&process).map_or(Duration::ZERO, |p| p.disk_full_until)
    }

    pub(super) fn was_full(&self, process: ProcessId) -> bool {
        self.processes.get(&process).is_some_and(|p| p.was_full)
    }

    /// A machine loses its disk.
    pub fn lose_disk(&mut self, machine: &str) {
        self.disks.retain(|(m, _, _), disk| m != machine || disk.read().holder.is_some());
    }

    /// The store of a task on a machine.
    pub fn disk(&mut self, machine: &str, group: &'static str, partition: u32) -> Arc<RwLock<Disk>> {
        self.disks.entry((machine.to_owned(), group, partition)).or_default().clone()
    }

    /// The broker is gone until then.
    pub fn take_down(&mut self, until: Duration) {
        self.down_until = self.down_until.max(until);
        let clients: Vec<_> = self.processes.values().flat_map(|p| p.clients.iter().copied()).collect();
        for group in self.groups.values_mut() {
            clients.iter().for_each(|c| group.set_reachable(*c, false));
            group.pause_until(until);
        }
    }

    /// Whether the broker is gone.
    pub fn is_down(&self) -> bool {
        self.now() < self.down_until
    }

    /// Ends all that goes wrong: what is frozen wakes, what is full has room.
    pub fn mend(&mut self) {
        self.faults.on = false;
        self.transactions.slow_marker = 0;
        self.down_until = Duration::ZERO;
        for p in self.processes.values_mut() {
            (p.frozen_until, p.disk_full_until) = (Duration::ZERO, Duration::ZERO);
        }
        for p in self.partitions.values_mut() {
            p.slow_until = Duration::ZERO;
        }
    }

    /// Appends a record of no transaction, or of an open one of the harness's own; returns its offset.
    pub fn append(&mut self, to: TopicPartition, writer: Option<u32>, data: Data) -> i64 {
        let now = self.now();
        self.partitions.entry(to).or_default().append(now, writer, data)
    }

    /// Decides the harness's own transaction.
    pub fn decide(&mut self, at: TopicPartition, writer: u32, committed: bool) {
        let now = self.now();
        self.partitions.entry(at).or_default().decide(now, writer, committed);
    }

    /// A partition.
    pub fn partition(&self, at: TopicPartition) -> Option<&Partition> {
        self.partitions.get(&at)
    }

    /// Whether all there is to read has been committed as read by a group.
    pub fn is_drained(&self, group: &'static str, inputs: &[TopicPartition]) -> bool {
        let Some(offsets) = self.groups.get(group).map(|g| &g.offsets) else { return false };
        inputs.iter().all(|at| {
            let end = self.partitions.get(at).map_or(0, Partition::end);
            end == 0 || offsets.get(at).is_some_and(|o| o.offset >= end)
        })
    }

    /// Whether no transaction is open: one whose writer died holds readers back until it times out.
    pub fn is_decided(&self) -> bool {
        self.partitions.values().all(|p| p.stable_end() == p.end())
    }

    /// A group's owners by partition: the process that runs it.
    pub fn owners(&self, group: &'static str) -> BTreeMap<u32, ProcessId> {
        let mut owners = BTreeMap::new();
        for (id, p) in self.processes.iter().filter(|(_, p)| p.alive) {
            for client in &p.clients {
                let owned = self.groups.get(group).map(|g| g.owned(*client)).unwrap_or_default();
                owners.extend(owned.into_iter().map(|n| (n, *id)));
            }
        }
        owners
    }

    /// Whether a group rests.
    pub fn is_stable(&self, group: &'static str) -> bool {
        self.groups.get(group).is_some_and(ConsumerGroup::is_stable)
    }

    /// Rebalances so far.
    pub fn rebalances(&self) -> u64 {
        self.groups.values().map(|g| g.rebalances).sum()
    }

    /// Long after the last member left, the groups' offsets are forgotten, and topics compacted whole.
    pub fn forget_offsets(&mut self) {
        for group in self.groups.values_mut() {
            group.offsets.clear();
        }
        self.compact_all();
    }

    /// Compacts all compacted topics as far as can be.
    pub fn compact_all(&mut self) {
        let forget = self.now().saturating_sub(KEEP_TOMBSTONES);
        let compacted = &self.compacted;
        for (_, p) in self.partitions.iter_mut().filter(|(at, _)| compacted.contains(&at.topic)) {
            p.compact(i64::MAX, forget);
        }
    }

    /// When something happens by itself next.
    pub fn next(&self) -> Option<Duration> {
        let groups = self.groups.values().filter_map(ConsumerGroup::next);
        let frozen = self.processes.values().filter(|p| p.alive && p.frozen_until > self.now()).map(|p| p.frozen_until);
        groups.chain(self.transactions.next()).chain(frozen).chain(self.is_down().then_some(self.down_until)).min()
    }

    /// Does what happens by itself by now.
    pub fn tick(&mut self) {
        let now = self.now();
        if self.is_down() {
            return;
        }
        self.thaw(now);
        let (due, later) = std::mem::take(&mut self.late_ends).into_iter().partition(|(at, ..)| *at <= now);
        self.late_ends = later;
        let due: Vec<(Duration, String, u32)> = due;
        for (_, id, epoch) in due {
            // Of a newer epoch nothing old is heard.
            let _ = self.transactions.end(&id, epoch, true, now, &mut self.dice);
        }
        self.transactions.time_out(now, &mut self.dice);
        for (marker, writer, committed) in self.transactions.due(now) {
            match marker {
                Marker::Partition(at) => self.partitions.entry(at).or_default().decide(now, writer, committed),
                Marker::Offsets(group) => {
                    if let Some(group) = self.groups.get_mut(group) {
                        group.decide(writer, committed);
                    }
                }
            }
        }
        for group in self.groups.values_mut() {
            group.tick(now, &mut self.dice);
        }
        if self.faults.on && self.dice.one_in(self.faults.compaction) {
            let topics: Vec<_> = self.compacted.iter().copied().collect();
            let Some(topic) = self.dice.pick(&topics) else { return };
            let forget = now.saturating_sub(KEEP_TOMBSTONES);
            for (_, p) in self.partitions.iter_mut().filter(|(at, _)| at.topic == topic) {
                let upto = p.begin() + self.dice.below((p.end() - p.begin()).max(1) as u64) as i64;
                p.compact(upto, forget);
            }
        }
    }
}
