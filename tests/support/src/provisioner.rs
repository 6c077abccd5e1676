//! A stand-in for an external provisioner: volumes are made when a claim's node is selected, and can be refused or held back.
//!
//! ```text
//!   scheduler: selected-node ──> volume controller: storage-provisioner ──> here: PersistentVolume for the claim
//!                    ^                                                        │       ──> volume controller: bound
//!                    └──────── annotation removed (the node will not do) <────┘
//! ```
//! It answers as the provisioners of CSI drivers do (kubernetes-csi/external-provisioner): a volume is of the claim's class,
//! can be reached from the selected node alone, and carries the claim's UID; a node that will not do is answered by removing
//! its annotation from the claim. Nothing is stored anywhere.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, Client, Error, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The name that StorageClasses give as their provisioner.
pub const PROVISIONER: &str = "csi.testbed.flowforge.dev";

/// On claims, for which node a volume is wanted.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On claims, who is to make a volume.
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
/// Requests in flight.
const CONCURRENCY: usize = 32;

/// Claims that are not simply served, by name.
#[derive(Debug, Default)]
struct Policy {
    refused: BTreeSet<String>,
    held: BTreeSet<String>,
    hold_all: bool,
}

/// A running provisioner; dropping it ends it, and volumes stay.
pub struct Provisioner {
    client: Client,
    policy: Arc<Mutex<Policy>>,
    task: tokio::task::JoinHandle<()>,
}

impl Provisioner {
    /// Starts it; it serves claims of all classes whose provisioner is [`PROVISIONER`].
    #[must_use]
    pub fn start(client: Client) -> Self {
        let policy: Arc<Mutex<Policy>> = Arc::default();
        let task = tokio::spawn(serve(client.clone(), policy.clone()));
        Self { client, policy, task }
    }

    /// From now on these claims, by name, are refused: whatever node is selected will not do.
    pub fn refuse(&self, claims: &[&str]) {
        self.policy.lock().refused.extend(claims.iter().map(|claim| (*claim).to_owned()));
    }

    /// From now on these claims, by name, are not answered.
    pub fn hold(&self, claims: &[&str]) {
        self.policy.lock().held.extend(claims.iter().map(|claim| (*claim).to_owned()));
    }

    /// From now on no claim is answered.
    pub fn hold_all(&self) {
        self.policy.lock().hold_all = true;
    }

    /// Serves every claim again, also those that came meanwhile.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn serve_all(&self) -> Result<()> {
        *self.policy.lock() = Policy::default();
        let claims: Api<PersistentVolumeClaim> = Api::all(self.client.clone());
        let claims = claims.list(&ListParams::default()).await?.items;
        let answers = stream::iter(claims).map(|claim| answer(&self.client, &self.policy, claim));
        answers.buffer_unordered(CONCURRENCY).try_collect().await
    }
}

impl Drop for Provisioner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers what a watch of the claims shows, until it is aborted.
async fn serve(client: Client, policy: Arc<Mutex<Policy>>) {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let seen = watcher(claims, watcher::Config::default()).default_backoff().applied_objects();
    let answers = seen.map(|claim| {
        let (client, policy) = (&client, &policy);
        async move {
            let name = claim.as_ref().map(kube::ResourceExt::name_any).unwrap_or_default();
            let answered = match claim {
                Ok(claim) => answer(client, policy, claim).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = answered {
                tracing::warn!(claim = name, error = format!("{error:#}"), "not provisioned");
            }
        }
    });
    let mut answers = pin!(answers.buffer_unordered(CONCURRENCY));
    while answers.next().await.is_some() {}
}

/// Makes a volume for a claim that asks for one, or refuses it.
async fn answer(client: &Client, policy: &Mutex<Policy>, claim: PersistentVolumeClaim) -> Result<()> {
    let annotation = |key: &str| claim.annotations().get(key).map(String::as_str);
    let (Some(PROVISIONER), Some(node)) = (annotation(ASKED), annotation(SELECTED_NODE)) else { return Ok(()) };
    let unbound = claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_none());
    let name = claim.name_any();
    let refused = {
        let policy = policy.lock();
        if !unbound || policy.hold_all || policy.held.contains(&name) {
            return Ok(());
        }
        policy.refused.contains(&name)
    };
    if refused {
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
        let patch = json!({"metadata": {
            "resourceVersion": claim.resource_version(), "annotations": {SELECTED_NODE: null},
        }});
        return done(claims.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await);
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = serde_json::from_value(volume_for(&claim, node))?;
    done(volumes.create(&PostParams::default(), &volume).await)
}

/// That somebody was faster is no failure: the next event of the claim says what is so.
fn done<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(Error::Api(status)) if !matches!(status.code, 404 | 409) => Err(Error::Api(status).into()),
        Err(error @ (Error::Service(_) | Error::HyperError(_))) => Err(error.into()),
        _ => Ok(()),
    }
}

fn volume_for(claim: &PersistentVolumeClaim, node: &str) -> Value {
    let spec = serde_json::to_value(&claim.spec).unwrap_or_default();
    let uid = claim.uid().unwrap_or_default();
    let name = format!("pvc-{uid}");
    json!({
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": spec["resources"]["requests"], "accessModes": spec["accessModes"],
            "storageClassName": spec["storageClassName"], "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(), "name": claim.name_any(), "uid": uid,
            },
            "csi": {"driver": PROVISIONER, "volumeHandle": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
            ]}]}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_for_the_claim_alone_and_on_the_selected_node_alone() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "data", "uid": "u1"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "made",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))
        .unwrap();
        let volume: PersistentVolume = serde_json::from_value(volume_for(&claim, "node-1")).unwrap();
        let spec = serde_json::to_value(volume.spec).unwrap();
        assert_eq!(spec["capacity"], json!({"storage": "1Gi"}));
        assert_eq!((&spec["claimRef"]["uid"], &spec["storageClassName"]), (&json!("u1"), &json!("made")));
        assert!(spec["nodeAffinity"].to_string().contains("[\"node-1\"]"));
    }
}
