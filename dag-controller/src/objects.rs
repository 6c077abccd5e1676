//! The Gang and the headless Service of an attempt.

use flowforge_api::gang::{Gang, GangRole, GangSpec};
use flowforge_api::names::{self, annotation, label};
use flowforge_api::workflow::{NodeRole, Workflow, WorkflowNode, WorkflowSpec};
use flowforge_dag_controller_core::retry::Plan;
use flowforge_dag_controller_core::role::WORKER;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use std::collections::BTreeMap;

use crate::convert::plan_annotations;
use crate::pods::{AttemptRef, MASTER_PORT, attempt_labels, gang_owner};

/// How long the resources of a failed attempt are kept for the next one.
const HOLD_SECONDS: i32 = 60;

/// The Gang of one attempt. Its creation is the claim on the attempt.
#[must_use]
pub fn gang(
    owner_uid: &str,
    namespace: &str,
    workflow: &str,
    spec: &WorkflowSpec,
    node: &WorkflowNode,
    name: &str,
    attempt: u32,
) -> Gang {
    let number = attempt.to_string();
    let labels: BTreeMap<String, String> = [
        (label::MANAGED_BY, names::MANAGED_BY_CONTROLLER),
        (label::WORKFLOW, workflow),
        (label::NODE, node.id.as_str()),
        (label::ATTEMPT, number.as_str()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    let defaults = &spec.defaults;
    let asked = node.gang.clone().unwrap_or_default();
    let priority =
        asked.priority_class_name.clone().or_else(|| node.overrides.priority_class_name.clone()).or_else(|| {
            let template = node.pod_template.as_ref();
            let stated = template.and_then(|t| t.pointer("/spec/priorityClassName")?.as_str().map(str::to_owned));
            stated.or_else(|| defaults.priority_class_name.clone())
        });
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![workflow_owner(workflow, owner_uid)]),
        ..ObjectMeta::default()
    };
    let roles = roles(node, asked.min_member);
    let least = roles.iter().fold(0i32, |sum, role| sum.saturating_add(role.min.unwrap_or(role.replicas)));
    let spec = GangSpec {
        min_member: least.max(1),
        roles,
        topology: node.placement().cloned(),
        queue: asked.queue,
        priority_class_name: priority,
        member_lost_policy: node.member_lost_policy.unwrap_or_default(),
        ..GangSpec::default()
    };
    Gang { metadata, spec, status: None }
}

/// The roles of a node as its Gang has them.
fn roles(node: &WorkflowNode, min_member: Option<i32>) -> Vec<GangRole> {
    if node.roles.is_empty() {
        let min = min_member.filter(|min| *min < node.replicas);
        return vec![GangRole { name: WORKER.to_owned(), replicas: node.replicas, min, topology: None }];
    }
    let role = |role: &NodeRole| GangRole {
        name: role.name.clone(),
        replicas: role.replicas,
        min: role.min,
        topology: role.topology.clone(),
    };
    node.roles.iter().map(role).collect()
}

/// Makes the Gang one that follows another attempt: what it was decided with, and whose freed resources are kept for it.
pub fn follow(gang: &mut Gang, plan: &Plan, replaces: Option<String>) {
    gang.metadata.annotations = Some(plan_annotations(plan));
    gang.spec.hold_seconds = replaces.is_some().then_some(HOLD_SECONDS);
    gang.spec.replaces = replaces;
}

fn workflow_owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: Workflow::api_version(&()).into_owned(),
        kind: Workflow::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The headless Service of one attempt: members resolve each other from the start, before they are ready.
#[must_use]
pub fn service(attempt: &AttemptRef, node: &str, name: &str) -> Service {
    let selector = BTreeMap::from([
        (label::GANG.to_owned(), attempt.gang.clone()),
        (label::MANAGED_BY.to_owned(), names::MANAGED_BY_CONTROLLER.to_owned()),
    ]);
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(attempt.namespace.clone()),
        labels: Some(attempt_labels(&attempt.workflow, node, attempt)),
        annotations: Some(BTreeMap::from([(annotation::GANG_UID.to_owned(), attempt.gang_uid.clone())])),
        owner_references: Some(vec![gang_owner(&attempt.gang, &attempt.gang_uid)]),
        ..ObjectMeta::default()
    };
    let port = ServicePort { name: Some("rendezvous".to_owned()), port: MASTER_PORT, ..ServicePort::default() };
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(selector),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gang_asks_for_all_of_its_members_and_belongs_to_its_workflow() {
        let node = WorkflowNode { id: "train".into(), replicas: 4, ..WorkflowNode::default() };
        let gang = gang("uid-1", "ns", "wf", &WorkflowSpec::default(), &node, "wf-train-1", 1);
        assert_eq!(gang.spec.min_member, 4);
        assert_eq!(gang.spec.roles.iter().map(|r| r.replicas).sum::<i32>(), 4);
        assert_eq!(crate::convert::controller_uid(&gang.metadata), Some("uid-1"));
        let place = crate::convert::place(&gang.metadata).unwrap();
        assert_eq!((place.workflow.as_str(), place.node.as_str(), place.attempt), ("wf", "train", 1));
    }

    #[test]
    fn a_gang_asks_for_what_its_node_asks() {
        let node: WorkflowNode = serde_json::from_value(serde_json::json!({
            "id": "train", "replicas": 4, "gang": {"minMember": 3, "queue": "research", "priorityClassName": "high",
                "topology": {"required": "rack", "segments": {"size": 2, "level": "host"}}},
        }))
        .unwrap();
        let spec = gang("u", "ns", "wf", &WorkflowSpec::default(), &node, "g", 1).spec;
        assert_eq!((spec.min_member, spec.roles[0].min, spec.roles[0].replicas), (3, Some(3), 4));
        assert_eq!((spec.queue.as_deref(), spec.priority_class_name.as_deref()), (Some("research"), Some("high")));
        let topology = spec.topology.unwrap();
        assert_eq!((topology.required.as_deref(), topology.segments.map(|s| s.size)), (Some("rack"), Some(2)));
        let node: WorkflowNode = serde_json::from_value(serde_json::json!({
            "id": "mpi", "roles": [{"name": "launcher"}, {"name": "worker", "replicas": 4, "min": 2,
                "topology": {"required": "rack"}}, {"name": "extra", "replicas": 2, "min": 0}],
        }))
        .unwrap();
        let spec = gang("u", "ns", "wf", &WorkflowSpec::default(), &node, "g", 1).spec;
        assert_eq!((spec.min_member, spec.roles.len()), (3, 3));
        assert_eq!(spec.roles[1].topology.as_ref().unwrap().required.as_deref(), Some("rack"));
    }

    #[test]
    fn a_gang_that_follows_another_one_tells_a_restart_what_it_was_decided_with() {
        let node = WorkflowNode { id: "a".into(), replicas: 1, ..WorkflowNode::default() };
        let mut gang = gang("u", "ns", "wf", &WorkflowSpec::default(), &node, "wf-a-3", 3);
        assert_eq!(crate::convert::gang_facts(&gang).plan, None, "a first attempt has none");
        let plan = Plan {
            user: 1,
            infrastructure: 2,
            not_before_ms: 1_700_000_000_123,
            avoid: vec!["n1".into(), "n2".into()],
        };
        follow(&mut gang, &plan, Some("uid-2".into()));
        assert_eq!(crate::convert::gang_facts(&gang).plan.as_deref(), Some(&plan));
        assert_eq!((gang.spec.replaces.as_deref(), gang.spec.hold_seconds), (Some("uid-2"), Some(HOLD_SECONDS)));
    }

    #[test]
    fn the_priority_of_a_gang_follows_the_layers_of_its_pods() {
        let mut spec = WorkflowSpec::default();
        let mut node = WorkflowNode { id: "a".into(), replicas: 1, ..WorkflowNode::default() };
        let of = |spec: &WorkflowSpec, node: &WorkflowNode| {
            gang("u", "ns", "wf", spec, node, "g", 1).spec.priority_class_name
        };
        assert_eq!(of(&spec, &node), None);
        spec.defaults.priority_class_name = Some("low".into());
        assert_eq!(of(&spec, &node).as_deref(), Some("low"));
        node.pod_template = Some(serde_json::json!({"spec": {"priorityClassName": "mid"}}));
        assert_eq!(of(&spec, &node).as_deref(), Some("mid"));
        node.overrides.priority_class_name = Some("high".into());
        assert_eq!(of(&spec, &node).as_deref(), Some("high"));
    }

    #[test]
    fn the_service_is_headless_and_resolves_members_that_are_not_ready() {
        let attempt = AttemptRef {
            namespace: "ns".into(),
            workflow: "wf".into(),
            gang: "wf-train-1".into(),
            gang_uid: "uid-2".into(),
            service: Some("wf-train-1".into()),
            attempt: 1,
            avoid: Vec::new(),
        };
        let spec = service(&attempt, "train", "wf-train-1").spec.unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
        assert_eq!(spec.publish_not_ready_addresses, Some(true));
        assert_eq!(spec.selector.unwrap()[label::GANG], "wf-train-1");
    }
}
