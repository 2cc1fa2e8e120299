use super::*;
use serde_json::json;

fn parse(value: Value) -> Result<Condition, String> {
    Condition::parse(&value, "vip", Span::days(365)).map_err(|p| p.to_string())
}

fn day(n: i64) -> Timestamp {
    Timestamp::from_millis(n * 86_400_000)
}

/// The verdict on a user with orders of 100 on days 10 and 20, from Germany, at day 25.
fn verdict(value: Value) -> (bool, Option<i64>) {
    let facts = Facts { last_order: Some(day(20)), bought: [("tea".into(), 2)].into(), ..Facts::default() };
    let contact = Contact { country: Some("DE".into()), interests: vec!["cups".into()], ..Contact::default() };
    let bought = |at: i64| (day(at), Purchase { net: Money::parse("100").unwrap(), is_order: true, categories: vec![] });
    let mut views = Views::default();
    views.view(&"p".into(), "", day(24), day(25));
    let purchases = [bought(10), bought(20)];
    let subject =
        Subject { facts: &facts, contact: Some(&contact), purchases: &purchases, views: &views, segments: &["active".to_owned()] };
    let verdict = parse(value).unwrap().verdict(&subject, day(25));
    (verdict.holds, verdict.changes.map(|t| t.millis() / 86_400_000))
}

#[test]
fn conditions_say_whether_they_hold_and_when_time_may_change_that() {
    for (condition, expected) in [
        (json!({"field": "orders", "op": ">=", "value": 2, "within": "30d"}), (true, Some(40))),
        (json!({"field": "orders", "op": "=", "value": 1, "within": "10d"}), (true, Some(30))),
        (json!({"field": "net_spend", "op": ">", "value": "199.99"}), (true, Some(375))),
        (json!({"field": "views", "op": "<", "value": 1, "within": "2d"}), (false, Some(26))),
        (json!({"field": "last_order", "within": "7d"}), (true, Some(27))),
        (json!({"not": {"field": "last_order", "within": "5d"}}), (true, None)),
        (json!({"field": "last_click", "op": "exists"}), (false, None)),
        (json!({"field": "country", "op": "in", "value": ["AT", "DE"]}), (true, None)),
        (json!({"field": "interests", "op": "contains", "value": "tea"}), (false, None)),
        (json!({"field": "categories", "op": "contains", "value": "tea"}), (true, None)),
        (json!({"field": "segments", "op": "contains", "value": "active"}), (true, None)),
        (json!({"field": "viewed", "op": "contains", "value": "p"}), (true, Some(38))),
        (json!({"field": "consented", "op": "=", "value": false}), (true, None)),
        (
            json!({"any": [{"field": "country", "op": "=", "value": "FR"}, {"all": [{"field": "last_order", "within": "7d"}]}]}),
            (true, Some(27)),
        ),
    ] {
        assert_eq!(verdict(condition.clone()), expected, "{condition}");
    }
}

#[test]
fn a_mistake_is_said_with_its_path() {
    let deep = (0..20).fold(json!({"field": "cart", "op": "=", "value": true}), |inner, _| json!({"not": inner}));
    for (condition, error) in [
        (json!([]), "vip: [] is not a condition"),
        (json!({}), "vip: a condition has exactly one of"),
        (json!({"all": [], "any": []}), "vip: a condition has exactly one of"),
        (json!({"all": []}), "vip.all: is not a list of at least one"),
        (json!({"not": {"field": "cart", "op": "=", "value": true}, "value": 1}), "vip.value: does not belong beside not"),
        (
            json!({"all": [{"field": "cart", "op": "=", "value": true}, {"field": "ordrs"}]}),
            "vip.all[1].field: 'ordrs' is not one of orders",
        ),
        (json!({"field": "orders", "op": "~", "value": 1}), "vip.op: ~ is not one of"),
        (json!({"field": "orders", "op": ">", "value": "many"}), "vip.value: 'many' is not a number"),
        (json!({"field": "orders", "op": ">"}), "vip.value: nothing is not a number"),
        (json!({"field": "orders", "op": ">", "value": 1, "within": "400d"}), "vip.within: is longer than the 365 days"),
        (json!({"field": "views", "op": ">", "value": 1, "within": "15d"}), "vip.within: is longer than the 14 days"),
        (json!({"field": "orders", "op": ">", "value": 1, "within": "a month"}), "vip.within: 'a month' is not a length"),
        (json!({"field": "country", "op": "=", "value": "DE", "within": "1d"}), "vip.within: country is not counted over time"),
        (json!({"field": "country", "op": ">", "value": "DE"}), "vip.op: country takes = or in, not >"),
        (json!({"field": "last_order", "op": "=", "value": 1, "within": "1d"}), "vip.op: last_order takes within"),
        (json!({"field": "last_order"}), "vip.op: last_order takes exists, not nothing"),
        (json!({"field": "cart", "op": "=", "value": "yes"}), "vip.value: cart is true or false"),
        (json!({"field": "cart", "op": "=", "value": true, "witin": "1d"}), "vip.witin: is not one of field"),
        (deep, "is nested deeper"),
    ] {
        let found = parse(condition.clone()).unwrap_err();
        assert!(found.contains(error), "{condition}: {found}, not {error}");
    }
}
