//! Subscriptions through their lives.

use super::*;

#[test]
fn a_subscription_is_active_past_due_and_expired_unless_it_is_renewed() {
    let mut shop = Shop::new();
    shop.subscription("2026-01-31", "started premium_box", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active"]);
    assert_eq!(shop.now()["until"], json!(at("2026-02-28")), "the month's end clamps");
    shop.subscription("2026-02-28", "renewed", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active"], "a renewal at the very end of the period is in time");
    assert_eq!(shop.now()["until"], json!(at("2026-03-31")), "and the next month is not shortened");
    shop.until("2026-03-31T00:00:00.001Z");
    assert_eq!(shop.statuses(), ["premium_box past_due"]);
    assert!(shop.has("early_access"), "within grace");
    assert_eq!(shop.now()["until"], json!(at("2026-04-07")));
    shop.until("2026-04-07");
    assert_eq!(shop.statuses(), ["- expired"]);
    assert!(!shop.has("early_access"));
}

#[test]
fn the_days_of_grace_are_the_shop_s() {
    let mut shop = Shop::with(json!({"subscriptions": {"grace_days": 2}}));
    shop.subscription("2026-03-01", "started basic_box", json!({})).until("2026-04-03");
    assert_eq!(shop.statuses(), ["basic_box active", "basic_box past_due", "- expired"]);
}

#[test]
fn periods_begin_by_the_shop_s_calendar() {
    let mut shop = Shop::with(json!({"shop": {"timezone": "Europe/Berlin"}}));
    shop.subscription("2026-01-30T23:30:00Z", "started basic_box", json!({}));
    assert_eq!(shop.now()["until"], json!(at("2026-02-27T23:30:00Z")), "the 31st in Berlin");
}

#[test]
fn a_renewal_within_grace_pays_the_period_that_was_due() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-04-04", "renewed", json!({}));
    assert_eq!(shop.statuses(), ["basic_box active", "basic_box past_due", "basic_box active"]);
    assert_eq!(shop.now()["until"], json!(at("2026-05-01")));
}

#[test]
fn a_payment_that_comes_after_expiry_revives_for_the_period_it_falls_in() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-06-10", "renewed basic_box", json!({}));
    assert_eq!(shop.statuses().last().unwrap(), "basic_box active");
    assert_eq!(shop.now()["until"], json!(at("2026-07-01")));
}

#[test]
fn a_failed_payment_is_past_due_at_once_and_grace_runs_from_it_or_from_the_period_s_end() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-03-02", "payment_failed", json!({}));
    assert_eq!(shop.statuses(), ["basic_box active", "basic_box past_due"]);
    assert_eq!(shop.now()["until"], json!(at("2026-03-09")), "the first payment itself failed");
    shop.subscription("2026-03-05", "payment_failed", json!({}));
    assert_eq!(shop.now()["until"], json!(at("2026-03-09")), "another try gives no more grace");
    shop.subscription("2026-03-06", "renewed", json!({}));
    assert_eq!(shop.now()["until"], json!(at("2026-04-01")), "the first period is paid now");
    shop.subscription("2026-03-30", "payment_failed", json!({}));
    assert_eq!(shop.now()["until"], json!(at("2026-04-08")), "what is paid and the grace");
    shop.subscription("2026-03-31", "renewed", json!({}));
    assert_eq!((shop.now()["status"].clone(), shop.now()["until"].clone()), (json!("active"), json!(at("2026-05-01"))));
}

#[test]
fn a_trial_counts_until_its_end_and_then_wants_to_be_paid() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started premium_box", json!({"trial_until": "2026-03-15T00:00:00Z"}));
    assert_eq!(shop.statuses(), ["premium_box trialing"]);
    assert!(shop.has("early_access"));
    shop.subscription("2026-03-10", "renewed", json!({}));
    assert_eq!(shop.now()["status"], json!("trialing"), "paid ahead");
    shop.until("2026-03-15");
    assert_eq!(shop.statuses().last().unwrap(), "premium_box active");
    assert_eq!(shop.now()["until"], json!(at("2026-04-15")), "period 0 begins at the trial's end");

    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started premium_box", json!({"trial_until": "2026-03-15T00:00:00Z"})).until("2026-03-22");
    assert_eq!(shop.statuses(), ["premium_box trialing", "premium_box past_due", "- expired"]);
}

#[test]
fn a_paused_one_gives_nothing_and_is_taken_up_again_with_what_was_paid() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started premium_box", json!({})).subscription("2026-03-10", "paused", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active", "- paused"]);
    assert!(!shop.has("early_access"));
    shop.subscription("2026-03-20", "resumed", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active"]);
    shop.subscription("2026-03-25", "paused", json!({})).until("2026-06-01");
    assert_eq!(shop.statuses(), ["- paused"], "the calendar goes on, but nothing is due");
    shop.subscription("2026-06-10", "resumed", json!({}));
    assert_eq!((shop.statuses(), shop.now()["until"].clone()), (vec!["premium_box past_due".to_owned()], json!(at("2026-06-17"))));
    shop.subscription("2026-06-11", "renewed", json!({}));
    assert_eq!(shop.now()["until"], json!(at("2026-07-01")), "a payment pays at least the period it falls in");
}

#[test]
fn a_cancelled_one_counts_until_its_period_s_end_or_ends_at_once() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started premium_box", json!({}));
    shop.subscription("2026-03-10", "cancelled", json!({"at_period_end": true}));
    assert_eq!(shop.statuses(), ["premium_box active", "premium_box cancelled"]);
    assert!(shop.has("early_access"));
    shop.subscription("2026-03-11", "resumed", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active"], "it has not taken effect");
    shop.subscription("2026-03-12", "cancelled", json!({"at_period_end": true})).until("2026-04-01");
    assert_eq!(shop.statuses(), ["premium_box cancelled", "- cancelled"]);
    shop.subscription("2026-04-02", "resumed", json!({}));
    assert!(shop.refusal().contains("is cancelled and over; start a new one"));

    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started premium_box", json!({})).subscription("2026-03-10", "cancelled", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active", "- cancelled"]);
}

#[test]
fn the_newest_active_subscription_counts_and_ties_go_to_the_last_to_arrive() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-10", "started basic_box", json!({"subscription_id": "new"}));
    shop.subscription("2026-03-11", "started deluxe_box", json!({"subscription_id": "old", "effective_at": "2026-03-01T00:00:00Z"}));
    assert_eq!(shop.now()["plan_id"], "basic_box", "the newest, not the last to arrive");
    shop.subscription("2026-03-12", "started premium_box", json!({"subscription_id": "tie", "effective_at": "2026-03-10T00:00:00Z"}));
    assert_eq!(shop.now()["plan_id"], "premium_box", "of two that start at one moment the last to arrive");
    shop.subscription("2026-03-13", "cancelled", json!({"subscription_id": "tie"}));
    assert_eq!(shop.now()["plan_id"], "basic_box");
    shop.subscription("2026-03-14", "paused", json!({"subscription_id": "new"}));
    assert_eq!(shop.now()["plan_id"], "deluxe_box", "the newest is not active");
}

#[test]
fn an_upgrade_counts_at_once_and_its_proration_is_computed_not_charged() {
    let mut shop = Shop::new();
    shop.subscription("2026-04-01", "started basic_box", json!({})).subscription("2026-04-16", "changed premium_box", json!({}));
    assert_eq!(shop.statuses(), ["basic_box active", "premium_box active"]);
    let [data] = shop.notices("plan_changed").try_into().unwrap();
    assert_eq!(data["proration"], "15.00");
    assert_eq!((&data["from"], &data["to"], &data["direction"]), (&json!("basic_box"), &json!("premium_box"), &json!("upgrade")));
    assert_eq!(data["effective_at"], json!(at("2026-04-16")));
    assert_eq!(shop.now()["until"], json!(at("2026-05-01")), "the period goes on");
}

#[test]
fn a_downgrade_waits_for_the_renewal() {
    let mut shop = Shop::new();
    shop.subscription("2026-04-01", "started premium_box", json!({})).subscription("2026-04-16", "changed basic_box", json!({}));
    assert_eq!(shop.statuses(), ["premium_box active"]);
    let data = shop.notices("plan_changed").remove(0);
    assert_eq!((&data["proration"], &data["effective_at"]), (&json!("0.00"), &json!(at("2026-05-01"))));
    shop.subscription("2026-04-29", "renewed premium_box", json!({}));
    assert!(shop.has("early_access"), "the paid period is not over");
    shop.until("2026-05-01");
    assert_eq!(shop.now()["plan_id"], "basic_box");
    assert!(!shop.has("early_access"));
}

#[test]
fn a_downgrade_is_taken_back_by_changing_to_the_present_plan() {
    let mut shop = Shop::new();
    shop.subscription("2026-04-01", "started premium_box", json!({})).subscription("2026-04-16", "changed basic_box", json!({}));
    shop.subscription("2026-04-17", "changed premium_box", json!({})).subscription("2026-05-01", "renewed", json!({}));
    assert_eq!(shop.now()["plan_id"], "premium_box");
}

#[test]
fn a_subscriber_keeps_the_version_bought_until_renewal() {
    let mut shop = Shop::new();
    shop.customers.global(plan("tea", "10", json!({"cups": "2"})));
    shop.subscription("2026-03-01", "started tea", json!({}));
    let dearer = tillflow_schemas::Plan { valid_from: Some(at("2026-03-10")), ..plan("tea", "12", json!({"cups": "3"})) };
    shop.customers.global(dearer);
    shop.subscription("2026-03-15", "changed tea", json!({}));
    assert_eq!(shop.feature("cups")["value"], 2);
    shop.subscription("2026-03-28", "renewed", json!({}));
    assert_eq!(shop.feature("cups")["value"], 2, "renewed ahead of its time: what was bought begins with its period");
    shop.until("2026-04-01");
    assert_eq!(shop.feature("cups")["value"], 3);
}

#[test]
fn a_renewal_may_name_another_plan_and_another_interval() {
    let mut shop = Shop::new();
    let yearly = tillflow_schemas::Plan { interval: "year".into(), ..plan("tea_year", "100", json!({"cups": "2"})) };
    shop.customers.global(yearly);
    shop.subscription("2026-01-31", "started basic_box", json!({})).subscription("2026-02-20", "renewed tea_year", json!({}));
    assert_eq!(shop.now()["plan_id"], "basic_box");
    assert_eq!(shop.now()["until"], json!(at("2027-02-28")), "paid until a year after the month");
    shop.until("2026-02-28");
    assert_eq!(shop.now()["plan_id"], "tea_year");
    assert_eq!(shop.now()["until"], json!(at("2027-02-28")));
}

#[test]
fn own_plans_come_from_the_topic_or_the_configuration_and_replace_built_in_ones() {
    let own = json!([{"plan_id": "coffee", "name": "Coffee", "price": "9", "interval": "week", "features": {"beans": "250"}}]);
    let mut shop = Shop::with(json!({"subscriptions": {"plans": own}}));
    shop.subscription("2026-03-01", "started coffee", json!({"subscription_id": "a"}));
    assert_eq!((shop.feature("beans")["value"].clone(), shop.now()["until"].clone()), (json!(250), json!(at("2026-03-08"))));
    shop.customers.global(plan("basic_box", "19", json!({"target_item_count": "3"})));
    shop.subscription("2026-03-02", "started basic_box", json!({"subscription_id": "b"}));
    assert_eq!(shop.feature("target_item_count")["value"], 3);

    let mut shop = Shop::with(json!({"subscriptions": {"built_in_plans": false}}));
    shop.subscription("2026-03-02", "started basic_box", json!({}));
    assert!(shop.refusal().contains("there is no plan 'basic_box'"));
}

#[test]
fn an_event_of_an_unknown_plan_or_subscription_is_refused_by_name() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started gold_box", json!({}));
    assert!(shop.refusal().contains("plan_id: there is no plan 'gold_box'; there are basic_box, premium_box, deluxe_box"));
    shop.subscription("2026-03-01", "started", json!({}));
    assert!(shop.refusal().contains("plan_id is missing"));
    shop.subscription("2026-03-01", "renewed", json!({}));
    assert!(shop.refusal().contains("the customer has no subscription"));
    shop.subscription("2026-03-01", "started basic_box", json!({"subscription_id": "s1"}));
    shop.subscription("2026-03-02", "renewed", json!({"subscription_id": "s2"}));
    assert!(shop.refusal().contains("no subscription 's2'"));
    shop.subscription("2026-03-02", "started basic_box", json!({"subscription_id": "s1"}));
    assert!(shop.refusal().contains("s1: it is active since 2026-03-01"));
}

#[test]
fn a_subscription_without_id_is_named_by_its_start() {
    let named = |fields| {
        let mut shop = Shop::new();
        shop.shelf(0, 9).subscription("2026-03-01", "started basic_box", fields);
        shop.boxes().remove(0).box_id
    };
    assert_eq!(named(json!({"subscription_id": "s1", "event_id": "e1"})), "s1:0");
    assert_eq!(named(json!({"event_id": "e1"})), "e1:0");
    assert_eq!(named(json!({})), "basic_box@2026-03-01T00:00:00.000Z:0");
}

#[test]
fn an_event_without_id_means_the_newest_of_its_plan_else_the_newest() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-03-02", "started deluxe_box", json!({}));
    shop.subscription("2026-03-03", "cancelled basic_box", json!({}));
    assert_eq!(shop.now()["plan_id"], "deluxe_box", "the one of the plan named");
    shop.subscription("2026-03-04", "cancelled", json!({}));
    assert_eq!(shop.now()["status"], "cancelled", "the newest that is not over");
    shop.subscription("2026-03-05", "started basic_box", json!({})).subscription("2026-03-06", "changed premium_box", json!({}));
    assert_eq!(shop.now()["plan_id"], "premium_box");
}

#[test]
fn an_event_takes_effect_when_it_says() {
    let mut shop = Shop::new();
    shop.subscription("2026-03-01", "started premium_box", json!({}));
    shop.subscription("2026-03-02", "cancelled", json!({"effective_at": "2026-03-20T00:00:00Z"}));
    shop.subscription("2026-03-03", "changed deluxe_box", json!({"effective_at": "2026-03-10T00:00:00Z"}));
    assert_eq!(shop.statuses(), ["premium_box active"]);
    shop.until("2026-03-10");
    assert_eq!(shop.statuses(), ["deluxe_box active"]);
    shop.until("2026-03-20");
    assert_eq!(shop.statuses(), ["- cancelled"]);
    shop.subscription("2026-03-21", "started gold_box", json!({"effective_at": "2026-04-20T00:00:00Z"}));
    assert!(shop.refusal().contains("gold_box"), "what is wrong is said at once");
}

#[test]
fn a_start_told_twice_starts_once_and_one_that_was_over_starts_again() {
    let mut shop = Shop::new();
    let start = |shop: &mut Shop, day| {
        shop.subscription(day, "started basic_box", json!({"subscription_id": "s"}));
    };
    start(&mut shop, "2026-03-01");
    start(&mut shop, "2026-03-01");
    shop.subscription("2026-03-05", "cancelled", json!({}));
    start(&mut shop, "2026-06-01");
    assert_eq!(shop.statuses(), ["basic_box active", "- cancelled", "basic_box active"]);
    assert_eq!(shop.now()["until"], json!(at("2026-07-01")));
}
