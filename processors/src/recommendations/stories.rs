//! The system as a shop sees it: both stages, with what the log would carry between them.

use super::{ProductStage, ShopperStage};
use crate::shopper::Shopper;
use serde_json::{Value, json};
use tillflow_engine_api::{Group, testing::Driver};
use tillflow_schemas::{
    CustomerSignal, Event, Inventory, ItemPairs, Product, ProductStatus, Recommendations, Record, RelatedProducts, Timestamp, UserEvent,
};

struct Shop {
    customers: Driver,
    products: Driver,
}

fn at(second: f64) -> Timestamp {
    Timestamp::from_millis(1_772_352_000_000 + (second * 1000.0) as i64)
}

const DAY: f64 = 86_400.0;

impl Shop {
    fn new() -> Self {
        Self::with(json!({}))
    }

    fn with(settings: Value) -> Self {
        let settings = json!({ "recommendations": settings }).as_object().unwrap().clone();
        let customers =
            Group::new::<UserEvent>("customers", None, &settings).with::<Shopper>("shopper").with::<ShopperStage>("recommendations");
        let products = Group::new::<Inventory>("products", Some("customers"), &settings).with::<ProductStage>("recommendations");
        Self { customers: Driver::group(&customers), products: Driver::group(&products) }
    }

    /// One event of a user, then all that follows from it in either stage.
    fn event(&mut self, second: f64, user: &str, event_type: &str, fields: Value) -> &mut Self {
        let mut value = json!({"event_type": event_type, "timestamp": at(second).to_string()});
        if !user.is_empty() {
            value["user_id"] = json!(user);
        }
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.customers.send_json("user_event", value);
        for signal in self.customers.emitted::<CustomerSignal>() {
            self.customers.send(Event::CustomerSignal(signal));
        }
        for signal in self.customers.emitted::<CustomerSignal>() {
            self.customers.send(Event::CustomerSignal(signal));
        }
        for pairs in self.customers.emitted::<ItemPairs>() {
            self.products.send(Event::ItemPairs(pairs));
        }
        for related in self.products.emitted::<RelatedProducts>() {
            self.customers.global(related);
        }
        assert_eq!(self.customers.failures, Vec::<String>::new());
        assert_eq!(self.products.failures, Vec::<String>::new());
        self
    }

    fn view(&mut self, second: f64, user: &str, product: &str) -> &mut Self {
        self.event(second, user, "product_viewed", json!({ "product_id": product }))
    }

    fn add(&mut self, second: f64, user: &str, product: &str) -> &mut Self {
        self.event(second, user, "added_to_cart", json!({ "product_id": product }))
    }

    fn order(&mut self, second: f64, user: &str, id: &str, products: &[&str]) -> &mut Self {
        let items: Vec<_> = products.iter().map(|p| json!({"product_id": p, "quantity": 1})).collect();
        self.event(second, user, "order_completed", json!({"order_id": id, "items": items}))
    }

    fn know(&mut self, record: impl Record) -> &mut Self {
        self.customers.global(record);
        self
    }

    fn stock(&mut self, product: &str, level: i64) -> &mut Self {
        self.know(ProductStatus { product_id: product.into(), stock_level: Some(level), price: None, at: at(0.0) })
    }

    /// The pushes since the last call: trigger and ids.
    fn pushes(&mut self) -> Vec<(String, Vec<String>)> {
        let ids = |r: &Recommendations| r.items.iter().map(|i| i.product_id.to_string()).collect();
        self.customers.emitted::<Recommendations>().iter().map(|r| (r.trigger.clone(), ids(r))).collect()
    }

    fn last_push(&mut self) -> Vec<String> {
        self.pushes().pop().map(|(_, ids)| ids).unwrap_or_default()
    }

    fn ask(&mut self, user: &str, kind: &str) -> Vec<String> {
        let answer = self.customers.query("recommendations", user, kind).unwrap().unwrap();
        answer["items"].as_array().unwrap().iter().map(|i| i["product_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// Ten shoppers who look at the tea, then the cup; five of them at the pot as well.
fn tea_shop() -> Shop {
    let mut shop = Shop::new();
    for i in 0..10 {
        let (user, second) = (format!("u{i}"), f64::from(i) * 100.0);
        shop.view(second, &user, "tea").view(second + 10.0, &user, "cup");
        if i % 2 == 0 {
            shop.view(second + 20.0, &user, "pot");
        }
    }
    shop.pushes();
    shop
}

#[test]
fn the_second_shopper_of_a_new_shop_already_hears_of_the_first_one_s_pair() {
    let mut shop = Shop::new();
    shop.view(0.0, "ann", "tea").view(5.0, "ann", "cup");
    assert_eq!(shop.pushes().first(), Some(&("product_viewed".into(), vec!["tea".into()])), "popular, in want of better");
    shop.view(60.0, "bob", "tea");
    let records = shop.customers.emitted::<Recommendations>();
    assert_eq!(records.len(), 1);
    let record = serde_json::to_value(&records[0]).unwrap();
    assert_eq!(
        record,
        json!({"user_id": "bob", "items": [{"product_id": "cup", "score": 1.0, "because": ["tea"]}],
            "trigger": "product_viewed", "generated_at": "2026-03-01T08:01:00.000Z"})
    );
}

#[test]
fn the_very_first_view_of_a_shop_has_nothing_to_say() {
    let mut shop = Shop::new();
    shop.view(0.0, "ann", "tea");
    assert_eq!(shop.pushes(), []);
}

#[test]
fn what_most_went_on_to_comes_first_and_never_the_product_just_viewed() {
    let mut shop = tea_shop();
    shop.view(2_000.0, "new", "tea");
    assert_eq!(shop.last_push(), ["cup", "pot"]);
    shop.view(2_010.0, "new", "cup");
    let push = shop.last_push();
    assert!(!push.contains(&"cup".to_owned()) && push.contains(&"pot".to_owned()), "{push:?}");
}

#[test]
fn each_item_says_because_of_which_product() {
    let mut shop = tea_shop();
    shop.view(2_000.0, "new", "tea").view(2_010.0, "new", "cup");
    let record = shop.customers.emitted::<Recommendations>().pop().unwrap();
    let pot = record.items.iter().find(|i| i.product_id.as_str() == "pot").unwrap();
    assert_eq!(pot.because.iter().map(|p| p.as_str()).collect::<Vec<_>>().len(), 2);
}

#[test]
fn views_adds_checkouts_and_orders_push_and_nothing_else_does() {
    let mut shop = tea_shop();
    let push = |trigger: &str, ids: &[&str]| (trigger.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    shop.view(2_000.0, "ann", "tea");
    assert_eq!(shop.pushes(), [push("product_viewed", &["cup", "pot"])]);
    shop.add(2_010.0, "bob", "tea");
    assert_eq!(shop.pushes(), [push("added_to_cart", &["cup", "pot"])]);
    shop.order(2_020.0, "eve", "o1", &["tea"]);
    assert_eq!(shop.pushes(), [push("order_completed", &["cup", "pot"])]);
    // Now there would be news for each of them.
    shop.stock("cup", 0).event(2_030.0, "bob", "page_viewed", json!({}));
    shop.event(2_040.0, "bob", "product_reviewed", json!({"product_id": "tea"}));
    shop.event(2_050.0, "bob", "removed_from_cart", json!({"product_id": "rum"}));
    assert_eq!(shop.pushes(), []);
    shop.event(2_060.0, "bob", "checkout_started", json!({}));
    assert_eq!(shop.pushes(), [push("checkout_started", &["pot"])]);
}

#[test]
fn after_an_order_it_recommends_for_what_was_ordered() {
    let mut shop = tea_shop();
    shop.view(2_000.0, "new", "rum");
    shop.pushes();
    shop.order(2_010.0, "new", "o1", &["tea"]);
    let record = shop.customers.emitted::<Recommendations>().pop().unwrap();
    assert_eq!(record.trigger, "order_completed");
    assert_eq!((record.items[0].product_id.as_str(), record.items[0].because[0].as_str()), ("cup", "tea"));
}

#[test]
fn an_order_s_pairs_weigh_most() {
    let mut shop = tea_shop();
    // Ten saw tea and cup together; two bought tea and rum together.
    shop.order(3_000.0, "x", "o1", &["tea", "rum"]).order(3_010.0, "y", "o2", &["tea", "rum"]);
    shop.view(4_000.0, "new", "tea");
    assert_eq!(shop.last_push(), ["rum", "cup", "pot"]);
}

#[test]
fn a_guest_s_order_pairs_its_products_and_pushes_nothing() {
    let mut shop = Shop::new();
    shop.order(0.0, "", "o1", &["tea", "cup"]);
    assert_eq!(shop.pushes(), []);
    shop.view(10.0, "bob", "tea");
    assert_eq!(shop.last_push(), ["cup"]);
}

#[test]
fn an_anonymous_visitor_gets_recommendations_too() {
    let mut shop = tea_shop();
    shop.event(2_000.0, "", "product_viewed", json!({"product_id": "tea", "anonymous_id": "visitor"}));
    let record = shop.customers.emitted::<Recommendations>().pop().unwrap();
    assert_eq!((record.user_id.as_str(), record.items[0].product_id.as_str()), ("visitor", "cup"));
}

#[test]
fn what_lies_in_the_cart_is_not_recommended_until_it_is_taken_out() {
    let mut shop = tea_shop();
    shop.add(2_000.0, "new", "cup").view(2_010.0, "new", "tea");
    assert_eq!(shop.last_push(), ["pot"]);
    shop.event(2_020.0, "new", "removed_from_cart", json!({"product_id": "cup"})).view(2_030.0, "new", "tea");
    assert_eq!(shop.last_push()[0], "cup");
}

#[test]
fn what_was_bought_is_not_recommended_for_thirty_days_unless_it_runs_out() {
    let mut shop = tea_shop();
    shop.order(2_000.0, "new", "o1", &["cup"]);
    shop.view(2_000.0 + DAY, "new", "tea");
    assert_eq!(shop.last_push(), ["pot"]);
    shop.know(Product { product_id: "cup".into(), tags: vec!["replenishable".into()], ..Product::default() });
    shop.view(2_000.0 + 2.0 * DAY, "new", "tea");
    assert_eq!(shop.last_push(), ["cup", "pot"]);
    shop.know(Product { product_id: "cup".into(), valid_from: Some(at(3.0 * DAY)), ..Product::default() });
    shop.view(4.0 * DAY, "new", "tea");
    assert_eq!(shop.last_push(), ["pot"]);
    shop.view(2_001.0 + 30.0 * DAY, "new", "tea");
    assert_eq!(shop.last_push(), ["cup", "pot"]);
}

#[test]
fn a_cancelled_order_was_no_purchase() {
    let mut shop = tea_shop();
    shop.order(2_000.0, "new", "o1", &["cup"]).event(2_100.0, "new", "order_cancelled", json!({"order_id": "o1"}));
    shop.view(2_200.0, "new", "tea");
    assert_eq!(shop.last_push(), ["cup", "pot"]);
}

#[test]
fn what_is_sold_out_or_not_on_sale_yet_is_not_recommended() {
    let mut shop = tea_shop();
    shop.stock("cup", 0).stock("pot", 3).view(2_000.0, "new", "tea");
    assert_eq!(shop.last_push(), ["pot"]);
    shop.stock("cup", 1).know(Product { product_id: "pot".into(), early_access_until: Some(at(9_000.0)), ..Product::default() });
    shop.view(2_010.0, "new", "tea");
    assert_eq!(shop.last_push(), ["cup"]);
    shop.view(9_000.0, "new", "tea");
    assert_eq!(shop.last_push(), ["cup", "pot"]);
}

#[test]
fn an_unchanged_list_is_not_pushed_again() {
    let mut shop = tea_shop();
    shop.view(2_000.0, "new", "tea").view(2_010.0, "new", "tea").view(2_020.0, "new", "tea");
    assert_eq!(shop.pushes().len(), 1);
}

#[test]
fn at_most_one_push_a_second_and_the_last_one_comes_by_timer() {
    let mut shop = tea_shop();
    shop.view(2_000.0, "new", "tea").view(2_000.2, "new", "rum").view(2_000.4, "new", "cup");
    assert_eq!(shop.pushes(), [("product_viewed".into(), vec!["cup".into(), "pot".into()])]);
    shop.customers.advance(at(2_001.0));
    let late = shop.customers.emitted::<Recommendations>();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].generated_at, at(2_001.0));
    assert!(late[0].items.iter().all(|i| i.product_id.as_str() != "cup"));
    shop.view(2_001.5, "new", "tea");
    assert_eq!(shop.pushes(), []);
    shop.view(2_003.0, "new", "rum");
    let pushes = shop.pushes();
    assert_eq!(pushes.len(), 2, "the waiting one, then the new: {pushes:?}");
}

#[test]
fn a_list_has_at_most_ten_and_one_category_does_not_fill_it() {
    let mut shop = Shop::new();
    for i in 0..14 {
        let category = if i < 9 { "tea" } else { "cup" };
        shop.know(Product { product_id: format!("p{i:02}").as_str().into(), category: category.into(), ..Product::default() });
        for n in 0..(20 - i) {
            shop.order(f64::from(i * 100 + n), &format!("u{i}-{n}"), "o", &["start", &format!("p{i:02}")]);
        }
    }
    shop.view(9_000.0, "new", "start");
    let push = shop.last_push();
    assert_eq!(push.len(), 10);
    assert_eq!(push, ["p00", "p01", "p02", "p03", "p09", "p10", "p11", "p12", "p04", "p05"]);
}

#[test]
fn a_stranger_is_shown_what_is_popular() {
    let mut shop = tea_shop();
    assert_eq!(shop.ask("nobody", ""), ["cup", "tea", "pot"]);
    assert_eq!(Shop::new().ask("nobody", ""), Vec::<String>::new());
    shop.stock("tea", 0);
    assert_eq!(shop.ask("nobody", "trending"), ["cup", "pot"]);
}

#[test]
fn where_nothing_is_related_the_category_s_favourites_come_before_the_shop_s() {
    let mut shop = Shop::new();
    for (product, category) in [("tea", "drinks"), ("rum", "drinks"), ("cup", "ware")] {
        shop.know(Product { product_id: product.into(), category: category.into(), ..Product::default() });
    }
    for i in 0..5 {
        shop.view(f64::from(i), &format!("a{i}"), "cup");
    }
    shop.view(10.0, "b", "rum").view(20.0, "new", "tea");
    let (trigger, ids) = shop.pushes().pop().unwrap();
    assert_eq!((trigger.as_str(), ids), ("product_viewed", vec!["rum".to_owned(), "cup".to_owned()]));
}

#[test]
fn the_query_knows_each_kind() {
    let mut shop = tea_shop();
    let product = |id: &str, price: &str| Product {
        product_id: id.into(),
        category: "ware".into(),
        base_price: tillflow_schemas::Money::parse(price).unwrap(),
        ..Product::default()
    };
    shop.know(product("tea", "10")).know(product("cup", "16")).know(product("pot", "16.01")).know(product("spoon", "11"));
    shop.view(1_990.0, "other", "spoon").view(2_000.0, "new", "tea");
    assert_eq!(shop.ask("new", "related"), ["cup", "pot"]);
    assert_eq!(shop.ask("new", "upsell"), ["cup", "spoon"], "1.1 to 1.6 times the price");
    assert_eq!(shop.ask("new", "cart"), Vec::<String>::new());
    shop.add(2_010.0, "new", "cup");
    assert_eq!(shop.ask("new", "cart"), ["tea", "pot"], "the cup itself lies in the cart");
    assert_eq!(shop.customers.query("recommendations", "new", "nonsense").unwrap(), None);
    let answer = shop.customers.query("recommendations", "new", "").unwrap().unwrap();
    assert_eq!(answer["items"][0]["kind"], "related");
}

#[test]
fn a_visitor_who_logs_in_keeps_the_session_and_only_the_first_user_gets_it() {
    let mut shop = tea_shop();
    shop.event(2_000.0, "", "product_viewed", json!({"product_id": "tea", "anonymous_id": "visitor"}));
    shop.pushes();
    shop.event(2_010.0, "ann", "page_viewed", json!({"anonymous_id": "visitor"}));
    assert_eq!(shop.ask("ann", "related"), ["cup", "pot"]);
    assert_eq!(shop.ask("visitor", "related"), Vec::<String>::new(), "it moved");
    shop.event(2_020.0, "", "product_viewed", json!({"product_id": "cup", "anonymous_id": "visitor"}));
    shop.event(2_030.0, "bob", "page_viewed", json!({"anonymous_id": "visitor"}));
    assert_eq!(shop.ask("bob", "related"), Vec::<String>::new(), "an id joins one user only");
}

#[test]
fn the_shop_pins_boosts_and_blocks() {
    let mut shop = Shop::with(json!({"merchandising": [
        {"action": "pin", "product": "mug"}, {"action": "block", "product": "cup"}, {"action": "boost", "product": "pot", "factor": 9}]}));
    for i in 0..3 {
        let second = f64::from(i) * 100.0;
        shop.view(second, &format!("u{i}"), "tea").view(second + 9.0, &format!("u{i}"), "cup").view(second + 19.0, &format!("u{i}"), "rum");
    }
    shop.view(400.0, "u", "tea").view(410.0, "u", "pot").view(500.0, "new", "tea");
    assert_eq!(shop.last_push(), ["mug", "pot", "rum"]);
}

#[test]
fn wrong_settings_are_named() {
    let settings = json!({"recommendations": {"items": 11, "merchandising": [{"action": "pin"}]}}).as_object().unwrap().clone();
    let group = Group::new::<UserEvent>("customers", None, &settings).with::<ShopperStage>("recommendations");
    let problems = &group.parts[0].declared.problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("recommendations.merchandising[0] names no product"), "{problems:?}");
    let unknown = json!({"recommendations": {"itmes": 5}}).as_object().unwrap().clone();
    let group = Group::new::<UserEvent>("customers", None, &unknown).with::<ShopperStage>("recommendations");
    assert!(group.parts[0].declared.problems[0].contains("unknown field `itmes`"));
}
