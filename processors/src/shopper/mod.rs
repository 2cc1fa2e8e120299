//! What all systems need of a shopper: the cart and the orders placed. Runs first on each record; the others read its
//! tables.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tillflow_engine_api::{Context, Declare, Processor, Result};
use tillflow_schemas::{Event, Item, Money, Order, OrderId, ProductId, Timestamp, UserEvent, UserEventKind, UserId};
use tillflow_state::Table;

/// Name of the table of carts, `UserId → Cart`.
pub const CARTS: &str = "shopper.carts";
/// Name of the table of orders, `(UserId, OrderId) → PlacedOrder`.
pub const ORDERS: &str = "shopper.orders";

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

/// Keeps carts and orders.
pub struct Shopper {
    carts: Table<UserId, Cart>,
    orders: Table<(UserId, OrderId), PlacedOrder>,
}

impl Processor for Shopper {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        Self { carts: d.store(CARTS), orders: d.store(ORDERS) }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::User(event) = event else { return Ok(()) };
        let Some(user) = event.who() else { return Ok(()) };
        match &event.kind {
            UserEventKind::AddedToCart { product_id, quantity, price } => self.add(user, product_id, *quantity, *price, cx),
            UserEventKind::RemovedFromCart { product_id, quantity } => self.remove(user, product_id, *quantity, cx),
            UserEventKind::OrderCompleted(order) => self.place(user, order, cx),
            UserEventKind::OrderCancelled { order_id } => self.cancel(user, order_id, cx),
            _ => Ok(()),
        }
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
        let placed = PlacedOrder {
            at: cx.now(),
            total: order.total(),
            currency: order.currency.clone(),
            items: order.items.iter().take(ITEMS_KEPT).cloned().collect(),
            cancelled: false,
        };
        cx.put(&self.orders, &(user.clone(), order.order_id.clone()), &placed)
    }

    fn cancel(&self, user: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let key = (user.clone(), order_id.clone());
        let Some(mut order) = cx.get(&self.orders, &key)? else { return Ok(()) };
        order.cancelled = true;
        cx.put(&self.orders, &key, &order)
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
}
