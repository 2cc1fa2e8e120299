//! The built-in schema registry as its clients see it.

use crate::support::{FakeShop, Running, read};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use tillflow_gateway::{Gateway, GatewayConfig, SchemaStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn start(path: &Path) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shop, stop) = (FakeShop::new(), CancellationToken::new());
    let gateway = Gateway::new(shop.clone(), GatewayConfig::default()).with_schemas(Arc::new(SchemaStore::open(path).unwrap()));
    let task = tokio::spawn(gateway.serve(listener, None, stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("http://{address}/healthz")).send().await.unwrap();
    Running { shop, address, health: address, stop, client, task: Some(task) }
}

fn schema(fields: Value) -> String {
    json!({ "schema": json!({ "type": "record", "name": "R", "fields": fields }).to_string() }).to_string()
}

#[tokio::test]
async fn a_schema_is_registered_found_checked_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("schemas.json");
    let registry = start(&path).await;
    let (bare, wider) = (schema(json!([])), schema(json!([{ "name": "n", "type": "int" }])));
    assert_eq!(registry.get("/subjects").await, (200, json!([])));
    let (status, missing) = registry.get("/subjects/a-value/versions").await;
    assert_eq!((status, &missing["error_code"]), (404, &json!(40401)));
    let (status, registered) = registry.post("/subjects/a-value/versions", bare.clone()).await;
    assert_eq!(status, 200, "{registered}");
    let id = registered["id"].clone();
    assert_eq!(registry.post("/subjects/a-value", bare.clone()).await.1["id"], id);
    assert_eq!(registry.get("/subjects/a-value/versions").await, (200, json!([1])));
    let (_, latest) = registry.get("/subjects/a-value/versions/latest").await;
    assert_eq!((&latest["version"], &latest["id"], &latest["subject"]), (&json!(1), &id, &json!("a-value")));
    assert_eq!(registry.get(&format!("/schemas/ids/{id}")).await.1["schema"], latest["schema"]);
    assert_eq!(registry.get("/schemas/ids/999").await.1["error_code"], 40403);
    assert_eq!(registry.get("/subjects/a-value/versions/7").await.1["error_code"], 40402);
    let path_of_check = "/compatibility/subjects/a-value/versions/latest";
    assert_eq!(registry.post(path_of_check, wider.clone()).await.1["is_compatible"], false);
    assert_eq!(registry.post("/subjects/a-value/versions", wider.clone()).await.0, 409);
    assert_eq!(registry.post("/subjects/a-value/versions", r#"{"schema": "nonsense"}"#).await.0, 422);
    assert_eq!(registry.post("/subjects/a-value/versions", r#"{"schema": "{}", "schemaType": "PROTOBUF"}"#).await.0, 422);

    let level = registry.client.put(registry.url("/config/a-value")).body(r#"{"compatibility": "NONE"}"#).send().await.unwrap();
    assert_eq!(read(level).await, (200, json!({ "compatibility": "NONE" })));
    assert_eq!(registry.get("/config").await.1["compatibilityLevel"], "BACKWARD");
    assert_eq!(registry.post("/subjects/a-value/versions", wider).await.0, 200);

    let again = start(&path).await;
    assert_eq!(again.get("/subjects/a-value/versions").await, (200, json!([1, 2])));
    assert_eq!(again.get("/config/a-value").await.1["compatibilityLevel"], "NONE");
    assert_eq!(again.get(&format!("/schemas/ids/{id}")).await.0, 200);
}

#[tokio::test]
async fn where_another_registry_is_configured_ours_is_off() {
    let gateway = crate::support::start().await;
    assert_eq!(gateway.get("/subjects").await.0, 404);
}
