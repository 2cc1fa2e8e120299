//! Which systems run in which task group, and in which order they see a record.

use serde_json::{Map, Value, json};
use tillflow_engine_api::Group;
use tillflow_schemas::{Inventory, UserEvent};

/// The systems' sections of `tillflow.yaml`, every key with its default.
pub fn defaults() -> Map<String, Value> {
    let sections = [
        ("shop", json!(crate::shop::ShopSettings::default())),
        ("pricing", json!(crate::pricing::PricingParameters::default())),
        ("recommendations", json!(crate::recommendations::RecommendationsSettings::default())),
        ("loyalty", json!(crate::loyalty::LoyaltySettings::default())),
        ("subscriptions", json!(crate::subscriptions::SubscriptionSettings::default())),
        ("email", json!(crate::email::EmailSettings::default())),
    ];
    sections.into_iter().map(|(name, section)| (name.to_owned(), section)).collect()
}

/// All task groups, upstream first.
pub fn groups(settings: &Map<String, Value>) -> Vec<Group> {
    vec![customers(settings), products(settings)]
}

/// Everything keyed by user. Settings by section, as in `tillflow.yaml`.
pub fn customers(settings: &Map<String, Value>) -> Group {
    // What the others need of a shopper comes first; e-mail, which follows what the others decide, last.
    Group::new::<UserEvent>("customers", None, settings)
        .with::<crate::shopper::Shopper>("shopper")
        .with::<crate::pricing::DemandSignals>("demand_signals")
        .with::<crate::recommendations::ShopperStage>("recommendations")
        .with::<crate::loyalty::Loyalty>("loyalty")
        .with::<crate::subscriptions::Subscriptions>("subscriptions")
        .with::<crate::email::Email>("email")
}

/// Everything keyed by product. Its clock is the customers' watermarks.
pub fn products(settings: &Map<String, Value>) -> Group {
    Group::new::<Inventory>("products", Some("customers"), settings)
        .with::<crate::pricing::Pricing>("pricing")
        .with::<crate::recommendations::ProductStage>("recommendations")
        .with::<crate::subscriptions::BoxStock>("box_stock")
}
