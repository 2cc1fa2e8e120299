//! A folder of `.eml` files in place of a provider: for the demo, for tests, for looking at what would be sent.

use super::{EmailError, Sender, Templates, message::render};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use tillflow_schemas::{Change, EmailResult, EmailTrigger, Template, Timestamp};

/// A mail that was to go out longer ago than this no longer does.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Writes mails as files, one a trigger.
pub struct Outbox {
    folder: PathBuf,
    sender: Sender,
    templates: Templates,
}

impl Outbox {
    /// An outbox in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(folder: impl Into<PathBuf>, sender: Sender, templates: Templates) -> Result<Self, EmailError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|e| failed(&folder, e))?;
        Ok(Self { folder, sender, templates })
    }

    /// Takes one of the shop's own templates.
    ///
    /// # Errors
    /// Says what is wrong with it; the one before stays.
    pub fn apply(&mut self, template: &Change<Template>) -> Result<(), EmailError> {
        self.templates.apply(template)
    }

    /// Writes the mail of a trigger, `<trigger_id>.eml`, and says what came of it; `None` where it is not to go out
    /// yet. Asked again, it writes nothing anew.
    ///
    /// # Errors
    /// When the file can't be written: try again. A trigger that can't be a mail is no error but a `failed` result.
    pub fn deliver(&self, trigger: &EmailTrigger, now: Timestamp) -> Result<Option<EmailResult>, EmailError> {
        if now < trigger.send_after {
            return Ok(None);
        }
        let result = |status: &str, detail: String| {
            Ok(Some(EmailResult {
                trigger_id: trigger.trigger_id.clone(),
                user_id: trigger.user_id.clone(),
                status: status.into(),
                provider_id: None,
                detail,
                at: now,
            }))
        };
        let name = match file_name(&trigger.trigger_id) {
            Some(name) => name,
            None => return result("failed", "trigger_id is empty, too long or has other than letters, digits, - and _".into()),
        };
        let path = self.folder.join(&name);
        if path.exists() {
            return result("sent", format!("outbox: {name}"));
        }
        if now > trigger.send_after + EXPIRES_AFTER {
            return result("expired", format!("was to go out at {}, more than 6 h ago", trigger.send_after));
        }
        let eml = match render(trigger, &self.templates, &self.sender).and_then(|message| message.to_eml()) {
            Ok(eml) => eml,
            Err(e) => return result("failed", e.to_string()),
        };
        self.write(&path, &name, &eml)?;
        result("sent", format!("outbox: {name}"))
    }

    /// Whole or not at all: written beside, then renamed.
    fn write(&self, path: &Path, name: &str, bytes: &[u8]) -> Result<(), EmailError> {
        let beside = self.folder.join(format!(".{name}.part"));
        let written = fs::File::create(&beside).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&beside, path));
        written.map_err(|e| failed(path, e))
    }
}

/// A trigger's id as a file name; others than Tillflow may write triggers, and their ids lead nowhere else.
fn file_name(trigger_id: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    ((1..=120).contains(&trigger_id.len()) && trigger_id.bytes().all(plain)).then(|| format!("{trigger_id}.eml"))
}

fn failed(path: &Path, source: std::io::Error) -> EmailError {
    EmailError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
