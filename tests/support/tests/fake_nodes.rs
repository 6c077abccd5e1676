//! Fake nodes: they are ready, and their pods run and end as told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a test's helper fails the test")]

use std::{
    collections::BTreeMap,
    sync::LazyLock,
    time::{Duration, Instant},
};

use flowforge_testbed::{Profile, Shared, Testbed, component};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

/// Four 8-GPU machines and one without GPUs.
static CLUSTER: LazyLock<Shared> =
    LazyLock::new(|| Shared::start(Testbed::builder().nodes(Profile::DgxH100, 4).nodes(Profile::Cpu, 1)));

/// A pod with one container and the given annotations (`testbed.flowforge.dev/` is
/// put in front), for a scheduler that does not exist.
fn pod(name: &str, restart_policy: &str, annotations: &[(&str, &str)]) -> Pod {
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(key, value)| (format!("testbed.flowforge.dev/{key}"), (*value).to_owned())).collect();
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "annotations": annotations },
        "spec": {
            "schedulerName": "by-hand",
            "restartPolicy": restart_policy,
            "initContainers": [{ "name": "init", "image": "example.com/init" }],
            "containers": [{
                "name": "main",
                "image": "example.com/main",
                "resources": { "limits": { "nvidia.com/gpu": "8" } },
            }],
        },
    }))
    .unwrap()
}

async fn run(testbed: &Testbed, pod: &Pod, node: &str) {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let name = pod.metadata.name.clone().unwrap();
    pods.create(&PostParams::default(), pod).await.unwrap();
    let binding = Binding {
        metadata: pod.metadata.clone(),
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let bound: Result<serde_json::Value, _> =
        pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
    bound.unwrap();
}

/// Waits until the pod is in the phase, and returns it.
async fn await_phase(testbed: &Testbed, name: &str, phase: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let pod = pods.get(name).await.unwrap();
        let now = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if now == Some(phase) {
            return pod;
        }
        assert!(Instant::now() < deadline, "{name} is {now:?}, not {phase}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Exit code and reason of the container `main`.
fn end(pod: &Pod) -> (i32, String) {
    let statuses = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
    let terminated = statuses[0].state.as_ref().unwrap().terminated.as_ref().unwrap();
    (terminated.exit_code, terminated.reason.clone().unwrap())
}

#[test]
fn a_pod_bound_by_hand_runs_and_ends_with_its_exit_code() {
    CLUSTER.run(async |testbed| {
        let begin = Instant::now();
        run(testbed, &pod("good", "Never", &[("run-ms", "700")]), "dgx-h100-0000").await;
        run(testbed, &pod("bad", "Never", &[("run-ms", "0"), ("exit-code", "3")]), "dgx-h100-0001").await;
        run(testbed, &pod("endless", "Always", &[]), "dgx-h100-0002").await;

        let running = await_phase(testbed, "good", "Running").await;
        assert!(running.status.unwrap().pod_ip.is_some());
        let good = await_phase(testbed, "good", "Succeeded").await;
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(700), "{took:?}");
        assert_eq!(end(&good), (0, "Completed".to_owned()));

        let bad = await_phase(testbed, "bad", "Failed").await;
        assert_eq!(end(&bad), (3, "Error".to_owned()));

        tokio::time::sleep(Duration::from_millis(1500)).await;
        await_phase(testbed, "endless", "Running").await;
        let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
        pods.delete("endless", &DeleteParams::default()).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while pods.get_opt("endless").await.unwrap().is_some() {
            assert!(Instant::now() < deadline, "the deleted pod is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_deleted_pod_that_a_finalizer_holds_shows_how_its_containers_ended() {
    CLUSTER.run(async |testbed| {
        let mut held = pod("held", "Never", &[("run-ms", "600000"), ("term-ms", "300")]);
        held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
        run(testbed, &held, "dgx-h100-0003").await;
        await_phase(testbed, "held", "Running").await;
        let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
        let begin = Instant::now();
        pods.delete("held", &DeleteParams::default()).await.unwrap();
        let failed = await_phase(testbed, "held", "Failed").await;
        assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
        assert_eq!(end(&failed), (143, "Error".to_owned()));

        let patch = json!({ "metadata": { "finalizers": null } });
        pods.patch("held", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while pods.get_opt("held").await.unwrap().is_some() {
            assert!(Instant::now() < deadline, "the pod is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_change_of_a_running_pod_does_not_start_its_clock_again() {
    CLUSTER.run(async |testbed| {
        let run_time = Duration::from_secs(8);
        let mut pod = pod("patched", "Never", &[("run-ms", "8000")]);
        pod.spec.as_mut().unwrap().containers[0].resources = None;
        run(testbed, &pod, "cpu-0000").await;
        await_phase(testbed, "patched", "Running").await;
        let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
        for turn in 0..20 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let patch = json!({ "metadata": { "labels": { "turn": turn.to_string() } } });
            pods.patch("patched", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        }
        let last_patch = Instant::now();
        await_phase(testbed, "patched", "Succeeded").await;
        // It ends some 3 s after the last patch; restarted by that patch it would run for 8 s more. Asked of the rest
        // and not of the whole, so that slow patches leave more room and not less.
        let rest = last_patch.elapsed();
        assert!(rest < run_time - Duration::from_secs(1), "{rest:?}");
    });
}

#[tokio::test]
async fn five_hundred_nodes_become_ready_without_their_taint() {
    let testbed = Testbed::builder().start().await.unwrap();
    let begin = Instant::now();
    let names = testbed.create_nodes(Profile::Gb200Nvl72, 500).await.unwrap();
    println!("500 nodes created after {:.2} s", begin.elapsed().as_secs_f64());
    testbed.await_nodes(&names, Duration::from_secs(60)).await.unwrap();
    println!("500 nodes without taint after {:.2} s", begin.elapsed().as_secs_f64());

    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let all = nodes.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 500);
    for node in all {
        assert_eq!(node.spec.unwrap().taints, None);
        let allocatable = node.status.unwrap().allocatable.unwrap();
        assert_eq!(allocatable["nvidia.com/gpu"].0, "4");
    }
}

#[tokio::test]
async fn a_lost_node_is_tainted_its_pod_stands_still_and_both_come_back() {
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 2).start().await.unwrap();
    run(&testbed, &pod("stranded", "Never", &[("run-ms", "4000")]), "dgx-h100-0001").await;
    await_phase(&testbed, "stranded", "Running").await;
    testbed.lose_node("dgx-h100-0001").await.unwrap();

    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let node = nodes.get("dgx-h100-0001").await.unwrap();
        let taints = node.spec.unwrap().taints.unwrap_or_default();
        if taints.iter().any(|taint| taint.key == "node.kubernetes.io/unreachable" && taint.effect == "NoExecute") {
            break;
        }
        assert!(Instant::now() < deadline, "no taint: {taints:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    await_phase(&testbed, "stranded", "Running").await;

    testbed.recover_node("dgx-h100-0001").await.unwrap();
    testbed.await_node("dgx-h100-0001", Duration::from_secs(20)).await.unwrap();
    await_phase(&testbed, "stranded", "Succeeded").await;
}

#[tokio::test]
async fn with_a_grace_period_a_silent_kwok_loses_its_nodes_and_a_new_one_gets_them_back() {
    let grace = Duration::from_secs(8);
    let testbed = Testbed::builder().nodes(Profile::Cpu, 1).node_grace(grace).start().await.unwrap();
    tokio::time::sleep(2 * grace).await;
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let ready = |node: &Node| {
        let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
        conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().status.clone()
    };
    assert_eq!(ready(&nodes.get("cpu-0000").await.unwrap()), "True");

    testbed.kill(component::KWOK).unwrap();
    let deadline = Instant::now() + 4 * grace;
    while ready(&nodes.get("cpu-0000").await.unwrap()) != "Unknown" {
        assert!(Instant::now() < deadline, "the silent node is still ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    testbed.start_kwok_again().await.unwrap();
    testbed.await_node("cpu-0000", 4 * grace).await.unwrap();
}

#[tokio::test]
async fn kwok_killed_and_started_again_carries_on() {
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 1).start().await.unwrap();
    testbed.kill(component::KWOK).unwrap();
    run(&testbed, &pod("late", "Never", &[("run-ms", "0")]), "dgx-h100-0000").await;
    testbed.start_kwok_again().await.unwrap();
    await_phase(&testbed, "late", "Succeeded").await;
}
