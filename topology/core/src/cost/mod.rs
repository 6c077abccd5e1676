//! What a placement costs: the time that an all-reduce over its GPUs takes, in seconds for each GiB.
//!
//! ```text
//!   GPUs of each host ──> bandwidth inside ──┐
//!   NICs near them, NVLink domain ─> between ─┴─> the slowest of all ──> ring, tree ──> the faster one counts
//! ```
//! A collective is as fast as its slowest hop, so that placements are compared by their bottleneck and not by a sum over
//! pairs. The formulas are NCCL's (`src/graph/tuning.cc`): over `n` GPUs, of which each host has `n / hosts`,
//! a ring takes `2 (n - 1) / n · size / bandwidth` and as many steps; a pair of trees takes `2 · size / bandwidth`, less
//! efficiently, and a number of steps that grows with the logarithm of the hosts.

pub(crate) mod constants;
mod ring;

pub use constants::{Generation, Medium};

use crate::host::{Host, PathKind};
use std::collections::BTreeMap;

/// Bytes that a cost is told for.
const GIB: f64 = 1_073_741_824.0;

/// The GPUs of one host that take part.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// The host.
    pub host: &'a Host,
    /// Places of the GPUs among its devices; each once.
    pub gpus: &'a [usize],
}

/// What lies between two hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Between {
    /// They share an NVLink domain.
    NvLink,
    /// The network, of which each gets this share of its ports' bandwidth: 1 without oversubscription.
    Network {
        /// More than 0, at most 1.
        share: f64,
    },
}

/// How the time comes about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// GPUs that take part.
    pub gpus: usize,
    /// Bandwidth of the slowest hop, in GB/s; infinite where nothing is sent.
    pub gb_per_s: f64,
    /// What the slowest hop is.
    pub bottleneck: Bottleneck,
    /// Seconds for each GiB by rings.
    pub ring_s_per_gib: f64,
    /// Seconds for each GiB by a pair of trees.
    pub tree_s_per_gib: f64,
}

/// The slowest hop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bottleneck {
    /// There is only one GPU: nothing is sent.
    Nothing,
    /// Between GPUs of one host; its place among the parties, and the worst path used there.
    Inside(usize, PathKind),
    /// Between two parties that follow each other.
    Between(usize, usize),
}

impl Estimate {
    /// Seconds for each GiB all-reduced, by the faster of the two.
    #[must_use]
    pub fn s_per_gib(&self) -> f64 {
        self.ring_s_per_gib.min(self.tree_s_per_gib)
    }
}

/// Estimates an all-reduce over the GPUs of all parties. Hosts follow each other in the order given: hosts of one domain must
/// stand together, as they do in the order of the tree. Parties without GPUs do not count. None when a GPU does not exist.
///
/// `O(parties · NICs + for each host unlike the one before it 2^g · g^2)` for its `g` GPUs up to 8 without a common switch, else `O(g log g)`.
pub fn all_reduce(parties: &[Party<'_>], between: impl Fn(usize, usize) -> Between) -> Option<Estimate> {
    let parties: Vec<(usize, Party<'_>)> =
        parties.iter().copied().enumerate().filter(|(_, party)| !party.gpus.is_empty()).collect();
    let gpus: usize = parties.iter().map(|(_, party)| party.gpus.len()).sum();
    let mut slowest = (f64::INFINITY, Bottleneck::Nothing);
    let mut media = Media::default();
    let alone = parties.len() == 1;
    let mut last: Option<(&Party<'_>, ring::Inside)> = None;
    for (at, party) in &parties {
        let inside = match last {
            Some((alike, inside)) if alike.gpus == party.gpus && alike.host == party.host => inside,
            _ => ring::inside(party.host, party.gpus, alone)?,
        };
        last = Some((party, inside));
        if party.gpus.len() > 1 {
            media.inside = media.inside.max(Some(medium(inside.worst)));
            slowest = slower(slowest, (inside.gb_per_s, Bottleneck::Inside(*at, inside.worst)));
        }
    }
    if !alone {
        for (place, (at, party)) in parties.iter().enumerate() {
            let Some((next, other)) = parties.get((place + 1) % parties.len()) else { continue };
            let way = between(*at, *next);
            let gb_per_s = match way {
                Between::NvLink => exit_gb_per_s(party).min(exit_gb_per_s(other)),
                Between::Network { share } => net_gb_per_s(party).min(net_gb_per_s(other)) * share.clamp(0.001, 1.0),
            };
            media.outside =
                media.outside.max(Some(if way == Between::NvLink { Medium::NvLink } else { Medium::Network }));
            slowest = slower(slowest, (gb_per_s, Bottleneck::Between(*at, *next)));
        }
    }
    Some(estimate(gpus, parties.len(), slowest, media))
}

/// The slowest medium of the steps inside hosts and between them.
#[derive(Clone, Copy, Debug, Default)]
struct Media {
    inside: Option<Medium>,
    outside: Option<Medium>,
}

fn slower(one: (f64, Bottleneck), other: (f64, Bottleneck)) -> (f64, Bottleneck) {
    if other.0 < one.0 { other } else { one }
}

fn medium(kind: PathKind) -> Medium {
    match kind {
        PathKind::Local | PathKind::NvLink | PathKind::NvLinkVia => Medium::NvLink,
        PathKind::Pix | PathKind::Pxb | PathKind::P2c | PathKind::Phb | PathKind::Sys => Medium::Pcie,
    }
}

/// NVLink bandwidth out of a host: that of its GPU with the fewest links into the switches.
fn exit_gb_per_s(party: &Party<'_>) -> f64 {
    let links = |gpu: usize| f64::from(party.host.facts().links.switched(gpu)) * party.host.per_link_gb_per_s(gpu);
    let least = party.gpus.iter().map(|gpu| links(*gpu)).fold(f64::INFINITY, f64::min);
    if least > 0.0 { least } else { constants::UNKNOWN_NVLINK_GB_PER_S }
}

/// Network bandwidth out of a host: that of the NICs nearest to its GPUs, each once, as the GPUs reach them.
fn net_gb_per_s(party: &Party<'_>) -> f64 {
    let mut used: BTreeMap<usize, f64> = BTreeMap::new();
    for gpu in party.gpus {
        let near = party.host.nics_by_affinity(*gpu);
        let Some((_, nearest)) = near.first() else { continue };
        let as_near = || near.iter().filter(|(_, path)| path.kind == nearest.kind);
        // GPUs that have several NICs equally near share them out.
        let Some((nic, path)) = as_near().find(|(nic, _)| !used.contains_key(nic)).or(as_near().next()) else {
            continue;
        };
        let known = used.entry(*nic).or_insert(path.gb_per_s);
        *known = known.max(path.gb_per_s);
    }
    if used.is_empty() {
        return constants::net_gb_per_s(constants::UNKNOWN_NET_MBIT_PER_S);
    }
    used.values().sum()
}

fn estimate(gpus: usize, hosts: usize, (gb_per_s, bottleneck): (f64, Bottleneck), media: Media) -> Estimate {
    if gpus < 2 {
        let nothing = Bottleneck::Nothing;
        return Estimate { gpus, gb_per_s, bottleneck: nothing, ring_s_per_gib: 0.0, tree_s_per_gib: 0.0 };
    }
    let (n, h) = (count(gpus), count(hosts));
    let latency = |of: fn(Medium) -> f64, medium: Option<Medium>| medium.map_or(0.0, of);
    let wire_s = GIB / (gb_per_s * 1e9);
    let (inside, outside) = (media.inside, media.outside);
    let ring_steps = 2.0 * (n - 1.0);
    let across = if hosts > 1 { ring_steps.min(2.0 * h) } else { 0.0 };
    let ring_us = (ring_steps - across) * latency(constants::ring_latency_us, inside)
        + across * latency(constants::ring_latency_us, outside);
    let deep = f64::from(hosts.max(1).ilog2());
    let tree_us = 2.0
        * ((n / h - 1.0).max(0.0) * latency(constants::tree_latency_us, inside)
            + deep * latency(constants::tree_latency_us, outside));
    Estimate {
        gpus,
        gb_per_s,
        bottleneck,
        ring_s_per_gib: 2.0 * (n - 1.0) / n * wire_s + ring_us * 1e-6,
        tree_s_per_gib: 2.0 * wire_s / constants::TREE_EFFICIENCY + tree_us * 1e-6,
    }
}

#[allow(clippy::cast_precision_loss, reason = "no cluster has 2^52 GPUs")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
