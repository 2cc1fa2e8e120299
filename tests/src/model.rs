//! A naive model of the points programme with its default rules: one thread, plain vectors, no processor's API, and
//! nothing shared with the processor but the events' types. What a run's accounts are compared with.
//!
//! It knows orders, refunds (of a named order or of none), cancellations, the monthly challenge and expiry, since all
//! of these come from `user_events` alone. It takes amounts at face value and events in time order.

use std::collections::{BTreeMap, BTreeSet};
use tillflow_schemas::{Money, Timestamp, UserEvent, UserEventKind};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Name, lifetime points from which it counts, points for 100 units of money.
const TIERS: [(&str, i64, u32); 4] = [("bronze", 0, 100), ("silver", 500, 125), ("gold", 2000, 150), ("platinum", 5000, 200)];

/// What the programme owes a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NaiveAccount {
    /// Points that can be spent.
    pub balance: i64,
    /// Points ever earned less those refunded.
    pub lifetime_points: i64,
    /// Name of the tier.
    pub tier: String,
}

/// The whole shop's accounts.
#[derive(Default)]
pub struct NaiveLoyalty {
    users: BTreeMap<String, Person>,
}

#[derive(Default)]
struct Person {
    balance: i64,
    lifetime: i64,
    /// (expires at, what is left, order), in the order earned.
    lots: Vec<(i64, i64, String)>,
    orders: BTreeMap<String, Bought>,
    orders_by_month: BTreeMap<String, u32>,
    /// (came at, order, amount): refunds whose order has not come yet.
    waiting: Vec<(i64, String, Option<Money>)>,
    seen: BTreeSet<String>,
}

struct Bought {
    points: i64,
    total: Money,
    refunded: Money,
    clawed: i64,
    expired: i64,
}

impl NaiveLoyalty {
    /// Takes the next event; guests and anonymous visitors have no account.
    pub fn feed(&mut self, event: &UserEvent) {
        let Some(user) = &event.user_id else { return };
        let at = event.timestamp.millis();
        let person = self.users.entry(user.as_str().to_owned()).or_default();
        person.expire(at);
        if event.event_id.as_ref().is_some_and(|id| !person.seen.insert(format!("event {id}"))) {
            return;
        }
        match &event.kind {
            UserEventKind::OrderCompleted(order) if person.seen.insert(format!("order {}", order.order_id)) => {
                // The month in UTC is how the time begins: 2026-03-…
                let month: String = event.timestamp.to_string().chars().take(7).collect();
                person.order(order.order_id.as_str(), order.total(), month, at);
            }
            UserEventKind::OrderRefunded(refund) => {
                let id = refund.refund_id.as_ref().or(event.event_id.as_ref());
                if id.is_none_or(|id| person.seen.insert(format!("refund {id}"))) {
                    match &refund.order_id {
                        Some(order) => person.refund(order.as_str(), refund.stated_amount(), at),
                        None => person.refund_unnamed(refund.stated_amount().unwrap_or(Money::ZERO)),
                    }
                }
            }
            UserEventKind::OrderCancelled { order_id } if person.seen.insert(format!("cancel {order_id}")) => {
                person.refund(order_id.as_str(), None, at);
            }
            _ => {}
        }
    }

    /// The end of the input: what expires by `at` has expired.
    pub fn advance(&mut self, at: Timestamp) {
        for person in self.users.values_mut() {
            person.expire(at.millis());
        }
    }

    /// The users that were seen, in order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// A user's account; one never seen has nothing.
    pub fn account(&self, user: &str) -> NaiveAccount {
        let (balance, lifetime_points) = self.users.get(user).map_or((0, 0), |p| (p.balance, p.lifetime));
        NaiveAccount { balance, lifetime_points, tier: tier(lifetime_points).0.to_owned() }
    }
}

fn tier(lifetime: i64) -> (&'static str, i64, u32) {
    let mut reached = ("bronze", 0, 100);
    for tier in TIERS {
        if lifetime >= tier.1 {
            reached = tier;
        }
    }
    reached
}

fn floor_of_share(amount: Money, numerator: Money, denominator: Money) -> i64 {
    let share = amount.decimal() * numerator.decimal() / denominator.decimal();
    i64::try_from(share.floor()).unwrap_or(i64::MAX)
}

fn whole(number: i64) -> Money {
    Money::parse(&number.to_string()).unwrap_or_default()
}

impl Person {
    fn worth(&self, amount: Money) -> i64 {
        floor_of_share(amount, whole(tier(self.lifetime).2.into()), whole(100))
    }

    fn order(&mut self, id: &str, total: Money, month: String, at: i64) {
        let points = self.worth(total);
        self.gain(points, at, id);
        self.orders.insert(id.to_owned(), Bought { points, total, refunded: Money::ZERO, clawed: 0, expired: 0 });
        let this_month = self.orders_by_month.entry(month).or_default();
        *this_month += 1;
        if *this_month == 3 {
            self.gain(50, at, "");
        }
        let (mine, others) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, order, _)| order == id);
        self.waiting = others;
        let mine: Vec<_> = mine;
        for (_, order, amount) in mine {
            self.refund(&order, amount, at);
        }
    }

    fn gain(&mut self, points: i64, at: i64, order: &str) {
        let missing = (-self.balance).max(0);
        self.balance += points;
        self.lifetime += points;
        self.lots.push((at + 365 * DAY_MS, (points - missing).max(0), order.to_owned()));
    }

    fn refund(&mut self, id: &str, amount: Option<Money>, at: i64) {
        let Some(order) = self.orders.get_mut(id) else {
            self.waiting.push((at, id.to_owned(), amount));
            return;
        };
        order.refunded = (order.refunded + amount.unwrap_or(order.total)).min(order.total);
        let clawed =
            if order.refunded == order.total { order.points } else { floor_of_share(whole(order.points), order.refunded, order.total) };
        let points = clawed - order.clawed;
        order.clawed = clawed;
        let already_gone = points.min(order.expired);
        order.expired -= already_gone;
        self.lifetime -= points;
        self.lose(points - already_gone, id);
    }

    fn refund_unnamed(&mut self, amount: Money) {
        let points = self.worth(amount).min(self.lifetime.max(0));
        self.lifetime -= points;
        self.lose(points, "no order");
    }

    /// From the lot of `first`, then from the oldest; lots lie in the order earned.
    fn lose(&mut self, points: i64, first: &str) {
        self.balance -= points;
        let mut left = points;
        for its_own in [true, false] {
            for (_, remaining, order) in &mut self.lots {
                if !its_own || order == first {
                    let taken = left.min(*remaining);
                    *remaining -= taken;
                    left -= taken;
                }
            }
        }
    }

    fn expire(&mut self, at: i64) {
        for (expires_at, remaining, order) in &mut self.lots {
            if *expires_at <= at {
                self.balance -= *remaining;
                if let Some(bought) = self.orders.get_mut(order) {
                    bought.expired += *remaining;
                }
                *remaining = 0;
            }
        }
        self.waiting.retain(|(came_at, ..)| came_at + 30 * DAY_MS > at);
    }
}
