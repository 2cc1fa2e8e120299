//! What is wrong with a record, where, and how to mend it.

use std::fmt;

/// Why a value could not be read. `field` is the path inside the value, empty for the value itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Path of the offending field, such as `items[2].quantity`.
    pub field: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl DecodeError {
    /// An error at `field`.
    pub fn at(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.field, self.reason) }
    }
}

impl std::error::Error for DecodeError {}

/// At most 40 characters of `text`, for error messages that must not grow with their input.
pub fn shorten(text: &str) -> String {
    shorten_to(40, text)
}

/// At most so many characters of `text`.
pub(crate) fn shorten_to(most: usize, text: &str) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
