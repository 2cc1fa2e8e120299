//! A committed record as the console shows it: few fields, each bounded. Nothing is escaped here: the page shows text
//! as text.

use serde_json::{Value, json};
use tillflow_engine::port::Committed;

/// The longest text shown, in characters.
const LONGEST: usize = 160;

/// The most ids of one list shown.
const MOST: usize = 10;

/// Under which heading records of a schema are shown.
pub(super) fn kind(schema: &str) -> Option<&'static str> {
    Some(match schema {
        "price_change" => "prices",
        "recommendations" => "recommendations",
        "loyalty_update" => "points",
        "box_contents" => "boxes",
        "email_trigger" => "emails",
        "dead_letter" => "dead",
        _ => return None,
    })
}

/// What is shown of a record.
pub(super) fn of(record: &Committed) -> Value {
    let bytes = record.value.as_deref().unwrap_or_default();
    let value: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let text = |field: &str| shown(value.get(field));
    let list = |field: &str| value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let at = |field: &str| value.get(field).cloned().unwrap_or_else(|| json!(record.at));
    let key = short(&record.key);
    match record.schema.as_str() {
        "price_change" => json!({
            "product": key, "old": text("old_price"), "new": text("new_price"), "currency": text("currency"), "reason": text("reason"),
            "bounds": list("bounded_by").iter().take(MOST).map(|b| shown(Some(b))).collect::<Vec<_>>(),
            "shadow": value.get("mode").is_some_and(|m| m == "shadow"), "at": at("decided_at"),
        }),
        "recommendations" => json!({
            "user": key, "trigger": text("trigger"), "at": at("generated_at"),
            "ids": list("items").iter().take(MOST).map(|item| shown(item.get("product_id"))).collect::<Vec<_>>(),
        }),
        "loyalty_update" => json!({
            "user": key, "kind": text("kind"), "points": value.get("points"), "balance": value.get("balance"), "tier": text("tier"),
            "note": text("note"), "at": at("at"),
        }),
        "box_contents" => json!({
            "user": key, "period": value.get("period"), "at": at("at"),
            "items": list("items").iter().take(MOST)
                .map(|item| json!({ "id": shown(item.get("product_id")), "exclusive": item.get("exclusive") })).collect::<Vec<_>>(),
        }),
        "email_trigger" => json!({
            "user": key, "template": text("template"), "because": text("because"), "at": at("send_after"),
            "to": masked(value.get("to").and_then(Value::as_str).unwrap_or_default()),
        }),
        // Its value is what could not be processed; where it came from and why is told beside it, if at all.
        "dead_letter" => {
            let told = value.get("source_topic").is_some() && value.get("error").is_some();
            json!({
                "key": key, "at": record.at, "place": format!("{}/{}", record.partition, record.offset),
                "topic": if told { text("source_topic") } else { String::new() },
                "processor": if told { text("processor") } else { String::new() },
                "error": if told { text("error") } else { String::new() },
                "value": if told { text("value") } else { short(&String::from_utf8_lossy(bytes)) },
            })
        }
        _ => Value::Null,
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => short(text),
        Some(other) => short(&other.to_string()),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// An address that says whose it may be without saying it: `a…@shop.example`.
fn masked(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((name, host)) => format!("{}…@{}", name.chars().take(1).collect::<String>(), short(host)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Timestamp;

    fn record(schema: &str, value: &[u8]) -> Committed {
        Committed {
            topic: String::new(),
            schema: schema.into(),
            partition: 1,
            offset: 7,
            at: Timestamp::from_millis(0),
            key: "k".into(),
            value: Some(value.to_vec()),
        }
    }

    #[test]
    fn addresses_are_masked_and_text_is_bounded() {
        let mail = json!({ "to": "ada@shop.example", "template": "x".repeat(1_000) }).to_string();
        let shown = of(&record("email_trigger", mail.as_bytes()));
        assert_eq!(shown["to"], "a…@shop.example");
        assert_eq!(shown["template"].as_str().unwrap().chars().count(), LONGEST + 1);
    }

    #[test]
    fn a_dead_letter_is_shown_whatever_its_bytes_are() {
        let raw = of(&record("dead_letter", &[0xff, b'{']));
        assert_eq!((raw["value"].as_str(), raw["place"].as_str()), (Some("\u{fffd}{"), Some("1/7")));
        let told = json!({ "source_topic": "user_events", "processor": "loyalty", "error": "no", "value": "{}" }).to_string();
        assert_eq!(of(&record("dead_letter", told.as_bytes()))["error"], "no");
    }

    #[test]
    fn a_record_with_fields_missing_shows_what_it_has() {
        for schema in ["price_change", "recommendations", "loyalty_update", "box_contents", "email_trigger", "dead_letter"] {
            assert!(kind(schema).is_some() && of(&record(schema, b"{}")).is_object(), "{schema}");
        }
        assert_eq!(kind("segments"), None);
    }
}
