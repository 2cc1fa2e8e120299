//! Which neighbours of a product stand out, and in which order.
//!
//! Rank is co-occurrence, normalised by all that is seen with the product and aware of direction (the pairs' weights
//! are). Before it, a filter: what is seen with everything is not related to anything. A neighbour stands out when its
//! share of the product's pairs exceeds its share of all sightings by more than chance, judged by the log-likelihood
//! ratio of Dunning, "Accurate Methods for the Statistics of Surprise and Coincidence" (1993). With few pairs or a small
//! sample nothing can be judged, and plain co-occurrence speaks alone: a shop's first pair is its first recommendation.

use super::{
    RecommendationsSettings,
    neighbours::{Known, Memory, Neighbours},
};
use std::{cmp::Reverse, collections::BinaryHeap};
use tillflow_schemas::{ProductId, Related};

/// The product's published neighbours, best first; ties by id.
pub fn related(of: &Neighbours, memory: &Memory, settings: &RecommendationsSettings) -> Vec<Related> {
    let (mut weight, mut pairs) = (0_u64, 0_u64);
    let mut candidates: Vec<(u64, Reverse<&ProductId>, u64, &Known)> = Vec::with_capacity(of.list.len());
    for neighbour in &of.list {
        let (w, n) = (neighbour.weight(of.newest, memory), neighbour.count(of.newest, memory));
        (weight, pairs) = (weight.saturating_add(w), pairs.saturating_add(n));
        if w > 0 {
            candidates.push((w, Reverse(&neighbour.other), n, &neighbour.known));
        }
    }
    // Only the heaviest are looked at closely: of thousands of neighbours some twenty are published.
    let mut heaviest = BinaryHeap::from(candidates);
    std::iter::from_fn(|| heaviest.pop())
        .filter(|(.., count, known)| stands_out(*count, pairs, known, settings))
        .take(settings.related)
        .map(|(w, Reverse(other), count, _)| Related { product_id: other.clone(), score: rounded(w as f64 / weight as f64), count })
        .collect()
}

/// To six digits: the same on every machine, and short on the wire.
pub fn rounded(score: f64) -> f64 {
    (score * 1e6).round() / 1e6
}

fn stands_out(together: u64, pairs: u64, known: &Known, settings: &RecommendationsSettings) -> bool {
    if pairs < settings.llr_least_pairs || known.all < settings.llr_least_sample {
        return true;
    }
    let more_than_usual = u128::from(together) * u128::from(known.all) > u128::from(known.product) * u128::from(pairs);
    more_than_usual && log_likelihood_ratio(together, pairs, known.product, known.all) >= settings.llr_threshold
}

/// How surprising it is that `a` of `row` pairs lead to a product that makes up `b` of `sample` sightings: twice the
/// log of how much likelier two different rates are than one common one.
pub fn log_likelihood_ratio(a: u64, row: u64, b: u64, sample: u64) -> f64 {
    let [a, row, b, sample] = [a.min(row) as f64, row as f64, b.min(sample) as f64, sample as f64];
    let common = (a + b) / (row + sample);
    // k·ln(observed rate / common rate), where 0·ln(0) is 0.
    let term = |k: f64, n: f64, rate: f64| if k > 0.0 { k * (k / n / rate).ln() } else { 0.0 };
    2.0 * (term(a, row, common) + term(b, sample, common) + term(row - a, row, 1.0 - common) + term(sample - b, sample, 1.0 - common))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::{ItemPair, Timestamp};

    fn neighbours(pairs: &[(&str, u64, u64, u64)]) -> (Neighbours, Memory, RecommendationsSettings) {
        let settings = RecommendationsSettings::default();
        let memory = Memory::new(&settings);
        let mut of = Neighbours::default();
        for (other, count, total, sample) in pairs {
            let pair = ItemPair {
                other: (*other).into(),
                bucket: Timestamp::from_millis(0),
                weight: count * 1000,
                count: *count,
                at: Timestamp::from_millis(0),
                other_total: *total,
                sample_total: *sample,
            };
            of.add([(0, &pair)], &memory);
        }
        (of, memory, settings)
    }

    fn names(related: &[Related]) -> Vec<&str> {
        related.iter().map(|r| r.product_id.as_str()).collect()
    }

    #[test]
    fn the_ratio_is_zero_at_the_usual_rate_and_grows_with_evidence() {
        assert!(log_likelihood_ratio(10, 100, 1_000, 10_000).abs() < 1e-9);
        // Dunning's table with rows (10, 90) and (10, 990): 2·Σ k·ln(k·N/(row·column)).
        let by_hand: f64 = 2.0
            * (10.0 * (10.0 * 1100.0 / (100.0 * 20.0_f64)).ln()
                + 90.0 * (90.0 * 1100.0 / (100.0 * 1080.0_f64)).ln()
                + 10.0 * (10.0 * 1100.0 / (1000.0 * 20.0_f64)).ln()
                + 990.0 * (990.0 * 1100.0 / (1000.0 * 1080.0_f64)).ln());
        assert!((log_likelihood_ratio(10, 100, 10, 1_000) - by_hand).abs() < 1e-9);
        assert!(log_likelihood_ratio(100, 1_000, 100, 10_000) > log_likelihood_ratio(10, 100, 10, 1_000));
        assert!(log_likelihood_ratio(0, 0, 0, 0).is_finite() || log_likelihood_ratio(0, 0, 0, 0).is_nan());
    }

    #[test]
    fn the_carrier_bag_that_goes_with_everything_is_related_to_nothing() {
        let (of, memory, settings) = neighbours(&[("bag", 30, 3_000, 10_000), ("cup", 25, 50, 10_000), ("pot", 45, 90, 10_000)]);
        let related = related(&of, &memory, &settings);
        assert_eq!(names(&related), ["pot", "cup"]);
        assert_eq!((related[0].score, related[0].count), (0.45, 45));
    }

    #[test]
    fn a_small_shop_hears_its_first_pairs_whatever_the_ratio() {
        let (of, memory, settings) = neighbours(&[("bag", 1, 3, 4)]);
        assert_eq!(names(&related(&of, &memory, &settings)), ["bag"]);
        let (of, memory, settings) = neighbours(&[("bag", 100, 900, 999)]);
        assert_eq!(names(&related(&of, &memory, &settings)), ["bag"], "a sample below 1,000 judges nothing");
    }

    #[test]
    fn ties_are_broken_by_id() {
        let (of, memory, settings) = neighbours(&[("b", 2, 0, 0), ("c", 2, 0, 0), ("a", 2, 0, 0)]);
        assert_eq!(names(&related(&of, &memory, &settings)), ["a", "b", "c"]);
    }
}
