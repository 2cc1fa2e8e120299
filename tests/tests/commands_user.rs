//! What is stored of a user comes out whole, and goes without trace; of others nothing goes.

use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tillflow_schemas::Timestamp;
use tillflow_tests::{Kafka, Redis, Run, Tillflow, until};

const LONG: Duration = Duration::from_secs(60);

/// Ann and Bob order, view and say where their mail goes.
fn shop_with(run: Run) -> Tillflow {
    let mut shop = run.within(LONG).spawn();
    shop.wait_until_ready();
    for user in ["ann", "bob"] {
        let event = |kind: &str, fields: Value| {
            let mut event =
                json!({"event_type": kind, "event_id": format!("{user}-{kind}"), "user_id": user, "timestamp": Timestamp::wall()});
            event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            event
        };
        let customer = json!({"user_id": user, "email": format!("{user}@example.org"), "consent": {"status": "granted", "at": "2026-01-01T00:00:00Z", "source": "t", "text_version": "1"}});
        assert!(shop.post("/v1/topics/customers", json!([customer])).status().is_success());
        let events = json!([
            event("product_viewed", json!({"product_id": "p1"})),
            event("added_to_cart", json!({"product_id": "p1", "price": "10.00"})),
            event(
                "order_completed",
                json!({"order_id": format!("{user}-1"), "total_amount": "77.00", "items": [{"product_id": "p1", "quantity": 1, "price": "77.00"}]})
            ),
            event("removed_from_cart", json!({"product_id": "p9"})),
        ]);
        assert!(shop.post("/v1/events", events).status().is_success());
        until("the points are there", LONG, || balance(&shop, user) == Some(77));
    }
    shop
}

fn balance(shop: &Tillflow, user: &str) -> Option<i64> {
    shop.get(&format!("/v1/users/{user}/loyalty")).json::<Value>().ok()?["balance"].as_i64()
}

/// Records of erased users that were dropped.
fn dropped(shop: &Tillflow) -> u64 {
    let metrics = shop.get("/metrics").text().unwrap();
    let line = metrics.lines().find_map(|l| l.strip_prefix("tillflow_erased_records_total{topic=\"user_events\"} "));
    line.map_or(0, |n| n.parse().unwrap())
}

/// Whether the bytes of a text stand in any file below a directory.
fn stands_in(directory: &Path, text: &str) -> bool {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() { stands_in(&path, text) } else { std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text.as_bytes()) }
    })
}

#[test]
fn on_an_embedded_log_a_user_is_exported_whole_and_erased_without_trace() {
    let redis = Redis::start();
    let mut shop = shop_with(Tillflow::run().set("redis.url", redis.url()));
    let data = shop.files().join("tillflow-data");
    let command = |arguments: &[&str]| {
        let run = arguments.iter().fold(Tillflow::command(["user"]), |run, a| run.arg(*a));
        run.set("data_dir", data.display()).set("redis.url", redis.url())
    };
    let export = |user: &str| -> Value { serde_json::from_str(&command(&["export", user]).finish().ok().stdout).unwrap() };

    let mut models = redis.connect();
    let mut keys = || redis::cmd("EXISTS").arg("user:ann").arg("user:ann:recommendations").query::<u64>(&mut models).unwrap();
    until("her read model is in Redis", LONG, || keys() > 0);

    // While the shop runs, it is asked.
    let listen = shop.url().trim_start_matches("http://").to_owned();
    let live = command(&["export", "ann"]).set("listen", listen).finish().ok();
    let live: Value = serde_json::from_str(&live.stdout).unwrap();
    assert_eq!(live["answers"]["loyalty"]["balance"], 77);
    let running = command(&["erase", "ann", "--yes"]).finish();
    assert!(running.code() == 1 && running.stderr.contains("another process"), "{}", running.stderr);
    assert!(shop.stop().success());
    let before = Timestamp::wall();

    let all = export("ann");
    assert_eq!((&all["records"]["user_events"], &all["state"]), (&live["records"]["user_events"], &live["state"]));
    assert_eq!(all["answers"]["loyalty"]["balance"], 77);
    assert_eq!(all["records"]["user_events"].as_array().unwrap().len(), 4);
    assert_eq!(all["records"]["customers"][0]["value"]["email"], "ann@example.org");
    for table in ["loyalty.accounts", "shopper.orders", "engine.timers_by_key", "engine.timers_by_time", "engine.seen"] {
        assert!(all["state"].as_array().unwrap().iter().any(|row| row["table"] == table), "{table} in {}", all["state"]);
    }
    assert!(!all.to_string().contains("bob"), "{all}");

    let unsure = command(&["erase", "ann"]).finish();
    assert!(unsure.code() == 2 && unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    let proof = command(&["erase", "ann", "--yes"]).finish().ok().json();
    assert_eq!(proof["records"]["user_events"], 4);
    assert!(proof["redis_keys"].as_u64() > Some(0) && keys() == 0, "{proof}");
    assert!(proof["gone_by"].is_string() && proof["state_rows"].as_u64() > Some(5), "{proof}");
    let nothing = export("ann");
    assert_eq!(nothing["state"], json!([]));
    assert!(
        nothing["records"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(topic, _)| *topic != "erased_users")
            .flat_map(|(_, r)| r.as_array().unwrap())
            .all(|r| r["value"].is_null()),
        "{nothing}"
    );
    assert!(!stands_in(&data.join("embedded"), "ann@example.org"), "the address is still on the disk");
    assert_eq!(export("bob")["answers"]["loyalty"]["balance"], 77);

    // The shop goes on without her; what was there of her does not come back.
    let mut shop = Tillflow::run().set("data_dir", data.display()).set("redis.url", redis.url()).spawn();
    shop.wait_until_ready();
    assert_eq!((balance(&shop, "ann").unwrap_or(0), balance(&shop, "bob")), (0, Some(77)));
    // What is sent again from before is dropped and counted; she may come back.
    let order = |user: &str, id: &str, at: Timestamp| json!([{"event_type": "order_completed", "user_id": user, "order_id": id, "timestamp": at, "total_amount": "5.00", "items": []}]);
    assert_eq!(shop.post("/v1/events", order("ann", "ann-1", before)).status(), 202);
    assert_eq!(shop.post("/v1/events", order("ann", "ann-2", Timestamp::wall())).status(), 202);
    until("what she does now counts", LONG, || balance(&shop, "ann") == Some(5));
    assert_eq!(dropped(&shop), 1);
    // Said while the shop runs, it has the same effect on what the shop knows.
    let marker = json!([{"user_id": "bob", "erased_at": Timestamp::wall()}]);
    assert_eq!(shop.post("/v1/topics/erased_users", marker).status(), 202);
    until("his account is gone", LONG, || balance(&shop, "bob").unwrap_or(0) == 0);
    assert_eq!(balance(&shop, "ann"), Some(5));
    assert_eq!(shop.post("/v1/events", order("bob", "bob-1", Timestamp::wall())).status(), 202);
    until("not even the ids of his orders are known", LONG, || balance(&shop, "bob") == Some(5));
    // Taken back, what was recorded of him before counts where it is sent again.
    let taken_back = reqwest::blocking::Client::new().delete(format!("{}/v1/topics/erased_users/bob", shop.url())).send().unwrap();
    assert_eq!(taken_back.status(), 202);
    until("an order from before counts", LONG, || {
        assert_eq!(shop.post("/v1/events", order("bob", "bob-0", before)).status(), 202);
        balance(&shop, "bob") == Some(10)
    });
    assert!(shop.stop().success());
}

#[test]
fn on_kafka_the_changelog_forgets_too() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let cluster = |run: Run| {
        let run = run.set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).set("app_id", format!("{prefix}app"));
        run.set("kafka.session_timeout_s", 6)
    };
    let mut shop = shop_with(cluster(Tillflow::run()));
    let erase = || cluster(Tillflow::command(["user", "erase", "ann", "--yes"])).finish();
    let running = erase();
    assert!(running.code() == 1 && running.stderr.contains("an instance runs"), "{}", running.stderr);
    assert!(shop.stop().success());
    let mut proof = None;
    // It stays a member until its session has ended.
    until("the instance's session has ended", LONG, || {
        proof = Some(erase()).filter(|done| done.exit.success());
        proof.is_some()
    });
    let proof = proof.unwrap().json();
    assert!(proof["state_rows"].as_u64() > Some(5) && proof["tombstones"].as_array().unwrap().contains(&json!("customers")), "{proof}");
    // 400 days: the longest that a topic keeps what it has of her.
    let gone_by: Timestamp = serde_json::from_value(proof["gone_by"].clone()).unwrap();
    assert!(gone_by > Timestamp::wall().plus(Duration::from_secs(399 * 86_400)), "{proof}");

    // The store that is on the disk learns it from the changelog, and so does a new one.
    shop.start_again();
    shop.wait_until_ready();
    until("the tasks run", LONG, || balance(&shop, "bob") == Some(77));
    until("her task runs", LONG, || shop.get("/v1/users/ann/loyalty").status().is_success());
    assert_eq!(balance(&shop, "ann").unwrap_or(0), 0);
    assert!(shop.stop().success());
    let mut anew = cluster(Tillflow::run()).within(LONG).spawn();
    anew.wait_until_ready();
    until("the tasks run", LONG, || balance(&anew, "bob") == Some(77));
    until("her task runs", LONG, || anew.get("/v1/users/ann/loyalty").status().is_success());
    assert_eq!(balance(&anew, "ann").unwrap_or(0), 0);
    let exported =
        cluster(Tillflow::command(["user", "export", "bob"])).set("listen", anew.url().trim_start_matches("http://")).finish().ok();
    let exported: Value = serde_json::from_str(&exported.stdout).unwrap();
    assert_eq!(exported["answers"]["loyalty"]["balance"], 77);
    assert!(exported["state"].as_array().unwrap().len() > 5 && exported["records"]["user_events"].as_array().unwrap().len() == 4);

    // Her events are in the log until their retention is over: made anew from it, the state has nothing of her.
    assert!(anew.stop().success());
    until("the instance's session has ended", LONG, || {
        cluster(Tillflow::command(["reset", "--yes"])).in_directory_of(anew.files()).finish().exit.success()
    });
    anew.start_again();
    anew.wait_until_ready();
    until("his state is made anew", LONG, || balance(&anew, "bob") == Some(77));
    until("her events are passed", LONG, || dropped(&anew) == 4);
    assert_eq!(balance(&anew, "ann").unwrap_or(0), 0);
}
