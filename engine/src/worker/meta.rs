//! The row in which a task keeps where it stands. It is committed with the state it belongs to, so it is the truth;
//! offsets committed to the group are for fencing and for people.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tillflow_schemas::Timestamp;
use tillflow_state::{Read, StateError, Store};

/// The row's key; reserved prefix 1 holds the engine's own rows.
pub const META: &[u8] = &[0, 0, 0, 1, b'm', b'e', b't', b'a'];

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The next offset of each input, by topic name.
    pub offsets: BTreeMap<String, i64>,
    /// The event clock.
    pub clock: Timestamp,
    /// Timers up to here have fired.
    pub watermark: Timestamp,
    /// The last watermark heard from each upstream task, by topic name and partition; and, of an input of the shop's
    /// own, the last time in it.
    pub upstream: BTreeMap<(String, u32), Timestamp>,
    /// The last watermark told downstream.
    pub announced: Timestamp,
    /// The input (by topic name) whose next record is processed, while timers due after it are still to fire, and the
    /// offset after that record. Its offset stays behind until then: who looks at offsets sees that work is left.
    pub unfinished: Option<(String, i64)>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            offsets: BTreeMap::new(),
            clock: Timestamp::MIN,
            watermark: Timestamp::MIN,
            upstream: BTreeMap::new(),
            announced: Timestamp::MIN,
            unfinished: None,
        }
    }
}

impl Meta {
    /// The row of a store; the default where there is none yet.
    ///
    /// # Errors
    /// When the store fails or the row is damaged.
    pub fn read(read: &(impl Read + ?Sized)) -> Result<Self, StateError> {
        let Some(bytes) = read.get(META)? else { return Ok(Self::default()) };
        postcard::from_bytes(&bytes).map_err(|e| StateError::Value { store: "engine.meta".into(), detail: e.to_string() })
    }

    /// Writes the row.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn write(&self, store: &mut Store) -> Result<(), StateError> {
        store.put(META.to_vec(), self.to_row()?);
        Ok(())
    }

    /// The row's value.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn to_row(&self) -> Result<Vec<u8>, StateError> {
        postcard::to_allocvec(self).map_err(|e| StateError::Value { store: "engine.meta".into(), detail: e.to_string() })
    }
}
