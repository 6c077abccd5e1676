//! Clusters that are full, and a pod that is more important than some who are there: priorities, starts, budgets, promises,
//! pods that are going already.

use super::{NAMESPACES, node, pod};
use crate::random::Random;
use serde_json::{Map, Value, json};

/// Priorities of pods on nodes.
const PLACED: [i32; 7] = [-10, 0, 0, 1, 5, 5, 1_000];
/// Priorities of the pod that asks.
const ASKING: [i32; 5] = [0, 1, 6, 100, 2_000];

/// The case of a seed, of at most 100 nodes.
#[must_use]
pub(crate) fn case(seed: u64) -> Value {
    let random = Random::new(seed);
    let mut sizes = random.fork("sizes");
    let nodes = if sizes.percent(10) { 1 + sizes.below(100) } else { 1 + sizes.below(9) };
    let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
    let all: Vec<Value> = names.iter().map(|name| full(&random, name)).collect();
    let mut placed = Vec::new();
    for name in &names {
        for i in 0..1 + sizes.below(6) {
            let mut made = running(&random.fork(&format!("pod {name} {i}")), &format!("{name}-{i}"), name);
            if i > 0 {
                close_ports(&mut made);
            }
            placed.push(made);
        }
    }
    let mut wishes = random.fork("preemptor");
    let mut asking = asking(&random.fork("incoming"), &names);
    asking["spec"]["priority"] = json!(wishes.pick(&ASKING));
    if has_hard_spread(&mut asking) {
        placed.iter_mut().filter_map(|pod| pod["metadata"].as_object_mut()).for_each(|meta| {
            meta.remove("deletionTimestamp");
        });
    }
    if wishes.percent(4) {
        asking["spec"]["preemptionPolicy"] = json!("Never");
    }
    if wishes.percent(10) {
        asking["status"]["nominatedNodeName"] = json!(wishes.pick(&names));
    }
    let waiting: Vec<Value> = (0..sizes.below(4).saturating_sub(1))
        .map(|i| promised(&random.fork(&format!("waiting {i}")), &format!("waiting-{i}"), &names))
        .collect();
    let mut budgets = random.fork("budgets");
    let namespaces: Vec<Value> = NAMESPACES.iter().map(|name| super::namespace(name)).collect();
    json!({
        "preempt": true, "pod": asking, "nodes": all, "pods": placed, "namespaces": namespaces, "waiting": waiting,
        "podDisruptionBudgets": self::budgets(&mut budgets, &placed),
    })
}

/// A node with little room.
fn full(random: &Random, name: &str) -> Value {
    let mut made = node::node(random, name);
    let mut room = random.fork(&format!("room {name}"));
    made["status"]["allocatable"]["cpu"] = json!(room.pick(&["1", "2", "4", "8"]));
    made["status"]["allocatable"]["memory"] = json!(room.pick(&["1Gi", "2Gi", "4Gi", "16Gi"]));
    made["status"]["allocatable"]["pods"] = json!(room.pick(&["2", "4", "8", "110"]));
    made
}

/// One pod of a node at most has host ports: where two have the same, which no scheduler lets happen, kube-scheduler takes
/// the port for free when one of them leaves.
fn close_ports(pod: &mut Value) {
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.remove("ports");
        }
    }
}

/// A pod that runs, or is about to.
fn running(random: &Random, name: &str, node: &str) -> Value {
    let mut made = pod::placed(random, name, node);
    let mut state = random.fork("importance");
    made["spec"]["priority"] = json!(state.pick(&PLACED));
    if made["status"]["phase"] == "Succeeded" || made["status"]["phase"] == "Failed" {
        made["status"]["phase"] = json!("Running");
    }
    let (day, seconds) = (1 + state.below(28), state.below(86_400));
    let at = format!("2026-01-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    made["status"]["startTime"] = json!(at);
    if made["metadata"].get("deletionTimestamp").is_some() && state.percent(50) {
        let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
        match made["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.push(target),
            None => made["status"]["conditions"] = json!([target]),
        }
    }
    made
}

/// The pod that asks; most of them would take any node.
fn asking(random: &Random, nodes: &[String]) -> Value {
    let mut made = pod::incoming(random, nodes);
    let mut wishes = random.fork("modesty");
    if wishes.percent(75) {
        made["spec"]["nodeSelector"] = json!({});
        if let Some(affinity) = made["spec"].get_mut("affinity").and_then(Value::as_object_mut) {
            affinity.remove("nodeAffinity");
        }
    }
    if wishes.percent(75) {
        made["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    }
    if wishes.percent(60) {
        for list in ["containers", "initContainers"] {
            let containers = made["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                container["resources"] = json!({"requests": {"cpu": wishes.pick(&["250m", "500m", "1", "2"])}});
            }
        }
        if let Some(spec) = made["spec"].as_object_mut() {
            spec.remove("resources");
        }
    }
    made
}

/// Whether the pod has hard spread constraints, which get a selector that selects somebody. Who is evicted on trial is
/// counted out of a constraint by kube-scheduler whether or not it was counted in, as pods that are being deleted and those
/// of an empty selector are not: where it goes wrong, there is nothing to compare.
fn has_hard_spread(pod: &mut Value) -> bool {
    let mut any = false;
    let constraints = pod["spec"].get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        if constraint["whenUnsatisfiable"] == "DoNotSchedule" {
            any = true;
            constraint["labelSelector"] = json!({"matchLabels": {"app": "web"}});
        }
    }
    any
}

/// A pod that waits for a node that it was promised. It forbids nobody its place: kube-scheduler looks at what such a pod
/// forbids only when the pod that asks has rules of its own or is forbidden a place by a pod on a node, FlowForge always.
fn promised(random: &Random, name: &str, nodes: &[String]) -> Value {
    let mut made = asking(random, nodes);
    let mut state = random.fork("promise");
    made["metadata"]["name"] = json!(name);
    made["metadata"]["uid"] = json!(format!("uid-{name}"));
    made["spec"]["priority"] = json!(state.pick(&ASKING));
    made["spec"]["schedulerName"] = json!(state.pick(&["flowforge", "default-scheduler"]));
    made["status"]["nominatedNodeName"] = json!(state.pick(nodes));
    if let Some(affinity) = made["spec"].get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("podAntiAffinity");
    }
    made
}

fn budgets(random: &mut Random, placed: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    for namespace in NAMESPACES {
        for i in 0..random.below(3) {
            let selector = match random.below(6) {
                0 => Value::Null,
                1 => json!({}),
                2 => json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
                _ => json!({"matchLabels": {"app": random.pick(&["web", "db"])}}),
            };
            let mut disrupted = Map::new();
            if random.percent(20)
                && let Some(name) = random.pick(placed)["metadata"]["name"].as_str()
            {
                disrupted.insert(name.to_owned(), json!("2026-01-02T03:04:05Z"));
            }
            all.push(json!({
                "metadata": {"name": format!("budget-{i}"), "namespace": namespace},
                "spec": {"selector": selector},
                "status": {"disruptionsAllowed": random.below(3), "disruptedPods": disrupted},
            }));
        }
    }
    all
}
