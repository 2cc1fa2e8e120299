//! The rules of both stages without a log: learns events, ranks for a user. For evaluation.

use super::{
    RecommendationsSettings, association,
    neighbours::{Memory, Neighbours},
    pairs::{self, PairBatch},
    ranking::{self, Candidate, Shop},
    session::{Background, Interest, ORDERED, PairWeights, Session},
    trends::{Fading, ProductSample, TrendList, day},
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{cell::RefCell, sync::Arc};
use tillflow_engine_api::Combine;
use tillflow_schemas::{Product, ProductId, ProductStatus, RelatedProducts, Timestamp, UserEvent, UserEventKind, UserId};

/// What a list may hold of what the shopper has already seen in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Nothing.
    Dropped,
    /// All of it, the page being looked at first: shoppers return, and reload.
    Listed,
}

/// What an earlier product of the session scores as a return to it, beside the share that its neighbours have.
const RETURN: f64 = 0.1;

/// Both stages in one, in memory, with related products always up to date.
pub struct Recommender {
    settings: RecommendationsSettings,
    weights: PairWeights,
    memory: Memory,
    fading: Fading,
    sessions: FxHashMap<UserId, Session>,
    samples: FxHashMap<ProductId, ProductSample>,
    sightings: u64,
    popular: TrendList,
    clock: Timestamp,
    neighbours: FxHashMap<ProductId, Neighbours>,
    /// Lists computed since their product was last touched.
    related: RefCell<FxHashMap<String, Arc<RelatedProducts>>>,
}

impl Recommender {
    /// A recommender that knows nothing yet.
    pub fn new(settings: RecommendationsSettings) -> Self {
        Self {
            weights: PairWeights::new(&settings),
            memory: Memory::new(&settings),
            fading: Fading::new(&settings),
            settings,
            sessions: FxHashMap::default(),
            samples: FxHashMap::default(),
            sightings: 0,
            popular: TrendList::default(),
            clock: Timestamp::MIN,
            neighbours: FxHashMap::default(),
            related: RefCell::default(),
        }
    }

    /// Learns what an event teaches, and moves its user's session on.
    pub fn learn(&mut self, event: &UserEvent) {
        self.observe(event, true);
    }

    /// Moves the session of the event's user on, and learns nothing else from it.
    pub fn follow(&mut self, event: &UserEvent) {
        self.observe(event, false);
    }

    fn observe(&mut self, event: &UserEvent, learn: bool) {
        let at = event.timestamp;
        self.clock = self.clock.max(at);
        let sightings = match (&event.kind, event.who()) {
            (UserEventKind::ProductViewed { product_id, .. }, Some(user)) => self.see(user, product_id, Interest::Viewed, at, learn),
            (UserEventKind::AddedToCart { product_id, .. }, Some(user)) => self.see(user, product_id, Interest::Added, at, learn),
            (UserEventKind::OrderCompleted(order), user) if learn => {
                let products = pairs::products_of(&order.items);
                let known: Vec<_> = products
                    .into_iter()
                    .map(|p| {
                        let background = if user.is_some() { self.count(&p, ORDERED, at) } else { Background::default() };
                        (p, background)
                    })
                    .collect();
                pairs::of_order(&known, at, &self.weights)
            }
            _ => return,
        };
        if !learn {
            return;
        }
        for batch in PairBatch::of(0, sightings) {
            let pairs = batch.finish();
            self.related.borrow_mut().remove(pairs.product_id.as_str());
            let of = self.neighbours.entry(pairs.product_id).or_default();
            of.add(pairs.pairs.iter().map(|p| (pairs.source, p)), &self.memory);
        }
    }

    fn see(&mut self, user: &UserId, product: &ProductId, interest: Interest, at: Timestamp, learn: bool) -> Vec<pairs::Sighting> {
        let mut session = self.sessions.remove(user).unwrap_or_default();
        let mut sightings = Vec::new();
        if session.enter(at, self.settings.session_gap()) {
            let counts = learn && session.is_new(product);
            let background = if counts { self.count(product, interest.popularity(), at) } else { Background::default() };
            session.see(product, interest, at, background, &self.weights, &mut sightings);
            session.bound(self.settings.session_items);
        }
        self.sessions.insert(user.clone(), session);
        sightings
    }

    fn count(&mut self, product: &ProductId, weight: u64, at: Timestamp) -> Background {
        self.sightings += 1;
        let sample = self.samples.entry(product.clone()).or_default();
        sample.sightings += 1;
        if sample.count(at, weight, &self.fading) {
            self.popular.offer(product, &sample.popularity, day(at), &self.fading);
        }
        Background { product: sample.sightings, all: self.sightings }
    }

    /// Products learned.
    pub fn products(&self) -> usize {
        self.samples.len()
    }

    /// The best `items` products for a user now, best first.
    pub fn rank(&self, user: &UserId, items: usize, repeats: Repeats) -> Vec<ProductId> {
        let nothing = Session::default();
        let session = self.sessions.get(user).unwrap_or(&nothing);
        let seeds = ranking::seeds(session.latest_first(), &self.settings);
        let current = session.latest_first().next();
        let lists = ranking::lists(&seeds, self);
        let mut related = ranking::neighbours_of(&lists);
        if repeats == Repeats::Listed {
            for seed in seeds.iter().skip(1) {
                let score = RETURN * seed.weight;
                match related.iter_mut().find(|c| c.product == seed.product.as_str()) {
                    Some(candidate) => candidate.score += score,
                    None => related.push(Candidate::popular(seed.product.as_str(), score)),
                }
            }
            Candidate::sort(&mut related);
        }
        let seen: FxHashSet<&ProductId> = match repeats {
            Repeats::Dropped => session.latest_first().collect(),
            Repeats::Listed => current.into_iter().collect(),
        };
        let trend = self.popular.top(day(self.clock), &self.fading);
        let popular = Candidate::of_trend(&trend);
        let settings = RecommendationsSettings { items, ..self.settings.clone() };
        let list = ranking::pick([related, popular], |p| !seen.iter().any(|s| s.as_str() == p), self, &settings);
        let first = current.filter(|_| repeats == Repeats::Listed).cloned();
        first.into_iter().chain(list.into_iter().map(|i| i.product_id)).take(items).collect()
    }
}

impl Shop for Recommender {
    fn related(&self, product: &str) -> Option<Arc<RelatedProducts>> {
        if let Some(list) = self.related.borrow().get(product) {
            return Some(list.clone());
        }
        let related = association::related(self.neighbours.get(product)?, &self.memory, &self.settings);
        let list = Arc::new(RelatedProducts { product_id: product.into(), related });
        self.related.borrow_mut().insert(product.to_owned(), list.clone());
        Some(list)
    }
    fn product(&self, _: &str) -> Option<Arc<Product>> {
        None
    }
    fn status(&self, _: &str) -> Option<Arc<ProductStatus>> {
        None
    }
}
