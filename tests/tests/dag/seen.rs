//! What a watch of a namespace saw of members and Gangs, in the order of the store: also what is gone again.

use super::{World, until};
use flowforge_api::gang::{Gang, GangPhase};
use flowforge_api::names::label;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Workflow and node id.
pub(crate) type Node = (String, String);

#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// First resourceVersion of every pod, by node, rank and UID.
    pub(crate) pods: BTreeMap<(Node, String), BTreeMap<String, u64>>,
    /// resourceVersion at which the Gang of a node was first seen Succeeded.
    pub(crate) succeeded: BTreeMap<Node, u64>,
    /// UIDs of the Gangs of a node.
    pub(crate) gangs: BTreeMap<Node, BTreeSet<String>>,
}

/// A watch that goes on until its runtime ends.
pub(crate) struct Watch(Arc<Mutex<Seen>>);

fn of<K: ResourceExt>(object: &K, key: &str) -> String {
    object.labels().get(key).cloned().unwrap_or_default()
}

fn node_of<K: ResourceExt>(object: &K) -> Node {
    (of(object, label::WORKFLOW), of(object, label::NODE))
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl Seen {
    fn pod(&mut self, pod: &Pod) {
        let uids = self.pods.entry((node_of(pod), of(pod, label::RANK))).or_default();
        uids.entry(pod.uid().unwrap_or_default()).or_insert(version(pod));
    }

    fn gang(&mut self, gang: &Gang) {
        self.gangs.entry(node_of(gang)).or_default().insert(gang.uid().unwrap_or_default());
        if gang.status.as_ref().and_then(|s| s.phase) == Some(GangPhase::Succeeded) {
            self.succeeded.entry(node_of(gang)).or_insert(version(gang));
        }
    }

    /// No member was made twice and no node was claimed twice.
    pub(crate) fn assert_once(&self) {
        for ((node, rank), uids) in &self.pods {
            assert_eq!(uids.len(), 1, "rank {rank} of {node:?} was made more than once");
        }
        for (node, uids) in &self.gangs {
            assert_eq!(uids.len(), 1, "{node:?} was claimed more than once");
        }
    }
}

impl Watch {
    pub(crate) fn start(world: &World, namespace: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let config = watcher::Config::default();
        let pods = watcher(world.pods(namespace), config.clone()).default_backoff().applied_objects();
        let gangs = watcher(world.gangs(namespace), config).default_backoff().applied_objects();
        tokio::spawn(note(pods, Arc::clone(&seen), Seen::pod));
        tokio::spawn(note(gangs, Arc::clone(&seen), Seen::gang));
        Self(seen)
    }

    /// Waits until the watch has seen every stored pod, and so many nodes succeed; gives what it saw. One pod is stored of
    /// every member, and there are so many.
    pub(crate) async fn caught_up(&self, world: &World, namespace: &str, nodes: usize, members: usize) -> Seen {
        let stored = world.pods(namespace).list(&ListParams::default()).await.unwrap().items;
        assert_eq!(stored.len(), members, "one pod is stored of every member");
        until("the watch has caught up", || async {
            let seen = self.0.lock().unwrap().clone();
            let uids: BTreeSet<&String> = seen.pods.values().flat_map(BTreeMap::keys).collect();
            let missing =
                stored.iter().filter_map(|p| p.metadata.uid.as_ref()).filter(|uid| !uids.contains(uid)).count();
            let succeeded = seen.succeeded.len();
            if missing == 0 && succeeded == nodes {
                return Ok(seen);
            }
            Err(format!("{missing} pods are missing, and {succeeded} nodes have succeeded"))
        })
        .await
    }
}

async fn note<K, S>(objects: S, seen: Arc<Mutex<Seen>>, take: fn(&mut Seen, &K))
where
    S: Stream<Item = Result<K, watcher::Error>>,
{
    let mut objects = std::pin::pin!(objects);
    while let Some(object) = objects.next().await {
        if let Ok(object) = object {
            take(&mut seen.lock().unwrap(), &object);
        }
    }
}
