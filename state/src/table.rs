//! Typed tables: a name, a key type and a value type over a store's bytes.

use crate::{Key, Read, Result, StateError, Store, key};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData};

/// The largest value of a row, in bytes: a record of a changelog has at most 10 MB.
pub const LARGEST_ROW: usize = 9_000_000;

/// A typed table of a store. Rows of one table share a prefix, so they lie together in key order.
pub struct Table<K, V> {
    name: &'static str,
    prefix: [u8; 4],
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Table<K, V> {}
impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

/// The prefix of the table called `name`: FNV-1a, with the top bit set so that it never meets a reserved one.
pub fn prefix_of(name: &str) -> [u8; 4] {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (hash | 1 << 31).to_be_bytes()
}

/// The keys of all rows of the table with this prefix that begin with a text: those of one user.
///
/// # Errors
/// When the storage fails.
pub fn rows_under(read: &(impl Read + ?Sized), table: &[u8; 4], text: &str) -> Result<Vec<Vec<u8>>> {
    let mut from = table.to_vec();
    key::write_text(text, &mut from);
    let mut rows = Vec::new();
    read.scan(&from, key::after(&from).as_deref(), &mut |row, _| {
        rows.push(row.to_vec());
        true
    })?;
    Ok(rows)
}

impl<K: Key, V: Serialize + DeserializeOwned> Table<K, V> {
    /// The table called `name`, such as `loyalty.accounts`. The name is part of what is stored.
    pub fn new(name: &'static str) -> Self {
        Self { name, prefix: prefix_of(name), types: PhantomData }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The stored form of `key`.
    pub fn row(&self, key: &impl Key) -> Vec<u8> {
        let mut row = Vec::with_capacity(40);
        row.extend_from_slice(&self.prefix);
        key.write(&mut row);
        row
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// When the storage fails or the value does not have the expected form.
    pub fn get(&self, read: &(impl Read + ?Sized), key: &K) -> Result<Option<V>> {
        read.get(&self.row(key))?.map(|bytes| self.decode(&bytes)).transpose()
    }

    /// Writes the value of `key`.
    ///
    /// # Errors
    /// When the value cannot be encoded, or is larger than [`LARGEST_ROW`].
    pub fn put(&self, store: &mut Store, key: &K, value: &V) -> Result<()> {
        let bytes = postcard::to_allocvec(value).map_err(|e| self.wrong(&e))?;
        if bytes.len() > LARGEST_ROW {
            return Err(StateError::TooLarge { store: self.name.into(), bytes: bytes.len(), limit: LARGEST_ROW });
        }
        store.put(self.row(key), bytes);
        Ok(())
    }

    /// Deletes `key`.
    pub fn delete(&self, store: &mut Store, key: &K) {
        store.delete(self.row(key));
    }

    /// Visits the rows whose key starts with `prefix` (a tuple's first fields, or `()` for all), in key order, until
    /// `visit` returns false.
    ///
    /// # Errors
    /// When the storage fails or a row does not have the expected form.
    pub fn scan(&self, read: &(impl Read + ?Sized), prefix: &impl Key, mut visit: impl FnMut(K, V) -> bool) -> Result<()> {
        let from = self.row(prefix);
        let to = key::after(&from);
        let mut wrong = None;
        read.scan(&from, to.as_deref(), &mut |row, bytes| {
            let mut rest = row.get(self.prefix.len()..).unwrap_or_default();
            match (K::read(&mut rest), self.decode(bytes)) {
                (Some(key), Ok(value)) => visit(key, value),
                (None, _) => {
                    wrong = Some(StateError::Value { store: self.name.into(), detail: "a key of another type".into() });
                    false
                }
                (_, Err(e)) => {
                    wrong = Some(e);
                    false
                }
            }
        })?;
        wrong.map_or(Ok(()), Err)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V> {
        postcard::from_bytes(bytes).map_err(|e| self.wrong(&e))
    }

    fn wrong(&self, e: &postcard::Error) -> StateError {
        StateError::Value { store: self.name.into(), detail: e.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    #[test]
    fn a_value_that_no_changelog_would_take_is_refused_when_it_is_put() {
        let table: Table<String, String> = Table::new("notes");
        let mut store = Store::new(Box::new(Memory::default()));
        let mut put = |bytes| table.put(&mut store, &"ann".to_owned(), &"x".repeat(bytes));
        put(LARGEST_ROW - 10).unwrap();
        let error = put(LARGEST_ROW).unwrap_err().to_string();
        assert!(error.contains("notes") && error.contains("9000000"), "{error}");
    }
}
