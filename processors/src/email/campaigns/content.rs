//! What mails say: the data for their templates, and why each is sent, in words. Prices are those of the user's own
//! events or the catalogue's, never what another stage has just decided.

use super::runs::Run;
use crate::shopper::{Cart, PlacedOrder};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tillflow_schemas::{Money, Product, Timestamp, minor_digits};

/// Products that a mail names.
const NAMED: usize = 20;
/// A price drop is told from so many per cent on.
const LEAST_DROP: u32 = 5;

/// A mail's data and reason.
pub struct Content {
    /// For its template.
    pub data: Map<String, Value>,
    /// Why it is sent, in words.
    pub because: String,
}

impl Content {
    fn new(data: Value, because: String) -> Self {
        let data = if let Value::Object(data) = data { data } else { Map::new() };
        Self { data, because }
    }
}

/// The cart that was left at `t0`.
pub fn cart(cart: &Cart, t0: Timestamp, product: impl Fn(&str) -> Option<Arc<Product>>) -> Content {
    let items: Vec<_> = cart
        .items
        .iter()
        .take(NAMED)
        .map(|(id, item)| {
            let mut card = card(id.as_str(), product(id.as_str()).as_deref(), item.price);
            card.insert("quantity".into(), item.quantity.into());
            Value::Object(card)
        })
        .collect();
    let n = cart.items.len();
    let because = format!("{n} product{} in the cart, untouched since {t0}", if n == 1 { "" } else { "s" });
    Content::new(json!({"items": items, "products": n, "cart_since": t0}), because)
}

/// The order whose products may be reviewed.
pub fn review(id: &str, order: &PlacedOrder, product: impl Fn(&str) -> Option<Arc<Product>>) -> Content {
    let items: Vec<_> = order
        .items
        .iter()
        .take(NAMED)
        .map(|item| Value::Object(card(item.product_id.as_str(), product(item.product_id.as_str()).as_deref(), item.price)))
        .collect();
    Content::new(json!({"order_id": id, "ordered_at": order.at, "items": items}), format!("order {id} of {}, not reviewed yet", order.at))
}

/// The user has not been seen since the run's start.
pub fn win_back(run: &Run, now: Timestamp, offer_code: Option<&str>) -> Content {
    let days = now.since(run.start) / 86_400_000;
    let mut data = json!({"days": days, "last_seen": run.start});
    if let (Some(code), Some(data)) = (offer_code, data.as_object_mut()) {
        data.insert("offer_code".into(), code.into());
    }
    Content::new(data, format!("not seen for {days} days, since {}", run.start))
}

/// A product costs less; `None` unless it is at least 5 % less and under the lowest price of 30 days. The percentage
/// is from that lowest price.
pub fn price_drop(mut about: Map<String, Value>, product: impl Fn(&str) -> Option<Arc<Product>>) -> Option<Content> {
    let money = |about: &Map<String, Value>, name: &str| about.get(name).and_then(Value::as_str).and_then(|t| Money::parse(t).ok());
    let (old, new) = (money(&about, "old_price")?, money(&about, "new_price")?);
    let lowest = money(&about, "lowest_30d")?;
    let per_cent = |from: Money| {
        let part = (from - new).decimal().checked_div(from.decimal())?;
        part.checked_mul(rust_decimal::Decimal::ONE_HUNDRED)
    };
    if new >= lowest || per_cent(old)? < LEAST_DROP.into() {
        return None;
    }
    let stated = per_cent(lowest)?.floor();
    if stated >= rust_decimal::Decimal::ONE {
        about.insert("per_cent".into(), stated.to_string().into());
    }
    let id = about.get("product_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    about.insert("product".into(), Value::Object(card(&id, product(&id).as_deref(), Some(new))));
    Some(Content { because: format!("{id}, viewed lately, costs {new}, under its lowest of 30 days {lowest}"), data: about })
}

/// What the cause told; where it names a product, with its card.
pub fn told(campaign: &str, mut about: Map<String, Value>, product: impl Fn(&str) -> Option<Arc<Product>>) -> Content {
    let because = match campaign {
        "browse" => "viewed twice and left",
        "birthday" => "it is their birthday",
        "tier_upgraded" => "a tier was reached",
        "back_in_stock" => "asked to be told when it is in stock",
        _ => "the campaign's trigger",
    };
    let id = about.get("product_id").and_then(Value::as_str).map(str::to_owned);
    let Some(id) = id else { return Content { data: about, because: because.into() } };
    about.insert("product".into(), Value::Object(card(&id, product(&id).as_deref(), None)));
    Content { because: format!("{id}: {because}"), data: about }
}

fn card(id: &str, product: Option<&Product>, price: Option<Money>) -> Map<String, Value> {
    let mut card = Map::new();
    card.insert("product_id".into(), id.into());
    let name = product.map(|p| p.name.as_str()).filter(|n| !n.is_empty()).unwrap_or(id);
    card.insert("name".into(), name.into());
    let mut say = |field: &str, text: Option<String>| {
        if let Some(text) = text {
            card.insert(field.into(), text.into());
        }
    };
    say("url", product.and_then(|p| p.url.clone()));
    say("image_url", product.and_then(|p| p.image_url.clone()));
    let currency = product.and_then(|p| p.currency.clone());
    let price = price.or(product.map(|p| p.base_price));
    say("price", price.map(|p| p.rounded(minor_digits(currency.as_deref())).to_string()));
    say("currency", currency);
    card
}
