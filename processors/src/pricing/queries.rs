//! What is answered about a product from committed state.

use super::{
    Counts, Demand, Explanation, Figures, Priced, PricingParameters, deciding::figures, demand::days_before, processor::Tables,
    rules::Rules,
};
use serde_json::{Map, Value, json};
use tillflow_engine_api::{Declare, Global, Query, Result};
use tillflow_schemas::{Mode, PricingRule, Product, ProductId, Timestamp};

/// Prices of the past in one answer, newest first, unless the path asks for fewer.
const HISTORY_LIMIT: u64 = 1_000;
/// Ids of products in one answer.
const PAGE: usize = 1_000;

/// Declares the queries.
pub(super) fn declare(d: &mut Declare<'_>, tables: Tables, rules: Global<PricingRule>, defaults: &PricingParameters) {
    let catalogue = d.global::<Product>();
    let defaults = defaults.clone();
    d.query("", move |q| {
        let Some((id, product)) = known(q, tables)? else { return Ok(None) };
        let mut answer = q.lookup(&catalogue, q.key).and_then(|p| serde_json::to_value(&*p).ok()).unwrap_or_else(|| json!({}));
        extend(&mut answer, price(q, tables, &id, &product)?);
        let Some(facts) = &product.facts else { return Ok(None) };
        extend(
            &mut answer,
            json!({
                "name": facts.name, "category": facts.category, "base_price": facts.base,
                "stock_level": product.newest_stock().map(|(_, level)| level),
                "stock_updated": product.newest_stock().map(|(at, _)| at),
            }),
        );
        Ok(Some(answer))
    });
    d.query("price", move |q| {
        let Some((id, product)) = known(q, tables)? else { return Ok(None) };
        price(q, tables, &id, &product).map(Some)
    });
    d.query("price/history", move |q| {
        let Some((id, product)) = known(q, tables)? else { return Ok(None) };
        let limit = q.rest.parse().unwrap_or(HISTORY_LIMIT).min(HISTORY_LIMIT);
        let mut history = Vec::new();
        for n in (product.history_from..product.history_to).rev().take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            if let Some(past) = q.get(&tables.history, &(id.clone(), n))? {
                history.push(json!(past));
            }
        }
        Ok(Some(json!({"product_id": id, "history": history})))
    });
    d.query("price/explain", move |q| {
        let Some((id, product)) = known(q, tables)? else { return Ok(None) };
        let made_by = match q.get(&tables.made, &id)? {
            Some(made) => Some(explained(made)),
            // No decision made it: the shop stated it.
            None => stated(q, tables, &id, &product)?,
        };
        Ok(Some(json!({
            "product_id": id, "price": product.price().map(|(_, p)| p), "since": product.price().map(|(at, _)| at),
            "made_by": made_by, "last_decision": q.get(&tables.last, &id)?.map(explained),
        })))
    });
    // Every task knows these two whole, whichever product is asked about.
    d.query("pricing/products", move |q| {
        let ids = q.globals.all::<Product>(q.now).map(|(id, _)| id).filter(|id| *id > q.rest).take(PAGE);
        Ok(Some(json!({"product_ids": ids.collect::<Vec<_>>()})))
    });
    d.query("pricing/rules", move |q| {
        let versions: Vec<_> = q.globals.versions::<PricingRule>(q.rest).collect();
        if versions.is_empty() {
            return Ok(None);
        }
        let written = versions.iter().rev().map(|(from, rule)| match rule {
            Some(rule) => json!({
                "version": rule.version, "author": rule.author, "valid_from": (*from > Timestamp::MIN).then_some(*from),
                "parameters": rule.parameters,
            }),
            None => json!({"valid_from": from, "deleted": true}),
        });
        let now = q.lookup(&rules, q.rest);
        Ok(Some(json!({
            "scope": q.rest, "in_force": now.as_ref().and_then(|r| r.version), "parameters": now.as_ref().map(|r| &r.parameters),
            "versions": written.collect::<Vec<_>>(),
        })))
    });
    d.query("demand", move |q| {
        let Some((id, product)) = known(q, tables)? else { return Ok(None) };
        let category = product.facts.map(|f| f.category).unwrap_or_default();
        let parameters = Rules::new(rules, defaults.clone()).in_force_for(&category, q).parameters.unwrap_or_else(|_| defaults.clone());
        let mut demand = Demand::default();
        for day in days_before(q.now) {
            if let Some(row) = q.get(&tables.demand, &(id.clone(), day))? {
                demand.add_day(day, &row, q.now);
            }
        }
        let mut answer = json!({"product_id": id, "at": q.now});
        extend(&mut answer, demand_of(&figures(&demand, &parameters, q.now)));
        Ok(Some(answer))
    });
}

fn known(q: &Query<'_>, tables: Tables) -> Result<Option<(ProductId, Priced)>> {
    let id = ProductId::from(q.key);
    Ok(q.get(&tables.products, &id)?.filter(|p| p.facts.is_some()).map(|p| (id, p)))
}

/// The newest live price of the history, for one that no decision made.
fn stated(q: &Query<'_>, tables: Tables, id: &ProductId, product: &Priced) -> Result<Option<Value>> {
    for n in (product.history_from..product.history_to).rev() {
        if let Some(past) = q.get(&tables.history, &(id.clone(), n))?.filter(|p| p.mode == Mode::Live) {
            return Ok(Some(json!({"decided_at": past.at, "reason": past.reason, "price": past.new_price, "changed": true})));
        }
    }
    Ok(None)
}

fn price(q: &Query<'_>, tables: Tables, id: &ProductId, product: &Priced) -> Result<Value> {
    let lowest = q.get(&tables.lowest, id)?.and_then(|l| l.reference);
    let current = product.price();
    Ok(json!({
        "product_id": id,
        "price": current.map(|(_, price)| price),
        "currency": product.facts.as_ref().and_then(|f| f.currency.clone()),
        "since": current.map(|(since, _)| since),
        "base_price": product.facts.as_ref().map(|f| f.base),
        "lowest_30d": lowest.or(current.map(|(_, price)| price)),
    }))
}

fn demand_of(f: &Figures) -> Value {
    let Counts { views, long_views, adds, checkouts, orders, units } = f.counts;
    json!({
        "demand_score": f.score.number(), "weighted_sum": f.weighted, "conversion": f.conversion,
        "conversion_factor": f.conversion_factor, "units_per_day": f.velocity, "last_24h": f.last_day, "day_before": f.day_before,
        "views": views, "long_views": long_views, "adds": adds, "checkouts": checkouts, "orders": orders, "units": units,
    })
}

fn explained(e: Explanation) -> Value {
    json!({
        "decided_at": e.at, "trigger": e.trigger, "rule": e.rule, "mode": e.mode,
        "inputs": {
            "base_price": e.base, "price": e.current, "price_24h_ago": e.day_ago, "stock_level": e.stock, "demand": demand_of(&e.demand),
        },
        "raw": e.raw,
        "bounds": e.bounds.iter().map(|(bound, from, to)| json!({"bound": bound, "from": from, "to": to})).collect::<Vec<_>>(),
        "held_by": e.gate, "problem": e.problem, "price": e.price, "changed": e.gate.is_none(), "reason": e.reason,
    })
}

fn extend(answer: &mut Value, more: Value) {
    if let (Value::Object(answer), Value::Object(more)) = (answer, more) {
        let more: Map<String, Value> = more;
        answer.extend(more);
    }
}
