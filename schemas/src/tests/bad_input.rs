//! Every kind of bad input, and the words it is answered with.

use super::*;
use crate::{UserEventKind, avro};
use serde_json::json;

/// A valid event with some members replaced or added.
fn user(change: serde_json::Value) -> String {
    let mut event = json!({"event_type": "product_viewed", "user_id": "u1", "product_id": "p1", "timestamp": "2026-03-01T10:00:00Z"});
    for (name, value) in change.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string()
}

fn order(change: serde_json::Value) -> String {
    let mut event =
        json!({"event_type": "order_completed", "order_id": "o1", "items": [{"product_id": "p1", "quantity": 1, "price": "5"}]});
    for (name, value) in change.as_object().unwrap() {
        event[name] = value.clone();
    }
    user(event)
}

fn says(bytes: &[u8], expected: &str) {
    let shown = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
    let words = words(Codec::json().decode(&topic("user_events"), Some(b"u1"), Some(bytes)));
    assert!(words.starts_with(expected), "{shown}\n  says:     {words}\n  expected: {expected}");
    assert!(words.len() < 400, "an error must not grow with its input: {words}");
}

#[test]
fn not_json_not_utf_8_and_nothing() {
    says(b"", "an empty value");
    says(b"hello", "neither a JSON object, which starts with '{', nor framed Avro, which starts with byte 0: it starts with h");
    says(b"<event/>", "neither a JSON object");
    says(b"[]", "neither a JSON object");
    says(b"{", "not JSON: EOF while parsing");
    says(br#"{"event_type": "x" "user_id"}"#, "not JSON: expected `,` or `}` at line 1 column 20");
    says(b"{} {}", "not JSON: something follows the value");
    says(b"{\"event_type\": \"\xff\"}", "not UTF-8: byte 16 breaks it");
    says(&[b'{'; 100_000], "not JSON: key must be a string");
    let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
    says(deep.as_bytes(), "a: not JSON: EOF");
    let deep = words(Codec::json().decode(&topic("campaigns"), Some(b"c"), Some(deep.as_bytes())));
    assert!(deep.contains("not JSON: recursion limit exceeded") && deep.len() < 400, "{deep}");
}

#[test]
fn missing_and_wrong_typed_fields_are_named() {
    says(b"{}", "event_type: is missing");
    says(br#"{"event_type": "product_viewed"}"#, "timestamp: is missing");
    says(user(json!({"product_id": null})).as_bytes(), "product_id: is missing");
    says(user(json!({"product_id": ["p"]})).as_bytes(), "product_id: invalid type: sequence, expected text or a whole number");
    says(user(json!({"product_id": 1.5})).as_bytes(), "product_id: invalid type: floating point `1.5`, expected text or a whole number");
    says(user(json!({"event_type": 7})).as_bytes(), "event_type: invalid type: integer `7`, expected a string");
    says(user(json!({"timestamp": {}})).as_bytes(), "timestamp: invalid type: map, expected an RFC 3339 time or epoch milliseconds");
    says(order(json!({"items": {"a": 1}})).as_bytes(), "items: invalid type: map, expected a sequence");
    says(order(json!({"items": [{"quantity": 1}]})).as_bytes(), "items[0].product_id: is missing");
    says(order(json!({"order_id": ""})).as_bytes(), "order_id: is missing");
    says(br#"{"event_type": "a", "event_type": "b"}"#, "duplicate field `event_type`");
    let words = words(Codec::json().decode(&topic("inventory"), Some(b"p1"), Some(br#"{"stock_level": "many", "last_updated": 0}"#)));
    assert!(words.starts_with("stock_level: invalid type: string \"many\", expected i64"), "{words}");
}

#[test]
fn commands_and_subscriptions_name_their_fields_too() {
    for (name, members, expected) in [
        ("loyalty_commands", r#""action": "dance""#, "action: 'dance' is none of redeem, reverse, spin, adjust, refer"),
        ("loyalty_commands", r#""action": "redeem""#, "reward_id: is missing"),
        ("loyalty_commands", r#""action": "adjust", "points": "many""#, "points: invalid type: string \"many\", expected i64"),
        ("loyalty_commands", "\"x\": 1", "action: is missing"),
        ("subscription_events", r#""action": "eaten""#, "action: 'eaten' is none of started, changed,"),
        ("subscription_events", r#""action": "swapped", "from": "a""#, "to: is missing"),
        ("subscription_events", r#""action": "started", "trial_until": true"#, "trial_until: invalid type: boolean"),
    ] {
        let json = format!(r#"{{"command_id": "c", "user_id": "u", "timestamp": 1772352000000, {members}}}"#);
        let words = words(Codec::json().decode(&topic(name), None, Some(json.as_bytes())));
        assert!(words.starts_with(expected), "{json}: {words}");
    }
}

#[test]
fn ids_may_be_numbers_wherever_they_stand() {
    for (name, json, id) in [
        ("inventory", r#"{"product_id": 22423, "stock_level": 1, "last_updated": 1772352000000}"#, "22423"),
        ("products", r#"{"product_id": 22423, "base_price": 1}"#, "22423"),
        ("loyalty_commands", r#"{"command_id": 7, "user_id": 8, "timestamp": 1772352000000, "action": "spin", "spin_id": 9}"#, "8"),
        ("rewards", r#"{"reward_id": -3}"#, "-3"),
        ("user_events", r#"{"event_type": "page_viewed", "user_id": 17850, "timestamp": 1772352000000}"#, "17850"),
    ] {
        assert_eq!(Codec::json().decode(&topic(name), None, Some(json.as_bytes())).unwrap().key(), Some(id), "{name}");
    }
}

#[test]
fn a_price_that_nobody_stated_is_no_price_of_zero() {
    let (codec, registry) = with_registry();
    registry.set_compatibility(None, crate::registry::Compatibility::None);
    for (name, members, field) in [
        ("products", json!({"product_id": "tea", "name": "Sencha"}), "base_price"),
        ("plans", json!({"plan_id": "club", "interval": "month", "features": {"seats": "2"}}), "price"),
    ] {
        let topic = topic(name);
        let says = |value: &[u8], expected: &str| {
            let words = words(codec.decode(&topic, None, Some(value)));
            assert!(words.starts_with(&format!("{field}: {expected}")), "{name}: {words}");
        };
        let stated = |price: serde_json::Value| {
            let mut members = members.clone();
            members[field] = price;
            members.to_string().into_bytes()
        };
        says(members.to_string().as_bytes(), "is missing");
        says(&stated(json!(null)), "");
        assert!(codec.decode(&topic, None, Some(&stated(json!(0)))).is_ok(), "{name}: what is given away costs 0");

        // The same of a writer whose schema has no such field.
        let mut schema: serde_json::Value = serde_json::from_str(avro::built_in(&topic.schema).unwrap().text()).unwrap();
        schema["fields"].as_array_mut().unwrap().retain(|f| f["name"] != field);
        let schema = schema.to_string();
        let datum = avro::Schema::parse(&schema).unwrap().encode(members.to_string().as_bytes()).unwrap();
        says(&framed(&registry, name, &schema, &datum), "is missing");
    }
    assert!(Codec::json().decode(&topic("products"), Some(b"tea"), Some(br#"{"base_price": "4.50"}"#)).is_ok(), "the rest may be absent");
}

#[test]
fn numbers_that_are_none() {
    for number in ["NaN", "Infinity", "-Infinity", "1e", "+1", "0x10", "1_000"] {
        let json = order(json!({"total_amount": "@"})).replace("\"@\"", number);
        let field = if number.starts_with(['0', '1']) && number.len() > 2 { "" } else { "total_amount: " };
        says(json.as_bytes(), &format!("{field}not JSON"));
    }
    says(order(json!({"total_amount": "NaN"})).as_bytes(), "total_amount: 'NaN' is not an amount of at most 28 digits such as 12.50");
    says(order(json!({"total_amount": true})).as_bytes(), "total_amount: true is no amount");
    says(order(json!({"total_amount": "@"})).replace("\"@\"", "1e999").as_bytes(), "total_amount: '1e999' is not an amount");
    says(user(json!({"timestamp": "@"})).replace("\"@\"", "1e999").as_bytes(), "timestamp: not JSON: number out of range");
}

#[test]
fn quantities_and_amounts_out_of_range() {
    for (quantity, shown) in [(-1, "-1"), (0, "0"), (1_000_001, "1000001"), (i64::MAX, "9223372036854775807")] {
        let items = json!([{"product_id": "p", "quantity": 1}, {"product_id": "p", "quantity": quantity}]);
        says(order(json!({"items": items})).as_bytes(), &format!("items[1].quantity: {shown} is not between 1 and 1000000"));
    }
    let json = order(json!({"items": [{"product_id": "p", "quantity": "@"}]})).replace("\"@\"", "1e30");
    says(json.as_bytes(), "items[0].quantity: invalid type: floating point");
    says(order(json!({"total_amount": "-0.01"})).as_bytes(), "total_amount: -0.01 is not between 0 and 10^12");
    says(order(json!({"total_amount": "1000000000000.01"})).as_bytes(), "total_amount: 1000000000000.01 is not between");
    says(order(json!({"items": [{"product_id": "p", "quantity": 1, "price": -5}]})).as_bytes(), "items[0].price: -5 is not between");
    for digits in ["123456789012345678901234567890", "0.123456789012345678901234567890"] {
        for amount in [format!("\"{digits}\""), digits.to_owned()] {
            let json = order(json!({"total_amount": "@"})).replace("\"@\"", &amount);
            says(json.as_bytes(), &format!("total_amount: '{digits}' is not an amount of at most 28 digits such as 12.50"));
        }
    }
    // The highest that is allowed.
    let order = decode_user(&order(json!({"total_amount": 1_000_000_000_000_u64, "items": [{"product_id": "p", "quantity": 1_000_000}]})));
    assert!(order.is_ok(), "{order:?}");
}

#[test]
fn a_currency_has_three_capital_letters() {
    for currency in ["eur", "EURO", "€", "", "E\u{0}R"] {
        says(order(json!({"currency": currency})).as_bytes(), &format!("currency: '{currency}' is not a currency code such as EUR"));
    }
    says(order(json!({"currency": 978})).as_bytes(), "currency: invalid type");
    assert!(decode_user(&order(json!({"currency": "XTS"}))).is_ok(), "which currencies a shop takes is its configuration");
}

#[test]
fn times_in_the_far_past_and_future() {
    says(
        user(json!({"timestamp": 1_772_352_000})).as_bytes(),
        "timestamp: 1970-01-21T12:19:12.000Z is before 2000-01-01; are these seconds",
    );
    says(user(json!({"timestamp": "1999-12-31T23:59:59Z"})).as_bytes(), "timestamp: 1999-12-31T23:59:59.000Z is before 2000-01-01");
    says(user(json!({"timestamp": -1})).as_bytes(), "timestamp: 1969-12-31T23:59:59.999Z is before");
    says(user(json!({"timestamp": 1_772_352_000_000_000_i64})).as_bytes(), "timestamp: lies beyond the year 9999; are these microseconds");
    says(user(json!({"timestamp": u64::MAX})).as_bytes(), "timestamp: a time beyond what milliseconds can hold");
    says(user(json!({"timestamp": 1.5})).as_bytes(), "timestamp: 1.5 is not a whole number of epoch milliseconds");
    for text in ["", "yesterday", "2026-03-01", "2026-03-01T10:00:00", "2026-02-30T10:00:00Z", "10000-01-01T00:00:00Z"] {
        says(user(json!({"timestamp": text})).as_bytes(), &format!("timestamp: '{text}' is not an RFC 3339 time"));
    }
    let beyond = words(Codec::json().decode(&topic("campaigns"), Some(b"c"), Some(br#"{"valid_from": 9000000000000000}"#)));
    assert!(beyond.starts_with("valid_from: lies beyond the year 9999"), "{beyond}");
}

#[test]
fn ids_with_control_characters_or_ten_thousand_letters() {
    for field in ["event_id", "user_id", "anonymous_id", "session_id", "product_id"] {
        says(user(json!({field: "a\nb"})).as_bytes(), &format!("{field}: holds the control character U+000A"));
        says(user(json!({field: "x".repeat(10_000)})).as_bytes(), &format!("{field}: 10000 bytes long; at most 512 are allowed"));
    }
    says(user(json!({"event_type": "x".repeat(10_000)})).as_bytes(), "event_type: 10000 bytes long");
    says(order(json!({"order_id": "a\u{7f}"})).as_bytes(), "order_id: holds the control character U+007F");
    says(order(json!({"items": [{"product_id": "\u{85}", "quantity": 1}]})).as_bytes(), "items[0].product_id: holds the control character");
    let plain = br#"{"event_type": "page_viewed", "timestamp": 1772352000000}"#;
    let long_key = words(Codec::json().decode(&topic("user_events"), Some(&[b'x'; 10_000]), Some(plain)));
    assert_eq!(long_key, "key: 10000 bytes long; at most 512 are allowed");
    for (name, value) in [
        ("inventory", r#"{"stock_level": 1, "last_updated": 1772352000000}"#),
        ("plans", r#"{"price": 1, "interval": "month", "features": {"a": 1}}"#),
        ("products", r#"{"base_price": 1}"#),
        ("campaigns", "{}"),
        ("subscription_events", r#"{"timestamp": 1772352000000, "plan_id": "p", "action": "renewed"}"#),
    ] {
        let control = words(Codec::json().decode(&topic(name), Some(b"a\tb"), Some(value.as_bytes())));
        assert!(control.contains("holds the control character U+0009"), "{name}: {control}");
        let none = words(Codec::json().decode(&topic(name), None, Some(value.as_bytes())));
        assert!(none.ends_with("_id: is missing"), "{name}: {none}");
    }
    for (name, members) in [
        ("subscription_events", r#""plan_id": "@", "action": "renewed""#),
        ("subscription_events", r#""subscription_id": "@", "action": "renewed""#),
        ("subscription_events", r#""action": "swapped", "from": "@", "to": "b""#),
        ("loyalty_commands", r#""command_id": "@", "action": "spin", "spin_id": "s""#),
        ("loyalty_commands", r#""command_id": "c", "action": "redeem", "reward_id": "@""#),
    ] {
        let json = format!(r#"{{"user_id": "u", "timestamp": 1772352000000, {members}}}"#).replace('@', "\\u0000");
        let words = words(Codec::json().decode(&topic(name), None, Some(json.as_bytes())));
        assert!(words.ends_with("holds the control character U+0000"), "{json}: {words}");
    }
    assert!(decode_user(&user(json!({"user_id": "用户 🙂 a/b:c", "product_id": 42}))).is_ok(), "any script, spaces, numbers");
}

#[test]
fn without_a_key_or_with_one_that_is_no_text_the_value_s_id_counts() {
    let json = user(json!({}));
    for key in [None, Some(&b""[..]), Some(b"\xff\x00")] {
        let event = Codec::json().decode(&topic("user_events"), key, Some(json.as_bytes())).unwrap();
        assert_eq!(event.key(), Some("u1"));
    }
}

#[test]
fn an_unknown_event_type_is_kept_whatever_else_it_holds() {
    let json = user(json!({"event_type": "wishlist_shared", "wishes": [{"deep": [1, 2, {"er": null}]}]}));
    let Event::User(event) = decode_user(&json).unwrap() else { panic!() };
    assert_eq!(event.kind, UserEventKind::Unknown { event_type: "wishlist_shared".into() });
}

#[test]
fn ten_thousand_items_are_an_order_and_one_more_is_not() {
    let items = |n: usize| vec![json!({"product_id": "p1", "quantity": 1, "price": 0.1}); n];
    let Event::User(event) = decode_user(&order(json!({"items": items(10_000)}))).unwrap() else { panic!() };
    let UserEventKind::OrderCompleted(order_of) = event.kind else { panic!() };
    assert_eq!(order_of.total().to_string(), "1000.0", "0.1 is 0.1 however often it is added");
    says(order(json!({"items": items(10_001)})).as_bytes(), "items: 10001 items; an order holds at most 10,000");
}

#[test]
fn ten_megabytes_are_refused_before_they_are_looked_at() {
    let long = user(json!({"note": "x".repeat(10 * 1024 * 1024)}));
    says(long.as_bytes(), "10485869 bytes long; at most 8388608 are read");
    let mut framed = long.into_bytes();
    framed[0] = 0;
    says(&framed, "10485869 bytes long");
}

#[test]
fn avro_that_is_cut_off_anywhere_is_never_an_event() {
    let (codec, registry) = with_registry();
    let schema = avro::built_in("user_event").unwrap();
    let json = order(json!({"total_amount": "5.00", "currency": "EUR"}));
    let datum = schema.encode(json.as_bytes()).unwrap();
    let framed = framed(&registry, "user_events", schema.text(), &datum);
    assert!(codec.decode(&topic("user_events"), None, Some(&framed)).is_ok());
    for end in 1..framed.len() {
        let words = words(codec.decode(&topic("user_events"), None, Some(&framed[..end])));
        assert!(words.contains("truncated Avro"), "cut at {end}: {words}");
    }
    let mut longer = framed.clone();
    longer.push(0);
    assert_eq!(words(codec.decode(&topic("user_events"), None, Some(&longer))), "1 bytes follow the Avro datum; is it another schema's?");
    let short = [&framed[..5], &[2, 4]].concat();
    assert_eq!(words(codec.decode(&topic("user_events"), None, Some(&short))), "event_id: truncated Avro: 2 bytes should follow, 0 do");
}

#[test]
fn lengths_that_claim_the_world_reserve_nothing() {
    let (codec, registry) = with_registry();
    let text = r#"{"type": "record", "name": "R", "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "nothings", "type": {"type": "array", "items": "null"}},
        {"name": "items", "type": {"type": "array", "items": "long"}}]}"#;
    // 2^62 as a length, a count, and a count with a size in bytes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    for (datum, expected) in [
        ([&huge[..]].concat(), "user_id: truncated Avro: 4611686018427387904 bytes should follow, 0 do"),
        ([&[0][..], &huge].concat(), "nothings: more values than so few"),
        ([&[0, 0][..], &huge].concat(), "items[0]: truncated Avro"),
        (vec![0xff; 10], "user_id: a number longer than 64 bits"),
        (vec![1], "user_id: a length of -1 bytes"),
    ] {
        let words = words(codec.decode(&topic("user_events"), None, Some(&framed(&registry, "user_events", text, &datum))));
        assert!(words.starts_with(expected), "{words}");
    }
}

#[test]
fn a_schema_that_nests_itself_for_ever_ends() {
    let (codec, registry) = with_registry();
    // Thirty records, each of two of the next: a thousand million empty values in no bytes at all.
    let doubled = (0..30).rfold("\"null\"".to_owned(), |inner, n| {
        let again = if n == 29 { inner.clone() } else { format!("\"R{}\"", n + 1) };
        format!(r#"{{"type": "record", "name": "R{n}", "fields": [{{"name": "a", "type": {inner}}}, {{"name": "b", "type": {again}}}]}}"#)
    });
    let framed_doubled = framed(&registry, "inventory", &doubled, b"");
    assert!(words(codec.decode(&topic("inventory"), None, Some(&framed_doubled))).contains("more values than so few bytes"));
    let list = r#"{"type": "record", "name": "L", "fields": [{"name": "items", "type": ["null", "L"]}]}"#;
    let framed = framed(&registry, "user_events", list, &[2; 100_000]);
    assert!(words(codec.decode(&topic("user_events"), None, Some(&framed))).contains("nested more than 64 deep"));
}

#[test]
fn avro_values_are_checked_like_json_ones() {
    let (codec, registry) = with_registry();
    let field = |t: &str, datum: &[u8]| {
        let text = format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "total_amount", "type": {t}}}]}}"#);
        registry.set_compatibility(None, crate::registry::Compatibility::None);
        words(codec.decode(&topic("user_events"), None, Some(&framed(&registry, "user_events", &text, datum))))
    };
    assert_eq!(field("\"double\"", &f64::NAN.to_le_bytes()), "total_amount: not a finite number");
    assert_eq!(field("\"float\"", &f32::INFINITY.to_le_bytes()), "total_amount: not a finite number");
    assert_eq!(field("\"string\"", &[2, 0xff]), "total_amount: not UTF-8: byte 0 breaks it");
    assert_eq!(field("\"boolean\"", &[7]), "total_amount: a boolean is 0 or 1, not 7");
    assert_eq!(field(r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#, &[4]), "total_amount: an enum has no symbol number 2");
    assert_eq!(field(r#"["null", "long"]"#, &[6]), "total_amount: a union has no branch number 3");
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 2}"#;
    let thirty_digits = [vec![26, 1], vec![0; 12]].concat();
    assert_eq!(field(decimal, &thirty_digits), "total_amount: not an amount of at most 28 digits");
    assert_eq!(field(decimal, &[vec![80, 1], vec![0; 39]].concat()), "total_amount: not an amount of at most 28 digits");
    assert_eq!(field(decimal, &[0]), "total_amount: an amount of no bytes");
    assert_eq!(field("\"long\"", &[2]), "event_type: is missing");
}

#[test]
fn a_schema_that_is_unknown_or_of_no_use_is_the_record_s_fault_and_a_silent_registry_is_not() {
    let topic = topic("user_events");
    let framed = framing::frame(7, b"\0");
    assert_eq!(
        words(Codec::json().decode(&topic, None, Some(&framed))),
        "Avro with the schema id 7, but no registry is configured (registry.url)"
    );
    let (codec, registry) = with_registry();
    assert_eq!(words(codec.decode(&topic, None, Some(&framed))), "Avro with the schema id 7, which the registry does not know");
    let id = registry.register("x", "\"string\"").unwrap();
    let of_no_use = words(codec.decode(&topic, None, Some(&framing::frame(id, b"\0"))));
    assert_eq!(of_no_use, format!("the schema id {id} is of no use: it is no record"));

    #[derive(Debug)]
    struct Other(Result<&'static str, ()>);
    impl SchemaRegistry for Other {
        fn schema(&self, _: u32) -> Result<Option<Arc<crate::registry::WriterSchema>>, crate::RegistryError> {
            let away = |()| crate::RegistryError::Unreachable { url: "http://registry".into(), reason: "connection refused".into() };
            let kind = self.0.map_err(away)?.to_owned();
            Ok(Some(Arc::new(crate::registry::WriterSchema { kind, text: "{".into(), references: vec![] })))
        }
        fn register(&self, _: &str, _: &str) -> Result<u32, crate::RegistryError> {
            self.schema(0).map(|_| 0)
        }
        fn check(&self, _: &str, _: &str) -> Result<Vec<String>, crate::RegistryError> {
            Ok(vec![])
        }
        fn latest(&self, _: &str) -> Result<Option<crate::registry::Version>, crate::RegistryError> {
            Ok(None)
        }
    }
    let of = |answer| Codec::with_registry(Arc::new(Other(answer)), "");
    assert_eq!(words(of(Ok("PROTOBUF")).decode(&topic, None, Some(&framed))), "the schema id 7 is of no use: it is PROTOBUF, not AVRO");
    assert!(words(of(Ok("AVRO")).decode(&topic, None, Some(&framed))).starts_with("the schema id 7 is of no use: not an Avro schema"));
    let away = of(Err(()));
    let error = away.decode(&topic, None, Some(&framed)).unwrap_err();
    assert!(error.is_temporary());
    assert_eq!(error.to_string(), "schema registry http://registry: connection refused");
    assert!(away.prepare(&Catalog::built_in(4).unwrap()).unwrap_err().is_temporary());
}
