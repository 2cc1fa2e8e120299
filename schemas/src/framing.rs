//! Confluent's wire format: byte 0, the schema's id as four bytes big-endian, then the Avro datum.
//!
//! ```
//! use tillflow_schemas::framing::{Framing, frame, framing};
//! let framed = frame(7, b"datum");
//! assert_eq!(framing(&framed), Ok(Framing::Avro { id: 7, datum: b"datum" }));
//! assert_eq!(framing(b" {}"), Ok(Framing::Json));
//! assert!(framing(b"<order/>").is_err());
//! ```

use crate::DecodeError;

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing<'a> {
    /// A JSON object.
    Json,
    /// An Avro datum and the id of the schema it was written with.
    Avro {
        /// The writer's schema.
        id: u32,
        /// The datum alone.
        datum: &'a [u8],
    },
}

/// Tells JSON and framed Avro apart.
///
/// # Errors
/// The value is neither.
pub fn framing(value: &[u8]) -> Result<Framing<'_>, DecodeError> {
    if let Some((0, rest)) = value.split_first() {
        let (id, datum) =
            rest.split_first_chunk::<4>().ok_or_else(|| DecodeError::at("", "truncated Avro: the schema id after byte 0 is cut off"))?;
        return Ok(Framing::Avro { id: u32::from_be_bytes(*id), datum });
    }
    match value.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => Ok(Framing::Json),
        Some(byte) => Err(DecodeError::at(
            "",
            format!(
                "neither a JSON object, which starts with '{{', nor framed Avro, which starts with byte 0: it starts with {}",
                char::from(*byte).escape_default()
            ),
        )),
        None => Err(DecodeError::at("", "an empty value; to delete, send a null value")),
    }
}

/// The datum with its schema's id before it.
pub fn frame(id: u32, datum: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(datum.len() + 5);
    framed.push(0);
    framed.extend_from_slice(&id.to_be_bytes());
    framed.extend_from_slice(datum);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_json_and_framed_avro_is_refused_in_words() {
        for (value, words) in [
            (&b""[..], "empty"),
            (b"  \n", "empty"),
            (b"[1]", "neither"),
            (b"\xff\xfe", "\\u{ff}"),
            (b"null", "neither"),
            (b"\0", "truncated"),
            (b"\0\0\0\x01", "truncated"),
        ] {
            let error = framing(value).unwrap_err().to_string();
            assert!(error.contains(words), "{value:?}: {error}");
        }
        assert_eq!(framing(b"\0\0\0\x01\x02"), Ok(Framing::Avro { id: 258, datum: b"" }));
    }
}
