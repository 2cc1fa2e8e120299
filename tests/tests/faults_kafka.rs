//! What surrounds an instance on Kafka is wrong: its configuration, the cluster's topics, the broker, the registry, its
//! data directory, another process with its name. Each is said with what is to be done, and nothing is lost.

use rdkafka::admin::NewPartitions;
use serde_json::json;
use std::{
    fs,
    time::{Duration, Instant},
};
use tillflow_tests::{
    Kafka, Run, Tillflow, can_have_disks, free_port,
    orders::{earned, orders, points_of},
    until,
};

const LIMIT: Duration = Duration::from_secs(90);

fn instance(kafka: &Kafka, prefix: &str, id: &str) -> Run {
    Tillflow::run().on_kafka(&kafka.bootstrap(), prefix, id).set("time.grace_s", 0).within(LIMIT)
}

#[test]
fn a_wrong_configuration_ends_with_2_and_names_the_key_or_its_nearest() {
    for (yaml, words) in [
        ("topics: {partition: 4}", &["topics.partition", "topics.partitions"][..]),
        ("broker: localhost:9092", &["broker", "brokers"]),
        ("pricing: {multipler: 0.1}", &["multipler", "multiplier"]),
        ("pricing: {low: 500}", &["low", "high"]),
        ("loyalty: {tirs: []}", &["tirs", "tiers"]),
        ("recommendations: {item: 5}", &["item", "items"]),
        ("email: {segments: {inactive: never}}", &["email", "inactive"]),
        ("email: {quiet_hour: 22}", &["quiet_hour", "quiet_hours"]),
        ("shop: {curency: EUR}", &["curency", "currency"]),
        ("workers: many", &["workers"]),
        ("commit: {interval_ms: -1}", &["commit.interval_ms"]),
        ("kafka: {session_timeout: 10}", &["kafka.session_timeout", "kafka.session_timeout_s"]),
        (
            "subscriptions: {plans: [{plan_id: own, name: Own, price: 5, interval: month, features: {}}]}",
            &["plans[0]", "features is empty"],
        ),
        ("topics: [4", &["tillflow.yaml"]),
    ] {
        Tillflow::run().set("listen", "127.0.0.1:0").config(yaml).finish().says(2, words);
    }
    Tillflow::run().set("brokes", "localhost:9092").finish().says(2, &["TILLFLOW_BROKES", "brokers"]);
    Tillflow::run().arg("--config").arg("absent.yaml").finish().says(2, &["absent.yaml"]);
}

#[test]
fn topics_that_are_missing_or_of_another_partition_count_are_named_and_nothing_is_touched() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let missing = instance(kafka, &prefix, "one").arg("--no-create").finish();
    missing.says(1, &[&format!("{prefix}user_events does not exist"), &format!("{prefix}dead_letters does not exist"), "tillflow topics"]);
    assert!(!kafka.topics().keys().any(|name| name.starts_with(&prefix)));

    let events = format!("{prefix}user_events");
    kafka.create_topic(&events, 2, &[]);
    until("the broker shows it", LIMIT, || kafka.topics().get(&events) == Some(&2));
    instance(kafka, &prefix, "one")
        .finish()
        .says(1, &[&format!("{prefix}user_events has 2 partitions, 4 are declared"), "tillflow topics"]);
    assert_eq!(kafka.topics().keys().filter(|name| name.starts_with(&prefix)).count(), 1, "nothing is made beside a wrong one");

    let prefix = kafka.prefix();
    let mut shop = instance(kafka, &prefix, "one").spawn();
    shop.wait_until_ready();
    assert!(shop.stderr().contains("topics with one replica"), "it does not warn:\n{}", shop.stderr());
    assert!(shop.stop().success());
    instance(kafka, &prefix, "one")
        .set("topics.partitions", 8)
        .in_directory_of(shop.files())
        .finish()
        .says(1, &[&format!("{prefix}user_events has 4 partitions, 8 are declared")]);
    let name = format!("{prefix}inventory");
    let widened = kafka.administer(async |admin, options| admin.create_partitions([&NewPartitions::new(&name, 6)], options).await);
    assert!(widened.iter().all(Result::is_ok), "{widened:?}");
    until("the broker shows it", LIMIT, || kafka.topics().get(&name) == Some(&6));
    let changed = instance(kafka, &prefix, "one").in_directory_of(shop.files()).finish();
    changed.says(1, &[&format!("{name} has 6 partitions, only 4 are declared")]);
}

#[test]
fn a_broker_or_registry_that_is_not_there_at_the_start_ends_with_1_and_is_named() {
    let nobody = format!("127.0.0.1:{}", free_port());
    Tillflow::run().set("brokers", &nobody).within(Duration::from_secs(30)).finish().says(1, &[&nobody]);
    let kafka = Kafka::shared();
    let url = format!("http://{nobody}");
    instance(kafka, &kafka.prefix(), "one").set("registry.url", &url).finish().says(1, &[&url]);
}

#[test]
fn brokers_whose_settings_a_shop_cant_run_with_end_it_with_1_and_are_named() {
    let limits = [("group.min.session.timeout.ms", "30000"), ("transaction.max.timeout.ms", "5000")];
    let kafka = limits.iter().fold(Kafka::setup(), |kafka, (name, value)| kafka.property(name, value)).start();
    let named: Vec<_> = limits.iter().map(|(name, value)| format!("broker 1: its {name} is {value}")).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    instance(&kafka, &kafka.prefix(), "one").finish().says(1, &named);
    assert!(kafka.topics().is_empty(), "nothing was created: {:?}", kafka.topics());
    let doctor = Tillflow::command(["doctor", "--brokers", &kafka.bootstrap()]).finish();
    doctor.says(1, &["1 of 8 checks failed"]);
    assert!(named.iter().all(|words| doctor.stdout.contains(words)), "{}", doctor.stdout);
}

#[test]
#[ignore = "Kafka itself may leave a hanging transaction when killed with one open: docs/decisions/hanging-transactions.md"]
fn a_broker_that_is_lost_for_long_is_waited_for_and_each_order_counts_once() {
    let mut kafka = Kafka::start();
    let prefix = kafka.prefix();
    let mut shop = instance(&kafka, &prefix, "one").spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..200)).status(), 202);
    kafka.kill();
    let started = Instant::now();
    let refused = shop.post("/v1/events", orders(200..201));
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"), "{:?}", refused.headers());
    // Longer than anything waits in one go: a commit, a question, a session.
    until("an outage is over", LIMIT, || {
        assert!(shop.process().is_running(), "{}", shop.stderr());
        started.elapsed() > Duration::from_secs(40)
    });
    kafka.start_again();
    until("it takes orders again", LIMIT, || shop.post("/v1/events", orders(200..400)).status() == 202);
    until("each counts", LIMIT, || earned(&kafka, &prefix).len() >= 400);
    shop.wait_until_ready();
    assert_eq!(earned(&kafka, &prefix), (0..400).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn of_two_processes_on_one_data_directory_the_second_ends_and_the_first_goes_on() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut first = instance(kafka, &prefix, "one").spawn();
    first.wait_until_ready();
    let started = Instant::now();
    let second = instance(kafka, &prefix, "two").in_directory_of(first.files()).finish();
    second.says(1, &["tillflow-data", "in use by another process", "choose another data directory"]);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(first.post("/v1/events", orders(0..20)).status(), 202);
    until("the first goes on", LIMIT, || earned(kafka, &prefix) == (0..20).collect::<Vec<_>>());
    assert!(first.stop().success(), "{}", first.stderr());
}

#[test]
fn a_damaged_store_is_named_and_once_removed_comes_back_from_its_changelog() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut shop = instance(kafka, &prefix, "one").spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..40)).status(), 202);
    until("all count", LIMIT, || earned(kafka, &prefix).len() == 40);
    assert!(shop.stop().success(), "{}", shop.stderr());
    let data = shop.files().join("tillflow-data");
    for store in (0..4).map(|n| data.join(format!("customers-{n}"))) {
        let tables = fs::read_dir(&store).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "sst"));
        let manifest = fs::read_dir(&store)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"));
        for file in tables.chain(manifest) {
            let size = fs::metadata(&file).unwrap().len();
            fs::write(&file, vec![0x5a; size as usize / 2]).unwrap();
        }
    }
    let damaged = instance(kafka, &prefix, "one").in_directory_of(shop.files()).finish();
    damaged.says(1, &["customers-", "damaged", "rebuilt from the log"]);
    for n in 0..4 {
        fs::remove_dir_all(data.join(format!("customers-{n}"))).unwrap();
    }
    shop.start_again();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(30..50)).status(), 202);
    until("new ones count, and known ones not again", LIMIT, || earned(kafka, &prefix).len() >= 50);
    assert_eq!(earned(kafka, &prefix), (0..50).collect::<Vec<_>>());
    assert_eq!(shop.json("/v1/users/u1/loyalty")["balance"], json!(points_of(kafka, &prefix, "u1")));
    assert!(shop.stop().success(), "{}", shop.stderr());
}

/// The older of two with one name ends by itself and says so; the newer has all partitions and goes on.
fn one_name_twice(busy: bool) {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut older = instance(kafka, &prefix, "till-7").spawn();
    older.wait_until_ready();
    assert_eq!(older.post("/v1/events", orders(0..100)).status(), 202);
    let mut newer = instance(kafka, &prefix, "till-7").spawn();
    let (started, mut sent) = (Instant::now(), 100);
    until("the older one ends", Duration::from_secs(30), || {
        if busy && newer.post("/v1/events", orders(sent..sent + 10)).status() == 202 {
            sent += 10;
        }
        assert!(newer.process().is_running(), "{}", newer.stderr());
        !older.process().is_running()
    });
    eprintln!("the older ended after {:.1?}", started.elapsed());
    let (exit, said) = (older.process().wait(LIMIT), older.stderr());
    let last = said.lines().rfind(|l| l.starts_with("tillflow:")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(exit.code(), Some(1), "{said}");
    assert!(last.contains("till-7") && last.contains("instance.id"), "{last}");

    newer.wait_until_ready();
    assert_eq!(newer.post("/v1/events", orders(sent..sent + 100)).status(), 202);
    sent += 100;
    until("each order counts", LIMIT, || earned(kafka, &prefix).len() >= sent as usize);
    assert_eq!(earned(kafka, &prefix), (0..sent).collect::<Vec<_>>());
    assert!(newer.process().is_running());
    assert!(newer.stop().success(), "{}", newer.stderr());
}

#[test]
fn of_two_idle_instances_with_one_name_the_older_ends_and_names_it() {
    one_name_twice(false);
}

#[test]
fn of_two_busy_instances_with_one_name_the_older_ends_and_names_it() {
    one_name_twice(true);
}

#[test]
fn transactions_that_are_denied_end_it_with_1_and_once_allowed_nothing_is_lost() {
    let kafka = Kafka::setup().with_rights().start();
    let prefix = kafka.prefix();
    let mut shop = instance(&kafka, &prefix, "one").spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..20)).status(), 202);
    until("they count", LIMIT, || earned(&kafka, &prefix).len() == 20);
    let id = format!("{prefix}app.");
    let rule =
        ["--transactional-id", id.as_str(), "--resource-pattern-type", "prefixed", "--deny-principal", "User:*", "--operation", "Write"];
    kafka.acls(&[&["--add"], &rule[..]].concat());
    // Those that are in the log already are not lost by what follows.
    assert_eq!(shop.post("/v1/events", orders(20..40)).status(), 202);
    let exit = shop.process().wait(LIMIT);
    let said = shop.stderr();
    let last = said.lines().rfind(|l| l.starts_with("tillflow:")).unwrap_or_default();
    assert!(
        exit.code() == Some(1) && last.contains("Transactional Id authorization failed") && last.contains("docs/kafka.md"),
        "{exit}: {said}"
    );

    let again = instance(&kafka, &prefix, "one").in_directory_of(shop.files()).finish();
    again.says(1, &[&format!("transactional id {id}"), "grant the rights", "docs/kafka.md"]);
    kafka.acls(&[&["--remove", "--force"], &rule[..]].concat());
    shop.start_again();
    shop.wait_until_ready();
    until("all count", LIMIT, || earned(&kafka, &prefix).len() >= 40);
    assert_eq!(earned(&kafka, &prefix), (0..40).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn a_disk_full_after_the_brokers_commit_is_said_and_with_room_again_each_order_counts_once() {
    if !can_have_disks() {
        return;
    }
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let mut shop = instance(kafka, &prefix, "one").with_disk_of(48).spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..20)).status(), 202);
    until("they count", LIMIT, || earned(kafka, &prefix).len() == 20);
    let ballast = shop.disk().join("ballast");
    let full = fs::write(&ballast, vec![1; 64 << 20]);
    assert!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    let mut sent = 20;
    // A store takes rows into memory until it wants to flush them: from then on what the brokers have committed finds no room.
    until("it is said", LIMIT, || {
        if shop.process().is_running() && shop.post("/v1/events", orders(sent..sent + 10)).status() == 202 {
            sent += 10;
        }
        let said = shop.stderr();
        said.contains("committed, but not written locally") && said.to_lowercase().contains("no space left")
    });
    assert!(!shop.stderr().contains("panicked"), "{}", shop.stderr());
    assert!(shop.process().is_running(), "{}", shop.stderr());
    fs::remove_file(&ballast).unwrap();
    until("it takes orders again", LIMIT, || shop.post("/v1/events", orders(sent..sent + 10)).status() == 202);
    sent += 10;
    until("each counts", LIMIT, || earned(kafka, &prefix).len() >= sent as usize);
    assert_eq!(earned(kafka, &prefix), (0..sent).collect::<Vec<_>>());
    shop.wait_until_ready();
    for user in (0..8).map(|n| format!("u{n}")) {
        assert_eq!(shop.json(&format!("/v1/users/{user}/loyalty"))["balance"], json!(points_of(kafka, &prefix, &user)), "{user}");
    }
    assert!(shop.stop().success(), "{}", shop.stderr());
}
