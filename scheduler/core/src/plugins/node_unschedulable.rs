//! NodeUnschedulable: a cordoned node takes no new pods, except those that tolerate
//! `node.kubernetes.io/unschedulable:NoSchedule`. Unresolvable by preemption.

use super::{Cures, taint_toleration};
use crate::model::{Taint, TaintEffect, Toleration};
use smol_str::SmolStr;

/// kube-scheduler's name.
pub const NAME: &str = "NodeUnschedulable";
/// Reason text.
pub const REASON: &str = "node(s) were unschedulable";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::NODE_TAINTS).and(Cures::POD_CHANGED);

const TAINT: &str = "node.kubernetes.io/unschedulable";

/// Whether a pod with these tolerations may go to a node with this `spec.unschedulable`.
#[must_use]
pub fn fits(tolerations: &[Toleration], unschedulable: bool) -> bool {
    !unschedulable || {
        let taint =
            Taint { key: SmolStr::new_static(TAINT), value: SmolStr::default(), effect: TaintEffect::NoSchedule };
        taint_toleration::tolerated(tolerations, &taint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_node_takes_only_tolerating_pods() {
        let exists =
            Toleration { key: TAINT.into(), exists: true, value: "".into(), effect: Some(TaintEffect::NoSchedule) };
        let other = Toleration { effect: Some(TaintEffect::NoExecute), ..exists.clone() };
        assert!(fits(&[], false));
        assert!(!fits(&[], true));
        assert!(fits(&[exists], true));
        assert!(!fits(&[other], true));
    }
}
