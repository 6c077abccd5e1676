//! Topology columns: for a label key, the value of every node as a dense number.

use crate::labels::Labels;
use hashbrown::HashMap;
use indexmap::IndexSet;
use smol_str::SmolStr;

/// The node does not have the label.
pub(crate) const ABSENT: u32 = u32::MAX;

/// Number of a column; valid until columns are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(u32);

/// One column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    values: IndexSet<SmolStr, foldhash::fast::FixedState>,
    /// By node index.
    of: Vec<u32>,
    /// When it was last asked for.
    used: u64,
}

impl Column {
    /// The values of all nodes, by node index; [`ABSENT`] where a node has none. May be shorter than the list of nodes.
    pub(crate) fn of(&self, node: u32) -> u32 {
        self.of.get(node as usize).copied().unwrap_or(ABSENT)
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The number of a value.
    pub(crate) fn find(&self, value: &str) -> Option<u32> {
        self.values.get_index_of(value).and_then(|at| u32::try_from(at).ok())
    }

    fn set(&mut self, key: &str, node: u32, labels: Option<&Labels>) {
        let value = labels.and_then(|l| l.get(key)).map_or(ABSENT, |value| {
            let (at, _) = self.values.insert_full(value.clone());
            u32::try_from(at).unwrap_or(ABSENT)
        });
        let at = node as usize;
        if self.of.len() <= at {
            self.of.resize(at + 1, ABSENT);
        }
        self.of[at] = value;
    }

    /// More values than nodes could have: nodes came and went.
    fn is_stale(&self) -> bool {
        self.values.len() > 1024 + 2 * self.of.len()
    }
}

/// All columns that were asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    columns: Vec<(SmolStr, Column)>,
    ids: HashMap<SmolStr, KeyId, foldhash::fast::FixedState>,
    /// Changes when ids end.
    epoch: u64,
}

impl Columns {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The column of a key; a new one is filled from `nodes`, `O(nodes)`.
    pub(crate) fn key<'a>(&mut self, key: &SmolStr, now: u64, nodes: impl Iterator<Item = (u32, &'a Labels)>) -> KeyId {
        if let Some(&id) = self.ids.get(key) {
            self.columns[id.0 as usize].1.used = now;
            return id;
        }
        let mut column = Column { used: now, ..Column::default() };
        nodes.for_each(|(node, labels)| column.set(key, node, Some(labels)));
        let id = KeyId(u32::try_from(self.columns.len()).unwrap_or(u32::MAX));
        self.columns.push((key.clone(), column));
        self.ids.insert(key.clone(), id);
        id
    }

    /// A column.
    pub(crate) fn get(&self, id: KeyId) -> &Column {
        &self.columns[id.0 as usize].1
    }

    /// A node has these labels now; None: it is not known. `O(columns)`.
    pub(crate) fn set_node(&mut self, node: u32, labels: Option<&Labels>) {
        for (key, column) in &mut self.columns {
            column.set(key, node, labels);
        }
    }

    /// Drops the columns that nobody asked for since, and those that remember too much; they are filled anew when they are
    /// asked for again. All ids end.
    pub(crate) fn trim(&mut self, since: u64) {
        let before = self.columns.len();
        self.columns.retain(|(_, column)| column.used >= since && !column.is_stale());
        if self.columns.len() != before {
            self.epoch += 1;
            let ids = self.columns.iter().enumerate();
            self.ids = ids.map(|(at, (key, _))| (key.clone(), KeyId(u32::try_from(at).unwrap_or(u32::MAX)))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(value: &str) -> Labels {
        [(SmolStr::from("zone"), SmolStr::from(value))].into()
    }

    #[test]
    fn a_column_follows_the_labels_of_nodes() {
        let (a, b, none) = (zone("a"), zone("b"), Labels::new());
        let mut columns = Columns::default();
        let id = columns.key(&"zone".into(), 1, [(0, &a), (1, &b), (2, &none)].into_iter());
        let of = |columns: &Columns| [0, 1, 2, 9].map(|n| columns.get(id).of(n));
        assert_eq!(of(&columns), [0, 1, ABSENT, ABSENT]);
        columns.set_node(1, Some(&a));
        columns.set_node(0, None);
        columns.set_node(9, Some(&b));
        assert_eq!(of(&columns), [ABSENT, 0, ABSENT, 1]);
        assert_eq!((columns.get(id).find("b"), columns.get(id).find("c")), (Some(1), None));
    }

    #[test]
    fn columns_nobody_asks_for_are_dropped_and_filled_anew() {
        let mut columns = Columns::default();
        columns.key(&"old".into(), 1, std::iter::empty());
        columns.key(&"zone".into(), 5, std::iter::empty());
        columns.trim(5);
        assert_eq!(columns.columns.len(), 1);
        let a = zone("a");
        let id = columns.key(&"old".into(), 6, [(0, &a)].into_iter());
        assert_eq!(columns.get(id).of(0), ABSENT);
        assert_eq!(columns.get(columns.ids["zone"]).len(), 0);
    }
}
