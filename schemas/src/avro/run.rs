//! From a datum to JSON: every length is checked against the bytes that are there before anything is kept.

use super::{
    input::{self, Input},
    read::{FieldStep, Step, StepId},
    schema::{Content, Shape, TimeUnit},
};
use crate::{DecodeError, error::shorten};
use std::io::Write;

/// The most bytes of JSON that one datum may become: six for each byte of the longest value that is read (`\u0000`),
/// and the names.
const LONGEST_JSON: usize = 64 * 1024 * 1024;

/// How deep values may be nested; no schema of ours goes beyond four, a recursive one could go on for ever.
const DEEPEST: usize = 64;

/// Values that one datum may hold beyond so many for each of its bytes: nulls and empty records take none, and a schema
/// can nest those without end.
const MOST_EMPTY_VALUES: usize = 65_536;
const MOST_VALUES_A_BYTE: usize = 16;

/// One datum being read.
pub(super) struct Run<'s, 'd> {
    steps: &'s [Step],
    input: Input<'d>,
    out: Vec<u8>,
    /// How many more values may follow.
    values: usize,
}

impl<'s, 'd> Run<'s, 'd> {
    pub(super) fn to_json(steps: &'s [Step], root: StepId, datum: &'d [u8]) -> Result<Vec<u8>, DecodeError> {
        let values = datum.len().saturating_mul(MOST_VALUES_A_BYTE).saturating_add(MOST_EMPTY_VALUES);
        let mut run = Run { steps, input: Input::new(datum), out: Vec::with_capacity(datum.len() * 2 + 64), values };
        run.value(root, 0)?;
        run.input.end()?;
        Ok(run.out)
    }

    /// Writes the next value; tells whether it was something other than null.
    fn value(&mut self, step: StepId, depth: usize) -> Result<bool, DecodeError> {
        self.enter(depth)?;
        let steps = self.steps;
        match steps.get(step) {
            None => Err(DecodeError::at("", "the schema has a hole")),
            Some(Step::Plain(shape)) => self.plain(shape),
            Some(Step::Enum(symbols)) => {
                let index = self.input.long()?;
                let symbol = usize::try_from(index).ok().and_then(|i| symbols.get(i));
                let symbol = symbol.ok_or_else(|| DecodeError::at("", format!("an enum has no symbol number {index}")))?;
                self.write(symbol.as_bytes())?;
                Ok(true)
            }
            Some(Step::Union(branches)) => {
                let index = self.input.long()?;
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
                    run.value(*items, depth + 1).map_err(|e| e.within(&format!("[{count}]")))?;
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
                    let key = run.input.text()?;
                    run.string(key)?;
                    run.write(b":")?;
                    run.value(*values, depth + 1).map_err(|e| e.within(&shorten(key)))?;
                    Ok(())
                })?;
                self.write(b"}")?;
                Ok(true)
            }
            Some(Step::Record { fields, defaults }) => self.record(fields, defaults, depth),
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth > DEEPEST {
            return Err(DecodeError::at("", format!("nested more than {DEEPEST} deep")));
        }
        self.values = self.values.checked_sub(1).ok_or_else(|| DecodeError::at("", "more values than so few bytes should hold"))?;
        Ok(())
    }

    fn record(&mut self, fields: &[FieldStep], defaults: &[String], depth: usize) -> Result<bool, DecodeError> {
        self.write(b"{")?;
        let start = self.out.len();
        for field in fields {
            self.field(field, start, depth).map_err(|e| e.within(&field.name))?;
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
        self.enter(depth)?;
        let steps = self.steps;
        match steps.get(step) {
            None => Err(DecodeError::at("", "the schema has a hole")),
            Some(Step::Enum(_)) => self.input.long().map(drop),
            Some(Step::Union(branches)) => {
                let index = self.input.long()?;
                let branch = usize::try_from(index).ok().and_then(|i| branches.get(i));
                self.skip(*branch.ok_or_else(|| DecodeError::at("", format!("a union has no branch number {index}")))?, depth + 1)
            }
            Some(Step::Array(items)) => self.blocks(|run| run.skip(*items, depth + 1)),
            Some(Step::Map(values)) => self.blocks(|run| {
                run.input.bytes()?;
                run.skip(*values, depth + 1)
            }),
            Some(Step::Record { fields, .. }) => fields.iter().try_for_each(|field| self.skip(field.step, depth + 1)),
            Some(Step::Plain(shape)) => match shape {
                Shape::Null => Ok(()),
                Shape::Boolean => self.input.byte().map(drop),
                Shape::Float => self.input.take(4).map(drop),
                Shape::Double => self.input.take(8).map(drop),
                Shape::Fixed(size) | Shape::Decimal { fixed: Some(size), .. } => self.input.take(*size).map(drop),
                Shape::Bytes | Shape::String | Shape::Decimal { fixed: None, .. } => self.input.bytes().map(drop),
                _ => self.input.long().map(drop),
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
            Shape::Boolean => match self.input.byte()? {
                0 => self.write(b"false")?,
                1 => self.write(b"true")?,
                other => return Err(DecodeError::at("", format!("a boolean is 0 or 1, not {other}"))),
            },
            Shape::Int | Shape::Long | Shape::Time(TimeUnit::Millis) => {
                let n = self.input.long()?;
                self.show(n)?;
            }
            Shape::Time(TimeUnit::Micros) => {
                let n = self.input.long()?;
                self.show(n.div_euclid(1_000))?;
            }
            Shape::Time(TimeUnit::Nanos) => {
                let n = self.input.long()?;
                self.show(n.div_euclid(1_000_000))?;
            }
            Shape::Date => {
                let day = self.input.long()?;
                let date = i32::try_from(day)
                    .ok()
                    .and_then(|d| jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(d).ok()?).ok());
                let date = date.ok_or_else(|| DecodeError::at("", format!("day {day} after 1970 is no date")))?;
                self.show(format_args!("\"{date}\""))?;
            }
            Shape::Float => {
                let n = f32::from_le_bytes(*self.input.chunk()?);
                self.number(n.is_finite(), n)?;
            }
            Shape::Double => {
                let n = f64::from_le_bytes(*self.input.chunk()?);
                self.number(n.is_finite(), n)?;
            }
            Shape::Bytes | Shape::String => {
                let text = self.input.text()?;
                self.string(text)?;
            }
            Shape::Fixed(size) => {
                let bytes = self.input.take(*size)?;
                for byte in std::iter::once("\"".to_owned()).chain(bytes.iter().map(|b| format!("{b:02x}"))).chain(["\"".to_owned()]) {
                    self.write(byte.as_bytes())?;
                }
            }
            Shape::Decimal { scale, fixed, .. } => {
                let bytes = match fixed {
                    Some(size) => self.input.take(*size)?,
                    None => self.input.bytes()?,
                };
                let amount = input::decimal(bytes, *scale)?;
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
            let mut count = self.input.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // A negative count is followed by the block's size in bytes, for those who skip it.
                self.input.long()?;
                count = count.checked_neg().ok_or_else(|| DecodeError::at("", "a block of too many elements"))?;
            }
            for _ in 0..count {
                element(self)?;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if self.out.len() + bytes.len() > LONGEST_JSON {
            return Err(DecodeError::at("", format!("becomes more than {LONGEST_JSON} bytes of JSON")));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Something short, such as a number.
    fn show(&mut self, what: impl std::fmt::Display) -> Result<(), DecodeError> {
        write!(self.out, "{what}").map_err(|e| DecodeError::at("", e.to_string()))
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

/// What stands between the braces of a JSON object.
pub(super) fn members(json: &[u8]) -> Option<&str> {
    std::str::from_utf8(json).ok()?.trim().strip_prefix('{')?.strip_suffix('}').map(str::trim)
}
