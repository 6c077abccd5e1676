//! Configurations of the scheduler: weights, plugins left out, every scoring strategy, every argument that decides.
//!
//! There are a few dozen, because kube-scheduler takes long to make one; each has a random part of everything.

use super::NODE_KEYS;
use crate::random::Random;
use serde_json::{Map, Value, json};

/// How many there are.
const CONFIGURATIONS: usize = 96;

const RESOURCES: [&str; 7] =
    ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "example.com/nic", "hugepages-2Mi", "example.com/absent"];
const SCORES: [&str; 7] = [
    "TaintToleration",
    "NodeAffinity",
    "NodeResourcesFit",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
    "PodTopologySpread",
    "InterPodAffinity",
];
const FILTERS: [&str; 8] = [
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "PodTopologySpread",
    "InterPodAffinity",
    "NodeDeclaredFeatures",
];

/// Plugins of storage and devices, in the default order. Whoever prepares something goes as a whole.
const PREPARED: [&str; 5] =
    ["VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone", "DynamicResources"];

/// A KubeSchedulerConfiguration with one profile, or none: the default.
pub(super) fn configuration(random: &mut Random) -> Option<Value> {
    if random.percent(50) {
        return None;
    }
    let random = Random::new(random.below(CONFIGURATIONS) as u64);
    let mut plugins = plugins(&mut random.fork("plugins"));
    prepared(&mut random.fork("storage and devices"), &mut plugins);
    Some(json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{
            "schedulerName": "flowforge",
            "plugins": plugins,
            "pluginConfig": arguments(&random),
        }],
    }))
}

fn named(names: &[&&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

fn plugins(random: &mut Random) -> Value {
    let mut all = Map::new();
    let mut nowhere = Vec::new();
    if random.percent(40) {
        nowhere = random.some(&FILTERS, 15);
        all.insert("multiPoint".to_owned(), json!({"disabled": named(&nowhere)}));
    } else if random.percent(30) {
        all.insert(
            "filter".to_owned(),
            json!({"disabled": named(&random.some(&["NodeResourcesFit", "NodePorts"], 50))}),
        );
    }
    let weighted = random.some(&SCORES, 30);
    // What is off everywhere has no PreScore, which its score would need.
    let weighted: Vec<Value> = weighted
        .into_iter()
        .filter(|name| !nowhere.contains(name))
        .map(|name| match random.below(4) {
            0 => json!({"name": name}),
            _ => json!({"name": name, "weight": random.below(20)}),
        })
        .collect();
    let off = if random.percent(10) { json!([{"name": "*"}]) } else { named(&random.some(&SCORES, 15)) };
    all.insert("score".to_owned(), json!({"enabled": weighted, "disabled": off}));
    Value::Object(all)
}

/// Some configurations leave out plugins of storage and devices, some have hardly any other, some weigh their scores.
fn prepared(random: &mut Random, plugins: &mut Value) {
    match random.below(6) {
        0 | 1 => {
            let left_out = random.some(&PREPARED, 35);
            extend(plugins, "/multiPoint/disabled", left_out.iter().map(|name| json!({"name": name})));
            weigh(random, plugins, &left_out);
        }
        2 => {
            // In the default order, which decides whose reason is told.
            let kept = random.some(&PREPARED, 60);
            let others = random.some(&["TaintToleration", "NodeResourcesFit"], 50);
            let all = ["PrioritySort"].iter().chain(others).chain(kept.iter().copied()).chain(&["DefaultBinder"]);
            let enabled: Vec<Value> = all.map(|name| json!({"name": name})).collect();
            *plugins = json!({"multiPoint": {"disabled": [{"name": "*"}], "enabled": enabled}});
            let left_out: Vec<&&str> = PREPARED.iter().filter(|name| !kept.contains(name)).collect();
            weigh(random, plugins, &left_out);
        }
        3 => weigh(random, plugins, &[]),
        _ => {}
    }
}

/// Weights of the scores of volumes and devices, or their scores are off.
fn weigh(random: &mut Random, plugins: &mut Value, left_out: &[&&str]) {
    for name in ["VolumeBinding", "DynamicResources"] {
        if left_out.iter().any(|left_out| **left_out == name) {
            continue;
        }
        match random.below(4) {
            0 => extend(plugins, "/score/disabled", [json!({"name": name})]),
            1 | 2 => extend(plugins, "/score/enabled", [json!({"name": name, "weight": 1 + random.below(20)})]),
            _ => {}
        }
    }
}

/// Adds to a list of plugins that may not be there yet.
fn extend(plugins: &mut Value, list: &str, with: impl IntoIterator<Item = Value>) {
    let list = list.trim_start_matches('/').split('/').fold(plugins, |at, key| &mut at[key]);
    match list {
        Value::Array(all) => all.extend(with),
        absent => *absent = with.into_iter().collect(),
    }
}

fn arguments(random: &Random) -> Value {
    let mut all = Vec::new();
    let mut configure = |name: &str, percent, args: &dyn Fn(&mut Random) -> Value| {
        let mut random = random.fork(name);
        if random.percent(percent) {
            all.push(json!({"name": name, "args": args(&mut random)}));
        }
    };
    configure("NodeResourcesFit", 80, &fit);
    configure("NodeResourcesBalancedAllocation", 50, &|random| json!({"resources": resources(random, 1)}));
    configure("NodeAffinity", 40, &added_affinity);
    configure("PodTopologySpread", 50, &spread);
    configure("InterPodAffinity", 50, &|random| {
        json!({
            "hardPodAffinityWeight": random.pick(&[0, 1, 7, 100]),
            "ignorePreferredTermsOfExistingPods": random.percent(50),
        })
    });
    configure("VolumeBinding", 50, &|random| json!({"shape": shape(random)}));
    json!(all)
}

/// Some resources, each once, with weights up to the largest.
fn resources(random: &mut Random, largest: usize) -> Value {
    let some = random.some(&RESOURCES, 40);
    some.into_iter().map(|name| json!({"name": name, "weight": random.below(largest + 1)})).collect()
}

fn fit(random: &mut Random) -> Value {
    let strategy = random.word(&["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]);
    let mut scoring = json!({"type": strategy, "resources": resources(random, 10)});
    if strategy == "RequestedToCapacityRatio" {
        scoring["requestedToCapacityRatio"] = json!({"shape": shape(random)});
    }
    json!({
        "scoringStrategy": scoring,
        "ignoredResources": random.some(&["nvidia.com/gpu", "example.com/absent", "cpu", "hugepages-2Mi"], 20),
        "ignoredResourceGroups": random.some(&["example.com", "nvidia.com"], 15),
    })
}

/// A line through some points.
fn shape(random: &mut Random) -> Vec<Value> {
    let mut at: Vec<usize> = (0..1 + random.below(4)).map(|_| random.below(101)).collect();
    at.sort_unstable();
    at.dedup();
    at.into_iter().map(|at| json!({"utilization": at, "score": random.below(11)})).collect()
}

fn added_affinity(random: &mut Random) -> Value {
    let mut added = Map::new();
    if random.percent(60) {
        let terms: Vec<Value> = (0..1 + random.below(2)).map(|_| term(random)).collect();
        added.insert("requiredDuringSchedulingIgnoredDuringExecution".to_owned(), json!({"nodeSelectorTerms": terms}));
    }
    if random.percent(60) {
        let terms: Vec<Value> = (0..1 + random.below(2))
            .map(|_| json!({"weight": 1 + random.below(100), "preference": term(random)}))
            .collect();
        added.insert("preferredDuringSchedulingIgnoredDuringExecution".to_owned(), json!(terms));
    }
    json!({"addedAffinity": added})
}

fn term(random: &mut Random) -> Value {
    if random.percent(15) {
        let node = format!("node-{}", random.below(4));
        let operator = random.word(&["In", "NotIn"]);
        return json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": [node]}]});
    }
    let key = *random.pick(&NODE_KEYS);
    let expression = match random.below(4) {
        0 => json!({"key": key, "operator": "Exists"}),
        1 => json!({"key": key, "operator": "DoesNotExist"}),
        2 => json!({"key": key, "operator": "NotIn", "values": [super::node::label_value(random, key)]}),
        _ => json!({"key": key, "operator": "In", "values": [super::node::label_value(random, key)]}),
    };
    json!({"matchExpressions": [expression]})
}

fn spread(random: &mut Random) -> Value {
    if random.percent(20) {
        return json!({"defaultingType": "System"});
    }
    let mut constraints = Vec::new();
    for key in ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "pool"] {
        for action in ["DoNotSchedule", "ScheduleAnyway"] {
            if random.percent(30) {
                let mut constraint =
                    json!({"maxSkew": 1 + random.below(3), "topologyKey": key, "whenUnsatisfiable": action});
                if random.percent(30) {
                    constraint["nodeTaintsPolicy"] = json!(random.pick(&["Honor", "Ignore"]));
                }
                if action == "DoNotSchedule" && random.percent(30) {
                    constraint["minDomains"] = json!(1 + random.below(4));
                }
                constraints.push(constraint);
            }
        }
    }
    json!({"defaultingType": "List", "defaultConstraints": constraints})
}
