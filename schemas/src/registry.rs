//! Schema registries: who knows which schema a record was written with.
//!
//! [`BuiltInRegistry`] keeps schemas in memory as plain data, for a shop without a registry of its own;
//! [`ConfluentRegistry`] asks one over Confluent's REST interface. Subjects are named by topic
//! (`TopicNameStrategy`): [`subject`].

mod built_in;
mod check;
mod confluent;

pub use built_in::{BuiltInRegistry, Compatibility, RegistryState, SubjectState};
pub use check::{SubjectReport, Verdict, check, register};
pub use confluent::ConfluentRegistry;

use std::{fmt, sync::Arc};

/// Knows schemas by id and by subject. Calls may block for as long as the network lets them.
pub trait SchemaRegistry: fmt::Debug + Send + Sync {
    /// The schema with that id; `None` if there is none.
    ///
    /// # Errors
    /// The registry could not be asked.
    fn schema(&self, id: u32) -> Result<Option<Arc<WriterSchema>>, RegistryError>;

    /// Makes `schema` the subject's latest, unless it is one of its versions already; its id.
    ///
    /// # Errors
    /// The registry could not be asked, or refuses, as it does a schema that is not compatible.
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;

    /// What keeps `schema` from being registered, in words; nothing if it may be.
    ///
    /// # Errors
    /// The registry could not be asked.
    fn check(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError>;

    /// The subject's latest version; `None` if there is none.
    ///
    /// # Errors
    /// The registry could not be asked.
    fn latest(&self, subject: &str) -> Result<Option<Version>, RegistryError>;
}

/// A schema as a registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSchema {
    /// `AVRO`; registries also hold `JSON` and `PROTOBUF`.
    pub kind: String,
    /// Its text.
    pub text: String,
    /// The texts of the schemas whose types it names.
    pub references: Vec<String>,
}

/// One version of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Counts from 1 within the subject.
    pub version: u32,
    /// The schema's id in the whole registry.
    pub id: u32,
    /// The schema's text.
    pub schema: String,
}

/// Why a registry did not answer what was asked. Neither is a fault of the record that made us ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No answer, or one that says to try again later.
    #[error("schema registry {url}: {reason}")]
    Unreachable {
        /// Where it should be, without credentials.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It answered, and refuses: credentials, permissions, an incompatible schema.
    #[error("schema registry {url} refuses: {reason}")]
    Refused {
        /// Where it is, without credentials.
        url: String,
        /// Its own words.
        reason: String,
    },
}

/// The subject of a topic's values. `prefix` is `topics.prefix`, which stands before the name on the cluster.
pub fn subject(prefix: &str, topic: &str) -> String {
    format!("{prefix}{topic}-value")
}
