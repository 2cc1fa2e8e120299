//! The stock rule: the price that low, moderate or high stock asks for, and its reason in words.

use super::{Bound, Inputs, PricingParameters};
use rust_decimal::Decimal;

/// Where stock lies between the thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Below `low`.
    Low,
    /// From `low` to `high`.
    Moderate,
    /// Above `high`.
    High,
}

impl Zone {
    /// Where `stock` lies.
    pub fn of(stock: i64, p: &PricingParameters) -> Self {
        match stock {
            s if s < p.low => Self::Low,
            s if s > p.high => Self::High,
            _ => Self::Moderate,
        }
    }
}

/// What the stock rule asks for, before any guardrail.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// The price.
    pub price: Decimal,
    /// Why, for the shop.
    pub reason: String,
    /// Whether it is a markdown of high stock in low demand, of which there is at most one a day.
    pub markdown: bool,
}

impl Raw {
    /// The current price, which only a hard limit moves.
    pub fn limit(current: Decimal, limit: Bound) -> Self {
        Self { price: current, reason: format!("Price limit ({})", limit.name()), markdown: false }
    }
}

/// The price that stock and demand ask for.
pub fn raw_price(i: &Inputs, stock: i64, p: &PricingParameters) -> Raw {
    let score = i.demand.score;
    let raised = |from: Decimal| from.saturating_add(i.base.saturating_mul(p.multiplier.0).saturating_mul(score.decimal()));
    match Zone::of(stock, p) {
        Zone::Low => Raw { price: raised(i.current), reason: format!("Low stock ({stock})"), markdown: false },
        Zone::Moderate => {
            let reason = format!("Moderate stock ({stock}), demand score: {score}");
            Raw { price: raised(i.base), reason, markdown: false }
        }
        Zone::High if may_mark_down(i, p) => {
            let price = i.current.saturating_mul(Decimal::ONE - p.markdown.0);
            Raw { price, reason: format!("High stock ({stock}), low demand"), markdown: true }
        }
        Zone::High => {
            let reason = format!("High stock ({stock}), demand score: {score}");
            Raw { price: i.current.min(raised(i.base)), reason, markdown: false }
        }
    }
}

/// Whether demand is so low, and a floor so well known, that the price may be marked down.
fn may_mark_down(i: &Inputs, p: &PricingParameters) -> bool {
    let number = |d: Decimal| f64::try_from(d).unwrap_or(0.0);
    let hours = i64::from(p.markdown_hours) * 3_600_000;
    i.demand.velocity < number(p.markdown_velocity.0)
        && i.demand.last_day <= number(p.markdown_growth.0) * i.demand.day_before
        && (i.limits.cost.is_some() || i.limits.min_price.is_some())
        && i.last_markdown.is_none_or(|at| i.now.since(at) >= hours)
}
