//! Arguments of plugins (`pluginConfig[].args`): fields, defaults and checks of kube-scheduler.

use super::duration::GoDuration;
use super::findings::Findings;
use super::terms::{NodeAffinity, SpreadConstraint, check_label_key};
use flowforge_scheduler_core::plugins::node_resources_fit::Strategy;
use flowforge_scheduler_core::profile::{FitArgs, PreemptionArgs, Profile, Scored, SpreadDefaults};
use serde::Deserialize;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::time::Duration;

/// Arguments of one plugin.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginConfig {
    /// The plugin.
    pub name: SmolStr,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
}

/// Plugins that take no arguments.
const WITHOUT_ARGS: [&str; 13] = [
    "SchedulingGates",
    "PrioritySort",
    "NodeName",
    "NodeUnschedulable",
    "TaintToleration",
    "NodePorts",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeZone",
    "ImageLocality",
    "DefaultBinder",
    "NodeDeclaredFeatures",
    "GangScheduling",
];

/// Puts the arguments of a plugin into a profile; what cannot work is noted under `field`.
pub(super) fn apply(config: &PluginConfig, field: &str, profile: &mut Profile, found: &mut Findings) {
    let empty = Value::Object(serde_json::Map::new());
    let args = if config.args.is_null() { &empty } else { &config.args };
    let at = format!("{field}.args");
    check_type(config, &at, found);
    match config.name.as_str() {
        "NodeResourcesFit" => with(found, &at, args, |args: NodeResourcesFit, found| args.apply(&at, profile, found)),
        "NodeResourcesBalancedAllocation" => {
            with(found, &at, args, |args: BalancedAllocation, found| args.apply(&at, profile, found));
        }
        "NodeAffinity" => with(found, &at, args, |args: NodeAffinityArgs, found| {
            if let Some(added) = args.added_affinity {
                profile.added_affinity = added.added(&format!("{at}.addedAffinity"), found);
            }
        }),
        "PodTopologySpread" => with(found, &at, args, |args: PodTopologySpread, found| args.apply(&at, profile, found)),
        "InterPodAffinity" => with(found, &at, args, |args: InterPodAffinity, found| args.apply(&at, profile, found)),
        "VolumeBinding" => with(found, &at, args, |args: VolumeBinding, found| args.apply(&at, profile, found)),
        "DefaultPreemption" => with(found, &at, args, |args: DefaultPreemption, found| args.apply(&at, profile, found)),
        "DynamicResources" => with(found, &at, args, |args: DynamicResources, found| args.apply(&at, profile, found)),
        name if WITHOUT_ARGS.contains(&name) => {
            found.require(
                config.args.is_null() || *args == empty,
                &at,
                format_args!("must be empty: {name} takes no arguments"),
            );
        }
        name => {
            let what =
                format_args!("configures {name:?}, which is no plugin of the default profile, and has no effect");
            found.notice(format_args!("{field}.name"), what);
        }
    }
}

fn with<T: for<'de> Deserialize<'de>>(
    found: &mut Findings,
    at: &str,
    args: &Value,
    then: impl FnOnce(T, &mut Findings),
) {
    let mut plain = args.clone();
    if let Some(fields) = plain.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(args) = found.arguments(at, &plain) {
        then(args, found);
    }
}

fn check_type(config: &PluginConfig, at: &str, found: &mut Findings) {
    for (key, expected) in [("apiVersion", super::API_VERSION.to_owned()), ("kind", format!("{}Args", config.name))] {
        let given = config.args.get(key);
        let is_expected = given.is_none_or(|given| given.as_str() == Some(expected.as_str()));
        found.require(is_expected, format_args!("{at}.{key}"), format_args!("must be {expected}"));
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpec {
    name: SmolStr,
    #[serde(default)]
    weight: i64,
}

impl ResourceSpec {
    fn scored(&self) -> Scored {
        Scored::new(self.name.clone(), if self.weight == 0 { 1 } else { self.weight })
    }
}

fn scored(resources: &[ResourceSpec]) -> Vec<Scored> {
    if resources.is_empty() { Scored::cpu_and_memory() } else { resources.iter().map(ResourceSpec::scored).collect() }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeResourcesFit {
    ignored_resources: BTreeSet<SmolStr>,
    ignored_resource_groups: BTreeSet<SmolStr>,
    scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ScoringStrategy {
    r#type: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<CapacityRatio>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CapacityRatio {
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

impl NodeResourcesFit {
    fn apply(self, at: &str, profile: &mut Profile, found: &mut Findings) {
        for (index, name) in self.ignored_resources.iter().enumerate() {
            check_label_key(&format!("{at}.ignoredResources[{index}]"), name, found);
        }
        for (index, group) in self.ignored_resource_groups.iter().enumerate() {
            let at = format!("{at}.ignoredResourceGroups[{index}]");
            found.require(!group.contains('/'), &at, "must be what stands before the slash, without one");
            if !group.contains('/') {
                check_label_key(&at, group, found);
            }
        }
        let at = format!("{at}.scoringStrategy");
        let (strategy, resources) = match &self.scoring_strategy {
            None => (Strategy::LeastAllocated, Scored::cpu_and_memory()),
            Some(given) => (given.strategy(&at, found), given.resources(&at, found)),
        };
        profile.fit = FitArgs {
            strategy,
            resources,
            ignored: self.ignored_resources,
            ignored_groups: self.ignored_resource_groups,
        };
    }
}

impl ScoringStrategy {
    fn resources(&self, at: &str, found: &mut Findings) -> Vec<Scored> {
        for (index, resource) in self.resources.iter().enumerate() {
            let at = format_args!("{at}.resources[{index}].weight");
            found.require((0..=100).contains(&resource.weight), at, "must be between 1 and 100");
        }
        scored(&self.resources)
    }

    fn strategy(&self, at: &str, found: &mut Findings) -> Strategy {
        let ratio = &self.requested_to_capacity_ratio;
        if self.r#type != "RequestedToCapacityRatio" {
            found.require(
                ratio.is_none(),
                format_args!("{at}.requestedToCapacityRatio"),
                "belongs to type RequestedToCapacityRatio; remove it or set that type",
            );
        }
        match self.r#type.as_str() {
            "LeastAllocated" => Strategy::LeastAllocated,
            "MostAllocated" => Strategy::MostAllocated,
            "RequestedToCapacityRatio" => {
                let shape = ratio.as_ref().map(|ratio| ratio.shape.as_slice()).unwrap_or_default();
                check_shape(&format!("{at}.requestedToCapacityRatio.shape"), shape, found);
                Strategy::RequestedToCapacityRatio(line(shape))
            }
            other => {
                found.problem(
                    format_args!("{at}.type"),
                    format_args!("{other:?} must be LeastAllocated, MostAllocated or RequestedToCapacityRatio"),
                );
                Strategy::LeastAllocated
            }
        }
    }
}

/// Points score up to 10, nodes up to 100.
fn line(shape: &[ShapePoint]) -> Vec<(i64, i64)> {
    shape.iter().map(|point| (point.utilization, point.score.saturating_mul(10))).collect()
}

fn check_shape(at: &str, shape: &[ShapePoint], found: &mut Findings) {
    found.require(!shape.is_empty(), at, "must have at least one point");
    let unsorted = shape.windows(2).position(|pair| pair[0].utilization >= pair[1].utilization);
    if let Some(before) = unsorted {
        found.problem(format_args!("{at}[{}].utilization", before + 1), "must be larger than that of the point before");
    }
    for (index, point) in shape.iter().enumerate() {
        let (utilization, score) = (point.utilization, point.score);
        found.require(
            (0..=100).contains(&utilization),
            format_args!("{at}[{index}].utilization"),
            "must be between 0 and 100",
        );
        found.require((0..=10).contains(&score), format_args!("{at}[{index}].score"), "must be between 0 and 10");
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BalancedAllocation {
    resources: Vec<ResourceSpec>,
}

impl BalancedAllocation {
    fn apply(self, at: &str, profile: &mut Profile, found: &mut Findings) {
        let mut seen = BTreeSet::new();
        for (index, resource) in self.resources.iter().enumerate() {
            let at = format!("{at}.resources[{index}]");
            found.require(
                seen.insert(&resource.name),
                format_args!("{at}.name"),
                format_args!("{:?} is named twice; name it once", resource.name),
            );
            found.require(matches!(resource.weight, 0 | 1), format_args!("{at}.weight"), "must be 1");
        }
        profile.balanced = scored(&self.resources);
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeAffinityArgs {
    added_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PodTopologySpread {
    default_constraints: Vec<SpreadConstraint>,
    defaulting_type: Option<String>,
}

impl PodTopologySpread {
    fn apply(self, at: &str, profile: &mut Profile, found: &mut Findings) {
        let field = format!("{at}.defaultingType");
        match self.defaulting_type.as_deref().unwrap_or("System") {
            "System" => {
                found.require(
                    self.default_constraints.is_empty(),
                    field,
                    "must be List where defaultConstraints are given",
                );
            }
            "List" => {
                let at = format!("{at}.defaultConstraints");
                SpreadConstraint::check(&self.default_constraints, &at, found);
                let list = self.default_constraints.iter().map(SpreadConstraint::to_core).collect();
                profile.spread_defaults = SpreadDefaults::List(list);
            }
            other => found.problem(field, format_args!("{other:?} must be System or List")),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct InterPodAffinity {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

impl InterPodAffinity {
    fn apply(self, at: &str, profile: &mut Profile, found: &mut Findings) {
        let weight = self.hard_pod_affinity_weight.unwrap_or(profile.hard_pod_affinity_weight);
        found.require(
            (0..=100).contains(&weight),
            format_args!("{at}.hardPodAffinityWeight"),
            "must be between 0 and 100",
        );
        profile.hard_pod_affinity_weight = weight;
        profile.ignore_preferred_of_existing = self.ignore_preferred_terms_of_existing_pods;
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct VolumeBinding {
    bind_timeout_seconds: Option<i64>,
    shape: Vec<ShapePoint>,
}

impl VolumeBinding {
    fn apply(&self, at: &str, profile: &mut Profile, found: &mut Findings) {
        let timeout = self.bind_timeout_seconds;
        found.require(timeout.is_none_or(|s| s >= 0), format_args!("{at}.bindTimeoutSeconds"), "must not be negative");
        let seconds = timeout.and_then(|seconds| u64::try_from(seconds).ok());
        profile.patience.volumes_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        if !self.shape.is_empty() {
            check_shape(&format!("{at}.shape"), &self.shape, found);
            profile.volume_line = line(&self.shape);
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DefaultPreemption {
    min_candidate_nodes_percentage: Option<u32>,
    min_candidate_nodes_absolute: Option<u32>,
}

impl DefaultPreemption {
    fn apply(self, at: &str, profile: &mut Profile, found: &mut Findings) {
        let default = PreemptionArgs::default();
        let percent = self.min_candidate_nodes_percentage.unwrap_or(default.candidates_percent);
        let absolute = self.min_candidate_nodes_absolute.unwrap_or(default.candidates_absolute);
        let field = format!("{at}.minCandidateNodesPercentage");
        found.require(percent <= 100, &field, "must be between 0 and 100");
        found.require(percent > 0 || absolute > 0, field, "and minCandidateNodesAbsolute must not both be 0");
        if let Some(args) = &mut profile.preemption {
            *args = PreemptionArgs { candidates_percent: percent, candidates_absolute: absolute };
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DynamicResources {
    filter_timeout: Option<GoDuration>,
    binding_timeout: Option<GoDuration>,
}

impl DynamicResources {
    fn apply(&self, at: &str, profile: &mut Profile, found: &mut Findings) {
        let binding = self.binding_timeout.map(|timeout| timeout.0);
        found.require(
            binding.is_none_or(|timeout| timeout >= Duration::from_secs(1)),
            format_args!("{at}.bindingTimeout"),
            "must be at least 1s",
        );
        found.notice_set(
            &self.filter_timeout,
            format_args!("{at}.filterTimeout"),
            "has no effect: the search for devices is bounded by steps, not by time",
        );
        let ms = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        profile.patience.devices_ms = binding.map(ms);
    }
}
