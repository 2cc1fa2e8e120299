//! The system as a shop sees it: both stages, with what the log would carry between them.

mod lists;

use super::{ProductStage, ShopperStage};
use crate::shopper::Shopper;
use serde_json::{Value, json};
use tillflow_engine_api::{Group, testing::Driver};
use tillflow_schemas::{
    CustomerSignal, Event, Inventory, ItemPairs, ProductStatus, Recommendations, Record, RelatedProducts, Timestamp, UserEvent,
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

/// What class B promises: commits of the shoppers' stage and batches of the products' stage leave no trace in the last
/// record of each product.
#[test]
fn the_last_related_products_are_the_same_however_the_stages_commit() {
    let last = |commit_every: usize| {
        let mut shop = Shop::new();
        let mut last = std::collections::BTreeMap::new();
        let take = |shop: &mut Shop, last: &mut std::collections::BTreeMap<_, _>| {
            shop.customers.emitted::<ItemPairs>().into_iter().for_each(|pairs| {
                shop.products.send(Event::ItemPairs(pairs));
            });
            last.extend(shop.products.emitted::<RelatedProducts>().into_iter().map(|r| (r.product_id.clone(), r)));
        };
        for i in 0..400_usize {
            let user = format!("u{}", i * i % 23);
            let event_type = if i % 5 == 0 { "added_to_cart" } else { "product_viewed" };
            let product = format!("p{}", i * 7 % 11 * (i % 3));
            let value =
                json!({"event_type": event_type, "user_id": user, "product_id": product, "timestamp": at(i as f64 * 30.0).to_string()});
            shop.customers.send_json("user_event", value);
            if i % commit_every == 0 {
                take(&mut shop, &mut last);
                shop.products.advance(at(i as f64 * 30.0 - 10.0));
            }
        }
        take(&mut shop, &mut last);
        shop.products.advance(at(400.0 * 30.0));
        take(&mut shop, &mut last);
        last
    };
    let one_by_one = last(1);
    assert!(one_by_one.len() > 10 && one_by_one.values().all(|r| !r.related.is_empty()));
    assert_eq!(one_by_one, last(37));
    assert_eq!(one_by_one, last(1_000));
}

#[test]
fn an_order_of_ten_thousand_items_is_taken_and_pairs_its_first_fifty() {
    let mut shop = Shop::new();
    let products: Vec<String> = (0..10_000).map(|i| format!("p{i}")).collect();
    shop.order(0.0, "ann", "o1", &products.iter().map(String::as_str).collect::<Vec<_>>());
    let related = |shop: &mut Shop, product: &str| shop.products.query("related", product, "").unwrap();
    assert_eq!(related(&mut shop, "p49").unwrap()["related"].as_array().unwrap().len(), 20);
    assert_eq!(related(&mut shop, "p50"), None);
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
