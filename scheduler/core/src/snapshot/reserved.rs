//! What nominations mean to a pod that looks for a place: nodes that would take it, but not beside the pods of at least its
//! priority that were promised a place there.

use super::node::NodeId;
use super::pod::{Place, PodId};
use super::trial::Trial;
use super::{Cluster, Snapshot};
use crate::demand::{Demand, Ground, refusals};
use crate::explain::Reason;
use crate::model::PodInfo;
use crate::plugins::{node_ports, node_resources_fit};
use crate::shape::{ShapeSpec, Verdict, verdict};
use smol_str::SmolStr;
use std::collections::BTreeMap;

impl Cluster {
    /// Who of at least this priority was promised this node and waits, but for the pod itself and its gang.
    pub(crate) fn promised(&self, node: &SmolStr, pod: PodId, priority: i32) -> Vec<PodId> {
        let gang = self.info(pod).and_then(gang_of);
        let counts = |other: &PodId| {
            *other != pod
                && self.pod(*other).is_some_and(|p| p.place == Place::Pending && p.standing.priority >= priority)
                && (gang.is_none() || self.info(*other).and_then(gang_of) != gang)
        };
        self.nominations.on(node).filter(counts).collect()
    }

    /// Who of at least this priority was promised a place that exists, but for the gang of this pod, with the nodes.
    pub(super) fn all_promised(&self, pod: PodId, priority: i32) -> Vec<(NodeId, Vec<PodId>)> {
        let promised = |(node, _): (&SmolStr, _)| {
            let id = self.find_node(node).filter(|id| self.node(*id).is_some_and(|n| !n.placeholder))?;
            let pods = self.promised(node, pod, priority);
            (!pods.is_empty()).then_some((id, pods))
        };
        self.nominations.iter().filter_map(promised).collect()
    }

    /// What refuses a pod beside others that are not there yet, where only requests, ports and the pod count matter. The
    /// filters before NodePorts do not see other pods.
    fn refused_beside(&self, node: NodeId, spec: &ShapeSpec, others: &[PodId]) -> Vec<Reason> {
        let alone = verdict(node, spec, self);
        if !(alone.is_feasible() || alone == Verdict::FEATURES || alone == Verdict::PORTS || alone.is_short()) {
            return alone.reasons(spec);
        }
        let footprints = || others.iter().filter_map(|pod| self.footprints.get(self.pod(*pod)?.footprint));
        let mut ports = node_ports::PortsInUse::default();
        footprints().flat_map(|f| &f.ports).for_each(|port| ports.add(port));
        if alone == Verdict::PORTS || !node_ports::fits(&spec.footprint.ports, &ports) {
            return Verdict::PORTS.reasons(spec);
        }
        let taken = |name: &str| footprints().fold(0_i64, |sum, f| sum.saturating_add(f.request(name)));
        let wants =
            spec.footprint.requests.iter().map(|(name, wanted)| {
                (*wanted, self.free(node, name).map_or(0, |free| free.saturating_sub(taken(name))))
            });
        let places = self.free_pods(node.index()).saturating_sub(i64::try_from(others.len()).unwrap_or(i64::MAX));
        let short = Verdict::fit(node_resources_fit::short(places, wants));
        if short.is_feasible() { alone.reasons(spec) } else { short.reasons(spec) }
    }
}

fn gang_of(pod: &PodInfo) -> Option<(&SmolStr, &SmolStr)> {
    Some((&pod.key.namespace, &pod.gang.as_ref()?.name))
}

impl Snapshot {
    /// Nodes that refuse the pod because of promises and reservations, and why.
    pub(super) fn reserved(&mut self, pod: PodId, own: &Demand) -> BTreeMap<u32, Vec<Reason>> {
        let mut found = self.promised_to_others(pod, own);
        self.keep_off(pod, &mut found);
        found
    }

    /// Those that refuse it because of promises. `O(promises)`; where pods matter to each other beyond what they
    /// ask of a node, also `O(nodes · rules)` for each promised node.
    fn promised_to_others(&mut self, pod: PodId, own: &Demand) -> BTreeMap<u32, Vec<Reason>> {
        let mut found = BTreeMap::new();
        if self.cluster.nominations.is_empty() {
            return found;
        }
        let Some((shape, priority)) = self.cluster.pod(pod).and_then(|p| Some((p.shape?, p.standing.priority))) else {
            return found;
        };
        let Some(spec) = self.shape(shape).map(|s| s.spec.clone()) else { return found };
        let promised = self.cluster.all_promised(pod, priority);
        let plain = |others: &[PodId]| {
            spec.is_plain() && !own.refuses() && others.iter().all(|other| self.cluster.is_plain(*other))
        };
        let (plain, related): (Vec<_>, Vec<_>) = promised.into_iter().partition(|(_, others)| plain(others));
        for (node, others) in plain {
            found.insert(node.dense(), self.cluster.refused_beside(node, &spec, &others));
        }
        if !related.is_empty() {
            let ground = Ground::of(self, shape, &spec);
            self.try_out(|trial| {
                for (node, others) in related {
                    let reasons = beside(trial, pod, node, &spec, &ground, &others);
                    found.insert(node.dense(), reasons);
                    trial.reset();
                }
            });
        }
        found.retain(|_, reasons| !reasons.is_empty());
        found
    }
}

/// What refuses a pod a node when these others are there, too; they stay in the trial.
pub(crate) fn beside(
    trial: &mut Trial<'_>,
    pod: PodId,
    node: NodeId,
    spec: &ShapeSpec,
    ground: &Ground,
    others: &[PodId],
) -> Vec<Reason> {
    others.iter().for_each(|other| trial.put_on(*other, node));
    match trial.demand(pod) {
        Err(reason) => vec![reason],
        Ok(demand) => refusals(trial.cluster(), node, spec, &demand, ground),
    }
}
