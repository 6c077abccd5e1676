//! One load: pods of one scheduler, created, bound and deleted, and what they cost it.

use anyhow::{Context as _, Result, ensure};
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

use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(300);

/// Pods for one scheduler.
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) scheduler: &'static str,
    pub(crate) pods: usize,
    /// Members per gang; 1 makes single pods.
    pub(crate) gang: usize,
}

/// What a load cost.
pub(crate) struct Measured {
    pub(crate) cpu_ms_per_pod: f64,
    pub(crate) pods_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Load {
    pub(crate) async fn run(&self, client: &Client, process: &Process, parallel: usize) -> Result<Measured> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": self.name}}))?;
        namespaces.create(&PostParams::default(), &namespace).await.context("create the namespace")?;
        self.service_account_exists(client).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.name);

        let cpu_before = process.cpu_ms()?;
        let start = Instant::now();
        let watching = tokio::spawn(bound_instants(pods.clone(), self.pods));
        let created: BTreeMap<String, Instant> =
            stream::iter(0..self.pods).map(|i| self.create(&pods, i)).buffer_unordered(parallel).try_collect().await?;
        let bound = tokio::time::timeout(LIMIT, watching).await.context("not all pods were bound in time")???;
        let wall = start.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cpu = process.cpu_ms()? - cpu_before;

        let mut latencies: Vec<f64> = created
            .iter()
            .filter_map(|(name, at)| Some(bound.get(name)?.saturating_duration_since(*at).as_secs_f64() * 1e3))
            .collect();
        ensure!(latencies.len() == self.pods, "{} of {} pods were seen bound", latencies.len(), self.pods);
        latencies.sort_by(f64::total_cmp);
        let params = DeleteParams::default().grace_period(0);
        pods.delete_collection(&params, &ListParams::default()).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        #[expect(clippy::cast_precision_loss, reason = "counts of pods are small")]
        let count = self.pods as f64;
        Ok(Measured {
            cpu_ms_per_pod: cpu / count,
            pods_per_second: count / wall,
            p50_ms: latencies[latencies.len() / 2],
            p99_ms: latencies[latencies.len() * 99 / 100],
        })
    }

    async fn service_account_exists(&self, client: &Client) -> Result<()> {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), &self.name);
        flowforge_tests::eventually("the default ServiceAccount exists", LIMIT, || async {
            accounts.get("default").await.map(drop).map_err(|e| e.to_string())
        })
        .await
    }

    async fn create(&self, pods: &Api<Pod>, index: usize) -> Result<(String, Instant)> {
        let name = format!("p-{index:05}");
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
