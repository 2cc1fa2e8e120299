//! `tillflow replay` and `tillflow evaluate`, as a shop's developer uses them: files in, files and words out.

use serde_json::{Value, json};
use std::{fs, io::Write as _};
use tillflow_tests::{
    Finished, Run, Tillflow,
    compare::{differences, outputs_of},
};

fn lines(records: &[Value]) -> String {
    records.iter().map(|r| format!("{r}\n")).collect()
}

fn at(day: u32, hour: u32, minute: u32) -> String {
    format!("2026-03-{day:02}T{hour:02}:{minute:02}:00Z")
}

fn order(user: &str, id: &str, product: &str, amount: &str, timestamp: String) -> Value {
    json!({
        "event_type": "order_completed", "event_id": format!("e-{id}"), "user_id": user, "order_id": id, "timestamp": timestamp,
        "total_amount": amount, "items": [{"product_id": product, "quantity": 2, "price": amount}],
    })
}

/// Two shoppers, one tea that sells out.
fn events() -> Vec<Value> {
    vec![
        json!({"event_type": "product_viewed", "event_id": "1", "user_id": "ann", "product_id": "tea", "timestamp": at(1, 9, 0)}),
        json!({"event_type": "added_to_cart", "event_id": "2", "user_id": "ann", "product_id": "tea", "timestamp": at(1, 9, 5)}),
        order("ann", "o1", "tea", "600.00", at(1, 9, 10)),
        order("bob", "o2", "tea", "100.00", at(1, 15, 0)),
    ]
}

fn products() -> Vec<Value> {
    vec![json!({"product_id": "tea", "name": "Sencha", "category": "tea", "base_price": "100.00"})]
}

fn stock() -> Vec<Value> {
    [(9, 0, 50), (12, 0, 25), (14, 0, 15)]
        .map(|(hour, minute, level)| json!({"product_id": "tea", "stock_level": level, "last_updated": at(1, hour, minute)}))
        .to_vec()
}

/// `tillflow replay` of the shop's files with these further arguments.
fn replay(further: &[&str]) -> Run {
    let arguments = ["replay", "events.jsonl", "products=products.jsonl", "inventory=stock.jsonl"];
    Tillflow::command(arguments.into_iter().chain(further.iter().copied()))
        .file("events.jsonl", lines(&events()))
        .file("products.jsonl", lines(&products()))
        .file("stock.jsonl", lines(&stock()))
}

fn records(of: &Finished, path: &str) -> Vec<Value> {
    let text = fs::read_to_string(of.files.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_output_topic_has_a_file_and_the_summary_counts_them() {
    let done = replay(&["--out", "results", "--json"]).finish().ok();
    let summary = done.json();
    assert_eq!(summary["events"], 7, "products are no events: {summary}");
    let written: Value = serde_json::from_str(&fs::read_to_string(done.files.join("results/summary.json")).unwrap()).unwrap();
    assert_eq!(written, summary);
    for (topic, count) in summary["outputs"].as_object().unwrap() {
        let records = records(&done, &format!("results/{topic}.jsonl"));
        assert_eq!(json!(records.len()), *count, "{topic}");
        for record in records {
            assert!(record["key"].is_string() && record["timestamp"].is_string() && record.get("value").is_some(), "{topic}: {record}");
        }
    }
    // Each at bronze, since each is a shopper's first.
    let points = records(&done, "results/loyalty_updates.jsonl");
    let earned: Vec<_> = points.iter().filter(|p| p["value"]["kind"] == "earn").map(|p| p["value"]["points"].clone()).collect();
    assert_eq!(earned, [json!(600), json!(100)]);
    assert!(done.stderr.is_empty(), "{}", done.stderr);
}

#[test]
fn one_shop_comes_to_the_same_in_csv_compressed_and_from_stdin() {
    let expected = outputs_of(replay(&["--out", "results"]).finish().ok().files.join("results").as_path());
    assert!(!expected["price_changes"].is_empty() && !expected["loyalty_updates"].is_empty());
    let text = lines(&events());
    let mut csv = "event_type,event_id,user_id,product_id,order_id,timestamp,total_amount,items\n".to_owned();
    for event in events() {
        let cell = |name: &str| match &event[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            nested => format!("\"{}\"", nested.to_string().replace('"', "\"\"")),
        };
        let cells = ["event_type", "event_id", "user_id", "product_id", "order_id", "timestamp", "total_amount", "items"].map(cell);
        csv.push_str(&format!("{}\n", cells.join(",")));
    }
    // In the other accepted form of a line, the latest first: files are sorted.
    let wrapped: String =
        events().iter().rev().map(|e| format!("{}\n", json!({"key": e["user_id"], "timestamp": e["timestamp"], "value": e}))).collect();
    let forms: [(&str, &str, Vec<u8>); 7] = [
        ("user_events=e.jsonl", "e.jsonl", text.clone().into_bytes()),
        ("e.csv", "e.csv", csv.clone().into_bytes()),
        ("e.csv.gz", "e.csv.gz", gzip(csv.as_bytes())),
        ("e.jsonl.gz", "e.jsonl.gz", gzip(text.as_bytes())),
        ("e.jsonl.zst", "e.jsonl.zst", zstd::encode_all(text.as_bytes(), 3).unwrap()),
        ("wrapped.jsonl", "wrapped.jsonl", wrapped.into_bytes()),
        ("-", "in", gzip(text.as_bytes())),
    ];
    for (argument, file, content) in forms {
        let run = Tillflow::command(["replay", argument, "products=products.jsonl", "inventory=stock.jsonl", "--out", "results"])
            .file("products.jsonl", lines(&products()))
            .file("stock.jsonl", lines(&stock()))
            .file(file, content);
        let done = if argument == "-" { run.stdin(file) } else { run }.finish().ok();
        let found = outputs_of(&done.files.join("results"));
        assert_eq!(differences(&expected, &found), Vec::<String>::new(), "{argument}");
    }
}

#[test]
fn until_lets_time_pass_after_the_last_record() {
    let customer = json!({"user_id": "ann", "email": "ann@example.org", "consent": {"status": "granted", "at": "2026-01-01T00:00:00Z", "source": "t", "text_version": "1"}});
    let cart = json!({"event_type": "added_to_cart", "event_id": "2", "user_id": "ann", "product_id": "tea", "timestamp": at(1, 9, 0)});
    let mails = |further: &[&str]| {
        let run = Tillflow::command(["replay", "events.jsonl", "customers=customers.jsonl", "--json"])
            .file("events.jsonl", lines(std::slice::from_ref(&cart)));
        let run =
            further.iter().fold(run.file("customers.jsonl", lines(std::slice::from_ref(&customer))), |run, argument| run.arg(*argument));
        run.finish().ok().json()["outputs"]["email_triggers"].clone()
    };
    assert_eq!(mails(&[]), 0);
    assert_eq!(mails(&["--until", "2026-03-01T10:30:00Z"]), 1, "the cart was left an hour ago");
    let done = replay(&["--until", "tomorrow"]).finish();
    assert_eq!(done.code(), 2, "{}", done.stderr);
}

#[test]
fn what_cant_be_read_is_a_dead_letter_with_its_bytes() {
    let good = order("ann", "o1", "tea", "10.00", at(1, 9, 0)).to_string().into_bytes();
    let file = [b"{\"event_type\": \"product_viewed\"\n".as_slice(), &[0xff, 0xfe, b'{'], b"\n", &good, b"\n"].concat();
    let done = Tillflow::command(["replay", "events.jsonl", "--out", "results"]).file("events.jsonl", file).finish().ok();
    let letters = records(&done, "results/dead_letters.jsonl");
    assert_eq!(letters.len(), 2);
    let values: Vec<_> = letters.iter().map(|l| l["value"].clone()).collect();
    assert!(values.contains(&json!("{\"event_type\": \"product_viewed\"")), "{values:?}");
    assert!(values.contains(&json!({"base64": "//57"})), "{values:?}");
    for name in ["source_topic", "source_partition", "source_offset", "processor", "error", "attempts"] {
        assert!(letters.iter().all(|l| l["headers"][name].is_string()), "{name} in {letters:?}");
    }
    assert_eq!(letters[0]["headers"]["source_topic"], "user_events");
    assert_eq!(records(&done, "results/loyalty_updates.jsonl").len(), 1, "the good line between them counts");
}

#[test]
fn other_rules_are_compared_with_those_that_were() {
    let before = replay(&["--out", "before"]).finish().ok();
    let again = |further: &[&str]| replay(further).in_directory_of(&before.files);
    let same = again(&["--compare", "before", "--json"]).finish().ok().json();
    let compared = &same["compared"];
    assert_eq!((&compared["prices"]["products_changed"], &compared["points"]["users_changed"]), (&json!(0), &json!(0)), "{compared}");
    assert_eq!((&compared["emails"]["added"], &compared["events"]), (&json!(0), &json!({"before": 7, "after": 7})));

    // Stock is low from 20 on by default; with 30 the price drifts up earlier. Twice the points an order.
    let rules = "pricing_rules:\n  - {scope: 'category:tea', low: 30}\nloyalty:\n  earning:\n    rules:\n      - {multiplier: 2}\n";
    let other = again(&["--compare", "before", "--rules", "rules.yaml", "--out", "after"]).file("rules.yaml", rules).finish().ok();
    let summary: Value = serde_json::from_str(&fs::read_to_string(other.files.join("after/summary.json")).unwrap()).unwrap();
    let compared = &summary["compared"];
    assert_eq!(compared["prices"]["products_changed"], 1, "{compared}");
    let example = &compared["prices"]["examples"][0];
    assert_eq!(example["product_id"], "tea");
    assert!(example["reason"]["after"].as_str().unwrap().starts_with("Low stock (25)"), "{example}");
    assert_eq!(compared["prices"]["revenue"]["items"], 2);
    assert_eq!(compared["points"]["users_changed"], 2);
    assert!(compared["points"]["given"]["after"].as_i64() > compared["points"]["given"]["before"].as_i64());
    assert!(compared["topics"]["loyalty_updates"]["keys_changed"].as_u64() > Some(0));
    for words in
        ["1 of 1 products take another path", "Low stock (25)", "recorded orders would come to", "2 of 2 customers", "loyalty_updates"]
    {
        assert!(other.stdout.contains(words), "{words} in {}", other.stdout);
    }
    assert!(records(&other, "after/price_changes.jsonl").iter().all(|r| r["value"]["rule"] != "default"));

    let clash = again(&["--compare", "before", "--out", "before"]).finish();
    assert_eq!(clash.code(), 2, "{}", clash.stderr);
    let none = again(&["--compare", "nowhere"]).finish();
    assert!(none.code() == 1 && none.stderr.contains("nowhere"), "{}", none.stderr);
}

#[test]
fn bad_usage_is_exit_code_2_and_says_what_to_mend() {
    for (arguments, file, words) in [
        (vec!["replay", "orders=e.jsonl"], "", "user_events"),
        (vec!["replay"], "", "[TOPIC=]FILE"),
        (vec!["replay", "e.jsonl", "--rules", "r.yaml"], "{\"scope\": \"default\", \"lwo\": 5}", "lwo"),
        (vec!["replay", "e.jsonl", "--rules", "r.yaml"], "pricing: {low: 500}", "low"),
        (vec!["evaluate", "-", "-"], "", "stdin"),
    ] {
        let done = Tillflow::command(arguments.clone()).file("e.jsonl", lines(&events())).file("r.yaml", file).finish();
        assert!(done.code() == 2 && done.stderr.contains(words), "{arguments:?} {file}: {} {}", done.code(), done.stderr);
        assert!(done.stdout.is_empty());
    }
    let missing = Tillflow::command(["replay", "e.jsonl"]).finish();
    assert!(missing.code() == 1 && missing.stderr.contains("e.jsonl"), "{}", missing.stderr);
}

#[test]
fn recommendations_are_measured_on_recorded_events() {
    let view = |user: &str, product: &str, minute| json!({"event_type": "product_viewed", "event_id": format!("{user}{minute}"), "user_id": user, "product_id": product, "timestamp": at(1, 9, minute)});
    let train = [view("a", "tea", 0), view("a", "cup", 1), view("b", "tea", 2), view("b", "cup", 3)];
    let test = [view("x", "tea", 10), view("x", "cup", 11), view("y", "pot", 12)];
    let evaluate = |further: &[&str], test: &[Value]| {
        let run = Tillflow::command(["evaluate", "train.jsonl.gz", "test.jsonl"]).file("train.jsonl.gz", gzip(lines(&train).as_bytes()));
        further.iter().fold(run.file("test.jsonl", lines(test)), |run, argument| run.arg(*argument)).finish()
    };
    let found = evaluate(&[], &test).ok().json();
    assert_eq!((&found["predictions"], &found["hr_at_20"], &found["mrr_at_20"]), (&json!(1), &json!(1.0), &json!(1.0)));
    assert_eq!((&found["coverage"], &found["nonrepeat"]), (&json!(0.5), &json!({"predictions": 1, "hits": 1})));
    let reload = [view("x", "tea", 10), view("x", "tea", 11)];
    assert_eq!(evaluate(&["--top", "2", "--repeats", "--frozen"], &reload).ok().json()["hr_at_2"], 1.0);
    assert_eq!(evaluate(&["--top", "2"], &reload).ok().json()["hr_at_2"], 0.0);
    let none = evaluate(&[], &test[2..]);
    assert!(none.code() == 1 && none.stderr.contains("nothing to predict"), "{}", none.stderr);
}
