//! A bounded queue in which a newer item of the same key takes the place of the older one.
//!
//! ```text
//!   insert ──> waiting ──take──> in work ──┬── done
//!                 ^                        └── failed ──> set aside ──again──> waiting
//! ```
//! A newer item, or its removal, ends what was set aside: nothing outdated is ever taken. All operations are `O(log n)`,
//! [`Latest::take`] also `O(keys in work)`.

use std::collections::BTreeMap;

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
    /// Keys by the number of their arrival.
    order: BTreeMap<u64, K>,
    items: BTreeMap<K, (u64, V)>,
    /// Keys in work, and whether what is worked on was taken back since.
    working: BTreeMap<K, bool>,
    /// Failed, and to wait again later; not more than there are keys in work.
    aside: BTreeMap<K, V>,
    arrivals: u64,
    capacity: usize,
}

impl<K: Ord + Clone, V> Latest<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            order: BTreeMap::new(),
            items: BTreeMap::new(),
            working: BTreeMap::new(),
            aside: BTreeMap::new(),
            arrivals: 0,
            capacity,
        }
    }

    pub(super) fn insert(&mut self, key: K, item: V) -> Inserted {
        self.aside.remove(&key);
        if let Some((_, waiting)) = self.items.get_mut(&key) {
            *waiting = item;
            return Inserted::Merged;
        }
        if self.items.len() >= self.capacity {
            return Inserted::Dropped;
        }
        self.append(key, item);
        Inserted::New
    }

    fn append(&mut self, key: K, item: V) {
        self.arrivals += 1;
        self.order.insert(self.arrivals, key.clone());
        self.items.insert(key, (self.arrivals, item));
    }

    /// Takes back what waits, now or for another try; what is in work is not tried again. Returns whether there was any.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let mut found = self.aside.remove(key).is_some();
        if let Some(taken_back) = self.working.get_mut(key) {
            *taken_back = true;
            found = true;
        }
        if let Some((arrival, _)) = self.items.remove(key) {
            self.order.remove(&arrival);
            found = true;
        }
        found
    }

    /// The first item whose key nobody works on; [`Self::done`], or [`Self::failed`] and then
    /// [`Self::again`], must follow.
    pub(super) fn take(&mut self) -> Option<(K, V)> {
        let (arrival, key) = self.order.iter().find(|(_, key)| !self.working.contains_key(key))?;
        let (arrival, key) = (*arrival, key.clone());
        self.order.remove(&arrival);
        let (_, item) = self.items.remove(&key)?;
        self.working.insert(key.clone(), false);
        Some((key, item))
    }

    pub(super) fn done(&mut self, key: &K) {
        self.working.remove(key);
    }

    /// The work failed: the item is set aside until [`Self::again`], unless a newer one waits or it was taken back. The key stays in work, for
    /// what is unknown about the failed work may still happen.
    pub(super) fn failed(&mut self, key: K, item: V) {
        if self.working.get(&key) == Some(&false) && !self.items.contains_key(&key) {
            self.aside.insert(key, item);
        }
    }

    /// The key is no longer in work, and what was set aside waits again, unless it was outdated or taken back since. There
    /// is always room for it. Returns whether it waits.
    pub(super) fn again(&mut self, key: &K) -> bool {
        self.working.remove(key);
        let aside = self.aside.remove(key);
        let waits = aside.is_some();
        if let Some(item) = aside {
            self.append(key.clone(), item);
        }
        waits
    }

    pub(super) fn is_working(&self, key: &K) -> bool {
        self.working.contains_key(key)
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
        assert!(queue.remove(&"a"));
        assert!(!queue.remove(&"a"));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn what_failed_waits_again_unless_a_newer_item_came_or_it_was_taken_back() {
        let mut queue = Latest::new(8);
        let fail = |queue: &mut Latest<&'static str, u32>, item: u32| {
            queue.insert("a", item);
            assert_eq!(queue.take(), Some(("a", item)));
            queue.failed("a", item);
            assert!(queue.is_working(&"a"));
        };
        fail(&mut queue, 1);
        assert_eq!(queue.take(), None, "not before its time");
        assert!(queue.again(&"a"));
        assert_eq!(queue.take(), Some(("a", 1)));
        queue.done(&"a");

        fail(&mut queue, 2);
        queue.insert("a", 3);
        assert!(!queue.again(&"a"));
        assert_eq!(queue.take(), Some(("a", 3)));
        queue.insert("a", 4);
        queue.failed("a", 3);
        assert!(!queue.again(&"a"));
        assert!(queue.remove(&"a"));

        fail(&mut queue, 5);
        assert!(queue.remove(&"a"));
        assert!(!queue.again(&"a"));
        assert_eq!(queue.take(), None);

        queue.insert("a", 6);
        assert_eq!(queue.take(), Some(("a", 6)));
        assert!(queue.remove(&"a"), "taken back while it is in work");
        queue.failed("a", 6);
        assert!(!queue.again(&"a"));
        assert_eq!(queue.take(), None);
    }
}
