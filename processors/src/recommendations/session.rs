//! What a shopper looks at in one go, and which pairs of products that makes.
//!
//! A pair counts once a session, when its second product comes; it weighs by what was done with the product it leads
//! to and by how far apart the two lie. A stronger deed later (a product viewed, then put into the cart) adds the
//! difference. All weights are integers, so that sums over pairs are the same in any order.

use super::{RecommendationsSettings, pairs::Sighting};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tillflow_schemas::{ItemPair, ProductId, Timestamp};

/// Pairs are summed by event-time buckets of this width.
pub const BUCKET: Duration = Duration::from_secs(7 * 24 * 3600);
/// Weights are counted in thousandths.
pub const WEIGHT_UNIT: f64 = 1_000.0;

/// What was done with a product; the stronger is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Interest {
    /// Viewed.
    Viewed,
    /// Put into the cart.
    Added,
}

impl Interest {
    /// What it adds to a product's popularity; an order's product adds [`ORDERED`].
    pub fn popularity(self) -> u64 {
        match self {
            Self::Viewed => 1,
            Self::Added => 3,
        }
    }
}

/// What an order adds to the popularity of each of its products.
pub const ORDERED: u64 = 10;

/// How often a product was seen in its partition's sample of all sessions, and how often all were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Background {
    /// Sightings of the product.
    pub product: u64,
    /// Sightings of all products; 0 is "not known".
    pub all: u64,
}

/// A product of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Which.
    pub product: ProductId,
    /// When last.
    pub at: Timestamp,
    /// The strongest that was done with it.
    pub interest: Interest,
    /// How usual it was when it came into the session.
    pub background: Background,
    /// It came from the visitor's time before the log-in: it leads to recommendations but makes no pairs, since when
    /// it arrives (from another partition) depends on timing, and pair counts must not.
    pub moved: bool,
}

/// What a shopper looked at, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Different products, bounded.
    pub items: Vec<Seen>,
    /// The latest event.
    pub last_at: Timestamp,
}

/// How much a pair weighs, in thousandths, precomputed.
#[derive(Clone, Debug)]
pub struct PairWeights {
    view: Vec<u64>,
    add: Vec<u64>,
    backward: u64,
    /// Two products of one order.
    pub order: u64,
}

impl PairWeights {
    /// The weights that the settings ask for.
    pub fn new(settings: &RecommendationsSettings) -> Self {
        let by_distance = |weight: f64| {
            let decayed = |d: usize| fixed(weight * settings.distance_decay.powi(i32::try_from(d).unwrap_or(i32::MAX)));
            (0..settings.pair_distance).map(decayed).collect()
        };
        Self {
            view: by_distance(settings.weights.view),
            add: by_distance(settings.weights.add),
            backward: fixed(settings.backward),
            order: fixed(settings.weights.order),
        }
    }

    /// How far back a product makes pairs.
    fn reach(&self) -> usize {
        self.view.len()
    }

    /// Towards a product that came later, `distance` products after the other.
    fn forth(&self, interest: Interest, distance: usize) -> u64 {
        let weights = match interest {
            Interest::Viewed => &self.view,
            Interest::Added => &self.add,
        };
        weights.get(distance).copied().unwrap_or(0)
    }

    /// Towards a product that came earlier.
    fn back(&self, interest: Interest, distance: usize) -> u64 {
        self.forth(interest, distance) * self.backward / WEIGHT_UNIT as u64
    }
}

fn fixed(weight: f64) -> u64 {
    (weight * WEIGHT_UNIT).round().max(0.0) as u64
}

impl Session {
    /// Takes note of an event at `at`; after a gap the session begins anew. False for a straggler from before the
    /// session: it must not disturb it.
    pub fn enter(&mut self, at: Timestamp, gap: Duration) -> bool {
        if at + gap < self.last_at {
            return false;
        }
        if self.last_at + gap < at {
            self.items.clear();
        }
        self.last_at = self.last_at.max(at);
        true
    }

    /// Whether the product is not of the session yet.
    pub fn is_new(&self, product: &ProductId) -> bool {
        !self.items.iter().any(|s| s.product == *product && !s.moved)
    }

    /// A product is seen: it becomes the latest, and the pairs it makes are appended to `sightings`. `background` is
    /// how usual it is; it counts only where the product is new.
    pub fn see(
        &mut self,
        product: &ProductId,
        interest: Interest,
        at: Timestamp,
        background: Background,
        weights: &PairWeights,
        sightings: &mut Vec<Sighting>,
    ) {
        let before = self.items.iter().position(|s| s.product == *product).map(|i| self.items.remove(i)).filter(|s| !s.moved);
        let seen = Seen {
            product: product.clone(),
            at,
            interest: before.as_ref().map_or(interest, |b| b.interest.max(interest)),
            background: before.as_ref().map_or(background, |b| b.background),
            moved: false,
        };
        let others = self.items.iter().rev().filter(|s| !s.moved).take(weights.reach()).enumerate();
        match before {
            None => others.for_each(|(distance, other)| {
                sightings.push(sighting(other, &seen, weights.forth(interest, distance), 1, at));
                sightings.push(sighting(&seen, other, weights.back(other.interest, distance), 1, at));
            }),
            Some(before) if interest > before.interest => others.for_each(|(distance, other)| {
                let more = weights.forth(interest, distance).saturating_sub(weights.forth(before.interest, distance));
                sightings.push(sighting(other, &seen, more, 0, at));
            }),
            Some(_) => {}
        }
        self.items.push(seen);
    }

    /// Forgets the oldest products beyond `limit`.
    pub fn bound(&mut self, limit: usize) {
        let excess = self.items.len().saturating_sub(limit);
        self.items.drain(..excess);
    }

    /// Takes in the products of the same person's session before the log-in, in the order they were seen.
    pub fn take_over(&mut self, earlier: Vec<Seen>, gap: Duration) {
        for seen in earlier {
            let current = self.items.is_empty() || (self.last_at <= seen.at + gap && seen.at <= self.last_at + gap);
            if current && !self.items.iter().any(|s| s.product == seen.product) {
                self.last_at = self.last_at.max(seen.at);
                self.items.push(Seen { moved: true, ..seen });
            }
        }
        // Stable, so what has one time keeps its order.
        self.items.sort_by_key(|s| s.at);
    }
}

/// `other` as seen from `of`.
fn sighting(of: &Seen, other: &Seen, weight: u64, count: u64, at: Timestamp) -> Sighting {
    Sighting { of: of.product.clone(), pair: pair(&other.product, other.background, weight, count, at) }
}

/// The pair that leads to `other`.
pub fn pair(other: &ProductId, background: Background, weight: u64, count: u64, at: Timestamp) -> ItemPair {
    ItemPair {
        other: other.clone(),
        bucket: at.bucket_start(BUCKET),
        weight,
        count,
        at,
        other_total: background.product,
        sample_total: background.all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(1800);

    fn minute(m: i64) -> Timestamp {
        Timestamp::from_millis(m * 60_000)
    }

    /// Who sees whom with what weight and count.
    fn see(session: &mut Session, product: &str, interest: Interest, m: i64) -> Vec<(String, String, u64, u64)> {
        let weights = PairWeights::new(&RecommendationsSettings::default());
        let mut sightings = Vec::new();
        assert!(session.enter(minute(m), GAP));
        session.see(&product.into(), interest, minute(m), Background::default(), &weights, &mut sightings);
        sightings.into_iter().map(|s| (s.of.into_string(), s.pair.other.into_string(), s.pair.weight, s.pair.count)).collect()
    }

    fn of(of: &str, other: &str, weight: u64, count: u64) -> (String, String, u64, u64) {
        (of.into(), other.into(), weight, count)
    }

    #[test]
    fn what_follows_weighs_more_than_what_went_before_and_the_near_more_than_the_far() {
        let mut session = Session::default();
        assert_eq!(see(&mut session, "tea", Interest::Viewed, 0), []);
        assert_eq!(see(&mut session, "cup", Interest::Viewed, 1), [of("tea", "cup", 1000, 1), of("cup", "tea", 850, 1)]);
        assert_eq!(
            see(&mut session, "pot", Interest::Viewed, 2),
            [of("cup", "pot", 1000, 1), of("pot", "cup", 850, 1), of("tea", "pot", 800, 1), of("pot", "tea", 680, 1)]
        );
    }

    #[test]
    fn a_product_put_into_the_cart_draws_more_and_a_later_add_draws_the_difference() {
        let mut session = Session::default();
        see(&mut session, "tea", Interest::Viewed, 0);
        assert_eq!(see(&mut session, "cup", Interest::Added, 1), [of("tea", "cup", 3000, 1), of("cup", "tea", 850, 1)]);
        assert_eq!(see(&mut session, "tea", Interest::Added, 2), [of("cup", "tea", 2000, 0)]);
    }

    #[test]
    fn a_pair_counts_once_a_session_and_again_in_the_next() {
        let mut session = Session::default();
        see(&mut session, "tea", Interest::Viewed, 0);
        see(&mut session, "cup", Interest::Viewed, 1);
        assert_eq!(see(&mut session, "tea", Interest::Viewed, 2), []);
        assert_eq!(session.items.iter().map(|s| s.product.as_str()).collect::<Vec<_>>(), ["cup", "tea"]);
        assert_eq!(see(&mut session, "tea", Interest::Viewed, 32), [], "exactly the gap is still the same session");
        assert_eq!(see(&mut session, "cup", Interest::Viewed, 63), [], "a new session knows no products");
        assert_eq!(see(&mut session, "tea", Interest::Viewed, 64).len(), 2);
    }

    #[test]
    fn a_straggler_from_before_the_session_disturbs_nothing() {
        let mut session = Session::default();
        see(&mut session, "tea", Interest::Viewed, 100);
        let before = session.clone();
        assert!(!session.enter(minute(69), GAP));
        assert_eq!(session, before);
        assert!(session.enter(minute(70), GAP));
        assert_eq!(session.last_at, minute(100));
    }

    #[test]
    fn products_from_before_the_log_in_make_no_pairs_until_seen_again() {
        let mut anonymous = Session::default();
        see(&mut anonymous, "tea", Interest::Viewed, 0);
        let mut known = Session::default();
        see(&mut known, "cup", Interest::Viewed, 5);
        known.take_over(anonymous.items, GAP);
        assert_eq!(known.items.iter().map(|s| (s.product.as_str(), s.moved)).collect::<Vec<_>>(), [("tea", true), ("cup", false)]);
        assert_eq!(see(&mut known, "pot", Interest::Viewed, 6).len(), 2, "with the cup alone");
        assert_eq!(see(&mut known, "tea", Interest::Viewed, 7).len(), 4, "now the tea is of this session");
    }

    #[test]
    fn pairs_reach_only_so_far_back_and_a_session_is_bounded() {
        let mut session = Session::default();
        for i in 0..40 {
            assert!(see(&mut session, &format!("p{i}"), Interest::Viewed, i).len() <= 10);
            session.bound(30);
        }
        assert_eq!(session.items.len(), 30);
        assert_eq!(session.items[0].product.as_str(), "p10");
    }
}
