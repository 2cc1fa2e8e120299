//! The records of all topics as one type, and what each says of its key, its time and its identity.

use crate::{
    Badge, BoxContents, Campaign, Challenge, Change, ClockMark, Customer, CustomerSignal, DeadLetterStatus, DecodeError, DemandSignal,
    EmailResult, EmailTrigger, Entitlements, ErasedUser, Inventory, ItemPairs, LoyaltyCommand, LoyaltyUpdate, Notification, Parcel, Plan,
    PriceChange, PricingRule, Product, ProductCommand, ProductPrice, ProductStatus, Recommendations, RelatedProducts, Reward,
    SegmentDefinition, Segments, ShopFact, SubscriptionEvent, TaskOwner, Template, Timestamp, UserEvent, UserEventKind, UserId,
    error::shorten, input, json, reference, user_event,
};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// A value that has a topic: `topics.yaml` says which, by `SCHEMA`.
pub trait Record: Serialize + Clone + Send + Sync + 'static {
    /// Name of its schema, `schemas/<SCHEMA>.avsc`.
    const SCHEMA: &'static str;
    /// Whether it is written packed (postcard after [`PACKED`]) instead of as JSON: the internal records of which there
    /// are many a shopper's event. Only Tillflow reads them, and a drained upgrade changes their form.
    const IS_PACKED: bool = matches!(Self::SCHEMA.as_bytes(), b"item_pairs" | b"demand_signal" | b"parcel");
    /// Its key: the id it carries.
    fn key(&self) -> &str;
    /// As an event that other processors may follow.
    fn into_event(self) -> Event;
}

/// A record that is a version of something: broadcast tables hold them.
pub trait Reference: Record {
    /// Since when it counts, where it says.
    fn valid_from(&self) -> Option<Timestamp>;
    /// The version that an event states, where it is one of these.
    fn of(event: &Event) -> Option<&Self>;
}

/// First byte of a packed value; JSON begins with `{`, framed Avro with 0.
pub const PACKED: u8 = 1;

/// How a record is recognised when it comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `event`, `order`, `refund`, `command`, …; one letter would do, a word reads better in a dump.
    pub scope: &'static str,
    /// Unique within the key and scope.
    pub id: String,
    /// How far apart in event time two may lie and still be the same; `None` is for good.
    pub within: Option<Duration>,
}

/// How far apart in event time two records with one `event_id` may lie and still be the same.
pub const EVENT_ID_HORIZON: Duration = Duration::from_secs(7 * 24 * 3600);

macro_rules! events {
    (
        plain { $($variant:ident($type:ident) = $schema:literal, key $key:expr;)+ }
        reference { $($rvariant:ident($rtype:ident) = $rschema:literal, id $id:ident, from $from:expr;)+ }
    ) => {
        /// One record of any topic, decoded.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "one variant a record type")]
        #[allow(clippy::large_enum_variant, reason = "the large variant, UserEvent, is nearly all of the traffic")]
        pub enum Event {
            User(UserEvent),
            $($variant($type),)+
            $($rvariant(Change<$rtype>),)+
        }

        $(impl Record for $type {
            const SCHEMA: &'static str = $schema;
            fn key(&self) -> &str { let key: fn(&$type) -> &str = $key; key(self) }
            fn into_event(self) -> Event { Event::$variant(self) }
        })+
        $(impl Record for $rtype {
            const SCHEMA: &'static str = $rschema;
            fn key(&self) -> &str { self.$id.as_ref() }
            fn into_event(self) -> Event {
                Event::$rvariant(Change { id: AsRef::<str>::as_ref(&self.$id).to_owned(), value: Some(self) })
            }
        }
        impl Reference for $rtype {
            fn valid_from(&self) -> Option<Timestamp> { let from: fn(&$rtype) -> Option<Timestamp> = $from; from(self) }
            fn of(event: &Event) -> Option<&Self> {
                match event { Event::$rvariant(change) => change.value.as_ref(), _ => None }
            }
        })+

        impl Event {
            /// The schema of the record.
            pub fn schema(&self) -> &'static str {
                match self { Self::User(_) => UserEvent::SCHEMA, $(Self::$variant(_) => $schema,)+ $(Self::$rvariant(_) => $rschema,)+ }
            }

            /// The id the record is placed by; `None` for a guest's event.
            pub fn key(&self) -> Option<&str> {
                let key = match self {
                    Self::User(e) => return e.who().map(AsRef::as_ref),
                    $(Self::$variant(v) => v.key(),)+
                    $(Self::$rvariant(c) => &c.id,)+
                };
                (!key.is_empty()).then_some(key)
            }

            /// What the record's partition follows from: its key, or of a guest's event its own id, by which it is
            /// recognised when it comes again.
            pub fn placed_by(&self) -> Option<&str> {
                self.key().or_else(|| match self {
                    Self::User(e) => e.event_id.as_deref(),
                    _ => None,
                })
            }

            /// Since when it counts, where it is a version that says so.
            pub fn valid_from(&self) -> Option<Timestamp> {
                match self { $(Self::$rvariant(c) => Reference::valid_from(c.value.as_ref()?),)+ _ => None }
            }

            /// The value as JSON; `None` for a deletion.
            ///
            /// # Errors
            /// None for records that were decoded; a number that JSON has no form for otherwise.
            pub fn to_json(&self) -> Result<Option<Vec<u8>>, DecodeError> {
                let bytes = match self {
                    Self::User(e) => serde_json::to_vec(e).map(Some),
                    $(Self::$variant(v) => serde_json::to_vec(v).map(Some),)+
                    $(Self::$rvariant(c) => c.value.as_ref().map(serde_json::to_vec).transpose(),)+
                };
                bytes.map_err(|e| DecodeError::at("", e.to_string()))
            }

            /// Decodes a JSON value of the named schema; `key` stands in for an id the value lacks, and `None`
            /// for the value deletes (reference records only).
            ///
            /// # Errors
            /// Names the field that is wrong.
            pub fn decode(schema: &str, key: Option<&str>, value: Option<&[u8]>) -> Result<Self, DecodeError> {
                match schema {
                    $($rschema => {
                        let id = key.unwrap_or_default();
                        let Some(bytes) = value else {
                            let id = json::required_id("key", Some(id.to_owned()))?;
                            return Ok(Self::$rvariant(Change { id, value: None }));
                        };
                        let mut v = json::read::<$rtype>(bytes)?;
                        if AsRef::<str>::as_ref(&v.$id).is_empty() { v.$id = id.into(); }
                        v.valid_from().map_or(Ok(()), |t| json::check_not_beyond("valid_from", t))?;
                        let event = v.into_event();
                        event.check()?;
                        Ok(event)
                    })+
                    UserEvent::SCHEMA => Ok(Self::User(user_event::decode(key, some(value)?)?)),
                    $($schema => {
                        let mut event = Self::$variant(json::read::<$type>(some(value)?)?);
                        event.fill_key(key);
                        event.check()?;
                        Ok(event)
                    })+
                    _ => Err(DecodeError::at("", format!("no record type has the schema '{}'", shorten(schema)))),
                }
            }

            /// As [`Event::decode`], of a value already parsed.
            ///
            /// # Errors
            /// Names the field that is wrong.
            pub fn from_value(schema: &str, key: Option<&str>, value: Value) -> Result<Self, DecodeError> {
                if schema == UserEvent::SCHEMA { return user_event::from_value(key, value).map(Self::User); }
                Self::decode(schema, key, Some(value.to_string().as_bytes()))
            }
        }
    };
}

impl Record for UserEvent {
    const SCHEMA: &'static str = "user_event";
    fn key(&self) -> &str {
        self.who().map_or("", AsRef::as_ref)
    }
    fn into_event(self) -> Event {
        Event::User(self)
    }
}

impl<'de> serde::Deserialize<'de> for UserEvent {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        user_event::from_value(None, Value::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl Event {
    /// Reads a packed value.
    ///
    /// # Errors
    /// When it is none.
    pub fn unpack(schema: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong = |e: &dyn std::fmt::Display| DecodeError::at("", format!("not a packed {schema}: {e}"));
        let Some((&PACKED, body)) = bytes.split_first() else { return Err(wrong(&"it does not begin as one")) };
        match schema {
            ItemPairs::SCHEMA => postcard::from_bytes(body).map(Self::ItemPairs).map_err(|e| wrong(&e)),
            Parcel::SCHEMA => postcard::from_bytes(body).map(Self::Parcel).map_err(|e| wrong(&e)),
            DemandSignal::SCHEMA => postcard::from_bytes(body).map(Self::DemandSignal).map_err(|e| wrong(&e)),
            _ => Err(wrong(&"its topic holds none")),
        }
    }
}

/// A record's value as it is written: packed or JSON.
///
/// # Errors
/// When it can't be written.
pub fn to_bytes<V: Record>(value: &V) -> Result<Vec<u8>, DecodeError> {
    let wrong = |e: &dyn std::fmt::Display| DecodeError::at("", format!("{} can't be written: {e}", V::SCHEMA));
    if V::IS_PACKED {
        postcard::to_extend(value, vec![PACKED]).map_err(|e| wrong(&e))
    } else {
        serde_json::to_vec(value).map_err(|e| wrong(&e))
    }
}

/// Reads what [`to_bytes`] wrote.
///
/// # Errors
/// When it is something else.
pub fn from_bytes<V: Record + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<V, DecodeError> {
    match bytes.split_first() {
        Some((&PACKED, body)) => postcard::from_bytes(body).map_err(|e| DecodeError::at("", format!("not a packed {}: {e}", V::SCHEMA))),
        _ => json::read(bytes),
    }
}

fn some(value: Option<&[u8]>) -> Result<&[u8], DecodeError> {
    value.ok_or_else(|| DecodeError::at("", "no value; only reference topics take null, to delete"))
}

events! {
    plain {
        Inventory(Inventory) = "inventory", key |v| v.product_id.as_str();
        Subscription(SubscriptionEvent) = "subscription_event", key |v| v.user_id.as_str();
        Command(LoyaltyCommand) = "loyalty_command", key |v| v.user_id.as_str();
        PriceChange(PriceChange) = "price_change", key |v| v.product_id.as_str();
        ProductPrice(ProductPrice) = "product_price", key |v| v.product_id.as_str();
        RelatedProducts(RelatedProducts) = "related_products", key |v| v.product_id.as_str();
        Recommendations(Recommendations) = "recommendations", key |v| v.user_id.as_str();
        LoyaltyUpdate(LoyaltyUpdate) = "loyalty_update", key |v| v.user_id.as_str();
        Notification(Notification) = "notification", key |v| v.user_id.as_str();
        Entitlements(Entitlements) = "entitlements", key |v| v.user_id.as_str();
        BoxContents(BoxContents) = "box_contents", key |v| v.user_id.as_str();
        Segments(Segments) = "segments", key |v| v.user_id.as_str();
        EmailTrigger(EmailTrigger) = "email_trigger", key |v| v.user_id.as_str();
        EmailResult(EmailResult) = "email_result", key |v| v.user_id.as_str();
        DemandSignal(DemandSignal) = "demand_signal", key |v| v.product_id.as_str();
        ItemPairs(ItemPairs) = "item_pairs", key |v| v.product_id.as_str();
        Parcel(Parcel) = "parcel", key |v| v.key.as_str();
        ProductCommand(ProductCommand) = "product_command", key |v| v.product_id.as_str();
        CustomerSignal(CustomerSignal) = "customer_signal", key |v| v.user_id.as_str();
        ShopFact(ShopFact) = "shop_fact", key |v| v.scope.as_str();
        ProductStatus(ProductStatus) = "product_status", key |v| v.product_id.as_str();
        ClockMark(ClockMark) = "clock_mark", key |_| "";
        DeadLetterStatus(DeadLetterStatus) = "dead_letter_status", key |v| v.id.as_str();
        TaskOwner(TaskOwner) = "task_owner", key |v| v.task.as_str();
    }
    reference {
        Product(Product) = "product", id product_id, from |v| v.valid_from;
        Customer(Customer) = "customer", id user_id, from |v| v.valid_from;
        PricingRule(PricingRule) = "pricing_rule", id scope, from |v| v.valid_from;
        Plan(Plan) = "plan", id plan_id, from |v| v.valid_from;
        Campaign(Campaign) = "campaign", id campaign_id, from |v| v.valid_from;
        Reward(Reward) = "reward", id reward_id, from |v| v.valid_from;
        Challenge(Challenge) = "challenge", id challenge_id, from |v| v.valid_from;
        Badge(Badge) = "badge", id badge_id, from |v| v.valid_from;
        SegmentDefinition(SegmentDefinition) = "segment_definition", id segment_id, from |v| v.valid_from;
        Template(Template) = "template", id template_id, from |v| v.valid_from;
        ErasedUser(ErasedUser) = "erased_user", id user_id, from |_| None;
    }
}

impl Event {
    /// Event time, where the record has one; a reference record without `valid_from` has none and is taken at once.
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Self::User(e) => Some(e.timestamp),
            Self::Inventory(v) => Some(v.last_updated),
            Self::Subscription(v) => Some(v.timestamp),
            Self::Command(v) => Some(v.timestamp),
            Self::ProductCommand(v) => Some(v.at),
            Self::CustomerSignal(v) => Some(v.at),
            Self::ShopFact(v) => Some(v.at),
            Self::ClockMark(v) => Some(v.at),
            Self::ErasedUser(c) => Some(c.value.as_ref()?.erased_at),
            Self::Product(c) => c.value.as_ref()?.valid_from,
            Self::Customer(c) => c.value.as_ref()?.valid_from,
            _ => None,
        }
    }

    /// The user whom the record says something about, to the task that keeps their state.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(e) => e.who(),
            Self::Subscription(v) => Some(&v.user_id),
            Self::Command(v) => Some(&v.user_id),
            Self::CustomerSignal(v) => Some(&v.user_id),
            _ => None,
        }
    }

    /// By what the record is recognised when it comes again: none of these may have been seen before.
    pub fn identities(&self) -> Vec<Identity> {
        let event = |id: &Option<String>| {
            id.iter().map(|id| Identity { scope: "event", id: id.clone(), within: Some(EVENT_ID_HORIZON) }).collect::<Vec<_>>()
        };
        let once = |scope, id: &str| Identity { scope, id: id.to_owned(), within: None };
        match self {
            Self::User(e) => {
                let mut ids = event(&e.event_id);
                match &e.kind {
                    UserEventKind::OrderCompleted(o) => ids.push(once("order", o.order_id.as_str())),
                    UserEventKind::OrderRefunded(r) => {
                        ids.extend(r.refund_id.as_deref().or(e.event_id.as_deref()).map(|id| once("refund", id)))
                    }
                    UserEventKind::OrderCancelled { order_id } => ids.push(once("cancel", order_id.as_str())),
                    _ => {}
                }
                ids
            }
            Self::Subscription(s) => event(&s.event_id),
            Self::Command(c) => vec![once("command", &c.command_id)],
            Self::ProductCommand(c) => vec![once("request", &c.request_id)],
            Self::CustomerSignal(s) => vec![once("signal", &s.signal_id)],
            Self::ShopFact(f) => vec![once("fact", &f.fact_id)],
            _ => Vec::new(),
        }
    }

    fn fill_key(&mut self, key: Option<&str>) {
        let Some(key) = key else { return };
        match self {
            Self::Inventory(v) if v.product_id.as_str().is_empty() => v.product_id = key.into(),
            Self::Subscription(v) if v.user_id.as_str().is_empty() => v.user_id = key.into(),
            Self::Command(v) if v.user_id.as_str().is_empty() => v.user_id = key.into(),
            _ => {}
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        let id = |field: &str, id: &str| json::required_id(field, Some(id.to_owned())).map(drop);
        match self {
            Self::Inventory(v) => input::check_inventory(v),
            Self::Subscription(v) => input::check_subscription(v),
            Self::Command(v) => input::check_command(v),
            Self::Product(c) => {
                id("product_id", &c.id)?;
                c.value.as_ref().map_or(Ok(()), reference::check_product)
            }
            Self::Plan(c) => {
                id("plan_id", &c.id)?;
                c.value.as_ref().map_or(Ok(()), reference::check_plan)
            }
            Self::PricingRule(c) => c.value.as_ref().map_or(Ok(()), reference::check_rule),
            Self::Customer(c) => id("user_id", &c.id),
            Self::ErasedUser(c) => id("user_id", &c.id),
            Self::Campaign(c) => id("campaign_id", &c.id),
            Self::Reward(c) => id("reward_id", &c.id),
            Self::Challenge(c) => id("challenge_id", &c.id),
            Self::Badge(c) => id("badge_id", &c.id),
            Self::SegmentDefinition(c) => id("segment_id", &c.id),
            Self::Template(c) => id("template_id", &c.id),
            _ => Ok(()),
        }
    }
}
