//! The trace that a record belongs to: W3C Trace Context's `traceparent`, handed on as it came.

use std::{fmt, sync::Arc};

/// Name of the header, over HTTP and on records.
pub const TRACEPARENT: &str = "traceparent";
/// Length of version 00: `00-<trace id>-<parent id>-<flags>`.
const LENGTH: usize = 55;
/// A later version may be longer, within bounds.
const LONGEST: usize = 256;

/// A valid `traceparent`. Tillflow reports no spans of its own, so it hands it on unchanged, as the recommendation asks
/// of those who only forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace(Arc<str>);

impl Trace {
    /// Reads a header; `None` where it is none that counts, which is nobody's fault: it is then left out.
    pub fn read(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok().filter(|text| (LENGTH..=LONGEST).contains(&text.len()))?;
        let mut parts = text.splitn(4, '-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|b| b != b'0');
        let whole = if version == "00" { hex(flags, 2) } else { flags.get(..2).is_some_and(|f| hex(f, 2)) };
        let valid = hex(version, 2) && version != "ff" && id(trace, 32) && id(parent, 16) && whole;
        valid.then(|| Self(text.into()))
    }

    /// The header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that all of a trace share.
    pub fn id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_as_the_recommendation_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::read(good.as_bytes()).unwrap();
        assert_eq!((trace.as_str(), trace.id()), (good, "4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(Trace::read(good.replace("00-4", "01-4").as_bytes()).is_some(), "a later version");
        assert!(Trace::read(format!("{}-more", good.replace("00-4", "01-4")).as_bytes()).is_some(), "a later version may be longer");
        let bad = [
            String::new(),
            good[..54].to_owned(),
            format!("{good}-more"),
            good.replace("00-4", "ff-4"),
            good.to_uppercase(),
            good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace('-', "_"),
            "0".repeat(1_000),
        ];
        for text in bad {
            assert_eq!(Trace::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Trace::read(&[0xff; 55]), None);
    }
}
