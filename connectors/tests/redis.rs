//! Read models and pushes on a real Redis, before an engine in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use redis::{Commands, Connection};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tillflow_connectors::redis::{RedisConfig, RedisConnector};
use tillflow_engine::port::{Append, Committed, Port, PortError, Readiness, TaskStatus};
use tillflow_schemas::{Catalog, Timestamp, partition::partition};
use tillflow_tests::{Redis, until};
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

/// An engine that commits what it is told and answers what it was told.
struct Engine {
    catalog: Catalog,
    outputs: broadcast::Sender<Arc<Committed>>,
    answers: Mutex<HashMap<(String, String), Value>>,
    tasks: Mutex<Vec<u32>>,
    registry: prometheus::Registry,
    offset: AtomicI64,
}

impl Engine {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            catalog: Catalog::built_in(4).unwrap(),
            outputs: broadcast::channel(16_384).0,
            answers: Mutex::default(),
            tasks: Mutex::new((0..4).collect()),
            registry: prometheus::Registry::new(),
            offset: AtomicI64::new(0),
        })
    }

    fn commit(&self, schema: &str, key: &str, value: Value) {
        let topic = self.catalog.of_schema(schema).unwrap();
        let record = Committed {
            topic: topic.name.clone(),
            schema: schema.into(),
            partition: partition(key.as_bytes(), topic.partitions),
            offset: self.offset.fetch_add(1, Ordering::Relaxed),
            at: Timestamp::EARLIEST,
            key: key.into(),
            value: Some(value.to_string().into_bytes()),
        };
        let _ = self.outputs.send(Arc::new(record));
    }

    /// A ledger entry, and what the state says from then on.
    fn earn(&self, user: &str, balance: i64) {
        let account = json!({ "user_id": user, "tier": "bronze", "balance": balance, "lifetime_points": balance });
        self.answers.lock().unwrap().insert(("loyalty".into(), user.into()), account.clone());
        self.commit("loyalty_update", user, account);
    }

    fn recommend(&self, user: &str, ids: &[&str]) {
        let items: Vec<_> = ids.iter().map(|id| json!({ "product_id": id })).collect();
        let value = json!({ "user_id": user, "items": items });
        self.answers.lock().unwrap().insert(("recommendations".into(), user.into()), value.clone());
        self.commit("recommendations", user, value);
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("no metric {name}"));
        let metric = &family.get_metric()[0];
        // It is one of the two; the other is 0.
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }
}

impl Port for Engine {
    fn append(&self, _: Vec<Append>) -> oneshot::Receiver<Result<(), PortError>> {
        oneshot::channel().1
    }
    fn query(&self, group: &str, name: &str, key: &str, _: &str) -> Result<Option<Value>, PortError> {
        assert_eq!(group == "products", ["", "price", "related"].contains(&name), "{group}/{name}");
        if name == "segments" {
            return Err(PortError::NoSuchQuery(name.into()));
        }
        Ok(self.answers.lock().unwrap().get(&(name.to_owned(), key.to_owned())).cloned())
    }
    fn queries(&self, _: &str) -> Vec<&'static str> {
        Vec::new()
    }
    fn subscribe(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.outputs.subscribe()
    }
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }
    fn readiness(&self) -> Readiness {
        let partitions = self.tasks.lock().unwrap().clone();
        let task = |group: &str, partition| TaskStatus {
            group: group.into(),
            partition,
            state: "running".into(),
            lag: 0,
            clock: None,
            restored: None,
        };
        let tasks = partitions.iter().flat_map(|p| [task("customers", *p), task("products", *p)]).collect();
        Readiness { ready: true, reason: String::new(), tasks, warnings: Vec::new() }
    }
    fn metrics(&self) -> &prometheus::Registry {
        &self.registry
    }
}

/// A connector that stops when dropped, on a runtime of its own: tests speak to Redis with blocking calls.
struct Running {
    engine: Arc<Engine>,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Running {
    fn start(engine: &Arc<Engine>, url: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = RedisConfig { url: Some(url), ttl_s: 3600 };
        let connector = RedisConnector::new(engine.clone(), &config).unwrap().unwrap();
        let stop = CancellationToken::new();
        let task = runtime.spawn(connector.run(stop.clone()));
        Self { engine: engine.clone(), stop, runtime: Some(runtime), task: Some(task) }
    }

    fn connected(engine: &Arc<Engine>, redis: &Redis) -> Self {
        let running = Self::start(engine, redis.url());
        running.wait_for("tillflow_redis_connected", 1.0);
        running
    }

    fn wait_for(&self, metric: &str, value: f64) {
        until(&format!("{metric} is {value}"), SOON, || self.engine.metric(metric) == value);
    }

    /// Stops as the program does, and waits for it.
    fn stop(mut self) {
        self.stop.cancel();
        let (runtime, task) = (self.runtime.take().unwrap(), self.task.take().unwrap());
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), task).await.expect("ends in time").unwrap() });
        runtime.shutdown_background();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn hash(connection: &mut Connection, key: &str) -> BTreeMap<String, String> {
    connection.hgetall(key).unwrap()
}

fn balance(connection: &mut Connection, user: &str) -> Option<i64> {
    connection.hget(format!("user:{user}"), "balance").unwrap()
}

#[test]
fn a_plain_subscriber_hears_lists_and_a_later_page_finds_the_latest() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let running = Running::connected(&engine, &redis);
    let mut subscriber = redis.connect();
    let mut channel = subscriber.as_pubsub();
    channel.psubscribe("user:*:recommendations").unwrap();
    channel.set_read_timeout(Some(SOON)).unwrap();
    engine.recommend("u1", &["p7", "p3"]);
    engine.recommend("odd * id:ü", &["p1"]);
    for (name, ids) in [("user:u1:recommendations", r#"["p7","p3"]"#), ("user:odd * id:ü:recommendations", r#"["p1"]"#)] {
        let message = channel.get_message().unwrap();
        assert_eq!((message.get_channel_name(), message.get_payload::<String>().unwrap().as_str()), (name, ids));
    }
    let mut connection = redis.connect();
    assert_eq!(connection.get::<_, String>("user:u1:recommendations").unwrap(), r#"["p7","p3"]"#);
    let ttl: i64 = connection.ttl("user:u1:recommendations").unwrap();
    assert!((3_590..=3_600).contains(&ttl), "{ttl}");
    // It is counted once Redis has answered, which a subscriber may hear before.
    running.wait_for("tillflow_redis_published_total", 2.0);
}

#[test]
fn the_read_models_hold_what_was_decided_last() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let _running = Running::connected(&engine, &redis);
    engine.commit("product_price", "p1", json!({ "price": "9.90", "currency": "EUR", "since": "2026-03-01T10:00:00.000Z" }));
    engine.commit("price_change", "p1", json!({ "new_price": "11.00", "mode": "live", "stock_level": 15 }));
    engine.commit("product_price", "p1", json!({ "price": "11.00", "currency": "EUR", "since": "2026-03-01T11:00:00.000Z" }));
    engine.commit("related_products", "p1", json!({ "related": [{ "product_id": "p2" }, { "product_id": "p3" }] }));
    engine.earn("u1", 499);
    engine.earn("u1", 500);
    engine.commit("entitlements", "u1", json!({ "plan_id": "basic_box", "status": "active", "features": { "box": "4" } }));
    engine.commit("segments", "u1", json!({ "segments": ["new"] }));
    let mut connection = redis.connect();
    until("all is written", SOON, || connection.hexists("user:u1", "segments").unwrap());
    let expected = [
        ("balance", "500"),
        ("features", r#"{"box":"4"}"#),
        ("lifetime_points", "500"),
        ("plan", "basic_box"),
        ("plan_status", "active"),
        ("segments", r#"["new"]"#),
        ("tier", "bronze"),
    ];
    assert_eq!(hash(&mut connection, "user:u1"), expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let expected =
        [("currency", "EUR"), ("price", "11.00"), ("related", r#"["p2","p3"]"#), ("since", "2026-03-01T11:00:00.000Z"), ("stock", "15")];
    until("the product too", SOON, || hash(&mut connection, "product:p1") == expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn after_an_outage_the_read_models_are_right_again_and_the_stream_never_waited() {
    let (mut redis, engine) = (Redis::start(), Engine::new());
    let running = Running::connected(&engine, &redis);
    for user in 0..200 {
        engine.earn(&format!("u{user}"), user);
    }
    engine.recommend("u0", &["p1"]);
    let mut connection = redis.connect();
    until("all is written", SOON, || {
        connection.exists("user:u0:recommendations").unwrap() && balance(&mut connection, "u199") == Some(199)
    });

    redis.kill();
    running.wait_for("tillflow_redis_connected", 0.0);
    // More than the subscription has room for: had anybody waited for Redis, records would be lost.
    for round in 1..=200 {
        for user in 100..200 {
            engine.earn(&format!("u{user}"), round);
        }
        engine.recommend("u1", &["p2"]);
        until("the connector keeps up", SOON, || engine.outputs.is_empty());
    }
    assert!(engine.metric("tillflow_redis_dropped_total") >= 1.0);
    redis.start_again();

    let mut connection = redis.connect();
    let right = |user: i64| if user < 100 { user } else { 200 };
    until("all balances are right again", SOON, || (0..200).all(|u| balance(&mut connection, &format!("u{u}")) == Some(right(u))));
    until("and the lists", SOON, || {
        ["u0", "u1"].map(|u| connection.get::<_, Option<String>>(format!("user:{u}:recommendations")).unwrap())
            == [Some(r#"["p1"]"#.to_owned()), Some(r#"["p2"]"#.to_owned())]
    });
    engine.earn("u5", 77);
    until("and it goes on", SOON, || balance(&mut connection, "u5") == Some(77));
}

#[test]
fn a_redis_that_comes_later_gets_what_was_decided_before() {
    let mut redis = Redis::start();
    redis.kill();
    let engine = Engine::new();
    let _running = Running::start(&engine, redis.url());
    engine.earn("u1", 5);
    engine.recommend("u1", &["p1"]);
    until("it has tried", SOON, || engine.metric("tillflow_redis_outages_total") >= 1.0);
    redis.start_again();
    let mut connection = redis.connect();
    until("the balance is there", SOON, || balance(&mut connection, "u1") == Some(5));
    until("the list too", SOON, || connection.exists("user:u1:recommendations").unwrap());
    assert_eq!(engine.metric("tillflow_redis_published_total"), 0.0, "an old push is of no use");
}

#[test]
fn emptied_by_hand_it_is_filled_again() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let _running = Running::connected(&engine, &redis);
    engine.earn("u1", 5);
    let mut connection = redis.connect();
    until("the balance is there", SOON, || balance(&mut connection, "u1") == Some(5));
    redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    until("and again", Duration::from_secs(60), || balance(&mut connection, "u1") == Some(5));
}

#[test]
fn what_went_stale_while_nobody_followed_is_right_soon_after_the_start() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let mut connection = redis.connect();
    let _: () = connection.hset("user:u1", "balance", 1).unwrap();
    let _: () = connection.hset("user:somebody-elses", "x", 1).unwrap();
    engine.answers.lock().unwrap().insert(("loyalty".into(), "u1".into()), json!({ "balance": 9 }));
    let _running = Running::connected(&engine, &redis);
    until("the balance is right", SOON, || balance(&mut connection, "u1") == Some(9));
    assert_eq!(hash(&mut connection, "user:somebody-elses"), [("x".to_owned(), "1".to_owned())].into());
}

#[test]
fn each_instance_writes_what_it_owns_and_takes_over_what_it_gets() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let users: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    let home = |user: &str| partition(user.as_bytes(), 4);
    *engine.tasks.lock().unwrap() = vec![0, 1];
    let _running = Running::connected(&engine, &redis);
    for user in &users {
        engine.earn(user, 1);
    }
    let mut connection = redis.connect();
    let mut written = |user: &String| balance(&mut connection, user).is_some();
    until("its own are written", SOON, || users.iter().filter(|u| home(u) < 2).all(&mut written));
    assert!(!users.iter().filter(|u| home(u) >= 2).any(&mut written));
    *engine.tasks.lock().unwrap() = vec![0, 1, 2, 3];
    until("the others too, now they are its own", SOON, || users.iter().all(&mut written));
}

#[test]
fn a_name_that_holds_something_else_is_left_alone() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let mut connection = redis.connect();
    let _: () = connection.set("user:u1", "another program's").unwrap();
    let _running = Running::connected(&engine, &redis);
    engine.earn("u1", 5);
    engine.earn("u2", 6);
    until("the other is written", SOON, || balance(&mut connection, "u2") == Some(6));
    assert_eq!(connection.get::<_, String>("user:u1").unwrap(), "another program's");
    until("it is counted", SOON, || engine.metric("tillflow_redis_refused_total") >= 1.0);
    assert_eq!(engine.metric("tillflow_redis_connected"), 1.0);
}

#[test]
fn what_was_committed_before_the_end_is_written() {
    let (redis, engine) = (Redis::start(), Engine::new());
    let running = Running::connected(&engine, &redis);
    for user in 0..2_000 {
        engine.earn(&format!("u{user}"), user);
    }
    running.stop();
    let mut connection = redis.connect();
    assert!((0..2_000).all(|u| balance(&mut connection, &format!("u{u}")) == Some(u)));
}

#[test]
fn without_a_redis_it_ends_at_once_and_a_wrong_address_is_said() {
    let engine = Engine::new();
    assert!(RedisConnector::new(engine.clone(), &RedisConfig::default()).unwrap().is_none());
    let wrong = |url: &str| RedisConfig { url: Some(url.into()), ttl_s: 1 };
    let error = RedisConnector::new(engine.clone(), &wrong("cache:6379")).err().unwrap().to_string();
    assert!(error.contains("cache:6379") && error.contains("redis://"), "{error}");
    let mut redis = Redis::start();
    redis.kill();
    let running = Running::start(&engine, redis.url());
    until("it has tried", SOON, || engine.metric("tillflow_redis_outages_total") >= 1.0);
    running.stop();
}
