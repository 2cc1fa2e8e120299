//! A product's neighbours: sums of the pairs that lead from it, by other product and event-time bucket.
//!
//! Whatever is read from them depends only on *which* pairs were added, not on their order or grouping: sums and maxima
//! of integers commute, decay is applied on reading by a bucket's age beside the product's newest one, and a bucket
//! that has become too old never becomes young again. (The cap breaks this: below it two runs agree to the digit;
//! above it, which neighbours were forgotten on the way may differ.)

use super::{RecommendationsSettings, session::BUCKET};
use serde::{Deserialize, Serialize};
use tillflow_schemas::{ItemPair, ProductId};

/// All that is kept of a product's pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// By id.
    pub list: Vec<Neighbour>,
    /// The newest bucket, in bucket widths since 1970.
    pub newest: i64,
    /// Weight of what the cap made it forget: nothing that is not in the list weighs more, and nothing in it is short
    /// by more. The error of the bound, in thousandths.
    pub forgotten: u64,
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The other product.
    pub other: ProductId,
    /// How usual it is, as last heard.
    pub known: Known,
    /// By bucket, ascending.
    pub sums: Vec<Sum>,
}

/// How usual a product is in one sample of sessions; of those that say so the greatest `(at, source, …)` counts. A guest's pair
/// says nothing: its record may lie in any partition, and is in no partition's sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Known {
    /// When that was so, milliseconds.
    pub at: i64,
    /// Whose sample.
    pub source: u32,
    /// Sightings of the product in it.
    pub product: u64,
    /// Sightings of all products in it; 0 is "not known".
    pub all: u64,
}

/// Pairs of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// In bucket widths since 1970.
    pub bucket: i64,
    /// In thousandths.
    pub weight: u64,
    /// Times seen together.
    pub count: u64,
}

/// How weight fades with a bucket's age, and how many neighbours are kept.
#[derive(Clone, Debug)]
pub struct Memory {
    /// What is left at each age, in 1/65536; beyond its end nothing is.
    left: Vec<u64>,
    cap: usize,
}

impl Memory {
    /// The memory that the settings ask for.
    pub fn new(settings: &RecommendationsSettings) -> Self {
        let bucket_days = BUCKET.as_secs_f64() / 86_400.0;
        let left = |age: u32| (65_536.0 * (-f64::from(age) * bucket_days / f64::from(settings.half_life_days)).exp2()).round() as u64;
        Self { left: (0..settings.window_weeks).map(left).collect(), cap: settings.neighbours }
    }

    /// Whether a bucket still counts beside the newest.
    fn holds(&self, bucket: i64, newest: i64) -> bool {
        usize::try_from(newest - bucket).is_ok_and(|age| age < self.left.len())
    }

    /// What is left of `weight`.
    fn faded(&self, weight: u64, bucket: i64, newest: i64) -> u64 {
        let left = usize::try_from(newest - bucket).ok().and_then(|age| self.left.get(age)).copied().unwrap_or(0);
        ((u128::from(weight) * u128::from(left)) >> 16) as u64
    }
}

impl Neighbour {
    /// Its weight now, in thousandths.
    pub fn weight(&self, newest: i64, memory: &Memory) -> u64 {
        self.sums.iter().fold(0, |all, s| all.saturating_add(memory.faded(s.weight, s.bucket, newest)))
    }

    /// Times seen together, of those that still count.
    pub fn count(&self, newest: i64, memory: &Memory) -> u64 {
        self.sums.iter().filter(|s| memory.holds(s.bucket, newest)).fold(0, |all, s| all.saturating_add(s.count))
    }

    fn add(&mut self, source: u32, pair: &ItemPair) {
        self.known = std::cmp::max_by_key(self.known, known(source, pair), |k| (k.all > 0, *k));
        let bucket = bucket(pair);
        let at = self.sums.partition_point(|s| s.bucket < bucket);
        match self.sums.get_mut(at).filter(|s| s.bucket == bucket) {
            Some(sum) => {
                sum.weight = sum.weight.saturating_add(pair.weight);
                sum.count = sum.count.saturating_add(pair.count);
            }
            None => self.sums.insert(at, Sum { bucket, weight: pair.weight, count: pair.count }),
        }
    }
}

fn bucket(pair: &ItemPair) -> i64 {
    pair.bucket.millis().div_euclid(BUCKET.as_millis() as i64)
}

fn known(source: u32, pair: &ItemPair) -> Known {
    Known { at: pair.at.millis(), source, product: pair.other_total, all: pair.sample_total }
}

impl Neighbours {
    /// Adds pairs, each with its source, in any order.
    pub fn add<'a>(&mut self, pairs: impl IntoIterator<Item = (u32, &'a ItemPair)>, memory: &Memory) {
        let mut pairs: Vec<(u32, &ItemPair)> = pairs.into_iter().collect();
        let newest = pairs.iter().map(|(_, pair)| bucket(pair)).fold(self.newest, i64::max);
        if newest > self.newest {
            self.newest = newest;
            self.fade(memory);
        }
        pairs.retain(|(_, pair)| memory.holds(bucket(pair), newest));
        pairs.sort_by(|(_, a), (_, b)| a.other.cmp(&b.other));
        let mut fresh: Vec<Neighbour> = Vec::new();
        let mut from = 0;
        for same in pairs.chunk_by(|(_, a), (_, b)| a.other == b.other) {
            let Some((source, first)) = same.first() else { continue };
            // Both lie in the order of ids: the search goes on where the last one ended.
            let rest = self.list.get_mut(from..).unwrap_or_default();
            let neighbour = match rest.binary_search_by(|n| n.other.cmp(&first.other)) {
                Ok(at) => {
                    from += at;
                    rest.get_mut(at)
                }
                Err(at) => {
                    from += at;
                    fresh.push(Neighbour { other: first.other.clone(), known: known(*source, first), sums: Vec::new() });
                    fresh.last_mut()
                }
            };
            if let Some(neighbour) = neighbour {
                same.iter().for_each(|(source, pair)| neighbour.add(*source, pair));
            }
        }
        if !fresh.is_empty() {
            self.list.append(&mut fresh);
            // Two runs in order: one merge.
            self.list.sort_by(|a, b| a.other.cmp(&b.other));
            self.forget(memory);
        }
    }

    /// Drops buckets that can never count again, and neighbours of which nothing is left.
    fn fade(&mut self, memory: &Memory) {
        let newest = self.newest;
        self.list.retain_mut(|neighbour| {
            neighbour.sums.retain(|s| memory.holds(s.bucket, newest));
            !neighbour.sums.is_empty()
        });
    }

    /// Above the cap (with a quarter of slack, so that newcomers can gather weight before they are judged) the lightest
    /// neighbours go.
    fn forget(&mut self, memory: &Memory) {
        let newest = self.newest;
        if self.list.len() <= memory.cap + memory.cap / 4 {
            return;
        }
        let mut weights: Vec<u64> = self.list.iter().map(|n| n.weight(newest, memory)).collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        // Ties at the edge: of those that weigh just as much, the first by id stay.
        let edge = weights.get(memory.cap.saturating_sub(1)).copied().unwrap_or(0);
        let mut room = memory.cap - weights.partition_point(|w| *w > edge);
        let forgotten = &mut self.forgotten;
        self.list.retain(|n| {
            let weight = n.weight(newest, memory);
            let stays = weight > edge || (weight == edge && room > 0);
            if weight == edge && stays {
                room -= 1;
            }
            if !stays {
                *forgotten = forgotten.saturating_add(n.sums.iter().fold(0, |all, s| all.saturating_add(s.weight)));
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillflow_schemas::Timestamp;

    const WEEK: i64 = 7 * 24 * 3600 * 1000;

    fn pair(other: &str, week: i64, weight: u64) -> ItemPair {
        let bucket = Timestamp::from_millis(week * WEEK);
        ItemPair { other: other.into(), bucket, weight, count: 1, at: bucket, other_total: weight, sample_total: 100 }
    }

    fn memory(settings: RecommendationsSettings) -> Memory {
        Memory::new(&settings)
    }

    #[test]
    fn what_is_known_of_a_product_stays_whichever_partition_a_later_guest_comes_by() {
        let memory = memory(RecommendationsSettings::default());
        let (bought, guests) = (pair("b", 10, 1_000), ItemPair { other_total: 0, sample_total: 0, ..pair("b", 11, 1_000) });
        for partition in 0..3 {
            for pairs in [[(1, &bought), (partition, &guests)], [(partition, &guests), (1, &bought)]] {
                let mut neighbours = Neighbours::default();
                neighbours.add(pairs, &memory);
                assert_eq!((neighbours.list[0].known, neighbours.list[0].count(11, &memory)), (known(1, &bought), 2));
            }
        }
    }

    #[test]
    fn weight_halves_in_sixty_days_and_after_half_a_year_a_pair_counts_no_more() {
        let memory = memory(RecommendationsSettings { half_life_days: 14, window_weeks: 5, ..RecommendationsSettings::default() });
        let mut of = Neighbours::default();
        of.add([(0, &pair("tea", 100, 1000))], &memory);
        assert_eq!(of.list[0].weight(100, &memory), 1000);
        of.add([(0, &pair("cup", 102, 10))], &memory);
        assert_eq!(
            of.list.iter().map(|n| (n.other.as_str(), n.weight(of.newest, &memory))).collect::<Vec<_>>(),
            [("cup", 10), ("tea", 500)]
        );
        of.add([(0, &pair("tea", 101, 0))], &memory);
        of.add([(0, &pair("cup", 105, 10))], &memory);
        assert_eq!(of.list[1].sums.iter().map(|s| s.bucket).collect::<Vec<_>>(), [101], "week 100 is five weeks old");
        of.add([(0, &pair("tea", 50, 9))], &memory);
        assert_eq!(of.list[1].weight(of.newest, &memory), 0, "a pair of long ago changes nothing");
    }

    #[test]
    fn above_the_cap_the_lightest_go_and_their_weight_is_the_stated_error() {
        let memory = memory(RecommendationsSettings { neighbours: 8, ..RecommendationsSettings::default() });
        let mut of = Neighbours::default();
        let pairs: Vec<ItemPair> = (0..11).map(|i| pair(&format!("p{i:02}"), 100, if i < 6 { 50 } else { 5 })).collect();
        of.add(pairs.iter().map(|p| (0, p)), &memory);
        assert_eq!(of.list.len(), 8);
        assert_eq!(of.list.iter().map(|n| n.other.as_str()).collect::<Vec<_>>(), ["p00", "p01", "p02", "p03", "p04", "p05", "p06", "p07"]);
        assert_eq!(of.forgotten, 15);
    }

    /// The bound's price on a skewed shop: the top 20 of 256 kept, beside the top 20 of all.
    #[test]
    fn the_cap_costs_next_to_nothing_of_the_published_top() {
        let (bounded, exact) = (
            memory(RecommendationsSettings { neighbours: 256, ..RecommendationsSettings::default() }),
            memory(RecommendationsSettings { neighbours: 100_000, ..RecommendationsSettings::default() }),
        );
        let (mut few, mut all) = (Neighbours::default(), Neighbours::default());
        let mut seed = 1_u64;
        for _ in 0..400 {
            let pairs: Vec<ItemPair> = (0..50)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let uniform = (seed >> 11) as f64 / (1_u64 << 53) as f64;
                    // Zipf-like over 5,000 products.
                    pair(&format!("p{}", (5_000_f64.powf(uniform)) as u64), 100, 1000)
                })
                .collect();
            few.add(pairs.iter().map(|p| (0, p)), &bounded);
            all.add(pairs.iter().map(|p| (0, p)), &exact);
        }
        let top = |of: &Neighbours, memory: &Memory| {
            let mut list: Vec<_> = of.list.iter().map(|n| (u64::MAX - n.weight(of.newest, memory), n.other.clone())).collect();
            list.sort();
            list.into_iter().take(20).map(|(_, other)| other).collect::<Vec<_>>()
        };
        assert!(all.list.len() > 1_500 && few.list.len() <= 320, "{} {}", all.list.len(), few.list.len());
        assert_eq!(top(&few, &bounded), top(&all, &exact));
    }

    fn shuffled(mut pairs: Vec<(u32, ItemPair)>, mut seed: u64) -> Vec<(u32, ItemPair)> {
        for i in (1..pairs.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pairs.swap(i, (seed >> 33) as usize % (i + 1));
        }
        pairs
    }

    proptest! {
        #[test]
        fn neighbours_are_a_function_of_the_set_of_pairs(
            pairs in prop::collection::vec((0_u32..3, 0_u8..9, 90_i64..130, 0_u64..9000), 0..60), seed: u64, group in 1_usize..9,
        ) {
            let memory = memory(RecommendationsSettings { window_weeks: 10, ..RecommendationsSettings::default() });
            let pairs: Vec<_> = pairs.into_iter().map(|(s, p, week, w)| (s, pair(&format!("p{p}"), week, w))).collect();
            let sum = |pairs: &[(u32, ItemPair)], group: usize| {
                let mut of = Neighbours::default();
                pairs.chunks(group).for_each(|chunk| of.add(chunk.iter().map(|(s, p)| (*s, p)), &memory));
                of
            };
            prop_assert_eq!(sum(&pairs, 1), sum(&shuffled(pairs, seed), group));
        }
    }
}
