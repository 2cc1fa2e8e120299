//! Questions that another instance answers, because it owns the key.

use crate::support::{FakeShop, Running, read, start, start_with};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tillflow_engine::port::PortError;
use tillflow_gateway::{GatewayConfig, Keys};
use tillflow_schemas::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn elsewhere(at: &Running) -> Result<Option<Value>, PortError> {
    Err(PortError::Elsewhere(format!("http://{}", at.address)))
}

#[tokio::test]
async fn the_owner_of_a_key_is_asked_and_nobody_passes_a_question_on_twice() {
    let owner = start().await;
    let asked = start().await;
    owner.shop.answer("customers", "entitlements", "u/1", "early access", Ok(Some(json!({ "has": true }))));
    asked.shop.answer("customers", "entitlements", "u/1", "early access", elsewhere(&owner));
    assert_eq!(asked.get("/v1/users/u%2F1/entitlements/early%20access").await, (200, json!({ "has": true })));
    asked.shop.answer("products", "", "p1", "", elsewhere(&owner));
    assert_eq!(asked.get("/v1/products/p1").await.0, 404);

    owner.shop.answer("customers", "loyalty", "u2", "", elsewhere(&asked));
    asked.shop.answer("customers", "loyalty", "u2", "", elsewhere(&owner));
    assert_eq!(asked.get("/v1/users/u2/loyalty").await.0, 503);
    asked.shop.answer("customers", "loyalty", "u3", "", Err(PortError::Elsewhere("127.0.0.1:1".into())));
    assert_eq!(asked.get("/v1/users/u3/loyalty").await.0, 503);
}

/// An owner that says what it was asked, and with what.
async fn overheard() -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let mut bytes = [0; 1024];
            let n = socket.read(&mut bytes).await.unwrap();
            text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
        let answer = r#"{"balance":7}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        text
    });
    (address, asked)
}

fn user_token(secret: &str, user: &str) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let exp = Timestamp::wall().millis() / 1000 + 60;
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "HS256" })), part(json!({ "sub": user, "exp": exp })));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn the_owner_is_asked_with_the_instances_own_key_after_the_askers_rights_were_looked_at_here() {
    let keys = Keys { write: vec!["w".into()], server: vec!["s-1".into(), "s-2".into()], user_secret: Some("u".into()), ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    let (owner, asked) = overheard().await;
    gateway.shop.answer("customers", "loyalty", "ada", "", Err(PortError::Elsewhere(owner)));
    assert_eq!(gateway.get("/v1/users/ada/loyalty").await.0, 401);
    assert_eq!(gateway.get_as("w", "/v1/users/ada/loyalty").await.0, 403);
    assert_eq!(gateway.get_as(&user_token("u", "ben"), "/v1/users/ada/loyalty").await.0, 403);
    assert!(!asked.is_finished(), "who may not ask is not passed on");
    // As a browser's socket or beacon does, the token in the address.
    let token = user_token("u", "ada");
    let request = gateway.client.get(gateway.url(&format!("/v1/users/ada/loyalty?key={token}"))).header("x-request-id", "r1");
    assert_eq!(read(request.send().await.unwrap()).await, (200, json!({ "balance": 7 })));
    let heard = asked.await.unwrap().to_ascii_lowercase();
    assert!(heard.starts_with("get /v1/users/ada/loyalty http/1.1"), "{heard}");
    for header in ["authorization: bearer s-1", "x-tillflow-forwarded: 1", "x-request-id: r1"] {
        assert!(heard.contains(header), "no {header} in {heard}");
    }
    assert!(!heard.contains(&token.to_ascii_lowercase()), "{heard}");
    let (_, metrics) = gateway.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains(r#"tillflow_gateway_forwarded_total{outcome="answered"} 1"#));
}

#[tokio::test]
async fn an_owner_that_is_away_silent_of_other_keys_or_of_no_address_means_try_again() {
    let server = |key: &str| Keys { server: vec![key.into()], ..Keys::default() };
    let config = |key: &str| GatewayConfig { keys: server(key), ..GatewayConfig::default() };
    let (asked, other) = (start_with(FakeShop::new(), config("s")).await, start_with(FakeShop::new(), config("another")).await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (user, answer, says) in [
        ("away", Err(PortError::Elsewhere("127.0.0.1:1".into())), "does not answer"),
        ("silent", Err(PortError::Elsewhere(silent.local_addr().unwrap().to_string())), "does not answer"),
        ("other", elsewhere(&other), "the same keys.server"),
        ("nowhere", Err(PortError::Unreachable("till-1".into())), "advertised"),
    ] {
        asked.shop.answer("customers", "loyalty", user, "", answer);
        let response = asked.client.get(asked.url(&format!("/v1/users/{user}/loyalty"))).bearer_auth("s").send().await.unwrap();
        assert!(response.headers().contains_key("retry-after"), "{user}");
        let (status, body) = read(response).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert!(status == 503 && message.contains(says) && !message.contains("Bearer"), "{user}: {status} {message}");
    }
}

#[tokio::test]
async fn a_command_sent_again_where_its_user_is_not_at_home_is_answered_from_the_owners_ledger() {
    let (owner, asked) = (start().await, start().await);
    let entries = json!({ "entries": [{ "kind": "bonus", "command_id": "c1", "points": 10 }] });
    owner.shop.answer("customers", "loyalty/ledger", "ada", "", Ok(Some(entries)));
    asked.shop.answer("customers", "loyalty/ledger", "ada", "", elsewhere(&owner));
    let (status, answer) = asked.post("/v1/users/ada/loyalty/spin", json!({ "spin_id": "s", "command_id": "c1" }).to_string()).await;
    assert_eq!((status, &answer["entry"]["points"]), (200, &json!(10)), "{answer}");
    assert!(asked.shop.appended.lock().unwrap().is_empty() && owner.shop.appended.lock().unwrap().is_empty());

    owner.shop.answer(
        "customers",
        "subscription",
        "ada",
        "",
        Ok(Some(json!({ "applied": ["e1"], "subscriptions": [{ "plan_id": "p" }] }))),
    );
    asked.shop.answer("customers", "subscription", "ada", "", elsewhere(&owner));
    let (status, answer) = asked.post("/v1/users/ada/subscription", json!({ "action": "pause", "event_id": "e1" }).to_string()).await;
    assert_eq!((status, &answer["subscriptions"][0]["plan_id"]), (200, &json!("p")), "{answer}");
}

#[tokio::test]
async fn what_every_task_of_the_products_knows_is_asked_elsewhere_where_none_runs_here() {
    let (owner, asked) = (start().await, start().await);
    for key in (0..256).map(|key| key.to_string()) {
        owner.shop.answer("products", "pricing/rules", &key, "category:tea", Ok(Some(json!({ "versions": [{ "version": 3 }] }))));
        asked.shop.answer("products", "pricing/rules", &key, "category:tea", elsewhere(&owner));
    }
    assert_eq!(asked.get("/v1/pricing/rules/category:tea").await, (200, json!({ "versions": [{ "version": 3 }] })));
    assert_eq!(asked.get("/v1/products/1/pricing/rules/category:tea").await.0, 404, "that is for instances alone");
}
