//! The job by which stream processors are compared: loyalty points, co-occurrence, demand and prices, on Tillflow's
//! engine. Its rules are its own, not the product's.

mod bytes;
mod cells;
pub mod check;
mod counts;
pub mod instance;
mod loyalty;
pub mod model;
mod names;
mod output;
mod packed;
mod parcel;
mod pricing;
mod related;
pub mod run;
mod sessions;

use clap::ValueEnum;
use loyalty::Loyalty;
use pricing::Pricing;
use serde_json::Map;
use sessions::Sessions;
use std::sync::Arc;
use tillflow_engine_api::Group;
use tillflow_schemas::{Catalog, CatalogError, Inventory, UserEvent};

/// How neighbours are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Every pair.
    Exact,
    /// A bounded number of neighbours a product.
    Bounded,
}

impl Mode {
    /// Its name, as topics carry it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bounded => "bounded",
        }
    }
}

/// The job's topics.
///
/// # Errors
/// None: the list is built in.
pub fn catalog(mode: Mode, partitions: u32) -> Result<Arc<Catalog>, CatalogError> {
    Catalog::parse(&include_str!("topics.yaml").replace("MODE", mode.name()), partitions).map(Arc::new)
}

/// The job's processors.
pub fn groups(mode: Mode) -> Vec<Group> {
    let settings = Map::new();
    let products = Group::new::<Inventory>("products", Some("customers"), &settings);
    let products = match mode {
        Mode::Exact => products.with::<related::Exact>("neighbours"),
        Mode::Bounded => products.with::<related::Bounded>("neighbours"),
    };
    // Of duplicates the job knows orders alone.
    let customers = Group::new::<UserEvent>("customers", None, &settings).without_event_ids();
    vec![customers.with::<Loyalty>("loyalty").with::<Sessions>("sessions"), products.with::<Pricing>("pricing")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use output::LoyaltyUpdate;
    use serde_json::json;
    use tillflow_engine_api::testing::Driver;

    #[test]
    fn of_duplicates_the_job_knows_orders_alone() {
        let mut shop = Driver::group(&groups(Mode::Exact)[0]);
        for (event, order) in [("e1", "o1"), ("e1", "o2"), ("e2", "o2")] {
            let event = json!({"event_id": event, "event_type": "order_completed", "user_id": "u1", "order_id": order,
                "total_amount": "10.00", "items": [], "timestamp": "2026-01-01T00:00:00Z"});
            shop.send_json("user_event", event);
        }
        assert_eq!(shop.emissions::<LoyaltyUpdate>().len(), 2);
    }
}
