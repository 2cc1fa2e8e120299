//! Keys whose byte order is their logical order, in memory and in RocksDB alike.
//!
//! Integers are big-endian with the sign flipped; text is escaped (0x00 → 0x00 0xFF) and ends with 0x00 0x00, so
//! that of two texts the shorter comes first and a tuple sorts by its fields. A property test proves it.

/// A key of a table.
pub trait Key: Sized {
    /// Appends the key's bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes the key's bytes off the front; `None` when they are not such a key.
    fn read(input: &mut &[u8]) -> Option<Self>;
}

/// Appends text in its ordered form.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Hardly any text holds a zero, so this is one copy.
    for (n, part) in text.as_bytes().split(|b| *b == 0).enumerate() {
        if n > 0 {
            out.extend_from_slice(&[0, 0xff]);
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0, 0]);
}

/// Takes text in its ordered form off the front.
pub fn read_text(input: &mut &[u8]) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let zero = input.iter().position(|b| *b == 0)?;
        let (part, rest) = input.split_at_checked(zero)?;
        text.extend_from_slice(part);
        match *rest {
            [0, 0, ref rest @ ..] => {
                *input = rest;
                return String::from_utf8(text).ok();
            }
            [0, 0xff, ref rest @ ..] => {
                text.push(0);
                *input = rest;
            }
            _ => return None,
        }
    }
}

impl Key for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self, out);
    }
    fn read(input: &mut &[u8]) -> Option<Self> {
        read_text(input)
    }
}

macro_rules! unsigned {
    ($($t:ty),+) => {$(impl Key for $t {
        fn write(&self, out: &mut Vec<u8>) { out.extend_from_slice(&self.to_be_bytes()); }
        fn read(input: &mut &[u8]) -> Option<Self> {
            let (bytes, rest) = input.split_first_chunk()?;
            *input = rest;
            Some(Self::from_be_bytes(*bytes))
        }
    })+};
}
unsigned!(u8, u16, u32, u64);

impl Key for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        (*self as u64 ^ 1 << 63).write(out);
    }
    fn read(input: &mut &[u8]) -> Option<Self> {
        Some((u64::read(input)? ^ 1 << 63) as i64)
    }
}

impl Key for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
    fn read(input: &mut &[u8]) -> Option<Self> {
        Some((A::read(input)?, B::read(input)?))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
        self.2.write(out);
    }
    fn read(input: &mut &[u8]) -> Option<Self> {
        Some((A::read(input)?, B::read(input)?, C::read(input)?))
    }
}

/// The smallest byte string above every one that starts with `prefix`; `None` where there is none.
pub fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes<K: Key>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn byte_order_is_logical_order_and_what_is_written_is_read(
            a in any::<(String, i64, u32)>(), b in any::<(String, i64, u32)>(),
        ) {
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), a.cmp(&b));
            let written = bytes(&a);
            let mut input = written.as_slice();
            prop_assert_eq!(<(String, i64, u32)>::read(&mut input), Some(a));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn a_prefix_s_end_is_above_all_that_start_with_it(prefix: Vec<u8>, tail: Vec<u8>) {
            if let Some(end) = after(&prefix) {
                prop_assert!([prefix.clone(), tail].concat() < end);
            } else {
                prop_assert!(prefix.iter().all(|b| *b == 0xff));
            }
        }

        #[test]
        fn foreign_bytes_are_no_panic(input: Vec<u8>) {
            let _ = <(String, i64, u32)>::read(&mut input.as_slice());
        }
    }
}
