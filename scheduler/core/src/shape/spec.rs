//! The filter shape of a pod: everything that filters and scores can see of it, and nothing else, so that the pods of one
//! template share it.

use crate::devices::may_be_devices;
use crate::explain::Reason;
use crate::model::{HUGE_PAGES, NodeSelectorTerm, PodInfo, Toleration};
use crate::plugins::node_affinity;
use crate::plugins::node_resources_fit::MAX_BITS;
use crate::profile::{Filter, Lane, ProfileRef, Scored};
use crate::reserve::RunTime;
use crate::snapshot::Footprint;
use flowforge_topology_core::HOSTNAME;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What filters and scores see of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShapeSpec {
    /// How it is scheduled.
    pub profile: ProfileRef,
    /// Requests and host ports.
    pub footprint: Footprint,
    /// Which requests NodeResourcesFit does not look at, a bit each.
    pub ignored: u64,
    /// Whether it asks for a resource that a DeviceClass may stand for.
    pub device_backed: bool,
    /// What the pod counts for while it looks for a place, of each resource that NodeResourcesFit scores.
    pub scoring: Vec<i64>,
    /// What it asks of each resource that NodeResourcesBalancedAllocation balances.
    pub balanced: Vec<i64>,
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
    /// How long it runs at most, as it declares.
    pub run_time: RunTime,
}

impl ShapeSpec {
    /// The shape of a pod that this profile schedules.
    #[must_use]
    pub fn of(pod: &PodInfo, profile: ProfileRef) -> Self {
        let mut tolerations = pod.tolerations.clone();
        tolerations.sort();
        tolerations.dedup();
        let mut images = pod.images.clone();
        images.sort();
        let footprint = Footprint::of(pod);
        Self {
            ignored: ignored(&footprint, &profile),
            device_backed: footprint.requests.iter().any(|(name, _)| may_be_devices(name)),
            scoring: profile.fit.resources.iter().map(|resource| asking(pod, resource).max(0)).collect(),
            balanced: profile.balanced.iter().map(|resource| footprint.request(&resource.name)).collect(),
            footprint,
            profile,
            tolerations,
            node_selector: pod.node_selector.clone(),
            required: pod.required_node_affinity.clone(),
            preferred: pod.preferred_node_affinity.clone(),
            required_features: pod.required_features.clone(),
            images,
            run_time: RunTime::of(pod.expected.as_ref()),
        }
    }

    /// Label keys it looks at.
    pub fn label_keys(&self) -> impl Iterator<Item = &SmolStr> {
        let added = &self.profile.added_affinity;
        node_affinity::keys(&self.node_selector, self.required.as_deref(), &self.preferred).chain(node_affinity::keys(
            NO_SELECTOR,
            added.required.as_deref(),
            &added.preferred,
        ))
    }

    /// Whether all that its pods ask of a node is looked at as the default profile does: then it can be counted.
    pub(crate) fn is_plain(&self) -> bool {
        let counted = [Filter::NodePorts, Filter::NodeResourcesFit, Filter::NodeDeclaredFeatures];
        self.ignored == 0 && counted.into_iter().all(|filter| self.runs(filter))
    }

    /// Whether NodeResourcesFit does not look at the request at this position.
    pub(crate) fn ignores(&self, at: usize) -> bool {
        at < u64::BITS as usize && self.ignored & (1 << at) != 0
    }

    /// Whether one of its profile's filters refuses.
    pub(crate) fn runs(&self, filter: Filter) -> bool {
        self.profile.filters.has(filter)
    }

    /// Whether it tells nodes of one class apart: by hostname label or by name.
    #[must_use]
    pub fn looks_at_names(&self) -> bool {
        let fields = |t: &NodeSelectorTerm| !t.match_fields.is_empty();
        let added = &self.profile.added_affinity;
        let required = self.required.iter().chain(&added.required).flatten();
        self.label_keys().any(|k| k == HOSTNAME)
            || required.into_iter().any(fields)
            || self.preferred.iter().chain(&added.preferred).any(|(_, t)| fields(t))
    }

    /// The nodes that the required terms name, where that is all they allow.
    #[must_use]
    pub fn pinned(&self) -> Option<BTreeSet<SmolStr>> {
        node_affinity::pinned(self.required.as_deref().filter(|_| self.runs(Filter::NodeAffinity)))
    }

    /// What refuses the pod whatever the nodes have, in the order of the profile.
    #[must_use]
    pub fn refused_anyway(&self) -> Option<Reason> {
        self.pinned().is_some_and(|named| named.is_empty()).then_some(Reason::AffinityConflict)
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

const NO_SELECTOR: &BTreeMap<SmolStr, SmolStr> = &BTreeMap::new();

fn ignored(footprint: &Footprint, profile: &ProfileRef) -> u64 {
    let ignored =
        footprint.requests.iter().enumerate().take(MAX_BITS).filter(|(_, (name, _))| profile.fit.ignores(name));
    ignored.fold(0, |all, (at, _)| all | 1 << at)
}

/// What a pod counts for in the score of a resource while it looks for a place.
fn asking(pod: &PodInfo, resource: &Scored) -> i64 {
    let (cpu, memory) = pod.asking_requests.unwrap_or(pod.scoring_requests);
    match resource.lane {
        Lane::Cpu => cpu,
        Lane::Memory => memory,
        _ => {
            let asking = pod.asking_huge_pages.as_ref().filter(|_| resource.name.starts_with(HUGE_PAGES));
            asking.unwrap_or(&pod.requests).get(&resource.name).copied().unwrap_or(0)
        }
    }
}
