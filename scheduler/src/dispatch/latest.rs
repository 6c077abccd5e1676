//! A bounded queue in which a newer item of the same key takes the place of the older one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It waits at the end.
    New,
    /// It took the place of an older one.
    Merged,
    /// The queue is full: it was dropped.
    Dropped,
}

/// Items by key, first come first served; the latest per key wins, and a key that is being worked on is held back.
#[derive(Debug)]
pub(super) struct Latest<K, V> {
    order: VecDeque<K>,
    items: BTreeMap<K, V>,
    working: BTreeSet<K>,
    capacity: usize,
}

impl<K: Ord + Clone, V> Latest<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { order: VecDeque::new(), items: BTreeMap::new(), working: BTreeSet::new(), capacity }
    }

    pub(super) fn insert(&mut self, key: K, item: V) -> Inserted {
        if let Some(waiting) = self.items.get_mut(&key) {
            *waiting = item;
            return Inserted::Merged;
        }
        if self.items.len() >= self.capacity {
            return Inserted::Dropped;
        }
        self.order.push_back(key.clone());
        self.items.insert(key, item);
        Inserted::New
    }

    /// Takes back what still waits.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.items.remove(key)?;
        self.order.retain(|waiting| waiting != key);
        Some(removed)
    }

    /// The first item whose key nobody works on; [`Self::done`] must follow.
    pub(super) fn take(&mut self) -> Option<(K, V)> {
        for _ in 0..self.order.len() {
            let key = self.order.pop_front()?;
            if self.working.contains(&key) {
                self.order.push_back(key);
                continue;
            }
            if let Some(item) = self.items.remove(&key) {
                self.working.insert(key.clone());
                return Some((key, item));
            }
        }
        None
    }

    pub(super) fn done(&mut self, key: &K) {
        self.working.remove(key);
    }

    pub(super) fn is_working(&self, key: &K) -> bool {
        self.working.contains(key)
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.items.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_per_key_wins_and_keeps_its_place() {
        let mut queue = Latest::new(8);
        assert_eq!(queue.insert("a", 1), Inserted::New);
        assert_eq!(queue.insert("b", 2), Inserted::New);
        assert_eq!(queue.insert("a", 3), Inserted::Merged);
        assert_eq!(queue.take(), Some(("a", 3)));
        assert_eq!(queue.take(), Some(("b", 2)));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_full_queue_drops_new_keys_but_still_merges() {
        let mut queue = Latest::new(1);
        queue.insert("a", 1);
        assert_eq!(queue.insert("b", 2), Inserted::Dropped);
        assert_eq!(queue.insert("a", 3), Inserted::Merged);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_key_in_work_is_held_back_so_that_writes_of_one_object_stay_in_order() {
        let mut queue = Latest::new(8);
        queue.insert("a", 1);
        assert_eq!(queue.take(), Some(("a", 1)));
        queue.insert("a", 2);
        queue.insert("b", 3);
        assert!(queue.is_working(&"a"));
        assert_eq!(queue.take(), Some(("b", 3)));
        assert_eq!(queue.take(), None);
        queue.done(&"a");
        assert_eq!(queue.take(), Some(("a", 2)));
    }

    #[test]
    fn what_is_taken_back_is_never_done() {
        let mut queue = Latest::new(8);
        queue.insert("a", 1);
        assert_eq!(queue.remove(&"a"), Some(1));
        assert_eq!(queue.remove(&"a"), None);
        assert_eq!(queue.take(), None);
    }
}
