//! The products' side: what is declared, and what each record and timer leads to.

use super::{
    DayOfDemand, Explanation, Facts, Lowest, PastPrice, Place, Priced, PricingParameters, Zone, deciding::Trigger, demand::day_end,
    queries, rules::Rules,
};
use crate::shop::ShopSettings;
use tillflow_engine_api::{Context, Declare, Error, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{
    Change, DemandSignal, Event, Inventory, PriceChange, PricingRule, Product, ProductCommand, ProductId, ProductPrice, ProductStatus,
    Timestamp, partition::partition,
};
use tillflow_state::Table;

/// An hour, the distance of regular decisions.
const HOUR_MS: i64 = 3_600_000;
/// The action of a [`ProductCommand`] that asks for a decision now.
const PRICE_NOW: &str = "price_now";

/// Tables of pricing, for the processor and for its queries.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub products: Table<ProductId, Priced>,
    /// By product and day.
    pub demand: Table<(ProductId, i64), DayOfDemand>,
    /// By product and number.
    pub history: Table<(ProductId, u64), PastPrice>,
    pub lowest: Table<ProductId, Lowest>,
    /// The last decision.
    pub last: Table<ProductId, Explanation>,
    /// The decision that made the price in force.
    pub made: Table<ProductId, Explanation>,
    /// Products whose hourly timer is not set since nothing happens to them.
    pub resting: Table<ProductId, ()>,
}

/// Timers of pricing.
#[derive(Clone, Copy)]
pub(super) struct Timers {
    /// The regular decision.
    pub hourly: TimerKind,
    /// A decision at a given time; the detail begins with what caused it.
    pub decide: TimerKind,
    /// A product record begins to count.
    pub version: TimerKind,
    /// A day of demand counts no more; the detail is its number.
    pub forget_demand: TimerKind,
    /// Looks whether rules have changed, while products rest.
    pub watch: TimerKind,
}

/// Keeps products and decides their prices.
pub struct Pricing {
    pub(super) tables: Tables,
    pub(super) timers: Timers,
    pub(super) rules: Rules,
    pub(super) changes: Output<PriceChange>,
    pub(super) prices: Output<ProductPrice>,
    pub(super) statuses: Output<ProductStatus>,
    shop: ShopSettings,
    /// Up to here all decisions have been made: the time of the timer, or the watermark while a record is processed.
    pub(super) settled: Timestamp,
}

impl Processor for Pricing {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<Inventory>();
        d.input::<Product>();
        d.input::<PricingRule>();
        d.input::<DemandSignal>();
        d.input::<ProductCommand>();
        let defaults: PricingParameters = d.settings("pricing");
        if let Some(problem) = defaults.problem() {
            d.problem(format!("pricing.{problem}"));
        }
        let rules = d.global::<PricingRule>();
        let tables = Tables {
            products: d.store("pricing.products"),
            demand: d.store("pricing.demand"),
            history: d.store("pricing.history"),
            lowest: d.store("pricing.lowest"),
            last: d.store("pricing.last"),
            made: d.store("pricing.made"),
            resting: d.store("pricing.resting"),
        };
        queries::declare(d, tables, rules, &defaults);
        Self {
            tables,
            timers: Timers {
                hourly: d.timer("pricing.hourly"),
                decide: d.timer("pricing.decide"),
                version: d.timer("pricing.version"),
                forget_demand: d.timer("pricing.forget_demand"),
                watch: d.timer("pricing.watch_rules"),
            },
            rules: Rules::new(rules, defaults),
            changes: d.output(),
            prices: d.output(),
            statuses: d.output(),
            shop: d.settings("shop"),
            settled: Timestamp::MIN,
        }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        self.settled = cx.watermark();
        match event {
            Event::DemandSignal(signal) => self.add_demand(signal, cx),
            Event::Inventory(record) => self.take_stock(record, cx),
            Event::Product(change) => self.take_product(change, cx),
            Event::PricingRule(Change { value: Some(rule), .. }) => self.rules.check(rule, cx),
            Event::ProductCommand(command) if command.action == PRICE_NOW => self.price_now(command, cx),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        self.settled = cx.now();
        if timer.is(self.timers.watch) {
            return self.watch_rules(cx);
        }
        let id = ProductId::from(owner(&timer.key));
        if timer.is(self.timers.forget_demand) {
            let day = timer.detail.parse().map_err(|_| Error::reject(format!("'{}' is no day", timer.detail)))?;
            cx.delete(&self.tables.demand, &(id, day));
            return Ok(());
        }
        let Some(mut product) = cx.get(&self.tables.products, &id)? else { return Ok(()) };
        let before = product.clone();
        self.settle(&id, &mut product, cx.now(), cx)?;
        if timer.is(self.timers.hourly) {
            if cx.get(&self.tables.resting, &id)?.is_some() {
                cx.delete(&self.tables.resting, &id);
            }
            let due = self.decide(&id, &mut product, Trigger::Hourly, cx)?;
            product.hourly = product.facts.is_some() && self.set_next(&id, due, cx)?;
        } else if timer.is(self.timers.decide) {
            self.decide(&id, &mut product, Trigger::of(&timer.detail), cx)?;
        }
        if product != before {
            cx.put(&self.tables.products, &id, &product)?;
        }
        Ok(())
    }
}

impl Pricing {
    fn add_demand(&self, signal: &DemandSignal, cx: &mut Context<'_>) -> Result<()> {
        let place = Place::from_stamp(signal.bucket);
        let key = (signal.product_id.clone(), place.known.day());
        let row = cx.get(&self.tables.demand, &key)?;
        if row.is_none() {
            let forget_at = day_end(key.1) + super::WINDOW;
            cx.set_timer(self.timers.forget_demand, &timer_key(&key.0), &key.1.to_string(), forget_at)?;
        }
        let mut row = row.unwrap_or_default();
        row.add(place, super::Counts::of(signal));
        cx.put(&self.tables.demand, &key, &row)?;
        if cx.get(&self.tables.resting, &key.0)?.is_some()
            && let Some(mut product) = cx.get(&self.tables.products, &key.0)?
        {
            self.wake(&key.0, &mut product, place.known.start(), cx)?;
            cx.put(&self.tables.products, &key.0, &product)?;
        }
        Ok(())
    }

    fn take_stock(&mut self, record: &Inventory, cx: &mut Context<'_>) -> Result<()> {
        let id = &record.product_id;
        let mut product = cx.get(&self.tables.products, id)?.unwrap_or_default();
        let before = product.newest_stock().map(|(_, level)| level);
        if !product.take_stock(record.last_updated, record.stock_level, self.settled) {
            return Ok(());
        }
        if let Some(facts) = &product.facts
            && let Ok(p) = self.rules.in_force(&facts.category, id.as_str(), cx).parameters
        {
            let zone = |level| Zone::of(level, &p);
            if zone(record.stock_level) != before.map_or(Zone::Moderate, zone) {
                self.decide_at(id, Trigger::Stock, record.last_updated, cx)?;
            }
        }
        self.wake(id, &mut product, record.last_updated, cx)?;
        self.start_hourly(id, &mut product, record.last_updated, cx)?;
        if before != Some(record.stock_level) {
            self.publish_status(id, &product, cx)?;
        }
        cx.put(&self.tables.products, id, &product)
    }

    fn take_product(&mut self, change: &Change<Product>, cx: &mut Context<'_>) -> Result<()> {
        let id = ProductId::from(change.id.as_str());
        let mut product = cx.get(&self.tables.products, &id)?.unwrap_or_default();
        let facts = change.value.as_ref().map(|p| Facts::of(p, &self.shop)).transpose()?;
        let stated = change.value.as_ref().and_then(|p| p.valid_from);
        // A first version has always counted (contract.md, Topics).
        let from = stated.unwrap_or(if product.is_new() { Timestamp::EARLIEST } else { cx.now() });
        let first = product.is_new();
        product.expect(from, facts);
        if first || stated.is_none() || from <= self.settled {
            self.settle(&id, &mut product, from, cx)?;
        } else {
            cx.set_timer(self.timers.version, &timer_key(&id), &from.millis().to_string(), from)?;
        }
        cx.put(&self.tables.products, &id, &product)
    }

    fn price_now(&mut self, command: &ProductCommand, cx: &mut Context<'_>) -> Result<()> {
        let known = cx.get(&self.tables.products, &command.product_id)?.is_some_and(|p| p.facts.is_some());
        if !known {
            return Err(Error::reject(format!("product_id: no product {} is known", command.product_id)));
        }
        self.decide_at(&command.product_id, Trigger::Run, command.at, cx)
    }

    /// Sets a timer for a decision at `at`, or now where that is past: decisions of a product are made
    /// in the order of time.
    pub(super) fn decide_at(&self, id: &ProductId, trigger: Trigger, at: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        let at = at.max(self.settled);
        cx.set_timer(self.timers.decide, &timer_key(id), &trigger.detail(at), at)
    }

    /// Sets the hourly timer of a product that has a record and a stock level.
    pub(super) fn start_hourly(&self, id: &ProductId, product: &mut Priced, after: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        let (Some((stocked, _)), Some(_), false) = (product.newest_stock(), &product.facts, product.hourly) else { return Ok(()) };
        product.hourly = true;
        cx.set_timer(self.timers.hourly, &timer_key(id), "", next_hourly(id, after.max(stocked).max(self.settled)))
    }

    /// Says the latest known of a product to whoever asks "now".
    pub(super) fn publish_status(&self, id: &ProductId, product: &Priced, cx: &mut Context<'_>) -> Result<()> {
        let status = ProductStatus {
            product_id: id.clone(),
            stock_level: product.newest_stock().map(|(_, level)| level),
            price: product.price().map(|(_, price)| price),
            at: cx.now().max(Timestamp::EARLIEST),
        };
        cx.emit(&self.statuses, status)
    }
}

/// Whose timer it is, in a form that no product's id has: before a record of a key the task fires the timers of that
/// key, but a decision must wait until the watermark says that nothing before it is missing.
pub(super) fn timer_key(id: &ProductId) -> String {
    format!("\u{1}{id}")
}

fn owner(timer_key: &str) -> &str {
    timer_key.strip_prefix('\u{1}').unwrap_or(timer_key)
}

/// The first regular decision of a product after `after`: the same second of every hour, each product its own, so that
/// work is spread over the hour.
pub(super) fn next_hourly(id: &ProductId, after: Timestamp) -> Timestamp {
    let offset = i64::from(partition(id.as_str().as_bytes(), 3_600)) * 1_000;
    let hours = (after.millis() - offset).div_euclid(HOUR_MS) + 1;
    Timestamp::from_millis(hours * HOUR_MS + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hourly_decision_is_always_later_and_at_the_product_s_own_second() {
        let (a, b) = (ProductId::from("a"), ProductId::from("b"));
        let start = Timestamp::from_millis(1_772_323_200_000);
        let first = next_hourly(&a, start);
        assert!(first > start && first.since(start) <= HOUR_MS);
        assert_eq!(next_hourly(&a, first).since(first), HOUR_MS);
        assert_ne!(next_hourly(&b, start), first);
    }
}
