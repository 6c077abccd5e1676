//! What is known of devices, in a form that can be read, and compared with what another process would have made of the same
//! objects: pools and what is in them, classes, claims, and which claim holds which device.

use super::facts::{Allocation, ClaimInfo, ClassInfo, DeviceTaint, SliceInfo, TaintRuleInfo};
use super::store::{Devices, Slice};
use super::usage::Use;
use crate::snapshot::PodId;
use serde::Serialize;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is known of devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DumpedDevices {
    /// Slices by pool (`driver/pool`) and name.
    pub pools: BTreeMap<String, BTreeMap<SmolStr, DumpedSlice>>,
    /// Names of slices by the node that they are of; those of no single node under the empty name.
    pub slices: BTreeMap<SmolStr, BTreeSet<SmolStr>>,
    /// DeviceClasses by name.
    pub classes: BTreeMap<SmolStr, ClassInfo>,
    /// ResourceClaims by `namespace/name`, with what is allocated and for whom it is reserved.
    pub claims: BTreeMap<String, ClaimInfo>,
    /// DeviceTaintRules by name.
    pub rules: BTreeMap<SmolStr, TaintRuleInfo>,
    /// Devices that are held, by `driver/pool/device`.
    pub held: BTreeMap<String, HeldDevice>,
    /// Claims by UID that pods are assumed to allocate; nothing is here once all pods are bound.
    pub assumed: BTreeMap<SmolStr, AssumedClaim>,
    /// UIDs of the pods of ours that wait for a place, by the claim (`namespace/name`) that they use.
    pub waiting: BTreeMap<String, BTreeSet<SmolStr>>,
}

/// A slice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DumpedSlice {
    /// The facts.
    pub info: SliceInfo,
    /// The taints of each device, those of rules too.
    pub taints: Vec<Vec<DeviceTaint>>,
}

/// A device that is held.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HeldDevice {
    /// How, as it is counted.
    pub held: Use,
    /// Claims (`namespace/name`) whose allocation holds it, and UIDs of those that are assumed to.
    pub by: BTreeSet<String>,
}

/// A claim that pods are assumed to allocate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AssumedClaim {
    /// What.
    pub allocation: Allocation,
    /// UIDs of the pods; none: they are gone, and no watch has shown yet whether the claim has it.
    pub pods: BTreeSet<SmolStr>,
}

impl Devices {
    /// What is known; `uid` names pods. A copy of everything: `O(devices + claims)`.
    pub(crate) fn dump(&self, uid: impl Fn(PodId) -> SmolStr) -> DumpedDevices {
        let slice = |Slice { info, taints, .. }: &Slice| DumpedSlice { info: info.clone(), taints: taints.clone() };
        let in_pool = |(driver, pool): &(SmolStr, SmolStr)| {
            self.slices_of(driver, pool).map(|of| (of.info.name.clone(), slice(of))).collect()
        };
        let assumed = self.pending.iter().map(|(claim, pending)| {
            let pods = pending.pods.iter().map(|pod| uid(*pod)).collect();
            (claim.clone(), AssumedClaim { allocation: (*pending.allocation).clone(), pods })
        });
        let users = self.users.iter();
        DumpedDevices {
            pools: self.by_pool.keys().map(|pool| (format!("{}/{}", pool.0, pool.1), in_pool(pool))).collect(),
            slices: self.by_node.clone(),
            classes: self.classes.clone(),
            claims: self.claims.values().map(|claim| (claim.key(), (**claim).clone())).collect(),
            rules: self.rules.clone(),
            held: self.dump_held(),
            assumed: assumed.collect(),
            waiting: users
                .map(|((namespace, name), pods)| {
                    (format!("{namespace}/{name}"), pods.iter().map(|pod| uid(*pod)).collect())
                })
                .collect(),
        }
    }

    fn dump_held(&self) -> BTreeMap<String, HeldDevice> {
        let counted = self.usage.iter();
        let mut held: BTreeMap<String, HeldDevice> = counted
            .map(|([driver, pool, device], of)| {
                (format!("{driver}/{pool}/{device}"), HeldDevice { held: of.clone(), by: BTreeSet::new() })
            })
            .collect();
        let of_claims = self.claims.values().filter_map(|claim| Some((claim.key(), claim.allocation.as_ref()?)));
        let assumed = self.pending.iter().map(|(uid, pending)| (uid.to_string(), &*pending.allocation));
        for (holder, allocation) in of_claims.chain(assumed) {
            for result in allocation.results.iter().filter(|result| !result.admin) {
                held.entry(result.id.join("/")).or_default().by.insert(holder.clone());
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::super::demand::Offer;
    use super::super::facts::{AllocatedDevice, DeviceEffect, DeviceFact, DeviceInfo};
    use super::*;
    use crate::config::Config;
    use crate::fixture::pod;
    use crate::snapshot::Snapshot;

    const IDENTITY: [SmolStr; 3] =
        [SmolStr::new_static("gpu"), SmolStr::new_static("pool"), SmolStr::new_static("dev-0")];

    fn allocation() -> Allocation {
        let result = AllocatedDevice { id: IDENTITY, ..AllocatedDevice::default() };
        Allocation { results: vec![result], ..Allocation::default() }
    }

    fn known() -> Devices {
        let mut devices = Devices::default();
        let device = DeviceInfo { name: "dev-0".into(), ..DeviceInfo::default() };
        let [driver, pool, _] = IDENTITY;
        let slice = SliceInfo { name: "s".into(), driver, pool, devices: vec![device], ..SliceInfo::default() };
        let taint = DeviceTaint { key: "k".into(), value: "v".into(), effect: DeviceEffect::NoSchedule };
        let rule = TaintRuleInfo { name: "r".into(), selector: Some([None, None, None]), taint };
        let claim = ClaimInfo { namespace: "ns".into(), name: "c".into(), uid: "u".into(), ..ClaimInfo::default() };
        for fact in [DeviceFact::Slice(slice), DeviceFact::Rule(rule), DeviceFact::Claim(claim)] {
            devices.note(fact);
        }
        devices
    }

    #[test]
    fn a_dump_shows_pools_with_the_taints_of_their_devices() {
        let dump = known().dump(|_| SmolStr::default());
        let slice = &dump.pools["gpu/pool"]["s"];
        assert_eq!((slice.info.devices.len(), slice.taints[0].len()), (1, 1));
        assert_eq!((dump.claims.len(), dump.rules.len(), dump.held.len()), (1, 1, 0));
    }

    #[test]
    fn a_dump_shows_who_holds_a_device_and_who_is_assumed_to() {
        let mut devices = known();
        let pod = Snapshot::new(&Config::default()).upsert_pod(pod("p")).unwrap().id;
        let allocations = vec![("u".into(), allocation())];
        devices.assume(pod, Offer { allocations, ..Offer::default() });
        let assumed = devices.dump(|_| "uid-p".into());
        assert_eq!(assumed.held["gpu/pool/dev-0"].by, BTreeSet::from(["u".to_owned()]));
        assert_eq!(assumed.assumed["u"].pods, BTreeSet::from(["uid-p".into()]));
        let (namespace, name) = ("ns".into(), "c".into());
        let claim =
            ClaimInfo { namespace, name, uid: "u".into(), allocation: Some(allocation()), ..ClaimInfo::default() };
        devices.note(DeviceFact::Claim(claim));
        let seen = devices.dump(|_| "uid-p".into());
        assert_eq!(seen.held["gpu/pool/dev-0"].by, BTreeSet::from(["ns/c".to_owned()]));
        assert_eq!((seen.held["gpu/pool/dev-0"].held.exclusive, seen.assumed.len()), (1, 0));
    }

    #[test]
    fn a_dump_is_json() {
        let mut devices = known();
        let conditions = BTreeMap::from([(IDENTITY, vec!["attached".into()])]);
        let claim = ClaimInfo { namespace: "ns".into(), name: "c".into(), conditions, ..ClaimInfo::default() };
        devices.note(DeviceFact::Claim(claim));
        let dump = serde_json::to_value(devices.dump(|_| SmolStr::default())).unwrap();
        assert_eq!(dump["claims"]["ns/c"]["conditions"]["gpu/pool/dev-0"][0], "attached");
    }
}
