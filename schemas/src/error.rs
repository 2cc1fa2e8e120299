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

    /// The same error, seen from the value that holds `outer`: a member's name, or `[2]` for an element.
    pub(crate) fn within(self, outer: &str) -> Self {
        Self { field: path(outer, &self.field), reason: self.reason }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.field, self.reason) }
    }
}

impl std::error::Error for DecodeError {}

/// The path of `inner` seen from the value that holds `outer`.
pub(crate) fn path(outer: &str, inner: &str) -> String {
    match inner {
        "" => outer.to_owned(),
        inner if outer.is_empty() => inner.to_owned(),
        inner if inner.starts_with('[') => format!("{outer}{inner}"),
        inner => format!("{outer}.{inner}"),
    }
}

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
