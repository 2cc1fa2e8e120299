//! What holds whatever a shopper does.

use super::testing::Shop;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tillflow_schemas::{EmailResult, EmailTrigger, Segments, Timestamp};

const HOUR: i64 = 3_600_000;

/// One thing that happens, so many minutes after the one before.
#[derive(Clone, Debug)]
struct Step {
    minutes: i64,
    what: u8,
    product: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![0..120_i64, 0..3_000_i64, 0..60_000_i64];
    prop::collection::vec((gap, 0..14_u8, 0..3_u8).prop_map(|(minutes, what, product)| Step { minutes, what, product }), 1..40)
}

fn event(n: usize, step: &Step) -> (&'static str, Value) {
    let product = format!("p{}", step.product);
    match step.what {
        0..=3 => ("product_viewed", json!({"product_id": product})),
        4..=6 => ("added_to_cart", json!({"product_id": product})),
        7 => ("removed_from_cart", json!({"product_id": product})),
        8 | 9 => (
            "order_completed",
            json!({"order_id": format!("o{n}"), "total_amount": "200", "items": [{"product_id": product, "quantity": 1}]}),
        ),
        10 => ("order_refunded", json!({"refund_id": format!("r{n}"), "amount": "100"})),
        11 => ("product_reviewed", json!({"product_id": product})),
        12 => ("email_clicked", json!({"message_id": "m"})),
        _ => ("email_unsubscribed", json!({"message_id": "m"})),
    }
}

type Said = (Vec<EmailTrigger>, Vec<EmailResult>, Vec<Segments>);

/// Tells the story of `u`; `between` does what it likes to the shop before each event.
fn tell(steps: &[Step], mut between: impl FnMut(&mut Shop, Timestamp, Timestamp)) -> Said {
    let mut shop = Shop::with(json!({"email": {"quiet_hours": {"from": "22:00", "until": "07:00"}}}));
    let contact = json!({"email": "u@example.com", "birthday": "03-20", "country": "DE", "timezone": "America/New_York",
        "consent": {"status": "granted"}});
    shop.customer(contact);
    for n in 0..3 {
        shop.product(&format!("p{n}"), if n == 0 { "tea" } else { "cups" });
    }
    let mut now = super::testing::time("01T00:00");
    for (n, step) in steps.iter().enumerate() {
        let before = now;
        now = Timestamp::from_millis(now.millis() + step.minutes * 60_000);
        between(&mut shop, before, now);
        let (event_type, fields) = event(n, step);
        shop.event(&now.to_string(), event_type, fields);
    }
    shop.until(&Timestamp::from_millis(now.millis() + 500 * 24 * HOUR).to_string());
    let driver = &mut shop.driver;
    let mine = |user: &tillflow_schemas::UserId| user.as_str() == "u";
    let triggers = driver.emitted::<EmailTrigger>().into_iter().filter(|t| mine(&t.user_id)).collect();
    let results = driver.emitted::<EmailResult>().into_iter().filter(|r| mine(&r.user_id)).collect();
    (triggers, results, driver.emitted::<Segments>().into_iter().filter(|s| mine(&s.user_id)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_two_mails_in_a_day_nor_one_after_unsubscribing_nor_at_night_nor_twice(steps in steps()) {
        let (triggers, results, _) = tell(&steps, |_, _, _| {});
        for pair in triggers.windows(2) {
            prop_assert!(pair[1].send_after.since(pair[0].send_after) >= 24 * HOUR, "{pair:?}");
        }
        let ids: BTreeSet<_> = triggers.iter().map(|t| &t.trigger_id).chain(results.iter().map(|r| &r.trigger_id)).collect();
        prop_assert_eq!(ids.len(), triggers.len() + results.len());
        let mut now = super::testing::time("01T00:00");
        for step in &steps {
            now = Timestamp::from_millis(now.millis() + step.minutes * 60_000);
            if step.what == 13 {
                prop_assert!(triggers.iter().all(|t| t.send_after <= now), "{triggers:?} after {now}");
            }
        }
        for trigger in &triggers {
            let local = jiff::Timestamp::from_millisecond(trigger.send_after.millis()).unwrap().in_tz("America/New_York").unwrap();
            prop_assert!((7..22).contains(&local.hour()), "{local}");
        }
    }

    #[test]
    fn each_record_of_segments_follows_from_the_one_before(steps in steps()) {
        let mut before = BTreeSet::new();
        for record in tell(&steps, |_, _, _| {}).2 {
            prop_assert!(record.segments.is_sorted());
            let now: BTreeSet<String> = record.segments.iter().cloned().collect();
            prop_assert_eq!(now.difference(&before).cloned().collect::<Vec<_>>(), record.entered);
            prop_assert_eq!(before.difference(&now).cloned().collect::<Vec<_>>(), record.left);
            prop_assert_ne!(&now, &before);
            before = now;
        }
    }

    /// Class A: when timers fire, and what others do meanwhile, changes nothing that is said of a user.
    #[test]
    fn others_and_the_watermark_change_nothing_of_what_is_said_of_a_user(steps in steps(), parts in prop::collection::vec(0..10_i64, 1..10)) {
        let alone = tell(&steps, |_, _, _| {});
        let mut n = 0;
        let among_others = tell(&steps, |shop, before, now| {
            n += 1;
            let part = parts[n % parts.len()];
            let at = Timestamp::from_millis(before.millis() + now.since(before) / 10 * part);
            let other = json!({"event_type": "added_to_cart", "user_id": "v", "product_id": "p0", "timestamp": at});
            shop.driver.send_json("user_event", other);
            if part % 3 == 0 {
                shop.driver.advance(at);
            }
        });
        prop_assert_eq!(alone, among_others);
    }
}
