//! When each pod was bound, as this program's watch sees it.

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// When something was first true of each pod, by name.
pub(crate) type Instants = BTreeMap<String, Instant>;

/// A watch that runs until so many pods are bound.
pub(crate) struct Follower {
    task: JoinHandle<Result<Instants>>,
}

impl Follower {
    /// Follows the pods of a namespace until `count` of them are bound; returns when the watch has begun.
    ///
    /// # Errors
    /// When it has not begun in time.
    pub(crate) async fn start(pods: &Api<Pod>, count: usize, limit: Duration) -> Result<Self> {
        let (is_watching, watches) = oneshot::channel();
        let task = tokio::spawn(watch(pods.clone(), count, is_watching));
        tokio::time::timeout(limit, watches).await.context("the watch did not begin in time")??;
        Ok(Self { task })
    }

    /// When each pod was bound.
    ///
    /// # Errors
    /// When not all of them are within the limit.
    pub(crate) async fn bound(self, limit: Duration) -> Result<Instants> {
        tokio::time::timeout(limit, self.task).await.context("not all pods were bound in time")??
    }
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
