//! The same job on one thread, in maps, written down as plainly as it can be: what the engine's results are compared
//! with. It shares no code with the processors.

use anyhow::{Context, Result};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{HashSet, VecDeque};
use tillflow_schemas::Timestamp;

#[derive(Deserialize)]
struct Event<'a> {
    event_type: &'a str,
    user_id: &'a str,
    timestamp: &'a str,
    product_id: Option<&'a str>,
    order_id: Option<&'a str>,
    #[serde(borrow)]
    total_amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    product_id: &'a str,
}

#[derive(Default)]
struct User {
    lifetime: i64,
    orders: HashSet<String>,
    /// The latest last.
    recent: VecDeque<(u32, i64)>,
}

/// Everything that the job should have come to.
#[derive(Default)]
pub struct Model {
    users: FxHashMap<String, User>,
    numbers: FxHashMap<String, u32>,
    products: Vec<String>,
    pairs: FxHashMap<u64, u32>,
}

impl Model {
    /// Takes the next event.
    ///
    /// # Errors
    /// When it is not of SPEC's form.
    pub fn take(&mut self, json: &str) -> Result<()> {
        let event: Event<'_> = serde_json::from_str(json)?;
        match event.event_type {
            "product_viewed" | "added_to_cart" => {
                let at = Timestamp::parse(event.timestamp).map_err(anyhow::Error::msg)?.millis();
                let product = self.number(event.product_id.context("no product_id")?);
                self.seen(event.user_id, product, at);
            }
            "order_completed" => self.ordered(&event)?,
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self, product: &str) -> u32 {
        if let Some(number) = self.numbers.get(product) {
            return *number;
        }
        self.products.push(product.to_owned());
        self.numbers.insert(product.to_owned(), self.products.len() as u32 - 1);
        self.products.len() as u32 - 1
    }

    fn user(&mut self, id: &str) -> &mut User {
        if !self.users.contains_key(id) {
            self.users.insert(id.to_owned(), User::default());
        }
        self.users.entry(id.to_owned()).or_default()
    }

    fn pair(&mut self, a: u32, b: u32) {
        *self.pairs.entry(u64::from(a) << 32 | u64::from(b)).or_insert(0) += 1;
        *self.pairs.entry(u64::from(b) << 32 | u64::from(a)).or_insert(0) += 1;
    }

    fn seen(&mut self, user: &str, product: u32, at: i64) {
        let recent = &mut self.user(user).recent;
        recent.retain(|(_, seen)| at - seen <= 30 * 60 * 1_000);
        let before = recent.len();
        recent.retain(|(other, _)| *other != product);
        let mut others = Vec::new();
        if recent.len() == before {
            if recent.len() == 10 {
                recent.pop_front();
            }
            others.extend(recent.iter().map(|(other, _)| *other));
        }
        recent.push_back((product, at));
        others.into_iter().for_each(|other| self.pair(product, other));
    }

    fn ordered(&mut self, event: &Event<'_>) -> Result<()> {
        let order = event.order_id.context("no order_id")?;
        if !self.user(event.user_id).orders.insert(order.to_owned()) {
            return Ok(());
        }
        let total = event.total_amount.context("no total_amount")?.get();
        let (whole, cents) = total.split_once('.').unwrap_or((total, "00"));
        let cents: i64 = format!("{whole}{cents:0<2}").parse()?;
        let user = self.user(event.user_id);
        let multiplier = match user.lifetime {
            5_000.. => 200,
            2_000.. => 150,
            500.. => 125,
            _ => 100,
        };
        user.lifetime += cents * multiplier / 10_000;
        let mut items: Vec<u32> = Vec::new();
        for item in &event.items {
            let product = self.number(item.product_id);
            if !items.contains(&product) {
                items.iter().for_each(|other| self.pair(product, *other));
                items.push(product);
            }
        }
        Ok(())
    }

    /// Lifetime points of every user who has any order.
    pub fn points(&self) -> impl Iterator<Item = (&str, i64)> {
        self.users.iter().filter(|(_, user)| !user.orders.is_empty()).map(|(id, user)| (id.as_str(), user.lifetime))
    }

    /// How often two products were seen together.
    pub fn count(&self, of: &str, other: &str) -> u32 {
        let pair = self.numbers.get(of).zip(self.numbers.get(other));
        pair.and_then(|(a, b)| self.pairs.get(&(u64::from(*a) << 32 | u64::from(*b)))).copied().unwrap_or(0)
    }

    /// Different pairs.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// The most frequent neighbours of every product that has any: the first the most frequent, ties by id.
    pub fn top(&self, limit: usize) -> FxHashMap<&str, Vec<(&str, u32)>> {
        let name = |number: u64| self.products.get(number as usize).map_or("", String::as_str);
        let mut all: FxHashMap<&str, Vec<(&str, u32)>> = FxHashMap::default();
        for (pair, count) in &self.pairs {
            all.entry(name(pair >> 32)).or_default().push((name(pair & 0xffff_ffff), *count));
        }
        for list in all.values_mut() {
            list.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
            list.truncate(limit);
        }
        all
    }
}
