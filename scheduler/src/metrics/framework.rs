//! kube-scheduler's metrics of its framework, as far as they have a meaning here.
//!
//! FlowForge looks for a place in one search, which filters and scores together: its time stands under extension point
//! `Filter`, and no time stands under the points that it contains. Plugins are counted once for each attempt that asks them,
//! not once for each node.

use super::{counters, gauges, histograms};
use crate::config::{Point, extends};
use flowforge_runtime::metrics::Metrics as Registry;
use flowforge_scheduler_core::command::AttemptResult;
use flowforge_scheduler_core::profile::{Filter, Profile, Profiles};
use flowforge_scheduler_core::queue::IncomingCounts;
use parking_lot::RwLock;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Result, exponential_buckets};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Operation of Bindings that are under way.
const BINDING: &str = "binding";

/// The stage in which volumes can fail here: what is chosen beforehand is found and kept without errors.
const BIND: &str = "bind";

/// All of them; clones share them.
#[derive(Clone)]
pub struct Framework {
    points: HistogramVec,
    plugins: HistogramVec,
    evaluations: IntCounterVec,
    permit_wait: HistogramVec,
    goroutines: IntGaugeVec,
    incoming: IntCounterVec,
    volume_errors: IntCounterVec,
    profiles: Arc<RwLock<Vec<Evaluated>>>,
}

/// What an attempt in a profile asks, counted here and told to the registry from time to time.
struct Evaluated {
    profile: String,
    attempts: AtomicU64,
    scored: AtomicU64,
    filters: Vec<IntCounter>,
    scores: Vec<IntCounter>,
}

impl Framework {
    /// Registers everything.
    ///
    /// # Errors
    /// When it was done before with this registry.
    pub(super) fn new(r: &Registry) -> Result<Self> {
        Ok(Self {
            points: histograms(
                r,
                "scheduler_framework_extension_point_duration_seconds",
                "Time of an extension point: Filter is the whole search, which scores too; Bind is the Binding request.",
                &["extension_point", "status", "profile"],
                exponential_buckets(0.0001, 2.0, 12)?,
            )?,
            plugins: histograms(
                r,
                "scheduler_plugin_execution_duration_seconds",
                "Time of one plugin at an extension point: the Binding request; other plugins are not timed one by one.",
                &["plugin", "extension_point", "status"],
                exponential_buckets(0.00001, 1.5, 20)?,
            )?,
            evaluations: counters(
                r,
                "scheduler_plugin_evaluation_total",
                "Attempts that asked a plugin at an extension point; once for each attempt, not for each node.",
                &["plugin", "extension_point", "profile"],
            )?,
            permit_wait: histograms(
                r,
                "scheduler_permit_wait_duration_seconds",
                "Time that a member with a place waits until its gang may be bound.",
                &["result"],
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
            goroutines: gauges(r, "scheduler_goroutines", "Tasks under way by what they do: binding.", &["operation"])?,
            incoming: counters(
                r,
                "scheduler_queue_incoming_pods_total",
                "Pods that entered a queue, by queue and event.",
                &["queue", "event"],
            )?,
            volume_errors: counters(
                r,
                "scheduler_volume_scheduling_stage_error_total",
                "Pods whose volumes could not be bound or provisioned for their nodes.",
                &["operation"],
            )?,
            profiles: Arc::default(),
        })
    }

    /// The profiles whose attempts are counted from now on.
    pub fn set_profiles(&self, profiles: &Profiles) {
        *self.profiles.write() = profiles.iter().map(|profile| self.evaluated(profile)).collect();
    }

    fn evaluated(&self, profile: &Profile) -> Evaluated {
        let at = |points: [(Point, &str); 2], plugins: Vec<&str>| {
            let asked = |plugin| points.into_iter().filter(move |(point, _)| extends(plugin, *point));
            let counter = |plugin, point| self.evaluations.with_label_values(&[plugin, point, profile.name.as_str()]);
            plugins.into_iter().flat_map(|plugin| asked(plugin).map(move |(_, p)| counter(plugin, p))).collect()
        };
        let filters = Filter::ALL.into_iter().filter(|(filter, _)| profile.filters.has(*filter));
        let scores = profile.weights.by_name().into_iter().filter(|(_, weight)| *weight > 0);
        Evaluated {
            profile: profile.name.to_string(),
            attempts: AtomicU64::new(0),
            scored: AtomicU64::new(0),
            filters: at(
                [(Point::PreFilter, "PreFilter"), (Point::Filter, "Filter")],
                filters.map(|(_, n)| n).collect(),
            ),
            scores: at([(Point::PreScore, "PreScore"), (Point::Score, "Score")], scores.map(|(n, _)| n).collect()),
        }
    }

    /// An attempt in a profile, whose search took so long.
    pub(super) fn attempt(&self, profile: &str, result: AttemptResult, took: Duration) {
        let status = match result {
            AttemptResult::Scheduled => "Success",
            AttemptResult::Unschedulable => "Unschedulable",
            AttemptResult::Error => "Error",
        };
        self.points.with_label_values(&["Filter", status, profile]).observe(took.as_secs_f64());
        if let Some(evaluated) = self.profiles.read().iter().find(|evaluated| evaluated.profile == profile) {
            evaluated.attempts.fetch_add(1, Ordering::Relaxed);
            evaluated.scored.fetch_add(u64::from(result == AttemptResult::Scheduled), Ordering::Relaxed);
        }
    }

    /// A Binding request of a pod of this profile was answered.
    pub fn bound(&self, profile: &str, is_bound: bool, took: Duration) {
        let status = if is_bound { "Success" } else { "Error" };
        self.points.with_label_values(&["Bind", status, profile]).observe(took.as_secs_f64());
        self.plugins.with_label_values(&["DefaultBinder", "Bind", status]).observe(took.as_secs_f64());
    }

    /// Bindings under way.
    #[must_use]
    pub fn binding(&self) -> IntGauge {
        self.goroutines.with_label_values(&[BINDING])
    }

    /// Members waited so long between their place and the first Binding of their gang.
    pub(super) fn waited(&self, members: u32, seconds: f64) {
        let wait = self.permit_wait.with_label_values(&["Success"]);
        (0..members).for_each(|_| wait.observe(seconds));
    }

    /// The volumes of so many pods could not be bound.
    pub(super) fn volumes_failed(&self, pods: u32) {
        self.volume_errors.with_label_values(&[BIND]).inc_by(u64::from(pods));
    }

    /// What entered which queue.
    pub fn entered(&self, counts: &IncomingCounts) {
        for ((queue, event), pods) in counts {
            self.incoming.with_label_values(&[queue, event]).inc_by(*pods);
        }
    }

    /// Tells the registry what was counted.
    pub(super) fn flush(&self) {
        for Evaluated { attempts, scored, filters, scores, .. } in self.profiles.read().iter() {
            let (attempts, scored) = (attempts.swap(0, Ordering::Relaxed), scored.swap(0, Ordering::Relaxed));
            filters.iter().for_each(|counter| counter.inc_by(attempts));
            scores.iter().for_each(|counter| counter.inc_by(scored));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_scheduler_core::profile::Weights;

    /// Plugins that were counted at a point after one attempt that found a place.
    fn asked(profile: Profile, point: &str) -> Vec<String> {
        let registry = Registry::new("scheduler", "test").expect("a registry");
        let framework = Framework::new(&registry).expect("a fresh registry");
        let name = profile.name.clone();
        framework.set_profiles(&Profiles::new(vec![profile]));
        framework.attempt(&name, AttemptResult::Scheduled, Duration::ZERO);
        framework.flush();
        let text = registry.encode().expect("text");
        let at = format!("extension_point=\"{point}\"");
        let lines =
            text.lines().filter(|line| line.starts_with("scheduler_plugin_evaluation_total{") && line.contains(&at));
        let plugin = |line: &str| line.split("plugin=\"").nth(1)?.split('"').next().map(str::to_owned);
        lines.filter(|line| line.ends_with(" 1")).filter_map(plugin).collect()
    }

    #[test]
    fn plugins_are_counted_at_the_points_that_they_extend_in_kube_scheduler() {
        let scores = asked(Profile::default(), "Score");
        let expected = [
            "DynamicResources",
            "ImageLocality",
            "InterPodAffinity",
            "NodeAffinity",
            "NodeResourcesBalancedAllocation",
            "NodeResourcesFit",
            "PodTopologySpread",
            "TaintToleration",
            "VolumeBinding",
        ];
        assert_eq!(scores, expected);
        let before: Vec<&str> =
            expected.into_iter().filter(|name| !matches!(*name, "DynamicResources" | "ImageLocality")).collect();
        assert_eq!(asked(Profile::default(), "PreScore"), before, "upstream these two have no PreScore");
        assert_eq!(asked(Profile::default(), "Filter").len(), Filter::ALL.len());
        let mut only = Profile::default();
        only.weights = Weights::of(|name| i64::from(name == "VolumeBinding"));
        assert_eq!(asked(only, "Score"), ["VolumeBinding"], "a score that weighs nothing is not asked");
    }
}
