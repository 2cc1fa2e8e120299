//! What the peers' job emits, in the form that SPEC names.

use serde::Serialize;
use std::sync::Arc;
use tillflow_schemas::{Event, OrderId, Parcel, Record, UserId};

/// Points earned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoyaltyUpdate {
    /// Whose.
    pub user_id: UserId,
    /// By which order.
    pub order_id: OrderId,
    /// How many.
    pub points: i64,
    /// The balance then.
    pub balance: i64,
    /// The tier then.
    pub tier: &'static str,
}

/// The products seen most often together with one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Related {
    /// The one.
    pub product_id: Arc<str>,
    /// The others with their counts, the most frequent first.
    pub related: Vec<(Arc<str>, u32)>,
}

/// A price that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceChange {
    /// Whose.
    pub product_id: String,
    /// From.
    pub old: f64,
    /// To.
    pub new: f64,
    /// Why.
    pub reason: String,
}

macro_rules! record {
    ($type:ident, $schema:literal, $key:ident) => {
        impl Record for $type {
            const SCHEMA: &'static str = $schema;
            fn key(&self) -> &str {
                self.$key.as_ref()
            }
            /// Nobody follows it.
            fn into_event(self) -> Event {
                Event::Parcel(Parcel::default())
            }
        }
    };
}
record!(LoyaltyUpdate, "peer_loyalty", user_id);
record!(Related, "peer_related", product_id);
record!(PriceChange, "peer_price", product_id);
