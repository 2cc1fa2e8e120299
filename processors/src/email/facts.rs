//! What segments and campaigns remember of a user: one small row, bounded.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tillflow_schemas::{Money, Timestamp, UserEventKind};

/// Times of orders that are kept, the latest: `frequent_buyer` needs at most ten, and cancellations take some away.
const ORDERS: usize = 16;
/// Times of deliveries that are kept, the latest: `disengaged` needs at most 20.
const DELIVERIES: usize = 20;
/// Categories bought that are kept, the first ones by name beyond that stay out.
const CATEGORIES: usize = 200;

/// What is remembered of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The user's clock: the greatest time of their events and timers.
    pub clock: Timestamp,
    /// The first event in the shop.
    pub first_event: Option<Timestamp>,
    /// The last event in the shop; mails opened or clicked are none.
    pub last_event: Option<Timestamp>,
    /// The last order placed, also if it was cancelled since.
    pub last_order: Option<Timestamp>,
    /// The latest orders not cancelled, oldest first.
    pub orders: Vec<Timestamp>,
    /// Net spend within the window: the sum of the rows of purchases.
    pub spend: Money,
    /// When the first of those rows leaves the window.
    pub spend_changes: Option<Timestamp>,
    /// Orders not cancelled by category bought.
    pub bought: BTreeMap<String, u32>,
    /// The last click in a mail.
    pub last_click: Option<Timestamp>,
    /// The latest deliveries, oldest first.
    pub delivered: Vec<Timestamp>,
    /// The last add or remove that left something in the cart, while something is in it.
    pub cart_since: Option<Timestamp>,
    /// Names of the `repeat_viewer` segments.
    pub repeat: Vec<String>,
    /// When time changes those.
    pub repeat_changes: Option<Timestamp>,
    /// The segments last published, sorted.
    pub segments: Vec<String>,
    /// When the timer of the segments is set to.
    pub recheck: Option<Timestamp>,
    /// Whether win-back waits for this user.
    pub watched: bool,
    /// The birthday, zone and time for which the birthday mail is set.
    pub birthday: Option<(String, Timestamp)>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            clock: Timestamp::MIN,
            first_event: None,
            last_event: None,
            last_order: None,
            orders: Vec::new(),
            spend: Money::ZERO,
            spend_changes: None,
            bought: BTreeMap::new(),
            last_click: None,
            delivered: Vec::new(),
            cart_since: None,
            repeat: Vec::new(),
            repeat_changes: None,
            segments: Vec::new(),
            recheck: None,
            watched: false,
            birthday: None,
        }
    }
}

/// Whether an event is one of the shop: a shopper's own doing or what the shop does with their orders, and not what
/// becomes of a mail, nor of a type this version does not know.
pub fn is_shop_event(kind: &UserEventKind) -> bool {
    use UserEventKind as K;
    !matches!(
        kind,
        K::EmailDelivered { .. }
            | K::EmailOpened { .. }
            | K::EmailClicked { .. }
            | K::EmailBounced { .. }
            | K::EmailComplained { .. }
            | K::EmailUnsubscribed { .. }
            | K::Unknown { .. }
    )
}

impl Facts {
    /// Takes in what an event says by its kind and time alone.
    pub fn note(&mut self, kind: &UserEventKind, at: Timestamp) {
        self.clock = self.clock.max(at);
        if is_shop_event(kind) {
            self.first_event = Some(self.first_event.map_or(at, |t| t.min(at)));
            self.last_event = self.last_event.max(Some(at));
        }
        match kind {
            UserEventKind::OrderCompleted(_) => {
                self.last_order = self.last_order.max(Some(at));
                insert(&mut self.orders, at, ORDERS);
            }
            UserEventKind::EmailClicked { .. } => self.last_click = self.last_click.max(Some(at)),
            UserEventKind::EmailDelivered { .. } => insert(&mut self.delivered, at, DELIVERIES),
            _ => {}
        }
    }

    /// An order has bought from these categories.
    pub fn buy(&mut self, categories: &[String]) {
        for category in categories {
            if self.bought.len() < CATEGORIES || self.bought.contains_key(category) {
                *self.bought.entry(category.clone()).or_default() += 1;
            }
        }
    }

    /// The order of `at` was cancelled.
    pub fn cancel(&mut self, at: Timestamp, categories: &[String]) {
        if let Some(i) = self.orders.iter().position(|t| *t == at) {
            self.orders.remove(i);
        }
        for category in categories {
            if let Some(n) = self.bought.get_mut(category) {
                *n = n.saturating_sub(1);
            }
        }
        self.bought.retain(|_, n| *n > 0);
    }
}

/// Inserts in order; keeps the latest `most`.
pub fn insert(times: &mut Vec<Timestamp>, at: Timestamp, most: usize) {
    times.insert(times.partition_point(|t| *t <= at), at);
    if times.len() > most {
        times.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_sorted_whatever_arrives() {
        let mut facts = Facts::default();
        for n in [5_i64, 3, 9, 1].into_iter().chain(10..100) {
            facts.note(&UserEventKind::EmailDelivered { message_id: "m".into() }, Timestamp::from_millis(n));
        }
        assert_eq!(facts.delivered.len(), DELIVERIES);
        assert!(facts.delivered.is_sorted());
        assert_eq!(facts.last_event, None);
        facts.buy(&(0..300).map(|n| format!("c{n}")).collect::<Vec<_>>());
        assert_eq!(facts.bought.len(), CATEGORIES);
    }
}
