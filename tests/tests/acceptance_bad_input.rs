//! Bad input over HTTP, through the whole program: each with a clear error, nothing lost, and the good ones go on.

use serde_json::{Value, json};
use std::{io::Read, time::Duration};
use tillflow_tests::{Tillflow, until};

const LIMIT: Duration = Duration::from_secs(60);

struct Shop(Tillflow);

impl Shop {
    fn start() -> Self {
        let mut shop = Tillflow::run().set("time.grace.s", 0).spawn();
        shop.wait_until_ready();
        Self(shop)
    }

    /// A POST of any bytes: its status and its answer.
    fn post(&self, path: &str, body: impl Into<reqwest::blocking::Body>) -> (u16, Value) {
        let client = reqwest::blocking::Client::builder().timeout(LIMIT).build().unwrap();
        let answer = client.post(format!("{}{path}", self.0.url())).body(body).send().unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().unwrap()).unwrap())
    }

    /// A record that is wrong: its one fault's field and reason. Beside it a good one is taken.
    fn fault(&self, n: usize, bad: &str) -> (String, String) {
        let good = order(&format!("good{n}"), &format!("o-{n}"), "10.00").to_string();
        let (status, answer) = self.post("/v1/events", format!("[{good},{bad}]"));
        assert_eq!((status, &answer["accepted"], &answer["errors"][0]["index"]), (400, &json!(1), &json!(1)), "{bad}: {answer}");
        let said = |field: &str| answer["errors"][0][field].as_str().unwrap().to_owned();
        (said("field"), said("reason"))
    }

    fn balance(&self, user: &str) -> i64 {
        self.0.json(&format!("/v1/users/{user}/loyalty"))["balance"].as_i64().unwrap()
    }

    /// The console's picture of what is remembered.
    fn console(&self) -> String {
        let mut stream = self.0.get("/console/stream");
        let mut text = Vec::new();
        let mut bytes = [0; 4096];
        while !String::from_utf8_lossy(&text).contains("\n\n") {
            let read = stream.read(&mut bytes).unwrap();
            text.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn order(user: &str, id: &str, total: &str) -> Value {
    json!({"event_type": "order_completed", "user_id": user, "order_id": id, "total_amount": total, "items": [{"product_id": "tea", "quantity": 1}]})
}

#[test]
fn each_bad_record_is_named_with_field_and_reason_and_the_good_one_beside_it_counts() {
    let shop = Shop::start();
    let view = |change: &str| format!(r#"{{"event_type":"product_viewed","user_id":"ada","product_id":"tea"{change}}}"#);
    let add = |change: &str| format!(r#"{{"event_type":"added_to_cart","user_id":"ada","product_id":"tea"{change}}}"#);
    let sale = |change: &str| format!(r#"{{"event_type":"order_completed","user_id":"ada","order_id":"x"{change}}}"#);
    let long = "x".repeat(10_000);
    let bad: Vec<(String, &str, &str)> = vec![
        // Missing and wrong types.
        (r#"{"event_type":"product_viewed","user_id":"ada"}"#.into(), "product_id", "missing"),
        (r#"{"user_id":"ada"}"#.into(), "event_type", "missing"),
        (r#"{"event_type":["a"],"user_id":"ada"}"#.into(), "event_type", "string"),
        (view(r#","dwell_ms":"long""#), "dwell_ms", ""),
        (sale(r#","items":"tea""#), "items", ""),
        (r#""a word""#.into(), "", ""),
        // Infinities; NaN is no JSON at all.
        (sale(r#","total_amount":"Infinity""#), "total_amount", ""),
        (sale(r#","total_amount":"NaN""#), "total_amount", ""),
        (sale(r#","total_amount":1e400"#), "", ""),
        // Quantities and amounts.
        (add(r#","quantity":-3"#), "quantity", ""),
        (add(r#","quantity":0"#), "quantity", ""),
        (add(r#","quantity":1000001"#), "quantity", ""),
        (add(r#","quantity":99999999999999999999"#), "quantity", ""),
        (sale(r#","total_amount":"-1""#), "total_amount", ""),
        (sale(r#","total_amount":"123456789012345678901234567890""#), "total_amount", ""),
        (sale(r#","total_amount":"10","currency":"EURO""#), "currency", ""),
        // Times.
        (view(r#","timestamp":"1999-12-31T23:59:59Z""#), "timestamp", ""),
        (view(r#","timestamp":"2999-01-01T00:00:00Z""#), "timestamp", "after now"),
        (view(r#","timestamp":"yesterday""#), "timestamp", ""),
        // Ids.
        (r#"{"event_type":"product_viewed","user_id":"a\u0000b","product_id":"tea"}"#.into(), "user_id", "control"),
        (format!(r#"{{"event_type":"product_viewed","user_id":"{long}","product_id":"tea"}}"#), "user_id", "512"),
        (format!(r#"{{"event_type":"product_viewed","user_id":"ada","product_id":"{long}"}}"#), "product_id", "512"),
    ];
    for (n, (record, field, reason)) in bad.iter().enumerate() {
        let (said_field, said_reason) = shop.fault(n, record);
        assert!(
            said_field.starts_with(field) && said_reason.contains(reason) && !said_reason.is_empty(),
            "{record:.200}: {said_field}: {said_reason}"
        );
        assert!(said_reason.len() < 500, "{said_reason}");
    }
    for n in 0..bad.len() {
        until("the good one counts", LIMIT, || shop.balance(&format!("good{n}")) == 10);
    }
    assert_eq!(shop.balance("ada"), 0);
}

#[test]
fn what_is_no_json_or_too_large_is_refused_whole_and_the_program_goes_on() {
    let mut shop = Shop::start();
    for (body, said) in [
        (b"not JSON".to_vec(), "JSON"),
        (br#"{"event_type": NaN}"#.to_vec(), "JSON"),
        (vec![b'{', 0xff, 0xfe, b'}'], "UTF-8"),
        (b"[{},".to_vec(), "JSON"),
        ("[".repeat(200_000).into_bytes(), ""),
        (Vec::new(), "empty"),
    ] {
        let (status, answer) = shop.post("/v1/events", body);
        assert_eq!((status, &answer["accepted"]), (400, &json!(0)), "{answer}");
        assert!(answer["errors"][0]["reason"].as_str().unwrap().contains(said), "{answer}");
    }
    let huge = json!({"event_type": "page_viewed", "user_id": "ada", "url": "x".repeat(10 << 20)}).to_string();
    let (status, answer) = shop.post("/v1/events", huge);
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("too_large")), "{answer}");
    let record = json!({"event_type": "page_viewed", "user_id": "ada", "url": "x".repeat(2 << 20)}).to_string();
    let (status, answer) = shop.post("/v1/events", record);
    assert_eq!(status, 400, "{answer}");
    assert_eq!(shop.post("/v1/events", order("ada", "o1", "10.00").to_string()).0, 202);
    until("the program goes on", LIMIT, || shop.balance("ada") == 10);
    assert!(shop.0.process().is_running());
}

#[test]
fn an_order_of_ten_thousand_items_counts_and_an_unknown_type_is_kept_and_counted() {
    let shop = Shop::start();
    let items: Vec<Value> = (0..10_000).map(|n| json!({"product_id": format!("p{n}"), "quantity": 1})).collect();
    let order = json!({"event_type": "order_completed", "user_id": "ada", "order_id": "o1", "total_amount": "10000.00", "items": items});
    assert_eq!(shop.post("/v1/events", order.to_string()).0, 202);
    until("the large order counts", LIMIT, || shop.balance("ada") >= 10_000);
    let one_more: Vec<Value> = (0..10_001).map(|n| json!({"product_id": format!("p{n}"), "quantity": 1})).collect();
    let order = json!({"event_type": "order_completed", "user_id": "ada", "order_id": "o2", "items": one_more});
    assert_eq!(shop.post("/v1/events", order.to_string()).1["errors"][0]["field"], "items");

    let moon = json!({"event_type": "moon_landed", "user_id": "ada", "crew": 3});
    assert_eq!(shop.post("/v1/events", moon.to_string()).0, 202);
    let metrics = shop.0.get("/metrics").text().unwrap();
    assert!(metrics.contains("tillflow_gateway_unknown_events_total 1"), "{metrics}");
}

#[test]
fn what_only_a_processor_can_refuse_ends_in_the_dead_letters_and_the_console_says_why() {
    let shop = Shop::start();
    let pause = json!({"user_id": "ada", "action": "paused", "plan_id": "basic_box"});
    assert_eq!(shop.post("/v1/topics/subscription_events", pause.to_string()).0, 202);
    until("the console shows it", LIMIT, || shop.console().contains("`started` comes first"));
    let console = shop.console();
    assert!(console.contains("subscription_events") && console.contains("subscriptions"), "{console}");
    // A currency without a rate, where the shop has one of its own, is a processor's matter too.
    assert_eq!(shop.post("/v1/events", order("ben", "o1", "10.00").to_string()).0, 202);
    until("the stream goes on", LIMIT, || shop.balance("ben") == 10);
}

#[test]
fn an_unknown_currency_is_a_dead_letter_where_the_shop_has_one_of_its_own() {
    let mut program = Tillflow::run().set("time.grace.s", 0).set("shop.currency", "EUR").spawn();
    program.wait_until_ready();
    let shop = Shop(program);
    let mut foreign = order("ada", "o1", "10.00");
    foreign["currency"] = json!("XTS");
    assert_eq!(shop.post("/v1/events", json!([foreign, order("ada", "o2", "20.00")]).to_string()).0, 202);
    until("the good one counts", LIMIT, || shop.balance("ada") == 20);
    until("the other one is said", LIMIT, || shop.console().contains("XTS"));
}
