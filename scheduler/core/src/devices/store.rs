//! What is known of devices: slices by node and by pool, classes, claims, taint rules, and who holds what.
//!
//! ```text
//!   Pending pod ──assume on a node──> allocated here, held in `pending` ──claim seen allocated──> held by the claim
//!        ^                                   │
//!        └────────── forget, roll back ──────┘ (the last pod of a claim gives its devices back)
//! ```
//! The allocation of a claim that is written, and whose pods are gone again before a watch has shown it, is held until the
//! claim shows what it has: the devices are others' only when the API server says so.

use super::extended::{Mapping, Special, is_special_uid, special_uid};
use super::facts::{
    Allocation, ClaimInfo, ClaimSource, ClassInfo, DeviceFact, DeviceInfo, DeviceList, DeviceTaint, PodClaim, Reach,
    SliceInfo, TaintRuleInfo,
};
use super::holding::Lent;
use super::inside::Insides;
use super::selectors::Selectors;
use super::usage::Usage;
use crate::model::PodInfo;
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
    /// Tells it apart from what it was before.
    pub(super) stamp: u64,
}

/// An allocation that is assumed, and the pods that it is assumed for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub(super) allocation: Arc<Allocation>,
    pub(super) pods: Vec<PodId>,
    /// The claim, where it is still to be made.
    pub(super) special: Option<Arc<Special>>,
}

impl Pending {
    /// Whether the claim has it, its pods are gone, and no watch has shown either yet.
    fn is_settling(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether every pod that it is assumed for would share it.
    pub(super) fn is_shared(&self, may_share: impl Fn(PodId) -> bool) -> bool {
        !self.is_settling() && self.pods.iter().all(|other| may_share(*other))
    }
}

/// Namespace and name of a claim.
type ClaimKey = (SmolStr, SmolStr);

/// What news of devices can cure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNews {
    /// For any pod.
    pub cures: Cures,
    /// Pods that use the claim, for which it can cure [`Cures::CLAIMS`].
    pub users: Vec<PodId>,
}

impl DeviceNews {
    fn of(cures: Cures) -> Self {
        Self { cures, users: Vec::new() }
    }
}

impl FromIterator<Self> for DeviceNews {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        all.into_iter().fold(Self::default(), |mut sum, one| {
            sum.cures = sum.cures.and(one.cures);
            sum.users.extend(one.users);
            sum
        })
    }
}

/// Everything that is known of devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices {
    pub(super) slices: BTreeMap<SmolStr, Slice>,
    /// Names of slices by node; those of no single node under the empty name.
    pub(super) by_node: BTreeMap<SmolStr, BTreeSet<SmolStr>>,
    pub(super) by_pool: BTreeMap<(SmolStr, SmolStr), BTreeSet<SmolStr>>,
    pub(super) classes: BTreeMap<SmolStr, ClassInfo>,
    pub(super) mapping: Mapping,
    pub(super) claims: BTreeMap<ClaimKey, Arc<ClaimInfo>>,
    /// Pods that wait for a place, by claim, and their claims.
    pub(super) users: BTreeMap<ClaimKey, BTreeSet<PodId>>,
    uses: BTreeMap<PodId, Vec<ClaimKey>>,
    /// Special claims by the UID of their pod.
    special: BTreeMap<SmolStr, ClaimKey>,
    /// Pods that wait for a place and may get one, by UID.
    askers: BTreeMap<SmolStr, PodId>,
    pub(super) rules: BTreeMap<SmolStr, TaintRuleInfo>,
    pub(super) usage: Usage,
    /// By UID of the claim.
    pub(super) pending: BTreeMap<SmolStr, Pending>,
    /// UIDs of the claims that pods are assumed to allocate.
    pub(super) assumed: BTreeMap<PodId, Vec<SmolStr>>,
    /// Holdings of pods that are taken off their nodes on trial.
    pub(super) lent: BTreeMap<PodId, Lent>,
    pub(super) insides: Insides,
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

    /// Notes a fact; returns what it can cure. `O(pods that use it)` for claims, `O(devices)` for slices and rules.
    pub(crate) fn note(&mut self, fact: DeviceFact) -> DeviceNews {
        match fact {
            DeviceFact::Slice(slice) => self.set_slice(slice),
            DeviceFact::SliceGone(name) => self.remove_slice(&name),
            DeviceFact::Class(class) => {
                let before = self.classes.insert(class.name.clone(), class.clone());
                self.mapping.follow(self.classes.values());
                DeviceNews::of(if before == Some(class) { Cures::NONE } else { Cures::DEVICE_CLASSES })
            }
            DeviceFact::ClassGone(name) => {
                self.classes.remove(&name);
                self.mapping.follow(self.classes.values());
                DeviceNews::default()
            }
            DeviceFact::Claim(claim) => self.set_claim(claim),
            DeviceFact::ClaimGone(namespace, name) => self.remove_claim(&(namespace, name)),
            DeviceFact::Rule(rule) => {
                self.rules.insert(rule.name.clone(), rule);
                self.taint_again()
            }
            DeviceFact::RuleGone(name) => {
                self.rules.remove(&name);
                self.taint_again()
            }
            DeviceFact::Hardware(info) => {
                self.insides.report(info);
                DeviceNews::default()
            }
            DeviceFact::HardwareGone(node) => {
                self.insides.retract(&node);
                DeviceNews::default()
            }
            DeviceFact::Relisted(list) => self.retain(list),
        }
    }

    fn retain(&mut self, list: DeviceList) -> DeviceNews {
        match list {
            DeviceList::Slices(names) => {
                let gone = absent(&self.slices, names);
                gone.iter().map(|name| self.remove_slice(name)).collect()
            }
            DeviceList::Classes(names) => {
                let listed: BTreeSet<SmolStr> = names.into_iter().collect();
                self.classes.retain(|name, _| listed.contains(name));
                self.mapping.follow(self.classes.values());
                DeviceNews::default()
            }
            DeviceList::Claims(names) => {
                let gone = absent(&self.claims, names);
                let news = gone.iter().map(|name| self.remove_claim(name)).collect();
                self.settle_unseen();
                news
            }
            DeviceList::Rules(names) => {
                for name in absent(&self.rules, names) {
                    self.rules.remove(&name);
                }
                self.taint_again()
            }
            DeviceList::Hardware(nodes) => {
                let listed: BTreeSet<SmolStr> = nodes.into_iter().collect();
                self.insides.retain_reports(|node| listed.contains(node));
                DeviceNews::default()
            }
        }
    }

    fn set_slice(&mut self, info: SliceInfo) -> DeviceNews {
        if self.slices.get(&info.name).is_some_and(|known| known.info == info) {
            return DeviceNews::default();
        }
        self.remove_slice(&info.name);
        let name = info.name.clone();
        self.by_node.entry(node_of(&info)).or_default().insert(name.clone());
        self.by_pool.entry((info.driver.clone(), info.pool.clone())).or_default().insert(name.clone());
        let seen = info.devices.iter().map(|device| seen(&info.driver, device)).collect();
        let numbers = info.devices.iter().map(|_| self.number()).collect();
        let taints = taints(&info, &self.rules);
        let stamp = self.insides.stamp();
        self.slices.insert(name, Slice { info, seen, taints, numbers, stamp });
        DeviceNews::of(Cures::DEVICES)
    }

    fn number(&mut self) -> usize {
        self.free_numbers.pop().unwrap_or_else(|| {
            self.next_number += 1;
            self.next_number - 1
        })
    }

    /// Without it a pool may be complete, or agree with itself.
    fn remove_slice(&mut self, name: &SmolStr) -> DeviceNews {
        let Some(slice) = self.slices.remove(name) else { return DeviceNews::default() };
        let node = node_of(&slice.info);
        forget(&mut self.by_node, &node, name);
        if !self.by_node.contains_key(&node) {
            self.insides.forget(&node);
        }
        forget(&mut self.by_pool, &(slice.info.driver, slice.info.pool), name);
        for number in slice.numbers {
            self.selectors.forget(number);
            self.free_numbers.push(number);
        }
        DeviceNews::of(Cures::DEVICES)
    }

    fn taint_again(&mut self) -> DeviceNews {
        for slice in self.slices.values_mut() {
            slice.taints = taints(&slice.info, &self.rules);
        }
        DeviceNews::of(Cures::DEVICES)
    }

    fn set_claim(&mut self, claim: ClaimInfo) -> DeviceNews {
        let key = (claim.namespace.clone(), claim.name.clone());
        let mut news = DeviceNews { cures: Cures::NONE, users: self.users_of(&key, &claim) };
        if let Some(known) = self.take_claim(&key) {
            news.cures = freed(known.allocation.as_ref(), claim.allocation.as_ref());
        }
        match &claim.allocation {
            Some(allocation) => {
                // What was assumed is known now, or was overtaken.
                self.drop_pending(&claim.uid);
                if let Some(pod) = claim.special_for() {
                    self.drop_pending(&special_uid(pod));
                }
                self.usage.add(allocation);
            }
            // The controller that deallocates a claim takes the finalizer off with the allocation.
            None if !claim.finalized => self.drop_settling(&claim.uid),
            None => {}
        }
        if let Some(pod) = claim.special_for() {
            self.special.insert(pod.clone(), key.clone());
        }
        self.claims.insert(key, Arc::new(claim));
        news
    }

    /// Takes a claim out of the indexes, and gives back what it holds.
    fn take_claim(&mut self, key: &ClaimKey) -> Option<Arc<ClaimInfo>> {
        let known = self.claims.remove(key)?;
        if let Some(allocation) = &known.allocation {
            self.usage.remove(allocation);
        }
        if let Some(pod) = known.special_for().filter(|pod| self.special.get(*pod) == Some(key)) {
            self.special.remove(pod);
        }
        Some(known)
    }

    /// The special claim of a pod.
    pub(super) fn special_of(&self, pod: &SmolStr) -> Option<&Arc<ClaimInfo>> {
        self.claims.get(self.special.get(pod)?)
    }

    /// A list shows what became of special claims that no watch has shown, and whose pods are gone.
    fn settle_unseen(&mut self) {
        let settling = |(uid, pending): &(&SmolStr, &Pending)| is_special_uid(uid) && pending.is_settling();
        let unseen: Vec<SmolStr> = self.pending.iter().filter(settling).map(|(uid, _)| uid.clone()).collect();
        unseen.iter().for_each(|uid| self.drop_pending(uid));
    }

    fn remove_claim(&mut self, key: &ClaimKey) -> DeviceNews {
        let Some(known) = self.take_claim(key) else { return DeviceNews::default() };
        self.drop_settling(&known.uid);
        if let Some(pod) = known.special_for() {
            self.drop_settling(&special_uid(pod));
        }
        DeviceNews { cures: freed(known.allocation.as_ref(), None), users: self.users_of(key, &known) }
    }

    /// A pod waits for a place with these claims.
    pub(crate) fn enter(&mut self, pod: PodId, info: &PodInfo) {
        let named = |claim: &PodClaim| match &claim.source {
            ClaimSource::Named(name) | ClaimSource::Template(Some(Some(name))) => {
                Some((info.key.namespace.clone(), name.clone()))
            }
            ClaimSource::Template(_) | ClaimSource::Unknown => None,
        };
        let keys: Vec<ClaimKey> = info.resource_claims.iter().filter_map(named).collect();
        self.leave(pod, &info.key.uid);
        if !info.containers.is_empty() {
            self.askers.insert(info.key.uid.clone(), pod);
        }
        if !keys.is_empty() {
            for key in &keys {
                self.users.entry(key.clone()).or_default().insert(pod);
            }
            self.uses.insert(pod, keys);
        }
    }

    /// A pod waits no more.
    pub(crate) fn leave(&mut self, pod: PodId, uid: &SmolStr) {
        self.askers.remove(uid);
        for key in self.uses.remove(&pod).unwrap_or_default() {
            forget(&mut self.users, &key, &pod);
        }
    }

    fn users_of(&self, key: &ClaimKey, claim: &ClaimInfo) -> Vec<PodId> {
        let asker = claim.special_for().and_then(|pod| self.askers.get(pod));
        self.users.get(key).into_iter().flatten().chain(asker).copied().collect()
    }

    pub(super) fn drop_pending(&mut self, uid: &SmolStr) {
        if let Some(pending) = self.pending.remove(uid) {
            self.usage.remove(&pending.allocation);
        }
    }

    /// What is held for a claim whose pods are gone.
    fn drop_settling(&mut self, uid: &SmolStr) {
        if self.pending.get(uid).is_some_and(Pending::is_settling) {
            self.drop_pending(uid);
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

fn forget<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

/// What is known and not in a list.
fn absent<K: Ord + Clone, V>(known: &BTreeMap<K, V>, listed: Vec<K>) -> Vec<K> {
    let listed: BTreeSet<K> = listed.into_iter().collect();
    known.keys().filter(|key| !listed.contains(*key)).cloned().collect()
}

/// Whether devices are free that a claim had.
fn freed(before: Option<&Allocation>, after: Option<&Allocation>) -> Cures {
    if before.is_some() && before.map(|a| &a.results) != after.map(|a| &a.results) {
        Cures::DEVICES
    } else {
        Cures::NONE
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
