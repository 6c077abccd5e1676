//! What else happens on the nodes, on a real control plane: another scheduler's pods, drains, full nodes, and who goes first.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use futures::future::join;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use scheduler::{
    assert_no_overcommit, create, delete, gang, install, is_live, namespace, node_names, node_of, pod, pods,
    priority_class, refused, unscheduled, until,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_are_shared_with_others() {
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 2).kube_scheduler(true).start().await.unwrap();
    install(&testbed, "schedulerNames: [flowforge]\n").await;
    pods_of_two_schedulers_fill_the_nodes_together(&testbed).await;
    a_drained_node_is_left_and_taken_again(&testbed).await;
    the_more_important_goes_first(&testbed).await;
    a_node_takes_as_many_pods_as_it_says(&testbed).await;
}

/// How many live pods of a namespace stand on each node.
async fn standing(testbed: &Testbed, namespace: &str, selector: &str) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for pod in pods(testbed, namespace, selector).await.iter().filter(|pod| is_live(pod)) {
        *nodes.entry(node_of(pod).unwrap().to_owned()).or_default() += 1;
    }
    nodes
}

/// Waits until so many pods of a namespace are live.
async fn live(testbed: &Testbed, namespace: &str, selector: &str, count: usize) {
    until(&format!("{count} pods of {namespace} are bound"), SOON, || async {
        let found = pods(testbed, namespace, selector).await;
        let live = found.iter().filter(|pod| is_live(pod)).count();
        if live == count { Ok(()) } else { Err(format!("{live}; {:?}", found.iter().find_map(unscheduled))) }
    })
    .await;
}

fn by(scheduler: &str, mut pod: Value) -> Value {
    pod["spec"]["schedulerName"] = json!(scheduler);
    pod["metadata"]["labels"] = json!({"by": scheduler});
    pod
}

async fn pods_of_two_schedulers_fill_the_nodes_together(testbed: &Testbed) {
    const NAMESPACE: &str = "mixed";
    namespace(testbed, NAMESPACE).await;
    // Each round waits for both, so that neither decides before it has seen what the other did.
    for round in 0..4 {
        let some = |scheduler: &str| {
            (0..2).map(|n| by(scheduler, pod(&format!("{scheduler}-{round}-{n}"), "1"))).collect::<Vec<_>>()
        };
        create(testbed, NAMESPACE, some("default-scheduler")).await;
        live(testbed, NAMESPACE, "by=default-scheduler", 2 * (round + 1)).await;
        create(testbed, NAMESPACE, some("flowforge")).await;
        live(testbed, NAMESPACE, "by=flowforge", 2 * (round + 1)).await;
    }
    assert_no_overcommit(testbed, "nvidia.com/gpu").await;
    let full = standing(testbed, NAMESPACE, "").await;
    assert_eq!(full.values().copied().collect::<Vec<_>>(), [8, 8], "{full:?}");
    create(testbed, NAMESPACE, vec![by("flowforge", pod("waits", "1"))]).await;
    let (_, message) = refused(testbed, NAMESPACE, "by=flowforge", "").await;
    assert!(message.starts_with("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."), "{message}");
    // The place of a stranger's pod is free when it is gone.
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    api.delete("default-scheduler-0-0", &kube::api::DeleteParams::default()).await.unwrap();
    live(testbed, NAMESPACE, "by=flowforge", 9).await;
    assert_no_overcommit(testbed, "nvidia.com/gpu").await;
    delete(testbed, NAMESPACE, "").await;
}

async fn kubectl(testbed: &Testbed, arguments: &[&str]) {
    let output = testbed.kubectl().args(arguments).output().unwrap();
    assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn a_drained_node_is_left_and_taken_again(testbed: &Testbed) {
    const NAMESPACE: &str = "drain";
    namespace(testbed, NAMESPACE).await;
    let deployments: Api<Deployment> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    let labels = json!({"app": "served"});
    let deployment = json!({
        "metadata": {"name": "served"},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod("", "2")["spec"]},
        },
    });
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    live(testbed, NAMESPACE, "app=served", 4).await;
    let nodes = node_names(testbed).await;
    let (drained, other) = (nodes[0].as_str(), nodes[1].as_str());
    kubectl(testbed, &["drain", drained, "--force", "--ignore-daemonsets", "--timeout=30s"]).await;
    until("the pods stand on the other node", SOON, || async {
        let found = standing(testbed, NAMESPACE, "app=served").await;
        if found == BTreeMap::from([(other.to_owned(), 4)]) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    create(testbed, NAMESPACE, vec![by("flowforge", pod("waits", "1"))]).await;
    let words = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) were unschedulable.";
    let (_, message) = refused(testbed, NAMESPACE, "by=flowforge", words).await;
    assert!(message.starts_with(words), "{message}");
    kubectl(testbed, &["uncordon", drained]).await;
    live(testbed, NAMESPACE, "by=flowforge", 1).await;
    assert_eq!(standing(testbed, NAMESPACE, "by=flowforge").await, BTreeMap::from([(drained.to_owned(), 1)]));
    kubectl(testbed, &["delete", "deployment", "served", "-n", NAMESPACE]).await;
    delete(testbed, NAMESPACE, "").await;
}

async fn the_more_important_goes_first(testbed: &Testbed) {
    const NAMESPACE: &str = "priority";
    namespace(testbed, NAMESPACE).await;
    for (name, value) in [("low", 10), ("high", 1_000)] {
        // Nobody is evicted here: who waits, waits.
        priority_class(testbed, name, value, false).await;
    }
    let of = |class: &str, mut pod: Value| {
        pod["spec"]["priorityClassName"] = json!(class);
        pod["metadata"]["labels"] = json!({"class": class});
        pod
    };
    let (holders, waiting) = ([pod("holder-0", "8"), pod("holder-1", "8")], [pod("l-0", "8"), pod("l-1", "8")]);
    create(testbed, NAMESPACE, holders.into()).await;
    live(testbed, NAMESPACE, "", 2).await;
    // The less important ones have waited longer; one that asks for what nobody has is in nobody's way.
    create(testbed, NAMESPACE, waiting.into_iter().map(|pod| of("low", pod)).collect()).await;
    refused(testbed, NAMESPACE, "class=low", "").await;
    let mut never = gang("never", 2, "64");
    never.iter_mut().for_each(|member| member["spec"]["priorityClassName"] = json!("high"));
    create(testbed, NAMESPACE, never).await;
    create(testbed, NAMESPACE, vec![of("high", pod("h-0", "8"))]).await;
    refused(testbed, NAMESPACE, "class=high", "").await;
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    for (holder, low) in [("holder-0", 0), ("holder-1", 1)] {
        api.delete(holder, &kube::api::DeleteParams::default()).await.unwrap();
        join(live(testbed, NAMESPACE, "class=high", 1), live(testbed, NAMESPACE, "class=low", low)).await;
    }
    delete(testbed, NAMESPACE, "").await;
}

async fn a_node_takes_as_many_pods_as_it_says(testbed: &Testbed) {
    const NAMESPACE: &str = "many";
    const LIMIT: usize = 110;
    namespace(testbed, NAMESPACE).await;
    let small = |n: usize| {
        let mut pod = pod(&format!("p-{n:03}"), "0");
        pod["metadata"]["labels"] = json!({"app": "many"});
        pod["spec"]["containers"][0]["resources"] = json!({});
        pod
    };
    create(testbed, NAMESPACE, (0..2 * LIMIT + 3).map(small).collect()).await;
    live(testbed, NAMESPACE, "", 2 * LIMIT).await;
    let full = standing(testbed, NAMESPACE, "").await;
    assert_eq!(full.values().copied().collect::<Vec<_>>(), [LIMIT, LIMIT], "{full:?}");
    let (_, message) = refused(testbed, NAMESPACE, "", "").await;
    assert!(message.starts_with("0/2 nodes are available: 2 Too many pods."), "{message}");
    let found = pods(testbed, NAMESPACE, "").await;
    let waiting = found.iter().filter(|pod| !is_live(pod)).count();
    assert_eq!(waiting, 3, "the others wait");
    let gone: Vec<&str> =
        found.iter().filter(|pod| is_live(pod)).filter_map(|pod| pod.metadata.name.as_deref()).take(2).collect();
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    for name in gone {
        api.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    }
    live(testbed, NAMESPACE, "", 2 * LIMIT).await;
    until("one waits", SOON, || async {
        let left = pods(testbed, NAMESPACE, "").await.len();
        if left == 2 * LIMIT + 1 { Ok(()) } else { Err(format!("{left} pods")) }
    })
    .await;
}
