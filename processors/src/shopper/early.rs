//! Refunds and cancellations that came before the order they name: another producer, another partition, a retry. They
//! wait here for all systems alike, and each applies them right after what it makes of the order, as if they had come
//! only then.

use super::PlacedOrder;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tillflow_engine_api::{Context, Declare, Error, Result, Timer, TimerKind};
use tillflow_schemas::{OrderId, Refund, Timestamp, UserEvent, UserId};
use tillflow_state::Table;

pub(super) const ROWS: &str = "shopper.early_refunds";
pub(super) const WAITING: &str = "shopper.early_waiting";
/// Refunds and cancellations of one user that wait for their orders at a time.
const LIMIT: u32 = 1_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A refund or cancellation that came before its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyRefund {
    /// Its own event time.
    pub at: Timestamp,
    /// The event's id.
    pub event_id: Option<String>,
    /// `None` is a cancellation.
    pub refund: Option<Refund>,
}

impl EarlyRefund {
    /// Whether the order was cancelled.
    pub fn is_cancellation(&self) -> bool {
        self.refund.is_none()
    }

    /// The type of the event that it was.
    pub fn event_type(&self) -> &'static str {
        if self.is_cancellation() { "order_cancelled" } else { "order_refunded" }
    }

    /// For people to read. Its number tells two without an id apart.
    fn words(&self, number: u64) -> String {
        let Some(refund) = &self.refund else { return format!("a cancellation of {}", self.at) };
        let id = refund.refund_id.as_ref().or(self.event_id.as_ref()).map_or_else(|| format!("{number}, without an id,"), Clone::clone);
        let amount = refund.stated_amount().map_or_else(|| "the whole order".to_owned(), |amount| amount.to_string());
        format!("refund {id} of {}, over {amount},", self.at)
    }
}

/// How many wait of a user, and the number of the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Waiting {
    count: u32,
    next: u64,
}

type Key = (UserId, OrderId, u64);

/// What came before its order. Any processor of the group may ask for it while it processes the order.
#[derive(Clone, Copy)]
pub struct EarlyRefunds {
    rows: Table<Key, EarlyRefund>,
    /// Without a row nothing of the user waits: an order costs one look.
    waiting: Table<UserId, Waiting>,
}

impl EarlyRefunds {
    /// For a processor of the same group that runs after the shopper's.
    pub fn read(d: &mut Declare<'_>) -> Self {
        Self { rows: d.read(ROWS), waiting: d.read(WAITING) }
    }

    /// What came before this order, in the order of time. Gone right after the order's record.
    ///
    /// # Errors
    /// When the store fails.
    pub fn of(&self, user: &UserId, order: &OrderId, cx: &Context<'_>) -> Result<Vec<EarlyRefund>> {
        if cx.get(&self.waiting, user)?.is_none() {
            return Ok(Vec::new());
        }
        let rows = cx.rows(&self.rows, &(user.clone(), order.clone()))?;
        let mut early: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
        early.sort_by_key(|row| row.at);
        Ok(early)
    }
}

/// Keeps them: the shopper's part.
pub(super) struct EarlyKeeper {
    early: EarlyRefunds,
    orders: Table<(UserId, OrderId), PlacedOrder>,
    hold_days: u32,
    /// The order came, or has been waited for long enough; one an order.
    over: TimerKind,
    /// Fires at once and fails: what nobody waits for any more becomes a dead letter.
    dead: TimerKind,
}

impl EarlyKeeper {
    pub fn declare(d: &mut Declare<'_>, orders: Table<(UserId, OrderId), PlacedOrder>, hold_days: u32) -> Self {
        Self {
            early: EarlyRefunds { rows: d.store(ROWS), waiting: d.store(WAITING) },
            orders,
            hold_days,
            over: d.timer("shopper.early_over"),
            dead: d.timer("shopper.early_dead"),
        }
    }

    /// It waits from now on.
    pub fn hold(&self, user: &UserId, order: &OrderId, event: &UserEvent, refund: Option<&Refund>, cx: &mut Context<'_>) -> Result<()> {
        let mut waiting = cx.get(&self.early.waiting, user)?.unwrap_or_default();
        if waiting.count >= LIMIT {
            return Err(Error::reject(format!(
                "order_id: {LIMIT} refunds and cancellations of {user} already wait for orders that did not come"
            )));
        }
        let row = EarlyRefund { at: cx.now(), event_id: event.event_id.clone(), refund: refund.cloned() };
        cx.put(&self.early.rows, &(user.clone(), order.clone(), waiting.next), &row)?;
        waiting.count += 1;
        waiting.next += 1;
        cx.put(&self.early.waiting, user, &waiting)?;
        let until = self.until(&row);
        if cx.timer_at(self.over, user.as_str(), order.as_str())?.is_none_or(|set| set > until) {
            cx.set_timer(self.over, user.as_str(), order.as_str(), until)?;
        }
        Ok(())
    }

    /// The order has come: whether it was cancelled before. What waited for it goes once all have seen it.
    pub fn meet(&self, user: &UserId, order: &OrderId, cx: &mut Context<'_>) -> Result<bool> {
        let early = self.early.of(user, order, cx)?;
        if !early.is_empty() {
            cx.set_timer(self.over, user.as_str(), order.as_str(), cx.now())?;
        }
        Ok(early.iter().any(EarlyRefund::is_cancellation))
    }

    /// The wait is over. A dead letter undoes what its timer did, so a second one, due at once, makes it.
    pub fn on_timer(&self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        if timer.is(self.dead) {
            return Err(Error::reject(timer.detail.clone()));
        }
        let (user, order) = (UserId::from(timer.key.as_str()), OrderId::from(timer.detail.as_str()));
        let has_come = cx.get(&self.orders, &(user.clone(), order.clone()))?.is_some();
        let mut waiting = cx.get(&self.early.waiting, &user)?.unwrap_or_default();
        let mut next = None;
        for (key, row) in cx.rows(&self.early.rows, &(user.clone(), order.clone()))? {
            let until = self.until(&row);
            if !has_come && until > cx.now() {
                next = Some(next.map_or(until, |at: Timestamp| at.min(until)));
                continue;
            }
            cx.delete(&self.early.rows, &key);
            waiting.count = waiting.count.saturating_sub(1);
            if !has_come {
                let (what, days) = (row.words(key.2), self.hold_days);
                let reason = format!("{what} names order {order}, which user {user} did not place within {days} days");
                cx.set_timer(self.dead, user.as_str(), &reason, cx.now())?;
            }
        }
        if waiting.count == 0 {
            cx.delete(&self.early.waiting, &user);
        } else {
            cx.put(&self.early.waiting, &user, &waiting)?;
        }
        next.map_or(Ok(()), |at| cx.set_timer(self.over, user.as_str(), order.as_str(), at))
    }

    fn until(&self, row: &EarlyRefund) -> Timestamp {
        row.at.plus(DAY * self.hold_days)
    }
}
