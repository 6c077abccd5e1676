//! The pools that a node can reach.
//!
//! A pool counts as complete when all slices of its generation are there, wherever they point; a node that sees only slices of
//! an older generation has none of it. From incomplete and invalid pools nothing is taken.

use super::facts::{Reach, SliceInfo};
use super::store::{Devices, Slice};
use crate::model::NodeInfo;
use crate::plugins::node_affinity;
use flowforge_scheduler_cel::Quantity;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// A pool as a node sees it.
#[derive(Clone, Debug)]
pub(super) struct Pool<'a> {
    pub(super) driver: &'a SmolStr,
    pub(super) name: &'a SmolStr,
    /// Slices are missing.
    pub(super) incomplete: bool,
    /// It contradicts itself.
    pub(super) invalid: bool,
    /// Slices with devices for the node, by name.
    pub(super) slices: Vec<&'a Slice>,
    /// Slices with devices for other nodes only.
    pub(super) elsewhere: Vec<&'a Slice>,
    /// Names of the counter sets.
    sets: BTreeSet<&'a SmolStr>,
    /// Shared counters by set and name.
    pub(super) counters: BTreeMap<(&'a SmolStr, &'a SmolStr), Quantity>,
}

/// Whether a node is reached.
pub(super) fn reaches(reach: &Reach, node: &NodeInfo) -> bool {
    match reach {
        Reach::Node(name) => *name == node.name,
        Reach::All => true,
        Reach::Selector(terms) => node_affinity::fits(&BTreeMap::new(), Some(terms), &node.name, &node.labels),
        Reach::PerDevice | Reach::Unknown => false,
    }
}

fn is_relevant(slice: &SliceInfo, node: &NodeInfo) -> bool {
    match &slice.reach {
        Reach::PerDevice => slice.devices.iter().any(|device| reaches(&device.reach, node)),
        reach => reaches(reach, node),
    }
}

/// All pools of a node, in the order in which devices are tried: by driver and name, those with binding conditions last.
/// `O(slices of the node + slices of no single node)`.
pub(super) fn gather<'a>(devices: &'a Devices, node: &NodeInfo) -> Vec<Pool<'a>> {
    let mut by_pool: BTreeMap<(&SmolStr, &SmolStr), Vec<&Slice>> = BTreeMap::new();
    for slice in devices.slices_for(&node.name).filter(|slice| !slice.info.ignored && is_relevant(&slice.info, node)) {
        let known = by_pool.entry((&slice.info.driver, &slice.info.pool)).or_default();
        match known.first().map_or(slice.info.generation, |first| first.info.generation) {
            newest if slice.info.generation < newest => {}
            newest if slice.info.generation > newest => *known = vec![slice],
            _ => known.push(slice),
        }
    }
    let pools = by_pool.into_iter().filter_map(|((driver, name), slices)| pool(devices, driver, name, slices));
    let (conditional, mut all): (Vec<Pool<'a>>, Vec<Pool<'a>>) = pools.partition(has_binding_conditions);
    all.extend(conditional);
    all
}

fn has_binding_conditions(pool: &Pool<'_>) -> bool {
    pool.slices.iter().flat_map(|slice| &slice.info.devices).any(|device| device.binding_conditions.is_some())
}

/// A pool made of the slices that a node sees; None: they are outdated.
fn pool<'a>(
    devices: &'a Devices,
    driver: &'a SmolStr,
    name: &'a SmolStr,
    mut slices: Vec<&'a Slice>,
) -> Option<Pool<'a>> {
    let first = slices.first()?;
    let (generation, wanted) = (first.info.generation, first.info.slices_in_pool);
    let mut elsewhere = Vec::new();
    let count = |slices: &[&Slice]| i64::try_from(slices.len()).unwrap_or(i64::MAX);
    let mut incomplete = false;
    if count(&slices) != wanted {
        if devices.slices_of(driver, name).any(|slice| slice.info.generation > generation) {
            return None;
        }
        let all: Vec<&Slice> = devices
            .slices_of(driver, name)
            .filter(|slice| slice.info.generation == generation && !slice.info.ignored)
            .collect();
        incomplete = count(&all) != wanted;
        let seen: BTreeSet<&SmolStr> = slices.iter().map(|slice| &slice.info.name).collect();
        elsewhere = all.into_iter().filter(|slice| !seen.contains(&slice.info.name)).collect();
    }
    slices.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    let mut pool = Pool {
        driver,
        name,
        incomplete,
        invalid: false,
        slices: Vec::new(),
        elsewhere: Vec::new(),
        sets: BTreeSet::new(),
        counters: BTreeMap::new(),
    };
    if incomplete {
        return Some(pool);
    }
    let counts = |slice: &&Slice| !slice.info.counter_sets.is_empty();
    let sets: Vec<&Slice> = slices.iter().chain(&elsewhere).copied().filter(counts).collect();
    slices.retain(|slice| !counts(slice));
    elsewhere.retain(|slice| !counts(slice));
    pool.invalid = !take_counters(&mut pool, &sets)
        || !is_valid(&slices)
        || !knows_counters(&pool, slices.iter().chain(&elsewhere));
    if !pool.invalid {
        pool.slices = slices;
        pool.elsewhere = elsewhere;
    }
    Some(pool)
}

/// No two devices have one name.
fn is_valid(slices: &[&Slice]) -> bool {
    let mut names = BTreeSet::new();
    slices.iter().flat_map(|slice| &slice.info.devices).all(|device| names.insert(&device.name))
}

/// Whether no two counter sets have one name.
fn take_counters<'a>(pool: &mut Pool<'a>, slices: &[&'a Slice]) -> bool {
    for (set, counters) in slices.iter().flat_map(|slice| &slice.info.counter_sets) {
        if !pool.sets.insert(set) {
            return false;
        }
        pool.counters.extend(counters.iter().map(|(name, amount)| ((set, name), *amount)));
    }
    true
}

/// Whether the devices take only of counters that there are.
fn knows_counters<'a>(pool: &Pool<'_>, slices: impl Iterator<Item = &'a &'a Slice>) -> bool {
    slices.flat_map(|slice| &slice.info.devices).flat_map(|device| &device.consumes).all(|(set, counters)| {
        pool.sets.contains(set) && counters.keys().all(|name| pool.counters.contains_key(&(set, name)))
    })
}
