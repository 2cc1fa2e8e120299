//! A folder of `.eml` files in place of a provider: for the demo, for tests, for looking at what would be sent.

use super::{Courier, Delivery, EmailError, Message};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Writes mails as files, one a trigger.
pub struct Outbox {
    folder: PathBuf,
}

impl Outbox {
    /// An outbox in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, EmailError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|e| failed(&folder, e))?;
        Ok(Self { folder })
    }

    /// Whole or not at all: written beside, then renamed.
    fn write(&self, path: &Path, name: &str, bytes: &[u8]) -> Result<(), EmailError> {
        let beside = self.folder.join(format!(".{name}.part"));
        let written = fs::File::create(&beside).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&beside, path));
        written.map_err(|e| failed(path, e))
    }
}

impl Courier for Outbox {
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Writes `<trigger_id>.eml`; handed over again, it writes nothing anew.
    fn send(&mut self, message: &Message) -> Result<Delivery, EmailError> {
        let Some(name) = file_name(&message.trigger_id) else {
            return Ok(Delivery::Failed("trigger_id is empty, too long or has other than letters, digits, - and _".into()));
        };
        let path = self.folder.join(&name);
        if !path.exists() {
            match message.to_eml() {
                Ok(eml) => self.write(&path, &name, &eml)?,
                Err(e) => return Ok(Delivery::Failed(e.to_string())),
            }
        }
        Ok(Delivery::Sent { provider_id: None, detail: format!("outbox: {name}") })
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
