//! `Gang`: N pods that are useful only together; the unit of scheduling, of retry and of explanation.
//!
//! `status.phase` is written by the DAG controller only, condition `Scheduled` and `status.placement` by the scheduler
//! only (server-side apply, separate field managers).
//!
//! ```text
//!   Pending ──all needed members bound──> Scheduled ──all running──> Running ──> Succeeded | Failed
//! ```

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a gang asks for.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "flowforge.dev",
    version = "v1alpha1",
    kind = "Gang",
    plural = "gangs",
    namespaced,
    shortname = "ffg",
    category = "flowforge",
    status = "GangStatus",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Members","type":"integer","jsonPath":".spec.minMember"}"#,
    printcolumn = r#"{"name":"Bound","type":"integer","jsonPath":".status.placement.bound"}"#,
    printcolumn = r#"{"name":"Running","type":"integer","jsonPath":".status.members.running"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","priority":1,"jsonPath":".status.placement.domain"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("!has(oldSelf.spec) || self.spec.roles == oldSelf.spec.roles").message("spec.roles is immutable: create a new Gang for the next attempt"),
    validation = Rule::new("self.spec.minMember <= self.spec.roles.map(r, r.replicas).sum()").message("spec.minMember must not exceed the sum of spec.roles[].replicas"),
    validation = Rule::new("!has(self.spec.topology) || !has(self.spec.topology.spread) || self.spec.topology.spread.minDomains <= self.spec.minMember").message("spec.topology.spread.minDomains must not exceed spec.minMember: each domain takes a member at least"),
    validation = Rule::new("!has(self.spec.colocate) || self.spec.colocate.all(set, set.roles.all(name, self.spec.roles.exists(r, r.name == name)))").message("spec.colocate[].roles must name roles of spec.roles"),
    validation = Rule::new("!has(self.spec.separate) || self.spec.separate.all(set, set.roles.all(name, self.spec.roles.exists(r, r.name == name)))").message("spec.separate[].roles must name roles of spec.roles"),
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct GangSpec {
    /// Members that must be live together, summed over roles.
    #[schemars(range(min = 1, max = 8192))]
    pub min_member: i32,
    /// Roles; a gang without named roles has the single role `worker`.
    #[schemars(length(min = 1, max = 16))]
    pub roles: Vec<GangRole>,
    /// Where members may stand relative to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyRequest>,
    /// Roles whose members must all stand in one domain of a level: parameter servers in the rack of their workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub colocate: Vec<RoleSet>,
    /// Roles that must not share a domain of a level: a standby not in the rack of what it stands by for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub separate: Vec<RoleSet>,
    /// Queue, for schedulers that know queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Priority class of the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// What happens when a live member is lost.
    #[serde(default)]
    pub member_lost_policy: MemberLostPolicy,
    /// Kind that owns this gang's pods when it is not FlowForge; the scheduler then ignores the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// UID of the previous attempt's Gang, whose freed resources are kept for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Seconds for which resources of `replaces` are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub hold_seconds: Option<i32>,
}

/// One role of a gang.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GangRole {
    /// Name, unique in the gang.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Pods of this role.
    #[schemars(range(min = 1, max = 8192))]
    pub replicas: i32,
    /// Pods of this role that must be live; defaults to `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8192))]
    pub min: Option<i32>,
    /// Where members of this role may stand relative to each other, inside what `spec.topology` says of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<RoleTopology>,
}

/// Where members of one role may stand relative to each other.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleTopology {
    /// All members of the role must share one domain of this level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub required: Option<String>,
    /// Levels whose sharing is preferred, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub preferred: Vec<String>,
}

/// Some roles of a gang, and a level.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleSet {
    /// Name of the level.
    #[schemars(length(min = 1, max = 63))]
    pub level: String,
    /// Names of the roles.
    #[schemars(length(min = 2, max = 16), inner(length(min = 1, max = 63)))]
    pub roles: Vec<String>,
}

/// A gang cut into segments of consecutive ranks, each of which stands in one domain of a level. Every role is cut by itself.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Segments {
    /// Members of a segment at most.
    #[schemars(range(min = 1, max = 8192))]
    pub size: i32,
    /// Level one domain of which holds a segment.
    #[schemars(length(min = 1, max = 63))]
    pub level: String,
    /// As few segments as `size` allows, all of one size but for one member: 24 members with size 18 are 12 + 12. When false, every
    /// segment but the last has `size` members: 18 + 6.
    #[serde(default = "yes")]
    pub balanced: bool,
}

fn yes() -> bool {
    true
}

/// A gang spread over failure domains: over at least so many domains of a level, none of which holds more than
/// ⌈members / minDomains⌉, so that the loss of one costs no more than that.
///
/// `minDomains` is the field of a pod's `topologySpreadConstraints`. The other one that people know from there, `maxSkew`, compares
/// with the emptiest of *all* domains of the cluster: on a hundred racks it would scatter a gang of a hundred over all of them,
/// where a gang wants as few domains as its safety allows.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GangSpread {
    /// Level of the failure domains.
    #[schemars(length(min = 1, max = 63))]
    pub level: String,
    /// Domains that hold a member at least.
    #[schemars(range(min = 1, max = 8192))]
    pub min_domains: i32,
}

/// Where members may stand relative to each other, by level name (`zone`, `block`, `rack`, `nvlink`, `host`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyRequest {
    /// All members must share one domain of this level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub required: Option<String>,
    /// Levels whose sharing is preferred, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub preferred: Vec<String>,
    /// Segments of consecutive ranks, each in one domain of a level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<Segments>,
    /// Failure domains over which members are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<GangSpread>,
}

/// What happens when a live member of a running gang is lost.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MemberLostPolicy {
    /// The gang fails; its node decides about another attempt.
    #[default]
    Fail,
    /// Only the lost member is made again, tied to the gang's domain.
    ReplaceMember,
}

/// What became of a gang.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GangStatus {
    /// Phase, written by the DAG controller only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<GangPhase>,
    /// One-word reason of the phase or of waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Human-readable detail of `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Member counts, written by the DAG controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<MemberCounts>,
    /// Ranks whose members ended well, packed as `0-6,8`. With the two below it is the record of every ended member,
    /// written before the member's finalizer goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_ranks: Option<String>,
    /// Ranks whose members failed: they failed the gang, or were left out by the policy of their role. Packed likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_ranks: Option<String>,
    /// Ranks whose members were stopped by us after they had run, packed likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_ranks: Option<String>,
    /// Ranks that were lost and made again, packed likewise, by the last incarnation that was lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost_ranks: BTreeMap<String, String>,
    /// How members ended that did not end well, the earliest first; the first 64 of them, failures before the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub results: Vec<MemberResult>,
    /// What members said of the node's outputs before all had ended, by rank: the declared keys of their termination
    /// messages, as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub said: BTreeMap<String, String>,
    /// The outputs of the node, once its gang has ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::template::any_object")]
    pub outputs: Option<serde_json::Value>,
    /// When all needed members were bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,
    /// When all members ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the gang ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Late summary of the placement, written by the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementSummary>,
    /// Conditions; `Scheduled` belongs to the scheduler, the others to the DAG controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Phase of a gang.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum GangPhase {
    /// Its members are not all bound.
    #[default]
    Pending,
    /// All needed members are bound.
    Scheduled,
    /// All needed members run.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
}

/// How many members are where.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberCounts {
    /// Members asked for.
    pub desired: i32,
    /// Pods that exist.
    pub created: i32,
    /// Pods whose containers run.
    pub running: i32,
    /// Members that ended well.
    pub succeeded: i32,
    /// Members that ended badly.
    pub failed: i32,
}

/// How one member ended.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberResult {
    /// Rank of the member.
    pub rank: i32,
    /// How often this rank had been made again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub incarnation: i32,
    /// UID of its pod.
    pub uid: String,
    /// What it means for the gang.
    pub outcome: MemberOutcome,
    /// Exit code of the main container, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Reason of the end (`Completed`, `Error`, `OOMKilled`, `Evicted`, `NodeLost`, …).
    pub reason: String,
    /// Node it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// What a member's end means for its gang.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MemberOutcome {
    /// Its main container exited with 0.
    #[default]
    Succeeded,
    /// It failed its gang, or was left out (`failurePolicy` of its role).
    Failed,
    /// It was lost and made again (`memberLostPolicy: ReplaceMember`).
    Lost,
    /// It was stopped with its gang.
    Stopped,
}

/// Where a gang was placed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSummary {
    /// Members bound.
    #[serde(default)]
    pub bound: i32,
    /// Narrowest domain that holds all members, as `level/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Nodes in rank order, run-length packed as `node*count`, at most 64 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}
