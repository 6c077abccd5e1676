//! Fake nodes: `Node` objects of ours whose kubelet is played by kwok.
//!
//! What kwok does to nodes and pods is written down in `stages.yaml` beside this
//! file. It watches the nodes with label [`NODE_KIND_LABEL`]`=fake` only, so that
//! real nodes may stand beside them, and so that a fake machine is lost by
//! changing its label: kwok then neither renews its lease nor touches its pods.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    control_plane::{ControlPlane, component},
    network::port,
    profile::{NODE_KIND_LABEL, Profile},
    supervisor::{Launch, Stage},
};

const STAGES: &str = include_str!("stages.yaml");

/// Requests in flight while nodes are made.
const CONCURRENCY: usize = 64;

/// The role of kwok's user, and its binding.
pub(crate) const RBAC: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: testbed-kwok }
rules:
- { apiGroups: [''], resources: [nodes, pods], verbs: [get, list, watch, patch, update, delete] }
- { apiGroups: [''], resources: [nodes/status, pods/status], verbs: [patch, update] }
- { apiGroups: ['', events.k8s.io], resources: [events], verbs: [create, patch, update] }
- { apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create, get, list, watch, patch, update, delete] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: testbed-kwok }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: testbed-kwok }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: kwok }]
";

/// How to start kwok. Its node leases follow the node-lifecycle controller's
/// grace period: kwok renews them four times in it.
pub(crate) fn kwok(program: &Path, plane: &ControlPlane<'_>) -> Result<Launch> {
    let kubeconfig = plane.kubeconfig_for("kwok", None)?;
    let configuration = json!({
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "metadata": { "name": "kwok" },
        "options": {
            "enableCRDs": [],
            "manageNodesWithLabelSelector": format!("{NODE_KIND_LABEL}=fake"),
            "cidr": "100.64.0.0/10",
            "nodeIP": "198.18.0.1",
            "nodeLeaseDurationSeconds": plane.settings.node_grace.as_secs(),
            "nodeLeaseParallelism": 8,
            "nodePlayStageParallelism": 8,
            "podPlayStageParallelism": 16,
            "podsOnNodeSyncParallelism": 4,
            "serverAddress": plane.network.at(port::KWOK).to_string(),
        },
    });
    let file = plane.dir.join("kwok.yaml");
    fs::write(&file, format!("{configuration}\n---\n{STAGES}"))?;
    Ok(Launch {
        name: component::KWOK.to_owned(),
        argv: plane.network.inside(vec![
            program.display().to_string(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--config={}", file.display()),
        ]),
        env: Vec::new(),
        stage: Stage::Clients,
        grace: Duration::from_secs(1),
    })
}

/// Creates nodes `first..first + count` of a profile; returns their names.
pub(crate) async fn create_nodes(client: &Client, profile: Profile, first: usize, count: usize) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(client.clone());
    stream::iter(first..first + count)
        .map(|index| {
            let nodes = nodes.clone();
            async move {
                let node = profile.node(index, Timestamp::now());
                let name = profile.node_name(index);
                nodes.create(&PostParams::default(), &node).await.with_context(|| name.clone())?;
                anyhow::Ok(name)
            }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}

/// Waits until every node of the given kind is ready and has lost the taints
/// that it was registered with.
pub(crate) async fn await_ready(client: &Client, kind: &str, count: usize, limit: Duration) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let selector = ListParams::default().labels(&format!("{NODE_KIND_LABEL}={kind}"));
    // A list costs the API server about 10 µs a node.
    let pause = Duration::from_millis(50 + count as u64 / 10);
    let deadline = Instant::now() + limit;
    loop {
        let list = nodes.list(&selector).await?;
        let ready = list.items.iter().filter(|node| is_schedulable(node)).count();
        if ready >= count && ready == list.items.len() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{ready} of {count} {kind} nodes are ready after {} s", limit.as_secs());
        sleep(pause).await;
    }
}

/// Ready, and no taint of the node-lifecycle controller on it.
pub(crate) fn is_schedulable(node: &Node) -> bool {
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let tainted =
        node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| {
            taint.key.starts_with("node.kubernetes.io/") && taint.key != "node.kubernetes.io/unschedulable"
        });
    ready && !tainted
}

/// The machine is lost: kwok lets go of it, and its `Ready` condition becomes
/// Unknown at once, as the node-lifecycle controller would set it after the
/// grace period.
pub(crate) async fn lose_node(client: &Client, name: &str) -> Result<()> {
    set_kind(client, name, "lost").await?;
    let now = Timestamp::now();
    let conditions: Vec<_> = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
        .map(|type_| {
            json!({
                "type": type_,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            })
        })
        .to_vec();
    patch_status(client, name, json!({ "status": { "conditions": conditions } })).await
}

/// The machine is back; kwok makes it ready and plays its pods again.
pub(crate) async fn recover_node(client: &Client, name: &str) -> Result<()> {
    set_kind(client, name, "fake").await
}

async fn set_kind(client: &Client, name: &str, kind: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({ "metadata": { "labels": { NODE_KIND_LABEL: kind } } });
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

async fn patch_status(client: &Client, name: &str, patch: serde_json::Value) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    Ok(())
}
