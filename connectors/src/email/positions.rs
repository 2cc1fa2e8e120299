//! Up to where the log's triggers have results, kept beside the state: a restart need not read what is long settled.

use serde::{Deserialize, Serialize};
use std::{collections::HashMap, fs, path::Path};
use tillflow_schemas::Timestamp;

/// Up to where all is settled.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Positions {
    /// The next offset to read, by topic and partition (`email_triggers/0`).
    pub next: HashMap<String, i64>,
    /// Results read before their triggers may have been.
    pub settled: HashMap<String, Timestamp>,
}

impl Positions {
    /// Reads them; where there are none, or they can't be read, all is read from the log again.
    pub fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Writes them, whole or not at all.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension("part");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(beside, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_and_broken_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("email.json");
        assert_eq!(Positions::read(&path), Positions::default());
        let mut positions = Positions::default();
        positions.next.insert("email_triggers/0".into(), 7);
        positions.settled.insert("a".into(), Timestamp::from_millis(5));
        positions.write(&path).unwrap();
        assert_eq!(Positions::read(&path), positions);
        fs::write(&path, "{").unwrap();
        assert_eq!(Positions::read(&path), Positions::default());
    }
}
