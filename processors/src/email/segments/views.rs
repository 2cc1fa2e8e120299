//! The products a user has looked at lately: for `repeat_viewer`, browse and price-drop mails.

use crate::email::facts::insert;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{ProductId, Timestamp};

/// How long a view is remembered: price-drop mails look back so far.
pub const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
/// Products that are remembered, the last ones touched.
const PRODUCTS: usize = 60;
/// Views of one product that are remembered, the latest.
const TIMES: usize = 10;

/// The products looked at, the last one touched at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Views(Vec<Viewed>);

/// One product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Viewed {
    /// Which.
    pub product: ProductId,
    /// Its category when it was last touched; empty where the catalogue does not have it.
    pub category: CompactString,
    /// When it was viewed, oldest first.
    pub times: Vec<Timestamp>,
    /// When it was last ordered.
    pub ordered: Option<Timestamp>,
}

/// Which `repeat_viewer` segments the user is in, and when time changes that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repeat {
    /// Names of segments, sorted.
    pub names: Vec<String>,
    /// When to look again.
    pub changes: Option<Timestamp>,
}

impl Viewed {
    /// Its views after `since`, and the order after `since` that stands against them.
    fn since(&self, since: Timestamp) -> (&[Timestamp], Option<Timestamp>) {
        let views = self.times.get(self.times.partition_point(|t| *t <= since)..);
        (views.unwrap_or_default(), self.ordered.filter(|t| *t > since))
    }
}

impl Repeat {
    /// Takes in what was viewed within the window, oldest first, and ordered.
    fn judge(&mut self, views: &[Timestamp], ordered: Option<Timestamp>, least: usize, window: Duration, name: impl FnOnce() -> String) {
        // The view whose leaving the window leaves too few.
        let Some(decisive) = views.len().checked_sub(least).and_then(|i| views.get(i)) else { return };
        let changes = ordered.unwrap_or(*decisive) + window;
        self.changes = Some(self.changes.map_or(changes, |t| t.min(changes)));
        if ordered.is_none() {
            self.names.push(name());
        }
    }
}

impl Views {
    /// A product was viewed.
    pub fn view(&mut self, product: &ProductId, category: &str, at: Timestamp, now: Timestamp) {
        let viewed = self.touch(product, category, now);
        insert(&mut viewed.times, at, TIMES);
    }

    /// A product was ordered.
    pub fn order(&mut self, product: &ProductId, category: &str, at: Timestamp, now: Timestamp) {
        let viewed = self.touch(product, category, now);
        viewed.ordered = viewed.ordered.max(Some(at));
    }

    /// The products remembered.
    pub fn iter(&self) -> impl Iterator<Item = &Viewed> {
        self.0.iter()
    }

    /// Views of `product` in the last `window`.
    pub fn of(&self, product: &ProductId, window: Duration, now: Timestamp) -> usize {
        self.0.iter().filter(|v| v.product == *product).flat_map(|v| &v.times).filter(|t| **t > now - window).count()
    }

    /// The `repeat_viewer` segments: at least `least` views of a product or category in the last `window` and no
    /// order of it in that time.
    pub fn repeat(&self, least: usize, window: Duration, now: Timestamp) -> Repeat {
        let since = now - window;
        let mut found = Repeat::default();
        let mut categories = BTreeMap::<&str, (Vec<Timestamp>, Option<Timestamp>)>::new();
        for viewed in &self.0 {
            let (views, ordered) = viewed.since(since);
            if !viewed.category.is_empty() {
                let category = categories.entry(&viewed.category).or_default();
                category.0.extend(views);
                category.1 = category.1.max(ordered);
            }
            found.judge(views, ordered, least, window, || format!("repeat_viewer:product:{}", viewed.product));
        }
        for (category, (mut views, ordered)) in categories {
            views.sort_unstable();
            found.judge(&views, ordered, least, window, || format!("repeat_viewer:category:{category}"));
        }
        found.names.sort_unstable();
        found
    }

    fn touch(&mut self, product: &ProductId, category: &str, now: Timestamp) -> &mut Viewed {
        for viewed in &mut self.0 {
            viewed.times.retain(|t| *t > now - KEPT);
            viewed.ordered = viewed.ordered.filter(|t| *t > now - KEPT);
        }
        let found = self.0.iter().position(|v| v.product == *product).map(|i| self.0.remove(i));
        self.0.retain(|v| !v.times.is_empty() || v.ordered.is_some());
        if self.0.len() >= PRODUCTS {
            self.0.remove(0);
        }
        let mut viewed = found.unwrap_or_else(|| Viewed {
            product: product.clone(),
            category: CompactString::default(),
            times: Vec::new(),
            ordered: None,
        });
        if !category.is_empty() {
            viewed.category = category.into();
        }
        self.0.push(viewed);
        let last = self.0.len() - 1;
        #[allow(clippy::indexing_slicing, reason = "it was pushed just now")]
        &mut self.0[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn day(n: i64) -> Timestamp {
        Timestamp::from_millis(n * 24 * 3_600_000)
    }
    fn names(views: &Views, now: i64) -> Vec<String> {
        views.repeat(3, WEEK, day(now)).names
    }

    #[test]
    fn three_views_in_a_week_make_a_repeat_viewer_until_the_first_of_them_is_a_week_old() {
        let mut views = Views::default();
        for n in [0, 2, 3] {
            assert!(names(&views, n).is_empty());
            views.view(&"p".into(), "tea", day(n), day(n));
        }
        assert_eq!(names(&views, 3), ["repeat_viewer:category:tea", "repeat_viewer:product:p"]);
        assert_eq!(views.repeat(3, WEEK, day(3)).changes, Some(day(7)));
        assert!(names(&views, 7).is_empty());
    }

    #[test]
    fn views_of_a_category_add_up_over_its_products() {
        let mut views = Views::default();
        for product in ["p1", "p2", "p3"] {
            views.view(&product.into(), "tea", day(1), day(1));
        }
        assert_eq!(names(&views, 1), ["repeat_viewer:category:tea"]);
    }

    #[test]
    fn an_order_of_it_in_the_week_stands_against_the_views_whichever_came_first() {
        let mut views = Views::default();
        views.order(&"p".into(), "tea", day(0), day(0));
        for n in [4, 5, 6] {
            views.view(&"p".into(), "tea", day(n), day(n));
        }
        assert!(names(&views, 6).is_empty());
        assert_eq!(views.repeat(3, WEEK, day(6)).changes, Some(day(7)));
        assert_eq!(names(&views, 7), ["repeat_viewer:category:tea", "repeat_viewer:product:p"]);
    }

    proptest! {
        #[test]
        fn nothing_changes_before_the_time_it_says(
            steps in prop::collection::vec((0..3_u8, 0..40_i64, any::<bool>()), 1..60), later in 0..30_i64,
        ) {
            let mut views = Views::default();
            let mut now = 0;
            for (product, step, order) in steps {
                now += step / 10;
                let id = ProductId::from(format!("p{product}"));
                if order && product == 0 { views.order(&id, "tea", day(now), day(now)) } else { views.view(&id, "tea", day(now), day(now)) }
            }
            let repeat = views.repeat(3, WEEK, day(now));
            let then = day(now + later);
            if repeat.changes.is_none_or(|t| then < t) {
                prop_assert_eq!(views.repeat(3, WEEK, then).names, repeat.names);
            }
        }
    }
}
