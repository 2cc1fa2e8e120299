//! What was undone before it came, as all systems of the customers see it.

use super::early::{ROWS, WAITING};
use crate::pricing::Place;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tillflow_engine_api::testing::Driver;
use tillflow_schemas::{CustomerSignal, DemandSignal, EmailResult, EmailTrigger, Record, Timestamp};
use tillflow_state::{prefix_of, rows_under};

/// Minutes after ten on 1 March 2026.
fn minute(n: i64) -> Timestamp {
    Timestamp::parse("2026-03-01T10:00:00Z").unwrap() + std::time::Duration::from_secs(60 * u64::try_from(n).unwrap())
}

const DAY: i64 = 24 * 60;

/// Orders and pieces by product and place.
type Demand = BTreeMap<(String, Timestamp), (i64, i64)>;

struct Shop {
    driver: Driver,
}

impl Shop {
    /// All of the customers' systems, a segment for each five spent, and a campaign that thanks for orders.
    fn open() -> Self {
        let spent = |n: u32| (format!("spent{}", 5 * n), json!({"field": "net_spend", "op": ">=", "value": 5 * n}));
        let mut segments: serde_json::Map<_, _> = (1..=20).map(spent).collect();
        segments.insert("twice".into(), json!({"field": "orders", "op": ">=", "value": 2}));
        let thanks =
            json!({"trigger": {"event": "order_completed"}, "steps": [{"wait": "1h", "template": "thanks"}], "exit": ["order_cancelled"]});
        let settings = json!({"email": {"own_segments": segments, "campaigns": {"thanks": thanks}, "cap": "0h"}});
        let mut driver = Driver::group(&crate::customers(settings.as_object().unwrap()));
        driver.send_json("customer", json!({"user_id": "u", "email": "u@example.org", "consent": {"status": "granted"}}));
        Self { driver }
    }

    fn event(&mut self, at: i64, event_type: &str, fields: Value) -> &mut Self {
        let mut event = json!({"event_type": event_type, "user_id": "u", "timestamp": minute(at)});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.driver.send_json("user_event", event);
        for signal in self.driver.emitted::<CustomerSignal>() {
            self.driver.send(signal.into_event());
        }
        self
    }

    fn order(&mut self, at: i64, id: &str) -> &mut Self {
        self.event(at, "order_completed", order(id))
    }

    fn until(&mut self, at: i64) -> &mut Self {
        self.driver.advance(minute(at));
        self
    }

    /// Rows that something still waits in.
    fn waiting(&mut self) -> usize {
        self.driver.commit();
        let store = self.driver.task().store();
        [ROWS, WAITING].iter().map(|table| rows_under(store, &prefix_of(table), "u").unwrap().len()).sum()
    }

    /// Mails released or not, by template or campaign, and order.
    fn mails(&mut self) -> Vec<String> {
        let triggers = self.driver.emitted::<EmailTrigger>();
        let mut mails: Vec<_> =
            triggers.iter().map(|t| format!("{} {}", t.template, t.data.get("order_id").unwrap_or(&json!(null)))).collect();
        mails.extend(self.driver.emitted::<EmailResult>().into_iter().map(|r| r.detail));
        mails.sort();
        mails
    }

    fn segments(&mut self) -> BTreeSet<String> {
        let answer = self.driver.query("segments", "u", "").unwrap().unwrap();
        serde_json::from_value(answer["segments"].clone()).unwrap()
    }

    /// Orders and pieces by product and place, as the products' side adds them up.
    fn demand(&mut self) -> Demand {
        let mut demand = Demand::new();
        for signal in self.driver.emitted::<DemandSignal>() {
            let sum: &mut (i64, i64) = demand.entry((signal.product_id.into_string(), signal.bucket)).or_default();
            *sum = (sum.0 + signal.orders, sum.1 + signal.units);
        }
        demand.retain(|_, sum| *sum != (0, 0));
        demand
    }
}

/// Two of one product at 5, one of another at 20: 30 in all. No order shares a product with another.
fn order(id: &str) -> Value {
    json!({"event_id": id, "order_id": id, "items": [
        {"product_id": format!("{id}-tea"), "quantity": 2, "price": "5"}, {"product_id": format!("{id}-pot"), "quantity": 1, "price": "20"},
    ]})
}

/// By the bucket of the order that it is the demand of: nothing is left where all was taken back.
fn by_order(demand: &Demand) -> BTreeMap<(&str, i64), (i64, i64)> {
    let mut sums = BTreeMap::new();
    for ((product, stamp), (orders, units)) in demand {
        let sum: &mut (i64, i64) = sums.entry((product.as_str(), Place::from_stamp(*stamp).of.0)).or_default();
        *sum = (sum.0 + orders, sum.1 + units);
    }
    sums.retain(|_, sum| *sum != (0, 0));
    sums
}

#[test]
fn an_order_that_was_cancelled_before_it_came_weighs_nothing_is_no_purchase_and_brings_no_mail() {
    let mut shop = Shop::open();
    // Late by more than the watermark allows: it counts in the bucket of now, and is taken back there.
    shop.event(100, "order_cancelled", json!({"order_id": "o"})).order(20, "o").order(101, "kept");
    let demand = shop.demand();
    assert_eq!(by_order(&demand).into_keys().map(|(product, _)| product).collect::<Vec<_>>(), ["kept-pot", "kept-tea"]);
    let segments = shop.segments();
    assert!(segments.contains("spent30") && !segments.contains("spent35") && !segments.contains("twice"), "{segments:?}");
    shop.until(8 * DAY);
    assert_eq!(shop.mails(), ["review_request \"kept\"", "thanks null"]);
    assert_eq!(shop.driver.query("loyalty", "u", "").unwrap().unwrap()["balance"], 30);
    assert!(shop.driver.failures.is_empty(), "{:?}", shop.driver.failures);
}

#[test]
fn what_was_refunded_before_the_order_came_is_taken_from_it_and_from_nothing_else() {
    let mut shop = Shop::open();
    shop.event(
        1,
        "order_refunded",
        json!({"refund_id": "r1", "order_id": "o", "items": [{"product_id": "o-pot", "quantity": 1, "price": "20"}]}),
    );
    shop.event(2, "order_refunded", json!({"refund_id": "r2", "order_id": "o", "amount": "2"}));
    shop.order(3, "before");
    assert!(shop.segments().contains("spent30"), "nothing is taken from others meanwhile");
    shop.order(4, "o");
    // 30 + 30 − 20 − 2, and an order still.
    let segments = shop.segments();
    assert!(segments.contains("spent35") && !segments.contains("spent40") && segments.contains("twice"), "{segments:?}");
    let demand = shop.demand();
    let of = |product: &str| demand.iter().filter(|((p, _), _)| p == product).fold((0, 0), |a, (_, b)| (a.0 + b.0, a.1 + b.1));
    assert_eq!((of("o-tea"), of("o-pot"), of("before-pot")), ((1, 2), (0, 0), (1, 1)));
    shop.until(8 * DAY);
    assert_eq!(shop.mails(), ["review_request \"before\"", "thanks null"], "a refund of a part ends the request too");
}

#[test]
fn what_waits_goes_with_its_order_or_after_thirty_days_each_as_a_dead_letter() {
    let mut shop = Shop::open();
    shop.event(0, "order_refunded", json!({"refund_id": "r1", "order_id": "o", "amount": "5"}));
    shop.event(5, "order_cancelled", json!({"order_id": "o"})).event(6, "order_cancelled", json!({"order_id": "never"}));
    assert_eq!(shop.waiting(), 4, "three, and how many");
    shop.order(7, "o").until(8);
    assert_eq!(shop.waiting(), 2);
    shop.event(9, "order_refunded", json!({"order_id": "never", "amount": "5"}));
    // Its order has come: it does not wait.
    shop.event(10, "order_refunded", json!({"order_id": "o", "amount": "5"}));
    assert_eq!(shop.waiting(), 3);
    shop.until(30 * DAY + 5);
    assert!(shop.driver.failures.is_empty(), "{:?}", shop.driver.failures);
    shop.until(30 * DAY + 6);
    assert_eq!((shop.driver.failures.len(), shop.waiting()), (1, 2));
    shop.until(30 * DAY + 9);
    let words = |said: &str| format!("shopper: {said} names order never, which user u did not place within 30 days");
    let said = [format!("a cancellation of {}", minute(6)), format!("refund 3, without an id, of {}, over 5,", minute(9))];
    assert_eq!((shop.waiting(), shop.driver.failures), (0, said.map(|said| words(&said)).to_vec()));
}

/// What may be undone of an order.
fn undoing(order: &str, n: usize, what: u8) -> (&'static str, Value) {
    let product = format!("{order}-{}", if what == 2 { "tea" } else { "pot" });
    let price = (what == 2).then_some("5");
    let mut fields = match what {
        0 => json!({"amount": "3"}),
        1 => json!({"amount": "27"}),
        2 | 3 => json!({"items": [{"product_id": product, "quantity": 1, "price": price}]}),
        _ => json!({}),
    };
    fields["order_id"] = json!(order);
    fields["event_id"] = json!(format!("e{n}"));
    (if what == 5 { "order_cancelled" } else { "order_refunded" }, fields)
}

/// An event, and when.
type Told = (i64, &'static str, Value);

fn tell(told: &[&Told], end: i64) -> (Shop, Demand) {
    let mut shop = Shop::open();
    for (at, event_type, fields) in told {
        shop.event(*at, event_type, fields.clone());
    }
    let demand = shop.demand();
    shop.until(end);
    assert!(shop.driver.failures.is_empty(), "{:?}", shop.driver.failures);
    (shop, demand)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Within a quarter of an hour, or over two days and a half, when whoever is late counts in the bucket of then.
    #[test]
    fn whatever_comes_first_the_same_is_left(
        undone in prop::collection::vec((0..2_usize, 0..6_u8), 0..7),
        arrival in prop::collection::vec((0..15_i64, any::<u32>()), 9),
        late: bool, twice: bool,
    ) {
        let orders = ["o0", "o1"];
        let apart = if late { 240 } else { 1 };
        let mut story: Vec<Told> = orders.iter().map(|id| (0, "order_completed", order(id))).collect();
        story.extend(undone.iter().enumerate().map(|(n, (of, what))| {
            let (event_type, fields) = undoing(orders[*of], n, *what);
            (0, event_type, fields)
        }));
        story.iter_mut().zip(&arrival).for_each(|(told, (at, _))| told.0 = at * apart);
        let mut by_time: Vec<_> = story.iter().collect();
        by_time.sort_by_key(|told| (told.1 != "order_completed", told.0));
        let mut shuffled: Vec<_> = story.iter().zip(&arrival).collect();
        shuffled.sort_by_key(|(_, (_, place))| *place);
        let mut shuffled: Vec<_> = shuffled.into_iter().map(|(told, _)| told).collect();
        if twice {
            shuffled = shuffled.iter().chain(&shuffled).copied().collect();
        }

        let (mut right, right_demand) = tell(&by_time, 12 * DAY);
        let (mut other, other_demand) = tell(&shuffled, 12 * DAY);
        prop_assert_eq!(right.segments(), other.segments());
        let account = |shop: &mut Shop| shop.driver.query("loyalty", "u", "").unwrap();
        prop_assert_eq!(account(&mut right), account(&mut other));
        let reviews = |shop: &mut Shop| shop.mails().into_iter().filter(|mail| mail.contains("review")).collect::<Vec<_>>();
        prop_assert_eq!(reviews(&mut right), reviews(&mut other));
        prop_assert_eq!((right.waiting(), other.waiting()), (0, 0));
        if !late {
            prop_assert_eq!(&right_demand, &other_demand);
        }
        let left = |demand: &Demand| {
            let mut left: BTreeMap<String, (i64, i64)> = BTreeMap::new();
            for ((product, _), (orders, units)) in by_order(demand) {
                let sum = left.entry(product.to_owned()).or_default();
                *sum = (sum.0 + orders, sum.1 + units);
            }
            left
        };
        prop_assert_eq!(left(&right_demand), left(&other_demand));
    }
}
