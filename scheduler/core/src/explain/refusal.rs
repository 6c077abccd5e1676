//! Refusals and their messages. The message about nodes is kube-scheduler's `FitError`, byte for byte: counted reasons,
//! sorted as strings, `0/N nodes are available: 3 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s).`

use super::{GangRoom, Preemption, Reason};
use crate::plugins::Cures;
use std::collections::{BTreeMap, BTreeSet};

/// What was seen of the nodes: how many refuse for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Nodes in the cluster.
    pub total: usize,
    /// Nodes by reason; a node with several short lanes counts for each.
    pub reasons: BTreeMap<Reason, u32>,
}

impl Seen {
    /// Counts a reason for some nodes.
    pub fn add(&mut self, reason: Reason, nodes: u32) {
        if nodes > 0 {
            *self.reasons.entry(reason).or_default() += nodes;
        }
    }

    /// `N reason, …` sorted as upstream sorts, with `.`; empty when there is none.
    pub(super) fn histogram(&self) -> String {
        let mut parts: Vec<String> = self.reasons.iter().map(|(reason, nodes)| format!("{nodes} {reason}")).collect();
        parts.sort();
        if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(", ")) }
    }
}

/// What a refused gang needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GangContext {
    /// `namespace/name`.
    pub gang: String,
    /// Members that need a place together.
    pub need: u32,
    /// Members that would fit at most where the search got furthest.
    pub fit: u32,
    /// The required level, and the domain where most fit.
    pub domain: Option<(String, Option<String>)>,
    /// Rank, or else name, of the first member without a place.
    pub member: String,
    /// What its layout asks for in vain, where that is why.
    pub part: Option<String>,
}

/// Why a pod or a gang was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No node takes the pod.
    Nodes(Seen),
    /// Refused whatever the nodes have.
    PreFilter {
        /// Nodes in the cluster.
        total: usize,
        /// Why.
        reason: Reason,
    },
    /// Refused, and it was looked for pods to evict.
    Preempted {
        /// Why it is refused.
        refusal: Box<Refusal>,
        /// What came of it.
        preemption: Preemption,
    },
    /// No place for all members of a complete gang.
    GangNodes {
        /// The gang.
        gang: GangContext,
        /// What was seen for the member without a place.
        seen: Seen,
    },
    /// The pod is refused for no fault of the nodes.
    Pod {
        /// Why.
        reason: Reason,
    },
    /// The gang is refused, or waits, as such.
    Gang {
        /// `namespace/name`.
        gang: String,
        /// Why.
        reason: Reason,
    },
}

impl Refusal {
    /// The message for people.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Nodes(seen) => Self::nodes_message(seen),
            Self::PreFilter { total, reason } => format!("0/{total} nodes are available: {reason}."),
            Self::Preempted { refusal, preemption } => format!("{} {preemption}", refusal.message()),
            Self::Pod { reason } => reason.to_string(),
            Self::Gang { gang, reason } => format!("gang {gang}: {reason}"),
            Self::GangNodes { gang, seen } => {
                let together = match &gang.domain {
                    Some((level, Some(best))) => format!(" in one {level}, {} fit (in {best})", gang.fit),
                    Some((level, None)) => format!(" in one {level}, {} fit", gang.fit),
                    None => format!(", {} fit", gang.fit),
                };
                let GangContext { gang, need, member, part, .. } = gang;
                let nodes = Self::nodes_message(seen);
                let part = part.as_ref().map(|part| format!("; {part}")).unwrap_or_default();
                format!("gang {gang} needs {need} members placed together{together}{part}; member {member}: {nodes}")
            }
        }
    }

    /// kube-scheduler's message, which a gang's contains as it is: people and scripts search for it.
    fn nodes_message(seen: &Seen) -> String {
        match seen.total {
            0 => Reason::NoNodes.to_string(),
            total => format!("0/{total} nodes are available:{}", seen.histogram()),
        }
    }

    /// Reason of the condition `PodScheduled=False`. Only a complete refused entity is `Unschedulable`: autoscalers would
    /// scale for half a gang otherwise.
    #[must_use]
    pub fn condition_reason(&self) -> &'static str {
        match self {
            Self::Pod { .. } => "SchedulerError",
            Self::Preempted { refusal, .. } => refusal.condition_reason(),
            Self::Gang { reason, .. } => match reason {
                Reason::BindRefused(_) => "SchedulerError",
                Reason::SizeConflict(..)
                | Reason::SizeInvalid(_)
                | Reason::SizeMissing
                | Reason::Misdeclared(_)
                | Reason::PriorityConflict(..)
                | Reason::UnknownRole(_)
                | Reason::UnknownLevel(..) => "InvalidGang",
                Reason::UnknownGang | Reason::GangEnded => "GangEnded",
                Reason::SearchLimit(_) => "SearchLimit",
                _ => "WaitingForGang",
            },
            Self::Nodes(_) | Self::PreFilter { .. } | Self::GangNodes { .. } => "Unschedulable",
        }
    }

    /// Whether room could be made, were it not for somebody more important.
    #[must_use]
    pub fn is_outranked(&self) -> bool {
        matches!(self, Self::Preempted { preemption: Preemption::Gang(GangRoom::Outranked(_)), .. })
    }

    /// Whether it is a complete gang's, for want of room, or for a search that gave up looking for some.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        matches!(self.nodes(), Self::GangNodes { .. } | Self::Gang { reason: Reason::SearchLimit(_), .. })
    }

    /// The refusal without what came of looking for pods to evict.
    fn nodes(&self) -> &Self {
        match self {
            Self::Preempted { refusal, .. } => refusal.nodes(),
            other => other,
        }
    }

    /// The reasons in it.
    pub fn reasons(&self) -> impl Iterator<Item = &Reason> {
        let (seen, one) = match self.nodes() {
            Self::Preempted { .. } => (None, None),
            Self::Nodes(seen) | Self::GangNodes { seen, .. } => (Some(seen), None),
            Self::PreFilter { reason, .. } | Self::Gang { reason, .. } | Self::Pod { reason } => (None, Some(reason)),
        };
        seen.into_iter().flat_map(|s| s.reasons.keys()).chain(one)
    }

    /// The plugins that refused, as metric labels.
    #[must_use]
    pub fn plugins(&self) -> BTreeSet<&'static str> {
        self.reasons().map(Reason::plugin).collect()
    }

    /// The events that can cure it.
    #[must_use]
    pub fn cures(&self) -> Cures {
        let base = match self.nodes() {
            Self::Preempted { .. } => Cures::NONE,
            Self::Nodes(_) | Self::PreFilter { .. } => Cures::NODE_ADDED,
            Self::GangNodes { .. } => Cures::NODE.and(Cures::POD_GONE).and(Cures::GANG_CHANGED),
            Self::Gang { .. } | Self::Pod { .. } => Cures::NONE,
        };
        self.reasons().fold(base, |all, reason| all.and(reason.cures()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(total: usize, reasons: &[(Reason, u32)]) -> Seen {
        let mut seen = Seen { total, ..Seen::default() };
        reasons.iter().for_each(|(reason, n)| seen.add(reason.clone(), *n));
        seen
    }

    #[test]
    fn node_reasons_are_counted_and_sorted_as_strings_like_upstream() {
        let reasons = [
            (Reason::UntoleratedTaint, 1),
            (Reason::Insufficient("nvidia.com/gpu".into()), 12),
            (Reason::TooManyPods, 3),
            (Reason::NodeAffinity, 0),
        ];
        assert_eq!(
            Refusal::Nodes(seen(14, &reasons)).message(),
            "0/14 nodes are available: 1 node(s) had untolerated taint(s), 12 Insufficient nvidia.com/gpu, 3 Too many pods."
        );
        assert_eq!(Refusal::Nodes(seen(0, &[])).message(), "no nodes available to schedule pods");
    }

    #[test]
    fn prefilter_reasons_stand_alone() {
        let refusal =
            Refusal::PreFilter { total: 2, reason: Reason::Volume(crate::explain::VolumeReason::UnboundClaims) };
        assert_eq!(refusal.message(), "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
        assert_eq!(refusal.condition_reason(), "Unschedulable");
    }

    #[test]
    fn a_gang_says_what_is_missing() {
        let gang =
            GangContext { gang: "ml/train".into(), need: 4, fit: 3, domain: None, member: "rank 3".into(), part: None };
        let seen = seen(32, &[(Reason::Insufficient("nvidia.com/gpu".into()), 32)]);
        assert_eq!(
            Refusal::GangNodes { gang: gang.clone(), seen: seen.clone() }.message(),
            "gang ml/train needs 4 members placed together, 3 fit; \
             member rank 3: 0/32 nodes are available: 32 Insufficient nvidia.com/gpu."
        );
        let in_rack = GangContext { domain: Some(("rack".into(), Some("rack/r1".into()))), ..gang };
        assert_eq!(
            Refusal::GangNodes { gang: in_rack, seen }.message(),
            "gang ml/train needs 4 members placed together in one rack, 3 fit (in rack/r1); \
             member rank 3: 0/32 nodes are available: 32 Insufficient nvidia.com/gpu."
        );
    }

    #[test]
    fn only_a_complete_gang_is_unschedulable() {
        let waiting = |reason| Refusal::Gang { gang: "ml/train".into(), reason };
        let incomplete = waiting(Reason::Incomplete(2, 4, 0));
        assert_eq!(incomplete.message(), "gang ml/train: 2 of 4 members exist");
        assert_eq!(incomplete.condition_reason(), "WaitingForGang");
        assert_eq!(
            waiting(Reason::Incomplete(2, 4, 1)).message(),
            "gang ml/train: 2 of 4 members are ready, 1 more are gated"
        );
        assert_eq!(waiting(Reason::SizeConflict(4, 8)).condition_reason(), "InvalidGang");
        assert!(incomplete.cures().meets(Cures::GANG_CHANGED) && !incomplete.cures().meets(Cures::NODE));
    }

    #[test]
    fn cures_and_plugins_are_the_union_over_the_reasons() {
        let refusal = Refusal::Nodes(seen(2, &[(Reason::NodePorts, 1), (Reason::UntoleratedTaint, 1)]));
        assert_eq!(refusal.plugins().into_iter().collect::<Vec<_>>(), ["NodePorts", "TaintToleration"]);
        assert!(refusal.cures().meets(Cures::POD_GONE) && refusal.cures().meets(Cures::NODE_TAINTS));
        assert!(!refusal.cures().meets(Cures::NODE_ALLOCATABLE));
    }
}
