//! The rules, one per file: semantics, reason texts, what cures a refusal, tests. The semantics are those of
//! kube-scheduler 1.37's default profile (`pkg/scheduler/framework/plugins`).
//!
//! ```text
//!   slow facts (labels, taints, unschedulable): once per (shape, class)   node_unschedulable, taint_toleration, node_affinity
//!   fast facts (ports, free lanes): per changed node                      node_ports, node_resources_fit
//!   volumes: for pods that mount any                                      volume_restrictions, node_volume_limits, volume_binding, volume_zone
//!   other pods (counts per place): for pods that are related to any       pod_topology_spread, inter_pod_affinity
//!   devices (pools of the node): for pods with claims                     dynamic_resources
//!   after all of them, for the few pods that need features                node_declared_features
//!   scores: raw values per node, normalised over the feasible set         taint 3, affinity, spread, pod affinity and devices 2 each,
//!                                                                         least allocated, balanced and images 1 each
//! ```
//! A node's reason is that of the first failing filter in the order of [`crate::profile::Filter::ALL`]; `node_resources_fit`
//! reports all its lanes.
//! A pod's profile ([`crate::profile`]) may leave filters out, weigh the scores otherwise and give the rules arguments.

pub mod dynamic_resources;
pub mod gang_packing;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_declared_features;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod scheduling_gates;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

/// Largest score of a plugin for a node.
pub const MAX_NODE_SCORE: i64 = 100;

/// Events that can cure a refusal, as a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cures(u32);

impl Cures {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A node was added.
    pub const NODE_ADDED: Self = Self(1);
    /// A node's labels changed.
    pub const NODE_LABELS: Self = Self(1 << 1);
    /// A node's taints changed, or it was uncordoned.
    pub const NODE_TAINTS: Self = Self(1 << 2);
    /// A node's allocatable grew.
    pub const NODE_ALLOCATABLE: Self = Self(1 << 3);
    /// A pod left its node, or asks for less.
    pub const POD_GONE: Self = Self(1 << 4);
    /// The refused pod itself changed.
    pub const POD_CHANGED: Self = Self(1 << 5);
    /// The gang's declaration or membership changed.
    pub const GANG_CHANGED: Self = Self(1 << 6);
    /// A node declares other features.
    pub const NODE_FEATURES: Self = Self(1 << 7);
    /// A node went away.
    pub const NODE_GONE: Self = Self(1 << 8);
    /// A pod came to a node.
    pub const POD_ADDED: Self = Self(1 << 9);
    /// The labels of a pod on a node, or of a namespace, changed.
    pub const PEER_LABELS: Self = Self(1 << 10);
    /// A claim of the refused pod was added or changed.
    pub const CLAIMS: Self = Self(1 << 11);
    /// A volume was added or changed.
    pub const VOLUMES: Self = Self(1 << 12);
    /// A StorageClass was added or changed.
    pub const STORAGE_CLASSES: Self = Self(1 << 13);
    /// A CSINode was added or changed.
    pub const CSI_NODES: Self = Self(1 << 15);
    /// More storage capacity is published, or none has to be.
    pub const STORAGE_CAPACITY: Self = Self(1 << 16);
    /// A volume was detached from a node.
    pub const VOLUME_DETACHED: Self = Self(1 << 17);
    /// Devices came, changed, or are free again.
    pub const DEVICES: Self = Self(1 << 14);
    /// A DeviceClass was added or changed.
    pub const DEVICE_CLASSES: Self = Self(1 << 18);
    /// A node event of any kind.
    pub const NODE: Self = Self(
        Self::NODE_ADDED.0
            | Self::NODE_LABELS.0
            | Self::NODE_TAINTS.0
            | Self::NODE_ALLOCATABLE.0
            | Self::NODE_FEATURES.0,
    );

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets share an event.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The events in words, for `explain`.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let all = [
            (Self::NODE_ADDED, "a node is added"),
            (Self::NODE_LABELS, "a node's labels change"),
            (Self::NODE_TAINTS, "a node is uncordoned or loses a taint"),
            (Self::NODE_ALLOCATABLE, "a node gets more allocatable"),
            (Self::NODE_FEATURES, "a node declares more features"),
            (Self::NODE_GONE, "a node goes away"),
            (Self::POD_GONE, "a pod on a node ends or is deleted"),
            (Self::POD_ADDED, "a pod comes to a node"),
            (Self::PEER_LABELS, "the labels of a pod on a node or of a namespace change"),
            (Self::CLAIMS, "a claim of the pod is made or changes"),
            (Self::VOLUMES, "a volume is made or changes"),
            (Self::STORAGE_CLASSES, "a StorageClass is made or changes"),
            (Self::CSI_NODES, "a CSI driver reports more of a node"),
            (Self::STORAGE_CAPACITY, "more storage is free"),
            (Self::VOLUME_DETACHED, "a volume is detached from a node"),
            (Self::DEVICES, "devices come, change or are free again"),
            (Self::DEVICE_CLASSES, "a DeviceClass is made or changes"),
            (Self::POD_CHANGED, "the pod itself changes"),
            (Self::GANG_CHANGED, "the gang or its members change"),
        ];
        all.into_iter().filter(|(event, _)| self.meets(*event)).map(|(_, words)| words).collect()
    }
}

/// Upstream's `DefaultNormalizeScore` for one value: scaled to 0..=100 by the largest raw score of the feasible nodes.
#[must_use]
pub fn normalize(raw: i64, max: i64, reverse: bool) -> i64 {
    if max == 0 {
        return if reverse { MAX_NODE_SCORE } else { raw };
    }
    let scaled = MAX_NODE_SCORE.saturating_mul(raw) / max;
    if reverse { MAX_NODE_SCORE - scaled } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_follows_upstream() {
        assert_eq!([normalize(0, 0, true), normalize(0, 0, false)], [100, 0]);
        assert_eq!([normalize(1, 4, false), normalize(1, 4, true), normalize(4, 4, true)], [25, 75, 0]);
    }

    #[test]
    fn cures_are_sets_with_words() {
        let cures = Cures::NODE_ADDED.and(Cures::POD_GONE);
        assert!(cures.meets(Cures::NODE) && !cures.meets(Cures::POD_CHANGED));
        assert_eq!(cures.words(), ["a node is added", "a pod on a node ends or is deleted"]);
    }
}
