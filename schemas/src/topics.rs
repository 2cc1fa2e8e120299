//! The list of topics, as `topics.yaml` states it.

use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

/// The list of topics.
#[derive(Clone, Debug)]
pub struct Catalog {
    topics: Vec<Topic>,
    by_name: HashMap<String, usize>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Name without prefix.
    pub name: String,
    /// Who writes it, and for whom.
    pub role: Role,
    /// Schema of its values.
    pub schema: String,
    /// The field that is the key.
    pub key: String,
    /// Whether its records lie where their keys say.
    pub keyed: Keyed,
    /// Whose key may write it over HTTP.
    pub needs: Needs,
    /// The task group a changelog or rekey topic belongs to.
    pub of: Option<String>,
    /// Number of partitions, the configured default filled in.
    pub partitions: u32,
    /// How long records are kept; `None` is for ever.
    pub retention: Option<Duration>,
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// How values are written.
    pub format: Format,
    /// What "the same" means for it, where it is an output.
    pub class: Option<Class>,
}

/// Who writes a topic, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Written by the shop and its frontends.
    Input,
    /// What the shop states about itself.
    Reference,
    /// How the task groups speak to each other.
    Internal,
    /// What Tillflow decides.
    Output,
    /// Records that another client put into a foreign partition.
    Rekey,
    /// The state of a task group.
    Changelog,
}

/// Whether the records of an input lie where their ids say, or are put there first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyed {
    /// Those that do are processed where they are, the others re-keyed. Order holds among those of one id that took the
    /// same path.
    #[default]
    Trusted,
    /// All take the way through the re-keying topic, and so keep the order in which one partition holds them.
    Untrusted,
}

/// Whose key may write an input or reference topic over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// A server's, at most.
    #[default]
    Server,
    /// An admin's alone: what it says decides about money.
    Admin,
}

/// What happens to old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    /// Deleted after the retention time.
    #[default]
    Delete,
    /// The last value a key stays.
    Compact,
}

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// Confluent-framed Avro once a registry is configured, JSON until then.
    Avro,
    /// As they came.
    Bytes,
}

/// What "the same" means when two runs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The same sequence a key.
    A,
    /// The same last value a key once drained.
    B,
    /// Invariants only.
    C,
}

/// Why the list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Not the expected form.
    #[error("the list of topics: {0}")]
    Form(#[from] serde_norway::Error),
    /// A value that makes no sense.
    #[error("the list of topics: topic {topic}: {reason}")]
    Value {
        /// Which topic.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    topics: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    schema: String,
    key: String,
    #[serde(default)]
    keyed: Keyed,
    #[serde(default)]
    needs: Needs,
    of: Option<String>,
    partitions: Option<u32>,
    retention: String,
    #[serde(default)]
    cleanup: Cleanup,
    #[serde(default)]
    format: Format,
    class: Option<Class>,
}

impl Catalog {
    /// The list this version was built with, its default partition count being `partitions`.
    ///
    /// # Errors
    /// None for the built-in list; tests parse it.
    pub fn built_in(partitions: u32) -> Result<Self, CatalogError> {
        Self::parse(include_str!("../../topics.yaml"), partitions)
    }

    /// Reads a list; topics that state no partition count get `partitions`.
    ///
    /// # Errors
    /// Says which topic is wrong, and how.
    pub fn parse(yaml: &str, partitions: u32) -> Result<Self, CatalogError> {
        let file: File = serde_norway::from_str(yaml)?;
        let mut catalog = Self { topics: Vec::new(), by_name: HashMap::new() };
        for e in file.topics {
            let wrong = |reason: String| CatalogError::Value { topic: e.name.clone(), reason };
            let retention = match e.retention.as_str() {
                "forever" => None,
                text => Some(days(text).ok_or_else(|| wrong(format!("retention '{text}' is neither forever nor days such as 90d")))?),
            };
            let partitions = e.partitions.unwrap_or(partitions);
            if partitions == 0 {
                return Err(wrong("needs at least one partition".into()));
            }
            if e.keyed == Keyed::Untrusted && e.role != Role::Input {
                return Err(wrong("only an input is keyed: untrusted; whatever else is written by Tillflow, or has no order".into()));
            }
            if e.role == Role::Output && e.class.is_none() {
                return Err(wrong("an output needs a class: a, b or c".into()));
            }
            if matches!(e.role, Role::Changelog | Role::Rekey) && e.of.is_none() {
                return Err(wrong("needs `of`: the task group it belongs to".into()));
            }
            if catalog.by_name.insert(e.name.clone(), catalog.topics.len()).is_some() {
                return Err(wrong("stands in the list twice".into()));
            }
            catalog.topics.push(Topic {
                name: e.name,
                role: e.role,
                schema: e.schema,
                key: e.key,
                keyed: e.keyed,
                needs: e.needs,
                of: e.of,
                partitions,
                retention,
                cleanup: e.cleanup,
                format: e.format,
                class: e.class,
            });
        }
        Ok(catalog)
    }

    /// The same list with these inputs `keyed: untrusted`.
    ///
    /// # Errors
    /// Names what is no input.
    pub fn untrusted(mut self, names: &[String]) -> Result<Self, CatalogError> {
        for name in names {
            let topic = self.index(name).and_then(|i| self.topics.get_mut(i)).filter(|t| t.role == Role::Input);
            let no_input = || CatalogError::Value { topic: name.clone(), reason: "is no input, and only an input is untrusted".into() };
            topic.ok_or_else(no_input)?.keyed = Keyed::Untrusted;
        }
        Ok(self)
    }

    /// All topics, in the list's order.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }
    /// The topic's place in the list: records of one moment are taken in this order.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.index(name)?)
    }
    /// The topic whose values have that schema.
    pub fn of_schema(&self, schema: &str) -> Option<&Topic> {
        self.topics.iter().find(|t| t.schema == schema)
    }
    /// The topic of that role that belongs to a task group.
    pub fn of_group(&self, role: Role, group: &str) -> Option<&Topic> {
        self.topics.iter().find(|t| t.role == role && t.of.as_deref() == Some(group))
    }
}

fn days(text: &str) -> Option<Duration> {
    let days: u64 = text.strip_suffix('d')?.parse().ok()?;
    days.checked_mul(24 * 3600).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_reads_and_every_schema_but_the_framed_ones_has_one_topic() {
        let catalog = Catalog::built_in(4).unwrap();
        assert_eq!(catalog.of_schema("user_event").unwrap().name, "user_events");
        assert_eq!(catalog.get("tillflow.shop").unwrap().partitions, 1);
        for topic in catalog.topics().iter().filter(|t| !matches!(t.role, Role::Rekey | Role::Changelog)) {
            assert_eq!(catalog.topics().iter().filter(|t| t.schema == topic.schema).count(), 1, "{}", topic.schema);
        }
    }

    #[test]
    fn an_input_is_trusted_until_the_list_or_the_shop_says_otherwise() {
        let catalog = Catalog::built_in(4).unwrap();
        assert!(catalog.topics().iter().all(|t| t.keyed == Keyed::Trusted));
        let line = "topics:\n  - { name: x, role: input, schema: s, key: k, keyed: untrusted, retention: 1d }";
        assert_eq!(Catalog::parse(line, 4).unwrap().get("x").unwrap().keyed, Keyed::Untrusted);
        let catalog = catalog.untrusted(&["user_events".into()]).unwrap();
        assert_eq!(
            catalog.topics().iter().filter(|t| t.keyed == Keyed::Untrusted).map(|t| t.name.as_str()).collect::<Vec<_>>(),
            ["user_events"]
        );
        for name in ["products", "user_event"] {
            let error = Catalog::built_in(4).unwrap().untrusted(&[name.into()]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("no input"), "{error}");
        }
    }

    #[test]
    fn a_mistake_names_the_topic() {
        for (line, part) in [
            ("{ name: x, role: output, schema: s, key: k, retention: 1d }", "class"),
            ("{ name: x, role: input, schema: s, key: k, retention: soon }", "soon"),
            ("{ name: x, role: input, schema: s, key: k, retention: 1d, partitions: 0 }", "partition"),
            ("{ name: x, role: input, schema: s, key: k, retention: 1d, partition: 3 }", "partition"),
            ("{ name: x, role: input, schema: s, key: k, keyed: maybe, retention: 1d }", "untrusted"),
            ("{ name: x, role: reference, schema: s, key: k, needs: owner, retention: 1d }", "admin"),
            ("{ name: x, role: reference, schema: s, key: k, keyed: untrusted, retention: 1d }", "only an input"),
        ] {
            let error = Catalog::parse(&format!("topics:\n  - {line}"), 4).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
