//! What holds for every record type and both formats: round trips, older and newer writers, bad input, chaos.

mod bad_input;
mod chaos;
mod evolution;
mod outputs;
mod records;
mod round_trip;

use crate::{BuiltInRegistry, Catalog, Codec, CodecError, DecodeError, Event, SchemaRegistry, Topic, framing, registry};
use std::sync::Arc;

fn topic(name: &str) -> Topic {
    Catalog::built_in(4).unwrap().get(name).unwrap().clone()
}

/// A codec and the registry behind it.
fn with_registry() -> (Codec, Arc<BuiltInRegistry>) {
    let registry = Arc::new(BuiltInRegistry::default());
    (Codec::with_registry(registry.clone(), ""), registry)
}

/// The datum framed as the topic's, written with `schema`.
fn framed(registry: &BuiltInRegistry, topic: &str, schema: &str, datum: &[u8]) -> Vec<u8> {
    framing::frame(registry.register(&registry::subject("", topic), schema).unwrap(), datum)
}

/// What is wrong with a record, in words.
fn words(result: Result<Event, CodecError>) -> String {
    match result.unwrap_err() {
        CodecError::Record(e) => e.to_string(),
        CodecError::Registry(e) => panic!("not the record's fault: {e}"),
    }
}

fn decode_user(json: &str) -> Result<Event, DecodeError> {
    Event::decode("user_event", None, Some(json.as_bytes()))
}
