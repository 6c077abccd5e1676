//! Watched kinds of the core API, trimmed to the fields that are read: a full `Pod` decode is the largest cost of a
//! large cluster.

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ApiResource;
use kube::core::{DynamicResourceScope, ObjectMeta, Resource};
use serde::Deserialize;
use std::borrow::Cow;

use crate::storage::ClaimFacts;

/// A member pod.
pub type WatchedPod = Watched<PodSpec, PodStatus>;
/// A node.
pub type WatchedNode = Watched<NodeSpec, Empty>;
/// A claim.
pub type WatchedClaim = Watched<ClaimSpec, ClaimStatus>;
/// An object of which only the metadata counts.
pub type MetadataOf = Watched<Empty, Empty>;

/// An object with a trimmed spec and status. (`kube::core::Object` flattens its type fields, which makes serde buffer
/// the whole object.)
#[derive(Clone, Debug, Deserialize)]
pub struct Watched<P, U> {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(default)]
    pub spec: P,
    /// Status.
    #[serde(default)]
    pub status: U,
}

impl<P, U> Resource for Watched<P, U> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(dt: &ApiResource) -> Cow<'_, str> {
        dt.group.as_str().into()
    }

    fn version(dt: &ApiResource) -> Cow<'_, str> {
        dt.version.as_str().into()
    }

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        dt.kind.as_str().into()
    }

    fn api_version(dt: &ApiResource) -> Cow<'_, str> {
        dt.api_version.as_str().into()
    }

    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        dt.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Nothing of it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Empty {}

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node it is bound to.
    pub node_name: Option<String>,
    /// Init containers.
    pub init_containers: Vec<InitContainer>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// A volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// It is a claim's.
    pub persistent_volume_claim: Option<Empty>,
}

/// An init container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitContainer {
    /// Name.
    pub name: String,
    /// `Always` makes it a sidecar.
    pub restart_policy: Option<String>,
}

/// `status` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Phase.
    pub phase: String,
    /// Reason, where the kubelet gives one.
    pub reason: String,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
    /// Containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// A condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: String,
}

/// A container's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// State.
    pub state: ContainerState,
}

/// A container's state; waiting when neither is given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It waits.
    pub waiting: Option<Waiting>,
    /// It runs.
    pub running: Option<Empty>,
    /// It ended.
    pub terminated: Option<Terminated>,
}

/// A container that waits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

/// An ended container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit code.
    pub exit_code: i32,
    /// Reason.
    pub reason: String,
    /// What the container said, up to 4 KiB.
    pub message: String,
    /// When.
    pub finished_at: Option<jiff::Timestamp>,
}

/// `spec` of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Taints.
    pub taints: Vec<Taint>,
}

/// A taint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Key.
    pub key: String,
}

/// `spec` of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// Access modes.
    pub access_modes: Vec<String>,
    /// Class.
    pub storage_class_name: Option<String>,
}

/// `status` of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    /// Phase.
    pub phase: String,
}

/// Nothing of such a node's pods can run any more.
#[must_use]
pub fn out_of_service(node: &WatchedNode) -> bool {
    node.spec.taints.iter().any(|t| t.key == "node.kubernetes.io/out-of-service")
}

/// What the storage rules need of a claim.
#[must_use]
pub fn claim_facts(claim: &WatchedClaim) -> ClaimFacts {
    ClaimFacts {
        phase: claim.status.phase.clone(),
        access_modes: claim.spec.access_modes.clone(),
        class: claim.spec.storage_class_name.clone(),
        deleting: claim.metadata.deletion_timestamp.is_some(),
    }
}

/// The API resource of pods.
#[must_use]
pub fn pods() -> ApiResource {
    ApiResource::erase::<Pod>(&())
}

/// The API resource of nodes.
#[must_use]
pub fn nodes() -> ApiResource {
    ApiResource::erase::<Node>(&())
}

/// The API resource of claims.
#[must_use]
pub fn claims() -> ApiResource {
    ApiResource::erase::<PersistentVolumeClaim>(&())
}

/// The API resource of Services.
#[must_use]
pub fn services() -> ApiResource {
    ApiResource::erase::<Service>(&())
}

/// Whether volumes of a class wait for their first consumer.
#[must_use]
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}
