//! The life of one subscription: what events and time make of it. Pure; the processor stores and emits.
//!
//! - A subscription is paid for periods below `paid_periods`: `started` pays the first (without a trial), each
//!   `renewed` one more. A `renewed` up to and at the period's end is in time; without it the subscription is past due,
//!   counts for the days of grace, and expires.
//! - A failed payment makes it past due at once; the grace begins with the failure or with the end of what is paid,
//!   whichever is later. A failure before any renewal says that the first period was not paid after all.
//! - While paused nothing counts and the calendar goes on. Resumed after what was paid: past due, with grace from then.
//! - A `renewed` always pays at least the period that holds its time; it also revives what has expired, but not what
//!   was cancelled and is over.
//! - The plan is the version bought until the renewed period begins.

use super::{calendar::Calendar, plans::PlanVersion};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tillflow_schemas::{PlanId, ProductId, Timestamp};

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Free until the trial's end.
    Trialing,
    /// Paid.
    Active,
    /// Not paid, within grace.
    PastDue,
    /// Put aside by the customer.
    Paused,
    /// Cancelled: it counts until its end.
    Cancelled,
    /// Not paid within grace.
    Expired,
}

impl Status {
    /// As emitted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// One subscription of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// What was bought.
    pub plan: PlanVersion,
    /// What an early renewal bought, and the period it begins with.
    pub upcoming: Option<(PlanVersion, u32)>,
    /// The lower plan that the next renewal will buy.
    pub next_plan: Option<PlanId>,
    /// Where it stands.
    pub status: Status,
    /// Of several that count, the newest does.
    pub started_at: Timestamp,
    /// Among those started at one moment, the last to arrive does.
    pub arrival: u64,
    /// Where period `anchor_period` begins; the others are counted from it.
    pub anchor: Timestamp,
    /// See `anchor`: not 0 once the interval has changed.
    pub anchor_period: u32,
    /// All periods below this one are paid.
    pub paid_periods: u32,
    /// Whether a payment was ever reported, rather than taken for granted with the start.
    pub is_confirmed: bool,
    /// The trial's end, where there is one: there period 0 begins.
    pub trial_until: Option<Timestamp>,
    /// The end of grace, while past due.
    pub grace_until: Option<Timestamp>,
    /// When it ends, once cancelled.
    pub ends_at: Option<Timestamp>,
    /// Whether it has ended and counts no more.
    pub is_over: bool,
    /// The first period whose box is neither packed nor skipped.
    pub next_box: u32,
    /// When to look again for products for that box, once there were none.
    pub look_again: Option<Timestamp>,
    /// Whether that box is to be skipped.
    pub skip_next: bool,
    /// Products the customer wants in that box, each instead of another.
    pub swaps: Vec<(ProductId, ProductId)>,
}

/// Why an event can't be applied.
pub type Refusal = String;

impl Subscription {
    /// A subscription that starts at `at`.
    pub fn started(plan: PlanVersion, at: Timestamp, trial_until: Option<Timestamp>, arrival: u64) -> Self {
        let trial_until = trial_until.filter(|until| *until > at);
        Self {
            plan,
            upcoming: None,
            next_plan: None,
            status: if trial_until.is_some() { Status::Trialing } else { Status::Active },
            started_at: at,
            arrival,
            anchor: trial_until.unwrap_or(at),
            anchor_period: 0,
            paid_periods: u32::from(trial_until.is_none()),
            is_confirmed: false,
            trial_until,
            grace_until: None,
            ends_at: None,
            is_over: false,
            next_box: 0,
            look_again: None,
            skip_next: false,
            swaps: Vec::new(),
        }
    }

    /// The same subscription, started again after it was over. Periods are numbered on, so that no box is drawn twice.
    pub fn restarted(&self, plan: PlanVersion, at: Timestamp, trial_until: Option<Timestamp>, arrival: u64) -> Self {
        let first = self.next_box;
        let fresh = Self::started(plan, at, trial_until, arrival);
        Self { anchor_period: first, paid_periods: fresh.paid_periods.saturating_add(first), next_box: first, ..fresh }
    }

    /// When period `n` begins.
    pub fn begins(&self, n: u32, calendar: &Calendar) -> Timestamp {
        let by_plan = |n: u32| calendar.plus(self.anchor, self.plan.interval, n.saturating_sub(self.anchor_period));
        match &self.upcoming {
            Some((plan, from)) if n > *from && plan.interval != self.plan.interval => {
                calendar.plus(by_plan(*from), plan.interval, n - from)
            }
            _ => by_plan(n),
        }
    }

    /// The end of what is paid.
    pub fn paid_until(&self, calendar: &Calendar) -> Timestamp {
        self.begins(self.paid_periods, calendar)
    }

    /// The period that holds `at`; the first one before it.
    pub fn period_at(&self, at: Timestamp, calendar: &Calendar) -> u32 {
        self.anchor_period.saturating_add(calendar.index(self.anchor, self.plan.interval, at))
    }

    /// Whether it gives features.
    pub const fn counts(&self) -> bool {
        !self.is_over && !matches!(self.status, Status::Paused | Status::Expired)
    }

    /// When it ends, or its status, unless something happens.
    pub fn until(&self, calendar: &Calendar) -> Option<Timestamp> {
        match self.status {
            Status::Trialing => self.trial_until,
            Status::Active => Some(self.paid_until(calendar)),
            Status::PastDue => self.grace_until,
            Status::Cancelled => self.ends_at,
            Status::Paused | Status::Expired => None,
        }
    }

    /// When time alone will change it next.
    pub fn next_change(&self, calendar: &Calendar) -> Option<Timestamp> {
        // A renewal at the very end of a period is in time.
        let after = |t: Timestamp| t + Duration::from_millis(1);
        let of_status = match self.status {
            _ if self.is_over => None,
            Status::Trialing if self.is_paid_after_trial() => self.trial_until,
            Status::Trialing => self.trial_until.map(after),
            Status::Active => Some(after(self.paid_until(calendar))),
            Status::PastDue => self.grace_until,
            Status::Cancelled => self.ends_at,
            Status::Paused | Status::Expired => None,
        };
        let of_plan = self.upcoming.as_ref().map(|(_, from)| self.begins(*from, calendar));
        of_status.into_iter().chain(of_plan).min()
    }

    /// What time up to `now` makes of it.
    pub fn pass(&mut self, now: Timestamp, calendar: &Calendar, grace: Duration) {
        while self.next_change(calendar).is_some_and(|at| at <= now) {
            let is_plan_due = self.upcoming.as_ref().is_some_and(|(_, from)| self.begins(*from, calendar) <= now);
            if is_plan_due && let Some((plan, from)) = self.upcoming.take() {
                self.take_plan(plan, from, calendar);
                continue;
            }
            match self.status {
                Status::Trialing if self.is_paid_after_trial() => self.status = Status::Active,
                Status::Trialing | Status::Active => self.fall_due(self.paid_until(calendar), grace),
                Status::PastDue => {
                    self.status = Status::Expired;
                    self.is_over = true;
                }
                Status::Cancelled | Status::Paused | Status::Expired => self.is_over = true,
            }
        }
    }

    const fn is_paid_after_trial(&self) -> bool {
        self.paid_periods > self.anchor_period
    }

    fn fall_due(&mut self, since: Timestamp, grace: Duration) {
        self.status = Status::PastDue;
        self.grace_until = Some(since + grace);
    }

    /// `plan` takes the place of the present one with period `from`.
    fn take_plan(&mut self, plan: PlanVersion, from: u32, calendar: &Calendar) {
        if plan.interval != self.plan.interval {
            self.anchor = self.begins(from, calendar);
            self.anchor_period = from;
        }
        self.plan = plan;
    }

    /// A payment for one more period, of `plan` as it is sold now.
    ///
    /// # Errors
    /// When it was cancelled and is over.
    pub fn renew(&mut self, plan: PlanVersion, at: Timestamp, calendar: &Calendar) -> Result<(), Refusal> {
        if self.is_over && self.status == Status::Cancelled {
            return Err("it is cancelled and over; start a new one".into());
        }
        let pays = self.paid_periods.max(self.period_at(at, calendar));
        self.next_plan = None;
        self.is_confirmed = true;
        if self.upcoming.is_some() {
            // A second renewal ahead of its time pays for one more period of what the first has bought.
        } else if self.begins(pays, calendar) > at && self.status != Status::Trialing {
            self.upcoming = Some((plan, pays)).filter(|(plan, _)| *plan != self.plan);
        } else {
            let from = if self.status == Status::Trialing { self.anchor_period } else { pays };
            self.take_plan(plan, from, calendar);
        }
        self.paid_periods = pays.saturating_add(1);
        self.grace_until = None;
        self.ends_at = None;
        self.is_over = false;
        match self.status {
            // A paused one stays paused, with what was paid.
            Status::Trialing | Status::Paused => {}
            _ => self.status = Status::Active,
        }
        Ok(())
    }

    /// A payment failed.
    pub fn fail_payment(&mut self, at: Timestamp, calendar: &Calendar, grace: Duration) {
        if self.is_over || self.status != Status::Active {
            return;
        }
        if !self.is_confirmed && self.paid_periods == self.anchor_period.saturating_add(1) {
            self.paid_periods = self.anchor_period;
        }
        self.fall_due(self.paid_until(calendar).max(at), grace);
    }

    /// Put aside.
    ///
    /// # Errors
    /// When it is cancelled or over.
    pub fn pause(&mut self) -> Result<(), Refusal> {
        if self.is_over || self.status == Status::Cancelled {
            return Err(format!("it is {} and can't be paused", self.status.name()));
        }
        self.status = Status::Paused;
        self.grace_until = None;
        Ok(())
    }

    /// Taken up again: after a pause, or after a cancellation that has not taken effect.
    ///
    /// # Errors
    /// When it is over.
    pub fn resume(&mut self, at: Timestamp, calendar: &Calendar, grace: Duration) -> Result<(), Refusal> {
        if self.is_over {
            return Err(format!("it is {} and over; start a new one", self.status.name()));
        }
        if !matches!(self.status, Status::Paused | Status::Cancelled) {
            return Ok(());
        }
        self.ends_at = None;
        if self.trial_until.is_some_and(|until| until > at) {
            self.status = Status::Trialing;
        } else if self.paid_until(calendar) >= at {
            self.status = Status::Active;
        } else {
            self.fall_due(at, grace);
        }
        Ok(())
    }

    /// Cancelled, at once or with what is paid.
    pub fn cancel(&mut self, at: Timestamp, at_period_end: bool, calendar: &Calendar) {
        if self.is_over {
            return;
        }
        let end = match self.status {
            _ if !at_period_end => at,
            Status::Trialing if !self.is_paid_after_trial() => self.trial_until.unwrap_or(at),
            Status::Paused => at,
            Status::Cancelled => self.ends_at.unwrap_or(at),
            _ => self.paid_until(calendar).max(at),
        };
        self.status = Status::Cancelled;
        self.grace_until = None;
        self.ends_at = Some(end);
        self.is_over = end <= at;
    }

    /// Moves to a higher plan at once. With another interval a new period begins.
    pub fn upgrade(&mut self, plan: PlanVersion, at: Timestamp, calendar: &Calendar) {
        self.next_plan = None;
        self.upcoming = None;
        if plan.interval != self.plan.interval && self.status != Status::Trialing {
            let is_paid = self.paid_until(calendar) > at;
            let first = self.period_at(at, calendar).saturating_add(1).max(self.next_box);
            self.anchor = at;
            self.anchor_period = first;
            self.paid_periods = first.saturating_add(u32::from(is_paid));
        }
        self.plan = plan;
    }

    /// Whether the next box is to be packed once its period begins: it is active and paid, be it cancelled for later.
    pub fn gets_boxes(&self) -> bool {
        !self.is_over && matches!(self.status, Status::Active | Status::Cancelled) && self.paid_periods > self.next_box
    }

    /// When the next box is to be packed.
    pub fn box_due(&self, calendar: &Calendar) -> Timestamp {
        let begins = self.begins(self.next_box, calendar);
        self.look_again.map_or(begins, |at| at.max(begins))
    }

    /// Leaves out the boxes of periods that have passed without one: not paid, or paused.
    pub fn forgo_boxes_before(&mut self, now: Timestamp, calendar: &Calendar) {
        let current = self.period_at(now, calendar);
        if self.next_box < current {
            self.finish_box(current);
        }
    }

    /// The box before period `next` is packed, skipped or forgone.
    pub fn finish_box(&mut self, next: u32) {
        self.next_box = next;
        self.look_again = None;
        self.skip_next = false;
        self.swaps.clear();
    }
}
