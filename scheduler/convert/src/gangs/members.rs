//! The pods of gangs that others declare, as far as their statuses count them.

use flowforge_scheduler_core::model::{GangInfo, PodInfo, PodPhase};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name of a gang.
pub type Key = (SmolStr, SmolStr);

/// Pods of a gang.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that exist and are not being deleted.
    pub all: u32,
    /// On a node and not ended.
    pub bound: u32,
    /// Running.
    pub running: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly.
    pub failed: u32,
}

/// What of a pod is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    phase: PodPhase,
    bound: bool,
    deleting: bool,
}

/// Every pod of ours in such a gang.
#[derive(Debug, Default)]
pub struct Members {
    by_gang: BTreeMap<Key, BTreeMap<SmolStr, Seen>>,
    gang_of: BTreeMap<SmolStr, Key>,
}

impl Members {
    /// A pod was added or changed; answers the gangs for which that is news: its own, and one that it left.
    pub fn see(&mut self, pod: &PodInfo) -> Vec<Key> {
        let name = pod.gang.as_ref().map(|gang| &gang.name).filter(|name| pod.ours && GangInfo::is_of_others(name));
        let key = name.map(|name| (pod.key.namespace.clone(), name.clone()));
        let left = self.gang_of.get(&pod.key.uid).filter(|before| key.as_ref() != Some(*before)).is_some();
        let mut changed = Vec::new();
        if left {
            changed.extend(self.forget(&pod.key.uid));
        }
        let Some(key) = key else { return changed };
        let ended = pod.phase.is_terminal();
        let seen = Seen { phase: pod.phase, bound: pod.node_name.is_some() && !ended, deleting: pod.deleting };
        self.gang_of.insert(pod.key.uid.clone(), key.clone());
        if self.by_gang.entry(key.clone()).or_default().insert(pod.key.uid.clone(), seen) != Some(seen) {
            changed.push(key);
        }
        changed
    }

    /// A pod is gone; answers its gang.
    pub fn forget(&mut self, uid: &SmolStr) -> Option<Key> {
        let key = self.gang_of.remove(uid)?;
        if let Some(pods) = self.by_gang.get_mut(&key) {
            pods.remove(uid);
            if pods.is_empty() {
                self.by_gang.remove(&key);
            }
        }
        Some(key)
    }

    /// Only these pods are left; answers the gangs of the others.
    pub fn retain(&mut self, listed: &BTreeSet<&SmolStr>) -> Vec<Key> {
        let gone: Vec<SmolStr> = self.gang_of.keys().filter(|uid| !listed.contains(uid)).cloned().collect();
        gone.iter().filter_map(|uid| self.forget(uid)).collect()
    }

    /// Whether a gang has a pod of ours.
    pub fn any(&self, key: &Key) -> bool {
        self.by_gang.contains_key(key)
    }

    /// Counts the pods of a gang. `O(pods)`.
    pub fn tally(&self, key: &Key) -> Tally {
        let mut tally = Tally::default();
        for pod in self.by_gang.get(key).into_iter().flat_map(BTreeMap::values) {
            let live = !pod.deleting;
            tally.all += u32::from(live);
            tally.bound += u32::from(live && pod.bound);
            tally.running += u32::from(live && pod.phase == PodPhase::Running);
            tally.succeeded += u32::from(pod.phase == PodPhase::Succeeded);
            tally.failed += u32::from(pod.phase == PodPhase::Failed);
        }
        tally
    }
}
