//! `user_events`: what shoppers do. The wire form is one flat object; here each kind has its own fields.

use crate::{DecodeError, Money, OrderId, ProductId, Timestamp, UserId, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// One event of a shopper.
#[derive(Clone, Debug, PartialEq)]
pub struct UserEvent {
    /// Unique within the user; the engine counts each once within seven days.
    pub event_id: Option<String>,
    /// The shopper, when known.
    pub user_id: Option<UserId>,
    /// The visitor's id before (or beside) being known.
    pub anonymous_id: Option<UserId>,
    /// The frontend's session id, carried along; sessions are cut by event time.
    pub session_id: Option<String>,
    /// Event time.
    pub timestamp: Timestamp,
    /// What happened.
    pub kind: UserEventKind,
}

/// What happened, with the fields of its kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the contract names each field")]
pub enum UserEventKind {
    ProductViewed {
        product_id: ProductId,
        dwell_ms: Option<u64>,
    },
    AddedToCart {
        product_id: ProductId,
        quantity: u32,
        price: Option<Money>,
    },
    RemovedFromCart {
        product_id: ProductId,
        quantity: u32,
    },
    CheckoutStarted {
        cart_id: Option<String>,
    },
    OrderCompleted(Order),
    OrderRefunded(Refund),
    OrderCancelled {
        order_id: OrderId,
    },
    ProductReviewed {
        product_id: ProductId,
        rating: Option<u8>,
    },
    RecommendationShown {
        product_id: ProductId,
        kind: Option<String>,
    },
    RecommendationClicked {
        product_id: ProductId,
        kind: Option<String>,
    },
    BackInStockRequested {
        product_id: ProductId,
    },
    EmailDelivered {
        message_id: String,
    },
    EmailOpened {
        message_id: String,
    },
    EmailClicked {
        message_id: String,
    },
    EmailBounced {
        message_id: String,
        hard: bool,
    },
    EmailComplained {
        message_id: String,
    },
    EmailUnsubscribed {
        message_id: Option<String>,
    },
    SignedUp {
        referrer_id: Option<UserId>,
    },
    PageViewed {
        url: Option<String>,
    },
    /// A type this version does not know: kept out of the way and counted.
    Unknown {
        event_type: String,
    },
}

/// A completed order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Unique within the user.
    pub order_id: OrderId,
    /// As given; see [`Order::total`].
    pub total_amount: Option<Money>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// What was bought.
    pub items: Vec<Item>,
    /// A code that was redeemed with it.
    pub discount_code: Option<String>,
}

impl Order {
    /// `total_amount` as given, else the sum of the items if all are priced, else zero.
    pub fn total(&self) -> Money {
        self.total_amount.or_else(|| items_total(&self.items)).unwrap_or(Money::ZERO)
    }
}

/// A refund, of a named order or of none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refund {
    /// Unique within the user; the event's id stands in where absent.
    pub refund_id: Option<String>,
    /// The order it refunds, where the source says.
    pub order_id: Option<OrderId>,
    /// As given; see [`Refund::stated_amount`].
    pub amount: Option<Money>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// What came back.
    pub items: Vec<Item>,
}

impl Refund {
    /// `amount` as given, else the sum of its items if there are some and all are priced; `None` means the whole order.
    pub fn stated_amount(&self) -> Option<Money> {
        self.amount.or_else(|| if self.items.is_empty() { None } else { items_total(&self.items) })
    }
}

/// One line of an order, cart or refund.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What.
    pub product_id: ProductId,
    /// 1 to 1,000,000.
    pub quantity: u32,
    /// A unit's price.
    pub price: Option<Money>,
}

fn items_total(items: &[Item]) -> Option<Money> {
    items.iter().try_fold(Money::ZERO, |sum, item| sum.plus(item.price?.times(item.quantity)?))
}

impl UserEvent {
    /// The user the event counts for: `user_id`, else `anonymous_id`, else nobody.
    pub fn who(&self) -> Option<&UserId> {
        self.user_id.as_ref().or(self.anonymous_id.as_ref())
    }
    /// Whether the event counts for a known customer, who has points, badges and mail.
    pub fn is_known(&self) -> bool {
        self.user_id.is_some()
    }
}

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
        "added_to_cart" => {
            K::AddedToCart { product_id: product(f.product_id)?, quantity: quantity("quantity", f.quantity, Some(1))?, price }
        }
        "removed_from_cart" => {
            K::RemovedFromCart { product_id: product(f.product_id)?, quantity: quantity("quantity", f.quantity, Some(1))? }
        }
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
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| {
            let field = |name: &str| format!("items[{i}].{name}");
            Ok(Item {
                product_id: json::required_id(&field("product_id"), item.product_id)?.into(),
                quantity: quantity(&field("quantity"), item.quantity, Some(1))?,
                price: item.price.map(|p| json::check_amount(&field("price"), p)).transpose()?,
            })
        })
        .collect()
}

fn quantity(field: &str, given: Option<i64>, default: Option<u32>) -> Result<u32, DecodeError> {
    match (given, default) {
        (None, Some(default)) => Ok(default),
        (None, None) => Err(DecodeError::at(field, "is missing")),
        (Some(n), _) => u32::try_from(n)
            .ok()
            .filter(|n| (1..=1_000_000).contains(n))
            .ok_or_else(|| DecodeError::at(field, format!("{n} is not between 1 and 1000000"))),
    }
}

impl Serialize for UserEvent {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.flat().serialize(s)
    }
}

impl UserEvent {
    /// The wire name of the event's kind.
    pub fn event_type(&self) -> &str {
        use UserEventKind as K;
        match &self.kind {
            K::ProductViewed { .. } => "product_viewed",
            K::AddedToCart { .. } => "added_to_cart",
            K::RemovedFromCart { .. } => "removed_from_cart",
            K::CheckoutStarted { .. } => "checkout_started",
            K::OrderCompleted(_) => "order_completed",
            K::OrderRefunded(_) => "order_refunded",
            K::OrderCancelled { .. } => "order_cancelled",
            K::ProductReviewed { .. } => "product_reviewed",
            K::RecommendationShown { .. } => "recommendation_shown",
            K::RecommendationClicked { .. } => "recommendation_clicked",
            K::BackInStockRequested { .. } => "back_in_stock_requested",
            K::EmailDelivered { .. } => "email_delivered",
            K::EmailOpened { .. } => "email_opened",
            K::EmailClicked { .. } => "email_clicked",
            K::EmailBounced { .. } => "email_bounced",
            K::EmailComplained { .. } => "email_complained",
            K::EmailUnsubscribed { .. } => "email_unsubscribed",
            K::SignedUp { .. } => "signed_up",
            K::PageViewed { .. } => "page_viewed",
            K::Unknown { event_type } => event_type,
        }
    }

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
