//! A shop in memory, and a client to the gateway before it.
#![allow(dead_code)]

use serde_json::Value;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tillflow_engine::port::{Append, Committed, Port, PortError, Readiness, TaskStatus};
use tillflow_gateway::{Gateway, GatewayConfig, GatewayError};
use tillflow_schemas::{Catalog, Timestamp};
use tokio::{
    net::TcpListener,
    sync::{broadcast, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

type Answer = Result<Option<Value>, PortError>;

/// An engine that remembers what it was given and answers what it was told.
pub struct FakeShop {
    catalog: Catalog,
    outputs: broadcast::Sender<Arc<Committed>>,
    pub appended: Mutex<Vec<Append>>,
    /// What the log says to the next appends; held back while `None`.
    pub log: Mutex<Option<Result<(), PortError>>>,
    waiting: Mutex<Vec<oneshot::Sender<Result<(), PortError>>>>,
    pub answers: Mutex<HashMap<(String, String, String, String), Answer>>,
    pub readiness: Mutex<Readiness>,
    registry: prometheus::Registry,
    offset: Mutex<i64>,
}

pub const CUSTOMER_QUERIES: [&str; 8] =
    ["recommendations", "loyalty", "loyalty/ledger", "entitlements", "box", "segments", "cart", "subscription"];
pub const PRODUCT_QUERIES: [&str; 8] =
    ["", "price", "price/history", "price/explain", "related", "demand", "pricing/products", "pricing/rules"];

impl FakeShop {
    pub fn new() -> Arc<Self> {
        Self::with_room(1024)
    }

    pub fn with_room(room: usize) -> Arc<Self> {
        let tasks = ["customers", "products"].map(|group| TaskStatus {
            group: group.into(),
            partition: 0,
            state: "running".into(),
            lag: 0,
            clock: None,
            restored: None,
        });
        Arc::new(Self {
            catalog: Catalog::built_in(1).unwrap(),
            outputs: broadcast::channel(room).0,
            appended: Mutex::default(),
            log: Mutex::new(Some(Ok(()))),
            waiting: Mutex::default(),
            answers: Mutex::default(),
            readiness: Mutex::new(Readiness { ready: true, reason: String::new(), tasks: tasks.into(), warnings: Vec::new() }),
            registry: prometheus::Registry::new(),
            offset: Mutex::new(0),
        })
    }

    /// The log confirms what waits for it.
    pub fn confirm(&self) {
        for waiting in self.waiting.lock().unwrap().drain(..) {
            let _ = waiting.send(Ok(()));
        }
    }

    pub fn answer(&self, group: &str, name: &str, key: &str, rest: &str, answer: Answer) {
        self.answers.lock().unwrap().insert((group.into(), name.into(), key.into(), rest.into()), answer);
    }

    /// The engine commits a decision.
    pub fn commit(&self, schema: &str, key: &str, value: Value) -> i64 {
        let mut offset = self.offset.lock().unwrap();
        *offset += 1;
        let record = Committed {
            topic: self.catalog.of_schema(schema).unwrap().name.clone(),
            schema: schema.into(),
            partition: 0,
            offset: *offset,
            at: Timestamp::parse("2026-03-01T10:00:00Z").unwrap(),
            key: key.into(),
            value: Some(value.to_string().into_bytes()),
        };
        let _ = self.outputs.send(Arc::new(record));
        *offset
    }

    pub fn recommend(&self, user: &str, ids: &[&str]) -> i64 {
        let items: Vec<_> = ids.iter().map(|id| serde_json::json!({ "product_id": id, "score": 1.0, "because": [] })).collect();
        self.commit(
            "recommendations",
            user,
            serde_json::json!({ "user_id": user, "items": items, "trigger": "product_viewed", "generated_at": "2026-03-01T10:00:00Z" }),
        )
    }

    /// Waits until something of this schema was appended, and returns it.
    pub async fn next_append(&self, schema: &str) -> Value {
        loop {
            let found = self.appended.lock().unwrap().iter().find(|a| a.schema == schema).cloned();
            if let Some(append) = found {
                return serde_json::from_slice(append.value.as_deref().unwrap()).unwrap();
            }
            tokio::task::yield_now().await;
        }
    }

    /// The values appended so far.
    pub fn values(&self) -> Vec<Value> {
        self.appended.lock().unwrap().iter().map(|a| serde_json::from_slice(a.value.as_deref().unwrap()).unwrap()).collect()
    }
}

impl Port for FakeShop {
    fn append(&self, records: Vec<Append>) -> oneshot::Receiver<Result<(), PortError>> {
        let (answer, receiver) = oneshot::channel();
        match self.log.lock().unwrap().clone() {
            Some(Ok(())) => {
                self.appended.lock().unwrap().extend(records);
                let _ = answer.send(Ok(()));
            }
            Some(Err(e)) => {
                let _ = answer.send(Err(e));
            }
            None => {
                self.appended.lock().unwrap().extend(records);
                self.waiting.lock().unwrap().push(answer);
            }
        }
        receiver
    }

    fn query(&self, group: &str, name: &str, key: &str, rest: &str) -> Answer {
        if !self.queries(group).contains(&name) {
            return Err(PortError::NoSuchQuery(name.into()));
        }
        let asked = (group.to_owned(), name.to_owned(), key.to_owned(), rest.to_owned());
        self.answers.lock().unwrap().get(&asked).cloned().unwrap_or(Ok(None))
    }

    fn queries(&self, group: &str) -> Vec<&'static str> {
        if group == "customers" { CUSTOMER_QUERIES.to_vec() } else { PRODUCT_QUERIES.to_vec() }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.outputs.subscribe()
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }

    fn metrics(&self) -> &prometheus::Registry {
        &self.registry
    }
}

/// A gateway on a free port; it stops when dropped.
pub struct Running {
    pub shop: Arc<FakeShop>,
    pub address: SocketAddr,
    pub health: SocketAddr,
    pub stop: CancellationToken,
    pub client: reqwest::Client,
    pub task: Option<JoinHandle<Result<(), GatewayError>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn start() -> Running {
    start_with(FakeShop::new(), GatewayConfig::default()).await
}

pub async fn start_with(shop: Arc<FakeShop>, config: GatewayConfig) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, health_address) = (listener.local_addr().unwrap(), health.local_addr().unwrap());
    let stop = CancellationToken::new();
    let gateway = Gateway::new(shop.clone(), config);
    let task = tokio::spawn(gateway.serve(listener, Some(health), stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    // Once it answers, it follows the outputs too.
    client.get(format!("http://{address}/healthz")).send().await.unwrap();
    Running { shop, address, health: health_address, stop, client, task: Some(task) }
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        read(self.client.post(self.url(path)).body(body).send().await.unwrap()).await
    }

    pub async fn post_as(&self, key: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(self.url(path)).bearer_auth(key).body(body.to_string());
        read(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn get_as(&self, key: &str, path: &str) -> (u16, Value) {
        read(self.client.get(self.url(path)).bearer_auth(key).send().await.unwrap()).await
    }
}

pub async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    assert!(
        status < 400 || value["error"]["code"].is_string() && value["error"]["message"].is_string(),
        "{status} without an error: {value}"
    );
    (status, value)
}

/// Reads one server-sent event: its id and its data.
pub async fn event(response: &mut reqwest::Response, text: &mut String) -> (Option<String>, Value) {
    loop {
        if let Some((head, tail)) = text.clone().split_once("\n\n") {
            *text = tail.to_owned();
            let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
            if let Some(data) = field("data:") {
                return (field("id:"), serde_json::from_str(&data).unwrap());
            }
        }
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
}
