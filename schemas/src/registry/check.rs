//! Our schemas against what a registry holds.

use super::{RegistryError, SchemaRegistry, subject};
use crate::{Catalog, Format, Role, Topic, avro};

/// How one topic's schema stands to what is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectReport {
    /// The topic's subject.
    pub subject: String,
    /// Name of our schema.
    pub schema: String,
    /// How it stands.
    pub verdict: Verdict,
}

/// How a schema stands to what is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is registered.
    New,
    /// It is the latest version.
    Same {
        /// That version.
        version: u32,
    },
    /// It differs, and both sides go on.
    Compatible {
        /// The latest version.
        version: u32,
    },
    /// Somebody could not read what somebody wrote.
    Broken {
        /// The latest version.
        version: u32,
        /// Who can't read what, each in words.
        problems: Vec<String>,
    },
}

/// Compares the schema of every topic that may hold Avro with its subject's latest version. We must read what was
/// written; and consumers must go on reading what we write.
///
/// # Errors
/// The registry could not be asked.
pub fn check(registry: &dyn SchemaRegistry, catalog: &Catalog, prefix: &str) -> Result<Vec<SubjectReport>, RegistryError> {
    let mut reports = Vec::new();
    for (topic, text) in avro_topics(catalog) {
        let subject = subject(prefix, &topic.name);
        let verdict = verdict(registry, topic, text, &subject)?;
        reports.push(SubjectReport { subject, schema: topic.schema.clone(), verdict });
    }
    Ok(reports)
}

/// Registers the schema of every topic that may hold Avro; subjects and ids.
///
/// # Errors
/// The registry could not be asked, or refuses one.
pub fn register(registry: &dyn SchemaRegistry, catalog: &Catalog, prefix: &str) -> Result<Vec<(String, u32)>, RegistryError> {
    let subjects = avro_topics(catalog).map(|(topic, text)| (subject(prefix, &topic.name), text));
    subjects.map(|(subject, text)| registry.register(&subject, text).map(|id| (subject, id))).collect()
}

/// Inputs may hold either format, a record at a time; outputs the one that the list of topics states.
fn avro_topics(catalog: &Catalog) -> impl Iterator<Item = (&Topic, &'static str)> {
    catalog.topics().iter().filter_map(|topic| {
        let may = match topic.role {
            Role::Input | Role::Reference => true,
            Role::Output => topic.format == Format::Avro,
            Role::Internal | Role::Rekey | Role::Changelog => false,
        };
        Some((topic, avro::built_in_text(&topic.schema).filter(|_| may)?))
    })
}

fn verdict(registry: &dyn SchemaRegistry, topic: &Topic, text: &str, subject: &str) -> Result<Verdict, RegistryError> {
    let Some(latest) = registry.latest(subject)? else { return Ok(Verdict::New) };
    let version = latest.version;
    let mut problems = Vec::new();
    match (avro::Schema::parse(text), avro::Schema::parse(&latest.schema)) {
        (Ok(ours), Ok(theirs)) => {
            if ours.is_same_as(&theirs) {
                return Ok(Verdict::Same { version });
            }
            if let Err(e) = ours.can_read(&theirs) {
                problems.push(format!("we can't read what was written with version {version}: {e}"));
            }
            if let (Role::Output, Err(e)) = (topic.role, theirs.can_read(&ours)) {
                problems.push(format!("consumers with version {version} can't read what we write: {e}"));
            }
        }
        (Err(e), _) => problems.push(e.to_string()),
        (_, Err(e)) => problems.push(format!("version {version} is {e}")),
    }
    problems.extend(registry.check(subject, text)?);
    Ok(if problems.is_empty() { Verdict::Compatible { version } } else { Verdict::Broken { version, problems } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BuiltInRegistry;

    #[test]
    fn tells_new_same_compatible_and_broken_apart() {
        let catalog = Catalog::built_in(4).unwrap();
        let registry = BuiltInRegistry::default();
        assert!(check(&registry, &catalog, "").unwrap().iter().all(|r| r.verdict == Verdict::New));
        let ids = register(&registry, &catalog, "").unwrap();
        assert_eq!(ids, register(&registry, &catalog, "").unwrap());
        assert!(check(&registry, &catalog, "").unwrap().iter().all(|r| r.verdict == Verdict::Same { version: 1 }));
        assert!(!ids.iter().any(|(subject, _)| subject == "email_triggers-value"), "stays JSON");

        let registry = BuiltInRegistry::default();
        let ours = avro::built_in_text("product_price").unwrap();
        let without_since =
            ours.lines().filter(|l| !l.contains("\"since\"")).collect::<Vec<_>>().join("\n").replace("code.\" },", "code.\" }");
        registry.register("shop.product_prices-value", &without_since).unwrap();
        let ours = avro::built_in_text("price_change").unwrap();
        let without_bounds = ours.lines().filter(|l| !l.contains("\"bounded_by\"")).collect::<Vec<_>>().join("\n");
        registry.register("shop.price_changes-value", &without_bounds).unwrap();
        let reports = check(&registry, &catalog, "shop.").unwrap();
        let of = |schema: &str| reports.iter().find(|r| r.schema == schema).unwrap().verdict.clone();
        assert_eq!(of("price_change"), Verdict::Compatible { version: 1 });
        let Verdict::Broken { problems, .. } = of("product_price") else { panic!() };
        assert!(problems[0].ends_with("since: is not written, and has no default"), "{problems:?}");
    }
}
