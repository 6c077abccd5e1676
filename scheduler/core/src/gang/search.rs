//! The bounded search for mixed gangs: every assignment of members to nodes of a domain, one member after the other.
//!
//! Members of one shape are interchangeable, so they only move forward over the nodes: of the assignments that differ by
//! swapping two of them one is tried. It ends with a place, the proof that there is none, or the limit.

use super::plan::Group;
use crate::shape::{ShapeId, verdict};
use crate::snapshot::{NodeId, PodId, Txn};
use flowforge_topology_core::DomainId;

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All are placed in the transaction.
    Placed,
    /// There is no place.
    Nowhere,
    /// It gave up.
    Limit,
}

struct Search<'t, 's> {
    txn: &'t mut Txn<'s>,
    members: Vec<(PodId, ShapeId)>,
    nodes: Vec<NodeId>,
}

/// Tries to place all groups below a domain; counts every placement as a step.
pub(super) fn exhaust(txn: &mut Txn<'_>, groups: &[Group], domain: DomainId, steps: &mut u32) -> Found {
    let mut nodes = Vec::new();
    collect(txn, domain, &mut nodes);
    let members = groups.iter().flat_map(|g| g.members.iter().map(|m| (*m, g.shape))).collect();
    Search { txn, members, nodes }.run(steps)
}

fn collect(txn: &Txn<'_>, domain: DomainId, nodes: &mut Vec<NodeId>) {
    let cluster = txn.snapshot().cluster();
    let tree = cluster.tree();
    nodes.extend(tree.nodes(domain).filter_map(|n| cluster.nodes.at(n).map(|(id, _)| id)));
    for child in tree.children(domain).collect::<Vec<_>>() {
        collect(txn, child, nodes);
    }
}

impl Search<'_, '_> {
    /// Depth first without recursion: `at[i]` is the node that member `i` stands on.
    fn run(&mut self, steps: &mut u32) -> Found {
        let start = self.txn.mark();
        let mut at: Vec<usize> = Vec::with_capacity(self.members.len());
        let mut marks = Vec::with_capacity(self.members.len());
        let mut from = 0;
        while at.len() < self.members.len() {
            let member = at.len();
            if let Some(node) = self.next_node(member, from) {
                let Some(rest) = steps.checked_sub(1) else {
                    self.txn.roll_back_to(start);
                    return Found::Limit;
                };
                *steps = rest;
                marks.push(self.txn.mark());
                self.txn.place(self.members[member].0, self.nodes[node]);
                at.push(node);
                from = self.first_node(member + 1, node);
            } else {
                let (Some(node), Some(mark)) = (at.pop(), marks.pop()) else { return Found::Nowhere };
                self.txn.roll_back_to(mark);
                from = node + 1;
            }
        }
        Found::Placed
    }

    /// Where the search for a member begins: at its predecessor's node when both have one shape.
    fn first_node(&self, member: usize, before: usize) -> usize {
        let same = self.members.get(member).is_some_and(|m| m.1 == self.members[member - 1].1);
        if same { before } else { 0 }
    }

    fn next_node(&self, member: usize, from: usize) -> Option<usize> {
        let snapshot = self.txn.snapshot();
        let spec = &snapshot.shape(self.members[member].1)?.spec;
        (from..self.nodes.len()).find(|n| verdict(self.nodes[*n], spec, snapshot.cluster()).is_feasible())
    }
}
