//! What a pod says about other pods: affinity, anti-affinity, spread. And who other pods are to it.

use crate::labels::{LabelSelector, Labels};
use crate::model::PodInfo;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Pods of some namespaces that a selector selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// Namespaces by name.
    pub namespaces: BTreeSet<SmolStr>,
    /// Namespaces by label, beside those; an empty selector takes every namespace, None adds none.
    pub namespace_selector: Option<LabelSelector>,
    /// Pods; None selects none.
    pub selector: Option<LabelSelector>,
}

/// A term of pod affinity or anti-affinity (`v1.PodAffinityTerm`, namespaces resolved to the pod's own where it names none).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodAffinityTerm {
    /// The pods it is about.
    pub scope: Scope,
    /// Nodes with one value of this label are one place.
    pub topology_key: SmolStr,
}

/// Affinity and anti-affinity of a pod to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodAffinity {
    /// Each must have a matching pod in the same place.
    pub required: Vec<PodAffinityTerm>,
    /// None may have a matching pod in the same place.
    pub required_anti: Vec<PodAffinityTerm>,
    /// Weight 1..=100 for each matching pod in the same place.
    pub preferred: Vec<(i32, PodAffinityTerm)>,
    /// The same, as a malus.
    pub preferred_anti: Vec<(i32, PodAffinityTerm)>,
}

impl PodAffinity {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}

/// A constraint on how evenly pods are spread (`v1.TopologySpreadConstraint`, `matchLabelKeys` resolved into the selector).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpreadConstraint {
    /// By how many pods a place may exceed the one with the fewest.
    pub max_skew: u32,
    /// Nodes with one value of this label are one place.
    pub topology_key: SmolStr,
    /// `DoNotSchedule`; otherwise it only scores.
    pub hard: bool,
    /// The pods that count, in the pod's own namespace; None selects none.
    pub selector: Option<LabelSelector>,
    /// With fewer places than this the fewest count as 0.
    pub min_domains: u32,
    /// Only nodes that match the pod's node affinity and selector count.
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates count.
    pub honor_taints: bool,
}

/// What other pods see of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) namespace: SmolStr,
    pub(crate) labels: Labels,
    /// Deleting pods count for affinity, not for spread.
    pub(crate) deleting: bool,
    pub(crate) affinity: PodAffinity,
}

impl Peer {
    /// What others see of this pod.
    pub(crate) fn of(pod: &PodInfo) -> Self {
        Self {
            namespace: pod.key.namespace.clone(),
            labels: pod.labels.clone(),
            deleting: pod.deleting,
            affinity: pod.affinity.clone(),
        }
    }
}

/// Labels of the namespaces that exist.
pub(crate) type Namespaces = BTreeMap<SmolStr, Labels>;

impl Scope {
    /// Whether an existing pod is in the scope of a pod that looks for a place: selected namespaces are those that exist.
    pub(crate) fn takes(&self, namespace: &str, labels: &Labels, namespaces: &Namespaces) -> bool {
        let by_label = |selector: &LabelSelector| {
            selector.is_empty() || namespaces.get(namespace).is_some_and(|known| selector.matches(known))
        };
        self.selects(namespace, labels, by_label)
    }

    /// Whether a pod that looks for a place is in the scope of an existing pod: an unknown namespace has no labels.
    pub(crate) fn is_met_by(&self, namespace: &str, labels: &Labels, namespaces: &Namespaces) -> bool {
        let none = Labels::new();
        self.selects(namespace, labels, |selector| selector.matches(namespaces.get(namespace).unwrap_or(&none)))
    }

    fn selects(&self, namespace: &str, labels: &Labels, by_label: impl Fn(&LabelSelector) -> bool) -> bool {
        (self.namespaces.contains(namespace) || self.namespace_selector.as_ref().is_some_and(by_label))
            && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{LabelOperator, LabelRequirement};

    fn scope(names: &[&str], namespace_selector: Option<LabelSelector>) -> Scope {
        let namespaces = names.iter().map(|n| SmolStr::from(*n)).collect();
        Scope { namespaces, namespace_selector, selector: Some(LabelSelector::default()) }
    }

    #[test]
    fn namespaces_are_those_named_and_those_selected() {
        let known: Namespaces =
            [("a".into(), [("team".into(), "x".into())].into()), ("b".into(), Labels::new())].into();
        let team = LabelSelector { requirements: vec![LabelRequirement::equals("team".into(), "x".into())] };
        let takes = |scope: &Scope, namespace| scope.takes(namespace, &Labels::new(), &known);
        let named = scope(&["b"], None);
        assert_eq!([takes(&named, "a"), takes(&named, "b")], [false, true]);
        let union = scope(&["b"], Some(team));
        assert_eq!([takes(&union, "a"), takes(&union, "b"), takes(&union, "c")], [true, true, false]);
        let all = scope(&[], Some(LabelSelector::default()));
        assert_eq!([takes(&all, "a"), takes(&all, "unknown")], [true, true]);
    }

    #[test]
    fn an_unknown_namespace_has_no_labels_for_those_who_are_there() {
        let requirement =
            LabelRequirement { key: "team".into(), operator: LabelOperator::DoesNotExist, values: vec![] };
        let outsiders = scope(&[], Some(LabelSelector { requirements: vec![requirement] }));
        let known = Namespaces::new();
        assert!(outsiders.is_met_by("unknown", &Labels::new(), &known));
        assert!(!outsiders.takes("unknown", &Labels::new(), &known), "what does not exist is not listed");
    }

    #[test]
    fn without_a_selector_nobody_is_selected() {
        let nobody = Scope { selector: None, ..scope(&["a"], None) };
        assert!(!nobody.takes("a", &Labels::new(), &Namespaces::new()));
    }
}
