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
//!
//! Where the specification leaves a choice, it is made so (each has a test):
//! - A late event counts in the bucket that holds its task's watermark.
//! - A refund or cancellation lowers the bucket of its order, from the refund's own bucket on: pieces that a refund names,
//!   the order's weight with a product's last piece; everything once amounts reach the total. One that came before its
//!   order does so when that comes. Where the order is older than the window, there is nothing left to take.
//! - Both halves of "the last 24 h against the 24 h before" are decayed to their own end: like is compared with like.
//! - Soft ranges are rounded inward and applied in their order; where two do not meet, the price goes to the end of the
//!   earlier one that faces the later. So one decision never moves a price by more than `max_change`, but for a hard limit.
//! - A hard limit that the current price breaks passes the gates; with no stock to go by, or a fixed price, it alone moves
//!   the price, and the reason is `Price limit (…)`.
//! - A product's first price counts from its `valid_from`, else always (2000-01-01).
//! - In shadow mode the same price is published once, not every hour.
//! - A rule that can't be read goes to the dead letters, and the products it covers keep their price (`invalid_rule`).
//! - `lowest_30d` is the lowest live price of the 30 days before the price in force began: what a reduction is measured by.
//! - A deleted product is priced no more; its history stays.

mod deciding;
mod demand;
mod guardrails;
mod parameters;
mod processor;
mod queries;
mod quotes;
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
pub use quotes::{QUOTE_HOLDS, QUOTE_LIMIT, Quote, QuoteError, QuotedPrice};
pub use rule::{Raw, Zone, raw_price};
pub use signals::DemandSignals;
pub use state::{Explanation, Facts, Lowest, PastPrice, Priced};
