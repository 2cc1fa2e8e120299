//! Loyalty, keyed by user: points, tiers, the ledger, refunds, challenges, badges, rewards, spins, referrals.
//!
//! `balance` and `lifetime_points` are the sums of the ledger's entries at all times; the tier is the one they give.

mod account;
mod settings;
mod tiers;

pub use account::{ACCOUNTS, Account, accounts};
pub use settings::LoyaltySettings;
pub use tiers::{Factor, Tier, benefits};
