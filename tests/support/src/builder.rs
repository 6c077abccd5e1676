//! [`Builder`]: what a testbed shall have, and its start.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    Testbed,
    binaries::{KUBERNETES, KWOK, Module, SUPERVISE},
    control_plane::{ControlPlane, Settings, component},
    fake, kubeconfig, manifests,
    network::Network,
    pki::Pki,
    profile::Profile,
    real,
    supervisor::Supervisor,
    testbed::{Parts, keep_logs_of, readyz},
};

/// How long the API server may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// How long nodes may take, on a machine that also compiles.
const NODES_LIMIT: Duration = Duration::from_secs(120);

/// Describes a testbed; [`Builder::start`] brings it up.
#[derive(Clone, Debug)]
pub struct Builder {
    fake: Vec<(Profile, usize)>,
    real: Vec<(Profile, usize)>,
    settings: Settings,
    node_grace: Option<Duration>,
    kwok: bool,
    kubernetes: Module,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            fake: Vec::new(),
            real: Vec::new(),
            settings: Settings::default(),
            node_grace: None,
            kwok: true,
            kubernetes: KUBERNETES,
        }
    }
}

impl Builder {
    /// Adds fake nodes. Nodes of a profile are numbered through: real ones
    /// first, then fake ones in the order they were asked for.
    #[must_use]
    pub fn nodes(mut self, profile: Profile, count: usize) -> Self {
        self.fake.push((profile, count));
        self
    }

    /// Adds real nodes: kubelet, containerd and runc, in a network namespace.
    #[must_use]
    pub fn real_nodes(mut self, profile: Profile, count: usize) -> Self {
        self.real.push((profile, count));
        self
    }

    /// Whether kube-scheduler runs too, with its default configuration.
    #[must_use]
    pub fn kube_scheduler(mut self, on: bool) -> Self {
        self.settings.scheduler_config = on.then_some(Value::Null);
        self
    }

    /// Runs kube-scheduler with this `KubeSchedulerConfiguration`. Its kubeconfig
    /// and leader election are the testbed's.
    #[must_use]
    pub fn kube_scheduler_config(mut self, config: Value) -> Self {
        self.settings.scheduler_config = Some(config);
        self
    }

    /// Sets feature gates on all components of the control plane.
    #[must_use]
    pub fn feature_gates<'a>(mut self, gates: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        let gates = gates.into_iter().map(|(gate, on)| (gate.to_owned(), on));
        self.settings.feature_gates.extend(gates);
        self
    }

    /// Serves API groups that are off by default, for example
    /// `scheduling.k8s.io/v1beta1=true`.
    #[must_use]
    pub fn runtime_config(mut self, setting: &str) -> Self {
        self.settings.runtime_config.push(setting.to_owned());
        self
    }

    /// Adds a flag to kube-apiserver.
    #[must_use]
    pub fn apiserver_flag(mut self, flag: &str) -> Self {
        self.settings.apiserver_flags.push(flag.to_owned());
        self
    }

    /// Adds a flag to kube-controller-manager.
    #[must_use]
    pub fn controller_manager_flag(mut self, flag: &str) -> Self {
        self.settings.controller_manager_flags.push(flag.to_owned());
        self
    }

    /// How long a node may be silent before it counts as lost; kwok then renews
    /// every fake node's lease four times in it. The default is 16 s where there
    /// are real nodes. With fake nodes alone silence means nothing by default,
    /// which saves the heartbeats of thousands of nodes; a fake machine is lost
    /// by [`Testbed::lose_nodes`].
    #[must_use]
    pub fn node_grace(mut self, grace: Duration) -> Self {
        self.node_grace = Some(grace);
        self
    }

    /// Leaves kwok out: fake nodes stay as they were created, and nothing runs
    /// their pods.
    #[must_use]
    pub fn without_kwok(mut self) -> Self {
        self.kwok = false;
        self
    }

    /// Another build of Kubernetes, for example
    /// [`crate::binaries::KUBERNETES_1_33`].
    #[must_use]
    pub fn kubernetes(mut self, module: Module) -> Self {
        self.kubernetes = module;
        self
    }

    /// Brings the testbed up: returns when the API server is ready, ServiceAccounts
    /// are being made, and every node can take pods.
    ///
    /// # Errors
    /// When a binary cannot be built or a component does not come up; the message
    /// then names the directory that the logs were kept in.
    pub async fn start(self) -> Result<Testbed> {
        anyhow::ensure!(
            self.real.is_empty() || self.kubernetes.has_node_components(),
            "real nodes need a kubelet, and the build of Kubernetes in tests/testbed/{} has none: \
             take fake nodes, or the default version",
            self.kubernetes.dir,
        );
        let kubernetes = self.kubernetes;
        let build =
            move || anyhow::Ok((SUPERVISE.binary("supervise")?, KWOK.binary("kwok")?, kubernetes.binary("testbed")?));
        let (supervise, kwok, kubernetes) = tokio::task::spawn_blocking(build).await??;
        let supervisor = Supervisor::start(&supervise, &parent_dir())?;
        match self.bring_up(&supervisor, kubernetes, &kwok).await {
            Ok(parts) => {
                let testbed = Testbed::new(supervisor, parts);
                let made = testbed.make_nodes(&self).await;
                made.map_err(|error| explain(error, &testbed.keep_logs()))?;
                Ok(testbed)
            }
            Err(error) => Err(explain(error, &keep_logs_of(&supervisor))),
        }
    }

    async fn bring_up(&self, supervisor: &Supervisor, program: PathBuf, kwok: &Path) -> Result<Parts> {
        let begin = Instant::now();
        let dir = &supervisor.dir;

        // 1. The network, which all addresses and certificates follow.
        let network =
            if self.real.is_empty() { Network::loopback(supervisor.slot) } else { real::create_network(supervisor)? };
        let pki = Pki::create(&dir.join("pki"))?;
        let settings = self.settings();
        let plane = ControlPlane { program: &program, dir, pki: &pki, network: &network, settings: &settings };

        // 2. etcd and the API server, which waits for etcd by itself.
        let mut launches = vec![plane.etcd()?, plane.apiserver()?];
        for launch in &launches {
            supervisor.launch(launch)?;
        }
        let admin_kubeconfig = plane.kubeconfig_for("kubernetes-admin", Some("system:masters"))?;
        let client = kubeconfig::client(&admin_kubeconfig).await?;
        await_ready(supervisor, &client).await?;
        tracing::debug!(ms = begin.elapsed().as_millis(), "API server ready");

        // 3. What needs the API server.
        let mut clients = vec![plane.controller_manager()?];
        if let Some(config) = &settings.scheduler_config {
            clients.push(plane.scheduler(config)?);
        }
        if self.kwok {
            manifests::apply(&client, fake::RBAC).await?;
            clients.push(fake::kwok(kwok, &plane)?);
        }
        for launch in &clients {
            supervisor.launch(launch)?;
        }
        launches.extend(clients);
        await_service_accounts(supervisor, &client).await?;
        tracing::debug!(ms = begin.elapsed().as_millis(), "control plane ready");
        let node_leases = settings.node_grace.is_some();
        Ok(Parts { program, network, pki, launches, client, admin_kubeconfig, node_leases })
    }

    fn settings(&self) -> Settings {
        let default = (!self.real.is_empty()).then_some(Duration::from_secs(16));
        Settings { node_grace: self.node_grace.or(default), ..self.settings.clone() }
    }
}

impl Testbed {
    async fn make_nodes(&self, builder: &Builder) -> Result<()> {
        for &(profile, count) in &builder.real {
            let first = self.reserve_indices(profile, count);
            real::start(self, profile, first, count).await?;
        }
        let mut names = BTreeSet::new();
        for &(profile, count) in &builder.fake {
            let first = self.reserve_indices(profile, count);
            names.extend(fake::create_nodes(self.client(), profile, first, count).await?);
        }
        fake::await_ready(self.client(), names, NODES_LIMIT).await
    }
}

fn explain(error: anyhow::Error, logs: &Path) -> anyhow::Error {
    error.context(format!("the testbed did not start; its logs are in {}", logs.display()))
}

/// Where testbed directories are made. Socket paths below it are limited to 107
/// bytes, so it should be short.
fn parent_dir() -> PathBuf {
    env::var_os("FLOWFORGE_TESTBED_DIR").map_or_else(env::temp_dir, PathBuf::from)
}

/// Waits for `/readyz`, and gives up at once when etcd or the API server ends.
async fn await_ready(supervisor: &Supervisor, client: &Client) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let last = match readyz(client).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        alive(supervisor, &[component::ETCD, component::API_SERVER])?;
        if Instant::now() >= deadline {
            return Err(last).context("the API server is not ready");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for the controller manager's first work that pods depend on: without
/// the ServiceAccount `default` none is admitted.
async fn await_service_accounts(supervisor: &Supervisor, client: &Client) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let deadline = Instant::now() + READY_LIMIT;
    while accounts.get_opt("default").await?.is_none() {
        alive(supervisor, &[component::CONTROLLER_MANAGER])?;
        anyhow::ensure!(Instant::now() < deadline, "no ServiceAccount default appears");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn alive(supervisor: &Supervisor, names: &[&str]) -> Result<()> {
    for name in names {
        if let Some(exit) = supervisor.exits(name).first() {
            anyhow::bail!("{name} ended with code {}", exit.code);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binaries::KUBERNETES_1_33;

    #[tokio::test]
    async fn real_nodes_of_a_version_without_a_kubelet_are_refused_before_anything_is_built() {
        let builder = Testbed::builder().kubernetes(KUBERNETES_1_33).real_nodes(Profile::Cpu, 1);
        let error = builder.start().await.err().unwrap().to_string();
        assert!(error.contains("k8s-1.33 has none") && error.contains("fake nodes"), "{error}");
    }
}
