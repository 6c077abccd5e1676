//! Where a testbed listens.
//!
//! Several testbeds run on one machine at once. Each has its own IP address and
//! uses the same, well-known ports on it, so that no port is ever guessed free
//! and then lost to somebody else:
//!
//! - with fake nodes only, 127.77.SLOT.1 on the loopback of this network
//!   namespace, SLOT being what the supervisor has claimed;
//! - with real nodes, an address inside the testbed's own network namespace that
//!   is also reachable from outside. Everything of the testbed is then started
//!   through [`Network::enter`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The first address of the Service range: the API server's ClusterIP.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The Service range.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The ports on a testbed's address. Those from 10000 on are free for the
/// binaries under test.
pub mod port {
    /// kube-apiserver.
    pub const API_SERVER: u16 = 6443;
    /// etcd, for clients.
    pub const ETCD: u16 = 2379;
    /// etcd, for peers that never come.
    pub const ETCD_PEER: u16 = 2380;
    /// kube-controller-manager.
    pub const CONTROLLER_MANAGER: u16 = 10257;
    /// kube-scheduler.
    pub const SCHEDULER: u16 = 10259;
}

/// The network of one testbed.
#[derive(Clone, Debug)]
pub struct Network {
    /// The address that the control plane listens on and that everybody, inside
    /// and outside the namespace, reaches it by. Tests' own servers, such as
    /// webhooks, listen on it too.
    pub address: IpAddr,
    /// What the API server publishes as endpoint of Service `kubernetes`; a
    /// loopback address is not allowed there.
    pub advertise: IpAddr,
    /// Prefix of every argument vector, for example `nsenter --net=PATH --`.
    pub enter: Vec<String>,
}

impl Network {
    /// The network of a testbed without real nodes. Nobody connects to the
    /// advertised address (TEST-NET-1).
    #[must_use]
    pub fn loopback(slot: u8) -> Self {
        Self {
            address: Ipv4Addr::new(127, 77, slot, 1).into(),
            advertise: Ipv4Addr::new(192, 0, 2, 1).into(),
            enter: Vec::new(),
        }
    }

    /// `port` on this testbed's address.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// `argv`, started inside the testbed's network.
    #[must_use]
    pub fn inside(&self, argv: Vec<String>) -> Vec<String> {
        let mut whole = self.enter.clone();
        whole.extend(argv);
        whole
    }
}
