//! `flowforge-bench-bind`: what a scheduler costs that decides nothing. It sends the Bindings of its pods to the nodes in turn.
//!
//! ```text
//!   --watch           the watches of flowforge-scheduler; each new pod: Binding, then its Event    until it is ended
//!   --bindings-alone  one list; each pod of it: Binding                                            until all are sent
//! ```
//! It has the client of the scheduler (`flowforge_runtime::client`) and as many requests in flight, so that what a scheduler
//! adds to it is the scheduler's own. Of a pod it decodes no more than it sends; of all other objects nothing.

use anyhow::{Context as _, Result};
use clap::Parser;
use flowforge_runtime::{Metrics, Pressure, client};
use futures::io::AsyncBufReadExt as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Bindings in flight, as the scheduler's default.
const BINDINGS: usize = 64;
/// Events in flight, as the scheduler's default.
const EVENTS: usize = 16;
/// What waits at most.
const CAPACITY: usize = 131_072;
/// What the scheduler watches besides pods.
const WATCHED: [&str; 8] = [
    "/api/v1/nodes",
    "/api/v1/namespaces",
    "/api/v1/services",
    "/api/v1/replicationcontrollers",
    "/api/v1/persistentvolumeclaims",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/flowforge.dev/v1alpha1/gangs",
];

/// Bind pods without deciding anything.
#[derive(Parser)]
struct Args {
    /// Whose pods.
    #[arg(long)]
    scheduler_name: String,
    /// Hold the scheduler's watches and post its Events, for pods to come.
    #[arg(long, conflicts_with = "bindings_alone", required_unless_present = "bindings_alone")]
    watch: bool,
    /// Bind what is there, and end.
    #[arg(long)]
    bindings_alone: bool,
}

#[derive(Deserialize)]
struct List<T> {
    metadata: ListMeta,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Clone, Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
    uid: String,
}

#[derive(Deserialize)]
struct Node {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    scheduler_name: String,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "type")]
    kind: String,
    object: Pod,
}

/// A pod that was bound, and where.
struct Bound {
    pod: Meta,
    node: String,
}

struct Binder {
    client: Client,
    scheduler: String,
    nodes: Vec<String>,
    turn: AtomicUsize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let pressure = Pressure::new(&Metrics::new("bench", env!("CARGO_PKG_VERSION"))?)?;
    let client = client::connect(None, "flowforge-bench-bind", &pressure).await?;
    let nodes: List<Node> = get(&client, "/api/v1/nodes").await.context("list the nodes")?;
    let nodes = nodes.items.into_iter().map(|node| node.metadata.name).collect();
    let binder = Arc::new(Binder { client, scheduler: args.scheduler_name, nodes, turn: AtomicUsize::new(0) });
    let found: List<Pod> = get(&binder.client, "/api/v1/pods").await.context("list the pods")?;
    let version = found.metadata.resource_version;
    let waiting: Vec<Meta> = found.items.into_iter().filter_map(|pod| binder.to_bind(pod)).collect();
    println!("ready, {} pods wait", waiting.len());
    if args.bindings_alone {
        let bindings = futures::stream::iter(waiting).map(|pod| binder.bind(pod));
        bindings.buffer_unordered(BINDINGS).try_for_each(|_| async { Ok(()) }).await
    } else {
        binder.work(waiting, &version).await
    }
}

impl Binder {
    /// Works until a watch ends, which the server does after some minutes at the earliest.
    async fn work(self: Arc<Self>, waiting: Vec<Meta>, version: &str) -> Result<()> {
        let mut tasks = JoinSet::new();
        for path in WATCHED {
            tasks.spawn(ignore(self.client.clone(), path));
        }
        let (pods, to_bind) = mpsc::channel(CAPACITY);
        let (bound, to_tell) = mpsc::channel(CAPACITY);
        tasks.spawn(self.clone().bind_all(to_bind, bound));
        tasks.spawn(self.clone().tell_all(to_tell));
        tasks.spawn(self.watch(waiting, version.to_owned(), pods));
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// What is to be bound of a pod: one of ours that has no node.
    fn to_bind(&self, pod: Pod) -> Option<Meta> {
        (pod.spec.scheduler_name == self.scheduler && pod.spec.node_name.is_empty()).then_some(pod.metadata)
    }

    /// Hands on each pod that is to be bound, once.
    async fn watch(self: Arc<Self>, waiting: Vec<Meta>, version: String, pods: mpsc::Sender<Meta>) -> Result<()> {
        let mut seen = BTreeSet::new();
        for pod in waiting {
            seen.insert(pod.uid.clone());
            pods.send(pod).await?;
        }
        let path = format!("/api/v1/pods?watch=true&resourceVersion={version}");
        let mut lines = self.client.request_stream(http::Request::get(path).body(Vec::new())?).await?.lines();
        while let Some(line) = lines.try_next().await? {
            let change: Change = serde_json::from_str(&line).context("a change of a pod")?;
            if change.kind == "DELETED" {
                seen.remove(&change.object.metadata.uid);
            } else if let Some(pod) = self.to_bind(change.object)
                && seen.insert(pod.uid.clone())
            {
                pods.send(pod).await?;
            }
        }
        anyhow::bail!("the watch of pods has ended")
    }

    async fn bind_all(self: Arc<Self>, mut pods: mpsc::Receiver<Meta>, told: mpsc::Sender<Bound>) -> Result<()> {
        let mut tasks = JoinSet::new();
        while let Some(pod) = pods.recv().await {
            while tasks.len() >= BINDINGS {
                finished(tasks.join_next().await)?;
            }
            while let Some(ended) = tasks.try_join_next() {
                finished(Some(ended))?;
            }
            let (binder, told) = (self.clone(), told.clone());
            tasks.spawn(async move { Ok(told.send(binder.bind(pod).await?).await?) });
        }
        Ok(())
    }

    async fn tell_all(self: Arc<Self>, mut bound: mpsc::Receiver<Bound>) -> Result<()> {
        let mut tasks = JoinSet::new();
        while let Some(bound) = bound.recv().await {
            while tasks.len() >= EVENTS {
                finished(tasks.join_next().await)?;
            }
            let binder = self.clone();
            tasks.spawn(async move { binder.tell(bound).await });
        }
        Ok(())
    }

    /// Sends the Binding to the next node.
    async fn bind(&self, pod: Meta) -> Result<Bound> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let node = self.nodes.get(turn % self.nodes.len().max(1)).context("there are no nodes")?.clone();
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{}/binding", pod.namespace, pod.name);
        self.post(path, &body).await.with_context(|| format!("bind {}", pod.name))?;
        Ok(Bound { pod, node })
    }

    /// Posts the Event of a Binding, as a scheduler's.
    async fn tell(&self, Bound { pod, node }: Bound) -> Result<()> {
        let now = Timestamp::now();
        let body = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("{}.{:x}", pod.name, now.as_microsecond()), "namespace": pod.namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "reportingController": self.scheduler, "reportingInstance": "bench",
            "action": "Binding", "reason": "Scheduled", "type": "Normal",
            "note": format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name),
            "regarding": {
                "apiVersion": "v1", "kind": "Pod",
                "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", pod.namespace);
        self.post(path, &body).await.with_context(|| format!("tell of {}", pod.name))
    }

    async fn post(&self, path: String, body: &serde_json::Value) -> Result<()> {
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(body)?)?;
        self.client.request::<IgnoredAny>(request).await?;
        Ok(())
    }
}

/// What a task was about may not fail: a figure of a client that lost some of its work is none.
fn finished(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T> {
    Ok(client.request(http::Request::get(path).body(Vec::new())?).await?)
}

/// Holds a watch and throws away what it brings.
async fn ignore(client: Client, path: &'static str) -> Result<()> {
    let list: List<IgnoredAny> = get(&client, path).await.with_context(|| format!("list {path}"))?;
    let path = format!("{path}?watch=true&resourceVersion={}", list.metadata.resource_version);
    let mut lines = client.request_stream(http::Request::get(&path).body(Vec::new())?).await?.lines();
    while lines.try_next().await?.is_some() {}
    anyhow::bail!("the watch of {path} has ended")
}
