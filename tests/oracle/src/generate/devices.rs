//! Devices: pools of a node and of many, complete and not; classes, claims with every kind of request; who holds what.

use super::extended::extended;
use super::node::label_value;
use crate::random::Random;
use serde_json::{Map, Value, json};

const GPU: &str = "gpu.example";
const NIC: &str = "nic.example";
const CLASSES: [&str; 9] = ["gpu", "gpu", "gpu", "gpu", "any", "any", "nic", "big", "shared"];
const SELECTORS: [&str; 10] = [
    r#"device.attributes["gpu.example"].?model.orValue("") == "A100""#,
    r#"device.attributes["gpu.example"].?numa.orValue(0) == 0"#,
    r#"has(device.attributes["gpu.example"].ready) && device.attributes["gpu.example"].ready"#,
    r#"device.capacity["gpu.example"].?memory.orValue(quantity("0")).compareTo(quantity("40Gi")) >= 0"#,
    r#"device.attributes["gpu.example"].?driverVersion.orValue(semver("0.0.0")).isGreaterThan(semver("535.0.0"))"#,
    "device.allowMultipleAllocations",
    r#"device.driver == "nic.example" || "gpu.example" in device.attributes"#,
    r#"["A100", "H100"].exists(m, m == device.attributes["gpu.example"].?model.orValue("x"))"#,
    r#"cel.bind(gpu, device.attributes["gpu.example"], gpu.?model.orValue("").startsWith("A"))"#,
    r#"device.attributes["gpu.example"].model == "A100""#,
];
const ATTRIBUTES: [&str; 4] = ["gpu.example/model", "gpu.example/numa", "nic.example/root", "gpu.example/ready"];

/// Adds devices to a case, and claims to its pod.
pub(super) fn devices(random: &Random, nodes: &[String], case: &mut Value) {
    let mut slices = Vec::new();
    for node in nodes {
        let mut facts = random.fork(node);
        if facts.percent(80) {
            slices.extend(pool(&mut facts, GPU, node, &json!({"nodeName": node})));
        }
    }
    let mut shared = random.fork("shared");
    if shared.percent(60) {
        let reach = reach(&mut shared, nodes);
        slices.extend(pool(&mut shared, NIC, "fabric", &reach));
    }
    if shared.percent(15) {
        slices.extend(pool(&mut shared, GPU, "remote", &json!({"perDeviceNodeSelection": true})));
    }
    per_device(&mut shared, nodes, &mut slices);
    let mut held = random.fork("held");
    let mut claims = holders(&mut held, &slices);
    let rules: Vec<Value> = (0..held.below(4).saturating_sub(1)).map(|i| rule(&mut held, i, nodes)).collect();
    own_claims(&mut random.fork("own"), &slices, case, &mut claims);
    let mut classes = classes(&mut random.fork("classes"));
    extended(&random.fork("extended"), case, &mut classes, &mut claims);
    case["resourceSlices"] = json!(slices);
    case["resourceClaims"] = json!(claims);
    case["deviceTaintRules"] = json!(rules);
    case["deviceClasses"] = json!(classes);
}

fn classes(random: &mut Random) -> Vec<Value> {
    let class = |name: &str, selector: &str| json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": selector}}]}});
    let mut all = vec![
        class("gpu", r#"device.driver == "gpu.example""#),
        class("nic", r#"device.driver == "nic.example""#),
        class(
            "big",
            r#"device.driver == "gpu.example" && device.attributes["gpu.example"].?model.orValue("") == "H100""#,
        ),
        class("shared", "device.allowMultipleAllocations"),
        json!({"metadata": {"name": "any"}, "spec": {}}),
    ];
    if random.percent(5) {
        all.remove(random.below(4));
    }
    all
}

fn selector(random: &mut Random, nodes: &[String]) -> Value {
    let requirement = match random.below(3) {
        0 => {
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [nodes.get(random.below(nodes.len())).map_or("no-such-node", String::as_str)]}]})
        }
        _ => {
            let zone = label_value(random, "topology.kubernetes.io/zone");
            let operator = random.word(&["In", "In", "NotIn"]);
            json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": operator, "values": [zone]}]})
        }
    };
    json!({"nodeSelectorTerms": [requirement]})
}

fn reach(random: &mut Random, nodes: &[String]) -> Value {
    match random.below(5) {
        0 | 1 => json!({"allNodes": true}),
        2 | 3 => json!({"nodeSelector": selector(random, nodes)}),
        _ => json!({"perDeviceNodeSelection": true}),
    }
}

/// Devices of slices that leave it to them which nodes they reach.
fn per_device(random: &mut Random, nodes: &[String], slices: &mut [Value]) {
    for slice in slices.iter_mut().filter(|slice| slice["spec"]["perDeviceNodeSelection"] == true) {
        let devices = slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut);
        for device in devices.into_iter().flatten() {
            match random.below(4) {
                0 => device["allNodes"] = json!(true),
                1 | 2 if !nodes.is_empty() => device["nodeName"] = json!(random.pick(nodes)),
                _ => device["nodeSelector"] = selector(random, nodes),
            }
        }
    }
}

/// The slices of a pool.
fn pool(random: &mut Random, driver: &str, name: &str, reach: &Value) -> Vec<Value> {
    let partitioned = random.percent(25);
    let count = 1 + random.below(2) + usize::from(partitioned);
    let generation = 1 + random.below(2);
    let listed = if random.percent(6) { count + 1 } else { count };
    let mut slices = Vec::new();
    let mut number = 0;
    for at in 0..count {
        let mut spec = reach.as_object().cloned().unwrap_or_default();
        let sets = partitioned && at == 0;
        if sets {
            let counters = json!({"memory": {"value": random.word(&["40Gi", "80Gi", "100Gi"])}, "slices": {"value": random.word(&["3", "7"])}});
            spec.insert("sharedCounters".into(), json!([{"name": "set", "counters": counters}]));
        } else {
            let devices: Vec<Value> = (0..1 + random.below(4))
                .map(|_| {
                    number += usize::from(!random.percent(2));
                    device(random, driver, number, partitioned)
                })
                .collect();
            spec.insert("devices".into(), json!(devices));
        }
        // Now and then slices are missing or outdated.
        let generation = if random.percent(4) { generation.max(2) - 1 } else { generation };
        spec.insert("driver".into(), json!(driver));
        spec.insert("pool".into(), json!({"name": name, "generation": generation, "resourceSliceCount": listed}));
        if !random.percent(2) {
            slices.push(json!({"metadata": {"name": format!("{driver}-{name}-{}", count - at)}, "spec": spec}));
        }
    }
    slices
}

fn device(random: &mut Random, driver: &str, number: usize, partitioned: bool) -> Value {
    let mut all = Map::new();
    all.insert("name".into(), json!(format!("dev-{number}")));
    all.insert("attributes".into(), attributes(random, driver));
    let multiple = random.percent(25);
    if multiple {
        all.insert("allowMultipleAllocations".into(), json!(true));
    }
    if random.percent(70) {
        all.insert("capacity".into(), json!({"memory": capacity(random, multiple)}));
    }
    if random.percent(10) {
        all.insert("taints".into(), json!([taint(random)]));
    }
    if partitioned && random.percent(80) {
        let set = if random.percent(2) { "none" } else { "set" };
        let amount = random.word(&["10Gi", "20Gi", "40Gi"]);
        let counters = json!({"memory": {"value": amount}, "slices": {"value": random.word(&["1", "2", "3"])}});
        all.insert("consumesCounters".into(), json!([{"counterSet": set, "counters": counters}]));
    }
    if random.percent(8) {
        all.insert("bindingConditions".into(), json!(["attached"]));
        all.insert("bindingFailureConditions".into(), json!(["failed"]));
    }
    if random.percent(10) {
        all.insert("bindsToNode".into(), json!(true));
    }
    Value::Object(all)
}

fn attributes(random: &mut Random, driver: &str) -> Value {
    let mut all = Map::new();
    if driver == GPU {
        all.insert("model".into(), json!({"string": random.word(&["A100", "A100", "H100"])}));
        all.insert("numa".into(), json!({"int": random.below(2)}));
        if random.percent(70) {
            all.insert("ready".into(), json!({"bool": random.percent(80)}));
        }
        if random.percent(50) {
            all.insert("driverVersion".into(), json!({"version": random.word(&["550.54.15", "525.0.1"])}));
        }
    } else {
        all.insert("root".into(), json!({"string": random.word(&["pci0", "pci1"])}));
        all.insert("gpu.example/numa".into(), json!({"int": random.below(2)}));
    }
    if random.percent(3) {
        all.remove("model");
    }
    Value::Object(all)
}

fn capacity(random: &mut Random, multiple: bool) -> Value {
    let mut all = json!({"value": random.word(&["40Gi", "80Gi", "81920Mi"])});
    if multiple && random.percent(60) {
        all["requestPolicy"] = match random.below(3) {
            0 => json!({"default": "10Gi"}),
            1 => json!({"default": "10Gi", "validValues": ["10Gi", "20Gi", "40Gi"]}),
            _ => json!({"default": "8Gi", "validRange": {"min": "4Gi", "max": "64Gi", "step": "4Gi"}}),
        };
    }
    all
}

fn taint(random: &mut Random) -> Value {
    let effect = random.word(&["NoSchedule", "NoExecute", "None"]);
    json!({"key": random.word(&["unhealthy", "reserved"]), "value": random.word(&["", "yes"]), "effect": effect})
}

fn rule(random: &mut Random, number: usize, nodes: &[String]) -> Value {
    let mut selector = Map::new();
    if random.percent(60) {
        selector.insert("driver".into(), json!(random.word(&[GPU, NIC])));
    }
    if random.percent(60) && !nodes.is_empty() {
        selector.insert("pool".into(), json!(random.pick(nodes)));
    }
    if random.percent(60) {
        selector.insert("device".into(), json!(format!("dev-{}", 1 + random.below(3))));
    }
    let mut spec = json!({"taint": taint(random)});
    if random.percent(90) {
        spec["deviceSelector"] = Value::Object(selector);
    }
    json!({"metadata": {"name": format!("rule-{number}")}, "spec": spec})
}

/// Claims of others that hold devices.
fn holders(random: &mut Random, slices: &[Value]) -> Vec<Value> {
    let mut claims = Vec::new();
    for slice in slices {
        for device in slice["spec"]["devices"].as_array().into_iter().flatten() {
            let shares = if device["allowMultipleAllocations"] == true {
                random.below(3)
            } else {
                usize::from(random.percent(15))
            };
            for share in 0..shares {
                let result = result(random, slice, device, share);
                let name = format!("held-{}", claims.len());
                claims.push(
                    json!({"metadata": {"name": name, "namespace": "others", "uid": format!("uid-{name}")}, "spec": {},
                    "status": {"allocation": {"devices": {"results": [result]}}}}),
                );
            }
        }
    }
    claims
}

fn result(random: &mut Random, slice: &Value, device: &Value, share: usize) -> Value {
    let spec = &slice["spec"];
    let mut result =
        json!({"request": "r", "driver": spec["driver"], "pool": spec["pool"]["name"], "device": device["name"]});
    if device["allowMultipleAllocations"] == true {
        result["shareID"] = json!(format!("00000000-0000-4000-8000-00000000000{share}"));
        if device["capacity"].is_object() {
            result["consumedCapacity"] = json!({"memory": random.word(&["10Gi", "20Gi", "40Gi"])});
        }
    } else if random.percent(10) {
        result["adminAccess"] = json!(true);
    }
    result
}

/// The claims of the pod.
fn own_claims(random: &mut Random, slices: &[Value], case: &mut Value, claims: &mut Vec<Value>) {
    let pod = &mut case["pod"];
    if random.percent(60) {
        ask_little(pod);
    }
    let (namespace, uid) = (pod["metadata"]["namespace"].clone(), pod["metadata"]["uid"].clone());
    let (mut named, mut made) = (Vec::new(), Vec::new());
    for at in 0..1 + random.below(2) {
        let (inner, name) = (format!("c{at}"), format!("claim-{at}"));
        let template = random.percent(40);
        if template {
            named.push(json!({"name": inner, "resourceClaimTemplateName": "template"}));
            match random.below(50) {
                0 => {}
                1 => made.push(json!({"name": inner})),
                _ => made.push(json!({"name": inner, "resourceClaimName": name})),
            }
        } else {
            named.push(json!({"name": inner, "resourceClaimName": name}));
        }
        let mut metadata = json!({"name": name, "namespace": namespace, "uid": format!("uid-{name}")});
        if template && !random.percent(2) {
            metadata["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "incoming", "uid": uid, "controller": true}]);
        }
        if random.percent(1) {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        let mut claim = json!({"metadata": metadata, "spec": {"devices": wishes(random)}, "status": {}});
        if random.percent(15) {
            allocated(random, slices, &mut claim, &uid);
        }
        if !random.percent(2) {
            claims.push(claim);
        }
    }
    pod["spec"]["resourceClaims"] = json!(named);
    if !made.is_empty() {
        pod["status"]["resourceClaimStatuses"] = json!(made);
    }
}

/// The pod asks for devices and little else, so that they decide.
fn ask_little(pod: &mut Value) {
    if let Some(spec) = pod["spec"].as_object_mut() {
        for wish in ["nodeSelector", "affinity", "topologySpreadConstraints", "resources", "overhead", "initContainers"]
        {
            spec.remove(wish);
        }
    }
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.remove("resources");
            container.remove("ports");
        }
    }
}

/// The claim is allocated already.
fn allocated(random: &mut Random, slices: &[Value], claim: &mut Value, uid: &Value) {
    if slices.is_empty() {
        return;
    }
    let slice = random.pick(slices);
    let spec = &slice["spec"];
    let devices = spec["devices"].as_array().cloned().unwrap_or_default();
    let Some(device) = (!devices.is_empty()).then(|| random.pick(&devices).clone()) else { return };
    let mut result = result(random, slice, &device, 5);
    if let Some(first) = claim["spec"]["devices"]["requests"][0]["firstAvailable"][0]["name"].as_str() {
        result["request"] = json!(format!("r0/{first}"));
    }
    if random.percent(40) {
        result["bindingConditions"] = json!(["attached"]);
        result["bindingFailureConditions"] = json!(["failed"]);
        if random.percent(80) {
            let condition = json!({"type": random.word(&["attached", "failed"]), "status": random.word(&["True", "False"]),
                "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "r", "message": ""});
            claim["status"]["devices"] = json!([{"driver": result["driver"], "pool": result["pool"], "device": result["device"],
                "conditions": [condition]}]);
        }
    }
    let mut allocation = json!({"devices": {"results": [result]}});
    if let Some(node) = spec["nodeName"].as_str() {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
        allocation["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
    } else if spec["nodeSelector"].is_object() {
        allocation["nodeSelector"] = spec["nodeSelector"].clone();
    }
    claim["status"]["allocation"] = allocation;
    if random.percent(50) {
        claim["status"]["reservedFor"] = json!([{"resource": "pods", "name": "incoming", "uid": uid}]);
    }
}

/// What a claim asks for.
fn wishes(random: &mut Random) -> Value {
    let requests: Vec<Value> = (0..1 + random.below(5) / 3).map(|at| request(random, at)).collect();
    let mut devices = json!({"requests": requests});
    if random.percent(15) {
        let attribute = random.word(&ATTRIBUTES);
        let kind = random.word(&["matchAttribute", "matchAttribute", "distinctAttribute"]);
        let mut constraint = json!({kind: attribute});
        if random.percent(30) {
            constraint["requests"] = json!([random.word(&["r0", "r1", "r0/a1", "r0/a0"])]);
        }
        devices["constraints"] = json!([constraint]);
    }
    devices
}

fn request(random: &mut Random, number: usize) -> Value {
    let name = format!("r{number}");
    if random.percent(30) {
        let alternatives: Vec<Value> = (0..1 + random.below(3))
            .map(|at| {
                let mut ask = ask(random);
                ask["name"] = json!(format!("a{at}"));
                ask
            })
            .collect();
        return json!({"name": name, "firstAvailable": alternatives});
    }
    let mut ask = ask(random);
    if random.percent(10) {
        ask["adminAccess"] = json!(random.percent(80));
    }
    json!({"name": name, "exactly": ask})
}

fn ask(random: &mut Random) -> Value {
    let class = if random.percent(1) { "none" } else { random.word(&CLASSES) };
    let mut ask = json!({"deviceClassName": class});
    if random.percent(12) {
        ask["allocationMode"] = json!("All");
    } else {
        ask["allocationMode"] = json!("ExactCount");
        ask["count"] = json!(1 + random.below(8) / 6 + random.below(8) / 7);
    }
    if random.percent(20) {
        ask["selectors"] = json!([{"cel": {"expression": random.word(&SELECTORS)}}]);
    }
    if random.percent(1) {
        ask["selectors"] = json!([{"cel": {"expression": "device.attributes[\"gpu.example\"].none == 1"}}]);
    }
    if random.percent(30) {
        let operator = random.word(&["Exists", "Equal"]);
        let mut toleration = json!({"key": random.word(&["unhealthy", "reserved"]), "operator": operator});
        if operator == "Equal" {
            toleration["value"] = json!(random.word(&["", "yes"]));
        }
        if random.percent(40) {
            toleration["effect"] = json!(random.word(&["NoSchedule", "NoExecute"]));
        }
        ask["tolerations"] = json!([toleration]);
    }
    if random.percent(12) {
        let name = if random.percent(90) { "memory" } else { "cores" };
        ask["capacity"] = json!({"requests": {name: random.word(&["1Gi", "10Gi", "15Gi", "20Gi", "64Gi", "100Gi"])}});
    }
    ask
}
