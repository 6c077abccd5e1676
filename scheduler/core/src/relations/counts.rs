//! How many pods stand on each node: those that a selection selects, and those that hold a term.

use super::terms::{Namespaces, Peer, PodAffinity, PodAffinityTerm, Scope};
use crate::snapshot::{Id, Slab};
use hashbrown::HashMap;
use std::sync::Arc;

/// Which pods are counted: those in all of these scopes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Selection {
    pub(crate) scopes: Vec<Scope>,
    /// Whether deleting pods count.
    pub(crate) deleting: bool,
}

impl Selection {
    fn takes(&self, peer: &Peer, namespaces: &Namespaces) -> bool {
        (self.deleting || !peer.deleting)
            && self.scopes.iter().all(|scope| scope.takes(&peer.namespace, &peer.labels, namespaces))
    }

    fn looks_at_namespaces(&self) -> bool {
        self.scopes.iter().any(|scope| scope.namespace_selector.as_ref().is_some_and(|s| !s.is_empty()))
    }
}

/// A term of a pod that is there, as it concerns others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HeldTerm {
    pub(crate) term: PodAffinityTerm,
    pub(crate) effect: Effect,
}

/// What a held term does to those it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// They may not stand in the same place.
    Forbid,
    /// They are better off in the same place, by as much as their profile says.
    Attract,
    /// They are better or worse off in the same place.
    Score(i64),
}

/// A number per node, and the sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerNode {
    of: Vec<u32>,
    total: u64,
}

impl PerNode {
    pub(crate) fn of(&self, node: u32) -> u32 {
        self.of.get(node as usize).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn add(&mut self, node: u32) {
        let at = node as usize;
        if self.of.len() <= at {
            self.of.resize(at + 1, 0);
        }
        self.of[at] += 1;
        self.total += 1;
    }

    fn remove(&mut self, node: u32) {
        if let Some(count) = self.of.get_mut(node as usize).filter(|count| **count > 0) {
            *count -= 1;
            self.total -= 1;
        }
    }
}

/// Id of a selection; resolves to nothing when it was dropped.
pub(crate) type SelectionId = Id<Selected>;
/// Id of a held term.
pub(crate) type HeldId = Id<Held>;
/// Id of an interned peer.
pub(crate) type PeerId = Id<PeerEntry>;

/// A selection and its counts.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    what: Arc<Selection>,
    count: PerNode,
    used: u64,
}

/// A held term and its holders.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) what: Arc<HeldTerm>,
    count: PerNode,
    refs: u32,
}

/// An interned peer: pods of one template are one.
#[derive(Clone, Debug)]
pub(crate) struct PeerEntry {
    what: Arc<Peer>,
    refs: u32,
    holds: Vec<HeldId>,
    matches: Vec<SelectionId>,
    /// Of the selections that `matches` was made from.
    epoch: u64,
}

type Ids<K, V> = HashMap<Arc<K>, V, foldhash::fast::FixedState>;

/// All counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    selections: Slab<Selected>,
    selection_ids: Ids<Selection, SelectionId>,
    /// Changes when there is a new selection, or one selects others than before.
    epoch: u64,
    /// Times that selections were counted anew without a change of nodes.
    recounts: u64,
    held: Slab<Held>,
    held_ids: Ids<HeldTerm, HeldId>,
    peers: Slab<PeerEntry>,
    peer_ids: Ids<Peer, PeerId>,
}

impl Counts {
    /// Interns a peer and counts one more user.
    pub(crate) fn enter(&mut self, peer: Peer) -> PeerId {
        if let Some(&id) = self.peer_ids.get(&peer) {
            if let Some(entry) = self.peers.get_mut(id) {
                entry.refs += 1;
            }
            return id;
        }
        let holds = held_terms(&peer.affinity).into_iter().map(|term| self.hold(term)).collect();
        let what = Arc::new(peer);
        let id = self.peers.insert(PeerEntry {
            what: Arc::clone(&what),
            refs: 1,
            holds,
            matches: Vec::new(),
            epoch: u64::MAX,
        });
        self.peer_ids.insert(what, id);
        id
    }

    /// Counts one user less; the last one ends it. The pod stands on no node any more.
    pub(crate) fn leave(&mut self, id: PeerId) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        entry.refs -= 1;
        if entry.refs == 0
            && let Some(gone) = self.peers.remove(id)
        {
            self.peer_ids.remove(&gone.what);
            gone.holds.into_iter().for_each(|held| self.let_go(held));
        }
    }

    /// A peer.
    pub(crate) fn peer(&self, id: PeerId) -> Option<&Arc<Peer>> {
        self.peers.get(id).map(|entry| &entry.what)
    }

    fn hold(&mut self, term: HeldTerm) -> HeldId {
        if let Some(&id) = self.held_ids.get(&term) {
            if let Some(held) = self.held.get_mut(id) {
                held.refs += 1;
            }
            return id;
        }
        let what = Arc::new(term);
        let id = self.held.insert(Held { what: Arc::clone(&what), count: PerNode::default(), refs: 1 });
        self.held_ids.insert(what, id);
        id
    }

    fn let_go(&mut self, id: HeldId) {
        let Some(held) = self.held.get_mut(id) else { return };
        held.refs -= 1;
        if held.refs == 0
            && let Some(gone) = self.held.remove(id)
        {
            self.held_ids.remove(&gone.what);
        }
    }

    /// A pod stands on a node now.
    pub(crate) fn put_on(&mut self, peer: PeerId, node: u32, namespaces: &Namespaces) {
        self.count(peer, namespaces, |count| count.add(node));
    }

    /// A pod left its node.
    pub(crate) fn take_off(&mut self, peer: PeerId, node: u32, namespaces: &Namespaces) {
        self.count(peer, namespaces, |count| count.remove(node));
    }

    fn count(&mut self, peer: PeerId, namespaces: &Namespaces, change: impl Fn(&mut PerNode)) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        if entry.epoch != self.epoch {
            let selected = self.selections.iter().filter(|(_, s)| s.what.takes(&entry.what, namespaces));
            entry.matches = selected.map(|(id, _)| id).collect();
            entry.epoch = self.epoch;
        }
        for id in &entry.matches {
            if let Some(selected) = self.selections.get_mut(*id) {
                change(&mut selected.count);
            }
        }
        for id in &entry.holds {
            if let Some(held) = self.held.get_mut(*id) {
                change(&mut held.count);
            }
        }
    }

    /// The id of a selection; a new one counts everything that is placed, `O(pods)`.
    pub(crate) fn select(
        &mut self,
        what: Selection,
        now: u64,
        namespaces: &Namespaces,
        placed: impl Iterator<Item = (PeerId, u32)>,
    ) -> SelectionId {
        if let Some(&id) = self.selection_ids.get(&what) {
            if let Some(selected) = self.selections.get_mut(id) {
                selected.used = now;
            }
            return id;
        }
        let count = self.sum(&what, namespaces, placed);
        let what = Arc::new(what);
        let id = self.selections.insert(Selected { what: Arc::clone(&what), count, used: now });
        self.selection_ids.insert(what, id);
        self.epoch += 1;
        id
    }

    fn sum(&self, what: &Selection, namespaces: &Namespaces, placed: impl Iterator<Item = (PeerId, u32)>) -> PerNode {
        let mut known: Vec<Option<bool>> = vec![None; self.peers.bound()];
        let mut count = PerNode::default();
        for (peer, node) in placed {
            let Some(entry) = self.peers.get(peer) else { continue };
            if *known[peer.index()].get_or_insert_with(|| what.takes(&entry.what, namespaces)) {
                count.add(node);
            }
        }
        count
    }

    /// Counts anew what depends on the labels of namespaces. `O(pods)` for each such selection.
    pub(crate) fn namespaces_changed<I: Iterator<Item = (PeerId, u32)>>(
        &mut self,
        namespaces: &Namespaces,
        placed: impl Fn() -> I,
    ) {
        let affected = self.selections.iter().filter(|(_, s)| s.what.looks_at_namespaces());
        let affected: Vec<(SelectionId, Arc<Selection>)> = affected.map(|(id, s)| (id, Arc::clone(&s.what))).collect();
        for (id, what) in affected {
            let count = self.sum(&what, namespaces, placed());
            if let Some(selected) = self.selections.get_mut(id) {
                selected.count = count;
            }
        }
        self.epoch += 1;
        self.recounts += 1;
    }

    pub(crate) fn recounts(&self) -> u64 {
        self.recounts
    }

    /// How many selected pods stand on each node.
    pub(crate) fn selected(&self, id: SelectionId) -> Option<&PerNode> {
        self.selections.get(id).map(|selected| &selected.count)
    }

    /// How many holders stand on each node.
    pub(crate) fn holders(&self, id: HeldId) -> Option<&PerNode> {
        self.held.get(id).map(|held| &held.count)
    }

    /// The terms of pods that stand somewhere.
    pub(crate) fn held(&self) -> impl Iterator<Item = (HeldId, &HeldTerm)> {
        self.held.iter().filter(|(_, held)| held.count.total > 0).map(|(id, held)| (id, &*held.what))
    }

    /// Drops the selections that nobody asked for since.
    pub(crate) fn trim(&mut self, since: u64) {
        let unused: Vec<SelectionId> =
            self.selections.iter().filter(|(_, s)| s.used < since).map(|(id, _)| id).collect();
        for id in unused {
            if let Some(gone) = self.selections.remove(id) {
                self.selection_ids.remove(&gone.what);
            }
        }
    }
}

/// What the terms of a pod do to others once it stands somewhere.
fn held_terms(affinity: &PodAffinity) -> Vec<HeldTerm> {
    let held = |term: &PodAffinityTerm, effect| HeldTerm { term: term.clone(), effect };
    let forbid = affinity.required_anti.iter().map(|term| held(term, Effect::Forbid));
    let hard = affinity.required.iter().map(|term| held(term, Effect::Attract));
    let soft = affinity.preferred.iter().map(|(weight, term)| held(term, Effect::Score(i64::from(*weight))));
    let anti = affinity.preferred_anti.iter().map(|(weight, term)| held(term, Effect::Score(-i64::from(*weight))));
    forbid.chain(hard).chain(soft).chain(anti).collect()
}

#[cfg(test)]
impl Counts {
    /// `counts_are_sums`: every count equals the sum over what is placed.
    pub(super) fn assert_sums(&self, namespaces: &Namespaces, placed: &[(PeerId, u32)]) {
        let same = |count: &PerNode, expected: &PerNode| {
            let nodes = count.of.len().max(expected.of.len());
            assert!(
                (0..nodes).all(|n| u32::try_from(n).is_ok_and(|n| count.of(n) == expected.of(n))),
                "{count:?} {expected:?}"
            );
            assert_eq!(count.total, expected.total);
        };
        for (_, selected) in self.selections.iter() {
            same(&selected.count, &self.sum(&selected.what, namespaces, placed.iter().copied()));
        }
        for (id, held) in self.held.iter() {
            let mut expected = PerNode::default();
            for (peer, node) in placed {
                let holds = self.peers.get(*peer).map_or(0, |entry| entry.holds.iter().filter(|h| **h == id).count());
                (0..holds).for_each(|_| expected.add(*node));
            }
            same(&held.count, &expected);
        }
    }

    /// Peers and held terms that are interned.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.peers.len(), self.held.len())
    }
}
