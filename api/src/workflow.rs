//! `Workflow`: a DAG whose nodes are gangs.
//!
//! ```text
//!   workflow  Pending -> Running -> Succeeded | Failed | Canceled
//!   node      Pending -> Scheduling -> Running -> Succeeded | Failed | Skipped
//! ```
//! Defaults flow workflow -> template -> node: a field set on a node wins, maps are merged by key, lists of named things by name.

use k8s_openapi::api::core::v1::{
    Affinity, EnvFromSource, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements, SecurityContext,
    Toleration, Volume, VolumeMount,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use crate::control::{
    Approval, Backoff, Dependency, DependencyOn, DependsMode, DependsOn, NodeTimeouts, OnFailure, RerunOf, RetryOn,
    RetryPolicy, RetryScope, Suspend,
};
use crate::gang::{GangPhase, MemberCounts, MemberLostPolicy, TopologyRequest};
pub use crate::role::{FailurePolicy, GpuRequest, NodeGang, NodeRole, SuccessPolicy};
use crate::template::{ForEach, InlineTemplate, NodeOutput, TemplateReference, WorkflowParameter};

/// A DAG of gangs.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "flowforge.dev",
    version = "v1alpha1",
    kind = "Workflow",
    plural = "workflows",
    namespaced,
    shortname = "ffw",
    category = "flowforge",
    status = "WorkflowStatus",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Progress","type":"string","jsonPath":".status.progress"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Started","type":"date","priority":1,"jsonPath":".status.startedAt"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("!has(oldSelf.spec) || !has(oldSelf.spec.cancel) || !oldSelf.spec.cancel || (has(self.spec.cancel) && self.spec.cancel)").message("spec.cancel cannot be taken back: submit a new Workflow"),
    validation = Rule::new("!has(oldSelf.spec) || !has(oldSelf.spec.terminate) || !oldSelf.spec.terminate || (has(self.spec.terminate) && self.spec.terminate)").message("spec.terminate cannot be taken back: submit a new Workflow"),
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSpec {
    /// Claims mounted into every pod of every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub storage: Vec<Storage>,
    /// Parameters with their values; nodes read them as `${{ params.NAME }}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub parameters: Vec<WorkflowParameter>,
    /// Templates that nodes refer to. The admission webhook copies the WorkTemplates that are missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub templates: Vec<InlineTemplate>,
    /// Values that every node starts from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub defaults: NodeDefaults,
    /// The nodes of the DAG.
    #[schemars(length(min = 1, max = 20000))]
    pub nodes: Vec<WorkflowNode>,
    /// Stops everything with grace; what never ran is Skipped and the workflow ends Canceled.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancel: bool,
    /// Stops everything at once, with a grace of a second, and `finally` nodes too; the workflow ends Canceled.
    #[serde(default, skip_serializing_if = "is_false")]
    pub terminate: bool,
    /// The workflow that this one runs again: what had succeeded in it is taken over and does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RerunOf>,
    /// What persons have said about approval nodes; entries are only added, each in the name of who adds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub approvals: Vec<Approval>,
    /// Holds the workflow: nothing more is released until this is removed; what runs goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<Suspend>,
    /// Most nodes that are released and have not ended at a time; without bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20000))]
    pub parallelism: Option<i32>,
    /// Seconds from the first release after which the workflow is stopped and fails; `finally` nodes still run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<i64>,
    /// Scheduler the pods ask for; defaults to `flowforge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub scheduler_name: Option<String>,
    /// Seconds after its end when the workflow and its children are deleted; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// Fields of `spec` that may change. The others are frozen by `manifests/base/frozen.yaml` inside the API server, so that a
/// running workflow and its spec never disagree, whether or not the webhook was there.
pub const MUTABLE: [&str; 6] =
    ["approvals", "cancel", "parallelism", "suspend", "terminate", "ttlSecondsAfterFinished"];
/// What is said to whoever changes another one.
pub const FROZEN: &str = "cannot change once the Workflow exists; submit a new Workflow: only spec.approvals, cancel, parallelism, suspend, terminate and ttlSecondsAfterFinished may change";

/// The CRD of [`Workflow`].
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    Workflow::crd()
}

/// A claim of the workflow's namespace, mounted into every pod.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_ref: String,
    /// Where it is mounted.
    #[serde(default = "default_mount_path")]
    #[schemars(length(min = 1), regex(pattern = r"^/[^:]*$"))]
    pub mount_path: String,
    /// Path inside the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// Mount read-only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
}

fn default_mount_path() -> String {
    "/mnt".into()
}

/// Values that every node starts from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeDefaults {
    /// Environment of the main container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Environment from ConfigMaps and Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// ServiceAccount of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Secrets for pulling images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// When images are pulled (`Always`, `IfNotPresent`, `Never`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Labels a node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Further volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Mounts of `volumes` in the main container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Security context of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// Security context of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Resources of the main container (hugepages and `rdma/*` included).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Size of a memory volume at /dev/shm (NCCL needs one); none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Quantity>,
    /// Share the host's IPC namespace.
    #[serde(default, rename = "hostIPC", skip_serializing_if = "Option::is_none")]
    pub host_ipc: Option<bool>,
    /// Use the host's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// Grace of a stop, in seconds; Kubernetes' default (30) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Processes per pod (torchrun's nproc-per-node); the number of GPUs of the main container, else 1, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub nproc_per_node: Option<i32>,
    /// Seconds for which members tolerate a not-ready or unreachable node; 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// One node of the DAG: a gang of `replicas` equal pods, or of the pods of its `roles`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowNode {
    /// Id, unique in the workflow; a DNS-1123 label, because it becomes part of object names.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub id: String,
    /// Pods of the gang, where it has no roles.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8192))]
    pub replicas: i32,
    /// Roles of the gang: pods that differ (a driver and its workers, a launcher, parameter servers), with policies of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub roles: Vec<NodeRole>,
    /// What the node asks of its gang.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<NodeGang>,
    /// What this node waits for: the id of a node that must have succeeded, or `{node: <id>, on: Succeeded | Failed |
    /// Completed | Running | Skipped}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    pub depends_on: Vec<Dependency>,
    /// Whether it waits for all of `dependsOn`, or for the first; `All` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_mode: Option<DependsMode>,
    /// What its failure means to the others. When absent: `SkipDownstream` where a node waits for its failure or its
    /// completion, else `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// It runs when all other nodes have ended and stopped, whatever their end; neither a failure, a cancel nor the workflow's
    /// time limit stops it. Only `finally` nodes may wait for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub finally: bool,
    /// It makes no pods: it waits until a person approves it (`flowforge approve`), and fails when that person denies it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approval: bool,
    /// How long its attempts may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<NodeTimeouts>,
    /// How it is tried again when it fails; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Runs the node once for each item: instances `<id>-<index>` that know `item` and `index`. Whoever waits for the node
    /// waits for all of them.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub items: Option<ForEach>,
    /// Whether it runs, once what it waits for has happened: CEL over `params`, and `outputs` and `phases` of the nodes in
    /// `dependsOn`, like `outputs.train.loss < 0.5 && phases.check == "Succeeded"`. A node whose condition is false is Skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub when: Option<String>,
    /// What it says when it ends well; those that wait for it read it as `outputs.ID.NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub outputs: Vec<NodeOutput>,
    /// The template that this node is made from; the fields of the node win over the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateReference>,
    /// Image of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Command of the main container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the main container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Working directory of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// A whole pod template (`metadata` and `spec` as in core/v1); the main container is the one named `main`, else the
    /// first. The fields above and the defaults are laid over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod_template_schema")]
    pub pod_template: Option<serde_json::Value>,
    /// Where members may stand relative to each other; the short form of `gang.topology`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyRequest>,
    /// What happens when a live member is lost, where there are no roles that say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_lost_policy: Option<MemberLostPolicy>,
    /// Values of this node that win over the workflow's defaults.
    #[serde(flatten)]
    pub overrides: NodeDefaults,
}

impl WorkflowNode {
    /// Pods of the gang, summed over its roles.
    #[must_use]
    pub fn members(&self) -> i32 {
        match self.roles.as_slice() {
            [] => self.replicas,
            roles => roles.iter().fold(0, |sum, role| sum.saturating_add(role.replicas)),
        }
    }

    /// Where members may stand relative to each other, in whichever form it was written.
    #[must_use]
    pub fn placement(&self) -> Option<&TopologyRequest> {
        self.gang.as_ref().and_then(|gang| gang.topology.as_ref()).or(self.topology.as_ref())
    }
}

fn one() -> i32 {
    1
}

fn pod_template_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_default(d: &NodeDefaults) -> bool {
    *d == NodeDefaults::default()
}

/// What became of a workflow.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// Phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WorkflowPhase>,
    /// One-word reason of the phase or of waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Human-readable detail of `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `ended/total` nodes, for the printer column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the first node was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the workflow ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The nodes, in the order of the spec. Of a workflow that is too large for all of them, those that say most: what
    /// failed, and what waits or runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeStatus>,
    /// The phases of all nodes of a workflow that is too large for `nodes` to hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<PackedNodes>,
    /// Conditions (`Accepted`, `Complete`, `Succeeded`, `Failed`, `Degraded`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Nodes by phase: their places in `spec.nodes` with every `for` unrolled, from 0, packed as `0-6,8`. A node that is in none is Pending.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PackedNodes {
    /// Released, and their Gangs exist.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scheduling: String,
    /// All members run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub running: String,
    /// Ended well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub succeeded: String,
    /// Ended badly.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
    /// Never ran and never will, because the workflow was stopped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skipped: String,
    /// Never ran and never will: its `when` is false, or all that it waits for was passed over so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bypassed: String,
    /// Never ran and never will: what it waits for can not happen any more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unsatisfiable: String,
}

impl PackedNodes {
    /// Each set with the phase of its nodes.
    #[must_use]
    pub fn sets(&self) -> [(NodePhase, &str); 7] {
        [
            (NodePhase::Scheduling, &self.scheduling),
            (NodePhase::Running, &self.running),
            (NodePhase::Succeeded, &self.succeeded),
            (NodePhase::Failed, &self.failed),
            (NodePhase::Skipped, &self.skipped),
            (NodePhase::Skipped, &self.bypassed),
            (NodePhase::Skipped, &self.unsatisfiable),
        ]
    }
}

/// Phase of a workflow.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum WorkflowPhase {
    /// No node was released.
    #[default]
    Pending,
    /// A node was released.
    Running,
    /// Every node ended well or was skipped by its own rule.
    Succeeded,
    /// A node failed.
    Failed,
    /// It was canceled.
    Canceled,
}

/// What became of one node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Id of the node.
    pub id: String,
    /// Phase.
    pub phase: NodePhase,
    /// Attempt, from 1; 0 before the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i32,
    /// One-word reason of the phase or of waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Human-readable detail of `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Phase of the gang of the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangPhase>,
    /// Member counts of the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<MemberCounts>,
    /// When the node was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Time>,
    /// When all members were bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,
    /// When all members ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the node ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// Phase of a workflow node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum NodePhase {
    /// An upstream node has not ended.
    #[default]
    Pending,
    /// Released; its gang is not bound as a whole.
    Scheduling,
    /// All needed members run.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It never ran and never will.
    Skipped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_of_the_spec_is_frozen_or_declared_mutable() {
        let crd = serde_json::to_value(crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let fields: BTreeSet<String> = spec["properties"].as_object().unwrap().keys().cloned().collect();
        let manifest = include_str!("../../manifests/base/frozen.yaml");
        let policies: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
        let mut frozen = BTreeSet::from(MUTABLE.map(str::to_owned));
        for rule in policies[0]["spec"]["validations"].as_array().unwrap() {
            let message = rule["message"].as_str().unwrap();
            let field = message.strip_suffix(FROZEN).and_then(|m| m.trim_end().strip_prefix("spec.")).expect(message);
            let (new, old) = (format!("object.spec.{field}"), format!("oldObject.spec.{field}"));
            let expected = format!("has({new}) == has({old}) && (!has({new}) || {new} == {old})");
            assert_eq!(rule["expression"], expected.as_str());
            assert!(frozen.insert(field.to_owned()), "{field} is frozen and mutable, or frozen twice");
        }
        assert_eq!(frozen, fields);
    }
}
