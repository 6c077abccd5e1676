//! kube-scheduler beside the control plane, and several testbeds beside each
//! other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a test's helper fails the test")]

use std::time::{Duration, Instant};

use flowforge_testbed::{Profile, Testbed, component, network::port};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::json;

/// A pod for the default scheduler that asks for GPUs.
fn pod(name: &str, gpus: u32) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": "example.com/main",
                "resources": { "limits": { "nvidia.com/gpu": gpus.to_string() } },
            }],
        },
    }))
    .unwrap()
}

/// Polls until the predicate holds for the pod, and returns it.
async fn await_pod(client: &Client, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let pod = pods.get(name).await.unwrap();
        if holds(&pod) {
            return pod;
        }
        assert!(Instant::now() < deadline, "{name} is not {what}: {:?}", pod.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn kube_scheduler_places_a_pod_on_a_fake_node_and_says_why_another_waits() {
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 1).kube_scheduler(true).start().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    pods.create(&PostParams::default(), &pod("fits", 8)).await.unwrap();
    pods.create(&PostParams::default(), &pod("waits", 9)).await.unwrap();

    let done = await_pod(testbed.client(), "fits", "done", |pod| {
        pod.status.as_ref().unwrap().phase.as_deref() == Some("Succeeded")
    });
    let done = done.await;
    assert_eq!(done.spec.unwrap().node_name.as_deref(), Some("dgx-h100-0000"));
    let refused = |pod: &Pod| {
        let conditions = pod.status.as_ref().unwrap().conditions.clone().unwrap_or_default();
        let message = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")?.message?;
        message.contains("Insufficient nvidia.com/gpu").then_some(message)
    };
    let waiting = await_pod(testbed.client(), "waits", "refused", |pod| refused(pod).is_some()).await;
    assert!(refused(&waiting).unwrap().starts_with("0/1 nodes are available"), "{:?}", refused(&waiting));
}

#[tokio::test]
async fn feature_gates_and_api_groups_that_are_off_by_default_can_be_turned_on() {
    let testbed = Testbed::builder()
        .feature_gates([("GenericWorkload", true)])
        .runtime_config("scheduling.k8s.io/v1beta1=true")
        .kube_scheduler_config(json!({ "parallelism": 4 }))
        .start()
        .await
        .unwrap();
    let served = testbed.client().list_api_group_resources("scheduling.k8s.io/v1beta1").await.unwrap();
    let kinds: Vec<&str> = served.resources.iter().map(|resource| resource.kind.as_str()).collect();
    assert!(kinds.contains(&"PodGroup"), "{kinds:?}");
    assert!(testbed.exits(component::SCHEDULER).is_empty());
}

#[tokio::test]
async fn two_testbeds_at_once_share_nothing() {
    let start = |profile| Testbed::builder().nodes(profile, 2).start();
    let (one, other) = tokio::join!(start(Profile::Cpu), start(Profile::L40sPcie));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.network().at(port::API_SERVER), other.network().at(port::API_SERVER));
    assert_ne!(one.dir(), other.dir());
    for (testbed, prefix) in [(&one, "cpu-"), (&other, "l40s-pcie-")] {
        let nodes: Api<Node> = Api::all(testbed.client().clone());
        let names: Vec<_> = nodes.list(&ListParams::default()).await.unwrap().into_iter().collect();
        assert_eq!(names.len(), 2);
        assert!(names.iter().all(|node| node.metadata.name.as_deref().unwrap().starts_with(prefix)));
    }
    // The end of one does not touch the other.
    one.stop().unwrap();
    assert!(other.exits(component::API_SERVER).is_empty());
    other.await_apiserver(Duration::from_secs(5)).await.unwrap();

    // Neither accepts the other's certificates.
    let third = Testbed::builder().start().await.unwrap();
    let forged = std::fs::read_to_string(other.admin_kubeconfig()).unwrap();
    let forged = forged.replace(&other.apiserver_url(), &third.apiserver_url());
    let path = third.dir().join("forged.kubeconfig");
    std::fs::write(&path, forged).unwrap();
    let said = third.kubectl().args(["get", "nodes"]).env("KUBECONFIG", &path).output().unwrap();
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("certificate"), "{said:?}");
}
