//! Money: decimals, never floats. A float in JSON is read from its digits, not through binary.

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, iter::Sum, ops};

/// An amount of money in its currency's major unit; the currency stands beside it.
///
/// Read from a JSON string or number, written as a string. At most 10^12 and 28 significant digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(Decimal);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// The amount as a decimal.
    pub const fn decimal(self) -> Decimal {
        self.0
    }
    /// Rounded half to even at `digits` after the point, and written with exactly so many.
    pub fn rounded(self, digits: u32) -> Self {
        let mut d = self.0.round_dp_with_strategy(digits, RoundingStrategy::MidpointNearestEven);
        d.rescale(digits);
        Self(d)
    }
    /// `quantity` times this amount, or `None` beyond what a decimal holds.
    pub fn times(self, quantity: u32) -> Option<Self> {
        self.0.checked_mul(quantity.into()).map(Self)
    }
    /// The sum, or `None` beyond what a decimal holds.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
    /// Reads decimal digits such as `12.50`, without exponent.
    ///
    /// # Errors
    /// When `text` is not a decimal number or has more than 28 significant digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        Decimal::from_str_exact(text)
            .or_else(|_| Decimal::from_scientific(text))
            .map(Self)
            .map_err(|_| format!("'{}' is not an amount of at most 28 digits such as 12.50", crate::error::shorten(text)))
    }
}

/// Digits after the point of a currency's minor unit (ISO 4217); two where none is given.
pub fn minor_digits(currency: Option<&str>) -> u32 {
    match currency {
        Some(
            "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND" | "VUV" | "XAF" | "XOF"
            | "XPF",
        ) => 0,
        Some("BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND") => 3,
        _ => 2,
    }
}

impl From<Decimal> for Money {
    fn from(d: Decimal) -> Self {
        Self(d)
    }
}
impl ops::Add for Money {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self(self.0.saturating_add(o.0))
    }
}
impl ops::Sub for Money {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self(self.0.saturating_sub(o.0))
    }
}
impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(i: I) -> Self {
        i.fold(Self::ZERO, |a, b| a + b)
    }
}
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(&self.0) } else { s.serialize_bytes(&self.0.serialize()) }
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> de::Visitor<'de> for Visit {
            type Value = Money;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as a decimal string or number")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Money, E> {
                Ok(Money(n.into()))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Money, E> {
                Ok(Money(n.into()))
            }
            // The shortest digits that give this float are the digits that were sent, up to 15 of them.
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Money, E> {
                if n.is_finite() { Money::parse(&n.to_string()).map_err(E::custom) } else { Err(E::custom("not a finite number")) }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                Money::parse(text.trim()).map_err(E::custom)
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Money, E> {
                let raw: [u8; 16] = bytes.try_into().map_err(|_| E::custom("a stored amount has 16 bytes"))?;
                Ok(Money(Decimal::deserialize(raw)))
            }
        }
        if d.is_human_readable() { d.deserialize_any(Visit) } else { d.deserialize_bytes(Visit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_strings_and_numbers_alike_and_refuses_what_is_no_amount() {
        for text in ["12.5", "\"12.5\"", "\"1.25e1\""] {
            assert_eq!(serde_json::from_str::<Money>(text).unwrap(), Money::parse("12.5").unwrap(), "{text}");
        }
        for text in ["\"NaN\"", "\"inf\"", "\"12,5\"", "\"\"", "\"123456789012345678901234567890.12\"", "true", "{}"] {
            assert!(serde_json::from_str::<Money>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rounds_half_to_even_and_keeps_the_currency_s_digits() {
        assert_eq!(Money::parse("2.345").unwrap().rounded(2).to_string(), "2.34");
        assert_eq!(Money::parse("110").unwrap().rounded(2).to_string(), "110.00");
    }
}
