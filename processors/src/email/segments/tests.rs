//! Stories of segments.

use crate::email::testing::Shop;
use serde_json::json;

fn has(shop: &mut Shop, name: &str) -> bool {
    shop.segments().iter().any(|s| s == name)
}

#[test]
fn a_shopper_is_new_and_active_at_the_first_event_then_at_risk_then_lapsed_as_time_passes() {
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1");
    assert_eq!(shop.changes(), [("01T10:00".into(), vec!["active".into(), "new".into()], vec![])]);
    shop.until("2026-03-31T09:59:59Z");
    assert!(shop.changes().is_empty());
    shop.until("2026-07-01T00:00:00Z");
    let changes = shop.changes();
    let said: Vec<_> = changes.iter().map(|(at, entered, left)| (at.as_str(), entered.join(","), left.join(","))).collect();
    assert_eq!(
        said,
        [
            ("31T10:00", "at_risk".into(), "active".into()),
            ("2026-03-31T10:00:00.001Z", String::new(), "new".into()),
            ("2026-05-30T10:00:00.000Z", "lapsed".into(), "at_risk".into()),
        ]
    );
    assert_eq!(shop.segments(), ["lapsed"]);
}

#[test]
fn opened_mails_are_no_activity_but_clicks_make_engaged() {
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1");
    shop.event("20T10:00", "email_opened", json!({"message_id": "m"}));
    shop.until("2026-03-31T10:00:00Z");
    assert!(has(&mut shop, "at_risk"));
    shop.event("2026-04-01T10:00:00Z", "email_clicked", json!({"message_id": "m"}));
    assert!(has(&mut shop, "engaged") && has(&mut shop, "at_risk"));
    shop.until("2026-06-30T10:00:00Z");
    assert!(!has(&mut shop, "engaged"));
}

#[test]
fn five_mails_delivered_without_a_click_make_disengaged() {
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1");
    for n in 1..=4 {
        shop.event(&format!("0{n}T11:00"), "email_delivered", json!({"message_id": format!("m{n}")}));
    }
    assert!(!has(&mut shop, "disengaged"));
    shop.event("05T11:00", "email_delivered", json!({"message_id": "m5"}));
    assert!(has(&mut shop, "disengaged"));
}

#[test]
fn five_hundred_net_in_a_year_is_high_value_until_the_order_is_a_year_old() {
    let mut shop = Shop::new();
    shop.order("01T10:00", "o1", "300").order("02T10:00", "o2", "199.99");
    assert!(!has(&mut shop, "high_value"));
    shop.order("03T10:00", "o3", "0.01");
    assert!(has(&mut shop, "high_value"));
    shop.until("2027-03-01T09:59:59Z");
    assert!(has(&mut shop, "high_value"));
    shop.until("2027-03-01T10:00:00Z");
    assert!(!has(&mut shop, "high_value"));
}

#[test]
fn refunds_and_cancellations_take_from_what_was_spent() {
    let mut shop = Shop::new();
    shop.order("01T10:00", "o1", "600");
    shop.event("02T10:00", "order_refunded", json!({"refund_id": "r1", "order_id": "o1", "amount": "100.01"}));
    assert!(!has(&mut shop, "high_value"));
    shop.order("03T10:00", "o2", "0.01");
    assert!(has(&mut shop, "high_value"));
    shop.event("04T10:00", "order_refunded", json!({"refund_id": "r2", "amount": "1"}));
    assert!(!has(&mut shop, "high_value"));
    shop.order("05T10:00", "o3", "500");
    assert!(has(&mut shop, "high_value"));
    shop.event("06T10:00", "order_cancelled", json!({"order_id": "o3"}));
    assert!(!has(&mut shop, "high_value"));
    // The whole order, never more than it was.
    shop.order("07T10:00", "o4", "500");
    shop.event("08T10:00", "order_refunded", json!({"refund_id": "r3", "order_id": "o4"}));
    shop.event("08T11:00", "order_refunded", json!({"refund_id": "r4", "order_id": "o4", "amount": "500"}));
    // o1 499.99, o2 0.01, r2 −1, o4 nothing.
    shop.order("09T10:00", "o5", "0.99");
    assert!(!has(&mut shop, "high_value"));
    shop.order("09T11:00", "o6", "0.01");
    assert!(has(&mut shop, "high_value"));
}

#[test]
fn three_orders_in_ninety_days_make_a_frequent_buyer() {
    let mut shop = Shop::new();
    shop.order("01T10:00", "o1", "1").order("02T10:00", "o2", "1");
    assert!(!has(&mut shop, "frequent_buyer"));
    shop.order("2026-05-29T10:00:00Z", "o3", "1");
    assert!(has(&mut shop, "frequent_buyer"));
    shop.until("2026-05-30T10:00:00Z");
    assert!(!has(&mut shop, "frequent_buyer"));
}

#[test]
fn a_category_bought_from_is_a_segment_unless_the_order_is_cancelled() {
    let mut shop = Shop::new();
    shop.product("p1", "tea");
    shop.order("01T10:00", "o1", "1");
    assert!(has(&mut shop, "bought_category:tea"));
    shop.event("02T10:00", "order_cancelled", json!({"order_id": "o1"}));
    assert!(!has(&mut shop, "bought_category:tea"));
}

#[test]
fn three_views_in_a_week_without_an_order_make_a_repeat_viewer_of_product_and_category() {
    let mut shop = Shop::new();
    shop.product("p1", "tea");
    shop.view("01T10:00", "p1").view("02T10:00", "p1").view("03T10:00", "p1");
    assert!(has(&mut shop, "repeat_viewer:product:p1") && has(&mut shop, "repeat_viewer:category:tea"));
    shop.order("04T10:00", "o1", "1");
    assert!(!has(&mut shop, "repeat_viewer:product:p1") && !has(&mut shop, "repeat_viewer:category:tea"));

    let mut shop = Shop::new();
    shop.view("01T10:00", "p1").view("02T10:00", "p1").view("03T10:00", "p1").until("08T10:00");
    assert!(!has(&mut shop, "repeat_viewer:product:p1"));
}

#[test]
fn a_cart_left_for_an_hour_is_abandoned_until_it_is_bought_emptied_touched_or_two_days_old() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").until("01T10:59");
    assert!(!has(&mut shop, "abandoned_cart"));
    shop.until("01T11:00");
    assert!(has(&mut shop, "abandoned_cart"));
    shop.add("01T11:30", "p2");
    assert!(!has(&mut shop, "abandoned_cart"));
    shop.until("01T12:30");
    assert!(has(&mut shop, "abandoned_cart"));
    shop.until("03T11:30");
    assert!(!has(&mut shop, "abandoned_cart"));

    shop.add("04T10:00", "p1").until("04T11:00");
    assert!(has(&mut shop, "abandoned_cart"));
    shop.order("04T12:00", "o1", "1");
    assert!(!has(&mut shop, "abandoned_cart"));
}

#[test]
fn country_and_interests_are_segments_and_follow_what_the_shop_states() {
    let mut shop = Shop::new();
    shop.customer(json!({"country": "DE", "interests": ["tea"]}));
    assert!(shop.segments().is_empty(), "nobody has a segment before the first event");
    shop.view("01T10:00", "p1");
    assert!(has(&mut shop, "location:DE") && has(&mut shop, "interest:tea"));
    shop.customer(json!({"country": "FR", "interests": []}));
    assert!(has(&mut shop, "location:FR") && !has(&mut shop, "location:DE") && !has(&mut shop, "interest:tea"));
}

#[test]
fn an_anonymous_visitor_has_no_segments() {
    let mut shop = Shop::new();
    shop.driver.send_json(
        "user_event",
        json!({"event_type": "product_viewed", "anonymous_id": "a", "product_id": "p1", "timestamp": "2026-03-01T10:00:00Z"}),
    );
    shop.until("2026-07-01T00:00:00Z");
    assert!(shop.changes().is_empty());
}

#[test]
fn the_shop_s_own_segments_come_from_settings_and_from_the_topic_and_are_left_as_time_passes() {
    let mut shop = Shop::with(json!({"email": {"own_segments": {
        "big_lately": {"all": [{"field": "net_spend", "op": ">=", "value": 100, "within": "10d"}, {"field": "segments", "op": "contains", "value": "active"}]},
    }}}));
    let definition = json!({"segment_id": "ordered_lately", "description": "…", "field": "last_order", "within": "5d"});
    shop.driver.global(serde_json::from_value::<tillflow_schemas::SegmentDefinition>(definition).unwrap());
    shop.order("01T10:00", "o1", "100");
    assert!(has(&mut shop, "big_lately") && has(&mut shop, "ordered_lately"));
    shop.until("06T10:00");
    assert!(has(&mut shop, "big_lately") && !has(&mut shop, "ordered_lately"));
    shop.until("11T10:00");
    assert!(!has(&mut shop, "big_lately"));
}

#[test]
fn a_wrong_definition_is_an_error_at_start_and_one_of_the_topic_names_its_path() {
    let settings = json!({"email": {"own_segments": {"vip": {"field": "spend", "op": ">", "value": 1}, "new": {"field": "cart", "op": "=", "value": true}}}});
    let group = tillflow_engine_api::Group::new::<tillflow_schemas::UserEvent>("customers", None, settings.as_object().unwrap())
        .with::<crate::email::Email>("email");
    let problems = group.parts[0].declared.problems.join("\n");
    assert!(problems.contains("email.own_segments.vip.field: 'spend' is not one of"), "{problems}");
    assert!(problems.contains("email.own_segments.new: is the name of a built-in segment"), "{problems}");
    let definition = serde_json::from_value(json!({"segment_id": "vip", "any": []})).unwrap();
    assert_eq!(super::problems(&definition).unwrap().to_string(), "vip.any: is not a list of at least one condition");
}
