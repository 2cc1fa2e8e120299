//! Recommendations, from what shoppers do together to lists and pushes: every figure here is worked out by hand from the
//! weights, in the comment beside it.

use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{
    Decided, Story, Tillflow,
    compare::{broken_invariants, embedded_log, outputs_in},
    until, with,
};

const LIMIT: Duration = Duration::from_secs(60);

fn at(time: &str) -> String {
    format!("2026-03-01T{time}:00Z")
}

fn event(story: &mut Story, user: &str, event_type: &str, product: &str, time: &str) {
    story.tell("user_events", json!({"event_type": event_type, "user_id": user, "product_id": product, "timestamp": at(time)}));
}

fn order(user: &str, id: &str, products: &[&str], timestamp: &Value) -> Value {
    let items: Vec<_> = products.iter().map(|p| json!({"product_id": p, "quantity": 1})).collect();
    json!({"event_type": "order_completed", "user_id": user, "order_id": id, "total_amount": "1", "items": items, "timestamp": timestamp})
}

/// The last list of a product: `pot 0.705882 1`, id, score and count.
fn related(decided: &Decided, product: &str) -> Vec<String> {
    let list = decided.last("related_products", product)["related"].as_array().unwrap().clone();
    list.iter().map(|r| format!("{} {} {}", r["product_id"].as_str().unwrap(), r["score"], r["count"])).collect()
}

#[test]
fn what_is_seen_in_one_session_is_related_by_deed_and_distance() {
    let mut shop = Story::new();
    event(&mut shop, "ann", "product_viewed", "tea", "10:00");
    event(&mut shop, "ann", "product_viewed", "cup", "10:10");
    event(&mut shop, "ann", "added_to_cart", "pot", "10:40");
    // More than 30 minutes later another session has begun.
    event(&mut shop, "bob", "product_viewed", "jam", "10:00");
    event(&mut shop, "bob", "product_viewed", "jar", "10:31");
    event(&mut shop, "bob", "product_viewed", "lid", "10:32");
    let decided = shop.decide();
    // A view leads there with 1, an add with 3, a product further with 0.8 of that; the way back has 0.85.
    // tea: pot 3·0.8, cup 1.  cup: pot 3, tea 0.85.  pot: cup 0.85, tea 0.8·0.85.
    assert_eq!(related(&decided, "tea"), ["pot 0.705882 1", "cup 0.294118 1"]);
    assert_eq!(related(&decided, "cup"), ["pot 0.779221 1", "tea 0.220779 1"]);
    assert_eq!(related(&decided, "pot"), ["cup 0.555556 1", "tea 0.444444 1"]);
    assert_eq!(decided.of("related_products", "jam"), Vec::<&Value>::new());
    assert_eq!(related(&decided, "jar"), ["lid 1.0 1"]);
}

#[test]
fn what_is_ordered_together_is_related_most_and_a_list_is_bounded() {
    let mut shop = Story::new();
    // n orders of hub and pn, for n from 1 to 25, in one week; a pair in one order weighs 10, both ways.
    for n in 1..=25 {
        for k in 0..n {
            let time = json!(format!("2026-03-{:02}T{:02}:{k:02}:00Z", 2 + n / 20, n % 20));
            shop.tell("user_events", order(&format!("u{n}-{k}"), &format!("o{n}-{k}"), &["hub", &format!("p{n:02}")], &time));
        }
    }
    // Seen once in a session beside ten for an order.
    event(&mut shop, "ann", "product_viewed", "tea", "10:00");
    event(&mut shop, "ann", "product_viewed", "cup", "10:10");
    shop.tell("user_events", order("bob", "o", &["tea", "pot"], &json!(at("10:00"))));
    let decided = shop.decide();
    assert_eq!(related(&decided, "tea"), ["pot 0.909091 1", "cup 0.090909 1"]);
    // The twenty that weigh most, of all 325 pairs.
    let expected: Vec<_> = (6..=25).rev().map(|n| format!("p{n:02} {} {n}", (f64::from(n) / 325.0 * 1e6).round() / 1e6)).collect();
    assert_eq!(related(&decided, "hub"), expected);
    assert_eq!(related(&decided, "p07"), ["hub 1.0 7"]);
}

#[test]
fn what_was_together_long_ago_counts_less_and_after_26_weeks_nothing() {
    let mut shop = Story::new();
    let mut sells = |product: &str, count: u32, day: &str| {
        for n in 0..count {
            shop.tell("user_events", order("ann", &format!("{product}-{n}"), &["hub", product], &json!(format!("{day}T10:{n:02}:00Z"))));
        }
    };
    sells("jar", 9, "2025-08-24");
    sells("cup", 4, "2025-11-02");
    sells("pot", 2, "2026-03-01");
    // Cup and pot are 17 weeks apart: of 4·10,000 thousandths 2^(−119/60) are left, rounded down in two steps: 10,115; the
    // pot has 20,000. 27 weeks ago is too long.
    assert_eq!(related(&shop.decide(), "hub"), ["pot 0.664121 2", "cup 0.335879 4"]);
}

#[test]
fn of_more_neighbours_than_are_kept_the_lightest_are_forgotten() {
    let mut shop = Story::new();
    shop.config("recommendations: { neighbours: 10, related: 10 }");
    let mut minute = 0;
    let mut pair = |shop: &mut Story, product: &str| {
        minute += 1;
        let time = json!(format!("2026-03-01T10:{minute:02}:00Z"));
        shop.tell("user_events", order("ann", &format!("o{minute}"), &["hub", product], &time));
    };
    (0..5).for_each(|_| pair(&mut shop, "cup"));
    (0..40).for_each(|n| pair(&mut shop, &format!("p{n:02}")));
    let list = related(&shop.decide(), "hub");
    assert_eq!(list.len(), 10, "{list:?}");
    // Ten are kept, and at most two more until they are judged: 5 of at least 14 and at most 16, where all would make 45.
    let cup: Vec<_> = list[0].split(' ').collect();
    let share: f64 = cup[1].parse().unwrap();
    assert_eq!((cup[0], cup[2]), ("cup", "5"));
    assert!((5.0 / 16.0 - 1e-6..=5.0 / 14.0 + 1e-6).contains(&share), "{share}");
}

#[test]
fn what_goes_with_everything_is_related_to_nothing() {
    let mut shop = Story::new();
    shop.config("recommendations: { llr_least_pairs: 40, llr_least_sample: 300 }");
    let mut minute = 0;
    let mut sells = |products: &[&str]| {
        minute += 1;
        let time = json!(format!("2026-03-01T{:02}:{:02}:00Z", 10 + minute / 60, minute % 60));
        shop.tell("user_events", order("ann", &format!("o{minute}"), products, &time));
    };
    (0..160).for_each(|_| sells(&["lid", "bag"]));
    for _ in 0..20 {
        sells(&["tea", "cup"]);
        sells(&["tea", "bag"]);
    }
    // Half of what goes with the tea is the bag, which is 180 of all 400: more than usual, but the ratio is 0.365, not 0.5.
    assert_eq!(related(&shop.decide(), "tea"), ["cup 0.5 20"]);
}

#[test]
fn of_one_category_four_are_shown_while_there_are_others_and_nothing_before_it_is_on_sale() {
    let mut shop = Tillflow::run().set("commit.fsync", false).set("time.grace.s", 0).spawn();
    shop.wait_until_ready();
    let start = Timestamp::wall().minus(Duration::from_secs(120));
    let hour = Duration::from_secs(3_600);
    let shelf = ["a1", "a2", "a3", "a4", "a5", "a6", "c1", "c2", "now", "soon", "zoo"];
    for id in shelf {
        let category = if id.len() == 2 { &id[..1] } else { id };
        let opens = match id {
            "now" => Some(start),
            "soon" => Some(Timestamp::wall() + hour),
            _ => None,
        };
        let product = json!({"product_id": id, "name": id, "category": category, "base_price": "5", "early_access_until": opens});
        assert_eq!(shop.post("/v1/topics/products", product).status(), 202);
    }
    until("the catalogue is known", LIMIT, || shelf.iter().all(|id| shop.get(&format!("/v1/products/{id}")).status() == 200));
    for (n, id) in (1..).zip(shelf) {
        let view = json!({"event_type": "product_viewed", "user_id": "ann", "product_id": id, "timestamp": start + Duration::from_secs(n)});
        assert_eq!(shop.post("/v1/events", view).status(), 202);
    }
    let shown = || {
        let items = shop.json("/v1/users/ann/recommendations/trending")["items"].clone();
        items.as_array().into_iter().flatten().map(|i| i["product_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // All were looked at once, the zoo is being looked at.
    until("all are counted", LIMIT, || shown().len() == 9 && !shown().contains(&"zoo".to_owned()));
    assert_eq!(shown(), ["a1", "a2", "a3", "a4", "c1", "c2", "now", "a5", "a6"]);
}

/// Products of a push that something led to: `cup<tea`.
fn led(push: &Value) -> Vec<String> {
    let items = push["items"].as_array().unwrap().iter().filter(|i| i["because"] != json!([]));
    let ids = |list: &Value| list.as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(",");
    items.map(|i| format!("{}<{}", i["product_id"].as_str().unwrap(), ids(&i["because"]))).collect()
}

#[test]
fn a_shopper_is_shown_what_goes_with_it_but_not_what_is_at_hand_bought_or_sold_out() {
    let mut shop = Tillflow::run().set("commit.fsync", false).set("time.grace.s", 0).spawn();
    shop.wait_until_ready();
    for id in ["tea", "cup", "pot", "jar", "mug", "jam"] {
        let tags = if id == "cup" { json!(["replenishable"]) } else { json!([]) };
        let product = json!({"product_id": id, "name": id, "category": id, "base_price": "5", "tags": tags});
        assert_eq!(shop.post("/v1/topics/products", product).status(), 202);
    }
    // So lately that the clock goes with the wall: what waits for the watermark is published.
    let start = Timestamp::wall().minus(Duration::from_secs(120));
    let time = |seconds: u64| json!(start + Duration::from_secs(seconds));
    let send = |event: Value| assert_eq!(shop.post("/v1/events", event).status(), 202);
    // tea with cup 4 times, pot 3, jar 2, mug once; cup with jam twice.
    let mut orders = 0;
    for (products, times) in [(["tea", "cup"], 4), (["tea", "pot"], 3), (["tea", "jar"], 2), (["tea", "mug"], 1), (["cup", "jam"], 2)] {
        for _ in 0..times {
            orders += 1;
            send(order(&format!("u{orders}"), &format!("o{orders}"), &products, &time(orders)));
        }
    }
    let counted = |product: &str| {
        let list = shop.json(&format!("/v1/products/{product}/related"))["related"].clone();
        list.as_array().into_iter().flatten().map(|r| r["count"].as_i64().unwrap()).sum::<i64>()
    };
    until("all pairs are counted", LIMIT, || [("tea", 10), ("cup", 6), ("pot", 3), ("mug", 1)].iter().all(|(p, n)| counted(p) == *n));
    let shown_to = |user: &str| led(&shop.json(&format!("/v1/users/{user}/recommendations")));
    let shown = || shown_to("ann");
    let act = |event_type: &str, seconds: u64, more: Value| {
        send(with(json!({"event_type": event_type, "user_id": "ann", "timestamp": time(seconds)}), &more));
    };
    // Counted is not yet published: another shopper sees when it is.
    send(json!({"event_type": "product_viewed", "user_id": "eve", "product_id": "tea", "timestamp": time(50)}));
    until("tea's list is published", LIMIT, || shown_to("eve") == ["cup<tea", "pot<tea", "jar<tea", "mug<tea"]);
    act("product_viewed", 60, json!({"product_id": "tea"}));
    until("the view counts", LIMIT, || shown().len() == 4);
    act("added_to_cart", 62, json!({"product_id": "cup"}));
    act("added_to_cart", 64, json!({"product_id": "pot"}));
    until("the adds count", LIMIT, || shown().iter().all(|item| !item.starts_with("pot")) && !shown().is_empty());
    // Sold out meanwhile.
    assert_eq!(shop.post("/v1/inventory", json!([{"product_id": "jam", "stock_level": 0, "last_updated": time(65)}])).status(), 202);
    until("the jam is gone", LIMIT, || shown().iter().all(|item| !item.starts_with("jam")));
    act("checkout_started", 66, json!({"cart_id": "c"}));
    let bought = json!([{"product_id": "cup", "quantity": 1}, {"product_id": "pot", "quantity": 1}, {"product_id": "tea", "quantity": 1}]);
    act("order_completed", 68, json!({"order_id": "mine", "total_amount": "9", "items": bought}));
    act("product_viewed", 70, json!({"product_id": "mug"}));
    until("the last view counts", LIMIT, || shown().iter().any(|item| item.starts_with("cup")));
    assert!(shop.stop().success());
    let outputs = outputs_in(&embedded_log(&shop.files().join("tillflow-data")));
    assert_eq!(broken_invariants(&outputs), Vec::<String>::new());
    let mut pushes: Vec<_> =
        Decided(outputs).of("recommendations", "ann").into_iter().map(|p| (p["trigger"].clone(), led(p).join(" "))).collect();
    // Tea and pot were bought; cup is bought again and again. It goes with tea, and by now, maybe, with the order's other.
    let (trigger, items) = pushes.pop().unwrap();
    let ids: Vec<_> = items.split(' ').map(|item| item.split('<').next().unwrap()).collect();
    assert_eq!((trigger, ids), (json!("product_viewed"), vec!["cup", "jar"]));
    // Of tea's pairs cup has 0.4, pot 0.3, jar 0.2, mug 0.1; of cup's tea has 2/3, jam 1/3. A product seen before counts 0.65.
    assert_eq!(
        pushes,
        [
            ("product_viewed", "cup<tea pot<tea jar<tea mug<tea"),
            // tea 2/3; jam 1/3; pot 0.3·0.65 = 0.195; jar 0.13; mug 0.065. The cup lies in the cart.
            ("added_to_cart", "tea<cup jam<cup pot<tea jar<tea mug<tea"),
            // tea 1 + 0.65·2/3; jam 0.65/3 = 0.217; jar 0.4225·0.2 = 0.085.
            ("added_to_cart", "tea<pot,cup jam<cup jar<tea mug<tea"),
            ("checkout_started", "tea<pot,cup jar<tea mug<tea"),
            // From what was ordered; the tea was, too.
            ("order_completed", "jar<tea mug<tea"),
        ]
        .map(|(trigger, items)| (json!(trigger), items.to_owned()))
    );
}
