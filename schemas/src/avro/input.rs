//! The bytes of a datum, taken one primitive at a time. Nothing is reserved for what is only claimed to follow.

use crate::DecodeError;
use rust_decimal::Decimal;

/// What is left of a datum.
pub(super) struct Input<'d> {
    rest: &'d [u8],
}

impl<'d> Input<'d> {
    pub fn new(datum: &'d [u8]) -> Self {
        Self { rest: datum }
    }

    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::at("", format!("{} bytes follow the Avro datum; is it another schema's?", self.rest.len())))
    }

    pub fn take(&mut self, size: usize) -> Result<&'d [u8], DecodeError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(size)
            .ok_or_else(|| DecodeError::at("", format!("truncated Avro: {size} bytes should follow, {} do", self.rest.len())))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub fn chunk<const N: usize>(&mut self) -> Result<&'d [u8; N], DecodeError> {
        let bytes = self.take(N)?;
        bytes.first_chunk().ok_or_else(|| DecodeError::at("", "truncated Avro"))
    }

    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        self.chunk::<1>().map(|[byte]| *byte)
    }

    /// A zigzag variable-length integer.
    pub fn long(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(DecodeError::at("", "a number longer than 64 bits; is it another schema's datum?"))
    }

    pub fn bytes(&mut self) -> Result<&'d [u8], DecodeError> {
        let size = self.long()?;
        let size = usize::try_from(size).map_err(|_| DecodeError::at("", format!("a length of {size} bytes")))?;
        self.take(size)
    }

    pub fn text(&mut self) -> Result<&'d str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|e| DecodeError::at("", format!("not UTF-8: byte {} breaks it", e.valid_up_to())))
    }
}

/// A two's complement big-endian integer, `scale` digits of which stand after the point. Trailing zeros beyond two
/// places are the schema's, not the sender's.
pub(super) fn decimal(bytes: &[u8], scale: u32) -> Result<Decimal, DecodeError> {
    let too_long = || DecodeError::at("", "not an amount of at most 28 digits");
    let (first, _) = bytes.split_first().ok_or_else(|| DecodeError::at("", "an amount of no bytes"))?;
    let sign = if first & 0x80 == 0 { 0_u8 } else { 0xff };
    let (padding, digits) = bytes.split_at(bytes.len().saturating_sub(16));
    if padding.iter().any(|b| *b != sign) || digits.first().is_some_and(|b| !padding.is_empty() && (b ^ sign) & 0x80 != 0) {
        return Err(too_long());
    }
    let mut wide = [sign; 16];
    if let Some(end) = wide.get_mut(16 - digits.len()..) {
        end.copy_from_slice(digits);
    }
    let (mut unscaled, mut scale) = (i128::from_be_bytes(wide), scale);
    while scale > 28 && unscaled % 10 == 0 {
        (unscaled, scale) = (unscaled / 10, scale - 1);
    }
    let shown = scale.min(2);
    let mut amount = Decimal::try_from_i128_with_scale(unscaled, scale).map_err(|_| too_long())?.normalize();
    if amount.scale() < shown {
        amount.rescale(shown);
    }
    Ok(amount)
}
