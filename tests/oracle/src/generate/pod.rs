//! Pods: containers, init containers, sidecars, overhead, pod-level resources, host ports, resizes under way.

use super::{NAMESPACES, affinity, node, peers, resources};
use crate::random::Random;
use serde_json::{Map, Value, json};

const HOST_IPS: [&str; 5] = ["", "0.0.0.0", "10.0.0.1", "127.0.0.1", "::1"];
const PROTOCOLS: [&str; 4] = ["", "TCP", "UDP", "SCTP"];

/// The pod that asks for a place.
pub(super) fn incoming(random: &Random, nodes: &[String]) -> Value {
    let mut pod = pod(random, "incoming");
    let mut wishes = random.fork("wishes");
    let tolerations: Vec<Value> = (0..wishes.below(4)).map(|_| node::toleration(&mut wishes)).collect();
    let spec = &mut pod["spec"];
    spec["schedulerName"] = json!("flowforge");
    spec["tolerations"] = json!(tolerations);
    spec["nodeSelector"] = affinity::selector(&mut wishes);
    if let Some(node_affinity) = affinity::node_affinity(&mut random.fork("node affinity"), nodes) {
        spec["affinity"] = json!({"nodeAffinity": node_affinity});
    }
    features(&mut random.fork("features"), &mut pod["spec"]);
    peers::affinity(&mut random.fork("peers"), &mut pod["spec"], 15);
    let spread = peers::spread(&mut random.fork("spread"));
    if !spread.is_empty() {
        pod["spec"]["topologySpreadConstraints"] = json!(spread);
    }
    pod
}

/// What only some kubelets can do.
fn features(random: &mut Random, spec: &mut Value) {
    let lists: Vec<&str> = ["containers", "initContainers"].into_iter().filter(|list| spec[*list].is_array()).collect();
    if random.percent(10) {
        let action = random.word(&["Restart", "RestartAllContainers"]);
        let exit_codes = json!({"operator": "In", "values": [42]});
        spec[random.word(&lists)][0]["restartPolicyRules"] = json!([{"action": action, "exitCodes": exit_codes}]);
    }
    if random.percent(20) {
        spec["hostNetwork"] = json!(random.percent(70));
        if random.percent(80) {
            spec["hostUsers"] = json!(random.percent(30));
        }
    }
    if random.percent(10) {
        let options = if random.percent(80) { json!(["noexec"]) } else { json!([]) };
        let mount = json!({"name": "v", "mountPath": "/v", "bindMountOptions": options});
        if random.percent(30) {
            spec["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox", "volumeMounts": [mount]}]);
        } else {
            spec[random.word(&lists)][0]["volumeMounts"] = json!([mount]);
        }
    }
}

/// A pod on a node.
pub(super) fn placed(random: &Random, name: &str, node: &str) -> Value {
    let mut pod = pod(random, name);
    let mut state = random.fork("state");
    pod["spec"]["nodeName"] = json!(node);
    pod["status"]["phase"] = json!(state.pick(&["Running", "Running", "Pending", "Succeeded", "Failed", "Unknown"]));
    if state.percent(10) {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    }
    if state.percent(10) {
        resize(&mut state, &mut pod);
    }
    peers::affinity(&mut random.fork("peers"), &mut pod["spec"], 4);
    pod
}

fn pod(random: &Random, name: &str) -> Value {
    let mut facts = random.fork("pod");
    let namespace = *facts.pick(&NAMESPACES);
    let containers: Vec<Value> = (0..1 + facts.below(3)).map(|i| container(&mut facts, &format!("c{i}"))).collect();
    let mut spec = Map::new();
    spec.insert("containers".to_owned(), json!(containers));
    if facts.percent(30) {
        let init: Vec<Value> = (0..1 + facts.below(3)).map(|i| init_container(&mut facts, &format!("i{i}"))).collect();
        spec.insert("initContainers".to_owned(), json!(init));
    }
    if facts.percent(10) {
        spec.insert("overhead".to_owned(), Value::Object(resources::cpu_and_memory(&mut facts)));
    }
    if facts.percent(15) {
        spec.insert("resources".to_owned(), json!({"requests": resources::pod_level(&mut facts)}));
    }
    let labels = labels(&mut random.fork("labels"));
    json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "labels": labels},
        "spec": spec,
        "status": {},
    })
}

fn labels(random: &mut Random) -> Value {
    let mut all = Map::new();
    if random.percent(80) {
        all.insert("app".to_owned(), json!(random.pick(&["web", "db", ""])));
    }
    if random.percent(50) {
        all.insert("tier".to_owned(), json!(random.pick(&["front", "back"])));
    }
    if random.percent(40) {
        all.insert("rev".to_owned(), json!(random.pick(&["1", "2"])));
    }
    Value::Object(all)
}

fn container(random: &mut Random, name: &str) -> Value {
    let mut all = Map::new();
    all.insert("name".to_owned(), json!(name));
    all.insert("image".to_owned(), json!(random.pick(&node::IMAGES).trim_end_matches(":latest")));
    if let Some(requests) = resources::requests(random) {
        all.insert("resources".to_owned(), json!({"requests": requests}));
    }
    if random.percent(15) {
        let ports: Vec<Value> = (0..1 + random.below(2)).map(|_| port(random)).collect();
        all.insert("ports".to_owned(), json!(ports));
    }
    Value::Object(all)
}

fn init_container(random: &mut Random, name: &str) -> Value {
    let mut container = container(random, name);
    if random.percent(50) {
        container["restartPolicy"] = json!("Always");
    }
    container
}

fn port(random: &mut Random) -> Value {
    let host_port = *random.pick(&[0, 80, 80, 443, 8080]);
    json!({"containerPort": 80, "hostPort": host_port, "hostIP": random.pick(&HOST_IPS), "protocol": random.pick(&PROTOCOLS)})
}

/// A resize in place: what the spec wants, what the kubelet admitted and what runs differ.
fn resize(random: &mut Random, pod: &mut Value) {
    let reason = *random.pick(&["Infeasible", "Deferred", ""]);
    if !reason.is_empty() {
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
    }
    for (list, statuses) in [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")] {
        let names: Vec<Value> = pod["spec"][list].as_array().into_iter().flatten().map(|c| c["name"].clone()).collect();
        let all: Vec<Value> = names.into_iter().map(|name| container_status(random, &name)).collect();
        if !all.is_empty() {
            pod["status"][statuses] = json!(all);
        }
    }
    if random.percent(20) {
        put(&mut pod["status"], "allocatedResources", resources::pod_level(random));
    }
    if random.percent(20) {
        put_requests(&mut pod["status"], resources::pod_level(random));
    }
}

fn container_status(random: &mut Random, name: &Value) -> Value {
    let mut status = json!({"name": name});
    if random.percent(70) {
        put(&mut status, "allocatedResources", Value::Object(resources::cpu_and_memory(random)));
    }
    if random.percent(70) {
        put_requests(&mut status, Value::Object(resources::cpu_and_memory(random)));
    }
    status
}

/// Sets a map of amounts; the API server leaves out empty ones.
fn put(of: &mut Value, key: &str, amounts: Value) {
    if amounts.as_object().is_some_and(|amounts| !amounts.is_empty()) {
        of[key] = amounts;
    }
}

fn put_requests(status: &mut Value, amounts: Value) {
    status["resources"] = json!({});
    put(&mut status["resources"], "requests", amounts);
}
