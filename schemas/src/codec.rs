//! The one place where bytes become events and events become bytes.

use crate::{
    Catalog, DecodeError, Event, Format, PACKED, RegistryError, Role, SchemaRegistry, Topic,
    avro::{self, Reader},
    error::shorten,
    framing::{Framing, frame, framing},
    registry::{self, WriterSchema},
};
use parking_lot::RwLock;
use std::{borrow::Cow, collections::HashMap, sync::Arc};

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
///
/// ```
/// use std::sync::Arc;
/// use tillflow_schemas::{BuiltInRegistry, Catalog, Codec};
/// let catalog = Catalog::built_in(4).unwrap();
/// let topic = catalog.get("product_prices").unwrap();
/// let json = br#"{"product_id": "p1", "price": "110.00", "currency": "EUR", "since": "2026-03-01T10:00:00.000Z"}"#;
///
/// assert_eq!(Codec::json().encode(topic, json).unwrap(), json.as_slice());
///
/// let codec = Codec::with_registry(Arc::new(BuiltInRegistry::default()), "");
/// let bytes = codec.encode(topic, json).unwrap();
/// assert_eq!(bytes.first(), Some(&0));
/// assert_eq!(codec.decode(topic, None, Some(&bytes)), codec.decode(topic, None, Some(json)));
///
/// let codec = Codec::reading(Arc::new(BuiltInRegistry::default()), "");
/// assert_eq!(codec.encode(topic, json).unwrap(), json.as_slice());
/// ```
#[derive(Debug, Default)]
pub struct Codec {
    registry: Option<Arc<dyn SchemaRegistry>>,
    /// Whether what a topic states as Avro is written so.
    writes: bool,
    /// `topics.prefix`, which subjects carry and [`Topic::name`] does not.
    prefix: String,
    /// How to read what a writer's schema wrote, by its id and our schema's name. An id means one schema for ever,
    /// so neither a match nor a misfit changes.
    readers: RwLock<HashMap<u32, HashMap<String, Fit>>>,
    /// The ids our own schemas have, by topic.
    ids: RwLock<HashMap<String, u32>>,
}

type Fit = Result<Arc<Reader>, DecodeError>;

impl Codec {
    /// JSON alone: no registry is configured.
    pub fn json() -> Self {
        Self::default()
    }

    /// JSON and Avro; `prefix` is `topics.prefix`, empty where none is configured.
    pub fn with_registry(registry: Arc<dyn SchemaRegistry>, prefix: &str) -> Self {
        Self { registry: Some(registry), writes: true, prefix: prefix.to_owned(), ..Self::default() }
    }

    /// Reads JSON and Avro, and writes JSON.
    pub fn reading(registry: Arc<dyn SchemaRegistry>, prefix: &str) -> Self {
        Self { writes: false, ..Self::with_registry(registry, prefix) }
    }

    /// Registers the schemas of all topics that will be written as Avro, so that a registry that is absent or
    /// refuses is known before the first record. Without a registry there is nothing to do.
    ///
    /// # Errors
    /// The registry could not be asked, or refuses.
    pub fn prepare(&self, catalog: &Catalog) -> Result<(), CodecError> {
        let Some(registry) = self.registry.as_ref().filter(|_| self.writes) else { return Ok(()) };
        let mut written = catalog.topics().iter().filter(|t| t.format == Format::Avro);
        written.try_for_each(|topic| self.id(registry.as_ref(), topic).map(drop))
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
        if value.first() == Some(&PACKED) && topic.role == Role::Internal {
            return Ok(Event::unpack(&topic.schema, value)?);
        }
        if value.len() > LONGEST_VALUE {
            return Err(DecodeError::at("", format!("{} bytes long; at most {LONGEST_VALUE} are read", value.len())).into());
        }
        // A value that carries its id does not need the key, so a key that is no text is no error here.
        let key = text(key).ok().flatten();
        match framing(value)? {
            Framing::Json => Ok(Event::decode(&topic.schema, key, Some(value))?),
            Framing::Avro { id, datum } => {
                let json = self.reader(id, &topic.schema)?.to_json(datum)?;
                Ok(Event::decode(&topic.schema, key, Some(&json))?)
            }
        }
    }

    /// The bytes to write to `topic` for a value that is JSON: as they are, or as framed Avro where the topic's
    /// format says so and a registry is configured.
    ///
    /// # Errors
    /// [`CodecError::Record`] where the value does not fit the topic's schema, [`CodecError::Registry`] where
    /// the schema could not be registered.
    pub fn encode<'a>(&self, topic: &Topic, json: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        let Some(registry) = self.registry.as_ref().filter(|_| self.writes && topic.format == Format::Avro) else {
            return Ok(Cow::Borrowed(json));
        };
        let schema = own(topic)?;
        let datum = schema.encode(json)?;
        Ok(Cow::Owned(frame(self.id(registry.as_ref(), topic)?, &datum)))
    }

    /// The same of a value that must not be lost: JSON, which every reader takes, where it can't be Avro.
    pub fn written(&self, topic: &Topic, json: Vec<u8>) -> Vec<u8> {
        match self.encode(topic, &json) {
            Ok(Cow::Owned(avro)) => avro,
            _ => json,
        }
    }

    fn reader(&self, id: u32, schema: &str) -> Result<Arc<Reader>, CodecError> {
        if let Some(fit) = self.readers.read().get(&id).and_then(|by_schema| by_schema.get(schema)) {
            return Ok(fit.clone()?);
        }
        let registry = self
            .registry
            .as_ref()
            .ok_or_else(|| DecodeError::at("", format!("Avro with the schema id {id}, but no registry is configured (registry.url)")))?;
        let Some(writer) = registry.schema(id)? else {
            return Err(DecodeError::at("", format!("Avro with the schema id {id}, which the registry does not know")).into());
        };
        let fit = fit(id, &writer, schema);
        self.readers.write().entry(id).or_default().insert(schema.to_owned(), fit.clone());
        Ok(fit?)
    }

    fn id(&self, registry: &dyn SchemaRegistry, topic: &Topic) -> Result<u32, CodecError> {
        if let Some(id) = self.ids.read().get(&topic.name) {
            return Ok(*id);
        }
        let id = registry.register(&registry::subject(&self.prefix, &topic.name), own(topic)?.text())?;
        self.ids.write().insert(topic.name.clone(), id);
        Ok(id)
    }
}

fn own(topic: &Topic) -> Result<Arc<avro::Schema>, DecodeError> {
    avro::built_in(&topic.schema).ok_or_else(|| DecodeError::at("", format!("{} has no Avro schema", topic.name)))
}

fn fit(id: u32, writer: &WriterSchema, schema: &str) -> Fit {
    let unusable = |reason: String| DecodeError::at("", format!("the schema id {id} is of no use: {reason}"));
    if writer.kind != "AVRO" {
        return Err(unusable(format!("it is {}, not AVRO", shorten(&writer.kind))));
    }
    let writer = avro::Schema::parse_with(&writer.text, &writer.references).map_err(|e| unusable(e.to_string()))?;
    let ours = avro::built_in(schema).ok_or_else(|| DecodeError::at("", format!("'{}' has no Avro schema", shorten(schema))))?;
    if !writer.is_record() {
        return Err(unusable("it is no record".into()));
    }
    Ok(Arc::new(Reader::new(&writer, Some(&ours))))
}

fn text(key: Option<&[u8]>) -> Result<Option<&str>, DecodeError> {
    key.map(|k| std::str::from_utf8(k).map_err(|e| DecodeError::at("key", format!("not UTF-8: byte {} breaks it", e.valid_up_to()))))
        .transpose()
}
