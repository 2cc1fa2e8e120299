//! What an instance says about itself: warnings a person can act on, and where its time goes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::time::Duration;
use tillflow_schemas::Timestamp;
use tillflow_tests::{Tillflow, until};

const LONG: Duration = Duration::from_secs(60);

fn warnings(shop: &Tillflow) -> Vec<Value> {
    shop.json("/readyz")["warnings"].as_array().cloned().unwrap_or_default()
}

fn of_kind(shop: &Tillflow, kind: &str) -> Option<Value> {
    warnings(shop).into_iter().find(|w| w["kind"] == kind)
}

fn view(user: &str, n: usize) -> Value {
    json!({"event_type": "product_viewed", "event_id": format!("{user}-{n}"), "user_id": user, "product_id": format!("p{}", n % 50)})
}

#[test]
fn a_robot_and_a_till_with_a_wrong_clock_are_named() {
    let mut shop = Tillflow::run().within(LONG).spawn();
    shop.wait_until_ready();
    assert_eq!(warnings(&shop), Vec::<Value>::new(), "all is well");
    let everyone = |n: usize| if n.is_multiple_of(2) { view("robot", n) } else { view(&format!("u{n}"), n) };
    for batch in (0..8_000).map(everyone).collect::<Vec<_>>().chunks(1_000) {
        assert!(shop.post("/v1/events", json!(batch)).status().is_success());
    }
    until("the robot is named", LONG, || of_kind(&shop, "hot_key").is_some());
    let hot = of_kind(&shop, "hot_key").unwrap();
    assert!(hot["what"].as_str().unwrap().contains("'robot'") && hot["mend"].as_str().unwrap().contains("sender"), "{hot}");
    assert_eq!(of_kind(&shop, "clock"), None);

    // HTTP refuses it at once; another client of the log is not asked.
    let ahead = Timestamp::wall().plus(Duration::from_secs(3_600));
    let event = json!({"event_type": "product_viewed", "event_id": "e-ahead", "user_id": "ann", "product_id": "p1", "timestamp": ahead});
    let base64 = |text: &str| BASE64_STANDARD.encode(text);
    let record = json!([{
        "topic": "user_events", "partition": 0, "at": ahead, "key": base64("ann"), "value": base64(&event.to_string()),
        "headers": [["source", base64("till 3")]],
    }]);
    assert!(shop.post("/v1/log", record).status().is_success());
    until("the till is named", LONG, || of_kind(&shop, "clock").is_some());
    let clock = of_kind(&shop, "clock").unwrap();
    assert!(clock["place"] == "user_events, till 3" && clock["what"].as_str().unwrap().contains("user_events 0 "), "{clock}");
    assert!(clock["mend"].as_str().unwrap().contains("clock"), "{clock}");

    let metrics = shop.get("/metrics").text().unwrap();
    let value = |name: &str| metrics.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
    assert_eq!(value("tillflow_warnings{kind=\"clock\",place=\"user_events, till 3\"}"), Some(1.0), "{metrics}");
    for stage in ["poll", "decode", "process", "store", "commit"] {
        let name = format!("tillflow_stage_seconds_total{{group=\"customers\",stage=\"{stage}\"}}");
        assert!(value(&name).is_some_and(|seconds| seconds > 0.0), "{name} in {metrics}");
    }
    // Those of the tasks come to no more than their group's, which is counted a moment later.
    until("each task's part is known", LONG, || {
        let metrics = shop.get("/metrics").text().unwrap();
        ["decode", "process", "store", "commit"].iter().all(|stage| {
            let of_stage = format!("stage=\"{stage}\"}}");
            let seconds = |name: &str| -> Vec<f64> {
                let lines = metrics.lines().filter(|l| l.starts_with(&format!("{name}{{group=\"customers\"")) && l.contains(&of_stage));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
            };
            let (tasks, group) = (seconds("tillflow_task_seconds_total"), seconds("tillflow_stage_seconds_total"));
            let sum: f64 = tasks.iter().sum();
            tasks.len() == 4 && sum > 0.0 && group.iter().sum::<f64>() >= sum * 0.999
        })
    });
    for name in ["poll_latency_max", "process_latency_max", "commit_latency_avg", "commit_latency_max"] {
        assert!(value(&format!("tillflow_{name}{{group=\"customers\"}}")).is_some_and(|ms| ms > 0.0), "{name} in {metrics}");
    }
    assert!(value("tillflow_store_bytes{store=\"embedded\"}").is_some_and(|bytes| bytes > 0.0), "{metrics}");
    assert!(shop.stop().success());
    let told = shop.stderr();
    assert!(told.lines().filter(|l| l.contains("kind=\"hot_key\"") && l.contains("WARN")).count() >= 1, "{told}");
}
