//! The configuration files of a real node and of the services beside it.
//!
//! Pure functions of what distinguishes one node from another. Where a value is
//! not the component's default, the line says why.

use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

use super::{
    SANDBOX_IMAGE, TopologyPolicy,
    network::{POD_RANGES, pod_range},
};

/// Where the kubelet finds the container runtime, inside the node.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// The ClusterIP of DNS, kubeadm's choice.
pub(super) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The CPUs and memory that a node keeps for itself, so that its allocatable is
/// that of a fake node of the same profile.
const RESERVED: [(&str, &str); 2] = [("cpu", "2"), ("memory", "16Gi")];

/// What a kubelet's configuration depends on.
pub(super) struct Kubelet<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) cgroup: &'a str,
    pub(super) client_ca: &'a Path,
    pub(super) cert: &'a Path,
    pub(super) key: &'a Path,
    pub(super) resolv_conf: &'a Path,
    pub(super) static_pods: &'a Path,
    pub(super) topology_policy: TopologyPolicy,
}

impl Kubelet<'_> {
    pub(super) fn config(&self) -> Value {
        let reserved: serde_json::Map<String, Value> =
            RESERVED.into_iter().map(|(name, quantity)| (name.to_owned(), json!(quantity))).collect();
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            // All kubelets share one network namespace: each listens on its own
            // address only.
            "address": self.address,
            "healthzBindAddress": self.address,
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.client_ca },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": self.cert,
            "tlsPrivateKeyFile": self.key,
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.cgroup),
            // A machine with cgroup v1 will do.
            "failCgroupV1": false,
            "failSwapOn": false,
            // A lower score needs CAP_SYS_RESOURCE, which root may lack.
            "oomScoreAdj": 0,
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_SERVICE],
            "resolvConf": self.resolv_conf,
            "staticPodPath": self.static_pods,
            "kubeReserved": reserved,
            // The disk is shared with everything else on the machine, and how
            // full it is says nothing about the node.
            "evictionHard": { "memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%" },
            "imageGCHighThresholdPercent": 100,
            // Renewed every 2 s, several times in the shortest grace period after
            // which a node is seen to be lost.
            "nodeLeaseDurationSeconds": 8,
            "nodeStatusUpdateFrequency": "2s",
        });
        if let Some(policy) = self.topology_policy.name() {
            config["topologyManagerPolicy"] = json!(policy);
            config["topologyManagerScope"] = json!("pod");
        }
        config
    }
}

/// containerd's configuration.
pub(super) fn containerd(runc: &Path, cni_plugins: &Path, cni_config: &Path) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

# Nothing here uses them, and the first writes to /opt.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{SANDBOX_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # A lower score than our own needs CAP_SYS_RESOURCE, which root may lack.
  restrict_oom_score_adj = true
  # A profile would be loaded into the machine's kernel, and stay.
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{config}"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
"#,
        plugins = cni_plugins.display(),
        config = cni_config.display(),
        runc = runc.display(),
    )
}

/// The pod network of the `index`-th node: a point-to-point link per pod and
/// routing between them. A bridge would pass packets between two pods of a node
/// by Service address only with the kernel's bridge filter on.
pub(super) fn cni(index: usize) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "flowforge",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": pod_range(index) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// kube-proxy's configuration; one serves all nodes, which share a namespace.
pub(super) fn kube_proxy(kubeconfig: &Path, address: Ipv4Addr, node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig },
        "mode": "iptables",
        "bindAddress": address,
        "healthzBindAddress": format!("{address}:10256"),
        "metricsBindAddress": format!("{address}:10249"),
        "hostnameOverride": node,
        "clusterCIDR": POD_RANGES,
        // These settings are the machine's, not the namespace's.
        "conntrack": { "maxPerCore": 0, "min": 0 },
        // The names of a gang's members must not wait for the next full sync.
        "iptables": { "minSyncPeriod": "100ms", "syncPeriod": "30s" },
    })
}

/// CoreDNS's configuration. Nothing is cached: a member of a gang that asks too
/// early must not be told "no" for seconds after.
pub(super) fn corefile(kubeconfig: &Path, address: Ipv4Addr) -> String {
    format!(
        "cluster.local:53 in-addr.arpa:53 {{
    bind {address}
    errors
    ready {address}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 0
    }}
}}
",
        kubeconfig = kubeconfig.display(),
    )
}

/// The objects that make the DNS process a Service, and its permissions, as
/// CoreDNS's own manifests give them.
pub(super) fn dns_objects(address: Ipv4Addr) -> Vec<Value> {
    let ports = |kind: &str| {
        ["UDP", "TCP"].map(|protocol| {
            let mut port =
                json!({ "name": format!("dns-{}", protocol.to_lowercase()), "port": 53, "protocol": protocol });
            if kind == "Service" {
                port["targetPort"] = json!(53);
            }
            port
        })
    };
    vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS_USER }],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system" },
            "spec": { "clusterIP": DNS_SERVICE, "ports": ports("Service") },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": "kube-dns" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address] }],
            "ports": ports("EndpointSlice"),
        }),
    ]
}

/// The user that CoreDNS is.
pub(super) const DNS_USER: &str = "system:coredns";

/// The resolver configuration that pods with `dnsPolicy: Default` inherit:
/// nothing outside the cluster has a name.
pub(super) fn resolv_conf(address: Ipv4Addr) -> String {
    format!("nameserver {address}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::SERVICE_RANGE;

    fn kubelet(topology_policy: TopologyPolicy) -> Value {
        Kubelet {
            address: Ipv4Addr::new(100, 127, 3, 10),
            cgroup: "flowforge/3/dgx",
            client_ca: Path::new("/ca"),
            cert: Path::new("/cert"),
            key: Path::new("/key"),
            resolv_conf: Path::new("/resolv"),
            static_pods: Path::new("/static"),
            topology_policy,
        }
        .config()
    }

    #[test]
    fn a_kubelet_listens_on_its_own_address_only_and_trusts_nobody_unknown() {
        let config = kubelet(TopologyPolicy::None);
        assert_eq!(config["address"], "100.127.3.10");
        assert_eq!(config["healthzBindAddress"], "100.127.3.10");
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(config["cgroupRoot"], "/flowforge/3/dgx");
        assert_eq!(config["topologyManagerPolicy"], Value::Null);
    }

    #[test]
    fn a_topology_policy_reaches_the_kubelet_by_its_upstream_name() {
        assert_eq!(kubelet(TopologyPolicy::SingleNumaNode)["topologyManagerPolicy"], "single-numa-node");
        assert_eq!(kubelet(TopologyPolicy::Restricted)["topologyManagerPolicy"], "restricted");
    }

    #[test]
    fn the_dns_service_is_in_the_service_range_and_its_ports_match_its_endpoints() {
        assert!(SERVICE_RANGE.starts_with("10.96.") && DNS_SERVICE.octets()[..2] == [10, 96]);
        let objects = dns_objects(Ipv4Addr::new(100, 127, 3, 2));
        let names = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|port| port["name"].to_string()).collect()
        };
        assert_eq!(names(&objects[2]["spec"]["ports"]), names(&objects[3]["ports"]));
    }
}
