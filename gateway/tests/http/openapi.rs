//! The OpenAPI document against the router it describes.

use crate::support::{CUSTOMER_QUERIES, PRODUCT_QUERIES, start};
use serde_json::{Value, json};
use std::collections::HashSet;

/// A path with something in place of its parameters.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_path_of_the_document_leads_to_a_route_and_no_route_is_missing() {
    let gateway = start().await;
    let (status, document) = gateway.get("/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let answer = gateway.client.request(method.clone(), gateway.url(&filled(path))).body("{}").send().await.unwrap();
            let status = answer.status().as_u16();
            // An event stream that is taken never ends.
            let body = if status < 400 { String::new() } else { answer.text().await.unwrap() };
            assert!(status != 405 && !body.contains("there is no /"), "{method} {path}: {status} {body}");
        }
    }
    // What the contract promises.
    for (method, path) in [
        ("post", "/v1/events"),
        ("post", "/v1/track"),
        ("post", "/v1/identify"),
        ("post", "/v1/page"),
        ("post", "/v1/batch"),
        ("post", "/v1/inventory"),
        ("get", "/ws/recommendations/{user_id}"),
        ("get", "/sse/recommendations/{user_id}"),
        ("get", "/v1/products"),
        ("get", "/v1/products/{id}"),
        ("post", "/v1/users/{id}/loyalty/redeem"),
        ("post", "/v1/users/{id}/loyalty/spin"),
        ("post", "/v1/users/{id}/subscription"),
        ("post", "/v1/pricing/run"),
        ("post", "/v1/pricing/quotes"),
        ("post", "/v1/pricing/quotes/check"),
        ("get", "/v1/pricing/rules/{scope}"),
        ("put", "/v1/pricing/rules/{scope}"),
        ("get", "/subjects"),
        ("get", "/schemas/ids/{id}"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
        ("get", "/v1/users/{id}/entitlements/{feature}"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path} is missing");
    }
    for (base, queries) in [("/v1/users/{id}", CUSTOMER_QUERIES.as_slice()), ("/v1/products/{id}", PRODUCT_QUERIES.as_slice())] {
        for query in queries.iter().filter(|q| !q.is_empty() && !q.starts_with("pricing/")) {
            assert!(document["paths"][format!("{base}/{query}")]["get"].is_object(), "{base}/{query} is missing");
        }
    }
}

#[tokio::test]
async fn the_document_holds_together() {
    let gateway = start().await;
    let (_, document) = gateway.get("/openapi.json").await;
    let mut ids = HashSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string() && operation["responses"]["4XX"].is_object(), "{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}: its id is another's");
            let stated: Vec<_> =
                operation["parameters"].as_array().into_iter().flatten().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
            let needed: Vec<_> = path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(stated, needed, "{method} {path}");
            for scheme in operation["security"].as_array().unwrap().iter().flat_map(|s| s.as_object().unwrap().keys()) {
                assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
            }
        }
    }
    for reference in references(&document) {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, v)| if name == "$ref" { vec![v.as_str().unwrap().to_owned()] } else { references(v) }).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
