//! The `email` section of the configuration.

use super::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_schemas::Money;

/// The `email` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmailSettings {
    /// At most one mail a user in this time, over all campaigns but transactional ones; so long later is allowed.
    pub cap: Span,
    /// Local hours in which nothing is released, such as `{from: "21:00", until: "08:00"}`; a mail due in them waits
    /// for their end. Absent: none.
    pub quiet_hours: Option<QuietHours>,
    /// The hour of day, 0 to 23 in the user's zone, of birthday mails.
    pub birthday_hour: u8,
    /// The code that win-back mails offer; absent, they offer none.
    pub offer_code: Option<String>,
    /// Thresholds of the built-in segments.
    pub segments: SegmentSettings,
    /// The shop's own segments by name: conditions of all, any, not and {field, op, value, within}.
    pub own_segments: BTreeMap<String, Value>,
    /// The shop's own campaigns by id, and what it changes of the built-in ones.
    pub campaigns: BTreeMap<String, Value>,
}

impl Default for EmailSettings {
    fn default() -> Self {
        Self {
            cap: Span::hours(24),
            quiet_hours: None,
            birthday_hour: 9,
            offer_code: None,
            segments: SegmentSettings::default(),
            own_segments: BTreeMap::new(),
            campaigns: BTreeMap::new(),
        }
    }
}

/// Local hours in which no mail is released.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// First quiet minute, `HH:MM`.
    pub from: String,
    /// First minute that is no longer quiet, `HH:MM`; before `from`, it is the next day's.
    pub until: String,
}

/// Thresholds of the built-in segments.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentSettings {
    /// `high_value`: net spend in `spend_window`, in the shop's currency.
    pub high_value: Money,
    /// How long an order counts as spend, and as bought in the shop's own segments.
    pub spend_window: Span,
    /// `frequent_buyer`: orders in `orders_window`, 1 to 10.
    pub frequent_orders: u32,
    /// How long an order counts for `frequent_buyer`.
    pub orders_window: Span,
    /// `repeat_viewer`: views of one product or category in `views_window`, 1 to 10.
    pub repeat_views: u32,
    /// How long a view counts for `repeat_viewer`, at most 14d.
    pub views_window: Span,
    /// `new`: so long after the first event.
    pub new: Span,
    /// `active` turns into `at_risk` so long after the last event in the shop.
    pub at_risk: Span,
    /// `at_risk` turns into `lapsed` so long after the last event in the shop.
    pub lapsed: Span,
    /// `engaged`: a click in a mail in this time; without one, `disengaged`.
    pub engaged: Span,
    /// `disengaged`: mails delivered in that time, 1 to 20.
    pub disengaged_mails: u32,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self {
            high_value: Money::from(rust_decimal::Decimal::from(500)),
            spend_window: Span::days(365),
            frequent_orders: 3,
            orders_window: Span::days(90),
            repeat_views: 3,
            views_window: Span::days(7),
            new: Span::days(30),
            at_risk: Span::days(30),
            lapsed: Span::days(90),
            engaged: Span::days(90),
            disengaged_mails: 5,
        }
    }
}

impl EmailSettings {
    /// What is wrong with the numbers, each with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, problem: String| {
            if !fine {
                problems.push(problem);
            }
        };
        let s = &self.segments;
        let within = |n: u32, least: u32, most: u32| (least..=most).contains(&n);
        check(self.birthday_hour < 24, format!("email.birthday_hour: {} is not between 0 and 23", self.birthday_hour));
        check(within(s.frequent_orders, 1, 10), format!("email.segments.frequent_orders: {} is not between 1 and 10", s.frequent_orders));
        check(within(s.repeat_views, 1, 10), format!("email.segments.repeat_views: {} is not between 1 and 10", s.repeat_views));
        check(
            within(s.disengaged_mails, 1, 20),
            format!("email.segments.disengaged_mails: {} is not between 1 and 20", s.disengaged_mails),
        );
        check(
            s.views_window <= Span::days(14),
            format!("email.segments.views_window: {} is longer than 14d, for which views are kept", s.views_window),
        );
        check(
            s.at_risk < s.lapsed,
            format!("email.segments.at_risk: {} is not below lapsed {}; the thresholds are upside down", s.at_risk, s.lapsed),
        );
        if let Some(quiet) = &self.quiet_hours {
            for (name, text) in [("from", &quiet.from), ("until", &quiet.until)] {
                check(minute_of_day(text).is_some(), format!("email.quiet_hours.{name}: '{text}' is not a time of day such as 21:00"));
            }
        }
        problems
    }
}

impl QuietHours {
    /// First quiet minute and first that is not, as minutes of the day.
    pub fn minutes(&self) -> Option<(u16, u16)> {
        Some((minute_of_day(&self.from)?, minute_of_day(&self.until)?))
    }
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_numbers_are_named_with_their_key() {
        let settings: EmailSettings = serde_json::from_value(json!({
            "birthday_hour": 24,
            "quiet_hours": {"from": "9 pm", "until": "08:00"},
            "segments": {"at_risk": "90d", "lapsed": "30d", "repeat_views": 0, "views_window": "30d"},
        }))
        .unwrap();
        let problems = settings.problems().join("\n");
        for key in
            ["birthday_hour", "quiet_hours.from: '9 pm'", "repeat_views", "views_window: 30d", "at_risk: 90d is not below lapsed 30d"]
        {
            assert!(problems.contains(key), "{key} in {problems}");
        }
        assert!(EmailSettings::default().problems().is_empty());
        assert!(serde_json::from_value::<EmailSettings>(json!({"quite_hours": null})).is_err());
    }
}
