//! What every call of a worker goes through: steps at which the process may die, stand still or be slow, and waits for a
//! broker that may be gone.

use super::{
    log::{ANSWER, SimLog},
    world::World,
};
use crate::log::LogError;
use std::time::Duration;

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

impl SimLog {
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
}
