//! The control plane's processes and their flags, as kubeadm sets them: TLS
//! everywhere, RBAC and the Node authorizer on, no insecure port, all default
//! controllers and admission plugins.
//!
//! Where a flag differs from kubeadm's it is for speed alone (etcd without
//! fsync, no leader election among one) or for the number of nodes (client rate
//! limits), and says so.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    kubeconfig::{self, Credential},
    network::{KUBERNETES_SERVICE, Network, SERVICE_RANGE, port},
    pki::{Identity, Pki},
    supervisor::{Launch, Stage},
};

/// Names of the processes, for [`crate::Testbed::pause`] and its like.
pub mod component {
    /// etcd.
    pub const ETCD: &str = "etcd";
    /// The API server.
    pub const API_SERVER: &str = "kube-apiserver";
    /// The controller manager.
    pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
    /// kube-scheduler, if it was asked for.
    pub const SCHEDULER: &str = "kube-scheduler";
    /// The player of fake nodes, if there are any.
    pub const KWOK: &str = "kwok";
}

/// What distinguishes one control plane from another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) feature_gates: Vec<(String, bool)>,
    pub(crate) runtime_config: Vec<String>,
    pub(crate) apiserver_flags: Vec<String>,
    pub(crate) controller_manager_flags: Vec<String>,
    /// `None`: no kube-scheduler. Null: its default configuration.
    pub(crate) scheduler_config: Option<Value>,
    /// Silence after which a node is lost; `None`: silence means nothing, and
    /// nobody has to send heartbeats.
    pub(crate) node_grace: Option<Duration>,
}

/// A grace period that no testbed outlives.
const FOREVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The files and flags of one control plane.
pub(crate) struct ControlPlane<'a> {
    pub(crate) program: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) pki: &'a Pki,
    pub(crate) network: &'a Network,
    pub(crate) settings: &'a Settings,
}

impl ControlPlane<'_> {
    pub(crate) fn server(&self) -> String {
        format!("https://{}", self.network.at(port::API_SERVER))
    }

    /// Writes a kubeconfig for a client certificate of the given user.
    pub(crate) fn kubeconfig_for(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.pki.client(user, group)?;
        let path = self.dir.join(format!("{}.kubeconfig", user.replace(':', "-")));
        kubeconfig::write(
            &path,
            &self.server(),
            &self.pki.cluster.cert_pem,
            &Credential::Certificate(&identity),
            "default",
        )?;
        Ok(path)
    }

    pub(crate) fn etcd(&self) -> Result<Launch> {
        let identity = self.pki.etcd_serving(self.network.address)?;
        let client = format!("https://{}", self.network.at(port::ETCD));
        let peer = format!("https://{}", self.network.at(port::ETCD_PEER));
        let flags = vec![
            flag("name", "testbed"),
            flag("data-dir", self.dir.join("etcd").display()),
            flag("listen-client-urls", &client),
            flag("advertise-client-urls", &client),
            flag("listen-peer-urls", &peer),
            flag("initial-advertise-peer-urls", &peer),
            flag("initial-cluster", format!("testbed={peer}")),
            flag("cert-file", identity.cert.display()),
            flag("key-file", identity.key.display()),
            flag("client-cert-auth", "true"),
            flag("peer-cert-file", identity.cert.display()),
            flag("peer-key-file", identity.key.display()),
            flag("peer-client-cert-auth", "true"),
            flag("peer-trusted-ca-file", self.pki.etcd.cert.display()),
            flag("trusted-ca-file", self.pki.etcd.cert.display()),
            // The data goes with the testbed.
            flag("unsafe-no-fsync", "true"),
            flag("quota-backend-bytes", 8_u64 << 30),
            flag("log-level", "warn"),
        ];
        Ok(self.launch(component::ETCD, flags, Stage::Etcd, Duration::from_secs(5)))
    }

    pub(crate) fn apiserver(&self) -> Result<Launch> {
        let pki = self.pki;
        let addresses = [self.network.address, KUBERNETES_SERVICE.into(), std::net::Ipv4Addr::LOCALHOST.into()];
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let serving = pki.serving("apiserver", "kube-apiserver", &addresses, &names)?;
        let etcd = pki.etcd_client()?;
        let kubelet = pki.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
        let proxy = pki.front_proxy_client()?;
        let mut flags = vec![
            flag("bind-address", self.network.address),
            flag("advertise-address", self.network.advertise),
            flag("secure-port", port::API_SERVER),
            flag("service-cluster-ip-range", SERVICE_RANGE),
            flag("allow-privileged", "true"),
            flag("authorization-mode", "Node,RBAC"),
            flag("enable-admission-plugins", "NodeRestriction"),
            flag("client-ca-file", pki.cluster.cert.display()),
            flag("etcd-servers", format!("https://{}", self.network.at(port::ETCD))),
            flag("etcd-cafile", pki.etcd.cert.display()),
            flag("etcd-certfile", etcd.cert.display()),
            flag("etcd-keyfile", etcd.key.display()),
            flag("kubelet-client-certificate", kubelet.cert.display()),
            flag("kubelet-client-key", kubelet.key.display()),
            flag("kubelet-certificate-authority", pki.cluster.cert.display()),
            flag("kubelet-preferred-address-types", "InternalIP"),
            flag("proxy-client-cert-file", proxy.cert.display()),
            flag("proxy-client-key-file", proxy.key.display()),
            flag("requestheader-client-ca-file", pki.front_proxy.cert.display()),
            flag("requestheader-allowed-names", "front-proxy-client"),
            flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            flag("requestheader-group-headers", "X-Remote-Group"),
            flag("requestheader-username-headers", "X-Remote-User"),
            flag("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            flag("service-account-key-file", pki.service_account_public_key.display()),
            flag("service-account-signing-key-file", pki.service_account_key.display()),
        ];
        flags.extend(serving_flags(&serving));
        flags.extend(self.feature_gate_flag());
        if !self.settings.runtime_config.is_empty() {
            flags.push(flag("runtime-config", self.settings.runtime_config.join(",")));
        }
        flags.extend(self.settings.apiserver_flags.iter().cloned());
        Ok(self.launch(component::API_SERVER, flags, Stage::ApiServer, Duration::from_secs(5)))
    }

    pub(crate) fn controller_manager(&self) -> Result<Launch> {
        let pki = self.pki;
        let kubeconfig = self.kubeconfig_for("system:kube-controller-manager", None)?;
        let serving = pki.serving("controller-manager", "kube-controller-manager", &[self.network.address], &[])?;
        let grace = self.settings.node_grace.unwrap_or(FOREVER);
        let mut flags = vec![
            flag("bind-address", self.network.address),
            flag("secure-port", port::CONTROLLER_MANAGER),
            flag("kubeconfig", kubeconfig.display()),
            flag("authentication-kubeconfig", kubeconfig.display()),
            flag("authorization-kubeconfig", kubeconfig.display()),
            flag("client-ca-file", pki.cluster.cert.display()),
            flag("requestheader-client-ca-file", pki.front_proxy.cert.display()),
            flag("root-ca-file", pki.cluster.cert.display()),
            flag("cluster-signing-cert-file", pki.cluster.cert.display()),
            flag("cluster-signing-key-file", pki.cluster.key.display()),
            flag("service-account-private-key-file", pki.service_account_key.display()),
            flag("service-cluster-ip-range", SERVICE_RANGE),
            flag("use-service-account-credentials", "true"),
            flag("node-monitor-grace-period", format!("{}s", grace.as_secs())),
            // There is one, and it may not wait for a lease.
            flag("leader-elect", "false"),
            // The default of 20 a second would make 5,000 new nodes wait for
            // minutes until their taint is removed.
            flag("kube-api-qps", 1000),
            flag("kube-api-burst", 2000),
        ];
        flags.extend(serving_flags(&serving));
        flags.extend(self.feature_gate_flag());
        flags.extend(self.settings.controller_manager_flags.iter().cloned());
        Ok(self.launch(component::CONTROLLER_MANAGER, flags, Stage::Clients, Duration::from_secs(1)))
    }

    pub(crate) fn scheduler(&self, config: &Value) -> Result<Launch> {
        let kubeconfig = self.kubeconfig_for("system:kube-scheduler", None)?;
        let serving = self.pki.serving("scheduler", "kube-scheduler", &[self.network.address], &[])?;
        let config_file = self.dir.join("kube-scheduler.yaml");
        fs::write(&config_file, serde_json::to_string_pretty(&scheduler_config(config, &kubeconfig))?)?;
        let mut flags = vec![
            flag("config", config_file.display()),
            flag("bind-address", self.network.address),
            flag("secure-port", port::SCHEDULER),
            flag("authentication-kubeconfig", kubeconfig.display()),
            flag("authorization-kubeconfig", kubeconfig.display()),
            flag("client-ca-file", self.pki.cluster.cert.display()),
            flag("requestheader-client-ca-file", self.pki.front_proxy.cert.display()),
        ];
        flags.extend(serving_flags(&serving));
        flags.extend(self.feature_gate_flag());
        Ok(self.launch(component::SCHEDULER, flags, Stage::Clients, Duration::from_secs(1)))
    }

    fn launch(&self, name: &str, flags: Vec<String>, stage: Stage, grace: Duration) -> Launch {
        let mut argv = vec![self.program.display().to_string(), name.to_owned()];
        argv.extend(flags);
        Launch { name: name.to_owned(), argv: self.network.inside(argv), env: Vec::new(), stage, grace }
    }

    fn feature_gate_flag(&self) -> Option<String> {
        let gates = &self.settings.feature_gates;
        let list: Vec<String> = gates.iter().map(|(gate, on)| format!("{gate}={on}")).collect();
        (!list.is_empty()).then(|| flag("feature-gates", list.join(",")))
    }
}

fn serving_flags(identity: &Identity) -> [String; 2] {
    [flag("tls-cert-file", identity.cert.display()), flag("tls-private-key-file", identity.key.display())]
}

/// The caller's KubeSchedulerConfiguration with our connection in it.
fn scheduler_config(config: &Value, kubeconfig: &Path) -> Value {
    let mut whole = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
    });
    if let (Some(whole), Some(given)) = (whole.as_object_mut(), config.as_object()) {
        whole.extend(given.clone());
    }
    whole["leaderElection"] = json!({ "leaderElect": false });
    if !whole["clientConnection"].is_object() {
        whole["clientConnection"] = json!({});
    }
    whole["clientConnection"]["kubeconfig"] = json!(kubeconfig);
    whole
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_scheduler_configuration_keeps_its_rates_and_gets_our_kubeconfig() {
        let given = json!({ "clientConnection": { "qps": 5000 }, "parallelism": 4 });
        let whole = scheduler_config(&given, Path::new("/k"));
        assert_eq!(whole["clientConnection"], json!({ "qps": 5000, "kubeconfig": "/k" }));
        assert_eq!(whole["parallelism"], 4);
        assert_eq!(whole["kind"], "KubeSchedulerConfiguration");
    }
}
