//! What a shop sees of its prices, told as its stories. Both groups run as they do in production.

use super::{BUCKET, DemandSignals, Pricing, processor::next_hourly};
use crate::shopper::Shopper;
use serde_json::{Map, Value, json};
use tillflow_engine_api::{Group, testing::Driver};
use tillflow_schemas::{
    DemandSignal, Event, Inventory, PriceChange, PricingRule, ProductId, ProductPrice, ProductStatus, Record, Timestamp, UserEvent,
};

/// A shop of two task groups.
pub(super) struct Shop {
    pub customers: Driver,
    pub products: Driver,
}

pub(super) fn at(time: &str) -> Timestamp {
    Timestamp::parse(&format!("2026-03-{time}:00Z")).unwrap()
}

fn with(mut value: Value, more: Value) -> Value {
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

impl Shop {
    pub fn open() -> Self {
        Self::with_settings(json!({}))
    }

    pub fn with_settings(settings: Value) -> Self {
        let settings: Map<String, Value> = settings.as_object().unwrap().clone();
        let customers =
            Group::new::<UserEvent>("customers", None, &settings).with::<Shopper>("shopper").with::<DemandSignals>("demand_signals");
        let products = Group::new::<Inventory>("products", Some("customers"), &settings).with::<Pricing>("pricing");
        Self { customers: Driver::group(&customers), products: Driver::group(&products) }
    }

    /// A product record.
    pub fn product(&mut self, fields: Value) -> &mut Self {
        let value = with(json!({"product_id": "p1", "name": "Teapot", "category": "tea", "base_price": "100"}), fields);
        let event = Event::from_value("product", None, value).unwrap();
        self.products.send(event);
        self
    }

    pub fn rule(&mut self, value: Value) -> &mut Self {
        let rule: PricingRule = serde_json::from_value(value).unwrap();
        self.products.global(rule.clone());
        self.products.send(rule.into_event());
        self
    }

    pub fn stock(&mut self, time: &str, level: i64) -> &mut Self {
        self.products.send(Inventory { product_id: "p1".into(), stock_level: level, last_updated: at(time) }.into_event());
        self
    }

    /// A shopper's event; its signals wait until [`Shop::until`].
    pub fn event(&mut self, time: &str, event_type: &str, user: &str, fields: Value) -> &mut Self {
        let value = with(json!({"event_type": event_type, "user_id": user, "timestamp": at(time)}), fields);
        self.customers.send_json("user_event", value);
        self
    }

    pub fn signals(&mut self) -> Vec<DemandSignal> {
        self.customers.emitted()
    }

    /// Hands over what the customers' side counted and moves time forward.
    pub fn until(&mut self, time: &str) -> &mut Self {
        self.customers.advance(at(time));
        for signal in self.signals() {
            self.products.send(signal.into_event());
        }
        self.products.advance(at(time));
        assert!(self.products.failures.is_empty(), "{:?}", self.products.failures);
        assert!(self.customers.failures.is_empty(), "{:?}", self.customers.failures);
        self
    }

    pub fn changes(&mut self) -> Vec<PriceChange> {
        self.products.emitted()
    }

    pub fn prices(&mut self) -> Vec<String> {
        self.products.emitted::<ProductPrice>().into_iter().map(|p| p.price.to_string()).collect()
    }

    pub fn ask(&mut self, name: &str) -> Value {
        self.products.query(name, "p1", "").unwrap().unwrap_or_else(|| panic!("no answer to {name}"))
    }

    /// `(new price, reason)` of all changes since the last call.
    fn told(&mut self) -> Vec<(String, String)> {
        self.changes().into_iter().map(|c| (c.new_price.to_string(), c.reason)).collect()
    }
}

fn said(price: &str, reason: &str) -> Vec<(String, String)> {
    vec![(price.into(), reason.into())]
}

#[test]
fn base_100_current_100_score_2_stock_15_becomes_110() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "version": 3, "demand_score": 2})).product(json!({"currency": "EUR"}));
    assert_eq!(shop.prices(), ["100.00"], "a product has a price from its first record on");
    shop.stock("01T10:00", 15).until("01T10:01");
    let changes = shop.changes();
    let [change] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(
        serde_json::to_value(change).unwrap(),
        json!({
            "product_id": "p1", "old_price": "100.00", "new_price": "110.00", "currency": "EUR", "reason": "Low stock (15)",
            "demand_score": 2.0, "stock_level": 15, "rule": "default@3", "mode": "live", "decided_at": "2026-03-01T10:00:00.000Z",
        })
    );
    assert_eq!(shop.prices(), ["110.00"]);
    assert_eq!(shop.ask("price")["price"], "110.00");
}

#[test]
fn stock_known_before_its_product_is_a_crossing_when_the_product_comes() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 2})).stock("01T10:00", 15).until("01T10:10");
    shop.product(json!({"valid_from": at("01T10:10")})).until("01T10:11");
    assert_eq!(shop.told(), said("110.00", "Low stock (15)"));
    // A first version without a date has always counted; the level's own time decides.
    let mut late = Shop::open();
    late.rule(json!({"scope": "default", "demand_score": 2})).stock("01T10:00", 15).until("01T10:10");
    late.product(json!({})).until("01T10:11");
    assert_eq!(late.told(), said("110.00", "Low stock (15)"));
    let mut calm = Shop::open();
    calm.rule(json!({"scope": "default", "demand_score": 2})).stock("01T10:00", 60).until("01T10:10");
    calm.product(json!({"valid_from": at("01T10:10")})).until("01T10:11");
    assert_eq!(calm.told(), [], "moderate stock waits for the hour");
}

#[test]
fn score_10_is_bounded_to_115() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 10})).product(json!({})).stock("01T10:00", 15).until("01T10:01");
    let changes = shop.changes();
    assert_eq!(
        (changes[0].new_price.to_string().as_str(), changes[0].bounded_by.as_slice()),
        ("115.00", ["max_change".to_owned()].as_slice())
    );
}

#[test]
fn a_score_of_2_made_by_real_shoppers_raises_a_scarce_product_to_110() {
    let mut shop = Shop::open();
    // 16 views: S = 16 when their bucket ends; no order: C = 0.4/36, c = 0.5556; 10·(1 − 2^(−16·0.5556/50)) = 1.16.
    // With 4 adds: S = 28, 2^(−0.3111): 1.94, so 1.9 rounded; one more view of another shopper makes it 2.
    for user in 0..16 {
        shop.event("01T09:50", "product_viewed", &format!("u{user}"), json!({"product_id": "p1"}));
    }
    for user in 0..4 {
        shop.event("01T09:51", "added_to_cart", &format!("u{user}"), json!({"product_id": "p1", "quantity": 3}));
    }
    shop.event("01T09:52", "checkout_started", "u0", json!({"cart_id": "c"}));
    shop.product(json!({})).stock("01T10:00", 15).until("01T10:01");
    let change = &shop.changes()[0];
    assert_eq!((change.demand_score, change.reason.as_str()), (2.2, "Low stock (15)"));
    assert_eq!(change.new_price.to_string(), "111.00");
}

#[test]
fn moderate_stock_goes_by_the_score_and_high_stock_is_marked_down_where_a_floor_is_known() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 3})).product(json!({"cost": "60"}));
    shop.stock("01T10:00", 60).until("01T20:00");
    assert_eq!(shop.told(), said("115.00", "Moderate stock (60), demand score: 3"));
    shop.stock("02T10:00", 140).until("02T10:01");
    assert_eq!(shop.told(), said("109.25", "High stock (140), low demand"));
    shop.until("03T09:59");
    assert_eq!(shop.told(), [], "one markdown a day");
    shop.until("03T11:00");
    assert_eq!(shop.told(), said("103.79", "High stock (140), low demand"));
}

#[test]
fn high_stock_without_a_known_floor_never_rises_and_is_not_marked_down() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 3})).product(json!({}));
    shop.stock("01T10:00", 140).until("02T10:00");
    assert_eq!(shop.told(), []);
    assert_eq!(shop.ask("price/explain")["last_decision"]["reason"], "High stock (140), demand score: 3");
}

#[test]
fn prices_are_looked_at_every_hour_at_the_product_s_own_second() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 1})).product(json!({})).stock("01T10:00", 60);
    let decided = next_hourly(&ProductId::from("p1"), at("01T10:00"));
    shop.until("01T11:30");
    let changes = shop.changes();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].decided_at, changes[0].new_price.to_string().as_str()), (decided, "105.00"));
    assert_eq!(changes[0].reason, "Moderate stock (60), demand score: 1");
    shop.rule(json!({"scope": "default", "demand_score": 2, "valid_from": at("01T12:00")})).until("01T13:30");
    assert_eq!(shop.told(), said("110.00", "Moderate stock (60), demand score: 2"));
}

#[test]
fn in_a_cool_down_a_crossing_is_decided_once_at_its_end() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 1, "cool_down_minutes": 50})).product(json!({}));
    let hourly = next_hourly(&ProductId::from("p1"), at("01T10:00"));
    let minutes = |n: i64| Timestamp::from_millis(hourly.millis() + n * 60_000);
    let stock = |shop: &mut Shop, at: Timestamp, level: i64| {
        shop.products.send(Inventory { product_id: "p1".into(), stock_level: level, last_updated: at }.into_event());
    };
    stock(&mut shop, minutes(5), 15);
    stock(&mut shop, minutes(15), 60);
    stock(&mut shop, minutes(25), 10);
    shop.products.advance(minutes(56));
    let changes = shop.changes();
    assert_eq!(changes.iter().map(|c| c.decided_at).collect::<Vec<_>>(), [minutes(5), minutes(55)]);
    assert_eq!(changes[1].reason, "Low stock (10)");
}

#[test]
fn a_new_base_price_is_the_price_at_once_and_drift_begins_anew() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 2})).product(json!({})).stock("01T10:00", 15).until("01T10:01");
    shop.changes();
    shop.product(json!({"base_price": "80"}));
    assert_eq!(shop.told(), said("80.00", "Base price changed"));
    assert_eq!(shop.ask("price/explain")["made_by"]["reason"], "Base price changed");
    shop.until("01T12:00");
    assert_eq!(shop.told(), said("88.00", "Low stock (15)"), "an hour later it drifts from the new base, and 110 bounds it no more");
}

#[test]
fn a_base_price_stated_for_later_counts_from_then() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 0})).product(json!({})).stock("01T10:00", 60).until("01T10:01");
    let later = Event::from_value(
        "product",
        None,
        json!({"product_id": "p1", "category": "tea", "base_price": "90", "valid_from": at("02T00:00")}),
    );
    let globals = tillflow_engine_api::Globals::default();
    shop.products.task().process(&later.unwrap(), &globals).unwrap();
    shop.until("01T23:59");
    assert_eq!(shop.ask("price")["price"], "100.00");
    shop.until("02T00:00");
    assert_eq!(shop.told(), said("90.00", "Base price changed"));
    assert_eq!(shop.ask("price")["since"], json!(at("02T00:00")));
}

#[test]
fn a_floor_raised_above_the_price_moves_it_even_in_a_cool_down_or_out_of_stock() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 0})).product(json!({"cost": "50"})).stock("01T10:00", 0).until("01T10:01");
    assert_eq!(shop.told(), []);
    shop.product(json!({"cost": "130"})).until("01T10:02");
    assert_eq!(shop.told(), said("130.00", "Price limit (cost_floor)"));
    shop.product(json!({"cost": "130", "min_price": "140.005"})).until("01T10:03");
    assert_eq!(shop.told(), said("140.01", "Price limit (min_price)"), "a limit is rounded inward");
    shop.rule(json!({"scope": "product:p1", "pin": true})).product(json!({"cost": "200"})).until("01T10:04");
    assert_eq!(shop.told(), [], "a pin holds against everything");
}

#[test]
fn in_shadow_mode_decisions_are_published_and_change_nothing() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "category:tea", "version": 7, "mode": "shadow", "demand_score": 2})).product(json!({}));
    shop.prices();
    shop.stock("01T10:00", 15).until("01T18:00");
    let changes = shop.changes();
    let told: Vec<_> = changes.iter().map(|c| serde_json::to_value(c).unwrap()).collect();
    assert_eq!(told.len(), 1, "said once, not every hour: {told:?}");
    assert_eq!((told[0]["mode"].as_str(), told[0]["rule"].as_str()), (Some("shadow"), Some("category:tea@7")));
    assert_eq!(shop.prices(), [""; 0]);
    assert_eq!((&shop.ask("price")["price"], &shop.ask("price")["lowest_30d"]), (&json!("100.00"), &json!("100.00")));
}

#[test]
fn the_kill_switch_stops_every_change() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "kill_switch": true, "demand_score": 9}))
        .product(json!({}))
        .stock("01T10:00", 3)
        .until("02T10:00");
    assert_eq!(shop.told(), []);
    assert_eq!(shop.ask("price/explain")["last_decision"]["held_by"], "kill_switch");
}

#[test]
fn the_most_specific_rule_wins_field_by_field() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 1, "low": 50}));
    shop.rule(json!({"scope": "category:tea", "multiplier": 0.1}));
    shop.rule(json!({"scope": "product:p1", "demand_score": 2.5, "max_change": 0.3, "max_change_24h": 0.3}));
    shop.product(json!({})).stock("01T10:00", 49).until("01T10:01");
    assert_eq!(shop.told(), said("125.00", "Low stock (49)"));
}

#[test]
fn a_rule_that_can_t_be_read_goes_to_the_dead_letters_and_changes_no_price() {
    let mut shop = Shop::open();
    let rule: PricingRule = serde_json::from_value(json!({"scope": "product:p1", "multipler": 0.5})).unwrap();
    shop.product(json!({}));
    shop.products.global(rule.clone());
    shop.products.send(rule.into_event());
    assert!(shop.products.failures.remove(0).contains("unknown field `multipler`"));
    shop.stock("01T10:00", 15).until("01T12:00");
    assert_eq!(shop.told(), []);
    let explained = shop.ask("price/explain");
    assert_eq!(explained["last_decision"]["held_by"], "invalid_rule");
    assert!(explained["last_decision"]["problem"].as_str().unwrap().contains("multipler"));
    let upside_down: PricingRule = serde_json::from_value(json!({"scope": "category:tea", "low": 150})).unwrap();
    shop.products.send(upside_down.into_event());
    assert!(shop.products.failures.remove(0).contains("low: 150 is above high 100"));
}

#[test]
fn stock_read_ahead_of_the_clock_does_not_reach_back_into_a_decision() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 1})).product(json!({}));
    shop.stock("01T10:00", 15);
    // The inventory topic is read hours ahead of the shoppers' events.
    let ahead = Inventory { product_id: "p1".into(), stock_level: 60, last_updated: at("01T15:00") };
    let mut rules = tillflow_engine_api::Globals::default();
    let rule: PricingRule = serde_json::from_value(json!({"scope": "default", "demand_score": 1})).unwrap();
    rules.apply(&rule.into_event(), at("01T00:00"));
    shop.products.task().process(&ahead.into_event(), &rules).unwrap();
    shop.until("01T14:00");
    let changes = shop.changes();
    assert!(!changes.is_empty() && changes.iter().all(|c| c.stock_level == Some(15)), "{changes:?}");
    shop.until("01T16:00");
    assert_eq!(shop.ask("price/explain")["last_decision"]["inputs"]["stock_level"], 60);
}

#[test]
fn stock_older_than_the_newest_seen_is_ignored() {
    let mut shop = Shop::open();
    shop.product(json!({})).stock("01T10:00", 60).stock("01T09:00", 3).until("01T10:30");
    assert_eq!(shop.ask("")["stock_level"], 60);
}

#[test]
fn the_rest_of_the_shop_hears_of_stock_and_price() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 2})).product(json!({}));
    shop.stock("01T10:00", 15).stock("01T10:05", 15).until("01T10:06");
    let heard: Vec<_> =
        shop.products.emitted::<ProductStatus>().into_iter().map(|s| (s.stock_level, s.price.unwrap().to_string())).collect();
    assert_eq!(heard, [(None, "100.00".into()), (Some(15), "100.00".into()), (Some(15), "110.00".into())]);
}

#[test]
fn what_a_shop_asks_about_a_product() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 2}));
    shop.product(json!({"currency": "EUR"})).stock("01T10:00", 15).until("01T10:01");
    shop.event("01T10:01", "product_viewed", "u", json!({"product_id": "p1"})).until("01T10:20");
    assert_eq!((&shop.ask("demand")["views"], &shop.ask("demand")["weighted_sum"].as_f64().unwrap().floor()), (&json!(1), &0.0));
    let product = shop.ask("");
    assert_eq!(
        [&product["name"], &product["price"], &product["stock_level"], &product["currency"]],
        [&json!("Teapot"), &json!("110.00"), &json!(15), &json!("EUR")]
    );
    let explained = shop.ask("price/explain");
    assert_eq!([&explained["made_by"]["raw"], &explained["made_by"]["inputs"]["price"]], [&json!("110.00"), &json!("100.00")]);
    let price = shop.ask("price");
    assert_eq!([&price["price"], &price["lowest_30d"]], [&json!("110.00"), &json!("100.00")]);
    let history = shop.ask("price/history");
    let told: Vec<_> = history["history"].as_array().unwrap().iter().map(|h| h["new_price"].as_str().unwrap()).collect();
    assert_eq!(told, ["110.00", "100.00"]);
    assert!(shop.products.query("price", "nothing", "").unwrap().is_none());
}

#[test]
fn asked_to_price_now_it_does() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 1})).product(json!({})).stock("01T10:00", 60);
    let command = json!({"product_id": "p1", "request_id": "r", "at": at("01T10:00"), "action": "price_now"});
    shop.products.send_json("product_command", command.clone());
    shop.until("01T10:00");
    assert_eq!(shop.told(), said("105.00", "Moderate stock (60), demand score: 1"));
    shop.products.send_json("product_command", with(command, json!({"product_id": "p9", "request_id": "s"})));
    assert!(shop.products.failures.remove(0).contains("p9"));
}

#[test]
fn a_product_to_which_nothing_happens_rests_until_it_is_heard_of_again() {
    let mut shop = Shop::open();
    shop.rule(json!({"scope": "default", "demand_score": 1, "valid_from": at("01T00:00")})).product(json!({}));
    shop.stock("01T10:00", 60).until("05T10:00");
    let resting = |shop: &mut Shop| {
        let kind = u32::from_be_bytes(tillflow_state::prefix_of("pricing.hourly"));
        let hourly = tillflow_state::timers::TimerRow { fire_at: 0, key: "\u{1}p1".into(), kind, detail: String::new() };
        tillflow_state::timers::get(shop.products.task().store(), &hourly).unwrap().is_none()
    };
    assert!(resting(&mut shop));
    assert_eq!(shop.told(), said("105.00", "Moderate stock (60), demand score: 1"));
    // A rule wakes it,
    shop.rule(json!({"scope": "default", "demand_score": 2, "valid_from": at("05T12:00")})).until("05T13:16");
    assert_eq!(shop.told(), said("110.00", "Moderate stock (60), demand score: 2"));
    // and so do stock
    shop.until("08T10:00");
    assert!(resting(&mut shop));
    shop.stock("08T10:00", 61);
    assert!(!resting(&mut shop));
    // and a shopper.
    shop.until("11T10:00");
    assert!(resting(&mut shop));
    shop.event("11T10:00", "product_viewed", "u", json!({"product_id": "p1"})).until("11T10:20");
    assert!(!resting(&mut shop));
}

#[test]
fn thresholds_upside_down_in_the_configuration_are_said() {
    let settings = json!({"pricing": {"low": 200}}).as_object().unwrap().clone();
    let group = Group::new::<Inventory>("products", None, &settings).with::<Pricing>("pricing");
    assert_eq!(group.parts[0].declared.problems, ["pricing.low: 200 is above high 100; low must not exceed high"]);
}

mod signals {
    use super::*;

    fn sums(shop: &mut Shop) -> Vec<(String, i64, i64, i64, i64, i64, i64)> {
        let signal =
            |s: DemandSignal| (s.bucket.to_string()[11..16].to_owned(), s.views, s.long_views, s.adds, s.checkouts, s.orders, s.units);
        shop.signals().into_iter().map(signal).collect()
    }

    #[test]
    fn views_adds_checkouts_and_orders_are_counted_by_quarter_of_an_hour() {
        let mut shop = Shop::open();
        shop.event("01T10:01", "product_viewed", "u", json!({"product_id": "p1", "dwell_ms": 30000}));
        shop.event("01T10:02", "product_viewed", "v", json!({"product_id": "p1", "dwell_ms": 29999}));
        shop.event("01T10:03", "added_to_cart", "u", json!({"product_id": "p1", "quantity": 4}));
        shop.event("01T10:20", "checkout_started", "u", json!({}));
        let items = json!([{"product_id": "p1", "quantity": 3}, {"product_id": "p1", "quantity": 1}]);
        shop.event("01T10:21", "order_completed", "u", json!({"order_id": "o", "items": items}));
        assert_eq!(sums(&mut shop), [("10:00".into(), 2, 1, 1, 0, 0, 0), ("10:15".into(), 0, 0, 0, 1, 1, 4)]);
    }

    #[test]
    fn one_view_of_a_user_and_product_counts_in_half_an_hour_but_a_guest_s_always_does() {
        let mut shop = Shop::open();
        for time in ["01T10:00", "01T10:10", "01T10:29", "01T10:30", "01T10:59"] {
            shop.event(time, "product_viewed", "u", json!({"product_id": "p1"}));
            shop.customers.send_json("user_event", json!({"event_type": "product_viewed", "timestamp": at(time), "product_id": "p2"}));
        }
        let views: Vec<_> = shop.signals().into_iter().map(|s| (s.product_id.into_string(), s.views)).collect();
        assert_eq!(views, [("p1", 1), ("p1", 1), ("p2", 2), ("p2", 1), ("p2", 1), ("p2", 1)].map(|(p, n)| (p.to_owned(), n)));
        assert_eq!(views_kept(&mut shop, "01T12:00"), 0, "what expired is gone");
    }

    #[test]
    fn a_user_s_views_are_looked_through_once_in_half_an_hour_however_many_end_meanwhile() {
        let mut shop = Shop::open();
        for (time, product) in [("01T10:00", "p1"), ("01T10:01", "p2"), ("01T10:02", "p3")] {
            shop.event(time, "product_viewed", "u", json!({"product_id": product}));
        }
        let kept = ["01T10:29", "01T10:31", "01T10:59", "01T11:01"].map(|time| views_kept(&mut shop, time));
        assert_eq!(kept, [3, 2, 2, 0]);
    }

    /// Rows of views that are kept at that time.
    fn views_kept(shop: &mut Shop, time: &str) -> usize {
        shop.customers.advance(at(time));
        shop.customers.commit();
        let views = tillflow_state::Table::<(tillflow_schemas::UserId, ProductId), Timestamp>::new("pricing.views");
        let mut rows = 0;
        views
            .scan(shop.customers.task().store(), &(), |_, _| {
                rows += 1;
                true
            })
            .unwrap();
        rows
    }

    #[test]
    fn a_late_event_counts_in_the_bucket_that_holds_the_watermark() {
        let mut shop = Shop::open();
        shop.event("01T10:40", "product_viewed", "u", json!({"product_id": "p1"}));
        shop.event("01T10:10", "product_viewed", "late", json!({"product_id": "p1"}));
        assert_eq!(sums(&mut shop), [("10:30".into(), 2, 0, 0, 0, 0, 0)]);
    }

    fn order(shop: &mut Shop) {
        let items = json!([{"product_id": "p1", "quantity": 3}, {"product_id": "p2", "quantity": 1}]);
        shop.event("01T10:00", "order_completed", "u", json!({"order_id": "o", "total_amount": "40", "items": items}));
        sums(shop);
    }

    /// `(product, milliseconds into the bucket, orders, units)`.
    fn backs(shop: &mut Shop) -> Vec<(String, i64, i64, i64)> {
        let back = |s: DemandSignal| (s.product_id.to_string(), s.bucket.since(s.bucket.bucket_start(BUCKET)), s.orders, s.units);
        shop.signals().into_iter().map(back).collect()
    }

    #[test]
    fn a_cancelled_order_is_taken_back_once_even_when_it_is_refunded_too() {
        let mut shop = Shop::open();
        order(&mut shop);
        shop.event("01T11:00", "order_cancelled", "u", json!({"order_id": "o"}));
        assert_eq!(backs(&mut shop), [("p1".into(), 4, -1, -3), ("p2".into(), 4, -1, -1)], "four buckets back lies the order");
        shop.event("01T11:30", "order_refunded", "u", json!({"order_id": "o", "refund_id": "r"}));
        assert_eq!(backs(&mut shop), []);
    }

    #[test]
    fn a_refund_of_some_pieces_takes_those_and_the_order_s_weight_with_the_last() {
        let mut shop = Shop::open();
        order(&mut shop);
        let refund = |n: u32| json!({"order_id": "o", "refund_id": format!("r{n}"), "items": [{"product_id": "p1", "quantity": n}]});
        shop.event("01T10:05", "order_refunded", "u", refund(1));
        shop.event("01T10:20", "order_refunded", "u", refund(2));
        shop.event("01T10:40", "order_refunded", "u", refund(3));
        assert_eq!(backs(&mut shop), [("p1".into(), 0, 0, -1), ("p1".into(), 1, -1, -2)]);
    }

    #[test]
    fn amounts_take_an_order_back_once_they_reach_its_total_and_an_old_order_weighs_nothing() {
        let mut shop = Shop::open();
        order(&mut shop);
        shop.event("01T11:00", "order_refunded", "u", json!({"order_id": "o", "refund_id": "a", "amount": "10"}));
        assert_eq!(backs(&mut shop), []);
        shop.event("01T11:00", "order_refunded", "u", json!({"order_id": "o", "refund_id": "b", "amount": "30"}));
        assert_eq!(backs(&mut shop).len(), 2);
        let mut shop = Shop::open();
        order(&mut shop);
        shop.event("04T10:30", "order_cancelled", "u", json!({"order_id": "o"}));
        assert_eq!(backs(&mut shop), []);
    }

    #[test]
    fn a_refunded_order_no_longer_holds_a_price_up() {
        let mut shop = Shop::open();
        shop.product(json!({})).stock("01T09:00", 60);
        let order = json!({"order_id": "o", "items": [{"product_id": "p1", "quantity": 6}]});
        shop.event("01T09:50", "order_completed", "u", order).until("01T11:00");
        assert!(shop.ask("demand")["demand_score"].as_f64().unwrap() > 2.0);
        shop.event("01T11:10", "order_cancelled", "u", json!({"order_id": "o"})).until("01T11:20");
        assert_eq!(shop.ask("demand")["demand_score"], 0.0);
    }
}
