//! The claims of a load: one for each of its pods, of a class that waits for the pod, and a provisioner that answers at once.

use anyhow::{Context as _, Result};
use flowforge_testbed::{PROVISIONER, Provisioner};
use flowforge_tests::eventually;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::load::LIMIT;

const CLASS: &str = "load";
/// Requests in flight.
const CONCURRENCY: usize = 32;

/// Claims that are there, and who makes their volumes.
pub(crate) struct Claims {
    claims: Api<PersistentVolumeClaim>,
    volumes: Api<PersistentVolume>,
    _provisioner: Provisioner,
}

impl Claims {
    /// Creates claims of these names; returns when all are there, none of them with a volume.
    ///
    /// # Errors
    /// When the server refuses one.
    pub(crate) async fn create(client: &Client, namespace: &str, names: impl Iterator<Item = String>) -> Result<Self> {
        let classes: Api<StorageClass> = Api::all(client.clone());
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": CLASS},
            "provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer",
        });
        let parameters = PatchParams::apply("flowforge-bench");
        classes.patch(CLASS, &parameters, &Patch::Apply(class)).await.context("create the StorageClass")?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let parameters = PostParams::default();
        let made = stream::iter(names).map(|name| {
            let (claims, parameters) = (&claims, &parameters);
            async move {
                let claim = json!({"metadata": {"name": name}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": CLASS,
                    "resources": {"requests": {"storage": "1Gi"}},
                }});
                claims.create(parameters, &serde_json::from_value(claim)?).await.context("create a claim").map(drop)
            }
        });
        made.buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        let provisioner = Provisioner::start(client.clone());
        Ok(Self { claims, volumes: Api::all(client.clone()), _provisioner: provisioner })
    }

    /// Deletes all of them, once their pods are gone, and then their volumes.
    ///
    /// # Errors
    /// When they do not go in time.
    pub(crate) async fn delete(self) -> Result<()> {
        let (delete, all) = (DeleteParams::default(), ListParams::default());
        let first = ListParams::default().limit(1);
        eventually("the claims are deleted", LIMIT, || async {
            self.claims.delete_collection(&delete, &all).await.map_err(|error| error.to_string())?;
            let left = self.claims.list_metadata(&first).await.map_err(|error| error.to_string())?;
            if left.items.is_empty() { Ok(()) } else { Err("claims are left".to_owned()) }
        })
        .await?;
        eventually("their volumes are deleted", LIMIT, || async {
            self.volumes.delete_collection(&delete, &all).await.map_err(|error| error.to_string())?;
            let left = self.volumes.list_metadata(&first).await.map_err(|error| error.to_string())?;
            if left.items.is_empty() { Ok(()) } else { Err("volumes are left".to_owned()) }
        })
        .await
    }
}
