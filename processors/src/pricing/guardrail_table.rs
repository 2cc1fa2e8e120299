//! Every guardrail by example: what goes in, what price comes out, and the names of what held or bounded it.

use super::{Decision, Figures, Inputs, Number, PricingParameters, Score, decide};
use rust_decimal::Decimal;
use std::str::FromStr;
use tillflow_schemas::Timestamp;

pub(super) fn d(text: &str) -> Decimal {
    Decimal::from_str(text).unwrap()
}

pub(super) fn hours(h: f64) -> Timestamp {
    Timestamp::from_millis(1_772_323_200_000 + (h * 3_600_000.0) as i64)
}

/// Base 100, current 100, stock 60, score 0, nothing else known, at hour 100.
pub(super) fn inputs() -> Inputs {
    Inputs {
        now: hours(100.0),
        base: d("100"),
        current: d("100.00"),
        limits: Default::default(),
        digits: 2,
        price_fixed: false,
        stock: Some(60),
        demand: Figures::default(),
        day_ago: d("100.00"),
        last_change: None,
        last_markdown: None,
    }
}

struct Case {
    name: &'static str,
    given: fn(&mut Inputs, &mut PricingParameters),
    price: &'static str,
    /// What held it, and what bounded it, in order.
    by: &'static [&'static str],
    reason: &'static str,
}

fn score(i: &mut Inputs, score: f64) {
    i.demand.score = Score::rounded(score);
}
fn number(text: &str) -> Number {
    Number(d(text))
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // b. Raw.
    Case { name: "low stock drifts up from the current price", given: |i, _| { i.stock = Some(15); score(i, 2.0) },
        price: "110.00", by: &[], reason: "Low stock (15)" },
    Case { name: "one below low is low", given: |i, _| { i.stock = Some(19); i.current = d("104"); score(i, 1.0) },
        price: "109.00", by: &[], reason: "Low stock (19)" },
    Case { name: "low itself is moderate", given: |i, _| { i.stock = Some(20); i.current = d("104"); score(i, 1.0) },
        price: "105.00", by: &[], reason: "Moderate stock (20), demand score: 1" },
    Case { name: "moderate stock goes by the base price", given: |i, _| { i.current = d("108"); score(i, 3.0) },
        price: "115.00", by: &[], reason: "Moderate stock (60), demand score: 3" },
    Case { name: "and comes down with the score", given: |i, _| { i.current = d("108"); score(i, 0.4) },
        price: "102.00", by: &[], reason: "Moderate stock (60), demand score: 0.4" },
    Case { name: "high itself is moderate", given: |i, _| { i.stock = Some(100); score(i, 1.0) },
        price: "105.00", by: &[], reason: "Moderate stock (100), demand score: 1" },
    Case { name: "high stock in low demand is marked down", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("50")) },
        price: "95.00", by: &[], reason: "High stock (140), low demand" },
    Case { name: "a min_price is as good a floor as a cost", given: |i, _| { i.stock = Some(140); i.limits.min_price = Some(d("50")) },
        price: "95.00", by: &[], reason: "High stock (140), low demand" },
    Case { name: "without a floor it is not", given: |i, _| { i.stock = Some(140); i.current = d("110") },
        price: "100.00", by: &[], reason: "High stock (140), demand score: 0" },
    Case { name: "nor when a piece a day is sold", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("50")); i.demand.velocity = 1.0 },
        price: "100.00", by: &["min_change"], reason: "High stock (140), demand score: 0" },
    Case { name: "nor when demand grows", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("50")); i.demand.last_day = 11.1; i.demand.day_before = 10.0 },
        price: "100.00", by: &["min_change"], reason: "High stock (140), demand score: 0" },
    Case { name: "but when it grows by a tenth only", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("50")); i.demand.last_day = 11.0; i.demand.day_before = 10.0 },
        price: "95.00", by: &[], reason: "High stock (140), low demand" },
    Case { name: "nor twice in a day", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("50")); i.last_markdown = Some(hours(76.1)) },
        price: "100.00", by: &["min_change"], reason: "High stock (140), demand score: 0" },
    Case { name: "but again a day later", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("50")); i.last_markdown = Some(hours(76.0)) },
        price: "95.00", by: &[], reason: "High stock (140), low demand" },
    Case { name: "high stock never rises", given: |i, _| { i.stock = Some(140); score(i, 5.0) },
        price: "100.00", by: &["min_change"], reason: "High stock (140), demand score: 5" },

    // a. Gates.
    Case { name: "the kill switch", given: |i, p| { i.stock = Some(5); score(i, 5.0); p.kill_switch = true },
        price: "100.00", by: &["kill_switch"], reason: "" },
    Case { name: "a pin", given: |i, p| { i.stock = Some(5); score(i, 5.0); p.pin = true },
        price: "100.00", by: &["pin"], reason: "" },
    Case { name: "the tag price_fixed", given: |i, _| { i.stock = Some(5); score(i, 5.0); i.price_fixed = true },
        price: "100.00", by: &["price_fixed"], reason: "" },
    Case { name: "no stock record", given: |i, _| { i.stock = None; score(i, 5.0) },
        price: "100.00", by: &["no_stock_record"], reason: "" },
    Case { name: "nothing in stock", given: |i, _| { i.stock = Some(0); score(i, 5.0) },
        price: "100.00", by: &["out_of_stock"], reason: "" },
    Case { name: "oversold", given: |i, _| { i.stock = Some(-3); score(i, 5.0) },
        price: "100.00", by: &["out_of_stock"], reason: "" },
    Case { name: "a change within the hour", given: |i, _| { score(i, 2.0); i.last_change = Some((hours(99.01), 1)) },
        price: "100.00", by: &["cool_down"], reason: "" },
    Case { name: "an hour later it may change", given: |i, _| { score(i, 2.0); i.last_change = Some((hours(99.0), 1)) },
        price: "110.00", by: &[], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "no turn within six hours", given: |i, _| { score(i, 2.0); i.last_change = Some((hours(94.01), -1)) },
        price: "100.00", by: &["turn"], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "six hours later it may turn", given: |i, _| { score(i, 2.0); i.last_change = Some((hours(94.0), -1)) },
        price: "110.00", by: &[], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "after a change without direction there is no turn", given: |i, _| { score(i, 2.0); i.last_change = Some((hours(99.0), 0)) },
        price: "110.00", by: &[], reason: "Moderate stock (60), demand score: 2" },

    // c. Soft range.
    Case { name: "15 % up at most", given: |i, _| { i.stock = Some(15); score(i, 10.0) },
        price: "115.00", by: &["max_change"], reason: "Low stock (15)" },
    Case { name: "15 % down at most", given: |i, _| { i.current = d("140"); i.day_ago = d("140") },
        price: "119.00", by: &["max_change"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "25 % above the day before at most", given: |i, _| { i.stock = Some(15); i.current = d("120"); score(i, 2.0) },
        price: "125.00", by: &["max_change_24h"], reason: "Low stock (15)" },
    Case { name: "25 % below the day before at most", given: |i, _| { i.current = d("110"); i.day_ago = d("140") },
        price: "105.00", by: &["max_change_24h"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "50 % above the base price at most", given: |i, _| { i.stock = Some(15); i.current = d("145"); i.day_ago = d("145"); score(i, 2.0) },
        price: "150.00", by: &["base_range"], reason: "Low stock (15)" },
    Case { name: "30 % below the base price at most", given: |i, _| { i.stock = Some(140); i.limits.cost = Some(d("1")); i.current = d("72"); i.day_ago = d("72") },
        price: "70.00", by: &["base_range"], reason: "High stock (140), low demand" },
    Case { name: "all three in order", given: |i, _| { i.stock = Some(15); i.current = d("135"); i.day_ago = d("122"); score(i, 10.0) },
        price: "150.00", by: &["max_change", "max_change_24h", "base_range"], reason: "Low stock (15)" },
    Case { name: "ranges that do not meet: as near as the narrower allows", given: |i, _| { i.current = d("200"); i.day_ago = d("200") },
        price: "170.00", by: &["max_change"], reason: "Moderate stock (60), demand score: 0" },

    // d. Hard range.
    Case { name: "min_price", given: |i, _| { i.current = d("108"); i.limits.min_price = Some(d("104")) },
        price: "104.00", by: &["min_price"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "max_price", given: |i, _| { score(i, 2.0); i.limits.max_price = Some(d("106")) },
        price: "106.00", by: &["max_price"], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "cost", given: |i, _| { i.current = d("108"); i.limits.cost = Some(d("103")) },
        price: "103.00", by: &["cost_floor"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "cost and margin", given: |i, p| { i.current = d("108"); i.limits.cost = Some(d("100")); p.min_margin = number("0.06") },
        price: "106.00", by: &["cost_floor"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "the higher floor", given: |i, _| { i.current = d("108"); i.limits.cost = Some(d("103")); i.limits.min_price = Some(d("104")) },
        price: "104.00", by: &["min_price"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "hard wins over soft", given: |i, _| i.limits.min_price = Some(d("130")),
        price: "130.00", by: &["min_price"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "hard wins over soft also downwards", given: |i, _| { i.stock = Some(15); score(i, 10.0); i.limits.max_price = Some(d("70")) },
        price: "70.00", by: &["max_change", "max_price"], reason: "Low stock (15)" },
    Case { name: "an empty range", given: |i, _| { score(i, 2.0); i.limits.cost = Some(d("120")); i.limits.max_price = Some(d("110")) },
        price: "100.00", by: &["conflict"], reason: "" },
    Case { name: "a range between two cents", given: |i, _| { score(i, 2.0); i.limits.min_price = Some(d("101.001")); i.limits.max_price = Some(d("101.009")) },
        price: "100.00", by: &["conflict"], reason: "" },

    // d newly broken.
    Case { name: "a broken limit passes a cool-down", given: |i, _| { i.limits.min_price = Some(d("101")); i.last_change = Some((hours(99.5), 1)) },
        price: "101.00", by: &["min_price"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "and a turn, and the smallest change", given: |i, _| { i.limits.min_price = Some(d("100.10")); i.last_change = Some((hours(99.5), -1)) },
        price: "100.10", by: &["min_price"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "and an empty shelf, but for the limit only", given: |i, _| { i.stock = Some(0); score(i, 9.0); i.limits.cost = Some(d("101")) },
        price: "101.00", by: &["cost_floor"], reason: "Price limit (cost_floor)" },
    Case { name: "and the tag price_fixed", given: |i, _| { i.price_fixed = true; score(i, 9.0); i.limits.max_price = Some(d("90")) },
        price: "90.00", by: &["max_price"], reason: "Price limit (max_price)" },
    Case { name: "and an unknown stock", given: |i, _| { i.stock = None; i.limits.min_price = Some(d("150")) },
        price: "150.00", by: &["min_price"], reason: "Price limit (min_price)" },
    Case { name: "but not the kill switch", given: |i, p| { i.limits.min_price = Some(d("150")); p.kill_switch = true },
        price: "100.00", by: &["kill_switch"], reason: "" },
    Case { name: "nor a pin", given: |i, p| { i.limits.min_price = Some(d("150")); p.pin = true },
        price: "100.00", by: &["pin"], reason: "" },

    // e. Rounding.
    Case { name: "half to even: 105.105", given: |i, p| { i.base = d("100.10"); p.multiplier = number("0.1"); score(i, 0.5) },
        price: "105.10", by: &[], reason: "Moderate stock (60), demand score: 0.5" },
    Case { name: "half to even: 102.255", given: |i, p| { i.base = d("100.25"); p.multiplier = number("0.1"); score(i, 0.2) },
        price: "102.26", by: &[], reason: "Moderate stock (60), demand score: 0.2" },
    Case { name: "limits are rounded inward, up", given: |i, _| { i.current = d("108"); i.limits.min_price = Some(d("104.001")) },
        price: "104.01", by: &["min_price"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "limits are rounded inward, down", given: |i, _| { score(i, 2.0); i.limits.max_price = Some(d("106.009")) },
        price: "106.00", by: &["max_price"], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "soft limits too", given: |i, _| { i.stock = Some(15); i.current = d("100.01"); score(i, 10.0) },
        price: "115.01", by: &["max_change"], reason: "Low stock (15)" },
    Case { name: "a currency without cents", given: |i, _| { i.digits = 0; score(i, 0.3) },
        price: "102", by: &[], reason: "Moderate stock (60), demand score: 0.3" },
    Case { name: "a charm ending", given: |i, p| { score(i, 2.0); p.charm_endings = vec![number("0.99"), number("0.95")] },
        price: "109.99", by: &["charm"], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "the greatest of them", given: |i, p| { i.base = d("99.98"); score(i, 2.0); p.charm_endings = vec![number("0.95"), number("0.99")] },
        price: "109.95", by: &["charm"], reason: "Moderate stock (60), demand score: 2" },
    Case { name: "unless it leaves the range", given: |i, p| { score(i, 2.0); i.limits.min_price = Some(d("110")); p.charm_endings = vec![number("0.99")] },
        price: "110.00", by: &[], reason: "Moderate stock (60), demand score: 2" },

    // f. Too small.
    Case { name: "less than half a percent", given: |i, _| { i.current = d("99.51"); i.day_ago = d("99.51") },
        price: "99.51", by: &["min_change"], reason: "Moderate stock (60), demand score: 0" },
    Case { name: "half a percent itself is enough", given: |i, _| score(i, 0.1),
        price: "100.50", by: &[], reason: "Moderate stock (60), demand score: 0.1" },
    Case { name: "nothing is for nothing", given: |i, _| { i.base = d("0"); i.current = d("0"); i.day_ago = d("0"); score(i, 9.0) },
        price: "0", by: &["min_change"], reason: "Moderate stock (60), demand score: 9" },
];

pub(super) fn by(decision: &Decision) -> Vec<String> {
    let gate = decision.gate.iter().map(|g| serde_json::to_value(g).unwrap().as_str().unwrap().to_owned());
    gate.chain(decision.bites.iter().map(|b| b.bound.name().to_owned())).collect()
}

#[test]
fn every_guardrail_by_example() {
    for case in CASES {
        let (mut i, mut p) = (inputs(), PricingParameters::default());
        (case.given)(&mut i, &mut p);
        let decision = decide(&i, &p);
        assert_eq!(decision.price, d(case.price), "{}: {decision:?}", case.name);
        assert_eq!(by(&decision), case.by, "{}", case.name);
        assert_eq!(decision.raw.map(|r| r.reason).unwrap_or_default(), case.reason, "{}", case.name);
    }
}

#[test]
fn the_name_of_a_bound_is_the_same_in_words_and_in_json() {
    use super::Bound::*;
    for bound in [MaxChange, MaxChange24h, BaseRange, MinPrice, CostFloor, MaxPrice, Charm] {
        assert_eq!(serde_json::to_value(bound).unwrap(), bound.name());
    }
}
