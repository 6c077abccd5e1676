//! `NodeResourceTopology` (`topology.node.k8s.io/v1alpha2`): NUMA zones with distances and resources, the kubelet's policy, and
//! the zones below them by which an agent tells of devices.
//!
//! ```text
//!   Node "node-0" (costs: SLIT distances, resources)                       every exporter
//!     └─ PCIeRoot "pci0000:17" ─ PCIeSwitch "0000:18:00.0" ─ GPU, NIC      whoever knows more
//! ```
//! A GPU zone may carry attributes `uuid`, `product`, `pcie` (`5x16`) and `nvlink`: a list of `peer=links`, where the peer is the
//! name of another GPU zone or `switch`. A NIC zone may carry `mbps` and `pcie`. Zones of types that are not known are left out
//! and counted.

use crate::host::{Bus, BusKind, Device, DeviceKind, HostFacts, NvLinks, Pcie, gpu_of_product};
use smol_str::SmolStr;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most zones that are looked at.
const MAX_ZONES: usize = 4_096;
/// Deepest chain of parents.
const MAX_DEPTH: usize = 16;

/// An amount of a resource in a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ZoneResource {
    /// Its name.
    pub name: SmolStr,
    /// What pods can have.
    pub allocatable: i64,
    /// What was free when the object was written; it lags.
    pub available: i64,
}

/// A zone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Zone {
    /// Name, unique in the object.
    pub name: SmolStr,
    /// `Node`, `PCIeRoot`, `PCIeSwitch`, `GPU`, `NIC`, or anything.
    pub kind: SmolStr,
    /// Name of the zone that it is in.
    pub parent: Option<SmolStr>,
    /// Costs to other zones.
    pub costs: Vec<(SmolStr, i64)>,
    /// Attributes.
    pub attributes: Vec<(SmolStr, SmolStr)>,
    /// Resources.
    pub resources: Vec<ZoneResource>,
}

/// What the kubelet's Topology Manager does with a pod that does not fit one NUMA node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ManagerPolicy {
    /// Nothing.
    #[default]
    None,
    /// It aligns what it can.
    BestEffort,
    /// It refuses what does not fit as few NUMA nodes as it could.
    Restricted,
    /// It refuses what does not fit one.
    SingleNumaNode,
}

/// What is aligned together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ManagerScope {
    /// Each container.
    #[default]
    Container,
    /// The pod.
    Pod,
}

/// What is wrong with an object; the rest of it counts.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NrtProblem {
    /// Too many zones.
    #[error("{0} zones; the first {MAX_ZONES} count")]
    TooManyZones(usize),
    /// A zone twice.
    #[error("zone {0} appears twice; the first counts")]
    Twice(SmolStr),
    /// A NUMA zone without a number.
    #[error("zone {0} of type Node has no number at its end, as in node-0")]
    NotNumbered(SmolStr),
    /// Two NUMA zones with one number.
    #[error("zone {0} of type Node has number {1}, which a zone before it has; the first counts")]
    SameNumber(SmolStr, u16),
    /// A parent that is not there, or a chain without an end.
    #[error("zone {0}: its parent {1} is not a zone above it")]
    NoParent(SmolStr, SmolStr),
    /// An attribute that cannot be read.
    #[error("zone {zone}: attribute {name}={value:?} cannot be read; it must look like {like}")]
    BadAttribute {
        /// The zone.
        zone: SmolStr,
        /// The attribute.
        name: &'static str,
        /// What it says.
        value: SmolStr,
        /// What it should look like.
        like: &'static str,
    },
    /// A Topology Manager policy or scope that is not known.
    #[error("attribute {0}={1:?} is not known and taken for the kubelet's default")]
    UnknownPolicy(&'static str, SmolStr),
}

/// What an object says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTopology {
    /// What the Topology Manager does.
    pub policy: ManagerPolicy,
    /// What it aligns.
    pub scope: ManagerScope,
    /// Resources of each NUMA node.
    pub resources: BTreeMap<u16, Vec<ZoneResource>>,
    /// NUMA distances, the PCIe tree, devices and links.
    pub host: HostFacts,
    /// Zones of types that are not known.
    pub unknown_zones: usize,
    /// What is wrong.
    pub problems: Vec<NrtProblem>,
}

/// Reads an object: its own attributes, its deprecated list of policies, its zones. `O(zones · log zones + costs)`.
#[must_use]
pub fn read(attributes: &[(SmolStr, SmolStr)], policies: &[SmolStr], zones: &[Zone]) -> NodeTopology {
    let mut found = NodeTopology::default();
    set_policy(attributes, policies, &mut found);
    if zones.len() > MAX_ZONES {
        found.problems.push(NrtProblem::TooManyZones(zones.len()));
    }
    let mut by_name: BTreeMap<&SmolStr, &Zone> = BTreeMap::new();
    let mut firsts: Vec<&Zone> = Vec::new();
    for zone in zones.iter().take(MAX_ZONES) {
        match by_name.entry(&zone.name) {
            Entry::Vacant(free) => {
                free.insert(zone);
                firsts.push(zone);
            }
            Entry::Occupied(first) if *first.get() != zone => {
                found.problems.push(NrtProblem::Twice(zone.name.clone()));
            }
            Entry::Occupied(_) => {}
        }
    }
    let mut reader = Reader { by_name, numa: BTreeMap::new(), buses: BTreeMap::new(), devices: BTreeMap::new(), found };
    reader.numa_zones(&firsts);
    reader.buses(&firsts);
    reader.devices(&firsts);
    reader.links(&firsts);
    reader.found
}

struct Reader<'a> {
    by_name: BTreeMap<&'a SmolStr, &'a Zone>,
    numa: BTreeMap<SmolStr, u16>,
    buses: BTreeMap<SmolStr, usize>,
    devices: BTreeMap<SmolStr, usize>,
    found: NodeTopology,
}

impl<'a> Reader<'a> {
    fn numa_zones(&mut self, zones: &[&'a Zone]) {
        for zone in of_kind(zones, &["Node"]) {
            let number = zone.name.rsplit('-').next().and_then(|number| number.parse::<u16>().ok());
            match number {
                Some(number) if !self.found.resources.contains_key(&number) => {
                    self.numa.insert(zone.name.clone(), number);
                    self.found.resources.insert(number, zone.resources.clone());
                }
                Some(number) => self.found.problems.push(NrtProblem::SameNumber(zone.name.clone(), number)),
                None => self.found.problems.push(NrtProblem::NotNumbered(zone.name.clone())),
            }
        }
        for zone in of_kind(zones, &["Node"]) {
            let Some(from) = self.numa.get(&zone.name) else { continue };
            for (to, cost) in &zone.costs {
                if let (Some(to), Ok(cost)) = (self.numa.get(to), u32::try_from(*cost)) {
                    self.found.host.numa_distances.insert((*from, *to), cost);
                }
            }
        }
        let known = ["Node", "PCIeRoot", "PCIeSwitch", "GPU", "NIC"];
        self.found.unknown_zones = zones.iter().filter(|zone| !known.contains(&zone.kind.as_str())).count();
    }

    /// The zones above one, nearest first.
    fn above(&self, zone: &'a Zone) -> impl Iterator<Item = &'a Zone> + '_ {
        let up = |zone: &&'a Zone| self.by_name.get(zone.parent.as_ref()?).copied();
        std::iter::successors(up(&zone), up).take(MAX_DEPTH)
    }

    fn numa_above(&self, zone: &'a Zone) -> Option<u16> {
        self.above(zone).find_map(|zone| self.numa.get(&zone.name).copied())
    }

    fn bus_above(&self, zone: &'a Zone) -> Option<usize> {
        self.above(zone).find_map(|zone| self.buses.get(&zone.name).copied())
    }

    fn check_parent(&mut self, zone: &'a Zone) -> bool {
        let Some(parent) = &zone.parent else { return true };
        let endless = self.above(zone).count() == MAX_DEPTH;
        let there = self.by_name.contains_key(parent) && !endless;
        if !there {
            self.found.problems.push(NrtProblem::NoParent(zone.name.clone(), parent.clone()));
        }
        there
    }

    /// Roots, then switches from the top down: a switch without a root above it is taken for one.
    fn buses(&mut self, zones: &[&'a Zone]) {
        let mut all: Vec<&Zone> = of_kind(zones, &["PCIeRoot", "PCIeSwitch"]).collect();
        all.sort_by_key(|zone| (self.above(zone).count(), zone.name.clone()));
        for zone in all {
            if !self.check_parent(zone) || self.buses.contains_key(&zone.name) {
                continue;
            }
            let parent = if zone.kind == "PCIeSwitch" { self.bus_above(zone) } else { None };
            let kind = if parent.is_some() { BusKind::Switch } else { BusKind::Root };
            let numa = self.numa_above(zone);
            self.buses.insert(zone.name.clone(), self.found.host.buses.len());
            self.found.host.buses.push(Bus { name: zone.name.clone(), kind, parent, numa });
        }
    }

    fn devices(&mut self, zones: &[&'a Zone]) {
        let mut ids = BTreeSet::new();
        for zone in of_kind(zones, &["GPU", "NIC"]) {
            self.check_parent(zone);
            let id = attribute(zone, "uuid").unwrap_or(&zone.name).clone();
            if !ids.insert(id.clone()) {
                self.found.problems.push(NrtProblem::Twice(id));
                continue;
            }
            let product = attribute(zone, "product").cloned();
            let known = product.as_deref().and_then(gpu_of_product);
            let told = self.parsed(zone, "pcie", "5x16", pcie);
            let kind = if zone.kind == "GPU" {
                DeviceKind::Gpu {
                    generation: known.and_then(|p| p.generation),
                    c2c: known.is_some_and(|p| p.has_c2c()),
                }
            } else {
                DeviceKind::Nic {
                    mbit_per_s: self.parsed(zone, "mbps", "400000", |text| text.parse().ok().filter(|n| *n > 0)),
                }
            };
            let (bus, numa) = (self.bus_above(zone), self.numa_above(zone));
            self.devices.insert(zone.name.clone(), self.found.host.devices.len());
            let pcie = told.or_else(|| known.map(|p| p.pcie()));
            self.found.host.devices.push(Device { id, kind, product, bus, numa, pcie });
        }
    }

    fn links(&mut self, zones: &[&'a Zone]) {
        let mut links = NvLinks::default();
        let mut told: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        for zone in of_kind(zones, &["GPU"]) {
            let Some(place) = self.devices.get(&zone.name).copied() else { continue };
            for (peer, count) in self.parsed(zone, "nvlink", "gpu-1=4,switch=18", peers).unwrap_or_default() {
                if peer == "switch" {
                    links.join_switch(place, count);
                } else if let Some(other) = self.devices.get(&peer).copied() {
                    // Both ends tell of the same links; where one sees fewer, a link is down.
                    let pair = (place.min(other), place.max(other));
                    told.entry(pair).and_modify(|known| *known = (*known).min(count)).or_insert(count);
                } else {
                    let value = attribute(zone, "nvlink").cloned().unwrap_or_default();
                    let like = "gpu-1=4,switch=18, with names of GPU zones";
                    self.found.problems.push(NrtProblem::BadAttribute {
                        zone: zone.name.clone(),
                        name: "nvlink",
                        value,
                        like,
                    });
                }
            }
        }
        told.into_iter().for_each(|((one, other), count)| links.join(one, other, count));
        self.found.host.links = links;
    }

    fn parsed<T>(
        &mut self,
        zone: &Zone,
        name: &'static str,
        like: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = attribute(zone, name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let (zone, value) = (zone.name.clone(), value.clone());
            self.found.problems.push(NrtProblem::BadAttribute { zone, name, value, like });
        }
        parsed
    }
}

fn of_kind<'z, 'a>(zones: &'z [&'a Zone], kinds: &'static [&'static str]) -> impl Iterator<Item = &'a Zone> + 'z {
    zones.iter().copied().filter(|zone| kinds.contains(&zone.kind.as_str()))
}

fn attribute<'a>(zone: &'a Zone, name: &str) -> Option<&'a SmolStr> {
    zone.attributes.iter().find(|(have, _)| have == name).map(|(_, value)| value)
}

fn pcie(text: &str) -> Option<Pcie> {
    let (generation, width) = text.split_once('x')?;
    let generation = generation.parse().ok().filter(|n| (1..=8).contains(n))?;
    Some(Pcie { generation, width: width.parse().ok().filter(|n| (1..=16).contains(n))? })
}

fn peers(text: &str) -> Option<Vec<(SmolStr, u32)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (peer, count) = part.split_once('=')?;
            Some((peer.into(), count.parse().ok().filter(|n| (1..=72).contains(n))?))
        })
        .collect()
}

fn set_policy(attributes: &[(SmolStr, SmolStr)], policies: &[SmolStr], found: &mut NodeTopology) {
    let told = |name: &str| attributes.iter().find(|(have, _)| have == name).map(|(_, value)| value);
    // The deprecated list says both in one word, as SingleNUMANodePodLevel.
    if let Some(word) = policies.first() {
        let (policy, scope) = match word.as_str() {
            "SingleNUMANodePodLevel" => (ManagerPolicy::SingleNumaNode, ManagerScope::Pod),
            "SingleNUMANode" | "SingleNUMANodeContainerLevel" => {
                (ManagerPolicy::SingleNumaNode, ManagerScope::Container)
            }
            "Restricted" | "RestrictedContainerLevel" => (ManagerPolicy::Restricted, ManagerScope::Container),
            "RestrictedPodLevel" => (ManagerPolicy::Restricted, ManagerScope::Pod),
            "BestEffort" | "BestEffortContainerLevel" => (ManagerPolicy::BestEffort, ManagerScope::Container),
            "BestEffortPodLevel" => (ManagerPolicy::BestEffort, ManagerScope::Pod),
            _ => (ManagerPolicy::None, ManagerScope::Container),
        };
        (found.policy, found.scope) = (policy, scope);
    }
    if let Some(policy) = told("topologyManagerPolicy") {
        found.policy = match policy.as_str() {
            "none" => ManagerPolicy::None,
            "best-effort" => ManagerPolicy::BestEffort,
            "restricted" => ManagerPolicy::Restricted,
            "single-numa-node" => ManagerPolicy::SingleNumaNode,
            _ => {
                found.problems.push(NrtProblem::UnknownPolicy("topologyManagerPolicy", policy.clone()));
                ManagerPolicy::None
            }
        };
    }
    if let Some(scope) = told("topologyManagerScope") {
        found.scope = match scope.as_str() {
            "container" => ManagerScope::Container,
            "pod" => ManagerScope::Pod,
            _ => {
                found.problems.push(NrtProblem::UnknownPolicy("topologyManagerScope", scope.clone()));
                ManagerScope::Container
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Host, PathKind};

    fn zone(kind: &str, name: &str, parent: &str, attributes: &[(&str, &str)]) -> Zone {
        let attributes = attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let parent = (!parent.is_empty()).then(|| parent.into());
        Zone { kind: kind.into(), name: name.into(), parent, attributes, ..Zone::default() }
    }

    fn numa(number: u16, gpus: i64) -> Zone {
        let costs = [(0, 10), (1, 21)]
            .map(|(to, cost)| (smol_str::format_smolstr!("node-{to}"), if number == to { 10 } else { cost.max(21) }));
        let resource = ZoneResource { name: "nvidia.com/gpu".into(), allocatable: gpus, available: gpus - 1 };
        let name = format!("node-{number}");
        Zone { costs: costs.to_vec(), resources: vec![resource], ..zone("Node", &name, "", &[]) }
    }

    fn told(found: &NodeTopology) -> Vec<String> {
        found.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn numa_zones_have_distances_resources_and_the_kubelets_policy() {
        let attributes = [("topologyManagerPolicy", "single-numa-node"), ("topologyManagerScope", "pod")];
        let attributes = attributes.map(|(key, value)| (key.into(), value.into()));
        let found = read(&attributes, &[], &[numa(0, 4), numa(1, 4)]);
        assert_eq!((found.policy, found.scope), (ManagerPolicy::SingleNumaNode, ManagerScope::Pod));
        assert_eq!(found.host.numa_distances, [((0, 0), 10), ((0, 1), 21), ((1, 0), 21), ((1, 1), 10)].into());
        assert_eq!(found.resources[&1][0].available, 3);
        let old = read(&[], &["SingleNUMANodeContainerLevel".into()], &[]);
        assert_eq!((old.policy, old.scope), (ManagerPolicy::SingleNumaNode, ManagerScope::Container));
        let odd = read(&[("topologyManagerPolicy".into(), "odd".into())], &[], &[]);
        assert_eq!(
            told(&odd),
            ["attribute topologyManagerPolicy=\"odd\" is not known and taken for the kubelet's default"]
        );
    }

    #[test]
    fn device_zones_make_the_pcie_tree_and_the_links() {
        let h100 = ("product", "NVIDIA H100 80GB HBM3");
        let found = read(
            &[],
            &[],
            &[
                zone("GPU", "gpu-0", "sw", &[("uuid", "GPU-a"), h100, ("nvlink", "switch=18")]),
                zone("GPU", "gpu-1", "far", &[h100, ("nvlink", "switch=17")]),
                zone("NIC", "mlx5_0", "sw", &[("mbps", "400000"), ("pcie", "5x16")]),
                zone("PCIeSwitch", "sw", "root", &[]),
                zone("PCIeRoot", "root", "node-0", &[]),
                zone("PCIeRoot", "far", "node-1", &[]),
                numa(0, 1),
                numa(1, 1),
                zone("Rack", "r1", "", &[]),
            ],
        );
        assert_eq!((told(&found), found.unknown_zones), (vec![], 1));
        let host = Host::new(found.host).unwrap();
        let (a, b, nic) = (host.find("GPU-a").unwrap(), host.find("gpu-1").unwrap(), host.find("mlx5_0").unwrap());
        assert_eq!(host.facts().links.between(a, b), 17, "a link of the second is down");
        assert_eq!(host.path(a, nic).unwrap().kind, PathKind::Pix);
        assert_eq!(host.path(b, nic).unwrap().kind, PathKind::Sys);
        assert_eq!((host.numa_of(a), host.numa_of(b)), (Some(0), Some(1)));
    }

    #[test]
    fn bridges_are_told_by_both_ends_and_the_lesser_counts() {
        let a100 = ("product", "NVIDIA A100-PCIE-40GB");
        let found = read(
            &[],
            &[],
            &[
                zone("GPU", "gpu-0", "", &[a100, ("nvlink", "gpu-1=12")]),
                zone("GPU", "gpu-1", "", &[a100, ("nvlink", "gpu-0=11")]),
            ],
        );
        assert_eq!(Host::new(found.host).unwrap().facts().links.between(0, 1), 11);
    }

    #[test]
    fn of_zones_that_say_one_thing_twice_the_first_counts_and_the_other_is_told() {
        let twin = |uuid| zone("GPU", "gpu-0", "node-0", &[("uuid", uuid)]);
        let other = Zone { resources: numa(0, 9).resources, ..zone("Node", "numa-0", "", &[]) };
        let found = read(&[], &[], &[numa(0, 4), other, twin("GPU-a"), twin("GPU-b"), numa(0, 4)]);
        let expected = [
            "zone gpu-0 appears twice; the first counts",
            "zone numa-0 of type Node has number 0, which a zone before it has; the first counts",
        ];
        assert_eq!(told(&found), expected);
        assert_eq!(found.resources[&0][0].allocatable, 4);
        let ids: Vec<&str> = found.host.devices.iter().map(|device| device.id.as_str()).collect();
        assert_eq!(ids, ["GPU-a"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_counts() {
        let found = read(
            &[],
            &[],
            &[
                zone("Node", "main", "", &[]),
                zone("GPU", "g", "gone", &[("pcie", "fast"), ("nvlink", "x=2")]),
                zone("PCIeSwitch", "loop", "loop", &[]),
                zone("NIC", "n", "", &[("mbps", "0")]),
            ],
        );
        let expected = [
            "zone main of type Node has no number at its end, as in node-0",
            "zone loop: its parent loop is not a zone above it",
            "zone g: its parent gone is not a zone above it",
            "zone g: attribute pcie=\"fast\" cannot be read; it must look like 5x16",
            "zone n: attribute mbps=\"0\" cannot be read; it must look like 400000",
            "zone g: attribute nvlink=\"x=2\" cannot be read; it must look like gpu-1=4,switch=18, with names of GPU zones",
        ];
        assert_eq!(told(&found), expected);
        assert_eq!(found.host.devices.len(), 2);
        assert!(Host::new(found.host).is_ok());
    }
}
