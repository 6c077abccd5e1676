//! Identity and order: what of the objects that carry our names reaches the core.

use super::*;
use flowforge_dag_controller_core::engine::{Observed, Recorded, rebuild};
use flowforge_dag_controller_core::{Config, Dag, Edge, NodeSpec};
use serde_json::json;

const KEY: AttemptKey = AttemptKey { node: NodeIx(0), attempt: 1 };

fn flow() -> Flow {
    let spec: WorkflowSpec =
        serde_json::from_value(json!({"nodes": [{"id": "a", "replicas": 2, "image": "x"}]})).unwrap();
    let node = NodeSpec::of("a", 2);
    let dag = Arc::new(Dag::new(vec![node], Vec::<Edge>::new()).unwrap());
    let state = rebuild(dag, Config::default(), Observed::default(), &Recorded::default(), 0, &mut Vec::new());
    let workflow: Workflow = serde_json::from_value(json!({
        "metadata": {"name": "wf", "namespace": "ns", "uid": "wf-uid", "resourceVersion": "5"}, "spec": spec}))
    .unwrap();
    Flow::new(FlowKey::new("ns", "wf"), &workflow, Arc::new(spec), Body::State(Box::new(state)))
}

fn labels(rank: Option<u32>) -> Value {
    let mut labels = json!({"flowforge.dev/workflow": "wf", "flowforge.dev/node": "a", "flowforge.dev/attempt": "1"});
    if let Some(rank) = rank {
        labels["flowforge.dev/rank"] = json!(rank.to_string());
    }
    labels
}

fn owner(uid: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "X", "name": "o", "uid": uid, "controller": true}])
}

fn gang(uid: &str, owner_uid: &str, version: u64) -> Gang {
    serde_json::from_value(json!({
        "metadata": {"name": "wf-a-1", "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
            "labels": labels(None), "ownerReferences": owner(owner_uid)},
        "spec": {"minMember": 2, "roles": [{"name": "worker", "replicas": 2}]}}))
    .unwrap()
}

fn pod(uid: &str, owner_uid: &str, version: u64, node: Option<&str>) -> WatchedPod {
    serde_json::from_value(json!({
        "metadata": {"name": "wf-a-1-0", "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
            "labels": labels(Some(0)), "ownerReferences": owner(owner_uid)},
        "spec": {"nodeName": node}, "status": {"phase": "Running"}}))
    .unwrap()
}

fn check(sight: &Sight, expected: &str) {
    let text = format!("{sight:?}");
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_gang_speaks_for_an_attempt_only_when_this_workflow_owns_it() {
    let mut flow = flow();
    check(&flow.on_gang(&gang("g1", "another-workflow", 10)), "Stranger");
    assert!(flow.attempts.is_empty());
    check(&flow.on_gang(&gang("g1", "wf-uid", 11)), "News");
    assert_eq!(flow.attempts[&KEY].uid.as_deref(), Some("g1"));
    // A second object under the name of a claimed attempt is no second claim.
    check(&flow.on_gang(&gang("g2", "wf-uid", 12)), "Stranger");
    assert_eq!(flow.attempts[&KEY].uid.as_deref(), Some("g1"));
}

#[test]
fn a_pod_speaks_for_a_member_only_when_the_claimed_gang_owns_it() {
    let mut flow = flow();
    check(&flow.on_pod(&pod("p", "g1", 20, None), |_| false), "Stranger");
    flow.on_gang(&gang("g1", "wf-uid", 10));
    check(&flow.on_pod(&pod("p", "g0", 20, None), |_| false), "Stranger");
    check(&flow.on_pod(&pod("p", "g1", 20, None), |_| false), "News");
}

#[test]
fn facts_reach_the_core_in_the_order_of_the_store_whichever_way_they_came() {
    let mut flow = flow();
    flow.on_gang(&gang("g1", "wf-uid", 10));
    check(&flow.on_pod(&pod("p", "g1", 22, Some("n1")), |_| false), "News");
    // The answer to the POST is overtaken by the watch.
    check(&flow.on_pod(&pod("p", "g1", 20, None), |_| false), "Old");
    check(&flow.on_pod(&pod("p", "g1", 22, Some("n1")), |_| false), "Old");
    let gone = Place { workflow: "wf".into(), node: "a".into(), attempt: 1, rank: Some(0), incarnation: 0 };
    check(&flow.on_pod_gone(&gone, "another"), "Stranger");
    check(&flow.on_pod_gone(&gone, "p"), "News");
    check(&flow.on_pod_gone(&gone, "p"), "Old");
    // What is gone does not come back.
    check(&flow.on_pod(&pod("p", "g1", 30, Some("n1")), |_| false), "Old");
}

#[test]
fn a_lost_node_changes_the_facts_of_its_pods_once() {
    let mut flow = flow();
    flow.on_gang(&gang("g1", "wf-uid", 10));
    flow.on_pod(&pod("p", "g1", 20, Some("n1")), |_| false);
    assert_eq!(flow.on_node("n2", true), []);
    let events = flow.on_node("n1", true);
    assert!(matches!(events.as_slice(), [Event::Pod(_, facts)] if facts.node_gone), "{events:?}");
    assert_eq!(flow.on_node("n1", true), []);
    // Later facts of the pod keep what is known of its node.
    let Sight::News(event) = flow.on_pod(&pod("p", "g1", 25, Some("n1")), |_| false) else { panic!("news") };
    assert!(matches!(*event, Event::Pod(_, ref facts) if facts.node_gone));
}
