//! From a datum to JSON: every length is checked against the bytes that are there before anything is kept.

use super::schema::{Content, Schema, Shape, ShapeId, TimeUnit};
use crate::{DecodeError, error::shorten};
use rust_decimal::Decimal;
use serde_json::Value;
use std::collections::HashMap;

/// The most bytes of JSON that one datum may become: six for each byte of the longest value that is read (`\u0000`),
/// and the names.
const LONGEST_JSON: usize = 64 * 1024 * 1024;

/// How deep values may be nested; no schema of ours goes beyond four, a recursive one could go on for ever.
const DEEPEST: usize = 64;

/// Elements of arrays and maps that may take no bytes at all, such as nulls.
const MOST_EMPTY_ELEMENTS: usize = 65_536;

/// A writer's schema matched with ours, ready to read data.
///
/// Matching is wider than Avro's resolution: record names are not compared, and a type that differs is judged
/// by the value it brings, as in JSON. Fields of ours that the writer lacks take our default.
#[derive(Clone, Debug)]
pub struct Reader {
    steps: Vec<Step>,
    root: StepId,
}

type StepId = usize;

#[derive(Clone, Debug)]
enum Step {
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
struct FieldStep {
    name: String,
    step: StepId,
    /// The member's name in JSON, with quotes and colon, and what its text is; `None` where we have no such field.
    out: Option<(String, Content)>,
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
        let mut run = Run { steps: &self.steps, rest: datum, out: Vec::with_capacity(datum.len() * 2 + 64), empty: MOST_EMPTY_ELEMENTS };
        run.value(self.root, 0)?;
        if !run.rest.is_empty() {
            return Err(DecodeError::at("", format!("{} bytes follow the Avro datum; is it another schema's?", run.rest.len())));
        }
        Ok(run.out)
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

    fn record(&mut self, writer: ShapeId, fields: &[super::schema::Field], reader: Option<ShapeId>) -> Step {
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

fn default_member(field: &super::schema::Field) -> Option<String> {
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

/// What stands between the braces of a JSON object.
fn members(json: &[u8]) -> Option<&str> {
    std::str::from_utf8(json).ok()?.trim().strip_prefix('{')?.strip_suffix('}').map(str::trim)
}

struct Run<'s, 'd> {
    steps: &'s [Step],
    rest: &'d [u8],
    out: Vec<u8>,
    empty: usize,
}

impl<'s, 'd> Run<'s, 'd> {
    /// Writes the next value; tells whether it was something other than null.
    fn value(&mut self, step: StepId, depth: usize) -> Result<bool, DecodeError> {
        if depth > DEEPEST {
            return Err(DecodeError::at("", format!("nested more than {DEEPEST} deep")));
        }
        let steps = self.steps;
        match steps.get(step) {
            None => Err(DecodeError::at("", "the schema has a hole")),
            Some(Step::Plain(shape)) => self.plain(shape),
            Some(Step::Enum(symbols)) => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|i| symbols.get(i));
                let symbol = symbol.ok_or_else(|| DecodeError::at("", format!("an enum has no symbol number {index}")))?;
                self.write(symbol.as_bytes())?;
                Ok(true)
            }
            Some(Step::Union(branches)) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|i| branches.get(i));
                let branch = branch.ok_or_else(|| DecodeError::at("", format!("a union has no branch number {index}")))?;
                self.value(*branch, depth + 1)
            }
            Some(Step::Array(items)) => {
                self.write(b"[")?;
                let mut count = 0_usize;
                self.blocks(|run| {
                    if count > 0 {
                        run.write(b",")?;
                    }
                    run.value(*items, depth + 1).map_err(|e| within(&format!("[{count}]"), e))?;
                    count += 1;
                    Ok(())
                })?;
                self.write(b"]")?;
                Ok(true)
            }
            Some(Step::Map(values)) => {
                self.write(b"{")?;
                let mut first = true;
                self.blocks(|run| {
                    if !std::mem::take(&mut first) {
                        run.write(b",")?;
                    }
                    let key = run.text()?;
                    run.string(key)?;
                    run.write(b":")?;
                    run.value(*values, depth + 1).map_err(|e| within(&shorten(key), e))?;
                    Ok(())
                })?;
                self.write(b"}")?;
                Ok(true)
            }
            Some(Step::Record { fields, defaults }) => self.record(fields, defaults, depth),
        }
    }

    fn record(&mut self, fields: &[FieldStep], defaults: &[String], depth: usize) -> Result<bool, DecodeError> {
        self.write(b"{")?;
        let start = self.out.len();
        for field in fields {
            self.field(field, start, depth).map_err(|e| within(&field.name, e))?;
        }
        for default in defaults {
            self.comma(start)?;
            self.write(default.as_bytes())?;
        }
        self.write(b"}")?;
        Ok(true)
    }

    fn field(&mut self, field: &FieldStep, start: usize, depth: usize) -> Result<(), DecodeError> {
        let mark = self.out.len();
        let Some((member, content)) = &field.out else {
            return self.skip(field.step, depth + 1);
        };
        self.comma(start)?;
        if *content != Content::Members {
            self.write(member.as_bytes())?;
        }
        let value = self.out.len();
        // Null is absent: JSON readers have their own idea of what an absent field means.
        if !self.value(field.step, depth + 1)? {
            self.out.truncate(mark);
            return Ok(());
        }
        if *content == Content::Plain {
            return Ok(());
        }
        let written = self.out.split_off(value);
        let json = json_within(&written)?;
        if *content == Content::Json {
            return self.write(&json);
        }
        let members = members(&json).ok_or_else(|| DecodeError::at("", "holds JSON that is no object"))?;
        if members.is_empty() {
            self.out.truncate(mark);
            return Ok(());
        }
        self.write(members.as_bytes())
    }

    /// Passes over a value that nobody asked for: whatever it holds, it does no harm.
    fn skip(&mut self, step: StepId, depth: usize) -> Result<(), DecodeError> {
        if depth > DEEPEST {
            return Err(DecodeError::at("", format!("nested more than {DEEPEST} deep")));
        }
        let steps = self.steps;
        match steps.get(step) {
            None => Err(DecodeError::at("", "the schema has a hole")),
            Some(Step::Enum(_)) => self.long().map(drop),
            Some(Step::Union(branches)) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|i| branches.get(i));
                self.skip(*branch.ok_or_else(|| DecodeError::at("", format!("a union has no branch number {index}")))?, depth + 1)
            }
            Some(Step::Array(items)) => self.blocks(|run| run.skip(*items, depth + 1)),
            Some(Step::Map(values)) => self.blocks(|run| {
                run.bytes()?;
                run.skip(*values, depth + 1)
            }),
            Some(Step::Record { fields, .. }) => fields.iter().try_for_each(|field| self.skip(field.step, depth + 1)),
            Some(Step::Plain(shape)) => match shape {
                Shape::Null => Ok(()),
                Shape::Boolean => self.byte().map(drop),
                Shape::Float => self.take(4).map(drop),
                Shape::Double => self.take(8).map(drop),
                Shape::Fixed(size) | Shape::Decimal { fixed: Some(size), .. } => self.take(*size).map(drop),
                Shape::Bytes | Shape::String | Shape::Decimal { fixed: None, .. } => self.bytes().map(drop),
                _ => self.long().map(drop),
            },
        }
    }

    fn comma(&mut self, start: usize) -> Result<(), DecodeError> {
        if self.out.len() > start { self.write(b",") } else { Ok(()) }
    }

    fn plain(&mut self, shape: &Shape) -> Result<bool, DecodeError> {
        match shape {
            Shape::Null => {
                self.write(b"null")?;
                return Ok(false);
            }
            Shape::Boolean => match self.byte()? {
                0 => self.write(b"false")?,
                1 => self.write(b"true")?,
                other => return Err(DecodeError::at("", format!("a boolean is 0 or 1, not {other}"))),
            },
            Shape::Int | Shape::Long | Shape::Time(TimeUnit::Millis) => {
                let n = self.long()?;
                self.show(n)?;
            }
            Shape::Time(TimeUnit::Micros) => {
                let n = self.long()?;
                self.show(n.div_euclid(1_000))?;
            }
            Shape::Time(TimeUnit::Nanos) => {
                let n = self.long()?;
                self.show(n.div_euclid(1_000_000))?;
            }
            Shape::Date => {
                let day = self.long()?;
                let date = i32::try_from(day)
                    .ok()
                    .and_then(|d| jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(d).ok()?).ok());
                let date = date.ok_or_else(|| DecodeError::at("", format!("day {day} after 1970 is no date")))?;
                self.show(format_args!("\"{date}\""))?;
            }
            Shape::Float => {
                let n = f32::from_le_bytes(*self.chunk()?);
                self.number(n.is_finite(), n)?;
            }
            Shape::Double => {
                let n = f64::from_le_bytes(*self.chunk()?);
                self.number(n.is_finite(), n)?;
            }
            Shape::Bytes | Shape::String => {
                let text = self.text()?;
                self.string(text)?;
            }
            Shape::Fixed(size) => {
                let bytes = self.take(*size)?;
                for byte in std::iter::once("\"".to_owned()).chain(bytes.iter().map(|b| format!("{b:02x}"))).chain(["\"".to_owned()]) {
                    self.write(byte.as_bytes())?;
                }
            }
            Shape::Decimal { scale, fixed, .. } => {
                let bytes = match fixed {
                    Some(size) => self.take(*size)?,
                    None => self.bytes()?,
                };
                let amount = decimal(bytes, *scale)?;
                self.show(format_args!("\"{amount}\""))?;
            }
            Shape::Enum { .. } | Shape::Array(_) | Shape::Map(_) | Shape::Union(_) | Shape::Record { .. } => {
                return Err(DecodeError::at("", format!("the schema has a {} where a plain type is meant", shape.kind())));
            }
        }
        Ok(true)
    }

    /// Calls `element` for each element of an array or map: blocks of a count and so many elements, until a count of 0.
    fn blocks(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // A negative count is followed by the block's size in bytes, for those who skip it.
                self.long()?;
                count = count.checked_neg().ok_or_else(|| DecodeError::at("", "a block of too many elements"))?;
            }
            for _ in 0..count {
                let before = self.rest.len();
                element(self)?;
                if self.rest.len() == before {
                    self.empty = self.empty.checked_sub(1).ok_or_else(|| DecodeError::at("", "too many elements that take no bytes"))?;
                }
            }
        }
    }

    fn take(&mut self, size: usize) -> Result<&'d [u8], DecodeError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(size)
            .ok_or_else(|| DecodeError::at("", format!("truncated Avro: {size} bytes should follow, {} do", self.rest.len())))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'d [u8; N], DecodeError> {
        let bytes = self.take(N)?;
        bytes.first_chunk().ok_or_else(|| DecodeError::at("", "truncated Avro"))
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.chunk::<1>().map(|[byte]| *byte)
    }

    /// A zigzag variable-length integer.
    fn long(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(DecodeError::at("", "a number longer than 64 bits; is it another schema's datum?"))
    }

    fn bytes(&mut self) -> Result<&'d [u8], DecodeError> {
        let size = self.long()?;
        let size = usize::try_from(size).map_err(|_| DecodeError::at("", format!("a length of {size} bytes")))?;
        self.take(size)
    }

    fn text(&mut self) -> Result<&'d str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|e| DecodeError::at("", format!("not UTF-8: byte {} breaks it", e.valid_up_to())))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if self.out.len() + bytes.len() > LONGEST_JSON {
            return Err(DecodeError::at("", format!("becomes more than {LONGEST_JSON} bytes of JSON")));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn show(&mut self, what: impl std::fmt::Display) -> Result<(), DecodeError> {
        self.write(what.to_string().as_bytes())
    }

    fn string(&mut self, text: &str) -> Result<(), DecodeError> {
        // Escapes only ever lengthen, six times at most; the next write finds out if that was too much.
        serde_json::to_writer(&mut self.out, text).map_err(|e| DecodeError::at("", e.to_string()))
    }

    fn number(&mut self, finite: bool, n: impl serde::Serialize) -> Result<(), DecodeError> {
        if !finite {
            return Err(DecodeError::at("", "not a finite number"));
        }
        serde_json::to_writer(&mut self.out, &n).map_err(|e| DecodeError::at("", e.to_string()))
    }
}

pub(super) fn within(outer: &str, e: DecodeError) -> DecodeError {
    let field = match e.field.as_str() {
        "" => outer.to_owned(),
        inner if inner.starts_with('[') => format!("{outer}{inner}"),
        inner => format!("{outer}.{inner}"),
    };
    DecodeError { field, reason: e.reason }
}

/// The JSON inside a JSON string, or the value itself where the writer's schema spells the object out.
fn json_within(written: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if written.first() != Some(&b'"') {
        return Ok(written.to_vec());
    }
    let wrong = |e: serde_json::Error| DecodeError::at("", format!("should hold JSON: {e}"));
    let text: String = serde_json::from_slice(written).map_err(wrong)?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(wrong)?;
    Ok(text.into_bytes())
}

/// A two's complement big-endian integer, `scale` digits of which stand after the point. Trailing zeros beyond two
/// places are the schema's, not the sender's.
fn decimal(bytes: &[u8], scale: u32) -> Result<Decimal, DecodeError> {
    let too_long = || DecodeError::at("", "not an amount of at most 28 digits");
    let (first, _) = bytes.split_first().ok_or_else(|| DecodeError::at("", "an amount of no bytes"))?;
    let sign = if first & 0x80 == 0 { 0_u8 } else { 0xff };
    let (padding, digits) = bytes.split_at(bytes.len().saturating_sub(16));
    if padding.iter().any(|b| *b != sign) || digits.first().is_some_and(|b| !padding.is_empty() && (b ^ sign) & 0x80 != 0) {
        return Err(too_long());
    }
    let mut wide = [sign; 16];
    if let Some(end) = wide.get_mut(16 - digits.len()..) {
        end.copy_from_slice(digits);
    }
    let (mut unscaled, mut scale) = (i128::from_be_bytes(wide), scale);
    while scale > 28 && unscaled % 10 == 0 {
        (unscaled, scale) = (unscaled / 10, scale - 1);
    }
    let shown = scale.min(2);
    let mut amount = Decimal::try_from_i128_with_scale(unscaled, scale).map_err(|_| too_long())?.normalize();
    if amount.scale() < shown {
        amount.rescale(shown);
    }
    Ok(amount)
}
