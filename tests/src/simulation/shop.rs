//! The real processors, both groups, on a small shop's records. What must come out is what one calm instance makes of
//! the same input, by the classes of `topics.yaml`; and points are what the naive model of the programme says.

use super::scenario::{Arrival, Expected, Making, Scenario};
use crate::{
    compare::{Outputs, wrong_points},
    model::NaiveLoyalty,
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tillflow_engine::log::{
    TopicPartition,
    sim::{Data, Dice},
};
use tillflow_schemas::{Catalog, Event, Timestamp, partition::partition};

/// Runs of the real processors.
pub struct Shop;

const PLANS: [&str; 3] = ["basic_box", "premium_box", "deluxe_box"];

/// What the shop sends: topic's schema, key, time, value.
fn records(dice: &mut Dice, from: Timestamp) -> (Vec<(&'static str, String, Timestamp, Value)>, Timestamp) {
    let (users, products) = (dice.between(2, 8), dice.between(3, 12));
    let mut sent = Vec::new();
    for p in 0..products {
        let id = format!("p{p}");
        let price = format!("{}.00", dice.between(5, 90));
        let value = json!({"product_id": id, "name": id, "category": format!("c{}", p % 3), "base_price": price, "box_eligible": true, "exclusive": p % 5 == 4});
        sent.push(("product", id.clone(), Timestamp::MIN, value));
        let stock = dice.between(0, 200);
        sent.push(("inventory", id.clone(), from, json!({"product_id": id, "stock_level": stock, "last_updated": from})));
    }
    for u in 0..users {
        let id = format!("u{u}");
        let consent = json!({"status": "granted", "at": "2001-01-01T00:00:00Z", "source": "test", "text_version": "1"});
        sent.push((
            "customer",
            id.clone(),
            Timestamp::MIN,
            json!({"user_id": id, "email": format!("{id}@example.org"), "consent": consent}),
        ));
        if dice.one_in(3) {
            let plan = dice.pick(&PLANS).unwrap_or("basic_box");
            let value = json!({"event_id": format!("s-{id}"), "user_id": id, "timestamp": from, "subscription_id": format!("s-{id}"), "plan_id": plan, "action": "started"});
            sent.push(("subscription_event", id, from, value));
        }
    }
    let mut at = from;
    let mut orders: Vec<(String, String)> = Vec::new();
    for n in 0..dice.between(30, 120) {
        at = at + if dice.one_in(15) { dice.millis(600_000, 8_000_000) } else { dice.millis(500, 90_000) };
        let user = format!("u{}", dice.below(users));
        let product = format!("p{}", dice.below(products));
        let mut event = json!({"event_id": format!("e{n}"), "user_id": user, "timestamp": at, "product_id": product});
        event["event_type"] = match dice.below(20) {
            0..=9 => json!("product_viewed"),
            10..=13 => json!("added_to_cart"),
            14 => json!("removed_from_cart"),
            15..=17 => {
                let order = format!("o{n}");
                event["order_id"] = json!(order);
                event["total_amount"] = json!(format!("{}.{:02}", dice.between(1, 400), dice.below(100)));
                event["items"] = json!([{"product_id": product, "quantity": dice.between(1, 3), "price": "10.00"}, {"product_id": format!("p{}", dice.below(products)), "quantity": 1, "price": "5.00"}]);
                orders.push((user.clone(), order));
                json!("order_completed")
            }
            18 => match orders.iter().rfind(|(u, _)| *u == user) {
                Some((_, order)) => {
                    event["order_id"] = json!(order);
                    event["amount"] = json!("3.00");
                    json!("order_refunded")
                }
                None => json!("product_viewed"),
            },
            _ => {
                let stock = dice.between(0, 150);
                sent.push(("inventory", product.clone(), at, json!({"product_id": product, "stock_level": stock, "last_updated": at})));
                json!("product_viewed")
            }
        };
        sent.push(("user_event", user.clone(), at, event.clone()));
        if dice.one_in(12) {
            sent.push(("user_event", user, at, event));
        }
    }
    (sent, at)
}

impl Scenario for Shop {
    fn name(&self) -> &'static str {
        "shop"
    }

    fn make(&self, dice: &mut Dice, from: Timestamp) -> Making {
        let partitions = dice.between(1, 3) as u32;
        let catalog = Catalog::built_in(partitions).expect("the list of topics");
        let (mut sent, last) = records(dice, from.minus(Duration::from_secs(30 * 24 * 3600)));
        sent.sort_by_key(|(_, _, at, _)| *at);
        let mut points = NaiveLoyalty::default();
        let mut arrivals = Vec::new();
        for (schema, key, at, value) in sent {
            let topic = catalog.of_schema(schema).expect("a topic");
            let to = TopicPartition {
                topic: catalog.index(&topic.name).expect("a topic"),
                partition: partition(key.as_bytes(), topic.partitions),
            };
            if let Ok(Event::User(event)) = Event::from_value(schema, Some(&key), value.clone()) {
                points.feed(&event);
            }
            let data = Data {
                logged_at: at.max(Timestamp::EARLIEST),
                key: Some(key.into_bytes()),
                value: Some(value.to_string().into_bytes()),
                ..Data::default()
            };
            // All of it is there when the first instance comes: then the order of time decides.
            arrivals.push(Arrival { after: Duration::ZERO, to, data, transaction: None, poison: false });
        }
        let end = last.plus(Duration::from_secs(3_600));
        points.advance(end);
        let accounts = move |outputs: &Outputs| wrong_points(&points, outputs);
        Making {
            groups: tillflow_processors::groups(&Map::new()),
            catalog,
            arrivals,
            end,
            expected: Expected::CalmRun(Box::new(accounts)),
            normal: |outputs| outputs,
            idle_clock: false,
            wait_for_input: None,
            long_outages: true,
            fetched_at_once: dice.between(1, 12),
            lasts: Duration::from_secs(dice.between(5, 40)),
            state: Box::new(|_| Vec::new()),
        }
    }
}
