//! What is written is read back, in both formats, and by others' Avro libraries too.

use super::*;
use crate::avro;
use apache_avro::{from_avro_datum, to_avro_datum};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use std::collections::BTreeSet;

proptest! {
    #[test]
    fn json_to_event_and_back(event in records::event()) {
        let json = event.to_json().unwrap().unwrap();
        let read = Event::decode(event.schema(), None, Some(&json));
        prop_assert_eq!(read.as_ref(), Ok(&event));
        prop_assert_eq!(read.unwrap().to_json().unwrap().unwrap(), json.clone());
        // The way of values already parsed, as from HTTP bodies and replay lines, agrees where no amount is a float.
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(Event::from_value(event.schema(), None, value), Ok(event));
    }

    #[test]
    fn event_to_avro_and_back(event in records::event()) {
        let schema = avro::built_in(event.schema()).unwrap();
        let datum = schema.encode(&event.to_json().unwrap().unwrap()).unwrap();
        let json = avro::Reader::new(&schema, Some(&schema)).to_json(&datum).unwrap();
        prop_assert_eq!(Event::decode(event.schema(), None, Some(&json)), Ok(event));
    }

    #[test]
    fn apache_avro_reads_what_we_write_and_writes_what_we_read(event in records::event()) {
        let ours = avro::built_in(event.schema()).unwrap();
        let theirs = apache_avro::Schema::parse_str(ours.text()).unwrap();
        let datum = ours.encode(&event.to_json().unwrap().unwrap()).unwrap();
        let value = from_avro_datum(&theirs, &mut datum.as_slice(), None).unwrap();
        let again = to_avro_datum(&theirs, value).unwrap();
        let json = avro::Reader::new(&ours, Some(&ours)).to_json(&again).unwrap();
        prop_assert_eq!(Event::decode(event.schema(), None, Some(&json)), Ok(event));
    }
}

#[test]
fn the_strategies_make_every_record_type() {
    let mut runner = TestRunner::deterministic();
    let made: BTreeSet<_> = (0..3_000).map(|_| records::event().new_tree(&mut runner).unwrap().current().schema()).collect();
    for (name, _) in avro::built_ins() {
        assert!(made.contains(name), "{name}");
    }
}

#[test]
fn avro_outputs_are_framed_with_the_id_of_their_topic_and_json_ones_stay() {
    let (codec, registry) = with_registry();
    codec.prepare(&Catalog::built_in(4).unwrap()).unwrap();
    let json = br#"{"product_id":"p1","price":"110.00","currency":"EUR","since":"2026-03-01T10:00:00.000Z"}"#;
    let bytes = codec.encode(&topic("product_prices"), json).unwrap();
    let id = registry.latest("product_prices-value").unwrap().unwrap().id;
    assert_eq!(bytes.get(..5), Some([&[0][..], &id.to_be_bytes()].concat().as_slice()));
    // p1, 1100000 (110 with four places) in three bytes, branch 1: EUR, milliseconds.
    assert_eq!(bytes.get(5..12), Some(&[4, b'p', b'1', 6, 0x10, 0xc8, 0xe0][..]));
    let event = codec.decode(&topic("product_prices"), None, Some(&bytes)).unwrap();
    assert_eq!(event.to_json().unwrap().unwrap(), json);
    assert!(matches!(codec.encode(&topic("notifications"), json).unwrap(), std::borrow::Cow::Borrowed(_)));
    assert!(matches!(Codec::json().encode(&topic("product_prices"), json).unwrap(), std::borrow::Cow::Borrowed(_)));
}

#[test]
fn what_does_not_fit_a_schema_is_refused_and_nothing_is_rounded() {
    let (codec, _) = with_registry();
    for (json, words) in [
        (r#"{"product_id":"p","price":"0.00001","since":0}"#, "price: 0.00001 has more than the 4 places that the schema keeps"),
        (r#"{"product_id":"p","price":"1","since":"soon"}"#, "since: 'soon' is not an RFC 3339 time"),
        (r#"{"product_id":"p","since":0}"#, "price: is missing"),
        (r#"{"product_id":3,"price":"1","since":0}"#, "product_id: 3 is no string"),
        ("[]", "[] is no record"),
        ("{", "not JSON"),
    ] {
        let CodecError::Record(e) = codec.encode(&topic("product_prices"), json.as_bytes()).unwrap_err() else { panic!() };
        assert!(e.to_string().starts_with(words), "{json}: {e}");
    }
}

#[test]
fn null_deletes_in_reference_topics_only_and_needs_a_key() {
    let codec = Codec::json();
    let Event::Plan(change) = codec.decode(&topic("plans"), Some(b"basic_box"), None).unwrap() else { panic!() };
    assert_eq!((change.id.as_str(), change.value), ("basic_box", None));
    let Event::ErasedUser(change) = codec.decode(&topic("erased_users"), Some(b"ann"), None).unwrap() else { panic!() };
    assert_eq!((change.id.as_str(), change.value), ("ann", None));
    assert_eq!(words(codec.decode(&topic("plans"), None, None)), "key: is missing");
    assert_eq!(words(codec.decode(&topic("plans"), Some(b"\xff"), None)), "key: not UTF-8: byte 0 breaks it");
    assert!(words(codec.decode(&topic("inventory"), Some(b"p"), None)).starts_with("no value"));
}

#[test]
fn the_key_is_the_id_where_the_value_lacks_it() {
    let codec = Codec::json();
    let view = br#"{"event_type": "product_viewed", "product_id": "p", "timestamp": 1772352000000}"#;
    assert_eq!(codec.decode(&topic("user_events"), Some(b"u1"), Some(view)).unwrap().key(), Some("u1"));
    assert_eq!(codec.decode(&topic("user_events"), None, Some(view)).unwrap().key(), None, "a guest's");
    let visitor = br#"{"event_type": "page_viewed", "anonymous_id": "a", "timestamp": 1772352000000}"#;
    let Event::User(event) = codec.decode(&topic("user_events"), Some(b"u1"), Some(visitor)).unwrap() else { panic!() };
    assert!(!event.is_known(), "the visitor's own id counts");
    let plan = br#"{"price": 1, "interval": "month", "features": {"a": 1}}"#;
    assert_eq!(codec.decode(&topic("plans"), Some(b"mine"), Some(plan)).unwrap().key(), Some("mine"));
}
