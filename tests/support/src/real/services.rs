//! What real nodes share: Service addresses, names, and a shared file system.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{ProcessSpec, Testbed, binaries::COREDNS};

use super::files;

/// Names of the processes, for [`Testbed::kill`] and its like.
const KUBE_PROXY: &str = "kube-proxy";
const DNS: &str = "coredns";

/// How long a claim may take to be bound.
const BIND_LIMIT: Duration = Duration::from_secs(30);

/// Starts kube-proxy and DNS.
pub(super) async fn start(testbed: &Testbed, kubernetes: &Path, dns: Ipv4Addr, path: &str, node: &str) -> Result<()> {
    let config = testbed.dir().join("kube-proxy.json");
    let kubeconfig = testbed.user_kubeconfig("system:kube-proxy", None)?;
    fs::write(&config, serde_json::to_string_pretty(&files::kube_proxy(&kubeconfig, dns, node))?)?;
    let proxy = ProcessSpec::new(KUBE_PROXY, kubernetes)
        .args(["kube-proxy".to_owned(), format!("--config={}", config.display())])
        .env("PATH", path);
    testbed.spawn(proxy)?;

    apply(testbed, &files::dns_objects(dns)).await?;
    let corefile = testbed.dir().join("Corefile");
    let kubeconfig = testbed.user_kubeconfig(files::DNS_USER, None)?;
    fs::write(&corefile, files::corefile(&kubeconfig, dns))?;
    let program = tokio::task::spawn_blocking(|| COREDNS.binary("coredns")).await??;
    testbed.spawn(ProcessSpec::new(DNS, program).args(["-conf".to_owned(), corefile.display().to_string()]))?;
    Ok(())
}

async fn apply(testbed: &Testbed, objects: &[Value]) -> Result<()> {
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    testbed.apply_yaml(&documents.join("\n---\n")).await?;
    Ok(())
}

impl Testbed {
    /// Makes a bound claim that pods on all nodes, real and fake, can share
    /// (ReadWriteMany): a directory of the testbed.
    ///
    /// # Errors
    /// When the claim is not bound in time.
    pub async fn shared_claim(&self, namespace: &str, name: &str) -> Result<()> {
        let dir = self.dir().join("volumes").join(namespace).join(name);
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        let volume = format!("{namespace}-{name}");
        let resources = json!({ "storage": "1Ti" });
        let modes = json!(["ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce"]);
        let objects = [
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": { "name": volume },
                "spec": {
                    "accessModes": modes,
                    "capacity": resources,
                    "storageClassName": "testbed-shared",
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": { "namespace": namespace, "name": name },
                    "hostPath": { "path": dir, "type": "Directory" },
                },
            }),
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": { "namespace": namespace, "name": name },
                "spec": {
                    "accessModes": modes,
                    "resources": { "requests": resources },
                    "storageClassName": "testbed-shared",
                    "volumeName": volume,
                },
            }),
        ];
        apply(self, &objects).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client().clone(), namespace);
        let deadline = Instant::now() + BIND_LIMIT;
        loop {
            let claim = claims.get(name).await.with_context(|| format!("claim {namespace}/{name}"))?;
            let phase = claim.status.and_then(|status| status.phase).unwrap_or_default();
            if phase == "Bound" {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "claim {namespace}/{name} is {phase}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}
