//! FlowForge as it is deployed: images, containers under a kubelet, in-cluster configuration, probes, the webhook through
//! its Service; and the scheduler as static pod of a cluster that has no other.
//!
//! The machine of the control plane is real, so that what the manifests ask for really happens there. The GPU machines are
//! fake and carry the taint that GPU machines usually carry.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use flowforge_api::workflow::{NodePhase, Workflow, WorkflowPhase};
use flowforge_api::{Gang, names};
use flowforge_testbed::real::{RealNodeOptions, WORKLOAD_IMAGE, available, pack_image};
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{CONTROLLER, NAMESPACE, SCHEDULER, WEBHOOK, program, repository, tail};
use flowforge_tests::{eventually, skip};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// Long enough for a loaded machine; a test that waits so long has failed.
const LIMIT: Duration = Duration::from_secs(180);

/// Members of the gang: one a machine, with all of its GPUs.
const SIZE: usize = 4;

/// The user of our containers.
const CONTAINER_USER: u32 = 65_532;

/// One testbed after the other: each runs four of our containers on this machine.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deployments_of_base_run_under_a_kubelet() {
    if let Err(missing) = available() {
        return skip("real", &missing.to_string());
    }
    let _turn = TURN.lock().await;
    let world = World::start(true).await;
    world.testbed.apply_manifests(repository().join("manifests/base")).await.unwrap();
    for name in [SCHEDULER, CONTROLLER] {
        world.available(name).await;
        world.leader(name, "").await;
    }
    world.webhook_refuses_what_cannot_run().await;
    world.a_gang_runs_to_its_end("first").await;
    for name in [SCHEDULER, CONTROLLER] {
        let leader = world.leader(name, "").await;
        world.pods(NAMESPACE).delete(&leader, &DeleteParams::default()).await.unwrap();
        world.leader(name, &leader).await;
    }
    world.a_gang_runs_to_its_end("second").await;
    for name in [SCHEDULER, CONTROLLER] {
        world.available(name).await;
    }
    world.a_rollout_of_the_controller_refuses_no_submission().await;
    world.testbed.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_static_pod_starts_a_cluster_that_has_no_other_scheduler() {
    if let Err(missing) = available() {
        return skip("real", &missing.to_string());
    }
    let _turn = TURN.lock().await;
    let world = World::start(false).await;
    // Before its roles are there, as after a cold start: it has to wait for them, not to end.
    world.write_static_pod();
    let pod = format!("{SCHEDULER}-{}", world.machine);
    until("the static pod runs", || async { running(&world.pods("kube-system").get(&pod).await) }).await;
    world.testbed.apply_manifests(repository().join("manifests/only-scheduler")).await.unwrap();
    until("the static pod is ready", || async { ready(&world.pods("kube-system").get(&pod).await) }).await;
    // Its pods name no scheduler of their own.
    world.available(CONTROLLER).await;
    world.webhook_refuses_what_cannot_run().await;
    world.a_gang_runs_to_its_end("first").await;
    ready(&world.pods("kube-system").get(&pod).await).unwrap();
    world.testbed.stop().unwrap();
}

/// A machine for the control plane, with our images, and GPU machines.
struct World {
    testbed: Testbed,
    machine: String,
}

impl World {
    async fn start(kube_scheduler: bool) -> Self {
        let testbed = Testbed::builder()
            .nodes(Profile::DgxH100, SIZE)
            .real_nodes(Profile::Cpu, 0)
            .kube_scheduler(kube_scheduler)
            .start()
            .await
            .unwrap();
        let nodes: Api<Node> = Api::all(testbed.client().clone());
        let taint =
            json!({"spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}});
        for node in nodes.list(&ListParams::default()).await.unwrap() {
            nodes.patch(&node.metadata.name.unwrap(), &PatchParams::default(), &Patch::Merge(&taint)).await.unwrap();
        }
        let image_archives = ["scheduler", "dag-controller"].map(|name| image(testbed.dir(), name)).to_vec();
        let options = RealNodeOptions { image_archives, ..RealNodeOptions::default() };
        let mut machines = testbed.add_real_nodes(Profile::Cpu, 1, &options).await.unwrap();
        Self { machine: machines.remove(0), testbed }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.testbed.client().clone(), namespace)
    }

    fn workflows(&self) -> Api<Workflow> {
        Api::default_namespaced(self.testbed.client().clone())
    }

    /// Waits until all replicas of a Deployment are available, none of which ever ended.
    async fn available(&self, name: &str) {
        let deployments: Api<Deployment> = Api::namespaced(self.testbed.client().clone(), NAMESPACE);
        until(&format!("{name} is available"), || async {
            let deployment = deployments.get(name).await.map_err(|e| e.to_string())?;
            let wanted = deployment.spec.replicas.unwrap_or_default();
            let status = deployment.status.unwrap_or_default();
            let available = status.available_replicas.unwrap_or_default();
            let settled = status.observed_generation == deployment.metadata.generation;
            if settled && available == wanted && wanted == 2 {
                return Ok(());
            }
            Err(format!("{available} of {wanted} replicas\n{}", self.told(name).await))
        })
        .await;
        for pod in self.replicas(name).await {
            assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some(self.machine.as_str()));
            assert_eq!(restarts(&pod), 0, "{}", self.told(name).await);
        }
    }

    /// The pods of a Deployment that are not on their way out.
    async fn replicas(&self, name: &str) -> Vec<Pod> {
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        let pods = self.pods(NAMESPACE).list(&labels).await.unwrap().items;
        pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// What a person would look at: status and log of each pod of a Deployment.
    async fn told(&self, name: &str) -> String {
        let mut text = String::new();
        for pod in self.replicas(name).await {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let log = self.pods(NAMESPACE).logs(&name, &LogParams::default()).await;
            let log = log.unwrap_or_else(|error| error.to_string());
            text += &format!("{name}: {}\n{}\n", json!(pod.status), tail(&log, 20));
        }
        text
    }

    /// Waits until a replica leads that is not `former`; the name of its pod.
    async fn leader(&self, name: &str, former: &str) -> String {
        let leases: Api<Lease> = Api::namespaced(self.testbed.client().clone(), NAMESPACE);
        until(&format!("another replica of {name} than {former:?} leads"), || async {
            let lease = leases.get(name).await.map_err(|e| e.to_string())?;
            let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            let replicas = self.replicas(name).await;
            let mut pods = replicas.into_iter().filter_map(|pod| pod.metadata.name);
            let leader = pods.find(|pod| pod != former && holder.starts_with(&format!("{pod}_")));
            leader.ok_or_else(|| format!("the holder is {holder:?}"))
        })
        .await
    }

    /// A workflow that the API server alone would take. Each replica answers through the Service from the moment on when
    /// it is ready; the rules of the Service follow within a moment.
    async fn webhook_refuses_what_cannot_run(&self) {
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.testbed.client().clone());
        let configuration = configurations.get(WEBHOOK).await.unwrap();
        for webhook in configuration.webhooks.unwrap() {
            assert!(webhook.client_config.ca_bundle.is_some(), "a controller is ready and its CA is not known");
            assert_eq!(webhook.client_config.service.unwrap().name, "flowforge-webhook");
        }
        let nodes =
            json!([{"id": "a", "image": "i", "dependsOn": ["b"]}, {"id": "b", "image": "i", "dependsOn": ["a"]}]);
        let cycle = workflow("cycle", &nodes);
        let refusal = until("the webhook is reached", || async {
            let refusal = self.workflows().create(&PostParams::default(), &cycle).await.unwrap_err().to_string();
            if refusal.contains("failed calling webhook") { Err(refusal) } else { Ok(refusal) }
        })
        .await;
        for part in ["\"workflows.flowforge.dev\" denied the request", "wait for each other"] {
            assert!(refusal.contains(part), "{refusal}");
        }
    }

    /// Replicas come and go while somebody submits all the time.
    async fn a_rollout_of_the_controller_refuses_no_submission(&self) {
        let before: BTreeSet<_> = self.replicas(CONTROLLER).await.into_iter().map(|pod| pod.metadata.uid).collect();
        let deployments: Api<Deployment> = Api::namespaced(self.testbed.client().clone(), NAMESPACE);
        deployments.restart(CONTROLLER).await.unwrap();
        let submission = workflow("rollout", &json!([{"id": "a", "image": "i"}]));
        let ask = PostParams { dry_run: true, ..PostParams::default() };
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={CONTROLLER}"));
        let mut submitted = 0;
        until("all replicas are new ones", || {
            submitted += 1;
            async {
                let answer = self.workflows().create(&ask, &submission).await;
                assert!(answer.is_ok(), "{answer:?}");
                let pods = self.pods(NAMESPACE).list(&labels).await.map_err(|e| e.to_string())?.items;
                let old = pods.iter().filter(|pod| before.contains(&pod.metadata.uid)).count();
                if old == 0 { Ok(()) } else { Err(format!("{old} old ones are left")) }
            }
        })
        .await;
        assert!(submitted > 20, "{submitted} submissions are too few to tell");
        self.available(CONTROLLER).await;
    }

    /// A container on the real machine, then a gang of whole GPU machines.
    async fn a_gang_runs_to_its_end(&self, name: &str) {
        let nodes = json!([
            {"id": "prepare", "image": WORKLOAD_IMAGE, "imagePullPolicy": "Never", "args": ["exit", "0"]},
            {
                "id": "train", "image": "example/work:1", "replicas": SIZE, "dependsOn": ["prepare"],
                "resources": {"limits": {"nvidia.com/gpu": "8"}},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
        ]);
        self.workflows().create(&PostParams::default(), &workflow(name, &nodes)).await.unwrap();
        let done = until(&format!("workflow {name} succeeds"), || async {
            let workflow = self.workflows().get(name).await.map_err(|e| e.to_string())?;
            let status = workflow.status.unwrap_or_default();
            match status.phase.unwrap_or_default() {
                WorkflowPhase::Succeeded => Ok(status),
                WorkflowPhase::Pending | WorkflowPhase::Running => Err(json!(status).to_string()),
                _ => panic!("{}", json!(status)),
            }
        })
        .await;
        assert!(done.nodes.iter().all(|node| node.phase == NodePhase::Succeeded), "{}", json!(done));
        let gangs: Api<Gang> = Api::default_namespaced(self.testbed.client().clone());
        let gang = gangs.get(&format!("{name}-train-1")).await.unwrap().status.unwrap();
        assert_eq!(gang.succeeded_ranks.as_deref(), Some("0-3"));
        let labels = format!("{}={name},{}=train", names::label::WORKFLOW, names::label::NODE);
        let members = self.pods("default").list(&ListParams::default().labels(&labels)).await.unwrap();
        let places: BTreeSet<String> = members.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
        assert_eq!(places.len(), SIZE, "one member a machine: {places:?}");
    }

    /// The files of a control-plane node that `manifests/README.md` asks for, and then the manifest. `/etc` is this
    /// machine's, so the folder is elsewhere; nothing else of the pod is changed.
    fn write_static_pod(&self) {
        let folder = self.testbed.dir().join("etc-kubernetes");
        fs::create_dir(&folder).unwrap();
        let source = repository().join("manifests/only-scheduler");
        let kubeconfig = self.testbed.user_kubeconfig("system:flowforge-scheduler", None).unwrap();
        for (from, to) in [
            (kubeconfig, folder.join("flowforge-scheduler.conf")),
            (source.join("config.yaml"), folder.join("flowforge-scheduler.yaml")),
        ] {
            fs::copy(from, &to).unwrap();
            chown(&to, Some(CONTAINER_USER), Some(CONTAINER_USER)).unwrap();
        }
        let manifest = fs::read_to_string(source.join("static-pod.yaml")).unwrap();
        let mut pod: Value = serde_saphyr::from_str(&manifest).unwrap();
        for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
            let path = volume["hostPath"]["path"].as_str().unwrap();
            let name = path.strip_prefix("/etc/kubernetes/").unwrap();
            volume["hostPath"]["path"] = json!(folder.join(name));
        }
        let target = self.testbed.static_pods(&self.machine).unwrap().join("flowforge-scheduler.yaml");
        fs::write(target, pod.to_string()).unwrap();
    }
}

/// Packs one of our binaries under the name that the manifests give it, as a container runtime completes it.
fn image(dir: &Path, name: &str) -> PathBuf {
    let manifests = fs::read_to_string(repository().join("manifests/install.yaml")).unwrap();
    let prefix = format!("image: flowforge/{name}:");
    let tag = manifests.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap();
    let archive = dir.join(format!("{name}.tar"));
    let binary = program(&format!("flowforge-{name}")).unwrap();
    pack_image(&binary, &format!("docker.io/flowforge/{name}:{tag}"), &archive).unwrap();
    archive
}

fn workflow(name: &str, nodes: &Value) -> Workflow {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"nodes": nodes}})).unwrap()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// Whether a pod's containers run and none of them ever ended.
fn running(pod: &kube::Result<Pod>) -> Result<(), String> {
    let pod = pod.as_ref().map_err(ToString::to_string)?;
    assert_eq!(restarts(pod), 0, "{}", json!(pod.status));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Running") { Ok(()) } else { Err(json!(pod.status).to_string()) }
}

/// The same, and its readiness probe is answered.
fn ready(pod: &kube::Result<Pod>) -> Result<(), String> {
    running(pod)?;
    let pod = pod.as_ref().map_err(ToString::to_string)?;
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if is_ready { Ok(()) } else { Err(json!(pod.status).to_string()) }
}

/// Waits for a fact; panics with the last explanation when it does not come in time.
async fn until<T, F, Fut>(what: &str, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    eventually(what, LIMIT, probe).await.unwrap_or_else(|error| panic!("{error:#}"))
}
