//! `/openapi.json`: the routes as OpenAPI 3.1, made from the list that makes the router.

use crate::{
    App,
    api::{self, Needs, QUERIES, Route},
    query::OF_THE_SHOP,
};
use axum::{Json, extract::State};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What stands behind the paths of queries.
const ABOUT: [(&str, &str); 15] = [
    ("recommendations", "What to show now, each with because"),
    ("loyalty", "Balance, tier, and how far the next one is"),
    ("loyalty/ledger", "Entries of the ledger, the newest first"),
    ("loyalty/badges", "Badges and benefits"),
    ("entitlements", "Plan, status and features"),
    ("entitlements/{feature}", "Whether the user has a feature, its value, and why"),
    ("box", "The last and the next box"),
    ("segments", "Segments the user is in"),
    ("subscription", "The user's subscriptions"),
    ("price", "The price now, and the lowest of 30 days"),
    ("price/history", "All prices there were, the newest first"),
    ("price/explain", "Inputs, rule and bounds of the last decision"),
    ("demand", "The figures of demand"),
    ("related", "Products bought together with this one"),
    ("email", "Whether the user may be mailed, and why not"),
];

pub(crate) async fn document(State(app): State<Arc<App>>) -> Json<Value> {
    let mut paths = Map::new();
    for route in api::all() {
        match QUERIES.iter().find(|(_, path)| *path == route.path) {
            None => add(&mut paths, route),
            Some((group, path)) => queries(&app, group, path, route, &mut paths),
        }
    }
    Json(json!({
        "openapi": "3.1.0",
        "info": { "title": "Tillflow", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "paths": paths,
        "components": components(),
    }))
}

/// A path for each query that the processors answer.
fn queries(app: &App, group: &str, path: &str, route: Route, paths: &mut Map<String, Value>) {
    let base = path.trim_end_matches("{*path}");
    let mut names: Vec<String> =
        app.shop.queries(group).into_iter().filter(|name| !name.is_empty() && !name.starts_with(OF_THE_SHOP)).map(str::to_owned).collect();
    if names.iter().any(|name| name == "entitlements") {
        names.push("entitlements/{feature}".into());
    }
    for name in names {
        let about = ABOUT.iter().find(|(known, _)| *known == name).map_or(route.about, |(_, about)| *about);
        paths.entry(format!("{base}{name}")).or_insert_with(|| json!({ "get": operation(route, &format!("{base}{name}"), about) }));
    }
}

fn add(paths: &mut Map<String, Value>, route: Route) {
    let operations = paths.entry(route.path).or_insert_with(|| json!({}));
    if let Some(operations) = operations.as_object_mut() {
        operations.insert(route.method.into(), operation(route, route.path, route.about));
    }
}

fn operation(route: Route, path: &str, about: &str) -> Value {
    let parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let mut operation = json!({
        "summary": about,
        "operationId": format!("{}{}", route.method, path.replace(['/', '{', '}', '.'], "_")),
        "responses": {
            "2XX": { "description": "Done", "content": { "application/json": { "schema": {} } } },
            "4XX": { "$ref": "#/components/responses/Error" },
            "5XX": { "$ref": "#/components/responses/Error" },
        },
    });
    let Some(fields) = operation.as_object_mut() else { return operation };
    if !parameters.is_empty() {
        fields.insert("parameters".into(), json!(parameters));
    }
    if matches!(route.method, "post" | "put") {
        let schema = body(path);
        fields.insert("requestBody".into(), json!({ "required": true, "content": { "application/json": { "schema": schema } } }));
    }
    fields.insert("security".into(), security(route.needs));
    operation
}

fn security(needs: Needs) -> Value {
    match needs {
        Needs::Nothing => json!([]),
        Needs::Write => json!([{ "writeKey": [] }, { "serverKey": [] }, { "adminKey": [] }]),
        Needs::Server => json!([{ "serverKey": [] }, { "adminKey": [] }]),
        Needs::Admin => json!([{ "adminKey": [] }]),
        Needs::User => json!([{ "userToken": [] }, { "serverKey": [] }, { "adminKey": [] }]),
    }
}

fn body(path: &str) -> Value {
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let one_or_many = |name: &str| {
        let one = json!({ "$ref": format!("#/components/schemas/{name}") });
        json!({ "oneOf": [one, { "type": "array", "items": one }] })
    };
    match path {
        "/v1/events" => one_or_many("UserEvent"),
        "/v1/inventory" => one_or_many("Inventory"),
        "/v1/users/{id}/loyalty/redeem" => object(&["reward_id"], json!({ "reward_id": text(), "command_id": text() })),
        "/v1/users/{id}/loyalty/spin" => object(&["spin_id"], json!({ "spin_id": text(), "command_id": text() })),
        "/v1/users/{id}/subscription" => object(
            &["action"],
            json!({
                "action": { "enum": ["change", "pause", "resume", "skip", "swap", "cancel"] }, "subscription_id": text(), "plan_id": text(),
                "from": text(), "to": text(), "at_period_end": { "type": "boolean" }, "event_id": text(),
            }),
        ),
        "/v1/pricing/run" => object(&[], json!({ "product_ids": texts(), "wait_s": { "type": "integer" } })),
        "/v1/pricing/quotes" => object(&["product_ids"], json!({ "product_ids": texts(), "cart_id": text() })),
        "/v1/pricing/quotes/check" => object(&["quote"], json!({ "quote": text() })),
        _ => json!({}),
    }
}

fn components() -> Value {
    let bearer = |about: &str| json!({ "type": "http", "scheme": "bearer", "description": about });
    json!({
        "securitySchemes": {
            "writeKey": bearer("For browsers: may report behaviour"),
            "serverKey": bearer("For the shop's servers"),
            "adminKey": bearer("For the console and rules"),
            "userToken": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "HS256, with sub and exp: about that user" },
        },
        "responses": {
            "Error": {
                "description": "Not done",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
        "schemas": {
            "Error": {
                "type": "object", "required": ["error"],
                "properties": { "error": {
                    "type": "object", "required": ["code", "message"],
                    "properties": { "code": { "type": "string" }, "message": { "type": "string" } },
                } },
            },
            "UserEvent": {
                "type": "object", "required": ["event_type"],
                "properties": {
                    "event_type": { "type": "string" }, "event_id": { "type": "string" }, "user_id": { "type": "string" },
                    "anonymous_id": { "type": "string" }, "session_id": { "type": "string" },
                    "timestamp": { "type": ["string", "integer"], "description": "RFC 3339 or milliseconds since 1970" },
                    "product_id": { "type": "string" }, "quantity": { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
                    "order_id": { "type": "string" }, "total_amount": { "type": ["string", "number"] },
                    "items": { "type": "array", "items": { "type": "object" } },
                },
            },
            "Inventory": {
                "type": "object", "required": ["product_id", "stock_level"],
                "properties": {
                    "product_id": { "type": "string" }, "stock_level": { "type": "integer" }, "last_updated": { "type": ["string", "integer"] },
                },
            },
        },
    })
}
