//! E-mail, from what shoppers do and leave undone to segments and triggers: every time here is worked out by hand from
//! the rules, in the comment beside it.

use serde_json::{Value, json};
use tillflow_tests::{Decided, Story, with};

/// A time of 2026, given as `03-01T10:00`.
fn at(time: &str) -> String {
    format!("2026-{time}:00.000Z")
}

fn customer(story: &mut Story, user: &str, consent: Option<&str>, more: Value) {
    let consent = consent.map(|status| json!({"status": status, "at": "2026-01-01T00:00:00Z", "source": "checkout", "text_version": "1"}));
    story.tell("customers", with(json!({"user_id": user, "email": format!("{user}@example.org"), "consent": consent}), &more));
}

fn agrees(story: &mut Story, users: &[&str]) {
    for user in users {
        customer(story, user, Some("granted"), json!({}));
    }
}

fn event(story: &mut Story, user: &str, event_type: &str, time: &str, more: Value) {
    story.tell("user_events", with(json!({"event_type": event_type, "user_id": user, "timestamp": at(time)}), &more));
}

fn tea() -> Value {
    json!({"product_id": "tea"})
}

fn order(story: &mut Story, user: &str, id: &str, total: &str, time: &str) {
    let items = json!([{"product_id": "tea", "quantity": 1, "price": total}]);
    event(story, user, "order_completed", time, json!({"order_id": id, "total_amount": total, "items": items}));
}

/// Template and release of each mail to a customer.
fn mails(decided: &Decided, user: &str) -> Vec<String> {
    decided.told("email_triggers", user, &["template", "send_after"])
}

/// What came of mails that were not released.
fn dropped(decided: &Decided, user: &str) -> Vec<String> {
    decided.told("email_results", user, &["status", "detail"])
}

/// Segments entered and left: `03-01T10:00 +active +new`.
fn moves(decided: &Decided, user: &str) -> Vec<String> {
    let of = |record: &Value| {
        let names = |field: &str, sign: &str| {
            record[field].as_array().unwrap().iter().map(|s| format!(" {sign}{}", s.as_str().unwrap())).collect::<String>()
        };
        format!("{}{}{}", record["at"].as_str().unwrap(), names("entered", "+"), names("left", "-"))
    };
    decided.of("segments", user).into_iter().map(of).collect()
}

#[test]
fn a_cart_left_alone_brings_two_mails_and_one_that_was_ordered_or_emptied_none() {
    let mut shop = Story::new();
    shop.tell(
        "products",
        json!({"product_id": "tea", "name": "Sencha", "category": "drinks", "base_price": "5", "url": "https://s.example/tea"}),
    );
    customer(&mut shop, "ann", Some("granted"), json!({"first_name": "Ada"}));
    agrees(&mut shop, &["bob", "cleo", "dora", "eve"]);
    for user in ["bob", "cleo", "dora", "eve"] {
        event(&mut shop, user, "added_to_cart", "03-01T10:00", tea());
    }
    event(&mut shop, "ann", "added_to_cart", "03-01T09:50", json!({"product_id": "cup"}));
    event(&mut shop, "ann", "removed_from_cart", "03-01T09:55", json!({"product_id": "cup"}));
    event(&mut shop, "ann", "added_to_cart", "03-01T10:00", json!({"product_id": "tea", "quantity": 2, "price": "4.50"}));
    // A view is no change of the cart; the series starts from the last change.
    event(&mut shop, "ann", "product_viewed", "03-01T10:30", tea());
    order(&mut shop, "bob", "b", "5", "03-01T10:59");
    order(&mut shop, "cleo", "c", "5", "03-01T11:01");
    event(&mut shop, "dora", "removed_from_cart", "03-01T10:59", tea());
    // A new cart within 48 hours of an order, and within 7 days of the last series.
    event(&mut shop, "bob", "added_to_cart", "03-03T10:00", tea());
    event(&mut shop, "ann", "added_to_cart", "03-08T09:00", tea());
    // Eve changes it once more, and again a week and more later.
    event(&mut shop, "eve", "added_to_cart", "03-01T10:40", tea());
    event(&mut shop, "eve", "added_to_cart", "03-08T10:41", tea());
    let decided = shop.until(&at("03-08T13:00")).decide();
    let cart = |at: &str| format!("abandoned_cart {at}");
    let reminder = |at: &str| format!("abandoned_cart_reminder {at}");
    // An hour and 25 hours after t0.
    assert_eq!(mails(&decided, "ann"), [cart(&at("03-01T11:00")), reminder(&at("03-02T11:00"))]);
    assert_eq!(
        decided.of("email_triggers", "ann")[0],
        &json!({
            // SHA-256 of user, campaign, step and t0, each after its length: computed apart from this program.
            "trigger_id": "e7876926e57454810795e216a4273925", "user_id": "ann", "campaign_id": "abandoned_cart", "template": "abandoned_cart",
            "to": "ann@example.org", "because": format!("1 product in the cart, untouched since {}", at("03-01T10:00")),
            "send_after": at("03-01T11:00"),
            "data": {
                "first_name": "Ada", "products": 1, "cart_since": at("03-01T10:00"),
                "items": [{"product_id": "tea", "name": "Sencha", "url": "https://s.example/tea", "price": "4.50", "quantity": 2}],
            },
        })
    );
    assert_eq!(decided.of("email_triggers", "ann")[1]["trigger_id"], "b0aecf663b38d4cc1c1ac87d92b18c5d");
    let carts = |user| mails(&decided, user).into_iter().filter(|m| m.starts_with("abandoned")).collect::<Vec<_>>();
    assert_eq!(carts("bob"), [""; 0], "ordered in time, and an order two days before the next cart");
    assert_eq!(carts("cleo"), [cart(&at("03-01T11:00"))], "none after the order");
    assert_eq!(carts("dora"), [""; 0]);
    let eve = [cart(&at("03-01T11:40")), reminder(&at("03-02T11:40")), cart(&at("03-08T11:41"))];
    assert_eq!(carts("eve"), eve);
    // Ids of one decision are one, of two are two; the same story told again says all of it again.
    assert_eq!(shop.decide().0["email_triggers"], decided.0["email_triggers"]);
}

#[test]
fn what_a_visitor_put_into_the_cart_is_the_user_s_once_they_log_in() {
    let mut shop = Story::new();
    agrees(&mut shop, &["ann", "bob"]);
    let visitor = |story: &mut Story, id: &str, event_type: &str, time: &str, more: Value| {
        story.tell("user_events", with(json!({"event_type": event_type, "anonymous_id": id, "timestamp": at(time)}), &more));
    };
    visitor(&mut shop, "v1", "added_to_cart", "03-01T10:00", json!({"product_id": "tea", "quantity": 2}));
    visitor(&mut shop, "v1", "added_to_cart", "03-01T10:02", json!({"product_id": "cup"}));
    event(&mut shop, "ann", "page_viewed", "03-01T10:03", json!({"anonymous_id": "v1"}));
    // Bob says who he is with the order itself: it is for what the visitor had in the cart.
    visitor(&mut shop, "v2", "added_to_cart", "03-01T10:00", tea());
    event(&mut shop, "bob", "order_completed", "03-01T10:04", json!({"anonymous_id": "v2", "order_id": "o", "items": []}));
    let decided = shop.until(&at("03-01T13:00")).decide();
    // An hour after the visitor's last change.
    assert_eq!(mails(&decided, "ann"), [format!("abandoned_cart {}", at("03-01T11:02"))]);
    let items = &decided.of("email_triggers", "ann")[0]["data"]["items"];
    let items: Vec<_> = items.as_array().unwrap().iter().map(|i| (i["product_id"].as_str().unwrap(), i["quantity"].as_u64())).collect();
    assert_eq!(items, [("cup", Some(1)), ("tea", Some(2))]);
    assert!(!mails(&decided, "bob").iter().any(|m| m.starts_with("abandoned")), "{:?}", mails(&decided, "bob"));
    assert!(mails(&decided, "v1").is_empty());
}

#[test]
fn without_consent_nothing_is_triggered_and_it_is_said_why() {
    let mut shop = Story::new();
    for (user, consent) in [("absent", None), ("pending", Some("pending")), ("withdrawn", Some("withdrawn"))] {
        customer(&mut shop, user, consent, json!({}));
    }
    agrees(&mut shop, &["left", "bounced", "complained", "soft", "again"]);
    let users = ["absent", "pending", "withdrawn", "left", "bounced", "complained", "soft", "again", "unknown"];
    for user in users {
        event(&mut shop, user, "added_to_cart", "03-01T10:00", tea());
    }
    for user in ["left", "again"] {
        event(&mut shop, user, "email_unsubscribed", "03-01T10:30", json!({"message_id": "m"}));
    }
    event(&mut shop, "bounced", "email_bounced", "03-01T10:30", json!({"message_id": "m", "hard": true}));
    event(&mut shop, "soft", "email_bounced", "03-01T10:30", json!({"message_id": "m", "hard": false}));
    event(&mut shop, "complained", "email_complained", "03-01T10:30", json!({"message_id": "m"}));
    // Newer consent than the unsubscription.
    let consent = json!({"status": "granted", "at": at("03-01T10:40"), "source": "account", "text_version": "2"});
    shop.tell("customers", json!({"user_id": "again", "email": "again@example.org", "consent": consent, "valid_from": at("03-01T10:40")}));
    let decided = shop.until(&at("03-01T12:00")).decide();
    for (user, why) in [
        ("absent", "no consent"),
        ("pending", "consent is not confirmed yet"),
        ("withdrawn", "consent was withdrawn"),
        ("left", "unsubscribed"),
        ("bounced", "the address bounced"),
        ("complained", "complained"),
        ("unknown", "no address"),
    ] {
        assert_eq!(mails(&decided, user), [""; 0], "{user}");
        assert_eq!(dropped(&decided, user), [format!("suppressed abandoned_cart: {why}")], "{user}");
    }
    for user in ["soft", "again"] {
        assert_eq!(mails(&decided, user), [format!("abandoned_cart {}", at("03-01T11:00"))], "{user}");
    }
}

#[test]
fn a_week_after_an_order_a_review_is_asked_for_unless_it_was_written_or_the_order_undone() {
    let mut shop = Story::new();
    let users = ["kept", "reviewed", "refunded", "cancelled"];
    agrees(&mut shop, &users);
    for user in users {
        order(&mut shop, user, &format!("o-{user}"), "20", "03-01T10:00");
    }
    event(&mut shop, "reviewed", "product_reviewed", "03-05T10:00", json!({"product_id": "tea", "rating": 5}));
    event(&mut shop, "refunded", "order_refunded", "03-05T10:00", json!({"order_id": "o-refunded", "amount": "1"}));
    event(&mut shop, "cancelled", "order_cancelled", "03-05T10:00", json!({"order_id": "o-cancelled"}));
    let decided = shop.until(&at("03-09T00:00")).decide();
    assert_eq!(mails(&decided, "kept"), [format!("review_request {}", at("03-08T10:00"))]);
    let mail = decided.last("email_triggers", "kept");
    assert_eq!(
        (&mail["data"]["order_id"], &mail["because"]),
        (&json!("o-kept"), &json!(format!("order o-kept of {}, not reviewed yet", at("03-01T10:00"))))
    );
    for user in ["reviewed", "refunded", "cancelled"] {
        assert_eq!(mails(&decided, user), [""; 0], "{user}");
        assert_eq!(dropped(&decided, user), [""; 0], "{user}");
    }
}

#[test]
fn who_stays_away_is_called_back_after_30_60_and_90_days_with_an_offer() {
    let mut shop = Story::new();
    shop.config("email: { offer_code: COME10 }");
    agrees(&mut shop, &["ann", "bob"]);
    event(&mut shop, "ann", "page_viewed", "01-01T10:00", json!({}));
    event(&mut shop, "ann", "product_viewed", "01-10T10:00", tea());
    // An opened mail is no visit.
    event(&mut shop, "ann", "email_opened", "01-20T10:00", json!({"message_id": "m"}));
    event(&mut shop, "bob", "product_viewed", "01-10T10:00", tea());
    event(&mut shop, "bob", "product_viewed", "02-20T10:00", tea());
    let decided = shop.until(&at("04-15T00:00")).decide();
    let back = |template: &str, time: &str| format!("{template} {}", at(time));
    // 10 January + 30, 60, 90 days; Bob was back after 41 days, and it counts anew from then.
    assert_eq!(
        mails(&decided, "ann"),
        [back("win_back", "02-09T10:00"), back("win_back", "03-11T10:00"), back("win_back_last", "04-10T10:00")]
    );
    let first = decided.of("email_triggers", "ann")[0];
    assert_eq!(first["data"], json!({"days": 30, "last_seen": at("01-10T10:00"), "offer_code": "COME10"}));
    assert_eq!(mails(&decided, "bob")[..2], [back("win_back", "02-09T10:00"), back("win_back", "03-22T10:00")]);
}

#[test]
fn one_mail_in_24_hours_over_all_campaigns_and_what_is_capped_is_said() {
    let mut shop = Story::new();
    agrees(&mut shop, &["ann"]);
    // Reviews are due at 10:00, 12:00 and at 10:00 the day after: exactly 24 hours later is allowed.
    for (id, time) in [("o1", "03-01T10:00"), ("o2", "03-01T12:00"), ("o3", "03-02T10:00")] {
        order(&mut shop, "ann", id, "1", time);
    }
    // Both at once on another day: the cart comes before the review.
    order(&mut shop, "ann", "o4", "1", "03-10T10:00");
    event(&mut shop, "ann", "added_to_cart", "03-17T09:00", tea());
    let decided = shop.until(&at("03-18T09:00")).decide();
    let told = decided.told("email_triggers", "ann", &["campaign_id", "send_after"]);
    assert_eq!(
        told,
        [
            format!("review_request {}", at("03-08T10:00")),
            format!("review_request {}", at("03-09T10:00")),
            format!("abandoned_cart {}", at("03-17T10:00")),
        ]
    );
    let capped = |time: &str| format!("capped review_request: a mail was released at {}; one in 1d", at(time));
    assert_eq!(dropped(&decided, "ann"), [capped("03-08T10:00"), capped("03-17T10:00")]);
}

#[test]
fn of_mails_due_at_one_moment_the_first_in_rank_is_released_and_the_others_are_capped() {
    let mut shop = Story::new();
    // Named against their rank.
    for (id, priority, wait) in
        [("a", "win_back", "2h"), ("b", "browse", "2h"), ("c", "review", "2h"), ("d", "transactional", "2h"), ("e", "transactional", "3h")]
    {
        let steps = json!([{"wait": wait, "template": id}]);
        shop.tell("campaigns", json!({"campaign_id": id, "trigger": {"event": "signed_up"}, "steps": steps, "priority": priority}));
    }
    agrees(&mut shop, &["ann", "bob"]);
    for user in ["ann", "bob"] {
        event(&mut shop, user, "signed_up", "03-01T10:00", json!({}));
    }
    event(&mut shop, "ann", "added_to_cart", "03-01T11:00", tea());
    // The invariants don't know which campaigns a shop calls transactional: to them these are one too many.
    let decided = shop.until(&at("03-01T14:00")).decide_with_dead_letters();
    let (two, three) = (at("03-01T12:00"), at("03-01T13:00"));
    let capped = |id: &str| format!("capped {id}: a mail was released at {two}; one in 1d");
    // A transactional mail takes nobody's place, and none is taken from it.
    assert_eq!(mails(&decided, "ann"), [format!("d {two}"), format!("abandoned_cart {two}"), format!("e {three}")]);
    assert_eq!(dropped(&decided, "ann"), ["c", "b", "a"].map(capped));
    assert_eq!(mails(&decided, "bob"), [format!("d {two}"), format!("c {two}"), format!("e {three}")]);
    assert_eq!(dropped(&decided, "bob"), ["b", "a"].map(capped));
    assert_eq!(decided.0["dead_letters"].len(), 0);
}

#[test]
fn a_mail_due_in_the_night_of_its_reader_waits_for_the_morning_and_is_decided_then() {
    let mut shop = Story::new();
    shop.config("email: { quiet_hours: { from: '21:00', until: '08:00' } }");
    let berlin = || json!({"timezone": "Europe/Berlin"});
    customer(&mut shop, "berlin", Some("granted"), berlin());
    customer(&mut shop, "bought", Some("granted"), berlin());
    agrees(&mut shop, &["greenwich"]);
    // Due at 20:30: in Berlin it is 21:30.
    for user in ["berlin", "bought", "greenwich"] {
        event(&mut shop, user, "added_to_cart", "03-01T19:30", tea());
    }
    order(&mut shop, "bought", "o", "5", "03-02T02:00");
    let decided = shop.until(&at("03-02T12:00")).decide();
    assert_eq!(mails(&decided, "berlin"), [format!("abandoned_cart {}", at("03-02T07:00"))]);
    assert_eq!(mails(&decided, "greenwich"), [format!("abandoned_cart {}", at("03-01T20:30"))]);
    assert_eq!(mails(&decided, "bought"), [""; 0]);
}

#[test]
fn some_never_get_a_campaign_always_the_same_and_it_is_said() {
    let mut shop = Story::new();
    shop.tell("campaigns", json!({"campaign_id": "abandoned_cart", "holdout": 32}));
    // The first four bytes of SHA-256 of user, campaign and "holdout", each after its length, modulo 100: computed apart from
    // this program.
    let users = [("bob", 1), ("dora", 30), ("ann", 34), ("eve", 73), ("fay", 85), ("cleo", 90)];
    for (user, _) in users {
        agrees(&mut shop, &[user]);
        event(&mut shop, user, "added_to_cart", "03-01T10:00", tea());
    }
    let decided = shop.until(&at("03-01T12:00")).decide();
    for (user, hash) in users {
        let is_held_out = hash < 32;
        assert_eq!(mails(&decided, user).is_empty(), is_held_out, "{user}");
        let said = "suppressed abandoned_cart: held out: one of the 32 % who never get it";
        assert_eq!(dropped(&decided, user), [said][..usize::from(is_held_out)], "{user}");
    }
}

#[test]
fn an_order_that_was_undone_before_it_came_brings_no_request_for_a_review_and_counts_for_what_is_left() {
    let mut shop = Story::new();
    shop.tell("campaigns", json!({"campaign_id": "tier_upgraded", "enabled": false}));
    shop.tell("products", json!({"product_id": "tea", "name": "tea", "category": "drinks", "base_price": "5"}));
    agrees(&mut shop, &["kept", "cancelled", "refunded", "returned"]);
    let refund = |order: &str, more: Value| with(json!({"refund_id": "r", "order_id": order}), &more);
    event(&mut shop, "cancelled", "order_cancelled", "03-01T09:00", json!({"order_id": "o-cancelled"}));
    event(&mut shop, "refunded", "order_refunded", "03-01T09:00", refund("o-refunded", json!({"amount": "150"})));
    let back = json!({"items": [{"product_id": "tea", "quantity": 1, "price": "60"}]});
    event(&mut shop, "returned", "order_refunded", "03-01T10:00", refund("o-returned", back));
    for user in ["kept", "cancelled", "refunded", "returned"] {
        order(&mut shop, user, &format!("o-{user}"), "560", "03-01T10:00");
    }
    // What is to be taken from an order yet to come is not taken from those before it.
    order(&mut shop, "before", "b", "500", "03-01T10:00");
    event(&mut shop, "before", "order_refunded", "03-02T10:00", refund("later", json!({"amount": "100"})));
    order(&mut shop, "before", "later", "100", "03-03T10:00");
    let decided = shop.until(&at("03-09T00:00")).decide();
    let segments = |user: &str| {
        let segments = decided.last("segments", user)["segments"].as_array().unwrap().clone();
        ["high_value", "bought_category:drinks"].map(|segment| segments.contains(&json!(segment)))
    };
    assert_eq!(mails(&decided, "kept"), [format!("review_request {}", at("03-08T10:00"))]);
    assert_eq!(segments("kept"), [true, true]);
    // 560 − 150 is less than 500, 560 − 60 is not.
    for (user, left) in [("cancelled", [false, false]), ("refunded", [false, true]), ("returned", [true, true])] {
        assert_eq!((mails(&decided, user), dropped(&decided, user)), (vec![], vec![]), "{user}");
        assert_eq!(segments(user), left, "{user}");
    }
    assert!(!moves(&decided, "before").concat().contains("-high_value"), "{:?}", moves(&decided, "before"));
    assert_eq!(decided.last("loyalty_updates", "cancelled")["balance"], 0);
}

#[test]
fn tiers_birthdays_second_looks_and_a_shop_s_own_campaigns_bring_mails() {
    let mut shop = Story::new();
    let own = json!({"campaign_id": "welcome", "trigger": {"event": "signed_up"}, "steps": [{"wait": "2h", "template": "welcome"}], "exit": ["order_completed"]});
    shop.tell("campaigns", own);
    let tea_lovers = json!({"campaign_id": "tea", "trigger": {"segment": "interest:tea"}, "steps": [{"wait": "1d", "template": "tea"}]});
    shop.tell("campaigns", tea_lovers);
    shop.tell("campaigns", json!({"campaign_id": "review_request", "enabled": false}));
    agrees(&mut shop, &["tiered", "looking", "welcomed", "bought"]);
    customer(&mut shop, "born", Some("granted"), json!({"birthday": "1990-03-05", "timezone": "Europe/Berlin"}));
    customer(&mut shop, "keen", Some("granted"), json!({"interests": ["tea"]}));
    order(&mut shop, "tiered", "o", "500", "03-01T10:00");
    event(&mut shop, "looking", "product_viewed", "03-01T10:00", tea());
    event(&mut shop, "looking", "product_viewed", "03-01T11:00", tea());
    for user in ["welcomed", "bought"] {
        event(&mut shop, user, "signed_up", "03-01T10:00", json!({}));
    }
    order(&mut shop, "bought", "p", "1", "03-01T11:00");
    event(&mut shop, "born", "page_viewed", "03-01T10:00", json!({}));
    event(&mut shop, "keen", "page_viewed", "03-01T10:00", json!({}));
    let decided = shop.until(&at("03-09T00:00")).decide();
    assert_eq!(mails(&decided, "tiered"), [format!("tier_upgraded {}", at("03-01T10:00"))], "the request for a review is off");
    assert_eq!(mails(&decided, "looking"), [format!("browse {}", at("03-01T15:00"))], "four hours after the second look");
    assert_eq!(mails(&decided, "welcomed"), [format!("welcome {}", at("03-01T12:00"))]);
    assert_eq!(mails(&decided, "bought"), [""; 0]);
    // At nine in Berlin.
    assert_eq!(mails(&decided, "born"), [format!("birthday {}", at("03-05T08:00"))]);
    assert_eq!(mails(&decided, "keen"), [format!("tea {}", at("03-02T10:00"))]);
}

#[test]
fn segments_are_entered_by_what_shoppers_do_and_left_as_time_passes() {
    let mut shop = Story::new();
    for (id, category) in [("tea", "drinks"), ("cup", "china")] {
        shop.tell("products", json!({"product_id": id, "name": id, "category": category, "base_price": "5"}));
    }
    shop.tell("segment_definitions", json!({"segment_id": "twice", "field": "orders", "op": ">=", "value": 2, "within": "10d"}));
    order(&mut shop, "spends", "s1", "499.99", "01-01T10:00");
    order(&mut shop, "spends", "s2", "0.01", "01-02T10:00");
    for (n, time) in ["01-01T10:00", "01-20T10:00", "03-01T10:00"].iter().enumerate() {
        order(&mut shop, "often", &format!("f{n}"), "1", time);
    }
    for time in ["03-01T10:00", "03-02T10:00", "03-03T10:00"] {
        event(&mut shop, "looks", "product_viewed", time, json!({"product_id": "cup"}));
    }
    event(&mut shop, "leaves", "added_to_cart", "03-01T10:00", tea());
    customer(&mut shop, "lives", None, json!({"country": "DE", "interests": ["tea"]}));
    event(&mut shop, "lives", "page_viewed", "03-01T10:00", json!({}));
    for day in 1..=5 {
        event(&mut shop, "reads", "email_delivered", &format!("03-0{day}T10:00"), json!({"message_id": format!("m{day}")}));
    }
    event(&mut shop, "reads", "email_clicked", "03-06T10:00", json!({"message_id": "m5"}));
    let decided = shop.until("2027-01-10T00:00:00Z").decide();
    let a_moment_later = |time: &str| at(time).replace(".000Z", ".001Z");
    let at = |time: &str| at(time);
    // 500 in 365 days from the second order on, until the first of them is a year old.
    assert_eq!(
        moves(&decided, "spends"),
        [
            format!("{} +active +bought_category:drinks +new", at("01-01T10:00")),
            format!("{} +high_value +twice", at("01-02T10:00")),
            format!("{} -twice", at("01-11T10:00")),
            format!("{} -new", a_moment_later("01-31T10:00")),
            format!("{} +at_risk -active", at("02-01T10:00")),
            format!("{} +lapsed -at_risk", at("04-02T10:00")),
            "2027-01-01T10:00:00.000Z -high_value".to_owned(),
        ]
    );
    // Three orders within 90 days, until the first is 90 days old: 1 April.
    let often = moves(&decided, "often");
    assert!(often.contains(&format!("{} +active +frequent_buyer -at_risk", at("03-01T10:00"))), "{often:?}");
    assert!(often.contains(&format!("{} -frequent_buyer", at("04-01T10:00"))), "{often:?}");
    // Three views of a product, so of its category, within 7 days.
    assert_eq!(
        moves(&decided, "looks")[..3],
        [
            format!("{} +active +new", at("03-01T10:00")),
            format!("{} +repeat_viewer:category:china +repeat_viewer:product:cup", at("03-03T10:00")),
            format!("{} -repeat_viewer:category:china -repeat_viewer:product:cup", at("03-08T10:00")),
        ]
    );
    // From an hour to 48 hours after it was touched.
    assert_eq!(
        moves(&decided, "leaves")[..3],
        [
            format!("{} +active +new", at("03-01T10:00")),
            format!("{} +abandoned_cart", at("03-01T11:00")),
            format!("{} -abandoned_cart", at("03-03T10:00")),
        ]
    );
    assert!(moves(&decided, "lives").concat().contains("+interest:tea") && moves(&decided, "lives").concat().contains("+location:DE"));
    // Five delivered without a click; a click counts 90 days, and by then the deliveries are older.
    let reads = moves(&decided, "reads");
    assert_eq!(
        reads,
        [
            format!("{} +disengaged", at("03-05T10:00")),
            format!("{} +engaged -disengaged", at("03-06T10:00")),
            format!("{} -engaged", at("06-04T10:00")),
        ],
        "mails are no visit: neither new nor active"
    );
    assert_eq!(decided.last("segments", "looks")["segments"], json!(["lapsed"]));
}

#[test]
fn a_refund_costs_the_high_value_and_an_order_empties_the_cart_that_was_left() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "600", "03-01T10:00");
    event(&mut shop, "ann", "order_refunded", "03-02T10:00", json!({"refund_id": "r", "order_id": "o", "amount": "150"}));
    event(&mut shop, "bob", "added_to_cart", "03-01T10:00", tea());
    order(&mut shop, "bob", "p", "5", "03-01T12:00");
    let decided = shop.until(&at("03-02T12:00")).decide();
    let of = |user, segment: &str| {
        let moves = moves(&decided, user).into_iter().filter_map(|line| {
            let (time, rest) = line.split_once(' ')?;
            rest.split(' ').find(|name| name.ends_with(segment)).map(|name| format!("{time} {name}"))
        });
        moves.collect::<Vec<_>>()
    };
    assert_eq!(of("ann", "high_value"), [format!("{} +high_value", at("03-01T10:00")), format!("{} -high_value", at("03-02T10:00"))]);
    let cart = "abandoned_cart";
    assert_eq!(of("bob", cart), [format!("{} +{cart}", at("03-01T11:00")), format!("{} -{cart}", at("03-01T12:00"))]);
}
