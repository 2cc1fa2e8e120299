//! Whether two runs came to the same, by the class that `topics.yaml` states for each output.

use crate::{Scratch, Tillflow, cluster::PARTITIONS, model::NaiveLoyalty, workload::Workload};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
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

/// The replay's outputs: what every other run is held against.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn replayed(workload: &Workload, files: &Arc<Scratch>) -> Outputs {
    let out = files.join("out");
    let mut arguments = vec!["replay".to_owned()];
    arguments.extend(workload.files(files.path()));
    arguments.extend(["--out".into(), out.display().to_string()]);
    let _ = Tillflow::command(arguments).within(Duration::from_secs(900)).finish().ok();
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
        let (balance, lifetime) = last.get(user).map_or((Some(0), Some(0)), |e| (e["balance"].as_i64(), e["lifetime_points"].as_i64()));
        if balance != Some(expected.balance) || lifetime != Some(expected.lifetime_points) {
            wrong.push(format!("points of {user}: expected {expected:?}, found {balance:?} of {lifetime:?}"));
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
    fn only_the_last_value_counts_of_sums_over_keys() {
        let mut other = run();
        other.get_mut("product_prices").unwrap().remove(0);
        assert_eq!(differences(&run(), &other), Vec::<String>::new());
        other.get_mut("product_prices").unwrap()[0].1 = json!({"price": "2.01"});
        assert_eq!(differences(&run(), &other).len(), 1);
    }
}
