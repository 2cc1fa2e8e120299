//! The product stage: sums pairs, publishes each product's neighbours.
//!
//! Three things decide how it stores and when it publishes.
//! - A popular product is touched by nearly every commit and has thousands of neighbours, of which one commit changes a
//!   few. So a touch appends its pairs as a row of their own; the large row of neighbours is written again only when
//!   they have become many, whatever is published in between.
//! - They are summed up and published at once while they have grown by an eighth, so that a young product's list is
//!   fresh within the commit; a product of long standing waits for a timer due at its pair's own time, which fires when
//!   the watermark passes it, some seconds later.
//! - The last record published must be the same however the pairs were batched (class B). So it is a function of the
//!   sums alone, it is published whenever it differs from the one before (not only when the order of the top does), and
//!   after every touch either that is done or the timer is set: an input's end-mark passes it.

use super::{
    RecommendationsSettings, association,
    neighbours::{Memory, Neighbours},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tillflow_engine_api::{Context, Declare, Error, Global, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{Event, ItemPair, ItemPairs, Product, ProductId, RelatedProducts};
use tillflow_state::Table;

/// Rows of pairs that may wait to be summed up.
const ROWS: u64 = 32;
/// Pairs that may wait in them.
const PAIRS: u64 = 512;
/// A product's list is published at once when its pairs have grown by one part of so many.
const GROWTH: u64 = 8;

/// What a touch reads and writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Touched {
    /// Numbers of the rows not yet summed up: from this one…
    from: u64,
    /// … to before this one.
    to: u64,
    /// Pairs in them.
    pending: u64,
    /// Pairs counted, ever.
    counted: u64,
    /// Pairs counted when last published.
    published: u64,
    /// Whether the timer is set.
    waiting: bool,
    /// Of the record last published: the first eight bytes of its SHA-256; `None` before the first.
    digest: Option<[u8; 8]>,
}

/// Pairs of one record, with their source.
type Row = (u32, Vec<ItemPair>);

#[derive(Clone, Copy)]
struct Tables {
    touched: Table<ProductId, Touched>,
    /// Pairs not yet summed up, by product and number.
    pending: Table<(ProductId, u64), Row>,
    neighbours: Table<ProductId, Neighbours>,
}

/// The product stage.
pub struct ProductStage {
    settings: RecommendationsSettings,
    memory: Memory,
    tables: Tables,
    related: Output<RelatedProducts>,
    publish: TimerKind,
}

impl Processor for ProductStage {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<ItemPairs>();
        // Its problems are the shopper stage's to tell: they share the section.
        let settings: RecommendationsSettings = d.settings("recommendations");
        let memory = Memory::new(&settings);
        let tables = Tables {
            touched: d.store("recommendations.touched"),
            pending: d.store("recommendations.pending"),
            neighbours: d.store("recommendations.neighbours"),
        };
        let products: Global<Product> = d.global();
        let (answering, remembering) = (settings.clone(), memory.clone());
        d.query("related", move |q| {
            let id = ProductId::from(q.key);
            let head: Option<Touched> = q.get(&tables.touched, &id)?;
            if head.is_none() && q.lookup(&products, q.key).is_none() {
                return Ok(None);
            }
            let mut of: Neighbours = q.get(&tables.neighbours, &id)?.unwrap_or_default();
            add(&mut of, &head.unwrap_or_default(), &remembering, |number| q.get(&tables.pending, &(id.clone(), number)))?;
            Ok(Some(json!({ "product_id": id, "related": association::related(&of, &remembering, &answering) })))
        });
        Self { settings, memory, tables, related: d.output(), publish: d.timer("recommendations.publish") }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::ItemPairs(ItemPairs { product_id, source, pairs }) = event else { return Ok(()) };
        let Some(last_at) = pairs.iter().map(|p| p.at).max() else { return Ok(()) };
        let mut head = cx.get(&self.tables.touched, product_id)?.unwrap_or_default();
        cx.put(&self.tables.pending, &(product_id.clone(), head.to), &(*source, pairs.clone()))?;
        head.to += 1;
        head.pending += pairs.len() as u64;
        head.counted = pairs.iter().fold(head.counted, |all, p| all.saturating_add(p.count));
        if (head.counted - head.published).saturating_mul(GROWTH) >= head.published {
            return self.publish(product_id, head, cx);
        }
        if head.is_full() {
            self.sum_up(product_id, &mut head, cx)?;
        }
        if !head.waiting {
            head.waiting = true;
            cx.set_timer(self.publish, product_id.as_str(), "", last_at)?;
        }
        cx.put(&self.tables.touched, product_id, &head)
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let product = ProductId::from(timer.key.as_str());
        let mut head = cx.get(&self.tables.touched, &product)?.unwrap_or_default();
        head.waiting = false;
        self.publish(&product, head, cx)
    }
}

impl Touched {
    fn is_full(&self) -> bool {
        self.to - self.from >= ROWS || self.pending >= PAIRS
    }
}

/// Adds to a product's neighbours the pairs that wait, whose rows `row` reads by their numbers.
fn add(of: &mut Neighbours, head: &Touched, memory: &Memory, row: impl FnMut(u64) -> Result<Option<Row>>) -> Result<()> {
    let rows = (head.from..head.to).map(row).collect::<Result<Vec<_>>>()?;
    of.add(rows.iter().flatten().flat_map(|(source, pairs)| pairs.iter().map(|pair| (*source, pair))), memory);
    Ok(())
}

impl ProductStage {
    /// The neighbours with all that waits; once that is much, or as much as they are, it is stored with them.
    fn sum_up(&self, product: &ProductId, head: &mut Touched, cx: &mut Context<'_>) -> Result<Neighbours> {
        let mut of = cx.get(&self.tables.neighbours, product)?.unwrap_or_default();
        let is_full = head.is_full() || head.pending >= of.list.len() as u64;
        add(&mut of, head, &self.memory, |number| cx.get(&self.tables.pending, &(product.clone(), number)))?;
        if head.pending > 0 && is_full {
            (head.from..head.to).for_each(|number| cx.delete(&self.tables.pending, &(product.clone(), number)));
            (head.from, head.pending) = (head.to, 0);
            cx.put(&self.tables.neighbours, product, &of)?;
        }
        Ok(of)
    }

    /// Publishes the product's neighbours, if that says anything new. A timer that is set stays set: it costs little to
    /// find nothing new, and what it guards is the last word.
    fn publish(&self, product: &ProductId, mut head: Touched, cx: &mut Context<'_>) -> Result<()> {
        let of = self.sum_up(product, &mut head, cx)?;
        let record = RelatedProducts { product_id: product.clone(), related: association::related(&of, &self.memory, &self.settings) };
        head.published = head.counted;
        let digest = digest(&record)?;
        let news = head.digest != Some(digest) && (head.digest.is_some() || !record.related.is_empty());
        if news {
            head.digest = Some(digest);
        }
        cx.put(&self.tables.touched, product, &head)?;
        if news {
            cx.emit(&self.related, record)?;
        }
        Ok(())
    }
}

fn digest(record: &RelatedProducts) -> Result<[u8; 8]> {
    let json = serde_json::to_vec(record).map_err(|e| Error::reject(format!("related products can't be written: {e}")))?;
    let hash = Sha256::digest(&json);
    let mut digest = [0; 8];
    digest.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use tillflow_engine_api::testing::Driver;
    use tillflow_schemas::Timestamp;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_772_352_000_000 + second * 1000)
    }

    fn pair(other: &str, second: i64, weight: u64) -> ItemPair {
        let at = at(second);
        let bucket = at.bucket_start(super::super::session::BUCKET);
        ItemPair { other: other.into(), bucket, weight, count: 1, at, other_total: 1, sample_total: 10 }
    }

    fn pairs(pairs: Vec<ItemPair>) -> Event {
        Event::ItemPairs(ItemPairs { product_id: "tea".into(), source: 0, pairs })
    }

    fn ids(record: &RelatedProducts) -> Vec<&str> {
        record.related.iter().map(|r| r.product_id.as_str()).collect()
    }

    #[test]
    fn the_first_pair_is_published_at_once() {
        let mut shop = Driver::of::<ProductStage>();
        shop.send(pairs(vec![pair("cup", 0, 1000)]));
        let published = shop.emitted::<RelatedProducts>();
        assert_eq!(published.len(), 1);
        assert_eq!(ids(&published[0]), ["cup"]);
        assert_eq!((published[0].related[0].score, published[0].related[0].count), (1.0, 1));
    }

    #[test]
    fn a_long_standing_list_waits_for_the_watermark_and_then_says_the_last_word() {
        let mut shop = Driver::of::<ProductStage>();
        for i in 0..40 {
            shop.send(pairs(vec![pair("cup", i, 1000)]));
        }
        shop.advance(at(40));
        shop.emitted::<RelatedProducts>();
        shop.send(pairs(vec![pair("pot", 50, 1000)])).send(pairs(vec![pair("pot", 51, 1000)]));
        assert_eq!(shop.emitted::<RelatedProducts>(), []);
        shop.advance(at(50));
        let published = shop.emitted::<RelatedProducts>();
        assert_eq!(published.len(), 1);
        assert_eq!(published[0].related[1].count, 2);
        assert_eq!(shop.query("related", "tea", "").unwrap().unwrap()["related"][0]["count"], 40);
    }

    #[test]
    fn the_related_query_knows_the_catalogue_and_nothing_else() {
        let mut shop = Driver::of::<ProductStage>();
        assert_eq!(shop.query("related", "tea", "").unwrap(), None);
        shop.global(Product { product_id: "tea".into(), ..Product::default() });
        assert_eq!(shop.query("related", "tea", "").unwrap().unwrap(), json!({"product_id": "tea", "related": []}));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_last_record_is_the_same_however_pairs_are_batched_and_ordered(
            seen in prop::collection::vec((0_u8..6, 0_i64..3000, 1_u64..4000), 1..120), group in 1_usize..20, turn in 0_usize..120,
        ) {
            let seen: Vec<ItemPair> = seen.into_iter().map(|(p, s, w)| pair(&format!("p{p}"), s * 1000, w)).collect();
            let last = |seen: Vec<ItemPair>, group: usize| {
                let mut shop = Driver::of::<ProductStage>();
                for chunk in seen.chunks(group) {
                    shop.send(pairs(chunk.to_vec()));
                    let clock = chunk.iter().map(|p| p.at).max().unwrap_or_default();
                    shop.advance(clock - Duration::from_secs(10));
                }
                shop.advance(at(3_000_000));
                assert!(shop.failures.is_empty());
                shop.emitted::<RelatedProducts>().pop()
            };
            let mut turned = seen.clone();
            turned.rotate_left(turn % seen.len());
            prop_assert_eq!(last(seen, 1), last(turned, group));
        }
    }
}
