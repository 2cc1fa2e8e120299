//! What goes wrong from outside, and when: drawn from the seed.

use super::scenario::Making;
use std::time::Duration;
use tillflow_engine::log::sim::{Dice, Faults};

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An instance starts on a machine.
    Start(String, String),
    /// A process is killed.
    Kill,
    /// A machine is lost with its disk.
    KillAndWipe,
    /// A process is told to stop.
    Stop {
        /// And gives its membership up.
        leave: bool,
    },
    /// An instance is started elsewhere while its former self still lives.
    Replace,
    /// The broker is gone for a while.
    BrokerGone(Duration),
    /// A disk is full for a while.
    DiskFull(Duration),
    /// Wall clocks jump.
    ClockJump(i64),
    /// Topics are compacted.
    Compact,
    /// All are down for so long that the group's offsets are forgotten.
    Absence(Duration),
}

/// What goes wrong from outside.
pub struct Chaos {
    dice: Dice,
    faults: Faults,
    next: Option<Duration>,
    pace: u64,
    until: Duration,
    starts: Vec<(Duration, String, String)>,
    machines: u32,
    absence: Option<(Duration, Duration)>,
    long_outages: bool,
    plain: bool,
    /// How far wall clocks are off.
    jumped: i64,
}

impl Chaos {
    /// Decides how a run goes wrong.
    pub fn new(mut dice: Dice, making: &Making) -> Self {
        let until = making.lasts.max(making.arrivals.last().map_or(Duration::ZERO, |a| a.after)) + Duration::from_secs(5);
        let instances = dice.between(1, 3) as u32;
        let starts: Vec<_> = (0..instances).map(|n| (dice.millis(0, 3_000), format!("till-{n}"), format!("machine-{n}"))).collect();
        // Some runs are calm, some are stormy; each kind of fault has its own weather.
        let mut weather = |often: u64| match dice.below(3) {
            0 => 0,
            1 => often * 4,
            _ => often,
        };
        let mut faults = Faults {
            on: true,
            crash: weather(500),
            freeze: weather(700),
            slow: weather(40),
            lost_end: weather(25),
            abort: weather(12),
            torn: weather(120),
            full: 0,
            flush: weather(10),
            slow_partition: weather(15),
            slowest_ms: if making.long_outages { 3_000 } else { 300 },
            slow_marker: weather(6),
            fetched_at_once: making.fetched_at_once,
            compaction: weather(200),
            rest: Duration::ZERO,
        };
        let pace = weather(3_000);
        let absence = dice.one_in(4).then(|| {
            let at = Duration::from_micros(dice.below(until.as_micros() as u64));
            let long = if dice.one_in(2) { Duration::from_secs(8 * 24 * 3600) } else { Duration::from_secs(3_600) };
            (at, long)
        });
        let next = Some(dice.millis(0, 5_000));
        faults.rest = if dice.one_in(2) { dice.millis(0, 100) } else { Duration::ZERO };
        faults.full = if dice.one_in(4) { 10 } else { 0 };
        Self {
            dice,
            faults,
            next,
            pace,
            until,
            starts,
            machines: instances,
            absence,
            long_outages: making.long_outages,
            plain: false,
            jumped: 0,
        }
    }

    /// Nothing goes wrong.
    pub fn calm() -> Self {
        let starts = vec![(Duration::ZERO, "till-0".to_owned(), "machine-0".to_owned())];
        Self {
            dice: Dice::new(0),
            faults: Faults::default(),
            next: None,
            pace: 0,
            until: Duration::ZERO,
            starts,
            machines: 1,
            absence: None,
            long_outages: false,
            plain: true,
            jumped: 0,
        }
    }

    /// How often things go wrong inside.
    pub fn faults(&mut self) -> Faults {
        self.faults.clone()
    }

    /// Until when things go wrong.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// No more of it.
    pub fn stop(&mut self) {
        self.plain = true;
        self.next = None;
        self.absence = None;
    }

    /// Time was skipped: what was to come comes later by as much.
    pub fn shift(&mut self, by: Duration) {
        self.next = self.next.map(|at| at + by);
        self.until += by;
    }

    /// A machine that was never used.
    pub fn fresh_machine(&mut self) -> String {
        self.machines += 1;
        format!("machine-{}", self.machines)
    }

    /// A process died; it is started again some time.
    pub fn died(&mut self, now: Duration, instance: &str, machine: &str) {
        if self.starts.iter().any(|(_, i, _)| i == instance) {
            return;
        }
        let after = if self.plain { Duration::from_millis(100) } else { self.dice.millis(50, 14_000) };
        self.starts.push((now + after, instance.to_owned(), machine.to_owned()));
    }

    /// All that are to start, now.
    pub fn all_starts(&mut self) -> Vec<(String, String)> {
        self.starts.drain(..).map(|(_, i, m)| (i, m)).collect()
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Duration> {
        self.starts.iter().map(|s| s.0).chain(self.next).chain(self.absence.map(|a| a.0)).min()
    }

    /// What happens now.
    pub fn due(&mut self, now: Duration) -> Option<Event> {
        if let Some(i) = self.starts.iter().position(|s| s.0 <= now) {
            let (_, instance, machine) = self.starts.remove(i);
            return Some(Event::Start(instance, machine));
        }
        if let Some((at, long)) = self.absence
            && at <= now
        {
            self.absence = None;
            return Some(Event::Absence(long));
        }
        if self.next.is_none_or(|at| at > now) {
            return None;
        }
        if self.pace == 0 || now > self.until {
            self.next = None;
            return None;
        }
        self.next = Some(now + self.dice.millis(100, self.pace * 2));
        let dice = &mut self.dice;
        Some(match dice.below(14) {
            0..=3 => Event::Kill,
            4 => Event::KillAndWipe,
            5 => Event::Stop { leave: false },
            6 => Event::Stop { leave: true },
            7 => Event::Replace,
            8 => Event::BrokerGone(if self.long_outages { dice.millis(50, 20_000) } else { dice.millis(20, 300) }),
            9 => Event::DiskFull(dice.millis(50, 5_000)),
            10 => {
                // Events further than five minutes ahead of the wall are refused, rightly.
                let to = dice.below(400_000) as i64 - 200_000;
                let by = to - self.jumped;
                self.jumped = to;
                Event::ClockJump(by)
            }
            11 => Event::Compact,
            12 => {
                let name = format!("till-{}", dice.between(0, 3));
                let machine = name.replace("till", "machine");
                Event::Start(name, machine)
            }
            _ => Event::Kill,
        })
    }
}
