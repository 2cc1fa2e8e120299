//! The decision: a raw price from the stock rule, then the guardrails, in the order of the specification. Pure: what
//! goes in is in [`Inputs`], what comes out, with the name of everything that bit, in [`Decision`].

use super::{Figures, PricingParameters, Raw, raw_price};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use tillflow_schemas::Timestamp;

/// What a decision rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// When it is made.
    pub now: Timestamp,
    /// The price the shop states.
    pub base: Decimal,
    /// The price in force.
    pub current: Decimal,
    /// What no price may go beyond.
    pub limits: Limits,
    /// Digits of the currency's minor unit.
    pub digits: u32,
    /// Whether the product is tagged `price_fixed`.
    pub price_fixed: bool,
    /// The latest stock level known at `now`.
    pub stock: Option<i64>,
    /// Demand; its score is the one that counts, also where it was set by hand.
    pub demand: Figures,
    /// The price in force 24 hours ago, or since the drift history began.
    pub day_ago: Decimal,
    /// The last change, and its direction: 1 up, -1 down, 0 neither.
    pub last_change: Option<(Timestamp, i8)>,
    /// The last markdown of high stock.
    pub last_markdown: Option<Timestamp>,
}

/// The hard limits of a product.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// What the shop paid.
    pub cost: Option<Decimal>,
    /// The product's own floor.
    pub min_price: Option<Decimal>,
    /// The product's own ceiling.
    pub max_price: Option<Decimal>,
}

impl Limits {
    /// Whether `price` lies outside them; limits that leave no price break nothing.
    pub fn broken_by(&self, price: Decimal, p: &PricingParameters, digits: u32) -> bool {
        self.range(p, digits).is_some_and(|(range, _)| range.hold(price) != price)
    }

    /// The hard range, and which floor its lower end is; `None` where floor and ceiling leave nothing.
    fn range(&self, p: &PricingParameters, digits: u32) -> Option<(Range, Bound)> {
        let cost = self.cost.map(|c| c.saturating_mul(Decimal::ONE + p.min_margin.0));
        let (least, floor) = match (self.min_price, cost) {
            (Some(min), Some(cost)) if cost > min => (cost, Bound::CostFloor),
            (None, Some(cost)) => (cost, Bound::CostFloor),
            (min, _) => (min.unwrap_or(Decimal::ZERO), Bound::MinPrice),
        };
        Some((Range::inward(least, self.max_price.unwrap_or(Decimal::MAX), digits)?, floor))
    }
}

/// Why there is no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// A rule stops every change.
    KillSwitch,
    /// A rule holds this price.
    Pin,
    /// The product is tagged so.
    PriceFixed,
    /// Nothing is known of its stock.
    NoStockRecord,
    /// There is nothing to sell.
    OutOfStock,
    /// The last change is too recent.
    CoolDown,
    /// The price would turn too soon after the last change.
    Turn,
    /// Floor and ceiling leave no price.
    Conflict,
    /// The change would be too small.
    MinChange,
    /// A rule for this product can't be read: it changes no price until it is mended.
    InvalidRule,
}

/// A guardrail that moved the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Soft: so far from the current price in one decision.
    MaxChange,
    /// Soft: so far from the price 24 hours ago.
    #[serde(rename = "max_change_24h")]
    MaxChange24h,
    /// Soft: so far from the base price.
    BaseRange,
    /// Hard: the product's floor.
    MinPrice,
    /// Hard: cost and margin.
    CostFloor,
    /// Hard: the product's ceiling.
    MaxPrice,
    /// A charm ending.
    Charm,
}

impl Bound {
    /// As `bounded_by` gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxChange => "max_change",
            Self::MaxChange24h => "max_change_24h",
            Self::BaseRange => "base_range",
            Self::MinPrice => "min_price",
            Self::CostFloor => "cost_floor",
            Self::MaxPrice => "max_price",
            Self::Charm => "charm",
        }
    }
}

/// One guardrail at work: from which price to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bite {
    /// Which.
    pub bound: Bound,
    /// The price before it.
    pub from: Decimal,
    /// The price after it.
    pub to: Decimal,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The price: the new one, or the current one where a gate holds it.
    pub price: Decimal,
    /// Why there is no change.
    pub gate: Option<Gate>,
    /// What the stock rule asks for; absent where a gate came before it.
    pub raw: Option<Raw>,
    /// Guardrails that bit, in order.
    pub bites: Vec<Bite>,
}

impl Decision {
    pub(super) fn held(inputs: &Inputs, gate: Gate) -> Self {
        Self { price: inputs.current, gate: Some(gate), raw: None, bites: Vec::new() }
    }
}

/// A range of prices.
#[derive(Clone, Copy, Debug)]
struct Range {
    least: Decimal,
    most: Decimal,
}

impl Range {
    /// `around` less and more these fractions of it, rounded inward; `None` where that leaves nothing.
    fn around(price: Decimal, below: Decimal, above: Decimal, digits: u32) -> Option<Self> {
        Self::inward(price.saturating_mul(Decimal::ONE - below), price.saturating_mul(Decimal::ONE + above), digits)
    }

    fn inward(least: Decimal, most: Decimal, digits: u32) -> Option<Self> {
        let least = least.round_dp_with_strategy(digits, RoundingStrategy::ToPositiveInfinity);
        let most = most.round_dp_with_strategy(digits, RoundingStrategy::ToNegativeInfinity);
        (least <= most).then_some(Self { least, most })
    }

    fn hold(self, price: Decimal) -> Decimal {
        price.clamp(self.least, self.most)
    }

    /// The part of `self` nearest to `other`: where they meet, what they share; else the end that faces it.
    fn towards(self, other: Self) -> Self {
        Self { least: self.hold(other.least), most: self.hold(other.most) }
    }
}

/// Decides.
pub fn decide(i: &Inputs, p: &PricingParameters) -> Decision {
    // Kill switch and pin hold the price against everything.
    if p.kill_switch {
        return Decision::held(i, Gate::KillSwitch);
    }
    if p.pin {
        return Decision::held(i, Gate::Pin);
    }
    // a. Gates. A broken hard limit passes these, and the smallest change.
    let gate = gate(i, p);
    let Some((hard, floor)) = i.limits.range(p, i.digits) else { return Decision::held(i, gate.unwrap_or(Gate::Conflict)) };
    let broken = hard.hold(i.current) != i.current;
    if let Some(gate) = gate
        && !broken
    {
        return Decision::held(i, gate);
    }
    // b. Raw. Where there is no stock to go by, or the price is fixed, a broken limit alone moves it.
    let limit_alone = matches!(gate, Some(Gate::PriceFixed | Gate::NoStockRecord | Gate::OutOfStock));
    let raw = match i.stock {
        Some(stock) if !limit_alone => raw_price(i, stock, p),
        _ => Raw::limit(i.current, if i.current < hard.least { floor } else { Bound::MaxPrice }),
    };

    // c. Soft range, d. hard range.
    let mut bites = Vec::new();
    let mut price = raw.price;
    let mut bite = |bound, from: Decimal, to: Decimal| {
        if to != from {
            bites.push(Bite { bound, from, to });
        }
        to
    };
    let mut range = Range { least: Decimal::ZERO, most: Decimal::MAX };
    for (bound, soft) in [
        (Bound::MaxChange, Range::around(i.current, p.max_change.0, p.max_change.0, i.digits)),
        (Bound::MaxChange24h, Range::around(i.day_ago, p.max_change_24h.0, p.max_change_24h.0, i.digits)),
        (Bound::BaseRange, Range::around(i.base, p.max_below_base.0, p.max_above_base.0, i.digits)),
    ] {
        // Prices so small that the range holds no whole minor unit have no soft range.
        let Some(soft) = soft else { continue };
        range = range.towards(soft);
        price = bite(bound, price, range.hold(price));
    }
    price = bite(if price < hard.least { floor } else { Bound::MaxPrice }, price, hard.hold(price));
    let range = hard.towards(range);

    // e. Rounding. The range's ends are whole minor units, so this stays inside.
    price = range.hold(price.round_dp_with_strategy(i.digits, RoundingStrategy::MidpointNearestEven));
    if let Some(charmed) = charm(price, range, p, i.digits) {
        price = bite(Bound::Charm, price, charmed);
    }

    // a again: the turn of direction is known only now. f. Too small a change.
    let direction = direction(i.current, price);
    let turns = i.last_change.is_some_and(|(at, last)| last == -direction && i.now.since(at) < minutes(p.turn_minutes));
    let small = (price - i.current).abs() < i.current.saturating_mul(p.min_change.0);
    let gate = match direction {
        0 => Some(Gate::MinChange),
        _ if broken => None,
        _ if turns => Some(Gate::Turn),
        _ if small => Some(Gate::MinChange),
        _ => None,
    };
    Decision { price: if gate.is_some() { i.current } else { price }, gate, raw: Some(raw), bites }
}

/// Up, down or neither.
pub fn direction(from: Decimal, to: Decimal) -> i8 {
    match to.cmp(&from) {
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Less => -1,
        std::cmp::Ordering::Equal => 0,
    }
}

fn minutes(n: u32) -> i64 {
    i64::from(n) * 60_000
}

fn gate(i: &Inputs, p: &PricingParameters) -> Option<Gate> {
    match i.stock {
        _ if i.price_fixed => Some(Gate::PriceFixed),
        None => Some(Gate::NoStockRecord),
        Some(stock) if stock <= 0 => Some(Gate::OutOfStock),
        _ => i.last_change.filter(|(at, _)| i.now.since(*at) < minutes(p.cool_down_minutes)).map(|_| Gate::CoolDown),
    }
}

/// The greatest price with one of the endings that is at most `price` and inside the range.
fn charm(price: Decimal, range: Range, p: &PricingParameters, digits: u32) -> Option<Decimal> {
    let ending = |e: Decimal| {
        let candidate = price.floor() + e;
        if candidate <= price { candidate } else { candidate - Decimal::ONE }
    };
    let whole = |c: &Decimal| c.round_dp(digits) == *c;
    p.charm_endings.iter().map(|e| ending(e.0)).filter(|c| whole(c) && *c >= range.least && *c > Decimal::ZERO).max()
}
