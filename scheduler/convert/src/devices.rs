//! Objects of `resource.k8s.io/v1` into facts about devices.

use super::device_types as api;
use super::types::{NodeSelector, PodSpec};
use super::{term, types};
use flowforge_scheduler_core::devices::{
    AllocatedDevice, Allocation, Amounts, Ask, Attribute, Capacity, CapacityPolicy, CapacityRange, ClaimInfo,
    ClaimSource, ClassInfo, Constraint, ContainerAsk, Count, DeviceEffect, DeviceInfo, DeviceTaint, DeviceToleration,
    EXTENDED_CLAIM_ANNOTATION, PodClaim, Quantity, Reach, Request, RequestKind, SliceInfo, TaintRuleInfo,
    may_be_devices,
};
use serde::Deserialize as _;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Converts a slice.
#[must_use]
pub fn slice(of: &api::ResourceSlice) -> SliceInfo {
    let spec = &of.spec;
    let groups = |device: &api::Device| device.consumes_counters.iter().any(|c| !c.compatibility_groups.is_empty());
    let reach = match reach(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref()) {
        Reach::Unknown if spec.per_device_node_selection == Some(true) => Reach::PerDevice,
        reach => reach,
    };
    SliceInfo {
        name: of.metadata.name.clone(),
        driver: spec.driver.clone(),
        pool: spec.pool.name.clone(),
        generation: spec.pool.generation,
        slices_in_pool: spec.pool.resource_slice_count,
        reach,
        devices: spec.devices.iter().map(device).collect(),
        counter_sets: spec.shared_counters.iter().map(|set| (set.name.clone(), counters(&set.counters))).collect(),
        ignored: spec.devices.iter().any(groups),
    }
}

fn reach(node: Option<&SmolStr>, all: Option<bool>, selector: Option<&NodeSelector>) -> Reach {
    match (node.filter(|name| !name.is_empty()), all, selector) {
        (Some(name), ..) => Reach::Node(name.clone()),
        (None, Some(true), _) => Reach::All,
        (None, _, Some(selector)) => Reach::Selector(terms(selector)),
        _ => Reach::Unknown,
    }
}

fn terms(selector: &NodeSelector) -> Vec<flowforge_scheduler_core::model::NodeSelectorTerm> {
    selector.node_selector_terms.iter().map(term).collect()
}

fn counters(of: &BTreeMap<SmolStr, api::Counter>) -> Amounts {
    of.iter().map(|(name, counter)| (name.clone(), counter.value.0)).collect()
}

fn device(of: &api::Device) -> DeviceInfo {
    DeviceInfo {
        name: of.name.clone(),
        reach: reach(of.node_name.as_ref(), of.all_nodes, of.node_selector.as_ref()),
        attributes: of.attributes.iter().map(|(name, value)| (name.clone(), attribute(value))).collect(),
        capacity: of.capacity.iter().map(|(name, value)| (name.clone(), capacity(value))).collect(),
        consumes: of.consumes_counters.iter().map(|c| (c.counter_set.clone(), counters(&c.counters))).collect(),
        taints: of.taints.iter().map(taint).collect(),
        allow_multiple: of.allow_multiple_allocations,
        binds_to_node: of.binds_to_node,
        binding_conditions: of.binding_conditions.clone(),
        binding_failure_conditions: of.binding_failure_conditions.clone(),
    }
}

fn attribute(of: &api::Attribute) -> Attribute {
    fn list<T: Clone>(all: &[T], one: fn(T) -> Attribute) -> Attribute {
        Attribute::List(all.iter().cloned().map(one).collect())
    }
    match of {
        api::Attribute { ints: Some(all), .. } => list(all, Attribute::Int),
        api::Attribute { bools: Some(all), .. } => list(all, Attribute::Bool),
        api::Attribute { strings: Some(all), .. } => list(all, Attribute::String),
        api::Attribute { versions: Some(all), .. } => list(all, Attribute::Version),
        api::Attribute { int: Some(value), .. } => Attribute::Int(*value),
        api::Attribute { bool: Some(value), .. } => Attribute::Bool(*value),
        api::Attribute { string: Some(value), .. } => Attribute::String(value.clone()),
        api::Attribute { version: Some(value), .. } => Attribute::Version(value.clone()),
        _ => Attribute::Unknown,
    }
}

fn capacity(of: &api::Capacity) -> Capacity {
    let amount = |of: Option<api::Amount>| of.map(|amount| amount.0);
    let range =
        |of: &api::ValidRange| CapacityRange { min: amount(of.min), max: amount(of.max), step: amount(of.step) };
    let policy = |of: &api::RequestPolicy| CapacityPolicy {
        default: amount(of.default),
        values: of.valid_values.as_ref().map(|all| all.iter().map(|amount| amount.0).collect()),
        range: of.valid_range.as_ref().map(range),
    };
    Capacity { value: of.value.0, policy: of.request_policy.as_ref().map(policy) }
}

fn effect(of: &str) -> DeviceEffect {
    match of {
        "NoSchedule" => DeviceEffect::NoSchedule,
        "NoExecute" => DeviceEffect::NoExecute,
        _ => DeviceEffect::None,
    }
}

fn taint(of: &api::DeviceTaint) -> DeviceTaint {
    DeviceTaint { key: of.key.clone(), value: of.value.clone(), effect: effect(&of.effect) }
}

/// Converts a taint rule.
#[must_use]
pub fn taint_rule(of: &api::DeviceTaintRule) -> TaintRuleInfo {
    let selector = of.spec.device_selector.as_ref().map(|s| [s.driver.clone(), s.pool.clone(), s.device.clone()]);
    TaintRuleInfo { name: of.metadata.name.clone(), selector, taint: taint(&of.spec.taint) }
}

/// Converts a class.
#[must_use]
pub fn class(of: &api::DeviceClass) -> ClassInfo {
    ClassInfo {
        name: of.metadata.name.clone(),
        selectors: selectors(&of.spec.selectors),
        config: of.spec.config.clone(),
        extended_resource: of.spec.extended_resource_name.clone(),
        created_at_ms: of.metadata.creation_timestamp.map_or(0, |at| u64::try_from(at.as_millisecond()).unwrap_or(0)),
    }
}

fn selectors(of: &[api::Selector]) -> Vec<Option<SmolStr>> {
    of.iter().map(|selector| selector.cel.as_ref().map(|cel| cel.expression.clone())).collect()
}

/// Converts a claim.
#[must_use]
pub fn claim(of: &api::ResourceClaim) -> ClaimInfo {
    let devices = &of.spec.devices;
    let met = |status: &api::DeviceStatus| {
        let met = status.conditions.iter().filter(|c| c.status == "True").map(|c| c.type_.clone()).collect();
        ([status.driver.clone(), status.pool.clone(), status.device.clone()], met)
    };
    ClaimInfo {
        namespace: of.metadata.namespace.clone(),
        name: of.metadata.name.clone(),
        uid: of.metadata.uid.clone(),
        resource_version: of.metadata.resource_version.clone(),
        deleting: of.metadata.deletion_timestamp,
        finalized: of.metadata.keeps_allocation,
        controller: of.metadata.owner_references.iter().find(|o| o.controller).map(|o| o.uid.clone()),
        special: of.metadata.annotations.get(EXTENDED_CLAIM_ANNOTATION).is_some_and(|value| value == "true"),
        requests: devices.requests.iter().map(request).collect(),
        constraints: devices.constraints.iter().map(constraint).collect(),
        config: devices.config.iter().map(config).collect(),
        allocation: of.status.allocation.as_ref().map(allocation),
        reserved_for: of.status.reserved_for.iter().map(|consumer| consumer.uid.clone()).collect(),
        conditions: of.status.devices.iter().map(met).collect(),
    }
}

/// A configuration with the requests that it is for.
fn config(of: &Value) -> (Vec<SmolStr>, Value) {
    let requests = of.get("requests").and_then(Value::as_array);
    let named = requests.into_iter().flatten().filter_map(Value::as_str).map(SmolStr::from).collect();
    (named, of.clone())
}

fn request(of: &api::Request) -> Request {
    let kind = match &of.exactly {
        Some(exactly) => RequestKind::Exactly(ask(exactly)),
        None if of.first_available.is_empty() => RequestKind::Unknown,
        None => {
            RequestKind::FirstAvailable(of.first_available.iter().map(|one| (one.name.clone(), ask(one))).collect())
        }
    };
    Request { name: of.name.clone(), kind }
}

fn ask(of: &api::Ask) -> Ask {
    let count = match of.allocation_mode.as_str() {
        "ExactCount" => Count::Exactly(of.count),
        "All" => Count::All,
        other => Count::Unknown(other.into()),
    };
    let read = |value: &Value| api::DeviceToleration::deserialize(value).unwrap_or_default();
    Ask {
        class: of.device_class_name.clone(),
        selectors: selectors(&of.selectors),
        count,
        admin: of.admin_access == Some(true),
        tolerations: of.tolerations.iter().map(|value| toleration(&read(value))).collect(),
        written_tolerations: of.tolerations.clone(),
        capacity: of.capacity.requests.iter().map(|(name, amount)| (name.clone(), amount.0)).collect(),
        derived: !of.derived_attributes.is_empty(),
    }
}

fn toleration(of: &api::DeviceToleration) -> DeviceToleration {
    DeviceToleration {
        key: of.key.clone(),
        exists: match of.operator.as_str() {
            "" | "Equal" => Some(false),
            "Exists" => Some(true),
            _ => None,
        },
        value: of.value.clone(),
        effect: (!of.effect.is_empty()).then(|| effect(&of.effect)),
    }
}

fn constraint(of: &api::Constraint) -> Constraint {
    match (&of.match_attribute, &of.distinct_attribute) {
        (Some(attribute), _) => Constraint::Match(of.requests.clone(), attribute.clone()),
        (None, Some(attribute)) => Constraint::Distinct(of.requests.clone(), attribute.clone()),
        (None, None) => Constraint::Unknown,
    }
}

fn allocation(of: &api::Allocation) -> Allocation {
    let amounts = |all: &BTreeMap<SmolStr, api::Amount>| {
        all.iter().map(|(name, a)| (name.clone(), a.0)).collect::<BTreeMap<_, Quantity>>()
    };
    let result = |of: &api::AllocatedDevice| AllocatedDevice {
        request: of.request.clone(),
        id: [of.driver.clone(), of.pool.clone(), of.device.clone()],
        admin: of.admin_access == Some(true),
        share: of.share_id.clone(),
        consumed: of.consumed_capacity.as_ref().map(amounts),
        binding_conditions: of.binding_conditions.clone(),
        binding_failure_conditions: of.binding_failure_conditions.clone(),
        tolerations: Vec::new(),
    };
    Allocation {
        results: of.devices.results.iter().map(result).collect(),
        node_selector: of.node_selector.as_ref().map(terms),
        config: Vec::new(),
    }
}

/// The containers of a pod that ask for resources that a DeviceClass may stand for.
pub(super) fn container_asks(spec: &PodSpec) -> Vec<ContainerAsk> {
    let init = spec.init_containers.iter().map(|container| (container, container.restart_policy != "Always"));
    let all = init.chain(spec.containers.iter().map(|container| (container, false)));
    let of = |(index, (container, passing)): (usize, (&types::Container, bool))| {
        let requests = container.resources.requests.iter().flatten().enumerate();
        let asks: BTreeMap<SmolStr, (usize, i64)> = requests
            .filter(|(_, (name, _))| may_be_devices(name))
            .map(|(place, (name, amount))| (name.clone(), (place, amount.value())))
            .collect();
        (!asks.is_empty()).then(|| ContainerAsk { name: container.name.clone(), index, passing, asks })
    };
    all.enumerate().filter_map(of).collect()
}

/// The claims of a pod; those made from templates are named by its status.
pub(super) fn pod_claims(spec: &PodSpec, status: &types::PodStatus) -> Vec<PodClaim> {
    let made = |name: &SmolStr| {
        let found = status.resource_claim_statuses.iter().find(|made| made.name == *name);
        found.map(|made| made.resource_claim_name.clone())
    };
    let of = |claim: &types::PodClaim| PodClaim {
        name: claim.name.clone(),
        source: match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(name), _) => ClaimSource::Named(name.clone()),
            (None, Some(_)) => ClaimSource::Template(made(&claim.name)),
            (None, None) => ClaimSource::Unknown,
        },
    };
    spec.resource_claims.iter().map(of).collect()
}
