//! Nominations: the node that a waiting pod was promised when others were evicted for it. They are reservations: a pod of
//! no higher priority may stand there only where it also fits beside them.
//!
//! What is noted here runs ahead of `status.nominatedNodeName`, which is only written for people, autoscalers and the next
//! leader. Pods of other schedulers are taken at their word.

use super::pod::PodId;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Who was promised which node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Nominations {
    on: BTreeMap<SmolStr, BTreeSet<PodId>>,
    of: BTreeMap<PodId, SmolStr>,
    version: u64,
}

impl Nominations {
    /// A pod is promised a node, or none any more. Returns whether that is news. `O(log n)`.
    pub(crate) fn set(&mut self, pod: PodId, node: Option<SmolStr>) -> bool {
        if self.of.get(&pod) == node.as_ref() {
            return false;
        }
        if let Some(old) = self.of.remove(&pod)
            && let Some(pods) = self.on.get_mut(&old)
        {
            pods.remove(&pod);
            if pods.is_empty() {
                self.on.remove(&old);
            }
        }
        if let Some(node) = node {
            self.on.entry(node.clone()).or_default().insert(pod);
            self.of.insert(pod, node);
        }
        self.version += 1;
        true
    }

    /// The node that a pod was promised.
    pub(crate) fn of(&self, pod: PodId) -> Option<&SmolStr> {
        self.of.get(&pod)
    }

    /// Who was promised this node.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = PodId> + '_ {
        self.on.get(node).into_iter().flatten().copied()
    }

    /// All promises, by node.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SmolStr, &BTreeSet<PodId>)> {
        self.on.iter()
    }

    /// Whether nobody was promised anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Changes with every promise.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}
