//! Points, from a shop's events and commands to the ledger and what customers are told: every figure here is worked out
//! by hand from the formulas, in the comment beside it.

use serde_json::{Value, json};
use tillflow_tests::{Decided, Story, with};

/// At ten in the morning of a day of 2026, given as `03-01`.
fn on(day: &str) -> String {
    format!("2026-{day}T10:00:00.000Z")
}

fn event(story: &mut Story, user: &str, event_type: &str, day: &str, more: Value) {
    story.tell("user_events", with(json!({"event_type": event_type, "user_id": user, "timestamp": on(day)}), &more));
}

fn order(story: &mut Story, user: &str, id: &str, total: &str, day: &str) {
    let items = json!([{"product_id": "tea", "quantity": 1}]);
    event(story, user, "order_completed", day, json!({"order_id": id, "total_amount": total, "items": items}));
}

fn refund(story: &mut Story, user: &str, day: &str, fields: Value) {
    event(story, user, "order_refunded", day, fields);
}

fn command(story: &mut Story, user: &str, id: &str, day: &str, action: Value) {
    story.tell("loyalty_commands", with(json!({"command_id": id, "user_id": user, "timestamp": on(day)}), &action));
}

/// Kind, change of the balance, balance, lifetime points and tier of each entry.
fn ledger(decided: &Decided, user: &str) -> Vec<String> {
    decided.told("loyalty_updates", user, &["kind", "points", "balance", "lifetime_points", "tier"])
}

/// Entries and points, by name: where what another account answers stands among them is open.
fn entries(decided: &Decided, user: &str) -> Vec<String> {
    let mut entries = decided.told("loyalty_updates", user, &["entry_id", "points"]);
    entries.sort();
    entries
}

/// The titles of what a customer was told of one kind.
fn told(decided: &Decided, user: &str, kind: &str) -> Vec<String> {
    let notifications = decided.of("notifications", user).into_iter().filter(|n| n["kind"] == kind);
    notifications.map(|n| n["title"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_order_earns_by_the_tier_before_it_and_the_tier_is_what_the_lifetime_points_give() {
    let mut shop = Story::new();
    // ⌊499.99⌋ at bronze; then 1.00 makes 500: silver; then ⌊100 · 1.25⌋.
    for (id, total, day) in [("a", "499.99", "01-05"), ("b", "1.00", "01-06"), ("c", "100", "02-01")] {
        order(&mut shop, "ann", id, total, day);
    }
    // 1,100 · 1.25 = 1,375: 2,000, gold. 2,000 · 1.5 = 3,000: 5,000, platinum. ⌊10.75 · 2⌋ = 21.
    for (id, total, day) in [("d", "1100", "03-01"), ("e", "2000.00", "04-01"), ("f", "10.75", "05-01")] {
        order(&mut shop, "ann", id, total, day);
    }
    // From bronze to platinum at once is one step to the highest.
    order(&mut shop, "bob", "g", "5000", "01-05");
    // Without a total: Σ quantity · price, where all are priced.
    let priced = json!([{"product_id": "tea", "quantity": 2, "price": "10.50"}, {"product_id": "cup", "quantity": 1, "price": "3"}]);
    event(&mut shop, "cleo", "order_completed", "01-05", json!({"order_id": "h", "items": priced}));
    let unpriced = json!([{"product_id": "tea", "quantity": 2, "price": "10.50"}, {"product_id": "cup", "quantity": 1}]);
    event(&mut shop, "cleo", "order_completed", "01-06", json!({"order_id": "i", "items": unpriced}));
    // An order counts once, the first to arrive; a visitor without a name has no points.
    order(&mut shop, "cleo", "h", "900", "02-07");
    event(
        &mut shop,
        "",
        "order_completed",
        "01-07",
        json!({"user_id": null, "anonymous_id": "v", "order_id": "j", "total_amount": "70", "items": []}),
    );
    let decided = shop.decide();
    assert_eq!(
        ledger(&decided, "ann"),
        [
            "earn 499 499 499 bronze",
            "earn 1 500 500 silver",
            "earn 125 625 625 silver",
            "earn 1375 2000 2000 gold",
            "earn 3000 5000 5000 platinum",
            "earn 21 5021 5021 platinum",
        ]
    );
    assert_eq!(told(&decided, "ann", "tier_upgraded"), ["Tier reached silver", "Tier reached gold", "Tier reached platinum"]);
    assert_eq!(told(&decided, "bob", "tier_upgraded"), ["Tier reached platinum"]);
    assert_eq!(ledger(&decided, "cleo"), ["earn 24 24 24 bronze", "earn 0 24 24 bronze"]);
    assert_eq!(decided.of("loyalty_updates", "v"), Vec::<&Value>::new());
    let first = decided.of("loyalty_updates", "ann")[0];
    assert_eq!(
        (&first["entry_id"], &first["order_id"], &first["lifetime_change"], &first["at"]),
        (&json!("order:a"), &json!("a"), &json!(499), &json!(on("01-05")))
    );
}

#[test]
fn a_refund_of_a_named_order_takes_its_share_in_parts_and_all_with_the_last_part() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "99.99", "01-05");
    // R = 10: ⌊99 · 10 / 99.99⌋ = 9.
    refund(&mut shop, "ann", "01-06", json!({"refund_id": "r1", "order_id": "o", "amount": "10.00"}));
    // Two items at 5: R = 20: ⌊99 · 20 / 99.99⌋ = 19, less 9.
    let items = json!([{"product_id": "tea", "quantity": 2, "price": "5"}]);
    refund(&mut shop, "ann", "01-07", json!({"refund_id": "r2", "order_id": "o", "items": items}));
    // The same refund again, a month later: once for good.
    refund(&mut shop, "ann", "02-07", json!({"refund_id": "r2", "order_id": "o", "items": items}));
    // Without amount and items: the whole order, at most what is left: 99 − 19. And one more, of nothing left.
    refund(&mut shop, "ann", "02-08", json!({"refund_id": "r3", "order_id": "o"}));
    refund(&mut shop, "ann", "02-09", json!({"refund_id": "r4", "order_id": "o", "amount": "5"}));
    // It came four days before its order: applied right after it, once.
    refund(&mut shop, "bob", "01-05", json!({"refund_id": "r5", "order_id": "p", "amount": "25"}));
    order(&mut shop, "bob", "p", "100", "01-09");
    // A cancellation is the refund of the whole.
    order(&mut shop, "cleo", "q", "80", "01-05");
    event(&mut shop, "cleo", "order_cancelled", "01-06", json!({"order_id": "q"}));
    let decided = shop.decide();
    assert_eq!(
        ledger(&decided, "ann"),
        ["earn 99 99 99 bronze", "refund -9 90 90 bronze", "refund -10 80 80 bronze", "refund -80 0 0 bronze", "refund 0 0 0 bronze"]
    );
    assert_eq!(decided.of("loyalty_updates", "ann")[1]["entry_id"], "refund:r1");
    assert_eq!(ledger(&decided, "bob"), ["earn 100 100 100 bronze", "refund -25 75 75 bronze"]);
    assert_eq!(ledger(&decided, "cleo"), ["earn 80 80 80 bronze", "refund -80 0 0 bronze"]);
}

#[test]
fn a_refund_that_names_no_order_goes_by_the_tier_of_now_and_may_cost_it() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "510", "01-05");
    // Silver: ⌊4.99 · 1.25⌋ = 6; then ⌊10 · 1.25⌋ = 12: 492, bronze; then 1,000, of which there are 492.
    refund(&mut shop, "ann", "01-06", json!({"refund_id": "r1", "amount": "4.99"}));
    refund(&mut shop, "ann", "01-07", json!({"refund_id": "r2", "amount": "10"}));
    refund(&mut shop, "ann", "01-08", json!({"refund_id": "r3", "amount": "1000"}));
    let decided = shop.decide();
    assert_eq!(
        ledger(&decided, "ann"),
        ["earn 510 510 510 silver", "refund -6 504 504 silver", "refund -12 492 492 bronze", "refund -492 0 0 bronze"]
    );
    assert_eq!(told(&decided, "ann", "tier_upgraded"), ["Tier reached silver"]);
    assert_eq!(told(&decided, "ann", "tier_downgraded"), ["Tier is now bronze"]);
}

#[test]
fn a_refund_whose_order_does_not_come_within_30_days_is_a_dead_letter() {
    let mut shop = Story::new();
    order(&mut shop, "bob", "o", "10", "01-05");
    refund(&mut shop, "ann", "01-05", json!({"refund_id": "r1", "order_id": "o", "amount": "25"}));
    let decided = shop.clone().until(&on("02-03")).decide();
    assert_eq!(decided.of("dead_letters", "ann"), Vec::<&Value>::new());
    let decided = shop.until(&on("02-05")).decide_with_dead_letters();
    assert_eq!(decided.0["dead_letters"].len(), 1, "it names another user's order");
    assert_eq!(decided.of("loyalty_updates", "ann"), Vec::<&Value>::new());
}

#[test]
fn points_expire_a_year_after_they_were_earned_and_a_refund_after_that_takes_only_lifetime() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "100", "01-05");
    order(&mut shop, "ann", "p", "60", "02-05");
    let late =
        json!({"event_type": "order_refunded", "user_id": "ann", "refund_id": "r", "order_id": "o", "timestamp": "2027-01-06T10:00:00Z"});
    shop.tell("user_events", late);
    let decided = shop.until("2027-02-05T10:00:00Z").decide();
    assert_eq!(
        decided.told("loyalty_updates", "ann", &["kind", "points", "lifetime_change", "balance", "lifetime_points", "at"]),
        [
            "earn 100 100 100 100 2026-01-05T10:00:00.000Z",
            "earn 60 60 160 160 2026-02-05T10:00:00.000Z",
            "expire -100 0 60 160 2027-01-05T10:00:00.000Z",
            "refund 0 -100 60 60 2027-01-06T10:00:00.000Z",
            "expire -60 0 0 60 2027-02-05T10:00:00.000Z",
        ]
    );
    let warned: Vec<_> = decided.of("notifications", "ann").into_iter().filter(|n| n["kind"] == "points_expiring").collect();
    let at: Vec<_> = warned.iter().map(|n| n["at"].as_str().unwrap()).collect();
    assert_eq!(at, ["2026-12-06T10:00:00.000Z", "2027-01-06T10:00:00.000Z"], "30 days before");
}

#[test]
fn the_third_order_of_a_month_brings_fifty_points_once_and_a_shop_adds_its_own_challenges() {
    let mut shop = Story::new();
    let own = json!({"challenge_id": "big_month", "name": "Big month", "goal": "spend", "target": "150", "points": 7});
    shop.tell("challenges", own);
    for (n, day) in ["03-01", "03-02", "03-31", "03-31", "04-01"].iter().enumerate() {
        order(&mut shop, "ann", &format!("o{n}"), "40", day);
    }
    refund(&mut shop, "ann", "04-02", json!({"refund_id": "r", "order_id": "o2"}));
    let decided = shop.decide();
    let entries = decided.told("loyalty_updates", "ann", &["entry_id", "points", "balance", "lifetime_points"]);
    assert_eq!(
        entries,
        [
            "order:o0 40 40 40",
            "order:o1 40 80 80",
            "order:o2 40 120 120",
            "challenge:three_purchases:2026-03 50 170 170",
            "order:o3 40 210 210",
            "challenge:big_month:2026-03 7 217 217",
            "order:o4 40 257 257",
            "refund:r -40 217 217",
        ],
        "160 were spent with the fourth order, and a refund undoes no challenge"
    );
    assert_eq!(told(&decided, "ann", "challenge_completed").len(), 2);
}

#[test]
fn badges_come_once_each_for_the_first_order_a_year_and_a_thousand_spent() {
    let mut shop = Story::new();
    shop.tell("badges", json!({"badge_id": "regular", "name": "Regular", "measure": "orders", "at_least": 3}));
    order(&mut shop, "ann", "o1", "999.99", "01-05");
    // 999.99 − 50 + 50 is not yet 1,000, and 0.01 more is.
    refund(&mut shop, "ann", "01-06", json!({"refund_id": "r", "order_id": "o1", "amount": "50"}));
    order(&mut shop, "ann", "o2", "50", "02-05");
    order(&mut shop, "ann", "o3", "0.01", "03-05");
    let decided = shop.until("2027-01-05T10:00:00Z").decide();
    let badges: Vec<_> = decided.of("notifications", "ann").into_iter().filter(|n| n["kind"] == "badge_awarded").collect();
    let awarded: Vec<_> = badges.iter().map(|n| format!("{} {}", n["title"].as_str().unwrap(), n["at"].as_str().unwrap())).collect();
    assert_eq!(
        awarded,
        [
            format!("Badge: First Purchase {}", on("01-05")),
            format!("Badge: Regular {}", on("03-05")),
            format!("Badge: Top Spender {}", on("03-05")),
            "Badge: Loyalty Veteran 2027-01-05T10:00:00.000Z".to_owned(),
        ]
    );
}

#[test]
fn points_pay_for_rewards_and_what_was_spent_can_leave_a_balance_below_zero() {
    let mut shop = Story::new();
    shop.tell("rewards", json!({"reward_id": "mug", "name": "Mug", "points": 80}));
    order(&mut shop, "ann", "o", "100", "01-05");
    command(&mut shop, "ann", "c1", "01-06", json!({"action": "redeem", "reward_id": "mug"}));
    command(&mut shop, "ann", "c2", "01-07", json!({"action": "redeem", "reward_id": "mug"}));
    command(&mut shop, "ann", "c3", "01-08", json!({"action": "reverse", "entry_id": "command:c1"}));
    command(&mut shop, "ann", "c4", "01-09", json!({"action": "reverse", "entry_id": "command:c1"}));
    command(&mut shop, "ann", "c5", "01-10", json!({"action": "redeem", "reward_id": "mug"}));
    command(&mut shop, "ann", "c5", "01-11", json!({"action": "redeem", "reward_id": "mug"}));
    command(&mut shop, "ann", "c6", "01-12", json!({"action": "redeem", "reward_id": "car"}));
    // 20 are left: the refund takes 100. What comes next fills the gap: 50, then 60 of which 30 can be spent.
    refund(&mut shop, "ann", "01-13", json!({"refund_id": "r", "order_id": "o"}));
    command(&mut shop, "ann", "c7", "02-01", json!({"action": "adjust", "points": 50, "note": "sorry"}));
    order(&mut shop, "ann", "p", "60", "02-02");
    let decided = shop.decide();
    assert_eq!(
        decided.told("loyalty_updates", "ann", &["kind", "points", "lifetime_change", "balance", "command_id", "note"]),
        [
            "earn 100 100 100 null 100 points for 100",
            "redeem -80 0 20 c1 Mug (mug)",
            "rejected 0 0 20 c2 Mug costs 80 points; 20 can be spent",
            "reversal 80 0 100 c3 command:c1 reversed (mug)",
            "rejected 0 0 100 c4 command:c1 was reversed before",
            "redeem -80 0 20 c5 Mug (mug)",
            "rejected 0 0 20 c6 there is no reward car",
            "refund -100 -100 -80 null 100 points of order o taken back: 100 of 100 refunded",
            "adjust 50 50 -30 c7 sorry",
            "earn 60 60 30 null 60 points for 60",
        ]
    );
}

#[test]
fn of_a_reward_of_which_there_is_one_one_is_given() {
    let mut shop = Story::new();
    shop.tell("rewards", json!({"reward_id": "mug", "name": "Mug", "points": 80, "stock": 1}));
    for user in ["ann", "bob", "cleo", "dora"] {
        order(&mut shop, user, &format!("o-{user}"), "100", "01-05");
        command(&mut shop, user, &format!("c-{user}"), "01-06", json!({"action": "redeem", "reward_id": "mug"}));
    }
    let decided = shop.decide();
    let mut answers: Vec<_> =
        ["ann", "bob", "cleo", "dora"].iter().map(|user| decided.told("loyalty_updates", user, &["balance", "note"])[1].clone()).collect();
    answers.sort();
    let sold_out = "100 Mug is out of stock";
    assert_eq!(answers, [sold_out, sold_out, sold_out, "20 Mug (mug)"]);
}

#[test]
fn a_spin_wins_what_was_fixed_when_it_was_granted() {
    let mut shop = Story::new();
    shop.config("loyalty: { secret: wheel }");
    for (id, day) in [("o1", "01-05"), ("o2", "02-05"), ("o22", "03-05")] {
        order(&mut shop, "ann", id, "1", day);
    }
    for (n, id) in ["o1", "o2", "o22", "o1", "o9"].iter().enumerate() {
        command(&mut shop, "ann", &format!("c{n}"), "03-06", json!({"action": "spin", "spin_id": format!("spin:1:{id}")}));
    }
    let decided = shop.decide();
    // HMAC-SHA-256(wheel, ann 0x00 spin:1:o1) modulo 100 is 80 to 97, that of o2 below 80, that of o22 above 97: computed
    // apart from this program, as are proof and commitment.
    let answers: Vec<_> = decided.told("loyalty_updates", "ann", &["kind", "points", "command_id", "note"]).split_off(3);
    assert_eq!(
        answers,
        [
            "bonus 25 c0 spin:1:o1: 25 points",
            "bonus 10 c1 spin:1:o2: 10 points",
            "bonus 100 c2 spin:1:o22: 100 points",
            "rejected 0 c3 spin:1:o1 was used before",
            "rejected 0 c4 spin:1:o9 was not granted to this user",
        ]
    );
    let of = |kind: &str| decided.of("notifications", "ann").into_iter().find(|n| n["kind"] == kind).unwrap()["data"].clone();
    let commitment = "e0df93d1268f4cfb6807d744b9c9853ea92e124f97a5a0c8b71578be81fe233e";
    assert_eq!(of("spin_granted"), json!({"spin_id": "spin:1:o1", "commitment": commitment, "order_id": "o1"}));
    assert_eq!(of("spin_result")["proof"], "ec9a50e01580021a566b031660220a109e8070fa61b77e7b415771118f8e4307");
}

#[test]
fn the_prizes_of_a_month_end_with_their_budget_and_a_prize_can_be_a_code() {
    let mut shop = Story::new();
    shop.config("loyalty: { spin: { per_order: 3, prizes: [{ points: 10, code: SHIP, weight: 1 }], monthly_budget: 15 } }");
    order(&mut shop, "ann", "o", "1", "01-05");
    // 10 of January's 15 are won by the first; the second would be 20; February has its own.
    for (n, day) in [(1, "01-06"), (2, "01-07"), (3, "02-01")] {
        command(&mut shop, "ann", &format!("c{n}"), day, json!({"action": "spin", "spin_id": format!("spin:{n}:o")}));
    }
    let decided = shop.decide();
    let mut answers: Vec<_> = decided.told("loyalty_updates", "ann", &["command_id", "kind", "points"]).split_off(1);
    answers.sort();
    assert_eq!(answers, ["c1 bonus 10", "c2 rejected 0", "c3 bonus 10"]);
    let results = decided.of("notifications", "ann").into_iter().filter(|n| n["kind"] == "spin_result");
    assert_eq!(results.map(|n| n["data"]["code"].clone()).collect::<Vec<_>>(), ["SHIP", "SHIP"]);
}

#[test]
fn a_shop_s_own_rules_say_what_earns_more_and_what_earns_nothing() {
    let mut shop = Story::new();
    shop.config(
        "loyalty: { earning: { review_points: 5, signup_points: 20, exclude_products: [card], exclude_categories: [gifts], rules: [
            { multiplier: 2, categories: [tea], from: 2026-03-01T00:00:00Z, until: 2026-03-08T00:00:00Z }, { multiplier: 3, products: [cup] }] } }",
    );
    for (id, category) in [("oolong", "tea"), ("card", "tea"), ("cup", "china"), ("ribbon", "gifts"), ("mug", "china")] {
        shop.tell("products", json!({"product_id": id, "name": id, "category": category, "base_price": "5"}));
    }
    event(&mut shop, "ann", "signed_up", "02-01", json!({}));
    event(&mut shop, "ann", "signed_up", "02-02", json!({}));
    let item = |id: &str, price: &str| json!({"product_id": id, "quantity": 1, "price": price});
    let items = json!([item("oolong", "10"), item("card", "50"), item("cup", "2"), item("ribbon", "4"), item("mug", "7")]);
    for (id, day) in [("early", "02-28"), ("within", "03-07"), ("after", "03-08")] {
        event(&mut shop, "ann", "order_completed", day, json!({"order_id": id, "items": items}));
    }
    for (product, day) in [("mug", "03-09"), ("mug", "03-10"), ("cup", "03-11")] {
        event(&mut shop, "ann", "product_reviewed", day, json!({"product_id": product, "rating": 5}));
    }
    let decided = shop.decide();
    // 10 + 3·2 + 7; in the week of tea 2·10 + 3·2 + 7. Signing up counts once, a review once a product.
    let earned = decided.told("loyalty_updates", "ann", &["entry_id", "points"]);
    assert_eq!(earned, ["signup 20", "order:early 23", "order:within 33", "order:after 23", "review:mug 5", "review:cup 5"]);
}

#[test]
fn a_referral_pays_both_at_the_first_order_and_is_refused_where_it_is_none() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "30", "01-05");
    let refers = |referrer: &str| json!({"referrer_id": referrer});
    // Ann is a customer; Dora is not; nobody refers themselves; Eve has an order already.
    event(&mut shop, "bob", "signed_up", "01-06", refers("ann"));
    event(&mut shop, "cleo", "signed_up", "01-06", refers("dora"));
    event(&mut shop, "fay", "signed_up", "01-06", refers("fay"));
    order(&mut shop, "eve", "e", "10", "01-06");
    event(&mut shop, "eve", "signed_up", "01-07", refers("ann"));
    for user in ["bob", "cleo", "fay", "eve"] {
        order(&mut shop, user, &format!("f-{user}"), "20", "02-06");
    }
    order(&mut shop, "bob", "g-bob", "20", "03-06");
    let decided = shop.decide();
    let entries = |user| entries(&decided, user);
    assert_eq!(entries("bob"), ["order:f-bob 20", "order:g-bob 20", "referral:ann 100"]);
    assert_eq!(entries("ann"), ["order:o 30", "referral:bob 100"]);
    assert_eq!(decided.last("loyalty_updates", "ann")["balance"], 130);
    assert_eq!(told(&decided, "cleo", "referral_refused"), ["Referral refused: dora has no order yet"]);
    assert_eq!(told(&decided, "fay", "referral_refused"), ["Referral refused: nobody refers themselves"]);
    assert_eq!(told(&decided, "eve", "referral_refused"), ["Referral refused: eve has an order already"]);
    assert_eq!(entries("cleo"), ["order:f-cleo 20"]);
}

#[test]
fn a_birthday_brings_fifty_points_from_gold_on_once_a_year() {
    let mut shop = Story::new();
    for (user, total) in [("ann", "2000"), ("bob", "1999")] {
        shop.tell("customers", json!({"user_id": user, "birthday": "1980-02-29"}));
        order(&mut shop, user, &format!("o-{user}"), total, "01-05");
    }
    let decided = shop.until("2026-12-31T00:00:00Z").decide();
    let told = |user| decided.told("loyalty_updates", user, &["kind", "points", "balance"]);
    assert_eq!(told("ann"), ["earn 2000 2000", "bonus 50 2050"]);
    assert!(decided.last("loyalty_updates", "ann")["at"].as_str().unwrap().starts_with("2026-02-28"));
    assert_eq!(told("bob"), ["earn 1999 1999"]);
}

#[test]
fn within_the_return_window_points_are_pending_and_a_refund_cancels_them_there() {
    let mut shop = Story::new();
    shop.config("loyalty: { return_window_days: 14 }");
    order(&mut shop, "ann", "o", "100", "01-05");
    refund(&mut shop, "ann", "01-10", json!({"refund_id": "r", "order_id": "o", "amount": "40"}));
    let decided = shop.until(&on("01-20")).decide();
    assert_eq!(
        decided.told("loyalty_updates", "ann", &["kind", "points", "lifetime_change", "balance", "at"]),
        [
            format!("pending 0 0 0 {}", on("01-05")),
            format!("refund 0 0 0 {}", on("01-10")),
            // 14 days later: 100 − ⌊100 · 40 / 100⌋.
            format!("release 60 60 60 {}", on("01-19")),
        ]
    );
}

#[test]
fn a_guest_counts_for_products_and_for_nothing_of_a_customer_s() {
    let mut shop = Story::new();
    for product in ["tea", "cup"] {
        shop.tell("products", json!({"product_id": product, "name": product, "category": "tea", "base_price": "300"}));
    }
    let items = json!([{"product_id": "tea", "quantity": 1, "price": "300"}, {"product_id": "cup", "quantity": 1, "price": "300"}]);
    let order = json!({"event_type": "order_completed", "event_id": "e1", "order_id": "o", "total_amount": "600", "items": items, "timestamp": on("01-05")});
    // Twice, and it counts once.
    shop.tell("user_events", order.clone()).tell("user_events", order);
    shop.tell("inventory", json!({"product_id": "tea", "stock_level": 15, "last_updated": "2026-01-05T11:00:00Z"}));
    let decided = shop.until(&on("02-05")).decide();
    for topic in ["loyalty_updates", "notifications", "segments", "email_triggers", "recommendations", "dead_letters"] {
        assert_eq!(decided.0.get(topic).map_or(0, Vec::len), 0, "{topic}");
    }
    let related = &decided.last("related_products", "tea")["related"];
    assert_eq!(related.as_array().map(Vec::len), Some(1));
    assert_eq!((&related[0]["product_id"], &related[0]["count"]), (&json!("cup"), &json!(1)));
    // One order of one piece, an hour old, and stock that is low.
    let change = decided.of("price_changes", "tea")[0];
    assert!(change["demand_score"].as_f64() > Some(0.0) && change["new_price"].as_str() > Some("300.00"), "{change}");
}

#[test]
fn a_refund_without_an_id_counts_once_by_its_event_and_one_of_no_order_takes_the_oldest_points() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "100", "01-05");
    order(&mut shop, "ann", "p", "60", "02-05");
    // A month later: once for good.
    for day in ["02-06", "03-06"] {
        refund(&mut shop, "ann", day, json!({"event_id": "e", "amount": "30"}));
    }
    let decided = shop.until("2027-02-05T10:00:00Z").decide();
    assert_eq!(
        ledger(&decided, "ann"),
        [
            "earn 100 100 100 bronze",
            "earn 60 160 160 bronze",
            "refund -30 130 130 bronze",
            // What is left of the first order's points, a year after it; then the second one's, untouched.
            "expire -70 60 130 bronze",
            "expire -60 0 130 bronze",
        ]
    );
}

#[test]
fn a_challenge_is_not_multiplied_and_its_month_is_that_of_the_shop_s_zone() {
    let mut shop = Story::new();
    shop.config("shop: { timezone: Pacific/Auckland }");
    // Silver from the first on. At 11:00 in Greenwich of 31 March it is midnight in Auckland.
    for (n, time) in ["03-01T10:00", "03-31T10:59", "03-31T11:00", "04-02T10:00", "04-03T10:00"].iter().enumerate() {
        let total = if n == 0 { "600" } else { "10" };
        let more = json!({"order_id": format!("o{n}"), "total_amount": total, "items": [], "timestamp": format!("2026-{time}:00Z")});
        event(&mut shop, "ann", "order_completed", "03-01", more);
    }
    let decided = shop.decide();
    let entries = decided.told("loyalty_updates", "ann", &["entry_id", "points"]);
    // ⌊10 · 1.25⌋ = 12; the bonus is 50 in any tier.
    let challenge = "challenge:three_purchases:2026-04 50";
    assert_eq!(entries, ["order:o0 600", "order:o1 12", "order:o2 12", "order:o3 12", "order:o4 12", challenge]);
}

#[test]
fn where_tiers_go_by_net_spend_a_refund_of_money_costs_the_tier() {
    let mut shop = Story::new();
    shop.config("loyalty: { tier_by: net_spend }");
    order(&mut shop, "ann", "o", "510", "01-05");
    refund(&mut shop, "ann", "01-06", json!({"refund_id": "r", "order_id": "o", "amount": "20"}));
    let decided = shop.decide();
    assert_eq!(ledger(&decided, "ann"), ["earn 510 510 510 silver", "refund -20 490 490 bronze"]);
}

#[test]
fn a_customer_refers_by_command_too() {
    let mut shop = Story::new();
    order(&mut shop, "ann", "o", "30", "01-05");
    command(&mut shop, "ann", "c", "01-06", json!({"action": "refer", "referred_user_id": "bob"}));
    order(&mut shop, "bob", "p", "20", "02-06");
    let decided = shop.decide();
    let entries = |user| entries(&decided, user);
    assert_eq!(entries("ann"), ["command:c 0", "order:o 30", "referral:bob 100"]);
    assert_eq!(entries("bob"), ["order:p 20", "referral:ann 100"]);
}
