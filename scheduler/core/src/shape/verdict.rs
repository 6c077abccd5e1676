//! What the filters say about one node for one shape, as 64 bits: the first failing filter, or the short lanes.

use super::ShapeSpec;
use crate::explain::Reason;
use crate::plugins::node_resources_fit::{MAX_BITS, Short};

/// What the filters say about a node. The low 57 bits are the lanes that NodeResourcesFit finds short.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Verdict(u64);

impl Verdict {
    /// All filters pass.
    pub const FEASIBLE: Self = Self(0);
    /// NodeDeclaredFeatures fails.
    pub const FEATURES: Self = Self(1 << 57);
    /// NodePorts fails.
    pub const PORTS: Self = Self(1 << 58);
    /// NodeAffinity fails.
    pub const AFFINITY: Self = Self(1 << 59);
    /// TaintToleration fails.
    pub const TAINT: Self = Self(1 << 60);
    /// NodeUnschedulable fails.
    pub const UNSCHEDULABLE: Self = Self(1 << 61);
    /// NodeAffinity fails by what the profile adds.
    pub const ADDED_AFFINITY: Self = Self(1 << 62);
    /// There is no such node.
    pub const ABSENT: Self = Self(1 << 63);

    /// NodeResourcesFit's verdict.
    #[must_use]
    pub fn fit(short: Short) -> Self {
        Self(short)
    }

    /// Whether NodeResourcesFit fails.
    #[must_use]
    pub fn is_short(self) -> bool {
        !self.is_feasible() && self.0 < Self::FEATURES.0
    }

    /// Whether a pod of the shape may stand there.
    #[must_use]
    pub fn is_feasible(self) -> bool {
        self == Self::FEASIBLE
    }

    /// The reasons, in kube-scheduler's order.
    #[must_use]
    pub fn reasons(self, spec: &ShapeSpec) -> Vec<Reason> {
        match self {
            Self::FEASIBLE | Self::ABSENT => Vec::new(),
            Self::FEATURES => vec![Reason::DeclaredFeatures],
            Self::PORTS => vec![Reason::NodePorts],
            Self::AFFINITY => vec![Reason::NodeAffinity],
            Self::ADDED_AFFINITY => vec![Reason::AddedAffinity],
            Self::TAINT => vec![Reason::UntoleratedTaint],
            Self::UNSCHEDULABLE => vec![Reason::NodeUnschedulable],
            Self(short) => {
                let mut reasons = Vec::new();
                if short & 1 != 0 {
                    reasons.push(Reason::TooManyPods);
                }
                for (at, (name, _)) in spec.footprint.requests.iter().enumerate().take(MAX_BITS) {
                    if short & (1 << (1 + at)) != 0 {
                        reasons.push(Reason::Insufficient(name.clone()));
                    }
                }
                reasons
            }
        }
    }
}
