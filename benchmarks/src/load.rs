//! One load: pods of one scheduler, created, bound and deleted, and what they cost it.

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(300);

/// Pods for one scheduler.
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) scheduler: &'static str,
    pub(crate) pods: usize,
    /// Members per gang; 1 makes single pods.
    pub(crate) gang: usize,
    /// How the pods arrive.
    pub(crate) arrival: Arrival,
}

/// How the pods of a load arrive.
#[derive(Clone, Copy)]
pub(crate) enum Arrival {
    /// As fast as the API server takes them, so many requests at once: shows cost and throughput.
    Burst(usize),
    /// One gang (or pod) after another, so far apart: shows latency without a queue before the scheduler.
    Paced(Duration),
}

/// What a load cost.
pub(crate) struct Measured {
    pub(crate) cpu_ms_per_pod: f64,
    pub(crate) pods_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Load {
    pub(crate) async fn run(&self, client: &Client, process: &Process) -> Result<Measured> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": self.name}}))?;
        namespaces.create(&PostParams::default(), &namespace).await.context("create the namespace")?;
        self.service_account_exists(client).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.name);

        let cpu_before = process.cpu_ms()?;
        let start = Instant::now();
        let watching = tokio::spawn(bound_instants(pods.clone(), self.pods));
        let created = self.create_all(&pods).await?;
        let bound = tokio::time::timeout(LIMIT, watching).await.context("not all pods were bound in time")???;
        let wall = start.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cpu = process.cpu_ms()? - cpu_before;

        let latencies = self.latencies(&created, &bound)?;
        let params = DeleteParams::default().grace_period(0);
        pods.delete_collection(&params, &ListParams::default()).await?;
        flowforge_tests::eventually("the load is deleted", LIMIT, || async {
            let left = pods.list_metadata(&ListParams::default().limit(1)).await.map_err(|e| e.to_string())?;
            if left.items.is_empty() { Ok(()) } else { Err("pods are left".to_owned()) }
        })
        .await?;
        // The schedulers take note of the deletions outside anybody's measurement.
        tokio::time::sleep(Duration::from_secs(3)).await;
        #[expect(clippy::cast_precision_loss, reason = "counts of pods are small")]
        let count = self.pods as f64;
        Ok(Measured {
            cpu_ms_per_pod: cpu / count,
            pods_per_second: count / wall,
            p50_ms: latencies[latencies.len() / 2],
            p99_ms: latencies[latencies.len() * 99 / 100],
        })
    }

    async fn create_all(&self, pods: &Api<Pod>) -> Result<BTreeMap<String, Instant>> {
        match self.arrival {
            Arrival::Burst(parallel) => {
                stream::iter(0..self.pods).map(|i| self.create(pods, i)).buffer_unordered(parallel).try_collect().await
            }
            Arrival::Paced(pause) => {
                let mut created = BTreeMap::new();
                let mut due = tokio::time::interval_at(tokio::time::Instant::now(), pause);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for first in (0..self.pods).step_by(self.gang) {
                    due.tick().await;
                    let members = (first..self.pods.min(first + self.gang)).map(|i| self.create(pods, i));
                    created.extend(futures::future::try_join_all(members).await?);
                }
                Ok(created)
            }
        }
    }

    /// From the answer to the last create of a gang (or the pod's own) to its last (own) Binding seen, sorted, milliseconds.
    fn latencies(&self, created: &BTreeMap<String, Instant>, bound: &BTreeMap<String, Instant>) -> Result<Vec<f64>> {
        let mut gangs: BTreeMap<usize, (Instant, Instant)> = BTreeMap::new();
        for index in 0..self.pods {
            let name = pod_name(index);
            let at = (
                *created.get(&name).context("a pod was not created")?,
                *bound.get(&name).context("a pod was not bound")?,
            );
            let gang = gangs.entry(index / self.gang).or_insert(at);
            *gang = (gang.0.max(at.0), gang.1.max(at.1));
        }
        let mut latencies: Vec<f64> =
            gangs.values().map(|(from, to)| to.saturating_duration_since(*from).as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }

    async fn service_account_exists(&self, client: &Client) -> Result<()> {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), &self.name);
        flowforge_tests::eventually("the default ServiceAccount exists", LIMIT, || async {
            accounts.get("default").await.map(drop).map_err(|e| e.to_string())
        })
        .await
    }

    async fn create(&self, pods: &Api<Pod>, index: usize) -> Result<(String, Instant)> {
        let name = pod_name(index);
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": "load"}},
            "spec": {
                "schedulerName": self.scheduler,
                "containers": [{
                    "name": "main", "image": "load",
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                }],
            },
        });
        if self.gang > 1 {
            pod["metadata"]["labels"]["flowforge.dev/gang"] = json!(format!("g-{}", index / self.gang));
            pod["metadata"]["annotations"] = json!({"flowforge.dev/gang-size": self.gang.to_string()});
        }
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok((name, Instant::now()))
    }
}

fn pod_name(index: usize) -> String {
    format!("p-{index:05}")
}

/// When each of `count` pods was first seen with a node.
async fn bound_instants(pods: Api<Pod>, count: usize) -> Result<BTreeMap<String, Instant>> {
    let mut bound = BTreeMap::new();
    let mut events = Box::pin(watcher(pods, watcher::Config::default()).applied_objects());
    while bound.len() < count {
        let pod = events.next().await.context("the watch ended")??;
        let node = pod.spec.and_then(|s| s.node_name).filter(|n| !n.is_empty());
        if let (Some(name), Some(_)) = (pod.metadata.name, node) {
            bound.entry(name).or_insert_with(Instant::now);
        }
    }
    Ok(bound)
}
