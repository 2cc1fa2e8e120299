//! The processor against a naive model of its rules, on random shops and on a real one.

use super::{Shop, moment};
use proptest::prelude::*;
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};
use tillflow_engine_api::testing::Driver;
use tillflow_schemas::{Event, LoyaltyUpdate, Notification, Timestamp};

#[path = "../../../../tests/src/model.rs"]
mod model;
use model::NaiveLoyalty;

/// The accounts of the processor are those of the model.
fn assert_same(driver: &mut Driver, model: &NaiveLoyalty) {
    for user in model.users() {
        let found = driver.query("loyalty", user, "").unwrap().unwrap();
        let expected = model.account(user);
        let found = model::NaiveAccount {
            balance: found["balance"].as_i64().unwrap(),
            lifetime_points: found["lifetime_points"].as_i64().unwrap(),
            tier: found["tier"].as_str().unwrap().into(),
        };
        assert_eq!(found, expected, "user {user}");
    }
}

#[test]
fn a_real_shop_s_year_gives_the_points_of_the_naive_model() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let sales = data.join("online_retail/online_retail_2009-12_2010-12.csv.gz");
    if !sales.exists() {
        println!("skipped: {} is not there", sales.display());
        return;
    }
    let mut convert =
        Command::new("python3").arg(data.join("convert.py")).arg("online_retail").arg(&sales).stdout(Stdio::piped()).spawn().unwrap();
    let mut model = NaiveLoyalty::default();
    let mut driver = Shop::new().driver;
    let mut last = Timestamp::MIN;
    let mut updates = 0;
    for (i, line) in BufReader::new(convert.stdout.take().unwrap()).lines().enumerate() {
        let event = Event::decode("user_event", None, Some(line.unwrap().as_bytes())).unwrap();
        if let Event::User(e) = &event {
            model.feed(e);
            last = last.max(e.timestamp);
        }
        driver.send(event);
        if i % 1_000 == 0 {
            updates += driver.emitted::<LoyaltyUpdate>().len();
            driver.emissions::<Notification>();
        }
    }
    assert!(convert.wait().unwrap().success());
    driver.advance(last);
    model.advance(last);
    updates += driver.emitted::<LoyaltyUpdate>().len();
    assert!(driver.failures.is_empty(), "{:?}", driver.failures);
    assert!(model.users().count() > 4_000 && updates > 20_000, "{updates} updates");
    assert_same(&mut driver, &model);
}

#[derive(Clone, Debug)]
enum Step {
    Order(u8, u32),
    Refund(u8, Option<u32>),
    RefundOfNone(u32),
    Cancel(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..12_u8, 0..200_000_u32).prop_map(|(order, cents)| Step::Order(order, cents)),
        3 => (0..12_u8, prop::option::of(0..150_000_u32)).prop_map(|(order, cents)| Step::Refund(order, cents)),
        1 => (0..150_000_u32).prop_map(Step::RefundOfNone),
        1 => (0..12_u8).prop_map(Step::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_shops_give_the_points_of_the_naive_model(steps in prop::collection::vec((0..2_u8, 0..40_i64, step()), 1..40)) {
        let mut shop = Shop::with(json!({"spin": {"per_order": 0}}));
        let mut model = NaiveLoyalty::default();
        let mut at = moment("2026-01-01").millis();
        for (i, (user, days, step)) in steps.into_iter().enumerate() {
            at += days * 24 * 3_600_000 + 3_600_000;
            let amount = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
            let mut event = match step {
                Step::Order(order, cents) => {
                    json!({"event_type": "order_completed", "order_id": format!("o{order}"), "total_amount": amount(cents)})
                }
                Step::Refund(order, cents) => {
                    json!({"event_type": "order_refunded", "order_id": format!("o{order}"), "amount": cents.map(amount)})
                }
                Step::RefundOfNone(cents) => json!({"event_type": "order_refunded", "amount": amount(cents)}),
                Step::Cancel(order) => json!({"event_type": "order_cancelled", "order_id": format!("o{order}")}),
            };
            event["user_id"] = json!(format!("u{user}"));
            event["event_id"] = json!(format!("e{i}"));
            event["timestamp"] = json!(at);
            let event = Event::from_value("user_event", None, event).unwrap();
            if let Event::User(e) = &event {
                model.feed(e);
            }
            shop.driver.send(event);
            // Others' points expire as the watermark passes, ten seconds behind the clock.
            model.advance(Timestamp::from_millis(at - 10_000));
            assert_same(&mut shop.driver, &model);
        }
    }
}
