//! Lengths of time, as arguments give them.

use std::time::Duration;

/// `500ms`, `30s`, `2m`.
///
/// # Errors
/// When it is none.
pub fn length(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is no length of time; write 30s, say"))?;
    match text.strip_prefix(digits) {
        Some("ms") => Ok(Duration::from_millis(number)),
        Some("s") => Ok(Duration::from_secs(number)),
        Some("m") => Ok(Duration::from_secs(60 * number)),
        _ => Err(format!("'{text}' has no unit; write {number}s, say")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_a_unit() {
        assert_eq!(["500ms", "30s", "2m"].map(|t| length(t).unwrap().as_millis()), [500, 30_000, 120_000]);
        assert!(["30", "s", "1.5s", ""].iter().all(|text| length(text).is_err()));
    }
}
