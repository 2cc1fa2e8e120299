//! Whether two runs came to the same, by the class that `topics.yaml` states for each output.

pub use crate::invariants::{broken_invariants, broken_invariants_of};

use crate::{
    Scratch, Tillflow,
    cluster::PARTITIONS,
    model::{NaiveAccount, NaiveLoyalty},
    workload::Workload,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tillflow_engine::log::{TopicPartition, embedded::Embedded};
use tillflow_schemas::{Catalog, Class, Role};

/// Records of each output topic, in order a key: (key, value).
pub type Outputs = BTreeMap<String, Vec<(String, Value)>>;

/// Differences listed of one topic, at most.
const LISTED: usize = 5;

/// Reads the files that `tillflow replay --out` wrote.
///
/// # Panics
/// When one is missing or can't be read.
#[must_use]
pub fn outputs_of(dir: &Path) -> Outputs {
    let catalog = Catalog::built_in(4).expect("the list of topics");
    let mut outputs = Outputs::new();
    for topic in catalog.topics().iter().filter(|t| t.role == Role::Output) {
        let path = dir.join(format!("{}.jsonl", topic.name));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        outputs
            .insert(topic.name.clone(), records.map(|r| (r["key"].as_str().unwrap_or_default().to_owned(), r["value"].clone())).collect());
    }
    outputs
}

/// Reads the outputs out of an embedded log.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn outputs_in(log: &Embedded) -> Outputs {
    let catalog = log.catalog();
    let topics = catalog.topics().iter().enumerate().filter(|(_, t)| t.role == Role::Output);
    topics
        .map(|(topic, t)| {
            let read = |partition| log.read(TopicPartition { topic, partition }, 0, usize::MAX).expect("a log that can be read");
            let records = (0..t.partitions).flat_map(read).map(|r| {
                let key = r.key.map(|k| String::from_utf8_lossy(&k).into_owned()).unwrap_or_default();
                (key, r.value.and_then(|v| serde_json::from_slice(&v).ok()).unwrap_or(Value::Null))
            });
            (t.name.clone(), records.collect())
        })
        .collect()
}

/// The embedded log in a data directory that no process uses.
///
/// # Panics
/// When it can't be opened.
#[must_use]
pub fn embedded_log(data: &Path) -> Embedded {
    let catalog = Catalog::built_in(PARTITIONS).expect("the list of topics");
    let shared = tillflow_state::Shared::new(64 << 20, 32 << 20);
    Embedded::open(&data.join("embedded"), &catalog, tillflow_state::Durability::Process, &shared).expect("an embedded log")
}

/// The replay's outputs: what every other run is held against.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn replayed(workload: &Workload, files: &Arc<Scratch>) -> Outputs {
    replayed_on(PARTITIONS, workload, files)
}

/// As [`replayed`], on so many partitions: how usual a product is goes by a partition's sample.
#[must_use]
pub fn replayed_on(partitions: u32, workload: &Workload, files: &Arc<Scratch>) -> Outputs {
    let out = files.join("out");
    let mut arguments = vec!["replay".to_owned()];
    arguments.extend(workload.files(files.path()));
    arguments.extend(["--out".into(), out.display().to_string()]);
    let replay = Tillflow::command(arguments).set("topics.partitions", partitions);
    let _ = replay.within(Duration::from_secs(3_600)).finish().ok();
    outputs_of(&out)
}

/// That no output of classes A and B is empty, `but` those that the input gives nothing for.
///
/// # Panics
/// When one is.
pub fn assert_nothing_is_empty(outputs: &Outputs, but: &[&str]) {
    let catalog = Catalog::built_in(PARTITIONS).expect("the list of topics");
    for topic in catalog.topics().iter().filter(|t| t.role == Role::Output && t.class.is_some_and(|c| c < Class::C)) {
        assert!(!outputs[&topic.name].is_empty() || but.contains(&topic.name.as_str()), "{} is empty", topic.name);
    }
}

/// The accounts of a naive model that the last `loyalty_updates` of a run state otherwise.
#[must_use]
pub fn wrong_points(points: &NaiveLoyalty, outputs: &Outputs) -> Vec<String> {
    let mut last = BTreeMap::new();
    for (user, entry) in outputs.get("loyalty_updates").into_iter().flatten() {
        last.insert(user.as_str(), entry);
    }
    let mut wrong = Vec::new();
    for user in points.users() {
        let expected = points.account(user);
        let found = last.get(user).map_or_else(NaiveAccount::default, |e| NaiveAccount {
            balance: e["balance"].as_i64().unwrap_or(i64::MIN),
            lifetime_points: e["lifetime_points"].as_i64().unwrap_or(i64::MIN),
            tier: e["tier"].as_str().unwrap_or_default().to_owned(),
        });
        // Who has no entry has no tier to be named either.
        if found != expected && (last.contains_key(user) || (expected.balance, expected.lifetime_points) != (0, 0)) {
            wrong.push(format!("points of {user}: expected {expected:?}, found {found:?}"));
        }
    }
    wrong
}

/// How two runs differ in classes A (the same sequence a key) and B (the same last value a key). Class C is never
/// compared: its invariants hold within one run.
#[must_use]
pub fn differences(expected: &Outputs, found: &Outputs) -> Vec<String> {
    let catalog = Catalog::built_in(4).expect("the list of topics");
    let mut differences = Vec::new();
    for topic in catalog.topics().iter().filter(|t| t.role == Role::Output) {
        let (Some(class @ (Class::A | Class::B)), name) = (topic.class, topic.name.as_str()) else { continue };
        let (expected, found) = (by_key(name, class, expected), by_key(name, class, found));
        let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let wrong = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key));
        differences.extend(wrong.take(LISTED).map(|key| {
            let none = Vec::new();
            let (e, f) = (expected.get(key).unwrap_or(&none), found.get(key).unwrap_or(&none));
            let at = e.iter().zip(f).position(|(a, b)| a != b).unwrap_or(e.len().min(f.len()));
            format!("{name} {key}: {} against {} records; first at {at}: expected {:?}, found {:?}", e.len(), f.len(), e.get(at), f.get(at))
        }));
    }
    differences
}

fn by_key<'a>(topic: &str, class: Class, outputs: &'a Outputs) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut keys: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (key, value) in outputs.get(topic).into_iter().flatten().filter(|(_, v)| !quotes_another_stage(topic, v)) {
        let records = keys.entry(key).or_default();
        match class {
            Class::A => records.push(value),
            Class::B | Class::C => *records = vec![value],
        }
    }
    keys
}

/// Records of class A topics that quote what another stage said "now": stock of boxes, prices.
fn quotes_another_stage(topic: &str, value: &Value) -> bool {
    match topic {
        "notifications" => value["kind"] == "box_short",
        "email_triggers" => ["price_drop", "back_in_stock"].iter().any(|c| value["campaign_id"].as_str().is_some_and(|id| id.contains(c))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run() -> Outputs {
        let ledger = (1..4).map(|n| ("u1".to_owned(), json!({"entry_id": format!("e{n}"), "points": n, "balance": n * 10})));
        let prices = [("p1".to_owned(), json!({"price": "1.00"})), ("p1".to_owned(), json!({"price": "2.00"}))];
        Outputs::from([("loyalty_updates".to_owned(), ledger.collect()), ("product_prices".to_owned(), prices.to_vec())])
    }

    #[test]
    fn one_record_dropped_doubled_or_off_by_a_point_is_found() {
        assert_eq!(differences(&run(), &run()), Vec::<String>::new());
        let changed = |change: fn(&mut Vec<(String, Value)>)| {
            let mut other = run();
            change(other.get_mut("loyalty_updates").unwrap());
            differences(&run(), &other).len()
        };
        assert_eq!(changed(|l| drop(l.remove(1))), 1);
        assert_eq!(changed(|l| l.insert(1, l[1].clone())), 1);
        assert_eq!(changed(|l| l[2].1["points"] = json!(4)), 1);
        assert_eq!(changed(|l| l.swap(0, 1)), 1);
    }

    #[test]
    fn a_balance_a_lifetime_sum_or_a_tier_that_is_off_is_found() {
        let order = json!({"event_type": "order_completed", "user_id": "u", "order_id": "o", "total_amount": "500", "items": [], "timestamp": "2026-03-01T10:00:00Z"});
        let mut points = NaiveLoyalty::default();
        points.feed(&serde_json::from_value(order).unwrap());
        let wrong = |balance: i64, lifetime: i64, tier: &str| {
            let entry = json!({"balance": balance, "lifetime_points": lifetime, "tier": tier});
            wrong_points(&points, &Outputs::from([("loyalty_updates".to_owned(), vec![("u".to_owned(), entry)])])).len()
        };
        assert_eq!(wrong(500, 500, "silver"), 0);
        assert_eq!([wrong(499, 500, "silver"), wrong(500, 501, "silver"), wrong(500, 500, "bronze")], [1; 3]);
        assert_eq!(wrong_points(&points, &Outputs::new()).len(), 1, "no entry at all");
    }

    #[test]
    fn only_the_last_value_counts_of_sums_over_keys() {
        let mut other = run();
        other.get_mut("product_prices").unwrap().remove(0);
        assert_eq!(differences(&run(), &other), Vec::<String>::new());
        other.get_mut("product_prices").unwrap()[0].1 = json!({"price": "2.01"});
        assert_eq!(differences(&run(), &other).len(), 1);
    }
}
