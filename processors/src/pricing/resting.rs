//! Rest: a product about which nothing changes need not be looked at every hour.
//!
//! A year's replay of four thousand products would otherwise be forty million decisions, most of them about nothing. A
//! product rests when its last hourly decision changed nothing and no later one could, as long as nothing is heard of it:
//! no demand that could decay, no cool-down that could end, no price of a day ago that could differ. A signal, a stock
//! record or a product record wakes it at once; a new rule within [`RULES_SEEN_WITHIN`]. Whether a product rests changes
//! no price: the property tests compare both.

use super::{Gate, Priced, Pricing, PricingParameters, processor::next_hourly, processor::timer_key};
use std::time::Duration;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::ProductId;

/// How soon after a rule begins to count, at the latest, resting products return to their hourly decisions.
const RULES_SEEN_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Whose timer the watch over rules is: the task's, not a product's.
const WATCH: &str = "\u{1}";

impl Pricing {
    /// Whether nothing but news can change the price, after a decision that changed nothing and saw no demand.
    pub(super) fn may_rest(
        &self,
        id: &ProductId,
        product: &Priced,
        gate: Option<Gate>,
        p: &PricingParameters,
        cx: &Context<'_>,
    ) -> Result<bool> {
        let now = cx.now();
        let passes = matches!(gate, Some(Gate::CoolDown | Gate::Turn));
        let markdown_due = product.last_markdown.is_some_and(|at| now.since(at) < i64::from(p.markdown_hours) * 3_600_000);
        if passes || markdown_due || !product.is_steady(now) || !product.is_settled(now) {
            return Ok(false);
        }
        // Nothing until now, but it may be read ahead of the clock.
        let mut demand = false;
        cx.scan(&self.tables.demand, id, |_, _| {
            demand = true;
            false
        })?;
        Ok(!demand)
    }

    /// Lets a product rest; `false` where rules are changing just now, which its decision may not have seen.
    pub(super) fn rest(&mut self, id: &ProductId, cx: &mut Context<'_>) -> Result<bool> {
        let watched = cx.timer_at(self.timers.watch, WATCH, "")?.is_some();
        let changed = self.rules.have_changed(cx);
        if changed && watched {
            return Ok(false);
        }
        if !watched {
            cx.set_timer(self.timers.watch, WATCH, "", cx.now() + RULES_SEEN_WITHIN)?;
        }
        cx.put(&self.tables.resting, id, &())?;
        Ok(true)
    }

    /// Something is heard of a product: if it rested, its hourly decisions go on where they would be by now.
    pub(super) fn wake(&self, id: &ProductId, product: &mut Priced, cx: &mut Context<'_>) -> Result<()> {
        if cx.get(&self.tables.resting, id)?.is_some() {
            cx.delete(&self.tables.resting, id);
            product.hourly = true;
            cx.set_timer(self.timers.hourly, &timer_key(id), "", next_hourly(id, self.settled))?;
        }
        Ok(())
    }

    /// Wakes all resting products once a rule has changed; else looks again later, while there are any.
    pub(super) fn watch_rules(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if !self.rules.have_changed(cx) {
            let mut any = false;
            cx.scan(&self.tables.resting, &(), |_, ()| {
                any = true;
                false
            })?;
            return if any { cx.set_timer(self.timers.watch, WATCH, "", cx.now() + RULES_SEEN_WITHIN) } else { Ok(()) };
        }
        for (id, ()) in cx.rows(&self.tables.resting, &())? {
            if let Some(mut product) = cx.get(&self.tables.products, &id)? {
                self.wake(&id, &mut product, cx)?;
                cx.put(&self.tables.products, &id, &product)?;
            }
        }
        Ok(())
    }
}
