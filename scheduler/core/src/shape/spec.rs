//! The filter shape of a pod: everything that filters and scores can see of it, and nothing else, so that the pods of one
//! template share it.

use crate::explain::Reason;
use crate::model::{NodeSelectorTerm, PodInfo, Toleration};
use crate::plugins::node_affinity;
use crate::snapshot::Footprint;
use flowforge_topology_core::HOSTNAME;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What filters and scores see of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShapeSpec {
    /// Requests and host ports.
    pub footprint: Footprint,
    /// CPU and memory that the pod counts for in scores while it looks for a place.
    pub scoring: [i64; 2],
    /// Tolerations, sorted.
    pub tolerations: Vec<Toleration>,
    /// `nodeSelector`.
    pub node_selector: BTreeMap<SmolStr, SmolStr>,
    /// Required node affinity.
    pub required: Option<Vec<NodeSelectorTerm>>,
    /// Preferred node affinity.
    pub preferred: Vec<(i32, NodeSelectorTerm)>,
    /// Features that a node must declare.
    pub required_features: BTreeSet<SmolStr>,
    /// Images, sorted.
    pub images: Vec<SmolStr>,
    /// Whether the pod has ResourceClaims, which no node cures.
    pub resource_claims: bool,
    /// Whether the pod has unbound claims, which no node cures.
    pub unbound_claims: bool,
}

impl ShapeSpec {
    /// The shape of a pod.
    #[must_use]
    pub fn of(pod: &PodInfo) -> Self {
        let mut tolerations = pod.tolerations.clone();
        tolerations.sort();
        tolerations.dedup();
        let mut images = pod.images.clone();
        images.sort();
        let (cpu, memory) = pod.asking_requests.unwrap_or(pod.scoring_requests);
        Self {
            footprint: Footprint::of(pod),
            scoring: [cpu.max(0), memory.max(0)],
            tolerations,
            node_selector: pod.node_selector.clone(),
            required: pod.required_node_affinity.clone(),
            preferred: pod.preferred_node_affinity.clone(),
            required_features: pod.required_features.clone(),
            images,
            resource_claims: pod.resource_claims,
            unbound_claims: !pod.unbound_claims.is_empty(),
        }
    }

    /// Label keys it looks at.
    pub fn label_keys(&self) -> impl Iterator<Item = &SmolStr> {
        node_affinity::keys(&self.node_selector, self.required.as_deref(), &self.preferred)
    }

    /// Whether it tells nodes of one class apart: by hostname label or by name.
    #[must_use]
    pub fn looks_at_names(&self) -> bool {
        let fields = |t: &NodeSelectorTerm| !t.match_fields.is_empty();
        self.label_keys().any(|k| k == HOSTNAME)
            || self.required.as_deref().unwrap_or_default().iter().any(fields)
            || self.preferred.iter().any(|(_, t)| fields(t))
    }

    /// The nodes that the required terms name, where that is all they allow.
    #[must_use]
    pub fn pinned(&self) -> Option<BTreeSet<SmolStr>> {
        node_affinity::pinned(self.required.as_deref())
    }

    /// What refuses the pod whatever the nodes have, in the order of the profile.
    #[must_use]
    pub fn refused_anyway(&self) -> Option<Reason> {
        if self.pinned().is_some_and(|named| named.is_empty()) {
            Some(Reason::AffinityConflict)
        } else if self.unbound_claims {
            Some(Reason::UnboundClaims)
        } else {
            self.resource_claims.then_some(Reason::ResourceClaims)
        }
    }

    /// Rough size in bytes, for the budget.
    #[must_use]
    pub fn weight(&self) -> usize {
        let terms = self.required.as_ref().map_or(0, Vec::len) + self.preferred.len();
        512 + 48 * self.images.len()
            + 64 * (self.footprint.requests.len() + self.tolerations.len() + self.node_selector.len())
            + 256 * terms
    }
}
