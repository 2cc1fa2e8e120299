//! Seeded traffic of a shop: 80 % views, 12 % added to a cart, 4 % checkouts, 4 % orders of one to four items.
//!
//! Users and products are drawn by Zipf's law with exponent 1.05, so the first user makes about a tenth of all events.
//! Event time goes on by a millisecond an event.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tillflow_schemas::Timestamp;

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;
const EXPONENT: f64 = 1.05;

/// Draws numbers below a limit by Zipf's law.
struct Zipf(Vec<f64>);

impl Zipf {
    fn below(limit: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=limit.max(1))
                .map(|rank| {
                    sum += (rank as f64).powf(-EXPONENT);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut StdRng) -> usize {
        let all = self.0.last().copied().unwrap_or(1.0);
        let at = random.random_range(0.0..all);
        self.0.partition_point(|sum| *sum <= at)
    }
}

/// The traffic of `events` events, as (user, event).
pub fn events(events: u64, users: usize, products: usize, seed: u64) -> impl Iterator<Item = (String, Value)> {
    let mut random = StdRng::seed_from_u64(seed);
    let (users, products) = (Zipf::below(users), Zipf::below(products));
    (0..events).map(move |i| {
        let user = format!("u{}", users.draw(&mut random));
        let at = Timestamp::from_millis(START_MS.saturating_add_unsigned(i));
        let mut event = serde_json::Map::from_iter(
            [("event_id", json!(format!("{seed:x}-{i:012x}"))), ("user_id", json!(user)), ("timestamp", json!(at))]
                .map(|(k, v)| (k.to_owned(), v)),
        );
        let mut set = |field: &str, value: Value| drop(event.insert(field.to_owned(), value));
        match random.random_range(0..100) {
            0..80 => {
                set("event_type", json!("product_viewed"));
                set("product_id", json!(format!("p{}", products.draw(&mut random))));
            }
            80..92 => {
                set("event_type", json!("added_to_cart"));
                set("product_id", json!(format!("p{}", products.draw(&mut random))));
                set("quantity", json!(random.random_range(1..4)));
            }
            92..96 => {
                set("event_type", json!("checkout_started"));
                set("cart_id", json!(format!("c{i}")));
            }
            _ => {
                let cents: Vec<u32> = (0..random.random_range(1..5)).map(|_| random.random_range(500..15_000)).collect();
                let amount = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
                let items: Vec<Value> = cents
                    .iter()
                    .map(|c| json!({"product_id": format!("p{}", products.draw(&mut random)), "quantity": 1, "price": amount(*c)}))
                    .collect();
                set("event_type", json!("order_completed"));
                set("order_id", json!(format!("o{i}")));
                set("total_amount", json!(amount(cents.iter().sum())));
                set("items", json!(items));
            }
        }
        (user, Value::Object(event))
    })
}

/// A record and a stock level of every product, as (product, record).
pub fn catalogue(products: usize) -> impl Iterator<Item = (String, Value, Value)> {
    (0..products).map(|n| {
        let id = format!("p{n}");
        let product =
            json!({"product_id": id, "name": id, "category": format!("c{}", n % 20), "base_price": format!("{}.00", 20 + n % 180)});
        let stock = json!({"product_id": id, "stock_level": 10 + n * 7 % 190, "last_updated": Timestamp::from_millis(START_MS)});
        (id, product, stock)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_traffic_with_the_mix_that_is_stated() {
        let kinds = |seed| {
            events(20_000, 1_000, 500, seed).map(|(_, e)| e["event_type"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let traffic = kinds(7);
        assert_eq!(traffic, kinds(7));
        assert_ne!(traffic, kinds(8));
        let share = |kind: &str| traffic.iter().filter(|k| *k == kind).count() as f64 / 20_000.0;
        assert!((share("product_viewed") - 0.8).abs() < 0.02 && (share("order_completed") - 0.04).abs() < 0.01);
    }
}
