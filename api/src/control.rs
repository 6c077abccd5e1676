//! The control flow of a [`Workflow`](crate::Workflow): what its nodes wait for, how they are tried again, how long they may
//! last, and what persons decide. The rules stand in `docs/semantics.md`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::workflow::NodePhase;

/// The workflow that is run again; `flowforge rerun` writes it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RerunOf {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The nodes that are taken over: their places in `spec.nodes` with every `for` unrolled, from 0, packed as `0-6,8`.
    /// What they put out is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub succeeded: String,
}

/// What a person says about an approval node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Approval {
    /// Id of the node.
    #[schemars(length(min = 1, max = 40))]
    pub node: String,
    /// It goes on; else it fails.
    pub approved: bool,
    /// Who says so: the name under which the API server knows the one who adds the entry.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// When, as the one who adds it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// How a workflow is held.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Suspend {
    /// Nothing more is released; what runs goes on.
    Hold,
}

/// How long each attempt of a node may last.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTimeouts {
    /// Seconds until all members are bound; without bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub queue_seconds: Option<i64>,
    /// Seconds from then until all members run; 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub start_seconds: Option<i64>,
    /// Seconds from then to the end; without bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_seconds: Option<i64>,
}

/// How a node is tried again. Each attempt is a Gang of its own; it starts when nothing of the one before runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Attempts after a failure of the program; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub limit: Option<i32>,
    /// Attempts after a failure of the infrastructure (a lost machine, an eviction, a preemption, …); 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub infrastructure_limit: Option<i32>,
    /// Pauses between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// What is made again; `Gang` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RetryScope>,
    /// Which failures of the program are tried again; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<RetryOn>,
    /// Seconds after which an attempt whose pods do not stop, because their machine does not answer, is given up: the next one
    /// starts although the old one may still run. Never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub force_after_seconds: Option<i32>,
}

/// Pauses between attempts: `initialSeconds`, then `factor` times as long each time, up to `capSeconds`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first pause; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub initial_seconds: Option<i32>,
    /// By what each further pause is longer; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: Option<i32>,
    /// The longest pause; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub cap_seconds: Option<i32>,
    /// How much of a pause is random, in per cent; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub jitter_percent: Option<i32>,
}

/// What is made again.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RetryScope {
    /// The whole gang, as a new attempt.
    #[default]
    Gang,
    /// The member that failed, in the same attempt, up to `limit` times each; then the gang fails for good.
    Member,
}

/// Failures of the program that are tried again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryOn {
    /// Exit codes of the member that failed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 255))]
    pub exit_codes: Vec<i32>,
    /// Reasons (`MemberFailed`, `OOMKilled`, `InitContainerFailed`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub reasons: Vec<String>,
}

/// One entry of `dependsOn`.
///
/// What is none of the two forms is kept as it is: the front end says what is wrong with it, and no watch breaks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Dependency {
    /// The id of a node that must have succeeded.
    Node(String),
    /// A node and what of it is waited for.
    On(DependencyOn),
    /// Anything else.
    Other(serde_json::Value),
}

/// The long form of a [`Dependency`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DependencyOn {
    /// Id of the node.
    pub node: String,
    /// What is waited for.
    #[serde(default)]
    pub on: DependsOn,
}

/// What a dependency waits for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum DependsOn {
    /// The node ended well.
    #[default]
    Succeeded,
    /// The node ended badly.
    Failed,
    /// The node ran and ended, either way.
    Completed,
    /// All members of the node run, or did once.
    Running,
    /// The node never ran and never will.
    Skipped,
}

impl Dependency {
    /// The node that is waited for; empty where none is named.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::Node(node) => node,
            Self::On(on) => &on.node,
            Self::Other(_) => "",
        }
    }

    /// What is waited for.
    #[must_use]
    pub fn on(&self) -> DependsOn {
        match self {
            Self::On(on) => on.on,
            Self::Node(_) | Self::Other(_) => DependsOn::Succeeded,
        }
    }
}

impl Dependency {
    /// Whether a node of this phase may still do what is waited for, and has not yet.
    #[must_use]
    pub fn is_open(&self, phase: NodePhase) -> bool {
        match phase {
            NodePhase::Pending | NodePhase::Scheduling => true,
            NodePhase::Running => self.on() != DependsOn::Running,
            NodePhase::Succeeded | NodePhase::Failed | NodePhase::Skipped => false,
        }
    }
}

impl std::fmt::Display for Dependency {
    /// `train`, or `train (on Failed)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.on() {
            DependsOn::Succeeded => f.write_str(self.node()),
            on => write!(f, "{} (on {on:?})", self.node()),
        }
    }
}

impl From<&str> for Dependency {
    fn from(node: &str) -> Self {
        Self::Node(node.to_owned())
    }
}

impl JsonSchema for Dependency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dependency".into()
    }

    /// A structural schema has no "text or object": the front end checks it.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Id of a node that must have succeeded, or {node, on: Succeeded | Failed | Completed | Running | Skipped}.",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}

/// How the entries of `dependsOn` combine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DependsMode {
    /// The node waits for all of them.
    #[default]
    All,
    /// The node waits for the first.
    Any,
}

/// What a node's failure means to the others.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// The workflow is stopped and fails.
    #[default]
    Fail,
    /// The others go on as if it had succeeded; the workflow may succeed, with condition Degraded.
    Continue,
    /// What waits for its success is skipped, the others go on; the workflow fails in the end.
    SkipDownstream,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_dependency_survives_being_read_and_written_whatever_it_is() {
        let long = json!({"node": "train", "on": "Failed"});
        for (value, node, on) in [
            (json!("train"), "train", DependsOn::Succeeded),
            (long, "train", DependsOn::Failed),
            (json!({"node": "train", "on": "Someday"}), "", DependsOn::Succeeded),
            (json!(7), "", DependsOn::Succeeded),
        ] {
            let read: Dependency = serde_json::from_value(value.clone()).unwrap();
            assert_eq!((read.node(), read.on()), (node, on), "{value}");
            assert_eq!(serde_json::to_value(&read).unwrap(), value);
        }
    }
}
