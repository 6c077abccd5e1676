//! The bounded search for mixed gangs: every assignment of members to nodes of a domain, one member after the other.
//!
//! Members of one shape (and bound by the same rules of a layout) are interchangeable, so they only move forward over the nodes: of the assignments that differ by
//! swapping two of them one is tried. Only nodes that take a member of the shape before anyone is placed are looked at, for
//! placing frees nothing. It ends with a place, the proof that there is none, or the limit: every look at a node is a step,
//! so that the time of a search does not depend on how many nodes there are.
//!
//! Where pods matter to each other (affinity, spread) the order decides what each of them finds: members go back and forth
//! over the nodes, and each asks for its relations as they are at that moment, `O(changed nodes · rules)`. The first way down is free;
//! every further question is charged by the size of the cluster.

use super::plan::Group;
use super::rules::Rules;
use crate::explain::{Reason, Seen};
use crate::shape::{ShapeCache, ShapeId, verdict};
use crate::snapshot::{Cluster, NodeId, PodId, Txn};
use flowforge_topology_core::DomainId;
use std::borrow::Cow;

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All are placed in the transaction.
    Placed,
    /// There is no place.
    Nowhere,
    /// It gave up.
    Limit,
}

struct Search<'t, 's, 'r> {
    txn: &'t mut Txn<'s>,
    /// Pods with the index of their group.
    members: Vec<(PodId, usize)>,
    /// Shape of each group, and the nodes that may take a member of it.
    groups: Vec<(ShapeId, Vec<NodeId>)>,
    /// Pods matter to each other.
    related: bool,
    /// A member had to be moved: from now on questions about relations are steps.
    turned: bool,
    /// Where members of its parts may stand.
    rules: Option<&'t mut Rules<'r>>,
}

/// So many nodes in the cluster make a question about relations one step dearer.
const NODES_PER_STEP: usize = 512;

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
pub(super) fn exhaust(
    txn: &mut Txn<'_>,
    groups: &[Group],
    domain: DomainId,
    steps: &mut u32,
    related: bool,
    rules: Option<&mut Rules<'_>>,
) -> Found {
    search(txn, groups, domain, related, rules).run(steps)
}

/// Whether other pods may refuse any of the members a node.
pub(crate) fn are_related(txn: &Txn<'_>, groups: &[Group]) -> bool {
    groups.iter().flat_map(|group| &group.members).any(|pod| txn.snapshot().may_demand(*pod))
}

/// Places related members one after the other until one finds no node: how many found one, that member, and what the nodes
/// have against it.
pub(super) fn until_stuck(txn: &mut Txn<'_>, groups: &[Group], domain: DomainId) -> Option<(u32, PodId, Seen)> {
    let mut search = search(txn, groups, domain, true, None);
    for at in 0..search.members.len() {
        let (pod, group) = search.members[at];
        match search.next_related(at, 0) {
            Some(node) => search.txn.place(pod, search.groups[group].1[node]),
            None => return Some((u32::try_from(at).unwrap_or(u32::MAX), pod, seen(search.txn, pod, domain))),
        }
    }
    None
}

fn seen(txn: &mut Txn<'_>, pod: PodId, domain: DomainId) -> Seen {
    let considered = txn.consider(pod);
    let cluster = txn.snapshot().cluster();
    let mut seen = Seen { total: cluster.node_count(), ..Seen::default() };
    let spec = cluster.pod(pod).and_then(|p| p.shape).and_then(|shape| txn.snapshot().shape(shape)).map(|s| &s.spec);
    for node in &considered {
        if node.is_feasible() {
            seen.add(Reason::OutsideDomain(cluster.tree().describe(domain)), 1);
        }
        spec.into_iter().flat_map(|spec| node.reasons(spec)).for_each(|reason| seen.add(reason, 1));
    }
    seen
}

fn search<'t, 's, 'r>(
    txn: &'t mut Txn<'s>,
    groups: &[Group],
    domain: DomainId,
    related: bool,
    rules: Option<&'t mut Rules<'r>>,
) -> Search<'t, 's, 'r> {
    let members = (0..).zip(groups).flat_map(|(at, g)| g.members.iter().map(move |m| (*m, at))).collect();
    let mut candidates = Vec::with_capacity(groups.len());
    for group in groups {
        let mut nodes = Vec::new();
        if let Some((cache, _, cluster)) = txn.view(group.shape) {
            collect(cache, cluster, domain, &mut nodes);
        }
        candidates.push((group.shape, nodes));
    }
    Search { txn, members, groups: candidates, related, turned: false, rules }
}

/// The nodes below a domain that take a member now.
pub(super) fn collect(cache: &ShapeCache, cluster: &Cluster, domain: DomainId, nodes: &mut Vec<NodeId>) {
    let tree = cluster.tree();
    let takes = |n: &u32| cache.node(*n).slots > 0;
    nodes.extend(tree.nodes(domain).filter(takes).filter_map(|n| cluster.nodes.at(n).map(|(id, _)| id)));
    for child in tree.children(domain).filter(|child| cache.slots_in(*child) > 0) {
        collect(cache, cluster, child, nodes);
    }
}

impl Search<'_, '_, '_> {
    /// Depth first without recursion: `at[i]` is the candidate that member `i` stands on.
    fn run(&mut self, steps: &mut u32) -> Found {
        let start = self.txn.mark();
        let ruled = self.rules.as_ref().map_or(0, |rules| rules.mark());
        let mut at: Vec<usize> = Vec::with_capacity(self.members.len());
        let mut marks = Vec::with_capacity(self.members.len());
        let mut from = 0;
        while at.len() < self.members.len() {
            let member = at.len();
            match self.next_node(member, from, steps) {
                Next::Node(node) => {
                    let (pod, group) = self.members[member];
                    marks.push(self.txn.mark());
                    self.put(pod, group, node);
                    at.push(node);
                    from = self.first_node(member + 1, node);
                }
                Next::End => {
                    self.turned = true;
                    let (Some(node), Some(mark)) = (at.pop(), marks.pop()) else { return Found::Nowhere };
                    self.txn.roll_back_to(mark);
                    self.take();
                    from = node + 1;
                }
                Next::Limit => {
                    self.txn.roll_back_to(start);
                    if let Some(rules) = &mut self.rules {
                        rules.undo_to(self.txn.snapshot().cluster(), ruled);
                    }
                    return Found::Limit;
                }
            }
        }
        Found::Placed
    }

    fn put(&mut self, pod: PodId, group: usize, node: usize) {
        let node = self.groups[group].1[node];
        self.txn.place(pod, node);
        if let Some(rules) = &mut self.rules {
            rules.put(self.txn.snapshot().cluster(), pod, node);
        }
    }

    fn take(&mut self) {
        if let Some(rules) = &mut self.rules {
            rules.undo_to(self.txn.snapshot().cluster(), rules.mark() - 1);
        }
    }

    /// Where the search for a member begins: at its predecessor's node when both are of one group.
    fn first_node(&self, member: usize, before: usize) -> usize {
        let same = self.members.get(member).is_some_and(|m| m.1 == self.members[member - 1].1);
        if same && !self.related { before } else { 0 }
    }

    fn next_node(&mut self, member: usize, from: usize, steps: &mut u32) -> Next {
        if self.related {
            let nodes = self.txn.snapshot().cluster().node_count();
            let price = if self.turned { 1 + nodes / NODES_PER_STEP } else { 0 };
            let Some(rest) = steps.checked_sub(u32::try_from(price).unwrap_or(u32::MAX)) else { return Next::Limit };
            *steps = rest;
            return self.next_related(member, from).map_or(Next::End, Next::Node);
        }
        let snapshot = self.txn.snapshot();
        let (pod, group) = self.members[member];
        let (shape, nodes) = &self.groups[group];
        let reachable =
            |node: NodeId| self.rules.as_ref().is_none_or(|rules| rules.allow(snapshot.cluster(), pod, node));
        let Some(shape) = snapshot.shape(*shape) else { return Next::End };
        for (at, node) in (from..).zip(nodes.iter().skip(from)) {
            let Some(rest) = steps.checked_sub(1) else { return Next::Limit };
            *steps = rest;
            if reachable(*node) && verdict(*node, &shape.spec, snapshot.cluster()).is_feasible() {
                return Next::Node(at);
            }
        }
        Next::End
    }

    fn next_related(&mut self, member: usize, from: usize) -> Option<usize> {
        let Self { txn, members, groups, rules, .. } = self;
        let (pod, group) = members[member];
        let (shape, nodes) = &groups[group];
        let demand = txn.demand(pod).ok()?;
        let (cache, tallies, cluster) = txn.view_related(*shape, demand.relation.as_ref())?;
        let view = demand.view(cluster, Cow::Borrowed(tallies));
        let takes = |at: &usize| {
            let node = nodes[*at];
            cache.node(node.dense()).verdict.is_feasible()
                && rules.as_ref().is_none_or(|rules| rules.allow(cluster, pod, node))
                && view.refuse(node).is_none()
        };
        (from..nodes.len()).find(takes)
    }
}
