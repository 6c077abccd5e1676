//! `profiles` of the configuration: each becomes a profile of the core.

use super::args::{self, PluginConfig};
use super::findings::Findings;
use super::plugins::Plugins;
use flowforge_scheduler_core::profile::{self as core, PreemptionArgs};
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// How the pods of one `schedulerName` are scheduled; the fields are kube-scheduler's.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Profile {
    /// The `schedulerName`; the default name where there is one profile only.
    pub scheduler_name: Option<SmolStr>,
    /// Accepted without effect.
    pub percentage_of_nodes_to_score: Option<i32>,
    /// Which plugins run, and the weights of their scores.
    pub plugins: Plugins,
    /// Their arguments.
    pub plugin_config: Vec<PluginConfig>,
}

/// The profiles as the core has them; what cannot work is noted. `default_name`: of a single profile without a name.
pub(super) fn resolve(profiles: &[Profile], default_name: &str, found: &mut Findings) -> Vec<core::Profile> {
    let mut names = BTreeSet::new();
    let mut resolved = Vec::new();
    for (index, profile) in profiles.iter().enumerate() {
        let at = format!("profiles[{index}]");
        let default = (profiles.len() == 1).then(|| SmolStr::from(default_name));
        let name = profile.scheduler_name.clone().or(default).unwrap_or_default();
        found.require(!name.is_empty(), format_args!("{at}.schedulerName"), "must not be empty");
        let is_new = name.is_empty() || names.insert(name.clone());
        found.require(
            is_new,
            format_args!("{at}.schedulerName"),
            format_args!("{name:?} is used twice; give each profile its own"),
        );
        check_percentage(profile.percentage_of_nodes_to_score, &format!("{at}.percentageOfNodesToScore"), found);
        resolved.push(profile.resolve(name, &at, found));
    }
    resolved
}

/// Accepted as kube-scheduler accepts it.
pub(super) fn check_percentage(percentage: Option<i32>, at: &str, found: &mut Findings) {
    found.require(percentage.is_none_or(|p| (0..=100).contains(&p)), at, "must be between 0 and 100");
    found.notice_set(&percentage, at, "has no effect: every node is looked at");
}

impl Profile {
    fn resolve(&self, name: SmolStr, at: &str, found: &mut Findings) -> core::Profile {
        let enabled = self.plugins.enabled(&format!("{at}.plugins"), found);
        let mut resolved = core::Profile::named(name);
        resolved.filters = enabled.filters;
        resolved.weights = enabled.weights;
        resolved.preemption = enabled.preempts.then(PreemptionArgs::default);
        let mut seen = BTreeSet::new();
        for (index, config) in self.plugin_config.iter().enumerate() {
            let at = format!("{at}.pluginConfig[{index}]");
            let is_new = seen.insert(&config.name);
            found.require(
                is_new,
                format_args!("{at}.name"),
                format_args!("{:?} is configured twice; configure it once", config.name),
            );
            args::apply(config, &at, &mut resolved, found);
        }
        resolved
    }
}
