//! Whom to evict so that a whole gang fits that fits nowhere.
//!
//! ```text
//!   refused gang ──counted──> domains that could hold it if everybody less important left
//!        │                       │ rehearsed: units (pods, whole gangs) leave, the cheapest first, until the planner places
//!        │                       │ every member; the fewest of them are found by doubling and halving
//!        │                       │ then back with them, the dearest first, as long as everyone still stands
//!        │                       │ then every other choice that would cost less, as long as steps are left
//!        │                       v
//!        │                    victims ──rehearsed once more, they alone──> places, victims ──engine──> promise, evict, wait
//! ```
//! Cost is compared field by field ([`Cost`]): broken budgets, the priority of the most important victim, lost work, pods.
//! Nobody of the gang's priority or above is a victim, and a gang is one as a whole. Who is going already costs nothing: where
//! that is enough, nobody is evicted. What is found is certain for the moment: the planner has placed every member, in the
//! domain that the gang asks for, with the victims gone and nobody else. Where pods matter to each other (affinity, spread) more
//! room is not always better, so that a way may be missed there, but never is one promised that is none.
//!
//! Of an elastic gang that has more members than it needs, what it can do without may leave alone, the last ranks first.
//!
//! `O(pods)` to count, then `O(log units)` plans and as many moves of the pods in question. The cheapest choice is found where
//! the gang's steps are enough to go through what is cheaper (always on clusters of some ten units); else the one that the first
//! look finds. The same cluster gives the same answer.

use super::budgets::Spending;
use super::unit::{Unit, units_below, with_those_above};
use crate::gang::{Ask, Found, GangId, Gangs, allowed, are_related, groups, place_in, ranked};
use crate::model::Millis;
use crate::shape::{ShapeSpec, Verdict};
use crate::snapshot::{Cluster, NodeId, PodId, Snapshot, Txn};
use flowforge_topology_core::DomainId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one rehearsal costs beside the pods that it moves, in steps.
const STEPS_OF_A_PLAN: usize = 8;

/// Units that are compared choice by choice, the cheapest first; among more of them the steps would not reach far.
const COMPARED: usize = 128;

/// What the eviction of some pods costs. Less is better; the fields are compared in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// Pods whose eviction breaks a budget.
    pub violations: u32,
    /// Priority of the most important one.
    pub highest: i32,
    /// Work that is lost, in device milliseconds: how long each has run, times its devices. A pod without any counts as one.
    pub work: u64,
    /// Pods.
    pub pods: usize,
}

impl Cost {
    /// Nobody is evicted.
    const NOTHING: Self = Self { violations: 0, highest: i32::MIN, work: 0, pods: 0 };
}

/// Pods that are evicted together: one, or all of a gang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The gang, where it is one of ours.
    pub gang: Option<GangId>,
    /// The pods.
    pub pods: Vec<PodId>,
}

/// Room that evictions make for a gang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Where each member stands then, in rank order.
    pub places: Vec<(PodId, NodeId)>,
    /// Who has to go.
    pub victims: Vec<Evicted>,
    /// What that costs.
    pub cost: Cost,
}

/// What came of looking for room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Making {
    /// This much can be made.
    Room(Room),
    /// Those who are going already leave enough.
    Going,
    /// Nobody whose eviction would help.
    Nowhere,
    /// The planner gave up at a limit.
    Limit,
}

/// What is known beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The gangs of ours.
    pub gangs: &'a Gangs,
    /// The one that room is made for.
    pub own: GangId,
    /// Pods whose eviction was sent and which the watch does not show as deleting yet.
    pub doomed: &'a BTreeSet<PodId>,
    /// Now, to tell how long pods have run.
    pub now: Millis,
}

/// Looks for room for the members of a gang that fits nowhere, whose least important one has this priority.
pub fn make_room(snapshot: &mut Snapshot, ask: &Ask, priority: i32, around: Around<'_>) -> Making {
    let nodes = within_reach(snapshot, ask, priority, around);
    let cluster = snapshot.cluster();
    let going: Vec<PodId> = nodes
        .iter()
        .flat_map(|node| cluster.node(*node).into_iter().flat_map(|n| n.pods()))
        .copied()
        .filter(|pod| is_going(cluster, *pod, around.doomed))
        .collect();
    let units = weighed(snapshot, &nodes, priority, around);
    snapshot.rehearse(|txn| {
        txn.keep_promises(&ask.members);
        going.iter().for_each(|pod| txn.take_off(*pod));
        let start = txn.mark();
        let enough = !going.is_empty() && place_in(txn, ask) == Found::Placed;
        txn.roll_back_to(start);
        if enough { Making::Going } else { Search::new(txn, ask, units).run() }
    })
}

fn is_going(cluster: &Cluster, pod: PodId, doomed: &BTreeSet<PodId>) -> bool {
    doomed.contains(&pod) || cluster.pod(pod).is_some_and(|p| p.standing.deleting)
}

/// A unit with what its eviction would cost.
#[derive(Debug)]
struct Weighed {
    unit: Unit,
    /// By itself.
    cost: Cost,
}

/// The units that have a pod on one of these nodes, the cheapest first; without pods that are going anyway.
fn weighed(snapshot: &Snapshot, nodes: &[NodeId], priority: i32, around: Around<'_>) -> Vec<Weighed> {
    let cluster = snapshot.cluster();
    let mut all = Vec::new();
    for mut unit in units_below(cluster, around.gangs, nodes.iter().copied(), priority) {
        unit.pods.retain(|(pod, _)| !is_going(cluster, *pod, around.doomed));
        if unit.pods.is_empty() || unit.gang == Some(around.own) {
            continue;
        }
        let work = |(pod, _): &(PodId, NodeId)| {
            let started = cluster.pod(*pod).and_then(|p| p.standing.started_at_ms);
            let age = started.map_or(0, |at| around.now.saturating_sub(at));
            age.saturating_mul(cluster.devices_of(*pod).max(1))
        };
        let work = unit.pods.iter().map(work).fold(0, u64::saturating_add);
        let violations = unit.violations(cluster, &mut snapshot.budgets().spend());
        let cost = Cost { violations, highest: unit.priority, work, pods: unit.pods.len() };
        all.push(Weighed { unit, cost });
    }
    all.sort_by_cached_key(|weighed| (weighed.cost, weighed.unit.importance()));
    all
}

/// Nodes on which room can be made: those of domains that could hold every shape of the gang if all who are less important, or
/// going already, left. `O(pods)`.
fn within_reach(snapshot: &mut Snapshot, ask: &Ask, priority: i32, around: Around<'_>) -> Vec<NodeId> {
    let groups = groups(snapshot, &ask.members);
    let Ok(allowed) = allowed(snapshot, ask) else { return Vec::new() };
    let mut open: Option<BTreeSet<DomainId>> = None;
    let mut nodes: BTreeMap<NodeId, DomainId> = BTreeMap::new();
    for group in &groups {
        let Some((cache, shape, cluster)) = snapshot.view_with_cluster(group.shape) else { return Vec::new() };
        let mut places: BTreeMap<DomainId, u64> = BTreeMap::new();
        for (id, _) in cluster.nodes.iter().filter(|(_, node)| !node.placeholder) {
            let verdict = cache.node(id.dense()).verdict;
            let curable = verdict.is_feasible() || verdict == Verdict::PORTS || verdict.is_short();
            let Some(domain) = allowed.of(cluster.tree(), id.dense()).filter(|_| curable) else { continue };
            let leaves = |pod: &PodId| {
                let below = cluster.pod(*pod).is_some_and(|p| p.standing.priority < priority);
                below || is_going(cluster, *pod, around.doomed)
            };
            let room = places_without(cluster, id, &shape.spec, leaves);
            if room > 0 {
                *places.entry(domain).or_default() += room;
                nodes.insert(id, domain);
            }
        }
        let fits = places.into_iter().filter(|(_, places)| *places >= group.need()).map(|(domain, _)| domain);
        open = Some(match open {
            None => fits.collect(),
            Some(before) => fits.filter(|domain| before.contains(domain)).collect(),
        });
    }
    let open = open.unwrap_or_default();
    nodes.into_iter().filter(|(_, domain)| open.contains(domain)).map(|(node, _)| node).collect()
}

/// How many pods of a shape a node would take by its requests if some of its pods left.
fn places_without(cluster: &Cluster, node: NodeId, spec: &ShapeSpec, leaves: impl Fn(&PodId) -> bool) -> u64 {
    let leaving: Vec<PodId> = cluster.node(node).into_iter().flat_map(|n| n.pods()).copied().filter(leaves).collect();
    let freed = |name: &str| {
        let of = |pod: &PodId| cluster.footprint_of(*pod).map_or(0, |footprint| footprint.request(name));
        leaving.iter().map(of).fold(0, i64::saturating_add)
    };
    let pods = cluster.free_pods(node.index()).saturating_add(i64::try_from(leaving.len()).unwrap_or(i64::MAX));
    let requests = spec.footprint.requests.iter().enumerate().filter(|(at, _)| !spec.ignores(*at));
    let by_request = requests.map(|(_, (name, wanted))| {
        cluster.free(node, name).unwrap_or(0).saturating_add(freed(name)) / (*wanted).max(1)
    });
    u64::try_from(by_request.fold(pods, i64::min)).unwrap_or(0)
}

/// Goes through choices of units in one rehearsal. Units are named by their position.
struct Search<'t, 's> {
    txn: &'t mut Txn<'s>,
    ask: &'t Ask,
    units: Vec<Weighed>,
    /// Only what pods ask of their nodes matters: whether everyone still stands can be counted.
    plain: bool,
    steps: usize,
    limited: bool,
}

impl<'t, 's> Search<'t, 's> {
    fn new(txn: &'t mut Txn<'s>, ask: &'t Ask, units: Vec<Weighed>) -> Self {
        let groups = groups(txn.snapshot(), &ask.members);
        let counted = |spec: &ShapeSpec| spec.is_plain() && spec.footprint.ports.is_empty();
        let specs = groups.iter().all(|g| txn.snapshot().shape(g.shape).is_some_and(|shape| counted(&shape.spec)));
        let cluster = txn.snapshot().cluster();
        let pods = units.iter().flat_map(|weighed| &weighed.unit.pods).all(|(pod, _)| cluster.is_plain(*pod));
        let plain = specs && pods && !are_related(txn, &groups);
        let steps = usize::try_from(ask.steps).unwrap_or(usize::MAX);
        Self { txn, ask, units, plain, steps, limited: false }
    }

    fn run(mut self) -> Making {
        let Some(fewest) = self.fewest() else { return if self.limited { Making::Limit } else { Making::Nowhere } };
        let first = self.spared(fewest);
        let best = self.cheapest(first.clone());
        let all: Vec<usize> = (0..fewest).collect();
        let found = [best, first, all].into_iter().find_map(|units| self.confirmed(&units));
        found.map_or(Making::Nowhere, Making::Room)
    }

    /// How many of the cheapest units have to leave at least before everyone fits; None: it does not help that all leave.
    fn fewest(&mut self) -> Option<usize> {
        let all: Vec<usize> = (0..self.units.len()).collect();
        let (mut few, mut enough) = (0, all.len().min(1));
        while !self.fits(&all[..enough]) {
            if enough == all.len() {
                return None;
            }
            (few, enough) = (enough, (enough * 2).min(all.len()));
        }
        while enough - few > 1 {
            let middle = few + (enough - few) / 2;
            if self.fits(&all[..middle]) { enough = middle } else { few = middle }
        }
        Some(enough)
    }

    /// Those of the first so many units that cannot stay: the others come back, the dearest first. Everyone fits without them.
    fn spared(&mut self, units: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..units).collect();
        let start = self.txn.mark();
        let places = self.place_without(&all).unwrap_or_default();
        self.txn.roll_back_to(start);
        let used: BTreeSet<NodeId> = places.iter().map(|(_, node)| *node).collect();
        let in_the_way = |at: &usize| self.units[*at].unit.pods.iter().any(|(_, node)| used.contains(node));
        let mut left: Vec<usize> = all.iter().copied().filter(in_the_way).collect();
        if self.plain {
            return self.spared_by_count(&left, &places);
        }
        if !self.fits(&left) {
            left = all;
        }
        for at in left.clone().into_iter().rev() {
            let without: Vec<usize> = left.iter().copied().filter(|other| *other != at).collect();
            if self.afford(&without) && self.fits(&without) {
                left = without;
            }
        }
        left
    }

    /// The same where it is enough that requests fit beside members that stand already.
    fn spared_by_count(&mut self, left: &[usize], places: &[(PodId, NodeId)]) -> Vec<usize> {
        let start = self.txn.mark();
        left.iter().for_each(|at| self.take_off(*at));
        places.iter().for_each(|(pod, node)| self.txn.place(*pod, *node));
        let specs = self.specs_on(places);
        let mut victims = Vec::new();
        for &at in left.iter().rev() {
            let before = self.txn.mark();
            let pods = &self.units[at].unit.pods;
            pods.iter().for_each(|(pod, node)| self.txn.place(*pod, *node));
            let cluster = self.txn.snapshot().cluster();
            if !pods
                .iter()
                .all(|(_, node)| still_fits(cluster, *node, specs.get(node).map(Vec::as_slice).unwrap_or_default()))
            {
                self.txn.roll_back_to(before);
                victims.push(at);
            }
        }
        self.txn.roll_back_to(start);
        victims.reverse();
        victims
    }

    fn specs_on(&self, places: &[(PodId, NodeId)]) -> BTreeMap<NodeId, Vec<Arc<ShapeSpec>>> {
        let mut specs: BTreeMap<NodeId, Vec<Arc<ShapeSpec>>> = BTreeMap::new();
        for (pod, node) in places {
            let snapshot = self.txn.snapshot();
            let shape = snapshot.cluster().pod(*pod).and_then(|p| snapshot.shape(p.shape?));
            specs.entry(*node).or_default().extend(shape.map(|shape| Arc::clone(&shape.spec)));
        }
        specs
    }

    /// The cheapest choice, as far as the steps reach; `first` is one.
    fn cheapest(&mut self, first: Vec<usize>) -> Vec<usize> {
        let mut best = (self.cost(&first), first);
        let cheaper = self.units.partition_point(|weighed| weighed.cost < best.0).min(COMPARED);
        let all: Vec<usize> = (0..cheaper).collect();
        if self.afford(&all) && self.fits(&all) {
            self.branch(&all, &mut Vec::new(), false, &mut best);
        }
        best.1
    }

    /// `chosen` leave, `undecided` may, and everyone fits when all of them do. `fresh`: nobody knows yet whether it is enough
    /// that `chosen` leave; otherwise it is not.
    fn branch(&mut self, undecided: &[usize], chosen: &mut Vec<usize>, fresh: bool, best: &mut (Cost, Vec<usize>)) {
        let cost = self.cost(chosen);
        if cost >= best.0 || (fresh && !self.afford(chosen)) {
            return;
        }
        if fresh && self.fits(chosen) {
            *best = (cost, chosen.clone());
            return;
        }
        let Some((next, rest)) = undecided.split_first() else { return };
        chosen.push(*next);
        self.branch(rest, chosen, true, best);
        chosen.pop();
        let without: Vec<usize> = chosen.iter().chain(rest).copied().collect();
        if self.afford(&without) && self.fits(&without) {
            self.branch(rest, chosen, false, best);
        }
    }

    /// The places when exactly these leave.
    fn confirmed(&mut self, units: &[usize]) -> Option<Room> {
        let start = self.txn.mark();
        let places = self.place_without(units);
        self.txn.roll_back_to(start);
        let mut victims: Vec<Evicted> = Vec::new();
        for unit in self.closed(units).iter().map(|at| &self.units[*at].unit) {
            let pods = unit.pods.iter().map(|(pod, _)| *pod);
            // Layers of one gang leave as one.
            match victims.iter_mut().find(|known| unit.gang.is_some() && known.gang == unit.gang) {
                Some(known) => known.pods.extend(pods),
                None => victims.push(Evicted { gang: unit.gang, pods: pods.collect() }),
            }
        }
        places.map(|places| Room { places, victims, cost: self.cost(units) })
    }

    /// These and what cannot stay without them.
    fn closed(&self, units: &[usize]) -> Vec<usize> {
        with_those_above(|at| &self.units[at].unit, self.units.len(), units)
    }

    /// Whether the steps that are left pay for a rehearsal without these; where they do not, none is left.
    fn afford(&mut self, units: &[usize]) -> bool {
        let moved: usize = units.iter().map(|at| self.units[*at].unit.pods.len()).sum();
        let price = moved + self.ask.members.len() + STEPS_OF_A_PLAN;
        let affordable = price <= self.steps;
        self.steps = if affordable { self.steps - price } else { 0 };
        affordable
    }

    /// Whether everyone fits when these leave.
    fn fits(&mut self, units: &[usize]) -> bool {
        let start = self.txn.mark();
        let fits = self.place_without(units).is_some();
        self.txn.roll_back_to(start);
        fits
    }

    fn place_without(&mut self, units: &[usize]) -> Option<Vec<(PodId, NodeId)>> {
        self.closed(units).iter().for_each(|at| self.take_off(*at));
        let found = place_in(self.txn, self.ask);
        self.limited |= found == Found::Limit;
        (found == Found::Placed).then(|| ranked(self.txn.snapshot(), &self.ask.members))
    }

    fn take_off(&mut self, at: usize) {
        self.units[at].unit.pods.iter().for_each(|(pod, _)| self.txn.take_off(*pod));
    }

    fn cost(&self, units: &[usize]) -> Cost {
        let snapshot = self.txn.snapshot();
        let mut spending: Spending<'_> = snapshot.budgets().spend();
        let mut sum = Cost::NOTHING;
        for Weighed { unit, cost } in self.closed(units).iter().map(|at| &self.units[*at]) {
            sum.violations += unit.violations(snapshot.cluster(), &mut spending);
            sum.highest = sum.highest.max(cost.highest);
            sum.work = sum.work.saturating_add(cost.work);
            sum.pods += cost.pods;
        }
        sum
    }
}

/// Whether nothing is overdrawn on a node that the members there ask for.
fn still_fits(cluster: &Cluster, node: NodeId, members: &[Arc<ShapeSpec>]) -> bool {
    let asked = members.iter().flat_map(|spec| &spec.footprint.requests);
    let free = |name: &str| cluster.free(node, name).unwrap_or(0);
    members.is_empty() || cluster.free_pods(node.index()) >= 0 && asked.clone().all(|(name, _)| free(name) >= 0)
}
