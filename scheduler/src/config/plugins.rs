//! Which plugins run at which extension point, as kube-scheduler resolves `plugins`: the lists of a point over those of
//! `multiPoint` over the default profile.

use super::findings::{Findings, nearest};
use flowforge_scheduler_core::profile::{Filter, Filters, Weights};
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// `plugins` of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plugins {
    /// At every point that a plugin extends.
    pub multi_point: PluginSet,
    /// Before a pod enters the queue.
    pub pre_enqueue: PluginSet,
    /// Order of the queue.
    pub queue_sort: PluginSet,
    /// Before nodes are filtered.
    pub pre_filter: PluginSet,
    /// Refuses nodes.
    pub filter: PluginSet,
    /// When no node is left.
    pub post_filter: PluginSet,
    /// Before nodes are scored.
    pub pre_score: PluginSet,
    /// Scores nodes.
    pub score: PluginSet,
    /// After a node is chosen.
    pub reserve: PluginSet,
    /// Before binding.
    pub permit: PluginSet,
    /// Prepares binding.
    pub pre_bind: PluginSet,
    /// Binds.
    pub bind: PluginSet,
    /// After binding.
    pub post_bind: PluginSet,
    /// Placements of pod groups.
    pub placement_generate: PluginSet,
    /// Scores placements of pod groups.
    pub placement_score: PluginSet,
    /// When a pod group fits nowhere.
    pub pod_group_post_filter: PluginSet,
}

/// The lists of one extension point.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PluginSet {
    /// What runs beside the default plugins.
    pub enabled: Vec<Plugin>,
    /// Default plugins that do not run; `*` stands for all.
    pub disabled: Vec<Plugin>,
}

/// A plugin in a list.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// kube-scheduler's name.
    pub name: SmolStr,
    /// Weight of its score; 1 when absent or 0.
    #[serde(default)]
    pub weight: Option<i32>,
}

/// An extension point.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    PreBind,
    Bind,
}

use Point::{
    Bind, Filter as Filtering, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score,
};

const FILTER: &[Point] = &[PreFilter, Filtering];
const FILTER_AND_SCORE: &[Point] = &[PreFilter, Filtering, PreScore, Score];

/// The plugins of the default profile in its order: name, the points that each extends.
const DEFAULT: [(&str, &[Point]); 20] = [
    ("SchedulingGates", &[PreEnqueue]),
    ("PrioritySort", &[QueueSort]),
    ("NodeName", FILTER),
    ("NodeUnschedulable", FILTER),
    ("TaintToleration", FILTER_AND_SCORE),
    ("NodeAffinity", FILTER_AND_SCORE),
    ("NodePorts", FILTER),
    ("NodeResourcesFit", FILTER_AND_SCORE),
    ("VolumeRestrictions", FILTER),
    ("NodeVolumeLimits", FILTER),
    ("VolumeBinding", &[PreFilter, Filtering, PreScore, Score, Reserve, PreBind]),
    ("VolumeZone", FILTER),
    ("PodTopologySpread", FILTER_AND_SCORE),
    ("InterPodAffinity", FILTER_AND_SCORE),
    ("DynamicResources", &[PreEnqueue, PreFilter, Filtering, PostFilter, Reserve, PreBind, Score]),
    ("DefaultPreemption", &[PreEnqueue, PostFilter]),
    ("NodeResourcesBalancedAllocation", &[PreScore, Score]),
    ("ImageLocality", &[Score]),
    ("DefaultBinder", &[Bind]),
    ("NodeDeclaredFeatures", FILTER),
];

/// Plugins that kube-scheduler has and that its feature gates leave out by default.
const GATED: [&str; 4] = ["DeferredPodScheduling", "GangScheduling", "PodGroupPodsCount", "TopologyPlacementGenerator"];

/// Filters that need nothing of their PreFilter.
const NEEDS_NO_PRE_FILTER: [&str; 4] = ["NodeName", "NodeUnschedulable", "TaintToleration", "NodeVolumeLimits"];
/// Filters whose PreFilter refuses by itself.
const PRE_FILTER_REFUSES: [&str; 5] =
    ["NodeAffinity", "VolumeRestrictions", "VolumeBinding", "VolumeZone", "DynamicResources"];
/// Plugins that reserve and prepare what their filter found, so that they work as a whole or not at all.
const WHOLE: [&str; 2] = ["VolumeBinding", "DynamicResources"];

/// What the lists come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Enabled {
    pub(crate) filters: Filters,
    pub(crate) weights: Weights,
    pub(crate) preempts: bool,
}

impl Plugins {
    /// Resolves the lists; what cannot work is noted under `field`.
    pub(crate) fn enabled(&self, field: &str, found: &mut Findings) -> Enabled {
        self.check_lists(field, found);
        self.check_pairs(field, found);
        let mut filters = Filters::ALL;
        for (filter, name) in Filter::ALL {
            if !self.runs(name, Filtering) {
                filters = filters.without(filter);
            }
        }
        let weights = Weights::of(|name| if self.runs(name, Score) { self.weight(name) } else { 0 });
        Enabled { filters, weights, preempts: self.runs("DefaultPreemption", PostFilter) }
    }

    fn set(&self, point: Point) -> &PluginSet {
        match point {
            PreEnqueue => &self.pre_enqueue,
            QueueSort => &self.queue_sort,
            PreFilter => &self.pre_filter,
            Filtering => &self.filter,
            PostFilter => &self.post_filter,
            PreScore => &self.pre_score,
            Score => &self.score,
            Reserve => &self.reserve,
            PreBind => &self.pre_bind,
            Bind => &self.bind,
        }
    }

    /// Every list with its name; those that no plugin here extends have no point.
    fn lists(&self) -> [(&'static str, Option<Point>, &PluginSet); 16] {
        [
            ("multiPoint", None, &self.multi_point),
            ("preEnqueue", Some(PreEnqueue), &self.pre_enqueue),
            ("queueSort", Some(QueueSort), &self.queue_sort),
            ("preFilter", Some(PreFilter), &self.pre_filter),
            ("filter", Some(Filtering), &self.filter),
            ("postFilter", Some(PostFilter), &self.post_filter),
            ("preScore", Some(PreScore), &self.pre_score),
            ("score", Some(Score), &self.score),
            ("reserve", Some(Reserve), &self.reserve),
            ("permit", None, &self.permit),
            ("preBind", Some(PreBind), &self.pre_bind),
            ("bind", Some(Bind), &self.bind),
            ("postBind", None, &self.post_bind),
            ("placementGenerate", None, &self.placement_generate),
            ("placementScore", None, &self.placement_score),
            ("podGroupPostFilter", None, &self.pod_group_post_filter),
        ]
    }

    /// Whether a plugin of the default profile runs at a point.
    fn runs(&self, name: &str, point: Point) -> bool {
        let set = self.set(point);
        if !extends(name, point) {
            return false;
        }
        set.enables(name)
            || (!set.disables(name) && (self.multi_point.enables(name) || !self.multi_point.disables(name)))
    }

    /// Weight of a score: of its own list, else of `multiPoint`, else the default.
    fn weight(&self, name: &str) -> i64 {
        let listed = |set: &PluginSet| {
            let plugin = set.enabled.iter().find(|plugin| plugin.name == name)?;
            Some(i64::from(plugin.weight.filter(|weight| *weight != 0).unwrap_or(1)))
        };
        let default = || Weights::default().by_name().into_iter().find(|(known, _)| *known == name).map(|(_, w)| w);
        listed(&self.score).or_else(|| listed(&self.multi_point)).or_else(default).unwrap_or(0)
    }

    fn check_lists(&self, field: &str, found: &mut Findings) {
        for (list, point, set) in self.lists() {
            let mut seen = BTreeSet::new();
            for (index, Plugin { name, weight }) in set.enabled.iter().enumerate() {
                let at = format!("{field}.{list}.enabled[{index}]");
                check_enabled(&at, name, list, point, found);
                found.require(
                    seen.insert(name),
                    format_args!("{at}.name"),
                    format_args!("{name:?} is enabled twice; name it once"),
                );
                let weight = weight.unwrap_or(0);
                found.require(
                    weight >= 0,
                    format_args!("{at}.weight"),
                    "must not be negative; disable the plugin to leave its score out",
                );
            }
            for (index, Plugin { name, .. }) in set.disabled.iter().enumerate() {
                if name != "*" && !is_known(name) && !GATED.contains(&name.as_str()) {
                    let at = format!("{field}.{list}.disabled[{index}].name");
                    found.notice(at, format_args!("{name:?} is no plugin of the default profile and has no effect"));
                }
            }
        }
        if !is_in_default_order(&self.filter) {
            found.notice(
                format_args!("{field}.filter.enabled"),
                "orders the filters; FlowForge asks them in the order of the default profile: the same nodes pass, a refused node may name another reason",
            );
        }
    }

    fn check_pairs(&self, field: &str, found: &mut Findings) {
        for (name, points) in DEFAULT {
            let runs = |point| self.runs(name, point);
            if points.contains(&PreFilter) {
                let (before, filters) = (runs(PreFilter), runs(Filtering));
                let is_broken = (filters && !before && !NEEDS_NO_PRE_FILTER.contains(&name))
                    || (before && !filters && PRE_FILTER_REFUSES.contains(&name));
                found.require(
                    !is_broken,
                    field,
                    format_args!("enables only one of preFilter and filter for {name}, which needs both or none"),
                );
            }
            if points.contains(&PreScore) {
                let is_broken = runs(Score) && !runs(PreScore);
                found.require(
                    !is_broken,
                    field,
                    format_args!("disables {name} at preScore and not at score, which needs it; disable both"),
                );
            }
            let prepared = [Filtering, Reserve, PreBind].map(runs);
            let is_whole = prepared == [true; 3] || prepared == [false; 3];
            if WHOLE.contains(&name) {
                found.require(is_whole, field, format_args!("enables {name} at some of filter, reserve and preBind only; enable or disable it at all of them"));
                let scores_nothing = is_whole && runs(Score) && !runs(Filtering);
                found.require(
                    !scores_nothing,
                    format_args!("{field}.score"),
                    format_args!("enables {name}, whose score is of what its filter found; disable it there, or enable its filter"),
                );
            }
        }
        for (name, point, list, why) in [
            ("PrioritySort", QueueSort, "queueSort", "the queue has no other order"),
            ("DefaultBinder", Bind, "bind", "nothing else binds"),
        ] {
            found.require(
                self.runs(name, point),
                format_args!("{field}.{list}"),
                format_args!("must not disable {name}: {why}"),
            );
        }
        if !self.runs("SchedulingGates", PreEnqueue) {
            found.notice(
                format_args!("{field}.preEnqueue"),
                "disables SchedulingGates; gated pods wait all the same, because the API server does not bind them",
            );
        }
    }
}

impl PluginSet {
    fn enables(&self, name: &str) -> bool {
        self.enabled.iter().any(|plugin| plugin.name == name)
    }

    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|plugin| plugin.name == name || plugin.name == "*")
    }
}

fn is_known(name: &str) -> bool {
    DEFAULT.iter().any(|(known, _)| *known == name)
}

/// Whether a plugin of the default profile has something to do at a point.
pub(crate) fn extends(name: &str, point: Point) -> bool {
    DEFAULT.iter().any(|(known, points)| *known == name && points.contains(&point))
}

fn check_enabled(at: &str, name: &str, list: &str, point: Option<Point>, found: &mut Findings) {
    if GATED.contains(&name) {
        found.notice(
            format_args!("{at}.name"),
            format_args!("{name:?} belongs to a feature that is off by default and has no effect"),
        );
    } else if !is_known(name) {
        let hint = nearest(name, DEFAULT.iter().map(|(known, _)| *known));
        let hint = hint.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
        found.problem(
            format_args!("{at}.name"),
            format_args!(
                "{name:?} is no plugin of kube-scheduler's default profile, and others cannot be loaded{hint}"
            ),
        );
    } else if list != "multiPoint" && !point.is_some_and(|point| extends(name, point)) {
        found.problem(format_args!("{at}.name"), format_args!("{name:?} does not extend {list}; remove it there"));
    }
}

fn is_in_default_order(set: &PluginSet) -> bool {
    let place = |plugin: &Plugin| DEFAULT.iter().position(|(known, _)| *known == plugin.name);
    set.enabled.iter().filter_map(place).is_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(yaml: &str) -> (Enabled, Findings) {
        let plugins: Plugins = serde_saphyr::from_str(yaml).expect("plugins");
        let mut found = Findings::default();
        (plugins.enabled("plugins", &mut found), found)
    }

    fn weights(yaml: &str) -> Weights {
        let (enabled, found) = enabled(yaml);
        assert_eq!(found.problems, Vec::<String>::new());
        enabled.weights
    }

    #[test]
    fn nothing_said_is_the_default_profile() {
        let (enabled, found) = enabled("{}");
        let default = Enabled { filters: Filters::ALL, weights: Weights::default(), preempts: true };
        assert_eq!((enabled, found), (default, Findings::default()));
    }

    #[test]
    fn a_score_is_disabled_and_another_weighs_more() {
        let weights = weights("score: {disabled: [{name: ImageLocality}], enabled: [{name: NodeAffinity, weight: 7}]}");
        assert_eq!((weights.image_locality, weights.node_affinity, weights.taint_toleration), (0, 7, 3));
    }

    #[test]
    fn a_plugin_that_is_enabled_again_without_a_weight_weighs_one() {
        assert_eq!(weights("multiPoint: {enabled: [{name: TaintToleration}]}").taint_toleration, 1);
        let both = "multiPoint: {enabled: [{name: TaintToleration, weight: 5}]}\nscore: {enabled: [{name: TaintToleration, weight: 9}]}";
        assert_eq!(weights(both).taint_toleration, 9, "the point's own list counts");
    }

    #[test]
    fn a_star_disables_all_that_is_not_enabled_beside_it() {
        let weights = weights("score: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit}]}");
        let only_fit = Weights { node_resources_fit: 1, ..Weights::default() };
        assert_eq!((weights.node_resources_fit, weights.pod_topology_spread, weights.image_locality), (1, 0, 0));
        assert_ne!(weights, only_fit);
    }

    #[test]
    fn a_plugin_is_taken_out_of_every_point() {
        let (enabled, found) = enabled("multiPoint: {disabled: [{name: InterPodAffinity}, {name: DefaultPreemption}]}");
        assert_eq!(found, Findings::default());
        assert!(!enabled.filters.has(Filter::InterPodAffinity) && enabled.filters.has(Filter::NodePorts));
        assert_eq!((enabled.weights.inter_pod_affinity, enabled.preempts), (0, false));
    }

    #[test]
    fn a_filter_alone_may_go_where_nothing_else_of_it_refuses() {
        let (without, found) = enabled("filter: {disabled: [{name: NodeResourcesFit}]}");
        assert_eq!(found, Findings::default());
        assert!(!without.filters.has(Filter::NodeResourcesFit));
        assert_eq!(without.weights, Weights::default(), "it still scores");
        let problem = enabled("filter: {disabled: [{name: NodeAffinity}]}").1.problems;
        assert_eq!(
            problem,
            ["plugins enables only one of preFilter and filter for NodeAffinity, which needs both or none"]
        );
    }

    #[test]
    fn what_cannot_work_is_named_with_its_place() {
        for (yaml, expected) in [
            (
                "score: {enabled: [{name: NodeResourceFit}]}",
                "plugins.score.enabled[0].name \"NodeResourceFit\" is no plugin of kube-scheduler's default profile, and others cannot be loaded; did you mean \"NodeResourcesFit\"?",
            ),
            (
                "filter: {enabled: [{name: ImageLocality}]}",
                "plugins.filter.enabled[0].name \"ImageLocality\" does not extend filter; remove it there",
            ),
            (
                "permit: {enabled: [{name: NodePorts}]}",
                "plugins.permit.enabled[0].name \"NodePorts\" does not extend permit; remove it there",
            ),
            (
                "multiPoint: {enabled: [{name: NodePorts}, {name: NodePorts}]}",
                "plugins.multiPoint.enabled[1].name \"NodePorts\" is enabled twice; name it once",
            ),
            (
                "score: {enabled: [{name: NodeAffinity, weight: -1}]}",
                "plugins.score.enabled[0].weight must not be negative; disable the plugin to leave its score out",
            ),
            ("bind: {disabled: [{name: '*'}]}", "plugins.bind must not disable DefaultBinder: nothing else binds"),
            (
                "queueSort: {disabled: [{name: PrioritySort}]}",
                "plugins.queueSort must not disable PrioritySort: the queue has no other order",
            ),
            (
                "preScore: {disabled: [{name: TaintToleration}]}",
                "plugins disables TaintToleration at preScore and not at score, which needs it; disable both",
            ),
            (
                "preBind: {disabled: [{name: VolumeBinding}]}",
                "plugins enables VolumeBinding at some of filter, reserve and preBind only; enable or disable it at all of them",
            ),
            (
                "{multiPoint: {disabled: [{name: VolumeBinding}]}, preScore: {enabled: [{name: VolumeBinding}]}, score: {enabled: [{name: VolumeBinding}]}}",
                "plugins.score enables VolumeBinding, whose score is of what its filter found; disable it there, or enable its filter",
            ),
        ] {
            assert_eq!(enabled(yaml).1.problems, [expected], "{yaml}");
        }
    }

    #[test]
    fn what_has_no_effect_is_noticed() {
        let notices = |yaml| enabled(yaml).1.notices;
        assert_eq!(notices("multiPoint: {disabled: [{name: Coscheduling}]}").len(), 1);
        assert_eq!(notices("multiPoint: {enabled: [{name: GangScheduling}]}").len(), 1);
        assert_eq!(notices("preEnqueue: {disabled: [{name: SchedulingGates}]}").len(), 1);
        assert_eq!(notices("filter: {enabled: [{name: NodePorts}, {name: NodeName}]}").len(), 1);
    }
}
