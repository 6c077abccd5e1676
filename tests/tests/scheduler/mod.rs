//! What the scheduler's control-plane tests share: pods and gangs, and what becomes of them.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test binary uses a part of this")]

pub(crate) mod devices;

use flowforge_api::PlacementJournal;
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{Installation, NAMESPACE, Options};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Requests of a test in flight at once.
const PARALLEL: usize = 24;
/// How long a request is repeated while the API server is away or has too much to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A testbed with nothing of FlowForge but the scheduler, which runs under its own ServiceAccount.
pub(crate) async fn testbed(profile: Profile, nodes: usize) -> Testbed {
    Testbed::builder().nodes(profile, nodes).start().await.unwrap()
}

/// Options for the scheduler alone, with a configuration file of this content and the lease of production.
pub(crate) fn options(testbed: &Testbed, config: &str) -> Options {
    let path: PathBuf = testbed.dir().join("scheduler.yaml");
    std::fs::write(&path, config).unwrap();
    let log = std::env::var("FLOWFORGE_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
    Options {
        controller: false,
        lease_args: Vec::new(),
        scheduler_args: vec![format!("--config={}", path.display()), format!("--log-level={log}")],
        ..Options::default()
    }
}

/// Installs and starts the scheduler; a failure shows its log.
pub(crate) async fn install<'t>(testbed: &'t Testbed, config: &str) -> Installation<'t> {
    Installation::install(testbed, options(testbed, config)).await.unwrap()
}

/// The same with a lease that others take over after five seconds.
pub(crate) async fn install_with_short_lease<'t>(testbed: &'t Testbed, config: &str) -> Installation<'t> {
    let options = Options { lease_args: Options::default().lease_args, ..options(testbed, config) };
    Installation::install(testbed, options).await.unwrap()
}

/// A namespace that can take pods.
pub(crate) async fn namespace(testbed: &Testbed, name: &str) {
    let namespaces: Api<Namespace> = Api::all(testbed.client().clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    make(&namespaces, &object).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(testbed.client().clone(), name);
    until("the namespace has its ServiceAccount", PATIENCE, || async {
        patiently("get a ServiceAccount", || accounts.get_opt("default"))
            .await
            .is_some()
            .then_some(())
            .ok_or("none yet".to_owned())
    })
    .await;
}

/// Waits for a fact; panics with the last explanation when it does not come in time.
pub(crate) async fn until<T, F, Fut>(what: &str, limit: Duration, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    flowforge_tests::wait::eventually(what, limit, probe).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Repeats a request for as long as the failure may be the moment's: the server is away, or has too much to do.
pub(crate) async fn patiently<T, F, Fut>(what: &str, mut request: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = kube::Result<T>>,
{
    let start = Instant::now();
    loop {
        match request().await {
            Ok(answer) => return answer,
            Err(error) if is_of_the_moment(&error) && start.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

fn is_of_the_moment(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// Creates an object. That it exists is a failure, unless an earlier try of this call may have made it.
async fn make<K>(api: &Api<K>, object: &K)
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let again = AtomicBool::new(false);
    let parameters = PostParams::default();
    patiently("create an object", || async {
        match api.create(&parameters, object).await {
            Err(kube::Error::Api(status)) if status.code == 409 && again.load(Ordering::Relaxed) => Ok(()),
            answer => {
                again.store(true, Ordering::Relaxed);
                answer.map(drop)
            }
        }
    })
    .await;
}

/// A pod of ours that asks for so many GPUs and runs until it is deleted.
pub(crate) fn pod(name: &str, gpus: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {
            "schedulerName": "flowforge", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "x", "resources": {
                "requests": {"cpu": "100m", "nvidia.com/gpu": gpus}, "limits": {"nvidia.com/gpu": gpus},
            }}],
        },
    })
}

/// The members of a gang in the plain form.
pub(crate) fn gang(name: &str, size: usize, gpus: &str) -> Vec<Value> {
    let member = |rank: usize| {
        let mut member = pod(&format!("{name}-{rank}"), gpus);
        member["metadata"]["labels"] = json!({"flowforge.dev/gang": name, "flowforge.dev/rank": rank.to_string()});
        member["metadata"]["annotations"] = json!({"flowforge.dev/gang-size": size.to_string()});
        member
    };
    (0..size).map(member).collect()
}

/// Creates pods, several at once.
pub(crate) async fn create(testbed: &Testbed, namespace: &str, pods: Vec<Value>) {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), namespace);
    let made = stream::iter(pods).map(|pod| {
        let api = &api;
        async move { make(api, &serde_json::from_value(pod).unwrap()).await }
    });
    made.buffer_unordered(PARALLEL).collect::<Vec<_>>().await;
}

/// The pods of a namespace with this label selector (empty for all), by a consistent read.
pub(crate) async fn pods(testbed: &Testbed, namespace: &str, selector: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), namespace);
    let parameters = ListParams::default().labels(selector);
    patiently("list pods", || api.list(&parameters)).await.items
}

/// Intents that the placement journal holds open.
pub(crate) async fn open_intents(testbed: &Testbed) -> i32 {
    let slots: Api<PlacementJournal> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    let parameters = ListParams::default();
    let slots = patiently("list the journal's slots", || slots.list(&parameters)).await;
    slots.items.iter().map(|slot| slot.spec.open).sum()
}

/// The pods of a plain gang.
pub(crate) async fn members(testbed: &Testbed, namespace: &str, gang: &str) -> Vec<Pod> {
    pods(testbed, namespace, &format!("flowforge.dev/gang={gang}")).await
}

/// Deletes these pods and waits until they are gone.
pub(crate) async fn delete(testbed: &Testbed, namespace: &str, selector: &str) {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), namespace);
    let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let selected = ListParams::default().labels(selector);
    patiently("delete pods", || api.delete_collection(&parameters, &selected)).await;
    until("the pods are gone", PATIENCE, || async {
        let left = pods(testbed, namespace, selector).await.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} pods are left")) }
    })
    .await;
}

/// Node of a pod.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a pod is bound and not on its way out.
pub(crate) fn is_live(pod: &Pod) -> bool {
    let ended = pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Failed" || p == "Succeeded");
    node_of(pod).is_some() && pod.metadata.deletion_timestamp.is_none() && !ended
}

/// Name, reason and message of a condition that is not True.
pub(crate) fn unscheduled(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some((condition.reason.clone()?, condition.message.clone()?))
}

/// Waits until a pod of a label selector is refused with a message that contains this (empty for any); answers reason and
/// message.
pub(crate) async fn refused(testbed: &Testbed, namespace: &str, selector: &str, expected: &str) -> (String, String) {
    until(&format!("a pod of {namespace} with {selector:?} is told {expected:?}"), PATIENCE, || async {
        let found = pods(testbed, namespace, selector).await;
        let live = found.iter().filter(|pod| is_live(pod)).count();
        let mut told = found.iter().filter_map(unscheduled);
        let any = told.clone().next();
        told.find(|(_, message)| message.contains(expected))
            .ok_or(format!("{live} of {} are bound; {any:?}", found.len()))
    })
    .await
}

/// A class of priority; `preempts` says whether its pods evict others.
pub(crate) async fn priority_class(testbed: &Testbed, name: &str, value: i32, preempts: bool) {
    let policy = if preempts { "PreemptLowerPriority" } else { "Never" };
    let class = json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": policy});
    let classes: Api<PriorityClass> = Api::all(testbed.client().clone());
    make(&classes, &serde_json::from_value(class).unwrap()).await;
}

/// Waits until so many live members of a gang are bound; answers how long it took.
pub(crate) async fn bound(testbed: &Testbed, namespace: &str, gang: &str, size: usize, limit: Duration) -> Duration {
    let start = Instant::now();
    until(&format!("gang {gang} is whole"), limit, || async {
        let members = members(testbed, namespace, gang).await;
        let live = members.iter().filter(|pod| is_live(pod)).count();
        let why = members.iter().find_map(unscheduled);
        if live == size { Ok(()) } else { Err(format!("{live} of {size} are bound; {why:?}")) }
    })
    .await;
    start.elapsed()
}

/// Checks that no node carries more than it has, counting every live pod of the cluster.
pub(crate) async fn assert_no_overcommit(testbed: &Testbed, resource: &str) {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let capacity: BTreeMap<String, i64> = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|node| {
            let amount = node.status?.allocatable?.get(resource)?.0.parse().ok()?;
            Some((node.metadata.name?, amount))
        })
        .collect();
    let api: Api<Pod> = Api::all(testbed.client().clone());
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for pod in api.list(&ListParams::default()).await.unwrap().into_iter().filter(is_live) {
        let asked: i64 = pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .filter_map(|container| {
                container.resources.as_ref()?.requests.as_ref()?.get(resource)?.0.parse::<i64>().ok()
            })
            .sum();
        *used.entry(node_of(&pod).unwrap_or_default().to_owned()).or_default() += asked;
    }
    for (node, asked) in used {
        let has = capacity.get(&node).copied().unwrap_or_default();
        assert!(asked <= has, "{node} carries {asked} {resource} of {has}");
    }
}

/// Every node that the live members stand on.
pub(crate) fn nodes_of(pods: &[Pod]) -> BTreeSet<&str> {
    pods.iter().filter(|pod| is_live(pod)).filter_map(node_of).collect()
}

/// Sets labels on a node.
pub(crate) async fn label_node(testbed: &Testbed, name: &str, labels: Value) {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let patch = json!({"metadata": {"labels": labels}});
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Names of all nodes.
pub(crate) async fn node_names(testbed: &Testbed) -> Vec<String> {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    nodes.list(&ListParams::default()).await.unwrap().into_iter().filter_map(|node| node.metadata.name).collect()
}

/// A reproducible source of arbitrary numbers.
pub(crate) struct Random(u64);

impl Random {
    /// From a seed, which a failing test prints.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
