//! One look at every node for a shape that has no cache: its best node, and nothing that would outlive the question.
//!
//! A shape of which only a few pods come never earns back what its cache costs. So its first pods are found a place by going
//! over the columns of the cluster once: scores of resources are computed for many nodes at once, and only nodes that score
//! more than the best before them are asked whether they are feasible. Nodes that normalisation treats alike (soft taints,
//! preferred affinity) are one kind, of which the best is remembered. `O(nodes)` at a few nanoseconds each; a node costs more
//! where the shape looks at node names or has images that nodes have, or its profile scores other resources or otherwise.

use super::ShapeSpec;
use super::cache::{RawScore, slow, verdict};
use super::scores::{Extremes, image_score, resource_score, total};
use crate::plugins::node_resources_fit::Strategy;
use crate::plugins::{MAX_NODE_SCORE, node_resources_balanced_allocation, node_resources_fit};
use crate::profile::{Filter, Lane, Scored};
use crate::snapshot::{Cluster, Id, NO_CLASS, NodeRecord, ScoringRows, double};

/// Nodes that are looked at together.
const ROWS: usize = 64;

/// What is known about a class of nodes, for one shape.
#[derive(Clone, Copy)]
enum Judged {
    NotYet,
    Refused,
    /// Index of its kind.
    Kind(usize),
}

/// Nodes with equal taints and affinity scores, and the best feasible one.
struct Kind {
    taints: u32,
    affinity: i64,
    /// Score of resources, node.
    best: Option<(i64, u32)>,
}

struct Scan<'a> {
    spec: &'a ShapeSpec,
    cluster: &'a Cluster,
    /// What is asked of each lane, and its free amounts.
    lanes: Vec<(i64, &'a [i64])>,
    classes: Vec<Judged>,
    kinds: Vec<Kind>,
    by_name: bool,
    /// Whether host ports or features have to be looked up in the node's record.
    by_record: bool,
    images: bool,
}

/// The node that [`super::ShapeCache::best`] would name.
pub(crate) fn best(spec: &ShapeSpec, cluster: &Cluster) -> Option<u32> {
    let mut scan = Scan {
        spec,
        cluster,
        lanes: wanted(spec, cluster)?,
        classes: Vec::new(),
        kinds: Vec::new(),
        by_name: spec.looks_at_names(),
        by_record: !spec.footprint.ports.is_empty() || !spec.required_features.is_empty(),
        images: spec.profile.weights.image_locality > 0 && cluster.images_state(&spec.images).is_some(),
    };
    scan.run();
    scan.pick()
}

/// What NodeResourcesFit asks of each lane, and the lane's free amounts. None: for a resource without a lane, which is free
/// nowhere.
fn wanted<'a>(spec: &ShapeSpec, cluster: &'a Cluster) -> Option<Vec<(i64, &'a [i64])>> {
    if !spec.runs(Filter::NodeResourcesFit) {
        return Some(Vec::new());
    }
    let lanes = cluster.lanes();
    let requests = spec.footprint.requests.iter().enumerate().filter(|(at, _)| !spec.ignores(*at));
    let wanted = requests.map(|(_, (name, wanted))| Some((*wanted, lanes.free_column(lanes.find(name)?))));
    std::iter::once(Some((1, lanes.free_pod_places()))).chain(wanted).collect()
}

impl Scan<'_> {
    fn run(&mut self) {
        let (classes, columns) = (self.cluster.class_column(), self.cluster.lanes().scoring_rows());
        let scorer = Scorer::of(self.spec);
        let mut scores = [f64::INFINITY; ROWS];
        for (start, classes) in (0..).step_by(ROWS).zip(classes.chunks(ROWS)) {
            let scores = &mut scores[..classes.len()];
            if let Some(scorer) = &scorer {
                scorer.score(columns, start, scores);
            }
            if !self.by_name && classes.iter().all(|class| *class == classes[0]) {
                self.look_at_run(start, classes[0], scores);
                continue;
            }
            for (row, (class, score)) in (start..).zip(classes.iter().zip(&*scores)) {
                self.look_at_run(row, *class, std::slice::from_ref(score));
            }
        }
    }

    /// Looks at nodes of one class with consecutive rows: those that score more than the best of their kind so far are asked
    /// whether they are feasible.
    fn look_at_run(&mut self, start: usize, class: u32, scores: &[f64]) {
        if class == NO_CLASS {
            return;
        }
        let Some(kind) = self.kind(start, class) else { return };
        let mut bar = self.bar(kind);
        if scores.iter().all(|score| *score <= bar) {
            return;
        }
        for (row, score) in (start..).zip(scores) {
            if *score > bar && self.lanes.iter().all(|(wanted, column)| column[row] >= *wanted) {
                self.look(row, kind, *score);
                bar = self.bar(kind);
            }
        }
    }

    /// What a score of CPU and memory must exceed to be of interest: images may add to it.
    fn bar(&self, kind: usize) -> f64 {
        let most_of_images = if self.images { self.spec.profile.weights.image_locality * MAX_NODE_SCORE } else { 0 };
        self.kinds[kind].best.map_or(f64::NEG_INFINITY, |(most, _)| double(most - most_of_images))
    }

    /// Looks at a node that has what the shape asks for; `score` is that of CPU and memory.
    fn look(&mut self, row: usize, kind: usize, score: f64) {
        let Some((id, _)) = self.node(row) else { return };
        let score = if score.is_infinite() {
            resource_score(id, self.spec, self.cluster)
        } else {
            let images = if self.images { image_score(id, self.spec, self.cluster) } else { 0 };
            whole(score) + images
        };
        let better = self.kinds[kind].best.is_none_or(|(most, _)| score > most);
        if better && (!self.by_record || verdict(id, self.spec, self.cluster).is_feasible()) {
            self.kinds[kind].best = Some((score, dense(row)));
        }
    }

    fn node(&self, row: usize) -> Option<(Id<NodeRecord>, &NodeRecord)> {
        self.cluster.nodes.at(dense(row))
    }

    /// The kind of a node by its class; None where the filters on slow facts refuse it.
    fn kind(&mut self, row: usize, class: u32) -> Option<usize> {
        let class = class as usize;
        if self.classes.len() <= class {
            self.classes.resize(class + 1, Judged::NotYet);
        }
        match self.classes[class] {
            Judged::Kind(kind) => Some(kind),
            Judged::Refused => None,
            Judged::NotYet => {
                let kind = self.judge(row);
                if !self.by_name {
                    self.classes[class] = kind.map_or(Judged::Refused, Judged::Kind);
                }
                kind
            }
        }
    }

    fn judge(&mut self, row: usize) -> Option<usize> {
        let facts = slow(self.node(row)?.1, self.spec);
        if !facts.verdict.is_feasible() {
            return None;
        }
        let known = self.kinds.iter().position(|kind| (kind.taints, kind.affinity) == (facts.taints, facts.affinity));
        Some(known.unwrap_or_else(|| {
            self.kinds.push(Kind { taints: facts.taints, affinity: facts.affinity, best: None });
            self.kinds.len() - 1
        }))
    }

    /// The best of all kinds: highest total, then lowest index.
    fn pick(&self) -> Option<u32> {
        let raw = |kind: &Kind| {
            let (resources, node) = kind.best?;
            Some((RawScore { taints: kind.taints, affinity: kind.affinity, resources }, node))
        };
        let raws: Vec<(RawScore, u32)> = self.kinds.iter().filter_map(raw).collect();
        let extremes = Extremes::of(raws.iter().map(|(raw, _)| raw));
        let best = raws.iter().max_by_key(|(raw, node)| (total(*raw, extremes, self.spec), std::cmp::Reverse(*node)));
        best.map(|(_, node)| *node)
    }
}

/// Scores of CPU and memory for rows that hold exact amounts.
struct Scorer {
    /// What the pod counts for in LeastAllocated, and the weight of that score.
    scoring: [f64; 2],
    weight: f64,
    /// What it asks for, where it asks for CPU or memory and a balanced use weighs something, and the weight.
    balanced: Option<([f64; 2], f64)>,
}

impl Scorer {
    /// None where the profile scores by other resources or otherwise, or the shape asks for amounts that a double does not
    /// hold.
    fn of(spec: &ShapeSpec) -> Option<Self> {
        let (profile, weights) = (&spec.profile, spec.profile.weights);
        let cpu_and_memory = |resources: &[Scored]| resources.iter().map(|r| r.lane).eq([Lane::Cpu, Lane::Memory]);
        let by_default = profile.fit.strategy == Strategy::LeastAllocated
            && cpu_and_memory(&profile.fit.resources)
            && profile.fit.resources.iter().all(|resource| resource.weight == 1)
            && cpu_and_memory(&profile.balanced);
        if !by_default || weights.node_resources_fit <= 0 {
            return None;
        }
        let exact = |amounts: &[i64]| -> Option<[f64; 2]> {
            let exact = amounts.iter().all(|amount| (0..=node_resources_fit::EXACT).contains(amount));
            let amounts: [i64; 2] = amounts.try_into().ok().filter(|_| exact)?;
            Some(amounts.map(double))
        };
        let balances = weights.balanced_allocation > 0 && spec.balanced.iter().any(|request| *request != 0);
        let real = exact(&spec.balanced)?;
        Some(Self {
            scoring: exact(&spec.scoring)?,
            weight: double(weights.node_resources_fit),
            balanced: balances.then_some((real, double(weights.balanced_allocation))),
        })
    }

    /// The weighted scores of the rows from `start` on.
    fn score(&self, columns: &ScoringRows, start: usize, scores: &mut [f64]) {
        let rows = scores.len();
        let cut = |columns| cut(columns, start, rows);
        let ([cpu, memory], [cpu_scored, memory_scored]) = (cut(&columns.allocatable), cut(&columns.scored));
        for at in 0..rows {
            let used = [cpu_scored[at] + self.scoring[0], memory_scored[at] + self.scoring[1]];
            scores[at] = self.weight * node_resources_fit::score_of_doubles(used, [cpu[at], memory[at]]);
        }
        let Some((real, weight)) = self.balanced else { return };
        let ([cpu_used, memory_used], before) = (cut(&columns.used), &columns.balance[start..][..rows]);
        for at in 0..rows {
            let with = [cpu_used[at] + real[0], memory_used[at] + real[1]];
            let balanced =
                node_resources_balanced_allocation::score_of_doubles(before[at], with, [cpu[at], memory[at]]);
            scores[at] += weight * balanced;
        }
    }
}

/// Rows of two columns.
fn cut(columns: &[Vec<f64>; 2], start: usize, rows: usize) -> [&[f64]; 2] {
    [&columns[0][start..][..rows], &columns[1][start..][..rows]]
}

#[expect(clippy::cast_possible_truncation, reason = "a small whole number")]
fn whole(score: f64) -> i64 {
    score as i64
}

fn dense(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
