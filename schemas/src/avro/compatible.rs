//! Whether data of one schema can be read with another: Avro's schema resolution, asked of the schemas alone.
//!
//! `apache-avro`'s own check finds every decimal inconclusive and says "missing union elements" of any optional
//! field; this one names the field and the reason.

use super::schema::{Schema, Shape, ShapeId};
use std::{collections::HashMap, fmt};

/// Where and why data of one schema can't be read with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatible {
    /// The field, such as `items[].price`; empty for the whole record.
    pub field: String,
    /// In words.
    pub reason: String,
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.field, self.reason) }
    }
}

impl std::error::Error for Incompatible {}

impl Schema {
    /// Whether any consumer with this schema can read what was written with `writer`.
    ///
    /// # Errors
    /// The first field that stands in the way.
    pub fn can_read(&self, writer: &Schema) -> Result<(), Incompatible> {
        let mut check = Check { reader: self, writer, known: HashMap::new() };
        check.pair(writer.root(), self.root())
    }

    /// Whether the two are the same but for documentation and layout.
    pub fn is_same_as(&self, other: &Schema) -> bool {
        self.can_read(other).is_ok() && other.can_read(self).is_ok() && self.canonical() == other.canonical()
    }

    /// The schema's types, names, fields, symbols and defaults, without documentation.
    fn canonical(&self) -> Option<serde_json::Value> {
        fn strip(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::Object(members) => {
                    members.shift_remove("doc");
                    members.values_mut().for_each(strip);
                }
                serde_json::Value::Array(values) => values.iter_mut().for_each(strip),
                _ => {}
            }
        }
        let mut value = serde_json::from_str(self.text()).ok()?;
        strip(&mut value);
        Some(value)
    }
}

struct Check<'a> {
    reader: &'a Schema,
    writer: &'a Schema,
    known: HashMap<(ShapeId, ShapeId), Result<(), Incompatible>>,
}

impl Check<'_> {
    fn pair(&mut self, writer: ShapeId, reader: ShapeId) -> Result<(), Incompatible> {
        if let Some(verdict) = self.known.get(&(writer, reader)) {
            return verdict.clone();
        }
        // A pair met again while it is being looked at is recursion, which brings nothing new.
        self.known.insert((writer, reader), Ok(()));
        let verdict = self.shapes(writer, reader);
        self.known.insert((writer, reader), verdict.clone());
        verdict
    }

    fn shapes(&mut self, writer_id: ShapeId, reader_id: ShapeId) -> Result<(), Incompatible> {
        let (writer, reader) = (self.writer.shape(writer_id), self.reader.shape(reader_id));
        let no = |reason: String| Err(Incompatible { field: String::new(), reason });
        match (writer, reader) {
            (Shape::Union(branches), _) => branches.iter().try_for_each(|branch| self.pair(*branch, reader_id)),
            (_, Shape::Union(branches)) => {
                // The reason that counts is the one of the branch that is meant: the one of the same kind.
                let mut failed = Vec::new();
                for branch in branches {
                    match self.pair(writer_id, *branch) {
                        Ok(()) => return Ok(()),
                        Err(e) if self.reader.shape(*branch).kind() == writer.kind() => failed.insert(0, e),
                        Err(e) => failed.push(e),
                    }
                }
                match failed.into_iter().next() {
                    Some(e) if branches.iter().any(|b| self.reader.shape(*b).kind() == writer.kind()) => Err(e),
                    _ => no(format!("{} is no branch of the reader's union", writer.kind())),
                }
            }
            (Shape::Decimal { precision: p, scale: s, fixed: f }, Shape::Decimal { precision, scale, fixed }) => {
                if f == fixed && s == scale && p <= precision {
                    Ok(())
                } else {
                    no(format!("decimal({p}, {s}) is not decimal({precision}, {scale})"))
                }
            }
            (Shape::Time(from), Shape::Time(to)) if from != to => no(format!("{} is not {}", writer.kind(), reader.kind())),
            (Shape::Array(from), Shape::Array(to)) | (Shape::Map(from), Shape::Map(to)) => {
                self.pair(*from, *to).map_err(|e| within("[]", e))
            }
            (Shape::Enum { symbols, name: from, .. }, Shape::Enum { symbols: ours, name: to, default }) => {
                same_name(from, to)?;
                match symbols.iter().find(|s| !ours.contains(s)) {
                    Some(symbol) if !default => no(format!("the symbol '{symbol}' is not known, and there is no default")),
                    _ => Ok(()),
                }
            }
            (Shape::Record { name: from, .. }, Shape::Record { name: to, .. }) => {
                same_name(from, to)?;
                self.records(writer_id, reader_id)
            }
            (from, to) if from == to || promotes(from, to) => Ok(()),
            (from, to) => no(format!("{} can't be read as {}", from.kind(), to.kind())),
        }
    }

    fn records(&mut self, writer: ShapeId, reader: ShapeId) -> Result<(), Incompatible> {
        let (Shape::Record { fields: theirs, .. }, Shape::Record { fields: ours, .. }) =
            (self.writer.shape(writer), self.reader.shape(reader))
        else {
            return Ok(());
        };
        for field in ours {
            let theirs = theirs.iter().find(|t| t.name == field.name).or_else(|| theirs.iter().find(|t| field.aliases.contains(&t.name)));
            match theirs {
                Some(theirs) => self.pair(theirs.shape, field.shape).map_err(|e| within(&field.name, e))?,
                None if field.default.is_some() => {}
                None => return Err(Incompatible { field: field.name.clone(), reason: "is not written, and has no default".into() }),
            }
        }
        Ok(())
    }
}

fn same_name(from: &str, to: &str) -> Result<(), Incompatible> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    if last(from) == last(to) {
        return Ok(());
    }
    Err(Incompatible { field: String::new(), reason: format!("the type is named {from}, not {to}") })
}

fn promotes(from: &Shape, to: &Shape) -> bool {
    use Shape as S;
    matches!(
        (from, to),
        (S::Int, S::Long | S::Float | S::Double)
            | (S::Long, S::Float | S::Double | S::Time(_))
            | (S::Float, S::Double)
            | (S::String, S::Bytes)
            | (S::Bytes, S::String)
            | (S::Time(_), S::Long)
            | (S::Date, S::Int)
            | (S::Int, S::Date)
    )
}

fn within(outer: &str, e: Incompatible) -> Incompatible {
    Incompatible { field: crate::error::path(outer, &e.field), reason: e.reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> Schema {
        Schema::parse(&format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)).unwrap()
    }

    #[test]
    fn each_rule_of_resolution_names_the_field_it_breaks() {
        const AMOUNT: &str = r#"{"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": "#;
        let amount = |scale: u32| format!(r#"{{"name": "a", "type": ["null", {AMOUNT}{scale}}}]}}"#);
        let list = |t: &str| {
            format!(
                r#"{{"name": "l", "type": {{"type": "array", "items": {{"type": "record", "name": "I", "fields": [{{"name": "p", "type": {t}}}]}}}}}}"#
            )
        };
        let int = r#"{"name": "a", "type": "int"}"#;
        for (writer, reader, expected) in [
            (int, r#"{"name": "a", "type": "long"}"#, ""),
            (r#"{"name": "a", "type": "long"}"#, int, "a: long can't be read as int"),
            ("", int, "a: is not written, and has no default"),
            ("", r#"{"name": "a", "type": "int", "default": 3}"#, ""),
            (int, "", ""),
            (int, r#"{"name": "b", "aliases": ["a"], "type": "int"}"#, ""),
            (int, r#"{"name": "a", "type": ["null", "int"]}"#, ""),
            (r#"{"name": "a", "type": ["null", "int"]}"#, int, "a: null can't be read as int"),
            (&amount(4), &amount(4), ""),
            (&amount(4), &amount(2), "a: decimal(28, 4) is not decimal(28, 2)"),
            (&list("\"string\""), &list("\"int\""), "l[].p: string can't be read as int"),
            (
                r#"{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}"#,
                r#"{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}"#,
                "e: the symbol 'B' is not known, and there is no default",
            ),
            (
                r#"{"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}}"#,
                r#"{"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}}"#,
                "t: timestamp-micros is not timestamp-millis",
            ),
        ] {
            let verdict = record(reader).can_read(&record(writer)).err().map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(verdict, expected, "{writer} read as {reader}");
        }
    }

    #[test]
    fn agrees_with_apache_avro_where_that_one_can_tell() {
        let schemas = [
            "\"int\"",
            "\"long\"",
            "\"double\"",
            "\"string\"",
            r#"["null", "int"]"#,
            r#"["null", "long"]"#,
            r#"{"type": "array", "items": "int"}"#,
        ]
        .map(|t| format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "a", "type": {t}}}]}}"#));
        for writer in &schemas {
            for reader in &schemas {
                let parse = |text: &str| apache_avro::Schema::parse_str(text).unwrap();
                let theirs = apache_avro::schema_compatibility::SchemaCompatibility::can_read(&parse(writer), &parse(reader)).is_ok();
                let ours = Schema::parse(reader).unwrap().can_read(&Schema::parse(writer).unwrap()).is_ok();
                assert_eq!(ours, theirs, "{writer} read as {reader}");
            }
        }
    }

    #[test]
    fn documentation_is_no_difference_and_a_default_is_one() {
        let a = record(r#"{"name": "a", "type": "int", "doc": "x"}"#);
        assert!(a.is_same_as(&record(r#"{"name": "a", "type": "int", "doc": "y"}"#)));
        assert!(!a.is_same_as(&record(r#"{"name": "a", "type": "int", "default": 1}"#)));
    }
}
