//! Price paths of two replays, and what the recorded orders would have come to under each.

use super::{Both, EXAMPLES};
use crate::{commands::Out, replay::input::Line};
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use tillflow_schemas::{Event, Mode, Money, PriceChange, ProductId, ProductPrice, Timestamp, UserEventKind};

/// What the recorded orders hold.
#[derive(Debug, Default)]
pub struct Sold(Vec<(Timestamp, ProductId, u32)>);

impl Sold {
    /// The items of the orders among recorded lines, each order once.
    pub fn of(lines: &[Line]) -> Self {
        let (mut sold, mut orders) = (Vec::new(), HashSet::new());
        for line in lines {
            let Ok(Event::User(event)) = Event::decode("user_event", line.key.as_deref(), line.value.as_deref()) else { continue };
            let at = event.timestamp;
            if let UserEventKind::OrderCompleted(order) = &event.kind
                && orders.insert((event.who().cloned(), order.order_id.clone()))
            {
                sold.extend(order.items.iter().map(|item| (at, item.product_id.clone(), item.quantity)));
            }
        }
        Self(sold)
    }
}

type Path = Vec<(Timestamp, Money)>;

/// Price paths, collected.
#[derive(Debug, Default)]
pub struct Prices {
    paths: BTreeMap<ProductId, Both<Path>>,
    live: Both<u64>,
    shadow: Both<u64>,
    reasons: BTreeMap<(ProductId, Timestamp), Both<String>>,
}

impl Prices {
    /// Takes a `product_prices` record.
    pub fn price(&mut self, after: bool, value: &Value) {
        let Ok(price) = serde_json::from_value::<ProductPrice>(value.clone()) else { return };
        let path = self.paths.entry(price.product_id).or_default().side(after);
        match path.last_mut() {
            // Stated anew, without a change.
            Some((_, last)) if *last == price.price => {}
            Some((since, last)) if *since == price.since => *last = price.price,
            _ => path.push((price.since, price.price)),
        }
    }

    /// Takes a `price_changes` record.
    pub fn change(&mut self, after: bool, value: &Value) {
        let Ok(change) = serde_json::from_value::<PriceChange>(value.clone()) else { return };
        *(if change.mode == Mode::Shadow { &mut self.shadow } else { &mut self.live }).side(after) += 1;
        *self.reasons.entry((change.product_id, change.decided_at)).or_default().side(after) = change.reason;
    }

    /// What differs.
    pub fn compared(self, sold: &Sold) -> PriceDifference {
        let mut found = PriceDifference { changes: self.live, shadow_changes: self.shadow, ..PriceDifference::default() };
        let (mut percents, mut compared) = (0.0, 0_u32);
        for (product, path) in &self.paths {
            found.products += 1;
            let (last_before, last_after) = (path.before.last().map(|p| p.1), path.after.last().map(|p| p.1));
            if let (Some(before), Some(after)) = (last_before, last_after) {
                found.end_higher += u64::from(after > before);
                found.end_lower += u64::from(after < before);
                percents += percent(before, after).unwrap_or_default();
                compared += 1;
            }
            if path.before == path.after {
                continue;
            }
            found.products_changed += 1;
            if found.examples.len() < EXAMPLES {
                found.examples.push(self.example(product, path));
            }
        }
        found.mean_end_change_percent = if compared > 0 { (percents / f64::from(compared) * 100.0).round() / 100.0 } else { 0.0 };
        for (at, product, quantity) in &sold.0 {
            let path = self.paths.get(product);
            let price = |path: Option<&Path>| path.and_then(|p| in_force(p, *at)).and_then(|price| price.times(*quantity));
            let (Some(before), Some(after)) = (price(path.map(|p| &p.before)), price(path.map(|p| &p.after))) else {
                found.revenue.items_without_price += 1;
                continue;
            };
            let sum = &mut found.revenue.at_recorded_quantities;
            (sum.before, sum.after) = (sum.before.plus(before).unwrap_or(sum.before), sum.after.plus(after).unwrap_or(sum.after));
            found.revenue.items += 1;
        }
        found
    }

    fn example(&self, product: &ProductId, path: &Both<Path>) -> PriceExample {
        let at = path.before.iter().zip(&path.after).take_while(|(a, b)| a == b).count();
        let (before, after) = (path.before.get(at), path.after.get(at));
        // The earlier of the two is where they part.
        let since = before.into_iter().chain(after).map(|(since, _)| *since).min().unwrap_or_default();
        let reasons = self.reasons.get(&(product.clone(), since));
        let reason = |text: Option<&String>| text.filter(|r| !r.is_empty()).cloned();
        PriceExample {
            product_id: product.clone(),
            at: since,
            price: Both { before: in_force(&path.before, since), after: in_force(&path.after, since) },
            reason: Both { before: reason(reasons.map(|r| &r.before)), after: reason(reasons.map(|r| &r.after)) },
            end_price: Both { before: path.before.last().map(|p| p.1), after: path.after.last().map(|p| p.1) },
            prices: Both { before: path.before.len(), after: path.after.len() },
        }
    }
}

fn in_force(path: &Path, at: Timestamp) -> Option<Money> {
    path.iter().take_while(|(since, _)| *since <= at).last().map(|(_, price)| *price)
}

fn percent(before: Money, after: Money) -> Option<f64> {
    let ratio = (after - before).decimal().checked_div(before.decimal())?;
    ratio.to_string().parse::<f64>().ok().map(|r| r * 100.0)
}

/// How prices differ.
#[derive(Debug, Default, Serialize)]
pub struct PriceDifference {
    changes: Both<u64>,
    shadow_changes: Both<u64>,
    products: u64,
    products_changed: u64,
    end_higher: u64,
    end_lower: u64,
    mean_end_change_percent: f64,
    revenue: Revenue,
    examples: Vec<PriceExample>,
}

/// What the recorded orders come to at the prices decided, whatever was really paid; no shopper decides anew.
#[derive(Debug, Default, Serialize)]
struct Revenue {
    at_recorded_quantities: Both<Money>,
    items: u64,
    /// Items of which a replay has no price at the order's time.
    items_without_price: u64,
}

/// A product whose prices differ, where they part.
#[derive(Debug, Serialize)]
struct PriceExample {
    product_id: ProductId,
    at: Timestamp,
    price: Both<Option<Money>>,
    reason: Both<Option<String>>,
    end_price: Both<Option<Money>>,
    prices: Both<usize>,
}

impl PriceDifference {
    /// Says it in words.
    pub fn tell(&self, out: Out<'_>) -> Result<()> {
        if self.products == 0 {
            return Ok(writeln!(out, "Prices: neither has any (prices need `products` among the files).")?);
        }
        let Self { changes, products, products_changed, end_higher, end_lower, .. } = self;
        writeln!(
            out,
            "Prices: {} changes instead of {}; {products_changed} of {products} products take another path.",
            changes.after, changes.before
        )?;
        if self.shadow_changes != Both::default() {
            writeln!(out, "  In shadow mode: {} instead of {}.", self.shadow_changes.after, self.shadow_changes.before)?;
        }
        if *products_changed > 0 {
            let mean = self.mean_end_change_percent;
            writeln!(out, "  In the end {end_higher} are higher and {end_lower} lower, {mean:+.2} % in the mean of all products.")?;
        }
        if self.revenue.items > 0 {
            let Both { before, after } = self.revenue.at_recorded_quantities;
            writeln!(
                out,
                "  The recorded orders would come to {after} instead of {before}, at the quantities that were bought: shoppers' answers to"
            )?;
            writeln!(
                out,
                "  other prices are not guessed. {} items count, {} have no price.",
                self.revenue.items, self.revenue.items_without_price
            )?;
        }
        for e in &self.examples {
            let price = |price: Option<Money>| price.map_or("no price".into(), |p| p.to_string());
            let because = e.reason.after.as_ref().map_or(String::new(), |r| format!(" ({r})"));
            let was = e.reason.before.as_ref().map_or(String::new(), |r| format!(" ({r})"));
            writeln!(out, "  {} from {}: {}{because} instead of {}{was}", e.product_id, e.at, price(e.price.after), price(e.price.before))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_part_where_they_part_and_orders_pay_what_is_in_force() {
        let mut prices = Prices::default();
        let at = |hour: u32| format!("2026-03-01T{hour:02}:00:00.000Z");
        let price = |hour, price: &str| json!({"product_id": "p1", "price": price, "currency": null, "since": at(hour)});
        for (after, hour, amount) in [(false, 1, "10.00"), (false, 3, "11.00"), (true, 1, "10.00"), (true, 2, "9.00"), (true, 3, "9.00")] {
            prices.price(after, &price(hour, amount));
        }
        let change = json!({
            "product_id": "p1", "old_price": "10.00", "new_price": "9.00", "currency": null, "reason": "High stock (140), low demand",
            "demand_score": 0.0, "stock_level": 140, "rule": "default", "mode": "live", "decided_at": at(2),
        });
        prices.change(true, &change);
        let time = |hour| Timestamp::parse(&at(hour)).unwrap();
        let sold = Sold(vec![(time(1), "p1".into(), 2), (time(4), "p1".into(), 1), (time(4), "p2".into(), 1)]);
        let found = serde_json::to_value(prices.compared(&sold)).unwrap();
        assert_eq!(found["changes"], json!({"before": 0, "after": 1}));
        assert_eq!(
            (&found["products_changed"], &found["end_lower"], &found["mean_end_change_percent"]),
            (&json!(1), &json!(1), &json!(-18.18))
        );
        assert_eq!(found["revenue"]["at_recorded_quantities"], json!({"before": "31.00", "after": "29.00"}));
        assert_eq!(found["revenue"]["items_without_price"], 1);
        let example = &found["examples"][0];
        assert_eq!((&example["at"], &example["price"]), (&json!(at(2)), &json!({"before": "10.00", "after": "9.00"})));
        assert_eq!(example["reason"]["after"], "High stock (140), low demand");
    }
}
