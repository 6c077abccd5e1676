//! `flowforge-smoke`: the binaries start and schedule on the oldest Kubernetes that they support, as `make smoke-1.33`
//! runs it.
//!
//! ```text
//!   testbed of 1.33 up ─> install ─> single pods ─> a gang by its label ─> a workflow (the CLI) ─> down
//! ```
//! It says what it did on stdout and ends with 1 when something did not happen in time.

use anyhow::{Context as _, Result, bail, ensure};
use flowforge_testbed::{Profile, Testbed, binaries::KUBERNETES_1_33};
use flowforge_tests::eventually;
use flowforge_tests::install::{Installation, Options, program};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NODES: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);
/// The release that the module is pinned to.
const RELEASE: &str = "v1.33.";
const WORKFLOW: &str = "
workflow:
  name: smoke
  nodes:
    - {id: prepare, image: example/work:1}
    - {id: train, replicas: 4, image: example/work:1, dependsOn: [prepare], resources: {limits: {nvidia.com/gpu: 8}}}
    - {id: publish, image: example/work:1, dependsOn: [train]}
";

#[tokio::main]
async fn main() -> Result<()> {
    let start = Instant::now();
    let step = |text: &str| println!("==> {text} ({:.1} s)", start.elapsed().as_secs_f64());

    step(&format!("starting Kubernetes 1.33 with {NODES} fake dgx-h100 nodes (its first build takes minutes)"));
    let testbed = Testbed::builder().kubernetes(KUBERNETES_1_33).nodes(Profile::DgxH100, NODES).start().await?;
    let version = testbed.client().apiserver_version().await?.git_version;
    ensure!(version.starts_with(RELEASE), "the API server is {version}, not {RELEASE}x");

    step(&format!("the API server is {version}; installing FlowForge: CRDs, RBAC, webhook, both binaries"));
    Installation::install(&testbed, Options::default()).await?;

    step("three single pods");
    for index in 0..3 {
        create(&testbed, single(&format!("single-{index}"))).await?;
    }
    bound(&testbed, "smoke=single", 3).await?;

    step("a gang of four pods with eight GPUs each, by its label alone");
    for rank in 0..4 {
        create(&testbed, member(rank)).await?;
    }
    let places = bound(&testbed, "flowforge.dev/gang=ring", 4).await?;
    ensure!(places.len() == 4, "two members of eight GPUs share a node of eight: {places:?}");
    too_large(&testbed).await?;

    step("a workflow of three nodes, from the command line");
    submit(&testbed)?;

    step("taking everything down");
    testbed.stop()?;
    step("done");
    Ok(())
}

fn single(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"smoke": "single"}},
        "spec": {"schedulerName": "flowforge", "containers": [{
            "name": "main", "image": "example/work:1", "resources": {"requests": {"cpu": "1"}}}]},
    })
}

fn member(rank: usize) -> Value {
    let mut pod = single(&format!("ring-{rank}"));
    pod["metadata"]["labels"] = json!({"flowforge.dev/gang": "ring"});
    pod["metadata"]["annotations"] = json!({"flowforge.dev/gang-size": "4"});
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "8"}});
    pod
}

async fn create(testbed: &Testbed, pod: Value) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

/// Waits until so many pods are bound, tells where, and gives their distinct nodes.
async fn bound(testbed: &Testbed, labels: &str, count: usize) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let params = ListParams::default().labels(labels);
    let places = eventually(&format!("{count} pods with {labels} are bound"), LIMIT, || async {
        let items = pods.list(&params).await.map_err(|error| error.to_string())?.items;
        let name = |pod: &Pod| Some((pod.metadata.name.clone()?, pod.spec.as_ref()?.node_name.clone()?));
        let places: Vec<(String, String)> = items.iter().filter_map(name).collect();
        if places.len() == count { Ok(places) } else { Err(format!("{} are", places.len())) }
    })
    .await?;
    for (pod, node) in &places {
        println!("    {pod} -> {node}");
    }
    let mut nodes: Vec<String> = places.into_iter().map(|(_, node)| node).collect();
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

/// One GPU more than a node has: the refusal is the scheduler's, in kube-scheduler's words.
async fn too_large(testbed: &Testbed) -> Result<()> {
    let mut pod = single("large");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "9"}});
    create(testbed, pod).await?;
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let message = eventually("a pod of nine GPUs is refused", LIMIT, || async {
        let pod = pods.get("large").await.map_err(|error| error.to_string())?;
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        let refusal = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        refusal.and_then(|c| c.message).ok_or_else(|| "no condition PodScheduled=False".to_owned())
    })
    .await?;
    println!("    large: {message}");
    ensure!(message.contains(&format!("{NODES} Insufficient nvidia.com/gpu")), "it says {message}");
    Ok(())
}

/// The command line's own output is part of what is shown; its exit code tells whether the workflow succeeded.
fn submit(testbed: &Testbed) -> Result<()> {
    let mut child = Command::new(program("flowforge")?)
        .args(["submit", "-f", "-", "--watch"])
        .env("KUBECONFIG", testbed.admin_kubeconfig())
        .stdin(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(WORKFLOW.as_bytes())?;
    match child.wait()? {
        status if status.success() => Ok(()),
        status => bail!("the workflow did not succeed: {status}"),
    }
}
