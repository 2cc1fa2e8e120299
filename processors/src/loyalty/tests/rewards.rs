//! Redemption, reversal, adjustments.

use super::{Shop, plain};
use serde_json::{Value, json};
use tillflow_schemas::Reward;

fn rewards() -> Value {
    let mut rules = plain();
    rules["rewards"] = json!({"mug": {"name": "A mug", "points": 80}, "bag": {"name": "A bag", "points": 50, "stock": 1}});
    rules
}

fn notes(shop: &mut Shop) -> Vec<String> {
    shop.updates().into_iter().map(|u| u.note).collect()
}

#[test]
fn a_reward_is_paid_from_the_balance_and_leaves_the_tier_alone() {
    let mut shop = Shop::with(rewards());
    shop.order("2026-03-01", "u", "o1", "500").command("2026-03-02", "u", "c1", "redeem", json!({"reward_id": "mug"}));
    let redeemed = shop.updates().pop().unwrap();
    assert_eq!(super::line(&redeemed), "command:c1 redeem -80/+0 → 420/500 silver");
    assert_eq!(redeemed.command_id.as_deref(), Some("c1"));
    shop.command("2026-03-03", "u", "c1", "redeem", json!({"reward_id": "mug"}));
    assert!(shop.entries().is_empty(), "a command is obeyed once");
}

#[test]
fn a_reward_beyond_the_balance_an_unknown_one_and_a_broken_one_are_rejected_with_a_reason() {
    let mut shop = Shop::with(rewards());
    shop.driver.global(Reward { reward_id: "broken".into(), fields: [("name".into(), json!("Broken"))].into(), valid_from: None });
    shop.order("2026-03-01", "u", "o1", "79").entries();
    for (id, reward) in [("c1", "mug"), ("c2", "yacht"), ("c3", "broken")] {
        shop.command("2026-03-02", "u", id, "redeem", json!({"reward_id": reward}));
    }
    let updates = shop.updates();
    assert!(updates.iter().all(|u| super::line(u).ends_with("rejected +0/+0 → 79/79 bronze")), "{updates:?}");
    let notes: Vec<_> = updates.into_iter().map(|u| u.note).collect();
    assert_eq!(notes[..2], ["A mug costs 80 points; 79 can be spent", "there is no reward yacht"]);
    assert!(notes[2].contains("missing field `points`"), "{notes:?}");
}

#[test]
fn the_last_piece_of_a_reward_goes_to_one_user_and_comes_back_with_a_reversal() {
    let mut shop = Shop::with(rewards());
    shop.order("2026-03-01", "u", "o1", "100").order("2026-03-01", "v", "o1", "100").entries();
    let bag = json!({"reward_id": "bag"});
    shop.command("2026-03-02", "u", "c1", "redeem", bag.clone()).command("2026-03-02", "v", "c2", "redeem", bag.clone());
    assert_eq!(shop.entries(), ["command:c1 redeem -50/+0 → 50/100 bronze", "command:c2 rejected +0/+0 → 100/100 bronze"]);
    shop.command("2026-03-03", "u", "c3", "reverse", json!({"entry_id": "command:c1"}));
    shop.command("2026-03-04", "v", "c4", "redeem", bag);
    assert_eq!(shop.entries(), ["command:c3 reversal +50/+0 → 100/100 bronze", "command:c4 redeem -50/+0 → 50/100 bronze"]);
}

#[test]
fn two_requests_at_once_can_not_spend_the_same_points() {
    let mut rules = rewards();
    rules["rewards"]["bag"]["stock"] = json!(10);
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "90").entries();
    // Both commands come before the stock's owner answers the first.
    for id in ["c1", "c2"] {
        let command =
            json!({"user_id": "u", "command_id": id, "action": "redeem", "reward_id": "bag", "timestamp": "2026-03-02T00:00:00Z"});
        shop.driver.send_json("loyalty_command", command);
    }
    shop.deliver();
    let entries = shop.entries();
    assert_eq!(entries, ["command:c2 rejected +0/+0 → 90/90 bronze", "command:c1 redeem -50/+0 → 40/90 bronze"]);
}

#[test]
fn a_refund_between_request_and_grant_gives_the_piece_back() {
    let mut shop = Shop::with(rewards());
    shop.order("2026-03-01", "u", "o1", "60").order("2026-03-01", "v", "o1", "60").entries();
    let redeem = |user: &str, id: &str| json!({"user_id": user, "command_id": id, "action": "redeem", "reward_id": "bag", "timestamp": "2026-03-02T00:00:00Z"});
    shop.driver.send_json("loyalty_command", redeem("u", "c1"));
    let asked = shop.driver.emitted::<tillflow_schemas::CustomerSignal>();
    shop.refund("2026-03-02", "u", "r1", json!({"order_id": "o1"}));
    shop.driver.send(tillflow_schemas::Record::into_event(asked[0].clone()));
    shop.deliver();
    shop.driver.send_json("loyalty_command", redeem("v", "c2"));
    shop.deliver();
    assert_eq!(
        shop.entries(),
        ["refund:r1 refund -60/-60 → 0/0 bronze", "command:c1 rejected +0/+0 → 0/0 bronze", "command:c2 redeem -50/+0 → 10/60 bronze"]
    );
}

#[test]
fn a_redemption_is_reversed_once_and_nothing_else_is() {
    let mut shop = Shop::with(rewards());
    shop.order("2026-03-01", "u", "o1", "100").command("2026-03-02", "u", "c1", "redeem", json!({"reward_id": "mug"})).entries();
    for (id, entry) in [("c2", "order:o1"), ("c3", "command:c1"), ("c4", "command:c1")] {
        shop.command("2026-03-03", "u", id, "reverse", json!({"entry_id": entry}));
    }
    shop.command("2026-03-03", "v", "c5", "reverse", json!({"entry_id": "command:c1"}));
    let updates = shop.updates();
    let balances: Vec<_> = updates.iter().map(|u| u.balance).collect();
    assert_eq!(balances, [20, 100, 100, 0]);
    assert_eq!(updates[2].note, "command:c1 was reversed before");
}

#[test]
fn points_given_back_expire_when_they_would_have_at_the_earliest_in_thirty_days() {
    let mut shop = Shop::with(rewards());
    shop.order("2026-03-01", "u", "o1", "80").command("2026-03-02", "u", "c1", "redeem", json!({"reward_id": "mug"}));
    shop.order("2026-03-01", "v", "o1", "80").command("2026-03-02", "v", "c2", "redeem", json!({"reward_id": "mug"}));
    shop.command("2026-03-03", "u", "c3", "reverse", json!({"entry_id": "command:c1"}));
    shop.command("2027-02-20", "v", "c4", "reverse", json!({"entry_id": "command:c2"}));
    shop.entries();
    shop.advance("2027-03-21T23:59");
    assert_eq!(shop.entries(), ["expire:command:c3 expire -80/+0 → 0/80 bronze"]);
    shop.advance("2027-03-22");
    assert_eq!(shop.entries(), ["expire:command:c4 expire -80/+0 → 0/80 bronze"]);
}

#[test]
fn an_adjustment_gives_or_takes_points_but_never_below_nothing() {
    let mut rules = rewards();
    rules["adjust_limit"] = json!(1_000);
    let mut shop = Shop::with(rules);
    for (id, points) in [("c1", 700), ("c2", -300), ("c3", -401), ("c4", 1_001), ("c5", i64::MIN)] {
        shop.command("2026-03-01", "u", id, "adjust", json!({"points": points, "note": "goodwill"}));
    }
    assert_eq!(
        shop.entries(),
        [
            "command:c1 adjust +700/+700 → 700/700 silver",
            "command:c2 adjust -300/-300 → 400/400 bronze",
            "command:c3 rejected +0/+0 → 400/400 bronze",
            "command:c4 rejected +0/+0 → 400/400 bronze",
            "command:c5 rejected +0/+0 → 400/400 bronze",
        ]
    );
    shop.command("2026-03-02", "u", "c6", "adjust", json!({"points": 2_000}));
    assert_eq!(notes(&mut shop), ["an adjustment by 2000 is beyond loyalty.adjust_limit 1000: it needs a second person"]);
}

#[test]
fn a_reward_of_the_topic_comes_before_one_of_the_configuration_and_as_of_event_time() {
    let mut shop = Shop::with(rewards());
    let reward = |points: i64, from: &str| Reward {
        reward_id: "mug".into(),
        fields: [("name".into(), json!("A mug")), ("points".into(), json!(points))].into(),
        valid_from: Some(super::moment(from)),
    };
    shop.driver.global(reward(10, "2026-01-01")).global(reward(20, "2026-03-02"));
    shop.order("2026-03-01", "u", "o1", "100").entries();
    shop.command("2026-03-01", "u", "c1", "redeem", json!({"reward_id": "mug"}));
    shop.command("2026-03-02", "u", "c2", "redeem", json!({"reward_id": "mug"}));
    assert_eq!(shop.entries(), ["command:c1 redeem -10/+0 → 90/100 bronze", "command:c2 redeem -20/+0 → 70/100 bronze"]);
}
