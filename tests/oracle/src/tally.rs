//! How often each plugin was asked, refused and passed, so that no rule is compared only where it has nothing to say.

use crate::features::FEATURES;
use crate::upstream::Answer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The plugin of devices.
const DEVICES: &str = "DynamicResources";

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
    /// Nodes scored other than the others of the case.
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
        self.add_features(case, answer);
        self.infeasible += u64::from(!answer.nodes.iter().any(|node| node.feasible));
        for plugin in answer.pre_filter.keys() {
            let count = self.counts.entry(plugin.clone()).or_default();
            count.cases += 1;
            count.refusing += 1;
        }
        for plugin in &answer.applied {
            let refused = answer.nodes.iter().filter(|node| node.filters.contains_key(plugin)).count() as u64;
            let count = self.counts.entry(plugin.clone()).or_default();
            count.cases += 1;
            count.refusing += u64::from(refused > 0);
            count.refused += refused;
            count.passed += answer.nodes.len() as u64 - refused;
        }
        self.add_scores(answer);
    }

    /// A feature of devices applies where DynamicResources does and the case uses it.
    fn add_features(&mut self, case: &Value, answer: &Answer) {
        let applies = |plugin: &String| plugin == DEVICES;
        let pod_as_such = answer.pre_filter.keys().any(applies);
        if !pod_as_such && !answer.applied.iter().any(applies) {
            return;
        }
        let refused = answer.nodes.iter().filter(|node| node.filters.contains_key(DEVICES)).count() as u64;
        for (feature, _) in FEATURES.iter().filter(|(_, uses)| uses(case)) {
            let count = self.counts.entry((*feature).to_owned()).or_default();
            count.cases += 1;
            count.refusing += u64::from(pod_as_such || refused > 0);
            count.refused += refused;
            count.passed += answer.nodes.len() as u64 - refused;
        }
    }

    fn add_scores(&mut self, answer: &Answer) {
        let mut ranges: BTreeMap<&String, (i64, i64)> = BTreeMap::new();
        for (plugin, score) in answer.nodes.iter().flat_map(|node| &node.scores) {
            let range = ranges.entry(plugin).or_insert((*score, *score));
            *range = (range.0.min(*score), range.1.max(*score));
        }
        for (plugin, (low, high)) in ranges {
            self.counts.entry(plugin.clone()).or_default().told_apart += u64::from(low != high);
        }
    }

    /// Share of the cases that a plugin applies to in which it refuses, in percent.
    pub(crate) fn refusing_percent(&self, plugin: &str) -> u64 {
        self.counts.get(plugin).map_or(0, |count| 100 * count.refusing / count.cases.max(1))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} without a feasible node", self.cases, self.infeasible)?;
        writeln!(
            f,
            "{:<34}{:>9}{:>10}{:>12}{:>12}{:>14}",
            "plugin", "applies", "refuses", "nodes out", "nodes in", "tells apart"
        )?;
        for (plugin, c) in &self.counts {
            writeln!(
                f,
                "{plugin:<34}{:>9}{:>10}{:>12}{:>12}{:>14}",
                c.cases, c.refusing, c.refused, c.passed, c.told_apart
            )?;
        }
        Ok(())
    }
}
