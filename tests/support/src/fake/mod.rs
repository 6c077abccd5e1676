//! Fake nodes: `Node` objects of ours whose kubelet is played by kwok.
//!
//! What kwok does to nodes and pods is written down in `stages.yaml` beside this
//! file. It watches the nodes with label [`NODE_KIND_LABEL`]`=fake` only, so that
//! real nodes may stand beside them, and so that a fake machine is lost by
//! changing its label and starting kwok again: it then knows neither the node nor
//! what its pods would have done next.

use std::{collections::BTreeSet, fs, path::Path, pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    control_plane::{ControlPlane, component},
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
/// grace period: kwok renews them four times in it. Without one there are none.
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
            "nodeLeaseDurationSeconds": plane.settings.node_grace.map_or(0, |grace| grace.as_secs()),
            "nodeLeaseParallelism": 8,
            "nodePlayStageParallelism": 8,
            "podPlayStageParallelism": 16,
            "podsOnNodeSyncParallelism": 4,
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

/// Waits until every one of these nodes is ready and has lost the taints that it
/// was registered with. One watch, because listing thousands of nodes over and
/// over costs more than making them.
pub(crate) async fn await_ready(client: &Client, mut names: BTreeSet<String>, limit: Duration) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let changes = watcher(nodes, watcher::Config::default().any_semantic()).default_backoff().applied_objects();
    let mut changes = pin!(changes);
    let wanted = names.len();
    let all_ready = async {
        while !names.is_empty() {
            // The watcher starts again by itself after an error.
            if let Some(Ok(node)) = changes.next().await
                && is_schedulable(&node)
            {
                names.remove(node.metadata.name.as_deref().unwrap_or_default());
            }
        }
    };
    if timeout(limit, all_ready).await.is_err() {
        let examples: Vec<_> = names.iter().take(3).collect();
        bail!("{} of {wanted} nodes are not ready after {} s: {examples:?}", names.len(), limit.as_secs());
    }
    Ok(())
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

/// What a lost machine looks like: its `Ready` condition is Unknown at once, as
/// the node-lifecycle controller would set it after the grace period.
pub(crate) async fn mark_unreachable(client: &Client, name: &str) -> Result<()> {
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
    let patch = json!({ "status": { "conditions": conditions } });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    Ok(())
}

/// Says who plays the kubelet of a node: `fake` or `lost`.
pub(crate) async fn set_kind(client: &Client, name: &str, kind: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({ "metadata": { "labels": { NODE_KIND_LABEL: kind } } });
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Deletes the leases of all fake nodes: a kwok that is started again is another
/// holder, and would wait until those of its predecessor have expired.
pub(crate) async fn forget_leases(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let fakes = nodes.list_metadata(&ListParams::default().labels(&format!("{NODE_KIND_LABEL}=fake"))).await?;
    for node in fakes {
        let name = node.metadata.name.unwrap_or_default();
        match leases.delete(&name, &DeleteParams::default()).await {
            Err(Error::Api(refusal)) if refusal.code == 404 => {}
            outcome => {
                outcome?;
            }
        }
    }
    Ok(())
}
