//! What a change of plan within a paid period is worth: computed and stated, never charged.

use super::{calendar::Calendar, lifecycle::Subscription, plans::PlanVersion};
use crate::shop::ShopSettings;
use rust_decimal::Decimal;
use tillflow_schemas::{Money, Timestamp, minor_digits};

/// The price of a plan in the shop's currency. Plans without a rate to it are refused ([`super::plans::check_currencies`]); one
/// that was bought when there was a rate counts at face value.
pub fn price(plan: &PlanVersion, shop: &ShopSettings) -> Money {
    shop.value(plan.price, plan.currency.as_deref()).unwrap_or(plan.price)
}

/// What a year of a plan costs: which of two plans is the higher one.
pub fn a_year(plan: &PlanVersion, shop: &ShopSettings) -> Decimal {
    price(plan, shop).decimal().saturating_mul(plan.interval.in_a_year().into())
}

/// What is owed (or, negative, owing) when `sub` moves to `to` at `at`: of the same interval the difference of prices
/// for the part of the period that is left; of another interval the new price, less that part of the old one. By the
/// millisecond, half to even. Nothing where nothing is paid.
pub fn due(sub: &Subscription, to: &PlanVersion, at: Timestamp, calendar: &Calendar, shop: &ShopSettings) -> Money {
    let left = periods_left(sub, at, calendar);
    let (old, new) = (price(&sub.plan, shop).decimal(), price(to, shop).decimal());
    let amount = match left {
        l if l.is_zero() => Decimal::ZERO,
        l if to.interval == sub.plan.interval => (new - old).saturating_mul(l),
        l => new - old.saturating_mul(l),
    };
    Money::from(amount).rounded(minor_digits(shop.currency.as_deref().or(to.currency.as_deref())))
}

/// How many periods are paid from `at` on, the present one in part.
fn periods_left(sub: &Subscription, at: Timestamp, calendar: &Calendar) -> Decimal {
    let until = sub.paid_until(calendar);
    let current = sub.period_at(at, calendar);
    let (begin, end) = (sub.begins(current, calendar), sub.begins(current.saturating_add(1), calendar));
    if at < sub.anchor || until <= at || end <= begin {
        return Decimal::ZERO;
    }
    let of_this = Decimal::from(end.since(at)) / Decimal::from(end.since(begin));
    of_this + Decimal::from(sub.paid_periods.saturating_sub(current.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscriptions::plans::built_in;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    fn plan(i: usize) -> PlanVersion {
        PlanVersion::of(&built_in()[i]).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn owed(sub: &Subscription, to: &PlanVersion, when: &str) -> String {
        due(sub, to, at(when), &Calendar::new(TimeZone::UTC), &ShopSettings::default()).to_string()
    }

    #[test]
    fn an_upgrade_in_the_middle_of_a_month_owes_half_the_difference() {
        let sub = Subscription::started(plan(0), at("2026-04-01T00:00:00Z"), None, 0);
        assert_eq!(owed(&sub, &plan(1), "2026-04-16T00:00:00Z"), "15.00");
        assert_eq!(owed(&sub, &plan(1), "2026-04-01T00:00:00Z"), "30.00");
        assert_eq!(owed(&sub, &plan(2), "2026-04-21T00:00:00Z"), "23.33");
        assert_eq!(owed(&sub, &plan(1), "2026-05-01T00:00:00Z"), "0.00", "nothing of what is paid is left");
    }

    #[test]
    fn a_yearly_plan_is_owed_in_full_less_what_is_left_of_the_month() {
        let sub = Subscription::started(plan(0), at("2026-04-01T00:00:00Z"), None, 0);
        let yearly = PlanVersion { interval: super::super::calendar::Interval::Year, price: Money::parse("600").unwrap(), ..plan(1) };
        assert_eq!(owed(&sub, &yearly, "2026-04-16T00:00:00Z"), "585.00", "600 less half of 29.99, half to even");
        assert!(a_year(&yearly, &ShopSettings::default()) < a_year(&plan(1), &ShopSettings::default()));
    }

    #[test]
    fn a_trial_owes_nothing() {
        let sub = Subscription::started(plan(0), at("2026-04-01T00:00:00Z"), Some(at("2026-04-15T00:00:00Z")), 0);
        assert_eq!(owed(&sub, &plan(1), "2026-04-10T00:00:00Z"), "0.00");
    }

    proptest! {
        #[test]
        fn moving_there_and_back_at_one_moment_costs_nothing(minutes in 0_u64..43_000) {
            let start = at("2026-04-01T00:00:00Z");
            let when = start + std::time::Duration::from_secs(60 * minutes);
            let (calendar, shop) = (Calendar::new(TimeZone::UTC), ShopSettings::default());
            let low = Subscription::started(plan(0), start, None, 0);
            let high = Subscription::started(plan(1), start, None, 0);
            prop_assert_eq!(due(&low, &plan(1), when, &calendar, &shop) + due(&high, &plan(0), when, &calendar, &shop), Money::ZERO.rounded(2));
        }
    }
}
