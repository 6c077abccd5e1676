//! The network of a testbed with real nodes: one network namespace, which all of
//! its processes share, joined to the machine by a veth pair.
//!
//! ```text
//! machine ("host")                      namespace of the testbed
//!   flowforgeSLOT 100.127.SLOT.1 ------ uplink 100.127.SLOT.2    control plane, DNS
//!   tests                                      100.127.SLOT.10+i kubelet i
//!                                       veth.. 10.244.i.0/24     pods of node i (CNI plugin ptp)
//!                                       (kube-proxy)             10.96.0.0/16, Services
//! ```
//!
//! Only the /24 that the pair carries has to differ between testbeds, and the
//! slot makes it so; pods and Services have the same addresses in each. There is
//! no route out of the namespace: pods reach their testbed and the machine that
//! it runs on, nothing else.
//!
//! The namespace has no name. It is that of a sleeping process, and gone, veth
//! pair included, when the last process in it has ended; so it cannot be left
//! behind.

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::requirements::search_path;
use crate::{
    network::{Network, SERVICE_RANGE},
    supervisor::{Launch, Stage, Supervisor},
};

/// The process whose network namespace it is.
const HOLDER: &str = "network";

/// How long the holder may take to make the namespace, and the kernel to take
/// away the veth pair of a testbed that had the slot before.
const PATIENCE: Duration = Duration::from_secs(10);

/// More nodes would need more than one /24.
pub(super) const MAX_NODES: usize = 200;

/// The address of the machine as seen from inside: what a test listens on to be
/// reached from the testbed, by a webhook call for example.
pub(super) fn host_address(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 127, slot, 1)
}

/// The control plane's address, and that of DNS.
pub(super) fn control_plane_address(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 127, slot, 2)
}

/// The address of the `index`-th real node.
pub(super) fn node_address(slot: u8, index: usize) -> Ipv4Addr {
    let last = u8::try_from(10 + index.min(MAX_NODES)).unwrap_or(u8::MAX);
    Ipv4Addr::new(100, 127, slot, last)
}

/// All pods of all real nodes.
pub(super) const POD_RANGES: &str = "10.244.0.0/16";

/// The pods' addresses on the `index`-th real node.
pub(super) fn pod_range(index: usize) -> String {
    format!("10.244.{index}.0/24")
}

/// Makes the namespace and connects it.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn create(supervisor: &Supervisor) -> Result<Network> {
    let holder = supervisor.launch(&Launch {
        name: HOLDER.to_owned(),
        argv: ["unshare", "--net", "sleep", "infinity"].map(str::to_owned).to_vec(),
        env: Vec::new(),
        stage: Stage::Etcd,
        grace: Duration::ZERO,
    })?;
    wait_for_namespace(holder)?;
    let slot = supervisor.slot;
    let link = format!("flowforge{slot}");
    let host = host_address(slot);
    retry(|| ip(&[], &format!("link add {link} type veth peer name uplink netns {holder}\n")))?;
    ip(&[], &format!("addr add {host}/24 dev {link}\nlink set {link} up\n"))?;
    let enter = vec!["nsenter".to_owned(), format!("--net=/proc/{holder}/ns/net"), "--".to_owned()];
    let address = control_plane_address(slot);
    ip(&enter, &format!("link set lo up\naddr add {address}/24 dev uplink\nlink set uplink up\n"))?;
    // What runs here and not in a pod, the API server that calls a webhook, needs a route before kube-proxy's rules see
    // its packets. A machine has a default route for that.
    ip(&enter, &format!("route add {SERVICE_RANGE} dev uplink\n")).context("let the control plane reach Services")?;
    let forward = run(&enter, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "");
    forward.context("let nodes route between their pods")?;
    // The machine has no route to pods, whose addresses recur in every testbed.
    let masquerade =
        ["iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", POD_RANGES, "-o", "uplink", "-j", "MASQUERADE"];
    run(&enter, &masquerade, "").context("let pods reach the machine")?;
    Ok(Network { address: address.into(), advertise: address.into(), enter })
}

/// Gives a node its address.
pub(super) fn add_address(network: &Network, address: Ipv4Addr) -> Result<()> {
    ip(&network.enter, &format!("addr replace {address}/24 dev uplink\n"))
}

/// Waits until the holder has left our namespace for its own.
fn wait_for_namespace(holder: u32) -> Result<()> {
    let ours = fs::read_link("/proc/self/ns/net")?;
    retry(|| {
        let theirs = fs::read_link(format!("/proc/{holder}/ns/net"))?;
        ensure!(theirs != ours, "process {holder} has no network namespace of its own");
        Ok(())
    })
}

fn retry(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Runs lines of `ip` commands, all or an error.
fn ip(enter: &[String], lines: &str) -> Result<()> {
    run(enter, &["ip", "-batch", "-"], lines).with_context(|| format!("ip {lines:?}"))
}

fn run(enter: &[String], argv: &[&str], input: &str) -> Result<()> {
    let whole: Vec<&str> = enter.iter().map(String::as_str).chain(argv.iter().copied()).collect();
    let (program, arguments) = whole.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // Closes the pipe at the end of the statement.
    child.stdin.take().context("no pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_addresses_of_any_two_slots_are_equal() {
        let mut seen = BTreeSet::new();
        for slot in [1, 2, 250] {
            assert!(seen.insert(host_address(slot)));
            assert!(seen.insert(control_plane_address(slot)));
            for index in 0..MAX_NODES {
                assert!(seen.insert(node_address(slot, index)), "slot {slot}, node {index}");
            }
        }
    }
}
