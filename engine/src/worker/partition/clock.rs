//! The clock of a task: moved by its own inputs, by upstream's watermarks, or by the wall.

use super::Partition;
use crate::{
    config::LIVE,
    log::{Log, NewRecord, TopicPartition},
    worker::input::{IDLE, SOURCE, WATERMARK},
};
use std::time::Duration;
use tillflow_engine_api::Globals;
use tillflow_schemas::Timestamp;
use tillflow_state::StateError;

/// Timers fired in one step, at most: a clock that jumps far is followed with commits in between.
const TIMERS_AT_ONCE: usize = 500;
/// Downstream is told a watermark once it moved this far, in milliseconds.
const ANNOUNCE_STEP: i64 = 1_000;
/// The same where another task of the worker tells its own in this commit: a watermark goes into every partition downstream, and
/// into each once a commit, however many tasks tell theirs.
const ANNOUNCE_TOGETHER: i64 = ANNOUNCE_STEP / 2;

impl Partition {
    /// Whether its own inputs move its clock: there is no upstream, or all of it is idle. Where idle clocks are off no
    /// task is, so that a replay does not depend on when one was found idle.
    fn leads(&self) -> bool {
        let (topics, sources) = &self.shared.listens;
        let is_idle = |topic: usize| (0..*sources).all(|s| self.upstream.get(&(topic, s)) == Some(&IDLE));
        self.task.group().upstream.is_none() || (self.shared.config.idle_clock && topics.iter().all(|t| is_idle(*t)))
    }

    pub(super) fn move_clock(&mut self, topic: usize, time: Option<Timestamp>, globals: &Globals) -> Result<(), StateError> {
        let Some(time) = time else { return Ok(()) };
        if !self.leads() {
            if self.shared.config.idle_clock {
                // Should all of upstream turn out to be idle, the clock goes on from here.
                let own = self.upstream.entry((topic, self.task.place().partition)).or_insert(time);
                *own = time.max(*own);
            }
            return Ok(());
        }
        self.idle = false;
        self.task.set_clock(time);
        self.advance(self.task.clock() - self.shared.config.grace, globals)
    }

    /// The clock of a group with an upstream is the least of its watermarks, once all have told theirs.
    pub(super) fn follow_upstream(&mut self, globals: &Globals) -> Result<(), StateError> {
        let (topics, sources) = &self.shared.listens;
        if self.leads() {
            let own = self.upstream.iter().filter(|((topic, _), _)| !topics.contains(topic)).max_by_key(|(_, at)| **at);
            return match own.map(|((topic, _), at)| (*topic, *at)) {
                Some((topic, at)) => self.move_clock(topic, Some(at), globals),
                None => Ok(()),
            };
        }
        let heard = topics.iter().flat_map(|t| (0..*sources).map(|s| self.upstream.get(&(*t, s)).copied().unwrap_or(Timestamp::MIN)));
        match heard.filter(|at| *at != IDLE).min() {
            Some(at) if at > Timestamp::MIN => {
                self.task.set_clock(at);
                self.advance(at, globals)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn advance(&mut self, watermark: Timestamp, globals: &Globals) -> Result<(), StateError> {
        let (failed, done) = self.task.advance_by(watermark, TIMERS_AT_ONCE, globals)?;
        self.advancing = !done;
        self.bury(failed);
        Ok(())
    }

    /// With nothing to process, the clock of a live task goes on with the wall.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tick(&mut self, globals: &Globals, log: &dyn Log) -> Result<(), StateError> {
        let config = &self.shared.config;
        if !config.idle_clock || !self.leads() || !self.is_drained(log) {
            self.stands_since = None;
            return Ok(());
        }
        let (wall, clock) = (config.wall.now(), self.task.clock());
        if clock == Timestamp::MIN {
            self.idle = true;
        } else if wall > clock + LIVE {
            // Its own timers wait for an event; others do not wait for it for ever.
            let since = *self.stands_since.get_or_insert(wall);
            self.idle |= wall > since + LIVE;
        } else if wall > clock.plus(Duration::from_secs(1)) {
            self.idle = false;
            let watermark = wall - config.grace;
            self.task.set_clock(wall);
            self.advance(watermark, globals)?;
        }
        Ok(())
    }

    /// Whether downstream is to be told a watermark now.
    pub fn has_news(&self) -> bool {
        self.news(ANNOUNCE_STEP).is_some()
    }

    /// Whether downstream may be told one together with other tasks.
    pub fn joins_news(&self) -> bool {
        self.news(ANNOUNCE_TOGETHER).is_some()
    }

    /// The watermark that downstream does not know yet, moved so far.
    fn news(&self, step: i64) -> Option<Timestamp> {
        // Not before the decisions that it lets fall.
        if self.shared.announces.is_empty() || self.advancing {
            return None;
        }
        let watermark = if self.idle { IDLE } else { self.task.watermark() };
        let moved = watermark.millis().saturating_sub(self.announced.millis()) >= step || (self.announced == IDLE && watermark != IDLE);
        (watermark != Timestamp::MIN && moved).then_some(watermark)
    }

    /// Tells every downstream task how far this one has come; the signals before it are before it in each partition.
    pub(super) fn announce(&mut self, records: &mut Vec<NewRecord>) {
        let Some(watermark) = self.news(ANNOUNCE_TOGETHER) else { return };
        self.announced = watermark;
        let source = i64::from(self.task.place().partition);
        for &topic in &self.shared.announces {
            let partitions = self.shared.catalog.topics().get(topic).map_or(0, |t| t.partitions);
            records.extend((0..partitions).map(|partition| NewRecord {
                to: TopicPartition { topic, partition },
                at: watermark.min(Timestamp::LATEST),
                key: None,
                value: None,
                headers: vec![
                    (SOURCE.into(), source.to_be_bytes().to_vec()),
                    (WATERMARK.into(), watermark.millis().to_be_bytes().to_vec()),
                ],
            }));
        }
    }
}
