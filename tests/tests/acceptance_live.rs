//! What leaves while events flow: Redis as anyone reads it, and a page as any tutorial writes it.

use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tillflow_tests::{Browser, Process, Redis, Tillflow, scratch, until};

const LIMIT: Duration = Duration::from_secs(60);

/// A catalogue whose products are bought together, so that there is something to recommend.
fn open_shop(shop: &mut Tillflow) {
    shop.wait_until_ready();
    let ids = ["tea", "cup", "jam", "tin", "pot"];
    let products: Vec<_> = ids.map(|id| json!({"product_id": id, "name": id, "category": "tea", "base_price": "10.00"})).to_vec();
    assert_eq!(shop.post("/v1/topics/products", json!(products)).status(), 202);
    let stock: Vec<_> = ids.map(|id| json!({"product_id": id, "stock_level": 50})).to_vec();
    assert_eq!(shop.post("/v1/inventory", json!(stock)).status(), 202);
    for n in 0..3 {
        let views: Vec<_> = ids.map(|id| view(&format!("regular{n}"), id)).to_vec();
        assert_eq!(shop.post("/v1/events", json!(views)).status(), 202);
    }
    // Who is not known is shown what goes well in the shop.
    until("trends", LIMIT, || shop.json("/v1/users/nobody/recommendations").to_string().contains("\"cup\""));
}

fn view(user: &str, product: &str) -> Value {
    json!({"event_type": "product_viewed", "user_id": user, "product_id": product})
}

fn order(user: &str, id: &str) -> Value {
    json!({"event_type": "order_completed", "user_id": user, "order_id": id, "total_amount": "100.00", "items": [{"product_id": "tea", "quantity": 1}]})
}

fn balance(shop: &Tillflow, user: &str) -> i64 {
    shop.json(&format!("/v1/users/{user}/loyalty"))["balance"].as_i64().unwrap()
}

fn field(redis: &Redis, key: &str, field: &str) -> Option<String> {
    redis::cmd("HGET").arg(key).arg(field).query(&mut redis.connect()).unwrap()
}

/// Channels and payloads as `redis-cli PSUBSCRIBE` prints them: four lines a message.
fn published(said: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = said.lines().collect();
    let messages = lines.windows(4).filter(|message| message[0] == "pmessage" && said.ends_with('\n'));
    messages.map(|message| (message[2].to_owned(), message[3].to_owned())).collect()
}

#[test]
fn redis_cli_sees_json_lists_and_an_outage_holds_nothing_up_and_leaves_nothing_wrong() {
    let mut redis = Redis::start();
    redis.kill();
    let mut shop = Tillflow::run().set("time.grace.s", 0).set("redis.url", redis.url()).spawn();
    open_shop(&mut shop);
    // Redis is absent: the stream goes on.
    assert_eq!(shop.post("/v1/events", order("ada", "o1")).status(), 202);
    until("points without Redis", LIMIT, || balance(&shop, "ada") == 100);

    redis.start_again();
    until("the points that came before Redis did", LIMIT, || field(&redis, "user:ada", "balance").as_deref() == Some("100"));
    until("the price in Redis", LIMIT, || field(&redis, "product:tea", "price").as_deref() == Some("10.00"));
    assert_eq!(field(&redis, "product:tea", "stock").as_deref(), Some("50"), "known although no price was decided");
    let files = scratch("redis-cli");
    let listening = Process::spawn("redis-cli", files.path(), Path::new("redis-cli"), |command| {
        command.args(["-p", &redis.port().to_string(), "PSUBSCRIBE", "user:*:recommendations"]);
    });
    until("redis-cli listens", LIMIT, || listening.stdout().contains("psubscribe"));
    assert_eq!(shop.post("/v1/events", view("user123", "cup")).status(), 202);
    let heard = || published(&listening.stdout()).into_iter().find(|(channel, _)| channel == "user:user123:recommendations");
    until("a message", LIMIT, || heard().is_some());
    let lists: Vec<(String, Vec<String>)> =
        published(&listening.stdout()).into_iter().map(|(channel, list)| (channel, serde_json::from_str(&list).unwrap())).collect();
    assert!(lists.iter().all(|(_, list)| !list.is_empty()), "{lists:?}");
    let list: Vec<String> = serde_json::from_str(&heard().unwrap().1).unwrap();
    assert!(!list.contains(&"cup".to_owned()), "{list:?}");
    let kept: String = redis::cmd("GET").arg("user:user123:recommendations").query(&mut redis.connect()).unwrap();
    assert_eq!(serde_json::from_str::<Vec<String>>(&kept).unwrap(), list);

    // Lost later, with all that it held.
    drop(listening);
    redis.kill();
    assert_eq!(shop.post("/v1/events", json!([order("ada", "o2"), order("ben", "o3")])).status(), 202);
    until("points while Redis is away", LIMIT, || balance(&shop, "ada") == 200 && balance(&shop, "ben") == 100);
    redis.start_again();
    for (user, points) in [("ada", "200"), ("ben", "100")] {
        until("the read models are right again", LIMIT, || field(&redis, &format!("user:{user}"), "balance").as_deref() == Some(points));
    }
    until("what did not change is back too", LIMIT, || field(&redis, "product:tea", "price").as_deref() == Some("10.00"));

    // Both are lost at once: nobody remembers what stood there, but the state does.
    shop.kill();
    redis.start_again();
    shop.start_again();
    until("all is back from the state", LIMIT, || field(&redis, "user:ben", "balance").as_deref() == Some("100"));
    until("products too", LIMIT, || field(&redis, "product:jam", "price").as_deref() == Some("10.00"));
    assert!(shop.stop().success());
}

/// The ten lines of any tutorial, in a file on the shopper's disk.
fn tutorial(ws: &str) -> String {
    format!(
        r#"<!doctype html><title>Shop</title><ul id="recommendations-container"></ul><script>
const socket = new WebSocket("{ws}/ws/recommendations/user123");
socket.onmessage = (event) => {{
  const ids = JSON.parse(event.data);
  const container = document.getElementById("recommendations-container");
  container.innerHTML = "";
  for (const id of ids) {{
    const item = document.createElement("li");
    item.textContent = id;
    container.appendChild(item);
  }}
}};
socket.onopen = () => document.title = "connected";
</script>"#
    )
}

#[test]
fn a_page_with_ten_lines_of_javascript_shows_recommendations_after_an_event() {
    let mut shop = Tillflow::run().set("time.grace.s", 0).spawn();
    open_shop(&mut shop);
    let files = scratch("page");
    let page = files.join("index.html");
    fs::write(&page, tutorial(&shop.ws_url())).unwrap();
    let browser = Browser::start();
    let mut page = browser.open(&format!("file://{}", page.display()));
    page.wait_until("document.title === 'connected'");
    page.wait_until("document.getElementById('recommendations-container').innerText.includes('cup')");

    assert_eq!(shop.post("/v1/events", view("user123", "cup")).status(), 202);
    // What was just looked at is not recommended; what goes with it is.
    page.wait_until("!document.getElementById('recommendations-container').innerText.includes('cup')");
    let shown = page.text();
    assert!(["tea", "jam", "tin", "pot"].iter().any(|id| shown.contains(id)), "{shown}");
    assert!(page.errors().is_empty(), "{:?}", page.errors());
}
