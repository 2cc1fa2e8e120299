//! From JSON to a datum of one of our schemas.

use super::schema::{Content, Field, Schema, Shape, ShapeId, TimeUnit};
use crate::{DecodeError, Money, Timestamp, error::shorten};
use serde_json::{Map, Value};

impl Schema {
    /// The datum that the JSON text of an event is.
    ///
    /// # Errors
    /// Not JSON, or a field that the schema has no place for; names the field. Nothing is rounded.
    pub fn encode(&self, json: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let value: Value = crate::json::read(json)?;
        let mut out = Vec::with_capacity(json.len());
        self.put(self.root(), &value, &mut out)?;
        Ok(out)
    }

    fn put(&self, shape: ShapeId, value: &Value, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let shape = self.shape(shape);
        let wrong = || DecodeError::at("", format!("{} is no {}", shorten(&value.to_string()), shape.kind()));
        match (shape, value) {
            (Shape::Null, Value::Null) => {}
            (Shape::Boolean, Value::Bool(b)) => out.push(u8::from(*b)),
            (Shape::Int, Value::Number(n)) => put_long(n.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(wrong)?, out),
            (Shape::Long, Value::Number(n)) => put_long(n.as_i64().ok_or_else(wrong)?, out),
            (Shape::Float, Value::Number(n)) => out.extend_from_slice(&(n.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
            (Shape::Double, Value::Number(n)) => out.extend_from_slice(&n.as_f64().ok_or_else(wrong)?.to_le_bytes()),
            (Shape::String | Shape::Bytes, Value::String(text)) => put_bytes(text.as_bytes(), out),
            (Shape::Time(unit), Value::String(_) | Value::Number(_)) => {
                let ms = serde_json::from_value::<Timestamp>(value.clone()).map_err(|e| DecodeError::at("", e.to_string()))?.millis();
                let in_unit = match unit {
                    TimeUnit::Millis => Some(ms),
                    TimeUnit::Micros => ms.checked_mul(1_000),
                    TimeUnit::Nanos => ms.checked_mul(1_000_000),
                };
                put_long(in_unit.ok_or_else(wrong)?, out);
            }
            (Shape::Decimal { precision, scale, fixed: None }, Value::String(_) | Value::Number(_)) => {
                let amount = serde_json::from_value::<Money>(value.clone()).map_err(|e| DecodeError::at("", e.to_string()))?;
                put_decimal(amount, *precision, *scale, out)?;
            }
            (Shape::Enum { symbols, .. }, Value::String(text)) => {
                let index = symbols.iter().position(|s| s == text).and_then(|i| i64::try_from(i).ok());
                put_long(index.ok_or_else(wrong)?, out);
            }
            (Shape::Array(items), Value::Array(values)) => {
                put_count(values.len(), out);
                for (i, value) in values.iter().enumerate() {
                    self.put(*items, value, out).map_err(|e| e.within(&format!("[{i}]")))?;
                }
                if !values.is_empty() {
                    put_long(0, out);
                }
            }
            (Shape::Map(values), Value::Object(members)) => {
                put_count(members.len(), out);
                for (name, value) in members {
                    put_bytes(name.as_bytes(), out);
                    self.put(*values, value, out).map_err(|e| e.within(&shorten(name)))?;
                }
                if !members.is_empty() {
                    put_long(0, out);
                }
            }
            (Shape::Union(variants), value) => {
                let (index, variant) = variants.iter().enumerate().find(|(_, v)| fits(self.shape(**v), value)).ok_or_else(|| {
                    let kinds: Vec<_> = variants.iter().map(|v| self.shape(*v).kind()).collect();
                    DecodeError::at("", format!("{} is none of {}", shorten(&value.to_string()), kinds.join(", ")))
                })?;
                put_count(index, out);
                self.put(*variant, value, out)?;
            }
            (Shape::Record { fields, .. }, Value::Object(members)) => {
                for field in fields {
                    self.put_field(field, fields, members, out).map_err(|e| e.within(&field.name))?;
                }
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn put_field(&self, field: &Field, fields: &[Field], members: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let given = match field.content {
            Content::Plain => members.get(&field.name).filter(|v| !v.is_null()).cloned(),
            Content::Json => members.get(&field.name).map(|v| Value::String(v.to_string())),
            Content::Members => {
                let own = |name: &str| fields.iter().any(|f| f.name == name && f.content != Content::Members);
                let others: Map<String, Value> = members.iter().filter(|(n, _)| !own(n)).map(|(n, v)| (n.clone(), v.clone())).collect();
                Some(Value::String(Value::Object(others).to_string()))
            }
        };
        match given.as_ref().or(field.default.as_ref()) {
            Some(value) => self.put(field.shape, value, out),
            None if fits(self.shape(field.shape), &Value::Null) => self.put(field.shape, &Value::Null, out),
            None => Err(DecodeError::at("", "is missing")),
        }
    }
}

/// Whether a union's branch can take the value. The first that can is taken, so `long` stands before `double`.
fn fits(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Null => value.is_null(),
        Shape::Boolean => value.is_boolean(),
        Shape::Int => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Shape::Long => value.is_i64(),
        // Beyond 64 bits a whole number would come back as another one.
        Shape::Float | Shape::Double => value.is_number() && !value.is_u64(),
        Shape::Bytes | Shape::String => value.is_string(),
        Shape::Time(_) | Shape::Decimal { .. } => value.is_string() || value.is_number(),
        Shape::Enum { symbols, .. } => value.as_str().is_some_and(|text| symbols.iter().any(|s| s == text)),
        Shape::Array(_) => value.is_array(),
        Shape::Map(_) | Shape::Record { .. } => value.is_object(),
        Shape::Fixed(_) | Shape::Date | Shape::Union(_) => false,
    }
}

fn put_long(n: i64, out: &mut Vec<u8>) {
    let mut rest = (n.wrapping_shl(1) ^ (n >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_count(n: usize, out: &mut Vec<u8>) {
    put_long(i64::try_from(n).unwrap_or(i64::MAX), out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_decimal(amount: Money, precision: u32, scale: u32, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let exact = amount.decimal().normalize();
    let places = scale
        .checked_sub(exact.scale())
        .ok_or_else(|| DecodeError::at("", format!("{exact} has more than the {scale} places that the schema keeps")))?;
    let power = |n: u32| 10_i128.checked_pow(n);
    let unscaled = power(places).and_then(|p| exact.mantissa().checked_mul(p));
    let unscaled = unscaled
        .filter(|u| power(precision).is_none_or(|limit| u.abs() < limit))
        .ok_or_else(|| DecodeError::at("", format!("{exact} has more than the {precision} digits that the schema keeps")))?;
    // As few bytes as keep the sign, as Java's BigInteger writes it.
    let wide = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let needed = wide.windows(2).take_while(|w| matches!(w, [first, next] if *first == sign && (next ^ sign) & 0x80 == 0)).count();
    put_bytes(wide.get(needed..).unwrap_or(&wide), out);
    Ok(())
}
