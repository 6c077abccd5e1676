//! Starting where many pods are bound already: the time to the first Binding, and the memory that it takes.
//!
//! ```text
//!   nobody plays the nodes from here on; STANDING pods are created with their node
//!   for round in 1..=ROUNDS:   kubectl get --raw  of nodes, then of pods               (what a start cannot go below)
//!                              each  <- one pod waits; started; bound; AFTER more pods; stopped
//! ```

use anyhow::{Context as _, Result, ensure};
use flowforge_testbed::{Testbed, component};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::contender::{Arena, Kind};
use crate::follow::Follower;
use crate::load::{LIMIT, make_namespace};
use crate::workload::Workload;

/// Pods that follow the first, so that memory is that of a scheduler at work.
const AFTER: usize = 500;
/// Where the pods are that are bound beforehand.
const NAMESPACE: &str = "standing";
/// Requests at once while they are made.
const PARALLEL: usize = 64;

/// One start of a contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// From its start to the first pod bound, milliseconds.
    pub(crate) first_bind_ms: f64,
    /// Peak memory in the end, MiB.
    pub(crate) peak_mib: f64,
}

/// One round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Raw lists of nodes and pods, milliseconds.
    pub(crate) lists_ms: f64,
    pub(crate) kube_scheduler: Start,
    pub(crate) flowforge: Start,
}

/// Makes the pods and measures the rounds. kwok is gone after this.
///
/// # Errors
/// When something is refused or not bound in time.
pub(crate) async fn measure(arena: &Arena<'_>, pods: usize, rounds: usize) -> Result<Vec<Round>> {
    arena.testbed.kill(component::KWOK)?;
    let begun = Instant::now();
    make_standing(arena.testbed, pods).await?;
    println!("{pods} pods made with their nodes in {:.0} s", begun.elapsed().as_secs_f64());
    let mut measured = Vec::new();
    for round in 0..rounds {
        let lists_ms =
            raw_list_ms(arena.testbed, "/api/v1/nodes").await? + raw_list_ms(arena.testbed, "/api/v1/pods").await?;
        println!("kubectl get --raw of nodes and pods: {lists_ms:.0} ms");
        let mut kinds = [Kind::KubeScheduler, Kind::FlowForge];
        kinds.rotate_left(round % 2);
        let earlier = start(arena, kinds[0], round).await?;
        let later = start(arena, kinds[1], round).await?;
        let (kube_scheduler, flowforge) = if round % 2 == 0 { (earlier, later) } else { (later, earlier) };
        measured.push(Round { lists_ms, kube_scheduler, flowforge });
    }
    Ok(measured)
}

/// Pods that have a node from the first, spread evenly.
async fn make_standing(testbed: &Testbed, pods: usize) -> Result<()> {
    let client = testbed.client();
    make_namespace(client, NAMESPACE).await?;
    let nodes = Api::<Node>::all(client.clone()).list_metadata(&ListParams::default()).await?;
    let nodes: Vec<String> = nodes.items.into_iter().filter_map(|node| node.metadata.name).collect();
    ensure!(!nodes.is_empty(), "there are no nodes");
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    stream::iter(0..pods)
        .map(|index| {
            let mut pod = Workload::Plain.pod(&format!("s-{index:06}"), Kind::KubeScheduler.scheduler_name());
            pod["spec"]["nodeName"] = json!(nodes[index % nodes.len()]);
            let api = api.clone();
            async move {
                let pod: Pod = serde_json::from_value(pod)?;
                api.create(&PostParams::default(), &pod).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(PARALLEL)
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// How long `kubectl get --raw` of a whole collection takes.
async fn raw_list_ms(testbed: &Testbed, path: &str) -> Result<f64> {
    let mut kubectl = testbed.kubectl();
    kubectl.args(["get", "--raw", path]).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = tokio::task::spawn_blocking(move || kubectl.status()).await??;
    ensure!(status.success(), "kubectl get --raw {path} failed");
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

async fn start(arena: &Arena<'_>, kind: Kind, round: usize) -> Result<Start> {
    let client = arena.testbed.client();
    let namespace = format!("{}-start-{round}", kind.scheduler_name());
    make_namespace(client, &namespace).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let create = async |name: &str| -> Result<()> {
        let pod: Pod = serde_json::from_value(Workload::Plain.pod(name, kind.scheduler_name()))?;
        pods.create(&PostParams::default(), &pod).await.context("create a pod")?;
        Ok(())
    };
    create("first").await?;
    let first = Follower::start(&pods, 1, LIMIT).await?;
    let begun = Instant::now();
    let running = arena.launch(kind).await?;
    let bound = first.bound(LIMIT).await?.into_values().next().context("nothing was bound")?;
    let first_bind_ms = (bound - begun).as_secs_f64() * 1e3;
    let all = Follower::start(&pods, 1 + AFTER, LIMIT).await?;
    for index in 0..AFTER {
        create(&format!("a-{index:05}")).await?;
    }
    all.bound(LIMIT).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let peak_mib = running.process.peak_mib()?;
    arena.stop(running).await?;
    println!("{:<14} first bind after {first_bind_ms:>7.0} ms  peak {peak_mib:>7.1} MiB", kind.title());
    Ok(Start { first_bind_ms, peak_mib })
}
