//! From what a search found to an allocation.

use super::allocator::{Chosen, Found};
use super::facts::{AllocatedDevice, Allocation, ClaimInfo, Reach, RequestKind};
use crate::model::{NodeOperator, NodeRequirement, NodeSelectorTerm};
use serde_json::{Value, json};
use smol_str::SmolStr;

/// The allocation of a claim on a node.
pub(super) fn allocation(claim: &ClaimInfo, found: &Found<'_>, node: &SmolStr) -> Allocation {
    let results = found.devices.iter().enumerate().map(|(at, chosen)| result(claim, at, chosen)).collect();
    Allocation { results, node_selector: node_selector(found, node), config: config(claim, found) }
}

fn result(claim: &ClaimInfo, at: usize, chosen: &Chosen<'_>) -> AllocatedDevice {
    let id = [chosen.driver.clone(), chosen.pool.clone(), chosen.device.name.clone()];
    AllocatedDevice {
        request: chosen.request.as_str().into(),
        share: chosen.share.as_ref().map(|_| share_id(&claim.uid, &id, at)),
        id,
        admin: chosen.ask.admin,
        consumed: chosen.share.clone().filter(|amounts| !amounts.is_empty()),
        binding_conditions: chosen.device.binding_conditions.clone().unwrap_or_default(),
        binding_failure_conditions: chosen.device.binding_failure_conditions.clone(),
        tolerations: chosen.ask.written_tolerations.clone(),
    }
}

/// A UUID (version 8) that is this share's alone: FNV-1a over claim, device and place.
fn share_id(claim: &str, device: &[SmolStr; 3], at: usize) -> SmolStr {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let place = at.to_string();
    let parts = std::iter::once(claim).chain(device.iter().map(SmolStr::as_str)).chain([place.as_str()]);
    for byte in parts.flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    let hash = hash & !(0xF << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62);
    let hex = format!("{hash:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]).into()
}

/// Nodes that can use all devices of the claim; None: every node.
fn node_selector(found: &Found<'_>, node: &SmolStr) -> Option<Vec<NodeSelectorTerm>> {
    let mut term = NodeSelectorTerm::default();
    for chosen in &found.devices {
        let reach =
            if chosen.slice.info.reach == Reach::PerDevice { &chosen.device.reach } else { &chosen.slice.info.reach };
        if matches!(reach, Reach::Node(_)) || chosen.device.binds_to_node {
            let named =
                NodeRequirement { key: "metadata.name".into(), operator: NodeOperator::In, values: vec![node.clone()] };
            return Some(vec![NodeSelectorTerm { match_fields: vec![named], ..NodeSelectorTerm::default() }]);
        }
        if let Reach::Selector(terms) = reach
            && let [only] = &terms[..]
        {
            add(&mut term.match_fields, &only.match_fields);
            add(&mut term.match_expressions, &only.match_expressions);
        }
    }
    let empty = term.match_fields.is_empty() && term.match_expressions.is_empty();
    (!empty).then(|| vec![term])
}

fn add(to: &mut Vec<NodeRequirement>, from: &[NodeRequirement]) {
    for requirement in from {
        if !to.contains(requirement) {
            to.push(requirement.clone());
        }
    }
}

/// Configuration of the classes that were used, each once, then of the claim; what is for all requests names none.
fn config(claim: &ClaimInfo, found: &Found<'_>) -> Vec<Value> {
    let named: Vec<(&SmolStr, String)> = claim
        .requests
        .iter()
        .zip(&found.used)
        .map(|(request, (_, alternative))| match (&request.kind, alternative) {
            (RequestKind::FirstAvailable(all), Some(at)) => {
                let inner = all.get(*at).map_or("", |(name, _)| name);
                (&request.name, format!("{}/{inner}", request.name))
            }
            _ => (&request.name, request.name.to_string()),
        })
        .collect();
    let for_all =
        |requests: &[String]| named.iter().all(|(name, full)| requests.iter().any(|r| r == name.as_str() || r == full));
    let mut configs: Vec<(&str, Vec<String>, &Value)> = Vec::new();
    let mut done: Vec<&SmolStr> = Vec::new();
    for (class, _) in &found.used {
        if done.contains(&&class.name) {
            continue;
        }
        done.push(&class.name);
        let users = found.used.iter().zip(&named).filter(|((other, _), _)| other.name == class.name);
        let requests: Vec<String> = users.map(|(_, (_, full))| full.clone()).collect();
        configs.extend(class.config.iter().map(|config| ("FromClass", requests.clone(), config)));
    }
    for (requests, config) in &claim.config {
        let requests: Vec<String> = requests.iter().map(SmolStr::to_string).collect();
        let about = requests.is_empty()
            || named.iter().any(|(name, full)| requests.iter().any(|r| r == name.as_str() || r == full));
        if about {
            configs.push(("FromClaim", requests, config));
        }
    }
    let written = |(source, requests, config): (&str, Vec<String>, &Value)| {
        let mut written = config.clone();
        if let Some(fields) = written.as_object_mut() {
            fields.insert("source".to_owned(), json!(source));
            fields.remove("requests");
            if !requests.is_empty() && !for_all(&requests) {
                fields.insert("requests".to_owned(), json!(requests));
            }
        }
        written
    };
    configs.into_iter().map(written).collect()
}

impl Allocation {
    /// As it is written into `status.allocation` of a claim.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let results: Vec<Value> = self.results.iter().map(written).collect();
        let mut devices = json!({"results": results});
        if !self.config.is_empty() {
            devices["config"] = json!(self.config);
        }
        let mut all = json!({"devices": devices});
        if let Some(terms) = &self.node_selector {
            let terms: Vec<Value> = terms.iter().map(term).collect();
            all["nodeSelector"] = json!({"nodeSelectorTerms": terms});
        }
        all
    }
}

fn written(of: &AllocatedDevice) -> Value {
    let [driver, pool, device] = &of.id;
    let mut all = json!({"request": of.request, "driver": driver, "pool": pool, "device": device});
    if of.admin {
        all["adminAccess"] = json!(true);
    }
    if let Some(share) = &of.share {
        all["shareID"] = json!(share);
    }
    if let Some(consumed) = &of.consumed {
        let amounts = consumed.iter().map(|(name, amount)| (name.to_string(), json!(amount.to_string())));
        all["consumedCapacity"] = Value::Object(amounts.collect());
    }
    for (key, list) in
        [("bindingConditions", &of.binding_conditions), ("bindingFailureConditions", &of.binding_failure_conditions)]
    {
        if !list.is_empty() {
            all[key] = json!(list);
        }
    }
    if !of.tolerations.is_empty() {
        all["tolerations"] = json!(of.tolerations);
    }
    all
}

fn term(of: &NodeSelectorTerm) -> Value {
    let list = |all: &[NodeRequirement]| -> Vec<Value> {
        let one = |r: &NodeRequirement| {
            let mut one = json!({"key": r.key, "operator": format!("{:?}", r.operator)});
            if !r.values.is_empty() {
                one["values"] = json!(r.values);
            }
            one
        };
        all.iter().map(one).collect()
    };
    let mut all = json!({});
    for (key, requirements) in [("matchExpressions", &of.match_expressions), ("matchFields", &of.match_fields)] {
        if !requirements.is_empty() {
            all[key] = json!(list(requirements));
        }
    }
    all
}
