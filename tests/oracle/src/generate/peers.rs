//! What pods say about other pods: affinity, anti-affinity, spread; and the Services and controllers that select them.

use super::NAMESPACES;
use crate::random::Random;
use serde_json::{Map, Value, json};

/// Keys that make places of nodes; no node has the last.
const PLACES: [&str; 6] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
    "pool",
    "example.com/empty",
    "example.com/rack",
];
const LABELS: [(&str, [&str; 2]); 3] = [("app", ["web", "db"]), ("tier", ["front", "back"]), ("rev", ["1", "2"])];
/// Selects by namespace labels; see [`super::namespace`].
const TEAMS: [&str; 3] = ["a", "b", "none"];

/// Adds affinity to pods to `spec.affinity`, each kind of term in this many of a hundred pods.
pub(super) fn affinity(random: &mut Random, spec: &mut Value, percent: usize) {
    for (kind, field) in [("affinity", "podAffinity"), ("anti", "podAntiAffinity")] {
        let mut random = random.fork(kind);
        let mut all = Map::new();
        if random.percent(percent) {
            let terms: Vec<Value> = (0..1 + random.below(2)).map(|_| term(&mut random)).collect();
            all.insert("requiredDuringSchedulingIgnoredDuringExecution".to_owned(), json!(terms));
        }
        if random.percent(percent) {
            let preferred: Vec<Value> = (0..1 + random.below(3))
                .map(|_| json!({"weight": 1 + random.below(100), "podAffinityTerm": term(&mut random)}))
                .collect();
            all.insert("preferredDuringSchedulingIgnoredDuringExecution".to_owned(), json!(preferred));
        }
        if !all.is_empty() {
            spec["affinity"][field] = Value::Object(all);
        }
    }
}

fn term(random: &mut Random) -> Value {
    let mut all = Map::new();
    all.insert("topologyKey".to_owned(), json!(random.pick(&PLACES)));
    if random.percent(92) {
        all.insert("labelSelector".to_owned(), selector(random));
    }
    if random.percent(30) {
        let named = random.some(&NAMESPACES, 50);
        all.insert("namespaces".to_owned(), json!(named));
    }
    if random.percent(30) {
        let team = json!({"key": "team", "operator": random.pick(&["In", "NotIn"]), "values": [random.pick(&TEAMS)]});
        let by_label = match random.below(4) {
            0 => json!({}),
            1 => json!({"matchLabels": {"team": random.pick(&TEAMS)}}),
            2 => json!({"matchExpressions": [{"key": "absent", "operator": "DoesNotExist"}]}),
            _ => json!({"matchExpressions": [team]}),
        };
        all.insert("namespaceSelector".to_owned(), by_label);
    }
    Value::Object(all)
}

fn selector(random: &mut Random) -> Value {
    let mut all = Map::new();
    if random.percent(60) {
        let (key, values) = random.pick(&LABELS);
        all.insert("matchLabels".to_owned(), json!({*key: random.pick(values)}));
    }
    if random.percent(40) {
        let (key, values) = random.pick(&LABELS);
        let operator = *random.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
        let values: Vec<&&str> = if operator.ends_with("In") { random.some(values, 60) } else { Vec::new() };
        if operator.ends_with("Exist") || operator == "Exists" || !values.is_empty() {
            all.insert("matchExpressions".to_owned(), json!([{"key": key, "operator": operator, "values": values}]));
        }
    }
    Value::Object(all)
}

/// `spec.topologySpreadConstraints`.
pub(super) fn spread(random: &mut Random) -> Vec<Value> {
    if !random.percent(35) {
        return Vec::new();
    }
    (0..1 + random.below(3)).map(|_| constraint(random)).collect()
}

fn constraint(random: &mut Random) -> Value {
    let hard = random.percent(55);
    let mut all = Map::new();
    all.insert("maxSkew".to_owned(), json!(1 + random.below(3)));
    all.insert("topologyKey".to_owned(), json!(random.pick(&PLACES)));
    all.insert("whenUnsatisfiable".to_owned(), json!(if hard { "DoNotSchedule" } else { "ScheduleAnyway" }));
    if random.percent(92) {
        all.insert("labelSelector".to_owned(), selector(random));
    }
    if random.percent(25) {
        all.insert("matchLabelKeys".to_owned(), json!(random.some(&["rev", "tier", "absent"], 50)));
    }
    if hard && random.percent(30) {
        all.insert("minDomains".to_owned(), json!(1 + random.below(4)));
    }
    for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        if random.percent(40) {
            all.insert(policy.to_owned(), json!(random.pick(&["Honor", "Ignore"])));
        }
    }
    Value::Object(all)
}

/// Services and controllers, some of which select the pod that asks, and perhaps one of them as its owner.
pub(super) fn owners(random: &mut Random, case: &mut Value) {
    let namespace = case["pod"]["metadata"]["namespace"].clone();
    let somewhere = |random: &mut Random| {
        if random.percent(70) { namespace.clone() } else { json!(random.pick(&NAMESPACES)) }
    };
    let services: Vec<Value> = (0..random.below(3))
        .map(|i| {
            let meta = json!({"name": format!("service-{i}"), "namespace": somewhere(random)});
            let selector = match random.below(10) {
                0 => Value::Null,
                1 => json!({}),
                _ => labels(random),
            };
            json!({"metadata": meta, "spec": {"selector": selector}})
        })
        .collect();
    case["services"] = json!(services);
    if !random.percent(40) {
        return;
    }
    let kinds = [
        ("replicationControllers", "v1", "ReplicationController"),
        ("replicaSets", "apps/v1", "ReplicaSet"),
        ("statefulSets", "apps/v1", "StatefulSet"),
        ("jobs", "batch/v1", "Job"),
    ];
    let (list, api_version, kind) = *random.pick(&kinds);
    case["pod"]["metadata"]["ownerReferences"] = json!([{"apiVersion": api_version, "kind": kind, "name": "owner", "uid": "uid-owner", "controller": random.percent(90)}]);
    if list != "jobs" && random.percent(85) {
        let selects = if list == "replicationControllers" { labels(random) } else { selector(random) };
        let meta = json!({"name": "owner", "namespace": namespace});
        case[list] = json!([{"metadata": meta, "spec": {"selector": selects}}]);
    }
}

fn labels(random: &mut Random) -> Value {
    let (key, values) = random.pick(&LABELS);
    json!({*key: random.pick(values)})
}
