//! Pairs on their way from the shoppers to the products: summed by (product, other, bucket) within a commit, so that a
//! product that many look at costs one record.

use super::session::{Background, PairWeights, pair};
use std::collections::BTreeMap;
use tillflow_engine_api::Combine;
use tillflow_schemas::{Item, ItemPair, ItemPairs, ProductId, Timestamp};

/// Items of an order that make pairs (contract.md: an order of 10,000 items is accepted, pairs come from its first 50).
pub const ORDER_ITEMS: usize = 50;
/// Bytes of pairs kept a product and commit; a record must stay below the log's limit. The lightest pairs go.
const LARGEST_BATCH: usize = 700_000;
/// A pair's size as JSON, without its id.
const PAIR_BYTES: usize = 190;

/// One product as seen from another.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// Whose neighbour it is.
    pub of: ProductId,
    /// The neighbour.
    pub pair: ItemPair,
}

/// Pairs of one product, of one commit.
#[derive(Clone, Debug)]
pub struct PairBatch {
    product: ProductId,
    source: u32,
    /// By other product, bucket, and whether it is told how usual that product is: a guest's pair is not one of the sample's.
    pairs: BTreeMap<(ProductId, Timestamp, bool), ItemPair>,
}

impl PairBatch {
    /// The sightings of a record, a batch a product. `source` is the partition that saw them.
    pub fn of(source: u32, sightings: Vec<Sighting>) -> Vec<Self> {
        let mut batches: BTreeMap<ProductId, Self> = BTreeMap::new();
        for Sighting { of, pair } in sightings {
            match batches.get_mut(&of) {
                Some(batch) => batch.add(pair),
                None => {
                    let mut batch = Self { product: of.clone(), source, pairs: BTreeMap::new() };
                    batch.add(pair);
                    batches.insert(of, batch);
                }
            }
        }
        batches.into_values().collect()
    }

    fn add(&mut self, pair: ItemPair) {
        let key = (pair.other.clone(), pair.bucket, pair.sample_total > 0);
        match self.pairs.get_mut(&key) {
            Some(sum) => absorb(sum, &pair),
            None => {
                self.pairs.insert(key, pair);
            }
        }
    }
}

/// Adds up two sums of one neighbour and bucket; of what was known of its popularity the latest stays.
fn absorb(sum: &mut ItemPair, more: &ItemPair) {
    sum.weight = sum.weight.saturating_add(more.weight);
    sum.count = sum.count.saturating_add(more.count);
    let known = |p: &ItemPair| (p.at, p.other_total, p.sample_total);
    if known(more) > known(sum) {
        (sum.at, sum.other_total, sum.sample_total) = known(more);
    }
}

impl Combine for PairBatch {
    type Out = ItemPairs;

    fn slot(&self) -> String {
        self.product.as_str().to_owned()
    }

    fn absorb(&mut self, other: Self) {
        other.pairs.into_values().for_each(|pair| self.add(pair));
    }

    fn finish(self) -> ItemPairs {
        let mut pairs: Vec<ItemPair> = self.pairs.into_values().collect();
        let size = |p: &ItemPair| p.other.as_str().len() + PAIR_BYTES;
        if pairs.iter().map(size).sum::<usize>() > LARGEST_BATCH {
            pairs.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| (&a.other, a.bucket).cmp(&(&b.other, b.bucket))));
            let mut bytes = 0;
            pairs.retain(|p| {
                bytes += size(p);
                bytes <= LARGEST_BATCH
            });
        }
        ItemPairs { product_id: self.product, source: self.source, pairs }
    }
}

/// The different products of an order's first [`ORDER_ITEMS`] items, in its order.
pub fn products_of(items: &[Item]) -> Vec<ProductId> {
    let mut products: Vec<ProductId> = Vec::new();
    for item in items.iter().take(ORDER_ITEMS) {
        if !products.contains(&item.product_id) {
            products.push(item.product_id.clone());
        }
    }
    products
}

/// Each product of an order, as seen from each other one.
pub fn of_order(products: &[(ProductId, Background)], at: Timestamp, weights: &PairWeights) -> Vec<Sighting> {
    let mut sightings = Vec::new();
    for (of, _) in products {
        for (other, background) in products.iter().filter(|(other, _)| other != of) {
            sightings.push(Sighting { of: of.clone(), pair: pair(other, *background, weights.order, 1, at) });
        }
    }
    sightings
}

#[cfg(test)]
mod tests {
    use super::super::RecommendationsSettings;
    use super::*;
    use proptest::prelude::*;

    fn item(product: &str) -> Item {
        Item { product_id: product.into(), quantity: 1, price: None }
    }

    #[test]
    fn an_order_pairs_each_product_with_each_other_from_its_first_fifty() {
        let weights = PairWeights::new(&RecommendationsSettings::default());
        let known = |products: Vec<ProductId>| products.into_iter().map(|p| (p, Background::default())).collect::<Vec<_>>();
        let three = known(products_of(&[item("a"), item("b"), item("a"), item("c")]));
        let sightings = of_order(&three, Timestamp::from_millis(0), &weights);
        assert_eq!(sightings.len(), 6);
        assert!(sightings.iter().all(|s| s.pair.weight == 10_000 && s.pair.count == 1));
        let many: Vec<Item> = (0..10_000).map(|i| item(&format!("p{i}"))).collect();
        assert_eq!(products_of(&many).len(), 50);
    }

    #[test]
    fn what_a_user_s_order_tells_of_a_product_stays_beside_a_later_guest_s() {
        let sighting = |minute: i64, total: u64| Sighting {
            of: "a".into(),
            pair: pair(&"b".into(), Background { product: total, all: 10 * total }, 1, 1, Timestamp::from_millis(60_000 * minute)),
        };
        let record = PairBatch::of(0, vec![sighting(0, 2), sighting(1, 0)]).remove(0).finish();
        assert_eq!(record.pairs.iter().map(|p| (p.other_total, p.sample_total, p.count)).collect::<Vec<_>>(), [(0, 0, 1), (2, 20, 1)]);
    }

    #[test]
    fn a_batch_too_large_for_a_record_loses_its_lightest_pairs() {
        let sighting = |i: usize| Sighting {
            of: "a".into(),
            pair: pair(&format!("{i:0>200}").into(), Background::default(), i as u64, 1, Timestamp::from_millis(0)),
        };
        let mut batches = PairBatch::of(0, (0..4_000).map(sighting).collect());
        let record = batches.remove(0).finish();
        assert!(serde_json::to_vec(&record).unwrap().len() < tillflow_engine_api::LARGEST_VALUE);
        assert_eq!(record.pairs[0].weight, 3_999);
        assert!(record.pairs.len() > 1_500);
    }

    proptest! {
        #[test]
        fn the_order_and_grouping_in_which_pairs_are_absorbed_do_not_matter(
            sightings in prop::collection::vec((0_u8..3, 0_u8..3, 0_i64..4, 0_u64..9, 0_u64..9), 1..40), cut in 0_usize..40,
        ) {
            let sightings: Vec<Sighting> = sightings.into_iter().filter(|(a, b, ..)| a != b).map(|(a, b, week, weight, total)| {
                let at = Timestamp::from_millis(week * 302_400_000);
                Sighting { of: format!("p{a}").into(), pair: pair(&format!("p{b}").into(), Background { product: total, all: 9 }, weight, 1, at) }
            }).collect();
            let finish = |batches: Vec<PairBatch>| batches.into_iter().map(Combine::finish).collect::<Vec<_>>();
            let whole = finish(PairBatch::of(7, sightings.clone()));
            let mut parts = sightings;
            let tail = parts.split_off(cut.min(parts.len()));
            let mut merged: BTreeMap<String, PairBatch> = BTreeMap::new();
            for batch in PairBatch::of(7, tail).into_iter().chain(PairBatch::of(7, parts)) {
                match merged.get_mut(&batch.slot()) {
                    Some(m) => m.absorb(batch),
                    None => { merged.insert(batch.slot(), batch); }
                }
            }
            prop_assert_eq!(finish(merged.into_values().collect()), whole);
        }
    }
}
