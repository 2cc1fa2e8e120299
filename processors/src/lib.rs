//! The five systems, one folder each. Pure: (state, event, time) → (state changes, outputs, timers).

pub mod email;
pub mod loyalty;
pub mod pricing;
pub mod recommendations;
pub mod shop;
pub mod shopper;
mod stated;
pub mod subscriptions;
mod topology;

pub use stated::problem;
pub use topology::{customers, defaults, groups, products};
