//! The shopper stage: sessions and orders in, pairs and pushes out.

use super::{
    RecommendationsSettings,
    pairs::{self, PairBatch, Sighting},
    ranking::{self, Seed, Shop, Unwanted},
    session::{Background, Interest, ORDERED, PairWeights, Session},
    trends::{Fading, ProductSample, TrendList, day},
};
use crate::shopper::{self, Cart, PlacedOrder};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use tillflow_engine_api::{Combined, Context, Declare, Global, Output, Processor, Query, Result, Timer, TimerKind};
use tillflow_schemas::{
    Event, Order, OrderId, Product, ProductId, ProductStatus, Recommendations, RecommendedItem, RelatedProducts, Timestamp, UserEvent,
    UserEventKind, UserId,
};
use tillflow_state::Table;

/// Purchases remembered of a shopper; the oldest go first.
const BOUGHT: usize = 500;
/// Products of an order that recommendations start from.
const ORDER_SEEDS: usize = 20;
/// The trend list of the whole shop; the others are named after their category, which is never empty.
const WHOLE_SHOP: &str = "";

/// What is kept of a shopper.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Shopper {
    /// What they look at.
    pub session: Session,
    /// The ids last pushed, best first.
    pushed: Vec<ProductId>,
    /// When.
    pushed_at: Option<Timestamp>,
    /// A push that came too soon after the one before.
    waiting: Option<Occasion>,
}

/// What a push is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Occasion {
    /// The event type.
    trigger: String,
    /// What it starts from, before the session: the order's products, or the cart's.
    first: Vec<ProductId>,
}

/// Something bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bought {
    product: ProductId,
    at: Timestamp,
}

/// The shopper stage.
pub struct ShopperStage {
    settings: RecommendationsSettings,
    weights: PairWeights,
    tables: Tables,
    pairs: Combined<PairBatch>,
    recommendations: Output<Recommendations>,
    push: TimerKind,
}

/// What it reads and keeps, and the rules to read it with.
#[derive(Clone)]
struct Tables {
    shoppers: Table<UserId, Shopper>,
    bought: Table<UserId, Vec<Bought>>,
    products: Table<ProductId, ProductSample>,
    sightings: Table<(), u64>,
    trends: Table<String, TrendList>,
    carts: Table<UserId, Cart>,
    orders: Table<(UserId, OrderId), PlacedOrder>,
    related: Global<RelatedProducts>,
    catalogue: Global<Product>,
    status: Global<ProductStatus>,
    fading: Fading,
}

impl Processor for ShopperStage {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        let settings: RecommendationsSettings = d.settings("recommendations");
        settings.problems().into_iter().for_each(|p| d.problem(p));
        let tables = Tables {
            shoppers: d.store("recommendations.shoppers"),
            bought: d.store("recommendations.bought"),
            products: d.store("recommendations.products"),
            sightings: d.store("recommendations.sightings"),
            trends: d.store("recommendations.trends"),
            carts: d.read(shopper::CARTS),
            orders: d.read(shopper::ORDERS),
            related: d.latest(),
            catalogue: d.global(),
            status: d.latest(),
            fading: Fading::new(&settings),
        };
        let (answering, reading) = (settings.clone(), tables.clone());
        d.query("recommendations", move |q| {
            let user = UserId::from(q.key);
            let shopper = q.get(&reading.shoppers, &user)?.unwrap_or_default();
            let items = recommend(&Asked(q, &reading), &user, &shopper.session, &[], &answering)?;
            Ok(Some(json!({ "items": items })))
        });
        Self {
            weights: PairWeights::new(&settings),
            settings,
            tables,
            pairs: d.combined(),
            recommendations: d.output(),
            push: d.timer("recommendations.push"),
        }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::User(event) = event else { return Ok(()) };
        match (&event.kind, event.who()) {
            (UserEventKind::ProductViewed { product_id, .. }, Some(user)) => self.see(user, product_id, Interest::Viewed, event, cx),
            (UserEventKind::AddedToCart { product_id, .. }, Some(user)) => self.see(user, product_id, Interest::Added, event, cx),
            (UserEventKind::CheckoutStarted { .. }, Some(user)) => self.check_out(user, event, cx),
            (UserEventKind::OrderCompleted(order), user) => self.order(user, order, event, cx),
            (UserEventKind::OrderCancelled { order_id }, Some(user)) => self.cancel(user, order_id, cx),
            // A guest has no session: a view or an add of nobody's pairs with nothing.
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(timer.key.as_str());
        let mut shopper = cx.get(&self.tables.shoppers, &user)?.unwrap_or_default();
        let Some(occasion) = shopper.waiting.take() else { return Ok(()) };
        self.push(&user, &mut shopper, occasion, cx)?;
        cx.put(&self.tables.shoppers, &user, &shopper)
    }
}

impl ShopperStage {
    /// A view or an add.
    fn see(&self, user: &UserId, product: &ProductId, interest: Interest, event: &UserEvent, cx: &mut Context<'_>) -> Result<()> {
        let mut shopper = cx.get(&self.tables.shoppers, user)?.unwrap_or_default();
        if !shopper.session.enter(cx.now(), self.settings.session_gap()) {
            return Ok(());
        }
        let background =
            if shopper.session.is_new(product) { self.count(product, interest.popularity(), cx)? } else { Background::default() };
        let mut sightings = Vec::new();
        shopper.session.see(product, interest, cx.now(), background, &self.weights, &mut sightings);
        shopper.session.bound(self.settings.session_items);
        self.send(sightings, cx);
        self.occur(user, shopper, event, Vec::new(), cx)
    }

    fn check_out(&self, user: &UserId, event: &UserEvent, cx: &mut Context<'_>) -> Result<()> {
        let mut shopper = cx.get(&self.tables.shoppers, user)?.unwrap_or_default();
        shopper.session.enter(cx.now(), self.settings.session_gap());
        let mut cart: Vec<_> = cx.get(&self.tables.carts, user)?.unwrap_or_default().items.into_iter().collect();
        cart.sort_by_key(|(_, item)| std::cmp::Reverse(item.added_at));
        let first = cart.into_iter().map(|(product, _)| product).take(ORDER_SEEDS).collect();
        self.occur(user, shopper, event, first, cx)
    }

    /// An order: its products make pairs, also a guest's, and recommendations for what goes with them.
    fn order(&self, user: Option<&UserId>, order: &Order, event: &UserEvent, cx: &mut Context<'_>) -> Result<()> {
        let products = pairs::products_of(&order.items);
        let mut known = Vec::with_capacity(products.len());
        for product in &products {
            // A guest's event may lie in any partition, so it is in no partition's sample.
            let background = if user.is_some() { self.count(product, ORDERED, cx)? } else { Background::default() };
            known.push((product.clone(), background));
        }
        self.send(pairs::of_order(&known, cx.now(), &self.weights), cx);
        let Some(user) = user else { return Ok(()) };
        let mut bought = cx.get(&self.tables.bought, user)?.unwrap_or_default();
        bought.extend(order.items.iter().take(BOUGHT).map(|item| Bought { product: item.product_id.clone(), at: cx.now() }));
        let since = cx.now() - self.settings.bought_within();
        bought.retain(|b| b.at >= since);
        let excess = bought.len().saturating_sub(BOUGHT);
        bought.drain(..excess);
        cx.put(&self.tables.bought, user, &bought)?;
        let mut shopper = cx.get(&self.tables.shoppers, user)?.unwrap_or_default();
        shopper.session.enter(cx.now(), self.settings.session_gap());
        self.occur(user, shopper, event, products.into_iter().take(ORDER_SEEDS).collect(), cx)
    }

    /// What was ordered and cancelled was not bought.
    fn cancel(&self, user: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let Some(order) = cx.get(&self.tables.orders, &(user.clone(), order_id.clone()))? else { return Ok(()) };
        let Some(mut bought) = cx.get(&self.tables.bought, user)? else { return Ok(()) };
        bought.retain(|b| b.at != order.at || !order.items.iter().any(|i| i.product_id == b.product));
        cx.put(&self.tables.bought, user, &bought)
    }

    /// Counts a product's sighting in this partition's sample; answers how usual it is.
    fn count(&self, product: &ProductId, weight: u64, cx: &mut Context<'_>) -> Result<Background> {
        let t = &self.tables;
        let all = cx.get(&t.sightings, &())?.unwrap_or(0).saturating_add(1);
        cx.put(&t.sightings, &(), &all)?;
        let mut sample = cx.get(&t.products, product)?.unwrap_or_default();
        sample.sightings = sample.sightings.saturating_add(1);
        if sample.count(cx.now(), weight, &t.fading) {
            let category = cx.lookup(&t.catalogue, product.as_str()).map(|p| p.category.clone()).filter(|c| !c.is_empty());
            for scope in std::iter::once(WHOLE_SHOP.to_owned()).chain(category) {
                let mut list = cx.get(&t.trends, &scope)?.unwrap_or_default();
                list.offer(product, &sample.popularity, day(cx.now()), &t.fading);
                cx.put(&t.trends, &scope, &list)?;
            }
        }
        cx.put(&t.products, product, &sample)?;
        Ok(Background { product: sample.sightings, all })
    }

    fn send(&self, sightings: Vec<Sighting>, cx: &mut Context<'_>) {
        for batch in PairBatch::of(cx.place().partition, sightings) {
            cx.combine(&self.pairs, batch);
        }
    }

    /// Pushes now, or, too soon after the last push, when the interval is over.
    fn occur(&self, user: &UserId, mut shopper: Shopper, event: &UserEvent, first: Vec<ProductId>, cx: &mut Context<'_>) -> Result<()> {
        let occasion = Occasion { trigger: event.event_type().to_owned(), first };
        match shopper.pushed_at.map(|at| at + self.settings.push_interval()).filter(|next| *next > cx.now()) {
            Some(next) => {
                if shopper.waiting.replace(occasion).is_none() {
                    cx.set_timer(self.push, user.as_str(), "", next)?;
                }
            }
            None => self.push(user, &mut shopper, occasion, cx)?,
        }
        cx.put(&self.tables.shoppers, user, &shopper)
    }

    /// Pushes what is new; nothing or nothing new to say is no push.
    fn push(&self, user: &UserId, shopper: &mut Shopper, occasion: Occasion, cx: &mut Context<'_>) -> Result<()> {
        let items = recommend(&Now(cx, &self.tables), user, &shopper.session, &occasion.first, &self.settings)?;
        if items.is_empty() || items.iter().map(|i| &i.product_id).eq(&shopper.pushed) {
            return Ok(());
        }
        shopper.pushed = items.iter().map(|i| i.product_id.clone()).collect();
        shopper.pushed_at = Some(cx.now());
        let record = Recommendations { user_id: user.clone(), items, trigger: occasion.trigger, generated_at: cx.now() };
        cx.emit(&self.recommendations, record)
    }
}

/// What a recommendation is made from: committed or uncommitted state, and the broadcast tables.
trait Source: Shop {
    fn now(&self) -> Timestamp;
    fn cart(&self, user: &UserId) -> Result<Cart>;
    fn bought(&self, user: &UserId) -> Result<Vec<Bought>>;
    fn trend(&self, scope: &str) -> Result<Vec<(ProductId, f64)>>;
}

struct Now<'a, 'b>(&'a Context<'b>, &'a Tables);
struct Asked<'a, 'b>(&'a Query<'b>, &'a Tables);

macro_rules! source {
    ($name:ident, $now:expr) => {
        impl Shop for $name<'_, '_> {
            fn related(&self, product: &str) -> Option<Arc<RelatedProducts>> {
                self.0.lookup(&self.1.related, product)
            }
            fn product(&self, product: &str) -> Option<Arc<Product>> {
                self.0.lookup(&self.1.catalogue, product)
            }
            fn status(&self, product: &str) -> Option<Arc<ProductStatus>> {
                self.0.lookup(&self.1.status, product)
            }
        }
        impl Source for $name<'_, '_> {
            fn now(&self) -> Timestamp {
                let now: fn(&Self) -> Timestamp = $now;
                now(self)
            }
            fn cart(&self, user: &UserId) -> Result<Cart> {
                Ok(self.0.get(&self.1.carts, user)?.unwrap_or_default())
            }
            fn bought(&self, user: &UserId) -> Result<Vec<Bought>> {
                Ok(self.0.get(&self.1.bought, user)?.unwrap_or_default())
            }
            fn trend(&self, scope: &str) -> Result<Vec<(ProductId, f64)>> {
                let list = self.0.get(&self.1.trends, &scope.to_owned())?.unwrap_or_default();
                Ok(list.top(day(self.now()), &self.1.fading))
            }
        }
    };
}
source!(Now, |s| s.0.now());
source!(Asked, |s| s.0.now);

/// What to show a shopper now. `first` are the products it starts from before those of the session.
fn recommend(
    from: &impl Source,
    user: &UserId,
    session: &Session,
    first: &[ProductId],
    settings: &RecommendationsSettings,
) -> Result<Vec<RecommendedItem>> {
    let seeds: Vec<Seed> = ranking::seeds(first.iter().chain(ranking::latest_first(session)), settings);
    let (cart, bought) = (from.cart(user)?, from.bought(user)?);
    let since = from.now() - settings.bought_within();
    let unwanted = Unwanted {
        at_hand: cart.items.keys().chain(first).chain(ranking::latest_first(session).take(1)).map(|p| p.as_str()).collect(),
        bought: bought.iter().filter(|b| b.at >= since).map(|b| b.product.as_str()).collect(),
    };
    let admits = |product: &str| unwanted.admits(product, from, from.now());
    let related = ranking::neighbours_of(&seeds, from);
    let mut popular = Vec::new();
    if related.iter().filter(|c| admits(c.product_id.as_str())).take(settings.items).count() < settings.items {
        let category = seeds.first().and_then(|s| from.product(s.product.as_str())).map(|p| p.category.clone()).filter(|c| !c.is_empty());
        if let Some(category) = category {
            popular.push(from.trend(&category)?);
        }
        popular.push(from.trend(WHOLE_SHOP)?);
    }
    let popular = popular.into_iter().map(|list| list.into_iter().map(|(product, share)| ranking::popular(product, share)).collect());
    Ok(ranking::pick(std::iter::once(related).chain(popular), admits, from, settings))
}
