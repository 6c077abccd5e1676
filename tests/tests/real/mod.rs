//! A testbed of real nodes with FlowForge on it, and a command line that is followed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use flowforge_api::workflow::{NodePhase, NodeStatus, Workflow, WorkflowPhase};
use flowforge_api::{Gang, names::label};
use flowforge_testbed::{Profile, Testbed, real::WORKLOAD_IMAGE};
use flowforge_tests::Follower;
use flowforge_tests::install::{Installation, Options, program};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Long enough for a loaded machine; a test that waits so long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

const NAMESPACE: &str = "real";
const CLAIM: &str = "work";

pub(crate) struct World {
    pub(crate) testbed: Testbed,
}

impl World {
    /// Real DGX nodes that are lost 10 s after their last word, FlowForge, and a claim that all pods share.
    pub(crate) async fn start(nodes: usize) -> Self {
        let testbed = Testbed::builder()
            .real_nodes(Profile::DgxH100, nodes)
            .node_grace(Duration::from_secs(10))
            .controller_manager_flag("--node-monitor-period=1s")
            .start()
            .await
            .unwrap();
        Installation::install(&testbed, Options::default()).await.unwrap();
        let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}");
        testbed.apply_yaml(&namespace).await.unwrap();
        testbed.shared_claim(NAMESPACE, CLAIM).await.unwrap();
        Self { testbed }
    }

    pub(crate) fn workflows(&self) -> Api<Workflow> {
        Api::namespaced(self.testbed.client().clone(), NAMESPACE)
    }

    pub(crate) fn gangs(&self) -> Api<Gang> {
        Api::namespaced(self.testbed.client().clone(), NAMESPACE)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.testbed.client().clone(), NAMESPACE)
    }

    /// Submits nodes with what each member does. `train` is a gang of four whole machines, `after` waits for it.
    pub(crate) async fn submit(&self, name: &str, nodes: &[(&str, &str)]) {
        self.submit_tolerating(120, name, nodes).await;
    }

    /// The same where a machine is to be lost: its members are given up after 3 s. Elsewhere a kubelet that is slow because
    /// the machine is busy must not cost a member.
    pub(crate) async fn submit_impatient(&self, name: &str, nodes: &[(&str, &str)]) {
        self.submit_tolerating(3, name, nodes).await;
    }

    async fn submit_tolerating(&self, seconds: i64, name: &str, nodes: &[(&str, &str)]) {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(id, line)| {
                let args: Vec<&str> = line.split_whitespace().collect();
                let mut node = json!({"id": id, "image": WORKLOAD_IMAGE, "command": ["/workload"], "args": args});
                if *id == "train" {
                    node["replicas"] = json!(4);
                    node["resources"] = json!({"limits": {"nvidia.com/gpu": "8"}});
                }
                if *id == "after" {
                    node["dependsOn"] = json!(["train"]);
                }
                node
            })
            .collect();
        let defaults =
            json!({"imagePullPolicy": "Never", "tolerationSeconds": seconds, "terminationGracePeriodSeconds": 5});
        let spec = json!({"storage": [{"claimRef": CLAIM}], "defaults": defaults, "nodes": nodes});
        let workflow = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.workflows().create(&PostParams::default(), &workflow).await.unwrap();
    }

    /// Lets the members that wait for this file go on.
    pub(crate) fn touch(&self, name: &str) {
        std::fs::write(self.testbed.dir().join("volumes").join(NAMESPACE).join(CLAIM).join(name), "").unwrap();
    }

    /// Waits until the workflow has ended, as expected.
    pub(crate) async fn ends(&self, name: &str, phase: WorkflowPhase) -> Workflow {
        until(&format!("workflow {name} is {phase:?}"), async || {
            let workflow = self.workflows().get(name).await.map_err(|e| e.to_string())?;
            let status = workflow.status.clone().unwrap_or_default();
            let now = status.phase.unwrap_or_default();
            let ended = !matches!(now, WorkflowPhase::Pending | WorkflowPhase::Running);
            assert!(now == phase || !ended, "workflow {name} is {}", json!(status));
            if now == phase { Ok(workflow) } else { Err(json!(status).to_string()) }
        })
        .await
    }

    /// Waits until all members of a node run.
    pub(crate) async fn reaches_running(&self, name: &str, node: &str) {
        until(&format!("node {node} of {name} runs"), async || {
            let workflow = self.workflows().get(name).await.map_err(|e| e.to_string())?;
            match node_status(&workflow, node) {
                NodeStatus { phase: NodePhase::Running, .. } => Ok(()),
                other => Err(json!(other).to_string()),
            }
        })
        .await;
    }

    /// The pods of a workflow's node.
    pub(crate) async fn members(&self, workflow: &str, node: &str) -> Vec<Pod> {
        self.list(&format!("{}={workflow},{}={node}", label::WORKFLOW, label::NODE)).await
    }

    /// The pods of a workflow.
    pub(crate) async fn all_members(&self, workflow: &str) -> Vec<Pod> {
        self.list(&format!("{}={workflow}", label::WORKFLOW)).await
    }

    async fn list(&self, labels: &str) -> Vec<Pod> {
        self.pods().list(&ListParams::default().labels(labels)).await.unwrap().items
    }

    /// The node that a pod is bound to.
    pub(crate) async fn machine_of(&self, pod: &str) -> String {
        self.pods().get(pod).await.unwrap().spec.unwrap().node_name.unwrap()
    }

    /// Whether a node's condition Ready has this status; the status otherwise.
    pub(crate) async fn is_ready(&self, machine: &str, expected: &str) -> Result<(), String> {
        let nodes: Api<Node> = Api::all(self.testbed.client().clone());
        let conditions = nodes.get(machine).await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
        let status = ready.map(|c| c.status).unwrap_or_default();
        if status == expected { Ok(()) } else { Err(status) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("flowforge").unwrap());
        command.args(args).args(["-n", NAMESPACE]).env("KUBECONFIG", self.testbed.admin_kubeconfig());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command line; gives its stdout, and fails where it ends otherwise.
    pub(crate) fn flowforge(&self, args: &[&str], code: i32) -> String {
        let output = self.command(args).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        stdout
    }

    /// Starts the command line and reads along.
    pub(crate) fn follow(&self, args: &[&str]) -> Follower {
        Follower::start(self.command(args), "").unwrap()
    }
}

/// Status of a node of a workflow; empty before the controller has written one.
pub(crate) fn node_status(workflow: &Workflow, id: &str) -> NodeStatus {
    let nodes = workflow.status.iter().flat_map(|s| &s.nodes);
    nodes.into_iter().find(|n| n.id == id).cloned().unwrap_or_default()
}

/// Exit code of a pod's only container, once it has ended.
pub(crate) fn exit_code(pod: &Pod) -> Option<i32> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    Some(statuses.first()?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Waits for a fact; panics with the last explanation when it does not come in time.
pub(crate) async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut probe = probe;
    let start = std::time::Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) => assert!(start.elapsed() < LIMIT, "not within {} s: {what}: {last}", LIMIT.as_secs()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
