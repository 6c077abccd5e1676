//! What is known about every node for one shape, kept up to date by the change log.
//!
//! Slow facts are evaluated once per class, fast ones per changed node. Feasible nodes are bucketed by their raw scores:
//! normalisation depends on the largest raw score of the feasible nodes, so a pick computes totals of buckets instead of
//! nodes, and only of the best of those that normalisation treats alike. A sync costs `O(changed nodes · log nodes)`; where it changed how
//! many nodes have an image of the shape, or how many nodes there are, `O(nodes · log nodes)`.

use super::counters::DomainCounters;
use super::scores::{Extremes, resource_score, total};
use super::{ShapeSpec, Verdict};
use crate::model::NodeInfo;
use crate::plugins::{
    node_affinity, node_declared_features, node_ports, node_resources_fit, node_unschedulable, taint_toleration,
};
use crate::profile::Filter;
use crate::relations::Inclusion;
use crate::snapshot::{Cluster, Id, NodeId, NodeRecord};
use flowforge_topology_core::{DomainId, LevelIndex};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Raw scores of a node, before normalisation.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct RawScore {
    /// Soft taints not tolerated; fewer is better.
    pub taints: u32,
    /// Weights of preferred terms that match.
    pub affinity: i64,
    /// Scores that need no normalisation: least allocated, balanced allocation, images.
    pub resources: i64,
}

/// What is known about one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NodeEval {
    /// What the filters say.
    pub verdict: Verdict,
    /// Raw scores, when feasible.
    pub raw: RawScore,
    /// How many pods of the shape fit; kept only with counters.
    pub slots: u32,
    /// Whether the node counts for the spread of the shape's pods.
    pub(crate) inclusion: Inclusion,
}

impl Default for NodeEval {
    fn default() -> Self {
        Self { verdict: Verdict::ABSENT, raw: RawScore::default(), slots: 0, inclusion: Inclusion::default() }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SlowFacts {
    pub(super) verdict: Verdict,
    inclusion: Inclusion,
    pub(super) taints: u32,
    pub(super) affinity: i64,
}

/// Everything that is known for one shape.
#[derive(Clone, Debug, Default)]
pub struct ShapeCache {
    synced: Option<u64>,
    /// What the scores of images were computed from.
    images: Option<(u64, usize)>,
    /// Which classes stood for resources, where it asks for any such.
    mapping: Option<u64>,
    classes: Vec<Option<(Id<crate::snapshot::NodeClass>, SlowFacts)>>,
    nodes: Vec<NodeEval>,
    histogram: BTreeMap<Verdict, u32>,
    buckets: BTreeMap<RawScore, BTreeSet<u32>>,
    counters: Option<DomainCounters>,
    feasible: usize,
}

impl ShapeCache {
    /// Brings the cache up to date with the cluster.
    pub(crate) fn sync(&mut self, spec: &ShapeSpec, cluster: &Cluster, counted: bool) {
        if counted && self.counters.is_none() {
            self.counters = Some(DomainCounters::default());
            self.synced = None;
        }
        self.nodes.resize(cluster.nodes.bound(), NodeEval::default());
        let images = cluster.images_state(&spec.images);
        let mapping = spec.device_backed.then(|| cluster.devices.mapping_version());
        let before = (std::mem::replace(&mut self.images, images), std::mem::replace(&mut self.mapping, mapping));
        if before != (images, mapping) {
            self.synced = None;
        }
        let since = self.synced.and_then(|seq| cluster.changes.since(seq));
        let recount = since.is_none() || self.counters.as_ref().is_some_and(|c| c.epoch() != Some(cluster.tree_epoch));
        match since {
            Some(changed) => changed.for_each(|node| self.refresh(node, spec, cluster, !recount)),
            None => {
                for node in 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
                    self.refresh(node, spec, cluster, false);
                }
            }
        }
        if recount && let Some(counters) = &mut self.counters {
            counters.rebuild(cluster, &self.nodes);
        }
        self.synced = Some(cluster.changes.seq());
    }

    fn refresh(&mut self, index: u32, spec: &ShapeSpec, cluster: &Cluster, count: bool) {
        let at = index as usize;
        if at >= self.nodes.len() {
            return;
        }
        let new = match cluster.nodes.at(index) {
            Some((id, node)) if !node.placeholder => self.evaluate(id, node, spec, cluster),
            _ => NodeEval::default(),
        };
        let old = std::mem::replace(&mut self.nodes[at], new);
        if old == new {
            return;
        }
        if count
            && old.slots != new.slots
            && let (Some(counters), Some(leaf)) = (&mut self.counters, cluster.tree.leaf(index))
        {
            counters.change(&cluster.tree, leaf, old.slots, new.slots);
        }
        self.count(old, new);
        if old.verdict.is_feasible()
            && let Some(bucket) = self.buckets.get_mut(&old.raw)
        {
            bucket.remove(&index);
            if bucket.is_empty() {
                self.buckets.remove(&old.raw);
            }
        }
        if new.verdict.is_feasible() {
            self.buckets.entry(new.raw).or_default().insert(index);
        }
    }

    fn count(&mut self, old: NodeEval, new: NodeEval) {
        self.feasible -= usize::from(old.verdict.is_feasible());
        self.feasible += usize::from(new.verdict.is_feasible());
        if let Some(n) = self.histogram.get_mut(&old.verdict) {
            *n -= 1;
            if *n == 0 {
                self.histogram.remove(&old.verdict);
            }
        }
        if new.verdict != Verdict::ABSENT {
            *self.histogram.entry(new.verdict).or_default() += 1;
        }
    }

    fn evaluate(&mut self, id: NodeId, node: &NodeRecord, spec: &ShapeSpec, cluster: &Cluster) -> NodeEval {
        let slow = self.slow(node, spec);
        let inclusion = slow.inclusion;
        if !slow.verdict.is_feasible() {
            return NodeEval { verdict: slow.verdict, inclusion, ..NodeEval::default() };
        }
        let verdict = fast(id, node, spec, cluster);
        if !verdict.is_feasible() {
            return NodeEval { verdict, inclusion, ..NodeEval::default() };
        }
        let raw =
            RawScore { taints: slow.taints, affinity: slow.affinity, resources: resource_score(id, spec, cluster) };
        let slots = if self.counters.is_some() { copies(id, spec, cluster) } else { 0 };
        NodeEval { verdict, raw, slots, inclusion }
    }

    fn slow(&mut self, node: &NodeRecord, spec: &ShapeSpec) -> SlowFacts {
        let Some(class) = node.class.filter(|_| !spec.looks_at_names()) else { return slow(node, spec) };
        if self.classes.len() <= class.index() {
            self.classes.resize(class.index() + 1, None);
        }
        match self.classes[class.index()] {
            Some((known, facts)) if known == class => facts,
            _ => {
                let facts = slow(node, spec);
                self.classes[class.index()] = Some((class, facts));
                facts
            }
        }
    }

    /// Nodes where a pod of the shape may stand.
    #[must_use]
    pub fn feasible(&self) -> usize {
        self.feasible
    }

    /// How many nodes have which verdict.
    #[must_use]
    pub fn histogram(&self) -> &BTreeMap<Verdict, u32> {
        &self.histogram
    }

    /// Indexes of the nodes that exist, ascending. `O(nodes)`.
    pub(crate) fn known(&self) -> Vec<u32> {
        let exists = |(index, eval): (u32, &NodeEval)| (eval.verdict != Verdict::ABSENT).then_some(index);
        (0..).zip(&self.nodes).filter_map(exists).collect()
    }

    /// What is known about a node.
    #[must_use]
    pub fn node(&self, index: u32) -> NodeEval {
        self.nodes.get(index as usize).copied().unwrap_or_default()
    }

    /// Pods of the shape that fit below a domain.
    #[must_use]
    pub fn slots_in(&self, domain: DomainId) -> u64 {
        self.counters.as_ref().map_or(0, |c| c.slots(domain))
    }

    /// Domains of a level below which at least so many pods of the shape fit, fewest first; those after this one.
    pub(crate) fn domains_with(
        &self,
        level: LevelIndex,
        slots: u64,
        after: Option<(u64, DomainId)>,
    ) -> impl Iterator<Item = (u64, DomainId)> + '_ {
        self.counters.iter().flat_map(move |counters| counters.domains_with(level, slots, after))
    }

    /// The best node: highest weighted score as upstream normalises it over the feasible nodes, then the lowest index.
    #[must_use]
    pub fn best(&self, spec: &ShapeSpec) -> Option<u32> {
        self.best_where(spec, |_| true)
    }

    /// The best of the nodes that something else takes too. Of the buckets that normalisation treats alike only the first
    /// matters that holds such a node: `O(kinds · log buckets)` and the nodes that are not taken before one is.
    pub(crate) fn best_where(&self, spec: &ShapeSpec, takes: impl Fn(u32) -> bool) -> Option<u32> {
        let mut kinds: Vec<(RawScore, u32)> = Vec::new();
        let mut below = Bound::Unbounded;
        while let Some((raw, nodes)) = self.buckets.range((Bound::Unbounded, below)).next_back() {
            below = match nodes.iter().find(|node| takes(**node)) {
                Some(node) => {
                    kinds.push((*raw, *node));
                    Bound::Excluded(RawScore { resources: i64::MIN, ..*raw })
                }
                None => Bound::Excluded(*raw),
            };
        }
        let extremes = Extremes::of(kinds.iter().map(|(raw, _)| raw));
        let best = kinds.iter().max_by_key(|(raw, node)| (total(*raw, extremes, spec), Reverse(*node)));
        best.map(|(_, node)| *node)
    }

    /// What a cache of this cluster weighs at least, in bytes.
    pub(crate) fn least_weight(cluster: &Cluster) -> usize {
        size_of::<NodeEval>() * cluster.nodes.bound()
    }

    /// Rough size in bytes.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        let per_node = size_of::<NodeEval>() * self.nodes.len() + 12 * self.feasible;
        per_node
            + 96 * self.buckets.len()
            + 32 * self.classes.len()
            + self.counters.as_ref().map_or(0, DomainCounters::weight)
    }
}

/// The filters on slow facts, in profile order.
pub(super) fn slow(node: &NodeRecord, spec: &ShapeSpec) -> SlowFacts {
    let info = &node.info;
    let inclusion = Inclusion {
        taints: taint_toleration::fits(&spec.tolerations, &info.taints),
        affinity: node_affinity::fits(&spec.node_selector, spec.required.as_deref(), &info.name, &info.labels),
    };
    let verdict =
        if spec.runs(Filter::NodeUnschedulable) && !node_unschedulable::fits(&spec.tolerations, info.unschedulable) {
            Verdict::UNSCHEDULABLE
        } else if spec.runs(Filter::TaintToleration) && !inclusion.taints {
            Verdict::TAINT
        } else if spec.runs(Filter::NodeAffinity) && !added_affinity_fits(spec, info) {
            Verdict::ADDED_AFFINITY
        } else if spec.runs(Filter::NodeAffinity) && !inclusion.affinity {
            Verdict::AFFINITY
        } else {
            Verdict::FEASIBLE
        };
    SlowFacts {
        verdict,
        inclusion,
        taints: taint_toleration::score(&spec.tolerations, &info.taints),
        affinity: node_affinity::score(&spec.preferred, &info.name, &info.labels)
            + node_affinity::score(&spec.profile.added_affinity.preferred, &info.name, &info.labels),
    }
}

/// Whether a node matches the required terms that the profile adds; they cannot stand in for the pod's own.
fn added_affinity_fits(spec: &ShapeSpec, node: &NodeInfo) -> bool {
    let terms = spec.profile.added_affinity.required.as_deref();
    terms.is_none_or(|terms| node_affinity::any_matches(terms, &node.name, &node.labels))
}

/// The filters on fast facts and what comes after them, in profile order.
fn fast(id: NodeId, node: &NodeRecord, spec: &ShapeSpec, cluster: &Cluster) -> Verdict {
    if spec.runs(Filter::NodePorts) && !node_ports::fits(&spec.footprint.ports, &node.ports) {
        return Verdict::PORTS;
    }
    let short = if spec.runs(Filter::NodeResourcesFit) {
        node_resources_fit::short(cluster.free_pods(id.index()), requests(id, spec, cluster))
    } else {
        0
    };
    let features = || node_declared_features::fits(&spec.required_features, &node.info.declared_features);
    if short == 0 && spec.runs(Filter::NodeDeclaredFeatures) && !features() {
        return Verdict::FEATURES;
    }
    Verdict::fit(short)
}

/// (wanted, free) of every request, 0 wanted of those that are not looked at; a resource that no node has is free nowhere.
fn requests<'a>(id: NodeId, spec: &'a ShapeSpec, cluster: &'a Cluster) -> impl Iterator<Item = (i64, i64)> + 'a {
    spec.footprint.requests.iter().enumerate().map(move |(at, (name, wanted))| {
        (if spec.ignores(at) { 0 } else { *wanted }, cluster.free(id, name).unwrap_or(0))
    })
}

/// The verdict on a node for one pod more than fits, once so many stand there beside what does now.
pub(crate) fn verdict_when_full(id: NodeId, spec: &ShapeSpec, cluster: &Cluster, placed: u32) -> Verdict {
    if holds_ports(spec) {
        return Verdict::PORTS;
    }
    if !spec.runs(Filter::NodeResourcesFit) {
        return Verdict::FEASIBLE;
    }
    let placed = i64::from(placed);
    let left = requests(id, spec, cluster).map(|(wanted, free)| (wanted, free - wanted * placed));
    Verdict::fit(node_resources_fit::short(cluster.free_pods(id.index()) - placed, left))
}

fn copies(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> u32 {
    let copies = if spec.runs(Filter::NodeResourcesFit) {
        node_resources_fit::copies(cluster.free_pods(id.index()), requests(id, spec, cluster))
    } else {
        u32::MAX
    };
    if holds_ports(spec) { copies.min(1) } else { copies }
}

/// Whether a second pod of the shape is refused on a node for its host ports.
fn holds_ports(spec: &ShapeSpec) -> bool {
    spec.runs(Filter::NodePorts) && !spec.footprint.ports.is_empty()
}

/// The verdict on one node, evaluated from scratch.
pub(crate) fn verdict(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> Verdict {
    match cluster.node(id) {
        Some(node) if !node.placeholder => {
            let slow = slow(node, spec).verdict;
            if slow.is_feasible() { fast(id, node, spec, cluster) } else { slow }
        }
        _ => Verdict::ABSENT,
    }
}

/// Everything about one node, evaluated from scratch.
pub(crate) fn evaluation(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> NodeEval {
    let Some(node) = cluster.node(id).filter(|node| !node.placeholder) else { return NodeEval::default() };
    let SlowFacts { verdict, inclusion, taints, affinity } = slow(node, spec);
    let verdict = if verdict.is_feasible() { fast(id, node, spec, cluster) } else { verdict };
    if !verdict.is_feasible() {
        return NodeEval { verdict, inclusion, ..NodeEval::default() };
    }
    let raw = RawScore { taints, affinity, resources: resource_score(id, spec, cluster) };
    NodeEval { verdict, raw, slots: copies(id, spec, cluster), inclusion }
}

/// The best of a few nodes, evaluated from scratch.
pub(crate) fn best_of(nodes: &[NodeId], spec: &ShapeSpec, cluster: &Cluster) -> Option<NodeId> {
    let evaluated: Vec<(NodeId, NodeEval)> = nodes.iter().map(|&n| (n, evaluation(n, spec, cluster))).collect();
    let feasible = || evaluated.iter().filter(|(_, e)| e.verdict.is_feasible());
    let extremes = Extremes::of(feasible().map(|(_, e)| &e.raw));
    feasible().max_by_key(|(n, e)| (total(e.raw, extremes, spec), Reverse(*n))).map(|(n, _)| *n)
}
