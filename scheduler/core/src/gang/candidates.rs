//! Which domains may hold a whole gang, by the counters: the best fit first.
//!
//! For a gang of one shape the counters of every level are kept in order, so that the next candidate costs
//! `O(log domains)`, also where a thousand domains could hold it or none can. Of mixed gangs every domain that can hold the
//! first shape is looked at, `O(such domains · shapes)`.

use super::plan::{Ask, Group};
use crate::snapshot::{End, Snapshot, Txn};
use flowforge_topology_core::{DomainId, LevelIndex, Tree};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Domains one of which must hold everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// The whole cluster.
    Cluster,
    /// Any domain of this level.
    Level(LevelIndex),
    /// The one where members stand already.
    Domain(DomainId),
}

impl Allowed {
    /// Whether a domain is one of them or lies in one.
    pub(super) fn contains(self, tree: &Tree, domain: DomainId) -> bool {
        match self {
            Self::Cluster => true,
            Self::Level(level) => tree.ancestors(domain).any(|above| tree.level(above) == Some(level)),
            Self::Domain(one) => tree.contains(one, domain),
        }
    }

    /// The one of them that a node is in.
    pub(crate) fn of(self, tree: &Tree, node: u32) -> Option<DomainId> {
        match self {
            Self::Cluster => Some(DomainId::ROOT),
            Self::Level(level) => tree.domain_of(node, level),
            Self::Domain(one) => tree.leaf(node).filter(|leaf| tree.contains(one, *leaf)).map(|_| one),
        }
    }

    /// All of them, in id order.
    pub(super) fn domains(self, tree: &Tree) -> Vec<DomainId> {
        match self {
            Self::Cluster => vec![DomainId::ROOT],
            Self::Level(level) => tree.domains_at(level).collect(),
            Self::Domain(one) => vec![one],
        }
    }

    /// They as the domains to look at.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Cluster => Stage::Domain(DomainId::ROOT),
            Self::Level(level) => Stage::Level(level),
            Self::Domain(one) => Stage::Domain(one),
        }
    }
}

/// Domains that are equally good but for what is left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// All of this level that are allowed.
    Level(LevelIndex),
    /// This one.
    Domain(DomainId),
}

/// The domains of a stage that can hold everyone by the counters: least left over first, then the lowest id.
pub(super) enum Candidates {
    /// Read off the counters of the only shape.
    Ordered { level: LevelIndex, after: Option<(u64, DomainId)> },
    /// Put together for several shapes: what is left over, domain.
    Listed(BinaryHeap<Reverse<(u64, DomainId)>>),
}

impl Candidates {
    pub(super) fn of(txn: &mut Txn<'_>, groups: &[Group], stage: Stage, allowed: Allowed) -> Self {
        match (stage, groups) {
            (Stage::Level(level), [_]) => Self::Ordered { level, after: None },
            (Stage::Level(level), _) => {
                let mut domains: Vec<DomainId> = match groups.first().and_then(|group| txn.view(group.shape)) {
                    Some((cache, ..)) => cache.domains_with(level, groups[0].need(), None).map(|(_, d)| d).collect(),
                    None => txn.snapshot().cluster().tree().domains_at(level).collect(),
                };
                let tree = txn.snapshot().cluster().tree();
                domains.retain(|domain| allowed.contains(tree, *domain));
                Self::listed(txn, groups, domains)
            }
            (Stage::Domain(domain), _) => Self::listed(txn, groups, vec![domain]),
        }
    }

    fn listed(txn: &mut Txn<'_>, groups: &[Group], domains: Vec<DomainId>) -> Self {
        let mut left: Vec<Reverse<(u64, DomainId)>> = domains.into_iter().map(|d| Reverse((0, d))).collect();
        for group in groups {
            let Some((cache, ..)) = txn.view(group.shape) else { return Self::Listed(BinaryHeap::new()) };
            left.retain_mut(|Reverse((left, domain))| {
                let more = cache.slots_in(*domain).checked_sub(group.need());
                *left += more.unwrap_or(0);
                more.is_some()
            });
        }
        Self::Listed(BinaryHeap::from(left))
    }

    /// The next one; the transaction stands as it did when the first was asked for.
    pub(super) fn next(&mut self, txn: &mut Txn<'_>, groups: &[Group], allowed: Allowed) -> Option<DomainId> {
        match self {
            Self::Listed(heap) => heap.pop().map(|Reverse((_, domain))| domain),
            Self::Ordered { level, after } => {
                let group = groups.first()?;
                let (cache, _, cluster) = txn.view(group.shape)?;
                let mut domains = cache.domains_with(*level, group.need(), *after);
                let found = domains.find(|(_, domain)| allowed.contains(cluster.tree(), *domain))?;
                *after = Some(found);
                Some(found.1)
            }
        }
    }
}

/// Whether the counters leave a place possible in some allowed domain.
pub(super) fn any(snapshot: &mut Snapshot, ask: &Ask, groups: &[Group], allowed: Allowed) -> bool {
    snapshot.transact(|txn| {
        txn.keep_promises(&ask.members);
        let first = Candidates::of(txn, groups, allowed.stage(), allowed).next(txn, groups, allowed);
        End::RollBack(first.is_some())
    })
}
