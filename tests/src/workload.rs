//! Real shops' events, with what no source has (stock, products, consent, subscriptions) derived from them.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::Duration,
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
    /// Its key; empty is none.
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

/// Where the data sets are: `TILLFLOW_DATA`, else `../shared/data` beside the checkout. Where they are not, as in a plain
/// clone, it is said on stderr, past the test runner, which shows what a passing test says to nobody.
///
/// # Panics
/// When `TILLFLOW_DATA` names a place without them.
#[must_use]
pub fn data() -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let stated = std::env::var_os("TILLFLOW_DATA").map(PathBuf::from);
    let is_stated = stated.is_some();
    let place = stated.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    if place.join("convert.py").exists() {
        return Some(place);
    }
    assert!(!is_stated, "TILLFLOW_DATA: there is no {}", place.join("convert.py").display());
    SAID.call_once(|| {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: real shops' data is not at {}; only made-up data is compared (TILLFLOW_DATA names another place)",
            place.display()
        );
    });
    None
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

    /// A small shop's weeks, made up from a seed: views, carts, orders, refunds and cancellations of twenty customers and a
    /// visitor now and then, and all that is derived from them. For comparisons that need no data beside the checkout.
    #[must_use]
    pub fn made_up(seed: u64, events: usize) -> Self {
        let mut state = seed;
        // SplitMix64 (Steele, Lea, Flood 2014).
        let mut below = move |n: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % n
        };
        let mut at = Timestamp::parse("2026-03-01T00:00:00Z").expect("a time");
        let mut orders: Vec<(String, String)> = Vec::new();
        let mut made = Vec::new();
        for n in 0..events {
            at = at + Duration::from_millis(1 + below(40 * 60_000));
            let (user, product) = (format!("u{}", below(20)), format!("p{}", below(12)));
            // The greater half of the products is the dearer one.
            let price = |product: &str| format!("{}.50", 3 + 4 * product.trim_start_matches('p').parse::<u64>().unwrap_or(0));
            let mut event = json!({"event_id": format!("e{n}"), "user_id": user});
            let fields = match below(20) {
                0..=8 => json!({"event_type": "product_viewed", "product_id": product, "dwell_ms": below(60_000)}),
                9 => {
                    json!({"event_type": "product_viewed", "product_id": product, "user_id": null, "anonymous_id": format!("v{}", below(5))})
                }
                10..=12 => json!({"event_type": "added_to_cart", "product_id": product, "price": price(&product)}),
                13 => json!({"event_type": "removed_from_cart", "product_id": product}),
                14 => json!({"event_type": "checkout_started", "cart_id": format!("c{n}")}),
                15..=17 => {
                    let second = format!("p{}", below(12));
                    let items = [(&product, 1 + below(4)), (&second, 1)];
                    let items = items.map(|(p, quantity)| json!({"product_id": p, "quantity": quantity, "price": price(p)}));
                    orders.push((user, format!("o{n}")));
                    json!({"event_type": "order_completed", "order_id": format!("o{n}"), "items": items})
                }
                18 | 19 if orders.is_empty() => json!({"event_type": "page_viewed"}),
                kind => {
                    let (user, order) = orders.swap_remove(below(orders.len() as u64) as usize);
                    if kind == 18 {
                        json!({"event_type": "order_refunded", "user_id": user, "order_id": order, "refund_id": format!("r{n}"), "amount": "4.25"})
                    } else {
                        json!({"event_type": "order_cancelled", "user_id": user, "order_id": order})
                    }
                }
            };
            event.as_object_mut().into_iter().for_each(|e| e.extend(fields.as_object().cloned().unwrap_or_default()));
            made.push((at, event));
        }
        Self::derived(made)
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
                // A visitor's by their id, as any client keys it; a guest's has none.
                let key = event["anonymous_id"].as_str().unwrap_or_default().to_owned();
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
