//! Who takes a mail away.

use super::{EmailError, Message};

/// What became of a mail that was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Taken, with what the taker calls it.
    Sent {
        /// The provider's own id, where it gives one.
        provider_id: Option<String>,
        /// In words.
        detail: String,
    },
    /// The address does not exist: it is never to be mailed again.
    Bounced(String),
    /// Refused for good.
    Failed(String),
    /// Not now, and certainly not taken.
    TryAgain(String),
    /// Nobody knows whether it was taken.
    Unknown(String),
}

/// Takes mails away.
pub trait Courier: Send {
    /// Whether handing the same mail over twice is the same as once, so that no claim is needed before.
    fn is_repeatable(&self) -> bool;

    /// Hands one mail over.
    ///
    /// # Errors
    /// When nothing can be handed over now, such as with a full disk: try again.
    fn send(&mut self, message: &Message) -> Result<Delivery, EmailError>;
}
