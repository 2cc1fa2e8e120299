//! The `subscriptions` section of the configuration.

use super::{features::Merge, plans::PlanVersion};
use crate::shop::ShopSettings;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tillflow_engine_api::Declare;
use tillflow_schemas::Plan;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The `subscriptions` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// Days that an unpaid subscription still counts (`past_due`) before it expires.
    pub grace_days: u32,
    /// Whether Basic, Premium and Deluxe Box exist without being stated.
    pub built_in_plans: bool,
    /// Plans beside the built-in ones; a record of the topic `plans` with the same id takes precedence.
    pub plans: Vec<Plan>,
    /// How values of one feature from several sources (plan, tier, grant) become one: `max`, `min` or
    /// `rank: [worst, …, best]`. Yes-or-no features are merged by or, undeclared numbers by max; of undeclared texts
    /// the plan's counts.
    pub features: BTreeMap<String, Merge>,
    /// Days between two suggestions of a higher plan to one customer, at least.
    pub suggestion_days: u32,
    /// How boxes are put together.
    pub boxes: BoxSettings,
}

/// The `subscriptions.boxes` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoxSettings {
    /// Items of a box whose plan has no `target_item_count`.
    pub target_item_count: u32,
    /// Exclusive items of a box whose plan has `exclusive_item` but no `num_exclusive_items`.
    pub num_exclusive_items: u32,
    /// Products of this many last boxes of the customer are not packed again.
    pub not_in_last: u32,
    /// Products bought within this many days are not packed.
    pub not_bought_days: u32,
    /// A box can be skipped or changed until this many hours before its period begins.
    pub cut_off_hours: u32,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self {
            grace_days: 7,
            built_in_plans: true,
            plans: Vec::new(),
            features: BTreeMap::new(),
            suggestion_days: 7,
            boxes: BoxSettings::default(),
        }
    }
}

/// How the usual features are merged, unless the shop declares another way.
fn usual_features() -> [(&'static str, Merge); 4] {
    let speeds = ["standard", "expedited", "priority"].map(str::to_owned).to_vec();
    [
        ("free_shipping_over", Merge::Min),
        ("num_exclusive_items", Merge::Max),
        ("shipping_speed", Merge::Rank(speeds)),
        ("target_item_count", Merge::Max),
    ]
}

impl Default for BoxSettings {
    fn default() -> Self {
        Self { target_item_count: 5, num_exclusive_items: 1, not_in_last: 3, not_bought_days: 60, cut_off_hours: 48 }
    }
}

impl SubscriptionSettings {
    /// Reads the section and says what is wrong with it.
    pub fn read(d: &mut Declare<'_>) -> Self {
        let mut settings = d.settings::<Self>("subscriptions");
        for (feature, merge) in usual_features() {
            settings.features.entry(feature.to_owned()).or_insert(merge);
        }
        for problem in settings.problems() {
            d.problem(problem);
        }
        settings
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, days) in [("grace_days", self.grace_days), ("suggestion_days", self.suggestion_days)] {
            if days > 3650 {
                problems.push(format!("subscriptions.{name}: {days} is more than ten years of days"));
            }
        }
        if self.boxes.target_item_count == 0 || self.boxes.target_item_count > super::boxes::LARGEST_BOX {
            problems.push(format!(
                "subscriptions.boxes.target_item_count: {} is not between 1 and {}",
                self.boxes.target_item_count,
                super::boxes::LARGEST_BOX
            ));
        }
        if self.boxes.not_in_last > super::boxes::BOXES_KEPT {
            problems.push(format!(
                "subscriptions.boxes.not_in_last: {} is more than the {} boxes that are kept",
                self.boxes.not_in_last,
                super::boxes::BOXES_KEPT
            ));
        }
        for (feature, merge) in &self.features {
            if matches!(merge, Merge::Rank(values) if values.is_empty()) {
                problems.push(format!("subscriptions.features.{feature}: rank names no values; list them from worst to best"));
            }
        }
        for (i, plan) in self.plans.iter().enumerate() {
            let problem = match plan {
                p if p.plan_id.as_str().is_empty() => Some("plan_id is missing".to_owned()),
                p if p.features.is_empty() => Some("features is empty; a plan states at least one feature".to_owned()),
                p => PlanVersion::of(p).err().map(|e| e.to_string()),
            };
            problems.extend(problem.map(|problem| format!("subscriptions.plans[{i}]: {problem}")));
        }
        problems
    }

    /// How long an unpaid subscription still counts.
    pub fn grace(&self) -> Duration {
        DAY * self.grace_days
    }

    /// How far apart suggestions to one customer lie.
    pub fn suggestion_gap(&self) -> Duration {
        DAY * self.suggestion_days
    }
}

impl BoxSettings {
    /// How long a product bought is not packed.
    pub fn not_bought(&self) -> Duration {
        DAY * self.not_bought_days
    }

    /// How long before its period a box is closed to changes.
    pub fn cut_off(&self) -> Duration {
        HOUR * self.cut_off_hours
    }
}

/// The shop's zone, UTC where none is set; an unknown one is a problem of the configuration.
pub fn zone(shop: &ShopSettings, d: &mut Declare<'_>) -> jiff::tz::TimeZone {
    let Some(name) = shop.timezone.as_deref() else { return jiff::tz::TimeZone::UTC };
    jiff::tz::TimeZone::get(name).unwrap_or_else(|_| {
        d.problem(format!("shop.timezone: '{name}' is not an IANA time zone such as Europe/Berlin"));
        jiff::tz::TimeZone::UTC
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(settings: serde_json::Value) -> Vec<String> {
        let settings = settings.as_object().unwrap().clone();
        let mut d = Declare::new(&settings);
        SubscriptionSettings::read(&mut d);
        let shop = d.settings("shop");
        zone(&shop, &mut d);
        d.finish().problems
    }

    #[test]
    fn settings_have_defaults_and_what_is_wrong_is_said_by_name() {
        assert!(problems(json!({})).is_empty());
        assert!(
            problems(json!({"subscriptions": {"grace_days": 3, "features": {"seats": "max", "support": {"rank": ["mail", "phone"]}}}}))
                .is_empty()
        );
        for (wrong, named) in [
            (json!({"subscriptions": {"grace": 3}}), "grace"),
            (json!({"subscriptions": {"boxes": {"target_item_count": 0}}}), "target_item_count"),
            (json!({"subscriptions": {"boxes": {"not_in_last": 99}}}), "not_in_last"),
            (json!({"subscriptions": {"features": {"support": {"rank": []}}}}), "features.support"),
            (
                json!({"subscriptions": {"plans": [{"plan_id": "tea", "price": "1", "interval": "month", "features": {}}]}}),
                "plans[0]: features",
            ),
            (
                json!({"subscriptions": {"plans": [{"plan_id": "tea", "price": "1", "interval": "day", "features": {"a": 1}}]}}),
                "plans[0]: interval",
            ),
            (json!({"shop": {"timezone": "Mars/Phobos"}}), "shop.timezone"),
        ] {
            let found = problems(wrong.clone());
            assert!(found.len() == 1 && found[0].contains(named), "{wrong}: {found:?}");
        }
    }

    #[test]
    fn what_the_shop_declares_of_features_is_added_to_what_is_known_of_the_usual_ones() {
        let settings = json!({"subscriptions": {"features": {"seats": "min"}}}).as_object().unwrap().clone();
        let settings = SubscriptionSettings::read(&mut Declare::new(&settings));
        assert_eq!(settings.features.get("seats"), Some(&Merge::Min));
        assert_eq!(settings.features.get("free_shipping_over"), Some(&Merge::Min));
    }
}
