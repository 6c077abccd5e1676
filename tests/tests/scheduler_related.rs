//! Pods that other pods matter to, on a real control plane: what their rules refuse, and that they follow what happens there.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use scheduler::{
    create, delete, gang, install, is_live, label_node, members, namespace, node_names, node_of, nodes_of, pods,
    refused, unscheduled, until,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn affinity_and_spread_hold_and_follow_what_happens() {
    let testbed = scheduler::testbed(Profile::DgxH100, 4).await;
    install(&testbed, "").await;
    // Two zones of two nodes, whatever the profile says.
    for (index, node) in node_names(&testbed).await.iter().enumerate() {
        label_node(&testbed, node, json!({ZONE: format!("zone-{}", index % 2)})).await;
    }
    namespace(&testbed, "related").await;
    pods_that_keep_apart(&testbed).await;
    pods_that_follow(&testbed).await;
    pods_that_are_spread(&testbed).await;
    a_gang_that_keeps_apart(&testbed).await;
}

/// A pod with this label and these fields of its spec.
fn related(name: &str, app: &str, more: &Value) -> Value {
    let mut pod = scheduler::pod(name, "0");
    pod["metadata"]["labels"] = json!({"app": app});
    pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod
}

fn term(app: &str, key: &str) -> Value {
    json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}])
}

fn apart(app: &str, key: &str) -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app, key)}}})
}

/// Nodes of the live pods of an app, once there are so many.
async fn placed(testbed: &Testbed, app: &str, count: usize) -> Vec<String> {
    until(&format!("{count} pods of {app} are bound"), SOON, || async {
        let found = pods(testbed, "related", &format!("app={app}")).await;
        let nodes: Vec<String> = found.iter().filter(|p| is_live(p)).filter_map(node_of).map(str::to_owned).collect();
        if nodes.len() == count {
            Ok(nodes)
        } else {
            Err(format!("{nodes:?}; {:?}", found.iter().find_map(unscheduled)))
        }
    })
    .await
}

/// One a host; the fifth of five waits, says why, and goes when one leaves.
async fn pods_that_keep_apart(testbed: &Testbed) {
    let one = |i: usize| related(&format!("apart-{i}"), "apart", &apart("apart", HOST));
    create(testbed, "related", (0..5).map(one).collect()).await;
    let mut nodes = placed(testbed, "apart", 4).await;
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 4, "two of them share a host");
    let (_, message) = refused(testbed, "related", "app=apart", "").await;
    let told = "0/4 nodes are available: 4 node(s) didn't match pod anti-affinity rules. \
                preemption: 0/4 nodes are available: 4 No preemption victims found for incoming pod.";
    assert_eq!(message, told);
    let found = pods(testbed, "related", "app=apart").await;
    let leaving = found.iter().find(|pod| is_live(pod)).and_then(|pod| pod.metadata.name.clone()).unwrap();
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "related");
    api.delete(&leaving, &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
    placed(testbed, "apart", 4).await;
    delete(testbed, "related", "app=apart").await;
}

/// Company that comes later, by a label that a running pod gets.
async fn pods_that_follow(testbed: &Testbed) {
    create(testbed, "related", vec![related("leader", "undecided", &json!({}))]).await;
    let there = placed(testbed, "undecided", 1).await;
    let near =
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("leader", HOST)}}});
    create(testbed, "related", vec![related("follower", "follower", &near)]).await;
    let (_, message) = refused(testbed, "related", "app=follower", "").await;
    let told = "0/4 nodes are available: 4 node(s) didn't match pod affinity rules. \
                preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.";
    assert_eq!(message, told);
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "related");
    let patch = json!({"metadata": {"labels": {"app": "leader"}}});
    api.patch("leader", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(placed(testbed, "follower", 1).await, there);
    delete(testbed, "related", "").await;
}

async fn pods_that_are_spread(testbed: &Testbed) {
    let constraint = json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }]});
    let one = |i: usize| related(&format!("spread-{i}"), "spread", &constraint);
    create(testbed, "related", (0..6).map(one).collect()).await;
    let nodes = placed(testbed, "spread", 6).await;
    let all = node_names(testbed).await;
    let mut zones: BTreeMap<usize, usize> = BTreeMap::new();
    for node in &nodes {
        *zones.entry(all.iter().position(|name| name == node).unwrap() % 2).or_default() += 1;
    }
    assert_eq!(zones.into_values().collect::<Vec<_>>(), [3, 3], "{nodes:?}");
    delete(testbed, "related", "").await;
}

/// Its members see each other while they are planned: five do not fit on four hosts, four do.
async fn a_gang_that_keeps_apart(testbed: &Testbed) {
    let with_rule = |mut member: Value| {
        member["metadata"]["labels"]["app"] = json!("ring");
        let rule = apart("ring", HOST);
        member["spec"].as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        member
    };
    create(testbed, "related", gang("wide", 5, "1").into_iter().map(with_rule).collect()).await;
    let (_, message) = refused(testbed, "related", "app=ring", "").await;
    assert!(message.contains("4 node(s) didn't match pod anti-affinity rules"), "{message}");
    assert!(members(testbed, "related", "wide").await.iter().all(|pod| node_of(pod).is_none()), "a part was bound");
    delete(testbed, "related", "").await;
    create(testbed, "related", gang("fits", 4, "1").into_iter().map(with_rule).collect()).await;
    placed(testbed, "ring", 4).await;
    assert_eq!(nodes_of(&members(testbed, "related", "fits").await).len(), 4);
}
