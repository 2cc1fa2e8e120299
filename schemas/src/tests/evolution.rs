//! Records of older and newer writers, kept as bytes in `fixtures/`: they must be readable for ever.
//!
//! The bytes were written by apache-avro; each test writes them again, so a fixture can't drift from its schema.

use super::*;
use crate::{Money, Timestamp, UserEventKind};
use apache_avro::types::Value;

fn hex(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn read(name: &str, schema: &str, bytes: &str, value: Value) -> Event {
    let parsed = apache_avro::Schema::parse_str(schema).unwrap();
    let written = apache_avro::to_avro_datum(&parsed, value.clone()).unwrap();
    let shown: String = written.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(shown, bytes.split_whitespace().collect::<String>(), "the fixture holds other bytes than its writer writes");
    let (codec, registry) = with_registry();
    let framed = framed(&registry, name, schema, &hex(bytes));
    codec.decode(&topic(name), None, Some(&framed)).unwrap()
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[test]
fn an_older_writer_lacks_what_has_a_default_since() {
    let event = read(
        "price_changes",
        include_str!("../../fixtures/price_change.older.avsc"),
        include_str!("../../fixtures/price_change.older.hex"),
        record(vec![
            ("product_id", text("p1")),
            ("old_price", Value::Decimal(apache_avro::Decimal::from(vec![0x0f, 0x42, 0x40]))),
            ("new_price", Value::Decimal(apache_avro::Decimal::from(vec![0x10, 0xc8, 0xe0]))),
            ("reason", text("Low stock (15)")),
            ("demand_score", Value::Double(2.0)),
            ("rule", text("default@1")),
            ("mode", text("live")),
            ("decided_at", Value::TimestampMillis(1_772_352_000_000)),
        ]),
    );
    let Event::PriceChange(change) = event else { panic!() };
    assert_eq!(change.old_price.to_string(), "100.00");
    assert_eq!(change.new_price.to_string(), "110.00");
    assert_eq!((change.currency, change.stock_level, change.bounded_by), (None, None, vec![]));
    assert_eq!(change.decided_at, Timestamp::parse("2026-03-01T08:00:00Z").unwrap());
}

#[test]
fn a_newer_writer_s_unknown_fields_of_every_type_are_passed_over() {
    let event = read(
        "inventory",
        include_str!("../../fixtures/inventory.newer.avsc"),
        include_str!("../../fixtures/inventory.newer.hex"),
        record(vec![
            ("warehouse", record(vec![("name", text("north")), ("shelves", Value::Array(vec![Value::Int(3), Value::Int(-4)]))])),
            ("product_id", text("p1")),
            ("photo", Value::Bytes(vec![0xff, 0x00, 0xfe])),
            ("stock_level", Value::Int(15)),
            ("weights", Value::Map([("kg".to_owned(), Value::Double(f64::NAN))].into())),
            ("counted_by", some(text("eva"))),
            ("checksum", Value::Fixed(4, vec![1, 2, 3, 4])),
            ("grade", Value::Enum(1, "B".into())),
            ("last_updated", Value::TimestampMicros(1_772_352_000_123_456)),
        ]),
    );
    let Event::Inventory(inventory) = event else { panic!() };
    assert_eq!((inventory.product_id.as_str(), inventory.stock_level), ("p1", 15));
    assert_eq!(inventory.last_updated, Timestamp::from_millis(1_772_352_000_123), "microseconds become milliseconds");
}

#[test]
fn a_shop_s_own_schema_with_other_names_types_and_scales_is_read() {
    let event = read(
        "user_events",
        include_str!("../../fixtures/user_event.shop.avsc"),
        include_str!("../../fixtures/user_event.shop.hex"),
        record(vec![
            ("event_type", Value::Enum(0, "order_completed".into())),
            ("user_id", Value::Long(42)),
            ("timestamp", text("2026-03-01T10:00:00+02:00")),
            ("order_id", text("o1")),
            ("total_amount", Value::Double(499.99)),
            (
                "items",
                Value::Array(vec![
                    record(vec![
                        ("product_id", text("p1")),
                        ("quantity", Value::Int(2)),
                        ("price", Value::Decimal(vec![0x30, 0x39].into())),
                    ]),
                    record(vec![("product_id", text("p2")), ("quantity", Value::Int(1)), ("price", Value::Decimal(vec![0x05].into()))]),
                ]),
            ),
        ]),
    );
    let Event::User(event) = event else { panic!() };
    assert_eq!(event.user_id.unwrap().as_str(), "42");
    assert_eq!(event.timestamp, Timestamp::parse("2026-03-01T08:00:00Z").unwrap());
    let UserEventKind::OrderCompleted(order) = event.kind else { panic!() };
    assert_eq!(order.total(), Money::parse("499.99").unwrap());
    assert_eq!(order.items[0].price, Some(Money::parse("0.012345").unwrap()), "the writer's scale counts");
}
