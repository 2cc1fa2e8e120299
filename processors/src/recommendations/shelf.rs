//! What the shopper stage keeps and looks up, and the recommendation made from it: while it processes, and for a query.

use super::{
    RecommendationsSettings,
    merchandising::Merchandising,
    ranking::{self, Candidate, Shop, Unwanted},
    session::Session,
    trends::{Fading, ProductSample, TrendList, day},
};
use crate::shopper::{
    self, Cart, EarlyRefunds, PlacedOrder,
    joining::{JOINS, Joins},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tillflow_engine_api::{Context, Declare, Global, Query, Result};
use tillflow_schemas::{Money, OrderId, Product, ProductId, ProductStatus, RecommendedItem, RelatedProducts, Timestamp, UserId};
use tillflow_state::Table;

/// The trend list of the whole shop; the others are named after their category, which is never empty.
pub const WHOLE_SHOP: &str = "";
/// Products of a cart or an order that recommendations start from.
pub const BASKET_SEEDS: usize = 20;

/// What is kept of a shopper.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shopper {
    /// What they look at.
    pub session: Session,
    /// The ids last pushed, best first.
    pub pushed: Vec<ProductId>,
    /// When.
    pub pushed_at: Option<Timestamp>,
    /// A push that came too soon after the one before.
    pub waiting: Option<Occasion>,
}

/// What a push is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Occasion {
    /// The event type.
    pub trigger: String,
    /// What it starts from, before the session: the order's products, or the cart's.
    pub first: Vec<ProductId>,
}

/// Something bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bought {
    /// What.
    pub product: ProductId,
    /// When.
    pub at: Timestamp,
}

/// Its tables, the broadcast tables it looks at, and how popularity fades.
#[derive(Clone)]
pub struct Tables {
    /// Sessions and pushes.
    pub shoppers: Table<UserId, Shopper>,
    /// Purchases of late.
    pub bought: Table<UserId, Vec<Bought>>,
    /// This partition's sample of the shop, by product.
    pub products: Table<ProductId, ProductSample>,
    /// Sightings of all products in the sample.
    pub sightings: Table<(), u64>,
    /// The most popular, by category; [`WHOLE_SHOP`] is all.
    pub trends: Table<String, TrendList>,
    /// The shopper's cart.
    pub carts: Table<UserId, Cart>,
    /// The shopper's orders.
    pub orders: Table<(UserId, OrderId), PlacedOrder>,
    /// What came before its order.
    pub early: EarlyRefunds,
    /// Who a visitor turned out to be.
    pub joins: Table<UserId, Joins>,
    /// What goes with a product.
    pub related: Global<RelatedProducts>,
    /// The catalogue.
    pub catalogue: Global<Product>,
    /// Stock and price.
    pub status: Global<ProductStatus>,
    /// How popularity fades.
    pub fading: Fading,
}

impl Tables {
    /// Declares them.
    pub fn declare(d: &mut Declare<'_>, settings: &RecommendationsSettings) -> Self {
        Self {
            shoppers: d.store("recommendations.shoppers"),
            bought: d.store("recommendations.bought"),
            products: d.store("recommendations.products"),
            sightings: d.store("recommendations.sightings"),
            trends: d.store("recommendations.trends"),
            carts: d.read(shopper::CARTS),
            orders: d.read(shopper::ORDERS),
            early: EarlyRefunds::read(d),
            joins: d.read(JOINS),
            related: d.latest(),
            catalogue: d.global(),
            status: d.latest(),
            fading: Fading::new(settings),
        }
    }
}

/// State as it is while a record is processed.
pub struct Now<'a, 'b>(pub &'a Context<'b>, pub &'a Tables);
/// Committed state, for a query.
pub struct Asked<'a, 'b>(pub &'a Query<'b>, pub &'a Tables);

/// What a recommendation is made from.
pub trait Source: Shop {
    /// Event time.
    fn now(&self) -> Timestamp;
    /// The shopper's cart.
    fn cart(&self, user: &UserId) -> Result<Cart>;
    /// What the shopper bought of late.
    fn bought(&self, user: &UserId) -> Result<Vec<Bought>>;
    /// A trend list, most popular first, with shares.
    fn trend(&self, scope: &str) -> Result<Vec<(ProductId, f64)>>;

    /// What a product costs now, where that is known.
    fn price(&self, product: &str) -> Option<Money> {
        self.status(product).and_then(|s| s.price).or_else(|| self.product(product).map(|p| p.base_price))
    }
}

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

/// What kind of recommendation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neighbours of what is looked at, then what is popular: what is pushed.
    Mixed,
    /// Neighbours of what is looked at, alone.
    Related,
    /// Neighbours of the whole cart.
    Cart,
    /// The better product of the same category: 1.1 to 1.6 times the price of the one looked at.
    Upsell,
    /// What is popular, in the category looked at and in the shop.
    Trending,
}

impl Kind {
    /// The kind that a query's path names.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Mixed),
            "related" => Some(Self::Related),
            "cart" => Some(Self::Cart),
            "upsell" => Some(Self::Upsell),
            "trending" => Some(Self::Trending),
            _ => None,
        }
    }
}

/// What to show a shopper now. `first` are the products it starts from before those of the session.
///
/// # Errors
/// When the store fails.
pub fn recommend(
    from: &impl Source,
    user: &UserId,
    session: &Session,
    first: &[ProductId],
    kind: Kind,
    settings: &RecommendationsSettings,
) -> Result<Vec<RecommendedItem>> {
    let (cart, bought) = (from.cart(user)?, from.bought(user)?);
    let seeds = match kind {
        Kind::Trending => ranking::seeds(first.iter().chain(session.latest_first()).take(1), settings),
        Kind::Cart => ranking::alike(latest_in(&cart).iter()),
        _ => ranking::seeds(first.iter().chain(session.latest_first()), settings),
    };
    let since = from.now() - settings.bought_within();
    let unwanted = Unwanted {
        at_hand: cart.items.keys().chain(first).chain(session.latest_first().take(1)).map(|p| p.as_str()).collect(),
        bought: bought.iter().filter(|b| b.at >= since).map(|b| b.product.as_str()).collect(),
    };
    let rules = Merchandising::new(&settings.merchandising);
    let looked_at = seeds.first().and_then(|s| from.product(s.product.as_str()));
    let fits = |product: &str| kind != Kind::Upsell || seeds.first().is_some_and(|s| is_upsell(from, s.product.as_str(), product));
    let admits = |product: &str| unwanted.admits(product, from, from.now()) && !rules.blocks(product, from) && fits(product);

    let lists = ranking::lists(&seeds, from);
    let related = if kind == Kind::Trending { Vec::new() } else { ranking::neighbours_of(&lists) };
    let enough = || related.iter().filter(|c| admits(c.product)).take(settings.items).count() == settings.items;
    let mut trends = Vec::new();
    if matches!(kind, Kind::Mixed | Kind::Trending | Kind::Upsell) && !enough() {
        let category = looked_at.map(|p| p.category.clone()).filter(|c| !c.is_empty());
        for scope in category.as_deref().into_iter().chain([WHOLE_SHOP]) {
            trends.push(from.trend(scope)?);
        }
    }
    let popular = trends.iter().map(|trend| Candidate::of_trend(trend));
    let groups: Vec<_> = std::iter::once(related).chain(popular).collect();
    // Pins are for what is shown unasked.
    let pinned = if kind == Kind::Mixed { rules.pinned(&groups, from) } else { Vec::new() };
    let groups = groups.into_iter().map(|group| rules.reordered(group, from));
    Ok(ranking::pick(std::iter::once(pinned).chain(groups), admits, from, settings))
}

/// The products of a cart, the latest first.
pub fn latest_in(cart: &Cart) -> Vec<ProductId> {
    let mut items: Vec<_> = cart.items.iter().collect();
    items.sort_by_key(|(_, item)| std::cmp::Reverse(item.added_at));
    items.into_iter().map(|(product, _)| product.clone()).take(BASKET_SEEDS).collect()
}

/// Same category, 1.1 to 1.6 times the price.
fn is_upsell(from: &impl Source, than: &str, product: &str) -> bool {
    let category = |p: &str| from.product(p).map(|p| p.category.clone()).filter(|c| !c.is_empty());
    let (Some(low), Some(price)) = (from.price(than), from.price(product)) else { return false };
    // In tenths, so that the bounds are exact.
    let (ten, eleven, sixteen) = (price.times(10), low.times(11), low.times(16));
    category(than).is_some() && category(than) == category(product) && eleven <= ten && ten <= sixteen && low > Money::ZERO
}
