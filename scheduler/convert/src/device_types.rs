//! Objects of `resource.k8s.io/v1` as the API server sends them, trimmed to what allocation looks at.

use super::types::{Meta, NodeSelector};
use flowforge_scheduler_core::devices::Quantity;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// An object with metadata and a spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object<S: Default> {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: S,
}

/// A ResourceSlice.
pub type ResourceSlice = Object<SliceSpec>;
/// A DeviceClass.
pub type DeviceClass = Object<ClassSpec>;
/// A DeviceTaintRule.
pub type DeviceTaintRule = Object<RuleSpec>;

/// An exact amount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount(pub Quantity);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Quantity::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Spec of a slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceSpec {
    /// Driver.
    pub driver: SmolStr,
    /// Pool.
    pub pool: Pool,
    /// Node.
    pub node_name: Option<SmolStr>,
    /// Nodes.
    pub node_selector: Option<NodeSelector>,
    /// Every node.
    pub all_nodes: Option<bool>,
    /// Each device says so itself.
    pub per_device_node_selection: Option<bool>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Counters.
    pub shared_counters: Vec<CounterSet>,
}

/// A pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pool {
    /// Name.
    pub name: SmolStr,
    /// Generation.
    pub generation: i64,
    /// Slices of this generation.
    pub resource_slice_count: i64,
}

/// A set of counters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CounterSet {
    /// Name.
    pub name: SmolStr,
    /// Counters.
    pub counters: BTreeMap<SmolStr, Counter>,
}

/// A counter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counter {
    /// Value.
    pub value: Amount,
}

/// A device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Name.
    pub name: SmolStr,
    /// Attributes.
    pub attributes: BTreeMap<SmolStr, Attribute>,
    /// Capacities.
    pub capacity: BTreeMap<SmolStr, Capacity>,
    /// Counters that it takes.
    pub consumes_counters: Vec<Consumption>,
    /// Node.
    pub node_name: Option<SmolStr>,
    /// Nodes.
    pub node_selector: Option<NodeSelector>,
    /// Every node.
    pub all_nodes: Option<bool>,
    /// Taints.
    pub taints: Vec<DeviceTaint>,
    /// Ties its claim to the node.
    pub binds_to_node: bool,
    /// Conditions to wait for.
    pub binding_conditions: Option<Vec<SmolStr>>,
    /// Conditions that fail.
    pub binding_failure_conditions: Vec<SmolStr>,
    /// May be shared.
    pub allow_multiple_allocations: bool,
}

/// An attribute: one of its fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attribute {
    /// Whole number.
    pub int: Option<i64>,
    /// Truth value.
    pub bool: Option<bool>,
    /// Text.
    pub string: Option<SmolStr>,
    /// Semantic version.
    pub version: Option<SmolStr>,
    /// Whole numbers.
    pub ints: Option<Vec<i64>>,
    /// Truth values.
    pub bools: Option<Vec<bool>>,
    /// Texts.
    pub strings: Option<Vec<SmolStr>>,
    /// Semantic versions.
    pub versions: Option<Vec<SmolStr>>,
}

/// A capacity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// How much.
    pub value: Amount,
    /// How requests are rounded.
    pub request_policy: Option<RequestPolicy>,
}

/// How requests are rounded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestPolicy {
    /// Default.
    pub default: Option<Amount>,
    /// Amounts that can be taken.
    pub valid_values: Option<Vec<Amount>>,
    /// Range of amounts.
    pub valid_range: Option<ValidRange>,
}

/// A range of amounts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ValidRange {
    /// Least.
    pub min: Option<Amount>,
    /// Most.
    pub max: Option<Amount>,
    /// Step.
    pub step: Option<Amount>,
}

/// What a device takes of a counter set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Consumption {
    /// Name of the set.
    pub counter_set: SmolStr,
    /// Counters.
    pub counters: BTreeMap<SmolStr, Counter>,
    /// Groups that exclude each other.
    pub compatibility_groups: Vec<Value>,
}

/// A taint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceTaint {
    /// Key.
    pub key: SmolStr,
    /// Value.
    pub value: SmolStr,
    /// Effect.
    pub effect: SmolStr,
}

/// Spec of a class.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassSpec {
    /// Selectors.
    pub selectors: Vec<Selector>,
    /// Configuration, passed on.
    pub config: Vec<Value>,
    /// The extended resource that it stands for.
    pub extended_resource_name: Option<SmolStr>,
}

/// A selector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Selector {
    /// CEL.
    pub cel: Option<Cel>,
}

/// A CEL expression.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cel {
    /// The expression.
    pub expression: SmolStr,
}

/// Spec of a taint rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSpec {
    /// Devices.
    pub device_selector: Option<RuleSelector>,
    /// Taint.
    pub taint: DeviceTaint,
}

/// Devices of a taint rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RuleSelector {
    /// Driver.
    pub driver: Option<SmolStr>,
    /// Pool.
    pub pool: Option<SmolStr>,
    /// Device.
    pub device: Option<SmolStr>,
}

/// A ResourceClaim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceClaim {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: ClaimSpec,
    /// Status.
    pub status: ClaimStatus,
}

/// Spec of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimSpec {
    /// Devices.
    pub devices: ClaimDevices,
}

/// Devices of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimDevices {
    /// Requests.
    pub requests: Vec<Request>,
    /// Constraints.
    pub constraints: Vec<Constraint>,
    /// Configuration.
    pub config: Vec<Value>,
}

/// A request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Name.
    pub name: SmolStr,
    /// One thing.
    pub exactly: Option<Ask>,
    /// The first of these.
    pub first_available: Vec<Ask>,
}

/// What is asked for; an alternative has a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ask {
    /// Name.
    pub name: SmolStr,
    /// Class.
    pub device_class_name: SmolStr,
    /// Selectors.
    pub selectors: Vec<Selector>,
    /// Mode.
    pub allocation_mode: SmolStr,
    /// Count.
    pub count: i64,
    /// For an administrator.
    pub admin_access: Option<bool>,
    /// Tolerations.
    pub tolerations: Vec<Value>,
    /// Capacity.
    pub capacity: AskedCapacity,
    /// Derived attributes.
    pub derived_attributes: Vec<Value>,
}

/// Capacity that is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AskedCapacity {
    /// By name.
    pub requests: BTreeMap<SmolStr, Amount>,
}

/// A toleration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceToleration {
    /// Key.
    pub key: SmolStr,
    /// Operator.
    pub operator: SmolStr,
    /// Value.
    pub value: SmolStr,
    /// Effect.
    pub effect: SmolStr,
}

/// A constraint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Constraint {
    /// Requests.
    pub requests: Vec<SmolStr>,
    /// Same value.
    pub match_attribute: Option<SmolStr>,
    /// Different values.
    pub distinct_attribute: Option<SmolStr>,
}

/// Status of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    /// Allocation.
    pub allocation: Option<Allocation>,
    /// Who has reserved it.
    pub reserved_for: Vec<Consumer>,
    /// Its devices as drivers report them.
    pub devices: Vec<DeviceStatus>,
}

/// Someone who uses a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Consumer {
    /// UID.
    pub uid: SmolStr,
}

/// An allocation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allocation {
    /// Devices.
    pub devices: AllocatedDevices,
    /// Nodes.
    pub node_selector: Option<NodeSelector>,
}

/// Devices of an allocation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AllocatedDevices {
    /// Devices.
    pub results: Vec<AllocatedDevice>,
}

/// A device of an allocation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllocatedDevice {
    /// Request.
    pub request: SmolStr,
    /// Driver.
    pub driver: SmolStr,
    /// Pool.
    pub pool: SmolStr,
    /// Device.
    pub device: SmolStr,
    /// For an administrator.
    pub admin_access: Option<bool>,
    /// Share.
    #[serde(rename = "shareID")]
    pub share_id: Option<SmolStr>,
    /// What the share takes.
    pub consumed_capacity: Option<BTreeMap<SmolStr, Amount>>,
    /// Conditions to wait for.
    pub binding_conditions: Vec<SmolStr>,
    /// Conditions that fail.
    pub binding_failure_conditions: Vec<SmolStr>,
}

/// A device as its driver reports it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceStatus {
    /// Driver.
    pub driver: SmolStr,
    /// Pool.
    pub pool: SmolStr,
    /// Device.
    pub device: SmolStr,
    /// Conditions.
    pub conditions: Vec<super::types::PodCondition>,
}
