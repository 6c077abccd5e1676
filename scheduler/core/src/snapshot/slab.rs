//! Dense ids: an index that is reused and a generation that tells the users of one index apart.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Id of a `T`; orders by index. An id whose record is gone resolves to nothing, also after its index was reused.
pub struct Id<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The dense index, for arrays beside the slab.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// The dense index as it is stored in bitmaps and buckets.
    #[must_use]
    pub fn dense(self) -> u32 {
        self.index
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index, self.generation)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Records by dense id. Insert, remove and get are `O(1)`; iteration is in index order.
#[derive(Clone, Debug, PartialEq)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Stores a record.
    pub fn insert(&mut self, value: T) -> Id<T> {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Id { index, generation: slot.generation, of: PhantomData };
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Id { index, generation: 0, of: PhantomData }
    }

    /// Takes a record out; its id never resolves again.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let slot = self.slots.get_mut(id.index()).filter(|s| s.generation == id.generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// The record.
    #[must_use]
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        self.slots.get(id.index()).filter(|s| s.generation == id.generation)?.value.as_ref()
    }

    /// The record, to change it.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        self.slots.get_mut(id.index()).filter(|s| s.generation == id.generation)?.value.as_mut()
    }

    /// The record that has this index now.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<(Id<T>, &T)> {
        let slot = self.slots.get(index as usize)?;
        let id = Id { index, generation: slot.generation, of: PhantomData };
        slot.value.as_ref().map(|value| (id, value))
    }

    /// Length of arrays that run beside the slab.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.slots.len()
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All records in index order.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        (0..self.slots.len()).filter_map(|i| self.at(u32::try_from(i).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_index_has_another_id() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        assert_eq!(slab.remove(a), Some("a"));
        let b = slab.insert("b");
        assert_eq!((a.index(), slab.get(a), slab.get(b)), (b.index(), None, Some(&"b")));
        assert_eq!(slab.remove(a), None);
        assert_eq!((slab.len(), slab.bound()), (1, 1));
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(b, &"b")]);
    }
}
