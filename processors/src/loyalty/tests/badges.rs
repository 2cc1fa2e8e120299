//! Badges and birthdays.

use super::{Shop, moment, plain};
use serde_json::json;
use tillflow_schemas::Badge;

#[test]
fn badges_come_once_each() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "999.99");
    assert_eq!(shop.told_of("badge_awarded", "badge_id"), ["first_purchase"]);
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1", "amount": "500"}));
    shop.order("2026-03-03", "u", "o2", "500");
    assert_eq!(shop.told_of("badge_awarded", "badge_id"), Vec::<String>::new(), "net spend is 999.99");
    shop.order("2026-03-04", "u", "o3", "0.01");
    assert_eq!(shop.told_of("badge_awarded", "badge_id"), ["top_spender"]);
    shop.refund("2026-03-05", "u", "r2", json!({"order_id": "o2"})).order("2026-03-06", "u", "o4", "5000");
    shop.advance("2027-02-28T23:59");
    assert_eq!(shop.told_of("badge_awarded", "badge_id"), Vec::<String>::new());
    shop.advance("2027-03-01");
    let veteran = shop.told(&["badge_awarded"]);
    assert_eq!(veteran[0].2["name"], "Loyalty Veteran");
    shop.order("2028-03-01", "u", "o5", "1");
    assert!(shop.told(&["badge_awarded"]).is_empty());
    let badges = shop.driver.query("loyalty/badges", "u", "").unwrap().unwrap();
    assert_eq!(badges["badges"], json!(["first_purchase", "top_spender", "loyalty_veteran"]));
}

#[test]
fn a_shop_has_badges_of_its_own_and_can_switch_the_built_in_ones_off() {
    let mut rules = plain();
    rules["badges"] = json!({
        "regular": {"name": "Regular", "measure": "orders", "at_least": 2},
        "week": {"name": "A week with us", "measure": "days", "at_least": 7},
        "first_purchase": {"name": "First Purchase", "measure": "orders", "at_least": 1, "enabled": false},
    });
    let mut shop = Shop::with(rules);
    let fields = json!({"name": "Collector", "measure": "lifetime_points", "at_least": 100});
    let fields = fields.as_object().unwrap().clone().into_iter().collect();
    shop.driver.global(Badge { badge_id: "collector".into(), fields, valid_from: None });
    shop.order("2026-03-01", "u", "o1", "60").order("2026-03-02", "u", "o2", "60").advance("2026-03-08");
    assert_eq!(shop.told_of("badge_awarded", "badge_id"), ["collector", "regular", "week"]);
}

#[test]
fn a_gold_customer_is_given_birthday_points_once_a_year() {
    let mut shop = Shop::with(plain());
    shop.customer("u", json!({"birthday": "1990-07-14"})).customer("v", json!({"birthday": "07-14"}));
    shop.order("2026-03-01", "u", "o1", "2000").order("2026-03-01", "v", "o1", "1999").entries();
    shop.advance("2026-12-31");
    assert_eq!(shop.entries(), ["birthday:2026 bonus +50/+50 → 2050/2050 gold"]);
    // A second birthday in the same year brings nothing.
    shop.customer("u", json!({"birthday": "12-31"})).order("2027-01-01", "u", "o2", "0").advance("2027-01-02");
    shop.customer("u", json!({"birthday": "01-03"})).advance("2027-12-31");
    let birthdays: Vec<_> = shop.updates().into_iter().map(|u| (u.entry_id, u.at)).filter(|(id, _)| id.starts_with("birthday")).collect();
    assert_eq!(birthdays, [("birthday:2027".to_owned(), moment("2027-01-03"))]);
}

#[test]
fn who_is_born_on_29_february_celebrates_on_the_28th() {
    let mut shop = Shop::with(json!({"spin": {"per_order": 0}, "expiry": {"days": 0}}));
    shop.customer("u", json!({"birthday": "2000-02-29"})).order("2026-03-01", "u", "o1", "2000").advance("2028-12-31");
    let birthdays: Vec<_> = shop.updates().iter().filter(|u| u.entry_id.starts_with("birthday")).map(|u| u.at).collect();
    assert_eq!(birthdays, [moment("2027-02-28"), moment("2028-02-28")]);
}

#[test]
fn a_birthday_is_that_of_the_shop_s_zone_and_of_those_who_are_gold_that_day() {
    let mut shop = Shop::configured(json!({"loyalty": plain(), "shop": {"timezone": "Europe/Berlin"}}));
    shop.customer("u", json!({"birthday": "07-14"})).order("2026-03-01", "u", "o1", "2000");
    shop.refund("2026-04-01", "u", "r1", json!({"order_id": "o1", "amount": "100"})).advance("2026-07-15");
    assert!(shop.updates().iter().all(|u| !u.entry_id.starts_with("birthday")));
    shop.order("2026-08-01", "u", "o2", "100").advance("2027-07-20");
    let birthdays: Vec<_> = shop.updates().iter().filter(|u| u.entry_id.starts_with("birthday")).map(|u| u.at).collect();
    assert_eq!(birthdays, [moment("2027-07-13T22:00")]);
}

#[test]
fn a_birthday_told_after_gold_was_reached_counts_and_one_deleted_does_not() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "2000").order("2026-03-01", "v", "o1", "2000").entries();
    shop.customer("u", json!({"birthday": "07-14"})).customer("v", json!({"birthday": "07-14"}));
    let gone = tillflow_schemas::Event::decode("customer", Some("v"), None).unwrap();
    shop.driver.send(gone);
    shop.advance("2026-08-01");
    assert_eq!(shop.entries(), ["birthday:2026 bonus +50/+50 → 2050/2050 gold"]);
}
