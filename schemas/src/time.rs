//! Event time: milliseconds since 1970-01-01 UTC.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, ops, time::Duration};

/// A moment of event time, in milliseconds since 1970-01-01T00:00:00Z.
///
/// In JSON it is written as RFC 3339 UTC with milliseconds and read as that or as epoch milliseconds; in
/// binary formats it is the integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every event.
    pub const MIN: Self = Self(i64::MIN);
    /// After every event.
    pub const MAX: Self = Self(i64::MAX);
    /// 2000-01-01T00:00:00Z, the earliest time an event may carry.
    pub const EARLIEST: Self = Self(946_684_800_000);
    /// 9999-12-31T23:59:59.999Z, the latest time that RFC 3339 can write.
    pub const LATEST: Self = Self(253_402_300_799_999);

    /// The moment `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }
    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }
    /// The later moment; stops at the end of time instead of overflowing.
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
    /// The earlier moment; stops at the beginning of time instead of overflowing.
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
    /// Milliseconds from `earlier` to this moment; negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
    /// The start of the bucket of width `width` that holds this moment.
    pub const fn bucket_start(self, width: Duration) -> Self {
        let width = millis(width);
        Self(self.0.div_euclid(width).saturating_mul(width))
    }
    /// Reads RFC 3339, with or without a fraction, with any offset.
    ///
    /// # Errors
    /// When `text` is not RFC 3339; the message says what was found.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>()
            .map(|t| Self(t.as_millisecond()))
            .map_err(|_| format!("'{}' is not an RFC 3339 time such as 2026-01-31T12:00:00Z", crate::error::shorten(text)))
    }
    /// The wall clock's moment. Never called by a processor: time is given to it.
    pub fn wall() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }
}

const fn millis(duration: Duration) -> i64 {
    let ms = duration.as_millis();
    if ms > i64::MAX as u128 { i64::MAX } else { ms as i64 }
}

impl ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        self.plus(duration)
    }
}
impl ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        self.minus(duration)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        // What RFC 3339 can't write stays a number, so that it is read back as it was.
        let writable = jiff::Timestamp::from_millisecond(self.0).is_ok();
        if s.is_human_readable() && writable { s.collect_str(self) } else { s.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl de::Visitor<'_> for Visit {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time or epoch milliseconds")
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(ms))
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Timestamp, E> {
                i64::try_from(ms).map(Timestamp).map_err(|_| E::custom("a time beyond what milliseconds can hold"))
            }
            fn visit_f64<E: de::Error>(self, ms: f64) -> Result<Timestamp, E> {
                if ms.is_finite() && ms.fract() == 0.0 && ms.abs() < 9e15 {
                    Ok(Timestamp(ms as i64))
                } else {
                    Err(E::custom(format!("{ms} is not a whole number of epoch milliseconds")))
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        if d.is_human_readable() { d.deserialize_any(Visit) } else { d.deserialize_i64(Visit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_rfc_3339_with_milliseconds_and_reads_both_forms() {
        let t = Timestamp::parse("2026-03-01T10:00:00+02:00").unwrap();
        assert_eq!(t.to_string(), "2026-03-01T08:00:00.000Z");
        assert_eq!(serde_json::from_str::<Timestamp>("1772352000000").unwrap(), t);
        assert_eq!(serde_json::to_string(&t).unwrap(), "\"2026-03-01T08:00:00.000Z\"");
        assert_eq!(serde_json::to_string(&Timestamp::MAX).unwrap(), i64::MAX.to_string());
        assert!(Timestamp::parse("yesterday").is_err());
        assert!(serde_json::from_str::<Timestamp>("1e300").is_err());
    }

    #[test]
    fn buckets_hold_their_start_also_before_1970() {
        let quarter = Duration::from_secs(900);
        assert_eq!(Timestamp(900_000).bucket_start(quarter), Timestamp(900_000));
        assert_eq!(Timestamp(899_999).bucket_start(quarter), Timestamp(0));
        assert_eq!(Timestamp(-1).bucket_start(quarter), Timestamp(-900_000));
    }
}
