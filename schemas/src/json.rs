//! Reading JSON with errors that name the field, and the checks every record shares.

use crate::{
    DecodeError, Money, Timestamp,
    error::{path, shorten, shorten_to},
};
use compact_str::CompactString;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use std::fmt;

/// The longest identifier, in bytes. Longer ones would make keys that no broker tool can show.
pub const LONGEST_ID: usize = 512;

/// Reads one JSON object; the error carries the path of the offending field.
///
/// # Errors
/// Not UTF-8, not JSON, or a field of a wrong type.
pub fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|e| DecodeError::at("", format!("not UTF-8: byte {} breaks it", e.valid_up_to())))?;
    // The plain reader is several times faster; the one that tracks paths runs only to word the error.
    serde_json::from_str(text).map_err(|_| {
        let mut reader = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(e) => {
                let reason = e.inner().to_string();
                wrong(e.path(), if e.inner().is_data() { reason } else { format!("not JSON: {reason}") })
            }
            Ok(_) => DecodeError::at("", "not JSON: something follows the value"),
        }
    })
}

/// Reads a JSON value already parsed.
///
/// # Errors
/// A field of a wrong type.
pub fn from_value<T: Deserialize<'static>>(value: Value) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|e| wrong(e.path(), e.inner().to_string()))
}

/// The error in our words: of a member that is missing, serde knows only the value that lacks it.
fn wrong(at: &serde_path_to_error::Path, reason: String) -> DecodeError {
    let at = field(at);
    match reason.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        Some((member, _)) => DecodeError::at(path(&at, member), "is missing"),
        None => DecodeError::at(at, shorten_to(200, &reason)),
    }
}

/// The path as the sender knows it: without what stands for "the value itself" or "somewhere in here".
fn field(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    let path = path.strip_suffix(crate::money::AS_IT_STANDS).unwrap_or(&path);
    shorten_to(100, path.trim_end_matches(['.', '?']))
}

/// Reads an optional identifier sent as text or as a whole number, as many shops' systems do.
///
/// # Errors
/// Anything else.
pub fn opt_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    struct Visit;
    impl<'de> de::Visitor<'de> for Visit {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a whole number")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }
        fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
            Ok(Some(text))
        }
        fn visit_i64<E: de::Error>(self, n: i64) -> Result<Self::Value, E> {
            Ok(Some(n.to_string()))
        }
        fn visit_u64<E: de::Error>(self, n: u64) -> Result<Self::Value, E> {
            Ok(Some(n.to_string()))
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            d.deserialize_any(self)
        }
    }
    d.deserialize_any(Visit)
}

/// Reads an identifier sent as text or as a whole number.
///
/// # Errors
/// Anything else.
pub fn text<'de, D: Deserializer<'de>, T: From<CompactString>>(d: D) -> Result<T, D::Error> {
    // Formats that do not say what follows, such as those of stores, only ever hold text here.
    if !d.is_human_readable() {
        return CompactString::deserialize(d).map(T::from);
    }
    opt_text(d)?.map(|text| T::from(text.into())).ok_or_else(|| de::Error::invalid_type(de::Unexpected::Unit, &"text or a whole number"))
}

/// An identifier that must be there.
///
/// # Errors
/// Missing, empty, longer than [`LONGEST_ID`] or with control characters.
pub fn required_id(field: &str, id: Option<String>) -> Result<String, DecodeError> {
    optional_id(field, id)?.ok_or_else(|| DecodeError::at(field, "is missing"))
}

/// An identifier that may be absent; empty text counts as absent.
///
/// # Errors
/// Longer than [`LONGEST_ID`] or with control characters.
pub fn optional_id(field: &str, id: Option<String>) -> Result<Option<String>, DecodeError> {
    id.filter(|id| !id.is_empty()).map(|id| checked_text(field, id)).transpose()
}

/// Text used as a key or a name.
///
/// # Errors
/// Longer than [`LONGEST_ID`] or with control characters.
pub fn checked_text(field: &str, text: String) -> Result<String, DecodeError> {
    if text.len() > LONGEST_ID {
        return Err(DecodeError::at(field, format!("{} bytes long; at most {LONGEST_ID} are allowed", text.len())));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(DecodeError::at(field, format!("holds the control character U+{:04X}", c as u32)));
    }
    Ok(text)
}

/// An amount between 0 and 10^12.
///
/// # Errors
/// Out of that range.
pub fn check_amount(field: &str, amount: Money) -> Result<Money, DecodeError> {
    let highest = Decimal::from(1_000_000_000_000_u64);
    if amount.decimal() < Decimal::ZERO || amount.decimal() > highest {
        return Err(DecodeError::at(field, format!("{} is not between 0 and 10^12", shorten(&amount.to_string()))));
    }
    Ok(amount)
}

/// A currency code of three capital letters (ISO 4217's form; which currencies a shop takes is its configuration).
///
/// # Errors
/// Anything else.
pub fn check_currency(field: &str, code: Option<String>) -> Result<Option<String>, DecodeError> {
    match code {
        Some(c) if c.len() == 3 && c.bytes().all(|b| b.is_ascii_uppercase()) => Ok(Some(c)),
        Some(c) => Err(DecodeError::at(field, format!("'{}' is not a currency code such as EUR", shorten(&c)))),
        None => Ok(None),
    }
}

/// A time from 2000-01-01 that RFC 3339 can write. Whether it lies too far in the future depends on the wall
/// clock and is the engine's to judge.
///
/// # Errors
/// Out of that range.
pub fn check_time(field: &str, time: Timestamp) -> Result<(), DecodeError> {
    if time < Timestamp::EARLIEST {
        return Err(DecodeError::at(field, format!("{time} is before 2000-01-01; are these seconds instead of milliseconds?")));
    }
    check_not_beyond(field, time)
}

/// A time that RFC 3339 can write. A shop may say since or until any earlier time, meaning always or never.
///
/// # Errors
/// It can't.
pub fn check_not_beyond(field: &str, time: Timestamp) -> Result<(), DecodeError> {
    if time > Timestamp::LATEST {
        return Err(DecodeError::at(field, "lies beyond the year 9999; are these microseconds instead of milliseconds?"));
    }
    Ok(())
}
