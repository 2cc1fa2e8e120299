//! A shop's history comes into its log, and nobody hears of it.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{Kafka, Run, Tillflow, until};

const LONG: Duration = Duration::from_secs(60);

fn ago(days: u64, minutes: u64) -> Timestamp {
    let before = Duration::from_secs(days * 86_400) - Duration::from_secs(minutes * 60);
    Timestamp::from_millis(Timestamp::wall().millis() - before.as_millis() as i64)
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|r| format!("{r}\n")).collect()
}

/// Ann ordered twenty days ago and left a cart nine days ago; reminders of it were due since.
fn with_history(run: Run) -> Run {
    let event = |id: &str, kind: &str, at: Timestamp, fields: Value| {
        let mut event = json!({"event_type": kind, "event_id": id, "user_id": "ann", "timestamp": at});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        event
    };
    let order = json!({"order_id": "o1", "total_amount": "120.00", "items": [{"product_id": "p1", "quantity": 1, "price": "120.00"}]});
    let events = [
        event("1", "order_completed", ago(20, 0), order),
        event("2", "added_to_cart", ago(9, 0), json!({"product_id": "p2", "price": "10.00"})),
        event("3", "product_viewed", ago(7, 0), json!({"product_id": "p3"})),
    ];
    let customer = json!({"user_id": "ann", "email": "ann@example.org", "consent": {"status": "granted", "at": "2020-01-01T00:00:00Z", "source": "t", "text_version": "1"}});
    run.file("events.jsonl", lines(&events)).file("customers.jsonl", lines(&[customer]))
}

fn import() -> Run {
    with_history(Tillflow::command(["import", "events.jsonl", "customers=customers.jsonl", "--json"]))
}

fn balance(shop: &Tillflow) -> Option<i64> {
    shop.get("/v1/users/ann/loyalty").json::<Value>().ok()?["balance"].as_i64()
}

#[test]
fn history_counts_as_if_it_had_been_live_but_sends_nothing() {
    let done = import().finish().ok();
    let summary = done.json();
    assert_eq!(summary["records"], 4);
    assert!(summary["mails_not_sent"].as_u64() > Some(0), "{summary}");
    let again = import().in_directory_of(&done.files).finish().ok().json();
    assert_eq!(again["mails_not_sent"], 0, "what is there already counts once");

    // Every mail that was decided has its result, so that no sender takes it up.
    let exported = Tillflow::command(["user", "export", "ann"]).set("data_dir", done.files.join("tillflow-data").display()).finish().ok();
    let exported: Value = serde_json::from_str(&exported.stdout).unwrap();
    let ids = |topic: &str| {
        let records = exported["records"][topic].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<_> = records.iter().map(|r| r["value"]["trigger_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert!(!ids("email_triggers").is_empty());
    assert_eq!(ids("email_triggers"), ids("email_results"));
    assert!(exported["records"]["email_results"].as_array().unwrap().iter().all(|r| r["value"]["status"] == "suppressed"));

    let mut shop = Tillflow::run().in_directory_of(&done.files).spawn();
    shop.wait_until_ready();
    assert_eq!(balance(&shop), Some(120));
    let busy = import().in_directory_of(&done.files).finish();
    assert!(busy.code() == 1 && busy.stderr.contains("another process"), "{}", busy.stderr);
    assert!(shop.stop().success());

    for (arguments, words) in
        [(vec!["import"], "FILE"), (vec!["import", "none=e.jsonl"], "input topic"), (vec!["import", "empty.jsonl"], "no records")]
    {
        let done = Tillflow::command(arguments).file("empty.jsonl", "").finish();
        assert!(done.code() == 2 && done.stderr.contains(words), "{}", done.stderr);
    }
}

#[test]
fn history_comes_onto_a_cluster_too() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let cluster = |run: Run| run.set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).set("app_id", format!("{prefix}app"));
    let summary = cluster(import()).finish().ok().json();
    assert!(summary["mails_not_sent"].as_u64() > Some(0), "{summary}");
    assert_eq!(kafka.read(&format!("{prefix}email_results")).len(), kafka.read(&format!("{prefix}email_triggers")).len());
    let mut shop = cluster(Tillflow::run()).within(LONG).spawn();
    shop.wait_until_ready();
    until("the history's points are there", LONG, || balance(&shop) == Some(120));
    let busy = cluster(import()).finish();
    assert!(busy.code() == 1 && busy.stderr.contains("an instance runs"), "{}", busy.stderr);
    assert!(shop.stop().success());
}
