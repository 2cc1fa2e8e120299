//! Several instances on one Kafka: whichever is asked, the one that owns the key answers.

use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tillflow_schemas::Timestamp;
use tillflow_tests::{
    Kafka, Tillflow,
    cluster::{PARTITIONS, Shop},
    until,
};

const LIMIT: Duration = Duration::from_secs(120);
/// The key of the shop's servers, which instances show each other too.
const KEY: &str = "server-key-7b1f";

/// A shop's server: asks with its key.
struct Server(Client);

impl Server {
    fn new() -> Self {
        Self(Client::builder().timeout(Duration::from_secs(30)).build().unwrap())
    }

    fn get(&self, at: &Tillflow, path: &str) -> Response {
        self.0.get(format!("{}{path}", at.url())).bearer_auth(KEY).send().unwrap()
    }

    /// The answer, once it is one: 503 says when to ask again, and nothing else may be said instead.
    fn answer(&self, at: &Tillflow, path: &str) -> Option<Value> {
        let response = self.get(at, path);
        let (status, retry) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
        let text = response.text().unwrap();
        assert!(status == 200 || (status == 503 && retry), "{path}: {status} {text}");
        (status == 200).then(|| serde_json::from_str(&text).unwrap())
    }

    fn post(&self, at: &Tillflow, path: &str, body: &Value) -> (u16, Value) {
        let response = self.0.post(format!("{}{path}", at.url())).bearer_auth(KEY).json(body).send().unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.text().unwrap()).unwrap())
    }
}

fn instance(shop: &Shop, id: &str) -> Tillflow {
    let run = shop.instance(id, 1).set("time.wait_s", 10).set("kafka.session_timeout_s", 6);
    run.set("keys.server", KEY).env("RUST_LOG", "debug,librdkafka=info,rdkafka=info").spawn()
}

/// The partitions an instance runs, by group.
fn runs(at: &Tillflow) -> BTreeMap<String, BTreeSet<u64>> {
    let mut runs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let ready: Value = serde_json::from_str(&at.get("/readyz").text().unwrap()).unwrap();
    for task in ready["tasks"].as_array().into_iter().flatten().filter(|t| t["state"] == "running") {
        runs.entry(task["group"].as_str().unwrap().to_owned()).or_default().insert(task["partition"].as_u64().unwrap());
    }
    runs
}

/// Whether each of both groups has all its partitions at exactly one of the instances, and each instance has some.
fn are_shared(instances: [&Tillflow; 2]) -> bool {
    let [one, other] = instances.map(runs);
    ["customers", "products"].iter().all(|group| {
        let (one, other) = (one.get(*group).cloned().unwrap_or_default(), other.get(*group).cloned().unwrap_or_default());
        !one.is_empty() && !other.is_empty() && one.is_disjoint(&other) && one.len() + other.len() == PARTITIONS as usize
    })
}

const USERS: u32 = 16;
const PRODUCTS: u32 = 8;

/// Everything that is asked of each instance.
fn paths() -> Vec<String> {
    let users =
        (0..USERS).flat_map(|u| ["loyalty", "loyalty/ledger", "recommendations", "segments"].map(|q| format!("/v1/users/u{u}/{q}")));
    let products = (0..PRODUCTS).flat_map(|p| ["", "/price", "/related", "/price/explain"].map(|q| format!("/v1/products/p{p}{q}")));
    let all: Vec<_> = (0..PRODUCTS).map(|p| format!("p{p}")).collect();
    users.chain(products).chain([format!("/v1/products?ids={}", all.join(","))]).collect()
}

/// All answers of an instance; `None` while it has not all of them.
fn answers(server: &Server, at: &Tillflow) -> Option<Vec<Value>> {
    paths().iter().map(|path| server.answer(at, path)).collect()
}

#[test]
fn whichever_instance_is_asked_the_owner_answers_and_after_its_death_the_one_that_took_over() {
    let kafka = Kafka::shared();
    let (shop, server) = (Shop::new(kafka, &kafka.bootstrap()), Server::new());
    let (mut one, two) = (instance(&shop, "till-1"), instance(&shop, "till-2"));
    until("both have partitions", LIMIT, || are_shared([&one, &two]));

    let products: Value = (0..PRODUCTS)
        .map(|p| json!({"product_id": format!("p{p}"), "name": format!("P {p}"), "category": "c", "base_price": "10.00"}))
        .collect();
    assert_eq!(server.post(&one, "/v1/topics/products", &products).0, 202);
    let now = Timestamp::wall();
    let orders: Value = (0..USERS)
        .map(|u| {
            let items = json!([{"product_id": format!("p{}", u % PRODUCTS), "quantity": 1}, {"product_id": format!("p{}", (u + 1) % PRODUCTS), "quantity": 1}]);
            json!({"event_type": "order_completed", "user_id": format!("u{u}"), "order_id": format!("o{u}"), "timestamp": now, "total_amount": "10.00", "items": items})
        })
        .collect();
    assert_eq!(server.post(&two, "/v1/events", &orders).0, 202);
    until("all is processed", LIMIT, || shop.is_drained());

    let before = answers(&server, &one).expect("both run");
    assert_eq!(answers(&server, &two).expect("both run"), before);
    for (path, answer) in paths().iter().zip(&before) {
        if path.ends_with("/loyalty") {
            assert_eq!(answer["balance"], 10, "{path}: {answer}");
        }
        if path.ends_with("/price") {
            assert_eq!(answer["price"], "10.00", "{path}: {answer}");
        }
    }
    // Commands too, sent again included: each user's at the instance that does not own it, as well.
    let reward = json!([{"reward_id": "mug", "name": "Mug", "points": 4}]);
    assert_eq!(server.post(&one, "/v1/topics/rewards", &reward).0, 202);
    for user in 0..USERS {
        let redeem = json!({"reward_id": "mug", "command_id": format!("c{user}")});
        let path = format!("/v1/users/u{user}/loyalty/redeem");
        let mut first = (0, Value::Null);
        // The reward counts at each instance once it has read it.
        until("the mug is given", LIMIT, || {
            first = server.post(&one, &path, &redeem);
            first.0 == 200
        });
        assert_eq!(first.1["entry"]["balance"], 6, "{first:?}");
        for at in [&one, &two] {
            assert_eq!(server.post(at, &path, &redeem), first, "u{user}");
        }
    }
    let forwarded = |at: &Tillflow| {
        let metrics = at.get("/metrics").text().unwrap();
        let line =
            metrics.lines().find(|l| l.starts_with("tillflow_gateway_forwarded_total{outcome=\"answered\"}")).unwrap_or("0").to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(forwarded(&one) > 20 && forwarded(&two) > 20, "{} and {}", forwarded(&one), forwarded(&two));
    until("all is processed", LIMIT, || shop.is_drained());
    let before = answers(&server, &one).expect("both run");

    one.kill();
    let mut away = 0;
    until("the other has taken over", LIMIT, || {
        let answers = answers(&server, &two);
        away += u32::from(answers.is_none());
        answers.is_some()
    });
    assert!(away > 0, "the dead one's keys had an owner at once?");
    assert_eq!(answers(&server, &two).expect("it owns all"), before);
    let owners = kafka.read(&shop.topic("tillflow.owners"));
    let (places, claims): (Vec<_>, Vec<_>) = owners.iter().partition(|r| r.key().contains('@'));
    let taken: BTreeSet<_> = places.iter().map(|r| r.key()).collect();
    assert_eq!(taken, BTreeSet::from(["customers@till-1", "customers@till-2", "products@till-1", "products@till-2"]));
    let last: BTreeMap<_, _> = claims.iter().map(|r| (r.key().to_owned(), r.json()["instance"].as_str().unwrap().to_owned())).collect();
    assert_eq!(last.len(), 2 * PARTITIONS as usize);
    assert!(last.values().all(|instance| instance == "till-2"), "{last:?}");
    assert!(owners.iter().all(|r| r.json()["task"] == r.key() && r.json()["address"].as_str().unwrap().starts_with("http://127.0.0.1:")));

    one.start_again();
    until("both have partitions", LIMIT, || are_shared([&one, &two]));
    until("the one that is back is told of", LIMIT, || answers(&server, &two).is_some_and(|a| a == before));
    assert_eq!(answers(&server, &one).expect("it is back"), before);
    for at in [&one, &two] {
        assert!(!at.stderr().contains(KEY), "the key stands in the log");
    }
}

#[test]
fn instances_that_run_one_group_each_are_one_shop() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let run = |group: &str| {
        let run = Tillflow::run().arg("--groups").arg(group).on_kafka(&kafka.bootstrap(), &prefix, group);
        run.set("time.grace_s", 3).within(LIMIT).spawn()
    };
    let mut customers = run("customers");
    customers.wait_until_ready();
    let mut products = run("products");
    products.wait_until_ready();
    let taken = |at: &Tillflow, path: &str, body: Value| assert_eq!(at.post(path, body).status(), 202, "{path}");
    let mug = json!([{"product_id": "mug", "name": "Mug", "category": "kitchen", "base_price": "12.00"}]);
    taken(&customers, "/v1/topics/products", mug);
    let order = json!({"event_type": "order_completed", "user_id": "anna", "order_id": "o1", "total_amount": "42.00",
        "timestamp": Timestamp::from_millis(Timestamp::wall().millis() - 30 * 60_000), "items": [{"product_id": "mug", "quantity": 10}]});
    taken(&products, "/v1/events", order);
    for at in [&customers, &products] {
        until("the order counts", LIMIT, || {
            let answer = at.get("/v1/users/anna/loyalty");
            answer.status().is_success() && answer.text().unwrap().contains("\"balance\":42")
        });
    }
    taken(&customers, "/v1/inventory", json!({"product_id": "mug", "stock_level": 15}));
    taken(&products, "/v1/events", json!({"event_type": "product_viewed", "user_id": "anna", "product_id": "mug"}));
    // Its price follows what the other instance counted, behind the watermark that it told.
    for at in [&customers, &products] {
        until("the price follows demand", LIMIT, || {
            let answer = at.get("/v1/products/mug/price/history").json::<Value>().unwrap();
            answer["history"].as_array().into_iter().flatten().any(|h| h["reason"] == "Low stock (15)" && h["new_price"] != "12.00")
        });
    }
    let changes = kafka.read(&format!("{prefix}price_changes"));
    assert!(changes.iter().any(|c| c.json()["demand_score"].as_f64().is_some_and(|score| score > 0.0)), "no demand was heard of");
    for at in [&mut customers, &mut products] {
        assert!(at.stop().success(), "{}", at.stderr());
    }
}
