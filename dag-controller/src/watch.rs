//! Watches: one task per kind, lists first, then changes; converts nothing but the address.
//!
//! ```text
//!   Workflow, Gang, Service, Pod ─────────────> shard of the workflow
//!   Node (listed after the pods) ─────────────> every shard, when it goes away or comes back
//!   PersistentVolumeClaim, StorageClass ──────> shared table, and a hint to the shards
//! ```
//! Lists are consistent reads (no `resourceVersion=0`): a new leader must not decide on what an old cache remembers.
//! Nodes are listed after the pods, so that a pod whose node is absent from the list has really lost it.

use flowforge_api::names::{MANAGED_BY_CONTROLLER, label};
use flowforge_api::{Gang, Workflow};
use futures::{Stream, StreamExt};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::convert::{Place, place};
use crate::inputs::{Departed, FlowKey, Input, Kind, Router};
use crate::storage::{ClaimFacts, Classes};
use crate::watched::{
    self, MetadataOf, WatchedClaim, WatchedNode, WatchedPod, claim_facts, out_of_service, waits_for_consumer,
};

/// Facts of every claim by namespace and name.
pub type ClaimTable = BTreeMap<(Arc<str>, Arc<str>), ClaimFacts>;

/// Claims and classes of the cluster; written by the watches, read by the shards.
#[derive(Debug, Default)]
pub struct StorageTable {
    /// Claims by namespace and name.
    pub claims: RwLock<ClaimTable>,
    /// Classes.
    pub classes: RwLock<Classes>,
}

/// Nodes known to be usable; read by the shards while they are built.
pub type Nodes = Arc<RwLock<BTreeSet<Arc<str>>>>;

/// Starts every watch; each says once on `listed` that its list is in.
pub fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    router: &Router,
    storage: &Arc<StorageTable>,
    nodes: &Nodes,
) -> Listed {
    let (sender, receiver) = mpsc::channel(8);
    let (pods_in, after_pods) = oneshot::channel();
    let ours = watcher::Config::default().labels(&format!("{}={MANAGED_BY_CONTROLLER}", label::MANAGED_BY));
    let all = watcher::Config::default();

    let workflows = stream(Api::<Workflow>::all(client.clone()), all.clone());
    tasks.spawn(workflow_task(workflows, router.clone(), sender.clone()));
    let gangs = stream(Api::<Gang>::all(client.clone()), ours.clone());
    tasks.spawn(owned_task(gangs, router.clone(), sender.clone(), Kind::Gang, None));
    let services = stream(Api::<MetadataOf>::all_with(client.clone(), &watched::services()), ours.clone());
    tasks.spawn(owned_task(services, router.clone(), sender.clone(), Kind::Service, None));
    let pods = stream(Api::<WatchedPod>::all_with(client.clone(), &watched::pods()), ours);
    tasks.spawn(owned_task(pods, router.clone(), sender.clone(), Kind::Pod, Some(pods_in)));
    tasks.spawn(node_task(client.clone(), after_pods, router.clone(), Arc::clone(nodes), sender.clone()));
    let claims = stream(Api::<WatchedClaim>::all_with(client.clone(), &watched::claims()), all.clone());
    tasks.spawn(claim_task(claims, router.clone(), Arc::clone(storage), sender.clone()));
    let classes = stream(Api::<StorageClass>::all(client.clone()), all);
    tasks.spawn(class_task(classes, router.clone(), Arc::clone(storage), sender));
    Listed { receiver }
}

/// Says when every list is in.
pub struct Listed {
    receiver: mpsc::Receiver<&'static str>,
}

impl Listed {
    const KINDS: usize = 7;

    /// Waits for every kind; false when the watches ended before.
    pub async fn all(mut self) -> bool {
        let mut seen = BTreeSet::new();
        while seen.len() < Self::KINDS {
            match self.receiver.recv().await {
                Some(kind) => seen.insert(kind),
                None => return false,
            };
            tracing::debug!(listed = ?seen, "lists");
        }
        true
    }
}

fn stream<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, config).default_backoff().filter_map(|event| async move {
        match event {
            Ok(event) => Some(event),
            Err(error) => {
                tracing::warn!(%error, "watch");
                None
            }
        }
    })
}

type Done = mpsc::Sender<&'static str>;

async fn done(sender: &Done, kind: &'static str, told: &mut bool) {
    if !std::mem::replace(told, true) {
        // The receiver is gone when the term ends during the lists.
        let _ = sender.send(kind).await;
    }
}

async fn workflow_task(events: impl Stream<Item = Event<Workflow>>, router: Router, listed: Done) {
    let mut events = pin!(events);
    let mut told = false;
    while let Some(event) = events.next().await {
        let alive = match event {
            Event::Init => router.broadcast(|| Input::ListBegins(Kind::Workflow)).await,
            Event::InitApply(workflow) | Event::Apply(workflow) => {
                let key = FlowKey::new(&workflow.namespace().unwrap_or_default(), &workflow.name_any());
                router.send(&key, Input::Workflow(Box::new(workflow))).await
            }
            Event::Delete(workflow) => {
                let key = FlowKey::new(&workflow.namespace().unwrap_or_default(), &workflow.name_any());
                router.send(&key, Input::WorkflowGone(key.clone(), workflow.uid().unwrap_or_default())).await
            }
            Event::InitDone => {
                let alive = router.broadcast(|| Input::ListEnds(Kind::Workflow)).await;
                done(&listed, "workflows", &mut told).await;
                alive
            }
        };
        if !alive {
            return;
        }
    }
}

/// A kind whose objects say by label to which workflow they belong.
trait Owned: Resource + Send + 'static {
    fn seen(self, key: FlowKey) -> Input;
    fn gone(key: FlowKey, departed: Departed) -> Input;
}

impl Owned for Gang {
    fn seen(self, key: FlowKey) -> Input {
        Input::Gang(key, Box::new(self))
    }
    fn gone(key: FlowKey, departed: Departed) -> Input {
        Input::GangGone(key, departed)
    }
}

impl Owned for WatchedPod {
    fn seen(self, key: FlowKey) -> Input {
        Input::Pod(key, Box::new(self))
    }
    fn gone(key: FlowKey, departed: Departed) -> Input {
        Input::PodGone(key, departed)
    }
}

impl Owned for MetadataOf {
    fn seen(self, key: FlowKey) -> Input {
        Input::Service(key, Box::new(self))
    }
    fn gone(key: FlowKey, departed: Departed) -> Input {
        Input::ServiceGone(key, departed)
    }
}

async fn owned_task<K: Owned>(
    events: impl Stream<Item = Event<K>>,
    router: Router,
    listed: Done,
    kind: Kind,
    mut first_list: Option<oneshot::Sender<()>>,
) {
    let mut events = pin!(events);
    let mut told = false;
    while let Some(event) = events.next().await {
        let alive = match event {
            Event::Init => router.broadcast(|| Input::ListBegins(kind)).await,
            Event::InitApply(object) | Event::Apply(object) => match address(&object) {
                Some((key, _)) => router.send(&key.clone(), object.seen(key)).await,
                None => true,
            },
            Event::Delete(object) => match address(&object) {
                Some((key, place)) => {
                    let uid = object.meta().uid.clone().unwrap_or_default();
                    router.send(&key.clone(), K::gone(key, Departed { place, uid })).await
                }
                None => true,
            },
            Event::InitDone => {
                let alive = router.broadcast(|| Input::ListEnds(kind)).await;
                if let Some(first) = first_list.take() {
                    let _ = first.send(());
                }
                let name = match kind {
                    Kind::Workflow => "workflows",
                    Kind::Gang => "gangs",
                    Kind::Pod => "pods",
                    Kind::Service => "services",
                };
                done(&listed, name, &mut told).await;
                alive
            }
        };
        if !alive {
            return;
        }
    }
}

fn address<K: Resource>(object: &K) -> Option<(FlowKey, Place)> {
    let place = place(object.meta())?;
    let key = FlowKey::new(object.meta().namespace.as_deref()?, &place.workflow);
    Some((key, place))
}

async fn node_task(client: Client, after_pods: oneshot::Receiver<()>, router: Router, nodes: Nodes, listed: Done) {
    if after_pods.await.is_err() {
        return;
    }
    let events = stream(Api::<WatchedNode>::all_with(client, &watched::nodes()), watcher::Config::default());
    let mut events = pin!(events);
    let mut told = false;
    let mut relisted: BTreeSet<Arc<str>> = BTreeSet::new();
    while let Some(event) = events.next().await {
        let changes: Vec<(Arc<str>, bool)> = match event {
            Event::Init => {
                relisted.clear();
                Vec::new()
            }
            Event::InitApply(node) => {
                if !out_of_service(&node) {
                    relisted.insert(node.name_any().into());
                }
                Vec::new()
            }
            Event::InitDone => {
                let new = std::mem::take(&mut relisted);
                let old = std::mem::replace(&mut *nodes.write(), new.clone());
                if !told {
                    // Shards that are not built yet read the table itself.
                    done(&listed, "nodes", &mut told).await;
                    continue;
                }
                let gone = old.difference(&new).map(|n| (Arc::clone(n), true));
                gone.chain(new.difference(&old).map(|n| (Arc::clone(n), false))).collect()
            }
            Event::Apply(node) => {
                let name: Arc<str> = node.name_any().into();
                let gone = out_of_service(&node);
                let mut nodes = nodes.write();
                let changed = if gone { nodes.remove(&name) } else { nodes.insert(Arc::clone(&name)) };
                // A node that was never usable is news as well.
                if changed || gone { vec![(name, gone)] } else { Vec::new() }
            }
            Event::Delete(node) => {
                let name: Arc<str> = node.name_any().into();
                nodes.write().remove(&name);
                vec![(name, true)]
            }
        };
        for (name, gone) in changes {
            if !router.broadcast(|| Input::Node(Arc::clone(&name), gone)).await {
                return;
            }
        }
    }
}

async fn claim_task(
    events: impl Stream<Item = Event<WatchedClaim>>,
    router: Router,
    storage: Arc<StorageTable>,
    listed: Done,
) {
    let mut events = pin!(events);
    let mut told = false;
    let mut relisted = BTreeMap::new();
    let key = |claim: &WatchedClaim| -> (Arc<str>, Arc<str>) {
        (claim.namespace().unwrap_or_default().into(), claim.name_any().into())
    };
    while let Some(event) = events.next().await {
        let mut changed = Vec::new();
        match event {
            Event::Init => relisted.clear(),
            Event::InitApply(claim) => {
                relisted.insert(key(&claim), claim_facts(&claim));
            }
            Event::InitDone => {
                let new = std::mem::take(&mut relisted);
                let old = std::mem::replace(&mut *storage.claims.write(), new.clone());
                changed.extend(old.keys().filter(|k| !new.contains_key(*k)).cloned());
                changed.extend(new.iter().filter(|(k, v)| old.get(*k) != Some(v)).map(|(k, _)| k.clone()));
                done(&listed, "claims", &mut told).await;
            }
            Event::Apply(claim) => {
                let facts = claim_facts(&claim);
                if storage.claims.write().insert(key(&claim), facts.clone()).as_ref() != Some(&facts) {
                    changed.push(key(&claim));
                }
            }
            Event::Delete(claim) => {
                storage.claims.write().remove(&key(&claim));
                changed.push(key(&claim));
            }
        }
        for (namespace, name) in changed {
            if !router.broadcast(|| Input::Claim(Arc::clone(&namespace), Arc::clone(&name))).await {
                return;
            }
        }
    }
}

async fn class_task(
    events: impl Stream<Item = Event<StorageClass>>,
    router: Router,
    storage: Arc<StorageTable>,
    listed: Done,
) {
    let mut events = pin!(events);
    let mut told = false;
    let mut relisted = Classes::new();
    while let Some(event) = events.next().await {
        let changed = match event {
            Event::Init => {
                relisted.clear();
                false
            }
            Event::InitApply(class) => {
                relisted.insert(class.name_any(), waits_for_consumer(&class));
                false
            }
            Event::InitDone => {
                *storage.classes.write() = std::mem::take(&mut relisted);
                done(&listed, "classes", &mut told).await;
                true
            }
            Event::Apply(class) => {
                let waits = waits_for_consumer(&class);
                storage.classes.write().insert(class.name_any(), waits) != Some(waits)
            }
            Event::Delete(class) => storage.classes.write().remove(&class.name_any()).is_some(),
        };
        if changed && !router.broadcast(|| Input::Classes).await {
            return;
        }
    }
}
