//! Seeded traffic of a shop: 80 % views, 12 % added to a cart, 4 % checkouts, 4 % orders of one to four items.
//!
//! Users and products are drawn by Zipf's law with exponent 1.05, so the first user makes about a tenth of all events.
//! Event time goes on by a millisecond an event.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::fmt::Write;
use tillflow_schemas::Timestamp;

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;
const EXPONENT: f64 = 1.05;
/// Stock levels are below.
const STOCK: usize = 180;
/// After how many events a stock level changes.
const EVENTS_A_STOCK_CHANGE: u64 = 100;

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

fn at(event: u64) -> Timestamp {
    Timestamp::from_millis(START_MS.saturating_add_unsigned(event))
}

/// The traffic of `events` events, as (user, event).
pub fn events(events: u64, users: usize, products: usize, seed: u64) -> impl Iterator<Item = (String, String)> {
    let mut random = StdRng::seed_from_u64(seed);
    let (users, products) = (Zipf::below(users), Zipf::below(products));
    (0..events).map(move |i| {
        let user = format!("u{}", users.draw(&mut random));
        // As long as a UUID, which it stands for.
        let mut event =
            format!(r#"{{"event_id":"{seed:08x}-0000-4000-8000-{i:012x}","user_id":"{user}","timestamp":"{}","event_type":"#, at(i));
        let random = &mut random;
        // Writing to a string can't fail.
        let _ = match random.random_range(0..100) {
            0..80 => write!(event, r#""product_viewed","product_id":"p{}"}}"#, products.draw(random)),
            80..92 => {
                write!(event, r#""added_to_cart","product_id":"p{}","quantity":{}}}"#, products.draw(random), random.random_range(1..4))
            }
            92..96 => write!(event, r#""checkout_started","cart_id":"c{i}"}}"#),
            _ => order(&mut event, i, &products, random),
        };
        (user, event)
    })
}

fn order(event: &mut String, i: u64, products: &Zipf, random: &mut StdRng) -> std::fmt::Result {
    let cents: Vec<u32> = (0..random.random_range(1..5)).map(|_| random.random_range(500..15_000)).collect();
    let amount = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
    let items = cents.iter().map(|c| format!(r#"{{"product_id":"p{}","quantity":1,"price":{}}}"#, products.draw(random), amount(*c)));
    let items: Vec<String> = items.collect();
    write!(event, r#""order_completed","order_id":"o{i}","total_amount":{},"items":[{}]}}"#, amount(cents.iter().sum()), items.join(","))
}

/// The stock of every product, then changes beside `events` events, as (product, record).
pub fn stock(events: u64, products: usize, seed: u64) -> impl Iterator<Item = (String, String)> {
    first_stock(products).chain(stock_changes(events, products, seed))
}

/// The stock of every product before any event, as (product, record).
pub fn first_stock(products: usize) -> impl Iterator<Item = (String, String)> {
    (0..products).map(|n| stock_level(n, n * 37 % STOCK, at(0)))
}

/// Changes of stock beside `events` events, as (product, record).
pub fn stock_changes(events: u64, products: usize, seed: u64) -> impl Iterator<Item = (String, String)> {
    let mut random = StdRng::seed_from_u64(seed);
    let drawn = Zipf::below(products);
    (1..=events / EVENTS_A_STOCK_CHANGE)
        .map(move |n| stock_level(drawn.draw(&mut random), random.random_range(0..STOCK), at(n * EVENTS_A_STOCK_CHANGE)))
}

fn stock_level(product: usize, stock: usize, at: Timestamp) -> (String, String) {
    (format!("p{product}"), format!(r#"{{"product_id":"p{product}","stock_level":{stock},"last_updated":"{at}"}}"#))
}

/// A record of every product, as (product, record).
pub fn catalogue(products: usize) -> impl Iterator<Item = (String, Value)> {
    (0..products).map(|n| {
        let id = format!("p{n}");
        let product =
            json!({"product_id": id, "name": id, "category": format!("c{}", n % 20), "base_price": format!("{}.00", 20 + n % 180)});
        (id, product)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Event;

    #[test]
    fn the_same_seed_gives_the_same_traffic_with_the_mix_that_is_stated() {
        let traffic: Vec<_> = events(20_000, 1_000, 500, 7).collect();
        assert_eq!(traffic, events(20_000, 1_000, 500, 7).collect::<Vec<_>>());
        assert_ne!(traffic, events(20_000, 1_000, 500, 8).collect::<Vec<_>>());
        let share = |kind: &str| traffic.iter().filter(|(_, e)| e.contains(kind)).count() as f64 / 20_000.0;
        assert!((share("product_viewed") - 0.8).abs() < 0.02 && (share("order_completed") - 0.04).abs() < 0.01);
        for (user, event) in &traffic {
            assert_eq!(Event::decode("user_event", None, Some(event.as_bytes())).unwrap().key(), Some(user.as_str()));
        }
    }

    #[test]
    fn every_product_has_a_stock_at_first_and_one_in_a_hundred_events_changes_one() {
        let stock: Vec<_> = stock(1_000, 50, 7).collect();
        assert_eq!(stock.len(), 50 + 10);
        for (product, record) in &stock {
            assert_eq!(Event::decode("inventory", None, Some(record.as_bytes())).unwrap().key(), Some(product.as_str()));
        }
    }
}
