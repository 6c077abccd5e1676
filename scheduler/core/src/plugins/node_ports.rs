//! NodePorts: host ports of the pod must be free on the node. A conflict is the same protocol and port, with the same
//! address or 0.0.0.0 on either side; an empty protocol is TCP, an empty address 0.0.0.0.

use super::Cures;
use crate::model::HostPort;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// kube-scheduler's name.
pub const NAME: &str = "NodePorts";
/// Reason text.
pub const REASON: &str = "node(s) didn't have free ports for the requested pod ports";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::POD_GONE);

const ANY: &str = "0.0.0.0";

/// Host ports in use on a node: (protocol, port) -> address -> number of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsInUse(BTreeMap<(SmolStr, u16), BTreeMap<SmolStr, u32>>);

fn sanitized(port: &HostPort) -> ((SmolStr, u16), SmolStr) {
    let or = |text: &SmolStr, default: &'static str| {
        if text.is_empty() { SmolStr::new_static(default) } else { text.clone() }
    };
    ((or(&port.protocol, "TCP"), port.port), or(&port.ip, ANY))
}

impl PortsInUse {
    /// Takes a port; port 0 is none.
    pub fn add(&mut self, port: &HostPort) {
        if port.port != 0 {
            let (key, ip) = sanitized(port);
            *self.0.entry(key).or_default().entry(ip).or_default() += 1;
        }
    }

    /// Gives a port back.
    pub fn remove(&mut self, port: &HostPort) {
        let (key, ip) = sanitized(port);
        let Some(ips) = self.0.get_mut(&key) else { return };
        if let Some(count) = ips.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                ips.remove(&ip);
            }
        }
        if ips.is_empty() {
            self.0.remove(&key);
        }
    }

    /// Whether a port is taken.
    #[must_use]
    pub fn conflicts(&self, port: &HostPort) -> bool {
        if port.port == 0 {
            return false;
        }
        let (key, ip) = sanitized(port);
        self.0.get(&key).is_some_and(|ips| ip == ANY || ips.contains_key(ANY) || ips.contains_key(&ip))
    }
}

/// Whether all ports are free.
#[must_use]
pub fn fits(wanted: &[HostPort], in_use: &PortsInUse) -> bool {
    !wanted.iter().any(|p| in_use.conflicts(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, protocol: &str, port: u16) -> HostPort {
        HostPort { ip: ip.into(), protocol: protocol.into(), port }
    }

    fn used(ports: &[HostPort]) -> PortsInUse {
        let mut in_use = PortsInUse::default();
        ports.iter().for_each(|p| in_use.add(p));
        in_use
    }

    #[test]
    fn the_wildcard_conflicts_both_ways() {
        let one = used(&[port("10.0.0.1", "TCP", 80)]);
        assert!(!fits(&[port("", "", 80)], &one));
        assert!(!fits(&[port("10.0.0.1", "TCP", 80)], &one));
        assert!(fits(&[port("10.0.0.2", "TCP", 80)], &one));
        assert!(fits(&[port("", "UDP", 80), port("", "", 81)], &one));
        assert!(!fits(&[port("10.0.0.2", "TCP", 80)], &used(&[port("0.0.0.0", "", 80)])));
    }

    #[test]
    fn a_port_taken_twice_is_free_after_both_left() {
        let p = port("", "TCP", 80);
        let mut in_use = used(&[p.clone(), p.clone()]);
        in_use.remove(&p);
        assert!(!fits(std::slice::from_ref(&p), &in_use));
        in_use.remove(&p);
        assert_eq!(in_use, PortsInUse::default());
        in_use.remove(&p);
    }

    #[test]
    fn port_zero_is_no_port() {
        assert!(fits(&[port("", "", 0)], &used(&[port("", "", 0)])));
    }
}
