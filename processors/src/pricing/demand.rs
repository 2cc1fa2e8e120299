//! Demand: integer counts by 15-minute bucket of event time, and the score from 0 to 10 that they make.
//!
//! Counts are sums, so the order in which they arrive does not matter; a decision takes closed buckets only, in the
//! order of their time, so that it comes to the same float everywhere.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, ops, time::Duration};
use tillflow_schemas::{DemandSignal, Timestamp};

/// Width of a bucket.
pub const BUCKET: Duration = Duration::from_secs(15 * 60);
/// How long a bucket counts, from its end.
pub const WINDOW: Duration = Duration::from_secs(72 * 3600);
/// In so much time demand counts half.
const HALF_LIFE_MS: f64 = 6.0 * 3_600_000.0;
/// Views that stand behind the prior conversion rate.
const PRIOR_VIEWS: f64 = 20.0;
const BUCKET_MS: i64 = 15 * 60 * 1000;
const DAY_MS: i64 = 24 * 3_600_000;
/// Buckets of a day.
const DAY_BUCKETS: i64 = DAY_MS / BUCKET_MS;

/// The number of a bucket, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(pub i64);

impl Bucket {
    /// The bucket that holds `at`.
    pub fn of(at: Timestamp) -> Self {
        Self(at.millis().div_euclid(BUCKET_MS))
    }
    /// Its first moment.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(BUCKET_MS))
    }
    /// The moment after its last.
    pub fn end(self) -> Timestamp {
        Self(self.0.saturating_add(1)).start()
    }
    /// The number of the day (UTC) that holds it.
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY_BUCKETS)
    }
}

/// The moment after the last one of a day.
pub fn day_end(day: i64) -> Timestamp {
    Timestamp::from_millis(day.saturating_add(1).saturating_mul(DAY_MS))
}

/// Where counts belong: when they became known, and whose demand they change.
///
/// The two differ only for what a refund or cancellation takes back: known since the refund, it lowers the bucket of the
/// order, with that bucket's age. A decision made for a time before the refund must not see it, however late it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The bucket whose end makes it known.
    pub known: Bucket,
    /// The bucket whose demand it is.
    pub of: Bucket,
}

impl Place {
    /// Counts of what happens now.
    pub fn here(bucket: Bucket) -> Self {
        Self { known: bucket, of: bucket }
    }

    /// As [`DemandSignal::bucket`] carries it: the start of the bucket, and as many milliseconds after it as buckets
    /// lie between it and the order.
    pub fn stamp(self) -> Timestamp {
        Timestamp::from_millis(self.known.start().millis().saturating_add(self.known.0.saturating_sub(self.of.0)))
    }

    /// Reads [`Place::stamp`].
    pub fn from_stamp(stamp: Timestamp) -> Self {
        let known = Bucket::of(stamp);
        Self { known, of: Bucket(known.0 - stamp.since(known.start())) }
    }
}

/// How often each kind of event happened. Negative where something is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one counter an event kind, as in the signal")]
pub struct Counts {
    pub views: i64,
    pub long_views: i64,
    pub adds: i64,
    pub checkouts: i64,
    pub orders: i64,
    pub units: i64,
}

impl Counts {
    /// The counts of a signal.
    pub fn of(s: &DemandSignal) -> Self {
        let DemandSignal { views, long_views, adds, checkouts, orders, units, .. } = *s;
        Self { views, long_views, adds, checkouts, orders, units }
    }

    /// Whether nothing happened.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Σ w·n. Weights are whole halves, so this is exact.
    fn weight(&self) -> f64 {
        let halves = 2 * self.views + self.long_views + 6 * self.adds + 10 * self.checkouts + 20 * self.orders;
        halves as f64 / 2.0
    }
}

impl ops::AddAssign for Counts {
    fn add_assign(&mut self, o: Self) {
        let add = |a: &mut i64, b: i64| *a = a.saturating_add(b);
        add(&mut self.views, o.views);
        add(&mut self.long_views, o.long_views);
        add(&mut self.adds, o.adds);
        add(&mut self.checkouts, o.checkouts);
        add(&mut self.orders, o.orders);
        add(&mut self.units, o.units);
    }
}

/// Demand for one product that became known within one day: at most a row a bucket, and one a pair of buckets where
/// orders were taken back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DayOfDemand {
    /// By (bucket within the day, buckets back to the order).
    counts: BTreeMap<(u8, u16), Counts>,
}

impl DayOfDemand {
    /// Adds counts of this day. What lies further back than the window is left out: it counts no more.
    pub fn add(&mut self, place: Place, counts: Counts) {
        let within = u8::try_from(place.known.0.rem_euclid(DAY_BUCKETS));
        let back = u16::try_from(place.known.0.saturating_sub(place.of.0));
        let (Ok(within), Ok(back)) = (within, back) else { return };
        let sum = self.counts.entry((within, back)).or_default();
        *sum += counts;
        if sum.is_zero() {
            self.counts.remove(&(within, back));
        }
    }

    /// What it holds, given which day it is.
    fn entries(&self, day: i64) -> impl Iterator<Item = (Place, Counts)> {
        self.counts.iter().map(move |(&(within, back), &counts)| {
            let known = Bucket(day * DAY_BUCKETS + i64::from(within));
            (Place { known, of: Bucket(known.0 - i64::from(back)) }, counts)
        })
    }
}

/// The days whose rows a decision at `at` needs.
pub fn days_before(at: Timestamp) -> ops::RangeInclusive<i64> {
    Bucket::of(at - WINDOW - BUCKET).day()..=Bucket::of(at).day()
}

/// Demand as a decision sees it: closed buckets of the window, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    buckets: BTreeMap<Bucket, Counts>,
}

impl Demand {
    /// What counts at `at` of these days.
    pub fn of<'a>(days: impl IntoIterator<Item = &'a (i64, DayOfDemand)>, at: Timestamp) -> Self {
        let mut demand = Self::default();
        days.into_iter().for_each(|(day, row)| demand.add_day(*day, row, at));
        demand
    }

    /// The end of its newest bucket.
    pub fn latest(&self) -> Option<Timestamp> {
        self.buckets.last_key_value().map(|(bucket, _)| bucket.end())
    }

    /// Takes from a day what counts at `at`.
    pub fn add_day(&mut self, day: i64, row: &DayOfDemand, at: Timestamp) {
        for (place, counts) in row.entries(day) {
            if place.known.end() <= at && place.of.end() > at - WINDOW {
                *self.buckets.entry(place.of).or_default() += counts;
            }
        }
    }

    /// What a decision at `at` needs of it; `prior` is the conversion rate to expect of a product without history.
    pub fn figures(&self, at: Timestamp, prior: Decimal) -> Figures {
        let mut f = Figures::default();
        for (bucket, counts) in &self.buckets {
            f.counts += *counts;
            let age_ms = at.since(bucket.end());
            f.weighted += decayed(counts, age_ms);
            if age_ms < DAY_MS {
                f.last_day += decayed(counts, age_ms);
            } else if age_ms < 2 * DAY_MS {
                f.day_before += decayed(counts, age_ms - DAY_MS);
            }
        }
        f.weighted = f.weighted.max(0.0);
        let prior = f64::try_from(prior).unwrap_or(0.02);
        let rate = (f.counts.orders.max(0) as f64 + PRIOR_VIEWS * prior) / (f.counts.views.max(0) as f64 + PRIOR_VIEWS);
        f.conversion = rate;
        f.conversion_factor = (rate / prior).clamp(0.5, 2.0);
        f.velocity = f.counts.units.max(0) as f64 / 3.0;
        let power = f.weighted * f.conversion_factor / 50.0 + f.velocity / 10.0;
        f.score = Score::rounded(10.0 * (1.0 - (-power).exp2()));
        f
    }
}

fn decayed(counts: &Counts, age_ms: i64) -> f64 {
    counts.weight() * (-(age_ms as f64) / HALF_LIFE_MS).exp2()
}

/// What a decision needs of demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Sums of the window.
    pub counts: Counts,
    /// S: the weighted, decayed sum.
    pub weighted: f64,
    /// Orders a view, drawn towards the prior.
    pub conversion: f64,
    /// The same over the prior, 0.5 to 2.
    pub conversion_factor: f64,
    /// Pieces sold a day.
    pub velocity: f64,
    /// S of the last 24 hours.
    pub last_day: f64,
    /// S of the 24 hours before, as it was at their end: like is compared with like.
    pub day_before: f64,
    /// The score.
    pub score: Score,
}

/// A demand score, 0 to 10, in tenths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Score(u8);

impl Score {
    /// Rounded half to even to one decimal, and kept within 0 to 10.
    pub fn rounded(score: f64) -> Self {
        // The cast keeps within u8's range, and takes NaN to 0.
        Self((score.clamp(0.0, 10.0) * 10.0).round_ties_even() as u8)
    }
    /// A score set by hand.
    pub fn by_hand(score: Decimal) -> Self {
        Self::rounded(f64::try_from(score).unwrap_or(0.0))
    }
    /// Exactly, for amounts of money.
    pub fn decimal(self) -> Decimal {
        Decimal::new(self.0.into(), 1)
    }
    /// For JSON.
    pub fn number(self) -> f64 {
        f64::from(self.0) / 10.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenths) => write!(f, "{whole}.{tenths}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIOR: Decimal = Decimal::from_parts(2, 0, 0, false, 2);

    fn at(hours: f64) -> Timestamp {
        Timestamp::from_millis(1_772_323_200_000 + (hours * 3_600_000.0) as i64)
    }

    fn demand(now: Timestamp, counts: &[(Place, Counts)]) -> Demand {
        let mut rows: BTreeMap<i64, DayOfDemand> = BTreeMap::new();
        for (place, counts) in counts {
            rows.entry(place.known.day()).or_default().add(*place, *counts);
        }
        let mut demand = Demand::default();
        for day in days_before(now) {
            if let Some(row) = rows.get(&day) {
                demand.add_day(day, row, now);
            }
        }
        demand
    }

    fn here(hours: f64) -> Place {
        Place::here(Bucket::of(at(hours)))
    }

    #[test]
    fn each_kind_has_its_weight() {
        let weigh = |c: Counts| demand(at(0.25), &[(here(0.0), c)]).figures(at(0.25), PRIOR).weighted;
        assert_eq!(weigh(Counts { views: 1, ..Counts::default() }), 1.0);
        assert_eq!(weigh(Counts { views: 1, long_views: 1, ..Counts::default() }), 1.5);
        assert_eq!(weigh(Counts { adds: 1, ..Counts::default() }), 3.0);
        assert_eq!(weigh(Counts { checkouts: 1, ..Counts::default() }), 5.0);
        assert_eq!(weigh(Counts { orders: 1, units: 7, ..Counts::default() }), 10.0);
    }

    #[test]
    fn demand_halves_in_six_hours_and_ends_after_seventy_two() {
        let orders = [(here(0.0), Counts { orders: 4, ..Counts::default() })];
        let weighted = |h| demand(at(h), &orders).figures(at(h), PRIOR).weighted;
        assert_eq!(weighted(0.25), 40.0);
        assert_eq!(weighted(6.25), 20.0);
        assert_eq!(weighted(0.2), 0.0, "an open bucket does not count");
        assert!(weighted(72.24) > 0.0);
        assert_eq!(weighted(72.25), 0.0);
    }

    #[test]
    fn a_score_by_the_formula() {
        // S = 50 views + 10·1 order = 60; C = (1 + 0.4)/(50 + 20) = 0.02, so c = 1; v = 3/3 = 1:
        // 10·(1 − 2^(−(60/50 + 1/10))) = 10·(1 − 2^−1.3) = 5.939…
        let f = demand(at(0.25), &[(here(0.0), Counts { views: 50, orders: 1, units: 3, ..Counts::default() })]).figures(at(0.25), PRIOR);
        assert!((f.conversion - 0.02).abs() < 1e-12 && f.conversion_factor == 1.0 && f.velocity == 1.0);
        assert_eq!(f.score.to_string(), "5.9");
        assert_eq!(Demand::default().figures(at(0.0), PRIOR).score.to_string(), "0");
    }

    #[test]
    fn scores_are_rounded_half_to_even_and_written_short() {
        for (score, text) in [(3.0, "3"), (3.44, "3.4"), (0.25, "0.2"), (0.75, "0.8"), (9.97, "10"), (11.0, "10"), (f64::NAN, "0")] {
            assert_eq!(Score::rounded(score).to_string(), text);
        }
        assert_eq!(Score::rounded(3.4).decimal().to_string(), "3.4");
    }

    #[test]
    fn a_refund_takes_back_what_the_order_still_weighs_and_not_before_it_happened() {
        let ordered = (here(0.0), Counts { orders: 1, units: 2, ..Counts::default() });
        let back = Place { known: Bucket::of(at(10.0)), of: Bucket::of(at(0.0)) };
        let refunded = (back, Counts { orders: -1, units: -2, ..Counts::default() });
        let weighted = |h| demand(at(h), &[ordered, refunded]).figures(at(h), PRIOR).weighted;
        assert!(weighted(10.2) > 3.0, "the refund's bucket is still open");
        assert_eq!(weighted(10.25), 0.0);
        assert_eq!(weighted(71.0), 0.0);
        assert_eq!(weighted(72.5), 0.0, "both have left");
        assert_eq!(Place::from_stamp(back.stamp()), back);
    }

    #[test]
    fn the_last_day_is_compared_with_the_day_before_at_its_own_end() {
        let views = Counts { views: 8, ..Counts::default() };
        let f = demand(at(30.0), &[(here(29.75), views), (here(5.75), views)]).figures(at(30.0), PRIOR);
        assert_eq!((f.last_day, f.day_before), (8.0, 8.0));
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            mut signals in prop::collection::vec((0_i64..400, 0_i64..300, -3_i64..9, -3_i64..9), 0..60), seed: u64,
        ) {
            let place = |known: i64, back: i64| {
                let known = Bucket(Bucket::of(at(0.0)).0 + known);
                Place { known, of: Bucket(known.0 - back) }
            };
            let counts = |s: &[(i64, i64, i64, i64)]| -> Vec<_> {
                s.iter().map(|&(k, b, views, orders)| (place(k, b), Counts { views, orders, units: orders, ..Counts::default() })).collect()
            };
            let first = demand(at(90.0), &counts(&signals)).figures(at(90.0), PRIOR);
            signals.sort_by_key(|s| (s.0.wrapping_mul(seed as i64 | 1) ^ s.2, s.1));
            let second = demand(at(90.0), &counts(&signals)).figures(at(90.0), PRIOR);
            prop_assert_eq!(first, second);
            prop_assert!(first.score <= Score::rounded(10.0));
        }

        #[test]
        fn a_place_survives_its_stamp(known in -100_000_i64..3_000_000, back in 0_i64..300) {
            let place = Place { known: Bucket(known), of: Bucket(known - back) };
            prop_assert_eq!(Place::from_stamp(place.stamp()), place);
        }
    }
}
