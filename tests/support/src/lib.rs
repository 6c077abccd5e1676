//! A real Kubernetes control plane on one machine, for tests and demos.
//!
//! ```text
//!   test process                     supervise                    its children
//!   ------------                     ---------                    ------------
//!   Testbed::builder()
//!     .nodes(DgxH100, 28)
//!     .start()        --- pipe --->  owns directory, address  --> etcd
//!   client, kubeconfigs              and every process            kube-apiserver
//!   spawn, pause, kill, ...                                       kube-controller-manager
//!   (dropped, panicked or killed)                                 kwok, kube-scheduler
//!                     --- EOF  --->  stops all, removes all       the binaries under test
//! ```
//!
//! Nothing in it is simulated but the kubelets of fake nodes: it is etcd and the
//! Kubernetes components as released, with TLS, RBAC and all default admission
//! plugins and controllers. Several testbeds run on one machine at once.
//!
//! What must hold: when the owner is gone, by whatever means, no process, mount
//! or file of the testbed is left (`supervisor`); and two testbeds share
//! nothing but the cached binaries ([`binaries`], [`network`]).
//!
//! See the README beside this crate for how to use it.

pub mod binaries;
mod builder;
pub mod control_plane;
mod fake;
mod kubeconfig;
mod manifests;
pub mod network;
pub mod pki;
mod process;
pub mod profile;
mod provisioner;
pub mod real;
pub mod running;
mod shared;
mod skip;
mod supervisor;
mod testbed;

pub use builder::Builder;
pub use control_plane::component;
pub use process::{LogFile, ProcessSpec};
pub use profile::Profile;
pub use provisioner::{PROVISIONER, Provisioner, SELECTED_NODE};
pub use shared::Shared;
pub use skip::skip;
pub use supervisor::Exit;
pub use testbed::Testbed;
