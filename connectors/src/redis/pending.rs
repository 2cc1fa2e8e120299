//! What waits to be written to Redis. It has a bound whatever happens: beyond it only names are kept, to be read again
//! from state, and beyond that the fact that everything must be.

use super::model::{Change, Key, Kind};
use indexmap::IndexSet;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Keys whose new fields are held.
const MOST_CHANGES: usize = 100_000;

/// Pushes that wait to be published.
const MOST_PUSHES: usize = 10_000;

/// Keys remembered by name, some 80 bytes each.
const MOST_KEYS: usize = 1_000_000;

/// One push to a user's channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Push {
    pub user: Arc<str>,
    pub ids: String,
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Pending {
    changes: HashMap<Key, Change>,
    pushes: VecDeque<Push>,
    /// To be read again from state.
    stale: IndexSet<Key>,
    /// All keys seen: what a Redis that lost its data must get back.
    known: HashSet<Key>,
    /// All that is known is stale; `known` may be incomplete, so Redis is asked for its keys too.
    resync: bool,
    /// Whether pushes can go out. A push that can't go out now is of no use later.
    pub connected: bool,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    changes: usize,
    pushes: usize,
    keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { changes: MOST_CHANGES, pushes: MOST_PUSHES, keys: MOST_KEYS }
    }
}

impl Pending {
    /// Takes in what a record changes. Whether a push was dropped for want of room or of a Redis.
    pub fn put(&mut self, key: Key, change: Change) -> bool {
        self.know(key.clone());
        if key.kind == Kind::List
            && let Some(Some(ids)) = change.0.get("")
        {
            if self.connected && self.pushes.len() < self.limits.pushes {
                // The push sets the list too, later than anything that waits for it here.
                self.changes.remove(&key);
                self.pushes.push_back(Push { user: key.id, ids: ids.clone() });
                return false;
            }
            self.change(key, change);
            return true;
        }
        self.change(key, change);
        false
    }

    /// Remembers that the key exists.
    pub fn know(&mut self, key: Key) {
        if self.known.len() < self.limits.keys {
            self.known.insert(key);
        }
    }

    fn change(&mut self, key: Key, change: Change) {
        if let Some(waiting) = self.changes.get_mut(&key) {
            waiting.then(change);
        } else if self.changes.len() < self.limits.changes {
            self.changes.insert(key, change);
        } else {
            self.spoil(key);
        }
    }

    /// Takes everything that waits, to be written in one go: changes first, then pushes.
    pub fn take(&mut self) -> (HashMap<Key, Change>, VecDeque<Push>) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.pushes))
    }

    /// Puts back what could not be written: what came meanwhile is newer and wins. Pushes become their lists.
    pub fn put_back(&mut self, changes: impl IntoIterator<Item = (Key, Change)>, pushes: impl IntoIterator<Item = Push>) {
        let mut earlier: HashMap<Key, Change> = changes.into_iter().collect();
        for push in pushes {
            earlier.insert(Key { kind: Kind::List, id: push.user }, Change::list(push.ids));
        }
        let newer: HashSet<_> = self.pushes.iter().map(|p| p.user.clone()).collect();
        for (key, mut change) in earlier {
            if key.kind == Kind::List && newer.contains(&key.id) {
                continue;
            }
            if let Some(later) = self.changes.remove(&key) {
                change.then(later);
            }
            self.change(key, change);
        }
    }

    /// The connection is gone: what waits to be published never will be. How many pushes that were.
    pub fn disconnect(&mut self) -> usize {
        self.connected = false;
        let pushes = std::mem::take(&mut self.pushes);
        let dropped = pushes.len();
        self.put_back([], pushes);
        dropped
    }

    /// The key must be read again from state.
    pub fn spoil(&mut self, key: Key) {
        if self.stale.len() < self.limits.keys {
            self.stale.insert(key);
        } else {
            self.resync = true;
        }
    }

    /// Everything known that `which` holds for must be read again.
    pub fn spoil_known(&mut self, which: impl Fn(&Key) -> bool) {
        let keys: Vec<_> = self.known.iter().filter(|key| which(key)).cloned().collect();
        for key in keys {
            self.spoil(key);
        }
    }

    /// Everything must be read again.
    pub fn spoil_all(&mut self) {
        self.resync = true;
    }

    /// Whether everything must be read again; asked once.
    pub fn take_resync(&mut self) -> bool {
        std::mem::take(&mut self.resync)
    }

    /// Some keys that must be read again.
    pub fn take_stale(&mut self, most: usize) -> Vec<Key> {
        (0..most).map_while(|_| self.stale.pop()).collect()
    }

    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    pub fn has_work(&self) -> bool {
        !self.changes.is_empty() || !self.pushes.is_empty()
    }

    /// Keys that wait in whatever way.
    pub fn len(&self) -> usize {
        self.changes.len() + self.stale.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind, n: usize) -> Key {
        Key::new(kind, &format!("k{n}")).unwrap()
    }

    fn tier(tier: &str) -> Change {
        Change([("tier", Some(tier.to_owned()))].into())
    }

    fn small() -> Pending {
        Pending { limits: Limits { changes: 2, pushes: 2, keys: 3 }, ..Pending::default() }
    }

    #[test]
    fn what_came_meanwhile_wins_over_what_is_put_back() {
        let mut pending = Pending::default();
        pending.put(key(Kind::User, 1), tier("silver"));
        let (taken, _) = pending.take();
        pending.put(key(Kind::User, 1), tier("gold"));
        pending.put_back(taken, []);
        assert_eq!(pending.take().0, [(key(Kind::User, 1), tier("gold"))].into());
    }

    #[test]
    fn beyond_the_room_only_names_are_kept_and_beyond_that_the_need_to_look_at_everything() {
        let mut pending = small();
        for n in 0..5 {
            pending.put(key(Kind::User, n), tier("silver"));
        }
        assert_eq!((pending.changes.len(), pending.stale.len(), pending.take_resync()), (2, 3, false));
        pending.put(key(Kind::User, 1), tier("gold"));
        assert_eq!(pending.changes[&key(Kind::User, 1)], tier("gold"), "one that waits still takes news");
        pending.put(key(Kind::User, 9), tier("gold"));
        assert!(pending.take_resync() && !pending.take_resync());
        assert_eq!(pending.known.len(), 3);
    }

    #[test]
    fn without_a_redis_a_push_becomes_its_list_and_a_newer_push_replaces_it() {
        let mut pending = small();
        assert!(pending.put(key(Kind::List, 1), Change::list("[1]".into())), "dropped as a push");
        pending.connected = true;
        assert!(!pending.put(key(Kind::List, 1), Change::list("[2]".into())));
        let (changes, pushes) = pending.take();
        assert!(changes.is_empty());
        pending.put(key(Kind::List, 1), Change::list("[3]".into()));
        pending.put_back([], pushes);
        assert!(!pending.changes.contains_key(&key(Kind::List, 1)), "what is put back is older than the push that waits");
        assert_eq!(pending.disconnect(), 1);
        assert_eq!(pending.take().0, [(key(Kind::List, 1), Change::list("[3]".into()))].into());
    }
}
