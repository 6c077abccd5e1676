//! Why a gang has no place: how far it gets in the best domain, and what the nodes have against the next member.

use super::plan::{Ask, Group, Nowhere, Stager, place_group, scarcest_first};
use super::search;
use crate::cycle;
use crate::explain::{Reason, Seen};
use crate::shape::{Shape, ShapeCache, ShapeId, Verdict, verdict_when_full};
use crate::snapshot::{Cluster, Txn};
use flowforge_topology_core::DomainId;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Why there is no place for everyone, and what the layout asks for in vain, where that is why.
pub(super) fn explain(txn: &mut Txn<'_>, ask: &Ask, groups: &[Group], stager: &Stager<'_>) -> Option<Nowhere> {
    let by_count = by_count(txn, ask, groups, stager);
    if by_count.is_some() || ask.layout.is_empty() {
        return by_count;
    }
    let (member, fit, part, domain) = match &stager.unmet {
        Some((unmet, domain)) => (unmet.member, unmet.fit, unmet.what.clone(), *domain),
        None => {
            let all = u64::try_from(ask.members.len()).unwrap_or(u64::MAX);
            (*ask.members.first()?, all, "its parts do not fit together".to_owned(), DomainId::ROOT)
        }
    };
    let seen = seen_of(txn, txn.snapshot().cluster().pod(member)?.shape?, domain)?;
    let name = ask.required.map(|_| txn.snapshot().cluster().tree().describe(domain));
    let fit = u32::try_from(fit).unwrap_or(u32::MAX);
    Some(Nowhere { fit, domain: name, member, seen, proven: false, part: Some(part) })
}

/// Gets as far as possible and says what the nodes have against the first member that is left; None where all fit by count.
fn by_count(txn: &mut Txn<'_>, ask: &Ask, groups: &[Group], stager: &Stager<'_>) -> Option<Nowhere> {
    let start = txn.mark();
    let allowed = stager.allowed.domains(txn.snapshot().cluster().tree());
    let mut fits: Vec<(u64, Reverse<DomainId>)> = allowed.into_iter().map(|d| (0, Reverse(d))).collect();
    for group in groups {
        let cache = txn.view(group.shape)?.0;
        fits.iter_mut().for_each(|(fit, domain)| *fit += cache.slots_in(domain.0).min(group.need()));
    }
    let first = groups.first()?;
    let Some((_, Reverse(domain))) = fits.into_iter().max() else {
        let seen = seen_of(txn, first.shape, DomainId::ROOT)?;
        return Some(Nowhere { fit: 0, domain: None, member: *first.members.first()?, seen, proven: true, part: None });
    };
    let name = |txn: &Txn<'_>, fit| {
        (ask.required.is_some() && fit > 0).then(|| txn.snapshot().cluster().tree().describe(domain))
    };
    if let ([only], false) = (groups, stager.related)
        && let Some((fit, seen)) = filled(txn, only.shape, domain, only.need())
    {
        let member = *only.members.get(usize::try_from(fit).ok()?)?;
        let domain = name(txn, fit);
        return Some(Nowhere {
            fit: u32::try_from(fit).unwrap_or(u32::MAX),
            domain,
            member,
            seen,
            proven: false,
            part: None,
        });
    }
    if stager.related {
        let order = scarcest_first(txn, groups, domain);
        let Some((fit, member, seen)) = search::until_stuck(txn, &order, domain) else {
            txn.roll_back_to(start);
            return None;
        };
        let domain = name(txn, u64::from(fit));
        txn.roll_back_to(start);
        return Some(Nowhere { fit, domain, member, seen, proven: false, part: None });
    }
    let (mut fit, mut missing) = (0, None);
    for group in scarcest_first(txn, groups, domain) {
        let placed = place_group(txn, &group, domain, group.need());
        fit += placed;
        if placed < group.need() && missing.is_none() {
            missing = Some((group.shape, *group.members.get(usize::try_from(placed).ok()?)?));
        }
    }
    // A mixed gang whose greedy placement succeeds here failed elsewhere in the search; that cannot be explained by counts.
    let Some((shape, member)) = missing else {
        txn.roll_back_to(start);
        return None;
    };
    let seen = seen_of(txn, shape, domain)?;
    let name = name(txn, fit);
    txn.roll_back_to(start);
    Some(Nowhere { fit: u32::try_from(fit).unwrap_or(u32::MAX), domain: name, member, seen, proven: false, part: None })
}

pub(super) fn seen_of(txn: &mut Txn<'_>, shape: ShapeId, domain: DomainId) -> Option<Seen> {
    let (cache, shape, cluster): (&ShapeCache, &Shape, &Cluster) = txn.view(shape)?;
    if domain != DomainId::ROOT {
        return Some(cycle::seen_within(cache, shape, cluster, domain));
    }
    let mut seen = Seen { total: cluster.node_count(), ..Seen::default() };
    cycle::count(cache.histogram(), &shape.spec, &mut seen);
    Some(seen)
}

/// How many members of one shape fit below a domain, fewer than `need`, and what the nodes say about the next one once those
/// stand there; without placing them, for copies of one shape fill a node in one way only. None: all fit.
/// `O(kinds of verdicts + nodes of the domain that take a member)`.
pub(super) fn filled(txn: &mut Txn<'_>, shape: ShapeId, domain: DomainId, need: u64) -> Option<(u64, Seen)> {
    let (cache, shape, cluster) = txn.view(shape)?;
    let fit = cache.slots_in(domain);
    if fit >= need {
        return None;
    }
    let mut inside = Vec::new();
    search::collect(cache, cluster, domain, &mut inside);
    let mut verdicts: BTreeMap<Verdict, u32> = BTreeMap::new();
    for node in &inside {
        *verdicts.entry(verdict_when_full(*node, &shape.spec, cluster, cache.node(node.dense()).slots)).or_default() +=
            1;
    }
    let mut seen = Seen { total: cluster.node_count(), ..Seen::default() };
    cycle::count(cache.histogram(), &shape.spec, &mut seen);
    cycle::count(&verdicts, &shape.spec, &mut seen);
    if domain != DomainId::ROOT {
        let outside = cache.feasible() - inside.len();
        seen.add(Reason::OutsideDomain(cluster.tree().describe(domain)), u32::try_from(outside).unwrap_or(u32::MAX));
    }
    Some((fit, seen))
}
