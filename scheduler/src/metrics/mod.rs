//! Every metric of the scheduler: name, labels and buckets, each in one place.
//!
//! Names that begin with `scheduler_` are kube-scheduler's and mean the same there, so that existing dashboards work;
//! those that begin with `flowforge_` are our own. Label values come from enums, never from debug output.

mod framework;

pub use framework::Framework;

use flowforge_runtime::metrics::{Metrics as Registry, doubling_buckets, register};
use flowforge_scheduler_core::command::{AttemptResult, Observation};
use flowforge_scheduler_core::engine::Stats;
use flowforge_topology_core::{FindingKind, Survey};
use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Result,
};
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// 1 ms doubled up to 16 s, as kube-scheduler: from a cached decision to a quarter of a minute.
fn latency_buckets() -> Vec<f64> {
    doubling_buckets(0.001, 15)
}

/// 10 ms × 2^20, as kube-scheduler: a pod may wait for hours.
fn sli_buckets() -> Vec<f64> {
    doubling_buckets(0.01, 20)
}

/// 1 ms × 2^24: a gang's queueing may take hours, its binding milliseconds.
fn gang_buckets() -> Vec<f64> {
    doubling_buckets(0.001, 24)
}

/// The queues of `scheduler_pending_pods`.
const QUEUES: [&str; 6] = ["active", "backoff", "unschedulable", "gated", "incomplete", "pending"];

/// All metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    attempts: IntCounterVec,
    algorithm: Histogram,
    attempt: HistogramVec,
    sli: HistogramVec,
    pod_attempts: Histogram,
    pending: IntGaugeVec,
    unschedulable: IntGaugeVec,
    /// Labels that `unschedulable` was set under last.
    refusing: Arc<Mutex<BTreeSet<(&'static str, SmolStr)>>>,
    /// What kube-scheduler measures of its framework.
    pub framework: Framework,
    cache: IntGaugeVec,
    gang_total: Histogram,
    gang_queue: Histogram,
    gang_plan: Histogram,
    gang_prepare: Histogram,
    gang_bind: Histogram,
    prepare: HistogramVec,
    prepare_failures: IntCounter,
    preparing: IntGauge,
    gang_members: Histogram,
    repairs: IntCounter,
    rollbacks: IntCounter,
    foreign_binds: IntCounter,
    search_limits: IntCounter,
    preemption_attempts: IntCounter,
    preemption_victims: Histogram,
    wasted_evictions: IntCounter,
    backfilled: IntCounter,
    reservations_delayed: IntCounter,
    reservations_active: IntGauge,
    head_wait: IntGauge,
    journal_failures: IntCounterVec,
    topology_findings: IntGaugeVec,
    /// Times that other topology levels came into force.
    pub topology_changes: IntCounter,
    open_intents: IntGauge,
    held_partial: IntGauge,
    run: Histogram,
    /// Items that went into, came out of and were dropped by each bounded queue.
    pub queue_items: IntCounterVec,
    /// Items in each bounded queue now.
    pub queue_depth: IntGaugeVec,
    /// Time of each kind of request, by outcome.
    pub requests: HistogramVec,
    /// Lists of each watched kind: one at start, more after a watch was too old.
    pub relists: IntCounterVec,
    /// Failed lists and watches.
    pub watch_failures: IntCounterVec,
    /// Objects that could not be decoded.
    pub undecodable: IntCounterVec,
    /// Time from a watch event's arrival to its place in the snapshot.
    pub event_lag: Histogram,
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram> {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> Result<HistogramVec> {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    register(registry, IntCounter::new(name, help)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    register(registry, IntGauge::new(name, help)?)
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When it was done before with this registry.
    #[allow(clippy::too_many_lines, reason = "a table: one metric a line or two")]
    pub fn new(r: &Registry) -> Result<Self> {
        let latency = latency_buckets;
        Ok(Self {
            attempts: counters(
                r,
                "scheduler_schedule_attempts_total",
                "Attempts to schedule pods, by result and profile (schedulerName).",
                &["result", "profile"],
            )?,
            algorithm: histogram(
                r,
                "scheduler_scheduling_algorithm_duration_seconds",
                "Time to find a place for one pod; a gang's time is spread over its members.",
                latency(),
            )?,
            attempt: histograms(
                r,
                "scheduler_scheduling_attempt_duration_seconds",
                "Time of one attempt by result and profile: the search, and for scheduled pods its share of the run that placed them.",
                &["result", "profile"],
                latency(),
            )?,
            sli: histograms(
                r,
                "scheduler_pod_scheduling_sli_duration_seconds",
                "From a pod first seen ungated to its Binding acknowledged, by attempts.",
                &["attempts"],
                sli_buckets(),
            )?,
            pod_attempts: histogram(
                r,
                "scheduler_pod_scheduling_attempts",
                "Attempts that it took to schedule a pod.",
                doubling_buckets(1.0, 5),
            )?,
            pending: gauges(
                r,
                "scheduler_pending_pods",
                "Pending pods by queue: active, backoff, unschedulable, gated, incomplete (gang) and pending (being bound).",
                &["queue"],
            )?,
            unschedulable: gauges(
                r,
                "scheduler_unschedulable_pods",
                "Unschedulable pods by the plugin that refused nodes for them; a pod counts for each of its plugins.",
                &["plugin", "profile"],
            )?,
            refusing: Arc::default(),
            framework: Framework::new(r)?,
            cache: gauges(r, "scheduler_cache_size", "Objects in the snapshot, by type.", &["type"])?,
            gang_total: histogram(
                r,
                "flowforge_gang_placement_duration_seconds",
                "From the last needed member of a gang seen ungated to the last Binding acknowledged, repairs included.",
                gang_buckets(),
            )?,
            gang_queue: histogram(
                r,
                "flowforge_gang_queue_duration_seconds",
                "From the last needed member of a gang seen ungated to the begin of the run that planned it.",
                gang_buckets(),
            )?,
            gang_plan: histogram(
                r,
                "flowforge_gang_plan_duration_seconds",
                "Planning time of the run that planned a gang, shared evenly by the gangs that the run planned.",
                latency(),
            )?,
            gang_prepare: histogram(
                r,
                "flowforge_gang_prepare_duration_seconds",
                "From the begin of the run that planned a gang to its first Binding: planning, the journal write and the preparation.",
                latency(),
            )?,
            gang_bind: histogram(
                r,
                "flowforge_gang_bind_duration_seconds",
                "From the first Binding of a gang sent to the last one acknowledged, repairs included.",
                latency(),
            )?,
            prepare: histograms(
                r,
                "flowforge_prepare_duration_seconds",
                "From the journal holding an intent to one preparation of it done, by kind: bind_volume, provision, allocate_claim or reserve_claim.",
                &["kind"],
                gang_buckets(),
            )?,
            prepare_failures: counter(
                r,
                "flowforge_prepare_failures_total",
                "Intents undone because claims or volumes of a member could not be prepared.",
            )?,
            preparing: gauge(r, "flowforge_intents_preparing", "Intents whose claims and volumes are being prepared.")?,
            gang_members: histogram(
                r,
                "flowforge_gang_members",
                "Members of placed gangs.",
                doubling_buckets(1.0, 14),
            )?,
            repairs: counter(r, "flowforge_gang_repairs_total", "Repairs of gangs begun.")?,
            rollbacks: counter(r, "flowforge_gang_rollbacks_total", "Rollbacks of gangs begun.")?,
            foreign_binds: counter(
                r,
                "flowforge_foreign_binds_total",
                "Pods of ours that another scheduler bound elsewhere than planned.",
            )?,
            search_limits: counter(r, "flowforge_search_limits_total", "Searches given up at their limit.")?,
            preemption_attempts: counter(
                r,
                "scheduler_preemption_attempts_total",
                "Times that it was looked for pods to evict for a pod that no node takes.",
            )?,
            preemption_victims: histogram(
                r,
                "scheduler_preemption_victims",
                "Pods evicted for one pod.",
                doubling_buckets(1.0, 7),
            )?,
            wasted_evictions: counter(
                r,
                "flowforge_preemption_wasted_evictions_total",
                "Pods evicted for a gang that then could not be placed, or went away first.",
            )?,
            backfilled: counter(
                r,
                "flowforge_backfilled_pods_total",
                "Pods placed where room is reserved for a gang that they do not delay.",
            )?,
            reservations_delayed: counter(
                r,
                "flowforge_reservations_delayed_total",
                "Reserved starts of gangs that moved to a later time, or that could not be promised any more.",
            )?,
            reservations_active: gauge(
                r,
                "flowforge_reservations_active",
                "Gangs that room in time is reserved for: the first of each profile and priority that finds none.",
            )?,
            head_wait: gauge(
                r,
                "flowforge_reservations_longest_wait_seconds",
                "How long the gang has waited that waits longest of those that room is reserved for; 0 when there is none.",
            )?,
            journal_failures: counters(
                r,
                "flowforge_journal_failures_total",
                "Journal slots that the API server refused to write, and that could not be decoded, by kind: refused, unreadable.",
                &["kind"],
            )?,
            topology_findings: gauges(
                r,
                "flowforge_topology_findings",
                "What is wrong with the topology, by kind: unusable levels, nodes without a label that others have, labels that contradict each other, domains in two places, nodes with one hostname.",
                &["kind"],
            )?,
            topology_changes: counter(
                r,
                "flowforge_topology_changes_total",
                "Times that other topology levels came into force.",
            )?,
            open_intents: gauge(r, "flowforge_open_intents", "Gangs being bound, repaired or rolled back.")?,
            held_partial: gauge(
                r,
                "flowforge_gangs_held_partial",
                "Gangs partly live whose owner does not tolerate a rollback and that could not be completed yet.",
            )?,
            run: histogram(r, "flowforge_engine_run_duration_seconds", "Time of one planning run.", latency())?,
            queue_items: counters(
                r,
                "flowforge_queue_items_total",
                "Items through each bounded queue, by direction: in, out, merged or dropped.",
                &["queue", "direction"],
            )?,
            queue_depth: gauges(r, "flowforge_queue_depth", "Items in each bounded queue.", &["queue"])?,
            requests: histograms(
                r,
                "flowforge_dispatch_duration_seconds",
                "Time of each command's request including waits for the lease and the server's Retry-After, by outcome.",
                &["command", "outcome"],
                latency(),
            )?,
            relists: counters(r, "flowforge_relists_total", "Completed lists of each watched kind.", &["kind"])?,
            watch_failures: counters(r, "flowforge_watch_failures_total", "Failed lists and watches.", &["kind"])?,
            undecodable: counters(
                r,
                "flowforge_undecodable_objects_total",
                "Objects skipped because they could not be decoded.",
                &["kind"],
            )?,
            event_lag: histogram(
                r,
                "flowforge_event_lag_seconds",
                "From the arrival of a watch event to its place in the snapshot.",
                latency(),
            )?,
        })
    }

    /// Takes in what the engine observed in a run of `run_share` per attempt.
    pub fn observe(&self, observation: &Observation, run_share: Duration) {
        match observation {
            Observation::Attempt { profile, result } => {
                let labels = [result_label(*result), profile.as_str()];
                self.attempts.with_label_values(&labels).inc();
                self.attempt.with_label_values(&labels).observe(run_share.as_secs_f64());
                self.algorithm.observe(run_share.as_secs_f64());
                self.framework.attempt(profile, *result, run_share);
            }
            Observation::PodScheduled { attempts, sli_ms } => {
                self.sli.with_label_values(&[&attempts_label(*attempts)]).observe(seconds(*sli_ms));
                self.pod_attempts.observe(f64::from(*attempts));
            }
            Observation::GangPlaced { members, queue_ms, prepare_ms, bind_ms, total_ms } => {
                self.gang_members.observe(f64::from(*members));
                self.gang_queue.observe(seconds(*queue_ms));
                self.gang_prepare.observe(seconds(*prepare_ms));
                self.framework.waited(*members, seconds(*prepare_ms));
                self.gang_bind.observe(seconds(*bind_ms));
                self.gang_total.observe(seconds(*total_ms));
            }
            Observation::Preemption { victims } => {
                self.preemption_attempts.inc();
                victims.iter().for_each(|victims| self.preemption_victims.observe(f64::from(*victims)));
            }
            Observation::Prepared { kind, took_ms } => {
                self.prepare.with_label_values(&[kind.label()]).observe(seconds(*took_ms));
            }
            Observation::PrepareFailed => self.prepare_failures.inc(),
            Observation::VolumesFailed(pods) => self.framework.volumes_failed(*pods),
            Observation::WastedEvictions(pods) => self.wasted_evictions.inc_by(u64::from(*pods)),
            Observation::Backfilled(pods) => self.backfilled.inc_by(u64::from(*pods)),
            Observation::ReservationDelayed => self.reservations_delayed.inc(),
            Observation::Repair => self.repairs.inc(),
            Observation::Rollback => self.rollbacks.inc(),
            Observation::ForeignBind => self.foreign_binds.inc(),
            // The run that planned it is timed as a whole.
            Observation::GangPlanned => {}
            Observation::SearchLimit => self.search_limits.inc(),
            Observation::JournalRefused(_) => self.journal_failures.with_label_values(&["refused"]).inc(),
            Observation::JournalUnreadable(_) => self.journal_failures.with_label_values(&["unreadable"]).inc(),
        }
    }

    /// Takes in one planning run that planned `gangs`.
    pub fn ran(&self, took: Duration, gangs: u32) {
        self.run.observe(took.as_secs_f64());
        for _ in 0..gangs {
            self.gang_plan.observe(took.as_secs_f64() / f64::from(gangs));
        }
    }

    /// Sets the gauges; `now_ms` is the engine's clock.
    pub fn set_gauges(&self, stats: &Stats, now_ms: u64) {
        self.framework.flush();
        let depths = [stats.active, stats.backoff, stats.unschedulable, stats.gated, stats.incomplete, stats.pending];
        for (queue, depth) in QUEUES.iter().zip(depths) {
            self.pending.with_label_values(&[queue]).set(integer(depth));
        }
        self.set_unschedulable(stats);
        let sizes = [
            ("nodes", stats.nodes),
            ("pods", stats.pods),
            ("assumed_pods", stats.assumed),
            ("gangs", stats.gangs),
            ("node_classes", stats.classes),
            ("pod_shapes", stats.shapes),
            ("pod_shape_bytes", stats.shape_bytes),
        ];
        for (kind, size) in sizes {
            self.cache.with_label_values(&[kind]).set(integer(size));
        }
        self.open_intents.set(integer(stats.open_intents));
        self.preparing.set(integer(stats.preparing));
        self.held_partial.set(integer(stats.gangs_held_partial));
        self.reservations_active.set(integer(stats.reservations));
        let waited_ms = stats.head_waits_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        self.head_wait.set(i64::try_from(waited_ms / 1_000).unwrap_or(i64::MAX));
    }

    /// Sets what is wrong with the topology: how many nodes or domains each kind concerns, and whether levels are unusable.
    pub fn set_topology(&self, survey: &Survey, unusable: bool) {
        self.topology_findings.with_label_values(&["invalid_levels"]).set(i64::from(unusable));
        for kind in FindingKind::ALL {
            let of_kind = survey.findings.iter().filter(|finding| finding.kind == kind);
            let count = of_kind.map(|finding| finding.count).sum();
            self.topology_findings.with_label_values(&[finding_label(kind)]).set(integer(count));
        }
    }

    /// Only what refuses nothing any more is removed: a scrape between a reset and a set would see no series at all.
    fn set_unschedulable(&self, stats: &Stats) {
        for ((plugin, profile), pods) in &stats.unschedulable_by_plugin {
            self.unschedulable.with_label_values(&[*plugin, profile.as_str()]).set(integer(*pods));
        }
        let now: BTreeSet<_> = stats.unschedulable_by_plugin.keys().cloned().collect();
        let mut before = self.refusing.lock();
        for (plugin, profile) in before.difference(&now) {
            // It is there: it was set under these labels.
            let _ = self.unschedulable.remove_label_values(&[*plugin, profile.as_str()]);
        }
        *before = now;
    }

    /// A follower has nothing pending.
    pub fn clear_gauges(&self) {
        self.set_gauges(&Stats::default(), 0);
        self.set_topology(&Survey::default(), false);
    }
}

fn result_label(result: AttemptResult) -> &'static str {
    match result {
        AttemptResult::Scheduled => "scheduled",
        AttemptResult::Unschedulable => "unschedulable",
        AttemptResult::Error => "error",
    }
}

fn finding_label(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::MissingLabels => "missing_labels",
        FindingKind::ContradictoryLabels => "contradictory_labels",
        FindingKind::SplitDomain => "split_domain",
        FindingKind::SharedHost => "shared_host",
    }
}

/// kube-scheduler's label: exact up to 14, then `15+`.
fn attempts_label(attempts: u32) -> String {
    if attempts >= 15 { "15+".to_owned() } else { attempts.to_string() }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of a process's life fit into 52 bits")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

fn integer(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_scheduler_core::profile::{Filter, Profile, Profiles};
    use flowforge_topology_core::Finding;

    fn metrics() -> (Registry, Metrics) {
        let registry = Registry::new("test", "1").expect("registry");
        let metrics = Metrics::new(&registry).expect("names are unique and valid");
        (registry, metrics)
    }

    #[test]
    fn attempts_and_placements_reach_their_series() {
        let (registry, metrics) = metrics();
        let attempt = Observation::Attempt { profile: "flowforge".into(), result: AttemptResult::Unschedulable };
        metrics.observe(&attempt, Duration::from_millis(3));
        metrics.observe(&Observation::PodScheduled { attempts: 20, sli_ms: 1_500 }, Duration::ZERO);
        let placed = Observation::GangPlaced { members: 4, queue_ms: 1, prepare_ms: 2, bind_ms: 3, total_ms: 6 };
        metrics.observe(&placed, Duration::ZERO);
        metrics.ran(Duration::from_millis(8), 2);
        let text = registry.encode().expect("encodes");
        for line in [
            "scheduler_schedule_attempts_total{profile=\"flowforge\",result=\"unschedulable\"} 1",
            "scheduler_pod_scheduling_sli_duration_seconds_sum{attempts=\"15+\"} 1.5",
            "flowforge_gang_placement_duration_seconds_bucket{le=\"0.008\"} 1",
            "flowforge_gang_placement_duration_seconds_bucket{le=\"0.004\"} 0",
            "flowforge_gang_plan_duration_seconds_count 2",
            "flowforge_gang_plan_duration_seconds_sum 0.008",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn gauges_follow_the_engine_and_forget_plugins_that_refuse_nothing_any_more() {
        let (registry, metrics) = metrics();
        let mut stats = Stats { unschedulable: 3, open_intents: 2, ..Stats::default() };
        stats.unschedulable_by_plugin.insert(("NodeResourcesFit", "flowforge".into()), 3);
        (stats.reservations, stats.head_waits_since_ms) = (1, Some(2_000));
        metrics.set_gauges(&stats, 65_500);
        let text = registry.encode().expect("encodes");
        assert!(text.contains("scheduler_pending_pods{queue=\"unschedulable\"} 3"), "{text}");
        assert!(text.contains("scheduler_unschedulable_pods{plugin=\"NodeResourcesFit\",profile=\"flowforge\"} 3"));
        assert!(text.contains("flowforge_open_intents 2"));
        assert!(text.contains("flowforge_reservations_active 1"));
        assert!(text.contains("flowforge_reservations_longest_wait_seconds 63"));
        let finding = |kind, count| Finding { kind, level: "rack".into(), message: String::new(), count };
        let findings = vec![finding(FindingKind::MissingLabels, 2), finding(FindingKind::MissingLabels, 1)];
        metrics.set_topology(&Survey { findings, ..Survey::default() }, true);
        let told = registry.encode().expect("encodes");
        for line in ["{kind=\"missing_labels\"} 3", "{kind=\"invalid_levels\"} 1", "{kind=\"split_domain\"} 0"] {
            assert!(told.contains(&format!("flowforge_topology_findings{line}")), "{line} is missing in\n{told}");
        }
        metrics.clear_gauges();
        let text = registry.encode().expect("encodes");
        assert!(!text.contains("NodeResourcesFit"), "{text}");
        assert!(text.contains("scheduler_pending_pods{queue=\"unschedulable\"} 0"), "{text}");
    }

    #[test]
    fn plugins_are_counted_once_for_each_attempt_of_their_profile() {
        let (registry, metrics) = metrics();
        let mut packed = Profile::named("packed");
        packed.filters = packed.filters.without(Filter::NodePorts);
        packed.weights.image_locality = 0;
        metrics.framework.set_profiles(&Profiles::new(vec![packed]));
        for result in [AttemptResult::Scheduled, AttemptResult::Unschedulable] {
            metrics.observe(&Observation::Attempt { profile: "packed".into(), result }, Duration::from_millis(1));
        }
        metrics.framework.entered(&[(("active", "NodeAdd"), 3)].into());
        metrics.framework.bound("packed", true, Duration::from_millis(2));
        metrics.set_gauges(&Stats::default(), 0);
        let text = registry.encode().expect("encodes");
        for line in [
            "scheduler_plugin_evaluation_total{extension_point=\"Filter\",plugin=\"NodeResourcesFit\",profile=\"packed\"} 2",
            "scheduler_plugin_evaluation_total{extension_point=\"Score\",plugin=\"NodeResourcesFit\",profile=\"packed\"} 1",
            "scheduler_queue_incoming_pods_total{event=\"NodeAdd\",queue=\"active\"} 3",
            "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Bind\",profile=\"packed\",status=\"Success\"} 1",
            "scheduler_plugin_execution_duration_seconds_count{extension_point=\"Bind\",plugin=\"DefaultBinder\",status=\"Success\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("NodePorts") && !text.contains("ImageLocality"), "they are off");
    }
}
