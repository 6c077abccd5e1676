//! The bounded search for mixed gangs: every assignment of members to nodes of a domain, one member after the other.
//!
//! Members of one shape are interchangeable, so they only move forward over the nodes: of the assignments that differ by
//! swapping two of them one is tried. Only nodes that take a member of the shape before anyone is placed are looked at, for
//! placing frees nothing. It ends with a place, the proof that there is none, or the limit: every look at a node is a step,
//! so that the time of a search does not depend on how many nodes there are.

use super::plan::Group;
use crate::shape::{ShapeCache, ShapeId, verdict};
use crate::snapshot::{Cluster, NodeId, PodId, Txn};
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
    /// Pods with the index of their group.
    members: Vec<(PodId, usize)>,
    /// Shape of each group, and the nodes that may take a member of it.
    groups: Vec<(ShapeId, Vec<NodeId>)>,
}

/// What came of looking for a member's next node.
enum Next {
    /// The index of a node that takes it.
    Node(usize),
    /// There is none.
    End,
    /// No step is left.
    Limit,
}

/// Tries to place all groups below a domain; counts every look at a node as a step. `O(nodes of the domain · groups)`, and
/// the steps.
pub(super) fn exhaust(txn: &mut Txn<'_>, groups: &[Group], domain: DomainId, steps: &mut u32) -> Found {
    let members = (0..).zip(groups).flat_map(|(at, g)| g.members.iter().map(move |m| (*m, at))).collect();
    let mut candidates = Vec::with_capacity(groups.len());
    for group in groups {
        let mut nodes = Vec::new();
        if let Some((cache, _, cluster)) = txn.view(group.shape) {
            collect(cache, cluster, domain, &mut nodes);
        }
        candidates.push((group.shape, nodes));
    }
    Search { txn, members, groups: candidates }.run(steps)
}

/// The nodes below a domain that take a member now.
fn collect(cache: &ShapeCache, cluster: &Cluster, domain: DomainId, nodes: &mut Vec<NodeId>) {
    let tree = cluster.tree();
    let takes = |n: &u32| cache.node(*n).slots > 0;
    nodes.extend(tree.nodes(domain).filter(takes).filter_map(|n| cluster.nodes.at(n).map(|(id, _)| id)));
    for child in tree.children(domain).filter(|child| cache.slots_in(*child) > 0) {
        collect(cache, cluster, child, nodes);
    }
}

impl Search<'_, '_> {
    /// Depth first without recursion: `at[i]` is the candidate that member `i` stands on.
    fn run(&mut self, steps: &mut u32) -> Found {
        let start = self.txn.mark();
        let mut at: Vec<usize> = Vec::with_capacity(self.members.len());
        let mut marks = Vec::with_capacity(self.members.len());
        let mut from = 0;
        while at.len() < self.members.len() {
            let member = at.len();
            match self.next_node(member, from, steps) {
                Next::Node(node) => {
                    let (pod, group) = self.members[member];
                    marks.push(self.txn.mark());
                    self.txn.place(pod, self.groups[group].1[node]);
                    at.push(node);
                    from = self.first_node(member + 1, node);
                }
                Next::End => {
                    let (Some(node), Some(mark)) = (at.pop(), marks.pop()) else { return Found::Nowhere };
                    self.txn.roll_back_to(mark);
                    from = node + 1;
                }
                Next::Limit => {
                    self.txn.roll_back_to(start);
                    return Found::Limit;
                }
            }
        }
        Found::Placed
    }

    /// Where the search for a member begins: at its predecessor's node when both are of one group.
    fn first_node(&self, member: usize, before: usize) -> usize {
        let same = self.members.get(member).is_some_and(|m| m.1 == self.members[member - 1].1);
        if same { before } else { 0 }
    }

    fn next_node(&self, member: usize, from: usize, steps: &mut u32) -> Next {
        let snapshot = self.txn.snapshot();
        let (shape, nodes) = &self.groups[self.members[member].1];
        let Some(shape) = snapshot.shape(*shape) else { return Next::End };
        for (at, node) in (from..).zip(nodes.iter().skip(from)) {
            let Some(rest) = steps.checked_sub(1) else { return Next::Limit };
            *steps = rest;
            if verdict(*node, &shape.spec, snapshot.cluster()).is_feasible() {
                return Next::Node(at);
            }
        }
        Next::End
    }
}
