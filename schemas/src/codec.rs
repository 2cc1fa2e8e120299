//! The one place where bytes become events and events become bytes.

use crate::{
    DecodeError, Event, Format, RegistryError, Topic,
    framing::{Framing, framing},
};
use std::borrow::Cow;

/// The longest value that is read, in bytes: an order of 10,000 items with the longest ids fits.
pub const LONGEST_VALUE: usize = 8 * 1024 * 1024;

/// Why bytes did not become an event, or an event did not become bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The record itself is wrong, now and for ever: a dead letter.
    #[error(transparent)]
    Record(#[from] DecodeError),
    /// The registry could not be asked; the same record may well be right. To be tried again.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl CodecError {
    /// Whether the same bytes may be read later: nothing is wrong with them that is known.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Registry(_))
    }
}

/// Reads and writes the values of all topics.
#[derive(Debug, Default)]
pub struct Codec {}

impl Codec {
    /// JSON alone: no registry is configured.
    pub fn json() -> Self {
        Self {}
    }

    /// The event in a record. A value may be JSON or framed Avro, whatever the topic's format says; a null
    /// value deletes in reference topics.
    ///
    /// # Errors
    /// [`CodecError::Record`] for a value that can't be read, [`CodecError::Registry`] where its schema could not
    /// be asked for.
    pub fn decode(&self, topic: &Topic, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Event, CodecError> {
        let Some(value) = value else {
            return Ok(Event::decode(&topic.schema, text(key)?, None)?);
        };
        if value.len() > LONGEST_VALUE {
            return Err(DecodeError::at("", format!("{} bytes long; at most {LONGEST_VALUE} are read", value.len())).into());
        }
        // A value that carries its id does not need the key, so a key that is no text is no error here.
        let key = text(key).ok().flatten();
        match framing(value)? {
            Framing::Json => Ok(Event::decode(&topic.schema, key, Some(value))?),
            Framing::Avro { id, .. } => Err(DecodeError::at("", format!("Avro with schema id {id}, but no registry is configured")).into()),
        }
    }

    /// The bytes to write to `topic` for a value that is JSON: as they are, or as framed Avro where the topic's
    /// format says so and a registry is configured.
    ///
    /// # Errors
    /// [`CodecError::Record`] where the value does not fit the topic's schema, [`CodecError::Registry`] where
    /// the schema could not be registered.
    pub fn encode<'a>(&self, topic: &Topic, json: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        match topic.format {
            Format::Json | Format::Bytes | Format::Avro => Ok(Cow::Borrowed(json)),
        }
    }
}

fn text(key: Option<&[u8]>) -> Result<Option<&str>, DecodeError> {
    key.map(|k| std::str::from_utf8(k).map_err(|e| DecodeError::at("key", format!("not UTF-8: byte {} breaks it", e.valid_up_to()))))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    #[test]
    fn json_is_read_and_passed_through_without_a_registry() {
        let catalog = Catalog::built_in(4).unwrap();
        let codec = Codec::json();
        let inventory = catalog.get("inventory").unwrap();
        let json = br#" {"stock_level": 15, "last_updated": 1772352000000}"#;
        let Event::Inventory(v) = codec.decode(inventory, Some(b"p1"), Some(json)).unwrap() else { panic!() };
        assert_eq!((v.product_id.as_str(), v.stock_level), ("p1", 15));
        let prices = catalog.get("price_changes").unwrap();
        assert!(matches!(codec.encode(prices, b"{}").unwrap(), Cow::Borrowed(b"{}")));
    }
}
