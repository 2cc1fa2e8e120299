//! Prices that follow stock and demand, within bounds, with reasons.
//!
//! Two processors. [`DemandSignals`] runs beside the shopper's other systems: it counts views, adds, checkouts and orders
//! by product and 15-minute bucket. [`Pricing`] owns the products: it keeps stock, the product record, demand and the
//! price, and decides hourly, when stock crosses a threshold, and when asked.
//!
//! What must hold: a decision for time T runs as a timer due at T, once the watermark has passed T, and sees only what
//! is known by T — closed buckets, the stock level at T, the rules at T. So prices do not depend on how far which task
//! has read. Money is decimal; the only floats are the demand figures, summed in the order of time and rounded to one
//! decimal before they meet money. No user's id reaches this side.

mod deciding;
mod demand;
mod guardrails;
mod parameters;
mod processor;
mod queries;
mod resting;
mod rule;
mod rules;
mod signals;
mod state;

#[cfg(test)]
mod guardrail_table;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod stories;

pub use demand::{BUCKET, Bucket, Counts, DayOfDemand, Demand, Figures, Place, Score, WINDOW};
pub use guardrails::{Bite, Bound, Decision, Gate, Inputs, Limits, decide};
pub use parameters::{Layer, Number, PricingParameters};
pub use processor::Pricing;
pub use rule::{Raw, Zone, raw_price};
pub use signals::DemandSignals;
pub use state::{Explanation, Facts, Lowest, PastPrice, Priced};
