//! One load: pods of one scheduler, created, bound and deleted, and what they cost it.

use anyhow::{Context as _, Result};
use flowforge_tests::eventually;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::metrics::Exporter;
use crate::process::Process;
use crate::report::Measured;

const LIMIT: Duration = Duration::from_secs(300);

/// A scheduler that is measured.
pub(crate) struct Contender {
    pub(crate) title: &'static str,
    /// What its pods have as `schedulerName`.
    pub(crate) scheduler: &'static str,
    pub(crate) process: Process,
    pub(crate) exporter: Exporter,
}

/// When something was first true of each pod, by name.
type Instants = BTreeMap<String, Instant>;

/// Pods for one scheduler.
#[derive(Clone)]
pub(crate) struct Load {
    /// Also the namespace, with the scheduler's name before it.
    pub(crate) name: String,
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

impl Load {
    /// Runs it through one scheduler, and says what it has cost.
    pub(crate) async fn run(&self, client: &Client, contender: &Contender) -> Result<Measured> {
        let namespace = format!("{}-{}", contender.scheduler, self.name);
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        namespaces.create(&PostParams::default(), &object).await.context("create the namespace")?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        eventually("the default ServiceAccount exists", LIMIT, || async {
            accounts.get("default").await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);

        let (is_watching, watches) = oneshot::channel();
        let watching = tokio::spawn(watch(pods.clone(), self.pods, is_watching));
        tokio::time::timeout(LIMIT, watches).await.context("the watch did not begin in time")??;
        let metrics_before = contender.exporter.scrape().await?;
        let cpu_before = contender.process.cpu_ms()?;
        let start = Instant::now();
        let created = self.create_all(&pods, contender.scheduler).await?;
        let bound = tokio::time::timeout(LIMIT, watching).await.context("not all pods were bound in time")???;
        let wall = start.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cpu = contender.process.cpu_ms()? - cpu_before;
        let own = contender.exporter.scrape().await?.since(&metrics_before);

        delete_all(&pods).await?;
        #[expect(clippy::cast_precision_loss, reason = "counts of pods are small")]
        let count = self.pods as f64;
        let own_ms = |quantile| own.quantile(self.own_metric(), quantile).map(|seconds| seconds * 1e3);
        Ok(Measured {
            cpu_ms_per_pod: cpu / count,
            pods_per_second: count / wall,
            latencies_ms: self.latencies_ms(&created, &bound)?,
            own_p50_ms: own_ms(0.5),
            own_p99_ms: own_ms(0.99),
            peak_mib: contender.process.peak_mib()?,
        })
    }

    /// The histogram in which a scheduler counts what is measured here from outside.
    fn own_metric(&self) -> &'static str {
        if self.gang > 1 {
            "flowforge_gang_placement_duration_seconds"
        } else {
            "scheduler_pod_scheduling_sli_duration_seconds"
        }
    }

    async fn create_all(&self, pods: &Api<Pod>, scheduler: &str) -> Result<Instants> {
        match self.arrival {
            Arrival::Burst(parallel) => {
                let all = stream::iter(0..self.pods).map(|i| self.create(pods, scheduler, i));
                all.buffer_unordered(parallel).try_collect().await
            }
            Arrival::Paced(pause) => {
                let mut created = Instants::new();
                let mut due = tokio::time::interval_at(tokio::time::Instant::now(), pause);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for first in (0..self.pods).step_by(self.gang) {
                    due.tick().await;
                    let members = (first..self.pods.min(first + self.gang)).map(|i| self.create(pods, scheduler, i));
                    created.extend(futures::future::try_join_all(members).await?);
                }
                Ok(created)
            }
        }
    }

    /// From the last create of a gang (or the pod's own) to its last (own) node seen, sorted.
    fn latencies_ms(&self, created: &Instants, bound: &Instants) -> Result<Vec<f64>> {
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
            gangs.into_values().map(|(created, bound)| (bound - created).as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }

    /// Creates a pod; returns when it was asked for. The answer comes too late: a busy client reads it after the binding.
    async fn create(&self, pods: &Api<Pod>, scheduler: &str, index: usize) -> Result<(String, Instant)> {
        let name = pod_name(index);
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": "load"}},
            "spec": {
                "schedulerName": scheduler,
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
        let pod = serde_json::from_value(pod)?;
        let asked = Instant::now();
        pods.create(&PostParams::default(), &pod).await?;
        Ok((name, asked))
    }
}

fn pod_name(index: usize) -> String {
    format!("p-{index:05}")
}

/// Deletes until nothing is left; a request that fails is made again.
async fn delete_all(pods: &Api<Pod>) -> Result<()> {
    let now = DeleteParams::default().grace_period(0);
    eventually("the load is deleted", LIMIT, || async {
        pods.delete_collection(&now, &ListParams::default()).await.map_err(|error| error.to_string())?;
        let first = ListParams::default().limit(1);
        let left = pods.list_metadata(&first).await.map_err(|error| error.to_string())?;
        if left.items.is_empty() { Ok(()) } else { Err("pods are left".to_owned()) }
    })
    .await?;
    // The schedulers take note of the deletions outside anybody's measurement.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

/// Watches until each of `count` pods has a node, and says since when. A watch that breaks is begun again, later and later.
async fn watch(pods: Api<Pod>, count: usize, begun: oneshot::Sender<()>) -> Result<Instants> {
    let mut begun = Some(begun);
    let mut bound = Instants::new();
    let mut events = Box::pin(watcher(pods, watcher::Config::default()).default_backoff());
    while bound.len() < count {
        let pod = match events.next().await.context("the watch ended")? {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => pod,
            Ok(Event::InitDone) => {
                // Nobody waits for a watch that begins again.
                let _ = begun.take().map(|begun| begun.send(()));
                continue;
            }
            Ok(Event::Init | Event::Delete(_)) => continue,
            Err(error) => {
                eprintln!("the watch broke and is begun again: {error}");
                continue;
            }
        };
        let node = pod.spec.and_then(|spec| spec.node_name).filter(|node| !node.is_empty());
        if let (Some(name), Some(_)) = (pod.metadata.name, node) {
            bound.entry(name).or_insert_with(Instant::now);
        }
    }
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gang_waits_from_its_last_create_to_its_last_node() {
        let load = Load { name: "l".into(), pods: 4, gang: 2, arrival: Arrival::Burst(1) };
        let start = Instant::now();
        let instants = |ms: [u64; 4]| -> Instants {
            let at = |(index, ms)| (pod_name(index), start + Duration::from_millis(ms));
            ms.into_iter().enumerate().map(at).collect()
        };
        let (created, bound) = (instants([0, 50, 10, 12]), instants([90, 80, 20, 15]));
        let rounded: Vec<f64> = load.latencies_ms(&created, &bound).unwrap().into_iter().map(f64::round).collect();
        assert_eq!(rounded, [8.0, 40.0]);
    }
}
