//! The configuration file: YAML, every field optional, unknown fields are errors that name the place.
//!
//! It is turned once, at start, into plain parameters of the core and of dispatch.

use flowforge_scheduler_core::config as core;
use flowforge_scheduler_core::model::TopologyLevels;
use flowforge_scheduler_core::protocol::{ProtocolConfig, Tolerance, TolerantOwner};
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The configuration file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Pods with one of these `schedulerName`s are ours.
    pub scheduler_names: Vec<SmolStr>,
    /// Topology levels, widest first.
    pub topology: Option<Vec<Level>>,
    /// How plans are made.
    pub planning: Planning,
    /// How plans are bound.
    pub binding: Binding,
    /// Whose pods a rollback may delete.
    pub rollback: Rollback,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_names: vec![SmolStr::new_static(flowforge_api::names::SCHEDULER_NAME)],
            topology: None,
            planning: Planning::default(),
            binding: Binding::default(),
            rollback: Rollback::default(),
        }
    }
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
            serde_saphyr::from_str(text)
                .map_err(|error| ConfigError::Parse { path: shown.to_owned(), message: error.to_string() })?
        } else {
            Self::default()
        };
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { path: shown.to_owned(), problems }) }
    }

    /// One sentence for each value that cannot work.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let names: BTreeSet<_> = self.scheduler_names.iter().collect();
        require(!names.is_empty(), "schedulerNames must name at least one scheduler");
        require(!self.scheduler_names.iter().any(|name| name.is_empty()), "schedulerNames must not hold an empty name");
        require(names.len() == self.scheduler_names.len(), "schedulerNames must not repeat a name");
        let (planning, binding) = (&self.planning, &self.binding);
        require(planning.backoff_initial_ms >= 1, "planning.backoffInitialMs must be at least 1");
        require(
            planning.backoff_max_ms >= planning.backoff_initial_ms,
            "planning.backoffMaxMs must not be smaller than planning.backoffInitialMs",
        );
        require(planning.attempts_per_run >= 1, "planning.attemptsPerRun must be at least 1");
        require(planning.search_steps >= 1, "planning.searchSteps must be at least 1");
        require(planning.shape_cache_mib >= 1, "planning.shapeCacheMib must be at least 1");
        require(binding.repair_deadline_ms >= 1_000, "binding.repairDeadlineMs must be at least 1000");
        require(
            (100..=60_000).contains(&binding.request_timeout_ms),
            "binding.requestTimeoutMs must be between 100 and 60000",
        );
        require((1..=1024).contains(&binding.parallel_requests), "binding.parallelRequests must be between 1 and 1024");
        require((1..=1024).contains(&binding.parallel_reports), "binding.parallelReports must be between 1 and 1024");
        require(
            (1..=MAX_JOURNAL_SLOTS).contains(&binding.journal_slots),
            &format!("binding.journalSlots must be between 1 and {MAX_JOURNAL_SLOTS}"),
        );
        for (index, level) in self.topology.iter().flatten().enumerate() {
            let seen = self.topology.iter().flatten().take(index).any(|other| other.name == level.name);
            require(!level.name.is_empty(), &format!("topology[{index}].name must not be empty"));
            require(!seen, &format!("topology[{index}].name {:?} is used twice", level.name));
            require(!level.labels.is_empty(), &format!("topology[{index}].labels must name at least one node label"));
        }
        problems
    }

    /// Parameters of the engine, given how long dispatch takes at most for one request.
    #[must_use]
    pub fn core(&self, request_timeout: Duration) -> core::Config {
        let planning = &self.planning;
        core::Config {
            topology: self.topology_levels(),
            settle_ms: planning.settle_ms,
            backoff_initial_ms: planning.backoff_initial_ms,
            backoff_max_ms: planning.backoff_max_ms,
            unschedulable_flush_ms: planning.unschedulable_flush_ms,
            attempts_per_run: planning.attempts_per_run,
            search_steps: planning.search_steps,
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
            None => core::default_topology(),
            Some(levels) => levels.iter().map(|level| (level.name.clone(), level.labels.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Config::parse(text, "config.yaml").expect_err("refused").to_string()
    }

    #[test]
    fn nothing_is_the_default_and_the_default_is_valid() {
        for text in ["", "# only a comment\n\n"] {
            assert_eq!(Config::parse(text, "config.yaml").expect("valid"), Config::default());
        }
        let default = Config::default();
        let request_timeout = Duration::from_millis(default.binding.request_timeout_ms);
        assert_eq!(default.core(request_timeout), core::Config::default());
    }

    #[test]
    fn every_field_can_be_set() {
        let text = "
schedulerNames: [flowforge, default-scheduler]
topology:
  - {name: zone, labels: [topology.kubernetes.io/zone]}
  - {name: rack, labels: [a, b]}
planning: {settleMs: 5, backoffInitialMs: 2, backoffMaxMs: 9, shapeCacheMib: 3, seed: 7}
binding: {repairDeadlineMs: 4000, requestTimeoutMs: 500, parallelRequests: 2, parallelReports: 1, journalSlots: 1}
rollback:
  barePods: false
  owners: [{group: batch, kind: Job}]
";
        let config = Config::parse(text, "config.yaml").expect("valid");
        let core = config.core(Duration::from_millis(500));
        assert_eq!(core.topology[1], ("rack".into(), vec!["a".into(), "b".into()]));
        assert_eq!((core.settle_ms, core.shape_cache_bytes, core.seed), (5, 3 << 20, 7));
        let protocol = core.protocol;
        assert_eq!((protocol.repair_deadline_ms, protocol.outcome_timeout_ms), (4_000, 1_500));
        assert!(!protocol.tolerance.bare);
        assert_eq!(protocol.tolerance.owners[0].kind, "Job");
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_place() {
        let text = problem("planning:\n  settleMs: 1\n  setleMs: 2\n");
        assert!(text.starts_with("config.yaml: "), "{text}");
        assert!(text.contains("setleMs") && text.contains('3'), "{text}");
    }

    #[test]
    fn values_that_cannot_work_are_all_named() {
        let text = problem(
            "schedulerNames: []\nplanning: {backoffInitialMs: 9, backoffMaxMs: 1}\ntopology: [{name: a, labels: []}, {name: a, labels: [x]}]\n",
        );
        for part in [
            "schedulerNames must name at least one scheduler",
            "planning.backoffMaxMs must not be smaller than planning.backoffInitialMs",
            "topology[0].labels must name at least one node label",
            "topology[1].name \"a\" is used twice",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/config.yaml")).expect_err("no such file");
        assert!(error.to_string().starts_with("cannot read /nonexistent/config.yaml"), "{error}");
    }
}
