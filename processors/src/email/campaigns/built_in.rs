//! The built-in campaigns. A shop changes their fields by id; what starts and ends each is in `starts.rs`.

use super::definition::{Campaign, Priority, Step, Trigger};
use crate::email::{Span, segments::CART_DROPPED};
use serde_json::Map;
use std::time::Duration;

/// t0 is the last add or remove that leaves something in the cart.
pub const ABANDONED_CART: &str = "abandoned_cart";
/// Asks for a review a week after the order.
pub const REVIEW_REQUEST: &str = "review_request";
/// Calls back who was not seen for 30, 60, 90 days.
pub const WIN_BACK: &str = "win_back";
/// A product looked at twice, and left.
pub const BROWSE: &str = "browse";
/// Once a year.
pub const BIRTHDAY: &str = "birthday";
/// A tier reached.
pub const TIER_UPGRADED: &str = "tier_upgraded";
/// What the user asked to be told of is in stock again.
pub const BACK_IN_STOCK: &str = "back_in_stock";
/// What the user looked at costs less.
pub const PRICE_DROP: &str = "price_drop";

/// An order placed later than so long before a cart's t0 stands against mails about that cart.
pub const ORDER_STANDS: Duration = Span::hours(48).get();

/// All of them.
pub fn all() -> Vec<Campaign> {
    let campaign = |id: &str, priority, steps: &[(Span, &str)]| Campaign {
        id: id.to_owned(),
        trigger: Trigger::BuiltIn,
        steps: steps.iter().map(|(wait, template)| Step { wait: *wait, template: (*template).to_owned() }).collect(),
        priority,
        only: None,
        exit: Vec::new(),
        drop_after: None,
        again_after: None,
        holdout: 0,
        data: Map::new(),
    };
    let now = Span::hours(0);
    vec![
        Campaign {
            drop_after: Some(Span::hours(CART_DROPPED.as_secs() / 3600)),
            again_after: Some(Span::days(7)),
            ..campaign(
                ABANDONED_CART,
                Priority::AbandonedCart,
                &[(Span::hours(1), "abandoned_cart"), (Span::hours(25), "abandoned_cart_reminder")],
            )
        },
        campaign(REVIEW_REQUEST, Priority::Review, &[(Span::days(7), "review_request")]),
        campaign(
            WIN_BACK,
            Priority::WinBack,
            &[(Span::days(30), "win_back"), (Span::days(60), "win_back"), (Span::days(90), "win_back_last")],
        ),
        Campaign { again_after: Some(Span::days(7)), ..campaign(BROWSE, Priority::Browse, &[(Span::hours(4), "browse")]) },
        campaign(BIRTHDAY, Priority::Birthday, &[(now, "birthday")]),
        campaign(TIER_UPGRADED, Priority::Tier, &[(now, "tier_upgraded")]),
        campaign(BACK_IN_STOCK, Priority::BackInStock, &[(now, "back_in_stock")]),
        campaign(PRICE_DROP, Priority::PriceDrop, &[(now, "price_drop")]),
    ]
}
