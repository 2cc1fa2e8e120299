//! A shop's data directory taken elsewhere: backed up and brought back, and to a Kafka cluster, where it goes on.

use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tillflow_schemas::Timestamp;
use tillflow_tests::{Api, Fault, Kafka, Run, Scratch, Tillflow, scratch, until};

const LONG: Duration = Duration::from_secs(120);

/// Of what the demo's shop decides in its twenty seconds, none may be missing.
const DECIDED: [&str; 9] = [
    "price_changes",
    "recommendations",
    "related_products",
    "loyalty_updates",
    "notifications",
    "entitlements",
    "box_contents",
    "segments",
    "email_triggers",
];

/// The data directory of a demo that is over, and what it said of itself.
fn demo(length: &[&str]) -> (Arc<Scratch>, PathBuf, Value) {
    let files = Arc::new(scratch("shop"));
    let directory = files.join("data");
    let run = Tillflow::command(["demo", "--headless", "--for"].iter().chain(length).copied());
    let summary = run.arg("--data-dir").arg(directory.display().to_string()).finish().ok().json();
    (files, directory, summary)
}

fn embedded(directory: &std::path::Path) -> Tillflow {
    let mut shop = Tillflow::run().set("data_dir", directory.display()).spawn();
    shop.wait_until_ready();
    shop
}

/// What is known of each customer and of some products.
fn known(shop: &Tillflow) -> Vec<Value> {
    let users =
        (0..120).flat_map(|n| ["loyalty", "loyalty/ledger", "entitlements", "segments"].map(|what| format!("/v1/users/user{n}/{what}")));
    let products = (1..=8).map(|n| format!("/v1/products/tea-{n}"));
    users.chain(products).map(|path| shop.json(&path)).collect()
}

fn balance(shop: &Tillflow, user: &str) -> i64 {
    shop.json(&format!("/v1/users/{user}/loyalty"))["balance"].as_i64().unwrap_or(0)
}

/// An order of 1000.00 brings at least 1,000 points, once.
fn order_and_see_the_points(shop: &Tillflow, user: &str) {
    let before = balance(shop, user);
    let order = json!({
        "event_type": "order_completed", "event_id": "after-the-move", "user_id": user, "order_id": "after-the-move", "timestamp": Timestamp::wall(),
        "total_amount": "1000.00", "items": [{"product_id": "tea-1", "quantity": 1, "price": "1000.00"}],
    });
    // Posted twice, it counts once.
    assert!(shop.post("/v1/events", json!([order, order])).status().is_success());
    until("the order's points", LONG, || balance(shop, user) >= before + 1_000);
    assert!(balance(shop, user) < before + 3_000, "{before} became {}", balance(shop, user));
}

#[test]
fn a_demos_shop_goes_on_from_a_backup_and_on_kafka_with_the_same_balances() {
    let (_files, directory, summary) = demo(&["20s"]);
    for topic in DECIDED {
        assert!(summary["outputs"][topic].as_u64() > Some(0), "{topic} in {summary}");
    }
    let mut shop = embedded(&directory);
    let expected = known(&shop);
    assert!(expected.iter().any(|k| k["balance"].as_i64() > Some(0)), "nobody has points");

    // The built-in registry knows what clients registered.
    let schema = json!({"schema": r#"{"type": "record", "name": "Own", "fields": []}"#});
    let registered = shop.post("/subjects/own/versions", schema);
    assert!(registered.status().is_success());
    let id = registered.json::<Value>().unwrap()["id"].clone();
    let schema_of = |shop: &Tillflow| shop.json(&format!("/schemas/ids/{id}"))["schema"].clone();
    let own = schema_of(&shop);
    assert!(own.is_string(), "{own}");

    // While an instance runs, the directory is its own.
    let copy = directory.with_file_name("copy");
    let backup = || Tillflow::command(["backup"]).arg(copy.display().to_string()).set("data_dir", directory.display()).finish();
    let busy = backup();
    assert!(busy.code() == 1 && busy.stderr.contains("another process"), "{}", busy.stderr);
    assert!(shop.stop().success());
    let _ = backup().ok();

    // What happens after the backup is not in it.
    let mut shop = embedded(&directory);
    order_and_see_the_points(&shop, "user3");
    assert!(shop.stop().success());
    let restored = directory.with_file_name("restored");
    let restore = || Tillflow::command(["restore"]).arg(copy.display().to_string()).set("data_dir", restored.display()).finish();
    let _ = restore().ok();
    assert!(restore().stderr.contains("holds a log already"));
    let mut shop = embedded(&restored);
    assert_eq!(known(&shop), expected);
    assert_eq!(schema_of(&shop), own);
    assert!(shop.stop().success());

    // To the cluster, and on.
    let kafka = Kafka::shared();
    let (prefix, on_kafka) = (kafka.prefix(), directory.with_file_name("on-kafka"));
    let cluster = |run: Run| run.set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).set("app_id", format!("{prefix}app"));
    let migrate = || {
        let run = Tillflow::command(["migrate", "--to-kafka", "--json", "--new-data-dir"]).arg(on_kafka.display().to_string());
        cluster(run.set("data_dir", restored.display())).finish()
    };
    let written = migrate().ok().json();
    for topic in ["user_events", "loyalty_updates", "products"] {
        assert!(written["records"][topic].as_u64() > Some(0), "{topic} in {written}");
    }
    assert!(written["rows"]["customers"].as_u64() > Some(0) && written["rows"]["products"].as_u64() > Some(0), "{written}");
    let again = migrate();
    assert!(again.code() == 1 && again.stderr.contains("holds records already"), "{}", again.stderr);

    let mut shop = cluster(Tillflow::run().set("data_dir", on_kafka.display())).within(LONG).spawn();
    shop.wait_until_ready();
    until("all tasks are restored", LONG, || shop.get("/v1/users/user0/loyalty").status().is_success() && known_of_all(&shop));
    assert_eq!(known(&shop), expected);
    assert_eq!(schema_of(&shop), own);
    let entries = || kafka.read(&format!("{prefix}loyalty_updates")).len();
    let before = entries();
    order_and_see_the_points(&shop, "user3");
    let ledger = shop.json("/v1/users/user3/loyalty/ledger").to_string();
    assert_eq!(ledger.matches("\"order_id\":\"after-the-move\"").count(), 1, "{ledger}");
    // Nothing that was processed before is processed again.
    assert!((1..6).contains(&(entries() - before)), "{} new ledger entries", entries() - before);
    assert!(shop.stop().success());
    let busy = migrate();
    assert!(busy.code() == 1, "{}", busy.stderr);
}

fn known_of_all(shop: &Tillflow) -> bool {
    let users = (0..40).all(|n| shop.get(&format!("/v1/users/user{n}/loyalty")).status().is_success());
    users && (1..=8).all(|n| shop.get(&format!("/v1/products/tea-{n}")).status().is_success())
}

#[test]
fn a_migration_that_breaks_off_leaves_nothing_and_can_be_given_again() {
    let (_files, directory, _) = demo(&["6s", "--rate", "80"]);
    let kafka = Kafka::setup().property("transaction.max.timeout.ms", "120000").start();
    let migrate = |brokers: String, minutes: &str| {
        let run = Tillflow::command(["migrate", "--to-kafka", "--json", "--minutes", minutes]);
        run.set("data_dir", directory.display()).set("brokers", brokers)
    };
    let too_long = migrate(kafka.bootstrap(), "15").finish();
    assert!(too_long.code() == 1 && too_long.stderr.contains("transaction.max.timeout.ms"), "{}", too_long.stderr);

    // Everything is written but the commit, whose request never arrives; then it is killed.
    let proxy = kafka.proxy();
    proxy.fail(Api::EndTxn, Fault::LoseRequest, 1_000);
    let run = migrate(proxy.address(), "2");
    let mut broken_off = run.start();
    until("the commit is lost", LONG, || proxy.happened() > 0);
    broken_off.kill();
    assert!(!kafka.read_uncommitted("user_events").is_empty());
    assert!(kafka.read("user_events").is_empty());

    let written = migrate(kafka.bootstrap(), "2").finish().ok().json();
    let events = kafka.read("user_events").len();
    assert_eq!(Some(events as u64), written["records"]["user_events"].as_u64());
    // The offsets of the first attempt are used up: positions are those of the second.
    let mut shop =
        Tillflow::run().set("brokers", kafka.bootstrap()).set("data_dir", directory.with_file_name("on-kafka").display()).spawn();
    shop.wait_until_ready();
    until("all tasks are restored", LONG, || known_of_all(&shop));
    order_and_see_the_points(&shop, "user3");
    assert!(shop.stop().success());

    let gone = migrate("127.0.0.1:1".into(), "2").finish();
    assert!(gone.code() == 1 && !gone.stderr.is_empty());
    let usage = Tillflow::command(["migrate"]).set("data_dir", directory.display()).finish();
    assert_eq!(usage.code(), 2, "{}", usage.stderr);
}
