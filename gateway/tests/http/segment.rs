//! Segment's API: what an SDK sends arrives as our events.

use crate::support::{FakeShop, start, start_with};
use serde_json::json;
use tillflow_gateway::{GatewayConfig, Keys};

#[tokio::test]
async fn what_an_sdk_sends_arrives_under_its_message_id() {
    let gateway = start().await;
    let viewed = json!({ "event": "Product Viewed", "userId": "ada", "messageId": "m1", "properties": { "product_id": "tea" } });
    assert_eq!(gateway.post("/v1/track", viewed.to_string()).await, (200, json!({ "success": true })));
    let page = json!({ "anonymousId": "a1", "messageId": "m2", "properties": { "url": "https://shop.example/" } });
    assert_eq!(gateway.post("/v1/page", page.to_string()).await.0, 200);
    let who = json!({ "userId": "ada", "anonymousId": "a1", "messageId": "m3", "traits": { "email": "ada@example.org" } });
    assert_eq!(gateway.post("/v1/identify", who.to_string()).await.0, 200);
    let values = gateway.shop.values();
    assert_eq!(
        (&values[0]["event_type"], &values[0]["product_id"], &values[0]["event_id"]),
        (&json!("product_viewed"), &json!("tea"), &json!("m1"))
    );
    assert_eq!((&values[1]["event_type"], &values[1]["anonymous_id"]), (&json!("page_viewed"), &json!("a1")));
    assert_eq!((&values[2]["user_id"], &values[2]["anonymous_id"]), (&json!("ada"), &json!("a1")));
}

#[tokio::test]
async fn of_a_batch_the_good_ones_are_taken_and_each_bad_one_is_named() {
    let gateway = start().await;
    let batch = json!({ "batch": [
        { "type": "track", "event": "Product Added", "userId": "ada", "properties": { "product_id": "tea", "quantity": 2 } },
        { "type": "track", "event": "Product Added", "userId": "ada", "properties": {} },
        { "type": "group", "groupId": "g", "userId": "ada" },
        { "type": "nonsense", "userId": "ada" },
    ] });
    let (status, answer) = gateway.post("/v1/batch", batch.to_string()).await;
    assert_eq!((status, &answer["accepted"]), (400, &json!(1)), "{answer}");
    let faults: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|e| (e["index"].as_u64().unwrap(), e["field"].as_str().unwrap())).collect();
    assert_eq!(faults, [(1, "product_id"), (3, "event_type")]);
    assert_eq!(gateway.shop.values()[0]["quantity"], 2);
    assert_eq!(gateway.post("/v1/batch", "{}").await.0, 400);
    assert_eq!(gateway.post("/v1/batch", json!({ "batch": vec![json!({}); 1_001] }).to_string()).await.0, 413);
}

#[tokio::test]
async fn the_write_key_comes_as_basic_credentials_or_in_the_body() {
    let keys = Keys { write: vec!["w".into()], server: vec!["s".into()], ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    let viewed = json!({ "event": "Product Viewed", "userId": "ada", "properties": { "product_id": "tea" } });
    assert_eq!(gateway.post("/v1/track", viewed.to_string()).await.0, 401);
    let basic =
        |user: &str| gateway.client.post(gateway.url("/v1/track")).basic_auth(user.to_owned(), None::<&str>).body(viewed.to_string());
    assert_eq!(basic("w").send().await.unwrap().status(), 200);
    assert_eq!(basic("x").send().await.unwrap().status(), 401);
    for (key, status) in [("w", 200), ("x", 401), ("s", 401)] {
        let mut body = viewed.clone();
        body["writeKey"] = json!(key);
        assert_eq!(gateway.post("/v1/track", body.to_string()).await.0, status, "{key}");
    }
    let order = json!({ "event": "Order Completed", "userId": "ada", "properties": { "order_id": "o1" } });
    assert_eq!(gateway.post_as("w", "/v1/track", order.clone()).await.0, 400, "orders need a server key");
    assert_eq!(gateway.post_as("s", "/v1/track", order).await.0, 200);
}
