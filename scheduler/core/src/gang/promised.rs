//! Members that were promised their places go there: the room that was made for a gang is where it was planned to stand.

use super::candidates::Allowed;
use super::plan::{Ask, allowed, ranked, rules};
use crate::snapshot::{Cluster, End, NodeId, PodId, Snapshot};

/// Places every member where it was promised a place; None where one of them was promised none, or does not fit there (yet).
/// What is found stays assumed. `O(members)`.
pub fn plan_promised(snapshot: &mut Snapshot, ask: &Ask) -> Option<Vec<(PodId, NodeId)>> {
    let nodes = ask.members.iter().map(|pod| snapshot.nominated_node(*pod)).collect::<Option<_>>()?;
    plan_on(snapshot, ask, nodes)
}

/// Places every member on its node of these; None where one of them does not fit there. What is found stays assumed.
/// `O(members)`.
pub fn plan_on(snapshot: &mut Snapshot, ask: &Ask, nodes: Vec<NodeId>) -> Option<Vec<(PodId, NodeId)>> {
    let allowed = allowed(snapshot, ask).ok()?;
    let mut rules = rules(snapshot, ask).ok()?;
    if nodes.is_empty() || !share_one(snapshot.cluster(), &nodes, allowed) {
        return None;
    }
    snapshot.transact(|txn| {
        txn.keep_promises(&ask.members);
        for (pod, node) in ask.members.iter().zip(nodes) {
            if !txn.takes(*pod, node) {
                return End::RollBack(None);
            }
            txn.place(*pod, node);
        }
        if rules.as_mut().is_some_and(|rules| !rules.put_all(txn.snapshot().cluster(), &ask.members)) {
            return End::RollBack(None);
        }
        End::Keep(Some(ranked(txn.snapshot(), &ask.members)))
    })
}

/// Whether all of these nodes lie in one of the domains that may hold the gang.
fn share_one(cluster: &Cluster, nodes: &[NodeId], allowed: Allowed) -> bool {
    let mut domains = nodes.iter().map(|node| allowed.of(cluster.tree(), node.dense()));
    let first = domains.next().flatten();
    first.is_some() && domains.all(|domain| domain == first)
}
