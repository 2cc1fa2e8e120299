//! Orders of ten points each, and what the ledger says of them: whether each counted, and counted once.

use crate::{Kafka, Tillflow};
use serde_json::{Value, json};
use tillflow_schemas::Timestamp;

/// Orders of these numbers, of eight users.
#[must_use]
pub fn orders(ids: impl IntoIterator<Item = u32>) -> Value {
    let order = |n| {
        let items = json!([{"product_id": "tea", "quantity": 1}]);
        json!({"event_type": "order_completed", "user_id": format!("u{}", n % 8), "order_id": format!("o{n}"), "timestamp": Timestamp::wall(), "total_amount": "10.00", "items": items})
    };
    ids.into_iter().map(order).collect()
}

/// The orders that earned points, in order, each as often as it did.
///
/// # Panics
/// When the ledger can't be read.
#[must_use]
pub fn earned(kafka: &Kafka, prefix: &str) -> Vec<u32> {
    let entries = kafka.read(&format!("{prefix}loyalty_updates"));
    let orders =
        entries.iter().map(|r| r.json()).filter(|e| e["kind"] == "earn").map(|e| e["order_id"].as_str().unwrap()[1..].parse().unwrap());
    let mut orders: Vec<_> = orders.collect();
    orders.sort_unstable();
    orders
}

/// As [`earned`], as an instance answers that knows all users; none while it can't say, since state is being restored.
///
/// # Panics
/// When it answers otherwise.
#[must_use]
pub fn earned_at(shop: &Tillflow) -> Vec<u32> {
    let mut earned = Vec::new();
    for user in (0..8).map(|n| format!("u{n}")) {
        let mut page = Some(String::new());
        while let Some(number) = page {
            let answer = shop.get(format!("/v1/users/{user}/loyalty/ledger/{number}").trim_end_matches('/'));
            if answer.status() == 503 {
                return Vec::new();
            }
            assert!(answer.status().is_success(), "{user}: {}", answer.status());
            let ledger: Value = answer.json().expect("JSON");
            let entries = ledger["entries"].as_array().into_iter().flatten().filter(|e| e["kind"] == "earn");
            earned.extend(entries.filter_map(|e| e["order_id"].as_str()?.strip_prefix('o')?.parse::<u32>().ok()));
            page = ledger["next"].as_str().map(str::to_owned);
        }
    }
    earned.sort_unstable();
    earned
}

/// What the ledger says that somebody has.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn points_of(kafka: &Kafka, prefix: &str, user: &str) -> i64 {
    let entries = kafka.read(&format!("{prefix}loyalty_updates"));
    entries.iter().filter(|r| r.key() == user).map(|r| r.json()["points"].as_i64().unwrap()).sum()
}
