//! A task's state: committed rows in a backend, uncommitted ones in an overlay above it.
//!
//! Nothing uncommitted ever reaches the backend. A savepoint a record lets one bad record be undone alone.

use crate::{
    Backend, Read, Result,
    cache::Cache,
    overlay::{Overlay, Value},
    read_time::ReadTime,
    seen,
};
use std::{iter::Peekable, sync::Arc, time::Duration};

/// State of one task.
pub struct Store {
    backend: Box<dyn Backend>,
    /// Rows of the backend.
    cache: Cache,
    overlay: Overlay,
    /// What each overlay row was before the current record, newest last; `None` is "not in the overlay".
    undo: Vec<(Arc<[u8]>, Option<Value>)>,
    bytes: usize,
    read_time: ReadTime,
}

impl Store {
    /// State over `backend`, with nothing uncommitted.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self { backend, cache: Cache::default(), overlay: Overlay::default(), undo: Vec::new(), bytes: 0, read_time: ReadTime::default() }
    }

    /// Writes a row.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.set(key.into(), Some(value.into()));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.set(key.into(), None);
    }

    fn set(&mut self, key: Arc<[u8]>, value: Value) {
        self.bytes += key.len() + value.as_ref().map_or(0, |v| v.len());
        let before = self.overlay.insert(key.clone(), value);
        if let Some(before) = &before {
            self.bytes -= key.len() + before.as_ref().map_or(0, |v| v.len());
        }
        self.undo.push((key, before));
    }

    /// Begins a record: what follows can be undone by [`Store::rollback`].
    pub fn savepoint(&mut self) {
        self.undo.clear();
    }

    /// Undoes all writes since the last savepoint.
    pub fn rollback(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            let undone = match before {
                Some(value) => {
                    self.bytes += key.len() + value.as_ref().map_or(0, |v| v.len());
                    self.overlay.insert(key.clone(), value)
                }
                None => self.overlay.take_back(&key),
            };
            if let Some(undone) = undone {
                self.bytes -= key.len() + undone.map_or(0, |v| v.len());
            }
        }
    }

    /// The uncommitted rows, last write a key.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        self.overlay.iter().map(|(k, v)| (&**k, v.as_deref()))
    }

    /// Size of the uncommitted rows in bytes.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the uncommitted rows as committed: the log has already put them into the backend.
    pub fn settle(&mut self) {
        for (key, value) in self.overlay.drain() {
            if !seen::is_row(&key) {
                self.cache.keep(key, value);
            }
        }
        self.discard();
    }

    /// Drops the uncommitted rows: after an abort.
    pub fn discard(&mut self) {
        self.overlay.clear();
        self.undo.clear();
        self.bytes = 0;
    }

    /// Puts the uncommitted rows, and `extra` beside them, into the backend, in one batch.
    ///
    /// # Errors
    /// When the storage fails; then the task must be restored, since the log is ahead of its store.
    pub fn apply(&mut self, extra: &[(&[u8], Option<&[u8]>)]) -> Result<()> {
        let Self { backend, overlay, .. } = self;
        backend.apply(&mut overlay.iter().map(|(k, v)| (&**k, v.as_deref())).chain(extra.iter().copied()))?;
        for (key, value) in extra {
            self.cache.keep((*key).into(), value.map(Into::into));
        }
        self.settle();
        Ok(())
    }

    /// The backend, for restore.
    pub fn backend_mut(&mut self) -> &mut dyn Backend {
        self.cache.clear();
        &mut *self.backend
    }

    /// How long it waited for its backend since it was last asked; estimated from some of the reads.
    pub fn take_read_time(&self) -> Duration {
        self.read_time.take()
    }

    /// Whether nothing is uncommitted.
    pub fn is_clean(&self) -> bool {
        self.overlay.is_empty()
    }
}

impl Read for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        if let Some(row) = self.overlay.get(key) {
            return Ok(row.clone());
        }
        if let Some(row) = self.cache.get(key) {
            return Ok(row);
        }
        let row = self.read_time.sampled(|| self.backend.get(key))?;
        if !seen::is_row(key) {
            self.cache.keep(key.into(), row.clone());
        }
        Ok(row)
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let overlay = self.overlay.in_order();
        let mut fresh = overlay.range(from, to).peekable();
        let mut going = true;
        let mut visit_row = |key: &[u8], value: &[u8]| {
            going = visit_below(&mut fresh, Some(key), visit);
            if going {
                // A row of the overlay replaces the committed one, or hides it.
                going = match fresh.next_if(|(k, _)| *k == key) {
                    Some((_, Some(value))) => visit(key, value),
                    Some((_, None)) => true,
                    None => visit(key, value),
                };
            }
            going
        };
        self.read_time.whole(|| self.backend.scan(from, to, &mut visit_row))?;
        if going {
            visit_below(&mut fresh, None, visit);
        }
        Ok(())
    }
}

/// Visits the overlay's rows below `limit`; false when the visitor has had enough.
fn visit_below<'a>(
    fresh: &mut Peekable<impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>>,
    limit: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> bool {
    while let Some((key, value)) = fresh.next_if(|(k, _)| limit.is_none_or(|l| *k < l)) {
        if let Some(value) = value
            && !visit(key, value)
        {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        Savepoint,
        Rollback,
        Commit,
        Discard,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => any::<(u8, u8)>().prop_map(|(k, v)| Step::Put(k % 16, v)),
            2 => any::<u8>().prop_map(|k| Step::Delete(k % 16)),
            1 => Just(Step::Savepoint), 1 => Just(Step::Rollback), 1 => Just(Step::Commit), 1 => Just(Step::Discard),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn rows(read: &dyn Read, from: u8, to: Option<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        read.scan(&[from], to.as_ref().map(std::slice::from_ref), &mut |k, v| {
            rows.push((k.to_vec(), v.to_vec()));
            true
        })
        .unwrap();
        rows
    }

    proptest! {
        #[test]
        fn a_store_reads_as_a_map_that_was_written_undone_and_committed_alike(steps in steps(), from in 0_u8..16, to in 0_u8..18) {
            let (mut store, mut now, mut saved, mut committed) = (Store::new(Box::new(Memory::default())), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Put(k, v) => { store.put(vec![k], vec![v]); now.insert(vec![k], vec![v]); }
                    Step::Delete(k) => { store.delete(vec![k]); now.remove(&vec![k]); }
                    Step::Savepoint => { store.savepoint(); saved = now.clone(); }
                    Step::Rollback => { store.rollback(); now = saved.clone(); }
                    Step::Commit => { store.apply(&[]).unwrap(); committed = now.clone(); saved = now.clone(); }
                    Step::Discard => { store.discard(); now = committed.clone(); saved = now.clone(); }
                }
                prop_assert_eq!(store.pending_bytes(), store.pending().map(|(k, v)| k.len() + v.map_or(0, <[u8]>::len)).sum::<usize>());
            }
            let all: Vec<_> = now.clone().into_iter().collect();
            prop_assert_eq!(rows(&store, 0, None), all);
            let part: Vec<_> = now.into_iter().filter(|(k, _)| k[0] >= from && k[0] < to).collect();
            prop_assert_eq!(rows(&store, from, Some(to)), part);
        }
    }
}
