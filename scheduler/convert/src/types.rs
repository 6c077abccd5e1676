//! Pods, nodes, gangs, and what selects pods, as the API server sends them, trimmed to the fields that scheduling uses.
//!
//! Decoding is the largest cost of a big cluster's watch: whatever is not named here is skipped by the parser without
//! being stored (managed fields above all). Annotations keep only our own and those of storage, special claims and gangs.

mod owner;
pub mod storage;

pub use owner::OwnerReference;
pub use storage::Volume;

use super::quantity::QuantityMap;
use crate::gangs;
use flowforge_api::gang::{GangPhase, GangSpec};
use flowforge_scheduler_core::devices::EXTENDED_CLAIM_ANNOTATION;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use storage::annotation;

/// Prefix of the annotations that are kept.
const OUR_PREFIX: &str = "flowforge.dev/";
/// Finalizer that keeps an allocated ResourceClaim until it is deallocated.
pub const CLAIM_FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Name.
    pub name: SmolStr,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: SmolStr,
    /// UID.
    pub uid: SmolStr,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// Generation.
    pub generation: i64,
    /// Labels.
    pub labels: BTreeMap<SmolStr, SmolStr>,
    /// Annotations of ours, of storage, of special claims, and of those that declare gangs.
    #[serde(deserialize_with = "our_annotations")]
    pub annotations: BTreeMap<SmolStr, String>,
    /// Creation.
    pub creation_timestamp: Option<Timestamp>,
    /// Whether a deletion timestamp is set.
    #[serde(deserialize_with = "is_present")]
    pub deletion_timestamp: bool,
    /// Whether it has the finalizer that keeps an allocated ResourceClaim.
    #[serde(rename = "finalizers", deserialize_with = "has_claim_finalizer")]
    pub keeps_allocation: bool,
    /// Owners.
    pub owner_references: Vec<OwnerReference>,
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: PodSpec,
    /// Status.
    pub status: PodStatus,
}

/// Spec of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node.
    pub node_name: SmolStr,
    /// Scheduler.
    pub scheduler_name: SmolStr,
    /// Priority.
    pub priority: i32,
    /// `Never` or `PreemptLowerPriority`.
    pub preemption_policy: SmolStr,
    /// Gates; only their number counts.
    pub scheduling_gates: Vec<IgnoredAny>,
    /// How long it may run, in seconds from its start; the kubelet ends it then.
    pub active_deadline_seconds: Option<i64>,
    /// Whether it uses its node's network.
    pub host_network: bool,
    /// Whether it uses its node's users; None means yes.
    pub host_users: Option<bool>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Init containers and sidecars.
    pub init_containers: Vec<Container>,
    /// Ephemeral containers.
    pub ephemeral_containers: Vec<Container>,
    /// Pod-level resources.
    pub resources: ResourceRequirements,
    /// Overhead of the runtime class.
    pub overhead: QuantityMap,
    /// Node selector.
    pub node_selector: BTreeMap<SmolStr, SmolStr>,
    /// Affinity.
    pub affinity: Affinity,
    /// Topology spread constraints.
    pub topology_spread_constraints: Vec<SpreadConstraint>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// ResourceClaims.
    pub resource_claims: Vec<PodClaim>,
    /// The group that it is scheduled with.
    pub scheduling_group: SchedulingGroup,
}

/// The group that a pod is scheduled with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingGroup {
    /// Name of a PodGroup.
    pub pod_group_name: SmolStr,
}

/// A ResourceClaim of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaim {
    /// Name in the pod.
    pub name: SmolStr,
    /// Name of the claim.
    pub resource_claim_name: Option<SmolStr>,
    /// Name of the template that the claim is made from.
    pub resource_claim_template_name: Option<SmolStr>,
}

/// A claim that was made from a template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaimStatus {
    /// Name in the pod.
    pub name: SmolStr,
    /// Name of the claim; None: none is needed.
    pub resource_claim_name: Option<SmolStr>,
}

/// A container or init container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: SmolStr,
    /// Image.
    pub image: SmolStr,
    /// Requests.
    pub resources: ResourceRequirements,
    /// Ports.
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: SmolStr,
    /// What its exit does.
    pub restart_policy_rules: Vec<RestartRule>,
    /// Mounts.
    pub volume_mounts: Vec<VolumeMount>,
}

/// A restart rule; only what it does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RestartRule {
    /// Action.
    pub action: SmolStr,
}

/// A mount; only its options.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    /// Options of the bind mount; only their number counts.
    pub bind_mount_options: Vec<IgnoredAny>,
}

/// Requests of a container or pod; None where the API has no map at all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceRequirements {
    /// Requests.
    pub requests: Option<QuantityMap>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerPort {
    /// Port on the host; 0 for none.
    #[serde(rename = "hostPort")]
    pub host_port: u16,
    /// Address on the host.
    #[serde(rename = "hostIP")]
    pub host_ip: SmolStr,
    /// Protocol.
    pub protocol: SmolStr,
}

/// Affinity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// Affinity to nodes.
    pub node_affinity: NodeAffinity,
    /// Affinity to pods.
    pub pod_affinity: PodAffinity,
    /// Anti-affinity to pods.
    pub pod_anti_affinity: PodAffinity,
}

/// Affinity or anti-affinity to pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodAffinity {
    /// Required terms.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<PodAffinityTerm>,
    /// Preferred terms.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<WeightedPodAffinityTerm>,
}

/// A weighted term.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightedPodAffinityTerm {
    /// Weight.
    pub weight: i32,
    /// Term.
    pub pod_affinity_term: PodAffinityTerm,
}

/// A term. The API server has resolved `matchLabelKeys` and `mismatchLabelKeys` into the selector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAffinityTerm {
    /// Pods; None selects none.
    pub label_selector: Option<LabelSelector>,
    /// Namespaces by name.
    pub namespaces: Vec<SmolStr>,
    /// Namespaces by label; None adds none.
    pub namespace_selector: Option<LabelSelector>,
    /// Label of nodes.
    pub topology_key: SmolStr,
}

/// A label selector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels with one value.
    pub match_labels: BTreeMap<SmolStr, SmolStr>,
    /// Requirements.
    pub match_expressions: Vec<Requirement>,
}

/// A topology spread constraint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpreadConstraint {
    /// Skew.
    pub max_skew: u32,
    /// Label of nodes.
    pub topology_key: SmolStr,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: SmolStr,
    /// Pods; None selects none.
    pub label_selector: Option<LabelSelector>,
    /// Labels whose values the pods share with this one.
    pub match_label_keys: Vec<SmolStr>,
    /// Fewest places.
    pub min_domains: Option<u32>,
    /// `Honor` or `Ignore`.
    pub node_affinity_policy: Option<SmolStr>,
    /// `Honor` or `Ignore`.
    pub node_taints_policy: Option<SmolStr>,
}

/// Affinity to nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity {
    /// Required terms.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    /// Preferred terms.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredTerm>,
}

/// ORed terms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// The terms.
    pub node_selector_terms: Vec<SelectorTerm>,
}

/// A weighted term.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PreferredTerm {
    /// Weight.
    pub weight: i32,
    /// Term.
    pub preference: SelectorTerm,
}

/// ANDed requirements.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectorTerm {
    /// On labels.
    pub match_expressions: Vec<Requirement>,
    /// On fields.
    pub match_fields: Vec<Requirement>,
}

/// A requirement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Requirement {
    /// Key.
    pub key: SmolStr,
    /// Operator.
    pub operator: SmolStr,
    /// Values.
    pub values: Vec<SmolStr>,
}

/// A toleration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Toleration {
    /// Key.
    pub key: SmolStr,
    /// Operator; empty means `Equal`.
    pub operator: SmolStr,
    /// Value.
    pub value: SmolStr,
    /// Effect; empty means all.
    pub effect: SmolStr,
}

/// Status of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Phase.
    pub phase: SmolStr,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
    /// Containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Pod-level allocation.
    pub allocated_resources: Option<QuantityMap>,
    /// Pod-level actual resources.
    pub resources: Option<ResourceRequirements>,
    /// Node that the pod was promised.
    pub nominated_node_name: SmolStr,
    /// When its kubelet took it up.
    pub start_time: Option<Timestamp>,
    /// Claims made from templates.
    pub resource_claim_statuses: Vec<PodClaimStatus>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: SmolStr,
    /// Status.
    pub status: SmolStr,
    /// Reason.
    pub reason: SmolStr,
    /// Message.
    pub message: String,
}

/// Resources of a container as its node reports them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name.
    pub name: SmolStr,
    /// What the kubelet admitted.
    pub allocated_resources: Option<QuantityMap>,
    /// What the runtime enforces.
    pub resources: Option<ResourceRequirements>,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: NodeSpec,
    /// Status.
    pub status: NodeStatus,
}

/// Spec of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Cordoned.
    pub unschedulable: bool,
    /// Taints.
    pub taints: Vec<Taint>,
}

/// A taint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Key.
    pub key: SmolStr,
    /// Value.
    pub value: SmolStr,
    /// Effect.
    pub effect: SmolStr,
}

/// Status of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Allocatable.
    pub allocatable: QuantityMap,
    /// Features that the kubelet declares.
    pub declared_features: BTreeSet<SmolStr>,
    /// Images.
    pub images: Vec<NodeImage>,
}

/// An image of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeImage {
    /// Its names.
    pub names: Vec<SmolStr>,
    /// Its size.
    pub size_bytes: i64,
}

/// A gang.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gang {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: GangSpec,
    /// Status.
    pub status: GangStatus,
}

/// Status of a gang.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GangStatus {
    /// Phase.
    pub phase: Option<GangPhase>,
}

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Metadata.
    pub metadata: Meta,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: SelectorOwnerSpec,
    /// Status.
    pub status: BudgetStatus,
}

/// Status of a PodDisruptionBudget.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    /// Evictions allowed now.
    pub disruptions_allowed: i32,
    /// Pods whose eviction is under way, by name; the times are skipped.
    pub disrupted_pods: BTreeMap<SmolStr, IgnoredAny>,
}

/// A Service or ReplicationController, which select by plain labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LabelOwner {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: LabelOwnerSpec,
}

/// Spec of a Service or ReplicationController.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LabelOwnerSpec {
    /// Labels; None selects nothing.
    pub selector: Option<BTreeMap<SmolStr, SmolStr>>,
}

/// A ReplicaSet or StatefulSet, which select by a label selector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SelectorOwner {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: SelectorOwnerSpec,
}

/// Spec of a ReplicaSet or StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SelectorOwnerSpec {
    /// Selector.
    pub selector: Option<LabelSelector>,
}

/// True when the field is there and not null; its value is skipped.
fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|value| value.is_some())
}

fn has_claim_finalizer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let finalizers = Option::<Vec<SmolStr>>::deserialize(deserializer)?;
    Ok(finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == CLAIM_FINALIZER)))
}

/// Keeps our own annotations and those of storage, special claims and gangs; values of others are skipped without being stored.
fn our_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<SmolStr, String>, D::Error> {
    struct Ours;

    impl<'de> Visitor<'de> for Ours {
        type Value = BTreeMap<SmolStr, String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while let Some(key) = map.next_key::<SmolStr>()? {
                let named = |keys: &[&str]| keys.contains(&key.as_str());
                let kept_too = named(&annotation::KEPT) || named(&gangs::ANNOTATIONS);
                if key.starts_with(OUR_PREFIX) || kept_too || key == EXTENDED_CLAIM_ANNOTATION {
                    kept.insert(key, map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_any(Ours)
}
