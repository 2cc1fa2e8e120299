//! Rest: a product about which nothing changes need not be looked at every hour.
//!
//! A year's replay of four thousand products would otherwise be forty million decisions, most of them about nothing. After
//! a decision that changed nothing the coming hours are looked at with what is known now: demand decays, cool-downs end, the
//! price of a day ago becomes another. The product rests until the first hour in which that would change its price, for as
//! many hours as it has been quiet already (so that looking ahead never costs more than what it saves), or for good where
//! nothing can. A signal, a stock record, a product record or a changed price wakes it at once; a new rule within
//! [`RULES_SEEN_WITHIN`]. Whether a product rests changes no price: a property test compares both.

use super::{
    DayOfDemand, Demand, Facts, Gate, Priced, Pricing, PricingParameters, decide, deciding::inputs, processor::next_hourly,
    processor::timer_key,
};
use std::time::Duration;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{ProductId, Timestamp};

/// How soon after a rule begins to count, at the latest, resting products return to their hourly decisions.
const RULES_SEEN_WITHIN: Duration = Duration::from_secs(5 * 60);
/// Whose timer the watch over rules is: the task's, not a product's.
const WATCH: &str = "\u{1}";
const HOUR: Duration = Duration::from_secs(3_600);
/// Hours that are looked at ahead, at most: what they need is known of today and tomorrow.
const AHEAD: i64 = 24;

/// When a product's next regular decision is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// As always.
    NextHour,
    /// Not before then, unless something is heard of it.
    At(Timestamp),
    /// Never, unless something is heard of it.
    WhenHeardOf,
}

impl Pricing {
    /// When the next regular decision is due, after one that changed nothing.
    #[allow(clippy::too_many_arguments, reason = "what the decision had before it")]
    pub(super) fn next_due(
        &self,
        id: &ProductId,
        product: &Priced,
        facts: &Facts,
        p: &PricingParameters,
        days: &[(i64, DayOfDemand)],
        gate: Option<Gate>,
        cx: &Context<'_>,
    ) -> Result<Due> {
        let now = cx.now();
        if days.is_empty() && self.is_static(id, product, gate, p, cx)? {
            return Ok(Due::WhenHeardOf);
        }
        // What is known of the time to come is looked at as of its time: only what has happened makes a product restless.
        let stocked = product.stock_from(now).next().map(|(at, _)| at);
        let changed = product.last_change.map(|(at, _)| at);
        let heard = Demand::of(days, now).latest().into_iter().chain(stocked).chain(changed).filter(|at| *at <= now).max();
        let quiet_hours = heard.map_or(AHEAD, |heard| now.since(heard) / HOUR.as_millis() as i64).min(AHEAD);
        let mut at = now;
        for _ in 0..quiet_hours {
            at = next_hourly(id, at);
            if inputs(product, facts, p, days, at).is_none_or(|inputs| decide(&inputs, p).gate.is_none()) {
                break;
            }
        }
        Ok(if at > now { Due::At(at) } else { Due::NextHour })
    }

    /// Whether time alone changes nothing any more: no demand that decays, no cool-down, no other price a day ago.
    fn is_static(&self, id: &ProductId, product: &Priced, gate: Option<Gate>, p: &PricingParameters, cx: &Context<'_>) -> Result<bool> {
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

    /// Sets the timer of the next regular decision, or none where the product rests for good.
    pub(super) fn set_next(&mut self, id: &ProductId, due: Due, cx: &mut Context<'_>) -> Result<bool> {
        let next_hour = next_hourly(id, cx.now());
        let at = match due {
            Due::At(at) if at > next_hour && self.rest(id, cx)? => at,
            Due::WhenHeardOf if self.rest(id, cx)? => return Ok(false),
            _ => next_hour,
        };
        cx.set_timer(self.timers.hourly, &timer_key(id), "", at)?;
        Ok(true)
    }

    /// Lets a product rest; `false` where rules are changing just now, which its decision may not have seen.
    fn rest(&mut self, id: &ProductId, cx: &mut Context<'_>) -> Result<bool> {
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

    /// Something is heard of a product that counts from `since` on: if it rested, its hourly decisions go on from there, or
    /// where they would be by now.
    pub(super) fn wake(&self, id: &ProductId, product: &mut Priced, since: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        if cx.get(&self.tables.resting, id)?.is_none() {
            return Ok(());
        }
        let at = next_hourly(id, self.settled.max(since));
        if cx.timer_at(self.timers.hourly, &timer_key(id), "")?.is_some_and(|due| due <= at) {
            return Ok(());
        }
        if at <= next_hourly(id, self.settled) {
            cx.delete(&self.tables.resting, id);
        }
        product.hourly = true;
        cx.set_timer(self.timers.hourly, &timer_key(id), "", at)
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
                self.wake(&id, &mut product, cx.now(), cx)?;
                cx.put(&self.tables.products, &id, &product)?;
            }
        }
        Ok(())
    }
}
