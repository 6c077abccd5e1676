//! The configuration file: one YAML document, every field with a default, unknown fields are errors.

use crate::flow::{parallelism, timeout_ms, ttl_ms};
use flowforge_api::workflow::WorkflowSpec;
use flowforge_dag_controller_core::frontend::DEFAULT_LEVELS;
use serde::Deserialize;
use std::path::Path;

/// Longest hold or pause: what is longer is a mistake, and sums of times must not overflow.
const LONGEST_HOLD_MS: u64 = 24 * 60 * 60 * 1000;

/// What the controller may be told.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Shards; each holds the workflows whose names hash to it and works on one event at a time.
    pub workers: usize,
    /// Writes to the API server that may be under way at once.
    pub concurrent_writes: usize,
    /// How long a gang that quota refuses may hold the half it got.
    pub quota_hold_ms: u64,
    /// How long a create that the API server forbids (a ServiceAccount is missing, …) is tried again before its node fails.
    pub forbidden_hold_ms: u64,
    /// First pause after a refusal that may pass (quota, a taken name); doubled each time.
    pub retry_base_ms: u64,
    /// Longest such pause.
    pub retry_cap_ms: u64,
    /// How long after a failure of the user's program a lost machine still counts as its cause; only where a node has a
    /// `retry` with a budget for the infrastructure.
    pub infra_grace_ms: u64,
    /// Topology levels that a node may name, wide to narrow: the names in the scheduler's configuration.
    pub topology_levels: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let core = flowforge_dag_controller_core::Config::default();
        Self {
            workers: 4,
            concurrent_writes: 64,
            quota_hold_ms: core.quota_hold_ms,
            forbidden_hold_ms: core.forbidden_hold_ms,
            retry_base_ms: core.retry_base_ms,
            retry_cap_ms: core.retry_cap_ms,
            infra_grace_ms: core.infra_grace_ms,
            topology_levels: DEFAULT_LEVELS.iter().map(|level| (*level).to_owned()).collect(),
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no such document, or its values do not fit together; the text names the field.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        config.validate().map(|()| config)
    }

    /// Checks the values.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=256).contains(&self.workers) {
            return Err(format!("workers: {} is not between 1 and 256", self.workers));
        }
        if !(1..=4096).contains(&self.concurrent_writes) {
            return Err(format!("concurrentWrites: {} is not between 1 and 4096", self.concurrent_writes));
        }
        let hold = |name: &str, value_ms: u64| match value_ms > LONGEST_HOLD_MS {
            true => Err(format!("{name}: {value_ms} is above {LONGEST_HOLD_MS}, which is a day")),
            false => Ok(()),
        };
        hold("quotaHoldMs", self.quota_hold_ms)?;
        hold("forbiddenHoldMs", self.forbidden_hold_ms)?;
        hold("retryCapMs", self.retry_cap_ms)?;
        hold("infraGraceMs", self.infra_grace_ms)?;
        if self.retry_base_ms == 0 || self.retry_cap_ms < self.retry_base_ms {
            return Err("retryBaseMs: must be positive and not above retryCapMs".to_owned());
        }
        let mut names: Vec<&String> = self.topology_levels.iter().collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) || names.iter().any(|name| name.is_empty()) {
            return Err("topologyLevels: each must have a name of its own".to_owned());
        }
        Ok(())
    }

    /// What the core takes of it, for one workflow.
    #[must_use]
    pub fn core(&self, seed: u64, spec: &WorkflowSpec) -> flowforge_dag_controller_core::Config {
        flowforge_dag_controller_core::Config {
            seed,
            ttl_ms: ttl_ms(spec),
            timeout_ms: timeout_ms(spec),
            parallelism: parallelism(spec),
            quota_hold_ms: self.quota_hold_ms,
            forbidden_hold_ms: self.forbidden_hold_ms,
            retry_base_ms: self.retry_base_ms,
            retry_cap_ms: self.retry_cap_ms,
            infra_grace_ms: self.infra_grace_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_set_some_fields_and_leave_the_rest() {
        let config = Config::parse("workers: 8\nretryCapMs: 5000\n").unwrap();
        assert_eq!(config, Config { workers: 8, retry_cap_ms: 5000, ..Config::default() });
        assert_eq!(Config::parse("{}").unwrap(), Config::default());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, name) in [
            ("worker: 1", "worker"),
            ("workers: 0", "workers"),
            ("retryBaseMs: 0", "retryBaseMs"),
            ("quotaHoldMs: 86400001", "quotaHoldMs"),
            ("forbiddenHoldMs: 86400001", "forbiddenHoldMs"),
            ("infraGraceMs: 86400001", "infraGraceMs"),
            ("retryCapMs: 18446744073709551615", "retryCapMs"),
            ("topologyLevels: [rack, rack]", "topologyLevels"),
            ("topologyLevels: ['']", "topologyLevels"),
        ] {
            assert!(Config::parse(text).unwrap_err().contains(name), "{text}");
        }
    }
}
