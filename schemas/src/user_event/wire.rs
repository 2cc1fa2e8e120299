//! The wire form: one flat object, in JSON as in Avro.

use super::{Item, Order, Refund, UserEvent, UserEventKind};
use crate::{DecodeError, Money, OrderId, ProductId, Timestamp, UserId, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// The flat wire form: every field any kind may have.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Flat<'a> {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    event_id: Option<String>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    anonymous_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    session_id: Option<String>,
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    product_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dwell_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    cart_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    order_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    refund_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_amount: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discount_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<FlatItem>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::opt_text")]
    referrer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct FlatItem {
    #[serde(default, deserialize_with = "json::opt_text")]
    product_id: Option<String>,
    #[serde(default)]
    quantity: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<Money>,
}

/// Reads the JSON form. A value that names nobody is the event of the user that its key names.
///
/// # Errors
/// Names the first field that is missing, of a wrong type or out of range.
pub(crate) fn decode(key: Option<&str>, bytes: &[u8]) -> Result<UserEvent, DecodeError> {
    from_flat(key, json::read::<Flat>(bytes)?)
}

/// Reads a JSON value, as decoded from Avro or found inside an HTTP body.
///
/// # Errors
/// As [`decode`].
pub(crate) fn from_value(key: Option<&str>, value: Value) -> Result<UserEvent, DecodeError> {
    from_flat(key, json::from_value::<Flat>(value)?)
}

fn from_flat(key: Option<&str>, f: Flat<'_>) -> Result<UserEvent, DecodeError> {
    use UserEventKind as K;
    if f.event_type.is_empty() {
        return Err(DecodeError::at("event_type", "is missing"));
    }
    let timestamp = f.timestamp.ok_or_else(|| DecodeError::at("timestamp", "is missing"))?;
    json::check_time("timestamp", timestamp)?;
    let product = |id: Option<String>| json::required_id("product_id", id).map(ProductId::from);
    let order = |id: Option<String>| json::required_id("order_id", id).map(OrderId::from);
    let message = |id: Option<String>| json::required_id("message_id", id);
    let price = f.price.map(|p| json::check_amount("price", p)).transpose()?;
    let kind = match f.event_type.as_ref() {
        "product_viewed" => K::ProductViewed { product_id: product(f.product_id)?, dwell_ms: f.dwell_ms },
        "added_to_cart" => K::AddedToCart { product_id: product(f.product_id)?, quantity: quantity(f.quantity)?, price },
        "removed_from_cart" => K::RemovedFromCart { product_id: product(f.product_id)?, quantity: quantity(f.quantity)? },
        "checkout_started" => K::CheckoutStarted { cart_id: f.cart_id },
        "order_completed" => K::OrderCompleted(Order {
            order_id: order(f.order_id)?,
            total_amount: f.total_amount.map(|a| json::check_amount("total_amount", a)).transpose()?,
            currency: currency(f.currency)?,
            items: items(f.items)?,
            discount_code: f.discount_code,
        }),
        "order_refunded" => K::OrderRefunded(Refund {
            refund_id: json::optional_id("refund_id", f.refund_id)?,
            order_id: json::optional_id("order_id", f.order_id)?.map(OrderId::from),
            amount: f.amount.map(|a| json::check_amount("amount", a)).transpose()?,
            currency: currency(f.currency)?,
            items: items(f.items)?,
        }),
        "order_cancelled" => K::OrderCancelled { order_id: order(f.order_id)? },
        "product_reviewed" => K::ProductReviewed {
            product_id: product(f.product_id)?,
            rating: f
                .rating
                .map(|r| u8::try_from(r).map_err(|_| DecodeError::at("rating", format!("{r} is not between 0 and 255"))))
                .transpose()?,
        },
        "recommendation_shown" => K::RecommendationShown { product_id: product(f.product_id)?, kind: f.kind },
        "recommendation_clicked" => K::RecommendationClicked { product_id: product(f.product_id)?, kind: f.kind },
        "back_in_stock_requested" => K::BackInStockRequested { product_id: product(f.product_id)? },
        "email_delivered" => K::EmailDelivered { message_id: message(f.message_id)? },
        "email_opened" => K::EmailOpened { message_id: message(f.message_id)? },
        "email_clicked" => K::EmailClicked { message_id: message(f.message_id)? },
        "email_bounced" => K::EmailBounced { message_id: message(f.message_id)?, hard: f.hard.unwrap_or(false) },
        "email_complained" => K::EmailComplained { message_id: message(f.message_id)? },
        "email_unsubscribed" => K::EmailUnsubscribed { message_id: f.message_id },
        "signed_up" => K::SignedUp { referrer_id: json::optional_id("referrer_id", f.referrer_id)?.map(UserId::from) },
        "page_viewed" => K::PageViewed { url: f.url },
        other => K::Unknown { event_type: json::checked_text("event_type", other.to_owned())? },
    };
    let mut user_id = json::optional_id("user_id", f.user_id)?;
    let anonymous_id = json::optional_id("anonymous_id", f.anonymous_id)?;
    if user_id.is_none() && anonymous_id.is_none() {
        user_id = json::optional_id("key", key.map(str::to_owned))?;
    }
    Ok(UserEvent {
        event_id: json::optional_id("event_id", f.event_id)?,
        user_id: user_id.map(UserId::from),
        anonymous_id: anonymous_id.map(UserId::from),
        session_id: json::optional_id("session_id", f.session_id)?,
        timestamp,
        kind,
    })
}

fn currency(code: Option<String>) -> Result<Option<String>, DecodeError> {
    json::check_currency("currency", code)
}

fn items(items: Option<Vec<FlatItem>>) -> Result<Vec<Item>, DecodeError> {
    let items = items.unwrap_or_default();
    if items.len() > 10_000 {
        return Err(DecodeError::at("items", format!("{} items; an order holds at most 10,000", items.len())));
    }
    items.into_iter().enumerate().map(|(i, item)| item.checked().map_err(|e| e.within(&format!("[{i}]")).within("items"))).collect()
}

impl FlatItem {
    fn checked(self) -> Result<Item, DecodeError> {
        Ok(Item {
            product_id: json::required_id("product_id", self.product_id)?.into(),
            quantity: quantity(self.quantity)?,
            price: self.price.map(|p| json::check_amount("price", p)).transpose()?,
        })
    }
}

/// One where the sender says nothing.
fn quantity(given: Option<i64>) -> Result<u32, DecodeError> {
    let given = given.unwrap_or(1);
    u32::try_from(given)
        .ok()
        .filter(|n| (1..=1_000_000).contains(n))
        .ok_or_else(|| DecodeError::at("quantity", format!("{given} is not between 1 and 1000000")))
}

impl Serialize for UserEvent {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.flat().serialize(s)
    }
}

impl UserEvent {
    fn flat(&self) -> Flat<'_> {
        use UserEventKind as K;
        let mut f = Flat {
            event_id: self.event_id.clone(),
            event_type: Cow::Borrowed(self.event_type()),
            user_id: self.user_id.clone().map(UserId::into_string),
            anonymous_id: self.anonymous_id.clone().map(UserId::into_string),
            session_id: self.session_id.clone(),
            timestamp: Some(self.timestamp),
            ..Flat::default()
        };
        let flat_items = |items: &[Item]| {
            Some(
                items
                    .iter()
                    .map(|i| FlatItem {
                        product_id: Some(i.product_id.as_str().to_owned()),
                        quantity: Some(i.quantity.into()),
                        price: i.price,
                    })
                    .collect(),
            )
        };
        let id = |p: &ProductId| Some(p.as_str().to_owned());
        match self.kind.clone() {
            K::ProductViewed { product_id, dwell_ms } => {
                f.product_id = id(&product_id);
                f.dwell_ms = dwell_ms;
            }
            K::AddedToCart { product_id, quantity, price } => {
                f.product_id = id(&product_id);
                f.quantity = Some(quantity.into());
                f.price = price;
            }
            K::RemovedFromCart { product_id, quantity } => {
                f.product_id = id(&product_id);
                f.quantity = Some(quantity.into());
            }
            K::CheckoutStarted { cart_id } => f.cart_id = cart_id,
            K::OrderCompleted(o) => {
                f.order_id = Some(o.order_id.into_string());
                f.total_amount = o.total_amount;
                f.currency = o.currency;
                f.items = flat_items(&o.items);
                f.discount_code = o.discount_code;
            }
            K::OrderRefunded(r) => {
                f.refund_id = r.refund_id;
                f.order_id = r.order_id.map(OrderId::into_string);
                f.amount = r.amount;
                f.currency = r.currency;
                f.items = flat_items(&r.items);
            }
            K::OrderCancelled { order_id } => f.order_id = Some(order_id.into_string()),
            K::ProductReviewed { product_id, rating } => {
                f.product_id = id(&product_id);
                f.rating = rating.map(Into::into);
            }
            K::RecommendationShown { product_id, kind } | K::RecommendationClicked { product_id, kind } => {
                f.product_id = id(&product_id);
                f.kind = kind;
            }
            K::BackInStockRequested { product_id } => f.product_id = id(&product_id),
            K::EmailDelivered { message_id }
            | K::EmailOpened { message_id }
            | K::EmailClicked { message_id }
            | K::EmailComplained { message_id } => f.message_id = Some(message_id),
            K::EmailBounced { message_id, hard } => {
                f.message_id = Some(message_id);
                f.hard = Some(hard);
            }
            K::EmailUnsubscribed { message_id } => f.message_id = message_id,
            K::SignedUp { referrer_id } => f.referrer_id = referrer_id.map(UserId::into_string),
            K::PageViewed { url } => f.url = url,
            K::Unknown { .. } => {}
        }
        f
    }
}
