//! The connector's keys of the `email` section.

use super::{Courier, EmailError, Outbox, Sender, SenderSettings, Smtp, SmtpSettings};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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

/// By which way mails leave; nothing is opened yet.
enum Way<'a> {
    Folder(&'a Path),
    Server(Box<Smtp>),
}

impl MailConfig {
    /// The keys of the `email` section that are the connector's.
    pub const KEYS: [&'static str; 3] = ["outbox", "smtp", "sender"];

    /// Who takes the mails away and who they come from; nothing where no way out is configured.
    ///
    /// # Errors
    /// As [`Self::check`], or when the outbox can't be had.
    pub fn open(&self) -> Result<Option<WayOut>, EmailError> {
        let Some((way, sender)) = self.way()? else { return Ok(None) };
        let courier: Box<dyn Courier> = match way {
            Way::Folder(folder) => Box::new(Outbox::open(folder)?),
            Way::Server(smtp) => smtp,
        };
        Ok(Some((courier, sender)))
    }

    /// Looks at the settings alone.
    ///
    /// # Errors
    /// When the sender lacks what the law asks for, or the way out contradicts itself.
    pub fn check(&self) -> Result<(), EmailError> {
        self.way().map(drop)
    }

    fn way(&self) -> Result<Option<(Way<'_>, Sender)>, EmailError> {
        let way = match (&self.outbox, Smtp::new(&self.smtp)?) {
            (Some(_), Some(_)) => return Err(EmailError::Smtp("an outbox is configured too; mails leave by one way".into())),
            (Some(folder), None) => Way::Folder(folder),
            (None, Some(smtp)) => Way::Server(Box::new(smtp)),
            (None, None) => return Ok(None),
        };
        Ok(Some((way, Sender::new(self.sender.clone())?)))
    }
}
