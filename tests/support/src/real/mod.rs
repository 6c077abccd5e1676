//! Real nodes: kubelet, containerd and runc, in which containers really run.
//!
//! ```text
//! Builder::real_nodes ---> create_network: the testbed's network namespace
//!                          (control plane starts inside it)
//!                     ---> start, per profile:
//!                            Node objects with the profile's labels
//!                            per node: files, certificates, address, `runner`
//!                              runner: containerd, images, device plugins, kubelet
//!                            once: kube-proxy, DNS
//!                          wait until Ready with all devices
//! ```
//!
//! The kubelet is upstream's, told that its machine is that of the profile; the
//! devices are fake, but the kubelet's device manager counts, assigns and refuses
//! them as real ones. A node offers what a fake node of its profile offers.
//!
//! What is not isolated, because all nodes share one network namespace and one
//! kernel: host ports and `hostNetwork` of two nodes collide, and CPU and memory
//! beyond the machine's are there in name only.
//!
//! What must hold: whatever is killed, no process, mount, interface or namespace
//! of a node stays (see `network` here and `tests/testbed/node/runner`).

mod files;
mod images;
mod network;
mod node;
mod requirements;
mod services;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::time::sleep;

pub use images::{IMAGE, SANDBOX_IMAGE, WORKLOAD, WORKLOAD_IMAGE, pack_image};
pub use node::{DEVICE_PLUGIN, RUNNER};
pub use requirements::{Missing, available};

use crate::{
    Profile, Testbed,
    binaries::{CONTAINERD, Module},
    fake,
    network::Network,
    profile::NODE_KIND_LABEL,
    supervisor::Supervisor,
};

/// The Go modules of real nodes that are not in [`crate::binaries::DEFAULT`].
pub const MODULES: [Module; 4] = [WORKLOAD, IMAGE, RUNNER, DEVICE_PLUGIN];

/// How long nodes may take to become ready, on a machine that also compiles.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// How long a node may take to go down.
const DOWN_LIMIT: Duration = Duration::from_secs(30);

/// The kubelet's Topology Manager policy, with scope `pod`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyPolicy {
    /// No alignment.
    #[default]
    None,
    /// Aligned where possible.
    BestEffort,
    /// Refused unless devices, CPUs and memory are on as few NUMA nodes as the
    /// request needs.
    Restricted,
    /// Refused unless all are on one NUMA node.
    SingleNumaNode,
}

impl TopologyPolicy {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::BestEffort => Some("best-effort"),
            Self::Restricted => Some("restricted"),
            Self::SingleNumaNode => Some("single-numa-node"),
        }
    }
}

/// How real nodes differ from the default.
#[derive(Clone, Debug, Default)]
pub struct RealNodeOptions {
    /// The Topology Manager's policy.
    pub topology_policy: TopologyPolicy,
    /// OCI archives to import beside [`WORKLOAD_IMAGE`].
    pub image_archives: Vec<PathBuf>,
}

/// Makes the network of a testbed with real nodes.
///
/// # Errors
/// [`Missing`] where the machine cannot have real nodes.
pub(crate) fn create_network(supervisor: &Supervisor) -> Result<Network> {
    available()?;
    network::create(supervisor)
}

/// Starts real nodes and waits until they take pods.
///
/// # Errors
/// When a binary cannot be built or a node does not become ready.
pub(crate) async fn start(testbed: &Testbed, profile: Profile, first: usize, count: usize) -> Result<()> {
    let names: Vec<String> = (first..first + count).map(|index| profile.node_name(index)).collect();
    start_with(testbed, profile, first, &names, &RealNodeOptions::default()).await
}

async fn start_with(
    testbed: &Testbed,
    profile: Profile,
    first: usize,
    names: &[String],
    options: &RealNodeOptions,
) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let programs = requirements::find_programs()?;
    ensure!(!testbed.network().enter.is_empty(), "a testbed has real nodes from its start (`real_nodes`) or never");
    let kubernetes = testbed.program.clone();
    let binaries = tokio::task::spawn_blocking(move || build(kubernetes)).await??;
    let slot = testbed.supervisor.slot;
    let dns = network::control_plane_address(slot);
    let before = existing(testbed)?.len();
    ensure!(before + names.len() <= network::MAX_NODES, "at most {} real nodes fit one testbed", network::MAX_NODES);

    // 1. The objects first: a kubelet may not set most labels of its own node.
    let numbered = || names.iter().enumerate().map(|(at, name)| (before + at, first + at, name));
    for (number, index, name) in numbered() {
        create_node(testbed, profile, index, number, name).await?;
    }

    // 2. The machines.
    for (number, _, name) in numbered() {
        let address = network::node_address(slot, number);
        network::add_address(testbed.network(), address)?;
        let kubeconfig = testbed.user_kubeconfig(&format!("system:node:{name}"), Some("system:nodes"))?;
        let setup = node::NodeSetup {
            testbed,
            binaries: &binaries,
            programs: &programs,
            options,
            profile,
            name,
            number,
            address,
            dns,
            kubeconfig: &kubeconfig,
        };
        testbed.launch(setup.prepare()?)?;
        testbed.on_teardown(&setup.cleanup())?;
    }

    // 3. What all of them share.
    if before == 0 {
        services::start(testbed, &binaries.kubernetes, dns, &programs.path, &names[0]).await?;
    }
    for name in names {
        await_ready(testbed, profile, name).await?;
    }
    Ok(())
}

fn build(kubernetes: PathBuf) -> Result<node::Binaries> {
    Ok(node::Binaries {
        kubernetes,
        containerd: CONTAINERD.build()?,
        runner: RUNNER.binary("runner")?,
        device_plugin: DEVICE_PLUGIN.binary("deviceplugin")?,
        archive: images::archive()?,
    })
}

/// The names of the real nodes so far.
fn existing(testbed: &Testbed) -> Result<Vec<String>> {
    let dir = testbed.dir().join("nodes");
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

async fn create_node(testbed: &Testbed, profile: Profile, index: usize, number: usize, name: &str) -> Result<()> {
    let mut labels = profile.labels(index, name);
    labels.insert(NODE_KIND_LABEL.to_owned(), "real".to_owned());
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "podCIDR": network::pod_range(number), "podCIDRs": [network::pod_range(number)] },
    }))?;
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    nodes.create(&PostParams::default(), &node).await.with_context(|| format!("node {name}"))?;
    Ok(())
}

/// Waits until a node takes pods and offers all devices of its profile; gives up
/// at once when the node's machine has ended.
async fn await_ready(testbed: &Testbed, profile: Profile, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let node = nodes.get(name).await?;
        if fake::is_schedulable(&node) && offers_devices(profile, &node) {
            return Ok(());
        }
        if let Some(exit) = testbed.exits(name).last() {
            bail!("node {name} ended with code {}: {}", exit.code, testbed.logs(name).text().trim_end());
        }
        ensure!(
            Instant::now() < deadline,
            "node {name} is not ready; see its logs {}.*. Its status: {:?}",
            testbed.logs(name).path().with_extension("").display(),
            node.status
        );
        sleep(Duration::from_millis(50)).await;
    }
}

fn offers_devices(profile: Profile, node: &Node) -> bool {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let devices = profile.capacity().into_iter().filter(|(resource, _)| resource.contains('/'));
    devices.into_iter().all(|(resource, wanted)| allocatable.is_some_and(|all| all.get(&resource) == Some(&wanted)))
}

/// What tests do with real nodes.
impl Testbed {
    /// Adds real nodes and waits until they are ready; returns their names. The
    /// testbed must have been built with [`crate::Builder::real_nodes`], of which
    /// 0 will do.
    ///
    /// # Errors
    /// As for [`crate::Builder::start`].
    pub async fn add_real_nodes(
        &self,
        profile: Profile,
        count: usize,
        options: &RealNodeOptions,
    ) -> Result<Vec<String>> {
        let first = self.reserve_indices(profile, count);
        let names: Vec<String> = (first..first + count).map(|index| profile.node_name(index)).collect();
        start_with(self, profile, first, &names, options).await?;
        Ok(names)
    }

    /// The names of all real nodes.
    pub fn real_node_names(&self) -> Result<Vec<String>> {
        existing(self)
    }

    /// The address by which the testbed, pods included, reaches this process: the
    /// machine's end of the testbed's network. `None` without real nodes, when
    /// loopback is shared.
    pub fn host_address(&self) -> Option<Ipv4Addr> {
        (!self.network().enter.is_empty()).then(|| network::host_address(self.supervisor.slot))
    }

    /// Kills a kubelet (SIGKILL). Its containers go on, and the node is seen to
    /// be lost after the grace period.
    pub fn kill_kubelet(&self, node: &str) -> Result<()> {
        self.command_node(node, "kill kubelet")
    }

    /// Starts a kubelet again after [`Testbed::kill_kubelet`].
    pub fn restart_kubelet(&self, node: &str) -> Result<()> {
        self.command_node(node, "start kubelet")
    }

    /// Stops a kubelet where it stands (SIGSTOP): the node hangs.
    pub fn pause_kubelet(&self, node: &str) -> Result<()> {
        self.command_node(node, "pause kubelet")
    }

    /// Lets a paused kubelet go on.
    pub fn resume_kubelet(&self, node: &str) -> Result<()> {
        self.command_node(node, "resume kubelet")
    }

    /// Kills containerd; running containers go on.
    pub fn kill_containerd(&self, node: &str) -> Result<()> {
        self.command_node(node, &format!("kill {}", node::CONTAINERD))
    }

    /// Starts containerd again.
    pub fn restart_containerd(&self, node: &str) -> Result<()> {
        self.command_node(node, &format!("start {}", node::CONTAINERD))
    }

    /// Cuts a node's power: kubelet, containerd and all containers are gone at
    /// once, its disk stays.
    pub async fn stop_node(&self, node: &str) -> Result<()> {
        let before = self.exits(node).len();
        self.terminate(node)?;
        let deadline = Instant::now() + DOWN_LIMIT;
        while self.exits(node).len() == before {
            ensure!(Instant::now() < deadline, "node {node} does not go down");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Boots a node again after [`Testbed::stop_node`]; returns without waiting
    /// until it is ready.
    pub fn start_node(&self, node: &str) -> Result<()> {
        self.respawn(node)?;
        Ok(())
    }

    /// Breaks some devices of a node and heals all others: `device` is the
    /// resource's name without its domain (`gpu`), `broken` are indices.
    pub fn break_devices(&self, node: &str, device: &str, broken: &[usize]) -> Result<()> {
        let lines: String = broken.iter().map(|index| format!("{index}\n")).collect();
        let file = node::broken_file(&self.node_dir(node)?, device);
        let draft = file.with_extension("draft");
        fs::write(&draft, lines)?;
        fs::rename(&draft, &file)?;
        Ok(())
    }

    /// Imports an OCI archive on a real node.
    pub async fn import_images(&self, node: &str, archive: &Path) -> Result<()> {
        let containerd = tokio::task::spawn_blocking(|| CONTAINERD.build()).await??;
        let ctr = containerd.join("ctr").display().to_string();
        // The node has a /tmp in common with us, but not /var and /run.
        let inside = self.dir().join(format!("{node}-images.tar"));
        fs::copy(archive, &inside)?;
        let imported = self.command_node(node, &format!("run {}", node::import_argv(&ctr, &inside).join(" ")));
        fs::remove_file(&inside)?;
        imported
    }

    /// The directory whose manifests a real node runs as static pods.
    pub fn static_pods(&self, node: &str) -> Result<PathBuf> {
        Ok(self.node_dir(node)?.join("static-pods"))
    }

    fn node_dir(&self, node: &str) -> Result<PathBuf> {
        let dir = node::dir(self, node);
        ensure!(dir.is_dir(), "there is no real node {node}");
        Ok(dir)
    }

    fn command_node(&self, node: &str, line: &str) -> Result<()> {
        node::command(&self.node_dir(node)?, line)?;
        Ok(())
    }
}
