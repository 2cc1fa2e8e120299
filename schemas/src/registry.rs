//! Schema registries: who knows which schema a record was written with.

/// Why a registry did not answer what was asked.
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
