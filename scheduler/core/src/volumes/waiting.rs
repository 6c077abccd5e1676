//! Claims that wait for their first consumer: which volume each of them gets on a node, or whether one can be made there.

use super::demand::matches;
use super::facts::{ClaimInfo, ClassInfo, VolumeInfo};
use super::store::{Map, Volumes};
use crate::explain::VolumeReason;
use crate::labels::{LabelSelector, Labels};
use crate::model::NodeOperator;
use crate::plugins::volume_binding::{self, NO_PROVISIONER};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A claim that waits for its first consumer.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) claim: Arc<ClaimInfo>,
    /// The node that was selected for it: it is being provisioned there.
    selected: Option<SmolStr>,
    /// Volumes that are kept for it.
    kept: Vec<Arc<VolumeInfo>>,
    free: Free,
    class: Arc<ClassInfo>,
    /// Published capacities that are large enough, with their nodes and free bytes; None where they do not count.
    capacities: Option<Vec<(LabelSelector, i64)>>,
}

/// Volumes that may be bound to a claim, smallest first, then by name.
#[derive(Clone, Debug, Default)]
struct Free {
    volumes: Vec<Arc<VolumeInfo>>,
    /// Positions of those that can be anywhere, as far as is seen at once.
    anywhere: Vec<usize>,
    /// Positions of those that are only where a label has this value, by key and value: most local volumes.
    places: Vec<(SmolStr, Map<SmolStr, Vec<usize>>)>,
}

/// How the claims of a pod would be served on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Fit {
    /// Why not; in no particular order.
    pub(super) conflicts: Vec<VolumeReason>,
    /// Claims by position, and the volumes that they get.
    pub(super) bind: Vec<(usize, Arc<VolumeInfo>)>,
    /// Claims by position that a volume is made for, and the free bytes where they are published.
    pub(super) provision: Vec<(usize, Option<i64>)>,
}

impl Fit {
    /// What is asked and there, in bytes, by class: of the volumes that are bound, or else of the published capacities.
    pub(super) fn classes(&self, waiting: &[Waiting]) -> BTreeMap<SmolStr, (i64, i64)> {
        let mut classes: BTreeMap<SmolStr, (i64, i64)> = BTreeMap::new();
        let request = |at: usize| waiting[at].claim.request.unwrap_or_default().bytes();
        for (at, volume) in &self.bind {
            let class = classes.entry(volume.class.clone()).or_default();
            *class = (class.0.saturating_add(request(*at)), class.1.saturating_add(volume.capacity.bytes()));
        }
        if !self.bind.is_empty() {
            return classes;
        }
        for (at, capacity) in &self.provision {
            if let Some(capacity) = capacity {
                let class = classes.entry(waiting[*at].claim.class.clone()).or_default();
                *class = (class.0.saturating_add(request(*at)), *capacity);
            }
        }
        classes
    }
}

impl Waiting {
    pub(super) fn new(volumes: &Volumes, claim: &Arc<ClaimInfo>, class: &Arc<ClassInfo>) -> Self {
        let mut kept = Vec::new();
        let mut free = Vec::new();
        let listed = volumes.by_class.get(&claim.class).into_iter().flatten();
        for volume in listed.map(|(_, volume)| volume).filter(|volume| volume_binding::could_serve(volume, claim)) {
            match volumes.is_kept(volume, claim) {
                Some(true) => kept.push(Arc::clone(volume)),
                Some(false) => {}
                None if volume_binding::may_be_bound(volume, claim) => free.push(Arc::clone(volume)),
                None => {}
            }
        }
        free.sort_by_key(|volume| volume.capacity);
        let selected = volumes.selected.get(&claim.key()).filter(|(_, uid, _)| *uid == claim.uid);
        Self {
            claim: Arc::clone(claim),
            selected: selected.map(|(node, ..)| node.clone()).or_else(|| claim.selected_node.clone()),
            kept,
            free: Free::new(free),
            class: Arc::clone(class),
            capacities: volumes.capacities_for(claim, class),
        }
    }

    /// Whether every node serves it alike: a volume is made wherever the pod goes.
    pub(super) fn is_free(&self) -> bool {
        self.selected.is_none()
            && self.kept.is_empty()
            && self.free.volumes.is_empty()
            && self.can_provision()
            && self.class.topologies.is_empty()
            && self.capacities.is_none()
    }

    fn can_provision(&self) -> bool {
        !self.class.provisioner.is_empty() && self.class.provisioner != NO_PROVISIONER
    }

    /// The volume that it gets on a node, when those before it got these.
    fn volume(&self, labels: &Labels, taken: &[(usize, Arc<VolumeInfo>)]) -> Option<&Arc<VolumeInfo>> {
        let is_left = |volume: &Arc<VolumeInfo>| !taken.iter().any(|(_, other)| other.name == volume.name);
        match self.kept.iter().find(|volume| is_left(volume)) {
            // What is kept for it is the only one that will do.
            Some(kept) => Some(kept).filter(|volume| matches(volume.affinity.as_deref(), labels)),
            None => self.free.first(labels, is_left),
        }
    }

    /// Whether a volume can be made for a node, and the free bytes where they are published.
    fn provision(&self, labels: &Labels) -> Result<Option<i64>, VolumeReason> {
        if !self.can_provision() || !volume_binding::is_in_topology(&self.class.topologies, labels) {
            return Err(VolumeReason::NoVolume);
        }
        let Some(capacities) = &self.capacities else { return Ok(None) };
        let found = capacities.iter().find(|(nodes, _)| nodes.matches(labels));
        found.map(|(_, capacity)| Some(*capacity)).ok_or(VolumeReason::NoStorage)
    }
}

/// How claims are served on a node: what nodes were selected for must be there, then those that ask for least choose first.
pub(super) fn fit(waiting: &[Waiting], name: &str, labels: &Labels) -> Fit {
    let mut fit = Fit::default();
    let mut provision = Vec::new();
    let mut choosing = Vec::new();
    for (at, claim) in waiting.iter().enumerate() {
        match &claim.selected {
            Some(node) if node != name => {
                fit.conflicts.push(VolumeReason::NoVolume);
                return fit;
            }
            Some(_) => provision.push(at),
            None => choosing.push(at),
        }
    }
    choosing.sort_by_key(|at| waiting[*at].claim.request.unwrap_or_default());
    for at in choosing {
        match waiting[at].volume(labels, &fit.bind).cloned() {
            Some(volume) => fit.bind.push((at, volume)),
            None => provision.push(at),
        }
    }
    for at in provision {
        match waiting[at].provision(labels) {
            Ok(capacity) => fit.provision.push((at, capacity)),
            Err(reason) => {
                fit.conflicts.push(reason);
                break;
            }
        }
    }
    fit
}

impl Free {
    fn new(volumes: Vec<Arc<VolumeInfo>>) -> Self {
        let mut free = Self { volumes, ..Self::default() };
        for (at, volume) in free.volumes.iter().enumerate() {
            let Some((key, values)) = place(volume) else {
                free.anywhere.push(at);
                continue;
            };
            let known = free.places.iter().position(|(known, _)| known == key);
            let place = known.unwrap_or_else(|| {
                free.places.push((key.clone(), Map::default()));
                free.places.len() - 1
            });
            for value in values {
                free.places[place].1.entry(value.clone()).or_default().push(at);
            }
        }
        free
    }

    /// The first that a node with these labels can have. `O(keys + those that may be there)`.
    fn first(&self, labels: &Labels, is_left: impl Fn(&Arc<VolumeInfo>) -> bool) -> Option<&Arc<VolumeInfo>> {
        let here = self.places.iter().filter_map(|(key, values)| values.get(labels.get(key)?));
        let can_have = |at: &&usize| {
            let volume = &self.volumes[**at];
            is_left(volume) && matches(volume.affinity.as_deref(), labels)
        };
        let first = here.chain(std::iter::once(&self.anywhere)).filter_map(|list| list.iter().find(can_have)).min();
        first.map(|at| &self.volumes[*at])
    }
}

/// A label and its values, one of which a volume's nodes must have.
fn place(volume: &VolumeInfo) -> Option<(&SmolStr, &[SmolStr])> {
    let [term] = volume.affinity.as_deref()? else { return None };
    let required = term.match_expressions.iter().find(|required| required.operator == NodeOperator::In)?;
    Some((&required.key, &required.values))
}

impl Volumes {
    /// Whether a volume is kept for this claim (Some(false): for another one), as is known or was chosen.
    fn is_kept(&self, volume: &VolumeInfo, claim: &ClaimInfo) -> Option<bool> {
        match self.kept.get(&volume.name) {
            Some((other, _)) => Some(other.key() == claim.key() && other.uid == claim.uid),
            None => volume.claim.as_ref().map(|other| other.is(claim)),
        }
    }

    /// Published capacities that a claim fits into; None where its driver publishes none. `O(capacities)`.
    fn capacities_for(&self, claim: &ClaimInfo, class: &ClassInfo) -> Option<Vec<(LabelSelector, i64)>> {
        let request = claim.request?;
        self.drivers.get(&class.provisioner).filter(|driver| driver.storage_capacity)?;
        let of_class = self.capacities.values().filter(|capacity| capacity.class == class.name);
        let enough = of_class.filter(|capacity| volume_binding::has_space(capacity.limit, request));
        Some(enough.filter_map(|c| Some((c.topology.clone()?, c.capacity.unwrap_or(0)))).collect())
    }
}
