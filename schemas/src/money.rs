//! Money: decimals, never floats. A number in JSON is read from its digits, not through binary, so that `499.99`
//! and `12345678901.123456789` arrive as they were sent. (Only a `serde_json::Value` made before, such as one inside
//! a definition's open fields, has been through binary.)

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, iter::Sum, ops};

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
    /// Reads decimal digits such as `12.50` or `1.25e1`, every one of them: nothing is rounded.
    ///
    /// # Errors
    /// When `text` is not a decimal number or has more than 28 significant digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        exact(text)
            .map(Self)
            .ok_or_else(|| format!("'{}' is not an amount of at most 28 digits such as 12.50", crate::error::shorten(text)))
    }
}

fn exact(text: &str) -> Option<Decimal> {
    // Decimal itself would also take `1_000`, and round what follows an `e` or what is too long.
    if !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E')) {
        return None;
    }
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let mut amount = Decimal::from_str_exact(digits).ok()?;
    if amount.is_zero() {
        amount.set_sign_positive(true);
    } else if exponent != 0 {
        amount = amount.normalize();
        let scale = i32::try_from(amount.scale()).ok()?.checked_sub(exponent)?;
        let whole = 10_i128.checked_pow(scale.min(0).unsigned_abs()).and_then(|power| amount.mantissa().checked_mul(power))?;
        amount = Decimal::try_from_i128_with_scale(whole, scale.max(0).unsigned_abs()).ok()?;
    }
    Some(amount)
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

/// What `serde_json` calls a value that it hands over as it stands in the text, as for its `RawValue`. Numbers go
/// through binary otherwise, which alters those of more than 15 digits. Other formats do not know the name and
/// hand over the value; so would `serde_json` if it chose another name, which a test would tell.
pub(crate) const AS_IT_STANDS: &str = "$serde_json::private::RawValue";

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> de::Visitor<'de> for Visit {
            type Value = Money;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as a decimal string or number")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Money, D::Error> {
                d.deserialize_any(self)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Money, A::Error> {
                match map.next_key::<Cow<'de, str>>()? {
                    Some(name) if name == AS_IT_STANDS => map.next_value::<Digits>()?.0.map_err(de::Error::custom),
                    _ => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
                }
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
        if d.is_human_readable() { d.deserialize_newtype_struct(AS_IT_STANDS, Visit) } else { d.deserialize_bytes(Visit) }
    }
}

/// An amount read from the text of a JSON value, number or string.
struct Digits(Result<Money, String>);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl de::Visitor<'_> for Visit {
            type Value = Digits;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the text of a JSON value")
            }
            fn visit_str<E: de::Error>(self, json: &str) -> Result<Digits, E> {
                Ok(Digits(match json.as_bytes() {
                    [b'"', ..] => match json.strip_prefix('"').and_then(|j| j.strip_suffix('"')) {
                        Some(plain) if !plain.contains('\\') => Money::parse(plain.trim()),
                        _ => serde_json::from_str::<String>(json).map_err(|e| e.to_string()).and_then(|t| Money::parse(t.trim())),
                    },
                    [b'-' | b'0'..=b'9', ..] => Money::parse(json),
                    _ => Err(format!("{} is no amount: a decimal string or number such as 12.50", crate::error::shorten(json))),
                }))
            }
        }
        d.deserialize_str(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_strings_and_numbers_alike_and_refuses_what_is_no_amount() {
        for text in ["12.5", "\"12.5\"", "\"1.25e1\"", " 12.50 ", "1.25E+1", "125e-1", "\" 12.5\"", r#""\u0031\u0032.5""#] {
            assert_eq!(serde_json::from_str::<Money>(text).unwrap(), Money::parse("12.5").unwrap(), "{text}");
        }
        for text in [
            "\"NaN\"",
            "\"inf\"",
            "NaN",
            "-Infinity",
            "1e999",
            "\"1e999\"",
            "\"12,5\"",
            "\"1_000\"",
            "\"\"",
            "\"-\"",
            "\"1e\"",
            "null",
            "true",
            "[1]",
            "{}",
        ] {
            assert!(serde_json::from_str::<Money>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_digit_arrives_however_it_was_sent_and_what_is_too_long_is_refused() {
        let digits = [
            "0.1",
            "499.99",
            "33.989999999999995",
            "12345678901.123456789",
            "999999999999.999999999999999",
            "0.0000000000000000000000000001",
        ];
        for text in digits {
            for json in [text.to_owned(), format!("\"{text}\"")] {
                assert_eq!(serde_json::from_str::<Money>(&json).unwrap().to_string(), text);
                #[derive(Deserialize)]
                struct Row {
                    amount: Option<Money>,
                }
                let row: Row = serde_json::from_str(&format!("{{\"amount\": {json}}}")).unwrap();
                assert_eq!(row.amount.unwrap().to_string(), text);
            }
        }
        for text in ["123456789012345678901234567890", "1.00000000000000000000000000001", "1e29", "1e-29"] {
            for json in [text.to_owned(), format!("\"{text}\"")] {
                let error = serde_json::from_str::<Money>(&json).unwrap_err().to_string();
                assert_eq!(error, format!("'{text}' is not an amount of at most 28 digits such as 12.50"));
            }
        }
        assert_eq!(Money::parse("-0.00").unwrap().to_string(), "0.00");
    }

    #[test]
    fn other_formats_and_values_already_parsed_are_read_as_well() {
        for yaml in ["12.5", "'12.50'", "125e-1"] {
            assert_eq!(serde_norway::from_str::<Money>(yaml).unwrap(), Money::parse("12.5").unwrap(), "{yaml}");
        }
        assert_eq!(serde_json::from_value::<Money>(serde_json::json!(12.5)).unwrap(), Money::parse("12.5").unwrap());
        #[derive(Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            A { amount: Money },
        }
        let Tagged::A { amount } = serde_json::from_str(r#"{"amount": 12.5, "kind": "A"}"#).unwrap();
        assert_eq!(amount, Money::parse("12.5").unwrap());
    }

    #[test]
    fn rounds_half_to_even_and_keeps_the_currency_s_digits() {
        assert_eq!(Money::parse("2.345").unwrap().rounded(2).to_string(), "2.34");
        assert_eq!(Money::parse("110").unwrap().rounded(2).to_string(), "110.00");
    }
}
