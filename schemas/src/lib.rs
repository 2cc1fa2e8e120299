//! Events and bytes: the typed records of every topic, how they are written and read, and the list of topics.
//!
//! ```
//! use tillflow_schemas::{Event, UserEventKind};
//! let json = br#"{"event_type": "product_viewed", "user_id": "u1", "product_id": "p1", "timestamp": "2026-03-01T10:00:00Z"}"#;
//! let Event::User(event) = Event::decode("user_event", None, Some(json)).unwrap() else { unreachable!() };
//! assert!(matches!(event.kind, UserEventKind::ProductViewed { .. }));
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod avro;
mod codec;
mod error;
mod event;
pub mod framing;
mod ids;
mod input;
mod internal;
pub mod json;
mod money;
mod output;
pub mod partition;
mod reference;
pub mod registry;
#[cfg(test)]
mod tests;
mod time;
mod topics;
mod trace;
mod user_event;

pub use codec::{Codec, CodecError, LONGEST_VALUE};
pub use error::{DecodeError, shorten};
pub use event::{EVENT_ID_HORIZON, Event, Identity, PACKED, Record, Reference, from_bytes, to_bytes};
pub use ids::{CampaignId, OrderId, PlanId, ProductId, SubscriptionId, UserId};
pub use input::{Inventory, LoyaltyAction, LoyaltyCommand, SubscriptionAction, SubscriptionEvent};
pub use internal::{
    ClockMark, CustomerSignal, DeadLetterStatus, DemandSignal, ItemPair, ItemPairs, Parcel, ProductCommand, ProductStatus, ShopFact,
    TaskOwner,
};
pub use money::{Money, minor_digits};
pub use output::{
    BoxContents, BoxItem, EmailResult, EmailTrigger, Entitlements, EntryKind, LoyaltyUpdate, Mode, Notification, PriceChange, ProductPrice,
    Recommendations, RecommendedItem, Related, RelatedProducts, Segments,
};
pub use reference::{
    Badge, Campaign, Challenge, Change, Consent, ConsentStatus, Customer, ErasedUser, Plan, PricingRule, Product, Reward,
    SegmentDefinition, Template,
};
pub use registry::{BuiltInRegistry, ConfluentRegistry, RegistryError, SchemaRegistry};
pub use time::Timestamp;
pub use topics::{Catalog, CatalogError, Class, Cleanup, Format, Keyed, Needs, Role, Topic};
pub use trace::{TRACEPARENT, Trace};
pub use user_event::{Item, Order, Refund, UserEvent, UserEventKind};
