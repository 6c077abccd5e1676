//! Gangs with a layout: block by block (segment, role), each inside one domain where it is tied, below a domain that may hold all.
//!
//! The counters of a domain say which of its parts can take a block; the tightest is tried first, so that segments share a
//! domain before they break another one. A block that fits nowhere sends the one before it elsewhere, as long as the steps
//! last. What counting alone refutes (a block that no domain takes, more segments than there is room for, too few failure
//! domains) is told as such and not searched. `O(blocks · domains)` where nobody has to be moved; in the end equal blocks
//! change places so that ranks follow the order of the tree.

use super::even;
use super::layout::Block;
use super::plan::{Group, groups, pack_all, place_group, scarcest_first};
use super::rules::Rules;
use super::search::Found;
use crate::plugins::gang_packing::evenly;
use crate::shape::ShapeId;
use crate::snapshot::{Mark, NodeId, PodId, Txn};
use flowforge_topology_core::{DomainId, LevelIndex, Tree};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What came of placing all blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packed {
    /// All are placed.
    Placed,
    /// They were not placed; a search of single members may.
    Unsure,
    /// They cannot be.
    Impossible(Box<Unmet>),
    /// No step is left.
    Limit,
}

/// A rule that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unmet {
    /// For people.
    pub(super) what: String,
    /// A member that it is about.
    pub(super) member: PodId,
    /// Members that would fit.
    pub(super) fit: u64,
}

/// Members of a block that need a place, by shape.
struct Part<'a> {
    /// Place of its block in the layout.
    at: usize,
    block: &'a Block,
    groups: Vec<Group>,
}

/// The parts of these members, those that are tied closest and the largest first.
fn parts<'a>(txn: &Txn<'_>, rules: &Rules<'a>, members: &[PodId]) -> Vec<Part<'a>> {
    let asked: BTreeSet<PodId> = members.iter().copied().collect();
    let mut parts = Vec::new();
    for (at, block) in rules.layout.blocks.iter().enumerate() {
        let own: Vec<PodId> = block.members.iter().copied().filter(|pod| asked.contains(pod)).collect();
        if !own.is_empty() {
            parts.push(Part { at, block, groups: groups(txn.snapshot(), &own) });
        }
    }
    parts.sort_by_key(|part| (Reverse(part.block.level), Reverse(part.need())));
    parts
}

impl Part<'_> {
    fn need(&self) -> u64 {
        self.groups.iter().map(Group::need).sum()
    }

    fn members(&self) -> Vec<PodId> {
        self.groups.iter().flat_map(|group| group.members.iter().copied()).collect()
    }

    fn first(&self) -> Option<PodId> {
        self.groups.first()?.members.first().copied()
    }
}

/// Members by shape and by what binds them: those of one group are interchangeable.
pub(super) fn bound_groups(txn: &Txn<'_>, rules: &Rules<'_>, members: &[PodId]) -> Vec<Group> {
    let mut bound: BTreeMap<_, Vec<PodId>> = BTreeMap::new();
    members.iter().for_each(|pod| bound.entry(rules.bound(*pod)).or_default().push(*pod));
    bound.into_values().flat_map(|members| groups(txn.snapshot(), &members)).collect()
}

/// Places these members below a domain, or none of them.
pub(super) fn pack(
    txn: &mut Txn<'_>,
    rules: &mut Rules<'_>,
    members: &[PodId],
    domain: DomainId,
    steps: &mut u32,
) -> Packed {
    let parts = parts(txn, rules, members);
    if let Some(unmet) = refuted(txn, rules, &parts, domain) {
        return Packed::Impossible(Box::new(unmet));
    }
    let (start, ruled) = (txn.mark(), rules.mark());
    let packed = match (rules.share(), parts.as_slice()) {
        (Some((share, level, least)), [Part { block, groups, .. }])
            if block.level.is_none() && groups.len() == 1 && rules.standing == 0 =>
        {
            slices(txn, rules, &groups[0], domain, (share, level, least), steps)
        }
        _ => one_by_one(txn, rules, &parts, domain, steps),
    };
    match packed {
        Packed::Placed => in_rank_order(txn, rules, &parts, start, ruled),
        _ => undo(txn, rules, start, ruled),
    }
    packed
}

fn undo(txn: &mut Txn<'_>, rules: &mut Rules<'_>, start: Mark, ruled: usize) {
    txn.roll_back_to(start);
    rules.undo_to(txn.snapshot().cluster(), ruled);
}

/// What counting alone refutes below a domain.
fn refuted(txn: &mut Txn<'_>, rules: &Rules<'_>, parts: &[Part<'_>], domain: DomainId) -> Option<Unmet> {
    for part in parts {
        let (Some(level), Some(member)) = (part.block.level, part.first()) else { continue };
        if !choices(txn, rules, part, domain).is_empty() {
            continue;
        }
        let best = best_fit(txn, part, level, domain);
        let tree = txn.snapshot().cluster().tree();
        let (name, need, level) = (&part.block.name, part.need(), tree.levels().name(level));
        let what = match best {
            Some((fit, best)) => {
                format!("{name} needs one {level} for {need} members, {fit} fit (in {})", tree.describe(best))
            }
            None => format!("{name} needs one {level} for {need} members, and there is none"),
        };
        return Some(Unmet { what, member, fit: best.map_or(0, |(fit, _)| fit) });
    }
    too_many_segments(txn, parts, domain).or_else(|| too_few_domains(txn, rules, parts, domain))
}

/// The domain of a level where most of a part fits, as if each of its shapes were alone.
fn best_fit(txn: &mut Txn<'_>, part: &Part<'_>, level: LevelIndex, domain: DomainId) -> Option<(u64, DomainId)> {
    let mut fits: BTreeMap<DomainId, u64> = BTreeMap::new();
    for at in within(txn.snapshot().cluster().tree(), domain, level) {
        fits.insert(at, 0);
    }
    for group in &part.groups {
        let (cache, ..) = txn.view(group.shape)?;
        fits.iter_mut().for_each(|(at, fit)| *fit += cache.slots_in(*at).min(group.need()));
    }
    fits.into_iter().map(|(at, fit)| (fit, Reverse(at))).max().map(|(fit, Reverse(at))| (fit, at))
}

/// More parts of one shape, tied at one level, than its domains have room for.
fn too_many_segments(txn: &mut Txn<'_>, parts: &[Part<'_>], domain: DomainId) -> Option<Unmet> {
    let mut alike: BTreeMap<(ShapeId, LevelIndex), (u64, u64)> = BTreeMap::new();
    for part in parts {
        if let ([only], Some(level)) = (part.groups.as_slice(), part.block.level) {
            let (count, least) = alike.entry((only.shape, level)).or_insert((0, u64::MAX));
            (*count, *least) = (*count + 1, only.need().min(*least));
        }
    }
    for ((shape, level), (count, least)) in alike.into_iter().filter(|(_, (count, _))| *count > 1) {
        let (cache, _, cluster) = txn.view(shape)?;
        let room = within(cluster.tree(), domain, level).map(|at| cache.slots_in(at) / least).sum::<u64>();
        if room < count {
            let level = cluster.tree().levels().name(level);
            let what = format!("{count} segments of {least} need one {level} each, there is room for {room}");
            let member = parts.iter().find(|part| part.groups.first().is_some_and(|g| g.shape == shape))?.first()?;
            return Some(Unmet { what, member, fit: room * least });
        }
    }
    None
}

/// Fewer failure domains with room than are asked for.
fn too_few_domains(txn: &mut Txn<'_>, rules: &Rules<'_>, parts: &[Part<'_>], domain: DomainId) -> Option<Unmet> {
    let (share, level, least) = rules.share().filter(|_| rules.standing == 0)?;
    let member = parts.first()?.first()?;
    let mut rooms: BTreeMap<DomainId, u64> = BTreeMap::new();
    for group in parts.iter().flat_map(|part| &part.groups) {
        let (cache, _, cluster) = txn.view(group.shape)?;
        for at in within(cluster.tree(), domain, level) {
            let room = rooms.entry(at).or_default();
            *room = room.saturating_add(cache.slots_in(at)).min(share.into());
        }
    }
    rooms.retain(|_, room| *room > 0);
    let (have, fit) = (rooms.len() as u64, rooms.values().sum::<u64>());
    let need: u64 = parts.iter().map(Part::need).sum();
    if have >= u64::from(least) && fit >= need {
        return None;
    }
    let level = txn.snapshot().cluster().tree().levels().name(level);
    let what =
        format!("spread needs {least} domains of level {level} for at most {share} members each, {have} have room");
    Some(Unmet { what, member, fit: fit.min(need) })
}

/// The domains of a level below a domain; that itself where it is no wider.
fn within(tree: &Tree, domain: DomainId, level: LevelIndex) -> impl Iterator<Item = DomainId> + '_ {
    let above = tree.ancestors(domain).find(|at| tree.level(*at) == Some(level)).map(|_| domain);
    let below = tree.domains_at(level).filter(move |at| above.is_none() && tree.contains(domain, *at));
    above.into_iter().chain(below)
}

/// Where a part may stand below a domain, best first: preferred levels in their order, then the level where it is tied; of a
/// level the domain with the least left over.
fn choices(txn: &mut Txn<'_>, rules: &Rules<'_>, part: &Part<'_>, domain: DomainId) -> Vec<DomainId> {
    let held = part.first().and_then(|pod| rules.held(pod));
    let tree = txn.snapshot().cluster().tree();
    let wide = held.map_or(Some(domain), |held| narrower(tree, held, domain));
    let Some(wide) = wide else { return Vec::new() };
    let tied = part.block.level;
    let preferred = part.block.preferred.iter().copied().filter(|level| tied.is_none_or(|tied| *level > tied));
    let mut all: Vec<DomainId> = Vec::new();
    for level in preferred.map(Some).chain([tied]) {
        let tree = txn.snapshot().cluster().tree();
        let at: Vec<DomainId> = level.map_or_else(|| vec![wide], |level| within(tree, wide, level).collect());
        let mut left: Vec<(u64, DomainId)> = at.into_iter().map(|at| (0, at)).collect();
        for group in &part.groups {
            let Some((cache, ..)) = txn.view(group.shape) else { return Vec::new() };
            left.retain_mut(|(left, at)| {
                let more = cache.slots_in(*at).checked_sub(group.need());
                *left += more.unwrap_or(0);
                more.is_some()
            });
        }
        left.sort_unstable();
        all.extend(left.into_iter().map(|(_, at)| at));
    }
    all
}

/// The narrower of two domains of which one lies in the other.
fn narrower(tree: &Tree, a: DomainId, b: DomainId) -> Option<DomainId> {
    if tree.contains(b, a) { Some(a) } else { tree.contains(a, b).then_some(b) }
}

/// A part on trial: where it may still go, and how things stood before.
struct Trial {
    choices: std::vec::IntoIter<DomainId>,
    start: Mark,
    ruled: usize,
}

fn trial(txn: &mut Txn<'_>, rules: &Rules<'_>, part: &Part<'_>, domain: DomainId) -> Trial {
    let choices = choices(txn, rules, part, domain).into_iter();
    Trial { choices, start: txn.mark(), ruled: rules.mark() }
}

/// One part after the other; one that finds no place moves the one before it.
fn one_by_one(
    txn: &mut Txn<'_>,
    rules: &mut Rules<'_>,
    parts: &[Part<'_>],
    domain: DomainId,
    steps: &mut u32,
) -> Packed {
    let Some(first) = parts.first() else { return Packed::Placed };
    let mut trials = vec![trial(txn, rules, first, domain)];
    while let Some(last) = trials.last_mut() {
        undo(txn, rules, last.start, last.ruled);
        let Some(choice) = last.choices.next() else {
            trials.pop();
            continue;
        };
        let part = &parts[trials.len() - 1];
        let order = scarcest_first(txn, &part.groups, choice);
        match pack_all(txn, &order, choice, steps) {
            Found::Placed if rules.put_all(txn.snapshot().cluster(), &part.members()) => {
                let Some(next) = parts.get(trials.len()) else { return Packed::Placed };
                trials.push(trial(txn, rules, next, domain));
            }
            Found::Placed | Found::Nowhere => {}
            Found::Limit => return Packed::Limit,
        }
    }
    Packed::Unsure
}

/// Members of one shape over the fewest failure domains that will do, as evenly as they let, the tightest of equal ones.
fn slices(
    txn: &mut Txn<'_>,
    rules: &mut Rules<'_>,
    group: &Group,
    domain: DomainId,
    (share, level, least): (u32, LevelIndex, u32),
    steps: &mut u32,
) -> Packed {
    let Some((cache, _, cluster)) = txn.view(group.shape) else { return Packed::Unsure };
    let room = |at: DomainId| (Reverse(cache.slots_in(at).min(share.into())), cache.slots_in(at), at);
    let mut rooms: Vec<_> = within(cluster.tree(), domain, level).map(room).collect();
    rooms.sort_unstable();
    let sums = rooms.iter().scan(0, |sum, (Reverse(room), ..)| {
        let before = *sum;
        *sum += room;
        Some(before)
    });
    let enough = sums.take_while(|before| *before < group.need()).count();
    let count = enough.max(least as usize).min(rooms.len());
    let chosen = rooms[..count].iter().map(|(Reverse(room), _, at)| (*room, *at)).collect();
    let mut taken = evenly(chosen, group.need());
    taken.sort_by_cached_key(|(at, _)| path(txn.snapshot().cluster().tree(), *at));
    let Some(rest) = steps.checked_sub(u32::try_from(group.members.len()).unwrap_or(u32::MAX)) else {
        return Packed::Limit;
    };
    *steps = rest;
    let mut members = group.members.iter().copied();
    for (at, count) in taken {
        let own = members.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
        let slice = Group { shape: group.shape, members: own };
        place_group(txn, &slice, at, slice.need());
    }
    if rules.put_all(txn.snapshot().cluster(), &group.members) { Packed::Placed } else { Packed::Unsure }
}

/// A domain's ancestors, widest first: the order of the tree.
fn path(tree: &Tree, domain: DomainId) -> Vec<DomainId> {
    let mut path: Vec<DomainId> = tree.ancestors(domain).collect();
    path.reverse();
    path
}

/// Parts of one role that look alike change places, so that the first of them comes first in the tree.
fn in_rank_order(txn: &mut Txn<'_>, rules: &mut Rules<'_>, parts: &[Part<'_>], start: Mark, ruled: usize) {
    // Blocks of one role, shape and size, with their places in the layout.
    type Alike<'a> = BTreeMap<(usize, ShapeId, usize), Vec<(usize, &'a Group)>>;
    let mut alike = Alike::new();
    for part in parts {
        if let [only] = part.groups.as_slice() {
            alike.entry((part.block.role, only.shape, only.members.len())).or_default().push((part.at, only));
        }
    }
    alike.retain(|_, groups| groups.len() > 1);
    if alike.is_empty() {
        return;
    }
    let all: Vec<Group> = parts.iter().flat_map(|part| part.groups.iter().cloned()).collect();
    let mut places: BTreeMap<PodId, NodeId> = even::places(txn, &all).into_iter().collect();
    for mut groups in alike.into_values() {
        let tree = txn.snapshot().cluster().tree();
        let stand =
            |(_, group): &(usize, &Group)| group.members.iter().filter_map(|pod| places.get(pod).copied()).collect();
        let mut stands: Vec<Vec<NodeId>> = groups.iter().map(stand).collect();
        stands.sort_by_cached_key(|nodes| {
            nodes.first().map(|node| (tree.leaf(node.dense()).map(|leaf| path(tree, leaf)), *node))
        });
        groups.sort_unstable_by_key(|(at, _)| *at);
        for ((_, group), nodes) in groups.into_iter().zip(stands) {
            places.extend(group.members.iter().copied().zip(nodes));
        }
    }
    undo(txn, rules, start, ruled);
    for (pod, node) in places {
        txn.place(pod, node);
        rules.put(txn.snapshot().cluster(), pod, node);
    }
}
