//! A writer's schema matched with ours: which field becomes which, what is passed over, what is filled in.

use super::{
    run::{Run, members},
    schema::{Content, Field, Schema, Shape, ShapeId},
};
use crate::DecodeError;
use serde_json::Value;
use std::collections::HashMap;

/// A writer's schema matched with ours, ready to read data.
///
/// Matching is wider than Avro's resolution: record names are not compared, and a type that differs is judged
/// by the value it brings, as in JSON. Fields of ours that the writer lacks take our default.
#[derive(Clone, Debug)]
pub struct Reader {
    steps: Vec<Step>,
    root: StepId,
}

pub(super) type StepId = usize;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Taken by its bytes alone.
    Plain(Shape),
    /// Text of each symbol, in quotes.
    Enum(Vec<String>),
    Array(StepId),
    Map(StepId),
    Union(Vec<StepId>),
    Record {
        fields: Vec<FieldStep>,
        /// Members for what the writer lacks and we have a default for.
        defaults: Vec<String>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct FieldStep {
    pub name: String,
    pub step: StepId,
    /// The member's name in JSON, with quotes and colon, and what its text is; `None` where we have no such field.
    pub out: Option<(String, Content)>,
}

impl Reader {
    /// Matches `writer` with `reader`; without a reader every field is read under the writer's name for it.
    pub fn new(writer: &Schema, reader: Option<&Schema>) -> Self {
        let mut matcher = Matcher { writer, reader, steps: Vec::new(), known: HashMap::new() };
        let root = matcher.step(writer.root(), reader.map(Schema::root));
        Self { steps: matcher.steps, root }
    }

    /// The datum as JSON.
    ///
    /// # Errors
    /// The datum is cut off, goes on after its end, or does not fit the writer's schema; names the field.
    pub fn to_json(&self, datum: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Run::to_json(&self.steps, self.root, datum)
    }
}

struct Matcher<'a> {
    writer: &'a Schema,
    reader: Option<&'a Schema>,
    steps: Vec<Step>,
    known: HashMap<(ShapeId, Option<ShapeId>), StepId>,
}

impl Matcher<'_> {
    fn step(&mut self, writer: ShapeId, reader: Option<ShapeId>) -> StepId {
        if let Some(step) = self.known.get(&(writer, reader)) {
            return *step;
        }
        let place = self.steps.len();
        self.steps.push(Step::Plain(Shape::Null));
        self.known.insert((writer, reader), place);
        let step = match self.writer.shape(writer) {
            Shape::Enum { symbols, .. } => Step::Enum(symbols.iter().map(|s| quoted(s)).collect()),
            Shape::Array(items) => {
                let reader = self.like(reader, writer, |shape| if let Shape::Array(items) = shape { Some(*items) } else { None });
                Step::Array(self.step(*items, reader))
            }
            Shape::Map(values) => {
                let reader = self.like(reader, writer, |shape| if let Shape::Map(values) = shape { Some(*values) } else { None });
                Step::Map(self.step(*values, reader))
            }
            // Each branch looks for its own match: the reader's shape may be a union in turn, or one of the branches.
            Shape::Union(variants) => Step::Union(variants.iter().map(|v| self.step(*v, reader)).collect()),
            Shape::Record { fields, .. } => self.record(writer, fields, reader),
            plain => Step::Plain(plain.clone()),
        };
        if let Some(slot) = self.steps.get_mut(place) {
            *slot = step;
        }
        place
    }

    /// What `pick` finds in the reader's shape, or in the branch of its union that is most like the writer's.
    fn like<T>(&self, reader: Option<ShapeId>, writer: ShapeId, pick: impl Fn(&Shape) -> Option<T>) -> Option<T> {
        let schema = self.reader?;
        let name = |shape: &Shape| if let Shape::Record { name, .. } = shape { Some(name.clone()) } else { None };
        match schema.shape(reader?) {
            Shape::Union(variants) => {
                let wanted = name(self.writer.shape(writer));
                let mut found: Vec<_> = variants.iter().filter(|v| pick(schema.shape(**v)).is_some()).collect();
                found.sort_by_key(|v| name(schema.shape(**v)) != wanted);
                found.first().and_then(|v| pick(schema.shape(**v)))
            }
            shape => pick(shape),
        }
    }

    fn record(&mut self, writer: ShapeId, fields: &[Field], reader: Option<ShapeId>) -> Step {
        let ours = self.like(reader, writer, |shape| if let Shape::Record { fields, .. } = shape { Some(fields.clone()) } else { None });
        let mut taken = Vec::new();
        let fields = fields
            .iter()
            .map(|field| {
                let own = |name: &str| Some((member(name), field.content));
                let (out, shape) = match &ours {
                    None => (own(&field.name), None),
                    Some(ours) => {
                        let by_name = ours.iter().find(|o| o.name == field.name);
                        match by_name.or_else(|| ours.iter().find(|o| o.aliases.contains(&field.name))) {
                            Some(o) if !taken.contains(&o.name) => {
                                taken.push(o.name.clone());
                                (Some((member(&o.name), o.content)), Some(o.shape))
                            }
                            _ => (None, None),
                        }
                    }
                };
                FieldStep { name: field.name.clone(), step: self.step(field.shape, shape), out }
            })
            .collect();
        let defaults = ours.iter().flatten().filter(|o| !taken.contains(&o.name)).filter_map(default_member).collect();
        Step::Record { fields, defaults }
    }
}

fn default_member(field: &Field) -> Option<String> {
    let default = field.default.as_ref().filter(|d| !d.is_null())?;
    match (field.content, default) {
        (Content::Plain, default) => Some(format!("{}{default}", member(&field.name))),
        (Content::Json, Value::String(json)) => Some(format!("{}{json}", member(&field.name))),
        (Content::Members, Value::String(json)) => members(json.as_bytes()).filter(|m| !m.is_empty()).map(str::to_owned),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn member(name: &str) -> String {
    format!("{}:", quoted(name))
}
