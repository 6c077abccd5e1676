//! The roles of a workflow node (driver and workers, launcher, parameter servers), and what a node asks of its gang. The rules
//! stand in `docs/semantics.md`.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::gang::{RoleTopology, TopologyRequest};

/// Members of a node's gang that are alike: so many pods, and what differs from the pods of the node. Ranks are counted through
/// the roles in their order.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRole {
    /// Name, unique in the node.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Pods of the role.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8192))]
    pub replicas: i32,
    /// Pods that must be live, or have succeeded; `replicas` when absent. With fewer the gang does not start, or fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8192))]
    pub min: Option<i32>,
    /// When the role has done its work; `All` when absent. When all roles have, the gang has succeeded, and what still runs is
    /// stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// What a member means that fails or is lost; `FailGang` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    /// Where members of the role may stand relative to each other, inside what the node says of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<RoleTopology>,
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
    /// Environment of the main container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Resources of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels a node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Processes per pod; the number of GPUs of the main container, else 1, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub nproc_per_node: Option<i32>,
}

fn one() -> i32 {
    1
}

/// When a role has done its work.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SuccessPolicy {
    /// When all of its members have succeeded, but for those that were left out.
    #[default]
    All,
    /// When one of its members has succeeded.
    Any,
    /// It is not waited for: workers of a launcher, parameter servers.
    Ignore,
}

/// What a member means that fails or is lost.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum FailurePolicy {
    /// The gang fails.
    #[default]
    FailGang,
    /// The member is made again in the same attempt: a lost one always, a failed one up to `retry.limit` times. After that it is
    /// left out.
    ReplaceMember,
    /// The member is left out: the gang goes on without it, down to the role's `min`.
    Ignore,
}

/// What a node asks of its gang; it is copied into the Gang of every attempt.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeGang {
    /// Pods with which the gang starts when there is no room for all; `replicas` when absent. For nodes without roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub min_member: Option<i32>,
    /// Where members may stand relative to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyRequest>,
    /// GPUs of each pod's main container. For nodes without roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRequest>,
    /// Queue, for schedulers that know queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub queue: Option<String>,
    /// Priority class of the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// GPUs as NVIDIA's device plugin and its feature discovery name them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct GpuRequest {
    /// Value of the node label `nvidia.com/gpu.product`: `NVIDIA-H100-80GB-HBM3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub product: Option<String>,
    /// MIG profile of the slices, like `1g.10gb`; whole GPUs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[0-9a-z]+(\.[0-9a-z]+)*(\.me)?$"))]
    pub mig: Option<String>,
    /// How many.
    #[schemars(range(min = 1, max = 1024))]
    pub count: i32,
}

impl GpuRequest {
    /// The extended resource that stands for it.
    #[must_use]
    pub fn resource(&self) -> String {
        self.mig.as_ref().map_or_else(|| "nvidia.com/gpu".to_owned(), |profile| format!("nvidia.com/mig-{profile}"))
    }
}
