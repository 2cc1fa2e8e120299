//! The rules of the built-in segments: from what is remembered of a user to names, and when time changes them.

use crate::email::{Span, consent::Contact, facts::Facts, settings::SegmentSettings};
use std::time::Duration;
use tillflow_schemas::Timestamp;

/// So long after the last add or remove a cart counts as abandoned.
pub const CART_LEFT: Duration = Span::hours(1).get();
/// So long after it the cart is no longer worth a mail.
pub const CART_DROPPED: Duration = Span::hours(48).get();

/// The segments a user is in, and when time alone may change that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// Names; sorted once [`Membership::sorted`] was called.
    pub names: Vec<String>,
    /// When to look again.
    pub changes: Option<Timestamp>,
}

impl Membership {
    /// The user is in this segment.
    pub fn join(&mut self, name: impl Into<String>) {
        self.names.push(name.into());
    }

    /// Something changes at `at`, unless that is past.
    pub fn changes_at(&mut self, at: Timestamp, now: Timestamp) {
        if at > now {
            self.changes = Some(self.changes.map_or(at, |t| t.min(at)));
        }
    }

    /// Whether `now` is within `[from, until)`; looks again at both.
    fn within(&mut self, from: Timestamp, until: Timestamp, now: Timestamp) -> bool {
        self.changes_at(from, now);
        self.changes_at(until, now);
        from <= now && now < until
    }

    /// With names in order, each once.
    pub fn sorted(mut self) -> Self {
        self.names.sort_unstable();
        self.names.dedup();
        self
    }
}

/// The built-in segments at `now`. Spend and repeated views must have been brought up to `now` before.
pub fn membership(facts: &Facts, contact: Option<&Contact>, rules: &SegmentSettings, now: Timestamp) -> Membership {
    let mut m = Membership::default();
    spend(&mut m, facts, rules, now);
    activity(&mut m, facts, rules, now);
    mails(&mut m, facts, rules, now);
    if let Some(t0) = facts.cart_since
        && m.within(t0 + CART_LEFT, t0 + CART_DROPPED, now)
    {
        m.join("abandoned_cart");
    }
    facts.bought.keys().for_each(|category| m.join(format!("bought_category:{category}")));
    facts.repeat.iter().for_each(|name| m.join(name.as_str()));
    facts.repeat_changes.iter().for_each(|at| m.changes_at(*at, now));
    if let Some(contact) = contact {
        contact.country.iter().for_each(|country| m.join(format!("location:{country}")));
        contact.interests.iter().for_each(|interest| m.join(format!("interest:{interest}")));
    }
    m
}

fn spend(m: &mut Membership, facts: &Facts, rules: &SegmentSettings, now: Timestamp) {
    facts.spend_changes.iter().for_each(|at| m.changes_at(*at, now));
    if facts.spend >= rules.high_value && facts.last_order.is_some() {
        m.join("high_value");
    }
    // The order whose leaving the window leaves too few.
    let decisive = facts.orders.len().checked_sub(rules.frequent_orders as usize).and_then(|i| facts.orders.get(i));
    if let Some(first) = decisive
        && m.within(*first, *first + rules.orders_window.get(), now)
    {
        m.join("frequent_buyer");
    }
}

fn activity(m: &mut Membership, facts: &Facts, rules: &SegmentSettings, now: Timestamp) {
    // At most so long ago: one millisecond later it is more.
    if let Some(first) = facts.first_event
        && m.within(first, first + rules.new.get() + Duration::from_millis(1), now)
    {
        m.join("new");
    }
    let Some(last) = facts.last_event else { return };
    let (at_risk, lapsed) = (last + rules.at_risk.get(), last + rules.lapsed.get());
    m.changes_at(at_risk, now);
    m.changes_at(lapsed, now);
    m.join(match now {
        _ if now < at_risk => "active",
        _ if now < lapsed => "at_risk",
        _ => "lapsed",
    });
}

fn mails(m: &mut Membership, facts: &Facts, rules: &SegmentSettings, now: Timestamp) {
    let window = rules.engaged.get();
    let engaged = facts.last_click.is_some_and(|click| m.within(click, click + window, now));
    if engaged {
        m.join("engaged");
        return;
    }
    let decisive = facts.delivered.len().checked_sub(rules.disengaged_mails as usize).and_then(|i| facts.delivered.get(i));
    if let Some(first) = decisive
        && m.within(*first, *first + window, now)
    {
        m.join("disengaged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillflow_schemas::Money;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_millis(n * 86_400_000)
    }
    fn names(facts: &Facts, now: Timestamp) -> Vec<String> {
        membership(facts, None, &SegmentSettings::default(), now).sorted().names
    }

    #[test]
    fn activity_turns_at_thirty_and_ninety_days_exactly() {
        let facts = Facts { last_event: Some(day(0)), ..Facts::default() };
        let minute = Duration::from_secs(60);
        assert_eq!(names(&facts, day(30) - minute), ["active"]);
        assert_eq!(names(&facts, day(30)), ["at_risk"]);
        assert_eq!(names(&facts, day(90) - minute), ["at_risk"]);
        assert_eq!(names(&facts, day(90)), ["lapsed"]);
    }

    #[test]
    fn new_is_up_to_and_with_thirty_days() {
        let facts = Facts { first_event: Some(day(0)), ..Facts::default() };
        assert_eq!(names(&facts, day(30)), ["new"]);
        assert!(names(&facts, day(30) + Duration::from_millis(1)).is_empty());
    }

    #[test]
    fn high_value_is_five_hundred_or_more_and_frequent_is_three_orders_in_ninety_days() {
        let spent = |spend: &str| Facts { spend: Money::parse(spend).unwrap(), last_order: Some(day(0)), ..Facts::default() };
        assert!(names(&spent("499.99"), day(1)).is_empty());
        assert_eq!(names(&spent("500"), day(1)), ["high_value"]);
        let facts = Facts { orders: vec![day(0), day(10), day(20)], ..Facts::default() };
        assert_eq!(names(&facts, day(89)), ["frequent_buyer"]);
        assert!(names(&facts, day(90)).is_empty());
    }

    #[test]
    fn disengaged_is_five_delivered_without_a_click_in_ninety_days() {
        let facts = Facts { delivered: (1..=5).map(day).collect(), ..Facts::default() };
        assert_eq!(names(&facts, day(10)), ["disengaged"]);
        let clicked = Facts { last_click: Some(day(6)), ..facts };
        assert_eq!(names(&clicked, day(10)), ["engaged"]);
        assert!(names(&clicked, day(96)).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_changes_before_the_time_it_says(
            first in 0..100_i64, last in 0..100_i64, cart in prop::option::of(0..100_i64), click in prop::option::of(0..100_i64),
            mut orders in prop::collection::vec(0..100_i64, 0..10), mut mails in prop::collection::vec(0..100_i64, 0..10),
            later in 0..10_000_i64,
        ) {
            orders.sort_unstable();
            mails.sort_unstable();
            let facts = Facts {
                first_event: Some(day(first.min(last))), last_event: Some(day(last)), cart_since: cart.map(day), last_click: click.map(day),
                orders: orders.into_iter().map(day).collect(), delivered: mails.into_iter().map(day).collect(), ..Facts::default()
            };
            let now = day(100);
            let found = membership(&facts, None, &SegmentSettings::default(), now).sorted();
            let then = now + Duration::from_secs(later as u64 * 3600);
            if found.changes.is_none_or(|t| then < t) {
                prop_assert_eq!(names(&facts, then), found.names);
            }
        }
    }
}
