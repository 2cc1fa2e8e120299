//! A worker's way to the simulated cluster: what `log::kafka::KafkaLog` is to the real one.

use super::{
    Others, Sim,
    disk::SimBackend,
    planted::Defect,
    reader::SimReader,
    world::{ProcessId, World},
};
use crate::log::kafka::Stores;
use crate::log::{
    ChangelogPosition, CommitError, Log, LogError, Membership, Opened, Polled, Positions, Reader, TopicPartition, Transaction,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tillflow_schemas::Timestamp;
use tillflow_state::{StateError, Store};

/// Records of one input in one poll, at most.
pub const BATCH: usize = 100;
/// How often ends and positions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often stores are flushed.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How long committed offsets may take to become stable before the one who holds them back is fenced.
const PATIENCE: Duration = Duration::from_millis(300);
/// Longest wait for them.
const LONGEST: Duration = Duration::from_secs(15);
/// Longest wait for the broker.
pub(super) const ANSWER: Duration = Duration::from_secs(12);

/// A row of a store, on its way.
pub(super) type Row = (Vec<u8>, Option<Vec<u8>>);

/// The process is gone, or the broker did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The process was killed: whatever it does further reaches nobody.
    Dead,
    /// The broker did not answer.
    Unreachable,
}

impl From<Stopped> for LogError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Dead => Self::Fatal("the process is gone".into()),
            Stopped::Unreachable => Self::Unavailable("the broker is gone".into()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: i64,
    paused: bool,
}

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
    inputs: Vec<usize>,
    pub(super) changelog: usize,
    pub(super) rekeyed: BTreeSet<usize>,
    /// Its transactional id, and the epoch it got.
    pub(super) id: String,
    pub(super) epoch: Option<u32>,
    pub(super) fenced: Vec<Duration>,
    reader: SimReader,
    started: BTreeMap<TopicPartition, Cursor>,
    ends: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<TopicPartition, i64>,
    looked: Duration,
    flushed: Duration,
    pub(super) open: BTreeMap<u32, SimBackend>,
    /// How often each partition may be opened: once an assignment, once an unknown outcome.
    pub(super) may_open: BTreeMap<u32, u32>,
    // Planted defects remember:
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
            reader: SimReader::new(sim, start.process, client, true),
            started: BTreeMap::new(),
            ends: BTreeMap::new(),
            positions: BTreeMap::new(),
            looked: now,
            flushed: now,
            open: BTreeMap::new(),
            may_open: BTreeMap::new(),
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

    pub(super) fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.sim.0.lock())
    }

    /// One step of whatever it does: here the process may die, stand still or be slow.
    pub(super) fn step(&self, dying: &'static str) -> Result<(), Stopped> {
        self.one_step(dying, 1)
    }

    /// One of the steps that matter most: more goes wrong here.
    pub(super) fn critical_step(&self, dying: &'static str) -> Result<(), Stopped> {
        self.one_step(dying, 5)
    }

    /// One step at which things go wrong so many times as often.
    pub(super) fn one_step(&self, dying: &'static str, weight: u64) -> Result<(), Stopped> {
        let wait = self.world(|w| {
            if !w.is_alive(self.process) {
                return Err(Stopped::Dead);
            }
            let cost = Duration::from_micros(w.dice.between(20, 400));
            w.clock().advance(cost);
            w.tick();
            if !w.faults.on {
                return Ok(None);
            }
            let (crash, freeze, slow) = (w.faults.crash / weight, w.faults.freeze / weight, w.faults.slow / weight);
            if w.dice.one_in(crash) {
                w.count(dying);
                w.kill(self.process);
                return Err(Stopped::Dead);
            }
            if w.dice.one_in(freeze) {
                w.count("frozen");
                let for_long = w.dice.one_in(2);
                let wait = if for_long { w.dice.millis(11_000, 40_000) } else { w.dice.millis(50, 9_000) };
                let until = w.now() + wait;
                w.freeze(self.process, until);
                return Ok(Some(wait));
            }
            Ok(w.dice.one_in(slow).then(|| w.dice.millis(1, 500)))
        })?;
        if let Some(wait) = wait {
            self.others.run_for(wait);
        }
        if self.world(|w| w.is_alive(self.process)) { Ok(()) } else { Err(Stopped::Dead) }
    }

    /// Waits for the broker.
    pub(super) fn reach(&self) -> Result<(), Stopped> {
        let until = self.world(|w| w.now()) + ANSWER;
        loop {
            let (alive, down, now) = self.world(|w| (w.is_alive(self.process), w.is_down(), w.now()));
            match (alive, down) {
                (false, _) => return Err(Stopped::Dead),
                (true, false) => return Ok(()),
                (true, true) if now >= until => return Err(Stopped::Unreachable),
                (true, true) => self.others.run_for(Duration::from_millis(100)),
            }
        }
    }

    /// Takes over a transactional id: what is open of it is decided.
    pub(super) fn initialise(&self, id: &str) -> Result<u32, Stopped> {
        let until = self.world(|w| w.now()) + ANSWER;
        loop {
            self.reach()?;
            let now = self.world(|w| w.now());
            if let Ok(epoch) = self.world(|w| w.transactions.initialise(id, now, &mut w.dice)) {
                return Ok(epoch);
            }
            if now >= until {
                return Err(Stopped::Unreachable);
            }
            self.others.run_for(Duration::from_millis(5));
        }
    }

    fn inputs_of(&self, partition: u32) -> Vec<TopicPartition> {
        self.inputs.iter().map(|&topic| TopicPartition { topic, partition }).collect()
    }

    /// Asks where the inputs end.
    fn look_at_ends(&mut self) {
        let inputs: Vec<_> = self.started.keys().copied().collect();
        let ends = self.world(|w| {
            let end = |at| w.partition(at).map_or(0, |p| p.stable_end());
            if w.is_down() { Vec::new() } else { inputs.into_iter().map(|at| (at, end(at))).collect() }
        });
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
        for (&at, cursor) in self.started.iter_mut().filter(|(_, c)| !c.paused) {
            if on && world.dice.one_in(slow) {
                let until = now + world.dice.millis(0, slowest);
                if let Some(partition) = world.partitions.get_mut(&at) {
                    partition.slow_until = until;
                }
            }
            let most = world.faults.fetched_at_once;
            let limit = if on { world.dice.between(0, most) as usize } else { BATCH };
            let Some(partition) = world.partition(at).filter(|p| p.slow_until <= now) else { continue };
            let (read, next) = partition.read(at, cursor.next, limit, all);
            cursor.next = next;
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
        for change in &changes {
            if let Membership::Assigned(partitions) = change {
                partitions.iter().for_each(|p| *self.may_open.entry(*p).or_default() += 1);
            }
        }
        let now = self.world(|w| w.now());
        if records.is_empty() || now >= self.looked + LOOK_EVERY {
            self.positions.extend(self.started.iter().map(|(at, c)| (*at, c.next)));
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
        self.critical_step("crash before a store is opened")?;
        let may = self.may_open.entry(partition).or_default();
        let without_cause = *may == 0;
        *may = may.saturating_sub(1);
        self.open.remove(&partition);
        let at = TopicPartition { topic: self.changelog, partition };
        self.reach()?;
        let mut world = self.sim.0.lock();
        let end = world.partition(at).map_or(0, |p| p.end());
        if without_cause && !world.was_full(self.process) {
            world.violation(format!("{}-{partition} was restored without cause", self.group));
        }
        let machine = world.machine(self.process);
        let disk = world.disk(&machine, self.group, partition);
        let (planted, now) = (world.planted, world.now());
        {
            let mut disk = disk.write();
            if disk.holder.is_some_and(|h| h != self.client) {
                return Err(StateError::Held { path: format!("{machine}/{}-{partition}", self.group).into() }.into());
            }
            disk.holder = Some(self.client);
            if disk.was_flushed && disk.position() == 0 {
                world.violation(format!("{}-{partition} was wiped", self.group));
            }
            let moment = |at: Duration| Timestamp::from_millis(at.as_millis() as i64);
            let old = Stores::missed_tombstones(moment(disk.written_at()), moment(now), disk.position(), end);
            if old && planted != Some(Defect::OldStoreKept) {
                world.count("a store older than the changelog keeps tombstones is built anew");
                disk.wipe();
                disk.was_flushed = false;
            }
            if disk.position() > end {
                world.violation(format!("{}-{partition}: the store is at {}, its changelog ends at {end}", self.group, disk.position()));
                disk.wipe();
            }
        }
        let mut offset = disk.read().position();
        let inputs = self.inputs_of(partition);
        let expired = world.groups.get(self.group).is_some_and(|g| inputs.iter().all(|at| !g.offsets.contains_key(at)));
        if planted == Some(Defect::ExpiredIsAnew) && end > 0 && expired {
            let mut disk = disk.write();
            disk.wipe();
            disk.was_flushed = false;
            offset = end;
        }
        if planted == Some(Defect::NoOffsetIsZero) && expired {
            disk.write().forget_offsets();
            self.reader.forgets.insert(at);
        }
        drop(world);
        let backend = SimBackend { sim: self.sim.clone(), disk, process: self.process, holder: self.client, partition };
        self.open.insert(partition, backend.clone());
        Ok(Opened {
            store: Store::new(Box::new(backend.clone())),
            snapshots: Arc::new(backend),
            changelog: Some(ChangelogPosition { at, offset }),
        })
    }

    fn settle(&mut self, inputs: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        if self.world(|w| w.planted == Some(Defect::EndBeforeStableOffsets)) {
            for partition in inputs.iter().map(|at| at.partition).collect::<BTreeSet<_>>() {
                let at = TopicPartition { topic: self.changelog, partition };
                let end = self.world(|w| w.partition(at).map_or(0, |p| p.stable_end()));
                self.reader.early_ends.insert(at, end);
            }
        }
        let began = self.world(|w| w.now());
        let mut fenced = BTreeSet::new();
        loop {
            self.critical_step("crash while offsets settle")?;
            self.reach()?;
            let stable = self.world(|w| {
                let group = w.groups.get(self.group)?;
                group.are_stable(inputs).then(|| {
                    let offsets = inputs.iter().filter_map(|at| Some((*at, group.offsets.get(at)?.offset)));
                    offsets.collect::<BTreeMap<_, _>>()
                })
            });
            if let Some(stable) = stable {
                return Ok(stable);
            }
            self.others.run_for(PATIENCE);
            if self.world(|w| w.now()) > began + LONGEST {
                return Err(LogError::Unavailable("committed offsets do not become stable".into()));
            }
            let writers: BTreeSet<String> = self.world(|w| {
                let offsets = w.groups.get(self.group).map(|g| &g.offsets);
                inputs.iter().filter_map(|at| Some(offsets?.get(at)?.writer.clone())).collect()
            });
            for id in writers {
                if id != self.id && fenced.insert(id.clone()) {
                    self.world(|w| w.count("a former owner's transaction decided"));
                    self.initialise(&id)?;
                }
            }
        }
    }

    fn start(&mut self, inputs: &[(TopicPartition, Option<i64>)]) -> Result<(), LogError> {
        self.critical_step("crash before inputs are started")?;
        for &(at, offset) in inputs {
            let next = match offset {
                Some(offset) => offset,
                None => self.reader.begin(at)?,
            };
            self.started.insert(at, Cursor { next, paused: false });
            self.positions.insert(at, next);
        }
        self.look_at_ends();
        Ok(())
    }

    fn pause(&mut self, input: TopicPartition, paused: bool) -> Result<(), LogError> {
        if let Some(cursor) = self.started.get_mut(&input) {
            cursor.paused = paused;
        }
        Ok(())
    }

    fn has_more(&self, input: TopicPartition, position: i64) -> bool {
        self.lag(input, position) > 0
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

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Positions, CommitError> {
        self.transact(transaction)
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
