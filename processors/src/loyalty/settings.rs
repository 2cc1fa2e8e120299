//! The `loyalty` section of the configuration.

use super::tiers::{Tier, benefits_of, default_tiers};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The `loyalty` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoyaltySettings {
    /// The tiers, lowest first; the first begins at 0.
    pub tiers: Vec<Tier>,
}

impl Default for LoyaltySettings {
    fn default() -> Self {
        Self { tiers: default_tiers() }
    }
}

impl LoyaltySettings {
    /// The features that a tier brings, those of the tiers below it included.
    pub fn benefits(&self, tier: &str) -> BTreeMap<String, Value> {
        benefits_of(&self.tiers, tier)
    }
}
