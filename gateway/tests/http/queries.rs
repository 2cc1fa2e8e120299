//! Questions over HTTP, answered here or by the instance that owns the key; health and metrics.

use crate::support::{FakeShop, read, start, start_with};
use futures_util::future::select_all;
use reqwest::header::HeaderValue;
use serde_json::json;
use tillflow_engine::port::PortError;
use tillflow_gateway::{GatewayConfig, Keys};
use tokio::sync::oneshot;

#[tokio::test]
async fn a_path_names_the_query_and_what_follows_is_the_rest() {
    let gateway = start().await;
    let shop = &gateway.shop;
    shop.answer("customers", "loyalty", "u1", "", Ok(Some(json!({ "balance": 7 }))));
    shop.answer("customers", "loyalty/ledger", "u1", "", Ok(Some(json!({ "entries": [] }))));
    shop.answer("customers", "entitlements", "u1", "exclusive_item", Ok(Some(json!({ "has": true }))));
    shop.answer("customers", "loyalty", "ü/1 %", "", Ok(Some(json!({ "balance": 8 }))));
    shop.answer("products", "", "p1", "", Ok(Some(json!({ "product_id": "p1" }))));
    shop.answer("products", "price/history", "p1", "", Ok(Some(json!({ "prices": [] }))));
    assert_eq!(gateway.get("/v1/users/u1/loyalty").await, (200, json!({ "balance": 7 })));
    assert_eq!(gateway.get("/v1/users/u1/loyalty/ledger").await, (200, json!({ "entries": [] })));
    assert_eq!(gateway.get("/v1/users/u1/entitlements/exclusive_item").await, (200, json!({ "has": true })));
    assert_eq!(gateway.get("/v1/users/%C3%BC%2F1%20%25/loyalty").await, (200, json!({ "balance": 8 })));
    assert_eq!(gateway.get("/v1/products/p1").await, (200, json!({ "product_id": "p1" })));
    assert_eq!(gateway.get("/v1/products/p1/price/history").await, (200, json!({ "prices": [] })));
}

#[tokio::test]
async fn an_unknown_user_has_nothing_and_an_unknown_product_is_not_found() {
    let gateway = start().await;
    assert_eq!(gateway.get("/v1/users/nobody/loyalty").await, (200, json!({})));
    assert_eq!(gateway.get("/v1/users/nobody/recommendations").await, (200, json!({ "items": [] })));
    assert_eq!(gateway.get("/v1/products/nothing").await.0, 404);
    assert_eq!(gateway.get("/v1/products/nothing/price").await.0, 404);
}

#[tokio::test]
async fn several_products_at_once() {
    let gateway = start().await;
    for id in ["a", "b"] {
        gateway.shop.answer("products", "", id, "", Ok(Some(json!({ "product_id": id }))));
    }
    let answer = json!({ "products": [{ "product_id": "b" }, { "product_id": "a" }], "unknown": ["x"] });
    assert_eq!(gateway.get("/v1/products?ids=b,x,a,b").await, (200, answer));
    assert_eq!(gateway.get("/v1/products").await.0, 400);
}

#[tokio::test]
async fn every_refusal_is_json_with_a_code() {
    let gateway = start().await;
    for (path, status) in [
        ("/nowhere", 404),
        ("/v1/users/u1", 404),
        ("/v1/users/u1/horoscope", 404),
        ("/v1/events", 405),
        ("/v1/users/%ff/loyalty", 400),
        ("/ws/recommendations/u1", 400),
    ] {
        assert_eq!(gateway.get(path).await.0, status, "{path}");
    }
    gateway.shop.answer("customers", "loyalty", "u1", "", Err(PortError::Restoring));
    let response = gateway.client.get(gateway.url("/v1/users/u1/loyalty")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let foreign = gateway.client.get(gateway.url("/healthz")).header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(crate::support::read(foreign).await.0, 403);
    let rebound = gateway.client.get(gateway.url("/")).header("host", "evil.example").send().await.unwrap();
    assert_eq!(crate::support::read(rebound).await.0, 403);
}

#[tokio::test]
async fn a_question_that_does_not_get_its_turn_is_turned_away_and_a_later_one_answered() {
    let mut config = GatewayConfig::default();
    config.limits.queries_in_flight = 1;
    let gateway = start_with(FakeShop::new(), config).await;
    let (shop, (locked, is_locked), (go, gone)) = (gateway.shop.clone(), oneshot::channel(), std::sync::mpsc::channel());
    let slow = std::thread::spawn(move || {
        let _answers = shop.answers.lock().unwrap();
        locked.send(()).unwrap();
        let _ = gone.recv();
    });
    is_locked.await.unwrap();
    let ask = || tokio::spawn(gateway.client.get(gateway.url("/v1/users/u1/loyalty")).send());
    let (refused, _, running) = select_all([ask(), ask()]).await;
    let refused = refused.unwrap().unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &HeaderValue::from(1)));
    assert_eq!(read(refused).await.1["error"]["code"], "overloaded");
    go.send(()).unwrap();
    slow.join().unwrap();
    for answer in running {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(gateway.get("/v1/users/u1/loyalty").await.0, 200);
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_call_after_asking() {
    let gateway =
        start_with(FakeShop::new(), GatewayConfig { origins: vec!["https://shop.example".into()], ..GatewayConfig::default() }).await;
    let asked = gateway.client.request(reqwest::Method::OPTIONS, gateway.url("/v1/events"));
    let asked = asked.header("origin", "https://shop.example").header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!(asked.status(), 204);
    assert_eq!(asked.headers()["access-control-allow-origin"], "https://shop.example");
    assert!(asked.headers()["access-control-allow-headers"].to_str().unwrap().contains("content-type"));
}

#[tokio::test]
async fn with_keys_a_users_state_is_the_shops_and_the_users_own() {
    let keys = Keys { write: vec!["w".into()], server: vec!["s".into()], ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    gateway.shop.answer("products", "price", "p1", "", Ok(Some(json!({ "price": "1.00" }))));
    assert_eq!(gateway.get("/v1/users/u1/loyalty").await.0, 401);
    assert_eq!(gateway.get_as("w", "/v1/users/u1/loyalty").await.0, 403);
    assert_eq!(gateway.get_as("s", "/v1/users/u1/loyalty").await.0, 200);
    assert_eq!(gateway.get_as("w", "/v1/products/p1/price").await.0, 200);
    assert_eq!(gateway.get_as("w", "/v1/products/p1/demand").await.0, 403);
    assert_eq!(gateway.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn ready_only_when_restored_and_the_health_address_tells_nothing_else() {
    let gateway = start().await;
    assert_eq!(gateway.get("/readyz").await.0, 200);
    {
        let mut readiness = gateway.shop.readiness.lock().unwrap();
        readiness.ready = false;
        readiness.reason = "customers 0 is being restored".into();
        readiness.tasks[0].state = "restoring".into();
        readiness.tasks[0].restored = Some((10, 100));
    }
    let (status, body) = gateway.get("/readyz").await;
    assert_eq!((status, &body["reason"]), (503, &json!("customers 0 is being restored")));
    assert_eq!(body["tasks"][0]["restored"], json!([10, 100]));
    let health = |path: &str| gateway.client.get(format!("http://{}{path}", gateway.health)).send();
    assert_eq!(health("/healthz").await.unwrap().status(), 200);
    assert_eq!(health("/readyz").await.unwrap().status(), 503);
    assert_eq!(health("/v1/users/u1/loyalty").await.unwrap().status(), 404);
}

#[tokio::test]
async fn metrics_count_by_route_never_by_user() {
    let gateway = start().await;
    gateway.get("/v1/users/secret-user/loyalty").await;
    gateway.post("/v1/events", json!({ "event_type": "moon_landed" }).to_string()).await;
    let (_, text) = gateway.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert!(text.contains(r#"tillflow_gateway_records_total{outcome="accepted",schema="user_event"} 1"#), "{text}");
    assert!(text.contains("tillflow_gateway_unknown_events_total 1"), "{text}");
    assert!(text.contains(r#"route="/v1/users/{id}/{*path}""#), "{text}");
    assert!(!text.contains("secret-user"));
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let gateway = start().await;
    let given = gateway.client.get(gateway.url("/healthz")).header("x-request-id", "abc").send().await.unwrap();
    assert_eq!(given.headers()["x-request-id"], "abc");
    let made = gateway.client.get(gateway.url("/healthz")).send().await.unwrap();
    assert_eq!(made.headers()["x-request-id"].len(), 36);
}

#[tokio::test]
async fn beyond_loopback_it_does_not_serve_without_keys() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let gateway = tillflow_gateway::Gateway::new(FakeShop::new(), GatewayConfig::default());
    let error = gateway.serve(listener, None, tokio_util::sync::CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("keys.server"), "{error}");
}
