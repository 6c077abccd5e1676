//! The earliest time at which the ends of what runs make room for a gang, and where: its shadow time.
//!
//! ```text
//!   what runs, by its expected end ──rehearsed: the first leave, then more──> the planner places every member
//!                                      doubling, then halving: the fewest ends that are enough
//! ```
//! The planner itself places the gang, so that its topology, its layout and everything else that filters ask for hold.
//! `O(nodes + pods · log pods)` to put the ends in order, then `O(log ends)` plans and as many moves of pods.

use crate::gang::{Ask, Found, groups, place_in, ranked};
use crate::model::Millis;
use crate::shape::Verdict;
use crate::snapshot::{NodeId, PodId, Snapshot, Txn};
use std::collections::BTreeSet;

/// The ends that are looked at, the earliest first: more of them would take long, and say little.
const LOOK_AHEAD: usize = 8_192;
/// Ends after this long are none that a promise may rest on.
const HORIZON_MS: Millis = 7 * 24 * 3_600_000;

/// On which ends a shadow may rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// On those that are declared.
    Only,
    /// On those of all work that ends some day.
    OrNot,
}

/// When and where a gang has its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shadow {
    /// When; None where nobody knows.
    pub(crate) at_ms: Option<Millis>,
    /// Where each member stands then.
    pub(crate) places: Vec<(PodId, NodeId)>,
}

/// When somebody leaves: those whose end is known in its order, then the others. The older work of those is, the longer it
/// may still take, so that the youngest are expected to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    At(Millis),
    SomeDay { after_start: std::cmp::Reverse<Millis> },
}

/// Looks for the shadow of a gang that fits nowhere now; more important reservations are respected.
pub(crate) fn shadow(snapshot: &mut Snapshot, ask: &Ask, now: Millis, known: Known) -> Option<Shadow> {
    let leaving = leaving(snapshot, ask, now, known);
    if leaving.is_empty() {
        return None;
    }
    snapshot.rehearse(|txn| {
        txn.keep_promises_whole(&ask.members);
        let enough = fewest(txn, ask, &leaving)?;
        let placed = place_in(txn, ask) == Found::Placed;
        let places = if placed { ranked(txn.snapshot(), &ask.members) } else { Vec::new() };
        let at_ms = match leaving.get(enough.checked_sub(1)?)?.0 {
            End::At(at) => Some(at),
            End::SomeDay { .. } => None,
        };
        placed.then_some(Shadow { at_ms, places })
    })
}

/// Who leaves, and when, on the nodes that would take a member but for want of room.
fn leaving(snapshot: &mut Snapshot, ask: &Ask, now: Millis, known: Known) -> Vec<(End, PodId)> {
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    for group in groups(snapshot, &ask.members) {
        let Some((cache, _, cluster)) = snapshot.view_with_cluster(group.shape) else { continue };
        let of_use = |verdict: Verdict| verdict.is_feasible() || verdict == Verdict::PORTS || verdict.is_short();
        let all = cluster.nodes.iter().map(|(id, _)| id);
        nodes.extend(all.filter(|id| of_use(cache.node(id.dense()).verdict)));
    }
    let cluster = snapshot.cluster();
    let end = |pod: PodId| match cluster.expected_end(pod, now) {
        Some(at) => (at <= now.saturating_add(HORIZON_MS)).then_some(End::At(at)),
        None if known == Known::OrNot && cluster.ends_some_day(pod) => {
            let started = cluster.pod(pod)?.standing.started_at_ms.unwrap_or(now);
            Some(End::SomeDay { after_start: std::cmp::Reverse(started) })
        }
        None => None,
    };
    let pods = nodes.iter().filter_map(|node| cluster.node(*node)).flat_map(|node| node.pods().iter().copied());
    let mut leaving: Vec<(End, PodId)> = pods.filter_map(|pod| Some((end(pod)?, pod))).collect();
    leaving.sort_unstable();
    leaving.truncate(LOOK_AHEAD);
    leaving
}

/// How many of the first that leave are enough: those are taken off. Who leaves at one time leaves together.
fn fewest(txn: &mut Txn<'_>, ask: &Ask, leaving: &[(End, PodId)]) -> Option<usize> {
    // Number of pods that have left after each of the times.
    let mut left = vec![0];
    left.extend((1..leaving.len()).filter(|at| leaving[at - 1].0 != leaving[*at].0));
    left.push(leaving.len());
    let take_off = |txn: &mut Txn<'_>, from: usize, to: usize| {
        leaving[left[from]..left[to]].iter().for_each(|(_, pod)| txn.take_off(*pod));
    };
    let (mut none, mut step) = (0, 1);
    loop {
        let mut all = (none + step).min(left.len() - 1);
        let before = txn.mark();
        take_off(txn, none, all);
        if fits(txn, ask) {
            txn.roll_back_to(before);
            while all - none > 1 {
                let (middle, mark) = (none + (all - none) / 2, txn.mark());
                take_off(txn, none, middle);
                if fits(txn, ask) {
                    txn.roll_back_to(mark);
                    all = middle;
                } else {
                    none = middle;
                }
            }
            take_off(txn, none, all);
            return Some(left[all]);
        }
        if all + 1 == left.len() {
            return None;
        }
        (none, step) = (all, step * 2);
    }
}

fn fits(txn: &mut Txn<'_>, ask: &Ask) -> bool {
    let mark = txn.mark();
    let found = place_in(txn, ask) == Found::Placed;
    txn.roll_back_to(mark);
    found
}
