//! What goes with what, and what to show whom (domain.md, section 3).
//!
//! [`ShopperStage`] (keyed by user) cuts sessions, turns them and orders into pairs of products, and ranks for the
//! shopper; [`ProductStage`] (keyed by product) sums the pairs into each product's neighbours. Between them goes
//! `item_pairs`, and back comes `related_products`.
//!
//! The rules are pure and know nothing of either stage: [`session`] (what pairs), [`neighbours`] (what the sums are),
//! [`association`] (what stands out), [`ranking`] (what is shown), [`trends`] (what is shown where nothing is known).
//! [`Recommender`] runs the same rules without a log, so that [`evaluate`] measures what runs.

pub mod association;
pub mod evaluate;
pub mod merchandising;
pub mod neighbours;
pub mod pairs;
mod products;
pub mod ranking;
mod recommender;
pub mod session;
mod settings;
mod shelf;
mod shoppers;
#[cfg(test)]
mod stories;
pub mod trends;

pub use products::ProductStage;
pub use recommender::{Recommender, Repeats};
pub use settings::{InterestWeights, RecommendationsSettings};
pub use shoppers::ShopperStage;
