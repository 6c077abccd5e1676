//! What becomes of whole objects, as the API server sends them.

use super::*;
use flowforge_scheduler_core::model::Resources;
use serde_json::{Value, json};

fn pod_of(value: Value) -> PodInfo {
    let raw: types::Pod = serde_json::from_value(value).expect("a pod");
    pod(&raw, |name| name == "flowforge")
}

#[test]
fn a_full_pod_keeps_what_scheduling_uses_and_skips_the_rest() {
    let info = pod_of(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "train-0", "namespace": "team", "uid": "u1", "resourceVersion": "42",
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": null,
            "labels": {"flowforge.dev/gang": "train", "flowforge.dev/rank": "3", "app": "x"},
            "annotations": {
                "flowforge.dev/gang-size": " 4 ", "flowforge.dev/topology-required": "rack",
                "flowforge.dev/topology-preferred": "nvlink, host,", "kubectl.kubernetes.io/last-applied": "{}",
            },
            "managedFields": [{"fieldsV1": {"f:spec": {}}}],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "ou"},
                {"apiVersion": "flowforge.dev/v1alpha1", "kind": "Gang", "name": "train", "uid": "gu", "controller": true},
            ],
        },
        "spec": {
            "schedulerName": "flowforge", "priority": 7, "nodeName": "",
            "schedulingGates": [{"name": "wait"}],
            "nodeSelector": {"a": "b"},
            "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["v"]}],
                     "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
                ]},
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 5, "preference": {"matchExpressions": [{"key": "k", "operator": "Frob", "values": ["v"]}]}},
                ],
            }},
            "tolerations": [{"key": "t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}, {"operator": "Exists"}],
            "initContainers": [
                {"name": "i", "ports": [{"hostPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"hostPort": 2, "protocol": "UDP"}]},
            ],
            "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}, {"hostPort": 3, "hostIP": "127.0.0.1", "protocol": "TCP"}]}],
        },
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
        ]},
    }));
    assert_eq!(info.key, PodKey { namespace: "team".into(), name: "train-0".into(), uid: "u1".into() });
    assert_eq!((info.resource_version.as_str(), info.priority, info.created_at_ms), ("42", 7, 1_767_323_045_000));
    assert!(info.ours && info.gated && !info.deleting && info.node_name.is_none());
    let gang = info.gang.expect("a member");
    assert_eq!(
        (gang.name.as_str(), gang.size, gang.rank, gang.role.as_str()),
        ("train", Some(Ok(4)), Some(3), "worker")
    );
    assert_eq!((gang.topology_required.as_deref(), gang.topology_preferred.len()), (Some("rack"), 2));
    assert_eq!(info.owner.expect("the controller").kind, "Gang");
    let required = info.required_node_affinity.expect("required");
    assert_eq!(required[0].match_expressions[0].operator, NodeOperator::NotIn);
    assert_eq!(required[0].match_fields[0].values, ["n1"]);
    let (weight, preferred) = &info.preferred_node_affinity[0];
    assert_eq!((*weight, preferred.match_expressions[0].values.len()), (5, 0), "an unknown operator matches nothing");
    assert_eq!(info.tolerations[0].effect, Some(TaintEffect::NoExecute));
    assert!(info.tolerations[1].exists && info.tolerations[1].key.is_empty());
    assert_eq!(info.host_ports.iter().map(|port| port.port).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(info.scheduled_condition, Some(("Unschedulable".into(), "0/3 nodes".to_owned())));
}

#[test]
fn a_bound_pod_of_another_scheduler_is_seen_as_such() {
    let info = pod_of(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"schedulerName": "default-scheduler", "nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    }));
    assert!(!info.ours && info.deleting);
    assert_eq!(
        (info.node_name.as_deref(), info.phase, info.scheduled_condition),
        (Some("n1"), PodPhase::Running, None)
    );
}

#[test]
fn a_gang_size_that_is_no_number_is_kept_for_the_refusal() {
    for bad in ["0", "-1", "four", "", "4294967296"] {
        let info = pod_of(json!({"metadata": {
            "labels": {"flowforge.dev/gang": "g"}, "annotations": {"flowforge.dev/gang-size": bad},
        }}));
        assert_eq!(info.gang.expect("a member").size, Some(Err(bad.into())));
    }
    let info = pod_of(json!({"metadata": {"labels": {"flowforge.dev/gang": ""}}}));
    assert_eq!(info.gang, None, "an empty label names no gang");
}

#[test]
fn a_node_keeps_its_labels_taints_and_allocatable() {
    let raw: types::Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "uid": "u", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"unschedulable": true, "taints": [
            {"key": "k", "effect": "NoSchedule"}, {"key": "odd", "effect": "Sometimes"},
        ]},
        "status": {"allocatable": {"cpu": "191500m", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8", "storage": "1"},
                   "images": [{"names": ["x"]}]},
    }))
    .expect("a node");
    let info = node(&raw);
    assert!(info.unschedulable);
    assert_eq!(info.taints.len(), 1);
    let expected: Resources = [("cpu", 191_500), ("memory", 2 << 40), ("nvidia.com/gpu", 8), ("pods", 110)]
        .into_iter()
        .map(|(name, amount)| (SmolStr::from(name), amount))
        .collect();
    assert_eq!(info.allocatable, expected);
}

#[test]
fn a_gang_is_closed_when_it_ended_or_is_deleted_and_ignored_when_foreign() {
    let raw = |phase: Value, deleted: Value, managed: Value| -> types::Gang {
        serde_json::from_value(json!({
            "metadata": {"name": "g", "namespace": "n", "uid": "u", "deletionTimestamp": deleted},
            "spec": {"minMember": 3, "roles": [{"name": "worker", "replicas": 4, "min": 3}, {"name": "ps", "replicas": 1}],
                     "topology": {"required": "rack"}, "managedBy": managed, "holdSeconds": 2},
            "status": {"phase": phase},
        }))
        .expect("a gang")
    };
    let open = gang(&raw(Value::Null, Value::Null, Value::Null)).expect("ours");
    assert!(!open.closed);
    assert_eq!((open.min_member, open.roles[0].min, open.roles[1].min, open.hold_ms), (3, 3, 1, 2_000));
    assert!(gang(&raw(json!("Failed"), Value::Null, Value::Null)).expect("ours").closed);
    assert!(gang(&raw(json!("Running"), json!("2026-01-02T03:04:05Z"), Value::Null)).expect("ours").closed);
    assert!(gang(&raw(Value::Null, Value::Null, json!("PyTorchJob"))).is_none());
}

#[test]
fn odd_objects_do_no_harm() {
    for odd in [
        json!({}),
        json!({"spec": {"containers": [{"ports": [{"hostPort": 1}]}]}}),
        json!({"metadata": {"annotations": null}}),
    ] {
        let _ = pod_of(odd);
    }
    assert!(
        serde_json::from_value::<types::Pod>(
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "lots"}}}]}})
        )
        .is_err()
    );
}
