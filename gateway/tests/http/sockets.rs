//! Recommendations pushed to pages: WebSockets and server-sent events.

use crate::support::{FakeShop, Running, event, start, start_with};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tillflow_gateway::GatewayConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(gateway: &Running, path: &str) -> Socket {
    connect_async(format!("ws://{}{path}", gateway.address)).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_page_gets_each_new_list_and_a_later_page_the_latest_at_once() {
    let gateway = start().await;
    let mut first = connect(&gateway, "/ws/recommendations/user123").await;
    gateway.shop.recommend("someone-else", &["p1"]);
    gateway.shop.recommend("user123", &["p7", "p3"]);
    assert_eq!(next(&mut first).await, json!(["p7", "p3"]));
    let mut second = connect(&gateway, "/ws/recommendations/user123?format=full").await;
    let full = next(&mut second).await;
    assert_eq!((&full["user_id"], &full["items"][1]["product_id"]), (&json!("user123"), &json!("p3")));
    gateway.shop.recommend("user123", &["p9"]);
    assert_eq!(next(&mut first).await, json!(["p9"]));
    assert_eq!(next(&mut second).await["items"][0]["product_id"], "p9");
}

#[tokio::test]
async fn after_a_restart_the_first_list_comes_from_the_state() {
    let gateway = start().await;
    let items = json!({ "items": [{ "product_id": "p2", "score": 1.0 }, { "product_id": "p1", "score": 0.5 }] });
    gateway.shop.answer("customers", "recommendations", "u 1/2", "", Ok(Some(items)));
    let mut socket = connect(&gateway, "/ws/recommendations/u%201%2F2").await;
    assert_eq!(next(&mut socket).await, json!(["p2", "p1"]));
    gateway.shop.recommend("u 1/2", &["p3"]);
    assert_eq!(next(&mut socket).await, json!(["p3"]));
}

#[tokio::test]
async fn when_the_gateway_falls_behind_open_pages_get_what_the_state_says() {
    let gateway = start_with(FakeShop::with_room(1), GatewayConfig::default()).await;
    let mut socket = connect(&gateway, "/ws/recommendations/u1").await;
    gateway.shop.recommend("u1", &["p1"]);
    assert_eq!(next(&mut socket).await, json!(["p1"]));
    gateway.shop.answer("customers", "recommendations", "u1", "", Ok(Some(json!({ "items": [{ "product_id": "p5" }] }))));
    // This test's thread is the gateway's too: it sees none of these before all are sent, and there is room for one.
    gateway.shop.recommend("u1", &["p5"]);
    for _ in 0..10 {
        gateway.shop.recommend("u2", &["p1"]);
    }
    assert_eq!(next(&mut socket).await, json!(["p5"]));
}

#[tokio::test]
async fn pages_of_foreign_origins_get_no_socket() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let gateway = start().await;
    for (origin, opens) in [("null", true), ("http://localhost:3000", true), ("https://evil.example", false)] {
        let mut request = format!("ws://{}/ws/recommendations/u1", gateway.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(connect_async(request).await.is_ok(), opens, "{origin}");
    }
}

#[tokio::test]
async fn sockets_have_a_bound_and_their_room_comes_back() {
    let mut config = GatewayConfig::default();
    config.limits.sockets = 1;
    let gateway = start_with(FakeShop::new(), config).await;
    let mut first = connect(&gateway, "/ws/recommendations/u1").await;
    assert!(connect_async(format!("ws://{}/ws/recommendations/u2", gateway.address)).await.is_err());
    assert_eq!(gateway.get("/sse/recommendations/u2").await.0, 503);
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    while connect_async(format!("ws://{}/ws/recommendations/u2", gateway.address)).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn too_large_a_message_ends_the_socket_and_small_ones_are_ignored() {
    let gateway = start().await;
    let mut socket = connect(&gateway, "/ws/recommendations/u1").await;
    socket.send(Message::text("hello")).await.unwrap();
    gateway.shop.recommend("u1", &["p1"]);
    assert_eq!(next(&mut socket).await, json!(["p1"]));
    socket.send(Message::text("x".repeat(10_000))).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_text());
    }
}

#[tokio::test]
async fn an_event_stream_goes_on_where_it_broke_off() {
    let gateway = start().await;
    let offset = gateway.shop.recommend("u1", &["p1"]);
    let open = |seen: Option<String>| {
        let request = gateway.client.get(gateway.url("/sse/recommendations/u1"));
        match seen {
            Some(id) => request.header("last-event-id", id).send(),
            None => request.send(),
        }
    };
    let (mut text, mut stream) = (String::new(), open(None).await.unwrap());
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let (id, list) = event(&mut stream, &mut text).await;
    assert_eq!((id.clone(), list), (Some(format!("0:{offset}")), json!(["p1"])));
    drop(stream);
    // Nothing new: the list that was seen is not sent again.
    let (mut text, mut stream) = (String::new(), open(id.clone()).await.unwrap());
    gateway.shop.recommend("u1", &["p2"]);
    assert_eq!(event(&mut stream, &mut text).await.1, json!(["p2"]));
    drop(stream);
    // Something new meanwhile: it comes at once.
    let (mut text, mut stream) = (String::new(), open(id).await.unwrap());
    assert_eq!(event(&mut stream, &mut text).await.1, json!(["p2"]));
}

#[tokio::test]
async fn at_the_end_requests_in_flight_finish_and_sockets_are_told() {
    let mut gateway = start().await;
    *gateway.shop.log.lock().unwrap() = None;
    let mut socket = connect(&gateway, "/ws/recommendations/u1").await;
    let mut stream = gateway.client.get(gateway.url("/sse/recommendations/u1")).send().await.unwrap();
    let body = json!({ "event_type": "page_viewed", "user_id": "u1" }).to_string();
    let posted = tokio::spawn(gateway.client.post(gateway.url("/v1/events")).body(body).send());
    while gateway.shop.appended.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    gateway.stop.cancel();
    let closed = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(frame) => break frame.unwrap(),
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(closed.code), 1001);
    assert!(stream.chunk().await.unwrap().is_none(), "the event stream ends");
    gateway.shop.confirm();
    assert_eq!(posted.await.unwrap().unwrap().status(), 202);
    gateway.task.take().unwrap().await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(TcpStream::connect(gateway.address).await.is_err());
}
