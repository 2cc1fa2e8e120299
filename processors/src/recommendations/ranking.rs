//! What to show: neighbours of what the shopper is looking at, less what makes no sense, diversified, filled up with
//! what is popular.
//!
//! Neighbours of sessions (the VSKNN family: what shoppers saw whose sessions resemble this one) are deliberately not
//! part of it. Mixed in at their best weight they moved the hit rate on 12,455 real views (RecSys Challenge 2015) from
//! .658 to .660 and the reciprocal rank of the test set down, for an index of sessions that every view would write to
//! and every push would read hundreds of rows of. Neighbours of the session's last products by recency hold what they
//! know.

use super::{RecommendationsSettings, association::rounded};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use std::sync::Arc;
use tillflow_schemas::{Product, ProductId, ProductStatus, RecommendedItem, Related, RelatedProducts, Timestamp};

/// Reasons given with an item.
const REASONS: usize = 3;

/// A product the ranking starts from, and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Seed {
    /// Which.
    pub product: ProductId,
    /// Beside the others; the first counts 1.
    pub weight: f64,
}

/// Products in order of importance as seeds, each different one once.
pub fn seeds<'a>(products: impl IntoIterator<Item = &'a ProductId>, settings: &RecommendationsSettings) -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    let mut weight = 1.0;
    for product in products {
        if seeds.len() == settings.seeds {
            break;
        }
        if seeds.iter().all(|s| s.product != *product) {
            seeds.push(Seed { product: product.clone(), weight });
            weight *= settings.recency;
        }
    }
    seeds
}

/// Products that all count the same as seeds.
pub fn alike<'a>(products: impl IntoIterator<Item = &'a ProductId>) -> Vec<Seed> {
    products.into_iter().map(|product| Seed { product: product.clone(), weight: 1.0 }).collect()
}

/// What is known of products "now".
pub trait Shop {
    /// Its published neighbours.
    fn related(&self, product: &str) -> Option<Arc<RelatedProducts>>;
    /// Its catalogue record.
    fn product(&self, product: &str) -> Option<Arc<Product>>;
    /// Its stock.
    fn status(&self, product: &str) -> Option<Arc<ProductStatus>>;
}

/// What must not be shown.
#[derive(Clone, Debug, Default)]
pub struct Unwanted<'a> {
    /// Lies in the cart, was just viewed or just bought.
    pub at_hand: FxHashSet<&'a str>,
    /// Bought of late; recommended again only if replenishable.
    pub bought: FxHashSet<&'a str>,
}

impl Unwanted<'_> {
    /// Whether a product may be shown. What has no stock or catalogue record may.
    pub fn admits(&self, product: &str, shop: &impl Shop, now: Timestamp) -> bool {
        if self.at_hand.contains(product) || shop.status(product).is_some_and(|s| s.stock_level.is_some_and(|level| level <= 0)) {
            return false;
        }
        let record = shop.product(product);
        let gated = record.as_ref().is_some_and(|p| p.early_access_until.is_some_and(|until| until > now));
        let again = record.as_ref().is_some_and(|p| p.tags.iter().any(|t| t == "replenishable"));
        !gated && (again || !self.bought.contains(product))
    }
}

/// A product that may be shown. Of many only a few are, so it owns nothing.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Which.
    pub product: &'a str,
    /// The greater, the better.
    pub score: f64,
    /// The seeds that say most of it; the most first.
    because: [Option<&'a ProductId>; REASONS],
}

impl<'a> Candidate<'a> {
    /// What is popular, with shares.
    pub fn of_trend(trend: &'a [(ProductId, f64)]) -> Vec<Self> {
        trend.iter().map(|(product, share)| Self::popular(product.as_str(), *share)).collect()
    }

    /// A product shown because many look at it, not because of another.
    pub fn popular(product: &'a str, share: f64) -> Self {
        Self { product, score: rounded(share), because: [None; REASONS] }
    }

    /// What is told of it.
    pub fn item(&self) -> RecommendedItem {
        let because = self.because.into_iter().flatten().cloned().collect();
        RecommendedItem { product_id: self.product.into(), score: self.score, because }
    }

    /// Candidates best first; ties by id.
    pub fn sort(candidates: &mut [Self]) {
        candidates.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.product.cmp(b.product)));
    }
}

/// What the seeds say of one product.
#[derive(Default)]
struct Said<'a> {
    score: f64,
    /// The seeds that say most of it, with what they say; the most first.
    most: [Option<(f64, &'a ProductId)>; REASONS],
}

impl<'a> Said<'a> {
    fn add(&mut self, part: f64, seed: &'a ProductId) {
        self.score += part;
        let mut said = (part, seed);
        for place in &mut self.most {
            match place {
                Some(more) if more.0 >= said.0 => {}
                Some(less) => std::mem::swap(less, &mut said),
                None => {
                    *place = Some(said);
                    break;
                }
            }
        }
    }
}

/// The seeds of which neighbours are known, with these.
pub fn lists<'a>(seeds: &'a [Seed], shop: &impl Shop) -> Vec<(&'a Seed, Arc<RelatedProducts>)> {
    seeds.iter().filter_map(|seed| Some((seed, shop.related(seed.product.as_str())?))).collect()
}

/// All neighbours of the seeds, best first: the weighted sum of what each seed says of it; ties by id.
pub fn neighbours_of<'a>(lists: &'a [(&'a Seed, Arc<RelatedProducts>)]) -> Vec<Candidate<'a>> {
    let most = lists.iter().map(|(_, list)| list.related.len()).sum();
    let mut found: FxHashMap<&str, Said<'_>> = FxHashMap::with_capacity_and_hasher(most, FxBuildHasher);
    for (seed, list) in lists {
        for Related { product_id, score, .. } in &list.related {
            found.entry(product_id.as_str()).or_default().add(seed.weight * score, &seed.product);
        }
    }
    let candidate = |(product, said): (&'a str, Said<'a>)| {
        let because = said.most.map(|said| said.map(|(_, seed)| seed));
        Candidate { product, score: rounded(said.score), because }
    };
    let mut candidates: Vec<_> = found.into_iter().map(candidate).collect();
    Candidate::sort(&mut candidates);
    candidates
}

/// The first `items` of the candidates that `admits` lets pass, group after group. Within a group, which comes best
/// first, at most `items_per_category` are of one category as long as others of the group are left.
pub fn pick<'a>(
    groups: impl IntoIterator<Item = Vec<Candidate<'a>>>,
    admits: impl Fn(&str) -> bool,
    shop: &impl Shop,
    settings: &RecommendationsSettings,
) -> Vec<RecommendedItem> {
    let mut picked: Vec<Candidate<'a>> = Vec::with_capacity(settings.items);
    // A product of each category, and how often it came.
    let mut categories: Vec<(Arc<Product>, usize)> = Vec::new();
    let mut full = |product: &str| {
        let Some(record) = shop.product(product).filter(|p| !p.category.is_empty()) else { return false };
        match categories.iter_mut().find(|(known, _)| known.category == record.category) {
            Some((_, n)) => {
                *n += 1;
                *n > settings.items_per_category
            }
            None => {
                categories.push((record, 1));
                false
            }
        }
    };
    let mut taken: FxHashSet<&'a str> = FxHashSet::default();
    'groups: for group in groups {
        let mut spare = Vec::new();
        for candidate in group {
            if picked.len() == settings.items {
                break 'groups;
            }
            if taken.contains(candidate.product) || !admits(candidate.product) {
                continue;
            }
            taken.insert(candidate.product);
            if full(candidate.product) { spare.push(candidate) } else { picked.push(candidate) }
        }
        let room = settings.items.saturating_sub(picked.len());
        picked.extend(spare.into_iter().take(room));
    }
    picked.iter().map(Candidate::item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Shelf {
        related: BTreeMap<String, Arc<RelatedProducts>>,
        products: BTreeMap<String, Arc<Product>>,
        stock: BTreeMap<String, i64>,
    }

    impl Shelf {
        fn relate(&mut self, product: &str, related: &[(&str, f64)]) {
            let related = related.iter().map(|(p, score)| Related { product_id: (*p).into(), score: *score, count: 1 }).collect();
            self.related.insert(product.into(), Arc::new(RelatedProducts { product_id: product.into(), related }));
        }
        fn stock_up(&mut self, product: Product) {
            self.products.insert(product.product_id.to_string(), Arc::new(product));
        }
    }

    impl Shop for Shelf {
        fn related(&self, product: &str) -> Option<Arc<RelatedProducts>> {
            self.related.get(product).cloned()
        }
        fn product(&self, product: &str) -> Option<Arc<Product>> {
            self.products.get(product).cloned()
        }
        fn status(&self, product: &str) -> Option<Arc<ProductStatus>> {
            let stock_level = Some(*self.stock.get(product)?);
            Some(Arc::new(ProductStatus { product_id: product.into(), stock_level, price: None, at: Timestamp::MIN }))
        }
    }

    fn names(items: &[RecommendedItem]) -> Vec<&str> {
        items.iter().map(|i| i.product_id.as_str()).collect()
    }

    #[test]
    fn the_latest_product_speaks_loudest_and_each_item_says_because_of_what() {
        let mut shop = Shelf::default();
        shop.relate("tea", &[("cup", 0.5), ("pot", 0.3)]);
        shop.relate("rum", &[("pot", 0.4), ("mug", 0.2)]);
        let settings = RecommendationsSettings { recency: 0.5, ..RecommendationsSettings::default() };
        let seeds = seeds([&"rum".into(), &"tea".into(), &"rum".into()], &settings);
        assert_eq!(seeds.iter().map(|s| s.weight).collect::<Vec<_>>(), [1.0, 0.5]);
        let lists = lists(&seeds, &shop);
        let candidates = neighbours_of(&lists);
        assert_eq!(candidates.iter().map(|c| (c.product, c.score)).collect::<Vec<_>>(), [("pot", 0.55), ("cup", 0.25), ("mug", 0.2)]);
        assert_eq!(candidates[0].item().because, [ProductId::from("rum"), ProductId::from("tea")]);
    }

    #[test]
    fn what_is_at_hand_bought_sold_out_or_not_yet_on_sale_is_not_shown() {
        let now = Timestamp::from_millis(1_000);
        let mut shop = Shelf::default();
        let product = |id: &str| Product { product_id: id.into(), ..Product::default() };
        shop.stock_up(Product { tags: vec!["replenishable".into()], ..product("milk") });
        shop.stock_up(Product { early_access_until: Some(Timestamp::from_millis(1_001)), ..product("soon") });
        shop.stock_up(Product { early_access_until: Some(now), ..product("now") });
        shop.stock = [("gone".to_owned(), 0), ("oversold".to_owned(), -2), ("there".to_owned(), 1)].into();
        let unwanted = Unwanted { at_hand: ["cart"].into_iter().collect(), bought: ["milk", "book"].into_iter().collect() };
        let admitted: Vec<&str> = ["cart", "book", "milk", "gone", "oversold", "there", "soon", "now", "unheard"]
            .into_iter()
            .filter(|p| unwanted.admits(p, &shop, now))
            .collect();
        assert_eq!(admitted, ["milk", "there", "now", "unheard"]);
    }

    #[test]
    fn a_category_fills_only_its_share_while_others_are_left() {
        let mut shop = Shelf::default();
        for id in ["t1", "t2", "t3", "c1"] {
            let category = if id.starts_with('t') { "tea" } else { "cup" };
            shop.stock_up(Product { product_id: id.into(), category: category.into(), ..Product::default() });
        }
        let settings = RecommendationsSettings { items: 4, items_per_category: 1, ..RecommendationsSettings::default() };
        let candidates = ["t1", "t2", "t2", "t3", "c1", "other"].map(|id| Candidate::popular(id, 1.0));
        assert_eq!(names(&pick([candidates.to_vec()], |_| true, &shop, &settings)), ["t1", "c1", "other", "t2"]);
        assert_eq!(names(&pick([candidates.to_vec()], |p| p != "c1", &shop, &settings)), ["t1", "other", "t2", "t3"]);
        let (related, popular) = (candidates[..2].to_vec(), candidates[5..].to_vec());
        assert_eq!(names(&pick([related, popular], |_| true, &shop, &settings)), ["t1", "t2", "other"], "what is related comes first");
    }
}
