//! NodeDeclaredFeatures: a pod that uses what not every kubelet can do goes only to nodes that declare it
//! (`status.declaredFeatures`). Which features a pod needs is inferred from its spec when it is converted
//! (`component-helpers/nodedeclaredfeatures`). Unresolvable by preemption.

use super::Cures;
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// kube-scheduler's name.
pub const NAME: &str = "NodeDeclaredFeatures";
/// Reason text.
pub const REASON: &str = "node(s) didn't match Pod's required features";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::NODE_FEATURES).and(Cures::POD_CHANGED);

/// Whether the node declares everything that the pod needs.
#[must_use]
pub fn fits(required: &BTreeSet<SmolStr>, declared: &BTreeSet<SmolStr>) -> bool {
    required.is_subset(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_required_feature_must_be_declared() {
        let set = |names: &[&str]| names.iter().map(|n| SmolStr::from(*n)).collect::<BTreeSet<_>>();
        assert!(fits(&set(&[]), &set(&[])) && fits(&set(&["a"]), &set(&["a", "b"])));
        assert!(!fits(&set(&["a", "c"]), &set(&["a", "b"])) && !fits(&set(&["a"]), &set(&[])));
    }
}
