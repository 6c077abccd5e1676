//! The planner: a place for every member, in one transaction, or none.
//!
//! Search order: where the gang is tied to a domain (bound members, required level), only there. Otherwise the preferred
//! levels, best first, then all others from narrow to wide; within a level the domains that can hold everyone, the one with the
//! least left over first (best fit). The domain counters prove "nowhere" without looking at a node ([`super::candidates`]);
//! for a gang of one shape they are exact, so the first candidate holds. Inside a domain the members fill parts as
//! [`gang_packing`] says, unless that is uneven ([`super::even`]), and ranks follow the order of the tree. Where pods matter to each other (affinity, spread), members
//! are searched a place one by one. Mixed gangs: the scarcest shape first, then a bounded
//! search that tries every assignment ([`super::search`]). What is said of parts of the gang ([`super::layout`]) has a path of
//! its own ([`super::blocks`]); giving up is `SearchLimit`, never "nowhere". Places that were
//! promised to pods of at least the gang's priority are taken as long as it is planned.

use super::blocks::{self, Packed, Unmet};
use super::candidates::{self, Allowed, Candidates, Stage};
use super::even::{self, Evenness};
use super::layout::Layout;
use super::nowhere;
use super::rules::Rules;
use super::search::{self, Found};
use crate::explain::Seen;
use crate::plugins::gang_packing;
use crate::shape::{ShapeCache, ShapeId};
use crate::snapshot::{Cluster, End, Mark, NodeId, PodId, Snapshot, Txn};
use flowforge_topology_core::{DomainId, LevelIndex};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What is asked of the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Pending members in rank order.
    pub members: Vec<PodId>,
    /// All members must share one domain of this level.
    pub required: Option<LevelIndex>,
    /// Levels whose sharing is preferred, best first; where that cannot be, the narrower the better.
    pub preferred: Vec<LevelIndex>,
    /// Nodes of members that are bound already: the others must share their domain of the required level, and stand as
    /// close as possible.
    pub bound: Vec<NodeId>,
    /// Where parts of the gang may stand.
    pub layout: Layout,
    /// Most looks at a node in a search, and placements.
    pub steps: u32,
}

impl Ask {
    /// The same for some of the members; the others are to get no place for now.
    #[must_use]
    pub fn of_fewer(&self, members: Vec<PodId>) -> Self {
        let kept: BTreeSet<PodId> = members.iter().copied().collect();
        let dropped: BTreeSet<PodId> = self.members.iter().filter(|pod| !kept.contains(pod)).copied().collect();
        Self { members, layout: self.layout.of_fewer(|pod| !dropped.contains(&pod)), ..self.clone() }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// A place for every member, in rank order; kept as assumed.
    Placed(Vec<(PodId, NodeId)>),
    /// There is no place; nothing is assumed.
    Nowhere(Box<Nowhere>),
    /// The search gave up after so many steps; nothing is assumed.
    SearchLimit(u32),
    /// The bound members stand in several domains of this level, which should hold all of them.
    Split(LevelIndex),
}

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nowhere {
    /// Members that fit at most, where the search got furthest.
    pub fit: u32,
    /// The domain of the required level where that is.
    pub domain: Option<String>,
    /// First member without a place.
    pub member: PodId,
    /// What the nodes say about it once the others are placed.
    pub seen: Seen,
    /// What the layout asks for that cannot be had, where that is why.
    pub part: Option<String>,
    /// Whether the counters alone prove it: then it stays so until the counters change.
    pub proven: bool,
}

/// Members of one shape, in rank order.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) shape: ShapeId,
    pub(crate) members: Vec<PodId>,
}

impl Group {
    pub(crate) fn need(&self) -> u64 {
        self.members.len() as u64
    }
}

/// Finds a place for all members; what is found stays assumed.
///
/// A stage may take half of the steps that are left, the last one all, and every stage one placement of all members beside
/// that: a search that leads nowhere in the narrow domains must not leave the wide ones, where the gang fits, without a step.
pub fn plan(snapshot: &mut Snapshot, ask: &Ask) -> Planned {
    let groups = groups(snapshot, &ask.members);
    let allowed = match allowed(snapshot, ask) {
        Ok(allowed) => allowed,
        Err(level) => return Planned::Split(level),
    };
    let rules = match rules(snapshot, ask) {
        Ok(rules) => rules,
        Err(level) => return Planned::Split(level),
    };
    snapshot.transact(|txn| {
        txn.keep_promises(&ask.members);
        let mut stager = Stager::new(txn, &groups, allowed, rules);
        match stager.place_all(txn, ask, &groups) {
            Found::Placed => End::Keep(Planned::Placed(ranked(txn.snapshot(), &ask.members))),
            Found::Limit => End::RollBack(Planned::SearchLimit(ask.steps)),
            Found::Nowhere => {
                let proven = stager.tried.is_empty();
                match nowhere::explain(txn, ask, &groups, &stager) {
                    Some(nowhere) => End::RollBack(Planned::Nowhere(Box::new(Nowhere { proven, ..nowhere }))),
                    None => End::RollBack(Planned::SearchLimit(0)),
                }
            }
        }
    })
}

/// Places all members in an open transaction, or none. What was promised to others is the caller's to keep.
pub(crate) fn place_in(txn: &mut Txn<'_>, ask: &Ask) -> Found {
    let groups = groups(txn.snapshot(), &ask.members);
    let (Ok(allowed), Ok(rules)) = (allowed(txn.snapshot(), ask), rules(txn.snapshot(), ask)) else {
        return Found::Nowhere;
    };
    Stager::new(txn, &groups, allowed, rules).place_all(txn, ask, &groups)
}

/// The level at which members that stand already contradict what is asked.
#[must_use]
pub fn is_torn(snapshot: &Snapshot, ask: &Ask) -> Option<LevelIndex> {
    allowed(snapshot, ask).err().or_else(|| rules(snapshot, ask).err())
}

/// The rules of the layout; None where it says nothing.
pub(super) fn rules<'a>(snapshot: &Snapshot, ask: &'a Ask) -> Result<Option<Rules<'a>>, LevelIndex> {
    if ask.layout.is_empty() {
        return Ok(None);
    }
    Rules::new(&ask.layout, snapshot.cluster()).map(Some)
}

/// Whether the counters leave a place possible: asked before a refused gang is tried again. `O(log domains)` for a gang of
/// one shape, `O(domains)` for a mixed one.
pub fn may_fit(snapshot: &mut Snapshot, ask: &Ask) -> bool {
    let groups = groups(snapshot, &ask.members);
    allowed(snapshot, ask).is_ok_and(|allowed| candidates::any(snapshot, ask, &groups, allowed))
}

/// Members by shape, in the order in which the shapes first appear.
pub(crate) fn groups(snapshot: &Snapshot, members: &[PodId]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for &pod in members {
        let Some(shape) = snapshot.cluster().pod(pod).and_then(|p| p.shape) else { continue };
        match groups.iter_mut().find(|g| g.shape == shape) {
            Some(group) => group.members.push(pod),
            None => groups.push(Group { shape, members: vec![pod] }),
        }
    }
    groups
}

/// The domains one of which must hold everyone.
///
/// # Errors
/// The required level, where the bound members contradict it.
pub(crate) fn allowed(snapshot: &Snapshot, ask: &Ask) -> Result<Allowed, LevelIndex> {
    let tree = snapshot.cluster().tree();
    let Some(level) = ask.required else { return Ok(Allowed::Cluster) };
    let mut domains = ask.bound.iter().map(|n| tree.domain_of(n.dense(), level));
    let Some(first) = domains.next() else { return Ok(Allowed::Level(level)) };
    let first = first.ok_or(level)?;
    if domains.all(|d| d == Some(first)) { Ok(Allowed::Domain(first)) } else { Err(level) }
}

/// The domains to look at, in stages, and whether the domains of a stage are equally good: those of a preferred level are,
/// and inside the chosen one the narrower is better; else a stage comes after all that are narrower.
fn stages(snapshot: &Snapshot, ask: &Ask, allowed: Allowed) -> Vec<(Stage, bool)> {
    let tree = snapshot.cluster().tree();
    let mut stages: Vec<(Stage, bool)> = if let Some(near) = nearest(snapshot, &ask.bound) {
        let around = tree.ancestors(near).filter(|domain| allowed.contains(tree, *domain));
        around.map(|domain| (Stage::Domain(domain), false)).collect()
    } else {
        let inside = |level: &LevelIndex| ask.required.is_none_or(|required| *level > required);
        let others = tree.levels().iter().rev().filter(inside).filter(|level| !ask.preferred.contains(level));
        let preferred = ask.preferred.iter().map(|level| (Stage::Level(*level), true));
        preferred.chain(others.map(|level| (Stage::Level(level), false))).collect()
    };
    stages.push((allowed.stage(), false));
    stages
}

/// A domain and the levels below it, the narrowest first.
fn narrow_first(snapshot: &Snapshot, domain: DomainId) -> Vec<Stage> {
    let tree = snapshot.cluster().tree();
    let below = tree.levels().iter().rev().filter(|level| tree.level(domain).is_none_or(|above| *level > above));
    below.map(Stage::Level).chain([Stage::Domain(domain)]).collect()
}

/// Narrowest domain that holds all of these nodes.
fn nearest(snapshot: &Snapshot, nodes: &[NodeId]) -> Option<DomainId> {
    let tree = snapshot.cluster().tree();
    nodes.iter().filter_map(|n| tree.leaf(n.dense())).reduce(|a, b| tree.common(a, b))
}

/// Goes through the stages of one question.
pub(super) struct Stager<'a> {
    pub(super) allowed: Allowed,
    /// Pods matter to each other.
    pub(super) related: bool,
    /// Domains that did not hold everyone.
    tried: BTreeSet<DomainId>,
    /// Where parts of the gang may stand.
    rules: Option<Rules<'a>>,
    /// What the layout asks for in vain, of the last domain that was looked at.
    pub(super) unmet: Option<(Box<Unmet>, DomainId)>,
}

impl<'a> Stager<'a> {
    fn new(txn: &Txn<'_>, groups: &[Group], allowed: Allowed, rules: Option<Rules<'a>>) -> Self {
        let related = search::are_related(txn, groups);
        Self { allowed, related, tried: BTreeSet::new(), rules, unmet: None }
    }

    /// Goes through all stages until one has a place for everyone.
    fn place_all(&mut self, txn: &mut Txn<'_>, ask: &Ask, groups: &[Group]) -> Found {
        let mut left = ask.steps;
        let mut limited = false;
        let stages = stages(txn.snapshot(), ask, self.allowed);
        let last = stages.len() - 1;
        for (at, (stage, preferred)) in stages.into_iter().enumerate() {
            let share = if at == last { left } else { left / 2 };
            let mut steps = share.saturating_add(saturate(ask.members.len()));
            let found = if preferred {
                self.place_preferred(txn, ask, groups, stage, &mut steps)
            } else {
                self.place(txn, ask, groups, (stage, self.allowed), &mut steps)
            };
            match found {
                Found::Placed => return Found::Placed,
                Found::Nowhere => {}
                Found::Limit => limited = true,
            }
            left = left - share + steps.min(share);
        }
        if limited { Found::Limit } else { Found::Nowhere }
    }

    /// Places everyone in the best fitting domain of a preferred level, as close together there as can be, or nobody.
    fn place_preferred(
        &mut self,
        txn: &mut Txn<'_>,
        ask: &Ask,
        groups: &[Group],
        stage: Stage,
        steps: &mut u32,
    ) -> Found {
        let mut candidates = Candidates::of(txn, groups, stage, self.allowed);
        while let Some(domain) = candidates.next(txn, groups, self.allowed) {
            for inner in narrow_first(txn.snapshot(), domain) {
                match self.place(txn, ask, groups, (inner, Allowed::Domain(domain)), steps) {
                    Found::Nowhere => {}
                    ended => return ended,
                }
            }
        }
        Found::Nowhere
    }

    /// Places everyone below one domain of a stage, or nobody.
    fn place(
        &mut self,
        txn: &mut Txn<'_>,
        ask: &Ask,
        groups: &[Group],
        stage: (Stage, Allowed),
        steps: &mut u32,
    ) -> Found {
        let Some(mut rules) = self.rules.take() else { return self.place_freely(txn, groups, stage, steps) };
        let found = self.place_by_rules(txn, ask, groups, &mut rules, stage, steps);
        self.rules = Some(rules);
        found
    }

    /// Places all groups below one domain of a stage, or nothing: first by packing alone, the best fit first, then by
    /// searching the domains where that failed. Where pods matter to each other there is only the search. Where the devices
    /// stand unevenly over hosts, a few further domains are compared.
    fn place_freely(
        &mut self,
        txn: &mut Txn<'_>,
        groups: &[Group],
        (stage, allowed): (Stage, Allowed),
        steps: &mut u32,
    ) -> Found {
        let mut candidates = Candidates::of(txn, groups, stage, allowed);
        let mut searched = Vec::new();
        let mut best = Best { loose: even::may_share_a_host(txn, groups), ..Best::default() };
        while best.seen < COMPARED
            && let Some(domain) = candidates.next(txn, groups, allowed)
        {
            if !self.tried.insert(domain) {
                continue;
            }
            let order = scarcest_first(txn, groups, domain);
            let start = txn.mark();
            let packed = if self.related {
                search::exhaust(txn, &order, domain, steps, true, None)
            } else {
                pack_all(txn, &order, domain, steps)
            };
            match packed {
                Found::Placed if self.related || best.offer(txn, &order, domain, start, steps) => return Found::Placed,
                Found::Placed => {}
                Found::Nowhere if !self.related && order.len() > 1 => searched.push((order, domain)),
                Found::Nowhere => {}
                Found::Limit => return best.or(txn, Found::Limit),
            }
        }
        for (order, domain) in searched {
            let start = txn.mark();
            match search::exhaust(txn, &order, domain, steps, false, None) {
                Found::Placed if best.offer(txn, &order, domain, start, steps) => return Found::Placed,
                Found::Placed if best.seen >= COMPARED => break,
                Found::Placed | Found::Nowhere => {}
                Found::Limit => return best.or(txn, Found::Limit),
            }
        }
        best.or(txn, Found::Nowhere)
    }

    /// The same for a gang with a layout: block by block, then by searching single members.
    fn place_by_rules(
        &mut self,
        txn: &mut Txn<'_>,
        ask: &Ask,
        groups: &[Group],
        rules: &mut Rules<'_>,
        (stage, allowed): (Stage, Allowed),
        steps: &mut u32,
    ) -> Found {
        let mut candidates = Candidates::of(txn, groups, stage, allowed);
        let mut searched = Vec::new();
        while let Some(domain) = candidates.next(txn, groups, allowed) {
            if !self.tried.insert(domain) {
                continue;
            }
            // Half of the steps, so that a search can still be made where blocks alone lead nowhere.
            let mut share = if self.related { 0 } else { *steps / 2 };
            *steps -= share;
            let packed =
                if self.related { Packed::Unsure } else { blocks::pack(txn, rules, &ask.members, domain, &mut share) };
            *steps += share;
            match packed {
                Packed::Placed => return Found::Placed,
                Packed::Impossible(unmet) => self.unmet = Some((unmet, domain)),
                Packed::Unsure | Packed::Limit => searched.push(domain),
            }
        }
        let bound = blocks::bound_groups(txn, rules, &ask.members);
        for domain in searched {
            let order = scarcest_first(txn, &bound, domain);
            match search::exhaust(txn, &order, domain, steps, self.related, Some(&mut *rules)) {
                Found::Nowhere => {}
                ended => return ended,
            }
        }
        Found::Nowhere
    }
}

/// So many domains of a stage are compared by how evenly the gang stands there.
const COMPARED: usize = 8;

/// The most even of the placements seen so far.
#[derive(Default)]
struct Best {
    found: Option<(Evenness, Vec<(PodId, NodeId)>)>,
    seen: usize,
    /// All members with devices may fit on one host, though not everyone.
    loose: bool,
}

impl Best {
    /// Evens out what was placed since `start`. Whether it is as good as can be, and stays; else it is remembered if it is
    /// the best, and undone.
    fn offer(&mut self, txn: &mut Txn<'_>, groups: &[Group], domain: DomainId, start: Mark, steps: &mut u32) -> bool {
        let evenness = even::level_out(txn, groups, domain, start, self.loose, steps);
        if evenness.ideal {
            return true;
        }
        if self.found.as_ref().is_none_or(|(best, _)| evenness.beats(*best)) {
            self.found = Some((evenness, even::places(txn, groups)));
        }
        self.seen += 1;
        txn.roll_back_to(start);
        false
    }

    /// Puts everyone where it was best; where there is no such place, the other answer.
    fn or(self, txn: &mut Txn<'_>, other: Found) -> Found {
        let Some((_, places)) = self.found else { return other };
        even::restore(txn, &places);
        Found::Placed
    }
}

/// Packs all groups below a domain in this order, or nothing.
pub(super) fn pack_all(txn: &mut Txn<'_>, order: &[Group], domain: DomainId, steps: &mut u32) -> Found {
    let start = txn.mark();
    for group in order {
        let Some(rest) = steps.checked_sub(saturate(group.members.len())) else {
            txn.roll_back_to(start);
            return Found::Limit;
        };
        *steps = rest;
        if place_group(txn, group, domain, group.need()) < group.need() {
            txn.roll_back_to(start);
            return Found::Nowhere;
        }
    }
    Found::Placed
}

/// Groups by how many times they would fit, fewest first.
pub(super) fn scarcest_first(txn: &mut Txn<'_>, groups: &[Group], domain: DomainId) -> Vec<Group> {
    let mut keyed = Vec::with_capacity(groups.len());
    for (at, group) in groups.iter().enumerate() {
        let slots = txn.view(group.shape).map_or(0, |(cache, ..)| cache.slots_in(domain));
        // Slots per member, in thousandths; then the larger group, then the first in rank order.
        keyed.push((slots.saturating_mul(1000) / group.need().max(1), Reverse(group.need()), at));
    }
    keyed.sort_unstable();
    keyed.into_iter().filter_map(|(.., at)| groups.get(at).cloned()).collect()
}

/// Places up to `need` members of a group below a domain, packed; returns how many.
pub(super) fn place_group(txn: &mut Txn<'_>, group: &Group, domain: DomainId, need: u64) -> u64 {
    let mut taken = Vec::new();
    if let Some((cache, _, cluster)) = txn.view(group.shape) {
        fill(cache, cluster, domain, need, &mut taken);
    }
    put(txn, group, taken)
}

/// Places members on nodes, so many on each, ranks in the order of the tree; returns how many.
pub(super) fn put(txn: &mut Txn<'_>, group: &Group, mut taken: Vec<(u32, u64)>) -> u64 {
    let tree = txn.snapshot().cluster().tree();
    taken.sort_by_cached_key(|(node, _)| {
        let mut path: Vec<DomainId> = tree.leaf(*node).map(|leaf| tree.ancestors(leaf).collect()).unwrap_or_default();
        path.reverse();
        (path, *node)
    });
    let mut members = group.members.iter();
    let mut placed = 0;
    for (node, count) in taken {
        let Some(node) = txn.snapshot().cluster().nodes.at(node).map(|(id, _)| id) else { continue };
        for pod in members.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            txn.place(*pod, node);
            placed += 1;
        }
    }
    placed
}

/// Distributes members over the parts of a domain, down to nodes.
fn fill(cache: &ShapeCache, cluster: &Cluster, domain: DomainId, need: u64, taken: &mut Vec<(u32, u64)>) {
    /// Ties between equal parts: soft taints, preferred affinity, domains before nodes, id.
    type Tie = (u32, Reverse<i64>, bool, u32);
    let tree = cluster.tree();
    let mut parts: Vec<(u64, Tie)> = Vec::new();
    for child in tree.children(domain) {
        // A host is as good as its node.
        let only = (tree.size(child) == 1).then(|| tree.nodes(child).next()).flatten();
        let raw = only.map(|node| cache.node(node).raw).unwrap_or_default();
        parts.push((cache.slots_in(child), (raw.taints, Reverse(raw.affinity), false, child.0)));
    }
    for node in tree.nodes(domain) {
        let eval = cache.node(node);
        parts.push((u64::from(eval.slots), (eval.raw.taints, Reverse(eval.raw.affinity), true, node)));
    }
    for ((_, _, is_node, id), count) in gang_packing::distribute(parts, need) {
        if is_node {
            taken.push((id, count));
        } else {
            fill(cache, cluster, DomainId(id), count, taken);
        }
    }
}

/// The places of all members as they are assumed now.
pub(crate) fn ranked(snapshot: &Snapshot, members: &[PodId]) -> Vec<(PodId, NodeId)> {
    members.iter().filter_map(|pod| Some((*pod, snapshot.cluster().pod(*pod)?.place.node()?))).collect()
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
