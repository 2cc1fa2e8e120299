//! What can go wrong inside a processor.

use tillflow_state::StateError;

/// Why a record, timer or query could not be processed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record asks for something that can't be done: it goes to the dead letters with this reason.
    #[error("{0}")]
    Reject(String),
    /// The store failed: the task stops and is restored; the record is not to blame.
    #[error(transparent)]
    State(StateError),
}

impl From<StateError> for Error {
    /// A value that is too large is the record's own doing.
    fn from(error: StateError) -> Self {
        match error {
            StateError::TooLarge { .. } => Self::Reject(error.to_string()),
            error => Self::State(error),
        }
    }
}

impl Error {
    /// The record can't be processed, for this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

/// Short for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
