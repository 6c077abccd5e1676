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

/// A KubeSchedulerConfiguration with one profile, or none: the default.
pub(super) fn configuration(random: &mut Random) -> Option<Value> {
    if random.percent(50) {
        return None;
    }
    let random = Random::new(random.below(CONFIGURATIONS) as u64);
    Some(json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{
            "schedulerName": "flowforge",
            "plugins": plugins(&mut random.fork("plugins")),
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
        let mut at: Vec<usize> = (0..1 + random.below(4)).map(|_| random.below(101)).collect();
        at.sort_unstable();
        at.dedup();
        let shape: Vec<Value> =
            at.into_iter().map(|at| json!({"utilization": at, "score": random.below(11)})).collect();
        scoring["requestedToCapacityRatio"] = json!({"shape": shape});
    }
    json!({
        "scoringStrategy": scoring,
        "ignoredResources": random.some(&["nvidia.com/gpu", "example.com/absent", "cpu", "hugepages-2Mi"], 20),
        "ignoredResourceGroups": random.some(&["example.com", "nvidia.com"], 15),
    })
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
