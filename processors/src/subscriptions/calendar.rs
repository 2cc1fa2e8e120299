//! When billing periods begin: in the shop's zone, month ends clamped.

use jiff::{Span, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tillflow_schemas::Timestamp;

/// How long a billing period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interval {
    /// Seven days.
    Week,
    /// A calendar month.
    Month,
    /// Three calendar months.
    Quarter,
    /// Twelve calendar months.
    Year,
}

impl Interval {
    /// Reads a plan's `interval`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "week" => Self::Week,
            "month" => Self::Month,
            "quarter" => Self::Quarter,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// As a plan states it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// Periods in a year: what makes the prices of plans comparable.
    pub const fn in_a_year(self) -> u32 {
        match self {
            Self::Week => 52,
            Self::Month => 12,
            Self::Quarter => 4,
            Self::Year => 1,
        }
    }

    /// About how long it is; only a first guess for [`Calendar::index`].
    const fn about_ms(self) -> i64 {
        366 * 24 * 3_600_000 / self.in_a_year() as i64
    }
}

/// The shop's calendar.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
}

impl Calendar {
    /// The calendar of a zone.
    pub const fn new(zone: TimeZone) -> Self {
        Self { zone }
    }

    /// `from` + `count`·`interval`. Counted from `from` itself, so 31 January is followed by 28 February and then by
    /// 31 March; beyond the calendar's end it is the end of time.
    pub fn plus(&self, from: Timestamp, interval: Interval, count: u32) -> Timestamp {
        let count = i64::from(count);
        let span = match interval {
            Interval::Week => Span::new().try_weeks(count),
            Interval::Month => Span::new().try_months(count),
            Interval::Quarter => Span::new().try_months(count.saturating_mul(3)),
            Interval::Year => Span::new().try_years(count),
        };
        let begin = jiff::Timestamp::from_millisecond(from.millis()).map(|t| t.to_zoned(self.zone.clone()));
        match (begin, span) {
            (Ok(begin), Ok(span)) => {
                begin.checked_add(span).map_or(Timestamp::LATEST, |end| Timestamp::from_millis(end.timestamp().as_millisecond()))
            }
            _ => Timestamp::LATEST,
        }
    }

    /// Which interval counted from `from` holds `at`: the greatest n with `from` + n·`interval` ≤ `at`, 0 before `from`.
    pub fn index(&self, from: Timestamp, interval: Interval, at: Timestamp) -> u32 {
        let guess = at.since(from).max(0) / interval.about_ms();
        // The guess falls behind by a fraction of a percent, or is one too high; the loops settle it.
        let mut n = u32::try_from(guess).unwrap_or(u32::MAX);
        while n > 0 && self.plus(from, interval, n) > at {
            n -= 1;
        }
        while n < u32::MAX && self.plus(from, interval, n + 1) <= at && self.plus(from, interval, n + 1) < Timestamp::LATEST {
            n += 1;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_month_that_is_too_short_ends_the_period_on_its_last_day_and_the_next_is_not_shortened() {
        let utc = Calendar::new(TimeZone::UTC);
        let start = at("2026-01-31T10:00:00Z");
        let month = |n| utc.plus(start, Interval::Month, n).to_string();
        assert_eq!(month(1), "2026-02-28T10:00:00.000Z");
        assert_eq!(month(2), "2026-03-31T10:00:00.000Z");
        assert_eq!(month(25), "2028-02-29T10:00:00.000Z");
        assert_eq!(utc.plus(at("2028-02-29T00:00:00Z"), Interval::Year, 1), at("2029-02-28T00:00:00Z"));
        assert_eq!(utc.plus(at("2026-11-30T00:00:00Z"), Interval::Quarter, 1), at("2027-02-28T00:00:00Z"));
        assert_eq!(utc.plus(start, Interval::Week, 2), at("2026-02-14T10:00:00Z"));
    }

    #[test]
    fn days_are_the_shop_s_days() {
        // 31 January in Berlin is still the 30th in UTC; summer time keeps the hour on the shop's wall.
        let berlin = Calendar::new(TimeZone::get("Europe/Berlin").unwrap());
        let start = at("2026-01-30T23:30:00Z");
        assert_eq!(berlin.plus(start, Interval::Month, 1), at("2026-02-27T23:30:00Z"));
        assert_eq!(berlin.plus(start, Interval::Month, 3), at("2026-04-29T22:30:00Z"));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let utc = Calendar::new(TimeZone::UTC);
        assert_eq!(utc.plus(Timestamp::LATEST, Interval::Year, u32::MAX), Timestamp::LATEST);
        assert_eq!(utc.plus(Timestamp::MAX, Interval::Week, 1), Timestamp::LATEST);
        utc.index(Timestamp::EARLIEST, Interval::Week, Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn each_moment_lies_in_the_period_it_is_said_to_lie_in(
            from in 946_684_800_000_i64..4_000_000_000_000, later in 0_i64..200_000_000_000, kind in 0_usize..4,
        ) {
            let interval = [Interval::Week, Interval::Month, Interval::Quarter, Interval::Year][kind];
            let calendar = Calendar::new(TimeZone::get("America/New_York").unwrap());
            let (from, at) = (Timestamp::from_millis(from), Timestamp::from_millis(from + later));
            let n = calendar.index(from, interval, at);
            prop_assert!(calendar.plus(from, interval, n) <= at && at < calendar.plus(from, interval, n + 1));
        }
    }
}
