//! The rules that stand between a mail that is due and its release: quiet hours, the cap, the holdout, birthdays.

use crate::email::{QuietHours, Span};
use jiff::{civil, tz::TimeZone};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tillflow_schemas::Timestamp;

/// The last mail released to a user that counts for the cap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub trigger_id: String,
}

/// Whether another mail may be released now: so long after the last one, or later.
pub fn cap_allows(last: Option<&Released>, cap: Span, now: Timestamp) -> bool {
    last.is_none_or(|last| now >= last.at + cap.get())
}

/// When the quiet hours end in which `now` lies, if it lies in some.
pub fn quiet_until(quiet: &QuietHours, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let (from, until) = quiet.minutes()?;
    let local = jiff::Timestamp::from_millisecond(now.millis()).ok()?.to_zoned(zone.clone());
    let minute = local.hour() as u16 * 60 + local.minute() as u16;
    let (in_them, ends_tomorrow) =
        if from <= until { (from <= minute && minute < until, false) } else { (minute >= from || minute < until, minute >= from) };
    if !in_them {
        return None;
    }
    let day = if ends_tomorrow { local.date().tomorrow().ok()? } else { local.date() };
    let end = day.at((until / 60) as i8, (until % 60) as i8, 0, 0).to_zoned(zone.clone()).ok()?;
    Some(Timestamp::from_millis(end.timestamp().as_millisecond())).filter(|end| *end > now)
}

/// Whether the user belongs to the `per_cent` who never get this campaign: always the same ones.
pub fn held_out(user: &str, campaign: &str, per_cent: u8) -> bool {
    per_cent > 0 && hash(&[user, campaign, "holdout"]).first_chunk().is_some_and(|b| u32::from_be_bytes(*b) % 100 < u32::from(per_cent))
}

/// The id of a mail: the same decision made again has the same id.
pub fn trigger_id(user: &str, campaign: &str, step: u32, cause: &str) -> String {
    hash(&[user, campaign, &step.to_string(), cause]).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

fn hash(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length before it, no two lists of parts are one text.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

/// The first birthday after `after`, at `hour` in `zone`; 29 February is kept on the 28th in other years. `None`
/// where the text is no date.
pub fn next_birthday(birthday: &str, zone: &TimeZone, hour: u8, after: Timestamp) -> Option<Timestamp> {
    let (month, day) = month_and_day(birthday)?;
    let year = jiff::Timestamp::from_millisecond(after.millis()).ok()?.to_zoned(zone.clone()).year();
    (year..=year.checked_add(1)?).find_map(|year| {
        let date = civil::Date::new(year, month, day).or_else(|_| civil::Date::new(year, month, day - 1)).ok()?;
        let at = date.at(hour as i8, 0, 0, 0).to_zoned(zone.clone()).ok()?;
        Some(Timestamp::from_millis(at.timestamp().as_millisecond())).filter(|at| *at > after)
    })
}

/// Month and day of `YYYY-MM-DD` or `MM-DD`.
fn month_and_day(text: &str) -> Option<(i8, i8)> {
    let mut parts = text.rsplit('-');
    let (day, month) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    // 2024 is a leap year: 29 February is a date.
    civil::Date::new(2024, month, day).ok().map(|_| (month, day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn t(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }
    fn quiet(from: &str, until: &str) -> QuietHours {
        QuietHours { from: from.into(), until: until.into() }
    }

    #[test]
    fn a_mail_due_at_night_waits_for_the_morning_of_the_user() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let night = quiet("21:00", "08:00");
        let wait = |now| quiet_until(&night, &berlin, t(now));
        assert_eq!(wait("2026-01-10T19:59:59Z"), None);
        assert_eq!(wait("2026-01-10T20:00:00Z"), Some(t("2026-01-11T07:00:00Z")));
        assert_eq!(wait("2026-01-11T06:59:59Z"), Some(t("2026-01-11T07:00:00Z")));
        assert_eq!(wait("2026-01-11T07:00:00Z"), None);
        // In summer time the same morning is an hour earlier.
        assert_eq!(wait("2026-03-28T23:00:00Z"), Some(t("2026-03-29T06:00:00Z")));
        let noon = quiet("12:00", "14:00");
        assert_eq!(quiet_until(&noon, &TimeZone::UTC, t("2026-01-10T13:00:00Z")), Some(t("2026-01-10T14:00:00Z")));
        assert_eq!(quiet_until(&noon, &TimeZone::UTC, t("2026-01-10T14:00:00Z")), None);
    }

    #[test]
    fn the_cap_allows_one_again_after_exactly_a_day() {
        let last = Released { at: t("2026-01-10T10:00:00Z"), trigger_id: "a".into() };
        assert!(cap_allows(None, Span::hours(24), t("2026-01-10T10:00:00Z")));
        assert!(!cap_allows(Some(&last), Span::hours(24), t("2026-01-11T09:59:59.999Z")));
        assert!(cap_allows(Some(&last), Span::hours(24), t("2026-01-11T10:00:00Z")));
    }

    #[test]
    fn a_birthday_comes_once_a_year_and_the_29_february_on_the_28th() {
        let next = |birthday, after| next_birthday(birthday, &TimeZone::UTC, 9, t(after));
        assert_eq!(next("1990-05-04", "2026-05-04T08:59:59Z"), Some(t("2026-05-04T09:00:00Z")));
        assert_eq!(next("1990-05-04", "2026-05-04T09:00:00Z"), Some(t("2027-05-04T09:00:00Z")));
        assert_eq!(next("02-29", "2026-01-01T00:00:00Z"), Some(t("2026-02-28T09:00:00Z")));
        assert_eq!(next("02-29", "2028-01-01T00:00:00Z"), Some(t("2028-02-29T09:00:00Z")));
        for wrong in ["", "1990", "05-32", "13-01", "1990-00-10", "x-y", "02-00"] {
            assert_eq!(next(wrong, "2026-01-01T00:00:00Z"), None, "{wrong}");
        }
    }

    #[test]
    fn the_holdout_is_stable_and_about_as_large_as_it_says() {
        let held = |n: u32| held_out(&format!("user{n}"), "browse", 10);
        let count = (0..10_000).filter(|n| held(*n)).count();
        assert!((850..1150).contains(&count), "{count}");
        assert!((0..100).all(|n| held(n) == held(n)));
        assert!(!held_out("u", "browse", 0) && held_out("u", "browse", 100));
    }

    proptest! {
        #[test]
        fn ids_of_different_decisions_differ(a in any::<(String, String, u32, String)>(), b in any::<(String, String, u32, String)>()) {
            let id = |d: &(String, String, u32, String)| trigger_id(&d.0, &d.1, d.2, &d.3);
            prop_assert_eq!(a == b, id(&a) == id(&b));
            prop_assert_eq!(id(&a).len(), 32);
        }

        #[test]
        fn quiet_hours_end_and_never_in_themselves(from in 0..1440_u16, until in 0..1440_u16, at in 0..100_000_000_i64) {
            let text = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
            let quiet = quiet(&text(from), &text(until));
            let zone = TimeZone::get("America/New_York").unwrap();
            if let Some(end) = quiet_until(&quiet, &zone, Timestamp::from_millis(at * 1000)) {
                prop_assert!(end.millis() - at * 1000 <= 25 * 3_600_000);
                prop_assert_eq!(quiet_until(&quiet, &zone, end), None);
            }
        }
    }
}
