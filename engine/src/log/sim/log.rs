//! A worker's way to the simulated cluster: what `log::kafka::KafkaLog` is to the real one.

use super::{Others, Sim, disk::SimBackend, opening::Settling, planted::Defect, reader::SimReader, world::ProcessId};
use crate::log::{CommitError, Log, LogError, Membership, Opened, Polled, Positions, Reader, TopicPartition, Transaction, tenure::Tenure};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, Instant},
};

/// Records of one input in one poll, at most.
pub const BATCH: usize = 100;
/// How often ends and positions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often stores are flushed.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for the broker.
pub(super) const ANSWER: Duration = Duration::from_secs(12);

/// A row of a store, on its way.
pub(super) type Row = (Vec<u8>, Option<Vec<u8>>);

/// As whom a worker joins.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its process.
    pub process: ProcessId,
    /// Its group.
    pub group: &'static str,
    /// Its stable name.
    pub instance: String,
    /// The group's changelog.
    pub changelog: usize,
    /// The group's inputs.
    pub inputs: Vec<usize>,
    /// Topics of re-keyed records.
    pub rekeyed: BTreeSet<usize>,
}

/// A worker's way to the simulated cluster.
pub struct SimLog {
    pub(super) sim: Sim,
    pub(super) others: Rc<dyn Others>,
    pub(super) process: ProcessId,
    pub(super) client: u64,
    pub(super) group: &'static str,
    pub(super) inputs: Vec<usize>,
    pub(super) changelog: usize,
    pub(super) rekeyed: BTreeSet<usize>,
    /// Its transactional id, and the epoch it got.
    pub(super) id: String,
    pub(super) epoch: Option<u32>,
    pub(super) fenced: Vec<Duration>,
    tenure: Tenure<u64>,
    pub(super) reader: SimReader,
    /// The next offset of each.
    started: BTreeMap<TopicPartition, i64>,
    /// Inputs that are held back, whether started or not.
    held: BTreeSet<TopicPartition>,
    ends: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<TopicPartition, i64>,
    looked: Duration,
    learned: Instant,
    flushed: Duration,
    rests_until: Duration,
    pub(super) open: BTreeMap<u32, SimBackend>,
    /// How often each partition may be opened and then run: once an assignment, once an unknown outcome. A restore that is broken
    /// off begins again.
    pub(super) may_open: BTreeMap<u32, u32>,
    pub(super) settling: BTreeMap<u32, Settling>,
    // Planted defects remember:
    kept: Option<Membership>,
    pub(super) last_offsets: BTreeMap<TopicPartition, i64>,
    pub(super) held_back: BTreeMap<u32, Vec<Row>>,
}

impl SimLog {
    /// Takes over the transactional id, then joins the group.
    ///
    /// # Errors
    /// When the broker is gone, or the process.
    pub fn join(sim: &Sim, others: Rc<dyn Others>, start: Start) -> Result<Self, LogError> {
        let client = sim.0.lock().fresh_id();
        sim.0.lock().adopt(start.process, client);
        let now = sim.0.lock().now();
        let mut log = Self {
            sim: sim.clone(),
            others,
            process: start.process,
            client,
            group: start.group,
            inputs: start.inputs,
            changelog: start.changelog,
            rekeyed: start.rekeyed,
            id: format!("{}.{}", start.group, start.instance),
            epoch: None,
            fenced: Vec::new(),
            tenure: Tenure::new(),
            reader: SimReader::new(sim, start.process, client, true),
            started: BTreeMap::new(),
            held: BTreeSet::new(),
            ends: BTreeMap::new(),
            positions: BTreeMap::new(),
            looked: now,
            learned: crate::Wall::Manual(sim.0.lock().clock()).instant(),
            flushed: now,
            rests_until: now,
            open: BTreeMap::new(),
            may_open: BTreeMap::new(),
            settling: BTreeMap::new(),
            kept: None,
            last_offsets: BTreeMap::new(),
            held_back: BTreeMap::new(),
        };
        let id = log.id.clone();
        log.epoch = Some(log.initialise(&id)?);
        log.world(|w| {
            let now = w.now();
            if let Some(group) = w.groups.get_mut(start.group) {
                group.subscribe(client, &start.instance, now);
            }
        });
        Ok(log)
    }

    /// Its client, as the cluster knows it.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// What the worker is to hear of changes that the client tells.
    fn hear(&mut self, changes: Vec<Membership>) -> Vec<Membership> {
        if self.world(|w| w.planted == Some(Defect::AnyMemberCommits)) {
            return changes;
        }
        let mut heard: Vec<_> = self.kept.take().into_iter().chain(self.tenure.lost()).collect();
        for change in changes {
            let member = self.membership().map(|(id, _)| id);
            let told = self.tenure.hear(change, member);
            if told.start_over && self.world(|w| w.planted == Some(Defect::KeptIsAssigned)) {
                let kept = self.world(|w| w.groups.get(self.group).map(|g| g.owned(self.client)).unwrap_or_default());
                self.kept = Some(self.tenure.hear(Membership::Assigned(kept.into_iter().collect()), member).change);
                heard.push(told.change);
                continue;
            }
            if told.start_over {
                self.world(|w| {
                    w.count("a client that kept what it had lost starts over");
                    let now = w.now();
                    if let Some(group) = w.groups.get_mut(self.group) {
                        group.start_over(self.client, now);
                    }
                });
            }
            heard.push(told.change);
        }
        heard
    }

    /// Member id and generation, as its client knows them.
    fn membership(&self) -> Option<(u64, u64)> {
        self.world(|w| w.groups.get(self.group).and_then(|g| g.metadata(self.client)))
    }

    /// Asks where the inputs end.
    fn look_at_ends(&mut self) {
        let inputs: Vec<_> = self.started.keys().copied().collect();
        let ends: Option<Vec<_>> = self.world(|w| {
            let end = |at| w.partition(at).map_or(0, |p| p.stable_end());
            (!w.is_down()).then(|| inputs.into_iter().map(|at| (at, end(at))).collect())
        });
        let Some(ends) = ends else { return };
        self.learned = crate::Wall::Manual(self.world(|w| w.clock())).instant();
        self.ends.extend(ends);
    }

    fn fetch(&mut self) -> Vec<crate::log::Record> {
        let mut records = Vec::new();
        let mut world = self.sim.0.lock();
        if world.is_down() {
            return records;
        }
        let all = world.planted == Some(Defect::ReadUncommitted);
        let (now, on, slow, slowest) = (world.now(), world.faults.on, world.faults.slow_partition, world.faults.slowest_ms);
        for (&at, position) in self.started.iter_mut().filter(|(at, _)| !self.held.contains(at)) {
            if on && world.dice.one_in(slow) {
                let until = now + world.dice.millis(0, slowest);
                if let Some(partition) = world.partitions.get_mut(&at) {
                    partition.slow_until = until;
                }
            }
            let most = world.faults.fetched_at_once;
            let limit = if on { world.dice.between(0, most) as usize } else { BATCH };
            let Some(partition) = world.partition(at).filter(|p| p.slow_until <= now) else { continue };
            let (read, next) = partition.read(at, *position, limit, all);
            *position = next;
            records.extend(read);
        }
        records
    }
}

impl Log for SimLog {
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        self.step("crash in poll")?;
        let records = self.fetch();
        let changes = self.world(|w| w.groups.get_mut(self.group).and_then(|g| g.changes(self.client)));
        let Some(changes) = changes else {
            return Err(LogError::Fenced(format!("{}: another process runs with this instance id", self.id)));
        };
        let changes = self.hear(changes);
        for change in &changes {
            if let Membership::Assigned(partitions) = change {
                partitions.iter().for_each(|p| *self.may_open.entry(*p).or_default() += 1);
            }
        }
        let now = self.world(|w| w.now());
        if records.is_empty() || now >= self.looked + LOOK_EVERY {
            self.positions.extend(self.started.iter().map(|(at, next)| (*at, *next)));
        }
        if now >= self.looked + LOOK_EVERY {
            self.look_at_ends();
            self.looked = now;
            if now >= self.flushed + FLUSH_EVERY {
                self.flushed = now;
                self.open.values().for_each(|store| store.disk.write().flush());
            }
        }
        if records.is_empty() && changes.is_empty() {
            self.world(|w| w.sleep_until(self.client, now + timeout));
        }
        Ok(Polled { records, changes })
    }

    fn open(&mut self, partition: u32) -> Result<Opened, LogError> {
        self.open_store(partition)
    }

    fn settle(&mut self, partition: u32, inputs: &[TopicPartition]) -> Result<bool, LogError> {
        self.settle_offsets(partition, inputs)
    }

    fn start(&mut self, inputs: &[(TopicPartition, Option<i64>)]) -> Result<(), LogError> {
        self.critical_step("crash before inputs are started")?;
        for partition in inputs.iter().map(|(at, _)| at.partition).collect::<BTreeSet<_>>() {
            if let Some(may) = self.may_open.get_mut(&partition) {
                *may = may.saturating_sub(1);
            }
        }
        if self.world(|w| w.planted != Some(Defect::HeldForGood)) {
            self.held.retain(|at| !inputs.iter().any(|(input, _)| input == at));
        }
        for &(at, offset) in inputs {
            let next = match offset {
                Some(offset) => offset,
                None => self.reader.begin(at)?,
            };
            self.started.insert(at, next);
            self.positions.insert(at, next);
        }
        self.look_at_ends();
        Ok(())
    }

    fn pause(&mut self, input: TopicPartition, paused: bool) -> Result<(), LogError> {
        if paused {
            self.held.insert(input);
        } else {
            self.held.remove(&input);
        }
        Ok(())
    }

    fn has_more(&self, input: TopicPartition, position: i64) -> bool {
        self.lag(input, position) > 0
    }

    fn learned(&self) -> Option<Instant> {
        Some(self.learned)
    }

    fn lag(&self, input: TopicPartition, position: i64) -> i64 {
        (self.ends.get(&input).copied().unwrap_or(0) - position).max(0)
    }

    fn reached(&self, input: TopicPartition) -> i64 {
        self.positions.get(&input).copied().unwrap_or(0)
    }

    fn release(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        self.critical_step("crash before partitions are given up")?;
        for partition in partitions {
            if let Some(store) = self.open.remove(partition) {
                let mut disk = store.disk.write();
                if disk.holder == Some(self.client) {
                    disk.flush();
                    disk.holder = None;
                }
            }
            self.may_open.remove(partition);
            self.settling.remove(partition);
        }
        self.started.retain(|at, _| !partitions.contains(&at.partition));
        self.ends.retain(|at, _| !partitions.contains(&at.partition));
        self.positions.retain(|at, _| !partitions.contains(&at.partition));
        self.world(|w| {
            let now = w.now();
            if let Some(group) = w.groups.get_mut(self.group) {
                group.release(self.client, partitions, now);
            }
        });
        Ok(())
    }

    fn rest(&self) -> Duration {
        self.rests_until.saturating_sub(self.world(|w| w.now()))
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Positions, CommitError> {
        let membership = self.membership();
        if !self.tenure.goes_on(membership.map(|(id, _)| id).as_ref()) && self.world(|w| w.planted != Some(Defect::AnyMemberCommits)) {
            self.world(|w| w.count("a worker whose membership was over"));
            return Err(CommitError::Aborted("the group took this member for dead".into()));
        }
        let outcome = self.transact(transaction, membership);
        self.rests_until = self.world(|w| w.now() + w.faults.rest);
        outcome
    }

    fn changelog(&mut self) -> Option<&mut dyn Reader> {
        Some(&mut self.reader)
    }

    fn purge(&mut self, before: &[(TopicPartition, i64)]) {
        let mut world = self.sim.0.lock();
        if world.is_down() || !world.dice.one_in(4) {
            return;
        }
        for (at, offset) in before {
            if let Some(partition) = world.partitions.get_mut(at) {
                partition.purge(*offset);
            }
        }
    }

    fn close(&mut self, leave: bool) {
        for store in self.open.values() {
            let mut disk = store.disk.write();
            if disk.holder == Some(self.client) {
                disk.flush();
                disk.holder = None;
            }
        }
        self.open.clear();
        self.world(|w| {
            let now = w.now();
            let Some(group) = w.groups.get_mut(self.group) else { return };
            if leave { group.leave(self.client, now) } else { group.gone(self.client) }
        });
    }
}
