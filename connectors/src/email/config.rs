//! The connector's keys of the `email` section.

use super::{Courier, EmailError, Outbox, Sender, SenderSettings, Smtp, SmtpSettings};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How mails leave; the rest of the `email` section says which mails there are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailConfig {
    /// A folder that gets each mail as a file, `<trigger_id>.eml`, in place of a mail server.
    pub outbox: Option<PathBuf>,
    /// The mail server.
    pub smtp: SmtpSettings,
    /// Who the mails come from.
    pub sender: SenderSettings,
}

/// Who takes the mails away, and who they come from.
pub type WayOut = (Box<dyn Courier>, Sender);

impl MailConfig {
    /// The keys of the `email` section that are the connector's.
    pub const KEYS: [&'static str; 3] = ["outbox", "smtp", "sender"];

    /// Who takes the mails away and who they come from; nothing where no way out is configured.
    ///
    /// # Errors
    /// When the sender lacks what the law asks for, or the way out can't be had.
    pub fn open(&self) -> Result<Option<WayOut>, EmailError> {
        let courier: Box<dyn Courier> = match (&self.outbox, Smtp::new(&self.smtp)?) {
            (Some(_), Some(_)) => return Err(EmailError::Smtp("an outbox is configured too; mails leave by one way".into())),
            (Some(folder), None) => Box::new(Outbox::open(folder)?),
            (None, Some(smtp)) => Box::new(smtp),
            (None, None) => return Ok(None),
        };
        Ok(Some((courier, Sender::new(self.sender.clone())?)))
    }
}
