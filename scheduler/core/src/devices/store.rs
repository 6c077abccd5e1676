//! What is known of devices: slices by node and by pool, classes, claims, taint rules, and who holds what.
//!
//! ```text
//!   Pending pod ──assume on a node──> allocated here, held in `pending` ──claim seen allocated──> held by the claim
//!        ^                                   │
//!        └────────── forget, roll back ──────┘ (the last pod of a claim gives its devices back)
//! ```

use super::facts::{
    Allocation, ClaimInfo, ClassInfo, DeviceFact, DeviceInfo, DeviceList, DeviceTaint, Reach, SliceInfo, TaintRuleInfo,
};
use super::selectors::Selectors;
use super::usage::Usage;
use crate::plugins::Cures;
use crate::snapshot::PodId;
use flowforge_scheduler_cel::Device;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A slice with what is derived from it.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) info: SliceInfo,
    /// By device: what selectors see of it.
    pub(super) seen: Vec<Device>,
    /// By device: its taints and those of rules.
    pub(super) taints: Vec<Vec<DeviceTaint>>,
    /// By device: its number among all devices.
    pub(super) numbers: Vec<usize>,
}

/// An allocation that is assumed, and the pods that it is assumed for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub(super) allocation: Arc<Allocation>,
    pub(super) pods: Vec<PodId>,
}

/// Everything that is known of devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices {
    slices: BTreeMap<SmolStr, Slice>,
    /// Names of slices by node; those of no single node under the empty name.
    by_node: BTreeMap<SmolStr, BTreeSet<SmolStr>>,
    by_pool: BTreeMap<(SmolStr, SmolStr), BTreeSet<SmolStr>>,
    classes: BTreeMap<SmolStr, ClassInfo>,
    claims: BTreeMap<(SmolStr, SmolStr), Arc<ClaimInfo>>,
    rules: BTreeMap<SmolStr, TaintRuleInfo>,
    pub(super) usage: Usage,
    /// By UID of the claim.
    pub(super) pending: BTreeMap<SmolStr, Pending>,
    /// UIDs of the claims that pods are assumed to allocate.
    pub(super) assumed: BTreeMap<PodId, Vec<SmolStr>>,
    pub(super) selectors: Selectors,
    free_numbers: Vec<usize>,
    next_number: usize,
}

impl Devices {
    /// Slices that may reach a node.
    pub(super) fn slices_for(&self, node: &SmolStr) -> impl Iterator<Item = &Slice> {
        let own = self.by_node.get(node).into_iter().flatten();
        let shared = self.by_node.get("").into_iter().flatten();
        own.chain(shared).filter_map(|name| self.slices.get(name))
    }

    /// Slices of a pool, of every generation.
    pub(super) fn slices_of(&self, driver: &SmolStr, pool: &SmolStr) -> impl Iterator<Item = &Slice> {
        self.by_pool.get(&(driver.clone(), pool.clone())).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    /// A class.
    pub(super) fn class(&self, name: &str) -> Option<&ClassInfo> {
        self.classes.get(name)
    }

    /// A claim.
    pub(crate) fn claim(&self, namespace: &SmolStr, name: &SmolStr) -> Option<&Arc<ClaimInfo>> {
        self.claims.get(&(namespace.clone(), name.clone()))
    }

    /// Notes a fact; returns what it can cure.
    pub(crate) fn note(&mut self, fact: DeviceFact) -> Cures {
        match fact {
            DeviceFact::Slice(slice) => self.set_slice(slice),
            DeviceFact::SliceGone(name) => {
                self.remove_slice(&name);
                return Cures::NONE;
            }
            DeviceFact::Class(class) => {
                self.classes.insert(class.name.clone(), class);
            }
            DeviceFact::ClassGone(name) => {
                self.classes.remove(&name);
                return Cures::NONE;
            }
            DeviceFact::Claim(claim) => self.set_claim(claim),
            DeviceFact::ClaimGone(namespace, name) => self.remove_claim(&(namespace, name)),
            DeviceFact::Rule(rule) => {
                self.rules.insert(rule.name.clone(), rule);
                self.taint_again();
            }
            DeviceFact::RuleGone(name) => {
                self.rules.remove(&name);
                self.taint_again();
            }
            DeviceFact::Relisted(list) => self.retain(list),
        }
        Cures::DEVICES
    }

    fn retain(&mut self, list: DeviceList) {
        match list {
            DeviceList::Slices(names) => {
                let listed: BTreeSet<SmolStr> = names.into_iter().collect();
                let gone: Vec<SmolStr> = self.slices.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.remove_slice(name));
            }
            DeviceList::Classes(names) => {
                let listed: BTreeSet<SmolStr> = names.into_iter().collect();
                self.classes.retain(|name, _| listed.contains(name));
            }
            DeviceList::Claims(names) => {
                let listed: BTreeSet<(SmolStr, SmolStr)> = names.into_iter().collect();
                let gone: Vec<_> = self.claims.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.remove_claim(name));
            }
            DeviceList::Rules(names) => {
                let listed: BTreeSet<SmolStr> = names.into_iter().collect();
                self.rules.retain(|name, _| listed.contains(name));
                self.taint_again();
            }
        }
    }

    fn set_slice(&mut self, info: SliceInfo) {
        if self.slices.get(&info.name).is_some_and(|known| known.info == info) {
            return;
        }
        self.remove_slice(&info.name);
        let name = info.name.clone();
        self.by_node.entry(node_of(&info)).or_default().insert(name.clone());
        self.by_pool.entry((info.driver.clone(), info.pool.clone())).or_default().insert(name.clone());
        let seen = info.devices.iter().map(|device| seen(&info.driver, device)).collect();
        let numbers = info.devices.iter().map(|_| self.number()).collect();
        let taints = taints(&info, &self.rules);
        self.slices.insert(name, Slice { info, seen, taints, numbers });
    }

    fn number(&mut self) -> usize {
        self.free_numbers.pop().unwrap_or_else(|| {
            self.next_number += 1;
            self.next_number - 1
        })
    }

    fn remove_slice(&mut self, name: &SmolStr) {
        let Some(slice) = self.slices.remove(name) else { return };
        forget(&mut self.by_node, &node_of(&slice.info), name);
        forget(&mut self.by_pool, &(slice.info.driver, slice.info.pool), name);
        for number in slice.numbers {
            self.selectors.forget(number);
            self.free_numbers.push(number);
        }
    }

    fn taint_again(&mut self) {
        for slice in self.slices.values_mut() {
            slice.taints = taints(&slice.info, &self.rules);
        }
    }

    fn set_claim(&mut self, claim: ClaimInfo) {
        let key = (claim.namespace.clone(), claim.name.clone());
        self.remove_claim(&key);
        if let Some(allocation) = &claim.allocation {
            // What was assumed is known now, or was overtaken.
            if let Some(pending) = self.pending.remove(&claim.uid) {
                self.usage.remove(&pending.allocation);
            }
            self.usage.add(allocation);
        }
        self.claims.insert(key, Arc::new(claim));
    }

    fn remove_claim(&mut self, key: &(SmolStr, SmolStr)) {
        let Some(claim) = self.claims.remove(key) else { return };
        if let Some(allocation) = &claim.allocation {
            self.usage.remove(allocation);
        }
    }

    /// Holds the devices of claims that a pod is assumed to allocate.
    pub(crate) fn assume(&mut self, pod: PodId, claims: Vec<(SmolStr, Allocation)>) {
        let mut uids = Vec::with_capacity(claims.len());
        for (uid, allocation) in claims {
            if !self.pending.contains_key(&uid) {
                self.usage.add(&allocation);
            }
            let fresh = || Pending { allocation: Arc::new(allocation), pods: Vec::new() };
            self.pending.entry(uid.clone()).or_insert_with(fresh).pods.push(pod);
            uids.push(uid);
        }
        if !uids.is_empty() {
            self.assumed.insert(pod, uids);
        }
    }

    /// Gives back what a pod is assumed to allocate, where no other pod shares it.
    pub(crate) fn forget(&mut self, pod: PodId) {
        for uid in self.assumed.remove(&pod).unwrap_or_default() {
            let Some(pending) = self.pending.get_mut(&uid) else { continue };
            pending.pods.retain(|other| *other != pod);
            if pending.pods.is_empty()
                && let Some(pending) = self.pending.remove(&uid)
            {
                self.usage.remove(&pending.allocation);
            }
        }
    }

    /// What is held now, to compare with.
    #[cfg(test)]
    pub(crate) fn held(&self) -> String {
        format!("{:?} {:?} {:?}", self.usage, self.pending, self.assumed)
    }
}

fn node_of(slice: &SliceInfo) -> SmolStr {
    if let Reach::Node(name) = &slice.reach { name.clone() } else { SmolStr::default() }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<SmolStr>>, key: &K, name: &SmolStr) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}

fn seen(driver: &SmolStr, device: &DeviceInfo) -> Device {
    let capacity = device.capacity.iter().map(|(name, capacity)| (name, capacity.value));
    Device::new(driver, device.allow_multiple, &device.attributes, capacity)
}

fn taints(slice: &SliceInfo, rules: &BTreeMap<SmolStr, TaintRuleInfo>) -> Vec<Vec<DeviceTaint>> {
    let about = |rule: &&TaintRuleInfo, device: &DeviceInfo| {
        rule.selector.as_ref().is_some_and(|wanted| {
            let names = [&slice.driver, &slice.pool, &device.name];
            wanted.iter().zip(names).all(|(wanted, name)| wanted.as_ref().is_none_or(|wanted| wanted == name))
        })
    };
    let of = |device: &DeviceInfo| {
        let ruled = rules.values().filter(|rule| about(rule, device)).map(|rule| rule.taint.clone());
        device.taints.iter().cloned().chain(ruled).collect()
    };
    slice.devices.iter().map(of).collect()
}
