//! The processes of a run: how they start, go on, end, and what befalls them.

use super::{
    chaos::Event,
    cluster::{COMMIT_BYTES, Cluster, QUEUE},
};
use std::{cell::RefCell, rc::Rc, time::Duration};
use tillflow_engine::{
    Following, SharedGlobals,
    log::{
        LogError,
        sim::{JoinAs, ProcessId, SimLog, SimReader},
    },
    status::Tasks,
    worker::Worker,
};
use tillflow_schemas::Role;

/// What one record may add beyond it: a burst is processed between two looks.
const BURST_BYTES: usize = 4 << 20;

/// A worker, and its client as the cluster knows it.
pub struct Running {
    pub(super) worker: Worker<SimLog>,
    pub(super) client: u64,
}

/// Follows the broadcast tables.
pub struct Tables {
    pub(super) reader: SimReader,
    pub(super) following: Following,
    pub(super) client: u64,
}

/// One instance of the program.
pub struct Process {
    pub(super) id: ProcessId,
    pub(super) instance: String,
    pub(super) machine: String,
    pub(super) globals: SharedGlobals,
    pub(super) tables: RefCell<Option<Tables>>,
    pub(super) workers: Vec<RefCell<Option<Running>>>,
}

impl Cluster {
    /// One turn of a worker, or of what follows the broadcast tables.
    pub(super) fn turn(&self, process: &Rc<Process>, n: usize) {
        let ended = match process.workers.get(n) {
            Some(slot) => {
                let Ok(mut slot) = slot.try_borrow_mut() else { return };
                let Some(running) = slot.as_mut() else { return };
                let outcome = running.worker.turn();
                let (records, bytes) = running.worker.held();
                let most = 64 * (QUEUE + 100);
                if records > most || bytes > COMMIT_BYTES + BURST_BYTES {
                    self.sim.0.lock().violation(format!("{records} records and {bytes} bytes held in memory"));
                }
                outcome.err().map(|e| e.to_string())
            }
            None => {
                let Ok(mut slot) = process.tables.try_borrow_mut() else { return };
                let Some(tables) = slot.as_mut() else { return };
                let outcome = process.globals.turn(&mut tables.reader, &mut tables.following, &self.catalog, &self.codec);
                outcome.err().map(|e| e.to_string())
            }
        };
        if let Some(reason) = ended {
            self.ended(process, &reason);
        }
    }

    /// A process ended by an error of its own, or found that it was killed.
    fn ended(&self, process: &Rc<Process>, reason: &str) {
        let mut world = self.sim.0.lock();
        if world.is_alive(process.id) {
            world.count(match reason {
                r if r.contains("instance id") || r.contains("taken over") => "process ended: fenced",
                r if r.contains("broker is gone") => "process ended: the broker is gone",
                r if r.contains("no space") => "process ended: disk full",
                r if r.contains("do not become stable") => "process ended: offsets not stable",
                _ => "process ended: other",
            });
        }
        world.end(process.id);
        drop(world);
        self.bury();
    }

    /// Forgets processes that are dead, and has them start again some time.
    fn bury(&self) {
        let dead: Vec<_> = {
            let world = self.sim.0.lock();
            let mut processes = self.processes.borrow_mut();
            let (alive, dead) = processes.drain(..).partition(|p| world.is_alive(p.id));
            *processes = alive;
            dead
        };
        for process in dead {
            // Who was replaced stays away.
            if self.processes.borrow().iter().any(|p| p.instance == process.instance) {
                continue;
            }
            let now = self.now();
            self.chaos.borrow_mut().died(now, &process.instance, &process.machine);
        }
    }

    /// Once faults have stopped: whoever is down comes up.
    pub(super) fn revive(&self) {
        self.bury();
        let due = self.chaos.borrow_mut().all_starts();
        for (instance, machine) in due {
            self.start(&instance, &machine);
        }
    }

    fn start(&self, instance: &str, machine: &str) {
        let id = self.sim.0.lock().start(machine);
        match self.try_start(id, instance, machine) {
            Ok(process) => self.processes.borrow_mut().push(Rc::new(process)),
            Err(_) => {
                self.sim.0.lock().end(id);
                let now = self.now();
                self.chaos.borrow_mut().died(now, instance, machine);
            }
        }
    }

    fn try_start(&self, id: ProcessId, instance: &str, machine: &str) -> Result<Process, LogError> {
        let (globals, tasks) = (SharedGlobals::default(), Tasks::default());
        let client = self.sim.0.lock().fresh_id();
        let mut reader = SimReader::new(&self.sim, id, client, false);
        let following = globals.begin(&mut reader, &self.wiring.globals, &self.catalog)?;
        let mut workers = Vec::new();
        for wired in &self.wiring.groups {
            let of_role = |role| self.catalog.of_group(role, wired.group.name).and_then(|t| self.catalog.index(&t.name));
            let join = JoinAs {
                process: id,
                group: wired.group.name,
                instance: instance.to_owned(),
                changelog: of_role(Role::Changelog).unwrap_or_default(),
                inputs: wired.inputs.clone(),
                rekeyed: of_role(Role::Rekey).into_iter().collect(),
            };
            let log = SimLog::join(&self.sim, self.me(), join)?;
            let client = log.client();
            let worker = Worker::new(log, &wired.group, wired.inputs.clone(), wired.partitions, &wired.shared, &globals, &tasks);
            workers.push(RefCell::new(Some(Running { worker, client })));
        }
        Ok(Process {
            id,
            instance: instance.to_owned(),
            machine: machine.to_owned(),
            globals,
            tables: RefCell::new(Some(Tables { reader, following, client })),
            workers,
        })
    }

    fn any_process(&self) -> Option<Rc<Process>> {
        let processes = self.processes.borrow();
        let n = self.dice.borrow_mut().below(processes.len() as u64) as usize;
        processes.get(n).cloned()
    }

    pub(super) fn happen(&self, event: Event) {
        let now = self.now();
        match event {
            Event::Start(instance, machine) => {
                let taken = self.processes.borrow().iter().any(|p| p.machine == machine || p.instance == instance);
                if !taken {
                    self.start(&instance, &machine);
                }
            }
            Event::Kill => {
                if let Some(process) = self.any_process() {
                    self.sim.0.lock().count("kill -9");
                    self.sim.0.lock().kill(process.id);
                    self.bury();
                }
            }
            Event::KillAndWipe => {
                if let Some(process) = self.any_process() {
                    let mut world = self.sim.0.lock();
                    world.count("a machine lost with its disk");
                    world.kill(process.id);
                    world.lose_disk(&process.machine);
                    drop(world);
                    self.bury();
                }
            }
            Event::Stop { leave } => self.stop(leave),
            Event::Replace => {
                if let Some(process) = self.any_process() {
                    self.sim.0.lock().count("an instance replaced while it lives");
                    let machine = self.chaos.borrow_mut().fresh_machine();
                    self.start(&process.instance, &machine);
                }
            }
            Event::BrokerGone(long) => {
                let mut world = self.sim.0.lock();
                world.count("broker gone");
                world.take_down(now + long);
            }
            Event::DiskFull(long) => {
                if let Some(process) = self.any_process() {
                    self.sim.0.lock().count("a disk is full for a while");
                    self.sim.0.lock().fill_disk(process.id, now + long);
                }
            }
            Event::ClockJump(ms) => {
                self.sim.0.lock().count("clock jumps");
                self.clock.jump(ms);
            }
            Event::Compact => self.sim.0.lock().compact_all(),
            Event::Absence(long) => {
                // Within another's wait nobody can be absent together.
                if self.depth.get() > 0 {
                    return;
                }
                let all: Vec<_> = self.processes.borrow().iter().map(|p| p.id).collect();
                {
                    let mut world = self.sim.0.lock();
                    world.count("all down until offsets are forgotten");
                    all.into_iter().for_each(|id| world.kill(id));
                }
                self.bury();
                self.sim.0.lock().tick();
                self.clock.advance(Duration::from_secs(15));
                for _ in 0..500 {
                    self.sim.0.lock().tick();
                    self.clock.advance(Duration::from_millis(5));
                }
                self.clock.advance(long);
                self.sim.0.lock().forget_offsets();
                self.chaos.borrow_mut().shift(long);
            }
        }
    }

    /// SIGTERM.
    fn stop(&self, leave: bool) {
        let Some(process) = self.any_process() else { return };
        self.sim.0.lock().count("stopped");
        for slot in &process.workers {
            // Who waits within a call does not stop in time, and is killed.
            let Ok(mut slot) = slot.try_borrow_mut() else { continue };
            if let Some(running) = slot.as_mut() {
                // Whatever hinders it, the process ends.
                let _ = running.worker.finish(leave);
            }
            *slot = None;
        }
        self.sim.0.lock().end(process.id);
        self.bury();
    }
}
