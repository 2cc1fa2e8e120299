//! What is offered: shoppers who look at the products of a shelf one after the other, and buyers of products that nobody knows yet.
//!
//! A push says nothing new, and so is not made, unless the list is another than before; and none comes within a second of the
//! last one to the same shopper. A shopper who goes along a shelf of products that are bought together, round and round, with
//! [`TURN`] between two looks, is owed one push a view: each list holds the whole shelf but the product looked at. So a push says
//! which view it is for, up to a delay of a whole round.
//!
//! A decision of the second stage must be told from those that other events bring, too: an order of two new products makes
//! each the other's first neighbour, which is published at once.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;

/// Between two events of a shopper: above the least time between two pushes, with room for a push that comes late.
const TURN: Duration = Duration::from_secs(2);
/// Shelves of products that shoppers look at.
const SHELVES: usize = 25;
/// Products of a shelf: as few as fit into one push with room to spare.
pub const SHELF: usize = 8;
/// One event in so many is an order.
const ORDERS: usize = 10;
/// Different buyers.
const BUYERS: usize = 500;
/// Pieces of every product: never low, never high.
const STOCK: u32 = 50;

/// An even flow of events.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Goes before users and products that are its own.
    name: String,
    rate: usize,
    shoppers: usize,
}

/// One event, and what tells the message that it is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A view, owed a push to its shopper that holds all of the shelf but `product`.
    View {
        /// Number of the shopper.
        shopper: usize,
        /// What is looked at.
        product: String,
        /// The others of the shelf.
        others: Vec<String>,
    },
    /// An order, owed the first list of `product`.
    Order {
        /// Who buys.
        buyer: String,
        /// One of the two, which nobody knew.
        product: String,
        /// The other.
        other: String,
    },
}

impl Traffic {
    /// So many events a second.
    pub fn new(name: &str, rate: usize) -> Self {
        let views = rate - rate / ORDERS;
        Self { name: name.to_owned(), rate, shoppers: (views * TURN.as_secs() as usize).max(1) }
    }

    /// Different shoppers.
    pub fn shoppers(&self) -> usize {
        self.shoppers
    }

    /// The name of a shopper.
    pub fn shopper(&self, number: usize) -> String {
        format!("{}-u{number}", self.name)
    }

    /// The number of a shopper of this name.
    pub fn number(&self, user: &str) -> Option<usize> {
        user.strip_prefix(self.name.as_str())?.strip_prefix("-u")?.parse().ok()
    }

    /// When an event is due, from the start on.
    pub fn due(&self, n: usize) -> Duration {
        Duration::from_secs(n as u64) / self.rate as u32
    }

    /// How many events are due within a time.
    pub fn within(&self, time: Duration) -> usize {
        (time.as_secs_f64() * self.rate as f64) as usize
    }

    /// The event of that number.
    pub fn event(&self, n: usize) -> Event {
        if n % ORDERS == ORDERS - 1 {
            let product = |side: &str| format!("{}-n{n}{side}", self.name);
            return Event::Order { buyer: format!("{}-b{}", self.name, n / ORDERS % BUYERS), product: product("a"), other: product("b") };
        }
        let view = n - n / ORDERS;
        let (shopper, turn) = (view % self.shoppers, view / self.shoppers);
        let product = |place: usize| format!("p{}", SHELF * (shopper % SHELVES) + place % SHELF);
        Event::View { shopper, product: product(turn), others: (1..SHELF).map(|next| product(turn + next)).collect() }
    }

    /// It as it is sent: key and value.
    pub fn record(&self, n: usize, at: Timestamp) -> (String, Value) {
        let id = format!("{}-e{n}", self.name);
        match self.event(n) {
            Event::View { shopper, product, .. } => {
                let user = self.shopper(shopper);
                let event = json!({
                    "event_id": id, "event_type": "product_viewed", "user_id": user, "session_id": user, "timestamp": at, "product_id": product
                });
                (user, event)
            }
            Event::Order { buyer, product, other } => {
                let items = [product, other].map(|p| json!({"product_id": p, "quantity": 1, "price": "12.50"}));
                let event = json!({
                    "event_id": id, "event_type": "order_completed", "user_id": buyer, "timestamp": at, "order_id": id, "total_amount": "25.00",
                    "items": items
                });
                (buyer, event)
            }
        }
    }
}

/// The products of all shelves, by id.
pub fn products() -> Vec<(String, Value)> {
    crate::load::catalogue(SHELVES * SHELF).collect()
}

/// An order of each shelf's products, by who buys it: from then on they belong together.
pub fn orders() -> Vec<(String, Value)> {
    let order = |shelf: usize| {
        let (user, id) = (format!("buyer-{shelf}"), format!("shelf-{shelf}"));
        let items = (0..SHELF).map(|place| json!({"product_id": format!("p{}", SHELF * shelf + place), "quantity": 1, "price": "12.50"}));
        let order = json!({
            "event_id": id, "event_type": "order_completed", "user_id": user, "timestamp": Timestamp::wall(), "order_id": id,
            "total_amount": "100.00", "items": items.collect::<Value>()
        });
        (user, order)
    };
    (0..SHELVES).map(order).collect()
}

/// A stock of each.
pub fn stock() -> Vec<(String, Value)> {
    let level = |id: String| (id.clone(), json!({"product_id": id, "stock_level": STOCK, "last_updated": Timestamp::wall()}));
    products().into_iter().map(|(id, _)| level(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn a_shopper_comes_back_after_two_seconds_to_the_next_product_of_the_shelf() {
        for rate in [10, 100, 2_000] {
            let traffic = Traffic::new("t", rate);
            let mut last: HashMap<usize, (Duration, Vec<String>)> = HashMap::new();
            for n in 0..traffic.within(Duration::from_secs(10)) {
                let Event::View { shopper, product, others } = traffic.event(n) else { continue };
                assert!(!others.contains(&product) && others.iter().collect::<HashSet<_>>().len() == SHELF - 1);
                if let Some((at, before)) = last.insert(shopper, (traffic.due(n), others)) {
                    assert!(traffic.due(n) - at > Duration::from_millis(1_900), "{rate}: {:?}", traffic.due(n) - at);
                    assert_eq!(before.first(), Some(&product));
                }
            }
            assert_eq!(last.len(), traffic.shoppers());
        }
    }

    #[test]
    fn an_order_is_of_products_that_no_other_event_names() {
        let traffic = Traffic::new("t", 100);
        let mut known = HashSet::new();
        for n in 0..1_000 {
            if let Event::Order { product, other, .. } = traffic.event(n) {
                assert!(known.insert(product) && known.insert(other));
            }
        }
        assert_eq!(known.len(), 200);
        assert_eq!(traffic.number(&traffic.shopper(7)), Some(7));
    }
}
