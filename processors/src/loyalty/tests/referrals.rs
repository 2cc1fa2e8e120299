//! Referrals.

use super::{Shop, plain};
use serde_json::json;
use tillflow_schemas::{CustomerSignal, Record};

fn by_user(shop: &mut Shop) -> Vec<String> {
    shop.updates().iter().map(|u| format!("{}: {}", u.user_id, super::line(u))).collect()
}

#[test]
fn both_are_paid_at_the_referred_user_s_first_order_and_at_no_other() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "anna", "o1", "10").event("2026-03-02", "ben", "signed_up", json!({"referrer_id": "anna"}));
    assert_eq!(by_user(&mut shop).len(), 1, "nothing before the order");
    shop.order("2026-03-03", "ben", "o2", "10").order("2026-03-04", "ben", "o3", "10");
    assert_eq!(
        by_user(&mut shop),
        [
            "ben: order:o2 earn +10/+10 → 10/10 bronze",
            "ben: referral:anna bonus +100/+100 → 110/110 bronze",
            "anna: referral:ben bonus +100/+100 → 110/110 bronze",
            "ben: order:o3 earn +10/+10 → 120/120 bronze",
        ]
    );
}

#[test]
fn a_referral_s_bonus_is_not_what_its_order_earned() {
    let mut settings = plain();
    settings["rewards"] = json!({"pen": {"name": "Pen", "points": 10}});
    let mut shop = Shop::with(settings);
    shop.order("2026-03-01", "anna", "o1", "10").event("2026-03-02", "ben", "signed_up", json!({"referrer_id": "anna"}));
    // The oldest lot pays, which is the order's. A year later the bonus expires, and then the order is refunded.
    shop.order("2026-03-03", "ben", "o2", "10").command("2026-03-04", "ben", "c", "redeem", json!({"reward_id": "pen"}));
    shop.advance("2027-03-04").refund("2027-03-05", "ben", "r", json!({"order_id": "o2"}));
    let entries: Vec<_> = by_user(&mut shop).into_iter().filter(|entry| entry.starts_with("ben: ")).collect();
    assert_eq!(
        entries[2..],
        [
            "ben: command:c redeem -10/+0 → 100/110 bronze",
            "ben: expire:referral:anna expire -100/+0 → 0/110 bronze",
            "ben: refund:r refund -10/-10 → -10/100 bronze",
        ]
    );
}

#[test]
fn a_referral_is_refused_if_they_are_one_the_referrer_has_no_order_or_the_referred_has_one() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "anna", "o1", "10").order("2026-03-01", "old", "o2", "10").entries();
    shop.event("2026-03-02", "ben", "signed_up", json!({"referrer_id": "ben"}));
    shop.event("2026-03-02", "cleo", "signed_up", json!({"referrer_id": "nobody"}));
    shop.event("2026-03-02", "old", "signed_up", json!({"referrer_id": "anna"}));
    assert_eq!(
        shop.told_of("referral_refused", "reason"),
        ["nobody refers themselves", "nobody has no order yet", "old has an order already"]
    );
    for (user, order) in [("ben", "o3"), ("cleo", "o4"), ("old", "o5"), ("nobody", "o6")] {
        shop.order("2026-03-03", user, order, "10");
    }
    assert!(shop.updates().iter().all(|u| !u.entry_id.starts_with("referral")));
}

#[test]
fn a_customer_refers_by_command_and_is_answered() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "anna", "o1", "10").order("2026-03-01", "old", "o2", "10").entries();
    for (id, user, referred) in
        [("c1", "anna", "ben"), ("c2", "anna", "anna"), ("c3", "anna", "old"), ("c4", "new", "cleo"), ("c5", "old", "ben")]
    {
        shop.command("2026-03-02", user, id, "refer", json!({"referred_user_id": referred}));
    }
    let answers: Vec<_> = shop.updates().into_iter().map(|u| (u.command_id.unwrap(), u.note)).collect();
    let expected = [
        ("c1", "100 points, pending until the first order of ben"),
        ("c2", "nobody refers themselves"),
        ("c3", "old has an order already"),
        ("c4", "new has no order yet"),
        ("c5", "ben was referred before"),
    ];
    assert_eq!(answers, expected.map(|(id, note)| (id.to_owned(), note.to_owned())));
    shop.order("2026-03-03", "ben", "o3", "10");
    assert_eq!(shop.sums("anna").0, 110);
    assert_eq!(shop.sums("ben").0, 110);
}

#[test]
fn a_first_order_that_overtakes_the_referrer_s_answer_is_paid_when_it_comes() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "anna", "o1", "10").entries();
    let signed_up = json!({"event_type": "signed_up", "user_id": "ben", "referrer_id": "anna", "timestamp": "2026-03-02T00:00:00Z"});
    shop.driver.send_json("user_event", signed_up);
    let claims = shop.driver.emitted::<CustomerSignal>();
    shop.order("2026-03-03", "ben", "o2", "10");
    for claim in claims {
        shop.driver.send(claim.into_event());
    }
    shop.deliver();
    assert_eq!(shop.sums("ben").0, 110);
    assert_eq!(shop.sums("anna").0, 110);
}

#[test]
fn a_message_that_comes_again_is_heard_once_and_those_of_others_not_at_all() {
    let mut shop = Shop::with(plain());
    shop.order("2026-03-01", "anna", "o1", "10");
    let earned = CustomerSignal {
        user_id: "anna".into(),
        signal_id: "earned:ben".into(),
        at: super::moment("2026-03-02"),
        kind: "loyalty_referral_earned".into(),
        data: json!({"referred_id": "ben", "order_id": "o2"}).as_object().unwrap().clone(),
    };
    shop.driver.send(earned.clone().into_event()).send(earned.clone().into_event());
    assert_eq!(shop.sums("anna").0, 110);
    shop.driver.send(CustomerSignal { kind: "reserved".into(), signal_id: "s".into(), ..earned.clone() }.into_event());
    assert!(shop.failures().is_empty());
    shop.driver.send(CustomerSignal { kind: "loyalty_unheard_of".into(), signal_id: "t".into(), ..earned }.into_event());
    assert_eq!(shop.failures().len(), 1);
}
