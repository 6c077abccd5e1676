//! Facts about devices, as `convert` hands them to the core: slices of pools, classes, claims and taint rules of
//! `resource.k8s.io/v1`. These hold what allocation looks at; what it only passes on stays JSON.

use super::extended::special_uid;
use super::inside::HardwareInfo;
use crate::model::NodeSelectorTerm;
use crate::preparation::ClaimName;
use flowforge_scheduler_cel::{Attribute, Quantity};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Consumers that may reserve one claim (`ResourceClaimReservedForMaxSize`).
const MAX_CONSUMERS: usize = 256;

/// Amounts by qualified name.
pub type Amounts = BTreeMap<SmolStr, Quantity>;

/// Which nodes can reach a slice or a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub enum Reach {
    /// The node of this name.
    Node(SmolStr),
    /// Every node.
    All,
    /// Nodes that match one of the terms.
    Selector(Vec<NodeSelectorTerm>),
    /// Each device of the slice says so itself.
    PerDevice,
    /// Nothing that is known here is set.
    #[default]
    Unknown,
}

/// A ResourceSlice.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SliceInfo {
    /// `metadata.name`.
    pub name: SmolStr,
    /// Driver.
    pub driver: SmolStr,
    /// Name of the pool.
    pub pool: SmolStr,
    /// Generation of the pool; only slices of the newest count.
    pub generation: i64,
    /// How many slices the pool has at this generation.
    pub slices_in_pool: i64,
    /// Nodes.
    pub reach: Reach,
    /// Devices, in the driver's order.
    pub devices: Vec<DeviceInfo>,
    /// Counters that devices of the pool share, by set and name.
    pub counter_sets: Vec<(SmolStr, Amounts)>,
    /// Whether a device uses a feature that kube-scheduler has off by default (compatibility groups): the slice is ignored.
    pub ignored: bool,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceInfo {
    /// Name in its pool.
    pub name: SmolStr,
    /// Nodes, where the slice leaves it to the device.
    pub reach: Reach,
    /// Attributes by qualified name; without a domain it is the driver's.
    pub attributes: BTreeMap<SmolStr, Attribute>,
    /// Capacities by qualified name.
    pub capacity: BTreeMap<SmolStr, Capacity>,
    /// What it takes of the pool's counters, by set.
    pub consumes: Vec<(SmolStr, Amounts)>,
    /// Its own taints.
    pub taints: Vec<DeviceTaint>,
    /// Whether several claims may hold it, each a part of its capacity.
    pub allow_multiple: bool,
    /// Whether a claim that holds it is tied to the node.
    pub binds_to_node: bool,
    /// Conditions to wait for before a pod is bound; None: the field is absent.
    pub binding_conditions: Option<Vec<SmolStr>>,
    /// Conditions that end the wait with a failure.
    pub binding_failure_conditions: Vec<SmolStr>,
}

/// A capacity of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Capacity {
    /// How much there is.
    pub value: Quantity,
    /// How requests for it are rounded.
    pub policy: Option<CapacityPolicy>,
}

/// How requests for a capacity are rounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CapacityPolicy {
    /// What a request that says nothing takes.
    pub default: Option<Quantity>,
    /// Amounts that can be taken, ascending.
    pub values: Option<Vec<Quantity>>,
    /// Least, most and step.
    pub range: Option<CapacityRange>,
}

/// A range of amounts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CapacityRange {
    /// Least.
    pub min: Option<Quantity>,
    /// Most.
    pub max: Option<Quantity>,
    /// From the least upwards.
    pub step: Option<Quantity>,
}

/// Effect of a device's taint.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum DeviceEffect {
    /// Only claims that tolerate it get the device.
    NoSchedule,
    /// The same, and pods that use it are evicted.
    NoExecute,
    /// Nothing, or nothing known here.
    None,
}

/// A taint of a device.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceTaint {
    /// Key.
    pub key: SmolStr,
    /// Value.
    pub value: SmolStr,
    /// Effect.
    pub effect: DeviceEffect,
}

/// A toleration in a request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceToleration {
    /// Key; empty with `Exists` tolerates every taint.
    pub key: SmolStr,
    /// `Exists` or `Equal`; None: an operator that is not known here, which tolerates nothing.
    pub exists: Option<bool>,
    /// Value, for `Equal`.
    pub value: SmolStr,
    /// Effect; None tolerates every effect.
    pub effect: Option<DeviceEffect>,
}

impl DeviceToleration {
    pub(super) fn tolerates(&self, taint: &DeviceTaint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.exists.is_some_and(|exists| exists || self.value == taint.value)
    }
}

/// A DeviceTaintRule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaintRuleInfo {
    /// `metadata.name`.
    pub name: SmolStr,
    /// Driver, pool and device that it is about; None of a field: any. None as a whole: no device.
    pub selector: Option<[Option<SmolStr>; 3]>,
    /// The taint.
    pub taint: DeviceTaint,
}

/// A DeviceClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassInfo {
    /// `metadata.name`.
    pub name: SmolStr,
    /// CEL of every selector; None: a kind that is not known here.
    pub selectors: Vec<Option<SmolStr>>,
    /// Configuration for the driver, passed on.
    pub config: Vec<Value>,
    /// `spec.extendedResourceName`.
    pub extended_resource: Option<SmolStr>,
    /// Creation, in milliseconds since the epoch.
    pub created_at_ms: u64,
}

/// A ResourceClaim.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClaimInfo {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID.
    pub uid: SmolStr,
    /// `metadata.resourceVersion`.
    pub resource_version: SmolStr,
    /// Whether a deletion timestamp is set.
    pub deleting: bool,
    /// Whether it has the finalizer that keeps an allocated claim.
    pub finalized: bool,
    /// UID of the owner with `controller: true`.
    pub controller: Option<SmolStr>,
    /// Whether a scheduler made it for extended resources of its controller, a pod.
    pub special: bool,
    /// Requests.
    pub requests: Vec<Request>,
    /// Constraints over the devices of the claim.
    pub constraints: Vec<Constraint>,
    /// Configuration for drivers with the requests that it is for, passed on.
    pub config: Vec<(Vec<SmolStr>, Value)>,
    /// What is allocated.
    pub allocation: Option<Allocation>,
    /// UIDs of those that it is reserved for.
    pub reserved_for: Vec<SmolStr>,
    /// Conditions of its devices that are true, by driver, pool and device.
    #[serde(serialize_with = "by_path")]
    pub conditions: BTreeMap<[SmolStr; 3], Vec<SmolStr>>,
}

/// As `driver/pool/device`: in JSON every key is a text.
fn by_path<S: Serializer>(of: &BTreeMap<[SmolStr; 3], Vec<SmolStr>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(of.iter().map(|(id, conditions)| (id.join("/"), conditions)))
}

impl ClaimInfo {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its identity.
    pub(crate) fn claim_name(&self) -> ClaimName {
        ClaimName { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// The same, and for a special claim the one that it was prepared under.
    pub(crate) fn identities(&self) -> Vec<ClaimName> {
        let own = self.claim_name();
        let prepared = self.special_for().map(|pod| ClaimName { uid: special_uid(pod), ..own.clone() });
        prepared.into_iter().chain([own]).collect()
    }

    /// Whether it is reserved for a consumer, by UID.
    pub(super) fn is_reserved_for(&self, uid: &SmolStr) -> bool {
        self.reserved_for.contains(uid)
    }

    /// The pod, by UID, for whose extended resources a scheduler made it.
    pub(crate) fn special_for(&self) -> Option<&SmolStr> {
        self.controller.as_ref().filter(|_| self.special)
    }

    /// Whether one more consumer may reserve it, or this one has.
    pub(super) fn may_reserve(&self, uid: &SmolStr) -> bool {
        self.reserved_for.len() < MAX_CONSUMERS || self.is_reserved_for(uid)
    }
}

/// A request of a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// Name.
    pub name: SmolStr,
    /// What is asked for.
    pub kind: RequestKind,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum RequestKind {
    /// This.
    Exactly(Ask),
    /// The first of these that can be had: name and what is asked.
    FirstAvailable(Vec<(SmolStr, Ask)>),
    /// Something that is not known here.
    Unknown,
}

/// How many devices.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum Count {
    /// This many.
    Exactly(i64),
    /// All that match.
    All,
    /// A mode that is not known here.
    Unknown(SmolStr),
}

/// One way to satisfy a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ask {
    /// DeviceClass.
    pub class: SmolStr,
    /// CEL of every selector; None: a kind that is not known here.
    pub selectors: Vec<Option<SmolStr>>,
    /// How many.
    pub count: Count,
    /// Whether the devices are used by an administrator, beside those who hold them.
    pub admin: bool,
    /// Tolerations.
    pub tolerations: Vec<DeviceToleration>,
    /// The same, passed on.
    pub written_tolerations: Vec<Value>,
    /// Capacity that is asked of each device.
    pub capacity: Amounts,
    /// Whether it uses derived attributes, which kube-scheduler has off by default.
    pub derived: bool,
}

/// A constraint over the devices of a claim: of all requests, or of these.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Constraint {
    /// All have the same value of the attribute.
    Match(Vec<SmolStr>, SmolStr),
    /// No two have the same value.
    Distinct(Vec<SmolStr>, SmolStr),
    /// Something that is not known here.
    Unknown,
}

/// An allocation of a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Allocation {
    /// Devices.
    pub results: Vec<AllocatedDevice>,
    /// Nodes that can use them; None: every node.
    pub node_selector: Option<Vec<NodeSelectorTerm>>,
    /// Configuration for drivers, passed on.
    pub config: Vec<Value>,
}

/// A device in an allocation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AllocatedDevice {
    /// `request` or `request/alternative`.
    pub request: SmolStr,
    /// Driver, pool and device.
    pub id: [SmolStr; 3],
    /// Whether it is for an administrator, which takes nothing away from others.
    pub admin: bool,
    /// Tells shares of one device apart; None: the device is held alone.
    pub share: Option<SmolStr>,
    /// What the share takes of the device.
    pub consumed: Option<Amounts>,
    /// Conditions to wait for.
    pub binding_conditions: Vec<SmolStr>,
    /// Conditions that end the wait with a failure.
    pub binding_failure_conditions: Vec<SmolStr>,
    /// Tolerations of the request, passed on.
    pub tolerations: Vec<Value>,
}

/// A claim of a pod.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PodClaim {
    /// Name in the pod.
    pub name: SmolStr,
    /// Which claim it is.
    pub source: ClaimSource,
}

/// Which claim a pod's claim is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ClaimSource {
    /// The claim of this name.
    Named(SmolStr),
    /// One made from a template; None: not made yet. The inner None: none is needed.
    Template(Option<Option<SmolStr>>),
    /// Something that is not known here.
    Unknown,
}

/// What became known of devices.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceFact {
    /// A slice was added or changed.
    Slice(SliceInfo),
    /// A slice went away.
    SliceGone(SmolStr),
    /// A class was added or changed.
    Class(ClassInfo),
    /// A class went away.
    ClassGone(SmolStr),
    /// A claim was added or changed.
    Claim(ClaimInfo),
    /// A claim went away: namespace and name.
    ClaimGone(SmolStr, SmolStr),
    /// A taint rule was added or changed.
    Rule(TaintRuleInfo),
    /// A taint rule went away.
    RuleGone(SmolStr),
    /// What is inside a node was reported.
    Hardware(HardwareInfo),
    /// Nothing is reported of a node any more.
    HardwareGone(SmolStr),
    /// A list came: what it does not name is gone.
    Relisted(DeviceList),
}

/// Names in a list.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceList {
    /// Of slices.
    Slices(Vec<SmolStr>),
    /// Of classes.
    Classes(Vec<SmolStr>),
    /// Of claims: namespace and name.
    Claims(Vec<(SmolStr, SmolStr)>),
    /// Of taint rules.
    Rules(Vec<SmolStr>),
    /// Of nodes that something is reported of.
    Hardware(Vec<SmolStr>),
}
