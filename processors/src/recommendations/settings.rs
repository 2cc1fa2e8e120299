//! The `recommendations` section of the configuration.

use super::merchandising::MerchandisingRule;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The `recommendations` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecommendationsSettings {
    /// A session ends when a shopper does nothing for so many minutes.
    pub session_gap_minutes: u32,
    /// Different products a session remembers; the oldest go first.
    pub session_items: usize,
    /// How many products back a product still makes a pair with an earlier one of the session.
    pub pair_distance: usize,
    /// What is left of a pair's weight with each product that lies between its two, 0 to 1.
    pub distance_decay: f64,
    /// What the way back counts (from a product to one seen before it) beside the way forth, 0 to 1.
    pub backward: f64,
    /// What a pair weighs, by what was done with the product it leads to.
    pub weights: InterestWeights,
    /// A pair's weight halves in so many days.
    pub half_life_days: u32,
    /// Pairs older than so many weeks (counted back from the product's newest) no longer count.
    pub window_weeks: u32,
    /// Neighbours kept of a product. Below it the related lists are exact, whatever the order in which pairs arrive; above
    /// it the lightest are forgotten, and what is left depends a little on that order.
    pub neighbours: usize,
    /// Neighbours published of a product.
    pub related: usize,
    /// A neighbour is published when its log-likelihood ratio (Dunning 1993) is at least this.
    pub llr_threshold: f64,
    /// With fewer pairs of the product than this, all its neighbours are published, whatever their ratio.
    pub llr_least_pairs: u64,
    /// With fewer product sightings in the sample than this, all neighbours are published, whatever their ratio.
    pub llr_least_sample: u64,
    /// How many of the session's last products the ranking looks at.
    pub seeds: usize,
    /// What each earlier product of the session counts beside the one after it, 0 to 1.
    pub recency: f64,
    /// Products of one push, 1 to 10.
    pub items: usize,
    /// Products of one category among them, as long as others are left.
    pub items_per_category: usize,
    /// What was bought within so many days is not recommended again, unless tagged `replenishable`.
    pub bought_days: u32,
    /// Popularity, the fallback, halves in so many days.
    pub trend_half_life_days: u32,
    /// Least time between two pushes to one shopper, in milliseconds of event time.
    pub push_interval_ms: u64,
    /// The shop's own hand in what is shown: rules that pin, boost, bury or block by product, category or tag.
    pub merchandising: Vec<MerchandisingRule>,
}

/// What a pair weighs, by what was done with the product it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterestWeights {
    /// It was viewed.
    pub view: f64,
    /// It was put into the cart.
    pub add: f64,
    /// It was bought in the same order.
    pub order: f64,
}

impl Default for InterestWeights {
    fn default() -> Self {
        Self { view: 1.0, add: 3.0, order: 10.0 }
    }
}

impl Default for RecommendationsSettings {
    fn default() -> Self {
        Self {
            session_gap_minutes: 30,
            session_items: 30,
            pair_distance: 5,
            distance_decay: 0.8,
            backward: 0.85,
            weights: InterestWeights::default(),
            half_life_days: 60,
            window_weeks: 26,
            neighbours: 4_000,
            related: 20,
            llr_threshold: 0.5,
            llr_least_pairs: 50,
            llr_least_sample: 1_000,
            seeds: 8,
            recency: 0.65,
            items: 10,
            items_per_category: 4,
            bought_days: 30,
            trend_half_life_days: 3,
            push_interval_ms: 1_000,
            merchandising: Vec::new(),
        }
    }
}

impl RecommendationsSettings {
    /// A session ends after so long without an event.
    pub fn session_gap(&self) -> Duration {
        Duration::from_secs(u64::from(self.session_gap_minutes) * 60)
    }
    /// What was bought within this time is not recommended again.
    pub fn bought_within(&self) -> Duration {
        DAY * self.bought_days
    }
    /// Least time between two pushes to one shopper.
    pub fn push_interval(&self) -> Duration {
        Duration::from_millis(self.push_interval_ms)
    }

    /// What is wrong with the settings, in words.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, key: &str, rule: String| {
            if !holds {
                problems.push(format!("recommendations.{key} {rule}"));
            }
        };
        let between = |n: usize, low: usize, high: usize| (low..=high).contains(&n);
        check(self.session_gap_minutes > 0, "session_gap_minutes", "is 0; a session lasts at least a minute".into());
        for (key, n, low, high) in [
            ("session_items", self.session_items, 2, 1_000),
            ("pair_distance", self.pair_distance, 1, 50),
            ("neighbours", self.neighbours, 10, 10_000),
            ("related", self.related, 1, 200),
            ("seeds", self.seeds, 1, 100),
            ("items", self.items, 1, 10),
            ("items_per_category", self.items_per_category, 1, 10),
            ("window_weeks", self.window_weeks as usize, 1, 520),
        ] {
            check(between(n, low, high), key, format!("is {n}, not between {low} and {high}"));
        }
        for (key, share) in [("distance_decay", self.distance_decay), ("backward", self.backward), ("recency", self.recency)] {
            check((0.0..=1.0).contains(&share), key, format!("is {share}, not between 0 and 1"));
        }
        for (key, weight) in [("view", self.weights.view), ("add", self.weights.add), ("order", self.weights.order)] {
            check((0.0..=1_000.0).contains(&weight), &format!("weights.{key}"), format!("is {weight}, not between 0 and 1000"));
        }
        check(
            self.related <= self.neighbours,
            "related",
            format!("is {}, more than the {} neighbours kept", self.related, self.neighbours),
        );
        check(self.llr_threshold >= 0.0, "llr_threshold", format!("is {}, below 0", self.llr_threshold));
        check(self.half_life_days > 0, "half_life_days", "is 0".into());
        check(self.trend_half_life_days > 0, "trend_half_life_days", "is 0".into());
        for (i, rule) in self.merchandising.iter().enumerate() {
            problems.extend(rule.problem().map(|problem| format!("recommendations.merchandising[{i}] {problem}")));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_nonsense_is_named() {
        assert_eq!(RecommendationsSettings::default().problems(), Vec::<String>::new());
        let wrong =
            RecommendationsSettings { items: 11, recency: f64::NAN, related: 300, neighbours: 256, ..RecommendationsSettings::default() };
        let problems = wrong.problems();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems.iter().any(|p| p == "recommendations.items is 11, not between 1 and 10"), "{problems:?}");
    }
}
