//! FlowForge installed on a testbed as in production: manifests applied, each binary under its own ServiceAccount, so
//! that a missing permission is seen.

use anyhow::{Context as _, Result, ensure};
use flowforge_testbed::{ProcessSpec, Testbed};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::metrics::get;
use crate::wait::eventually;

/// Namespace of both binaries.
pub const NAMESPACE: &str = flowforge_api::names::SYSTEM_NAMESPACE;
/// Name of the scheduler's process on the testbed.
pub const SCHEDULER: &str = "flowforge-scheduler";
/// Name of the controller's process on the testbed.
pub const CONTROLLER: &str = "flowforge-dag-controller";
/// Name of the webhook configuration in `manifests/base`.
pub const WEBHOOK: &str = "flowforge-dag-controller";

const SCHEDULER_PORT: u16 = 11080;
const CONTROLLER_PORT: u16 = 11081;
const WEBHOOK_PORT: u16 = 11443;
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What is started, and with which further flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// Start the scheduler.
    pub scheduler: bool,
    /// Start the DAG controller.
    pub controller: bool,
    /// Flags of the scheduler beyond address and lease.
    pub scheduler_args: Vec<String>,
    /// Flags of the controller beyond addresses and lease.
    pub controller_args: Vec<String>,
    /// Flags of the leases; a short lease by default, so that a successor takes over within seconds.
    pub lease_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let lease = ["--lease-duration-s=5", "--lease-renew-deadline-ms=3500", "--lease-retry-period-ms=700"];
        Self {
            scheduler: true,
            controller: true,
            scheduler_args: Vec::new(),
            controller_args: Vec::new(),
            lease_args: lease.map(str::to_owned).to_vec(),
        }
    }
}

/// FlowForge on a testbed.
pub struct Installation<'t> {
    /// The testbed.
    pub testbed: &'t Testbed,
    /// Where the scheduler serves its metrics.
    pub scheduler: SocketAddr,
    /// Where the controller serves its metrics.
    pub controller: SocketAddr,
    /// What was asked for.
    pub options: Options,
}

impl<'t> Installation<'t> {
    /// Applies the manifests, starts the binaries and waits until they are ready.
    ///
    /// # Errors
    /// When a manifest is refused, a binary is not built, or a binary is not ready in time.
    pub async fn install(testbed: &'t Testbed, options: Options) -> Result<Self> {
        apply_manifests(testbed).await?;
        let this = Self {
            testbed,
            scheduler: testbed.network().at(SCHEDULER_PORT),
            controller: testbed.network().at(CONTROLLER_PORT),
            options,
        };
        if this.options.scheduler {
            this.start_scheduler(SCHEDULER, this.scheduler).await?;
        }
        if this.options.controller {
            this.start_controller(CONTROLLER, this.controller, testbed.network().at(WEBHOOK_PORT)).await?;
        }
        if this.options.scheduler {
            ready(this.scheduler, SCHEDULER, testbed).await?;
        }
        if this.options.controller {
            ready(this.controller, CONTROLLER, testbed).await?;
            webhook_ready(testbed).await?;
        }
        Ok(this)
    }

    /// Starts one more scheduler under its ServiceAccount; returns its pid.
    ///
    /// # Errors
    /// When the binary is not built or cannot be started.
    pub async fn start_scheduler(&self, name: &str, listen: SocketAddr) -> Result<u32> {
        self.start_scheduler_from(name, listen, &program("flowforge-scheduler")?).await
    }

    /// The same from another build of the binary.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_scheduler_from(&self, name: &str, listen: SocketAddr, binary: &Path) -> Result<u32> {
        let kubeconfig = self.testbed.service_account_kubeconfig(NAMESPACE, SCHEDULER).await?;
        let spec = ProcessSpec::new(name, binary)
            .kubeconfig(&kubeconfig)
            .arg(format!("--listen={listen}"))
            .args(self.options.lease_args.clone())
            .args(self.options.scheduler_args.clone());
        self.testbed.spawn(spec)
    }

    /// Starts one more controller under its ServiceAccount; returns its pid.
    ///
    /// # Errors
    /// When the binary is not built or cannot be started.
    pub async fn start_controller(&self, name: &str, listen: SocketAddr, webhook: SocketAddr) -> Result<u32> {
        let kubeconfig = self.testbed.service_account_kubeconfig(NAMESPACE, CONTROLLER).await?;
        let spec = ProcessSpec::new(name, program("flowforge-dag-controller")?)
            .kubeconfig(&kubeconfig)
            .arg(format!("--listen={listen}"))
            .arg(format!("--webhook-listen={webhook}"))
            .args(self.options.lease_args.clone())
            .args(self.options.controller_args.clone());
        self.testbed.spawn(spec)
    }
}

/// Applies `manifests/base`. The pods of its Deployments are not wanted here (the binaries run as processes), so both are
/// scaled to zero; the webhook's Service is replaced by the address of the process.
async fn apply_manifests(testbed: &Testbed) -> Result<()> {
    let base = repository().join("manifests/base");
    testbed.apply_manifests(&base).await.with_context(|| format!("apply {}", base.display()))?;
    for deployment in [SCHEDULER, CONTROLLER] {
        let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(testbed.client().clone(), NAMESPACE);
        let patch = serde_json::json!({"spec": {"replicas": 0}});
        api.patch(deployment, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    let api: Api<ValidatingWebhookConfiguration> = Api::all(testbed.client().clone());
    let url = format!("https://{}", testbed.network().at(WEBHOOK_PORT));
    let mut configuration = api.get(WEBHOOK).await?;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        let path = webhook.client_config.service.take().and_then(|s| s.path).unwrap_or_default();
        webhook.client_config.url = Some(format!("{url}{path}"));
    }
    api.replace(WEBHOOK, &kube::api::PostParams::default(), &configuration).await?;
    let api: Api<MutatingWebhookConfiguration> = Api::all(testbed.client().clone());
    let mut configuration = api.get(WEBHOOK).await?;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        let path = webhook.client_config.service.take().and_then(|s| s.path).unwrap_or_default();
        webhook.client_config.url = Some(format!("{url}{path}"));
    }
    api.replace(WEBHOOK, &kube::api::PostParams::default(), &configuration).await?;
    Ok(())
}

/// Waits until the controller has put its CA into the webhook configurations: from then on the API server can call it.
async fn webhook_ready(testbed: &Testbed) -> Result<()> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(testbed.client().clone());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(testbed.client().clone());
    eventually("the webhook has its CA", READY_LIMIT, || async {
        let configuration = api.get(WEBHOOK).await.map_err(|e| e.to_string())?;
        let missing = configuration.webhooks.iter().flatten().any(|w| w.client_config.ca_bundle.is_none());
        let mutating = mutating.get(WEBHOOK).await.map_err(|e| e.to_string())?;
        let missing = missing || mutating.webhooks.iter().flatten().any(|w| w.client_config.ca_bundle.is_none());
        if missing { Err("a webhook has no caBundle".to_owned()) } else { Ok(()) }
    })
    .await
}

async fn ready(address: SocketAddr, name: &str, testbed: &Testbed) -> Result<()> {
    let found = eventually(&format!("{name} is ready"), READY_LIMIT, || async {
        get(address, "/readyz").await.map(drop).map_err(|e| format!("{e:#}"))
    })
    .await;
    found.with_context(|| format!("its log ends:\n{}", tail(&testbed.logs(name).text(), 30)))
}

/// The last lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A binary of this workspace, as built beside the running one.
///
/// # Errors
/// When it is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    let found = found.with_context(|| format!("{name} is not built: run `make binaries`"))?;
    ensure!(found.is_absolute(), "the path of {name} is not absolute");
    Ok(found)
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
