//! What is on a list, and what is not.

use super::{DAY, Shop, at, tea_shop};
use crate::recommendations::ShopperStage;
use serde_json::json;
use tillflow_engine_api::Group;
use tillflow_schemas::{Product, UserEvent};

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
fn a_cancelled_order_was_no_purchase_whichever_came_first() {
    let cancelled = json!({"order_id": "o1"});
    let mut shop = tea_shop();
    shop.order(2_000.0, "new", "o1", &["cup"]).event(2_100.0, "new", "order_cancelled", cancelled.clone());
    shop.view(2_200.0, "new", "tea");
    assert_eq!(shop.last_push(), ["cup", "pot"]);
    let mut shop = tea_shop();
    shop.event(2_100.0, "new", "order_cancelled", cancelled).order(2_100.0, "new", "o1", &["cup"]);
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
    assert!(group.parts[0].declared.problems[0].ends_with("the nearest is 'recommendations.items'"));
}
