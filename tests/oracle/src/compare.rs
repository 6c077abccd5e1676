//! Where the two answers differ.

use crate::{ours, upstream};
use std::collections::{BTreeMap, BTreeSet};

/// One difference: where, what kube-scheduler says, what FlowForge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) at: String,
    pub(crate) upstream: String,
    pub(crate) ours: String,
}

/// Rules whose scores FlowForge has.
const SCORED: [&str; 9] = [
    "TaintToleration",
    "NodeAffinity",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
    "NodeResourcesFit",
    "NodeResourcesBalancedAllocation",
    "VolumeBinding",
    "ImageLocality",
];

/// All differences.
pub(crate) fn differences(upstream: &upstream::Answer, ours: &ours::Answer) -> Vec<Difference> {
    let mut found = Found::default();
    // An error of a claim or of its selectors, or a claim of somebody else's ephemeral volume, ends kube-scheduler's attempt; FlowForge refuses the nodes where it shows.
    let failed = ["DynamicResources: ", "running \"DynamicResources\"", "was not created for pod"]
        .iter()
        .any(|by| upstream.error.contains(by));
    if !upstream.error.is_empty() && (!failed || ours.errors.is_empty()) {
        found.check("error", &upstream.error, &String::new());
    }
    if !upstream.error.is_empty() {
        return found.0;
    }
    found.check("errors", &Vec::<String>::new(), &ours.errors);
    let known: BTreeSet<&String> = upstream.nodes.iter().map(|n| &n.name).collect();
    found.check("nodes", &known, &ours.nodes.keys().collect());
    found.check("message", &upstream.message, &ours.message);
    for node in &upstream.nodes {
        let Some(mine) = ours.nodes.get(&node.name) else { continue };
        let name = &node.name;
        found.check(&format!("{name}: feasible"), &node.feasible, &mine.reasons.is_empty());
        found.check(&format!("{name}: first refusal"), &node.plugin.as_str(), &mine.plugin);
        found.check(&format!("{name}: reasons"), &sorted(&node.reasons), &sorted(&mine.reasons));
        for rule in SCORED {
            found.check(&format!("{name}: score of {rule}"), &node.scores.get(rule), &mine.scores.get(rule));
        }
    }
    pick(upstream, ours, &mut found);
    found.0
}

/// The node that is picked has the highest total of the rules that both have.
fn pick(upstream: &upstream::Answer, ours: &ours::Answer, found: &mut Found) {
    let total = |scores: &BTreeMap<String, i64>| -> i64 { SCORED.iter().filter_map(|rule| scores.get(*rule)).sum() };
    let feasible = || upstream.nodes.iter().filter(|node| node.feasible);
    let best = feasible().map(|node| total(&node.scores)).max();
    let picked = ours.picked.as_ref().and_then(|name| feasible().find(|node| node.name == *name));
    found.check("total of the picked node", &best, &picked.map(|node| total(&node.scores)));
}

/// The order of a node's reasons is not part of the contract: the message counts and sorts them.
fn sorted(reasons: &[String]) -> Vec<&String> {
    let mut sorted: Vec<&String> = reasons.iter().collect();
    sorted.sort();
    sorted
}

#[derive(Debug, Default)]
struct Found(Vec<Difference>);

impl Found {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, at: &str, upstream: &T, ours: &T) {
        if upstream != ours {
            let (upstream, ours) = (format!("{upstream:?}"), format!("{ours:?}"));
            self.0.push(Difference { at: at.to_owned(), upstream, ours });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(plugin: &str, score: i64) -> upstream::Answer {
        let node = serde_json::json!({"name": "a", "feasible": plugin.is_empty(), "plugin": plugin,
            "scores": if plugin.is_empty() { serde_json::json!({"TaintToleration": score}) } else { serde_json::json!({}) }});
        serde_json::from_value(serde_json::json!({"nodes": [node]})).unwrap()
    }

    fn mine(plugin: &'static str, score: i64) -> ours::Answer {
        let scores = if plugin.is_empty() { [("TaintToleration", score)].into() } else { BTreeMap::new() };
        let reasons = if plugin.is_empty() { vec![] } else { vec!["r".to_owned()] };
        let picked = plugin.is_empty().then(|| "a".to_owned());
        ours::Answer {
            message: String::new(),
            errors: Vec::new(),
            picked,
            nodes: [("a".to_owned(), ours::Node { plugin, reasons, scores })].into(),
        }
    }

    #[test]
    fn equal_answers_have_no_difference() {
        assert_eq!(differences(&answers("", 300), &mine("", 300)), []);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let at = |all: Vec<Difference>| all.into_iter().map(|d| d.at).collect::<Vec<_>>();
        assert_eq!(at(differences(&answers("", 300), &mine("", 299))), ["a: score of TaintToleration"]);
        let refused = at(differences(&answers("", 300), &mine("NodePorts", 0)));
        assert_eq!(refused[..2], ["a: feasible", "a: first refusal"]);
        assert!(refused.contains(&"total of the picked node".to_owned()));
        let failed = upstream::Answer { error: "broken".to_owned(), ..upstream::Answer::default() };
        assert_eq!(at(differences(&failed, &mine("", 1))), ["error"]);
        assert_eq!(at(differences(&upstream::Answer::default(), &ours::Answer::default())), Vec::<String>::new());
    }
}
