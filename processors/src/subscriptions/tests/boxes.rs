//! Boxes, from the period's begin to what is in them.

use super::*;
use std::collections::BTreeSet;

fn ids(b: &BoxContents) -> BTreeSet<String> {
    b.items.iter().map(|i| i.product_id.to_string()).collect()
}

#[test]
fn each_paid_period_brings_a_box_when_it_begins() {
    let mut shop = Shop::new();
    shop.shelf(0, 40).subscription("2026-01-31", "started basic_box", json!({"subscription_id": "s"}));
    let [first] = shop.boxes().try_into().unwrap();
    assert_eq!((first.box_id.as_str(), first.period, first.at), ("s:0", 0, at("2026-01-31")));
    assert_eq!(first.items.len(), 4);
    shop.subscription("2026-02-20", "renewed", json!({}));
    assert!(shop.boxes().is_empty(), "not before its period");
    shop.until("2026-02-28");
    let [second] = shop.boxes().try_into().unwrap();
    assert_eq!((second.period, second.at), (1, at("2026-02-28")), "the month's end clamps");
    shop.until("2026-03-31");
    assert!(shop.boxes().is_empty(), "not paid");
    shop.subscription("2026-04-03", "renewed", json!({}));
    let [third] = shop.boxes().try_into().unwrap();
    assert_eq!((third.period, third.at), (2, at("2026-04-03")), "packed when it is paid");
    assert!(shop.notices("box_short").is_empty());
}

#[test]
fn exclusives_come_first_as_the_plan_says() {
    for (plan, exclusives, items) in [("basic_box", 0, 4), ("premium_box", 1, 6), ("deluxe_box", 3, 8)] {
        let mut shop = Shop::new();
        shop.shelf(10, 20).subscription("2026-03-01", &format!("started {plan}"), json!({}));
        let [b] = shop.boxes().try_into().unwrap();
        let flags: Vec<_> = b.items.iter().map(|i| i.exclusive).collect();
        assert_eq!(flags, (0..items).map(|i| i < exclusives).collect::<Vec<_>>(), "{plan}");
    }
}

/// From a shuffle written down independently of this program: `u1`, `s1`, period 0, ten products.
#[test]
fn anyone_who_knows_the_shelf_can_repeat_the_draw() {
    let mut shop = Shop::new();
    shop.shelf(0, 10);
    shop.customers.send_json(
        "subscription_event",
        json!({"user_id": "u1", "subscription_id": "s1", "timestamp": at("2026-03-01"), "action": "started", "plan_id": "basic_box"}),
    );
    shop.until("2026-03-01");
    let [b] = shop.boxes().try_into().unwrap();
    let drawn: Vec<_> = b.items.iter().map(|i| i.product_id.to_string()).collect();
    assert_eq!(drawn, ["s05", "s09", "s00", "s06"]);
}

#[test]
fn a_trial_a_pause_and_a_failed_payment_bring_no_box() {
    let mut shop = Shop::new();
    shop.shelf(0, 40).subscription("2026-03-01", "started basic_box", json!({"trial_until": "2026-03-15T00:00:00Z"})).until("2026-03-14");
    assert!(shop.boxes().is_empty());
    shop.subscription("2026-03-14", "renewed", json!({})).until("2026-03-15");
    assert_eq!(shop.boxes().len(), 1, "period 0 begins with the trial's end");
    shop.subscription("2026-04-01", "renewed", json!({})).subscription("2026-04-10", "paused", json!({})).until("2026-04-20");
    assert!(shop.boxes().is_empty());
    shop.subscription("2026-04-21", "resumed", json!({}));
    assert_eq!(shop.boxes().len(), 1, "taken up again within the paid period");
    shop.subscription("2026-05-14", "renewed", json!({})).subscription("2026-05-14", "payment_failed", json!({})).until("2026-05-20");
    assert!(shop.boxes().is_empty());
}

#[test]
fn a_cancelled_one_gets_what_is_paid_and_no_more() {
    let mut shop = Shop::new();
    shop.shelf(0, 40).subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-03-05", "renewed", json!({}));
    shop.subscription("2026-03-10", "cancelled", json!({"at_period_end": true})).until("2026-06-01");
    assert_eq!(shop.boxes().iter().map(|b| b.period).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn two_subscriptions_bring_two_boxes_that_share_nothing() {
    let mut shop = Shop::new();
    shop.shelf(0, 40);
    shop.subscription("2026-03-01", "started basic_box", json!({"subscription_id": "a"}));
    shop.subscription("2026-03-01", "started basic_box", json!({"subscription_id": "b"}));
    let [a, b] = shop.boxes().try_into().unwrap();
    assert!(ids(&a).is_disjoint(&ids(&b)));
}

#[test]
fn what_was_in_the_last_three_boxes_is_not_packed_again() {
    let mut shop = Shop::new();
    shop.shelf(0, 16).subscription("2026-01-01", "started basic_box", json!({}));
    for month in ["2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01"] {
        shop.subscription(month, "renewed", json!({}));
    }
    let boxes = shop.boxes();
    assert_eq!(boxes.len(), 5);
    for (i, b) in boxes.iter().enumerate() {
        assert_eq!(b.items.len(), 4);
        assert!(boxes[i.saturating_sub(3)..i].iter().all(|before| ids(before).is_disjoint(&ids(b))));
    }
    assert_eq!(ids(&boxes[4]), ids(&boxes[0]), "sixteen products: after three other boxes the first four are left");
}

#[test]
fn what_was_bought_within_sixty_days_is_not_packed_unless_the_order_was_cancelled() {
    let mut shop = Shop::new();
    shop.shelf(0, 4);
    let order = |id: &str, product: &str| json!({"order_id": id, "items": [{"product_id": product}]});
    shop.event("2026-01-01", "order_completed", order("o1", "s00"));
    shop.event("2026-01-03", "order_completed", order("o2", "s01"));
    shop.event("2026-02-03", "order_completed", order("o3", "s02")).event("2026-02-04", "order_cancelled", json!({"order_id": "o3"}));
    shop.subscription("2026-03-03", "started basic_box", json!({}));
    assert_eq!(ids(&shop.boxes()[0]), ["s00", "s02", "s03"].map(str::to_owned).into(), "60 days before 3 March is 2 January");
}

#[test]
fn only_what_is_for_boxes_in_stock_and_open_to_the_customer_is_packed() {
    let packed = |plan: &str| {
        let mut shop = Shop::new();
        let product = |id: &str| Product { product_id: id.into(), box_eligible: true, ..Product::default() };
        shop.product(product("good"), 1).product(product("gone"), 0).product(Product { box_eligible: false, ..product("loose") }, 5);
        shop.product(Product { early_access_until: Some(at("2026-03-05")), ..product("gated") }, 5);
        shop.customers.global(product("uncounted"));
        shop.subscription("2026-03-01", &format!("started {plan}"), json!({}));
        ids(&shop.boxes()[0])
    };
    assert_eq!(packed("basic_box"), ["good".to_owned()].into());
    assert_eq!(packed("premium_box"), ["gated".to_owned(), "good".to_owned()].into());
}

#[test]
fn a_deluxe_box_follows_what_was_bought_before() {
    let packed = |plan: &str| {
        let mut shop = Shop::new();
        shop.shelf(9, 40);
        let related = ["s31", "s17", "e08"].map(|id| json!({"product_id": id, "score": 0.9, "count": 5}));
        shop.customers
            .global(serde_json::from_value::<tillflow_schemas::RelatedProducts>(json!({"product_id": "tea", "related": related})).unwrap());
        shop.event("2025-12-24", "order_completed", json!({"order_id": "o", "items": [{"product_id": "tea"}]}));
        shop.subscription("2026-03-01", &format!("started {plan}"), json!({}));
        shop.boxes().remove(0)
    };
    let deluxe = packed("deluxe_box");
    assert_eq!(deluxe.items[0].product_id.as_str(), "e08");
    assert_eq!(deluxe.items[3..5].iter().map(|i| i.product_id.as_str()).collect::<BTreeSet<_>>(), ["s17", "s31"].into());
    assert!(deluxe.items[0].because.contains("exclusive") && deluxe.items[3].because.contains("bought before"));
    assert!(!ids(&packed("premium_box")).is_superset(&["s17".to_owned(), "s31".to_owned()].into()), "a premium box is drawn");
}

#[test]
fn a_short_catalogue_gives_what_there_is_and_says_so() {
    let mut shop = Shop::new();
    shop.shelf(0, 3).subscription("2026-03-01", "started basic_box", json!({"subscription_id": "s"}));
    assert_eq!(shop.boxes()[0].items.len(), 3);
    assert_eq!(shop.notices("box_short"), [json!({"box_id": "s:0", "period": 0, "wanted": 4, "got": 3})]);
}

#[test]
fn a_box_for_which_there_is_nothing_is_packed_once_there_is_something() {
    let mut shop = Shop::new();
    let product = Product { product_id: "p".into(), box_eligible: true, ..Product::default() };
    shop.product(product.clone(), 0).subscription("2026-03-01", "started basic_box", json!({})).until("2026-03-10");
    assert!(shop.boxes().is_empty(), "nothing is no box");
    assert_eq!(shop.notices("box_short").len(), 1, "said once");
    shop.product(product, 1).until("2026-03-11");
    let [b] = shop.boxes().try_into().unwrap();
    assert_eq!((b.period, b.items.len()), (0, 1));
    assert_eq!(shop.notices("box_short").len(), 1);
}

#[test]
fn a_shop_without_products_for_boxes_packs_none_and_says_nothing() {
    let mut shop = Shop::new();
    shop.product(Product { product_id: "p".into(), ..Product::default() }, 5);
    shop.subscription("2026-03-01", "started basic_box", json!({})).until("2026-03-31");
    assert!(shop.boxes().is_empty() && shop.notices("box_short").is_empty());
}

#[test]
fn what_the_stock_refuses_is_replaced_and_the_last_piece_goes_to_one_customer() {
    let mut shop = Shop::new();
    let product = |id: String, exclusive| Product { product_id: id.into(), box_eligible: true, exclusive, ..Product::default() };
    for i in 0..6 {
        shop.product(product(format!("p{i}"), false), 1);
    }
    for user in ["a", "b"] {
        let event =
            json!({"user_id": user, "subscription_id": "s", "timestamp": at("2026-03-01"), "action": "started", "plan_id": "basic_box"});
        shop.customers.send_json("subscription_event", event);
    }
    shop.until("2026-03-01");
    let boxes = shop.boxes();
    let all: Vec<_> = boxes.iter().flat_map(|b| b.items.iter().map(|i| i.product_id.to_string())).collect();
    assert_eq!(all.len(), 6, "six pieces in two boxes");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 6, "none of them twice");
    assert_eq!(shop.notices("box_short").len(), 1, "one box is short");
}

#[test]
fn a_box_is_emitted_once_all_answers_are_in() {
    let mut shop = Shop::new();
    shop.shelf(0, 9);
    let start = json!({"user_id": "u", "subscription_id": "s", "timestamp": at("2026-03-01"), "action": "started", "plan_id": "basic_box"});
    shop.customers.send_json("subscription_event", start);
    shop.customers.advance(at("2026-03-01"));
    let requests = shop.customers.emitted::<ProductCommand>();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert!(shop.boxes().is_empty());
        shop.products.send(Event::ProductCommand(request.clone()));
        for answer in shop.products.emitted::<CustomerSignal>() {
            shop.customers.send(Event::CustomerSignal(answer));
        }
    }
    assert_eq!(shop.boxes().len(), 1);
}

#[test]
fn the_next_box_can_be_seen_skipped_and_changed_until_its_cut_off() {
    let mut shop = Shop::new();
    shop.shelf(0, 30).subscription("2026-03-01", "started basic_box", json!({"subscription_id": "s"}));
    shop.boxes();
    let view = |shop: &mut Shop| shop.customers.query("box", "u", "").unwrap().unwrap();
    let seen = view(&mut shop);
    assert_eq!(seen["latest"]["box_id"], "s:0");
    assert_eq!((&seen["next"]["period"], &seen["next"]["begins"]), (&json!(1), &json!(at("2026-04-01"))));
    assert_eq!(seen["next"]["open_until"], json!(at("2026-03-30")));
    let product = |i: usize| seen["next"]["items"][i]["product_id"].as_str().unwrap().to_owned();
    let in_boxes: BTreeSet<_> = (0..4).map(product).chain(ids_of(&seen["latest"])).collect();
    let wanted = (0..30).map(|i| format!("s{i:02}")).find(|id| !in_boxes.contains(id)).unwrap();
    shop.subscription("2026-03-20", "swapped", json!({"from": product(2), "to": wanted}));
    assert_eq!(view(&mut shop)["next"]["items"][2]["product_id"], json!(wanted));
    shop.subscription("2026-03-30T00:00:01Z", "swapped", json!({"from": wanted, "to": "s00"}));
    assert!(shop.refusal().contains("the box of period 1 is closed to changes since 2026-03-30"));
    shop.subscription("2026-04-01", "renewed", json!({}));
    let packed = shop.boxes().remove(0);
    assert_eq!(packed.items[2].because, format!("wanted instead of {}", product(2)));
    assert_eq!(packed.items.iter().map(|i| i.product_id.to_string()).collect::<Vec<_>>(), [product(0), product(1), wanted, product(3)]);

    shop.subscription("2026-04-10", "skipped", json!({}));
    assert_eq!((view(&mut shop)["next"]["skipped"].clone(), view(&mut shop)["next"]["items"].clone()), (json!(true), json!([])));
    shop.subscription("2026-05-01", "renewed", json!({}));
    assert!(shop.boxes().is_empty());
    shop.subscription("2026-06-01", "renewed", json!({}));
    assert_eq!(shop.boxes()[0].period, 3, "only one was skipped");
}

fn ids_of(contents: &Value) -> Vec<String> {
    contents["items"].as_array().unwrap().iter().map(|i| i["product_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_swap_names_a_product_that_may_go_into_boxes() {
    let mut shop = Shop::new();
    shop.shelf(0, 9).product(Product { product_id: "loose".into(), ..Product::default() }, 5);
    shop.subscription("2026-03-01", "started basic_box", json!({}));
    shop.subscription("2026-03-02", "swapped", json!({"from": "s00", "to": "nowhere"}));
    assert!(shop.refusal().contains("there is no product 'nowhere'"));
    shop.subscription("2026-03-02", "swapped", json!({"from": "s00", "to": "loose"}));
    assert!(shop.refusal().contains("not for boxes"));
}

#[test]
fn who_has_no_subscription_has_no_box() {
    let mut shop = Shop::new();
    assert_eq!(shop.customers.query("box", "u", "").unwrap().unwrap(), json!({"user_id": "u", "latest": null, "next": null}));
}

#[test]
fn an_upgrade_to_another_interval_begins_a_new_period_and_a_box_with_it() {
    let mut shop = Shop::new();
    shop.shelf(5, 30);
    let yearly = tillflow_schemas::Plan { interval: "year".into(), ..plan("grand", "1000", json!({"target_item_count": 9})) };
    shop.customers.global(yearly);
    shop.subscription("2026-03-01", "started basic_box", json!({})).subscription("2026-03-16", "changed grand", json!({}));
    let boxes = shop.boxes();
    assert_eq!(boxes.iter().map(|b| (b.period, b.items.len())).collect::<Vec<_>>(), [(0, 4), (1, 9)]);
    assert_eq!(shop.now()["until"], json!(at("2027-03-16")));
}
