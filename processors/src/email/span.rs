//! Lengths of time as a shop writes them: `25h`, `7d`, `90s`, `15m`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, time::Duration};

/// A length of time, written as a whole number and one of `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// So many days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self(Duration::from_secs(n * 24 * 3600))
    }
    /// So many hours.
    pub const fn hours(n: u64) -> Self {
        Self(Duration::from_secs(n * 3600))
    }
    /// As a duration.
    pub const fn get(self) -> Duration {
        self.0
    }
    /// In milliseconds, as times are counted.
    pub const fn millis(self) -> i64 {
        let ms = self.0.as_millis();
        if ms > i64::MAX as u128 { i64::MAX } else { ms as i64 }
    }

    /// Reads `25h`.
    ///
    /// # Errors
    /// Says what was found.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{}' is not a length of time such as 30m, 25h or 7d", tillflow_schemas::shorten(text));
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(number.len()..).unwrap_or_default() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return Err(wrong()),
        };
        let seconds = number.parse::<u32>().ok().and_then(|n| u64::from(n).checked_mul(unit)).ok_or_else(wrong)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (n, unit) = [(24 * 3600, "d"), (3600, "h"), (60, "m")]
            .into_iter()
            .find_map(|(size, unit)| (seconds > 0 && seconds.is_multiple_of(size)).then_some((seconds / size, unit)))
            .unwrap_or((seconds, "s"));
        write!(f, "{n}{unit}")
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_and_written_in_its_largest_whole_unit() {
        for (text, seconds, written) in
            [("90s", 90, "90s"), ("60m", 3600, "1h"), ("25h", 90_000, "25h"), ("48h", 172_800, "2d"), ("0s", 0, "0s")]
        {
            let span = Span::parse(text).unwrap();
            assert_eq!((span.get().as_secs(), span.to_string().as_str()), (seconds, written), "{text}");
        }
        for text in ["", "7", "d", "-1d", "1w", "1.5h", "99999999999d"] {
            assert!(Span::parse(text).unwrap_err().contains("length of time"), "{text}");
        }
    }
}
