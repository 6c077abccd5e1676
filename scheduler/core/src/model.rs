//! Plain facts that `convert` hands to the core: what a pod asks for, what a node has, what a gang wants.
//!
//! These hold only the fields that scheduling uses. Quantities are already integers: CPU in millicores (rounded up),
//! everything else in base units (bytes, counts; rounded up), as kube-scheduler's `framework.Resource` holds them.

use crate::devices::{ContainerAsk, PodClaim};
use crate::relations::{PodAffinity, SpreadConstraint};
use crate::volumes::PodVolume;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds; wall or monotonic is the caller's choice, but one clock for all calls.
pub type Millis = u64;

/// Identity of a pod.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Ord, PartialOrd, Serialize, Deserialize)]
pub struct PodKey {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID; a pod recreated under the same name is another pod.
    pub uid: SmolStr,
}

/// Amounts by resource name: `cpu` in millicores, all others in base units.
pub type Resources = BTreeMap<SmolStr, i64>;

/// Name of the CPU resource.
pub const CPU: &str = "cpu";
/// Name of the memory resource.
pub const MEMORY: &str = "memory";
/// Name of the ephemeral-storage resource.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// How names of huge-page resources begin.
pub const HUGE_PAGES: &str = "hugepages-";
/// Name of the pod-count resource.
pub const PODS: &str = "pods";

/// Phase of a pod as Kubernetes reports it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not started.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly, or the kubelet refused the pod.
    Failed,
    /// The node does not answer.
    Unknown,
}

impl PodPhase {
    /// Whether the pod no longer holds resources.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A pod, of ours or foreign.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodInfo {
    /// Identity.
    pub key: PodKey,
    /// `metadata.resourceVersion`, the Binding's precondition.
    pub resource_version: SmolStr,
    /// Whether `spec.schedulerName` is one of ours.
    pub ours: bool,
    /// `spec.schedulerName`, as the reporting profile.
    pub scheduler_name: SmolStr,
    /// `spec.priority`, 0 when absent.
    pub priority: i32,
    /// `spec.preemptionPolicy: Never`: nobody is evicted for it.
    pub never_preempts: bool,
    /// `status.nominatedNodeName` as it was seen, empty strings are None.
    pub nominated_node: Option<SmolStr>,
    /// `status.startTime`, in milliseconds since the epoch; None has not started.
    pub started_at_ms: Option<Millis>,
    /// Whether a scheduler has marked it for eviction (DisruptionTarget=True, PreemptionByScheduler).
    pub preempted: bool,
    /// Creation, in milliseconds since the epoch.
    pub created_at_ms: Millis,
    /// `spec.nodeName`, empty strings are None.
    pub node_name: Option<SmolStr>,
    /// Phase.
    pub phase: PodPhase,
    /// Whether a deletion timestamp is set.
    pub deleting: bool,
    /// Whether `spec.schedulingGates` is not empty.
    pub gated: bool,
    /// Labels.
    pub labels: BTreeMap<SmolStr, SmolStr>,
    /// What it asks for, as NodeResourcesFit computes it (init, sidecars, pod-level, overhead).
    pub requests: Resources,
    /// CPU (millicores) and memory (bytes) for scoring, with 100m / 200 MiB where a container asks for nothing.
    pub scoring_requests: (i64, i64),
    /// The same while the pod looks for a place, where upstream counts differently (pod-level requests).
    pub asking_requests: Option<(i64, i64)>,
    /// Huge pages that it counts for in scores while it looks for a place, where pod-level requests name any.
    pub asking_huge_pages: Option<Resources>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<SmolStr, SmolStr>,
    /// Required node affinity: ORed terms; None when absent. An empty list matches nothing.
    pub required_node_affinity: Option<Vec<NodeSelectorTerm>>,
    /// Preferred node affinity: weight 1..=100 and term.
    pub preferred_node_affinity: Vec<(i32, NodeSelectorTerm)>,
    /// Affinity and anti-affinity to pods.
    pub affinity: PodAffinity,
    /// Topology spread constraints.
    pub spread: Vec<SpreadConstraint>,
    /// Images of all containers and of image volumes, as nodes would list them; an image that is used twice counts twice.
    pub images: Vec<SmolStr>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Features that a node must declare.
    pub required_features: BTreeSet<SmolStr>,
    /// Host ports of containers and restartable init containers.
    pub host_ports: Vec<HostPort>,
    /// Gang membership.
    pub gang: Option<GangMembership>,
    /// Owner with `controller: true`.
    pub owner: Option<Owner>,
    /// Annotation `flowforge.dev/intent`.
    pub intent: Option<SmolStr>,
    /// Annotation `flowforge.dev/fence`.
    pub fence: Option<SmolStr>,
    /// The `PodScheduled` condition as it stands, so that unchanged ones are not written again: (reason, message).
    pub scheduled_condition: Option<(SmolStr, String)>,
    /// ResourceClaims.
    pub resource_claims: Vec<PodClaim>,
    /// Containers that ask for resources that a DeviceClass may stand for.
    pub containers: Vec<ContainerAsk>,
    /// How long it runs at most, as it declares (the shorter of its deadline and its annotation); Err holds the unusable text.
    #[serde(default)]
    pub expected: Option<Result<Millis, SmolStr>>,
    /// Volumes that scheduling has anything to do with, in the order of the spec. They never change.
    pub volumes: Vec<PodVolume>,
}

/// Which gang a pod belongs to and as what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangMembership {
    /// Name of the gang, in the pod's namespace; `kind.group/name` where somebody else declares it.
    pub name: SmolStr,
    /// UID of the `Gang` object that the pod was made for; None in the plain form.
    pub uid: Option<SmolStr>,
    /// Size by annotation, the plain form's; Err holds the unusable text.
    pub size: Option<Result<u32, SmolStr>>,
    /// Role; `worker` when absent.
    pub role: SmolStr,
    /// Rank, where known.
    pub rank: Option<u32>,
    /// Required topology level by annotation (plain form); a level's name, or a node label that one reads.
    pub topology_required: Option<SmolStr>,
    /// Preferred topology levels by annotation (plain form).
    pub topology_preferred: Vec<SmolStr>,
}

/// Controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `apiVersion`.
    pub api_version: SmolStr,
    /// `kind`.
    pub kind: SmolStr,
    /// `name`.
    pub name: SmolStr,
    /// `uid`.
    pub uid: SmolStr,
}

/// One term of a node selector: all requirements must hold; an empty term matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeSelectorTerm {
    /// On labels.
    pub match_expressions: Vec<NodeRequirement>,
    /// On fields (`metadata.name`).
    pub match_fields: Vec<NodeRequirement>,
}

/// One requirement of a node selector term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRequirement {
    /// Label key or field path.
    pub key: SmolStr,
    /// Operator.
    pub operator: NodeOperator,
    /// Values.
    pub values: Vec<SmolStr>,
}

/// Operator of a node requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodeOperator {
    /// Value is one of.
    In,
    /// Value is none of, or the key is absent.
    NotIn,
    /// Key is present.
    Exists,
    /// Key is absent.
    DoesNotExist,
    /// Integer value greater than.
    Gt,
    /// Integer value less than.
    Lt,
}

/// Effect of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// Pods that do not tolerate it are not scheduled.
    NoSchedule,
    /// Pods that do not tolerate it are scheduled elsewhere if possible.
    PreferNoSchedule,
    /// Pods that do not tolerate it are not scheduled, and evicted.
    NoExecute,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: SmolStr,
    /// Value.
    pub value: SmolStr,
    /// Effect.
    pub effect: TaintEffect,
}

/// A toleration of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// Key; empty with `Exists` tolerates every taint.
    pub key: SmolStr,
    /// True: `Exists`; false: `Equal`.
    pub exists: bool,
    /// Value, for `Equal`.
    pub value: SmolStr,
    /// Effect; None tolerates every effect.
    pub effect: Option<TaintEffect>,
}

/// A host port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// Address; empty means 0.0.0.0.
    pub ip: SmolStr,
    /// `TCP`, `UDP` or `SCTP`; empty means TCP.
    pub protocol: SmolStr,
    /// Port.
    pub port: u16,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Name.
    pub name: SmolStr,
    /// UID; a node recreated under the same name is another node.
    pub uid: SmolStr,
    /// Labels.
    pub labels: BTreeMap<SmolStr, SmolStr>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Allocatable, without resources of which there is nothing.
    pub allocatable: Resources,
    /// Resources that it names and has nothing of.
    pub without: BTreeSet<SmolStr>,
    /// Images that it has, each under every name, and their sizes in bytes.
    pub images: Vec<(SmolStr, i64)>,
    /// Features that its kubelet declares.
    pub declared_features: BTreeSet<SmolStr>,
}

/// What a `Gang` object asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangInfo {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID.
    pub uid: SmolStr,
    /// Members that must be live together.
    pub min_member: u32,
    /// Roles: name, replicas, minimum.
    pub roles: Vec<GangRoleInfo>,
    /// Required topology level: its name, or a node label that it reads.
    pub topology_required: Option<SmolStr>,
    /// Preferred topology levels, best first.
    pub topology_preferred: Vec<SmolStr>,
    /// Where parts of the gang may stand.
    pub layout: LayoutInfo,
    /// Whether the gang ended (phase Succeeded or Failed) or is being deleted.
    pub closed: bool,
    /// UID of the gang whose freed resources are kept for this one.
    pub replaces: Option<SmolStr>,
    /// How long they are kept.
    pub hold_ms: Millis,
    /// What only gangs have that somebody else declares.
    pub terms: Terms,
}

impl GangInfo {
    /// Whether it is declared by an object of somebody else: its name is then `kind.group/name`, which no `Gang` can have.
    #[must_use]
    pub fn is_of_others(name: &str) -> bool {
        name.contains('/')
    }
}

/// What gangs may ask for beyond ours when somebody else declares them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What is wrong with the declaration, and what to change; nobody is placed for it meanwhile.
    pub invalid: Option<String>,
    /// Why nobody more is placed for it now, although nothing is wrong with it.
    pub held: Option<String>,
    /// Priority that every member must have.
    pub priority: Option<i32>,
    /// Its members may be evicted one by one; else they go together.
    pub parts_singly: bool,
}

/// One role of a gang.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangRoleInfo {
    /// Name. An empty one takes the members whose role no other has; it has no minimum of its own.
    pub name: SmolStr,
    /// Pods of the role; [`GangRoleInfo::UNLIMITED`] where the declaration does not say how many will come.
    pub replicas: u32,
    /// Pods of the role that must be live.
    pub min: u32,
}

impl GangRoleInfo {
    /// Nobody says how many pods there will be: none is surplus, and none beyond the minimum is waited for.
    pub const UNLIMITED: u32 = u32::MAX;
}

/// Where parts of a gang may stand, beside what counts for all members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutInfo {
    /// Segments of consecutive ranks.
    pub segments: Option<SegmentsInfo>,
    /// Failure domains.
    pub spread: Option<SpreadInfo>,
    /// Levels of single roles.
    pub roles: Vec<RoleTopologyInfo>,
    /// Roles that share one domain.
    pub colocate: Vec<RoleSetInfo>,
    /// Roles that share none.
    pub separate: Vec<RoleSetInfo>,
}

/// Segments of consecutive ranks, each in one domain of a level; every role is cut by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsInfo {
    /// Most members of a segment.
    pub size: u32,
    /// Level.
    pub level: SmolStr,
    /// Whether they differ by one member at most.
    pub balanced: bool,
}

/// At least so many domains of a level, none with more than its share of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpreadInfo {
    /// Level.
    pub level: SmolStr,
    /// Domains.
    pub min_domains: u32,
}

/// Where the members of a role may stand relative to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleTopologyInfo {
    /// Name of the role.
    pub role: SmolStr,
    /// Place of the role among the gang's roles, for messages.
    pub index: usize,
    /// Level one domain of which holds all of them.
    pub required: Option<SmolStr>,
    /// Preferred levels, best first.
    pub preferred: Vec<SmolStr>,
}

/// Some roles, and a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSetInfo {
    /// Level.
    pub level: SmolStr,
    /// Names of the roles.
    pub roles: Vec<SmolStr>,
}

/// An ordered list of topology levels, widest first: (level name, node label keys, first present wins).
pub type TopologyLevels = Vec<flowforge_topology_core::LevelSpec>;
