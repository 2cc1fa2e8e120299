//! A transaction on the simulated cluster, step by step as `log::kafka::transaction` goes, and what is known when a
//! step fails.

use super::{
    group::{Committed, Stale},
    log::{ANSWER, Row, SimLog},
    partition::Data,
    planted::Defect,
    steps::Stopped,
    transactions::Refused,
};
use crate::{
    log::{CommitError, Positions, TopicPartition, Transaction},
    worker::META,
};
use std::time::Duration;

/// So many times within a minute a producer may be fenced before its worker gives up.
const FENCED_TOO_OFTEN: usize = 3;

enum Failed {
    /// The process is gone, or the broker did not answer: the outcome is unknown.
    Stopped(Stopped),
    /// It has to be aborted.
    Abort(String),
    /// A newer producer has its id.
    Fenced,
    /// Another process has its instance id.
    Replaced,
    /// The answer to the end of the transaction was lost.
    Unknown,
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl SimLog {
    /// Writes one transaction.
    pub(super) fn transact(&mut self, transaction: &Transaction<'_>, metadata: Option<(u64, u64)>) -> Result<Positions, CommitError> {
        let planted = self.world(|w| w.planted);
        if self.epoch.is_none() {
            let id = self.id.clone();
            match self.initialise(&id) {
                Ok(epoch) => self.epoch = Some(epoch),
                Err(e) => return Err(self.unknown(format!("{e:?}"))),
            }
        }
        if planted == Some(Defect::StateBeforeTransaction) {
            self.plant(transaction, |_| true);
        }
        let mut positions = Positions::new();
        let written = self.write(transaction, metadata, &mut positions);
        if planted == Some(Defect::PositionAhead) {
            positions.values_mut().for_each(|p| *p += 9);
        }
        match written {
            Ok(()) => {
                self.last_offsets.extend(transaction.tasks.iter().flat_map(|t| t.offsets.iter().copied()));
                self.maybe_fill_disk();
                Ok(positions)
            }
            Err(Failed::Stopped(Stopped::Dead)) => Err(CommitError::Denied("the process is gone".into())),
            Err(Failed::Replaced) => Err(CommitError::Fenced(format!("{}: another process runs with this instance id", self.id))),
            Err(Failed::Abort(reason)) => Err(self.abort(transaction, reason, planted)),
            Err(Failed::Fenced) => {
                let now = self.world(|w| w.now());
                self.fenced.retain(|at| *at + Duration::from_secs(60) > now);
                self.fenced.push(now);
                if self.fenced.len() >= FENCED_TOO_OFTEN {
                    return Err(CommitError::Fenced(format!("{} was taken over {FENCED_TOO_OFTEN} times within a minute", self.id)));
                }
                Err(self.decide("a newer producer has its id".into()))
            }
            Err(Failed::Stopped(Stopped::Unreachable) | Failed::Unknown) => {
                let unknown = self.decide("no answer".into());
                match planted {
                    Some(Defect::UnknownIsSuccess) => Ok(positions),
                    Some(Defect::UnknownIsFailure) => Err(CommitError::Aborted("no answer".into())),
                    _ => Err(unknown),
                }
            }
        }
    }

    /// What the brokers have may find no room here.
    fn maybe_fill_disk(&mut self) {
        let process = self.process;
        self.world(|w| {
            let full = w.faults.full;
            if w.faults.on && w.dice.one_in(full) {
                let until = w.now() + w.dice.millis(1, 3_000);
                w.fill_disk(process, until);
                w.count("disk full between the commit and the local write");
            }
        });
    }

    /// The outcome is decided by taking the id over anew.
    fn decide(&mut self, reason: String) -> CommitError {
        let id = self.id.clone();
        self.epoch = self.initialise(&id).ok();
        self.unknown(reason)
    }

    fn unknown(&mut self, reason: String) -> CommitError {
        self.world(|w| w.count("outcome unknown"));
        let open: Vec<u32> = self.open.keys().chain(self.may_open.keys()).copied().collect();
        for partition in open {
            self.may_open.insert(partition, 1);
        }
        CommitError::Unknown(reason)
    }

    fn abort(&mut self, transaction: &Transaction<'_>, reason: String, planted: Option<Defect>) -> CommitError {
        self.world(|w| w.count("aborted"));
        let aborted = self.reach().is_ok()
            && self.world(|w| {
                let now = w.now();
                self.epoch.is_some_and(|epoch| w.transactions.end(&self.id, epoch, false, now, &mut w.dice).is_ok())
            });
        if !aborted {
            return self.decide(reason);
        }
        match planted {
            Some(Defect::OverlayKept) => self.plant(transaction, |key| key != META),
            Some(Defect::AbortIsUnknown) => return CommitError::Unknown(reason),
            _ => {}
        }
        CommitError::Aborted(reason)
    }

    fn only_timers_fired(&self, transaction: &Transaction<'_>) -> bool {
        transaction.tasks.iter().flat_map(|t| &t.offsets).all(|(at, offset)| self.last_offsets.get(at) == Some(offset))
    }

    fn plant(&self, transaction: &Transaction<'_>, which: impl Fn(&[u8]) -> bool) {
        for task in &transaction.tasks {
            if let Some(store) = self.open.get(&task.partition) {
                store.plant(task.rows.iter().filter(|(key, _)| which(key)));
            }
        }
    }

    fn write(&mut self, transaction: &Transaction<'_>, metadata: Option<(u64, u64)>, positions: &mut Positions) -> Result<(), Failed> {
        let planted = self.world(|w| w.planted);
        // Rare states are where faults must not be rare.
        let weight = if self.only_timers_fired(transaction) { 40 } else { 5 };
        self.one_step("crash before a transaction", weight)?;
        self.critical_step("crash before the offsets of a transaction")?;
        self.send_offsets(transaction, metadata, planted)?;
        let mut since = 0;
        for record in &transaction.records {
            let data = Data { logged_at: record.at, key: record.key.clone(), value: record.value.clone(), headers: record.headers.clone() };
            let twice = planted == Some(Defect::RekeyedTwice) && self.rekeyed.contains(&record.to.topic);
            if twice {
                self.append(record.to, data.clone())?;
            }
            self.append(record.to, data)?;
            self.now_and_then(&mut since)?;
        }
        for task in &transaction.tasks {
            let at = TopicPartition { topic: self.changelog, partition: task.partition };
            for (key, value) in self.rows(task.partition, &task.rows, planted) {
                let offset = self.append(at, Data { key: Some(key), value, ..Data::default() })?;
                positions.insert(task.partition, offset + 1);
                self.now_and_then(&mut since)?;
            }
        }
        if self.world(|w| w.faults.on && w.dice.one_in(w.faults.abort)) {
            return Err(Failed::Abort("a record was not delivered in time".into()));
        }
        self.critical_step("crash before the end of a transaction")?;
        self.end()?;
        Ok(self.critical_step("crash after a transaction")?)
    }

    /// The rows as they go into the changelog.
    fn rows(&mut self, partition: u32, rows: &[(&[u8], Option<&[u8]>)], planted: Option<Defect>) -> Vec<Row> {
        let own = rows.iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec)));
        let begins = |row: &Row, with: u8| row.0.starts_with(&[0, 0, 0, with]);
        match planted {
            Some(Defect::OffsetsNotInTransaction) => own.filter(|r| r.0 != META).collect(),
            Some(Defect::TimersNotLogged) => own.filter(|r| !begins(r, 2) && !begins(r, 3)).collect(),
            Some(Defect::DeletionsNotLogged) => own.filter(|r| r.1.is_some()).collect(),
            Some(Defect::SeenAfterWrite) => {
                let (seen, mut now): (Vec<Row>, Vec<Row>) = own.partition(|r| begins(r, 4) || begins(r, 5));
                now.extend(self.held_back.insert(partition, seen).unwrap_or_default());
                now
            }
            _ => own.collect(),
        }
    }

    fn now_and_then(&self, since: &mut u32) -> Result<(), Failed> {
        *since += 1;
        if since.is_multiple_of(12) {
            self.critical_step("crash within a transaction")?;
        }
        Ok(())
    }

    /// Appends within the transaction; while the last one's markers are written, it waits.
    fn append(&self, to: TopicPartition, data: Data) -> Result<i64, Failed> {
        let writer = self.enlist(Some(to), false)?;
        Ok(self.world(|w| w.append(to, Some(writer), data)))
    }

    fn enlist(&self, to: Option<TopicPartition>, offsets: bool) -> Result<u32, Failed> {
        let until = self.world(|w| w.now()) + ANSWER;
        let epoch = self.epoch.ok_or(Failed::Fenced)?;
        loop {
            self.reach()?;
            let now = self.world(|w| w.now());
            match self.world(|w| w.transactions.add(&self.id, epoch, to, offsets.then_some(self.group), now)) {
                Ok(writer) => return Ok(writer),
                Err(Refused::Busy) if now < until => self.others.run_for(Duration::from_millis(4)),
                Err(Refused::Busy) => return Err(Failed::Stopped(Stopped::Unreachable)),
                Err(Refused::Fenced | Refused::NoTransaction) => return Err(Failed::Fenced),
            }
        }
    }

    fn send_offsets(&self, transaction: &Transaction<'_>, metadata: Option<(u64, u64)>, planted: Option<Defect>) -> Result<(), Failed> {
        let offsets: Vec<_> = transaction.tasks.iter().flat_map(|t| t.offsets.iter().copied()).collect();
        if offsets.is_empty() {
            self.world(|w| w.violation("a transaction without offsets fences nobody".into()));
        }
        if self.only_timers_fired(transaction) {
            self.world(|w| w.count("a transaction in which only timers fired"));
            if planted == Some(Defect::TimersWithoutOffsets) {
                return Ok(());
            }
        }
        self.world(|w| offsets.iter().for_each(|_| w.count("an offset committed")));
        let writer = self.enlist(None, true)?;
        let offsets = offsets.into_iter().map(|(at, offset)| (at, Committed { offset, writer: self.id.clone() })).collect();
        let taken = self.world(|w| {
            let unfenced = w.transactions.unfenced;
            w.groups.get_mut(self.group).map(|g| g.add_offsets(self.client, metadata, writer, offsets, unfenced))
        });
        match taken {
            Some(Err(Stale::Instance)) => Err(Failed::Replaced),
            Some(Err(stale)) => {
                self.world(|w| w.count("a stale worker's offsets refused"));
                Err(Failed::Abort(format!("{stale:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Asks for the end; the answer may be lost, and with it, perhaps, the question.
    fn end(&self) -> Result<(), Failed> {
        let epoch = self.epoch.ok_or(Failed::Fenced)?;
        self.reach()?;
        let lost = self.world(|w| (w.faults.on && w.dice.one_in(w.faults.lost_end)).then(|| w.dice.below(3)));
        if lost != Some(0) && lost != Some(1) {
            let ended = self.world(|w| {
                let now = w.now();
                w.transactions.end(&self.id, epoch, true, now, &mut w.dice)
            });
            if let Err(refused) = ended {
                return Err(if refused == Refused::NoTransaction { Failed::Abort("decided otherwise".into()) } else { Failed::Fenced });
            }
        }
        let Some(how) = lost else { return Ok(()) };
        self.world(|w| {
            w.count("an answer lost");
            if how == 1 {
                // The question arrives after all, much later.
                let late = w.now() + ANSWER + w.dice.millis(0, 3_000);
                w.late_ends.push((late, self.id.clone(), epoch));
            }
        });
        self.others.run_for(ANSWER);
        Err(Failed::Unknown)
    }
}
