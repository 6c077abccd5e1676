//! The configuration file: YAML, every field optional, unknown fields are errors that name the place.
//!
//! It holds FlowForge's own fields and those of kube-scheduler's `KubeSchedulerConfiguration` (v1), so that a configuration
//! of kube-scheduler can be used as it is. What has no effect here is accepted with a notice. The file is turned once, at
//! start, into plain parameters of the core and of dispatch.

mod args;
mod duration;
mod findings;
mod ignored;
mod plugins;
mod profiles;
mod terms;
#[cfg(test)]
mod tests;

pub use args::PluginConfig;
pub use duration::GoDuration;
pub use ignored::{ClientConnection, LeaderElection};
pub use plugins::{Plugin, PluginSet, Plugins};
pub(crate) use plugins::{Point, extends};
pub use profiles::Profile;

use findings::{Findings, with_hint};
use flowforge_scheduler_core::config as core;
use flowforge_scheduler_core::model::TopologyLevels;
use flowforge_scheduler_core::profile::{self as core_profile, Profiles};
use flowforge_scheduler_core::protocol::{ProtocolConfig, Tolerance, TolerantOwner};
use flowforge_topology_core::Levels;
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// kube-scheduler's version of the file.
pub const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// The name of a profile without one, in a file that says that it is kube-scheduler's.
const KUBE_SCHEDULER: &str = "default-scheduler";

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// kube-scheduler's version of the file, where it is one of its.
    pub api_version: Option<String>,
    /// kube-scheduler's kind of the file.
    pub kind: Option<String>,
    /// Pods with one of these `schedulerName`s are ours, each in kube-scheduler's default profile.
    pub scheduler_names: Option<Vec<SmolStr>>,
    /// The same, each with a profile of its own.
    pub profiles: Option<Vec<Profile>>,
    /// First backoff after a failed attempt, in seconds.
    pub pod_initial_backoff_seconds: Option<i64>,
    /// Longest backoff, in seconds.
    pub pod_max_backoff_seconds: Option<i64>,
    /// Accepted without effect.
    pub percentage_of_nodes_to_score: Option<i32>,
    /// Accepted without effect.
    pub parallelism: Option<i32>,
    /// Accepted without effect; flags take its place.
    pub leader_election: LeaderElection,
    /// Accepted without effect; flags take its place.
    pub client_connection: ClientConnection,
    /// Accepted without effect.
    pub enable_profiling: Option<bool>,
    /// Accepted without effect.
    pub enable_contention_profiling: Option<bool>,
    /// Accepted without effect.
    pub delay_cache_until_active: Option<bool>,
    /// Must be empty.
    pub extenders: Vec<serde_json::Value>,
    /// Topology levels, widest first.
    pub topology: Option<Vec<Level>>,
    /// How plans are made.
    pub planning: Planning,
    /// How plans are bound.
    pub binding: Binding,
    /// Whose pods a rollback may delete.
    pub rollback: Rollback,
    /// Whether `/debug/state` shows everything as it is in memory; large, and made by the thread that decides.
    pub debug_snapshot: bool,
}

/// A topology level.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Level {
    /// Its name, as gangs ask for it.
    pub name: SmolStr,
    /// Node labels whose value names the domain; the first one present wins.
    pub labels: Vec<SmolStr>,
}

/// How plans are made.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Planning {
    /// How long a gang that could start short of some replicas waits after the last arrival.
    pub settle_ms: u64,
    /// First backoff after a failed attempt.
    pub backoff_initial_ms: u64,
    /// Longest backoff.
    pub backoff_max_ms: u64,
    /// After this long an unschedulable pod or gang is tried again whatever happened.
    pub unschedulable_flush_ms: u64,
    /// Most pods and gangs tried before events are looked at again.
    pub attempts_per_run: usize,
    /// Most placements tried for one gang before the search gives up.
    pub search_steps: u32,
    /// Most gangs that room in time is reserved for at once, the first of each profile and priority; 0 reserves nothing.
    pub reservations: usize,
    /// A gang that has waited so long keeps the nodes that are reserved for it until it starts.
    pub starvation_ms: u64,
    /// Memory for the caches of pod shapes.
    pub shape_cache_mib: usize,
    /// Resources that count whole devices.
    pub device_resources: Vec<SmolStr>,
    /// Seed of everything that could be arbitrary.
    pub seed: u64,
}

/// Most slots that the placement journal may have.
pub const MAX_JOURNAL_SLOTS: u32 = 64;

/// How plans are bound.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Binding {
    /// How long a gang is moved forward before it is rolled back or held.
    pub repair_deadline_ms: u64,
    /// How long the volumes of a pod may take to be bound or provisioned before it is planned again, where its profile does
    /// not say (VolumeBinding's bindTimeoutSeconds).
    pub volume_bind_timeout_ms: u64,
    /// How long devices may take until their binding conditions are true before the pod is planned again.
    pub device_bind_timeout_ms: u64,
    /// Longest time for one request to the API server.
    pub request_timeout_ms: u64,
    /// Requests of the binding protocol in flight at once.
    pub parallel_requests: usize,
    /// Writes of conditions, statuses and events in flight at once.
    pub parallel_reports: usize,
    /// Slots of the placement journal that take new intents; what more of them exist are emptied.
    pub journal_slots: u32,
}

/// Whose pods a rollback may delete; the others are held and reported.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollback {
    /// Pods without a controller.
    pub bare_pods: bool,
    /// Controllers that make a deleted pod again without counting it as a failure.
    pub owners: Vec<RollbackOwner>,
}

/// A kind of controller.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollbackOwner {
    /// API group without the version; empty for the core group.
    #[serde(default)]
    pub group: SmolStr,
    /// Kind.
    pub kind: SmolStr,
}

impl Default for Planning {
    fn default() -> Self {
        let core = core::Config::default();
        Self {
            settle_ms: core.settle_ms,
            backoff_initial_ms: core.backoff_initial_ms,
            backoff_max_ms: core.backoff_max_ms,
            unschedulable_flush_ms: core.unschedulable_flush_ms,
            attempts_per_run: core.attempts_per_run,
            search_steps: core.search_steps,
            reservations: core.reservations,
            starvation_ms: core.starvation_ms,
            shape_cache_mib: core.shape_cache_bytes >> 20,
            device_resources: core.device_resources,
            seed: core.seed,
        }
    }
}

impl Default for Binding {
    fn default() -> Self {
        Self {
            repair_deadline_ms: ProtocolConfig::default().repair_deadline_ms,
            volume_bind_timeout_ms: ProtocolConfig::default().volume_bind_timeout_ms,
            device_bind_timeout_ms: ProtocolConfig::default().device_bind_timeout_ms,
            request_timeout_ms: 5_000,
            parallel_requests: 64,
            parallel_reports: 16,
            journal_slots: 8,
        }
    }
}

impl Default for Rollback {
    fn default() -> Self {
        let Tolerance { bare, owners } = Tolerance::default();
        let owner = |owner: TolerantOwner| RollbackOwner { group: owner.group, kind: owner.kind };
        Self { bare_pods: bare, owners: owners.into_iter().map(owner).collect() }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what is expected; the text names line, column and field.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong and where.
        message: String,
    },
    /// Values that cannot work.
    #[error("{path}: {}", problems.join("; "))]
    Invalid {
        /// The file.
        path: String,
        /// One sentence for each problem, beginning with the field.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        Self::parse(&text, &shown)
    }

    /// Parses and checks a text; `shown` names it in errors. A text without content is the default.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str, shown: &str) -> Result<Self, ConfigError> {
        let content = text.lines().any(|line| !matches!(line.trim_start().as_bytes().first(), None | Some(b'#')));
        let config: Self = if content {
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Parse {
                path: shown.to_owned(),
                message: with_hint(&error.to_string()),
            })?
        } else {
            Self::default()
        };
        let (_, Findings { problems, .. }) = config.resolve();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { path: shown.to_owned(), problems }) }
    }

    /// What is accepted and has no effect, or another one than in kube-scheduler; each begins with the field.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.resolve().1.notices
    }

    /// Names whose pods are ours.
    #[must_use]
    pub fn names(&self) -> Vec<SmolStr> {
        self.resolve().0.into_iter().map(|profile| profile.name).collect()
    }

    /// The profiles, and what is found about all fields.
    fn resolve(&self) -> (Vec<core_profile::Profile>, Findings) {
        let mut found = Findings::default();
        self.check_kind(&mut found);
        let profiles = self.resolve_profiles(&mut found);
        self.check_backoff(&mut found);
        self.check_ignored(&mut found);
        self.check_own(&mut found);
        self.check_topology(&mut found);
        (profiles, found)
    }

    fn check_kind(&self, found: &mut Findings) {
        let is = |given: &Option<String>, expected: &str| given.as_deref().is_none_or(|given| given == expected);
        found.require(
            is(&self.api_version, API_VERSION),
            "apiVersion",
            format_args!("must be {API_VERSION} or absent"),
        );
        found.require(is(&self.kind, KIND), "kind", format_args!("must be {KIND} or absent"));
    }

    fn resolve_profiles(&self, found: &mut Findings) -> Vec<core_profile::Profile> {
        let ours = flowforge_api::names::SCHEDULER_NAME;
        let default_name = if self.api_version.is_some() { KUBE_SCHEDULER } else { ours };
        match (&self.profiles, &self.scheduler_names) {
            (Some(_), Some(_)) => {
                found.problem(
                    "schedulerNames",
                    "must be absent where profiles are given; each profile has its schedulerName",
                );
                Vec::new()
            }
            (Some(profiles), None) if !profiles.is_empty() => profiles::resolve(profiles, default_name, found),
            (_, None) => vec![core_profile::Profile::named(default_name)],
            (None, Some(names)) => {
                let distinct: BTreeSet<_> = names.iter().collect();
                found.require(!names.is_empty(), "schedulerNames", "must name at least one scheduler");
                found.require(
                    !names.iter().any(|name| name.is_empty()),
                    "schedulerNames",
                    "must not hold an empty name",
                );
                found.require(distinct.len() == names.len(), "schedulerNames", "must not repeat a name");
                names.iter().cloned().map(core_profile::Profile::named).collect()
            }
        }
    }

    fn check_backoff(&self, found: &mut Findings) {
        let (first, longest) = self.backoff_ms();
        let is_second = |given: Option<i64>| given.is_none_or(|seconds| (1..=i64::from(i32::MAX)).contains(&seconds));
        let (initial, max) = (self.pod_initial_backoff_seconds, self.pod_max_backoff_seconds);
        found.require(is_second(initial), "podInitialBackoffSeconds", "must be at least 1");
        found.require(is_second(max), "podMaxBackoffSeconds", "must be at least 1");
        let default = Planning::default();
        for (field, seconds, own, own_field, default) in [
            (
                "podInitialBackoffSeconds",
                initial,
                self.planning.backoff_initial_ms,
                "planning.backoffInitialMs",
                default.backoff_initial_ms,
            ),
            (
                "podMaxBackoffSeconds",
                max,
                self.planning.backoff_max_ms,
                "planning.backoffMaxMs",
                default.backoff_max_ms,
            ),
        ] {
            let said_once = seconds.is_none() || own == default;
            found.require(said_once, field, format_args!("and {own_field} say the same; give one of them"));
        }
        let named = |seconds: Option<i64>, field, own_field| if seconds.is_some() { field } else { own_field };
        let shorter = named(initial, "podInitialBackoffSeconds", "planning.backoffInitialMs");
        let longer = named(max, "podMaxBackoffSeconds", "planning.backoffMaxMs");
        found.require(
            longest >= first,
            longer,
            format_args!("must not be smaller than {shorter}, which is {first} ms"),
        );
    }

    /// First and longest backoff.
    fn backoff_ms(&self) -> (u64, u64) {
        let of = |seconds: Option<i64>, own: u64| {
            seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(own, |seconds| seconds.saturating_mul(1_000))
        };
        let Planning { backoff_initial_ms, backoff_max_ms, .. } = self.planning;
        (of(self.pod_initial_backoff_seconds, backoff_initial_ms), of(self.pod_max_backoff_seconds, backoff_max_ms))
    }

    fn check_ignored(&self, found: &mut Findings) {
        profiles::check_percentage(self.percentage_of_nodes_to_score, "percentageOfNodesToScore", found);
        found.require(self.parallelism.is_none_or(|n| n > 0), "parallelism", "must be greater than 0");
        found.notice_set(&self.parallelism, "parallelism", "has no effect: one thread decides");
        found.notice_set(&self.enable_profiling, "enableProfiling", "has no effect: there is no profiling endpoint");
        found.notice_set(
            &self.enable_contention_profiling,
            "enableContentionProfiling",
            "has no effect: there is no profiling endpoint",
        );
        found.notice_set(
            &self.delay_cache_until_active,
            "delayCacheUntilActive",
            "has no effect: only the leader fills its memory",
        );
        found.require(self.extenders.is_empty(), "extenders", "must be empty: no extender is called");
        self.leader_election.check(found);
        self.client_connection.check(found);
    }

    /// FlowForge's own fields, beside those that are checked with kube-scheduler's of the same meaning.
    fn check_own(&self, found: &mut Findings) {
        let (planning, binding) = (&self.planning, &self.binding);
        found.require(planning.backoff_initial_ms >= 1, "planning.backoffInitialMs", "must be at least 1");
        found.require(planning.attempts_per_run >= 1, "planning.attemptsPerRun", "must be at least 1");
        found.require(planning.search_steps >= 1, "planning.searchSteps", "must be at least 1");
        found.require(planning.shape_cache_mib >= 1, "planning.shapeCacheMib", "must be at least 1");
        found.require(binding.repair_deadline_ms >= 1_000, "binding.repairDeadlineMs", "must be at least 1000");
        for (timeout, field) in [
            (binding.volume_bind_timeout_ms, "binding.volumeBindTimeoutMs"),
            (binding.device_bind_timeout_ms, "binding.deviceBindTimeoutMs"),
        ] {
            found.require(timeout >= 1_000, field, "must be at least 1000");
        }
        let is_timeout = (100..=60_000).contains(&binding.request_timeout_ms);
        found.require(is_timeout, "binding.requestTimeoutMs", "must be between 100 and 60000");
        for (requests, field) in [
            (binding.parallel_requests, "binding.parallelRequests"),
            (binding.parallel_reports, "binding.parallelReports"),
        ] {
            found.require((1..=1024).contains(&requests), field, "must be between 1 and 1024");
        }
        let is_count = (1..=MAX_JOURNAL_SLOTS).contains(&binding.journal_slots);
        found.require(is_count, "binding.journalSlots", format_args!("must be between 1 and {MAX_JOURNAL_SLOTS}"));
    }

    fn check_topology(&self, found: &mut Findings) {
        let before = found.problems.len();
        for (index, level) in self.topology.iter().flatten().enumerate() {
            let Level { name, labels } = level;
            let seen = self.topology.iter().flatten().take(index).any(|other| other.name == *name);
            let at = format!("topology[{index}]");
            found.require(!name.is_empty(), format_args!("{at}.name"), "must not be empty");
            found.require(
                !seen,
                format_args!("{at}.name"),
                format_args!("{name:?} is used twice; give each level its own"),
            );
            found.require(!labels.is_empty(), format_args!("{at}.labels"), "must name at least one node label");
        }
        // What is said of a level by its place is not said again.
        if found.problems.len() == before
            && let Err(why) = Levels::new(self.topology_levels())
        {
            found.problem("topology:", why);
        }
    }

    /// Parameters of the engine, given how long dispatch takes at most for one request.
    #[must_use]
    pub fn core(&self, request_timeout: Duration) -> core::Config {
        let planning = &self.planning;
        let (backoff_initial_ms, backoff_max_ms) = self.backoff_ms();
        core::Config {
            profiles: Profiles::new(self.resolve().0),
            topology: self.topology_levels(),
            settle_ms: planning.settle_ms,
            backoff_initial_ms,
            backoff_max_ms,
            unschedulable_flush_ms: planning.unschedulable_flush_ms,
            attempts_per_run: planning.attempts_per_run,
            search_steps: planning.search_steps,
            reservations: planning.reservations,
            starvation_ms: planning.starvation_ms,
            shape_cache_bytes: planning.shape_cache_mib << 20,
            device_resources: planning.device_resources.clone(),
            seed: planning.seed,
            protocol: self.protocol(request_timeout),
            ..core::Config::default()
        }
    }

    fn protocol(&self, request_timeout: Duration) -> ProtocolConfig {
        let owner = |owner: &RollbackOwner| TolerantOwner { group: owner.group.clone(), kind: owner.kind.clone() };
        let request_timeout_ms = u64::try_from(request_timeout.as_millis()).unwrap_or(u64::MAX);
        ProtocolConfig {
            repair_deadline_ms: self.binding.repair_deadline_ms,
            volume_bind_timeout_ms: self.binding.volume_bind_timeout_ms,
            device_bind_timeout_ms: self.binding.device_bind_timeout_ms,
            outcome_timeout_ms: request_timeout_ms.saturating_mul(3),
            journal_slots: usize::try_from(self.binding.journal_slots).unwrap_or(usize::MAX),
            tolerance: Tolerance {
                bare: self.rollback.bare_pods,
                owners: self.rollback.owners.iter().map(owner).collect(),
            },
            ..ProtocolConfig::default()
        }
    }

    fn topology_levels(&self) -> TopologyLevels {
        match &self.topology {
            None => flowforge_topology_core::standard(),
            Some(levels) => levels.iter().map(|level| (level.name.clone(), level.labels.clone())).collect(),
        }
    }
}
