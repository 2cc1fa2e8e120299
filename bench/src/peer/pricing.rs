//! Demand and prices, as the peers' job has them.

use super::{
    output::PriceChange,
    parcel::{Content, decayed},
};
use serde::{Deserialize, Serialize};
use tillflow_engine_api::{Context, Declare, Error, Output, Processor, Result};
use tillflow_schemas::{Event, Inventory, Parcel, ProductId, partition::partition};
use tillflow_state::Table;

const HOUR_MS: i64 = 3_600_000;

/// What is known of a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    /// Demand as of `at`.
    score: f64,
    at: i64,
    stock: Option<i64>,
    price: f64,
    /// When the price last changed.
    changed: Option<i64>,
}

fn base(product: &str) -> f64 {
    f64::from(20 + partition(product.as_bytes(), 180))
}

impl Product {
    fn new(product: &str, at: i64) -> Self {
        Self { score: 0.0, at, stock: None, price: base(product), changed: None }
    }

    fn demand(&mut self, score: f64, at: i64) {
        let now = self.at.max(at);
        self.score = decayed(self.score, now - self.at) + decayed(score, now - at);
        self.at = now;
    }

    /// The price that rule and bounds give, and why; `None` where it stays.
    fn decide(&self, base: f64) -> Option<(f64, String)> {
        let stock = self.stock?;
        if self.changed.is_some_and(|at| self.at - at < HOUR_MS) {
            return None;
        }
        let by_demand = base * 0.05 * self.score / 100.0;
        let (price, reason) = match stock {
            ..20 => (self.price + by_demand, format!("Low stock ({stock})")),
            20..=100 => (base + by_demand, format!("Moderate stock ({stock})")),
            _ if self.score < 5.0 => (self.price * 0.95, format!("High stock ({stock})")),
            _ => return None,
        };
        let bounded = price.clamp(self.price * 0.85, self.price * 1.15);
        let price = (bounded * 100.0).round() / 100.0;
        (price != self.price).then_some((price, reason))
    }
}

/// The processor.
pub struct Pricing {
    products: Table<ProductId, Product>,
    changes: Output<PriceChange>,
}

impl Processor for Pricing {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<Inventory>();
        d.input::<Parcel>();
        Self { products: d.store("peer.products"), changes: d.output() }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        match event {
            Event::Inventory(inventory) => {
                let at = inventory.last_updated.millis();
                self.change(&inventory.product_id, at, cx, |product| {
                    product.stock = Some(inventory.stock_level);
                    product.demand(0.0, at);
                })
            }
            Event::Parcel(parcel) => {
                let content = Content::open(&parcel.body).ok_or_else(|| Error::reject("not a parcel of this job"))?;
                content.demands.iter().zip(&content.names).try_for_each(|(demand, name)| {
                    self.change(&ProductId::from(*name), demand.at, cx, |product| product.demand(demand.score, demand.at))
                })
            }
            _ => Ok(()),
        }
    }
}

impl Pricing {
    fn change(&self, id: &ProductId, at: i64, cx: &mut Context<'_>, change: impl FnOnce(&mut Product)) -> Result<()> {
        let mut product = cx.get(&self.products, id)?.unwrap_or_else(|| Product::new(id.as_str(), at));
        change(&mut product);
        if let Some((price, reason)) = product.decide(base(id.as_str())) {
            cx.emit(&self.changes, PriceChange { product_id: id.as_str().to_owned(), old: product.price, new: price, reason })?;
            (product.price, product.changed) = (price, Some(product.at));
        }
        cx.put(&self.products, id, &product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(stock: i64, score: f64, price: f64) -> Product {
        Product { score, at: 10 * HOUR_MS, stock: Some(stock), price, changed: Some(0) }
    }

    #[test]
    fn scarce_goods_rise_with_demand_plentiful_ones_fall_without_it_and_no_price_moves_by_more_than_a_seventh() {
        assert_eq!(product(10, 100.0, 50.0).decide(100.0).unwrap(), (55.0, "Low stock (10)".into()));
        assert_eq!(product(10, 1_000.0, 50.0).decide(100.0).unwrap().0, 57.5);
        assert_eq!(product(60, 0.0, 110.0).decide(100.0).unwrap().0, 100.0);
        assert_eq!(product(140, 4.0, 100.0).decide(100.0).unwrap().0, 95.0);
        assert_eq!(product(140, 5.0, 100.0).decide(100.0), None);
    }

    #[test]
    fn a_price_rests_for_an_hour_and_a_score_is_half_as_high_after_one() {
        let rested = Product { changed: Some(10 * HOUR_MS - 1), ..product(10, 100.0, 50.0) };
        assert_eq!(rested.decide(100.0), None);
        let mut warm = product(10, 8.0, 50.0);
        warm.demand(1.0, 11 * HOUR_MS);
        assert_eq!(warm.score, 5.0);
    }
}
