//! Cases that leave a choice to the scores of devices and volumes: a pod that asks for little else, alternatives of which nodes
//! have some, and volumes or free storage of other sizes on each node.

use crate::random::Random;
use serde_json::{Value, json};

const ZONE: &str = "topology.kubernetes.io/zone";
/// Amounts of storage; no two are equal, because kube-scheduler chooses at random between equal volumes.
const SIZES: [&str; 10] = ["1Gi", "1500Mi", "2Gi", "3G", "5Gi", "8G", "10Gi", "12Gi", "20Gi", "50Gi"];
const REQUESTS: [&str; 3] = ["500M", "1Gi", "900Mi"];

/// The pod tolerates every node and wants nothing of it.
fn take_any_node(pod: &mut Value) {
    if let Some(spec) = pod["spec"].as_object_mut() {
        let wishes =
            ["affinity", "topologySpreadConstraints", "nodeSelector", "resources", "overhead", "initContainers"];
        spec.retain(|wish, _| !wishes.contains(&wish.as_str()));
    }
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.retain(|field, _| !["resources", "ports"].contains(&field.as_str()));
        }
    }
    pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
}

/// The pod's claims are one that would rather have one kind of device than another.
pub(super) fn of_devices(random: &mut Random, case: &mut Value) {
    take_any_node(&mut case["pod"]);
    let mut wanted = vec![("big", ""), ("gpu", ""), ("shared", ""), ("nic", ""), ("gpu", "A100"), ("gpu", "H100")];
    let alternatives: Vec<Value> = (0..2 + random.below(2))
        .map(|at| {
            let (class, model) = wanted.swap_remove(random.below(wanted.len()));
            let mut ask = json!({"name": format!("a{at}"), "deviceClassName": class, "allocationMode": "ExactCount", "count": 1 + random.below(4) / 3});
            if !model.is_empty() {
                let expression = format!("device.attributes[\"gpu.example\"].?model.orValue(\"\") == \"{model}\"");
                ask["selectors"] = json!([{"cel": {"expression": expression}}]);
            }
            ask
        })
        .collect();
    let pod = &case["pod"]["metadata"];
    let (namespace, name) = (pod["namespace"].clone(), "preferring");
    let mut requests = vec![json!({"name": "r0", "firstAvailable": alternatives})];
    if random.percent(20) {
        let look = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "adminAccess": true});
        requests.push(json!({"name": "r1", "exactly": look}));
    }
    let mut devices = json!({"requests": requests});
    if random.percent(30) {
        let kind = random.word(&["matchAttribute", "distinctAttribute"]);
        devices["constraints"] = json!([{kind: "gpu.example/numa"}]);
    }
    let claim = json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}")},
        "spec": {"devices": devices}, "status": {}});
    let is_held = |claim: &Value| claim["metadata"]["namespace"] == "others";
    let mut claims: Vec<Value> =
        case["resourceClaims"].as_array().into_iter().flatten().filter(|c| is_held(c)).cloned().collect();
    claims.push(claim);
    case["resourceClaims"] = json!(claims);
    case["pod"]["spec"]["resourceClaims"] = json!([{"name": "c", "resourceClaimName": name}]);
}

/// The first claim that the pod mounts serves one pod only, and another pod has it.
pub(super) fn in_use(random: &mut Random, case: &mut Value) {
    let volumes = case["pod"]["spec"]["volumes"].as_array().into_iter().flatten();
    let name = |volume: &Value| volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned);
    let Some(name) = volumes.filter_map(name).next() else { return };
    let namespace = case["pod"]["metadata"]["namespace"].clone();
    let claims = case["persistentVolumeClaims"].as_array_mut().into_iter().flatten();
    for claim in claims.filter(|claim| claim["metadata"]["name"] == *name) {
        claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    }
    let Some(pods) = case["pods"].as_array_mut().filter(|pods| !pods.is_empty()) else { return };
    let at = random.below(pods.len());
    pods[at]["metadata"]["namespace"] = namespace;
    pods[at]["spec"]["volumes"] = json!([{"name": "v0", "persistentVolumeClaim": {"claimName": name}}]);
}

/// The pod's only volume is one that can be had on every node, of what each has.
pub(super) fn of_volumes(random: &mut Random, nodes: &[String], case: &mut Value) {
    take_any_node(&mut case["pod"]);
    if random.percent(60) {
        disks(random, nodes, case);
    } else {
        free_storage(random, case);
    }
    let namespace = case["pod"]["metadata"]["namespace"].clone();
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "choice",
        "resources": {"requests": {"storage": random.pick(&REQUESTS)}}});
    let metadata = json!({"name": "choice", "namespace": namespace, "uid": "uid-choice"});
    push(case, "persistentVolumeClaims", json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}));
    case["pod"]["spec"]["volumes"] = json!([{"name": "choice", "persistentVolumeClaim": {"claimName": "choice"}}]);
}

/// Volumes that were made by hand: one or two on each node.
fn disks(random: &mut Random, nodes: &[String], case: &mut Value) {
    class(case, "kubernetes.io/no-provisioner");
    let shift = random.below(SIZES.len());
    for (at, node) in nodes.iter().enumerate() {
        for more in 0..1 + random.below(2) {
            let name = format!("choice-{at}-{more}");
            let on_node =
                json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
            let spec = json!({"capacity": {"storage": SIZES[(at + 3 * more + shift) % SIZES.len()]},
                "accessModes": ["ReadWriteOnce"], "storageClassName": "choice", "local": {"path": "/mnt"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [on_node]}}});
            let metadata = json!({"name": name, "uid": format!("uid-{name}")});
            push(
                case,
                "persistentVolumes",
                json!({"metadata": metadata, "spec": spec, "status": {"phase": "Available"}}),
            );
        }
    }
}

/// A driver that makes volumes and says how much it can still make in each zone.
fn free_storage(random: &mut Random, case: &mut Value) {
    class(case, "csi.choice");
    push(case, "csiDrivers", json!({"metadata": {"name": "csi.choice"}, "spec": {"storageCapacity": true}}));
    let shift = random.below(SIZES.len());
    for (at, zone) in ["zone-a", "zone-b", "zone-c"].iter().enumerate() {
        let metadata = json!({"name": format!("choice-{zone}"), "namespace": "kube-system"});
        push(
            case,
            "csiStorageCapacities",
            json!({"metadata": metadata, "storageClassName": "choice",
            "nodeTopology": {"matchLabels": {ZONE: zone}}, "capacity": SIZES[(2 * at + shift) % SIZES.len()]}),
        );
    }
}

fn class(case: &mut Value, provisioner: &str) {
    push(
        case,
        "storageClasses",
        json!({"metadata": {"name": "choice"}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"}),
    );
}

fn push(case: &mut Value, list: &str, object: Value) {
    match &mut case[list] {
        Value::Array(all) => all.push(object),
        absent => *absent = json!([object]),
    }
}
