//! Stories of campaigns.

use crate::email::testing::{Shop, product, time};
use serde_json::json;

fn mail(template: &str, at: &str) -> (String, String) {
    (template.to_owned(), at.to_owned())
}

#[test]
fn a_cart_left_for_an_hour_brings_a_mail_and_another_a_day_later() {
    let mut shop = Shop::new();
    shop.product("p1", "tea");
    shop.add("01T10:00", "p1").until("01T10:59");
    assert!(shop.mails().is_empty());
    shop.until("01T11:00");
    let triggers = shop.triggers();
    let mail = &triggers[0];
    assert_eq!(
        (mail.to.as_str(), mail.template.as_str(), mail.campaign_id.as_str()),
        ("u@example.com", "abandoned_cart", "abandoned_cart")
    );
    assert_eq!(mail.send_after, time("01T11:00"));
    assert_eq!(mail.data["first_name"], "Ada");
    assert_eq!(mail.data["items"][0]["name"], "The p1");
    assert_eq!(mail.data["items"][0]["price"], "10.00");
    assert_eq!(mail.because, "1 product in the cart, untouched since 2026-03-01T10:00:00.000Z");
    shop.until("03T00:00");
    assert_eq!(shop.mails(), [("abandoned_cart_reminder".into(), "02T11:00".into())]);
}

#[test]
fn each_touch_of_the_cart_starts_the_hour_anew() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").add("01T10:50", "p2");
    shop.event("01T11:40", "removed_from_cart", json!({"product_id": "p2"})).until("01T12:39");
    assert!(shop.mails().is_empty());
    shop.until("01T12:40");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "01T12:40")]);
}

#[test]
fn an_emptied_cart_brings_no_mail() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").event("01T10:30", "removed_from_cart", json!({"product_id": "p1"})).until("04T00:00");
    assert!(shop.mails().is_empty());
    shop.add("05T10:00", "p1").until("05T11:00");
    shop.event("05T12:00", "removed_from_cart", json!({"product_id": "p1"})).until("09T00:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "05T11:00")], "the second step is dropped with the cart");
}

#[test]
fn nothing_about_a_cart_after_an_order() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").order("01T10:30", "o1", "10").until("02T23:00");
    assert!(shop.mails().is_empty());
    // A cart filled within 48 hours after the order, too; one filled at 48 hours is another matter.
    shop.add("03T10:29", "p1").until("04T12:00");
    assert!(shop.mails().is_empty());
    let mut shop = Shop::new();
    shop.order("01T10:30", "o1", "10").add("03T10:30", "p1").until("03T12:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "03T11:30")]);
}

#[test]
fn an_order_between_the_two_steps_ends_the_series() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").until("01T11:00").order("01T12:00", "o1", "10").until("04T00:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "01T11:00")]);
}

#[test]
fn the_next_series_begins_at_the_earliest_seven_days_after_the_last_one_s_cart() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").until("04T00:00");
    assert_eq!(shop.mails().len(), 2);
    shop.add("08T09:59", "p2").until("10T00:00");
    assert!(shop.mails().is_empty());
    shop.event("10T10:00", "removed_from_cart", json!({"product_id": "p2"})).until("12T00:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "10T11:00"), mail("abandoned_cart_reminder", "11T11:00")]);
}

#[test]
fn a_cart_touched_after_the_first_mail_is_a_new_one_within_the_seven_days() {
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").until("01T12:00").add("01T13:00", "p2").until("06T00:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "01T11:00")]);
}

#[test]
fn one_mail_in_a_day_over_all_campaigns_and_the_capped_one_is_dropped_and_said() {
    let mut shop = Shop::new();
    // A review request is due on the 8th at 10:30; the cart's mail goes out at 10:00 on that day.
    shop.order("01T10:30", "o1", "10").add("08T09:00", "p2").until("09T09:59");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "08T10:00")]);
    assert_eq!(shop.results(), [("capped".into(), "review_request: a mail was released at 2026-03-08T10:00:00.000Z; one in 1d".into())]);
    // Exactly a day later is allowed.
    shop.until("09T10:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart_reminder", "09T10:00")]);
    shop.until("20T00:00");
    assert!(shop.mails().is_empty(), "capped is never delayed");
}

#[test]
fn the_more_important_goes_first_when_two_are_due_at_one_moment() {
    let mut shop = Shop::new();
    shop.order("01T11:00", "o1", "10").add("08T10:00", "p2").until("08T12:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "08T11:00")]);
    assert!(shop.results()[0].1.starts_with("review_request"));
}

#[test]
fn consent_absent_is_no_and_no_address_is_said() {
    for (customer, why) in [
        (json!({"email": "u@example.com"}), "no consent"),
        (json!({"email": "u@example.com", "consent": {"status": "pending"}}), "consent is not confirmed yet"),
        (json!({"email": "u@example.com", "consent": {"status": "withdrawn"}}), "consent was withdrawn"),
        (json!({"consent": {"status": "granted"}}), "no address"),
    ] {
        let mut shop = Shop::new();
        shop.customer(customer).add("01T10:00", "p1").until("01T11:00");
        assert!(shop.mails().is_empty());
        assert_eq!(shop.results(), [("suppressed".into(), format!("abandoned_cart: {why}"))]);
    }
}

#[test]
fn an_unsubscription_a_complaint_and_a_hard_bounce_suppress_at_once() {
    for (event, fields, why) in [
        ("email_unsubscribed", json!({"message_id": "m"}), "unsubscribed"),
        ("email_complained", json!({"message_id": "m"}), "complained"),
        ("email_bounced", json!({"message_id": "m", "hard": true}), "the address bounced"),
    ] {
        let mut shop = Shop::new();
        shop.add("01T10:00", "p1").event("01T10:59", event, fields).until("01T11:00");
        assert!(shop.mails().is_empty(), "{event}");
        assert_eq!(shop.results(), [("suppressed".into(), format!("abandoned_cart: {why}"))]);
    }
    let mut shop = Shop::new();
    shop.add("01T10:00", "p1").event("01T10:59", "email_bounced", json!({"message_id": "m", "hard": false})).until("01T11:00");
    assert_eq!(shop.mails().len(), 1, "a soft bounce suppresses nothing");
}

#[test]
fn suppressed_mails_do_not_count_for_the_cap_and_a_bounced_one_gives_its_place_back() {
    let mut shop = Shop::new();
    shop.customer(json!({"email": "u@example.com"}));
    shop.order("01T10:30", "o1", "10").add("08T09:00", "p2").until("08T10:00");
    shop.customer(json!({"email": "u@example.com", "consent": {"status": "granted"}})).until("08T11:00");
    assert_eq!(shop.mails(), [mail("review_request", "08T10:30")]);

    let mut shop = Shop::new();
    shop.order("01T10:30", "o1", "10").add("08T09:00", "p2").until("08T10:00");
    let id = shop.triggers()[0].trigger_id.clone();
    shop.event("08T10:05", "email_bounced", json!({"message_id": format!("<{id}@shop.example>"), "hard": false})).until("08T11:00");
    assert_eq!(shop.mails(), [mail("review_request", "08T10:30")]);
}

#[test]
fn a_review_is_asked_for_a_week_after_the_order() {
    let mut shop = Shop::new();
    shop.product("p1", "tea");
    shop.order("01T10:00", "o1", "10").until("08T09:59");
    assert!(shop.mails().is_empty());
    shop.until("08T10:00");
    let mail = &shop.triggers()[0];
    assert_eq!((mail.template.as_str(), mail.data["order_id"].as_str()), ("review_request", Some("o1")));
    assert_eq!(mail.data["items"][0]["name"], "The p1");
}

#[test]
fn no_review_is_asked_for_once_it_is_there_or_the_order_was_refunded_or_cancelled() {
    for (event, fields) in [
        ("product_reviewed", json!({"product_id": "p1", "rating": 5})),
        ("order_refunded", json!({"refund_id": "r", "order_id": "o1", "amount": "1"})),
        ("order_refunded", json!({"refund_id": "r", "items": [{"product_id": "p1", "quantity": 1}]})),
        ("order_refunded", json!({"refund_id": "r", "amount": "1"})),
        ("order_cancelled", json!({"order_id": "o1"})),
    ] {
        let mut shop = Shop::new();
        shop.order("01T10:00", "o1", "10").event("05T10:00", event, fields.clone()).until("20T00:00");
        assert!(shop.mails().is_empty(), "{event} {fields}");
    }
    for (event, fields) in [
        ("product_reviewed", json!({"product_id": "p9"})),
        ("order_refunded", json!({"refund_id": "r", "order_id": "o9", "amount": "1"})),
        ("order_refunded", json!({"refund_id": "r", "items": [{"product_id": "p9", "quantity": 1}]})),
    ] {
        let mut shop = Shop::new();
        shop.order("01T10:00", "o1", "10").event("05T10:00", event, fields.clone()).until("20T00:00");
        assert_eq!(shop.mails().len(), 1, "{event} {fields}");
    }
}

#[test]
fn who_was_not_seen_for_30_60_and_90_days_is_called_back_with_the_offer() {
    let mut shop = Shop::with(json!({"email": {"offer_code": "COMEBACK"}}));
    shop.view("01T10:00", "p1").view("05T10:00", "p2").until("2026-08-01T00:00:00Z");
    let triggers = shop.triggers();
    let said: Vec<_> = triggers.iter().map(|t| (t.template.as_str(), t.data["days"].as_i64().unwrap(), t.send_after)).collect();
    assert_eq!(
        said,
        [
            ("win_back", 30, time("2026-04-04T10:00:00Z")),
            ("win_back", 60, time("2026-05-04T10:00:00Z")),
            ("win_back_last", 90, time("2026-06-03T10:00:00Z")),
        ]
    );
    assert!(triggers.iter().all(|t| t.data["offer_code"] == "COMEBACK"));
    // Seen again, the count starts anew.
    shop.view("2026-08-01T10:00:00Z", "p1").until("2026-09-01T00:00:00Z");
    assert_eq!(shop.mails(), [mail("win_back", "2026-08-31T10:00:00.000Z")]);
}

#[test]
fn an_event_in_the_shop_ends_win_back_and_opened_mails_do_not() {
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1").event("20T10:00", "email_opened", json!({"message_id": "m"})).until("31T10:00");
    assert_eq!(shop.mails(), [mail("win_back", "31T10:00")]);
    shop.view("2026-04-15T10:00:00Z", "p1").until("2026-05-15T09:59:00Z");
    assert!(shop.mails().is_empty());
    shop.until("2026-05-15T10:00:00Z");
    assert_eq!(shop.mails(), [mail("win_back", "2026-05-15T10:00:00.000Z")]);
}

#[test]
fn a_product_viewed_twice_and_left_brings_a_mail_after_four_hours() {
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1").view("01T10:30", "p2").until("01T20:00");
    assert!(shop.mails().is_empty());
    shop.view("02T10:00", "p1").until("02T14:00");
    let mail = &shop.triggers()[0];
    assert_eq!((mail.template.as_str(), mail.data["product"]["product_id"].as_str()), ("browse", Some("p1")));
    // Not again within a week.
    shop.view("04T10:00", "p1").until("07T00:00");
    assert!(shop.mails().is_empty());
}

#[test]
fn no_browse_mail_once_something_is_in_the_cart_or_bought() {
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1").view("01T10:30", "p1").order("01T11:00", "o1", "10").until("02T00:00");
    assert!(shop.mails().is_empty());
    let mut shop = Shop::new();
    shop.view("01T10:00", "p1").add("01T10:10", "p1").view("01T10:30", "p1").until("02T00:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "01T11:10")]);
}

#[test]
fn a_birthday_is_congratulated_once_a_year_in_the_user_s_morning() {
    let mut shop = Shop::new();
    shop.customer(json!({
        "email": "u@example.com", "birthday": "1990-03-05", "timezone": "Europe/Berlin", "consent": {"status": "granted"}}));
    shop.view("01T10:00", "p1").until("2027-03-06T00:00:00Z");
    let birthdays: Vec<_> = shop.triggers().into_iter().filter(|t| t.template == "birthday").map(|t| t.send_after).collect();
    assert_eq!(birthdays, [time("05T08:00"), time("2027-03-05T08:00:00Z")]);
}

#[test]
fn quiet_hours_delay_a_mail_to_the_user_s_morning_and_the_decision_with_it() {
    let settings = json!({"email": {"quiet_hours": {"from": "21:00", "until": "08:00"}}});
    let mut shop = Shop::with(settings.clone());
    shop.customer(json!({"email": "u@example.com", "timezone": "Europe/Berlin", "consent": {"status": "granted"}}));
    shop.add("01T19:30", "p1").until("02T06:59");
    assert!(shop.mails().is_empty());
    shop.until("02T07:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "02T07:00")]);
    // Due at 20:30 the next day, in time; an order in the night is seen before the release.
    let mut shop = Shop::with(settings);
    shop.add("01T21:30", "p1").order("02T01:00", "o1", "10").until("03T00:00");
    assert!(shop.mails().is_empty());
}

#[test]
fn a_step_delayed_beyond_48_hours_after_the_cart_is_dropped_and_said() {
    // Quiet all day but for one minute after noon.
    let quiet = json!({"from": "12:01", "until": "12:00"});
    let steps = json!([{"wait": "47h", "template": "late"}]);
    let mut shop = Shop::with(json!({"email": {"quiet_hours": quiet, "campaigns": {"abandoned_cart": {"steps": steps}}}}));
    shop.add("01T11:00", "p1").until("05T00:00");
    assert!(shop.mails().is_empty());
    assert_eq!(shop.results()[0].0, "expired");
}

#[test]
fn the_same_story_has_the_same_ids_and_other_users_others() {
    let tell = || {
        let mut shop = Shop::new();
        shop.add("01T10:00", "p1").until("04T00:00");
        shop.triggers().into_iter().map(|t| t.trigger_id).collect::<Vec<_>>()
    };
    let ids = tell();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids, tell());
}

#[test]
fn an_anonymous_visitor_gets_no_mail_and_no_result() {
    let mut shop = Shop::new();
    shop.driver.send_json(
        "user_event",
        json!({"event_type": "added_to_cart", "anonymous_id": "u", "product_id": "p1", "timestamp": "2026-03-01T10:00:00Z"}),
    );
    shop.until("20T00:00");
    assert!(shop.mails().is_empty() && shop.results().is_empty());
}

#[test]
fn back_in_stock_goes_to_who_asked_and_a_price_drop_only_under_the_lowest_of_30_days_and_by_5_per_cent() {
    let mut shop = Shop::new();
    let mut signal = |day: u32, kind: &str, data: serde_json::Value| {
        let at = format!("2026-03-{day:02}T10:00:00Z");
        shop.driver.global(product("p1", "tea"));
        shop.driver.send_json("customer_signal", json!({"user_id": "u", "signal_id": at, "at": at, "kind": kind, "data": data}));
        shop.driver.advance(time(&at));
        shop.triggers()
    };
    let told = signal(1, "back_in_stock", json!({"product_id": "p1"}));
    assert_eq!((told[0].template.as_str(), told[0].data["product"]["name"].as_str()), ("back_in_stock", Some("The p1")));
    let drop = |new: &str, lowest: &str| json!({"product_id": "p1", "old_price": "100.00", "new_price": new, "lowest_30d": lowest});
    assert!(signal(3, "price_drop", drop("96.00", "100.00")).is_empty(), "4 %");
    assert!(signal(5, "price_drop", drop("90.00", "90.00")).is_empty(), "was as low before");
    let told = signal(7, "price_drop", drop("90.00", "95.00"));
    assert_eq!(told[0].data["per_cent"], "5", "from the lowest of 30 days");
}

#[test]
fn the_shop_s_own_campaigns_start_at_an_event_or_a_segment_and_end_at_an_exit() {
    let welcome = json!({"trigger": {"event": "signed_up"}, "steps": [{"wait": "1h", "template": "welcome"}], "exit": ["order_completed"]});
    let vip = json!({"trigger": {"segment": "high_value"}, "steps": [{"wait": "2d", "template": "vip"}], "data": {"gift": "mug"}});
    let settings = json!({"email": {"campaigns": {"welcome": welcome, "vip": vip, "review_request": {"enabled": false}}}});
    let mut shop = Shop::with(settings.clone());
    shop.event("01T10:00", "signed_up", json!({})).until("01T12:00");
    assert_eq!(shop.mails(), [mail("welcome", "01T11:00")]);
    shop.order("03T10:00", "o1", "500").until("20T00:00");
    let mail = &shop.triggers()[0];
    assert_eq!((mail.template.as_str(), mail.data["gift"].as_str(), mail.send_after), ("vip", Some("mug"), time("05T10:00")));

    let mut shop = Shop::with(settings);
    shop.event("01T10:00", "signed_up", json!({})).order("01T10:30", "o1", "500");
    shop.event("02T10:00", "order_refunded", json!({"refund_id": "r", "order_id": "o1"})).until("20T00:00");
    assert!(shop.mails().is_empty(), "the order ends the one, leaving the segment the other");
}

#[test]
fn a_campaign_of_the_topic_changes_a_built_in_one_from_when_it_counts() {
    let mut shop = Shop::new();
    let record =
        json!({"campaign_id": "abandoned_cart", "valid_from": "2026-03-05T00:00:00Z", "steps": [{"wait": "2h", "template": "own"}]});
    shop.driver.global(serde_json::from_value::<tillflow_schemas::Campaign>(json!({"campaign_id": "abandoned_cart"})).unwrap());
    shop.driver.global(serde_json::from_value::<tillflow_schemas::Campaign>(record).unwrap());
    shop.add("01T10:00", "p1").until("04T00:00");
    assert_eq!(shop.mails().len(), 2);
    shop.add("10T10:00", "p1").until("14T00:00");
    assert_eq!(shop.mails(), [mail("own", "10T12:00")]);
}

#[test]
fn those_held_out_never_get_a_campaign_and_it_is_said() {
    let mut shop = Shop::with(json!({"email": {"campaigns": {"abandoned_cart": {"holdout": 100}}}}));
    shop.add("01T10:00", "p1").until("01T11:00");
    assert!(shop.mails().is_empty());
    assert_eq!(shop.results()[0].0, "suppressed");
    assert!(shop.driver.failures.is_empty());
}

#[test]
fn a_transactional_mail_has_no_cap_and_takes_none() {
    let receipt =
        json!({"trigger": {"event": "order_completed"}, "steps": [{"wait": "0s", "template": "receipt"}], "priority": "transactional"});
    let mut shop = Shop::with(json!({"email": {"campaigns": {"receipt": receipt}}}));
    shop.add("08T09:00", "p1").until("08T10:00").order("08T10:10", "o1", "10").order("08T10:20", "o2", "10").until("08T11:00");
    assert_eq!(shop.mails(), [mail("abandoned_cart", "08T10:00"), mail("receipt", "08T10:10"), mail("receipt", "08T10:20")]);
}

#[test]
fn a_tier_reached_is_told_by_mail_in_the_same_breath() {
    let mut shop = Shop::of(&crate::customers(&serde_json::Map::new()));
    shop.order("01T10:00", "o1", "499").until("01T11:00");
    assert!(shop.mails().is_empty());
    shop.order("02T10:00", "o2", "1").until("02T11:00");
    let mail = &shop.triggers()[0];
    assert_eq!((mail.template.as_str(), mail.send_after), ("tier_upgraded", time("02T10:00")));
    assert_eq!(mail.data["to"], "silver");
}
