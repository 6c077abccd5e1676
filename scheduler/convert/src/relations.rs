//! What a pod says about other pods, and what selects pods.

use super::types;
use flowforge_scheduler_core::labels::{LabelOperator, LabelRequirement, LabelSelector, Labels};
use flowforge_scheduler_core::preempt::Budget;
use flowforge_scheduler_core::relations::{
    PodAffinity, PodAffinityTerm, Scope, SelectorInfo, SelectorKind, SpreadConstraint,
};

/// Affinity and anti-affinity to pods.
pub(super) fn affinity(pod: &types::Pod) -> PodAffinity {
    let types::Affinity { pod_affinity, pod_anti_affinity, .. } = &pod.spec.affinity;
    let required = |all: &types::PodAffinity| all.required.iter().map(|t| term(t, &pod.metadata)).collect();
    let preferred = |all: &types::PodAffinity| {
        all.preferred.iter().map(|t| (t.weight, term(&t.pod_affinity_term, &pod.metadata))).collect()
    };
    PodAffinity {
        required: required(pod_affinity),
        required_anti: required(pod_anti_affinity),
        preferred: preferred(pod_affinity),
        preferred_anti: preferred(pod_anti_affinity),
    }
}

/// A term that names no namespace and selects none is about the pod's own.
fn term(term: &types::PodAffinityTerm, pod: &types::Meta) -> PodAffinityTerm {
    let own = term.namespaces.is_empty() && term.namespace_selector.is_none();
    let namespaces = if own { [pod.namespace.clone()].into() } else { term.namespaces.iter().cloned().collect() };
    PodAffinityTerm {
        scope: Scope {
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(selector),
            selector: term.label_selector.as_ref().map(selector),
        },
        topology_key: term.topology_key.clone(),
    }
}

/// A constraint; the labels that the pods share with this one become part of the selector.
pub(super) fn spread(constraint: &types::SpreadConstraint, labels: &Labels) -> SpreadConstraint {
    let shared = constraint.match_label_keys.iter().filter_map(|key| labels.get_key_value(key));
    let mut selector = constraint.label_selector.as_ref().map(selector);
    if let Some(selector) = &mut selector {
        selector.requirements.extend(shared.map(|(key, value)| LabelRequirement::equals(key.clone(), value.clone())));
    }
    let honors = |policy: &Option<smol_str::SmolStr>, otherwise: bool| {
        policy.as_ref().map_or(otherwise, |policy| policy == "Honor")
    };
    SpreadConstraint {
        max_skew: constraint.max_skew,
        topology_key: constraint.topology_key.clone(),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        selector,
        min_domains: constraint.min_domains.unwrap_or(1),
        honor_affinity: honors(&constraint.node_affinity_policy, true),
        honor_taints: honors(&constraint.node_taints_policy, false),
    }
}

/// A label selector. A requirement with an operator that this build does not know matches nothing: it becomes `In` without
/// values.
pub(super) fn selector(selector: &types::LabelSelector) -> LabelSelector {
    let mut all = LabelSelector::of(&selector.match_labels);
    all.requirements.extend(selector.match_expressions.iter().map(|requirement| {
        let operator = match requirement.operator.as_str() {
            "In" => Some(LabelOperator::In),
            "NotIn" => Some(LabelOperator::NotIn),
            "Exists" => Some(LabelOperator::Exists),
            "DoesNotExist" => Some(LabelOperator::DoesNotExist),
            _ => None,
        };
        LabelRequirement {
            key: requirement.key.clone(),
            operator: operator.unwrap_or(LabelOperator::In),
            values: operator.map(|_| requirement.values.clone()).unwrap_or_default(),
        }
    }));
    all
}

/// A PodDisruptionBudget.
#[must_use]
pub fn budget(budget: &types::Budget) -> Budget {
    let types::Meta { namespace, name, .. } = budget.metadata.clone();
    Budget {
        namespace,
        name,
        selector: budget.spec.selector.as_ref().map(selector),
        allowed: budget.status.disruptions_allowed,
        disrupted: budget.status.disrupted_pods.keys().cloned().collect(),
    }
}

/// A Service or ReplicationController.
#[must_use]
pub fn selecting_labels(kind: SelectorKind, owner: &types::LabelOwner) -> SelectorInfo {
    info(kind, &owner.metadata, owner.spec.selector.as_ref().map(LabelSelector::of))
}

/// A ReplicaSet or StatefulSet.
#[must_use]
pub fn selecting_pods(kind: SelectorKind, owner: &types::SelectorOwner) -> SelectorInfo {
    info(kind, &owner.metadata, owner.spec.selector.as_ref().map(selector))
}

fn info(kind: SelectorKind, meta: &types::Meta, selector: Option<LabelSelector>) -> SelectorInfo {
    SelectorInfo { kind, namespace: meta.namespace.clone(), name: meta.name.clone(), selector }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: &Value) -> types::Pod {
        let labels = json!({"app": "web", "rev": "1"});
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "labels": labels}, "spec": spec}))
            .expect("a pod")
    }

    #[test]
    fn a_term_is_about_its_own_namespace_unless_it_says_otherwise() {
        let terms = json!([
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}},
            {"topologyKey": "zone", "namespaces": ["other"]},
            {"topologyKey": "zone", "namespaceSelector": {}},
        ]);
        let pod =
            pod(&json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}));
        let all = affinity(&pod).required_anti;
        let names = |at: usize| all[at].scope.namespaces.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!([names(0), names(1), names(2)], [vec!["ns".to_owned()], vec!["other".to_owned()], vec![]]);
        assert_eq!(all[2].scope.namespace_selector, Some(LabelSelector::default()));
        assert_eq!((all[0].scope.selector.is_some(), all[1].scope.selector.is_some()), (true, false));
    }

    #[test]
    fn shared_label_values_become_requirements_where_there_is_a_selector() {
        let constraint = |more: Value| {
            let mut all = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "matchLabelKeys": ["rev", "absent"]});
            all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let pod = pod(&json!({"topologySpreadConstraints": [all]}));
            spread(&pod.spec.topology_spread_constraints[0], &pod.metadata.labels)
        };
        let both = constraint(json!({"labelSelector": {"matchLabels": {"app": "web"}}, "nodeTaintsPolicy": "Honor"}));
        assert_eq!(both.selector, Some(LabelSelector::of(&pod(&json!({})).metadata.labels)));
        assert!(both.hard && both.honor_affinity && both.honor_taints);
        assert_eq!((constraint(json!({})).selector, both.min_domains), (None, 1));
    }
}
