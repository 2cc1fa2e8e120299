//! A box from its draw to its contents: each product is asked of its owner, what is refused is replaced, and the box
//! is emitted once all answers are in.

use super::{
    boxes::{BOXES_KEPT, Candidate, Draw, Terms, candidates, seed},
    features::Given,
    lifecycle::Subscription,
    settings::BoxSettings,
    stock,
};
use crate::shopper::{ORDERS, PlacedOrder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tillflow_engine_api::{Context, Declare, Global, Output, Query, Result};
use tillflow_schemas::{
    BoxContents, BoxItem, CustomerSignal, Notification, OrderId, Product, ProductCommand, ProductId, ProductStatus, RelatedProducts,
    SubscriptionId, Timestamp, UserId,
};
use tillflow_state::Table;

/// Products bought that tell what a customer likes, newest first, at most.
const BOUGHT_KEPT: usize = 200;
/// How long a purchase tells what a customer likes.
const LIKED_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Swaps wanted for one box, at most.
const SWAPS_KEPT: usize = 20;

/// A box whose products have been asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    period: u32,
    at: Timestamp,
    plan: String,
    is_personal: bool,
    draw: Draw,
    swaps: Vec<(ProductId, ProductId)>,
    asked: BTreeSet<ProductId>,
    granted: BTreeSet<ProductId>,
}

/// A box as it was emitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Packed {
    box_id: String,
    period: u32,
    at: Timestamp,
    items: Vec<(ProductId, bool, String)>,
}

/// What a query needs to know of boxes.
#[derive(Clone)]
pub(super) struct Shelf {
    pub settings: BoxSettings,
    products: Global<Product>,
    statuses: Global<ProductStatus>,
    related: Global<RelatedProducts>,
    /// The last [`BOXES_KEPT`], oldest first.
    packed: Table<UserId, Vec<Packed>>,
    /// By box id.
    pending: Table<(UserId, String), Pending>,
    orders: Table<(UserId, OrderId), PlacedOrder>,
}

/// Packs boxes.
pub(super) struct Packing {
    pub shelf: Shelf,
    contents: Output<BoxContents>,
    commands: Output<ProductCommand>,
    notifications: Output<Notification>,
}

/// What a draw for a customer starts from, whether it is packed or only previewed.
struct Wanted<'a> {
    user: &'a UserId,
    id: &'a SubscriptionId,
    subscription: &'a Subscription,
    period: u32,
    at: Timestamp,
}

impl Packing {
    pub fn declare(d: &mut Declare<'_>, settings: BoxSettings, notifications: Output<Notification>) -> Self {
        let shelf = Shelf {
            settings,
            products: d.global(),
            statuses: d.latest(),
            related: d.latest(),
            packed: d.store("subscriptions.boxes"),
            pending: d.store("subscriptions.pending_boxes"),
            orders: d.read(ORDERS),
        };
        Self { shelf, contents: d.output(), commands: d.output(), notifications }
    }

    /// Notes what the customer wants in the next box.
    pub fn swap(&self, subscription: &mut Subscription, from: &ProductId, to: &ProductId, cx: &Context<'_>) -> Result<(), String> {
        let product = cx.lookup(&self.shelf.products, to.as_str()).ok_or_else(|| format!("to: there is no product '{to}'"))?;
        if !product.box_eligible {
            return Err(format!("to: product '{to}' is not for boxes"));
        }
        if subscription.swaps.len() >= SWAPS_KEPT {
            return Err(format!("{SWAPS_KEPT} products of the next box are swapped already"));
        }
        subscription.swaps.push((from.clone(), to.clone()));
        Ok(())
    }

    /// Draws the next box of a subscription and asks for its products. False where there is none to ask for now: that
    /// is said, and the box waits. A shop without any product for boxes packs none, and has nothing to say.
    pub fn begin(
        &self,
        user: &UserId,
        id: &SubscriptionId,
        subscription: &Subscription,
        features: &BTreeMap<String, Given>,
        cx: &mut Context<'_>,
    ) -> Result<bool> {
        if !cx.lookup_all(&self.shelf.products).any(|(_, product)| product.box_eligible) {
            return Ok(true);
        }
        let period = subscription.next_box;
        let wanted = Wanted { user, id, subscription, period, at: cx.now() };
        let past = Past {
            packed: cx.get(&self.shelf.packed, user)?.unwrap_or_default(),
            pending: cx.rows(&self.shelf.pending, user)?.into_iter().map(|(_, pending)| pending).collect(),
            orders: cx.rows(&self.shelf.orders, user)?.into_iter().map(|(_, order)| order).collect(),
        };
        let (draw, terms) = self.shelf.draw(
            &wanted,
            features,
            &past,
            cx.lookup_all(&self.shelf.products),
            |id| cx.lookup(&self.shelf.statuses, id),
            |id| cx.lookup(&self.shelf.related, id),
        );
        let box_id = format!("{id}:{period}");
        if draw.target > 0 && draw.chosen().is_empty() {
            if subscription.look_again.is_none() {
                self.say_short(user, &box_id, period, draw.target as usize, 0, cx)?;
            }
            return Ok(false);
        }
        let pending = Pending {
            period,
            at: wanted.at,
            plan: subscription.plan.plan_id.to_string(),
            is_personal: terms.is_personal,
            draw,
            swaps: subscription.swaps.clone(),
            asked: BTreeSet::new(),
            granted: BTreeSet::new(),
        };
        self.go_on(user, box_id, pending, cx)?;
        Ok(true)
    }

    fn say_short(&self, user: &UserId, box_id: &str, period: u32, wanted: usize, got: usize, cx: &mut Context<'_>) -> Result<()> {
        let data = json!({"box_id": box_id, "period": period, "wanted": wanted, "got": got});
        let data = data.as_object().cloned().unwrap_or_default();
        let (title, at) = (format!("A box holds {got} of {wanted} products"), cx.now());
        cx.emit(&self.notifications, Notification { user_id: user.clone(), kind: "box_short".into(), title, data, at })
    }

    /// An answer of a product's owner.
    pub fn answered(&self, signal: &CustomerSignal, is_granted: bool, cx: &mut Context<'_>) -> Result<()> {
        let text = |field: &str| signal.data.get(field).and_then(Value::as_str).unwrap_or_default();
        let (box_id, product) = (text("box_id").to_owned(), ProductId::from(text("product_id")));
        let Some(mut pending) = cx.get(&self.shelf.pending, &(signal.user_id.clone(), box_id.clone()))? else { return Ok(()) };
        if !pending.asked.contains(&product) {
            return Ok(());
        }
        if is_granted {
            pending.granted.insert(product);
        } else {
            pending.draw.refused.insert(product);
        }
        self.go_on(&signal.user_id, box_id, pending, cx)
    }

    /// Asks for what is chosen and was not asked for; when nothing is open any more, the box is ready.
    fn go_on(&self, user: &UserId, box_id: String, mut pending: Pending, cx: &mut Context<'_>) -> Result<()> {
        let chosen = pending.draw.chosen();
        for product in chosen.iter().map(|c| &c.product_id) {
            if pending.asked.insert(product.clone()) {
                cx.emit(&self.commands, stock::request(user, &box_id, product, pending.at))?;
            }
        }
        if chosen.iter().any(|c| !pending.granted.contains(&c.product_id)) {
            return cx.put(&self.shelf.pending, &(user.clone(), box_id), &pending);
        }
        cx.delete(&self.shelf.pending, &(user.clone(), box_id.clone()));
        self.emit(user, box_id, &pending, &chosen, cx)
    }

    fn emit(&self, user: &UserId, box_id: String, pending: &Pending, chosen: &[Candidate], cx: &mut Context<'_>) -> Result<()> {
        let wanted = pending.draw.target as usize;
        if chosen.len() < wanted {
            self.say_short(user, &box_id, pending.period, wanted, chosen.len(), cx)?;
        }
        if chosen.is_empty() {
            return Ok(());
        }
        let items: Vec<_> = chosen
            .iter()
            .map(|c| BoxItem { product_id: c.product_id.clone(), exclusive: c.is_exclusive, because: pending.because(c) })
            .collect();
        let mut packed = cx.get(&self.shelf.packed, user)?.unwrap_or_default();
        packed.push(Packed {
            box_id: box_id.clone(),
            period: pending.period,
            at: pending.at,
            items: items.iter().map(|i| (i.product_id.clone(), i.exclusive, i.because.clone())).collect(),
        });
        let surplus = packed.len().saturating_sub(BOXES_KEPT as usize);
        packed.drain(..surplus);
        cx.put(&self.shelf.packed, user, &packed)?;
        cx.emit(&self.contents, BoxContents { box_id, user_id: user.clone(), period: pending.period, items, at: pending.at })
    }
}

impl Pending {
    fn because(&self, item: &Candidate) -> String {
        match self.swaps.iter().rev().find(|(_, to)| *to == item.product_id) {
            Some((from, _)) => format!("wanted instead of {from}"),
            None if item.is_exclusive => format!("exclusive to {}", self.plan),
            None if self.is_personal => "chosen by what was bought before".to_owned(),
            None => format!("drawn for period {}", self.period),
        }
    }
}

/// What a customer had.
struct Past {
    packed: Vec<Packed>,
    pending: Vec<Pending>,
    orders: Vec<PlacedOrder>,
}

impl Past {
    /// Products of the last boxes (those on their way too) and those bought lately.
    fn excluded(&self, settings: &BoxSettings, at: Timestamp) -> BTreeSet<ProductId> {
        let last = self.packed.iter().rev().take(settings.not_in_last as usize).flat_map(|b| b.items.iter().map(|(id, ..)| id.clone()));
        let coming = self.pending.iter().flat_map(|p| p.draw.chosen()).map(|c| c.product_id);
        last.chain(coming).chain(self.bought(at, settings.not_bought()).into_iter().map(|(_, id)| id)).collect()
    }

    /// Products of orders placed within `span` before `at` and not cancelled.
    fn bought(&self, at: Timestamp, span: Duration) -> BTreeSet<(Timestamp, ProductId)> {
        let orders = self.orders.iter().filter(|order| !order.cancelled && order.at <= at && order.at > at.minus(span));
        orders.flat_map(|order| order.items.iter().map(|item| (order.at, item.product_id.clone()))).collect()
    }
}

impl Shelf {
    /// Draws a box; also what was swapped by the customer, where it can be had.
    fn draw<'a>(
        &self,
        wanted: &Wanted<'_>,
        features: &BTreeMap<String, Given>,
        past: &Past,
        products: impl Iterator<Item = (&'a str, &'a Arc<Product>)>,
        status: impl Fn(&str) -> Option<Arc<ProductStatus>>,
        related: impl Fn(&str) -> Option<Arc<RelatedProducts>>,
    ) -> (Draw, Terms) {
        let values = features.iter().map(|(feature, given)| (feature.clone(), given.value.clone())).collect();
        let terms = Terms::of(&values, &self.settings);
        let excluded = past.excluded(&self.settings, wanted.at);
        let is_in_stock = |id: &str| status(id).is_some_and(|s| s.stock_level.is_some_and(|level| level > 0));
        let pool = candidates(products, is_in_stock, &excluded, terms.has_early_access, wanted.at);
        let scores = if terms.is_personal { likes(past, wanted.at, related) } else { BTreeMap::new() };
        let seed = seed(wanted.user, wanted.id, wanted.period);
        let mut draw = Draw::new(pool, terms, seed, |id| scores.get(id).copied().unwrap_or_default());
        for (from, to) in &wanted.subscription.swaps {
            draw.swap(from, to);
        }
        (draw, terms)
    }

    /// The next box of a subscription as it would be packed if its period began with the stock of now.
    pub fn preview(
        &self,
        user: &UserId,
        id: &SubscriptionId,
        subscription: &Subscription,
        at: Timestamp,
        features: &BTreeMap<String, Given>,
        q: &Query<'_>,
    ) -> Result<Vec<Candidate>> {
        let wanted = Wanted { user, id, subscription, period: subscription.next_box, at };
        let past = Past {
            packed: q.get(&self.packed, user)?.unwrap_or_default(),
            pending: q.rows(&self.pending, user, usize::MAX)?.into_iter().map(|(_, pending)| pending).collect(),
            orders: q.rows(&self.orders, user, usize::MAX)?.into_iter().map(|(_, order)| order).collect(),
        };
        let (draw, _) = self.draw(
            &wanted,
            features,
            &past,
            q.lookup_all(&self.products),
            |id| q.lookup(&self.statuses, id),
            |id| q.lookup(&self.related, id),
        );
        Ok(draw.chosen())
    }

    /// The last box emitted, with the topic's field names.
    pub fn latest(&self, user: &UserId, q: &Query<'_>) -> Result<Option<BoxContents>> {
        let packed = q.get(&self.packed, user)?.unwrap_or_default().pop();
        Ok(packed.map(|b| BoxContents {
            box_id: b.box_id,
            user_id: user.clone(),
            period: b.period,
            items: b.items.into_iter().map(|(product_id, exclusive, because)| BoxItem { product_id, exclusive, because }).collect(),
            at: b.at,
        }))
    }
}

/// Scores of products by what the customer bought: for each purchase of a year the neighbours' scores, added up. The
/// newest [`BOUGHT_KEPT`] purchases count, in a fixed order, so that the sums are the same everywhere.
fn likes(past: &Past, at: Timestamp, related: impl Fn(&str) -> Option<Arc<RelatedProducts>>) -> BTreeMap<ProductId, f64> {
    let mut scores = BTreeMap::new();
    for (_, bought) in past.bought(at, LIKED_FOR).into_iter().rev().take(BOUGHT_KEPT) {
        for neighbour in related(bought.as_str()).iter().flat_map(|r| &r.related) {
            *scores.entry(neighbour.product_id.clone()).or_insert(0.0) += neighbour.score;
        }
    }
    scores
}
