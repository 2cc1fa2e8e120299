//! What all systems need of a shopper: the cart, the orders placed, what was undone of an order before it came, and who a
//! visitor turned out to be. Runs first on each record; the others read its tables.

mod early;
#[cfg(test)]
mod early_tests;
pub mod joining;

pub use early::{EarlyRefund, EarlyRefunds};

use crate::shop::ShopSettings;
use early::EarlyKeeper;
use joining::{JOIN, JOINS, Joins};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tillflow_engine_api::{Context, Declare, Output, Processor, Result, Timer};
use tillflow_schemas::{
    CustomerSignal, Event, Item, Money, Order, OrderId, ProductId, Refund, Timestamp, UserEvent, UserEventKind, UserId,
};
use tillflow_state::Table;

/// To the owner of a user: here is the cart they filled before they were known.
pub const MOVED_CART: &str = "shopper.cart";

/// Name of the table of carts, `UserId → Cart`.
pub const CARTS: &str = "shopper.carts";
/// Name of the table of orders, `(UserId, OrderId) → PlacedOrder`.
pub const ORDERS: &str = "shopper.orders";
/// Table of the orders that came late: the watermark of then, at which they count for products.
pub const LATE_ORDERS: &str = "shopper.late_orders";

/// Items of an order that are kept and counted: as many as the largest order has that is promised to be taken. Only pairs
/// come from fewer, its first 50.
pub const ITEMS_KEPT: usize = 10_000;
/// Different products in a cart; what is added beyond them is not kept.
const CART_LIMIT: usize = 1_000;

/// What lies in a shopper's cart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cart {
    /// Pieces by product.
    pub items: BTreeMap<ProductId, CartItem>,
    /// The last add or remove.
    pub changed_at: Timestamp,
}

impl Cart {
    /// Puts in what was added elsewhere after the last order, which was for everything before it.
    fn take_in(&mut self, other: Self, ordered: Option<Timestamp>) {
        for (product, item) in other.items.into_iter().filter(|(_, item)| ordered.is_none_or(|at| item.added_at > at)) {
            self.changed_at = self.changed_at.max(other.changed_at);
            if self.items.len() >= CART_LIMIT && !self.items.contains_key(&product) {
                continue;
            }
            let own = self.items.entry(product).or_insert(CartItem { quantity: 0, ..item.clone() });
            own.quantity = own.quantity.saturating_add(item.quantity);
            let newer = item.added_at >= own.added_at;
            own.price = if newer { item.price.or(own.price) } else { own.price.or(item.price) };
            own.added_at = own.added_at.max(item.added_at);
        }
    }
}

/// One product in a cart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CartItem {
    /// Pieces.
    pub quantity: u64,
    /// A piece's price when it was last added, where the event said so.
    pub price: Option<Money>,
    /// When it was last added.
    pub added_at: Timestamp,
}

/// An order as later events (refunds, cancellations, reviews) need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedOrder {
    /// When.
    pub at: Timestamp,
    /// Its total at face value.
    pub total: Money,
    /// ISO 4217 code, as given.
    pub currency: Option<String>,
    /// Its first [`ITEMS_KEPT`] items.
    pub items: Vec<Item>,
    /// Whether a cancellation came.
    pub cancelled: bool,
}

/// Keeps carts and orders, and joins visitors to users.
pub struct Shopper {
    carts: Table<UserId, Cart>,
    orders: Table<(UserId, OrderId), PlacedOrder>,
    late: Table<(UserId, OrderId), Timestamp>,
    early: EarlyKeeper,
    joins: Table<UserId, Joins>,
    signals: Output<CustomerSignal>,
}

impl Processor for Shopper {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        d.input::<CustomerSignal>();
        let shop: ShopSettings = d.settings("shop");
        let orders = d.store(ORDERS);
        let early = EarlyKeeper::declare(d, orders, shop.refund_hold_days);
        Self { carts: d.store(CARTS), orders, late: d.store(LATE_ORDERS), early, joins: d.store(JOINS), signals: d.output() }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let event = match event {
            Event::User(event) => event,
            Event::CustomerSignal(signal) => return self.hear(signal, cx),
            _ => return Ok(()),
        };
        if let (Some(user), Some(anonymous)) = (&event.user_id, &event.anonymous_id) {
            self.ask(user, anonymous, cx)?;
        }
        let Some(user) = event.who() else { return Ok(()) };
        match &event.kind {
            UserEventKind::AddedToCart { product_id, quantity, price } => self.add(user, product_id, *quantity, *price, cx),
            UserEventKind::RemovedFromCart { product_id, quantity } => self.remove(user, product_id, *quantity, cx),
            UserEventKind::OrderCompleted(order) => self.place(user, order, cx),
            UserEventKind::OrderCancelled { order_id } => self.undo(user, order_id, event, None, cx),
            UserEventKind::OrderRefunded(refund) => {
                refund.order_id.as_ref().map_or(Ok(()), |order_id| self.undo(user, order_id, event, Some(refund), cx))
            }
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        self.early.on_timer(timer, cx)
    }
}

impl Shopper {
    fn add(&self, user: &UserId, product: &ProductId, quantity: u32, price: Option<Money>, cx: &mut Context<'_>) -> Result<()> {
        let mut cart = cx.get(&self.carts, user)?.unwrap_or_default();
        if cart.items.len() >= CART_LIMIT && !cart.items.contains_key(product) {
            return Ok(());
        }
        let item = cart.items.entry(product.clone()).or_insert(CartItem { quantity: 0, price: None, added_at: cx.now() });
        item.quantity += u64::from(quantity);
        item.price = price.or(item.price);
        item.added_at = cx.now();
        cart.changed_at = cx.now();
        cx.put(&self.carts, user, &cart)
    }

    fn remove(&self, user: &UserId, product: &ProductId, quantity: u32, cx: &mut Context<'_>) -> Result<()> {
        let Some(mut cart) = cx.get(&self.carts, user)? else { return Ok(()) };
        let Some(item) = cart.items.get_mut(product) else { return Ok(()) };
        item.quantity = item.quantity.saturating_sub(u64::from(quantity));
        if item.quantity == 0 {
            cart.items.remove(product);
        }
        cart.changed_at = cx.now();
        if cart.items.is_empty() {
            cx.delete(&self.carts, user);
            return Ok(());
        }
        cx.put(&self.carts, user, &cart)
    }

    /// An order empties the cart. The others, which run after this, see it emptied.
    fn place(&self, user: &UserId, order: &Order, cx: &mut Context<'_>) -> Result<()> {
        cx.delete(&self.carts, user);
        let cancelled = self.early.meet(user, &order.order_id, cx)?;
        let placed = PlacedOrder {
            at: cx.now(),
            total: order.total(),
            currency: order.currency.clone(),
            items: order.items.iter().take(ITEMS_KEPT).cloned().collect(),
            cancelled,
        };
        let key = (user.clone(), order.order_id.clone());
        if cx.watermark() > cx.now() {
            cx.put(&self.late, &key, &cx.watermark())?;
        }
        cx.put(&self.orders, &key, &placed)
    }

    /// Asks for what a user had before they were known.
    fn ask(&self, user: &UserId, anonymous: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let mut joins = cx.get(&self.joins, user)?.unwrap_or_default();
        let Some(signal) = joins.ask(user, anonymous, cx.now()) else { return Ok(()) };
        cx.put(&self.joins, user, &joins)?;
        cx.emit(&self.signals, signal)
    }

    /// Gives a visitor's cart away, or takes it over.
    fn hear(&self, signal: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        let id = &signal.user_id;
        match signal.kind.as_str() {
            JOIN => {
                let mut joins = cx.get(&self.joins, id)?.unwrap_or_default();
                if !joins.join(signal) {
                    return Ok(());
                }
                cx.put(&self.joins, id, &joins)?;
                let Some(cart) = cx.get(&self.carts, id)? else { return Ok(()) };
                cx.delete(&self.carts, id);
                joining::answer(signal, MOVED_CART, &cart).map_or(Ok(()), |answer| cx.emit(&self.signals, answer))
            }
            MOVED_CART => {
                let Some(moved) = joining::told(signal) else { return Ok(()) };
                let mut cart = cx.get(&self.carts, id)?.unwrap_or_default();
                cart.take_in(moved, self.last_order(id, cx)?);
                if cart.items.is_empty() { Ok(()) } else { cx.put(&self.carts, id, &cart) }
            }
            _ => Ok(()),
        }
    }

    fn last_order(&self, user: &UserId, cx: &Context<'_>) -> Result<Option<Timestamp>> {
        let mut last = None;
        cx.scan(&self.orders, user, |_, order| {
            last = last.max(Some(order.at));
            true
        })?;
        Ok(last)
    }

    /// A refund, or a cancellation where it is none, of an order that has come or is waited for.
    fn undo(&self, user: &UserId, order_id: &OrderId, event: &UserEvent, refund: Option<&Refund>, cx: &mut Context<'_>) -> Result<()> {
        let key = (user.clone(), order_id.clone());
        match cx.get(&self.orders, &key)? {
            None => self.early.hold(user, order_id, event, refund, cx),
            Some(placed) if refund.is_none() => cx.put(&self.orders, &key, &PlacedOrder { cancelled: true, ..placed }),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tillflow_engine_api::testing::Driver;
    use tillflow_state::Table;

    fn cart(shop: &mut Driver) -> Option<Cart> {
        shop.commit();
        Table::new(CARTS).get(shop.task().store(), &UserId::from("u")).unwrap()
    }

    #[test]
    fn a_cart_fills_shrinks_and_is_emptied_by_an_order() {
        let mut shop = Driver::of::<Shopper>();
        let mut event = |minute: u32, event_type: &str, fields: serde_json::Value| {
            let mut value = json!({"event_type": event_type, "user_id": "u", "timestamp": format!("2026-03-01T10:{minute:02}:00Z")});
            value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            shop.send_json("user_event", value);
            cart(&mut shop).map(|c| c.items.into_iter().map(|(p, i)| (p.into_string(), i.quantity)).collect::<Vec<_>>())
        };
        assert_eq!(event(0, "added_to_cart", json!({"product_id": "p1", "quantity": 2})), Some(vec![("p1".into(), 2)]));
        assert_eq!(event(1, "added_to_cart", json!({"product_id": "p2"})), Some(vec![("p1".into(), 2), ("p2".into(), 1)]));
        assert_eq!(event(2, "removed_from_cart", json!({"product_id": "p1", "quantity": 5})), Some(vec![("p2".into(), 1)]));
        assert_eq!(event(3, "order_completed", json!({"order_id": "o", "items": []})), None);
    }

    /// Pieces by product in somebody's cart, and the minute of its last change.
    fn of(shop: &mut Driver, who: &str) -> (Vec<(String, u64)>, Option<i64>) {
        // The visitor's owner answers, and the user's hears it.
        for _ in 0..2 {
            let signals = shop.emitted::<CustomerSignal>();
            for signal in signals {
                shop.send(Event::CustomerSignal(signal));
            }
        }
        shop.commit();
        let cart: Option<Cart> = Table::new(CARTS).get(shop.task().store(), &UserId::from(who)).unwrap();
        let minute = cart.as_ref().map(|c| c.changed_at.since(Timestamp::parse("2026-03-01T10:00:00Z").unwrap()) / 60_000);
        (cart.into_iter().flat_map(|c| c.items).map(|(p, i)| (p.into_string(), i.quantity)).collect(), minute)
    }

    fn send(shop: &mut Driver, minute: u32, event_type: &str, ids: (Option<&str>, Option<&str>), fields: serde_json::Value) {
        let (user_id, anonymous_id) = ids;
        let mut value = json!({
            "event_type": event_type, "user_id": user_id, "anonymous_id": anonymous_id, "timestamp": format!("2026-03-01T10:{minute:02}:00Z"),
        });
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        shop.send_json("user_event", value);
    }

    #[test]
    fn at_the_log_in_the_cart_moves_once_and_to_one_user_only() {
        let mut shop = Driver::of::<Shopper>();
        let (visitor, ann, bob) = ((None, Some("v")), (Some("ann"), Some("v")), (Some("bob"), Some("v")));
        send(&mut shop, 0, "added_to_cart", (Some("ann"), None), json!({"product_id": "tea", "quantity": 1}));
        send(&mut shop, 1, "added_to_cart", visitor, json!({"product_id": "tea", "quantity": 2}));
        send(&mut shop, 2, "added_to_cart", visitor, json!({"product_id": "cup", "quantity": 1}));
        send(&mut shop, 3, "page_viewed", ann, json!({}));
        assert_eq!(of(&mut shop, "ann"), (vec![("cup".into(), 1), ("tea".into(), 3)], Some(2)), "the last change is the visitor's");
        assert_eq!(of(&mut shop, "v"), (vec![], None));
        send(&mut shop, 4, "added_to_cart", visitor, json!({"product_id": "pot", "quantity": 1}));
        send(&mut shop, 5, "page_viewed", ann, json!({}));
        send(&mut shop, 6, "page_viewed", bob, json!({}));
        assert_eq!(of(&mut shop, "bob"), (vec![], None), "an id joins one user only");
        assert_eq!(of(&mut shop, "ann").0.len(), 2, "and once");
        assert_eq!(of(&mut shop, "v").0.len(), 1);
    }

    #[test]
    fn an_order_that_says_who_the_visitor_is_is_for_what_lay_in_their_cart() {
        let mut shop = Driver::of::<Shopper>();
        send(&mut shop, 1, "added_to_cart", (None, Some("v")), json!({"product_id": "tea"}));
        send(&mut shop, 2, "order_completed", (Some("ann"), Some("v")), json!({"order_id": "o", "items": []}));
        assert_eq!(of(&mut shop, "ann"), (vec![], None));
        assert_eq!(of(&mut shop, "v"), (vec![], None));
    }
}
