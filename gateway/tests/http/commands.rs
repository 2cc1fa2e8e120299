//! Commands over HTTP: what is appended, and how what the log says of it becomes the answer.

use crate::support::{start, start_with};
use serde_json::{Value, json};
use tillflow_engine::port::PortError;
use tillflow_gateway::{GatewayConfig, Keys};

fn entry(command: &Value, kind: &str, note: &str) -> Value {
    json!({ "entry_id": "e1", "user_id": "ada", "kind": kind, "points": -200, "balance": 100, "command_id": command["command_id"], "note": note })
}

#[tokio::test]
async fn a_redemption_is_answered_by_its_entry_of_the_ledger() {
    let gateway = start().await;
    for (kind, note, status) in [("redeem", "Mug (mug)", 200), ("rejected", "Mug costs 200 points; 100 can be spent", 409)] {
        gateway.shop.appended.lock().unwrap().clear();
        let body = json!({ "reward_id": "mug", "command_id": kind });
        let asked = gateway.post("/v1/users/ada/loyalty/redeem", body.to_string());
        let shop = gateway.shop.clone();
        let obeyed = async {
            let command = shop.next_append("loyalty_command").await;
            assert_eq!((&command["action"], &command["reward_id"], &command["user_id"]), (&json!("redeem"), &json!("mug"), &json!("ada")));
            shop.commit("loyalty_update", "ada", json!({ "kind": "earn", "note": "another" }));
            shop.commit("loyalty_update", "ada", entry(&command, kind, note));
        };
        let ((got, answer), ()) = tokio::join!(asked, obeyed);
        assert_eq!((got, &answer["command_id"], &answer["entry"]["note"]), (status, &json!(kind), &json!(note)), "{answer}");
        if status == 409 {
            assert_eq!(answer["error"]["message"], note);
        }
    }
}

#[tokio::test]
async fn a_command_sent_again_is_answered_from_the_ledger_and_not_appended_again() {
    let gateway = start().await;
    let entries = json!({ "entries": [{ "kind": "bonus", "command_id": "c1", "points": 10 }] });
    gateway.shop.answer("customers", "loyalty/ledger", "ada", "", Ok(Some(entries)));
    let (status, answer) =
        gateway.post("/v1/users/ada/loyalty/spin", json!({ "spin_id": "spin:1:o1", "command_id": "c1" }).to_string()).await;
    assert_eq!((status, &answer["entry"]["points"]), (200, &json!(10)));
    assert!(gateway.shop.appended.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_log_does_not_take_is_503_and_what_makes_no_sense_is_400() {
    let gateway = start().await;
    for (path, body) in [
        ("loyalty/redeem", "{}"),
        ("loyalty/redeem", r#"{"reward_id": "mug", "command_id": 7}"#),
        ("loyalty/spin", "not JSON"),
        ("subscription", r#"{"action": "explode"}"#),
        ("subscription", r#"{"action": "swap", "from": "tea"}"#),
    ] {
        let (status, answer) = gateway.post(&format!("/v1/users/ada/{path}"), body).await;
        assert_eq!(status, 400, "{path} {body}: {answer}");
    }
    *gateway.shop.log.lock().unwrap() = Some(Err(PortError::Unavailable("no broker".into())));
    assert_eq!(gateway.post("/v1/users/ada/loyalty/redeem", r#"{"reward_id": "mug"}"#).await.0, 503);
    assert_eq!(gateway.post("/v1/users/ada/subscription", r#"{"action": "pause"}"#).await.0, 503);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_202_with_the_id_to_ask_again_with() {
    let gateway = start().await;
    let (status, answer) = gateway.post("/v1/users/ada/loyalty/redeem", r#"{"reward_id": "mug", "command_id": "c1"}"#).await;
    assert_eq!((status, answer), (202, json!({ "command_id": "c1", "status": "pending" })));
}

#[tokio::test]
async fn a_subscription_is_changed_once_its_event_is_applied() {
    let gateway = start().await;
    let asked = gateway.post("/v1/users/ada/subscription", r#"{"action": "skip", "event_id": "e1", "timestamp": 1}"#);
    let shop = gateway.shop.clone();
    let applied = async {
        let event = shop.next_append("subscription_event").await;
        assert_eq!((&event["action"], &event["event_id"]), (&json!("skipped"), &json!("e1")));
        assert_ne!(event["timestamp"], "1970-01-01T00:00:00.001Z", "when is not the caller's to say");
        let standing = json!({ "subscriptions": [{ "subscription_id": "s1", "status": "active" }], "applied": ["e0", "e1"] });
        shop.answer("customers", "subscription", "ada", "", Ok(Some(standing)));
    };
    let ((status, answer), ()) = tokio::join!(asked, applied);
    assert_eq!((status, &answer["subscriptions"][0]["status"]), (200, &json!("active")), "{answer}");
}

#[tokio::test]
async fn a_subscription_event_that_ends_in_the_dead_letters_is_409_with_the_reason() {
    let gateway = start().await;
    let asked = gateway.post("/v1/users/ada/subscription", r#"{"action": "pause", "event_id": "e1"}"#);
    let shop = gateway.shop.clone();
    let refused = async {
        let event = shop.next_append("subscription_event").await;
        let letter =
            json!({ "source_topic": "subscription_events", "error": "the customer has no subscription", "value": event.to_string() });
        shop.commit("dead_letter", "ada", letter);
    };
    let ((status, answer), ()) = tokio::join!(asked, refused);
    assert_eq!((status, &answer["error"]["message"]), (409, &json!("the customer has no subscription")), "{answer}");
}

#[tokio::test]
async fn commands_are_the_user_s_own_or_a_server_s() {
    let keys = Keys { write: vec!["w".into()], server: vec!["s".into()], ..Keys::default() };
    let gateway = start_with(crate::support::FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    for path in ["loyalty/redeem", "loyalty/spin", "subscription"] {
        assert_eq!(gateway.post_as("w", &format!("/v1/users/ada/{path}"), json!({})).await.0, 403, "{path}");
        assert_eq!(gateway.post_as("s", &format!("/v1/users/ada/{path}"), json!({})).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn a_denied_feature_that_a_plan_has_is_told_once() {
    let gateway = start().await;
    let denied = json!({ "feature": "early_access", "has": false, "upgrade_to": "premium_box" });
    gateway.shop.answer("customers", "entitlements", "ada", "early_access", Ok(Some(denied)));
    gateway.shop.answer("customers", "entitlements", "ada", "unheard_of", Ok(Some(json!({ "has": false }))));
    gateway.shop.answer("customers", "entitlements", "ada", "shipping_speed", Ok(Some(json!({ "has": true }))));
    for feature in ["early_access", "early_access", "unheard_of", "shipping_speed"] {
        assert_eq!(gateway.get(&format!("/v1/users/ada/entitlements/{feature}")).await.0, 200);
    }
    let told = gateway.shop.appended.lock().unwrap().clone();
    assert_eq!((told.len(), told[0].schema, told[0].key.as_deref()), (1, "customer_signal", Some("ada")));
    assert_eq!(
        (&gateway.shop.values()[0]["kind"], &gateway.shop.values()[0]["data"]["feature"]),
        (&json!("feature_denied"), &json!("early_access"))
    );
}
