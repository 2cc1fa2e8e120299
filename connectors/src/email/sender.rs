//! Who the mails come from.

use super::EmailError;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

/// The sender as configured. All of it is needed before anything is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SenderSettings {
    /// Name and address that mails come from, such as `Shop <hello@shop.example>`.
    pub from: String,
    /// The shop's postal address, which stands under each mail.
    pub postal_address: String,
    /// Where one unsubscribes, an http or https address; `/` and a signed token are put behind it.
    pub unsubscribe_url: String,
    /// The secret that signs the tokens: who knows it can unsubscribe others.
    pub secret: String,
}

/// A sender with all that is needed.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(super) from: Mailbox,
    pub(super) settings: SenderSettings,
}

impl Sender {
    /// Checks the settings.
    ///
    /// # Errors
    /// Names everything that is missing or wrong.
    pub fn new(settings: SenderSettings) -> Result<Self, EmailError> {
        let mut wrong = Vec::new();
        let from = settings.from.parse::<Mailbox>();
        if let Err(e) = &from {
            wrong.push(format!("from '{}' is not an address such as Shop <hello@shop.example>: {e}", settings.from));
        }
        if settings.postal_address.trim().is_empty() {
            wrong.push("postal_address is missing; the law wants it under each mail".into());
        }
        if !["http://", "https://"].iter().any(|scheme| settings.unsubscribe_url.starts_with(scheme)) {
            wrong.push(format!("unsubscribe_url '{}' is not an http or https address", settings.unsubscribe_url));
        }
        if settings.secret.is_empty() {
            wrong.push("secret is missing; it signs the links to unsubscribe".into());
        }
        match from {
            Ok(from) if wrong.is_empty() => Ok(Self { from, settings }),
            _ => Err(EmailError::Sender(wrong.join("; "))),
        }
    }

    /// The name that mails are signed with: the address where there is none.
    pub(super) fn name(&self) -> String {
        self.from.name.clone().unwrap_or_else(|| self.from.email.to_string())
    }

    /// Where this user unsubscribes by one click.
    pub(super) fn unsubscribe_url(&self, user_id: &str, trigger_id: &str) -> String {
        let token = super::unsubscribe::token(&self.settings.secret, user_id, trigger_id);
        format!("{}/{token}", self.settings.unsubscribe_url.trim_end_matches('/'))
    }
}

#[cfg(test)]
pub(super) fn shop() -> Sender {
    Sender::new(SenderSettings {
        from: "Tea Shop <hello@shop.example>".into(),
        postal_address: "1 Harbour Street, Leith".into(),
        unsubscribe_url: "https://shop.example/unsubscribe".into(),
        secret: "secret".into(),
    })
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_without_identity_postal_address_and_unsubscribe_is_refused_and_all_is_named() {
        let error = Sender::new(SenderSettings::default()).unwrap_err().to_string();
        for part in ["email.sender: from ''", "postal_address", "unsubscribe_url", "secret"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert_eq!(shop().name(), "Tea Shop");
    }
}
