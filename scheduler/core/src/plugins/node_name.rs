//! NodeName: a pod that names its node is only for that node.
//!
//! Pods with `spec.nodeName` are bound already and never planned, so this decides only about pods that are evaluated
//! against a given node on someone's behalf. Unresolvable by preemption.

use super::Cures;

/// kube-scheduler's name.
pub const NAME: &str = "NodeName";
/// Reason text.
pub const REASON: &str = "node(s) didn't match the requested node name";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED;

/// Whether the pod may stand on the node.
#[must_use]
pub fn fits(requested: Option<&str>, node: &str) -> bool {
    requested.is_none_or(|name| name.is_empty() || name == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_node_fits() {
        assert!(fits(None, "a") && fits(Some(""), "a") && fits(Some("a"), "a"));
        assert!(!fits(Some("b"), "a"));
    }
}
