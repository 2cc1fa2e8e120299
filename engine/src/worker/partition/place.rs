//! Where a task stands in its inputs, as committed and as reached.

use super::Partition;
use crate::{
    log::{Log, TopicPartition},
    worker::{input::Input, meta::Meta},
};
use tillflow_schemas::{Role, Timestamp};
use tillflow_state::StateError;

impl Partition {
    /// Goes back to what was committed.
    pub fn rewind(&mut self) {
        let meta = self.committed.clone();
        self.task.reset(meta.clock, meta.watermark);
        self.announced = meta.announced;
        self.upstream = meta.upstream.iter().filter_map(|((topic, p), at)| Some(((self.shared.catalog.index(topic)?, *p), *at))).collect();
        self.raw.clear();
        self.moved = false;
        self.waiting = None;
        // A commit may have come before all timers fired that were due.
        self.advancing = meta.watermark > Timestamp::MIN;
        self.unfinished = None;
        for i in 0..self.inputs.len() {
            let offset = self.inputs.get(i).and_then(|input| self.committed.offsets.get(self.topic_name(input.at))).copied();
            if let Some(input) = self.inputs.get_mut(i) {
                input.queue.clear();
                input.paused = false;
                input.position = offset.unwrap_or(0);
                input.fetched = input.position;
            }
        }
        if let Some((topic, after)) = meta.unfinished
            && let Some(i) = self.inputs.iter().position(|input| self.topic_name(input.at) == topic)
        {
            self.unfinished = Some((i, after));
            // Delivered again, it is passed over.
            self.inputs.iter_mut().skip(i).take(1).for_each(|input| input.fetched = after);
        }
    }

    /// Takes the offsets of a store that was restored anew.
    ///
    /// # Errors
    /// When the store fails.
    pub fn reload(&mut self) -> Result<(), StateError> {
        self.task.reset(Timestamp::MIN, Timestamp::MIN);
        self.committed = Meta::read(self.task.store())?;
        self.rewind();
        Ok(())
    }

    /// Where delivery of each input is to begin; `None` is the earliest record.
    pub fn starts(&self) -> Vec<(TopicPartition, Option<i64>)> {
        self.inputs.iter().map(|i| (i.at, self.committed.offsets.get(self.topic_name(i.at)).copied())).collect()
    }

    /// All before `offset` of an input is done.
    pub(super) fn pass(&mut self, i: usize, offset: i64) {
        if let Some(input) = self.inputs.get_mut(i) {
            input.position = offset;
        }
        self.moved = true;
    }

    /// Takes what lies behind the last record, such as control records, as consumed. To be called when all delivered
    /// records are processed.
    pub fn pass_gaps(&mut self, log: &dyn Log) {
        for input in self.inputs.iter_mut().filter(|i| i.queue.is_empty()) {
            let reached = log.reached(input.at);
            if reached > input.position {
                input.position = reached;
                input.fetched = input.fetched.max(reached);
                self.moved = true;
            }
        }
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            offsets: self.inputs.iter().filter(|i| i.position > 0).map(|i| (self.topic_name(i.at).to_owned(), i.position)).collect(),
            clock: self.task.clock(),
            watermark: self.task.watermark(),
            upstream: self
                .upstream
                .iter()
                .map(|((topic, p), at)| ((self.topic_name(TopicPartition { topic: *topic, partition: *p }).to_owned(), *p), *at))
                .collect(),
            announced: self.announced,
            unfinished: self.unfinished.and_then(|(i, after)| Some((self.topic_name(self.inputs.get(i)?.at).to_owned(), after))),
        }
    }

    /// Positions for the transaction: in a task's first all of them, since beside each stands who committed it; then of inputs
    /// that went on, and of one at least.
    pub fn offsets(&self) -> Vec<(TopicPartition, i64)> {
        let stands = |i: &Input| self.told && self.committed.offsets.get(self.topic_name(i.at)).copied().unwrap_or(0) == i.position;
        let moved: Vec<_> = self.inputs.iter().filter(|i| !stands(i)).collect();
        let any = self.inputs.first().filter(|_| moved.is_empty());
        moved.into_iter().chain(any).map(|i| (i.at, i.position)).collect()
    }

    /// Inputs that only Tillflow writes, with the offset below which they are consumed once this commit is through.
    pub fn consumed(&self) -> impl Iterator<Item = (TopicPartition, i64)> {
        self.inputs.iter().filter(|i| matches!(i.role, Role::Internal | Role::Rekey)).map(|i| (i.at, i.position))
    }

    /// What was prepared is committed.
    pub fn committed(&mut self) {
        self.committed = self.meta();
        self.claimed = true;
        self.told = true;
        self.moved = false;
    }
}
