//! The console and the example page, in a real browser.

use crate::support::{FakeShop, Running, event, start, start_with};
use serde_json::{Value, json};
use std::{path::Path, sync::OnceLock};
use tillflow_gateway::{GatewayConfig, Keys};
use tillflow_tests::{Browser, Page};

const SCRIPT: &str = include_str!("../../../web/console/console.js");

/// What a shop's data may hold at worst.
const NASTY: &str = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&amp;\u{202e}";

fn fill(shop: &FakeShop, text: &str) {
    shop.commit(
        "price_change",
        text,
        json!({ "old_price": "100.00", "new_price": "110.00", "reason": text, "bounded_by": [text], "currency": text, "mode": "shadow" }),
    );
    shop.commit("recommendations", text, json!({ "items": [{ "product_id": text }], "trigger": text }));
    shop.commit("loyalty_update", text, json!({ "points": 5, "balance": 5, "tier": text, "kind": text, "note": text }));
    shop.commit("box_contents", text, json!({ "period": text, "items": [{ "product_id": text, "exclusive": true }] }));
    shop.commit("email_trigger", text, json!({ "template": text, "because": text, "to": format!("x@{text}") }));
    shop.commit("dead_letter", text, json!({ "source_topic": text, "processor": text, "error": text, "value": text }));
}

/// Opens a page in a tab of the one browser, on a thread that may block.
async fn browse<T: Send + 'static>(url: String, look: impl FnOnce(&mut Page) -> T + Send + 'static) -> T {
    static BROWSER: OnceLock<Browser> = OnceLock::new();
    tokio::task::spawn_blocking(move || look(&mut BROWSER.get_or_init(Browser::start).open(&url))).await.unwrap()
}

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy_and_only_once() {
    let gateway = start().await;
    let page = gateway.client.get(gateway.url("/")).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let tag = page.headers()["etag"].clone();
    let text = page.text().await.unwrap();
    assert!(text.contains("<title>Tillflow</title>"));
    assert!(!text.contains("http://") && !text.contains("https://"), "no outside host");
    let again = gateway.client.get(gateway.url("/")).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    for file in ["console.css", "console.js", "icon.svg"] {
        assert_eq!(gateway.client.get(gateway.url(&format!("/console/{file}"))).send().await.unwrap().status(), 200, "{file}");
    }
}

#[test]
fn the_script_never_makes_markup_of_text() {
    for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc", "setHTML"] {
        assert!(!SCRIPT.contains(way), "{way}");
    }
}

#[tokio::test]
async fn a_page_opened_late_shows_what_was_and_then_what_is() {
    let gateway = start().await;
    for n in 0..30 {
        gateway.shop.recommend(&format!("u{n}"), &["p1"]);
    }
    gateway.shop.commit("segments", "u1", json!({ "segments": [] }));
    let seen = |picture: &Value| picture["totals"]["segments"] == json!(1);
    // The picture is complete once the gateway has followed so far.
    let (mut stream, mut text, picture) = loop {
        let (mut stream, mut text) = (gateway.client.get(gateway.url("/console/stream")).send().await.unwrap(), String::new());
        let (_, picture) = event(&mut stream, &mut text).await;
        if seen(&picture) {
            break (stream, text, picture);
        }
    };
    let users: Vec<_> = picture["lists"]["recommendations"].as_array().unwrap().iter().map(|r| r["user"].as_str().unwrap()).collect();
    assert_eq!((users.len(), users[0], users[11]), (12, "u29", "u18"));
    assert_eq!(picture["totals"]["recommendations"], 30);
    gateway.shop.recommend("late", &["p2"]);
    let tick = loop {
        let (_, tick) = event(&mut stream, &mut text).await;
        if !tick["lists"].as_object().unwrap().is_empty() && tick["lists"]["recommendations"][0]["user"] == "late" {
            break tick;
        }
    };
    let newest = |news: &Value| news["lists"]["recommendations"][0]["n"].as_u64().unwrap();
    assert!(newest(&tick) > newest(&picture) && tick["ready"] == json!(true));
}

#[tokio::test]
async fn with_keys_only_the_admin_key_opens_the_console() {
    let keys = Keys { server: vec!["s".into()], admin: vec!["a".into()], ..Keys::default() };
    let gateway = start_with(FakeShop::new(), GatewayConfig { keys, ..GatewayConfig::default() }).await;
    assert_eq!(gateway.get("/console/stream").await.0, 401);
    assert_eq!(gateway.get_as("s", "/console/stream").await.0, 403);
    let url = gateway.url("/");
    browse(url, |page| {
        page.wait_until("!document.getElementById('ask').hidden");
        page.evaluate("document.getElementById('key').value = 'wrong'; document.getElementById('ask').requestSubmit()");
        page.wait_until("document.getElementById('ask-reason').textContent.includes('not known')");
        page.evaluate("document.getElementById('key').value = 'a'; document.getElementById('ask').requestSubmit()");
        page.wait_until("document.getElementById('status').textContent === 'Live'");
    })
    .await;
}

#[tokio::test]
async fn whatever_a_shops_data_holds_stays_text() {
    let gateway = start().await;
    fill(&gateway.shop, NASTY);
    let url = gateway.url("/");
    browse(url, |page| {
        page.wait_until(
            "['prices', 'recommendations', 'points', 'boxes', 'emails', 'dead'].every((id) => document.querySelector(`#${id} li`))",
        );
        assert_eq!(page.evaluate("document.title"), "Tillflow");
        assert_eq!(page.evaluate("document.querySelectorAll('.rows img, .rows script').length"), 0);
        assert!(page.text().contains("<img src=x"), "shown as it is");
        assert_eq!(page.errors(), [] as [String; 0]);
    })
    .await;
}

#[tokio::test]
async fn it_fits_a_phone_and_can_be_paused() {
    let gateway = start().await;
    fill(&gateway.shop, &"a-very-long-identifier-".repeat(6));
    let url = gateway.url("/");
    browse(url, |page| {
        page.resize(390, 844, true);
        page.wait_until("document.querySelector('#dead li')");
        assert_eq!(page.evaluate("document.documentElement.scrollWidth"), 390, "nothing juts out");
        page.evaluate("document.getElementById('pause').click()");
        page.wait_until("document.getElementById('status').textContent === 'Paused'");
        page.evaluate("document.getElementById('pause').click()");
        page.wait_until("document.getElementById('status').textContent === 'Live'");
    })
    .await;
}

#[tokio::test]
async fn the_example_page_shows_recommendations_opened_as_a_file() {
    let gateway: Running = start().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/examples/recommendations.html");
    let url = format!("file://{}?shop=ws://{}", file.canonicalize().unwrap().display(), gateway.address);
    gateway.shop.recommend("user123", &["p7", "p3"]);
    browse(url, |page| {
        page.wait_until("document.querySelectorAll('#recommendations-container li').length === 2");
        assert_eq!(page.evaluate("document.querySelector('#recommendations-container li').textContent"), "p7");
    })
    .await;
}
