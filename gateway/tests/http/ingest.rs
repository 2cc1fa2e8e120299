//! Records in over HTTP: what is taken, what is refused and how it is said.

use crate::support::{FakeShop, start, start_with};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tillflow_engine::port::PortError;
use tillflow_gateway::{GatewayConfig, Keys};
use tillflow_schemas::Timestamp;

fn view(user: &str) -> Value {
    json!({ "event_type": "product_viewed", "user_id": user, "product_id": "p1", "timestamp": "2026-03-01T10:00:00Z" })
}

#[tokio::test]
async fn an_event_is_taken_once_the_log_has_it() {
    let gateway = start().await;
    assert_eq!(gateway.post("/v1/events", view("u1").to_string()).await, (202, json!({ "accepted": 1 })));
    let appended = gateway.shop.appended.lock().unwrap().clone();
    assert_eq!((appended[0].schema, appended[0].key.as_deref()), ("user_event", Some("u1")));
    let value: Value = serde_json::from_slice(appended[0].value.as_deref().unwrap()).unwrap();
    assert!(value["event_id"].as_str().is_some_and(|id| id.len() == 36), "an id is stamped: {value}");
    assert_eq!(value["timestamp"], "2026-03-01T10:00:00.000Z");
}

#[tokio::test]
async fn nothing_is_answered_before_the_log_confirms() {
    let gateway = start().await;
    *gateway.shop.log.lock().unwrap() = None;
    let asked = gateway.client.post(gateway.url("/v1/events")).body(view("u1").to_string()).send();
    tokio::pin!(asked);
    let shop = gateway.shop.clone();
    tokio::select! {
        _ = &mut asked => panic!("answered although the log has not confirmed"),
        () = async { while shop.appended.lock().unwrap().is_empty() { tokio::task::yield_now().await } } => {}
    }
    gateway.shop.confirm();
    assert_eq!(asked.await.unwrap().status(), 202);
}

#[tokio::test]
async fn of_a_list_the_good_ones_are_taken_and_each_bad_one_is_named() {
    let gateway = start().await;
    let mut far = view("u2");
    far["timestamp"] = json!(Timestamp::wall().millis() + 6 * 60 * 1000);
    let list = json!([
        view("u1"),
        { "event_type": "product_viewed", "user_id": "u1" },
        { "event_type": "added_to_cart", "user_id": "u1", "product_id": "p1", "quantity": -3 },
        { "event_type": "order_completed", "user_id": "u1", "order_id": "o1", "items": [{ "product_id": "p1" }, { "quantity": 1 }] },
        "a word",
        far,
        { "user_id": "u1" },
        { "event_type": "moon_landed", "user_id": "u3" },
    ]);
    let (status, body) = gateway.post("/v1/events", list.to_string()).await;
    assert_eq!((status, &body["accepted"]), (400, &json!(2)));
    let faults: Vec<_> =
        body["errors"].as_array().unwrap().iter().map(|e| (e["index"].as_u64().unwrap(), e["field"].as_str().unwrap())).collect();
    assert_eq!(faults, [(1, "product_id"), (2, "quantity"), (3, "items[1].product_id"), (4, ""), (5, "timestamp"), (6, "event_type")]);
    assert_eq!(gateway.shop.values()[1]["event_type"], "moon_landed");
}

#[tokio::test]
async fn what_is_not_json_is_said_so() {
    let gateway = start().await;
    for body in ["", "{", "[{},", "nonsense", r#"{"event_type": NaN}"#, "{} {}"] {
        let (status, answer) = gateway.post("/v1/events", body).await;
        assert_eq!((status, &answer["accepted"]), (400, &json!(0)), "{body}");
        assert!(answer["errors"][0]["reason"].as_str().unwrap().contains("JSON"), "{answer}");
    }
    let (status, answer) = gateway.post("/v1/events", vec![b'{', 0xff, b'}']).await;
    assert_eq!(status, 400);
    assert!(answer["errors"][0]["reason"].as_str().unwrap().contains("UTF-8"));
    let (status, answer) = gateway.post("/v1/events", "[".repeat(100_000)).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(gateway.post("/v1/events", "[]").await, (202, json!({ "accepted": 0 })));
}

#[tokio::test]
async fn a_missing_time_is_that_of_receipt() {
    let gateway = start().await;
    let before = Timestamp::wall();
    gateway.post("/v1/events", json!({ "event_type": "page_viewed", "user_id": "u1", "timestamp": null }).to_string()).await;
    gateway.post("/v1/inventory", json!({ "product_id": "p1", "stock_level": 3 }).to_string()).await;
    let times: Vec<_> =
        gateway.shop.values().iter().zip(["timestamp", "last_updated"]).map(|(v, f)| v[f].as_str().unwrap().to_owned()).collect();
    for time in times {
        let time = Timestamp::parse(&time).unwrap();
        assert!(time >= before && time <= Timestamp::wall(), "{time}");
    }
    assert_eq!(gateway.shop.appended.lock().unwrap()[1].key.as_deref(), Some("p1"));
}

#[tokio::test]
async fn the_key_is_the_user_else_the_visitor_and_a_guest_has_none() {
    let gateway = start().await;
    let list = json!([
        { "event_type": "page_viewed", "user_id": "u1", "anonymous_id": "a1" },
        { "event_type": "page_viewed", "anonymous_id": "a1" },
        { "event_type": "page_viewed", "event_id": "e1" },
        { "event_type": "page_viewed" },
    ]);
    assert_eq!(gateway.post("/v1/events", list.to_string()).await.0, 202);
    let places: Vec<_> = gateway.shop.appended.lock().unwrap().iter().map(|a| (a.key.clone(), a.placed_by.clone())).collect();
    let keyed = |id: &str| (Some(id.to_owned()), None);
    // A guest's has no key, which would be a user's id, and lies where its own id says.
    assert_eq!(places[..3], [keyed("u1"), keyed("a1"), (None, Some("e1".to_owned()))]);
    assert_eq!((&places[3].0, json!(places[3].1)), (&None, gateway.shop.values()[3]["event_id"].clone()));
}

#[tokio::test]
async fn sizes_have_bounds() {
    let mut config = GatewayConfig::default();
    config.limits.body_bytes = 100_000;
    config.limits.record_bytes = 20_000;
    let gateway = start_with(FakeShop::new(), config).await;
    assert_eq!(gateway.post("/v1/events", " ".repeat(100_001)).await.0, 413);
    let chunks = futures_util::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; 10_000])));
    assert_eq!(gateway.post("/v1/events", reqwest::Body::wrap_stream(chunks)).await.0, 413);
    let many = vec![json!({ "event_type": "x" }); 1_001];
    assert_eq!(gateway.post("/v1/events", json!(many).to_string()).await.0, 413);
    let items = vec![json!({ "product_id": "p1", "quantity": 1 }); 1_000];
    let order = json!({ "event_type": "order_completed", "order_id": "o1", "user_id": "u1", "items": items });
    let (status, answer) = gateway.post("/v1/events", order.to_string()).await;
    assert_eq!(status, 400);
    assert!(answer["errors"][0]["reason"].as_str().unwrap().contains("at most 20000"), "{answer}");
    assert!(gateway.shop.appended.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_log_that_is_away_means_try_again() {
    let gateway = start().await;
    *gateway.shop.log.lock().unwrap() = Some(Err(PortError::Unavailable("no broker".into())));
    let response = gateway.client.post(gateway.url("/v1/events")).body(view("u1").to_string()).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(crate::support::read(response).await.1["error"]["code"], "unavailable");
}

#[tokio::test]
async fn too_many_waiting_requests_are_turned_away_and_later_ones_taken() {
    let mut config = GatewayConfig::default();
    config.limits.appends_in_flight = 1;
    let gateway = start_with(FakeShop::new(), config).await;
    *gateway.shop.log.lock().unwrap() = None;
    let first = tokio::spawn(gateway.client.post(gateway.url("/v1/events")).body(view("u1").to_string()).send());
    while gateway.shop.appended.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = gateway.client.post(gateway.url("/v1/events")).body(view("u2").to_string()).send().await.unwrap();
    assert_eq!(second.status(), 429);
    assert_eq!(second.headers()["retry-after"], "1");
    gateway.shop.confirm();
    assert_eq!(first.await.unwrap().unwrap().status(), 202);
    *gateway.shop.log.lock().unwrap() = Some(Ok(()));
    assert_eq!(gateway.post("/v1/events", view("u2").to_string()).await.0, 202);
}

#[tokio::test]
async fn a_browser_key_reports_behaviour_and_nothing_else() {
    let keys = Keys { write: vec!["w".into()], server: vec!["s".into()], ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    assert_eq!(gateway.post("/v1/events", view("u1").to_string()).await.0, 401);
    assert_eq!(gateway.post_as("x", "/v1/events", view("u1")).await.0, 401);
    assert_eq!(gateway.post_as("w", "/v1/events", view("u1")).await.0, 202);
    assert_eq!(gateway.post("/v1/events?key=w", view("u1").to_string()).await.0, 202);
    let order = json!({ "event_type": "order_completed", "user_id": "u1", "order_id": "o1" });
    let referral = json!({ "event_type": "signed_up", "user_id": "u1", "referrer_id": "u2" });
    let join = json!({ "event_type": "page_viewed", "user_id": "u1", "anonymous_id": "a1" });
    let (status, answer) = gateway.post_as("w", "/v1/events", json!([order, referral, join, view("u1")])).await;
    assert_eq!((status, &answer["accepted"]), (400, &json!(1)));
    let fields: Vec<_> = answer["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["event_type", "referrer_id", "anonymous_id"]);
    assert_eq!(gateway.post_as("s", "/v1/events", json!([order, referral, join])).await.0, 202);
    let stock = json!({ "product_id": "p1", "stock_level": 3 });
    assert_eq!(gateway.post_as("w", "/v1/inventory", stock.clone()).await.0, 403);
    assert_eq!(gateway.post_as("s", "/v1/inventory", stock).await.0, 202);
}

fn signature(secret: &str, body: &str) -> String {
    let time = Timestamp::wall().millis() / 1000;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={time},v1={signature}")
}

#[tokio::test]
async fn rules_need_an_admin_key_and_the_catalogue_a_servers() {
    let keys = Keys { server: vec!["s".into()], admin: vec!["a".into()], webhook_secret: Some("hook".into()), ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    let rule = json!({ "scope": "default", "low": 30 });
    let rules = gateway.url("/v1/topics/pricing-rules");
    let signed = gateway.client.post(&rules).header("x-tillflow-signature", signature("hook", &rule.to_string()));
    assert_eq!(signed.body(rule.to_string()).send().await.unwrap().status(), 403);
    let product = json!({ "product_id": "p1", "base_price": "9.90" });
    for (key, may) in [("s", 403), ("a", 202)] {
        assert_eq!(gateway.post_as(key, "/v1/topics/products", product.clone()).await.0, 202);
        assert_eq!(gateway.post_as(key, "/v1/topics/pricing_rules", rule.clone()).await.0, may, "{key}");
        let delete = gateway.client.delete(format!("{rules}/default")).bearer_auth(key);
        assert_eq!(delete.send().await.unwrap().status(), may, "{key}");
    }
}

#[tokio::test]
async fn a_webhook_with_a_wrong_signature_is_refused_whatever_key_it_carries() {
    let keys = Keys { server: vec!["s".into()], webhook_secret: Some("hook".into()), ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    for (path, body) in [("/v1/events", view("u1")), ("/v1/inventory", json!({ "product_id": "p1", "stock_level": 3 }))] {
        let signature = format!("t={},v1={}", Timestamp::wall().millis() / 1000, "00".repeat(32));
        let request = gateway.client.post(gateway.url(path)).bearer_auth("s").header("x-tillflow-signature", signature);
        assert_eq!(request.body(body.to_string()).send().await.unwrap().status(), 401, "{path}");
    }
    assert!(gateway.shop.appended.lock().unwrap().is_empty());
    let order = json!({ "event_type": "order_completed", "user_id": "u1", "order_id": "o1" }).to_string();
    let request = gateway.client.post(gateway.url("/v1/events")).header("x-tillflow-signature", signature("hook", &order));
    assert_eq!(request.body(order).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn a_shop_without_kafka_states_its_catalogue_plans_and_subscriptions() {
    let gateway = start().await;
    let product = json!([{ "product_id": "p1", "name": "Tea", "category": "tea", "base_price": "9.90" }]);
    assert_eq!(gateway.post("/v1/topics/products", product.to_string()).await, (202, json!({ "accepted": 1 })));
    let started = json!({ "user_id": "u1", "plan_id": "basic_box", "action": "started" });
    assert_eq!(gateway.post("/v1/topics/subscription-events", started.to_string()).await.0, 202);
    let appended = gateway.shop.appended.lock().unwrap().clone();
    assert_eq!((appended[0].schema, appended[0].key.as_deref()), ("product", Some("p1")));
    assert_eq!((appended[1].schema, appended[1].key.as_deref()), ("subscription_event", Some("u1")));
    let (status, answer) = gateway.post("/v1/topics/products", json!({ "name": "nameless", "base_price": "9.90" }).to_string()).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("product_id")));
    let deleted = gateway.client.delete(gateway.url("/v1/topics/products/p1")).send().await.unwrap();
    assert_eq!(deleted.status(), 202);
    let last = gateway.shop.appended.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.schema, last.key.as_deref(), last.value), ("product", Some("p1"), None));
    for topic in ["price_changes", "tillflow.shop", "nowhere"] {
        assert_eq!(gateway.post(&format!("/v1/topics/{topic}"), "{}").await.0, 404, "{topic}");
    }
}

#[tokio::test]
async fn amounts_keep_their_digits() {
    let gateway = start().await;
    let order = r#"{"event_type": "order_completed", "user_id": "u1", "order_id": "o1", "total_amount": 12345678901.123456789}"#;
    assert_eq!(gateway.post("/v1/events", order).await.0, 202);
    assert_eq!(gateway.shop.values()[0]["total_amount"], "12345678901.123456789");
}
