//! Identifiers, one type each, so that a product can never stand where a user is meant. Those of up to 24 bytes, which
//! are nearly all, lie in place: copying one allocates nothing.

use crate::json;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(CompactString);

        impl $name {
            /// The identifier as it was sent.
            pub fn as_str(&self) -> &str { &self.0 }
            /// The identifier as it was sent, owned.
            pub fn into_string(self) -> String { self.0.into_string() }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> { json::text(d).map(Self) }
        }
        impl From<&str> for $name { fn from(id: &str) -> Self { Self(id.into()) } }
        impl From<String> for $name { fn from(id: String) -> Self { Self(id.into()) } }
        impl fmt::Display for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }
        impl AsRef<str> for $name { fn as_ref(&self) -> &str { &self.0 } }
        impl tillflow_state::Key for $name {
            fn write(&self, out: &mut Vec<u8>) { tillflow_state::key::write_text(&self.0, out); }
            fn read(input: &mut &[u8]) -> Option<Self> { tillflow_state::key::read_text(input).map(Self::from) }
        }
        impl std::borrow::Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
    )+};
}

id! {
    /// A shopper known to the shop, or an anonymous visitor's id where no user is known.
    UserId,
    /// A product (SKU).
    ProductId,
    /// An order; unique within its user.
    OrderId,
    /// A subscription plan.
    PlanId,
    /// A subscription of one user.
    SubscriptionId,
    /// An e-mail campaign.
    CampaignId,
}
