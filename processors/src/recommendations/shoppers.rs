//! The shopper stage: sessions and orders in, pairs and pushes out.

use super::{
    RecommendationsSettings,
    pairs::{self, PairBatch, Sighting},
    session::{Background, Interest, ORDERED, PairWeights},
    shelf::{Asked, BASKET_SEEDS, Bought, Kind, Now, Occasion, Shopper, Tables, WHOLE_SHOP, latest_in, recommend},
    trends::day,
};
use crate::shopper::{
    EarlyRefund,
    joining::{self, JOIN},
};
use serde_json::{Value, json};
use tillflow_engine_api::{Combined, Context, Declare, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{
    CustomerSignal, Event, Order, OrderId, ProductId, Recommendations, RecommendedItem, UserEvent, UserEventKind, UserId,
};

/// To the owner of a user: here is the session they had before they were known.
const MOVED_SESSION: &str = "recommendations.session";
/// Purchases remembered of a shopper; the oldest go first.
const BOUGHT: usize = 500;

/// The shopper stage.
pub struct ShopperStage {
    settings: RecommendationsSettings,
    weights: PairWeights,
    tables: Tables,
    pairs: Combined<PairBatch>,
    recommendations: Output<Recommendations>,
    signals: Output<CustomerSignal>,
    push: TimerKind,
}

impl Processor for ShopperStage {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        d.input::<CustomerSignal>();
        let settings: RecommendationsSettings = d.settings("recommendations");
        settings.problems().into_iter().for_each(|p| d.problem(p));
        let tables = Tables::declare(d, &settings);
        let (answering, reading) = (settings.clone(), tables.clone());
        d.query("recommendations", move |q| {
            let Some(kind) = Kind::named(q.rest) else { return Ok(None) };
            let user = UserId::from(q.key);
            let shopper = q.get(&reading.shoppers, &user)?.unwrap_or_default();
            let items = recommend(&Asked(q, &reading), &user, &shopper.session, &[], kind, &answering)?;
            Ok(Some(json!({ "items": items.iter().map(|item| with_kind(item, q.rest)).collect::<Vec<_>>() })))
        });
        Self {
            weights: PairWeights::new(&settings),
            settings,
            tables,
            pairs: d.combined(),
            recommendations: d.output(),
            signals: d.output(),
            push: d.timer("recommendations.push"),
        }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let event = match event {
            Event::User(event) => event,
            Event::CustomerSignal(signal) => return self.hear(signal, cx),
            _ => return Ok(()),
        };
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
        let first = latest_in(&cx.get(&self.tables.carts, user)?.unwrap_or_default());
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
        if !self.tables.early.of(user, &order.order_id, cx)?.iter().any(EarlyRefund::is_cancellation) {
            bought.extend(order.items.iter().take(BOUGHT).map(|item| Bought { product: item.product_id.clone(), at: cx.now() }));
        }
        let since = cx.now() - self.settings.bought_within();
        bought.retain(|b| b.at >= since);
        let excess = bought.len().saturating_sub(BOUGHT);
        bought.drain(..excess);
        cx.put(&self.tables.bought, user, &bought)?;
        let mut shopper = cx.get(&self.tables.shoppers, user)?.unwrap_or_default();
        shopper.session.enter(cx.now(), self.settings.session_gap());
        self.occur(user, shopper, event, products.into_iter().take(BASKET_SEEDS).collect(), cx)
    }

    /// What was ordered and cancelled was not bought.
    fn cancel(&self, user: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let Some(order) = cx.get(&self.tables.orders, &(user.clone(), order_id.clone()))? else { return Ok(()) };
        let Some(mut bought) = cx.get(&self.tables.bought, user)? else { return Ok(()) };
        bought.retain(|b| b.at != order.at || !order.items.iter().any(|i| i.product_id == b.product));
        cx.put(&self.tables.bought, user, &bought)
    }

    /// Gives a visitor's session away, or takes it over.
    fn hear(&self, signal: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        let user = &signal.user_id;
        let mut shopper = cx.get(&self.tables.shoppers, user)?.unwrap_or_default();
        match signal.kind.as_str() {
            JOIN if cx.get(&self.tables.joins, user)?.is_some_and(|joins| joins.is_of(signal)) => {
                let items = shopper.session.move_out();
                if !items.is_empty()
                    && let Some(answer) = joining::answer(signal, MOVED_SESSION, &items)
                {
                    cx.emit(&self.signals, answer)?;
                }
            }
            MOVED_SESSION => {
                let Some(items) = joining::told(signal) else { return Ok(()) };
                shopper.session.move_in(items, self.settings.session_gap());
                shopper.session.bound(self.settings.session_items);
            }
            _ => return Ok(()),
        }
        cx.put(&self.tables.shoppers, user, &shopper)
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
        let items = recommend(&Now(cx, &self.tables), user, &shopper.session, &occasion.first, Kind::Mixed, &self.settings)?;
        if items.is_empty() || items.iter().map(|i| &i.product_id).eq(&shopper.pushed) {
            return Ok(());
        }
        shopper.pushed = items.iter().map(|i| i.product_id.clone()).collect();
        shopper.pushed_at = Some(cx.now());
        let record = Recommendations { user_id: user.clone(), items, trigger: occasion.trigger, generated_at: cx.now() };
        cx.emit(&self.recommendations, record)
    }
}

/// An item as a query answers it: `kind` as asked; in the mix, what nothing led to is trending.
fn with_kind(item: &RecommendedItem, asked: &str) -> Value {
    let kind = match asked {
        "" if item.because.is_empty() => "trending",
        "" => "related",
        asked => asked,
    };
    json!({ "product_id": item.product_id, "score": item.score, "because": item.because, "kind": kind })
}
