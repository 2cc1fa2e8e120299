//! E-mail: from an `email_triggers` record to a mail. Templates make the words, a [`Sender`] says who speaks and how to
//! be left in peace, an [`Outbox`] keeps each mail as a file.
//!
//! [`render`] is pure: one trigger and one set of templates always make the same mail, byte for byte.

mod message;
mod outbox;
mod sender;
mod templates;
pub mod unsubscribe;

pub use message::{Message, render};
pub use outbox::{EXPIRES_AFTER, Outbox};
pub use sender::{Sender, SenderSettings};
pub use templates::Templates;

/// Why a mail can't be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The configuration lacks what the law or the protocol asks for.
    #[error("email.sender: {0}")]
    Sender(String),
    /// A template is wrong, or there is none of that name.
    #[error("template '{name}': {reason}")]
    Template {
        /// Which.
        name: String,
        /// In words.
        reason: String,
    },
    /// The trigger is no mail: its address or id is wrong.
    #[error("trigger {trigger_id}: {reason}")]
    Trigger {
        /// Which.
        trigger_id: String,
        /// In words.
        reason: String,
    },
    /// The outbox can't be written: try again.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}
