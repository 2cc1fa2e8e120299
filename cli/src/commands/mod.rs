//! The commands that look at, set right and keep an installation, one a file.

pub mod backup;
pub mod clock;
pub mod config;
pub mod dlq;
pub mod doctor;
pub mod evaluate;
pub mod import;
mod meanings;
pub mod migrate;
mod migrate_writer;
mod place;
mod remote;
pub mod reset;
pub mod schemas;
mod source;
pub mod state;
pub mod topics;
pub mod user;

pub use place::{Place, PlaceArgs};
pub use source::InstanceArgs;

use std::{fmt, io::Write};

/// Where a command prints: stdout, or a test's buffer.
pub type Out<'a> = &'a mut dyn Write;

/// Bad usage or configuration: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints rows below their headings, columns aligned; the last column is free.
///
/// # Errors
/// When it can't be printed.
pub fn table(out: Out<'_>, headings: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    let headings: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    let width = |column: usize| {
        std::iter::once(&headings).chain(rows).filter_map(|r| r.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// What can be printed on one line of a terminal: control characters are shown as escapes, long text is cut.
pub fn printable(text: &str, longest: usize) -> String {
    let mut shown: String =
        text.chars().take(longest).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if text.chars().nth(longest).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_drives_the_terminal() {
        let mut out = Vec::new();
        table(&mut out, &["name", "rows"], &[vec!["loyalty.accounts".into(), "3".into()], vec!["a".into(), "12".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name              rows\nloyalty.accounts  3\na                 12\n");
        assert_eq!(printable("a\u{1b}[31m\nb", 80), "a\\u{1b}[31m\\nb");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
