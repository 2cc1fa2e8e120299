//! `user_events`: what shoppers do. The wire form is one flat object; here each kind has its own fields.

mod wire;

pub(crate) use wire::{decode, from_value};

use crate::{Money, OrderId, ProductId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

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
}
