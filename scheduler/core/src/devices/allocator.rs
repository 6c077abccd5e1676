//! The allocator: devices of one node for all claims of a pod, or the proof that there are none.
//!
//! As upstream: claims, their requests and the devices of each request one after the other; every device that is free, is
//! selected, has the capacity and the counters, is not tainted and satisfies the constraints is tried, in the order of pools,
//! slices and devices, and the first full solution is taken. Within a request devices only move forward, so that of the
//! solutions that differ by swapping two of them one is tried. Every look at a device is a step; without steps left the search
//! gives up ([`Stop::Limit`]), which is never "there is none".
//!
//! [`allocate`] says whether a node will do, and ends there. On the node that a pod is placed on [`choose`] goes on from that
//! solution to the best one, which upstream does not: it changes which devices are taken, never whether some are.

mod improve;
#[cfg(test)]
mod tests;
mod ways;
mod worth;

use super::capacity;
use super::constraints::Watch;
use super::facts::{Amounts, Ask, ClaimInfo, ClassInfo, Count, DeviceEffect, DeviceInfo, RequestKind};
use super::inside::DeviceId;
use super::pools::{Pool, gather, reaches};
use super::store::{Devices, Slice};
use super::usage::Use;
use crate::model::NodeInfo;
use flowforge_scheduler_cel::Quantity;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Devices in one allocation.
const MAX_RESULTS: usize = 32;
/// Looks at a device before a search gives up.
pub(super) const MAX_STEPS: u32 = 500_000;

/// Why a search ended without a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// There is none.
    Nothing,
    /// There is none, and pools contradict themselves.
    InvalidPools,
    /// A claim, a class or a selector is wrong.
    Error(String),
    /// It gave up.
    Limit,
}

/// A device that was chosen.
#[derive(Clone, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) request: String,
    pub(super) ask: &'a Ask,
    spot: Spot,
    pub(super) driver: &'a SmolStr,
    pub(super) pool: &'a SmolStr,
    pub(super) slice: &'a Slice,
    pub(super) device: &'a DeviceInfo,
    /// What a share takes; None: the device is held alone.
    pub(super) share: Option<Amounts>,
}

/// What was found for one claim.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) devices: Vec<Chosen<'a>>,
    /// By request: the class that was used, and the alternative.
    pub(super) used: Vec<(&'a ClassInfo, Option<usize>)>,
}

/// A place in the pools: pool, slice, device.
type Spot = [usize; 3];

/// Where the search stands: claim, request, alternative, device of the request.
#[derive(Clone, Copy, Debug)]
struct At {
    claim: usize,
    request: usize,
    alternative: usize,
    device: usize,
}

/// One way to satisfy a request.
#[derive(Debug)]
struct Way<'a> {
    request: &'a SmolStr,
    alternative: Option<&'a SmolStr>,
    ask: &'a Ask,
    class: &'a ClassInfo,
    count: usize,
    /// All devices, where all are asked for.
    all: Vec<Spot>,
}

enum Ended {
    /// More devices than an allocation may have.
    TooMany,
    Error(String),
    Limit,
}

type Tried = Result<bool, Ended>;

struct Search<'a> {
    devices: &'a Devices,
    node: &'a NodeInfo,
    claims: &'a [&'a ClaimInfo],
    pools: Vec<Pool<'a>>,
    /// What is held of each pool.
    held: Vec<Option<&'a BTreeMap<SmolStr, Use>>>,
    /// By claim and request.
    ways: Vec<Vec<Vec<Way<'a>>>>,
    picked: Vec<Vec<usize>>,
    watches: Vec<Vec<Watch<'a>>>,
    /// Devices taken alone, by the claims that take them.
    taken: BTreeMap<Spot, Vec<usize>>,
    /// Shares taken: how many, and of what.
    shares: BTreeMap<Spot, (u32, Amounts)>,
    /// Counters taken and left, by pool.
    counted: Vec<BTreeMap<(&'a SmolStr, &'a SmolStr), Quantity>>,
    left: Vec<Option<BTreeMap<(&'a SmolStr, &'a SmolStr), Quantity>>>,
    results: Vec<Vec<Chosen<'a>>>,
    steps: u32,
}

/// Finds devices for these claims on a node: the first that will do.
///
/// # Errors
/// Why none were found.
pub(super) fn allocate<'a>(
    devices: &'a Devices,
    node: &'a NodeInfo,
    claims: &'a [&'a ClaimInfo],
    steps: u32,
) -> Result<Vec<Found<'a>>, Stop> {
    Search::of(devices, node, claims, steps).run().map(Search::found)
}

/// Finds the best devices for these claims on a node where [`allocate`] finds any; `mates` are devices that the others of its gang
/// have there. See [`improve`].
///
/// # Errors
/// As [`allocate`].
pub(super) fn choose<'a>(
    devices: &'a Devices,
    node: &'a NodeInfo,
    claims: &'a [&'a ClaimInfo],
    steps: u32,
    mates: &[DeviceId],
) -> Result<Vec<Found<'a>>, Stop> {
    let mut search = Search::of(devices, node, claims, steps).run()?;
    search.improve(mates);
    Ok(search.found())
}

impl<'a> Search<'a> {
    fn of(devices: &'a Devices, node: &'a NodeInfo, claims: &'a [&'a ClaimInfo], steps: u32) -> Self {
        let pools = gather(devices, node);
        Self {
            devices,
            node,
            claims,
            held: pools.iter().map(|pool| devices.usage.of_pool(pool.driver, pool.name)).collect(),
            ways: Vec::new(),
            picked: claims.iter().map(|claim| vec![0; claim.requests.len()]).collect(),
            watches: Vec::new(),
            taken: BTreeMap::new(),
            shares: BTreeMap::new(),
            counted: vec![BTreeMap::new(); pools.len()],
            left: vec![None; pools.len()],
            results: vec![Vec::new(); claims.len()],
            steps,
            pools,
        }
    }

    fn run(mut self) -> Result<Self, Stop> {
        let start = At { claim: 0, request: 0, alternative: 0, device: 0 };
        match self.prepare().and_then(|()| self.go(start, false, [0; 3])) {
            Ok(true) => Ok(self),
            Ok(false) | Err(Ended::TooMany) if self.pools.iter().any(|pool| pool.invalid) => Err(Stop::InvalidPools),
            Ok(false) | Err(Ended::TooMany) => Err(Stop::Nothing),
            Err(Ended::Error(what)) => Err(Stop::Error(what)),
            Err(Ended::Limit) => Err(Stop::Limit),
        }
    }

    fn slice(&self, [pool, slice, _]: Spot) -> &'a Slice {
        self.pools[pool].slices[slice]
    }

    fn device(&self, spot: Spot) -> &'a DeviceInfo {
        &self.slice(spot).info.devices[spot[2]]
    }

    fn id(&self, spot: Spot) -> String {
        let pool = &self.pools[spot[0]];
        format!("{}/{}/{}", pool.driver, pool.name, self.device(spot).name)
    }

    fn held(&self, spot: Spot) -> Option<&'a Use> {
        self.held[spot[0]]?.get(&self.device(spot).name)
    }

    /// Whether class and request select a device, and the node reaches it.
    fn is_selected(&self, claim: &ClaimInfo, way: &Way<'a>, spot: Spot) -> Tried {
        let slice = self.slice(spot);
        let (number, seen) = (slice.numbers[spot[2]], &slice.seen[spot[2]]);
        for (of_class, selectors) in [(true, &way.class.selectors), (false, &way.ask.selectors)] {
            let owner =
                || if of_class { format!("class {}", way.class.name) } else { format!("claim {}", claim.key()) };
            for (at, selector) in selectors.iter().enumerate() {
                let Some(text) = selector else {
                    return Err(Ended::Error(format!(
                        "{}: selector #{at}: CEL expression empty (unsupported selector type?)",
                        owner()
                    )));
                };
                match self.devices.selectors.matches(text, number, seen) {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(what) => {
                        return Err(Ended::Error(format!(
                            "{}: selector #{at} on device {}: {what}",
                            owner(),
                            self.id(spot)
                        )));
                    }
                }
            }
        }
        let per_device = slice.info.reach == super::facts::Reach::PerDevice;
        Ok(!per_device || reaches(&self.device(spot).reach, self.node))
    }

    /// Whether the capacity of a device suffices, beside what is taken of it or of all of it.
    fn has_capacity(&self, claim: &ClaimInfo, way: &Way<'a>, spot: Spot, whole: bool) -> Tried {
        let held = self.held(spot);
        let taken = self.shares.get(&spot);
        let used = |name: &str| {
            let taken = taken.and_then(|(_, amounts)| amounts.get(name)).copied().unwrap_or_default();
            if whole {
                Quantity::default()
            } else {
                held.map_or(Quantity::default(), |of| of.consumed(name)).plus(taken)
            }
        };
        capacity::fits(self.device(spot), &way.ask.capacity, used).map_err(|what| {
            let name = way.alternative.unwrap_or(way.request);
            Ended::Error(format!(
                "claim {}, request {name}: checking capacity for device {}: {what}",
                claim.key(),
                self.id(spot)
            ))
        })
    }

    fn is_taken(&self, spot: Spot) -> bool {
        self.held(spot).is_some_and(Use::is_exclusive) || self.taken.get(&spot).is_some_and(|claims| !claims.is_empty())
    }

    /// The next device, request or claim; true when everything is found.
    fn go(&mut self, at: At, in_alternative: bool, start: Spot) -> Tried {
        let Some(claim) = self.claims.get(at.claim).copied() else { return Ok(true) };
        if at.request >= claim.requests.len() {
            let next = At { claim: at.claim + 1, request: 0, alternative: 0, device: 0 };
            return match self.go(next, false, [0; 3]) {
                // Another allocation of this claim may leave room for the next.
                Err(Ended::TooMany) => Ok(false),
                other => other,
            };
        }
        let ways = &self.ways[at.claim][at.request];
        if !in_alternative && matches!(claim.requests[at.request].kind, RequestKind::FirstAvailable(_)) {
            let count = ways.len();
            return self.alternatives(at, count);
        }
        let Some(way) = ways.get(at.alternative) else { return Ok(false) };
        let every = way.ask.count == Count::All;
        if every && way.all.is_empty() {
            return Ok(false);
        }
        if at.device >= way.count {
            return self.go(At { request: at.request + 1, alternative: 0, device: 0, ..at }, false, [0; 3]);
        }
        if way.count - at.device > MAX_RESULTS.saturating_sub(self.results[at.claim].len()) {
            return Err(Ended::TooMany);
        }
        if every {
            let spot = way.all[at.device];
            return self.attempt(at, spot, in_alternative, true).map(|tried| tried == Some(true));
        }
        self.each(at, in_alternative, start)
    }

    fn alternatives(&mut self, at: At, count: usize) -> Tried {
        let mut all_too_many = true;
        for alternative in 0..count {
            match self.go(At { alternative, ..at }, true, [0; 3]) {
                Err(Ended::TooMany) => {}
                Ok(true) => {
                    self.picked[at.claim][at.request] = alternative;
                    return Ok(true);
                }
                Ok(false) => all_too_many = false,
                Err(other) => return Err(other),
            }
        }
        if all_too_many { Err(Ended::TooMany) } else { Ok(false) }
    }

    /// Tries every device from a place on.
    fn each(&mut self, at: At, in_alternative: bool, start: Spot) -> Tried {
        for pool in start[0]..self.pools.len() {
            let first_slice = if pool == start[0] { start[1] } else { 0 };
            for slice in first_slice..self.pools[pool].slices.len() {
                let first = if [pool, slice] == start[..2] { start[2] } else { 0 };
                for device in first..self.pools[pool].slices[slice].info.devices.len() {
                    self.steps = self.steps.checked_sub(1).ok_or(Ended::Limit)?;
                    if self.attempt(at, [pool, slice, device], in_alternative, false)? == Some(true) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Takes one device and goes on; None: it cannot be taken.
    fn attempt(&mut self, at: At, spot: Spot, in_alternative: bool, must: bool) -> Result<Option<bool>, Ended> {
        let claim = self.claims[at.claim];
        let way = &self.ways[at.claim][at.request][at.alternative];
        if !must {
            let by_claim = self.taken.get(&spot).is_some_and(|claims| claims.contains(&at.claim));
            let in_use = if way.ask.admin { by_claim } else { self.is_taken(spot) };
            if in_use || !self.is_selected(claim, way, spot)? || !self.has_capacity(claim, way, spot, false)? {
                return Ok(None);
            }
        }
        let Some(undo) = self.take(at, spot, must)? else { return Ok(None) };
        let next = At { device: at.device + 1, ..at };
        let from = if must { [0; 3] } else { [spot[0], spot[1], spot[2] + 1] };
        let done = self.go(next, in_alternative, from);
        if !matches!(done, Ok(true)) {
            self.give_back(at, spot, undo);
        }
        done.map(Some)
    }
}

/// What was changed for a device.
#[derive(Clone, Copy, Debug, Default)]
struct Undo {
    counters: bool,
    watches: usize,
    taken: bool,
    shared: bool,
    result: bool,
}

impl<'a> Search<'a> {
    /// Takes a device where nothing forbids it.
    fn take(&mut self, at: At, spot: Spot, must: bool) -> Result<Option<Undo>, Ended> {
        let mut undo = Undo::default();
        match self.try_take(at, spot, must, &mut undo) {
            Ok(true) => Ok(Some(undo)),
            Ok(false) => {
                self.give_back(at, spot, undo);
                Ok(None)
            }
            Err(error) => {
                self.give_back(at, spot, undo);
                Err(error)
            }
        }
    }

    fn try_take(&mut self, at: At, spot: Spot, must: bool, undo: &mut Undo) -> Tried {
        let claim = self.claims[at.claim];
        let device = self.device(spot);
        let Self { ways, .. } = self;
        let way = &ways[at.claim][at.request][at.alternative];
        let (request, alternative, ask) = (way.request, way.alternative, way.ask);
        let by_claim = self.taken.get(&spot).is_some_and(|claims| claims.contains(&at.claim));
        let in_use = if ask.admin { !device.allow_multiple && by_claim } else { self.is_taken(spot) };
        if in_use {
            return Ok(false);
        }
        let shared = self.shares.contains_key(&spot) || self.held(spot).is_some_and(Use::is_shared);
        if !(device.consumes.is_empty() || device.allow_multiple && shared) {
            undo.counters = true;
            if !self.count(spot) {
                return Ok(false);
            }
        }
        let untolerated = |taint: &super::facts::DeviceTaint| {
            taint.effect != DeviceEffect::None && !ask.tolerations.iter().any(|toleration| toleration.tolerates(taint))
        };
        if self.slice(spot).taints[spot[2]].iter().any(untolerated) {
            return Ok(false);
        }
        let driver = self.pools[spot[0]].driver;
        for watch in &mut self.watches[at.claim] {
            if !watch.add(request, alternative, driver, device) {
                let what = format!(
                    "claim {}, request {}: cannot add device {} because a claim constraint would not be satisfied",
                    claim.key(),
                    alternative.unwrap_or(request),
                    self.id(spot)
                );
                return if must { Err(Ended::Error(what)) } else { Ok(false) };
            }
            undo.watches += 1;
        }
        if !device.allow_multiple {
            self.taken.entry(spot).or_default().push(at.claim);
            undo.taken = true;
        }
        let way = &self.ways[at.claim][at.request][at.alternative];
        if !self.has_capacity(claim, way, spot, false)? {
            return Ok(false);
        }
        let share = if device.allow_multiple {
            let amounts = capacity::consumed(device, &ask.capacity).map_err(Ended::Error)?;
            let (count, sums) = self.shares.entry(spot).or_default();
            *count += 1;
            for (name, amount) in &amounts {
                let sum = sums.entry(name.clone()).or_default();
                *sum = sum.plus(*amount);
            }
            undo.shared = true;
            Some(amounts)
        } else {
            None
        };
        let request = alternative.map_or_else(|| request.to_string(), |alternative| format!("{request}/{alternative}"));
        let (pool, slice) = (self.pools[spot[0]].name, self.slice(spot));
        self.results[at.claim].push(Chosen { request, ask, spot, driver, pool, slice, device, share });
        undo.result = true;
        Ok(true)
    }

    fn give_back(&mut self, at: At, spot: Spot, undo: Undo) {
        let device = self.device(spot);
        let share = if undo.result { self.results[at.claim].pop().and_then(|chosen| chosen.share) } else { None };
        if undo.shared
            && let Some((count, sums)) = self.shares.get_mut(&spot)
        {
            *count -= 1;
            for (name, amount) in share.iter().flatten() {
                let sum = sums.entry(name.clone()).or_default();
                *sum = sum.minus(*amount);
            }
            if *count == 0 {
                self.shares.remove(&spot);
            }
        }
        if undo.taken
            && let Some(claims) = self.taken.get_mut(&spot)
        {
            claims.pop();
        }
        let way = &self.ways[at.claim][at.request][at.alternative];
        for watch in self.watches[at.claim].iter_mut().take(undo.watches) {
            watch.remove(way.request, way.alternative);
        }
        if undo.counters {
            self.add_counters(spot[0], device, Quantity::minus);
        }
    }

    fn add_counters(&mut self, pool: usize, device: &'a DeviceInfo, change: fn(Quantity, Quantity) -> Quantity) {
        for (set, counters) in &device.consumes {
            for (name, amount) in counters {
                let sum = self.counted[pool].entry((set, name)).or_default();
                *sum = change(*sum, *amount);
            }
        }
    }

    /// Counts what a device takes of the counters; false: there is not enough.
    fn count(&mut self, spot: Spot) -> bool {
        let device = self.device(spot);
        self.add_counters(spot[0], device, Quantity::plus);
        if self.left[spot[0]].is_none() {
            self.left[spot[0]] = Some(self.counters_left(spot[0]));
        }
        let counted = &self.counted[spot[0]];
        let enough =
            |(key, left): (&(&SmolStr, &SmolStr), &Quantity)| counted.get(key).copied().unwrap_or_default() <= *left;
        self.left[spot[0]].iter().flatten().all(enough)
    }

    /// The counters of a pool without what devices take that are held, wherever they are.
    fn counters_left(&self, pool: usize) -> BTreeMap<(&'a SmolStr, &'a SmolStr), Quantity> {
        let of = &self.pools[pool];
        let mut left = of.counters.clone();
        let devices = of.slices.iter().chain(&of.elsewhere).flat_map(|slice| &slice.info.devices);
        let held = |device: &&'a DeviceInfo| self.held[pool].is_some_and(|held| held.contains_key(&device.name));
        for (set, counters) in devices.filter(held).flat_map(|device| &device.consumes) {
            for (name, amount) in counters {
                if let Some(sum) = left.get_mut(&(set, name)) {
                    *sum = sum.minus(*amount);
                }
            }
        }
        left
    }

    fn found(self) -> Vec<Found<'a>> {
        let Self { claims, ways, picked, results, .. } = self;
        let used = |at: usize| {
            let of = |(request, ways): (usize, &Vec<Way<'a>>)| {
                let alternative = picked[at][request];
                let way = ways.get(alternative)?;
                Some((way.class, way.alternative.map(|_| alternative)))
            };
            ways[at].iter().enumerate().filter_map(of).collect()
        };
        (0..claims.len()).zip(results).map(|(at, devices)| Found { devices, used: used(at) }).collect()
    }
}
