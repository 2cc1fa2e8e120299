//! The trace that what is emitted belongs to: that of the record it follows from. Nothing is done where none is given.

use std::collections::HashMap;
use tillflow_schemas::Trace;
use tillflow_state::timers::TimerRow;

/// Timers whose trace is remembered; of more, it is lost, as it is by a restart: a trace is a help, no state.
const TIMERS: usize = 1_024;

/// Traces within a task.
#[derive(Default)]
pub struct Traces {
    /// Of the next record.
    next: Option<Trace>,
    /// Of the record or timer that is being processed.
    now: Option<Trace>,
    /// Of those who set timers that have not fired yet.
    timers: HashMap<(u32, String, String), Trace>,
}

impl Traces {
    /// What the next record carries.
    pub fn set_next(&mut self, trace: Option<Trace>) {
        self.next = trace;
    }

    /// That record is processed from now on, until [`Traces::end`].
    pub fn begin_record(&mut self) {
        self.now = self.next.take();
    }

    /// A timer is processed from now on; it goes on with the trace of the record that set it.
    pub fn begin_timer(&mut self, row: &TimerRow) {
        self.now = if self.timers.is_empty() { None } else { self.timers.remove(&name(row)) };
    }

    /// It is done.
    pub fn end(&mut self) {
        self.now = None;
    }

    /// What is emitted now carries this.
    pub fn now(&self) -> Option<&Trace> {
        self.now.as_ref()
    }

    /// A timer was set.
    pub fn timer_set(&mut self, row: &TimerRow) {
        match &self.now {
            Some(trace) if self.timers.len() < TIMERS => drop(self.timers.insert(name(row), trace.clone())),
            // Set anew by another, it is another's.
            _ if !self.timers.is_empty() => drop(self.timers.remove(&name(row))),
            _ => {}
        }
    }
}

fn name(row: &TimerRow) -> (u32, String, String) {
    (row.kind, row.key.clone(), row.detail.clone())
}
