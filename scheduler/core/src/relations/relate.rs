//! What the relations of one pod come to: its rules, by id. Made when the pod asks, and used at once.

use super::Relations;
use super::columns::KeyId;
use super::counts::{Effect, HeldId, HeldTerm, PeerId, Selection, SelectionId};
use super::terms::{PodAffinityTerm, Scope, SpreadConstraint};
use crate::labels::Labels;
use crate::model::PodInfo;
use crate::plugins::pod_topology_spread;
use crate::profile::{Filter, Profile, SpreadDefaults};
use crate::snapshot::{NodeRecord, PodRecord, Slab};
use flowforge_topology_core::HOSTNAME;
use smol_str::SmolStr;

/// A spread constraint, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(super) key: KeyId,
    pub(super) by_host: bool,
    pub(super) max_skew: u32,
    pub(super) min_domains: u32,
    pub(super) honor_affinity: bool,
    pub(super) honor_taints: bool,
    /// None: an empty selector, which counts nobody.
    pub(super) selection: Option<SelectionId>,
    pub(super) matches_itself: bool,
}

/// Required affinity, resolved: one selection of the pods that match all terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Affinity {
    pub(super) selection: SelectionId,
    pub(super) keys: Vec<KeyId>,
    pub(super) matches_itself: bool,
}

/// Whose pods are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Selected(SelectionId),
    Holders(HeldId),
}

/// The rules of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(super) hard: Vec<Spread>,
    pub(super) soft: Vec<Spread>,
    /// Whether a node must have the keys of all soft constraints to be scored by them.
    pub(super) all_keys: bool,
    pub(super) affinity: Option<Affinity>,
    /// Places of these must be empty, by the pod's own anti-terms.
    pub(super) anti: Vec<(SelectionId, KeyId)>,
    /// The same, by the anti-terms of pods that are there.
    pub(super) against: Vec<(HeldId, KeyId)>,
    /// What pods in the same place add to the score.
    pub(super) scored: Vec<(Source, KeyId, i64)>,
    /// Weights of the scores: spread, affinity.
    pub(super) weights: [i64; 2],
}

impl Relation {
    /// Whether it can refuse a node.
    pub(crate) fn refuses(&self) -> bool {
        !self.hard.is_empty() || self.affinity.is_some() || !self.anti.is_empty() || !self.against.is_empty()
    }

    /// Whether it can prefer a node to another.
    pub(crate) fn ranks(&self) -> bool {
        !self.soft.is_empty() || !self.scored.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.refuses() && !self.ranks()
    }
}

/// Resolves rules against what is known of the cluster.
struct Resolver<'a> {
    relations: &'a mut Relations,
    nodes: &'a Slab<NodeRecord>,
    pods: &'a Slab<PodRecord>,
    pod: &'a PodInfo,
    profile: &'a Profile,
}

impl Relations {
    /// The rules of a pod; None where it is related to nobody. `O(its rules + terms of pods that are there)`; a selection or
    /// key that nobody asked for lately costs `O(pods)` or `O(nodes)`.
    pub(crate) fn relate(
        &mut self,
        pod: &PodInfo,
        profile: &Profile,
        nodes: &Slab<NodeRecord>,
        pods: &Slab<PodRecord>,
    ) -> Option<Relation> {
        self.asked += 1;
        let mut resolver = Resolver { relations: self, nodes, pods, pod, profile };
        let mut relation = resolver.spread();
        resolver.affinity(&mut relation);
        resolver.held(&mut relation);
        (!relation.is_empty()).then_some(relation)
    }

    /// What [`Relation::refuses`] would say of the pod, without resolving its rules: whether other pods may refuse it a node,
    /// by its own rules or by anti-terms of pods that are there. A gang asks it of every member. `O(such terms)`.
    pub(crate) fn may_refuse(&self, pod: &PodInfo, profile: &Profile) -> bool {
        let PodInfo { key, labels, affinity, spread, owner, .. } = pod;
        let selected = || self.owners.selector(&key.namespace, labels, owner.as_ref()).is_some();
        let spreads = spread.iter().any(|constraint| constraint.hard)
            || (spread.is_empty() && profile.spread_defaults.refuse() && selected());
        let forbidden = || {
            let about = |held: &HeldTerm| held.term.scope.is_met_by(&key.namespace, labels, &self.namespaces);
            self.counts.held().any(|(_, held)| held.effect == Effect::Forbid && about(held))
        };
        let related = !affinity.required.is_empty() || !affinity.required_anti.is_empty() || forbidden();
        (spreads && profile.filters.has(Filter::PodTopologySpread))
            || (related && profile.filters.has(Filter::InterPodAffinity))
    }
}

impl Resolver<'_> {
    fn spread(&mut self) -> Relation {
        let own = &self.pod.spread;
        let Profile { filters, weights, spread_defaults, .. } = self.profile;
        let all = if own.is_empty() { self.default_spread() } else { own.clone() };
        let mut relation = Relation {
            all_keys: !own.is_empty() || *spread_defaults != SpreadDefaults::System,
            weights: [weights.pod_topology_spread, weights.inter_pod_affinity],
            ..Relation::default()
        };
        let runs = |constraint: &SpreadConstraint| {
            if constraint.hard { filters.has(Filter::PodTopologySpread) } else { weights.pod_topology_spread > 0 }
        };
        let all: Vec<SpreadConstraint> = all.into_iter().filter(runs).collect();
        for constraint in all {
            let hard = constraint.hard;
            let resolved = self.constraint(constraint);
            if hard { relation.hard.push(resolved) } else { relation.soft.push(resolved) }
        }
        relation
    }

    /// The constraints of a pod that has none.
    fn default_spread(&self) -> Vec<SpreadConstraint> {
        let PodInfo { key, labels, owner, .. } = self.pod;
        let Some(selector) = self.relations.owners.selector(&key.namespace, labels, owner.as_ref()) else {
            return Vec::new();
        };
        match &self.profile.spread_defaults {
            SpreadDefaults::System => pod_topology_spread::system_defaults(&selector).to_vec(),
            SpreadDefaults::List(all) => {
                let selecting =
                    |c: &SpreadConstraint| SpreadConstraint { selector: Some(selector.clone()), ..c.clone() };
                all.iter().map(selecting).collect()
            }
        }
    }

    fn constraint(&mut self, constraint: SpreadConstraint) -> Spread {
        let matches_itself = constraint.selector.as_ref().is_some_and(|s| s.matches(&self.pod.labels));
        let counted = constraint.selector.as_ref().is_some_and(|selector| !selector.is_empty());
        let scope = Scope {
            namespaces: [self.pod.key.namespace.clone()].into(),
            namespace_selector: None,
            selector: constraint.selector,
        };
        Spread {
            key: self.key(&constraint.topology_key),
            by_host: constraint.topology_key == HOSTNAME,
            max_skew: constraint.max_skew,
            min_domains: constraint.min_domains,
            honor_affinity: constraint.honor_affinity,
            honor_taints: constraint.honor_taints,
            selection: counted.then(|| self.select(vec![scope], false)),
            matches_itself,
        }
    }

    fn affinity(&mut self, relation: &mut Relation) {
        let own = &self.pod.affinity;
        let filters = self.profile.filters.has(Filter::InterPodAffinity);
        if filters && !own.required.is_empty() {
            let takes = |term: &PodAffinityTerm| {
                term.scope.takes(&self.pod.key.namespace, &self.pod.labels, &self.relations.namespaces)
            };
            let matches_itself = own.required.iter().all(takes);
            relation.affinity = Some(Affinity {
                matches_itself,
                selection: self.select(own.required.iter().map(|term| term.scope.clone()).collect(), true),
                keys: own.required.iter().map(|term| self.key(&term.topology_key)).collect(),
            });
        }
        for term in own.required_anti.iter().filter(|_| filters) {
            let rule = self.term(term);
            relation.anti.push(rule);
        }
        if self.profile.weights.inter_pod_affinity == 0 {
            return;
        }
        let malus = own.preferred_anti.iter().map(|(weight, term)| (-i64::from(*weight), term));
        let bonus = own.preferred.iter().map(|(weight, term)| (i64::from(*weight), term));
        for (weight, term) in bonus.chain(malus) {
            let (selection, key) = self.term(term);
            relation.scored.push((Source::Selected(selection), key, weight));
        }
    }

    /// Terms of pods that are there and that are about this pod.
    fn held(&mut self, relation: &mut Relation) {
        let PodInfo { key, labels, .. } = self.pod;
        let namespaces = &self.relations.namespaces;
        let about = self
            .relations
            .counts
            .held()
            .filter(|(_, held)| held.term.scope.is_met_by(&key.namespace, labels, namespaces));
        let about: Vec<(HeldId, SmolStr, Effect)> =
            about.map(|(id, held)| (id, held.term.topology_key.clone(), held.effect)).collect();
        let forbids = self.profile.filters.has(Filter::InterPodAffinity);
        let scores = self.scores_existing();
        for (id, key, effect) in about {
            let hard = self.profile.hard_pod_affinity_weight;
            match effect {
                Effect::Forbid if forbids => relation.against.push((id, self.key(&key))),
                Effect::Attract if scores && hard > 0 => {
                    relation.scored.push((Source::Holders(id), self.key(&key), hard));
                }
                Effect::Score(weight) if scores => relation.scored.push((Source::Holders(id), self.key(&key), weight)),
                Effect::Forbid | Effect::Attract | Effect::Score(_) => {}
            }
        }
    }

    /// Whether the terms of pods that are there are scored.
    fn scores_existing(&self) -> bool {
        let own = &self.pod.affinity;
        let prefers = !own.preferred.is_empty() || !own.preferred_anti.is_empty();
        self.profile.weights.inter_pod_affinity > 0 && (prefers || !self.profile.ignore_preferred_of_existing)
    }

    fn term(&mut self, term: &PodAffinityTerm) -> (SelectionId, KeyId) {
        (self.select(vec![term.scope.clone()], true), self.key(&term.topology_key))
    }

    fn select(&mut self, scopes: Vec<Scope>, deleting: bool) -> SelectionId {
        let Relations { counts, namespaces, asked, .. } = &mut *self.relations;
        counts.select(Selection { scopes, deleting }, *asked, namespaces, placed(self.pods))
    }

    fn key(&mut self, key: &SmolStr) -> KeyId {
        let known = self.nodes.iter().filter(|(_, node)| !node.placeholder);
        let labels: Box<dyn Iterator<Item = (u32, &Labels)>> =
            Box::new(known.map(|(id, node)| (id.dense(), &node.info.labels)));
        self.relations.columns.key(key, self.relations.asked, labels)
    }
}

/// Every pod that stands on a node.
pub(crate) fn placed(pods: &Slab<PodRecord>) -> impl Iterator<Item = (PeerId, u32)> + '_ {
    pods.iter().filter_map(|(_, pod)| Some((pod.peer, pod.place.node()?.dense())))
}
