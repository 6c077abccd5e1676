//! What the tests of real nodes have in common: pods, and waiting for them.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::{Duration, Instant};

use flowforge_testbed::{Testbed, real::WORKLOAD_IMAGE};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Namespace, Node, Pod};
use kube::{
    Api, Client,
    api::{LogParams, PostParams},
};
use serde_json::{Value, json};

/// How long anything may take on a machine that also compiles.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Whether the test has to be left out, because real nodes are not possible here; notes why not.
pub(crate) fn skipped() -> bool {
    match flowforge_testbed::real::available() {
        Ok(()) => false,
        Err(missing) => {
            flowforge_testbed::skip("real", &missing.to_string());
            true
        }
    }
}

/// A namespace of its own for one test.
pub(crate) async fn namespace(testbed: &Testbed, name: &str) -> Api<Pod> {
    let namespaces: Api<Namespace> = Api::all(testbed.client().clone());
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    // No pod is admitted before its ServiceAccount is there.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(testbed.client().clone(), name);
    eventually(&format!("ServiceAccount {name}/default"), async || accounts.get_opt("default").await.unwrap()).await;
    Api::namespaced(testbed.client().clone(), name)
}

/// A pod on a node, with one container that runs `command`, a line of words.
pub(crate) fn pod(name: &str, node: &str, command: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "test": name } },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main",
                "image": WORKLOAD_IMAGE,
                "imagePullPolicy": "Never",
                "args": command.split_whitespace().collect::<Vec<_>>(),
            }],
        },
    })
}

/// `pod` with limits for its container.
pub(crate) fn with_limits(mut pod: Value, limits: &Value) -> Value {
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": limits });
    pod
}

pub(crate) async fn create(pods: &Api<Pod>, pod: Value) {
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn await_phase(pods: &Api<Pod>, name: &str, phase: &str) -> Pod {
    eventually(&format!("pod {name} is {phase}"), async || {
        let pod = pods.get(name).await.unwrap();
        let now = pod.status.as_ref()?.phase.clone()?;
        let ended = now == "Failed" || now == "Succeeded";
        assert!(now == phase || !ended, "pod {name} is {now}, not {phase}: {:#?}", pod.status);
        (now == phase).then_some(pod)
    })
    .await
}

/// How the only container of a pod ended.
pub(crate) fn ending(pod: &Pod) -> ContainerStateTerminated {
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    status.state.clone().unwrap().terminated.unwrap()
}

/// A pod's log as the API server gives it.
pub(crate) async fn log(pods: &Api<Pod>, name: &str) -> String {
    pods.logs(name, &LogParams::default()).await.unwrap()
}

/// Status and reason of a node's Ready condition.
pub(crate) async fn readiness(client: &Client, node: &str) -> (String, String) {
    let nodes: Api<Node> = Api::all(client.clone());
    let status = nodes.get(node).await.unwrap().status.unwrap();
    let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    (ready.status, ready.reason.unwrap_or_default())
}

/// A node's allocatable quantity of a resource.
pub(crate) async fn allocatable(client: &Client, node: &str, resource: &str) -> String {
    let nodes: Api<Node> = Api::all(client.clone());
    let status = nodes.get(node).await.unwrap().status.unwrap();
    status.allocatable.unwrap().get(resource).map(|quantity| quantity.0.clone()).unwrap_or_default()
}
