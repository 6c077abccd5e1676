//! DefaultPreemption: whom to evict so that a pod that fits nowhere fits somewhere.
//!
//! ```text
//!   refused pod ──eligible?──> nodes whose refusal ends by eviction
//!                                 │ each: all less important pods leave; does the pod fit?
//!                                 │       then back with them, most important first, those whose budget is spent before,
//!                                 v       as long as the pod still fits: the rest are the victims
//!                              candidates ──best──> node and victims ──engine──> nominate, evict, wait
//! ```
//! The semantics are those of kube-scheduler 1.37 (`pkg/scheduler/framework/preemption`, `plugins/defaultpreemption`). Of the
//! candidates the one is best that breaks the fewest budgets, then whose most important victim is the least important, then
//! by the sum of priorities, the number of pods, and the latest start; then the first node. What differs: up to
//! [`ALL_NODES`] every node is looked at, where kube-scheduler stops at a tenth of them, or 100 (the profile's arguments); and a gang of ours is one
//! victim, wherever its members stand, because it is of no use without one of them.
//!
//! What this file finds is for single pods; whom to evict for a whole gang is FlowForge's own question, see [`room`].
//! Nothing is changed here: what is found is for the engine to do. `O(nodes)`, and for each node that is looked at
//! `O(pods on it)`; where pods matter to each other `O(pods on it · nodes · rules)`.

pub mod budgets;
mod choice;
mod room;
#[cfg(test)]
mod room_tests;
mod unit;
mod victims;

#[cfg(test)]
mod tests;

pub use budgets::{Budget, Budgets};
pub use choice::Rank;
pub use room::{Around, Cost, Evicted, Making, Room, make_room};

use crate::demand::{Demand, Ground, consider};
use crate::explain::{Preemption, Reason, Seen};
use crate::gang::Gangs;
use crate::profile::PreemptionArgs;
use crate::shape::{ShapeId, ShapeSpec};
use crate::snapshot::{Cluster, NodeId, PodId, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;
use victims::Search;

/// kube-scheduler's name.
pub const NAME: &str = "DefaultPreemption";
/// Reason text of a node on which nobody is less important.
pub const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// Reason text of a node that refuses for what no eviction ends.
pub const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Up to so many nodes all are looked at.
pub const ALL_NODES: usize = 1_000;

/// Whom to evict where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node that takes the pod then.
    pub node: NodeId,
    /// Who is to be evicted, the most important first.
    pub victims: Vec<PodId>,
    /// How good that is; less is better.
    pub rank: Rank,
}

/// What is known beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The gangs of ours.
    pub gangs: &'a Gangs,
    /// Pods whose eviction was sent and which the watch does not show as deleting yet.
    pub doomed: &'a BTreeSet<PodId>,
    /// On a cluster of more than [`ALL_NODES`], the index of the node to begin with.
    pub start: u32,
}

/// Looks for pods to evict for a pod that no node takes; None where the pod is not known, or its profile preempts nobody.
pub fn evaluate(
    snapshot: &mut Snapshot,
    pod: PodId,
    around: Surroundings<'_>,
) -> Option<(Preemption, Option<Candidate>)> {
    let shape = snapshot.cluster().pod(pod)?.shape?;
    let demand = snapshot.demand(pod);
    look(snapshot, pod, shape, &demand, around)
}

/// The same where the demand is known already; None where the pod is not, or its profile preempts nobody.
pub(crate) fn look(
    snapshot: &mut Snapshot,
    pod: PodId,
    shape: ShapeId,
    demand: &Result<Demand, Reason>,
    around: Surroundings<'_>,
) -> Option<(Preemption, Option<Candidate>)> {
    let spec = snapshot.shape(shape)?.spec.clone();
    let args = spec.profile.preemption?;
    let info = snapshot.cluster().info(pod)?;
    if info.never_preempts {
        return Some((Preemption::Never, None));
    }
    let priority = info.priority;
    let total = snapshot.cluster().node_count();
    let demand = match demand {
        Ok(demand) if spec.refused_anyway().is_none() => demand,
        _ => return Some((Preemption::Nowhere(useless(total)), None)),
    };
    let potential = potential(snapshot, shape, &spec, demand);
    if waits_for_victims(snapshot.cluster(), pod, priority, &potential, around.doomed) {
        return Some((Preemption::Terminating, None));
    }
    let mut seen = Seen { total, ..Seen::default() };
    seen.add(Reason::EvictionUseless, u32::try_from(total - potential.len()).unwrap_or(u32::MAX));
    if !snapshot.cluster().any_below(priority) {
        seen.add(Reason::NoVictims, u32::try_from(potential.len()).unwrap_or(u32::MAX));
        return Some((Preemption::Nowhere(seen), None));
    }
    let best = best(snapshot, pod, shape, &spec, demand, &potential, around, args, &mut seen);
    let Some(best) = best else { return Some((Preemption::Nowhere(seen), None)) };
    let found = Preemption::Found { node: snapshot.cluster().node_name(best.node), victims: best.victims.len() };
    Some((found, Some(best)))
}

fn useless(total: usize) -> Seen {
    let mut seen = Seen { total, ..Seen::default() };
    seen.add(Reason::EvictionUseless, u32::try_from(total).unwrap_or(u32::MAX));
    seen
}

/// Nodes whose refusal may end when pods leave, in id order. `O(nodes · reasons)`.
fn potential(snapshot: &mut Snapshot, shape: ShapeId, spec: &Arc<ShapeSpec>, demand: &Demand) -> Vec<NodeId> {
    let considered = consider(snapshot, shape, spec, demand).0;
    let cluster = snapshot.cluster();
    let ends = |node: NodeId, reason: &Reason| match reason {
        Reason::Insufficient(resource) => spec.footprint.request(resource) <= cluster.allocatable(node, resource),
        other => other.ends_by_eviction(),
    };
    let resolvable = |node, reasons: &[Reason]| !reasons.is_empty() && reasons.iter().all(|reason| ends(node, reason));
    considered.iter().filter(|c| resolvable(c.node, &c.reasons(spec))).map(|c| c.node).collect()
}

/// Whether the pod was promised a node that those evicted for it are still leaving. Where that node is out of question now,
/// it waits for nobody.
fn waits_for_victims(
    cluster: &Cluster,
    pod: PodId,
    priority: i32,
    potential: &[NodeId],
    doomed: &BTreeSet<PodId>,
) -> bool {
    let Some(node) = cluster.nominations.of(pod).and_then(|name| cluster.find_node(name)) else { return false };
    let leaving = |victim: &PodId| {
        let standing = cluster.pod(*victim).map(|p| p.standing).unwrap_or_default();
        standing.priority < priority && (standing.deleting && standing.preempted || doomed.contains(victim))
    };
    potential.binary_search(&node).is_ok() && cluster.node(node).is_some_and(|n| n.pods().iter().any(leaving))
}

#[expect(clippy::too_many_arguments, reason = "one step of one search")]
fn best(
    snapshot: &mut Snapshot,
    pod: PodId,
    shape: ShapeId,
    spec: &Arc<ShapeSpec>,
    demand: &Demand,
    potential: &[NodeId],
    around: Surroundings<'_>,
    args: PreemptionArgs,
    seen: &mut Seen,
) -> Option<Candidate> {
    let ground = Ground::of(snapshot, shape, spec);
    let search = Search::new(snapshot, pod, spec, demand, &ground, around.gangs)?;
    let total = snapshot.cluster().node_count();
    let enough = if total <= ALL_NODES { usize::MAX } else { args.candidates(potential.len()) };
    let first = if total <= ALL_NODES { 0 } else { potential.partition_point(|node| node.dense() < around.start) };
    let (before, from) = potential.split_at(first);
    let (mut found, mut harmless) = (0, 0);
    let mut best: Option<Candidate> = None;
    for &node in from.iter().chain(before) {
        match search.victims(snapshot, node) {
            Err(reasons) => reasons.into_iter().for_each(|reason| seen.add(reason, 1)),
            Ok(candidate) => {
                found += 1;
                harmless += usize::from(candidate.rank.violations == 0);
                if best.as_ref().is_none_or(|best| candidate.order() < best.order()) {
                    best = Some(candidate);
                }
                if harmless > 0 && found >= enough {
                    break;
                }
            }
        }
    }
    best
}

impl Candidate {
    fn order(&self) -> (Rank, NodeId) {
        (self.rank, self.node)
    }
}
