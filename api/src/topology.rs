//! `ClusterTopology`: the levels of the cluster, from wide to narrow, and the node labels that name their domains.
//!
//! The object named `default` overrides the levels of the scheduler's configuration, at once and while pods run. The others
//! are kept for the day somebody renames them. `status` is written by the scheduler only (server-side apply).
//!
//! ```text
//!   spec.levels ──usable──> the scheduler's tree of domains ──labels of nodes──> status.levels, condition Degraded
//!        └─────── not ────> condition Ready=False; the last usable levels, else the configuration's, stay in force
//! ```

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the object that counts.
pub const DEFAULT: &str = "default";

/// The levels of a cluster.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "flowforge.dev",
    version = "v1alpha1",
    kind = "ClusterTopology",
    plural = "clustertopologies",
    shortname = "ffct",
    category = "flowforge",
    status = "ClusterTopologyStatus",
    printcolumn = r#"{"name":"Levels","type":"string","jsonPath":".spec.levels[*].name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Degraded","type":"string","jsonPath":".status.conditions[?(@.type==\"Degraded\")].reason"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTopologySpec {
    /// Levels, widest first. A node hangs below the narrowest level that it has a label for; it is never left out. The
    /// webhook knows only the levels of the controller's configuration (`topologyLevels`): name other ones there, too.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub levels: Vec<TopologyLevel>,
}

/// A level.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLevel {
    /// Its name, as gangs ask for it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Node labels whose value names the domain; the first that a node carries counts. A label belongs to one level, and
    /// `kubernetes.io/hostname` to the last.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 317)))]
    pub labels: Vec<String>,
}

/// What the nodes' labels make of the levels.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTopologyStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i64>,
    /// How far each level is filled, widest first; empty while the object does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub levels: Vec<TopologyLevelStatus>,
    /// Conditions: `Ready` and `Degraded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a level is filled.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLevelStatus {
    /// The level.
    pub name: String,
    /// Values of its label.
    pub domains: i64,
    /// Nodes that carry one.
    pub nodes: i64,
}

/// Reasons of the conditions.
pub mod reason {
    /// Ready: these levels are in force.
    pub const IN_USE: &str = "InUse";
    /// Not ready: only the object named `default` counts.
    pub const NOT_DEFAULT: &str = "NotDefault";
    /// Not ready: the levels contradict each other; the message names level and fix.
    pub const INVALID_LEVELS: &str = "InvalidLevels";
    /// Not degraded: every node that should have a label has it.
    pub const COMPLETE: &str = "Complete";
    /// Degraded for more than one kind of reason; the message has each.
    pub const SEVERAL: &str = "SeveralProblems";
}
