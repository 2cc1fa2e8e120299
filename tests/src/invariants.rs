//! What must hold of any run, whatever came when: the bounds, caps and "once" that class C is held to, since its records
//! depend on what another stage said "now", and what every ledger and every mail keeps.

use crate::{compare::Outputs, workload::Line};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tillflow_schemas::{Money, Timestamp};

/// The built-in rule: the one whose bounds are known here.
const BUILT_IN_RULE: &str = "default";
/// Its largest change of one decision, in per cent of the old price.
const MOST_CHANGE: u32 = 15;
/// Products in one push.
const MOST_ITEMS: usize = 10;
const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// What is wrong with a topic's next record.
type Check<'a> = dyn FnMut(&Value) -> Option<String> + 'a;

/// What is broken in a run of which only the outputs are known.
#[must_use]
pub fn broken_invariants(outputs: &Outputs) -> Vec<String> {
    broken_invariants_of(&[], outputs)
}

/// What is broken in a run of these records: also a product's own limits, what was just viewed, and stock.
#[must_use]
pub fn broken_invariants_of(sent: &[Line], outputs: &Outputs) -> Vec<String> {
    let mut broken = Vec::new();
    let mut checks: [(&str, &mut Check<'_>); 5] = [
        ("price_changes", &mut prices(sent, outputs)),
        ("recommendations", &mut pushes(sent)),
        ("box_contents", &mut boxes(sent)),
        ("loyalty_updates", &mut ledgers()),
        ("email_triggers", &mut mails()),
    ];
    for (topic, check) in &mut checks {
        let records = outputs.get(*topic).into_iter().flatten();
        broken.extend(records.filter_map(|(key, value)| check(value).map(|why| format!("{topic} {key}: {why}: {value}"))));
    }
    broken.extend(outputs.get("dead_letters").into_iter().flatten().map(|(key, value)| format!("dead_letters {key}: {value}")));
    broken
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn money(value: &Value, field: &str) -> Option<Money> {
    serde_json::from_value(value[field].clone()).ok()
}

fn time(value: &Value, field: &str) -> i64 {
    serde_json::from_value::<Timestamp>(value[field].clone()).map_or(i64::MIN, Timestamp::millis)
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn values<'a>(sent: &'a [Line], topic: &'a str) -> impl Iterator<Item = &'a Value> {
    sent.iter().filter(move |line| line.topic == topic).map(|line| &line.value)
}

/// Each change begins at the price in force, stays within the bounds of the built-in rule, and within the limits of a
/// product of which there is one record.
fn prices<'a>(sent: &'a [Line], outputs: &Outputs) -> impl FnMut(&Value) -> Option<String> + use<'a> {
    let mut in_force: BTreeMap<String, Money> = BTreeMap::new();
    for (product, price) in outputs.get("product_prices").into_iter().flatten() {
        if let Some(first) = money(price, "price") {
            in_force.entry(product.clone()).or_insert(first);
        }
    }
    let mut records: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for product in values(sent, "products") {
        records.entry(text(product, "product_id")).or_default().push(product);
    }
    move |change| {
        let (product, reason) = (text(change, "product_id"), text(change, "reason"));
        let (Some(old), Some(new)) = (money(change, "old_price"), money(change, "new_price")) else { return Some("no prices".into()) };
        let before = in_force.get(product).copied();
        if change["mode"] == "live" {
            in_force.insert(product.to_owned(), new);
        }
        if before.is_some_and(|before| before != old) {
            return Some(format!("the price before it was {}", before.unwrap_or_default()));
        }
        let is_stated = reason == "Base price changed";
        let is_hard = list(change, "bounded_by").any(|b| ["min_price", "max_price", "cost_floor"].iter().any(|hard| b == hard));
        let moved = if new > old { new - old } else { old - new };
        if !is_stated && !is_hard && change["rule"] == BUILT_IN_RULE && moved.times(100) > old.times(MOST_CHANGE) {
            return Some(format!("a change of more than {MOST_CHANGE} %"));
        }
        if new <= Money::ZERO && old > Money::ZERO {
            return Some("no price".into());
        }
        if let Some([stated]) = records.get(product).map(Vec::as_slice)
            && !is_stated
        {
            let limit = |field| money(stated, field);
            if limit("min_price").is_some_and(|min| new < min) || limit("cost").is_some_and(|cost| new < cost) {
                return Some("below the floor".into());
            }
            if limit("max_price").is_some_and(|max| new > max) {
                return Some("above the ceiling".into());
            }
        }
        None
    }
}

/// A push has something to say, no product twice, not the one just viewed, and comes at most once a second.
fn pushes<'a>(sent: &'a [Line]) -> impl FnMut(&Value) -> Option<String> + use<'a> {
    // By user and time; where several were viewed at one moment, any of them may be the last.
    let mut views: BTreeMap<&str, BTreeMap<i64, Vec<&str>>> = BTreeMap::new();
    for event in values(sent, "user_events").filter(|e| e["event_type"] == "product_viewed") {
        let viewed = views.entry(text(event, "user_id")).or_default().entry(time(event, "timestamp")).or_default();
        viewed.push(text(event, "product_id"));
    }
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    move |push| {
        let (user, at) = (text(push, "user_id"), time(push, "generated_at"));
        let before = last.insert(user.to_owned(), at);
        let ids: Vec<&str> = list(push, "items").map(|item| text(item, "product_id")).collect();
        let is_of_a_view = push["trigger"] == "product_viewed";
        let viewed = views.get(user).filter(|_| is_of_a_view).and_then(|views| views.range(..=at).next_back()).map(|(_, viewed)| viewed);
        if ids.is_empty() || ids.len() > MOST_ITEMS {
            return Some(format!("{} products", ids.len()));
        }
        if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
            return Some("a product twice".into());
        }
        if viewed.is_some_and(|viewed| viewed.iter().all(|id| ids.contains(id))) {
            return Some("the product just viewed".into());
        }
        before.filter(|before| at - before < SECOND_MS).map(|_| "less than a second after the one before".into())
    }
}

/// A period's box comes once, holds no product twice, exclusives first; and no more pieces are given than there ever were.
fn boxes(sent: &[Line]) -> impl FnMut(&Value) -> Option<String> + use<> {
    let mut stock: BTreeMap<String, i64> = BTreeMap::new();
    for record in values(sent, "inventory") {
        *stock.entry(text(record, "product_id").to_owned()).or_default() += record["stock_level"].as_i64().unwrap_or(0).max(0);
    }
    let knows_stock = !sent.is_empty();
    let mut seen = BTreeSet::new();
    move |packed| {
        // A box's id is its subscription's with the period.
        if !seen.insert((text(packed, "user_id").to_owned(), text(packed, "box_id").to_owned(), packed["period"].as_i64())) {
            return Some("a period's second box".into());
        }
        let ids: Vec<&str> = list(packed, "items").map(|item| text(item, "product_id")).collect();
        if ids.is_empty() || ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
            return Some("empty, or a product twice".into());
        }
        if !list(packed, "items").map(|item| item["exclusive"] == false).is_sorted() {
            return Some("an exclusive product after another".into());
        }
        for id in ids {
            let left = stock.entry(id.to_owned()).or_default();
            *left -= 1;
            if knows_stock && *left < 0 {
                return Some(format!("more pieces of {id} than there ever were"));
            }
        }
        None
    }
}

/// An entry comes once, and each sum is the one before it and its own change.
fn ledgers() -> impl FnMut(&Value) -> Option<String> {
    let mut entries = BTreeSet::new();
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    move |entry| {
        let user = text(entry, "user_id").to_owned();
        let number = |field: &str| entry[field].as_i64().unwrap_or(i64::MIN);
        if !entries.insert((user.clone(), text(entry, "entry_id").to_owned())) {
            return Some("an entry twice".into());
        }
        let found = (number("balance"), number("lifetime_points"));
        let (balance, lifetime) = sums.insert(user, found).unwrap_or_default();
        let expected = (balance.saturating_add(number("points")), lifetime.saturating_add(number("lifetime_change")));
        (expected != found).then(|| format!("sums {found:?} instead of {expected:?}"))
    }
}

/// A mail has an id of its own, and a user gets one in 24 hours.
fn mails() -> impl FnMut(&Value) -> Option<String> {
    let mut ids = BTreeSet::new();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    move |mail| {
        let at = time(mail, "send_after");
        if !ids.insert(text(mail, "trigger_id").to_owned()) {
            return Some("a mail twice".into());
        }
        let before = last.insert(text(mail, "user_id").to_owned(), at);
        before.filter(|before| at - before < DAY_MS).map(|_| "the second within 24 hours".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A run in which all is well.
    fn run() -> (Vec<Line>, Outputs) {
        let sent = [
            ("products", "tea", json!({"product_id": "tea", "base_price": "100", "cost": "60", "max_price": "120"})),
            ("inventory", "tea", json!({"product_id": "tea", "stock_level": 1, "last_updated": "2026-03-01T09:00:00Z"})),
            (
                "user_events",
                "ann",
                json!({"event_type": "product_viewed", "user_id": "ann", "product_id": "tea", "timestamp": "2026-03-01T10:00:00Z"}),
            ),
        ];
        let line = |(topic, key, value): (&'static str, &str, Value)| Line { topic, key: key.into(), at: Timestamp::MIN, value };
        let change = |old: &str, new: &str| json!({"product_id": "tea", "old_price": old, "new_price": new, "reason": "Low stock (1)", "rule": "default", "mode": "live"});
        let push = |at: &str, ids: &[&str]| {
            let items: Vec<_> = ids.iter().map(|id| json!({"product_id": id})).collect();
            json!({"user_id": "ann", "trigger": "product_viewed", "items": items, "generated_at": format!("2026-03-01T{at}Z")})
        };
        let entry = |n: i64, balance: i64| json!({"user_id": "ann", "entry_id": format!("e{n}"), "points": 10, "lifetime_change": 10, "balance": balance, "lifetime_points": balance});
        let mail = |n: i64, at: &str| json!({"user_id": "ann", "trigger_id": format!("t{n}"), "send_after": at});
        let items = json!([{"product_id": "mug", "exclusive": true}, {"product_id": "tea", "exclusive": false}]);
        let outputs = [
            ("product_prices", vec![json!({"product_id": "tea", "price": "100.00"})]),
            ("price_changes", vec![change("100.00", "110.00"), change("110.00", "115.50")]),
            ("recommendations", vec![push("10:00:00", &["cup", "pot"]), push("10:00:01", &["pot"])]),
            ("box_contents", vec![json!({"user_id": "ann", "box_id": "s:0", "period": 0, "items": items})]),
            ("loyalty_updates", vec![entry(1, 10), entry(2, 20)]),
            ("email_triggers", vec![mail(1, "2026-03-01T10:00:00Z"), mail(2, "2026-03-02T10:00:00Z")]),
            ("dead_letters", vec![]),
        ];
        let key = |value: &Value| value.get("product_id").or(value.get("user_id")).and_then(Value::as_str).unwrap_or_default().to_owned();
        let outputs = outputs.map(|(topic, values)| (topic.to_owned(), values.into_iter().map(|v| (key(&v), v)).collect()));
        let mut sent: Vec<_> = sent.map(line).into();
        let mug = json!({"product_id": "mug", "stock_level": 5, "last_updated": "2026-03-01T09:00:00Z"});
        sent.push(line(("inventory", "mug", mug)));
        (sent, outputs.into())
    }

    /// What is said of a run in which one record of a topic is doctored.
    fn said(topic: &str, n: usize, doctored: impl FnOnce(&mut Value)) -> String {
        let (sent, mut outputs) = run();
        doctored(&mut outputs.get_mut(topic).unwrap()[n].1);
        broken_invariants_of(&sent, &outputs).join("\n")
    }

    #[track_caller]
    fn assert_said(said: &str, words: &str) {
        assert!(said.contains(words), "{words:?} in {said:?}");
    }

    #[test]
    fn nothing_is_broken_in_a_good_run() {
        let (sent, outputs) = run();
        assert_eq!(broken_invariants_of(&sent, &outputs), Vec::<String>::new());
        assert_eq!(broken_invariants(&outputs), Vec::<String>::new());
    }

    #[test]
    fn a_price_goes_on_from_the_one_before() {
        assert_said(&said("price_changes", 0, |c| c["old_price"] = json!("101.00")), "the price before it was 100.00");
        assert_said(&said("price_changes", 1, |c| c["old_price"] = json!("109.99")), "the price before it was 110.00");
        // A shadow becomes no price.
        assert_said(&said("price_changes", 0, |c| c["mode"] = json!("shadow")), "the price before it was 100.00");
    }

    #[test]
    fn a_price_stays_within_its_bounds() {
        assert_said(&said("price_changes", 1, |c| c["new_price"] = json!("126.51")), "more than 15 %");
        assert_eq!(said("price_changes", 1, |c| c["new_price"] = json!("93.50")), "", "exactly 15 % down");
        assert_said(&said("price_changes", 1, |c| c["new_price"] = json!("120.01")), "above the ceiling");
        let floor = said("price_changes", 1, |c| {
            c["new_price"] = json!("59.99");
            c["bounded_by"] = json!(["cost_floor"]);
        });
        assert_said(&floor, "below the floor");
        assert_said(&said("price_changes", 1, |c| c["new_price"] = json!("0.00")), "more than 15 %");
    }

    #[test]
    fn a_push_is_bounded_and_says_nothing_twice_nor_what_was_just_viewed() {
        let ids = |ids: &[&str]| json!(ids.iter().map(|id| json!({"product_id": id})).collect::<Vec<_>>());
        let eleven: Vec<String> = (0..11).map(|n| format!("p{n}")).collect();
        assert_said(
            &said("recommendations", 0, |p| p["items"] = ids(&eleven.iter().map(String::as_str).collect::<Vec<_>>())),
            "11 products",
        );
        assert_said(&said("recommendations", 0, |p| p["items"] = ids(&[])), "0 products");
        assert_said(&said("recommendations", 0, |p| p["items"] = ids(&["cup", "pot", "cup"])), "a product twice");
        assert_said(&said("recommendations", 1, |p| p["items"] = ids(&["pot", "tea"])), "the product just viewed");
        assert_said(&said("recommendations", 1, |p| p["generated_at"] = json!("2026-03-01T10:00:00.999Z")), "less than a second");
    }

    #[test]
    fn a_box_comes_once_and_gives_no_more_than_there_is() {
        let twice = |n: u32| {
            let (sent, mut outputs) = run();
            let boxes = outputs.get_mut("box_contents").unwrap();
            let mut again = boxes[0].clone();
            again.1["period"] = json!(n);
            again.1["box_id"] = json!(format!("s:{n}"));
            boxes.push(again);
            broken_invariants_of(&sent, &outputs).join("\n")
        };
        assert_said(&twice(0), "a period's second box");
        assert_said(&twice(1), "more pieces of tea than there ever were");
        assert_said(&said("box_contents", 0, |b| b["items"][1]["product_id"] = json!("mug")), "a product twice");
        assert_said(&said("box_contents", 0, |b| b["items"] = json!([])), "empty");
        assert_said(&said("box_contents", 0, |b| b["items"].as_array_mut().unwrap().reverse()), "an exclusive product after another");
    }

    #[test]
    fn an_entry_comes_once_and_sums_are_sums() {
        assert_said(&said("loyalty_updates", 1, |e| e["entry_id"] = json!("e1")), "an entry twice");
        assert_said(&said("loyalty_updates", 1, |e| e["balance"] = json!(21)), "sums (21, 20) instead of (20, 20)");
        assert_said(&said("loyalty_updates", 0, |e| e["lifetime_points"] = json!(9)), "instead of (10, 10)");
    }

    #[test]
    fn a_mail_comes_once_and_not_sooner_than_a_day_after_another() {
        assert_said(&said("email_triggers", 1, |m| m["trigger_id"] = json!("t1")), "a mail twice");
        assert_said(&said("email_triggers", 1, |m| m["send_after"] = json!("2026-03-02T09:59:59.999Z")), "within 24 hours");
    }

    #[test]
    fn a_dead_letter_is_said() {
        let (sent, mut outputs) = run();
        outputs.get_mut("dead_letters").unwrap().push(("ann".into(), Value::Null));
        assert_said(&broken_invariants_of(&sent, &outputs).join("\n"), "dead_letters ann");
    }
}
