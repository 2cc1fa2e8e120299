//! Expiry.

use super::{Shop, moment, plain};
use serde_json::json;

#[test]
fn points_expire_365_days_after_they_were_earned_with_a_warning_30_days_before() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01T10:00", "u", "o1", "100").order("2026-06-01", "u", "o2", "70").entries();
    shop.advance("2027-01-30T09:59");
    assert!(shop.told(&["points_expiring"]).is_empty());
    shop.advance("2027-01-30T10:00");
    let told = shop.told(&["points_expiring"]);
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0].2["points"], &told[0].2["expires_at"]), (&json!(100), &json!(moment("2027-03-01T10:00"))));
    shop.advance("2027-03-01T09:59");
    assert!(shop.entries().is_empty());
    shop.advance("2027-03-01T10:00");
    let expired = shop.updates();
    assert_eq!(super::line(&expired[0]), "expire:order:o1 expire -100/+0 → 70/170 bronze");
    assert_eq!((expired[0].order_id.clone(), expired[0].at), (Some("o1".into()), moment("2027-03-01T10:00")));
    shop.advance("2028-01-01");
    assert_eq!(shop.entries(), ["expire:order:o2 expire -70/+0 → 0/170 bronze"]);
    assert_eq!(shop.told(&["points_expiring"]).len(), 1);
}

#[test]
fn a_tier_is_not_lost_by_expiry() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "600").advance("2028-01-01");
    assert_eq!(shop.sums("u"), (0, 600, "silver".into()));
}

#[test]
fn a_redemption_takes_the_oldest_points_so_they_do_not_expire() {
    let mut rules = plain();
    rules["rewards"] = json!({"mug": {"name": "A mug", "points": 130}});
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "100").order("2026-04-01", "u", "o2", "100").order("2026-05-01", "u", "o3", "100");
    shop.command("2026-05-02", "u", "c1", "redeem", json!({"reward_id": "mug"})).entries();
    shop.advance("2027-04-15");
    assert_eq!(shop.entries(), ["expire:order:o2 expire -70/+0 → 100/300 bronze"]);
    let told = shop.told_of("points_expiring", "points");
    assert_eq!(told, ["70", "100"], "nothing is said of points already spent");
}

#[test]
fn a_refund_that_names_no_order_takes_the_oldest_points() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "u", "o1", "100").order("2026-04-01", "u", "o2", "100");
    shop.refund("2026-04-02", "u", "r1", json!({"amount": "60"})).advance("2027-03-02");
    assert_eq!(shop.entries()[3..], ["expire:order:o1 expire -40/+0 → 100/140 bronze"]);
}

#[test]
fn bonus_points_expire_as_earned_ones_do() {
    let mut shop = Shop::new();
    for order in ["o1", "o2", "o3"] {
        shop.order("2026-03-01", "u", order, "0");
    }
    shop.entries();
    shop.advance("2027-03-01");
    assert_eq!(shop.entries(), ["expire:challenge:three_purchases:2026-03 expire -50/+0 → 0/50 bronze"]);
}

#[test]
fn expiry_is_off_for_a_country_or_altogether() {
    let mut rules = plain();
    rules["expiry"] = json!({"off_countries": ["DE"]});
    let mut shop = Shop::with(rules);
    shop.customer("u", json!({"country": "DE"})).customer("v", json!({"country": "FR"}));
    shop.order("2026-03-01", "u", "o1", "100").order("2026-03-01", "v", "o1", "100").entries();
    shop.advance("2030-01-01");
    assert_eq!(shop.sums("u").0, 100);
    assert_eq!(shop.sums("v").0, 0);
    assert_eq!(shop.told(&["points_expiring"]).len(), 1);
    // Points kept for ever are still the order's own.
    shop.order("2030-01-02", "u", "o2", "10").refund("2030-01-03", "u", "r1", json!({"order_id": "o1"}));
    assert_eq!(shop.sums("u"), (10, 10, "bronze".into()));

    let mut rules = plain();
    rules["expiry"] = json!({"days": 0});
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "100").advance("2036-01-01");
    assert_eq!(shop.sums("u").0, 100);
}

#[test]
fn an_order_that_comes_over_a_year_late_earns_and_expires() {
    let mut shop = Shop::with(plain());
    shop.order("2028-01-01", "u", "o1", "10").order("2026-01-01", "u", "o0", "100");
    shop.advance("2028-01-01T00:01");
    assert_eq!(
        shop.entries(),
        [
            "order:o1 earn +10/+10 → 10/10 bronze",
            "order:o0 earn +100/+100 → 110/110 bronze",
            "expire:order:o0 expire -100/+0 → 10/110 bronze"
        ]
    );
}
