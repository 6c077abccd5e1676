//! The fastest ring of a small gang: every way to share its members out over the nodes of a domain, in the order of the tree.
//!
//! Nodes are gone through one after the other, each gets as many members of each shape as it takes, then fewer. What comes
//! back is faster than what was known, or nothing; a branch ends as soon as its slowest hop is no faster. Every look at a node
//! for a member is a step, and the caller says how many there are: where they end, the fastest so far counts.

use super::even::{hop, places, tree_order};
use super::plan::Group;
use super::search::collect;
use crate::shape::{ShapeSpec, verdict};
use crate::snapshot::{NodeId, PodId, Txn};
use flowforge_topology_core::DomainId;
use std::collections::BTreeSet;
use std::sync::Arc;

struct Rings<'t, 's> {
    txn: &'t mut Txn<'s>,
    groups: &'t [Group],
    specs: Vec<Arc<ShapeSpec>>,
    /// Devices of a member, by group.
    devices: Vec<u64>,
    nodes: Vec<NodeId>,
    /// By group: how many fit on this node and those after it, as if the group were alone.
    room: Vec<Vec<u64>>,
    /// By group: members without a place.
    left: Vec<usize>,
    /// Hosts with their devices so far.
    stands: Vec<(NodeId, u64)>,
    /// The pace to beat.
    pace: u64,
    found: Option<Vec<(PodId, NodeId)>>,
    steps: u32,
}

/// Places of all members whose ring is faster than `pace`, the fastest that the steps find. Nobody is placed, before or
/// afterwards.
pub(super) fn faster(
    txn: &mut Txn<'_>,
    groups: &[Group],
    domain: DomainId,
    pace: u64,
    steps: u32,
) -> Option<Vec<(PodId, NodeId)>> {
    let mut nodes = BTreeSet::new();
    for group in groups {
        let (cache, _, cluster) = txn.view(group.shape)?;
        let mut takers = Vec::new();
        collect(cache, cluster, domain, &mut takers);
        nodes.extend(takers);
    }
    let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
    let tree = txn.snapshot().cluster().tree();
    nodes.sort_by_cached_key(|node| tree_order(tree, *node));
    let (mut room, mut specs, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups {
        let (cache, shape, cluster) = txn.view(group.shape)?;
        specs.push(Arc::clone(&shape.spec));
        devices.push(cluster.devices_of(*group.members.first()?));
        let mut after = 0_u64;
        let mut sums: Vec<u64> = nodes
            .iter()
            .rev()
            .map(|node| {
                after = after.saturating_add(cache.node(node.dense()).slots.into());
                after
            })
            .collect();
        sums.reverse();
        room.push(sums);
    }
    let left = groups.iter().map(|group| group.members.len()).collect();
    let start = txn.mark();
    let mut rings =
        Rings { txn, groups, specs, devices, nodes, room, left, stands: Vec::new(), pace, found: None, steps };
    rings.share_out(0, u64::MAX);
    let found = rings.found;
    txn.roll_back_to(start);
    found
}

impl Rings<'_, '_> {
    /// Shares the rest out over this node and those after it; false: no step is left.
    fn share_out(&mut self, at: usize, pace: u64) -> bool {
        if self.left.iter().all(|left| *left == 0) {
            self.close(pace);
            return true;
        }
        let fits = |(room, left): (&Vec<u64>, &usize)| room.get(at).copied().unwrap_or(0) >= *left as u64;
        if !self.room.iter().zip(&self.left).all(fits) {
            return true;
        }
        self.fill(at, 0, 0, pace)
    }

    /// Gives a node members of this group and those after it.
    fn fill(&mut self, at: usize, group: usize, devices: u64, pace: u64) -> bool {
        if group == self.groups.len() {
            return self.leave(at, devices, pace);
        }
        let (groups, node) = (self.groups, self.nodes[at]);
        let mut marks = Vec::new();
        while self.left[group] > 0 {
            let Some(rest) = self.steps.checked_sub(1) else { return false };
            self.steps = rest;
            if !verdict(node, &self.specs[group], self.txn.snapshot().cluster()).is_feasible() {
                break;
            }
            let members = &groups[group].members;
            marks.push(self.txn.mark());
            self.txn.place(members[members.len() - self.left[group]], node);
            self.left[group] -= 1;
        }
        loop {
            let more = u64::try_from(marks.len()).unwrap_or(0).saturating_mul(self.devices[group]);
            if !self.fill(at, group + 1, devices + more, pace) {
                return false;
            }
            let Some(mark) = marks.pop() else { return true };
            self.txn.roll_back_to(mark);
            self.left[group] += 1;
        }
    }

    /// Goes on from a node with so many devices on it.
    fn leave(&mut self, at: usize, devices: u64, pace: u64) -> bool {
        if devices == 0 {
            return self.share_out(at + 1, pace);
        }
        let here = (self.nodes[at], devices);
        let tree = self.txn.snapshot().cluster().tree();
        let pace = self.stands.last().map_or(pace, |last| pace.min(hop(tree, *last, here)));
        if pace <= self.pace {
            return true;
        }
        self.stands.push(here);
        let more = self.share_out(at + 1, pace);
        self.stands.pop();
        more
    }

    /// Everyone stands: remembers it where the ring is faster.
    fn close(&mut self, pace: u64) {
        let tree = self.txn.snapshot().cluster().tree();
        let back = match self.stands.as_slice() {
            [first, .., last] => hop(tree, *last, *first),
            _ => u64::MAX,
        };
        if pace.min(back) > self.pace {
            self.pace = pace.min(back);
            self.found = Some(places(self.txn, self.groups));
        }
    }
}
