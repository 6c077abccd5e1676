//! TaintToleration: filters on NoSchedule and NoExecute taints that the pod does not tolerate (unresolvable by preemption);
//! scores by the number of PreferNoSchedule taints that it does not tolerate, fewer is better, normalised and reversed,
//! weight 3.

use super::Cures;
use crate::model::{Taint, TaintEffect, Toleration};

/// kube-scheduler's name.
pub const NAME: &str = "TaintToleration";
/// Reason text.
pub const REASON: &str = "node(s) had untolerated taint(s)";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::NODE_TAINTS).and(Cures::POD_CHANGED);
/// Weight of the score.
pub const WEIGHT: i64 = 3;

/// Whether any toleration tolerates the taint.
#[must_use]
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        t.effect.is_none_or(|e| e == taint.effect)
            && (t.key.is_empty() || t.key == taint.key)
            && (t.exists || t.value == taint.value)
    })
}

/// Whether every taint that keeps pods away is tolerated.
#[must_use]
pub fn fits(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    taints.iter().all(|t| t.effect == TaintEffect::PreferNoSchedule || tolerated(tolerations, t))
}

/// Raw score: PreferNoSchedule taints that are not tolerated; fewer is better.
#[must_use]
pub fn score(tolerations: &[Toleration], taints: &[Taint]) -> u32 {
    let soft = taints.iter().filter(|t| t.effect == TaintEffect::PreferNoSchedule && !tolerated(tolerations, t));
    u32::try_from(soft.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaintEffect::{NoExecute, NoSchedule, PreferNoSchedule};

    fn taint(key: &str, value: &str, effect: TaintEffect) -> Taint {
        Taint { key: key.into(), value: value.into(), effect }
    }

    fn toleration(key: &str, exists: bool, value: &str, effect: Option<TaintEffect>) -> Toleration {
        Toleration { key: key.into(), exists, value: value.into(), effect }
    }

    #[test]
    fn matching_follows_key_operator_value_and_effect() {
        let gpu = taint("gpu", "yes", NoSchedule);
        let check = |t: Toleration| fits(&[t], std::slice::from_ref(&gpu));
        assert!(check(toleration("gpu", false, "yes", Some(NoSchedule))));
        assert!(check(toleration("gpu", false, "yes", None)));
        assert!(check(toleration("gpu", true, "", None)));
        assert!(check(toleration("", true, "", None)));
        assert!(!check(toleration("gpu", false, "no", None)));
        assert!(!check(toleration("gpu", true, "", Some(NoExecute))));
        assert!(!check(toleration("cpu", true, "", None)));
    }

    #[test]
    fn only_hard_taints_filter_and_only_soft_ones_score() {
        let taints = [taint("a", "", PreferNoSchedule), taint("b", "", PreferNoSchedule)];
        assert!(fits(&[], &taints));
        assert!(!fits(&[], &[taint("a", "", NoExecute)]));
        assert_eq!(score(&[], &taints), 2);
        assert_eq!(score(&[toleration("a", true, "", Some(PreferNoSchedule))], &taints), 1);
        assert_eq!(score(&[toleration("a", true, "", Some(NoSchedule))], &taints), 2);
        assert_eq!(score(&[], &[taint("b", "", NoSchedule)]), 0);
    }
}
