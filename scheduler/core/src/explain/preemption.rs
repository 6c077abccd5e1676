//! What came of looking for pods to evict, in kube-scheduler's words, which stand behind the refusal:
//! `0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: …`

use super::Seen;
use smol_str::SmolStr;
use std::fmt;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// The pod's preemptionPolicy is Never.
    Never,
    /// Those evicted for it before are still going.
    Terminating,
    /// Nobody whose eviction would help.
    Nowhere(Seen),
    /// These many are evicted, and the pod is promised their node.
    Found {
        /// The node.
        node: SmolStr,
        /// Pods that are evicted.
        victims: usize,
    },
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("preemption: not eligible due to preemptionPolicy=Never."),
            Self::Terminating => {
                f.write_str("preemption: not eligible due to a terminating pod on the nominated node.")
            }
            Self::Nowhere(seen) => {
                write!(f, "preemption: 0/{} nodes are available:{}", seen.total, seen.histogram())
            }
            Self::Found { node, victims } => {
                let found = "preemption: found a potential placement for pod on node";
                write!(f, "{found} {node}, preempting {victims} victims")
            }
        }
    }
}
