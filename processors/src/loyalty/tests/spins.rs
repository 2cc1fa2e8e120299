//! Spins.

use super::Shop;
use serde_json::json;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn each_order_grants_one_spin_whose_prize_was_fixed_before_and_can_be_checked() {
    let mut shop = Shop::new();
    shop.order("2026-03-01", "u", "o1", "10").order("2026-03-01", "u", "o1", "10");
    let granted = shop.told(&["spin_granted"]);
    assert_eq!(granted.len(), 1, "an order that comes again grants nothing");
    let (spin_id, commitment) = (granted[0].2["spin_id"].as_str().unwrap(), granted[0].2["commitment"].as_str().unwrap());
    assert_eq!(spin_id, "spin:1:o1");
    shop.entries();
    shop.command("2026-03-02", "u", "c1", "spin", json!({"spin_id": spin_id}));
    let result = shop.told(&["spin_result"]);
    let data = &result[0].2;
    let proof = unhex(data["proof"].as_str().unwrap());
    assert_eq!(hex(&Sha256::digest(&proof)), commitment);
    let number = u64::from_be_bytes(proof[..8].try_into().unwrap()) % 100;
    let expected = if number < 80 {
        10
    } else if number < 98 {
        25
    } else {
        100
    };
    assert_eq!(data["points"], expected);
    let won = shop.updates();
    assert_eq!(super::line(&won[0]), format!("command:c1 bonus +{expected}/+{expected} → {0}/{0} bronze", 10 + expected));
    assert_eq!(won[0].command_id.as_deref(), Some("c1"));
}

#[test]
fn a_spin_is_used_once_by_the_user_it_was_granted_to() {
    let mut shop = Shop::new();
    shop.order("2026-03-01", "u", "o1", "10").entries();
    for (id, user, spin) in
        [("c1", "v", "spin:1:o1"), ("c2", "u", "spin:2:o1"), ("c3", "u", "o1"), ("c4", "u", "spin:1:o1"), ("c5", "u", "spin:1:o1")]
    {
        shop.command("2026-03-02", user, id, "spin", json!({"spin_id": spin}));
    }
    let kinds: Vec<_> = shop.updates().iter().map(|u| serde_json::to_value(u.kind).unwrap()).collect();
    assert_eq!(kinds, ["rejected", "rejected", "rejected", "bonus", "rejected"]);
}

#[test]
fn the_same_spin_wins_the_same_whatever_the_command_s_id() {
    let prize = |command: &str| {
        let mut shop = Shop::new();
        shop.order("2026-03-01", "u", "o1", "10").command("2026-03-02", "u", command, "spin", json!({"spin_id": "spin:1:o1"}));
        shop.told_of("spin_result", "proof")
    };
    assert_eq!(prize("c1"), prize("c2"));
}

#[test]
fn a_shop_has_its_own_prizes_number_of_spins_and_secret() {
    let rules = json!({"spin": {"per_order": 2, "prizes": [{"code": "SHIP", "weight": 1}]}, "secret": "another"});
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "10").entries();
    let granted = shop.told_of("spin_granted", "spin_id");
    assert_eq!(granted, ["spin:1:o1", "spin:2:o1"]);
    shop.command("2026-03-02", "u", "c1", "spin", json!({"spin_id": "spin:2:o1"}));
    assert_eq!(shop.told_of("spin_result", "code"), ["SHIP"]);
    assert_eq!(shop.entries(), ["command:c1 bonus +0/+0 → 10/10 bronze"]);
}

#[test]
fn there_are_no_spins_in_countries_where_they_are_off() {
    let mut shop = Shop::with(json!({"spin": {"off_countries": ["NL"]}}));
    shop.customer("u", json!({"country": "NL"})).customer("v", json!({"country": "BE"}));
    shop.order("2026-03-01", "u", "o1", "10").order("2026-03-01", "v", "o2", "10").entries();
    assert_eq!(shop.told_of("spin_granted", "spin_id"), ["spin:1:o2"]);
    shop.customer("v", json!({"country": "NL"}));
    shop.command("2026-03-02", "u", "c1", "spin", json!({"spin_id": "spin:1:o1"}));
    shop.command("2026-03-02", "v", "c2", "spin", json!({"spin_id": "spin:1:o2"}));
    let notes: Vec<_> = shop.updates().into_iter().map(|u| u.note).collect();
    assert_eq!(notes, ["spin:1:o1 was not granted to this user", "there are no spins in this user's country"]);
}

#[test]
fn a_month_s_prizes_end_with_its_budget_and_the_spin_can_be_used_in_the_next() {
    let rules = json!({"spin": {"prizes": [{"points": 10, "weight": 1}], "monthly_budget": 15}});
    let mut shop = Shop::with(rules);
    shop.order("2026-03-01", "u", "o1", "0").order("2026-03-01", "v", "o2", "0").entries();
    shop.command("2026-03-02", "u", "c1", "spin", json!({"spin_id": "spin:1:o1"}));
    shop.command("2026-03-02", "v", "c2", "spin", json!({"spin_id": "spin:1:o2"}));
    shop.command("2026-04-01", "v", "c3", "spin", json!({"spin_id": "spin:1:o2"}));
    assert_eq!(
        shop.entries(),
        ["command:c1 bonus +10/+10 → 10/10 bronze", "command:c2 rejected +0/+0 → 0/0 bronze", "command:c3 bonus +10/+10 → 10/10 bronze"]
    );
}
