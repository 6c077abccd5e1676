//! A pod's claims against the nodes of one moment; what a node offers is found out once.

use super::demand::DeviceDemand;
use crate::explain::Reason;
use crate::plugins::normalize;
use crate::snapshot::{Cluster, NodeId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The claims and the nodes.
#[derive(Debug)]
pub(crate) struct DeviceView<'a> {
    weight: i64,
    demand: &'a DeviceDemand,
    cluster: &'a Cluster,
    /// Raw score of a node, or why it is refused.
    known: RefCell<BTreeMap<u32, Result<i64, Reason>>>,
}

impl<'a> DeviceView<'a> {
    pub(crate) fn new(weight: i64, demand: &'a DeviceDemand, cluster: &'a Cluster) -> Self {
        Self { weight, demand, cluster, known: RefCell::default() }
    }

    /// Why a node is refused.
    pub(crate) fn refuse(&self, node: NodeId) -> Option<Reason> {
        self.offer(node).err()
    }

    fn offer(&self, node: NodeId) -> Result<i64, Reason> {
        if let Some(known) = self.known.borrow().get(&node.dense()) {
            return known.clone();
        }
        let Some(record) = self.cluster.node(node) else { return Err(Reason::Devices) };
        let score = self.demand.offer(&self.cluster.devices, &record.info).map(|offer| offer.score);
        self.known.borrow_mut().insert(node.dense(), score.clone());
        score
    }

    /// The weight and the scores of feasible nodes, in their order; None where none is told apart from others.
    pub(crate) fn rank(&self, feasible: &[u32]) -> Option<(i64, Vec<i64>)> {
        if self.weight == 0 || !self.demand.scores() {
            return None;
        }
        let raw = |node: &u32| self.cluster.nodes.at(*node).and_then(|(id, _)| self.offer(id).ok()).unwrap_or(0);
        let raw: Vec<i64> = feasible.iter().map(raw).collect();
        let most = raw.iter().copied().max().unwrap_or(0);
        Some((self.weight, raw.into_iter().map(|raw| normalize(raw, most, false)).collect()))
    }
}
