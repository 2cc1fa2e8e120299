//! What a run is about: processors, input, and what must come out.

use crate::compare::Outputs;
use std::{collections::BTreeMap, fmt, time::Duration};
use tillflow_engine::log::{
    TopicPartition,
    sim::{Data, Dice},
};
use tillflow_engine_api::Group;
use tillflow_schemas::{Catalog, Timestamp};
use tillflow_state::Memory;

/// A record that arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When.
    pub after: Duration,
    /// Where.
    pub to: TopicPartition,
    /// What.
    pub data: Data,
    /// In which transaction of the sender's, if any: decided so much later, and how.
    pub transaction: Option<(Duration, bool)>,
    /// Whether it must become a dead letter.
    pub poison: bool,
}

/// Says what is wrong with the state of a group's tasks, by partition.
pub type StateCheck = Box<dyn Fn(&BTreeMap<u32, Memory>) -> Vec<String>>;
/// Says what is wrong with outputs.
pub type OutputCheck = Box<dyn Fn(&Outputs) -> Vec<String>>;

/// What a run is given, and what must come of it.
pub struct Making {
    /// The list of topics.
    pub catalog: Catalog,
    /// The processors.
    pub groups: Vec<Group>,
    /// The input, in order.
    pub arrivals: Vec<Arrival>,
    /// The end of the input: all clocks go here.
    pub end: Timestamp,
    /// What must come out.
    pub expected: Expected,
    /// Brings expected and found into the form in which they must be equal.
    pub normal: fn(Outputs) -> Outputs,
    /// Whether idle clocks go on with the wall.
    pub idle_clock: bool,
    /// How long an empty input is waited for that has more.
    pub wait_for_input: Option<Duration>,
    /// Records that a fetch brings while things go wrong, at most.
    pub fetched_at_once: u64,
    /// How long things go wrong at least.
    pub lasts: Duration,
    /// Whether the broker may be gone, and partitions slow, for longer than an input is waited for.
    pub long_outages: bool,
    /// Looks at the state of all tasks of the first group, by partition; says what is wrong.
    pub state: StateCheck,
}

/// What must come out.
pub enum Expected {
    /// What a naive model says.
    Model(Outputs),
    /// What one instance makes of it when nothing goes wrong; and this finds nothing wrong with that.
    CalmRun(OutputCheck),
}

/// A kind of run.
pub trait Scenario {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Decides input and expectation by chance. Event time begins at `from`.
    fn make(&self, dice: &mut Dice, from: Timestamp) -> Making;
}

/// What happened in a run that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that arrived.
    pub arrived: usize,
    /// Records that came out, by topic.
    pub emitted: BTreeMap<String, usize>,
    /// Rebalances.
    pub rebalances: u64,
    /// Simulated time.
    pub time: Duration,
    /// How often which fault happened.
    pub faults: BTreeMap<String, u64>,
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        for (topic, n) in &other.emitted {
            *self.emitted.entry(topic.clone()).or_default() += n;
        }
        self.rebalances += other.rebalances;
        self.time += other.time;
        for (what, n) in &other.faults {
            *self.faults.entry(what.clone()).or_default() += n;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs_f64() / 3600.0;
        writeln!(f, "{} records in, {} rebalances, {hours:.1} hours of simulated time", self.arrived, self.rebalances)?;
        let out: Vec<_> = self.emitted.iter().map(|(topic, n)| format!("{n} {topic}")).collect();
        writeln!(f, "out: {}", out.join(", "))?;
        self.faults.iter().try_for_each(|(what, n)| writeln!(f, "{n:>9}  {what}"))
    }
}
