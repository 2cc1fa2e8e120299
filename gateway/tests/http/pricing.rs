//! Prices on request: runs, quotes, rules.

use crate::support::{FakeShop, start, start_with};
use serde_json::{Value, json};
use tillflow_gateway::{GatewayConfig, Keys};

fn price(shop: &FakeShop, id: &str, price: &str) {
    shop.answer("products", "price", id, "", Ok(Some(json!({ "product_id": id, "price": price, "currency": "EUR" }))));
}

#[tokio::test]
async fn a_quote_holds_the_lower_price_and_none_but_ours_is_honoured() {
    let gateway = start().await;
    price(&gateway.shop, "tea", "10.00");
    price(&gateway.shop, "cup", "20.00");
    let (status, quote) = gateway.post("/v1/pricing/quotes", json!({ "cart_id": "c1", "product_ids": ["tea", "cup"] }).to_string()).await;
    assert_eq!((status, &quote["prices"][0]["price"]), (200, &json!("10.00")), "{quote}");
    price(&gateway.shop, "tea", "12.00");
    price(&gateway.shop, "cup", "18.00");
    let check = |token: Value| gateway.post("/v1/pricing/quotes/check", json!({ "quote": token }).to_string());
    let (status, checked) = check(quote["quote"].clone()).await;
    assert_eq!((status, &checked["honoured"], &checked["cart_id"]), (200, &json!(true), &json!("c1")));
    let prices: Vec<_> = checked["prices"].as_array().unwrap().iter().map(|p| p["price"].as_str().unwrap()).collect();
    assert_eq!(prices, ["10.00", "18.00"]);
    let (status, forged) = check(json!("q1.00.00")).await;
    assert_eq!((status, &forged["honoured"]), (200, &json!(false)));
    assert!(forged["reason"].as_str().unwrap().contains("not signed"));
    for (body, status) in [(json!({ "product_ids": ["nothing"] }), 404), (json!({ "product_ids": [] }), 400), (json!({}), 400)] {
        assert_eq!(gateway.post("/v1/pricing/quotes", body.to_string()).await.0, status, "{body}");
    }
}

#[tokio::test]
async fn quotes_hold_at_every_instance_with_the_same_secret() {
    let instance = async || {
        let keys = Keys { quote_secret: Some("s".into()), ..Keys::default() };
        let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
        price(&gateway.shop, "tea", "10.00");
        gateway
    };
    let (one, other) = (instance().await, instance().await);
    let (_, quote) = one.post("/v1/pricing/quotes", json!({ "product_ids": ["tea"] }).to_string()).await;
    let (_, checked) = other.post("/v1/pricing/quotes/check", json!({ "quote": quote["quote"] }).to_string()).await;
    assert_eq!(checked["honoured"], true);
}

#[tokio::test]
async fn a_run_asks_for_every_product_and_counts_what_changed() {
    let gateway = start().await;
    for key in 0..256 {
        let key = key.to_string();
        gateway.shop.answer("products", "pricing/products", &key, "", Ok(Some(json!({ "product_ids": ["cup", "tea"] }))));
        gateway.shop.answer("products", "pricing/products", &key, "tea", Ok(Some(json!({ "product_ids": [] }))));
    }
    let shop = gateway.shop.clone();
    let decide = async {
        let command = shop.next_append("product_command").await;
        assert_eq!((&command["product_id"], &command["action"]), (&json!("cup"), &json!("price_now")));
        for (id, changed) in [("cup", true), ("tea", false)] {
            let last = json!({ "decided_at": command["at"], "changed": changed, "price": "9.00", "reason": "Low stock (3)" });
            shop.answer("products", "price/explain", id, "", Ok(Some(json!({ "last_decision": last }))));
        }
    };
    let ((status, answer), ()) = tokio::join!(gateway.post("/v1/pricing/run", ""), decide);
    assert_eq!((status, &answer["decided"], &answer["changed"]), (200, &json!(2), &json!(1)), "{answer}");
    assert_eq!(answer["changes"][0]["product_id"], "cup");
    let (status, answer) = gateway.post("/v1/pricing/run", json!({ "product_ids": ["jam"], "wait_s": 0 }).to_string()).await;
    assert_eq!((status, &answer["decided"]), (202, &json!(0)));
}

#[tokio::test]
async fn a_rule_gets_the_next_version_with_who_and_when_and_is_checked() {
    let gateway = start().await;
    let state = |versions: Value| {
        for key in 0..256 {
            let rule = json!({ "scope": "category:tea", "versions": versions });
            gateway.shop.answer("products", "pricing/rules", &key.to_string(), "category:tea", Ok(Some(rule)));
        }
    };
    assert_eq!(gateway.get("/v1/pricing/rules/category:tea").await.0, 404);
    state(json!([{ "version": 3 }, { "version": 2 }]));
    assert_eq!(gateway.get("/v1/pricing/rules/category:tea").await.1["versions"][0]["version"], 3);
    let put = async |body: Value| {
        let request = gateway.client.put(gateway.url("/v1/pricing/rules/category:tea")).body(body.to_string());
        crate::support::read(request.send().await.unwrap()).await
    };
    for (body, status) in [
        (json!({ "low": 30, "high": 20 }), 400),
        (json!({ "lwo": 30 }), 400),
        (json!({ "scope": "default" }), 400),
        (json!({ "low": 5, "if_version": 2 }), 409),
    ] {
        let (got, answer) = put(body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
    }
    assert!(gateway.shop.appended.lock().unwrap().is_empty());
    let shop = gateway.shop.clone();
    let count = async {
        let rule = shop.next_append("pricing_rule").await;
        assert_eq!((&rule["version"], &rule["author"], &rule["low"]), (&json!(4), &json!("ada"), &json!(5)));
        assert!(rule["valid_from"].is_string(), "{rule}");
        state(json!([{ "version": 4, "author": "ada" }, { "version": 3 }]));
    };
    let ((status, answer), ()) = tokio::join!(put(json!({ "low": 5, "author": "ada", "if_version": 3 })), count);
    assert_eq!((status, &answer["versions"][0]["author"]), (200, &json!("ada")), "{answer}");
}

#[tokio::test]
async fn who_may_do_what_with_prices() {
    let keys = Keys { write: vec!["w".into()], server: vec!["s".into()], admin: vec!["a".into()], ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    assert_eq!(gateway.post_as("w", "/v1/pricing/run", json!({})).await.0, 403);
    assert_eq!(gateway.get_as("w", "/v1/pricing/rules/default").await.0, 403);
    let put = gateway.client.put(gateway.url("/v1/pricing/rules/default")).bearer_auth("s").body("{}").send().await.unwrap();
    assert_eq!(put.status(), 403);
    assert_eq!(gateway.post_as("w", "/v1/pricing/quotes", json!({ "product_ids": ["x"] })).await.0, 404);
}
