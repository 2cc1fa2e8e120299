//! With the other systems in the real task groups.

use super::*;
use tillflow_schemas::Catalog;

fn groups() -> Vec<Group> {
    crate::groups(&Map::new())
}

#[test]
fn the_real_groups_lack_nothing_that_subscriptions_ask_of_them() {
    let catalog = Catalog::built_in(4).unwrap();
    for group in groups() {
        assert_eq!(group.problems(&catalog), Vec::<String>::new(), "{}", group.name);
    }
}

#[test]
fn an_order_that_lifts_a_subscriber_to_silver_entitles_to_what_silver_brings() {
    let mut shop = Driver::group(&groups()[0]);
    shop.send_json(
        "subscription_event",
        json!({"user_id": "u", "timestamp": at("2026-03-01"), "action": "started", "plan_id": "premium_box"}),
    );
    let order = |day: &str, id: &str, total: &str| json!({"user_id": "u", "timestamp": at(day), "event_type": "order_completed", "order_id": id, "total_amount": total});
    shop.send_json("user_event", order("2026-03-02", "o1", "499.99"));
    shop.send_json("user_event", order("2026-03-03", "o2", "1.00"));
    assert!(shop.failures.is_empty(), "{:?}", shop.failures);
    let emitted = shop.emitted::<Entitlements>();
    assert_eq!(emitted.len(), 2, "the plan's, and those with the tier's");
    let last = &emitted[1];
    assert_eq!((last.plan_id.as_ref().unwrap().as_str(), last.since), ("premium_box", at("2026-03-03")));
    assert_eq!((&last.features["free_shipping_over"], &last.features["early_access"]), (&json!(50), &json!(true)));
    let answer = shop.query("entitlements", "u", "free_shipping_over").unwrap().unwrap();
    assert_eq!(answer["because"], "tier silver");
}

/// Inventory to `product_status` to the draw, request to grant to the box: nothing of it stands in for another.
#[test]
fn stock_counted_in_the_products_group_becomes_a_box_in_the_customers_group() {
    let [mut customers, mut products] = <[Driver; 2]>::try_from(groups().iter().map(Driver::group).collect::<Vec<_>>()).ok().unwrap();
    for i in 0..9 {
        let product: Product =
            serde_json::from_value(json!({"product_id": format!("p{i}"), "name": "Tea", "base_price": "10", "box_eligible": true}))
                .unwrap();
        customers.global(product.clone());
        products.global(product.clone()).send(tillflow_schemas::Record::into_event(product));
        products.send_json("inventory", json!({"product_id": format!("p{i}"), "stock_level": 50, "last_updated": at("2026-02-28")}));
    }
    products.advance(at("2026-03-01"));
    let statuses = products.emitted::<ProductStatus>();
    statuses.into_iter().for_each(|status| {
        customers.global(status);
    });
    customers.send_json(
        "subscription_event",
        json!({"user_id": "u", "timestamp": at("2026-03-01"), "action": "started", "plan_id": "premium_box"}),
    );
    customers.advance(at("2026-03-01"));
    for request in customers.emitted::<ProductCommand>() {
        products.send(Event::ProductCommand(request));
    }
    for answer in products.emitted::<CustomerSignal>() {
        customers.send(Event::CustomerSignal(answer));
    }
    assert_eq!((&customers.failures, &products.failures), (&vec![], &vec![]));
    let [packed] = customers.emitted::<BoxContents>().try_into().unwrap();
    assert_eq!(packed.items.len(), 6);
}
