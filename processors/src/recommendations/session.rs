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
    /// Whether it makes pairs, leads to recommendations, or both.
    pub standing: Standing,
}

/// What a product of a session is good for. When a session moves to another id (from another partition) depends on
/// timing, and pair counts must not: so what moved makes pairs only where it was seen, and leads to recommendations
/// only where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Seen under this id: both.
    Own,
    /// Seen under this id, and moved to the user the visitor turned out to be: pairs only.
    MovedOut,
    /// Seen before the log-in: recommendations only.
    MovedIn,
}

/// What a shopper looked at, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Different products, bounded.
    pub items: Vec<Seen>,
    /// The latest event under this id.
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
            self.items.retain(|s| s.standing == Standing::MovedIn && at <= s.at + gap);
        }
        self.last_at = self.last_at.max(at);
        true
    }

    /// Whether the product has not been seen in the session under this id.
    pub fn is_new(&self, product: &ProductId) -> bool {
        !self.items.iter().any(|s| s.product == *product && s.pairs())
    }

    /// The products that lead to recommendations, the latest first.
    pub fn latest_first(&self) -> impl Iterator<Item = &ProductId> {
        self.items.iter().rev().filter(|s| s.standing != Standing::MovedOut).map(|s| &s.product)
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
        let before = self.items.iter().position(|s| s.product == *product).map(|i| self.items.remove(i)).filter(Seen::pairs);
        let seen = Seen {
            product: product.clone(),
            at,
            interest: before.as_ref().map_or(interest, |b| b.interest.max(interest)),
            background: before.as_ref().map_or(background, |b| b.background),
            standing: Standing::Own,
        };
        let others = self.items.iter().rev().filter(|s| s.pairs()).take(weights.reach()).enumerate();
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

    /// Forgets the oldest products beyond `limit`, those that moved in first: they must not displace what makes pairs.
    pub fn bound(&mut self, limit: usize) {
        let mut excess = self.items.len().saturating_sub(limit);
        self.items.retain(|s| {
            let goes = excess > 0 && s.standing == Standing::MovedIn;
            excess -= usize::from(goes);
            !goes
        });
        self.items.drain(..excess);
    }

    /// The products that move to the user the visitor turned out to be.
    pub fn move_out(&mut self) -> Vec<Seen> {
        let mut leaving = Vec::new();
        for seen in self.items.iter_mut().filter(|s| s.standing == Standing::Own) {
            leaving.push(seen.clone());
            seen.standing = Standing::MovedOut;
        }
        leaving
    }

    /// Takes in the products of the same person's session before the log-in, in the order they were seen.
    pub fn move_in(&mut self, earlier: Vec<Seen>, gap: Duration) {
        let own = self.items.iter().any(Seen::pairs);
        for seen in earlier {
            let current = !own || (self.last_at <= seen.at + gap && seen.at <= self.last_at + gap);
            if current && !self.items.iter().any(|s| s.product == seen.product) {
                // Where its time puts it; the order of what was seen here stays, since distances are counted by it.
                let place = self.items.iter().position(|s| s.at > seen.at).unwrap_or(self.items.len());
                self.items.insert(place, Seen { standing: Standing::MovedIn, ..seen });
            }
        }
    }
}

impl Seen {
    fn pairs(&self) -> bool {
        self.standing != Standing::MovedIn
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
    use proptest::prelude::*;

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

    fn names(session: &Session) -> Vec<&str> {
        session.latest_first().map(|p| p.as_str()).collect()
    }

    #[test]
    fn what_moved_at_the_log_in_leads_to_recommendations_where_it_went_and_makes_pairs_where_it_was_seen() {
        let mut visitor = Session::default();
        see(&mut visitor, "tea", Interest::Viewed, 0);
        let mut known = Session::default();
        see(&mut known, "cup", Interest::Viewed, 5);
        known.move_in(visitor.move_out(), GAP);
        assert_eq!((names(&known), names(&visitor)), (vec!["cup", "tea"], vec![]));
        assert_eq!(see(&mut known, "pot", Interest::Viewed, 6).len(), 2, "with the cup alone");
        assert_eq!(see(&mut known, "tea", Interest::Viewed, 7).len(), 4, "now the tea was seen here too");
        assert_eq!(see(&mut visitor, "rum", Interest::Viewed, 8).len(), 2, "with the tea, which was seen here");
    }

    #[test]
    fn what_moved_in_ages_by_its_own_time_and_displaces_nothing() {
        let mut visitor = Session::default();
        (0..30).for_each(|i| drop(see(&mut visitor, &format!("v{i}"), Interest::Viewed, 20)));
        let mut known = Session::default();
        (0..20).for_each(|i| drop(see(&mut known, &format!("k{i}"), Interest::Viewed, 0)));
        known.move_in(visitor.move_out(), GAP);
        known.bound(30);
        assert_eq!(known.items.iter().filter(|s| s.standing == Standing::Own).count(), 20);
        assert_eq!(known.items.len(), 30);
        assert!(known.enter(minute(40), GAP));
        assert!(known.items.iter().all(|s| s.standing == Standing::MovedIn), "the session under this id is over");
        assert_eq!(known.items.len(), 10);
        assert_eq!(see(&mut known, "tea", Interest::Viewed, 71), []);
        assert_eq!(names(&known), ["tea"]);
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

    proptest! {
        #[test]
        fn when_a_session_moves_makes_no_difference_to_pairs(
            seen in prop::collection::vec((0_u8..12, any::<bool>(), 0_i64..90), 1..60), moving_in in 0_usize..60, moving_out in 0_usize..60,
        ) {
            let mut visitor = Session::default();
            (0..8).for_each(|i| drop(see(&mut visitor, &format!("p{}", i * 2), Interest::Viewed, 30 + i)));
            let earlier = visitor.move_out();
            let weights = PairWeights::new(&RecommendationsSettings::default());
            let run = |moving_in: usize, moving_out: usize| {
                let (mut session, mut sightings) = (Session::default(), Vec::new());
                for (i, (product, added, m)) in seen.iter().enumerate() {
                    if i == moving_in {
                        session.move_in(earlier.clone(), GAP);
                        session.bound(6);
                    }
                    if i == moving_out {
                        session.move_out();
                    }
                    let interest = if *added { Interest::Added } else { Interest::Viewed };
                    if session.enter(minute(*m), GAP) {
                        session.see(&format!("p{product}").into(), interest, minute(*m), Background::default(), &weights, &mut sightings);
                        session.bound(6);
                    }
                }
                sightings
            };
            prop_assert_eq!(run(moving_in, moving_out), run(usize::MAX, usize::MAX));
        }
    }
}
