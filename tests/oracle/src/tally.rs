//! How often each plugin was asked, refused and passed, so that no rule is compared only where it has nothing to say.

use crate::features::{FEATURES, Feature};
use crate::upstream::Answer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Filters that have to be compared where they refuse and where they do not.
const FILTERS: [&str; 13] = [
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeZone",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
    "NodeDeclaredFeatures",
];
/// Scores that have to be compared where they tell nodes apart.
const SCORES: [&str; 9] = [
    "TaintToleration",
    "NodeAffinity",
    "NodeResourcesFit",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
    "VolumeBinding",
];
/// In at least one of so many cases in which it applies.
const ONE_OF: u64 = 100;

/// Counts of one plugin, as kube-scheduler answered, each filter asked by itself.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Cases in which the filter has something to say.
    cases: u64,
    /// Cases in which it refuses a node, or the pod as such.
    refusing: u64,
    /// Nodes refused and passed.
    refused: u64,
    passed: u64,
    /// Cases in which it scores several nodes, and those in which not all score the same.
    scored: u64,
    told_apart: u64,
}

/// The counts of all plugins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    cases: u64,
    infeasible: u64,
    counts: BTreeMap<String, Count>,
}

impl Tally {
    pub(crate) fn add(&mut self, case: &Value, answer: &Answer) {
        self.cases += 1;
        self.infeasible += u64::from(!answer.nodes.iter().any(|node| node.feasible));
        for plugin in answer.pre_filter.keys().chain(&answer.applied) {
            self.add_filter(plugin, plugin, answer, |_| true);
        }
        for Feature { name, plugin, uses, reason } in FEATURES {
            let applies = answer.pre_filter.contains_key(plugin) || answer.applied.iter().any(|of| of == plugin);
            if applies && uses(case) {
                self.add_filter(name, plugin, answer, |said| said.contains(reason));
            }
        }
        self.add_scores(answer);
    }

    /// A filter, or a feature that its reasons tell.
    fn add_filter(&mut self, name: &str, plugin: &str, answer: &Answer, is_of: impl Fn(&str) -> bool) {
        let tells = |reasons: Option<&Vec<String>>| reasons.into_iter().flatten().any(|reason| is_of(reason));
        let pod_as_such = tells(answer.pre_filter.get(plugin));
        let refused = answer.nodes.iter().filter(|node| tells(node.filters.get(plugin))).count() as u64;
        let count = self.counts.entry(name.to_owned()).or_default();
        count.cases += 1;
        count.refusing += u64::from(pod_as_such || refused > 0);
        count.refused += refused;
        if !answer.pre_filter.contains_key(plugin) {
            count.passed += answer.nodes.len() as u64 - refused;
        }
    }

    fn add_scores(&mut self, answer: &Answer) {
        let mut ranges: BTreeMap<&String, (i64, i64, u64)> = BTreeMap::new();
        for (plugin, score) in answer.nodes.iter().flat_map(|node| &node.scores) {
            let range = ranges.entry(plugin).or_insert((*score, *score, 0));
            *range = (range.0.min(*score), range.1.max(*score), range.2 + 1);
        }
        for (plugin, (low, high, nodes)) in ranges {
            let count = self.counts.entry(plugin.clone()).or_default();
            count.scored += u64::from(nodes > 1);
            count.told_apart += u64::from(low != high);
        }
    }

    /// What is hardly compared at all: filters and features that do not refuse in one of a hundred cases in which they apply,
    /// or pass nowhere, and scores that do not tell nodes apart in one of a hundred.
    pub(crate) fn thin(&self) -> Vec<String> {
        let count = |name: &str| self.counts.get(name).copied().unwrap_or_default();
        let mut found = Vec::new();
        for name in FILTERS.into_iter().chain(FEATURES.iter().map(|feature| feature.name)) {
            let Count { cases, refusing, passed, .. } = count(name);
            if refusing == 0 || refusing * ONE_OF < cases {
                found.push(format!("{name} refuses in {refusing} of {cases} cases"));
            }
            if passed == 0 {
                found.push(format!("{name} passes nowhere"));
            }
        }
        for name in SCORES {
            let Count { cases, scored, told_apart, .. } = count(name);
            // A plugin may apply as a filter and leave no choice to score.
            let applies = cases.max(scored);
            if told_apart == 0 || told_apart * ONE_OF < applies {
                found.push(format!("the score of {name} tells nodes apart in {told_apart} of {applies} cases"));
            }
        }
        found
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} without a feasible node", self.cases, self.infeasible)?;
        writeln!(
            f,
            "{:<34}{:>9}{:>10}{:>12}{:>12}{:>9}{:>14}",
            "plugin", "applies", "refuses", "nodes out", "nodes in", "scores", "tells apart"
        )?;
        for (plugin, c) in &self.counts {
            writeln!(
                f,
                "{plugin:<34}{:>9}{:>10}{:>12}{:>12}{:>9}{:>14}",
                c.cases, c.refusing, c.refused, c.passed, c.scored, c.told_apart
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tally(answer: Value, times: usize) -> Tally {
        let answer: Answer = serde_json::from_value(answer).unwrap();
        let mut tally = Tally::default();
        (0..times).for_each(|_| tally.add(&json!({}), &answer));
        tally
    }

    fn is_thin(tally: &Tally, what: &str) -> bool {
        tally.thin().iter().any(|found| found.starts_with(what))
    }

    #[test]
    fn a_filter_has_to_refuse_and_to_pass() {
        let refuses = json!({"name": "a", "filters": {"NodePorts": ["r"]}});
        let both = tally(json!({"applied": ["NodePorts"], "nodes": [refuses, {"name": "b"}]}), 1);
        assert!(!is_thin(&both, "NodePorts"), "{:?}", both.thin());
        let never = tally(json!({"applied": ["NodePorts"], "nodes": [{"name": "b"}]}), 1);
        assert!(is_thin(&never, "NodePorts refuses in 0 of 1"));
        let nowhere = tally(json!({"applied": ["NodePorts"], "nodes": [refuses]}), 1);
        assert!(is_thin(&nowhere, "NodePorts passes nowhere"));
        let as_such = tally(json!({"preFilter": {"NodePorts": ["r"]}, "nodes": [{"name": "b"}]}), 1);
        assert!(is_thin(&as_such, "NodePorts passes nowhere"));
    }

    #[test]
    fn one_refusal_in_a_hundred_cases_is_enough() {
        let refuses = json!({"applied": ["NodePorts"], "nodes": [{"name": "a", "filters": {"NodePorts": ["r"]}}]});
        let refuses: Answer = serde_json::from_value(refuses).unwrap();
        let mut rare = tally(json!({"applied": ["NodePorts"], "nodes": [{"name": "b"}]}), 99);
        rare.add(&json!({}), &refuses);
        assert!(!is_thin(&rare, "NodePorts"), "{:?}", rare.thin());
        rare.add(&json!({}), &Answer { applied: vec!["NodePorts".to_owned()], ..Answer::default() });
        assert!(is_thin(&rare, "NodePorts refuses in 1 of 101"));
    }

    #[test]
    fn a_score_has_to_tell_nodes_apart() {
        let of = |a: i64, b: i64| {
            let node =
                |name: &str, score: i64| json!({"name": name, "feasible": true, "scores": {"ImageLocality": score}});
            tally(json!({"nodes": [node("a", a), node("b", b)]}), 1)
        };
        assert!(is_thin(&of(5, 5), "the score of ImageLocality tells nodes apart in 0 of 1"));
        assert!(!is_thin(&of(5, 6), "the score of ImageLocality"));
    }
}
