//! The Segment HTTP API (track, identify, page, batch) with its e-commerce event names, so that an existing
//! analytics.js or RudderStack SDK needs only another host. `messageId` is the event id.
//!
//! Their SDKs send the write key as the user of basic authentication, or as `writeKey` in the body.

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
    ingest::{self, Fault},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Their names of events, and ours.
const NAMES: [(&str, &str); 16] = [
    ("product viewed", "product_viewed"),
    ("product added", "added_to_cart"),
    ("product removed", "removed_from_cart"),
    ("checkout started", "checkout_started"),
    ("order completed", "order_completed"),
    ("order refunded", "order_refunded"),
    ("order cancelled", "order_cancelled"),
    ("product reviewed", "product_reviewed"),
    ("signed up", "signed_up"),
    ("email delivered", "email_delivered"),
    ("email opened", "email_opened"),
    ("email link clicked", "email_clicked"),
    ("email bounced", "email_bounced"),
    ("email marked as spam", "email_complained"),
    ("unsubscribed", "email_unsubscribed"),
    ("recommendation clicked", "recommendation_clicked"),
];

pub(crate) async fn track(state: State<Arc<App>>, caller: Extension<Caller>, request: Request) -> Result<Response, Problem> {
    one(state, caller, request, "track").await
}

pub(crate) async fn identify(state: State<Arc<App>>, caller: Extension<Caller>, request: Request) -> Result<Response, Problem> {
    one(state, caller, request, "identify").await
}

pub(crate) async fn page(state: State<Arc<App>>, caller: Extension<Caller>, request: Request) -> Result<Response, Problem> {
    one(state, caller, request, "page").await
}

async fn one(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, request: Request, kind: &str) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let mut message: Map<String, Value> = ingest::json(&app, request).await?;
    message.insert("type".into(), json!(kind));
    let key = message.remove("writeKey");
    take(&app, caller, key, vec![Value::Object(message)], &headers).await
}

/// Several messages: `{"batch": [{"type", …}]}`.
pub(crate) async fn batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let mut body: Map<String, Value> = ingest::json(&app, request).await?;
    let key = body.remove("writeKey");
    match body.remove("batch") {
        Some(Value::Array(messages)) if messages.len() <= app.config.limits.records => take(&app, caller, key, messages, &headers).await,
        Some(Value::Array(messages)) => {
            Err(Problem::too_large(format!("{} messages; at most {} go into one request", messages.len(), app.config.limits.records)))
        }
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", "batch: is not a list of messages")),
    }
}

async fn take(app: &Arc<App>, caller: Caller, key: Option<Value>, messages: Vec<Value>, headers: &HeaderMap) -> Result<Response, Problem> {
    let caller = match (caller.level, key.as_ref().and_then(Value::as_str)) {
        (None, Some(key)) => app.keyring.known(key)?,
        _ => caller,
    };
    caller.needs(Level::Write)?;
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    let now = (app.wall)();
    for (index, message) in messages.iter().enumerate() {
        match event(message) {
            // Groups, screens and aliases mean nothing here; an SDK must not send them again and again.
            None => {}
            Some(event) => match ingest::one(app, &caller, "user_event", &event.to_string(), now) {
                Ok(record) => good.push(record),
                Err(e) => faults.push(Fault::new(index, e)),
            },
        }
    }
    let accepted = good.len();
    if accepted > 0 {
        ingest::append(app, ingest::traced(good, headers)).await?;
    }
    app.metrics.taken("user_event", accepted, faults.len());
    if faults.is_empty() {
        return Ok(Json(json!({ "success": true })).into_response());
    }
    let problem = Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid_records",
        format!("{} of {} messages are wrong; the others were taken", faults.len(), messages.len()),
    );
    let mut body = problem.body();
    if let Some(body) = body.as_object_mut() {
        body.extend([("success".into(), json!(false)), ("accepted".into(), json!(accepted)), ("errors".into(), json!(faults))]);
    }
    Ok(problem.with_body(body))
}

/// Their message as our event; none for kinds that mean nothing here.
fn event(message: &Value) -> Option<Value> {
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
    let properties = message.get("properties").cloned().unwrap_or_default();
    let mut event = match kind {
        "track" => tracked(message.get("event").and_then(Value::as_str).unwrap_or_default(), &properties),
        "page" => page_viewed(message, &properties),
        // Who carries both ids is joined; traits come by the topic of customers.
        "identify" => Map::from_iter([("event_type".into(), json!("identified"))]),
        "screen" | "group" | "alias" => return None,
        // Refused below: there is no event_type.
        _ => Map::new(),
    };
    let fields = [("messageId", "event_id"), ("userId", "user_id"), ("anonymousId", "anonymous_id"), ("timestamp", "timestamp")];
    for (theirs, ours) in fields {
        if let Some(value) = message.get(theirs).filter(|v| !v.is_null() && *v != "") {
            event.insert(ours.into(), value.clone());
        }
    }
    Some(Value::Object(event))
}

fn page_viewed(message: &Value, properties: &Value) -> Map<String, Value> {
    let url = properties.get("url").or_else(|| message.pointer("/context/page/url"));
    let mut event = Map::from_iter([("event_type".into(), json!("page_viewed"))]);
    event.extend(url.map(|url| ("url".into(), url.clone())));
    event
}

/// An event of their e-commerce specification; others go by their own name and are kept.
fn tracked(name: &str, properties: &Value) -> Map<String, Value> {
    let lower = name.trim().to_lowercase();
    let ours = NAMES.iter().find(|(theirs, _)| *theirs == lower).map(|(_, ours)| *ours);
    let mut event = Map::new();
    let event_type = ours.map_or_else(|| lower.split_whitespace().collect::<Vec<_>>().join("_"), str::to_owned);
    if !event_type.is_empty() {
        event.insert("event_type".into(), json!(event_type));
    }
    let mut copy = |to: &str, from: &[&str]| {
        let found = from.iter().find_map(|name| properties.get(*name).filter(|v| !v.is_null()));
        event.extend(found.map(|value| (to.to_owned(), value.clone())));
    };
    match event_type.as_str() {
        "product_viewed" | "recommendation_clicked" => copy("product_id", &["product_id", "sku"]),
        "added_to_cart" | "removed_from_cart" => {
            copy("product_id", &["product_id", "sku"]);
            copy("quantity", &["quantity"]);
            copy("price", &["price"]);
        }
        "checkout_started" => copy("cart_id", &["cart_id", "checkout_id", "order_id"]),
        "order_completed" | "order_refunded" => {
            copy("order_id", &["order_id"]);
            copy("refund_id", &["refund_id"]);
            copy(if event_type == "order_completed" { "total_amount" } else { "amount" }, &["total", "revenue", "value"]);
            copy("currency", &["currency"]);
            copy("discount_code", &["coupon"]);
            let products = properties.get("products").and_then(Value::as_array);
            if let Some(products) = products {
                event.insert("items".into(), products.iter().map(item).collect());
            }
        }
        "order_cancelled" => copy("order_id", &["order_id"]),
        "product_reviewed" => {
            copy("product_id", &["product_id"]);
            copy("rating", &["rating"]);
        }
        "signed_up" => copy("referrer_id", &["referrer_id"]),
        "email_bounced" => {
            copy("message_id", &["email_id", "message_id"]);
            copy("hard", &["hard"]);
            event.entry("hard").or_insert(json!(true));
        }
        name if name.starts_with("email_") => copy("message_id", &["email_id", "message_id"]),
        _ => {}
    }
    event
}

fn item(product: &Value) -> Value {
    let field = |names: &[&str]| names.iter().find_map(|name| product.get(*name).filter(|v| !v.is_null())).cloned();
    let mut item = Map::new();
    item.extend(field(&["product_id", "sku"]).map(|id| ("product_id".to_owned(), id)));
    item.insert("quantity".into(), field(&["quantity"]).unwrap_or(json!(1)));
    item.extend(field(&["price"]).map(|price| ("price".to_owned(), price)));
    Value::Object(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_order_becomes_ours() {
        let message = json!({
            "type": "track", "event": "Order Completed", "messageId": "m1", "userId": "u1", "anonymousId": "", "timestamp": "2026-03-01T10:00:00Z",
            "properties": {"order_id": "o1", "total": 27.5, "currency": "EUR", "coupon": "TEA", "shipping": 3,
                "products": [{"product_id": "p1", "sku": "x", "price": 19, "quantity": 1}, {"sku": "p2"}]},
        });
        let expected = json!({
            "event_type": "order_completed", "order_id": "o1", "total_amount": 27.5, "currency": "EUR", "discount_code": "TEA",
            "items": [{"product_id": "p1", "quantity": 1, "price": 19}, {"product_id": "p2", "quantity": 1}],
            "event_id": "m1", "user_id": "u1", "timestamp": "2026-03-01T10:00:00Z",
        });
        assert_eq!(event(&message), Some(expected));
    }

    #[test]
    fn what_is_not_of_the_shop_keeps_its_name_and_what_means_nothing_is_left_out() {
        let of = |message: Value| event(&message);
        assert_eq!(of(json!({"type": "track", "event": "Video  Played"})), Some(json!({"event_type": "video_played"})));
        assert_eq!(of(json!({"type": "track"})), Some(json!({})));
        let page = json!({"type": "page", "context": {"page": {"url": "https://shop.example/"}}});
        assert_eq!(of(page), Some(json!({"event_type": "page_viewed", "url": "https://shop.example/"})));
        assert_eq!(of(json!({"type": "group", "groupId": "g"})), None);
    }

    #[test]
    fn every_name_of_ours_is_a_known_type() {
        for (theirs, ours) in NAMES {
            let properties = json!({"product_id": "p", "order_id": "o", "cart_id": "c", "email_id": "m", "products": []});
            let mut event = tracked(theirs, &properties);
            event.extend([("user_id".into(), json!("u")), ("timestamp".into(), json!("2026-03-01T10:00:00Z"))]);
            let decoded = tillflow_schemas::Event::from_value("user_event", None, Value::Object(event));
            let Ok(tillflow_schemas::Event::User(user)) = decoded else { panic!("{theirs}: {decoded:?}") };
            assert!(!matches!(user.kind, tillflow_schemas::UserEventKind::Unknown { .. }), "{ours}");
        }
    }
}
