//! Processes on a simulated cluster, stepped one after the other on one thread; while one waits, the others go on.

use super::{
    chaos::Chaos,
    checks,
    processes::Process,
    scenario::{Arrival, Expected, Making, Report, Scenario},
};
use serde_json::json;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tillflow_engine::{
    EngineConfig, ManualClock, Wall,
    log::{
        TopicPartition,
        sim::{Data, Defect, Dice, Others, Sim},
    },
    metrics::Metrics,
    wiring::{Wired, Wiring, wire},
};
use tillflow_schemas::{Catalog, Cleanup, Codec, Role, Timestamp, Topic};

/// Event time at which runs begin: 2026-03-01.
const BEGIN: Timestamp = Timestamp::from_millis(1_772_323_200_000);
/// After the faults have stopped, everything must have drained within this.
const LIVENESS: Duration = Duration::from_secs(240);
/// How deep waits may nest; deeper ones only let time pass.
const DEEPEST: u32 = 5;
/// Records that wait to be processed, an input; delivery is held back above it.
pub const QUEUE: usize = 60;
/// Commits come sooner when this many bytes wait.
pub const COMMIT_BYTES: usize = 16 << 10;
/// All there is in a run.
pub struct Cluster {
    pub(super) me: RefCell<std::rc::Weak<Cluster>>,
    /// The cluster they live in.
    pub sim: Sim,
    pub(super) clock: Arc<ManualClock>,
    /// The list of topics.
    pub catalog: Arc<Catalog>,
    pub(super) codec: Arc<Codec>,
    pub(super) wiring: Wiring,
    pub(super) processes: RefCell<Vec<Rc<Process>>>,
    pub(super) arrivals: RefCell<VecDeque<Arrival>>,
    pub(super) decisions: RefCell<Vec<(Duration, TopicPartition, u32, bool)>>,
    /// Where poison lies.
    pub poison: RefCell<BTreeSet<(String, u32, i64)>>,
    pub(super) chaos: RefCell<Chaos>,
    pub(super) dice: RefCell<Dice>,
    pub(super) depth: Cell<u32>,
    pub(super) senders: Cell<u32>,
    pub(super) steps: Cell<u64>,
    /// Which machine held which task's state in the end.
    pub(super) machines: RefCell<BTreeMap<(&'static str, u32), String>>,
}

/// A run as long as it lasts. Its processes hold the cluster that holds them; without this no run's memory would be given back.
struct Run(Rc<Cluster>);

impl std::ops::Deref for Run {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Let go only once nothing of the cluster is borrowed any more.
        drop(self.0.processes.take());
    }
}

/// Runs one seed; says what was wrong.
///
/// # Errors
/// What was wrong, a line each.
pub fn run(seed: u64, scenario: &dyn Scenario, defect: Option<Defect>) -> Result<Report, Vec<String>> {
    match catch_unwind(AssertUnwindSafe(|| attempt(seed, scenario, defect))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(vec![format!("panicked: {}", text.unwrap_or_default())])
        }
    }
}

fn attempt(seed: u64, scenario: &dyn Scenario, defect: Option<Defect>) -> Result<Report, Vec<String>> {
    let mut dice = Dice::new(seed);
    let making = scenario.make(&mut dice.fork(), BEGIN);
    let expected = match &making.expected {
        Expected::Model(outputs) => outputs.clone(),
        Expected::CalmRun(check) => {
            let cluster = Cluster::begin(&making, &mut Dice::new(seed), Chaos::calm(), None)?;
            cluster.go(&making)?;
            let expected = outputs(&cluster);
            let wrong = check(&expected);
            if !wrong.is_empty() {
                return Err(wrong);
            }
            expected
        }
    };
    let chaos = Chaos::new(dice.fork(), &making);
    let cluster = Cluster::begin(&making, &mut dice, chaos, defect)?;
    cluster.go(&making)?;
    let mut wrong = checks::all(&cluster, &making, &expected);
    wrong.append(&mut cluster.sim.0.lock().violations);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let emitted = outputs(&cluster).into_iter().map(|(topic, records)| (topic, records.len())).filter(|(_, n)| *n > 0).collect();
    let world = cluster.sim.0.lock();
    Ok(Report {
        arrived: making.arrivals.len(),
        emitted,
        rebalances: world.rebalances(),
        time: world.now(),
        faults: world.counts.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
    })
}

impl Cluster {
    fn begin(making: &Making, dice: &mut Dice, mut chaos: Chaos, defect: Option<Defect>) -> Result<Run, Vec<String>> {
        let catalog = Arc::new(making.catalog.clone());
        let codec = Arc::new(Codec::json());
        let clock = ManualClock::new(BEGIN);
        let config = EngineConfig {
            idle_clock: making.idle_clock,
            wait_for_input: making.wait_for_input,
            wall: Wall::Manual(clock.clone()),
            commit_bytes: COMMIT_BYTES,
            queue_records: QUEUE,
            ..EngineConfig::default()
        };
        let metrics = Metrics::new().map_err(|e| vec![e.to_string()])?;
        let wiring = wire(&making.groups, &catalog, &codec, &config, &metrics).map_err(|e| e.0)?;
        // Outputs keep all they were given: sequences are compared.
        let compacted = |t: &Topic| t.cleanup == Cleanup::Compact && t.role != Role::Output;
        let topics: Vec<_> = catalog.topics().iter().map(|t| (t.partitions, compacted(t))).collect();
        let groups: Vec<_> = wiring.groups.iter().map(|w| (w.group.name, w.partitions)).collect();
        let of_the_sim = dice.fork();
        let eager = dice.one_in(4);
        // Shorter than a transaction's timeout, so that a new owner finds transactions open, or not.
        let session = Duration::from_secs(if dice.one_in(2) { 3 } else { 10 });
        let sim = Sim::new(&clock, of_the_sim, chaos.faults(), &topics, &groups, eager, session);
        if let Some(defect) = defect {
            sim.0.lock().plant(defect);
        }
        let cluster = Rc::new(Self {
            me: RefCell::default(),
            sim,
            clock,
            catalog,
            codec,
            wiring,
            processes: RefCell::default(),
            arrivals: RefCell::new(making.arrivals.iter().cloned().collect()),
            decisions: RefCell::default(),
            poison: RefCell::default(),
            chaos: RefCell::new(chaos),
            dice: RefCell::new(dice.fork()),
            depth: Cell::new(0),
            senders: Cell::new(1_000_000),
            steps: Cell::new(0),
            machines: RefCell::default(),
        });
        *cluster.me.borrow_mut() = Rc::downgrade(&cluster);
        Ok(Run(cluster))
    }

    pub(super) fn me(&self) -> Rc<Self> {
        self.me.borrow().upgrade().expect("it lives")
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The whole run: faults while records arrive, then none until everything is drained.
    fn go(&self, making: &Making) -> Result<(), Vec<String>> {
        loop {
            let left = !self.arrivals.borrow().is_empty() || !self.decisions.borrow().is_empty();
            if !left && self.now() >= self.chaos.borrow().until() {
                break;
            }
            let next = self.now() + Duration::from_secs(1);
            self.step(next);
        }
        self.sim.0.lock().mend();
        self.chaos.borrow_mut().stop();
        let marks = self.catalog.of_schema("clock_mark").map(|t| (self.catalog.index(&t.name), t.partitions));
        if let Some((Some(topic), partitions)) = marks {
            for partition in 0..partitions {
                let value = Some(json!({"at": making.end}).to_string().into_bytes());
                self.sim.0.lock().append(TopicPartition { topic, partition }, None, Data { value, ..Data::default() });
            }
        }
        let limit = self.now() + LIVENESS;
        let mut rests_since = None;
        loop {
            if self.is_drained() {
                let since = *rests_since.get_or_insert(self.now());
                // Watermarks that were announced last still have to be heard.
                if self.now() >= since + Duration::from_secs(2) {
                    break;
                }
            } else {
                rests_since = None;
            }
            if self.now() > limit {
                return Err(vec![format!("not drained {LIVENESS:?} after the faults had stopped: {}", self.what_is_left())]);
            }
            self.revive();
            self.step(self.now() + Duration::from_millis(200));
        }
        self.note_machines();
        for process in self.processes.borrow().iter() {
            for worker in &process.workers {
                if let Some(running) = worker.borrow_mut().as_mut() {
                    running.worker.finish(false).map_err(|e| vec![format!("when stopped: {e}")])?;
                }
            }
        }
        Ok(())
    }

    /// All inputs of a group.
    pub fn inputs(wired: &Wired) -> Vec<TopicPartition> {
        wired.inputs.iter().flat_map(|&topic| (0..wired.partitions).map(move |partition| TopicPartition { topic, partition })).collect()
    }

    /// The groups.
    pub fn wired(&self) -> &[Wired] {
        &self.wiring.groups
    }

    fn is_drained(&self) -> bool {
        let world = self.sim.0.lock();
        world.is_decided()
            && self.wiring.groups.iter().all(|w| world.is_drained(w.group.name, &Self::inputs(w)) && world.is_stable(w.group.name))
    }

    fn what_is_left(&self) -> String {
        let world = self.sim.0.lock();
        let mut left = Vec::new();
        for w in &self.wiring.groups {
            left.push(format!("{} stable {}", w.group.name, world.is_stable(w.group.name)));
            for at in Self::inputs(w) {
                if !world.is_drained(w.group.name, &[at]) {
                    let name = &self.catalog.topics()[at.topic].name;
                    let (end, stable) = world.partition(at).map_or((0, 0), |p| (p.end(), p.stable_end()));
                    left.push(format!("{name}-{} ends at {end}, stable at {stable}", at.partition));
                }
            }
        }
        left.join(", ")
    }

    /// The machine that holds the state of a group's partition.
    pub fn machine_of(&self, group: &'static str, partition: u32) -> Option<String> {
        self.machines.borrow().get(&(group, partition)).cloned()
    }

    fn note_machines(&self) {
        let processes = self.processes.borrow();
        for w in &self.wiring.groups {
            for (partition, owner) in self.sim.0.lock().owners(w.group.name) {
                if let Some(p) = processes.iter().find(|p| p.id == owner) {
                    self.machines.borrow_mut().insert((w.group.name, partition), p.machine.clone());
                }
            }
        }
    }

    /// Does one thing that can be done now, or lets time pass up to `until`.
    fn step(&self, until: Duration) {
        self.steps.set(self.steps.get() + 1);
        self.sim.0.lock().tick();
        self.arrive();
        let event = self.chaos.borrow_mut().due(self.now());
        if let Some(event) = event {
            self.happen(event);
            return;
        }
        let now = self.now();
        let mut able = Vec::new();
        let mut next = until;
        {
            let world = self.sim.0.lock();
            for (i, process) in self.processes.borrow().iter().enumerate().filter(|(_, p)| world.is_alive(p.id)) {
                let clients = process.workers.iter().map(|w| w.try_borrow().ok().and_then(|w| w.as_ref().map(|r| r.client)));
                let tables = process.tables.try_borrow().ok().and_then(|t| t.as_ref().map(|t| t.client));
                for (n, client) in clients.chain([tables]).enumerate() {
                    let Some(client) = client else { continue };
                    let wakes = world.wakes(process.id, client);
                    if wakes <= now {
                        able.push((i, n));
                    } else {
                        next = next.min(wakes);
                    }
                }
            }
            next = next.min(world.next().unwrap_or(next));
        }
        next = next.min(self.arrivals.borrow().front().map_or(next, |a| a.after));
        next = next.min(self.decisions.borrow().iter().map(|d| d.0).min().unwrap_or(next));
        next = next.min(self.chaos.borrow().next().unwrap_or(next));
        let chosen = self.dice.borrow_mut().pick(&able);
        match chosen {
            Some((i, n)) => {
                let process = self.processes.borrow().get(i).cloned();
                if let Some(process) = process {
                    self.turn(&process, n);
                }
            }
            None => self.clock.advance(next.saturating_sub(now).max(Duration::from_micros(100))),
        }
    }

    /// Records arrive that are due.
    fn arrive(&self) {
        let now = self.now();
        loop {
            let Some(arrival) = self.arrivals.borrow_mut().pop_front_if(|a| a.after <= now) else { break };
            let writer = arrival.transaction.map(|(later, committed)| {
                let writer = self.senders.get() + 1;
                self.senders.set(writer);
                self.decisions.borrow_mut().push((now + later, arrival.to, writer, committed));
                writer
            });
            let offset = self.sim.0.lock().append(arrival.to, writer, arrival.data);
            if arrival.poison {
                let topic = self.catalog.topics()[arrival.to.topic].name.clone();
                self.poison.borrow_mut().insert((topic, arrival.to.partition, offset));
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = self.decisions.borrow_mut().drain(..).partition(|d| d.0 <= now);
        *self.decisions.borrow_mut() = later;
        for (_, at, writer, committed) in due {
            self.sim.0.lock().decide(at, writer, committed);
        }
    }
}

impl Others for Cluster {
    fn run_for(&self, duration: Duration) {
        let until = self.now() + duration;
        self.depth.set(self.depth.get() + 1);
        while self.now() < until {
            if self.depth.get() > DEEPEST {
                self.clock.advance(Duration::from_millis(5).min(until.saturating_sub(self.now())));
                self.sim.0.lock().tick();
            } else {
                self.step(until);
            }
        }
        self.depth.set(self.depth.get() - 1);
    }
}

/// A topic's records as outputs: key and value, in order a partition.
pub fn outputs(cluster: &Cluster) -> crate::compare::Outputs {
    let world = cluster.sim.0.lock();
    let mut outputs = BTreeMap::new();
    for (topic, t) in cluster.catalog.topics().iter().enumerate().filter(|(_, t)| t.role == Role::Output) {
        let mut records = Vec::new();
        for partition in 0..t.partitions {
            let at = TopicPartition { topic, partition };
            let (read, _) = world.partition(at).map(|p| p.read(at, 0, usize::MAX, false)).unwrap_or_default();
            records.extend(read.into_iter().map(|r| {
                let key = String::from_utf8_lossy(&r.key.unwrap_or_default()).into_owned();
                let value = r.value.and_then(|v| serde_json::from_slice(&v).ok()).unwrap_or_default();
                (key, value)
            }));
        }
        outputs.insert(t.name.clone(), records);
    }
    outputs
}
