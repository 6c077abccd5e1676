//! What is inside nodes: which GPU, NUMA node and PCIe root each of their devices is on, for the choice among them.
//!
//! ```text
//!   attributes of slices ──┐
//!   label of the product ──┼─> host ──> seat of each device, and a board that hosts of one make share
//!   NodeResourceTopology ──┘
//! ```
//! Only devices of slices that name one node are inside it. A node is looked at when a pod is first placed there, and again when
//! what it was made of has changed. What cannot be read leaves devices without a seat: they are told apart by nothing, and
//! nothing is refused for it.

use super::facts::{DeviceInfo, Reach};
use super::pools::Pool;
use crate::model::NodeInfo;
use flowforge_scheduler_cel::Attribute;
use flowforge_topology_core::board::Board;
use flowforge_topology_core::host::{Host, HostFacts};
use flowforge_topology_core::readers::dra::{self, SliceDevice, SliceHost, Value};
use flowforge_topology_core::readers::{gfd, merged};
use smol_str::{SmolStr, format_smolstr};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Driver, pool and name of a device.
pub(crate) type DeviceId = [SmolStr; 3];

/// Boards of different make that are kept; beyond it all are made anew.
const MAX_BOARDS: usize = 256;
/// The standard attributes that any driver may publish.
const PCIE_ROOT: &str = "resource.kubernetes.io/pcieRoot";
const NUMA_NODE: &str = "resource.kubernetes.io/numaNode";

/// What a NodeResourceTopology says is inside a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HardwareInfo {
    /// The node.
    pub node: SmolStr,
    /// NUMA nodes, PCIe, devices and links.
    pub host: HostFacts,
}

/// Where a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seat {
    /// Its place among the devices of the host; that of its GPU for a part of one.
    pub(super) place: Option<usize>,
    /// The number of the GPU that it is, or is a part of.
    pub(super) gpu: Option<u32>,
    pub(super) numa: Option<u16>,
    /// Tells PCIe roots apart.
    pub(super) root: Option<usize>,
}

/// What a node was made of.
#[derive(Clone, Debug, Default, PartialEq)]
struct MadeOf {
    /// Stamps of slices.
    slices: Vec<u64>,
    product: Option<SmolStr>,
    report: u64,
}

#[derive(Clone, Debug)]
struct Inside {
    made_of: MadeOf,
    board: Option<usize>,
    seats: BTreeMap<DeviceId, Seat>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    nodes: BTreeMap<SmolStr, Inside>,
    /// With what each was made of, without names.
    boards: Vec<(HostFacts, Board)>,
}

/// What is inside nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Insides {
    known: RefCell<Known>,
    /// By node: what is reported, and the stamp of that.
    reports: BTreeMap<SmolStr, (u64, HostFacts)>,
    last_stamp: u64,
}

impl Insides {
    /// A number that nothing had before.
    pub(super) fn stamp(&mut self) -> u64 {
        self.last_stamp += 1;
        self.last_stamp
    }

    /// A report came; one that says the same as before is nothing new.
    pub(super) fn report(&mut self, of: HardwareInfo) {
        if self.reports.get(&of.node).is_none_or(|(_, known)| *known != of.host) {
            let stamp = self.stamp();
            self.reports.insert(of.node, (stamp, of.host));
        }
    }

    /// A report went away.
    pub(super) fn retract(&mut self, node: &SmolStr) {
        self.reports.remove(node);
    }

    /// Only these nodes have reports.
    pub(super) fn retain_reports(&mut self, listed: impl Fn(&SmolStr) -> bool) {
        self.reports.retain(|node, _| listed(node));
    }

    /// Nothing of a node is asked for any more.
    pub(super) fn forget(&self, node: &SmolStr) {
        self.known.borrow_mut().nodes.remove(node);
    }

    /// Gets to know a node, where it has changed since. `O(slices)`, the first time `O(devices · log devices)`.
    pub(super) fn prepare(&self, node: &NodeInfo, pools: &[Pool<'_>]) {
        let made_of = self.made_of(node, pools);
        let known = &mut *self.known.borrow_mut();
        if known.nodes.get(&node.name).is_none_or(|inside| inside.made_of != made_of) {
            let product = made_of.product.clone();
            let report = self.reports.get(&node.name).map(|(_, host)| host);
            let inside = known.make(pools, product.as_deref(), report, made_of);
            known.nodes.insert(node.name.clone(), inside);
        }
    }

    /// Shows the seats of a prepared node's devices, and its board where it has one. Nobody else may look meanwhile.
    pub(super) fn look<R>(
        &self,
        node: &SmolStr,
        look: impl FnOnce(&BTreeMap<DeviceId, Seat>, Option<&mut Board>) -> R,
    ) -> R {
        let Known { nodes, boards } = &mut *self.known.borrow_mut();
        match nodes.get(node) {
            Some(Inside { board, seats, .. }) => {
                look(seats, board.and_then(|at| boards.get_mut(at)).map(|(_, board)| board))
            }
            None => look(&BTreeMap::new(), None),
        }
    }

    fn made_of(&self, node: &NodeInfo, pools: &[Pool<'_>]) -> MadeOf {
        let own = |pool: &Pool<'_>| own_slices(pool).map(|slice| slice.stamp).collect::<Vec<u64>>();
        MadeOf {
            slices: pools.iter().flat_map(own).collect(),
            product: node.labels.get(gfd::PRODUCT).cloned(),
            report: self.reports.get(&node.name).map_or(0, |(stamp, _)| *stamp),
        }
    }
}

fn own_slices<'p>(pool: &'p Pool<'_>) -> impl Iterator<Item = &'p super::store::Slice> {
    pool.slices.iter().copied().filter(|slice| matches!(slice.info.reach, Reach::Node(_)))
}

impl Known {
    fn make(
        &mut self,
        pools: &[Pool<'_>],
        product: Option<&str>,
        report: Option<&HostFacts>,
        made_of: MadeOf,
    ) -> Inside {
        let mut devices: Vec<SliceDevice> = Vec::new();
        for pool in pools {
            let all = own_slices(pool).flat_map(|slice| &slice.info.devices);
            devices.extend(all.map(|device| published(pool, device)));
        }
        if let Some(product) = product {
            dra::name_products(&mut devices, product);
        }
        let mut found = dra::host(&devices);
        if let Some(report) = report {
            // Without what is added everything is as the slices have it.
            let before = found.clone();
            if merged::add_report(&mut found, &devices, report).is_err() || Host::new(found.host.clone()).is_err() {
                found = before;
            }
        }
        let board = self.board(&found.host);
        let host = board.and_then(|at| self.boards.get(at)).map(|(_, board)| board);
        let seats = seats(&devices, &found, host);
        Inside { made_of, board, seats }
    }

    /// The board of a host: that of hosts of the same make where there is one. `O(boards · devices)`.
    fn board(&mut self, host: &HostFacts) -> Option<usize> {
        let make = without_names(host);
        if let Some(at) = self.boards.iter().position(|(known, _)| *known == make) {
            return Some(at);
        }
        let board = Board::new(Host::new(make.clone()).ok()?)?;
        if self.boards.len() >= MAX_BOARDS {
            self.boards.clear();
            self.nodes.clear();
        }
        self.boards.push((make, board));
        Some(self.boards.len() - 1)
    }
}

/// A host without what differs between hosts of one make.
fn without_names(host: &HostFacts) -> HostFacts {
    let mut make = host.clone();
    for (at, device) in make.devices.iter_mut().enumerate() {
        device.id = format_smolstr!("{at}");
        device.product = None;
    }
    make.buses.iter_mut().for_each(|bus| bus.name = SmolStr::default());
    make
}

fn published(pool: &Pool<'_>, device: &DeviceInfo) -> SliceDevice {
    let ints = |all: &[Attribute]| {
        let int = |one: &Attribute| if let Attribute::Int(value) = one { Some(*value) } else { None };
        all.iter().map(int).collect::<Option<Vec<i64>>>()
    };
    let value = |of: &Attribute| match of {
        Attribute::Int(value) => Some(Value::Int(*value)),
        Attribute::Bool(value) => Some(Value::Bool(*value)),
        Attribute::String(text) | Attribute::Version(text) => Some(Value::Text(text.clone())),
        Attribute::List(all) => ints(all).map(Value::Ints),
        Attribute::Unknown => None,
    };
    SliceDevice {
        driver: pool.driver.clone(),
        pool: pool.name.clone(),
        name: device.name.clone(),
        attributes: device.attributes.iter().filter_map(|(name, of)| Some((name.clone(), value(of)?))).collect(),
    }
}

fn seats(devices: &[SliceDevice], found: &SliceHost, board: Option<&Board>) -> BTreeMap<DeviceId, Seat> {
    let mut roots: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, bus) in found.host.buses.iter().enumerate().filter(|(_, bus)| bus.parent.is_none()) {
        roots.insert(&bus.name, at);
    }
    let mut all = BTreeMap::new();
    for device in devices {
        let id = (device.driver.clone(), device.pool.clone(), device.name.clone());
        let of_host = found.places.get(&id).zip(board);
        let seat = match of_host {
            Some((place, board)) => Seat {
                place: Some(*place),
                gpu: board.number(*place),
                numa: board.host().numa_of(*place),
                root: board.host().root_of(*place),
            },
            None => {
                let next = found.host.buses.len() + roots.len();
                let root = match device.attributes.get(PCIE_ROOT) {
                    Some(Value::Text(name)) => Some(*roots.entry(name).or_insert(next)),
                    _ => None,
                };
                Seat { numa: numa(device), root, ..Seat::default() }
            }
        };
        all.insert([id.0, id.1, id.2], seat);
    }
    all
}

fn numa(device: &SliceDevice) -> Option<u16> {
    match device.attributes.get(NUMA_NODE)? {
        Value::Int(node) => u16::try_from(*node).ok(),
        Value::Ints(nodes) => nodes.first().and_then(|node| u16::try_from(*node).ok()),
        Value::Bool(_) | Value::Text(_) => None,
    }
}
