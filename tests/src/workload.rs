//! Real shops' events, with what no source has (stock, products, consent, subscriptions) derived from them.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};
use tillflow_schemas::Timestamp;

/// Subscribers: every so-manieth customer starts a plan with the first event.
const SUBSCRIBER: usize = 7;
const PLANS: [&str; 3] = ["basic_box", "premium_box", "deluxe_box"];

/// One record to be sent.
#[derive(Clone, Debug)]
pub struct Line {
    /// To which topic, without prefix.
    pub topic: &'static str,
    /// Its key.
    pub key: String,
    /// When; before everything where it says nothing.
    pub at: Timestamp,
    /// The value.
    pub value: Value,
}

/// Everything one shop sends, in the order of time.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its records.
    pub lines: Vec<Line>,
    /// The last record's time.
    pub end: Timestamp,
}

/// The data sets that `convert.py` knows, where they lie beside the checkout.
pub const DATA_SETS: [(&str, &str); 5] = [
    ("online_retail", "online_retail/online_retail_2009-12_2010-12.csv.gz"),
    ("rees46", "clickstream/rees46_multicategory_2019-10_first1000.csv"),
    ("otto", "clickstream/otto_train_sample.jsonl"),
    ("taobao", "clickstream/taobao_user_behavior_1000.jsonl"),
    ("yoochoose", "yoochoose_100k/yoochoose-clicks-100k_train_full.txt"),
];

/// Where the data sets are: `TILLFLOW_DATA`, else `../shared/data` beside the checkout.
#[must_use]
pub fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("TILLFLOW_DATA").map_or(Some(beside), |p| Some(p.into())).filter(|p| p.join("convert.py").exists())
}

impl Workload {
    /// The first `limit` events of a data set; `None` where the data is not there.
    ///
    /// # Panics
    /// When it is there and can't be converted.
    #[must_use]
    pub fn of(name: &str, limit: usize) -> Option<Self> {
        let data = data()?;
        let file = DATA_SETS.iter().find(|(n, _)| *n == name).map(|(_, f)| data.join(f)).expect("a known data set");
        let output = Command::new("python3").arg(data.join("convert.py")).arg(name).arg(file).output().expect("python3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let mut events: Vec<(Timestamp, Value)> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .map(|event| (serde_json::from_value(event["timestamp"].clone()).expect("a time"), event))
            .collect();
        events.sort_by_key(|(at, _)| *at);
        events.truncate(limit);
        Some(Self::derived(events))
    }

    /// Events with what they imply: each product with its first price as base, stock from 200 less what is sold and
    /// restocked at 10, customers with consent, some of them subscribers.
    fn derived(events: Vec<(Timestamp, Value)>) -> Self {
        let mut lines = Vec::new();
        let mut products: BTreeMap<String, Value> = BTreeMap::new();
        let mut stock: BTreeMap<String, i64> = BTreeMap::new();
        let mut customers = BTreeSet::new();
        let end = events.last().map_or(Timestamp::EARLIEST, |(at, _)| *at);
        for (at, mut event) in events {
            event["timestamp"] = json!(at);
            let items = event["items"].as_array().cloned().unwrap_or_else(|| vec![event.clone()]);
            let sold = event["event_type"] == "order_completed";
            for item in items.iter().filter(|i| i["product_id"].is_string()) {
                let id = item["product_id"].as_str().unwrap_or_default().to_owned();
                let n = products.len();
                products.entry(id.clone()).or_insert_with(|| {
                    let price = item["price"].as_str().unwrap_or("10.00").to_owned();
                    json!({"product_id": id, "name": id, "category": format!("c{}", n % 5), "base_price": price, "box_eligible": true, "exclusive": n % 9 == 8})
                });
                let before = stock.get(&id).copied();
                let level = stock.entry(id.clone()).or_insert(200);
                if sold {
                    *level -= item["quantity"].as_i64().unwrap_or(1).min(150);
                    if *level < 10 {
                        *level = 200;
                    }
                }
                if before != Some(*level) {
                    let value = json!({"product_id": id, "stock_level": *level, "last_updated": at});
                    lines.push(Line { topic: "inventory", key: id, at, value });
                }
            }
            if let Some(user) = event["user_id"].as_str().map(str::to_owned) {
                if customers.insert(user.clone()) && customers.len() % SUBSCRIBER == 0 {
                    let plan = PLANS[customers.len() / SUBSCRIBER % PLANS.len()];
                    let value = json!({"event_id": format!("s-{user}"), "user_id": user, "timestamp": at, "subscription_id": format!("s-{user}"), "plan_id": plan, "action": "started"});
                    lines.push(Line { topic: "subscription_events", key: user.clone(), at, value });
                }
                lines.push(Line { topic: "user_events", key: user, at, value: event });
            } else {
                let key = event["event_id"].as_str().unwrap_or_default().to_owned();
                lines.push(Line { topic: "user_events", key, at, value: event });
            }
        }
        let first = |topic, key: &str, value| Line { topic, key: key.to_owned(), at: Timestamp::MIN, value };
        lines.extend(products.iter().map(|(id, p)| first("products", id, p.clone())));
        lines.extend(customers.iter().map(|user| {
            let consent = json!({"status": "granted", "at": "2001-01-01T00:00:00Z", "source": "test", "text_version": "1"});
            first("customers", user, json!({"user_id": user, "email": format!("{user}@example.org"), "consent": consent}))
        }));
        // Records of one moment go in the order of the list of topics; stable within a topic.
        let rank =
            |topic: &str| ["products", "customers", "inventory", "subscription_events", "user_events"].iter().position(|t| *t == topic);
        lines.sort_by_key(|l| (l.at, rank(l.topic)));
        Self { lines, end }
    }

    /// Writes one JSON-lines file a topic into `dir` and returns them as `TOPIC=FILE`.
    ///
    /// # Panics
    /// When a file can't be written.
    #[must_use]
    pub fn files(&self, dir: &Path) -> Vec<String> {
        let mut texts: BTreeMap<&str, String> = BTreeMap::new();
        for line in &self.lines {
            let _ = writeln!(texts.entry(line.topic).or_default(), "{}", line.value);
        }
        texts
            .into_iter()
            .map(|(topic, text)| {
                let path = dir.join(format!("in-{topic}.jsonl"));
                std::fs::write(&path, text).expect("a file");
                format!("{topic}={}", path.display())
            })
            .collect()
    }
}
