//! E-mail: from an `email_triggers` record to a mail. Templates make the words, a [`Sender`] says who speaks and how to
//! be left in peace, a [`Courier`] takes each mail away: an [`Outbox`] of files, or a mail server. The [`Mailer`] follows
//! the log and sees to it that every trigger ends in `email_results`, and that none is sent twice.
//!
//! [`render`] is pure: one trigger and one set of templates always make the same mail, byte for byte.

mod config;
mod courier;
mod ledger;
mod mailer;
mod message;
mod outbox;
mod positions;
mod sender;
mod smtp;
mod templates;
pub mod unsubscribe;

pub use config::{MailConfig, WayOut};
pub use courier::{Courier, Delivery};
#[cfg(test)]
pub(crate) use mailer::Metrics;
pub use mailer::{Clock, Mailer};
pub use message::{Message, render};
pub use outbox::Outbox;
pub use sender::{Sender, SenderSettings};
pub use smtp::{Smtp, SmtpSettings, SmtpTls};
pub use templates::Templates;

use std::time::Duration;

/// A mail that was to go out longer ago than this no longer does.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(6 * 3600);

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
    /// The mail server's settings contradict themselves.
    #[error("email.smtp: {0}")]
    Smtp(String),
    /// The log fails for good.
    #[error("email: {0}")]
    Log(#[from] tillflow_engine::log::LogError),
    /// A metric can't be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The outbox can't be written: try again.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}
