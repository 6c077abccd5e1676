//! Nodes: labels that may be missing, taints of every effect, allocatable amounts in every notation.

use super::NODE_KEYS;
use super::resources;
use crate::random::Random;
use serde_json::{Map, Value, json};

const TAINT_KEYS: [&str; 4] = ["gpu", "dedicated", "node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready"];
const TAINT_VALUES: [&str; 3] = ["", "yes", "ml"];
/// Effects of taints.
pub(super) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// Features that kubelets declare; no pod needs the last.
const FEATURES: [&str; 4] = [
    "RestartAllContainersOnContainerExits",
    "UserNamespacesHostNetworkSupport",
    "VolumeBindMountOptions",
    "ExtendWebSocketsToKubelet",
];
/// Images that nodes have and containers run.
pub(super) const IMAGES: [&str; 5] = [
    "registry.example/train:v1",
    "registry.example/train:v2",
    "registry.example/base",
    "busybox:latest",
    "tool@sha256:00",
];
const IMAGE_BYTES: [u64; 6] = [0, 1 << 10, 30 << 20, 400 << 20, 900 << 20, 12_000_000_000];

pub(super) fn node(random: &Random, name: &str) -> Value {
    let random = random.fork(name);
    let mut facts = random.fork("facts");
    let mut labels = Map::new();
    if facts.percent(95) {
        labels.insert("kubernetes.io/hostname".to_owned(), json!(name));
    }
    for key in NODE_KEYS {
        if facts.percent(80) {
            labels.insert(key.to_owned(), json!(label_value(&mut facts, key)));
        }
    }
    let taints: Vec<Value> = (0..facts.below(5).saturating_sub(2)).map(|_| taint(&mut facts)).collect();
    let declared = random.fork("features").some(&FEATURES, 60);
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": labels},
        "spec": {"unschedulable": facts.percent(8), "taints": taints},
        "status": {"allocatable": resources::allocatable(&mut random.fork("allocatable")), "images": images(&mut random.fork("images")), "declaredFeatures": declared},
    })
}

pub(super) fn label_value(random: &mut Random, key: &str) -> &'static str {
    match key {
        "topology.kubernetes.io/zone" => random.word(&["zone-a", "zone-b", "zone-c"]),
        "pool" => random.word(&["train", "serve", ""]),
        "size" => random.word(&["8", "16", "3", "007", "big", "9223372036854775808"]),
        _ => "",
    }
}

fn taint(random: &mut Random) -> Value {
    let (key, value, effect) = (random.pick(&TAINT_KEYS), random.pick(&TAINT_VALUES), random.pick(&EFFECTS));
    json!({"key": key, "value": value, "effect": effect})
}

/// Tolerations that meet the taints above now and then.
pub(super) fn toleration(random: &mut Random) -> Value {
    let effect = *random.pick(&["", "NoSchedule", "PreferNoSchedule", "NoExecute"]);
    match random.below(10) {
        0 => json!({"operator": "Exists", "effect": effect}),
        1..=4 => json!({"key": random.pick(&TAINT_KEYS), "operator": "Exists", "effect": effect}),
        other => {
            let operator = if other == 5 { "" } else { "Equal" };
            json!({"key": random.pick(&TAINT_KEYS), "operator": operator, "value": random.pick(&TAINT_VALUES), "effect": effect})
        }
    }
}

fn images(random: &mut Random) -> Vec<Value> {
    let kept = random.some(&IMAGES, 40);
    kept.into_iter().map(|name| json!({"names": [name], "sizeBytes": random.pick(&IMAGE_BYTES)})).collect()
}
