//! One real node: its files, its processes, and the commands to them.
//!
//! ```text
//! DIR/nodes/NAME/            DIR being the testbed's directory
//!   node.json                what `runner` is to start (tests/testbed/node/runner)
//!   control.sock             what `runner` obeys
//!   kubelet.json, containerd.toml, cni/, resolv.conf
//!   static-pods/             manifests of static pods
//!   broken-DEVICE            indices of broken devices, one a line
//!   kubelet/                 /var/lib/kubelet of the node
//!   containerd/              /var/lib/containerd of the node
//!   pods/                    /var/log/pods of the node
//! DIR/logs/NAME.kubelet.log  and the like: one log per program
//! ```

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{
    Profile, Testbed,
    binaries::Module,
    supervisor::{Launch, Stage},
};

use super::{RealNodeOptions, files, images, requirements::Programs};

/// The machine around a node, `runner`.
pub const RUNNER: Module = Module { dir: "node/runner", ..images::WORKLOAD };

/// The fake devices of real nodes, `deviceplugin`.
pub const DEVICE_PLUGIN: Module = Module { dir: "deviceplugin", ..images::WORKLOAD };

/// How long any command to a node may take; a container runtime that is busy
/// takes seconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The names of a node's programs, for the commands.
pub(super) const KUBELET: &str = "kubelet";
pub(super) const CONTAINERD: &str = "containerd";

/// The binaries of real nodes, built.
pub(super) struct Binaries {
    pub(super) kubernetes: PathBuf,
    /// The directory with containerd, its shim and ctr.
    pub(super) containerd: PathBuf,
    pub(super) runner: PathBuf,
    pub(super) device_plugin: PathBuf,
    pub(super) archive: PathBuf,
}

/// What makes one node of all that they share.
pub(super) struct NodeSetup<'a> {
    pub(super) testbed: &'a Testbed,
    pub(super) binaries: &'a Binaries,
    pub(super) programs: &'a Programs,
    pub(super) options: &'a RealNodeOptions,
    pub(super) profile: Profile,
    pub(super) name: &'a str,
    /// The node's number among the real nodes of its testbed.
    pub(super) number: usize,
    pub(super) address: Ipv4Addr,
    pub(super) dns: Ipv4Addr,
    pub(super) kubeconfig: &'a Path,
}

/// The directory of a node.
pub(super) fn dir(testbed: &Testbed, name: &str) -> PathBuf {
    testbed.dir().join("nodes").join(name)
}

impl NodeSetup<'_> {
    /// Writes the node's files and gives the process to start.
    pub(super) fn prepare(&self) -> Result<Launch> {
        let dir = self.dir();
        for folder in ["static-pods", "cni"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let pki = self.testbed.pki();
        let serving = pki.serving(
            &format!("kubelet-{}", self.name),
            &format!("system:node:{}", self.name),
            &[self.address.into()],
            &[self.name],
        )?;
        let kubelet = files::Kubelet {
            address: self.address,
            cgroup: &self.cgroup(),
            client_ca: &pki.cluster.cert,
            cert: &serving.cert,
            key: &serving.key,
            resolv_conf: &dir.join("resolv.conf"),
            static_pods: &dir.join("static-pods"),
            topology_policy: self.options.topology_policy,
        };
        fs::write(dir.join("resolv.conf"), files::resolv_conf(self.dns))?;
        write_json(&dir.join("kubelet.json"), &kubelet.config())?;
        write_json(&dir.join("cni/10-flowforge.conflist"), &files::cni(self.number))?;
        let containerd = files::containerd(&self.programs.runc, &self.programs.cni, &dir.join("cni"));
        fs::write(dir.join("containerd.toml"), containerd)?;
        write_json(&dir.join("node.json"), &self.spec())?;
        Ok(self.launch())
    }

    /// The command that removes what a node leaves that was killed from outside.
    pub(super) fn cleanup(&self) -> Vec<String> {
        let spec = self.dir().join("node.json").display().to_string();
        vec![self.binaries.runner.display().to_string(), "--clean".to_owned(), spec]
    }

    fn launch(&self) -> Launch {
        let program = self.binaries.runner.display().to_string();
        let spec = self.dir().join("node.json").display().to_string();
        // containerd finds its shim and the CNI plugins find iptables by it.
        let path = format!("{}:{}", self.binaries.containerd.display(), self.programs.path);
        Launch {
            name: self.name.to_owned(),
            argv: self.testbed.network().inside(vec![program, spec]),
            env: vec![("PATH".to_owned(), path)],
            stage: Stage::Runtimes,
            grace: Duration::from_secs(10),
        }
    }

    fn spec(&self) -> Value {
        let dir = self.dir();
        let containerd = |name: &str| self.binaries.containerd.join(name).display().to_string();
        let mut processes = vec![json!({
            "name": CONTAINERD,
            "argv": [containerd("containerd"), "--config", dir.join("containerd.toml")],
            "log": self.log(CONTAINERD),
            "socket": files::CONTAINERD_SOCKET,
        })];
        let archives = std::iter::once(&self.binaries.archive).chain(&self.options.image_archives);
        processes.extend(archives.map(|archive| self.once("images", &import_argv(&containerd("ctr"), archive))));
        processes.extend(self.device_plugins());
        processes.push(json!({ "name": KUBELET, "argv": self.kubelet_argv(), "log": self.log(KUBELET) }));
        json!({
            "name": self.name,
            "keep": self.testbed.dir(),
            "cgroup": self.cgroup(),
            "control": dir.join("control.sock"),
            "binds": [
                { "from": dir.join("kubelet"), "to": "/var/lib/kubelet" },
                { "from": dir.join("containerd"), "to": "/var/lib/containerd" },
                { "from": dir.join("pods"), "to": "/var/log/pods" },
            ],
            "processes": processes,
        })
    }

    fn once(&self, name: &str, argv: &[String]) -> Value {
        json!({ "name": name, "argv": argv, "log": self.log(name), "once": true })
    }

    fn kubelet_argv(&self) -> Vec<String> {
        let machine = self.profile.capacity();
        let memory_gib: u64 = machine["memory"].0.trim_end_matches("Gi").parse().unwrap_or_default();
        vec![
            self.binaries.kubernetes.display().to_string(),
            "node-kubelet".to_owned(),
            format!("--config={}", self.dir().join("kubelet.json").display()),
            format!("--kubeconfig={}", self.kubeconfig.display()),
            "--root-dir=/var/lib/kubelet".to_owned(),
            "--cert-dir=/var/lib/kubelet/pki".to_owned(),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.address),
            format!("--machine-cpus={}", machine["cpu"].0),
            format!("--machine-memory={}", memory_gib << 30),
            format!("--machine-numa-nodes={}", self.profile.numa_nodes()),
        ]
    }

    /// A device plugin for each extended resource of the profile.
    fn device_plugins(&self) -> Vec<Value> {
        let mut plugins = Vec::new();
        for (resource, quantity) in self.profile.capacity() {
            let Some((_, device)) = resource.split_once('/') else {
                continue;
            };
            let mut argv = vec![
                self.binaries.device_plugin.display().to_string(),
                "-dir=/var/lib/kubelet/device-plugins".to_owned(),
                format!("-resource={resource}"),
                format!("-node={}", self.name),
                format!("-count={}", quantity.0),
                format!("-numa={}", self.profile.numa_nodes().min(quantity.0.parse().unwrap_or(1))),
                format!("-prefix={}", device.to_uppercase()),
                format!("-unhealthy={}", broken_file(&self.dir(), device).display()),
            ];
            if resource == "nvidia.com/gpu" {
                argv.push("-env=NVIDIA_VISIBLE_DEVICES".to_owned());
            }
            let name = format!("{device}-plugin");
            plugins.push(json!({ "name": name, "argv": argv, "log": self.log(&name) }));
        }
        plugins
    }

    fn dir(&self) -> PathBuf {
        dir(self.testbed, self.name)
    }

    /// The node's group in every cgroup hierarchy.
    fn cgroup(&self) -> String {
        format!("flowforge/{}/{}", self.testbed.supervisor.slot, self.name)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.testbed.supervisor.log_file(&log_name(self.name, program))
    }
}

/// The name of a program's log, for [`Testbed::logs`].
pub(super) fn log_name(node: &str, program: &str) -> String {
    format!("{node}.{program}")
}

/// `ctr` importing an archive into the kubelet's images.
pub(super) fn import_argv(ctr: &str, archive: &Path) -> Vec<String> {
    let archive = archive.display().to_string();
    ["--namespace=k8s.io", "images", "import", "--local", &archive].into_iter().fold(
        vec![ctr.to_owned()],
        |mut argv, word| {
            argv.push(word.to_owned());
            argv
        },
    )
}

/// The file that lists a node's broken devices.
pub(super) fn broken_file(dir: &Path, device: &str) -> PathBuf {
    dir.join(format!("broken-{device}"))
}

/// Sends one command to a node and waits for its answer.
pub(super) fn command(dir: &Path, line: &str) -> Result<String> {
    let control = dir.join("control.sock");
    let mut stream = match UnixStream::connect(&control) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            bail!("there is no running node at {}", dir.display())
        }
        Err(error) => return Err(error).with_context(|| control.display().to_string()),
    };
    stream.set_read_timeout(Some(COMMAND_LIMIT))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer.trim_end().split_once(' ').unwrap_or((answer.trim_end(), "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        ("error", rest) => bail!("{line}: {rest}"),
        _ => bail!("{line}: the node is gone"),
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, serde_json::to_string_pretty(value)?).with_context(|| path.display().to_string())
}
