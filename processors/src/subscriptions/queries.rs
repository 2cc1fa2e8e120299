//! Answers about entitlements and boxes, from committed state.

use super::{
    Rules, Tables,
    lifecycle::Subscription,
    packing::Packing,
    plans::json as value_of,
    standing::{Beside, NO_STATUS, Standing, counting, features, newest},
};
use serde_json::{Map, Value, json};
use tillflow_engine_api::{Declare, Query, Result};
use tillflow_schemas::{SubscriptionId, UserId};

/// Rows of a customer read for a query, at most; more are never kept.
const ROWS: usize = 1_000;

pub(super) fn declare(d: &mut Declare<'_>, rules: &Rules, tables: Tables, packing: &Packing) {
    let of_features = rules.clone();
    d.query("entitlements", move |q| {
        let user = UserId::from(q.key);
        if q.rest.is_empty() { entitlements(&user, tables, q).map(Some) } else { feature(&user, q.rest, &of_features, tables, q).map(Some) }
    });
    let of_subscriptions = rules.clone();
    d.query("subscription", move |q| subscriptions(&UserId::from(q.key), &of_subscriptions, tables, q).map(Some));
    let (of_boxes, shelf) = (rules.clone(), packing.shelf.clone());
    d.query("box", move |q| {
        let user = UserId::from(q.key);
        let next = next_box(&user, &of_boxes, tables, &shelf, q)?;
        Ok(Some(json!({"user_id": user, "latest": shelf.latest(&user, q)?, "next": next})))
    });
}

/// All subscriptions, the newest first, and the ids of the last events that were taken.
fn subscriptions(user: &UserId, rules: &Rules, tables: Tables, q: &Query<'_>) -> Result<Value> {
    let mut rows = q.rows(&tables.subscriptions, user, ROWS)?;
    rows.sort_by_key(|(_, s)| std::cmp::Reverse((s.started_at, s.arrival)));
    let shown = |((_, id), s): &((UserId, SubscriptionId), Subscription)| {
        json!({
            "subscription_id": id, "plan_id": s.plan.plan_id, "status": s.status.name(), "started_at": s.started_at,
            "paid_until": s.paid_until(&rules.calendar), "trial_until": s.trial_until, "ends_at": s.ends_at, "next_plan_id": s.next_plan,
            "next_box": {
                "period": s.next_box, "skipped": s.skip_next,
                "swaps": s.swaps.iter().map(|(from, to)| json!({"from": from, "to": to})).collect::<Vec<_>>(),
            },
        })
    };
    let applied = q.get(&tables.members, user)?.unwrap_or_default().taken;
    Ok(json!({"user_id": user, "subscriptions": rows.iter().map(shown).collect::<Vec<_>>(), "applied": applied}))
}

/// As last emitted.
fn entitlements(user: &UserId, tables: Tables, q: &Query<'_>) -> Result<Value> {
    let Some(entitled) = q.get(&tables.entitled, user)? else {
        return Ok(json!({"user_id": user, "plan_id": null, "status": NO_STATUS, "features": {}}));
    };
    let features: Map<_, _> = entitled.features.iter().map(|(feature, text)| (feature.clone(), value_of(text))).collect();
    let mut answer =
        json!({"user_id": user, "plan_id": entitled.plan_id, "status": entitled.status, "features": features, "since": entitled.since});
    if let (Some(until), Some(fields)) = (entitled.until, answer.as_object_mut()) {
        fields.insert("until".into(), json!(until));
    }
    Ok(answer)
}

/// Whether the customer has one feature, its value, and why; where not, the plan that has it.
fn feature(user: &UserId, feature: &str, rules: &Rules, tables: Tables, q: &Query<'_>) -> Result<Value> {
    let subscriptions: Vec<_> = q.rows(&tables.subscriptions, user, ROWS)?.into_iter().map(|((_, id), s)| (id, s)).collect();
    let standing = Standing::of(&subscriptions, &beside(user, rules, tables, q)?, &rules.settings.features, &rules.calendar);
    let (has, value, because) = standing.answer(feature);
    let mut answer = json!({"feature": feature, "has": has, "value": value, "because": because});
    if !has
        && let Some(plan) = rules.higher_with(feature, &standing, &rules.plans.all_sold_to(q))
        && let Some(fields) = answer.as_object_mut()
    {
        fields.insert("upgrade_to".into(), json!(plan.plan_id));
    }
    Ok(answer)
}

/// The next box of the newest subscription that counts, else of the newest that is not over.
fn next_box(user: &UserId, rules: &Rules, tables: Tables, shelf: &super::packing::Shelf, q: &Query<'_>) -> Result<Value> {
    let subscriptions: Vec<_> = q.rows(&tables.subscriptions, user, ROWS)?.into_iter().map(|((_, id), s)| (id, s)).collect();
    let chosen = counting(&subscriptions).or_else(|| newest(subscriptions.iter().filter(|(_, s)| !s.is_over)));
    let Some((id, subscription)) = chosen else { return Ok(Value::Null) };
    let begins = subscription.begins(subscription.next_box, &rules.calendar);
    if subscription.ends_at.is_some_and(|end| end <= begins) {
        return Ok(Value::Null);
    }
    let features = features(Some(subscription), &beside(user, rules, tables, q)?, &rules.settings.features);
    let items = if subscription.skip_next { Vec::new() } else { shelf.preview(user, id, subscription, begins.max(q.now), &features, q)? };
    let items: Vec<_> = items.iter().map(|c| json!({"product_id": c.product_id, "exclusive": c.is_exclusive})).collect();
    Ok(json!({
        "subscription_id": id,
        "period": subscription.next_box,
        "begins": begins,
        "open_until": begins.minus(rules.settings.boxes.cut_off()),
        "skipped": subscription.skip_next,
        "paid": subscription.gets_boxes(),
        "items": items,
    }))
}

fn beside(user: &UserId, rules: &Rules, tables: Tables, q: &Query<'_>) -> Result<Beside> {
    let tier = q.get(&tables.members, user)?.unwrap_or_default().tier;
    let grants = q.rows(&tables.grants, user, ROWS)?.into_iter().map(|((_, feature), grant)| (feature, grant)).collect();
    Ok(Beside { benefits: rules.loyalty.benefits(&tier), tier, grants })
}
