//! A registry in memory: its state is plain data that its owner stores and gives back.

use super::{RegistryError, SchemaRegistry, Version, WriterSchema};
use crate::avro::Schema;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// A registry in memory.
#[derive(Debug, Default)]
pub struct BuiltInRegistry {
    state: Mutex<RegistryState>,
}

/// All that a registry in memory knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegistryState {
    /// Texts by id.
    pub schemas: BTreeMap<u32, String>,
    /// By name.
    pub subjects: BTreeMap<String, SubjectState>,
    /// Of subjects that have no level of their own.
    pub compatibility: Compatibility,
}

/// One subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubjectState {
    /// Ids of its versions, the oldest first; version 1 is the first.
    pub versions: Vec<u32>,
    /// Its own level.
    pub compatibility: Option<Compatibility>,
}

/// What a new version must be able to do, as Confluent names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compatibility {
    /// Nothing.
    None,
    /// Read what the latest version wrote.
    #[default]
    Backward,
    /// Read what any version wrote.
    BackwardTransitive,
    /// Be read with the latest version.
    Forward,
    /// Be read with any version.
    ForwardTransitive,
    /// Both, for the latest version.
    Full,
    /// Both, for any version.
    FullTransitive,
}

impl Compatibility {
    fn reads(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }
    fn is_read(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
    fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }
}

impl BuiltInRegistry {
    /// A registry that knows what `state` says.
    pub fn new(state: RegistryState) -> Self {
        Self { state: Mutex::new(state) }
    }

    /// All it knows, to be stored.
    pub fn state(&self) -> RegistryState {
        self.state.lock().clone()
    }

    /// The names of all subjects.
    pub fn subjects(&self) -> Vec<String> {
        self.state.lock().subjects.keys().cloned().collect()
    }

    /// All versions of a subject, the oldest first.
    pub fn versions(&self, subject: &str) -> Vec<Version> {
        self.state.lock().versions(subject)
    }

    /// The subject's version that has exactly this schema.
    ///
    /// # Errors
    /// The text is no schema.
    pub fn find(&self, subject: &str, schema: &str) -> Result<Option<Version>, RegistryError> {
        let wanted = parsed(schema)?.1;
        Ok(self.state.lock().versions(subject).into_iter().find(|v| is(&v.schema, &wanted)))
    }

    /// The level of a subject, or of those without one.
    pub fn compatibility(&self, subject: Option<&str>) -> Compatibility {
        let state = self.state.lock();
        subject.and_then(|s| state.subjects.get(s)?.compatibility).unwrap_or(state.compatibility)
    }

    /// Sets the level of a subject, or of those without one.
    pub fn set_compatibility(&self, subject: Option<&str>, level: Compatibility) {
        let mut state = self.state.lock();
        match subject {
            Some(subject) => state.subjects.entry(subject.to_owned()).or_default().compatibility = Some(level),
            None => state.compatibility = level,
        }
    }
}

impl RegistryState {
    fn versions(&self, subject: &str) -> Vec<Version> {
        let ids = self.subjects.get(subject).map(|s| s.versions.as_slice()).unwrap_or_default();
        let version = |(n, id): (u32, &u32)| Some(Version { version: n, id: *id, schema: self.schemas.get(id)?.clone() });
        (1..).zip(ids).filter_map(version).collect()
    }

    fn problems(&self, subject: &str, schema: &Schema) -> Vec<String> {
        let level = self.subjects.get(subject).and_then(|s| s.compatibility).unwrap_or(self.compatibility);
        let mut versions = self.versions(subject);
        if !level.is_transitive() {
            versions.drain(..versions.len().saturating_sub(1));
        }
        let mut problems = Vec::new();
        for version in versions {
            let Ok(old) = Schema::parse(&version.schema) else { continue };
            if let (true, Err(e)) = (level.reads(), schema.can_read(&old)) {
                problems.push(format!("can't read what version {} wrote: {e}", version.version));
            }
            if let (true, Err(e)) = (level.is_read(), old.can_read(schema)) {
                problems.push(format!("can't be read with version {}: {e}", version.version));
            }
        }
        problems
    }
}

impl SchemaRegistry for BuiltInRegistry {
    fn schema(&self, id: u32) -> Result<Option<Arc<WriterSchema>>, RegistryError> {
        let text = self.state.lock().schemas.get(&id).cloned();
        Ok(text.map(|text| Arc::new(WriterSchema { kind: "AVRO".into(), text, references: Vec::new() })))
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let (new, value) = parsed(schema)?;
        let mut state = self.state.lock();
        if let Some(version) = state.versions(subject).into_iter().find(|v| is(&v.schema, &value)) {
            return Ok(version.id);
        }
        let problems = state.problems(subject, &new);
        if !problems.is_empty() {
            return Err(refused(format!("{subject}: not compatible: {}", problems.join("; "))));
        }
        let known = state.schemas.iter().find(|(_, text)| is(text, &value)).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| state.schemas.last_key_value().map_or(1, |(id, _)| id.saturating_add(1)));
        state.schemas.entry(id).or_insert_with(|| schema.to_owned());
        state.subjects.entry(subject.to_owned()).or_default().versions.push(id);
        Ok(id)
    }

    fn check(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        let (new, _) = parsed(schema)?;
        Ok(self.state.lock().problems(subject, &new))
    }

    fn latest(&self, subject: &str) -> Result<Option<Version>, RegistryError> {
        Ok(self.state.lock().versions(subject).pop())
    }
}

fn parsed(text: &str) -> Result<(Schema, Value), RegistryError> {
    let schema = Schema::parse(text).map_err(|e| refused(e.to_string()))?;
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    Ok((schema, value))
}

/// Whether two texts are one schema: their layout may differ, their documentation may not, as with Confluent.
fn is(text: &str, value: &Value) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|v| v == *value) || value.as_str() == Some(text)
}

fn refused(reason: String) -> RegistryError {
    RegistryError::Refused { url: "(built in)".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> String {
        format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)
    }

    #[test]
    fn a_schema_has_one_id_however_often_it_comes_and_its_state_survives_storage() {
        let registry = BuiltInRegistry::default();
        let first = registry.register("a-value", &record("")).unwrap();
        assert_eq!(registry.register("a-value", &record(" ")).unwrap(), first);
        assert_eq!(registry.register("b-value", &record("")).unwrap(), first);
        let second = registry.register("a-value", &record(r#"{"name": "n", "type": "int", "default": 0}"#)).unwrap();
        assert_ne!(first, second);
        let stored = serde_json::to_string(&registry.state()).unwrap();
        let again = BuiltInRegistry::new(serde_json::from_str(&stored).unwrap());
        assert_eq!(again.latest("a-value").unwrap().unwrap().version, 2);
        assert_eq!(again.find("a-value", &record("")).unwrap().unwrap().version, 1);
        assert_eq!(again.subjects(), ["a-value", "b-value"]);
        assert_eq!(again.schema(second).unwrap().unwrap().kind, "AVRO");
        assert_eq!(again.schema(99).unwrap(), None);
    }

    #[test]
    fn each_level_asks_what_it_says() {
        use Compatibility::*;
        let (bare, optional, required) =
            (record(""), record(r#"{"name": "n", "type": "int", "default": 0}"#), record(r#"{"name": "n", "type": "int"}"#));
        // Old, new, and the levels that refuse the step.
        for (old, new, refusing) in [
            (&bare, &optional, &[][..]),
            (&bare, &required, &[Backward, BackwardTransitive, Full, FullTransitive]),
            (&required, &bare, &[Forward, ForwardTransitive, Full, FullTransitive]),
        ] {
            for level in [None, Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive] {
                let registry = BuiltInRegistry::default();
                registry.register("s", old).unwrap();
                registry.set_compatibility(Some("s"), level);
                assert_eq!(registry.register("s", new).is_err(), refusing.contains(&level), "{level:?}: {old} to {new}");
            }
        }
        let registry = BuiltInRegistry::default();
        registry.register("s", &bare).unwrap();
        let error = registry.register("s", &required).unwrap_err().to_string();
        assert!(error.ends_with("can't read what version 1 wrote: n: is not written, and has no default"), "{error}");
    }
}
