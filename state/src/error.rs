//! What can go wrong with stored state.

use std::path::PathBuf;

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has the directory open.
    #[error("{path} is in use by another process; stop it, or choose another data directory")]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer version of the program.
    #[error("{path} holds format {found}, this version knows up to {known}; use the version that wrote it, or newer")]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// The files are damaged.
    #[error("{path} is damaged: {detail}; restore a backup, or move it away and let it be rebuilt from the log")]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What the store said.
        detail: String,
    },
    /// No room left.
    #[error("no space left for {path}: {detail}")]
    Full {
        /// The directory.
        path: PathBuf,
        /// What the store said.
        detail: String,
    },
    /// Any other failure of the store.
    #[error("{path}: {detail}")]
    Storage {
        /// The directory.
        path: PathBuf,
        /// What the store said.
        detail: String,
    },
    /// A value is larger than a changelog takes.
    #[error("store {store}: a value of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// The store's name.
        store: String,
        /// Its size.
        bytes: usize,
        /// The largest.
        limit: usize,
    },
    /// A stored value does not have the form this version expects.
    #[error("store {store}: a stored value cannot be read: {detail}")]
    Value {
        /// The store's name.
        store: String,
        /// What the decoder said.
        detail: String,
    },
}

/// Short for a result with [`StateError`].
pub type Result<T, E = StateError> = std::result::Result<T, E>;
