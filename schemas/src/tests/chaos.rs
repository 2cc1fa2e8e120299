//! Whatever bytes arrive, there is an event or an error, never a panic.

use super::*;
use crate::avro;
use proptest::{collection::vec, prelude::*, sample::Index};

/// The topic's name and something to break in it.
fn any_topic() -> impl Strategy<Value = Topic> {
    prop::sample::select(Catalog::built_in(4).unwrap().topics().to_vec())
}

fn mutated(mut bytes: Vec<u8>, changes: &[(Index, u8, u8)]) -> Vec<u8> {
    for (place, how, byte) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = place.index(bytes.len());
        match how % 4 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn random_bytes(topic in any_topic(), key in prop::option::of(vec(any::<u8>(), 0..20)), value in prop::option::of(vec(any::<u8>(), 0..200))) {
        let (codec, _) = with_registry();
        let _ = codec.decode(&topic, key.as_deref(), value.as_deref());
        if let Some(value) = value {
            let _ = codec.encode(&topic, &value);
        }
    }

    #[test]
    fn broken_json(event in records::event(), changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4)) {
        let bytes = mutated(event.to_json().unwrap().unwrap(), &changes);
        let topic = Catalog::built_in(4).unwrap().of_schema(event.schema()).unwrap().clone();
        let _ = Codec::json().decode(&topic, Some(b"k"), Some(&bytes));
        let (codec, _) = with_registry();
        let _ = codec.encode(&topic, &bytes);
    }

    #[test]
    fn packed_and_broken(event in outputs::event(), changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4)) {
        let bytes = match &event {
            Event::ItemPairs(pairs) => crate::to_bytes(pairs).unwrap(),
            Event::DemandSignal(signal) => crate::to_bytes(signal).unwrap(),
            _ => return Ok(()),
        };
        let topic = Catalog::built_in(4).unwrap().of_schema(event.schema()).unwrap().clone();
        prop_assert_eq!(Codec::json().decode(&topic, None, Some(&bytes)), Ok(event));
        let _ = Codec::json().decode(&topic, None, Some(&mutated(bytes, &changes)));
    }

    #[test]
    fn broken_avro(event in records::event(), changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4)) {
        let schema = avro::built_in(event.schema()).unwrap();
        let datum = mutated(schema.encode(&event.to_json().unwrap().unwrap()).unwrap(), &changes);
        let topic = Catalog::built_in(4).unwrap().of_schema(event.schema()).unwrap().clone();
        let (codec, registry) = with_registry();
        let framed = framed(&registry, &topic.name, schema.text(), &datum);
        let _ = codec.decode(&topic, Some(b"k"), Some(&framed));
    }

    #[test]
    fn avro_of_another_schema(event in records::event(), topic in any_topic(), bytes in vec(any::<u8>(), 0..100)) {
        let writer = avro::built_in(event.schema()).unwrap();
        let (codec, registry) = with_registry();
        let datum = writer.encode(&event.to_json().unwrap().unwrap()).unwrap();
        for datum in [&datum, &bytes] {
            let _ = codec.decode(&topic, None, Some(&framed(&registry, "any", writer.text(), datum)));
        }
    }

    #[test]
    fn broken_schemas(event in records::event(), changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4), bytes in vec(any::<u8>(), 0..50)) {
        let text = avro::built_in_text(event.schema()).unwrap();
        let text = String::from_utf8_lossy(&mutated(text.as_bytes().to_vec(), &changes)).into_owned();
        if let Ok(writer) = avro::Schema::parse(&text) {
            let ours = avro::built_in(event.schema()).unwrap();
            let _ = avro::Reader::new(&writer, Some(&ours)).to_json(&bytes);
            let _ = (writer.can_read(&ours), ours.can_read(&writer));
        }
    }
}
