//! What pricing keeps of a product. Pure: rows, and what can be read off them.

use super::{Bite, Bound, Figures, Gate, Limits};
use crate::shop::ShopSettings;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tillflow_engine_api::Result;
use tillflow_schemas::{Mode, Money, Product, Timestamp, minor_digits};

/// How far back the soft range looks.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// How far back the lowest price counts that a stated reduction refers to (EU price indication rule).
pub const LOWEST_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long past prices are kept.
pub const HISTORY: Duration = Duration::from_secs(400 * 24 * 3600);
/// Versions of a product that count from a later time, and stock levels read ahead of the clock; the oldest go first.
const READ_AHEAD: usize = 1_000;

/// What pricing needs of a product record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Shown to shoppers.
    pub name: String,
    /// Scope of rules.
    pub category: String,
    /// The price the shop states, in whole minor units.
    pub base: Money,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// What the shop paid.
    pub cost: Option<Money>,
    /// Hard floor.
    pub min_price: Option<Money>,
    /// Hard ceiling.
    pub max_price: Option<Money>,
    /// Whether it is tagged `price_fixed`.
    pub price_fixed: bool,
}

impl Facts {
    /// Of a product record, in the shop's currency, where it has one.
    ///
    /// # Errors
    /// When there is no rate from the product's currency to the shop's.
    pub fn of(p: &Product, shop: &ShopSettings) -> Result<Self> {
        let own = |amount: Money| shop.value(amount, p.currency.as_deref());
        let currency = shop.currency.clone().or_else(|| p.currency.clone());
        Ok(Self {
            name: p.name.clone(),
            category: p.category.clone(),
            base: own(p.base_price)?.rounded(minor_digits(currency.as_deref())),
            cost: p.cost.map(own).transpose()?,
            min_price: p.min_price.map(own).transpose()?,
            max_price: p.max_price.map(own).transpose()?,
            price_fixed: p.tags.iter().any(|t| t == "price_fixed"),
            currency,
        })
    }

    /// Digits of its currency's minor unit.
    pub fn digits(&self) -> u32 {
        minor_digits(self.currency.as_deref())
    }

    /// Its hard limits.
    pub fn limits(&self) -> Limits {
        let decimal = |m: Option<Money>| m.map(Money::decimal);
        Limits { cost: decimal(self.cost), min_price: decimal(self.min_price), max_price: decimal(self.max_price) }
    }
}

/// A product as pricing knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Priced {
    /// The product record that counts; none before the first and after a deletion.
    pub facts: Option<Facts>,
    /// Product records that count from a later time, by that time. `None` deletes.
    upcoming: Vec<(Timestamp, Option<Facts>)>,
    /// Prices in force during the last day, each with its beginning, the one in force now last. Begins anew with the base
    /// price.
    prices: Vec<(Timestamp, Money)>,
    /// The last change, and its direction: 1 up, -1 down, 0 neither.
    pub last_change: Option<(Timestamp, i8)>,
    /// The last markdown of high stock.
    pub last_markdown: Option<Timestamp>,
    /// The price last published in shadow mode: said once, not every hour.
    pub shadow: Option<Money>,
    /// Stock levels by time: the one that counted at the last decision, and those after it.
    stock: Vec<(Timestamp, i64)>,
    /// Whether the hourly timer is set.
    pub hourly: bool,
    /// Numbers of the history rows kept: from this one…
    pub history_from: u64,
    /// … to before this one.
    pub history_to: u64,
}

impl Priced {
    /// The price in force, and since when.
    pub fn price(&self) -> Option<(Timestamp, Money)> {
        self.prices.last().copied()
    }

    /// The price in force a day before `now`, or the first since the drift history began.
    pub fn day_ago(&self, now: Timestamp) -> Option<Money> {
        let after = self.prices.partition_point(|(since, _)| *since <= now - DAY);
        self.prices.get(after.saturating_sub(1)).map(|(_, price)| *price)
    }

    /// Starts a new drift history: nothing before `at` bounds the price any more.
    pub fn restart(&mut self, at: Timestamp, price: Option<Money>) {
        self.prices = price.map(|p| (at, p)).into_iter().collect();
        self.last_change = None;
        self.last_markdown = None;
        self.shadow = None;
    }

    /// Puts a price in force, and forgets those that ended more than a day ago.
    pub fn change(&mut self, at: Timestamp, price: Money) {
        self.prices.push((at, price));
        let after = self.prices.partition_point(|(since, _)| *since <= at - DAY);
        self.prices.drain(..after.saturating_sub(1));
    }

    /// Whether there was but one price during the last day.
    pub fn is_steady(&self, now: Timestamp) -> bool {
        self.prices.len() < 2 || self.price().is_some_and(|(since, _)| since <= now - DAY)
    }

    /// The newest stock level read, which may lie ahead of the clock.
    pub fn newest_stock(&self) -> Option<(Timestamp, i64)> {
        self.stock.last().copied()
    }

    /// Takes a stock level, unless a newer one is known. `settled` is up to where all decisions have been made.
    pub fn take_stock(&mut self, at: Timestamp, level: i64, settled: Timestamp) -> bool {
        match self.stock.last_mut() {
            Some(newest) if newest.0 > at => return false,
            Some(newest) if newest.0 == at => newest.1 = level,
            _ => self.stock.push((at, level)),
        }
        let after = self.stock.partition_point(|(t, _)| *t <= settled);
        self.stock.drain(..after.saturating_sub(1).max(self.stock.len().saturating_sub(READ_AHEAD)));
        true
    }

    /// The stock level that counts at `now`.
    pub fn stock_at(&self, now: Timestamp) -> Option<i64> {
        let after = self.stock.partition_point(|(t, _)| *t <= now);
        self.stock.get(after.checked_sub(1)?).map(|(_, level)| *level)
    }

    /// The stock level that counts at `at`, and those known that count later, each with its time.
    pub fn stock_from(&self, at: Timestamp) -> impl Iterator<Item = (Timestamp, i64)> {
        let after = self.stock.partition_point(|(t, _)| *t <= at);
        self.stock.iter().skip(after.saturating_sub(1)).copied()
    }

    /// Whether nothing is known that counts only after `now`.
    pub fn is_settled(&self, now: Timestamp) -> bool {
        self.upcoming.is_empty() && self.stock.last().is_none_or(|(at, _)| *at <= now)
    }

    /// Keeps a product record that counts from `from`.
    pub fn expect(&mut self, from: Timestamp, facts: Option<Facts>) {
        let at = self.upcoming.partition_point(|(t, _)| *t < from);
        match self.upcoming.get_mut(at) {
            Some(same) if same.0 == from => same.1 = facts,
            _ => self.upcoming.insert(at, (from, facts)),
        }
        if self.upcoming.len() > READ_AHEAD {
            self.upcoming.remove(0);
        }
    }

    /// Takes the next product record that counts by `now`.
    pub fn next_version(&mut self, now: Timestamp) -> Option<(Timestamp, Option<Facts>)> {
        self.upcoming.first().filter(|(from, _)| *from <= now)?;
        Some(self.upcoming.remove(0))
    }

    /// Whether no product record came yet.
    pub fn is_new(&self) -> bool {
        self.facts.is_none() && self.upcoming.is_empty()
    }
}

/// Prices of the last 30 days that a reduction may have to be measured against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lowest {
    /// Prices that ended, with their end; each lower than all that ended after it, so the first is the lowest.
    ended: Vec<(Timestamp, Money)>,
    /// The lowest price in force in the 30 days before the price of now; the first price refers to itself.
    pub reference: Option<Money>,
}

impl Lowest {
    /// The price `old` ended at `at`, and another began.
    pub fn end(&mut self, at: Timestamp, old: Money) {
        let lower = self.ended.partition_point(|(_, p)| *p < old);
        self.ended.truncate(lower);
        self.ended.push((at, old));
        let gone = self.ended.partition_point(|(until, _)| *until <= at - LOWEST_WITHIN);
        self.ended.drain(..gone);
        self.reference = self.ended.first().map(|(_, p)| *p);
    }
}

/// A price of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the output")]
pub struct PastPrice {
    pub at: Timestamp,
    pub old_price: Option<Money>,
    pub new_price: Money,
    pub reason: String,
    pub mode: Mode,
}

/// Everything that made one decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// For when it was decided.
    pub at: Timestamp,
    /// What caused it: `hourly`, `stock`, `cool_down`, `limit`, `run` or `base_price`.
    pub trigger: String,
    /// Scope and version of the rule.
    pub rule: String,
    /// Whether it became the price.
    pub mode: Mode,
    /// Base price, price before, price 24 hours before.
    pub base: Money,
    /// The price before.
    pub current: Money,
    /// The price 24 hours before.
    pub day_ago: Money,
    /// The stock level that counted.
    pub stock: Option<i64>,
    /// Demand.
    pub demand: Figures,
    /// What the stock rule asked for.
    pub raw: Option<Money>,
    /// Each bound that bit: from which price to which.
    pub bounds: Vec<(Bound, Money, Money)>,
    /// Why there was no change.
    pub gate: Option<Gate>,
    /// What is wrong with the rule, where it can't be read.
    pub problem: Option<String>,
    /// The price after.
    pub price: Money,
    /// In words; empty where a gate came first.
    pub reason: String,
}

impl Explanation {
    /// An amount for people to read: with the currency's digits, and two more where it is not so round.
    pub fn amount(amount: Decimal, digits: u32) -> Money {
        let mut shown = amount.round_dp(digits + 2).normalize();
        if shown.scale() < digits {
            shown.rescale(digits);
        }
        Money::from(shown)
    }

    /// Bites as they are kept.
    pub fn bounds(bites: &[Bite], digits: u32) -> Vec<(Bound, Money, Money)> {
        bites.iter().map(|b| (b.bound, Self::amount(b.from, digits), Self::amount(b.to, digits))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_millis(1_772_323_200_000 + hour * 3_600_000)
    }
    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    #[test]
    fn stock_is_as_of_the_decision_however_far_ahead_was_read() {
        let mut p = Priced::default();
        assert!(p.take_stock(at(1), 50, at(0)) && p.take_stock(at(3), 10, at(0)));
        assert!(!p.take_stock(at(2), 99, at(0)), "older than the newest seen");
        assert_eq!([at(0), at(1), at(2), at(3)].map(|t| p.stock_at(t)), [None, Some(50), Some(50), Some(10)]);
        assert!(p.take_stock(at(5), 7, at(4)));
        assert_eq!(p.stock, [(at(3), 10), (at(5), 7)], "what no decision needs any more is gone");
    }

    #[test]
    fn the_price_of_a_day_ago_is_the_one_in_force_then() {
        let mut p = Priced::default();
        p.restart(at(0), Some(money("100")));
        p.change(at(10), money("110"));
        assert_eq!(p.day_ago(at(11)), Some(money("100")));
        p.change(at(30), money("120"));
        assert_eq!(p.day_ago(at(33)), Some(money("100")));
        assert_eq!(p.day_ago(at(34)), Some(money("110")));
        p.change(at(70), money("90"));
        assert_eq!(p.prices.len(), 2);
    }

    #[test]
    fn the_lowest_of_thirty_days_is_of_the_prices_before_this_one() {
        let mut l = Lowest::default();
        let day = |d: i64| at(24 * d);
        for (d, old, lowest) in
            [(1, "100", "100"), (2, "90", "90"), (3, "120", "90"), (20, "95", "90"), (33, "110", "95"), (60, "130", "110")]
        {
            l.end(day(d), money(old));
            assert_eq!(l.reference, Some(money(lowest)), "after {old} ended on day {d}");
        }
    }
}
