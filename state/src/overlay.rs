//! Uncommitted rows: found by their hash, and in key order where they are scanned.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use std::{
    cell::{Ref, RefCell},
    collections::{BTreeSet, btree_set::Range},
    ops::Bound,
    sync::Arc,
};

/// A row's value; `None` is a deletion.
pub type Value = Option<Arc<[u8]>>;
type Rows = IndexMap<Arc<[u8]>, Value, FxBuildHasher>;

/// Uncommitted rows. Nearly all are asked for by their keys, so order is made only for who scans.
#[derive(Default)]
pub struct Overlay {
    /// In the order in which they were first written.
    rows: Rows,
    ordered: RefCell<Ordered>,
}

/// Keys in order. One that was undone since stays, and finds no row.
#[derive(Default)]
struct Ordered {
    keys: BTreeSet<Arc<[u8]>>,
    /// So many of the rows' keys are among them.
    known: usize,
}

impl Overlay {
    /// The row of `key`; the outer `None` is "not uncommitted".
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.rows.get(key)
    }

    /// Writes a row and returns what it was.
    pub fn insert(&mut self, key: Arc<[u8]>, value: Value) -> Option<Value> {
        self.rows.insert(key, value)
    }

    /// Takes back the row that was written for the first time last.
    pub fn take_back(&mut self, key: &[u8]) -> Option<Value> {
        let removed = self.rows.swap_remove(key);
        let ordered = self.ordered.get_mut();
        ordered.known = ordered.known.min(self.rows.len());
        removed
    }

    /// All rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<[u8]>, &Value)> {
        self.rows.iter()
    }

    /// Takes all rows.
    pub fn drain(&mut self) -> impl Iterator<Item = (Arc<[u8]>, Value)> {
        *self.ordered.get_mut() = Ordered::default();
        self.rows.drain(..)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.drain().for_each(drop);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its rows in key order, to be begun from some key.
    pub fn in_order(&self) -> InOrder<'_> {
        if self.ordered.borrow().known < self.rows.len() {
            let mut ordered = self.ordered.borrow_mut();
            let known = ordered.known;
            ordered.keys.extend(self.rows.keys().skip(known).cloned());
            ordered.known = self.rows.len();
        }
        InOrder { rows: &self.rows, ordered: self.ordered.borrow() }
    }
}

/// An overlay's rows in key order.
pub struct InOrder<'a> {
    rows: &'a Rows,
    ordered: Ref<'a, Ordered>,
}

impl InOrder<'_> {
    /// Those from `from` (inclusive) to `to` (exclusive; `None` is the end).
    pub fn range(&self, from: &[u8], to: Option<&[u8]>) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let keys: Range<'_, Arc<[u8]>> = self.ordered.keys.range::<[u8], _>(bounds);
        keys.filter_map(|key| Some((&**key, self.rows.get(key)?.as_deref())))
    }
}
