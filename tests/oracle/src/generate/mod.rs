//! Random clusters and pods, as the JSON that both sides read.
//!
//! Dense enough that each rule both refuses and passes, small enough to read when the sides disagree: few names, so that
//! they collide, and the odd corners that the API server lets through.

mod affinity;
mod choice;
mod devices;
mod extended;
mod node;
mod peers;
mod pod;
pub(crate) mod preempt;
mod profile;
mod resources;
mod volumes;

use crate::random::Random;
use serde_json::{Value, json};

/// Label keys of nodes; the hostname label comes on top.
pub(crate) const NODE_KEYS: [&str; 4] = ["topology.kubernetes.io/zone", "pool", "size", "example.com/empty"];

/// The namespaces of a case.
pub(crate) const NAMESPACES: [&str; 3] = ["default", "team-a", "team-b"];

/// The case of a seed: a cluster, and a pod that asks for a place.
#[must_use]
pub(crate) fn case(seed: u64) -> Value {
    let random = Random::new(seed);
    let mut sizes = random.fork("sizes");
    // One case in a hundred has no node.
    let nodes = if sizes.percent(1) { 0 } else { 1 + sizes.below(10) };
    let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
    let all: Vec<Value> = names.iter().map(|name| node::node(&random, name)).collect();
    let mut placed = Vec::new();
    for name in &names {
        for i in 0..sizes.below(5) {
            placed.push(pod::placed(&random.fork(&format!("pod {name} {i}")), &format!("{name}-{i}"), name));
        }
    }
    if sizes.percent(5) {
        placed.push(pod::placed(&random.fork("stray"), "stray", "no-such-node"));
    }
    let namespaces: Vec<Value> = NAMESPACES.iter().map(|name| namespace(name)).collect();
    let pod = pod::incoming(&random.fork("incoming"), &names);
    let mut case = json!({"pod": pod, "nodes": all, "pods": placed, "namespaces": namespaces});
    peers::owners(&mut random.fork("owners"), &mut case);
    if sizes.percent(35) {
        devices::devices(&random.fork("devices"), &names, &mut case);
    }
    if let Some(configuration) = profile::configuration(&mut random.fork("profile")) {
        case["configuration"] = configuration;
    }
    volumes::storage(&random.fork("storage"), &names, &mut case);
    let mut choices = random.fork("choices");
    if case["resourceSlices"].is_array() && choices.percent(30) {
        choice::of_devices(&mut choices, &mut case);
    } else if choices.percent(7) {
        choice::of_volumes(&mut choices, &names, &mut case);
    }
    let mut used = random.fork("in use");
    if used.percent(12) {
        choice::in_use(&mut used, &mut case);
    }
    case
}

fn namespace(name: &str) -> Value {
    let team = name.strip_prefix("team-").unwrap_or("none");
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": team}}})
}
