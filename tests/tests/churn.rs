//! Churn on a real control plane: pods are created, deleted and resized in place, their claims provisioned and refused, devices
//! and claims to them come and go, nodes are cordoned, tainted, relabelled, deleted and added, while a comparer checks what the
//! scheduler has in memory against the API server.
//!
//! ```text
//!   churn ──pause──> list pods, nodes, claims, … ──same conversion, a fresh snapshot──> dump ──┐
//!     ^                                                                                       ├─ equal?
//!     └───────────────────── go on <── scheduler's /debug/state: dump of its own snapshot ────┘
//! ```
//! FLOWFORGE_CHURN_SECONDS sets how long it goes on (`make soak`: half an hour), FLOWFORGE_CHURN_SEED what happens.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

#[path = "churn/devices.rs"]
mod devices;
mod scheduler;

use flowforge_scheduler::convert::types::storage;
use flowforge_scheduler::convert::{self, device_types, types};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::devices::DeviceFact;
use flowforge_scheduler_core::snapshot::Snapshot;
use flowforge_scheduler_core::volumes::{ClaimInfo, StorageFact};
use flowforge_testbed::{PROVISIONER, Profile, Provisioner, Testbed};
use flowforge_tests::metrics::get;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use scheduler::{Random, create, install, namespace, pods, until};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "churn";
const NODES: usize = 12;
/// Pods that exist at once, about.
const PODS: usize = 120;
/// Pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// What has to happen at least once.
const HAPPENS: [&str; 11] =
    ["create", "delete", "resize", "slice", "claim", "class", "taint rule", "cordon", "taint", "label", "remove node"];
/// How long the scheduler may take to have seen everything.
const SETTLED: Duration = Duration::from_secs(20);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_memory_equals_what_the_api_server_has_all_through_a_churn() {
    let seconds = setting("FLOWFORGE_CHURN_SECONDS", 60);
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("FLOWFORGE_CHURN_SEED", since_epoch.as_secs());
    println!("seed {seed}; repeat with FLOWFORGE_CHURN_SEED={seed} FLOWFORGE_CHURN_SECONDS={seconds}");
    let testbed = scheduler::testbed(Profile::Cpu, NODES).await;
    let installation = install(&testbed, "debugSnapshot: true\n").await;
    namespace(&testbed, NAMESPACE).await;
    testbed.apply_yaml(&made_class()).await.unwrap();
    devices::prepare(&testbed, NAMESPACE).await;
    let provisioner = Provisioner::start(testbed.client().clone());
    let mut churn = Churn::new(&testbed, seed);
    let start = Instant::now();
    let (mut looks, mut looked_at, mut most_held) = (0, Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) || looks == 0 {
        churn.step().await;
        if looked_at.elapsed() >= BETWEEN_LOOKS {
            let dump = compare(&testbed, installation.scheduler).await;
            most_held = most_held.max(devices::held(&dump));
            looks += 1;
            looked_at = Instant::now();
        }
    }
    compare(&testbed, installation.scheduler).await;
    let bound = bound_claims(&testbed).await;
    println!(
        "{} looks, all equal; {:?}; {bound} claims are bound, up to {most_held} devices were held",
        looks + 1,
        churn.done
    );
    for what in HAPPENS {
        assert!(churn.done.get(what).is_some_and(|times| *times > 0), "never: {what}; {:?}", churn.done);
    }
    assert!(bound > 0, "no claim was ever bound");
    assert!(most_held > 0, "no device was ever held");
    drop(provisioner);
}

/// A class whose claims wait for their pod.
fn made_class() -> String {
    let (metadata, mode) = (json!({"name": "made"}), "WaitForFirstConsumer");
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata,
        "provisioner": PROVISIONER, "volumeBindingMode": mode,
    })
    .to_string()
}

async fn bound_claims(testbed: &Testbed) -> usize {
    let all = list::<storage::Claim>(testbed, "/api/v1/persistentvolumeclaims").await;
    all.iter().map(convert::volumes::claim).filter(ClaimInfo::is_bound).count()
}

/// What happens, and how often it did.
struct Churn<'t> {
    testbed: &'t Testbed,
    random: Random,
    made: u64,
    done: BTreeMap<&'static str, u64>,
}

impl<'t> Churn<'t> {
    fn new(testbed: &'t Testbed, seed: u64) -> Self {
        Self { testbed, random: Random::new(seed), made: 0, done: BTreeMap::new() }
    }

    /// One thing happens.
    async fn step(&mut self) {
        let existing = pods(self.testbed, NAMESPACE, "").await;
        let what = match self.random.below(100) {
            0..30 if existing.len() < PODS => self.create_pods().await,
            0..52 => self.delete_pod(&existing).await,
            52..66 => self.resize_pod(&existing).await,
            66..74 => self.change_slice().await,
            74..79 => self.change_claim().await,
            79..82 => self.change_class().await,
            82..85 => self.change_rule().await,
            85..89 => self.change_node("cordon").await,
            89..93 => self.change_node("taint").await,
            93..98 => self.change_node("label").await,
            _ => self.replace_node().await,
        };
        *self.done.entry(what).or_default() += 1;
    }

    async fn create_pods(&mut self) -> &'static str {
        let count = 1 + self.random.below(8);
        let made: Vec<Value> = (0..count).map(|_| self.pod()).collect();
        create(self.testbed, NAMESPACE, made).await;
        "create"
    }

    /// A pod of ours, or of nobody; some have relations, some fit nowhere.
    fn pod(&mut self) -> Value {
        self.made += 1;
        let app = format!("app-{}", self.random.below(5));
        let cpu = format!("{}m", 100 * (1 + self.random.below(20)));
        let name = if self.random.below(10) == 0 { "nobody" } else { "flowforge" };
        let mut spec = json!({
            "schedulerName": name, "terminationGracePeriodSeconds": self.random.below(2),
            "containers": [{"name": "main", "image": "x", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}],
        });
        match self.random.below(12) {
            0 => spec["nodeSelector"] = json!({"churn": format!("v{}", self.random.below(3))}),
            1 => {
                let term =
                    json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}});
                spec["affinity"] =
                    json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            }
            2 => {
                spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": app}}}]);
            }
            // A volume of its own, which goes with it.
            3 => {
                let template = json!({"spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "made",
                    "resources": {"requests": {"storage": "1Gi"}},
                }});
                spec["volumes"] = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": template}}]);
            }
            4..8 => self.ask_for_devices(&mut spec),
            _ => {}
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p-{}", self.made), "labels": {"app": app}}, "spec": spec})
    }

    fn pick<'p>(&mut self, existing: &'p [Pod]) -> Option<&'p Pod> {
        let at = usize::try_from(self.random.below(existing.len().max(1) as u64)).ok()?;
        existing.get(at)
    }

    async fn delete_pod(&mut self, existing: &[Pod]) -> &'static str {
        let Some(name) = self.pick(existing).and_then(|pod| pod.metadata.name.clone()) else { return "nothing" };
        let api: Api<Pod> = Api::namespaced(self.testbed.client().clone(), NAMESPACE);
        // It may have gone by itself.
        tolerate(api.delete(&name, &DeleteParams::default()).await.map(drop));
        "delete"
    }

    async fn resize_pod(&mut self, existing: &[Pod]) -> &'static str {
        let Some(name) = self.pick(existing).and_then(|pod| pod.metadata.name.clone()) else { return "nothing" };
        let api: Api<Pod> = Api::namespaced(self.testbed.client().clone(), NAMESPACE);
        let cpu = format!("{}m", 100 * (1 + self.random.below(20)));
        let patch = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]}});
        let resized = api.patch_subresource("resize", &name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if tolerate(resized.map(drop)) { "resize" } else { "nothing" }
    }

    async fn node(&mut self) -> String {
        let names = scheduler::node_names(self.testbed).await;
        let at = usize::try_from(self.random.below(names.len() as u64)).unwrap();
        names[at].clone()
    }

    async fn change_node(&mut self, what: &'static str) -> &'static str {
        let name = self.node().await;
        let on = self.random.below(3) == 0;
        let value = format!("v{}", self.random.below(3));
        let patch = match what {
            "cordon" => json!({"spec": {"unschedulable": on}}),
            "taint" if on => json!({"spec": {"taints": [{"key": "churn", "value": value, "effect": "NoSchedule"}]}}),
            "taint" => json!({"spec": {"taints": null}}),
            _ => json!({"metadata": {"labels": {"churn": value}}}),
        };
        let nodes: Api<Node> = Api::all(self.testbed.client().clone());
        tolerate(nodes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop));
        what
    }

    async fn replace_node(&mut self) -> &'static str {
        let name = self.node().await;
        self.testbed.remove_node(&name).await.unwrap();
        self.testbed.create_nodes(Profile::Cpu, 1).await.unwrap();
        "remove node"
    }
}

/// Whether a request was taken; that an object is gone or changed meanwhile, or that a resize is not possible now, as on a node
/// that was removed, is part of the churn.
fn tolerate(answer: kube::Result<()>) -> bool {
    match answer {
        Ok(()) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => false,
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.ends_with("not found") => false,
        Err(error) => panic!("{error}"),
    }
}

/// Both sides are equal once the scheduler has seen everything; nothing of the churn happens meanwhile. Answers what they have.
async fn compare(testbed: &Testbed, scheduler: SocketAddr) -> Value {
    until("memory equals the API server", SETTLED, || async {
        let ours = dump_of(scheduler).await?;
        let theirs = expected(testbed).await;
        let differences = differences(&ours, &theirs);
        if differences.is_empty() { Ok(ours) } else { Err(differences.join("\n")) }
    })
    .await
}

async fn dump_of(scheduler: SocketAddr) -> Result<Value, String> {
    let state = get(scheduler, "/debug/state").await.map_err(|error| error.to_string())?;
    let mut state: Value = serde_json::from_str(&state).map_err(|error| error.to_string())?;
    let dump = state["dump"].take();
    if dump.is_null() { Err(format!("no dump in {state}")) } else { Ok(dump) }
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

async fn list<T: DeserializeOwned>(testbed: &Testbed, path: &str) -> Vec<T> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let list: List<T> = testbed.client().request(request).await.unwrap();
    list.items
}

/// What a scheduler that began now would have in memory.
async fn expected(testbed: &Testbed) -> Value {
    let mut snapshot = Snapshot::new(&Config::default());
    for namespace in list::<types::Namespace>(testbed, "/api/v1/namespaces").await {
        snapshot.set_namespace(&namespace.metadata.name, Some(namespace.metadata.labels));
    }
    for node in list::<types::Node>(testbed, "/api/v1/nodes").await {
        snapshot.upsert_node(convert::node(&node));
    }
    for claim in list::<storage::Claim>(testbed, "/api/v1/persistentvolumeclaims").await {
        snapshot.set_storage(StorageFact::Claim(convert::volumes::claim(&claim)));
    }
    for volume in list::<storage::PersistentVolume>(testbed, "/api/v1/persistentvolumes").await {
        snapshot.set_storage(StorageFact::Volume(convert::volumes::volume(&volume)));
    }
    for fact in known_devices(testbed).await {
        snapshot.note_device(fact);
    }
    for pod in list::<types::Pod>(testbed, "/api/v1/pods").await {
        snapshot.upsert_pod(convert::pod(&pod, |name| name == "flowforge"));
    }
    serde_json::to_value(snapshot.cluster().dump()).unwrap()
}

async fn known_devices(testbed: &Testbed) -> Vec<DeviceFact> {
    let at = |kind: &str| format!("/apis/resource.k8s.io/v1/{kind}");
    let slices = list::<device_types::ResourceSlice>(testbed, &at("resourceslices")).await;
    let classes = list::<device_types::DeviceClass>(testbed, &at("deviceclasses")).await;
    let claims = list::<device_types::ResourceClaim>(testbed, &at("resourceclaims")).await;
    let rules = list::<device_types::DeviceTaintRule>(testbed, &at("devicetaintrules")).await;
    let slices = slices.iter().map(|slice| DeviceFact::Slice(convert::devices::slice(slice)));
    let classes = classes.iter().map(|class| DeviceFact::Class(convert::devices::class(class)));
    let claims = claims.iter().map(|claim| DeviceFact::Claim(convert::devices::claim(claim)));
    let rules = rules.iter().map(|rule| DeviceFact::Rule(convert::devices::taint_rule(rule)));
    slices.chain(classes).chain(claims).chain(rules).collect()
}

/// One line for each object or device that differs.
fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let of_devices = ["pools", "slices", "classes", "claims", "rules", "held", "assumed", "waiting"];
    let of_devices = of_devices.into_iter().map(|part| format!("/devices/{part}"));
    let parts = ["nodes", "pods", "namespaces", "claims", "volumes"].into_iter().map(|part| format!("/{part}"));
    for part in parts.chain(of_devices) {
        let [ours, theirs] = [ours, theirs].map(|dump| dump.pointer(&part).cloned().unwrap_or_default());
        let keys = |of: &Value| of.as_object().map(|map| map.keys().cloned().collect::<BTreeSet<_>>());
        let all: BTreeSet<String> = [&ours, &theirs].into_iter().filter_map(keys).flatten().collect();
        for key in all {
            let (mine, api) = (&ours[&key], &theirs[&key]);
            if mine != api {
                found.push(format!("{part} {key}:\n  in memory:  {mine}\n  API server: {api}"));
            }
        }
    }
    found
}

#[test]
fn every_kind_of_difference_is_found() {
    let dump = |nodes: &Value| json!({"nodes": nodes, "pods": {"u": {"place": "bound"}}, "namespaces": {}, "devices": {"held": nodes}});
    let found = |a: Value, b: Value| differences(&dump(&a), &dump(&b)).len();
    assert_eq!(found(json!({"a": 1}), json!({"a": 1})), 0);
    assert_eq!(found(json!({"a": 1, "b": 1}), json!({"a": 2, "c": 1})), 6);
}
