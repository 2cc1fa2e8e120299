//! Commands around a running instance: what it holds, what it needs, and how it gives its place up.

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};
use std::{fs, time::Duration};
use tillflow_schemas::Timestamp;
use tillflow_tests::{Finished, Kafka, Redis, Tillflow, free_port, until};

const LONG: Duration = Duration::from_secs(60);

fn objects(done: &Finished) -> Vec<Value> {
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
}

fn order(user: &str) -> Value {
    json!({
        "event_type": "order_completed", "event_id": "e1", "user_id": user, "order_id": "o1", "timestamp": Timestamp::wall(),
        "total_amount": "42.00", "items": [{"product_id": "p1", "quantity": 1, "price": "42.00"}],
    })
}

#[test]
fn a_running_instance_shows_the_rows_that_its_directory_shows_once_it_has_ended() {
    let mut shop = Tillflow::run().set("keys.admin", "admin").set("keys.server", "server").spawn();
    shop.wait_until_ready();
    let client = reqwest::blocking::Client::new();
    let posted = client.post(format!("{}/v1/events", shop.url())).bearer_auth("server").json(&order("ann")).send().unwrap();
    assert!(posted.status().is_success());
    let state = |shop: &Tillflow, arguments: &[&str], key: &str| {
        let run = arguments.iter().fold(Tillflow::command(["state"]), |run, a| run.arg(*a));
        run.set("data_dir", shop.files().join("tillflow-data").display())
            .arg("--json")
            .set("listen", shop.url().trim_start_matches("http://"))
            .set("key", key)
            .finish()
    };
    // It finds the instance by itself: another process holds the data directory.
    let get = |shop: &Tillflow| state(shop, &["get", "loyalty.accounts", "ann"], "admin");
    let mut live = None;
    until("the order is committed", LONG, || {
        live = Some(get(&shop)).filter(|done| done.exit.success());
        live.is_some()
    });
    let live = objects(&live.unwrap());
    assert_eq!(live[0]["key"], json!(["ann"]));
    let listed = objects(&state(&shop, &["ls"], "admin").ok());
    let accounts = listed.iter().find(|t| t["table"] == "loyalty.accounts").unwrap();
    assert_eq!((&accounts["group"], &accounts["rows"]), (&json!("customers"), &json!(1)));

    let denied = state(&shop, &["ls"], "server");
    assert!(denied.code() == 1 && denied.stderr.contains("admin key"), "{}", denied.stderr);
    let unknown = state(&shop, &["dump", "loyalty.account"], "admin");
    assert!(unknown.code() == 2 && unknown.stderr.contains("loyalty.accounts"), "{}", unknown.stderr);

    let files = shop.files().clone();
    assert!(shop.stop().success());
    let at_rest = Tillflow::command(["state", "get", "loyalty.accounts", "ann", "--json"])
        .set("data_dir", files.join("tillflow-data").display())
        .finish()
        .ok();
    assert_eq!(objects(&at_rest), live);
    let nobody = Tillflow::command(["state", "ls", "--url", "http://127.0.0.1:1"]).finish();
    assert!(nobody.code() == 1 && nobody.stderr.contains("no instance answers"), "{}", nobody.stderr);
}

#[test]
fn a_running_embedded_instance_takes_marks_and_shows_its_dead_letters() {
    let mut shop = Tillflow::run().set("time.idle", false).set("keys.admin", "admin").set("keys.server", "server").spawn();
    shop.wait_until_ready();
    let client = reqwest::blocking::Client::new();
    let post = |path: &str, body: Value| {
        let answer = client.post(format!("{}{path}", shop.url())).bearer_auth("admin").json(&body).send().unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().unwrap_or_default());
    };
    post("/v1/events", order("ann"));
    post("/v1/topics/pricing_rules", json!([{"scope": "default", "lwo": 5}]));
    let data = shop.files().join("tillflow-data");
    let command = |arguments: &[&str]| {
        let run = arguments.iter().fold(Tillflow::command(Vec::<String>::new()), |run, a| run.arg(*a));
        run.set("data_dir", data.display()).set("listen", shop.url().trim_start_matches("http://")).set("keys.admin", "admin").finish()
    };
    let marks = command(&["clock", "advance", "2030-01-01T00:00:00Z", "--json"]).ok().json();
    assert_eq!(marks["marks"], 4);
    until("all clocks are there", LONG, || {
        let ready: Value = client.get(format!("{}/readyz", shop.url())).send().unwrap().json().unwrap();
        let tasks = ready["tasks"].as_array().unwrap();
        tasks.iter().filter(|t| t["group"] == "customers").all(|t| t["clock"].as_str() >= Some("2030-01-01"))
    });
    let listed = |settled: &str| objects(&command(&["dlq", "ls", "--json", settled, "--topic", "pricing_rules"]).ok());
    until("the rule is a dead letter", LONG, || !listed("--all").is_empty());
    assert!(listed("--all")[0]["error"].as_str().unwrap().contains("lwo"));
    let dropped = command(&["dlq", "drop", "--all", "--json"]).ok().json();
    assert!(dropped["count"].as_u64() > Some(0));
    assert!(listed("--all").is_empty() && !listed("--settled").is_empty());
    assert!(shop.stop().success());
}

#[test]
fn an_instance_that_leaves_gives_its_place_up_and_one_that_stops_keeps_it() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let instance = |id: &str| {
        let run = Tillflow::run().set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).set("app_id", format!("{prefix}app"));
        run.set("instance.id", id).set("kafka.session_timeout_s", 40).within(LONG)
    };
    let asker: BaseConsumer = kafka.client().set("group.id", "asker").create().unwrap();
    let members = || {
        let group = format!("{prefix}app.customers");
        let list = asker.fetch_group_list(Some(&group), LONG).unwrap();
        list.groups().iter().map(|g| g.members().len()).sum::<usize>()
    };
    let mut stays = instance("stays").spawn();
    stays.wait_until_ready();
    let mut leaves = instance("leaves").arg("--leave").spawn();
    until("both are members", LONG, || members() == 2);
    assert!(leaves.stop().success());
    until("the one that leaves is gone at once", Duration::from_secs(5), || members() == 1);
    until("the other has all partitions", LONG, || {
        let ready: Value = stays.get("/readyz").json().unwrap_or_default();
        ready["tasks"]
            .as_array()
            .is_some_and(|tasks| tasks.iter().filter(|t| t["group"] == "customers" && t["state"] == "running").count() == 4)
    });
    assert!(stays.stop().success());
    assert_eq!(members(), 1, "a member that stopped is expected back");
}

#[test]
fn the_doctor_names_what_is_wrong_and_how_to_mend_it() {
    let (kafka, redis) = (Kafka::shared(), Redis::start());
    let prefix = kafka.prefix();
    let port = free_port();
    let doctor = || Tillflow::command(["doctor", "--json"]).set("listen", format!("127.0.0.1:{port}"));
    let statuses = |done: &Finished| objects(done).iter().map(|f| (f["check"].clone(), f["status"].clone())).collect::<Vec<_>>();
    let status = |done: &Finished, check: &str| statuses(done).into_iter().find(|(c, _)| c == check).unwrap().1;

    let well = doctor().set("redis.url", redis.url()).finish().ok();
    for check in ["configuration", "data directory", "disk", "listen", "kafka", "schema registry", "redis"] {
        assert_ne!(status(&well, check), "failed", "{check}: {}", well.stdout);
    }
    assert_eq!(status(&well, "redis"), "ok");
    let on_kafka = || doctor().set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix);
    let bare = on_kafka().finish();
    assert_eq!(status(&bare, "kafka"), "warning", "its topics are missing, and run creates them: {}", bare.stdout);
    assert_eq!(status(&on_kafka().set("topics.create", false).finish(), "kafka"), "failed");
    let _ = Tillflow::command(["topics", "apply"]).set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix).finish().ok();
    // As declared, but for replicas, which the tests' only broker can't give.
    until("the topics are there", LONG, || on_kafka().finish().stdout.contains("have one replica"));
    assert_eq!(status(&on_kafka().finish(), "kafka"), "warning");

    let ill = doctor()
        .set("brokers", "127.0.0.1:1")
        .set("redis.url", "redis://127.0.0.1:1")
        .set("registry.url", "http://127.0.0.1:1")
        .config("pricing: {low: 500}\n")
        .finish();
    assert_eq!(ill.code(), 1);
    for finding in objects(&ill).iter().filter(|f| ["kafka", "redis", "schema registry", "configuration"].iter().any(|c| f["check"] == *c))
    {
        assert!(finding["status"] == "failed" && finding["mend"].is_string(), "{finding}");
    }
    // For people: no colours where it is no terminal.
    let words = Tillflow::command(["doctor"]).set("redis.url", "redis://127.0.0.1:1").finish();
    assert!(words.stdout.contains("FAILED") && words.stdout.contains("→ check redis.url"), "{}", words.stdout);
    assert!(!words.stdout.contains('\u{1b}'));
}

#[test]
fn every_command_has_help_and_completions() {
    let help = Tillflow::command(["--help"]).finish().ok().stdout;
    let script = Tillflow::command(["completions", "bash"]).finish().ok().stdout;
    for command in [
        "run", "demo", "replay", "evaluate", "config", "topics", "schemas", "state", "backup", "restore", "migrate", "clock", "dlq",
        "doctor", "import", "user", "reset",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command} in {help}");
        assert!(script.contains(&format!("tillflow__{command}")) || script.contains(&format!("tillflow__subcmd__{command}")), "{command}");
        assert!(!Tillflow::command([command, "--help"]).finish().ok().stdout.is_empty());
    }
    let unknown = Tillflow::command(["replya"]).finish();
    assert!(unknown.code() == 2 && unknown.stderr.contains("replay"), "{}", unknown.stderr);
    let key = Tillflow::command(["config"]).set("topcs.partitions", 4).finish();
    assert!(key.code() == 2 && key.stderr.contains("topics.partitions"), "{}", key.stderr);
    for (name, value, words) in [
        ("topics.partitions", "0", "partition"),
        ("registry.url", "ftp://x", "registry.url"),
        ("log", "kafka", "brokers"),
        ("pricing.low", "500", "low"),
        ("listen", "0.0.0.0:0", "keys"),
        ("redis.url", "nonsense", "redis.url"),
    ] {
        let done = Tillflow::run().set("listen", "127.0.0.1:0").set(name, value).finish();
        assert!(done.code() == 2 && done.stderr.contains(words), "{name}: {} {}", done.code(), done.stderr);
    }
    assert!(fs::read_dir(unknown.files.path()).unwrap().count() <= 2, "commands leave nothing behind");
}
