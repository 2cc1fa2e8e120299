//! The transaction coordinator: who may write, which transactions are open, and when their markers arrive.

use super::dice::Dice;
use crate::log::TopicPartition;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The coordinator aborts a transaction that is open for longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the coordinator did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The last transaction's markers are still being written: ask again.
    Busy,
    /// A newer epoch of the id is known.
    Fenced,
    /// There is no such transaction: it was decided otherwise.
    NoTransaction,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Ongoing(Duration),
    /// Decided; markers arrive one by one.
    Completing(bool),
}

/// One transactional id.
#[derive(Clone, Debug, Default)]
struct Id {
    number: u32,
    epoch: u32,
    state: State,
    last_committed: Option<u32>,
    partitions: BTreeSet<TopicPartition>,
    /// Groups with pending offsets.
    groups: BTreeSet<&'static str>,
    markers: Vec<(Duration, Marker)>,
}

/// Where a marker goes.
#[derive(Clone, Copy, Debug)]
pub enum Marker {
    /// To a partition.
    Partition(TopicPartition),
    /// To a group's offsets.
    Offsets(&'static str),
}

/// All transactional ids.
#[derive(Clone, Debug, Default)]
pub struct Transactions {
    ids: BTreeMap<String, Id>,
    /// One marker in so many is slow.
    pub slow_marker: u64,
    /// Planted: nobody is fenced.
    pub unfenced: bool,
}

impl Transactions {
    /// Takes over an id: decides its open transaction and gives out a new epoch.
    pub fn initialise(&mut self, name: &str, now: Duration, dice: &mut Dice) -> Result<u32, Refused> {
        let (number, slow_marker) = (self.ids.len() as u32 + 1, self.slow_marker);
        let id = self.ids.entry(name.to_owned()).or_insert_with(|| Id { number, ..Id::default() });
        match id.state {
            State::Empty => {
                id.epoch += 1;
                Ok(id.epoch)
            }
            State::Ongoing(_) => {
                id.epoch += 1;
                id.complete(false, now, slow_marker, dice);
                Err(Refused::Busy)
            }
            State::Completing(_) => Err(Refused::Busy),
        }
    }

    fn id(&mut self, name: &str, epoch: u32) -> Result<&mut Id, Refused> {
        let unfenced = self.unfenced;
        let id = self.ids.get_mut(name).ok_or(Refused::Fenced)?;
        if id.epoch == epoch || unfenced { Ok(id) } else { Err(Refused::Fenced) }
    }

    /// Adds a partition to the transaction of an id, which begins with it; returns the writer's number.
    pub fn add(
        &mut self,
        name: &str,
        epoch: u32,
        to: Option<TopicPartition>,
        group: Option<&'static str>,
        now: Duration,
    ) -> Result<u32, Refused> {
        let id = self.id(name, epoch)?;
        match id.state {
            State::Completing(_) => return Err(Refused::Busy),
            State::Empty => id.state = State::Ongoing(now),
            State::Ongoing(_) => {}
        }
        id.partitions.extend(to);
        id.groups.extend(group);
        Ok(id.number)
    }

    /// Ends the transaction of an id. Asked again with the same answer in mind, it agrees.
    pub fn end(&mut self, name: &str, epoch: u32, committed: bool, now: Duration, dice: &mut Dice) -> Result<(), Refused> {
        let slow_marker = self.slow_marker;
        let id = self.id(name, epoch)?;
        match id.state {
            State::Ongoing(_) => {
                id.last_committed = committed.then_some(epoch);
                id.complete(committed, now, slow_marker, dice);
                Ok(())
            }
            State::Completing(was) if was == committed => Ok(()),
            State::Empty if id.last_committed == Some(epoch) && committed => Ok(()),
            State::Empty if !committed => Ok(()),
            _ => Err(Refused::NoTransaction),
        }
    }

    /// Aborts what is open for too long.
    pub fn time_out(&mut self, now: Duration, dice: &mut Dice) {
        let slow_marker = self.slow_marker;
        for id in self.ids.values_mut() {
            if matches!(id.state, State::Ongoing(since) if now.saturating_sub(since) > TIMEOUT) {
                id.epoch += 1;
                id.complete(false, now, slow_marker, dice);
            }
        }
    }

    /// The markers that arrive by now: where, whose, and what they say.
    pub fn due(&mut self, now: Duration) -> Vec<(Marker, u32, bool)> {
        let mut due = Vec::new();
        for id in self.ids.values_mut() {
            let State::Completing(committed) = id.state else { continue };
            let number = id.number;
            id.markers.retain(|(at, marker)| {
                let arrives = *at <= now;
                if arrives {
                    due.push((*marker, number, committed));
                }
                !arrives
            });
            if id.markers.is_empty() {
                id.state = State::Empty;
            }
        }
        due
    }

    /// When the next marker arrives or transaction times out.
    pub fn next(&self) -> Option<Duration> {
        let markers = self.ids.values().flat_map(|id| id.markers.iter().map(|(at, _)| *at));
        let timeouts = self.ids.values().filter_map(|id| match id.state {
            State::Ongoing(since) => Some(since + TIMEOUT + Duration::from_millis(1)),
            _ => None,
        });
        markers.chain(timeouts).min()
    }
}

impl Id {
    fn complete(&mut self, committed: bool, now: Duration, slow_marker: u64, dice: &mut Dice) {
        self.state = State::Completing(committed);
        let partitions = std::mem::take(&mut self.partitions).into_iter().map(Marker::Partition);
        let targets = partitions.chain(std::mem::take(&mut self.groups).into_iter().map(Marker::Offsets));
        // Mostly at once; now and then one of them is slow.
        self.markers = targets
            .map(|target| {
                let slow = dice.one_in(slow_marker);
                (now + if slow { dice.millis(5, 1_500) } else { dice.millis(0, 4) }, target)
            })
            .collect();
    }
}
