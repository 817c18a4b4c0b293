//! Deadlines, each key at most once.

use std::collections::{BTreeMap, BTreeSet};

use super::Now;

/// What is due when. Setting a key again moves it.
#[derive(Debug)]
pub(super) struct Agenda<K> {
    by_time: BTreeSet<(Now, K)>,
    by_key: BTreeMap<K, Now>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Agenda<K> {
    pub(super) fn set(&mut self, key: K, at: Now) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((at, key));
    }

    pub(super) fn clear(&mut self, key: K) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
    }

    pub(super) fn next(&self) -> Option<Now> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest key that is due at `now`.
    pub(super) fn take_due(&mut self, now: Now) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_time_order_and_once() {
        let mut agenda = Agenda::default();
        agenda.set('a', Now(5));
        agenda.set('b', Now(3));
        agenda.set('a', Now(2));
        agenda.set('c', Now(1));
        agenda.clear('c');
        assert_eq!(agenda.next(), Some(Now(2)));
        assert_eq!(agenda.take_due(Now(2)), Some('a'));
        assert_eq!(agenda.take_due(Now(2)), None);
        assert_eq!(agenda.take_due(Now(9)), Some('b'));
        assert_eq!(agenda.next(), None);
    }
}
