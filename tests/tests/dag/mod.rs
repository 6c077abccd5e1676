//! What the DAG controller's control-plane tests share: one testbed for a test binary, workflows, and what becomes of
//! them.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test binary uses a part of this")]

pub(crate) mod seen;

use flowforge_api::workflow::{NodePhase, Workflow, WorkflowPhase};
use flowforge_api::{Gang, names};
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{CONTROLLER, Installation, Options};
use flowforge_tests::metrics::get;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};

/// Long enough for a loaded machine; a test that waits so long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// Name of a second controller.
pub(crate) const STANDBY: &str = "standby";

/// How long a submission is tried again while the webhook does not answer.
const SUBMIT_LIMIT: Duration = Duration::from_secs(30);

/// What the world of a test binary is made of.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup {
    /// Flags of the leases; those of an installation when there are none.
    pub(crate) lease_args: &'static [&'static str],
    /// Pods are bound by our scheduler; else by kube-scheduler, so that only the controller is on trial.
    pub(crate) our_scheduler: bool,
}

/// A control plane with fake nodes, a scheduler, and the controller under its own ServiceAccount.
pub(crate) struct World {
    pub(crate) testbed: &'static Testbed,
    pub(crate) installation: Installation<'static>,
    /// The scheduler that binds the pods of what is submitted.
    scheduler_name: &'static str,
    /// Lines of the controller's log when it was ready.
    log_lines: usize,
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
static WORLD: OnceCell<World> = OnceCell::const_new();
static TURN: Mutex<()> = Mutex::const_new(());

/// Runs a test on the testbed of its binary.
pub(crate) fn on_testbed<F, Fut>(setup: Setup, test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    RUNTIME.block_on(async {
        let world = WORLD.get_or_init(|| World::start(setup)).await;
        let _logs = KeepLogs(world);
        test(world).await;
    });
}

/// The same with the common setup, where the API server may forbid the controller nothing.
pub(crate) fn cases<F, Fut>(test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    on_testbed(Setup::default(), |world| async move {
        test(world).await;
        world.assert_nothing_was_forbidden();
    });
}

/// The same for tests that kill what others need. They take turns, and every turn begins with a controller that answers.
pub(crate) fn in_turn<F, Fut>(setup: Setup, test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    on_testbed(setup, |world| async move {
        let _turn = TURN.lock().await;
        let _whole = Whole(world);
        world.answers().await;
        test(world).await;
    });
}

/// A test that fails leaves the logs behind.
struct KeepLogs(&'static World);

impl Drop for KeepLogs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("testbed: the logs will be in {}", self.0.testbed.keep_logs().display());
        }
    }
}

/// The end of a turn: whatever the test has killed, paused or started, one controller runs.
struct Whole(&'static World);

impl Drop for Whole {
    fn drop(&mut self) {
        // Each of them fails where there is nothing to do.
        drop(self.0.testbed.kill(STANDBY));
        drop(self.0.testbed.resume(CONTROLLER));
        drop(self.0.testbed.respawn(CONTROLLER));
    }
}

impl World {
    async fn start(setup: Setup) -> Self {
        let builder = Testbed::builder().nodes(Profile::Cpu, 4).kube_scheduler(!setup.our_scheduler);
        let testbed: &'static Testbed = Box::leak(Box::new(builder.start().await.unwrap()));
        let mut options = Options { scheduler: setup.our_scheduler, ..Options::default() };
        // A request that is refused and costs nothing but an event is told at debug level.
        options.controller_args = vec!["--log-level=info,flowforge_dag_controller=debug".to_owned()];
        if !setup.lease_args.is_empty() {
            options.lease_args = setup.lease_args.iter().map(|arg| (*arg).to_owned()).collect();
        }
        let installation = Installation::install(testbed, options).await.unwrap();
        let scheduler_name = if setup.our_scheduler { "flowforge" } else { "default-scheduler" };
        let log_lines = testbed.logs(CONTROLLER).text().lines().count();
        Self { testbed, installation, scheduler_name, log_lines }
    }

    /// Waits until the controller is ready and its webhook lets a workflow pass, which is not stored.
    async fn answers(&self) {
        until("the controller is ready", || async {
            get(self.installation.controller, "/readyz").await.map(drop).map_err(|e| format!("{e:#}"))
        })
        .await;
        let object = workflow("nothing", json!([node("a", 1, 0, &[])]), json!({}));
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        until("the webhook answers", || async {
            self.workflows("default").create(&dry_run, &object).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }

    /// Nothing that the controller wanted to do since it was ready lacked a permission, and nothing panicked. A quota
    /// refuses with the same word.
    pub(crate) fn assert_nothing_was_forbidden(&self) {
        let log = self.testbed.logs(CONTROLLER).text();
        let bad = |line: &&str| (line.contains("forbidden") && !line.contains("quota")) || line.contains("panicked");
        let found: Vec<&str> = log.lines().skip(self.log_lines).filter(bad).collect();
        assert_eq!(found, Vec::<&str>::new(), "in the controller's log");
    }

    pub(crate) fn workflows(&self, namespace: &str) -> Api<Workflow> {
        Api::namespaced(self.testbed.client().clone(), namespace)
    }

    pub(crate) fn gangs(&self, namespace: &str) -> Api<Gang> {
        Api::namespaced(self.testbed.client().clone(), namespace)
    }

    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.testbed.client().clone(), namespace)
    }

    /// A namespace that can take pods.
    pub(crate) async fn namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.testbed.client().clone());
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.testbed.client().clone(), name);
        until("the namespace has its ServiceAccount", || async {
            accounts.get_opt("default").await.unwrap().is_some().then_some(()).ok_or("none yet".to_owned())
        })
        .await;
    }

    /// Submits a workflow of these nodes; what it is called and where. An answer that says that the webhook or the API server
    /// could not be reached is no refusal, and is tried again.
    pub(crate) async fn submit(&self, namespace: &str, name: &str, nodes: Value, more: Value) {
        let mut spec = json!({"schedulerName": self.scheduler_name});
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let object = workflow(name, nodes, spec);
        let api = self.workflows(namespace);
        let what = format!("workflow {name} is submitted");
        let submitted = flowforge_tests::eventually(&what, SUBMIT_LIMIT, || async {
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code >= 500 => Err(status.to_string()),
                Err(error) => panic!("workflow {name}: {error}"),
            }
        });
        submitted.await.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until the workflow is in this phase; gives it.
    pub(crate) async fn reaches(&self, namespace: &str, name: &str, phase: WorkflowPhase) -> Workflow {
        let api = self.workflows(namespace);
        until(&format!("workflow {name} is {phase:?}"), || async {
            let workflow = api.get(name).await.map_err(|e| e.to_string())?;
            let status = workflow.status.clone().unwrap_or_default();
            if status.phase == Some(phase) { Ok(workflow) } else { Err(format!("{}", json!(status))) }
        })
        .await
    }

    /// Waits until the workflow, or one of its nodes, shows this reason.
    pub(crate) async fn shows(&self, namespace: &str, name: &str, reason: &str) -> Workflow {
        let api = self.workflows(namespace);
        until(&format!("workflow {name} shows {reason}"), || async {
            let workflow = api.get(name).await.map_err(|e| e.to_string())?;
            let status = workflow.status.clone().unwrap_or_default();
            let nodes = status.nodes.iter().filter_map(|n| n.reason.as_deref());
            let found = status.reason.as_deref().into_iter().chain(nodes).any(|r| r == reason);
            if found { Ok(workflow) } else { Err(format!("{}", json!(status))) }
        })
        .await
    }

    /// The pods of a workflow node.
    pub(crate) async fn members(&self, namespace: &str, workflow: &str, node: &str) -> Vec<Pod> {
        let selector = format!("{}={workflow},{}={node}", names::label::WORKFLOW, names::label::NODE);
        self.pods(namespace).list(&ListParams::default().labels(&selector)).await.unwrap().items
    }

    /// Waits until all members of a node run.
    pub(crate) async fn runs(&self, namespace: &str, workflow: &str, node: &str, count: usize) {
        until(&format!("{node} of {workflow} runs"), || async {
            let pods = self.members(namespace, workflow, node).await;
            let running = pods.iter().filter(|p| pod_phase(p) == "Running").count();
            if running == count { Ok(()) } else { Err(format!("{running} of {count} run")) }
        })
        .await;
    }

    /// The pods that run, of those with these labels.
    pub(crate) async fn running(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let mut pods = self.pods(namespace).list(&ListParams::default().labels(labels)).await.unwrap().items;
        pods.retain(|pod| pod_phase(pod) == "Running");
        pods
    }

    /// Ends a fake pod now, with this exit code.
    pub(crate) async fn end(&self, namespace: &str, pod: &str, exit_code: i32) {
        let patch = json!({"metadata": {"annotations": {
            "testbed.flowforge.dev/run-ms": "0", "testbed.flowforge.dev/exit-code": exit_code.to_string()}}});
        self.pods(namespace).patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

/// A workflow of these nodes, bound by kube-scheduler.
#[expect(clippy::needless_pass_by_value, reason = "nodes are written in place")]
pub(crate) fn workflow(name: &str, nodes: Value, more: Value) -> Workflow {
    let mut spec = json!({"schedulerName": "default-scheduler", "nodes": nodes});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    serde_json::from_value(json!({
        "apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// A node whose fake pods run for so long.
pub(crate) fn node(id: &str, replicas: i32, run_ms: u32, depends_on: &[&str]) -> Value {
    json!({
        "id": id, "replicas": replicas, "image": "example/work:1", "dependsOn": depends_on,
        "annotations": {"testbed.flowforge.dev/run-ms": run_ms.to_string()},
        "resources": {"requests": {"cpu": "10m"}},
    })
}

/// Waits for a fact; panics with the last explanation when it does not come in time.
pub(crate) async fn until<T, F, Fut>(what: &str, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    flowforge_tests::eventually(what, LIMIT, probe).await.unwrap_or_else(|error| panic!("{error:#}"))
}

pub(crate) fn pod_phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Phase of a node in a workflow's status.
pub(crate) fn phase_of(workflow: &Workflow, id: &str) -> NodePhase {
    let status = workflow.status.as_ref().unwrap();
    status.nodes.iter().find(|n| n.id == id).unwrap().phase
}

/// `status` of a condition of a workflow.
pub(crate) fn condition<'a>(workflow: &'a Workflow, kind: &str) -> Option<&'a str> {
    let conditions = &workflow.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str())
}
