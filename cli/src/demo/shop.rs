//! A small shop that does not exist: its catalogue, its customers, and what they do. It only posts what a shop could
//! send; no processor knows it.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::Timestamp;

const CATEGORIES: [(&str, [&str; 8]); 5] = [
    ("tea", ["Sencha", "Assam", "Oolong", "Rooibos", "Earl Grey", "Jasmine", "Matcha", "Darjeeling"]),
    ("teaware", ["Cast-iron pot", "Glass pot", "Strainer", "Bamboo whisk", "Tea tin", "Kettle", "Tasting cup", "Tray"]),
    ("sweets", ["Shortbread", "Honey", "Rock sugar", "Candied ginger", "Marzipan", "Macarons", "Dates", "Dark chocolate"]),
    (
        "books",
        [
            "The Book of Tea",
            "Tea Atlas",
            "Slow Mornings",
            "Gardens of Uji",
            "Baking with Tea",
            "Kettle Logic",
            "Leaf by Leaf",
            "Five O'Clock",
        ],
    ),
    ("gifts", ["Gift box", "Greeting card", "Ribbon", "Candle", "Tea towel", "Sampler", "Advent calendar", "Voucher"]),
];
const CUSTOMERS: usize = 120;
const PLANS: [&str; 3] = ["basic_box", "premium_box", "deluxe_box"];

/// One batch for one route.
pub struct Post {
    /// Path on the gateway.
    pub path: String,
    /// A list of records.
    pub records: Vec<Value>,
}

struct Item {
    id: String,
    price_cents: i64,
    stock: i64,
    /// What shoppers who look at it tend to look at next.
    goes_with: Vec<usize>,
}

struct Visit {
    customer: usize,
    looking_at: usize,
    steps_left: u32,
    cart: BTreeMap<usize, u32>,
    /// Whether it leaves without buying what is in the cart.
    leaves: bool,
}

/// The shop.
pub struct DemoShop {
    rng: ChaCha8Rng,
    items: Vec<Item>,
    visits: Vec<Visit>,
    orders: u64,
    subscribed: usize,
}

impl DemoShop {
    /// A shop whose shoppers do the same every time for the same seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = CATEGORIES.len() * 8;
        let items = (0..count).map(|i| Item {
            id: format!("{}-{}", CATEGORIES.get(i / 8).map_or("", |c| c.0), i % 8 + 1),
            price_cents: rng.random_range(3..60) * 100 + 99,
            stock: rng.random_range(8..140),
            goes_with: (0..4).map(|n| if n < 2 { i / 8 * 8 + rng.random_range(0..8) } else { rng.random_range(0..count) }).collect(),
        });
        let items = items.collect();
        Self { rng, items, visits: Vec::new(), orders: 0, subscribed: 0 }
    }

    /// What the shop states once: catalogue, customers with consent, rewards.
    pub fn opening(&mut self, now: Timestamp) -> Vec<Post> {
        let names = CATEGORIES.iter().flat_map(|(category, names)| names.iter().map(move |name| (*category, *name)));
        let products = names.zip(&self.items).enumerate().map(|(i, ((category, name), item))| {
            json!({
                "product_id": item.id, "name": name, "category": category, "base_price": cents(item.price_cents), "currency": "EUR",
                "cost": cents(item.price_cents * 6 / 10), "box_eligible": category != "books", "exclusive": i % 8 == 7,
                "url": format!("https://shop.example/p/{}", item.id),
                "tags": if category == "tea" { vec!["replenishable"] } else { vec![] },
            })
        });
        let customers = (0..CUSTOMERS).map(|c| {
            let status = if c % 10 == 9 { "withdrawn" } else { "granted" };
            json!({
                "user_id": customer(c), "email": format!("{}@example.org", customer(c)), "first_name": format!("Customer {c}"), "country": "DE",
                "consent": {"status": status, "at": now, "source": "checkout", "text_version": "1"},
            })
        });
        let rewards = [("mug", 200), ("tasting", 500)].map(|(id, points)| json!({"reward_id": id, "name": id, "points": points}));
        let products = Post { path: "/v1/topics/products".into(), records: products.collect() };
        let customers = Post { path: "/v1/topics/customers".into(), records: customers.collect() };
        let rewards = Post { path: "/v1/topics/rewards".into(), records: rewards.into() };
        let stock = Post { path: "/v1/inventory".into(), records: (0..self.items.len()).map(|i| self.stock(i, now)).collect() };
        vec![products, customers, rewards, stock]
    }

    /// What happens in the `elapsed` time up to `now`: about `rate` events.
    pub fn happenings(&mut self, now: Timestamp, elapsed: Duration, rate: usize) -> Vec<Post> {
        let mut events = Vec::new();
        let mut restocked = Vec::new();
        for n in 0..rate {
            let at = (now - elapsed).plus(elapsed * n as u32 / rate as u32);
            if self.visits.len() < 12 || self.rng.random_bool(0.1) {
                let visit = self.visit();
                self.visits.push(visit);
            }
            let i = self.rng.random_range(0..self.visits.len());
            self.step(i, at, &mut events, &mut restocked);
        }
        restocked.sort_unstable();
        restocked.dedup();
        let mut posts = vec![Post { path: "/v1/events".into(), records: events }];
        posts.push(Post { path: "/v1/inventory".into(), records: restocked.into_iter().map(|i| self.stock(i, now)).collect() });
        if self.subscribed < CUSTOMERS / 4 {
            posts.push(Post { path: "/v1/topics/subscription_events".into(), records: vec![self.subscription(now)] });
        }
        if self.rng.random_bool(0.1) {
            let command = json!({
                "command_id": format!("demo-{:x}", self.rng.random::<u64>()), "user_id": customer(self.rng.random_range(0..CUSTOMERS)), "timestamp": now,
                "action": "redeem", "reward_id": "mug",
            });
            posts.push(Post { path: "/v1/topics/loyalty_commands".into(), records: vec![command] });
        }
        posts.retain(|p| !p.records.is_empty());
        posts
    }

    fn visit(&mut self) -> Visit {
        // A few regulars come often, the others now and then.
        let customer =
            if self.rng.random_bool(0.4) { self.rng.random_range(0..CUSTOMERS / 10) } else { self.rng.random_range(0..CUSTOMERS) };
        Visit {
            customer,
            looking_at: self.rng.random_range(0..self.items.len()),
            steps_left: self.rng.random_range(3..12),
            cart: BTreeMap::new(),
            leaves: self.rng.random_bool(0.35),
        }
    }

    fn step(&mut self, i: usize, at: Timestamp, events: &mut Vec<Value>, changed: &mut Vec<usize>) {
        let Some(visit) = self.visits.get_mut(i) else { return };
        let Some(item) = self.items.get(visit.looking_at) else { return };
        let user = customer(visit.customer);
        let id = format!("{:016x}", self.rng.random::<u64>());
        let event = |event_type: &str, fields: Value| {
            let mut event = json!({"event_id": id, "event_type": event_type, "user_id": user, "timestamp": at});
            if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
                event.extend(fields);
            }
            event
        };
        if visit.steps_left > 0 {
            visit.steps_left -= 1;
            if self.rng.random_bool(0.3) {
                *visit.cart.entry(visit.looking_at).or_insert(0) += 1;
                events.push(event("added_to_cart", json!({"product_id": item.id, "quantity": 1, "price": cents(item.price_cents)})));
            } else {
                events.push(event("product_viewed", json!({"product_id": item.id, "dwell_ms": self.rng.random_range(2_000..60_000)})));
            }
            if let Some(next) = item.goes_with.choose(&mut self.rng) {
                visit.looking_at = *next;
            }
            return;
        }
        let visit = self.visits.swap_remove(i);
        if visit.cart.is_empty() || visit.leaves {
            return;
        }
        self.orders += 1;
        let lines: Vec<_> = visit.cart.iter().filter_map(|(i, quantity)| Some((self.items.get(*i)?, *quantity))).collect();
        let total: i64 = lines.iter().map(|(item, quantity)| item.price_cents * i64::from(*quantity)).sum();
        let items: Vec<_> = lines
            .iter()
            .map(|(item, quantity)| json!({"product_id": item.id, "quantity": quantity, "price": cents(item.price_cents)}))
            .collect();
        events.push(event(
            "order_completed",
            json!({"order_id": format!("o-{}", self.orders), "total_amount": cents(total), "currency": "EUR", "items": items}),
        ));
        for (i, quantity) in visit.cart {
            if let Some(item) = self.items.get_mut(i) {
                item.stock -= i64::from(quantity);
                if item.stock < 3 {
                    item.stock += self.rng.random_range(40..160);
                }
                changed.push(i);
            }
        }
    }

    fn subscription(&mut self, now: Timestamp) -> Value {
        let user = customer(self.subscribed * 4);
        let plan = PLANS.get(self.subscribed % PLANS.len()).copied().unwrap_or_default();
        self.subscribed += 1;
        json!({"event_id": format!("sub-{user}"), "user_id": user, "timestamp": now, "subscription_id": format!("s-{user}"), "plan_id": plan, "action": "started"})
    }

    fn stock(&self, i: usize, now: Timestamp) -> Value {
        let item = self.items.get(i);
        json!({"product_id": item.map(|x| x.id.as_str()), "stock_level": item.map(|x| x.stock), "last_updated": now})
    }
}

fn customer(c: usize) -> String {
    format!("user{c}")
}

fn cents(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::{Catalog, Event};

    #[test]
    fn everything_it_posts_is_what_a_shop_could_send_and_the_same_for_one_seed() {
        let now = Timestamp::parse("2026-03-01T10:00:00Z").unwrap();
        let catalog = Catalog::built_in(4).unwrap();
        let posts = |seed| {
            let mut shop = DemoShop::new(seed);
            let mut posts = shop.opening(now);
            for minute in 1..100 {
                posts.extend(shop.happenings(now.plus(Duration::from_secs(60 * minute)), Duration::from_secs(60), 20));
            }
            posts
        };
        let first = posts(1);
        for post in &first {
            let schema = match post.path.as_str() {
                "/v1/events" => "user_event",
                "/v1/inventory" => "inventory",
                path => &catalog.get(path.rsplit('/').next().unwrap()).unwrap().schema,
            };
            for record in &post.records {
                Event::from_value(schema, None, record.clone()).unwrap_or_else(|e| panic!("{record}: {e}"));
            }
        }
        let text = |posts: &[Post]| posts.iter().map(|p| format!("{}{:?}", p.path, p.records)).collect::<String>();
        assert_eq!(text(&first), text(&posts(1)));
        assert_ne!(text(&first), text(&posts(2)));
    }
}
