//! What a pod takes of its node, interned: pods of one template share one entry.

use super::lanes::{LaneIndex, Lanes};
use super::slab::{Id, Slab};
use crate::model::{HostPort, PODS, PodInfo};
use hashbrown::HashMap;
use smol_str::SmolStr;
use std::sync::Arc;

/// What a pod takes of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Footprint {
    /// Positive requests in name order, without the pod count.
    pub requests: Vec<(SmolStr, i64)>,
    /// CPU and memory for scoring.
    pub scoring: (i64, i64),
    /// Host ports.
    pub ports: Vec<HostPort>,
}

impl Footprint {
    /// The footprint of a pod.
    #[must_use]
    pub fn of(pod: &PodInfo) -> Self {
        let asked = pod.requests.iter().filter(|(name, amount)| **amount > 0 && *name != PODS);
        let mut ports: Vec<HostPort> = pod.host_ports.iter().filter(|p| p.port != 0).cloned().collect();
        ports.sort();
        Self {
            requests: asked.map(|(name, amount)| (name.clone(), *amount)).collect(),
            scoring: (pod.scoring_requests.0.max(0), pod.scoring_requests.1.max(0)),
            ports,
        }
    }

    /// What it asks of a resource.
    #[must_use]
    pub fn request(&self, name: &str) -> i64 {
        self.requests.iter().find(|(n, _)| n == name).map_or(0, |(_, amount)| *amount)
    }
}

/// Id of an interned footprint.
pub type FootprintId = Id<Entry>;

/// An interned footprint.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    what: Arc<Footprint>,
    refs: u32,
    /// Requests by lane; requests without a lane are in no sum.
    lanes: Vec<(LaneIndex, i64)>,
    epoch: u64,
}

/// All footprints in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Footprints {
    entries: Slab<Entry>,
    ids: HashMap<Arc<Footprint>, FootprintId, foldhash::fast::FixedState>,
}

impl Footprints {
    /// Interns a footprint and counts one more user.
    pub(crate) fn intern(&mut self, what: Footprint) -> FootprintId {
        if let Some(&id) = self.ids.get(&what) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.refs += 1;
            }
            return id;
        }
        let what = Arc::new(what);
        let id = self.entries.insert(Entry { what: Arc::clone(&what), refs: 1, lanes: Vec::new(), epoch: u64::MAX });
        self.ids.insert(what, id);
        id
    }

    /// Counts one user less; the last one ends it.
    pub(crate) fn release(&mut self, id: FootprintId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.refs -= 1;
        if entry.refs == 0
            && let Some(gone) = self.entries.remove(id)
        {
            self.ids.remove(&gone.what);
        }
    }

    pub(crate) fn get(&self, id: FootprintId) -> Option<&Arc<Footprint>> {
        self.entries.get(id).map(|entry| &entry.what)
    }

    /// The requests that have a lane now.
    pub(crate) fn lanes(&mut self, id: FootprintId, lanes: &Lanes) -> &[(LaneIndex, i64)] {
        let Some(entry) = self.entries.get_mut(id) else { return &[] };
        if entry.epoch != lanes.epoch() {
            let found = entry.what.requests.iter().filter_map(|(name, amount)| Some((lanes.find(name)?, *amount)));
            entry.lanes = found.collect();
            entry.epoch = lanes.epoch();
        }
        &entry.lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_footprints_share_one_entry_until_the_last_user_left() {
        let pod =
            PodInfo { requests: [("cpu".into(), 5), ("pods".into(), 9), ("x".into(), 0)].into(), ..PodInfo::default() };
        let mut all = Footprints::default();
        let (a, b) = (all.intern(Footprint::of(&pod)), all.intern(Footprint::of(&pod)));
        assert_eq!(a, b);
        assert_eq!(all.get(a).unwrap().requests, [(SmolStr::from("cpu"), 5)]);
        all.release(a);
        assert!(all.get(a).is_some());
        all.release(b);
        assert!(all.get(a).is_none() && all.ids.is_empty());
    }
}
