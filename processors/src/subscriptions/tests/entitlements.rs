//! What customers may do, and why.

use super::*;
use proptest::prelude::*;

#[test]
fn an_unknown_customer_has_nothing() {
    let mut shop = Shop::new();
    assert_eq!(shop.now(), json!({"user_id": "u", "plan_id": null, "status": "none", "features": {}}));
    let answer = shop.feature("early_access");
    assert_eq!((&answer["has"], &answer["value"]), (&json!(false), &json!(null)));
    assert!(answer["because"].as_str().unwrap().contains("no plan"));
}

#[test]
fn entitlements_are_emitted_typed_with_what_follows_from_them() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started deluxe_box", json!({}));
    let [emitted] = shop.customers.emitted::<Entitlements>().try_into().unwrap();
    assert_eq!(
        serde_json::to_value(&emitted).unwrap(),
        json!({
            "user_id": "u", "plan_id": "deluxe_box", "status": "active", "since": "2026-03-01T00:00:00.000Z", "until": "2026-04-01T00:00:00.000Z",
            "features": {
                "dedicated_support": true, "early_access": true, "exclusive_item": true, "num_exclusive_items": 3,
                "personalized_recommendations": true, "priority_shipping": true, "shipping_speed": "priority", "target_item_count": 8
            }
        })
    );
    assert_eq!(shop.now(), serde_json::to_value(&emitted).unwrap());
}

#[test]
fn a_feature_is_answered_with_its_value_and_why() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({}));
    assert_eq!(
        shop.feature("target_item_count"),
        json!({"feature": "target_item_count", "has": true, "value": 4, "because": "plan basic_box (active)"})
    );
    assert_eq!(
        shop.feature("exclusive_item"),
        json!({"feature": "exclusive_item", "has": false, "value": false, "because": "plan basic_box (active) says false", "upgrade_to": "premium_box"})
    );
    assert_eq!(shop.feature("dedicated_support")["upgrade_to"], "deluxe_box");
    assert_eq!(
        shop.feature("teleport"),
        json!({"feature": "teleport", "has": false, "value": null, "because": "nothing gives it: plan basic_box (active)"})
    );
    shop.subscription("2026-03-02", "paused", json!({}));
    assert!(shop.feature("target_item_count")["because"].as_str().unwrap().contains("basic_box is paused"));
}

#[test]
fn a_tier_brings_its_benefits_with_or_without_a_plan_and_only_when_it_changes() {
    let mut shop = Shop::new();
    shop.event("2026-03-01", "page_viewed", json!({"url": "bronze"}));
    assert!(shop.statuses().is_empty(), "nothing to say of who has nothing");
    shop.event("2026-03-02", "page_viewed", json!({"url": "silver"})).event("2026-03-03", "page_viewed", json!({"url": "silver"}));
    assert_eq!(shop.statuses(), ["- none"]);
    assert_eq!(
        shop.feature("free_shipping_over"),
        json!({"feature": "free_shipping_over", "has": true, "value": 50, "because": "tier silver"})
    );
    shop.subscription("2026-03-04", "started premium_box", json!({})).event("2026-03-05", "page_viewed", json!({"url": "platinum"}));
    assert!(shop.has("dedicated_support") && shop.has("early_access") && shop.has("expedited_shipping"));
    shop.subscription("2026-03-06", "changed deluxe_box", json!({}));
    assert_eq!(shop.feature("dedicated_support")["because"], "plan deluxe_box (active) and tier platinum");
    shop.event("2026-03-07", "page_viewed", json!({"url": "bronze"})).subscription("2026-03-08", "cancelled", json!({}));
    assert_eq!(shop.now()["features"], json!({}));
}

#[test]
fn plan_and_tier_merge_by_the_feature_s_rule() {
    let mut shop = Shop::new();
    shop.customers.global(plan("club", "5", json!({"free_shipping_over": "80", "target_item_count": "2"})));
    shop.subscription("2026-03-01", "started club", json!({}));
    assert_eq!(shop.feature("free_shipping_over")["value"], 80);
    shop.event("2026-03-02", "page_viewed", json!({"url": "silver"}));
    assert_eq!(shop.feature("free_shipping_over")["value"], 50, "the smaller threshold is the better one");
}

#[test]
fn a_grant_is_merged_an_override_replaces_and_both_end() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({}));
    shop.signal("2026-03-02", "feature_granted", json!({"feature": "early_access", "until": "2026-03-10T00:00:00Z"}));
    shop.signal("2026-03-02", "feature_granted", json!({"feature": "target_item_count", "value": "3"}));
    assert_eq!(shop.feature("early_access")["because"], "grant until 2026-03-10T00:00:00.000Z");
    assert_eq!(shop.feature("target_item_count")["value"], 4, "the plan gives more");
    shop.signal("2026-03-03", "feature_granted", json!({"feature": "target_item_count", "value": 3, "override": true}));
    assert_eq!(shop.feature("target_item_count")["value"], 3);
    shop.until("2026-03-10").signal("2026-03-11", "feature_revoked", json!({"feature": "target_item_count"}));
    assert!(!shop.has("early_access"));
    assert_eq!(shop.feature("target_item_count")["value"], 4);
    shop.signal("2026-03-12", "feature_granted", json!({"feature": "x", "until": "2026-03-10T00:00:00Z"}));
    assert!(shop.refusal().contains("until"));
    shop.signal("2026-03-12", "feature_granted", json!({}));
    assert!(shop.refusal().contains("feature is missing"));
}

#[test]
fn a_denied_answer_suggests_the_cheapest_higher_plan_that_has_it_at_most_once_a_week() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({}));
    let denied = |shop: &mut Shop, day: &str, feature: &str| {
        shop.signal(day, "feature_denied", json!({"feature": feature}));
        shop.notices("upgrade_suggested").into_iter().map(|data| data["plan_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(denied(&mut shop, "2026-03-01", "teleport").is_empty(), "no plan has it");
    assert!(denied(&mut shop, "2026-03-01", "target_item_count").is_empty(), "it is not denied");
    assert_eq!(denied(&mut shop, "2026-03-02", "early_access"), ["premium_box"]);
    assert!(denied(&mut shop, "2026-03-08", "dedicated_support").is_empty());
    assert_eq!(denied(&mut shop, "2026-03-09", "dedicated_support"), ["deluxe_box"]);
    shop.subscription("2026-03-10", "changed deluxe_box", json!({}));
    shop.customers.global(plan("cheap", "1", json!({"karaoke": true})));
    assert!(denied(&mut shop, "2026-03-20", "karaoke").is_empty(), "a lower plan is no upgrade");
}

#[test]
fn since_tells_how_long_plan_status_and_features_are_the_same() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-03-31", "renewed", json!({}));
    assert_eq!((shop.now()["since"].clone(), shop.now()["until"].clone()), (json!(at("2026-03-01")), json!(at("2026-05-01"))));
    shop.subscription("2026-04-02", "changed premium_box", json!({}));
    assert_eq!(shop.now()["since"], json!(at("2026-04-02")));
}

#[derive(Clone, Debug)]
struct Step {
    hours: u16,
    action: usize,
    plan: usize,
    subscription: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u16..900, 0_usize..14, 0_usize..3, 0_usize..3).prop_map(|(hours, action, plan, subscription)| Step {
        hours,
        action,
        plan,
        subscription,
    });
    prop::collection::vec(step, 1..25)
}

/// Plays a customer's life; with `eager`, time is told more often than by events alone.
fn play(steps: &[Step], eager: &[bool]) -> Shop {
    let mut shop = Shop::new();
    shop.shelf(3, 12);
    let mut now = at("2026-01-31");
    for (i, step) in steps.iter().enumerate() {
        let until = now + std::time::Duration::from_secs(3600 * u64::from(step.hours));
        if eager.get(i).copied().unwrap_or_default() {
            let middle = Timestamp::from_millis((now.millis() + until.millis()) / 2);
            shop.customers.advance(middle);
            shop.exchange();
        }
        now = until;
        let day = now.to_string();
        let plan = ["basic_box", "premium_box", "deluxe_box"][step.plan];
        let tier = ["bronze", "silver", "platinum"][step.plan];
        let named = json!({"subscription_id": format!("s{}", step.subscription)});
        let later = (now + std::time::Duration::from_secs(86_400 * 9)).to_string();
        match step.action {
            0 | 1 => shop.subscription(&day, &format!("started {plan}"), named),
            2 => shop.subscription(&day, &format!("started {plan}"), json!({"subscription_id": "t", "trial_until": later})),
            3 => shop.subscription(&day, &format!("changed {plan}"), json!({})),
            4 | 5 => shop.subscription(&day, "renewed", named),
            6 => shop.subscription(&day, "renewed", json!({})),
            7 => shop.subscription(&day, "paused", named),
            8 => shop.subscription(&day, "resumed", named),
            9 => shop.subscription(&day, "payment_failed", named),
            10 => shop.subscription(&day, "cancelled", json!({"at_period_end": true})),
            11 => shop.subscription(&day, "cancelled", json!({"subscription_id": "s0", "effective_at": later})),
            12 => shop.event(&day, "page_viewed", json!({"url": tier})),
            _ => shop.signal(&day, "feature_granted", json!({"feature": "early_access", "until": later})),
        };
    }
    shop.until("2029-01-01");
    let internal: Vec<_> = shop.customers.failures.drain(..).filter(|f| f.contains("panicked")).collect();
    assert_eq!(internal, Vec::<String>::new());
    shop
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Class A: the same sequence, however time is told.
    #[test]
    fn entitlements_depend_on_the_customer_s_records_and_timers_alone(steps in steps(), eager in prop::collection::vec(any::<bool>(), 25)) {
        let (mut one, mut other) = (play(&steps, &[]), play(&steps, &eager));
        prop_assert_eq!(one.customers.emitted::<Entitlements>(), other.customers.emitted::<Entitlements>());
        let of = |shop: &mut Shop| shop.boxes().into_iter().map(|b| b.box_id).collect::<Vec<_>>();
        let (mut boxes, mut same) = (of(&mut one), of(&mut other));
        boxes.sort();
        same.sort();
        prop_assert_eq!(boxes, same);
    }

    /// Without renewals everything ends; no box is packed twice; the last record is what a query answers.
    #[test]
    fn what_is_emitted_is_what_is_answered_and_nothing_is_free_for_ever(steps in steps()) {
        let mut shop = play(&steps, &[]);
        let emitted = shop.customers.emitted::<Entitlements>();
        if let Some(last) = emitted.last() {
            prop_assert_eq!(&serde_json::to_value(last).unwrap(), &shop.now());
            prop_assert!(last.plan_id.is_none(), "{:?}", last);
        }
        let boxes: Vec<_> = shop.boxes().into_iter().map(|b| b.box_id).collect();
        let distinct: std::collections::BTreeSet<_> = boxes.iter().collect();
        prop_assert_eq!(distinct.len(), boxes.len());
    }
}
