//! An Avro schema as a flat list of shapes: names are resolved once, recursion is an index.

use crate::error::{shorten, shorten_to};
use apache_avro::schema::{Name, Namespace, RecordField, Schema as Parsed};
use serde_json::Value;
use std::collections::HashMap;

/// An Avro schema.
#[derive(Clone, Debug)]
pub struct Schema {
    text: String,
    shapes: Vec<Shape>,
    root: ShapeId,
}

/// Why a text is no Avro schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Avro schema: {0}")]
pub struct SchemaError(pub(crate) String);

/// The place of a shape in its schema.
pub(crate) type ShapeId = usize;

/// One type of a schema, reduced to what its bytes mean.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// Days since 1970-01-01.
    Date,
    Time(TimeUnit),
    Decimal {
        precision: u32,
        scale: u32,
        /// The size, where the bytes are not preceded by their number.
        fixed: Option<usize>,
    },
    Enum {
        name: String,
        symbols: Vec<String>,
        default: bool,
    },
    Array(ShapeId),
    Map(ShapeId),
    Union(Vec<ShapeId>),
    Record {
        name: String,
        fields: Vec<Field>,
    },
}

/// What a timestamp counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    Millis,
    Micros,
    Nanos,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub name: String,
    pub aliases: Vec<String>,
    pub shape: ShapeId,
    pub default: Option<Value>,
    pub content: Content,
}

/// What a field's text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Itself.
    Plain,
    /// JSON, which is the field's value.
    Json,
    /// A JSON object, whose members stand beside the record's own fields.
    Members,
}

/// More nested or more numerous types than any real schema has.
const MOST_SHAPES: usize = 20_000;

impl Schema {
    /// Reads the JSON form of a schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        Self::parse_with(text, &[])
    }

    /// Reads a schema that names types of `others`, as Confluent's references do.
    ///
    /// # Errors
    /// Says what is wrong with it, or with one of the others.
    pub fn parse_with(text: &str, others: &[String]) -> Result<Self, SchemaError> {
        let wrong = |e: apache_avro::Error| SchemaError(shorten_to(300, &e.to_string()));
        let others = others.iter().map(|o| prepared(o)).collect::<Result<Vec<_>, _>>()?;
        let (parsed, rest) = Parsed::parse_str_with_list(&prepared(text)?, &others).map_err(wrong)?;
        let mut compiler = Compiler { shapes: Vec::new(), by_name: HashMap::new(), definitions: HashMap::new() };
        for schema in &rest {
            if let Some(name) = schema.name() {
                compiler.definitions.insert(name.fullname(None), schema);
            }
        }
        let root = compiler.shape(&parsed, &None)?;
        Ok(Self { text: text.to_owned(), shapes: compiler.shapes, root })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether its values are records, as those of all topics are.
    pub fn is_record(&self) -> bool {
        match self.shape(self.root) {
            Shape::Record { .. } => true,
            Shape::Union(branches) => branches.iter().any(|b| matches!(self.shape(*b), Shape::Record { .. })),
            _ => false,
        }
    }

    pub(crate) fn root(&self) -> ShapeId {
        self.root
    }

    pub(crate) fn shape(&self, id: ShapeId) -> &Shape {
        // Ids are only ever made by the compiler below, for this list.
        self.shapes.get(id).unwrap_or(&Shape::Null)
    }
}

impl Shape {
    /// The type's name in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Fixed(_) => "fixed",
            Self::Date => "date",
            Self::Time(TimeUnit::Millis) => "timestamp-millis",
            Self::Time(TimeUnit::Micros) => "timestamp-micros",
            Self::Time(TimeUnit::Nanos) => "timestamp-nanos",
            Self::Decimal { .. } => "decimal",
            Self::Enum { .. } => "enum",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Union(_) => "union",
            Self::Record { .. } => "record",
        }
    }
}

/// The schema with valid names and without the logical types that mean nothing here: `apache-avro` panics at the
/// former, and of the latter keeps no difference between a uuid that is a string and one that is fixed.
fn prepared(text: &str) -> Result<String, SchemaError> {
    // A registry may answer with the bare name of a primitive type, which is JSON only in quotes.
    let mut value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase()) => Value::String(text.to_owned()),
        Err(e) => return Err(SchemaError(format!("not JSON: {e}"))),
    };
    prepare(&mut value)?;
    Ok(value.to_string())
}

fn prepare(schema: &mut Value) -> Result<(), SchemaError> {
    match schema {
        Value::String(name) => check_name(name),
        Value::Array(branches) => branches.iter_mut().try_for_each(prepare),
        Value::Object(members) => {
            const KNOWN: [&str; 5] = ["decimal", "date", "timestamp-millis", "timestamp-micros", "timestamp-nanos"];
            if members.get("logicalType").is_some_and(|t| !t.as_str().is_some_and(|t| KNOWN.contains(&t))) {
                members.shift_remove("logicalType");
            }
            for name in ["name", "namespace"] {
                match members.get(name) {
                    None => {}
                    Some(Value::String(given)) if given.is_empty() && name == "namespace" => {}
                    Some(Value::String(given)) => check_name(given)?,
                    Some(other) => return Err(SchemaError(format!("{} is no {name}", shorten(&other.to_string())))),
                }
            }
            for alias in members.get("aliases").and_then(Value::as_array).into_iter().flatten() {
                check_name(alias.as_str().unwrap_or_default())?;
            }
            for part in ["type", "items", "values"] {
                members.get_mut(part).map_or(Ok(()), prepare)?;
            }
            members.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten().try_for_each(prepare)
        }
        other => Err(SchemaError(format!("{other} is no type"))),
    }
}

/// Names are words joined by dots.
fn check_name(name: &str) -> Result<(), SchemaError> {
    let word =
        |w: &str| w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.split('.').all(word) { Ok(()) } else { Err(SchemaError(format!("'{}' is no name", shorten(name)))) }
}

struct Compiler<'a> {
    shapes: Vec<Shape>,
    by_name: HashMap<String, ShapeId>,
    /// Types of referenced schemas, compiled when they are first named.
    definitions: HashMap<String, &'a Parsed>,
}

impl<'a> Compiler<'a> {
    fn add(&mut self, shape: Shape) -> Result<ShapeId, SchemaError> {
        if self.shapes.len() >= MOST_SHAPES {
            return Err(SchemaError(format!("has more than {MOST_SHAPES} types")));
        }
        self.shapes.push(shape);
        Ok(self.shapes.len() - 1)
    }

    fn shape(&mut self, schema: &'a Parsed, namespace: &Namespace) -> Result<ShapeId, SchemaError> {
        let shape = match schema {
            Parsed::Null => Shape::Null,
            Parsed::Boolean => Shape::Boolean,
            Parsed::Int | Parsed::TimeMillis => Shape::Int,
            Parsed::Date => Shape::Date,
            Parsed::Long | Parsed::TimeMicros => Shape::Long,
            Parsed::LocalTimestampMillis | Parsed::LocalTimestampMicros | Parsed::LocalTimestampNanos => Shape::Long,
            Parsed::TimestampMillis => Shape::Time(TimeUnit::Millis),
            Parsed::TimestampMicros => Shape::Time(TimeUnit::Micros),
            Parsed::TimestampNanos => Shape::Time(TimeUnit::Nanos),
            Parsed::Float => Shape::Float,
            Parsed::Double => Shape::Double,
            Parsed::Bytes | Parsed::BigDecimal => Shape::Bytes,
            Parsed::String | Parsed::Uuid => Shape::String,
            Parsed::Duration => Shape::Fixed(12),
            Parsed::Fixed(fixed) => return self.named(&fixed.name, namespace, Shape::Fixed(fixed.size)),
            Parsed::Decimal(decimal) => {
                let number = |n: usize| u32::try_from(n).map_err(|_| SchemaError(format!("a decimal of {n} digits")));
                let (precision, scale) = (number(decimal.precision)?, number(decimal.scale)?);
                match decimal.inner.as_ref() {
                    Parsed::Fixed(fixed) => {
                        return self.named(&fixed.name, namespace, Shape::Decimal { precision, scale, fixed: Some(fixed.size) });
                    }
                    _ => Shape::Decimal { precision, scale, fixed: None },
                }
            }
            Parsed::Enum(e) => {
                let name = e.name.fully_qualified_name(namespace);
                let shape = Shape::Enum { name: name.fullname(None), symbols: e.symbols.clone(), default: e.default.is_some() };
                return self.named(&e.name, namespace, shape);
            }
            Parsed::Array(array) => Shape::Array(self.shape(&array.items, namespace)?),
            Parsed::Map(map) => Shape::Map(self.shape(&map.types, namespace)?),
            Parsed::Union(union) => Shape::Union(union.variants().iter().map(|v| self.shape(v, namespace)).collect::<Result<_, _>>()?),
            Parsed::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                // The place is taken before the fields are looked at: they may name the record itself.
                let id = self.named(&record.name, namespace, Shape::Null)?;
                let fields = record.fields.iter().map(|f| self.field(f, &name.namespace)).collect::<Result<_, _>>()?;
                if let Some(place) = self.shapes.get_mut(id) {
                    *place = Shape::Record { name: name.fullname(None), fields };
                }
                return Ok(id);
            }
            Parsed::Ref { name } => {
                let name = name.fully_qualified_name(namespace).fullname(None);
                if let Some(id) = self.by_name.get(&name) {
                    return Ok(*id);
                }
                let Some(definition) = self.definitions.get(&name).copied() else {
                    return Err(SchemaError(format!("the type '{}' is not defined", shorten(&name))));
                };
                return self.shape(definition, &None);
            }
        };
        self.add(shape)
    }

    fn named(&mut self, name: &Name, namespace: &Namespace, shape: Shape) -> Result<ShapeId, SchemaError> {
        let id = self.add(shape)?;
        self.by_name.insert(name.fully_qualified_name(namespace).fullname(None), id);
        Ok(id)
    }

    fn field(&mut self, field: &'a RecordField, namespace: &Namespace) -> Result<Field, SchemaError> {
        let content = match field.custom_attributes.get("tillflow.json").and_then(Value::as_str) {
            Some("value") => Content::Json,
            Some("members") => Content::Members,
            _ => Content::Plain,
        };
        Ok(Field {
            name: field.name.clone(),
            aliases: field.aliases.clone().unwrap_or_default(),
            shape: self.shape(&field.schema, namespace)?,
            default: field.default.clone(),
            content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_through_namespaces_recursion_and_references() {
        let tree = Schema::parse(
            r#"{"type": "record", "name": "a.Tree", "fields": [
                {"name": "left", "type": ["null", "Tree"]}, {"name": "right", "type": ["null", "a.Tree"]}]}"#,
        )
        .unwrap();
        let Shape::Record { name, fields } = tree.shape(tree.root()) else { panic!() };
        assert_eq!(name, "a.Tree");
        for field in fields {
            let Shape::Union(variants) = tree.shape(field.shape) else { panic!() };
            assert_eq!(variants.get(1), Some(&tree.root()));
        }
        let money = r#"{"type": "fixed", "name": "x.Id", "size": 16, "logicalType": "uuid"}"#.to_owned();
        let order = r#"{"type": "record", "name": "Order", "namespace": "x", "fields": [{"name": "id", "type": "Id"}]}"#;
        let order = Schema::parse_with(order, &[money]).unwrap();
        let Shape::Record { fields, .. } = order.shape(order.root()) else { panic!() };
        assert_eq!(order.shape(fields[0].shape), &Shape::Fixed(16));
    }

    #[test]
    fn what_is_no_schema_is_said_in_words() {
        for (text, words) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            (r#"{"type": "record"}"#, "name"),
            (r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}]}"#, "B"),
            ("\"stringy\"", "stringy"),
        ] {
            let error = Schema::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("not an Avro schema") && error.contains(words), "{text}: {error}");
        }
        assert_eq!(Schema::parse("string").unwrap().shape(0), &Shape::String);
    }
}
