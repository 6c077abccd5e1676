//! Node affinity and spread constraints in arguments, read strictly and checked as kube-scheduler checks them.

use super::findings::Findings;
use crate::convert::node_operator;
use flowforge_scheduler_core::model::{NodeOperator, NodeRequirement, NodeSelectorTerm};
use flowforge_scheduler_core::profile::AddedAffinity;
use flowforge_scheduler_core::relations;
use serde::Deserialize;
use smol_str::SmolStr;

/// Affinity to nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<PreferredTerm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeSelector {
    node_selector_terms: Vec<Term>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PreferredTerm {
    weight: i32,
    preference: Term,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Term {
    match_expressions: Vec<Requirement>,
    match_fields: Vec<Requirement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Requirement {
    key: SmolStr,
    operator: String,
    values: Vec<SmolStr>,
}

impl NodeAffinity {
    /// For a profile; what cannot work is noted under `at`.
    pub(super) fn added(self, at: &str, found: &mut Findings) -> AddedAffinity {
        let required = self.required.map(|selector| {
            let at = format!("{at}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
            let terms = selector.node_selector_terms.iter().enumerate();
            terms.map(|(index, term)| term.to_core(&format!("{at}[{index}]"), found)).collect()
        });
        let at = format!("{at}.preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = self.preferred.iter().enumerate().map(|(index, preferred)| {
            (preferred.weight, preferred.preference.to_core(&format!("{at}[{index}].preference"), found))
        });
        AddedAffinity { required, preferred: preferred.collect() }
    }
}

impl Term {
    fn to_core(&self, at: &str, found: &mut Findings) -> NodeSelectorTerm {
        let mut on = |list: &str, requirements: &[Requirement]| -> Vec<NodeRequirement> {
            let with_index = requirements.iter().enumerate();
            with_index
                .filter_map(|(i, r)| r.to_core(&format!("{at}.{list}[{i}]"), list == "matchFields", found))
                .collect()
        };
        NodeSelectorTerm {
            match_expressions: on("matchExpressions", &self.match_expressions),
            match_fields: on("matchFields", &self.match_fields),
        }
    }
}

impl Requirement {
    fn to_core(&self, at: &str, on_field: bool, found: &mut Findings) -> Option<NodeRequirement> {
        let of_fields = |operator: &NodeOperator| matches!(operator, NodeOperator::In | NodeOperator::NotIn);
        let Some(operator) = node_operator(&self.operator).filter(|known| !on_field || of_fields(known)) else {
            let known = if on_field { "In or NotIn" } else { "In, NotIn, Exists, DoesNotExist, Gt or Lt" };
            found.problem(format_args!("{at}.operator"), format_args!("{:?} must be {known}", self.operator));
            return None;
        };
        let values = format!("{at}.values");
        if on_field {
            found.require(self.key == "metadata.name", format_args!("{at}.key"), "must be metadata.name");
            found.require(self.values.len() == 1, &values, "must hold exactly one name");
        } else {
            check_label_key(&format!("{at}.key"), &self.key, found);
            match operator {
                NodeOperator::In | NodeOperator::NotIn => {
                    found.require(!self.values.is_empty(), &values, "must not be empty for In and NotIn");
                }
                NodeOperator::Exists | NodeOperator::DoesNotExist => {
                    found.require(self.values.is_empty(), &values, "must be empty for Exists and DoesNotExist");
                }
                NodeOperator::Gt | NodeOperator::Lt => {
                    let is_integer = matches!(self.values.as_slice(), [value] if value.parse::<i64>().is_ok());
                    found.require(is_integer, &values, "must hold exactly one whole number for Gt and Lt");
                }
            }
        }
        Some(NodeRequirement { key: self.key.clone(), operator, values: self.values.clone() })
    }
}

/// A default spread constraint.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpreadConstraint {
    max_skew: i64,
    topology_key: SmolStr,
    when_unsatisfiable: String,
    label_selector: Option<serde_json::Value>,
    min_domains: Option<u32>,
    node_affinity_policy: Option<String>,
    node_taints_policy: Option<String>,
    /// Without effect: the selector comes from what selects the pod.
    match_label_keys: Vec<SmolStr>,
}

impl SpreadConstraint {
    /// Notes what cannot work.
    pub(super) fn check(all: &[Self], at: &str, found: &mut Findings) {
        for (index, constraint) in all.iter().enumerate() {
            let before = &all[..index];
            let at = format!("{at}[{index}]");
            let skew = constraint.max_skew;
            found.require(
                (1..=i64::from(i32::MAX)).contains(&skew),
                format_args!("{at}.maxSkew"),
                "must be at least 1",
            );
            check_label_key(&format!("{at}.topologyKey"), &constraint.topology_key, found);
            let action = constraint.when_unsatisfiable.as_str();
            let is_action = matches!(action, "DoNotSchedule" | "ScheduleAnyway");
            found.require(
                is_action,
                format_args!("{at}.whenUnsatisfiable"),
                format_args!("{action:?} must be DoNotSchedule or ScheduleAnyway"),
            );
            found.require(
                constraint.label_selector.is_none(),
                format_args!("{at}.labelSelector"),
                "must be absent: the selector comes from the Services and controllers of each pod",
            );
            let key = &constraint.topology_key;
            let is_repeated = before.iter().any(|c| c.topology_key == *key && c.when_unsatisfiable == action);
            found.require(!is_repeated, &at, format_args!("repeats {action} for {key}; name each pair once"));
            for (field, policy) in [
                ("nodeAffinityPolicy", &constraint.node_affinity_policy),
                ("nodeTaintsPolicy", &constraint.node_taints_policy),
            ] {
                let is_policy = policy.as_deref().is_none_or(|policy| matches!(policy, "Honor" | "Ignore"));
                found.require(is_policy, format_args!("{at}.{field}"), "must be Honor or Ignore");
            }
            if !constraint.match_label_keys.is_empty() {
                found.notice(
                    format_args!("{at}.matchLabelKeys"),
                    "has no effect, as in kube-scheduler: the selector comes from what selects the pod",
                );
            }
        }
    }

    /// As the core has it, without a selector.
    pub(super) fn to_core(&self) -> relations::SpreadConstraint {
        relations::SpreadConstraint {
            max_skew: u32::try_from(self.max_skew).unwrap_or(1),
            topology_key: self.topology_key.clone(),
            hard: self.when_unsatisfiable == "DoNotSchedule",
            selector: None,
            min_domains: self.min_domains.unwrap_or(1),
            honor_affinity: self.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: self.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// Notes a text that is no label key (nor name of a resource): an optional DNS name and a slash, then at most 63 of
/// `[-A-Za-z0-9_.]` that begin and end with a letter or digit.
pub(super) fn check_label_key(at: &str, key: &str, found: &mut Findings) {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let ends = |text: &str| {
        let bytes = text.as_bytes();
        [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
    };
    let is_name = name.len() <= 63
        && ends(name)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let is_part =
        |part: &str| ends(part) && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let is_prefix = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_part));
    found.require(is_name && is_prefix, at, format_args!("{key:?} must be a qualified name such as example.com/name"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_names_are_told_from_others() {
        let problems = |key| {
            let mut found = Findings::default();
            check_label_key("at", key, &mut found);
            found.problems.len()
        };
        assert_eq!(["cpu", "example.com/x", "a.b-c.d/X_1.y"].map(problems), [0; 3]);
        assert_eq!(["", "/x", "x/", "-a", "Example.com/x", "a/b/c"].map(problems), [1; 6]);
    }
}
