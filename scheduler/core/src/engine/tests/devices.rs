//! Pods with ResourceClaims, from the claim to the Binding; who ends gives the devices back.

use super::*;
use crate::command::OpId;
use crate::devices::{
    Allocation, Ask, ClaimInfo, ClaimSource, ClassInfo, Count, DeviceFact, DeviceInfo, PodClaim, Reach, Request,
    RequestKind, SliceInfo,
};
use crate::event::PrepareReadResult;
use crate::model::{NodeOperator, NodeRequirement, NodeSelectorTerm};
use crate::preparation::{ObjectFacts, PrepareWrite, PreparedObject, ResourceClaimFacts};
use serde_json::Value;

/// What the server holds of ResourceClaims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) claims: BTreeMap<SmolStr, (ClaimInfo, Option<Value>)>,
    pub(super) version: u64,
    /// Events of claims are held back.
    slow: bool,
    /// By name of a pod: the special claim that its status names, and how many mappings.
    pub(super) named: BTreeMap<SmolStr, (SmolStr, usize)>,
    /// Requests that make special claims are not answered, done or not.
    pub(super) deaf: bool,
}

pub(super) fn slice(node: &str, devices: usize) -> SliceInfo {
    let device = |number| DeviceInfo { name: format!("gpu-{number}").into(), ..DeviceInfo::default() };
    SliceInfo {
        name: format!("slice-{node}").into(),
        driver: "gpu.example".into(),
        pool: node.into(),
        slices_in_pool: 1,
        reach: Reach::Node(node.into()),
        devices: (0..devices).map(device).collect(),
        ..SliceInfo::default()
    }
}

fn claiming(claim: &str, pod: PodInfo) -> PodInfo {
    let source = ClaimSource::Named(claim.into());
    PodInfo { resource_claims: vec![PodClaim { name: "gpus".into(), source }], ..pod }
}

/// The requests of a claim, as the server has them.
fn asked(claim: &ClaimInfo) -> Value {
    let one = |request: &Request| match &request.kind {
        RequestKind::Exactly(Ask { class, count: Count::Exactly(count), .. }) => {
            serde_json::json!({"name": request.name, "exactly": {"deviceClassName": class, "count": count}})
        }
        other => unreachable!("{other:?}"),
    };
    claim.requests.iter().map(one).collect()
}

fn allocation(of: &Value) -> Allocation {
    let text = |of: &Value, key: &str| SmolStr::from(of[key].as_str().unwrap());
    let results = of["devices"]["results"].as_array().unwrap();
    let device = |result: &Value| crate::devices::AllocatedDevice {
        request: text(result, "request"),
        id: [text(result, "driver"), text(result, "pool"), text(result, "device")],
        ..crate::devices::AllocatedDevice::default()
    };
    let named = of["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].as_str();
    let on = |node: &str| {
        let values = vec![node.into()];
        let named = NodeRequirement { key: "metadata.name".into(), operator: NodeOperator::In, values };
        vec![NodeSelectorTerm { match_fields: vec![named], ..NodeSelectorTerm::default() }]
    };
    let results = results.iter().map(device).collect();
    Allocation { results, node_selector: named.map(on), ..Allocation::default() }
}

impl Scene {
    /// Nodes n0 to n2; n0 and n1 have two devices each.
    pub(super) fn with_devices() -> Self {
        let mut scene = Self::new();
        scene.nodes(["n0", "n1", "n2"].map(node));
        scene.device(DeviceFact::Class(ClassInfo { name: "gpu".into(), ..ClassInfo::default() }));
        for node in ["n0", "n1"] {
            scene.device(DeviceFact::Slice(slice(node, 2)));
        }
        scene
    }

    pub(super) fn device(&mut self, fact: DeviceFact) {
        self.see(Event::Device(Box::new(fact)));
    }

    /// A claim of so many devices.
    fn device_claim(&mut self, name: &str, count: i64) {
        let ask = Ask {
            class: "gpu".into(),
            selectors: Vec::new(),
            count: Count::Exactly(count),
            admin: false,
            tolerations: Vec::new(),
            written_tolerations: Vec::new(),
            capacity: BTreeMap::new(),
            derived: false,
        };
        let claim = ClaimInfo {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
            requests: vec![Request { name: "gpus".into(), kind: RequestKind::Exactly(ask) }],
            ..ClaimInfo::default()
        };
        self.put_device_claim(claim, None);
    }

    pub(super) fn put_device_claim(&mut self, claim: ClaimInfo, written: Option<Value>) {
        self.claims.version += 1;
        let resource_version = self.claims.version.to_string().into();
        let claim = ClaimInfo { resource_version, allocation: written.as_ref().map(allocation), ..claim };
        self.claims.claims.insert(claim.name.clone(), (claim.clone(), written));
        if !self.claims.slow {
            self.device(DeviceFact::Claim(claim));
        }
    }

    /// Someone allocated the claim on a node, and nobody reserves it.
    fn allocated_on(&mut self, name: &str, node: &str) {
        let (claim, _) = self.claims.claims[name].clone();
        let result = serde_json::json!({"request": "gpus", "driver": "gpu.example", "pool": node, "device": "gpu-0"});
        let terms =
            serde_json::json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
        let written = serde_json::json!({
            "devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": terms},
        });
        self.put_device_claim(ClaimInfo { finalized: true, ..claim }, Some(written));
    }

    pub(super) fn claims_are_slow(&mut self) {
        self.claims.slow = true;
    }

    /// The garbage collector deletes what a pod owned.
    pub(super) fn collect(&mut self, pod: &str) {
        let uid = SmolStr::from(format!("uid-{pod}"));
        let owned = |(claim, _): &&(ClaimInfo, Option<Value>)| claim.controller.as_ref() == Some(&uid);
        let gone: Vec<ClaimInfo> = self.claims.claims.values().filter(owned).map(|(claim, _)| claim.clone()).collect();
        for claim in gone {
            self.claims.claims.remove(&claim.name);
            self.device(DeviceFact::ClaimGone(claim.namespace, claim.name));
        }
    }

    pub(super) fn claims_are_seen(&mut self) {
        self.claims.slow = false;
        let claims: Vec<ClaimInfo> = self.claims.claims.values().map(|(claim, _)| claim.clone()).collect();
        claims.into_iter().for_each(|claim| self.device(DeviceFact::Claim(claim)));
        self.run();
    }

    /// The controller takes back what nobody uses any more.
    fn deallocate(&mut self, name: &str) {
        let (claim, _) = self.claims.claims[name].clone();
        self.put_device_claim(ClaimInfo { finalized: false, reserved_for: Vec::new(), ..claim }, None);
        self.pass(60_000);
    }

    /// The devices of a claim, as `pool/device`.
    pub(super) fn devices_of(&self, name: &str) -> Vec<String> {
        let (claim, _) = &self.claims.claims[name];
        let results = claim.allocation.iter().flat_map(|allocation| &allocation.results);
        results.map(|result| format!("{}/{}", result.id[1], result.id[2])).collect()
    }

    pub(super) fn read_device_claim(&self, name: &str) -> PrepareReadResult {
        let Some((claim, written)) = self.claims.claims.get(name) else { return PrepareReadResult::NotFound };
        let facts = ResourceClaimFacts {
            uid: claim.uid.clone(),
            resource_version: claim.resource_version.clone(),
            finalized: claim.finalized,
            allocation: written.clone(),
            reserved_for: claim.reserved_for.clone(),
            special_for: claim.special_for().cloned(),
            requests: asked(claim),
            ..ResourceClaimFacts::default()
        };
        PrepareReadResult::Found(Box::new(ObjectFacts::ResourceClaim(facts)))
    }

    pub(super) fn write_device_claim(&mut self, op: OpId, write: PrepareWrite) {
        if let Some(result) = self.write_special_claim(&write) {
            return self.see(Event::Outcome(Outcome::Prepare { op, result }));
        }
        let (name, version) = match &write {
            PrepareWrite::FinalizeClaim { claim, resource_version }
            | PrepareWrite::ReserveClaim { claim, resource_version, .. }
            | PrepareWrite::ReleaseClaim { claim, resource_version }
            | PrepareWrite::UnreserveClaim { claim, resource_version, .. } => (claim.name.clone(), resource_version),
            PrepareWrite::FenceClaim {
                object: PreparedObject::ResourceClaim { name, .. }, resource_version, ..
            } => (name.clone(), resource_version),
            other => unreachable!("{other:?}"),
        };
        let Some((mut claim, mut written)) = self.claims.claims.get(&name).cloned() else {
            return self.see(Event::Outcome(Outcome::Prepare { op, result: WriteResult::NotFound }));
        };
        let result = if claim.resource_version == *version {
            match write {
                PrepareWrite::FinalizeClaim { .. } => claim.finalized = true,
                PrepareWrite::ReleaseClaim { .. } => claim.finalized = false,
                PrepareWrite::ReserveClaim { allocation, pod, .. } => {
                    written = allocation.map(|allocation| allocation.as_ref().clone()).or(written);
                    claim.reserved_for.push(pod.uid);
                }
                PrepareWrite::UnreserveClaim { pod, deallocate, .. } => {
                    written = written.filter(|_| !deallocate);
                    claim.reserved_for.retain(|uid| *uid != pod.uid);
                }
                _ => {}
            }
            self.put_device_claim(claim, written);
            WriteResult::Ok(self.claims.version.to_string().into())
        } else {
            WriteResult::Conflict
        };
        self.see(Event::Outcome(Outcome::Prepare { op, result }));
    }
}

#[test]
fn a_claim_is_allocated_and_reserved_before_its_pod_is_bound_and_shared_afterwards() {
    let mut s = Scene::with_devices();
    s.create(claiming("c", pod("p")));
    s.run();
    assert!(s.message("p").1.contains("could not find ResourceClaim \"ns/c\""), "{:?}", s.message("p"));
    s.device_claim("c", 2);
    s.run();
    assert_eq!((s.node_of("p"), s.devices_of("c")), (Some("n0"), vec!["n0/gpu-0".to_owned(), "n0/gpu-1".to_owned()]));
    s.create(claiming("c", pod("q")));
    s.run();
    assert_eq!(s.node_of("q"), Some("n0"), "where the claim is");
    assert_eq!(s.claims.claims["c"].0.reserved_for, ["uid-p", "uid-q"]);
}

#[test]
fn a_gang_gets_all_its_devices_or_none_and_no_device_twice() {
    let mut s = Scene::with_devices();
    for rank in 0..3 {
        s.device_claim(&format!("c{rank}"), 2);
        s.create(claiming(&format!("c{rank}"), member("g", rank, 3)));
    }
    s.run();
    assert!(s.message("g-0").1.contains("cannot allocate all claims"), "{:?}", s.message("g-0"));
    let held = |s: &Scene| (0..3).flat_map(|rank| s.devices_of(&format!("c{rank}"))).collect::<BTreeSet<_>>().len();
    assert_eq!((s.bound_of("g"), held(&s)), (0, 0));
    s.device(DeviceFact::Slice(slice("n2", 2)));
    s.pass(60_000);
    assert_eq!((s.bound_of("g"), held(&s)), (3, 6));
}

#[test]
fn pods_whose_claims_get_their_names_later_are_tried_when_they_have_them() {
    let made = |name: Option<SmolStr>, pod: PodInfo| {
        let source = ClaimSource::Template(name.map(Some));
        PodInfo { resource_claims: vec![PodClaim { name: "gpus".into(), source }], ..pod }
    };
    let all = || [member("g", 0, 2), member("g", 1, 2), pod("alone")];
    let mut s = Scene::with_devices();
    s.device(DeviceFact::Slice(slice("n2", 2)));
    all().into_iter().for_each(|pod| s.create(made(None, pod)));
    s.run();
    for name in ["g-0", "alone"] {
        assert!(s.message(name).1.contains("ResourceClaim not created yet"), "{:?}", s.message(name));
    }
    for pod in all() {
        let name = format!("{}-gpus", pod.key.name);
        s.device_claim(&name, 1);
        s.claims.claims.get_mut(name.as_str()).unwrap().0.controller = Some(pod.key.uid.clone());
        let (claim, _) = s.claims.claims[name.as_str()].clone();
        s.device(DeviceFact::Claim(claim));
        s.create(made(Some(name.into()), pod));
    }
    s.run();
    assert_eq!((s.bound_of("g"), s.node_of("alone").is_some()), (2, true));
}

#[test]
fn devices_of_a_pod_that_ended_are_others_when_the_claim_says_so() {
    let mut s = Scene::with_devices();
    for (claim, name) in [("a", "p"), ("b", "q"), ("c", "r")] {
        s.device_claim(claim, 2);
        s.create(claiming(claim, pod(name)));
    }
    s.run();
    assert_eq!([s.node_of("p"), s.node_of("q"), s.node_of("r")], [Some("n0"), Some("n1"), None]);
    s.delete("p");
    s.pass(60_000);
    assert_eq!(s.node_of("r"), None, "the claim has its devices still");
    s.deallocate("a");
    assert_eq!(s.node_of("r"), Some("n0"));
}

#[test]
fn an_allocation_that_no_watch_has_shown_yet_outlives_its_pod() {
    let mut s = Scene::with_devices();
    s.device_claim("a", 2);
    s.device_claim("b", 2);
    s.device_claim("c", 2);
    s.claims.slow = true;
    s.create(claiming("a", pod("p")));
    s.create(claiming("b", pod("q")));
    s.run();
    assert_eq!([s.node_of("p"), s.node_of("q")], [Some("n0"), Some("n1")]);
    s.delete("p");
    s.create(claiming("c", pod("r")));
    s.run();
    assert_eq!(s.node_of("r"), None, "the server has the devices with claim a");
    s.claims_are_seen();
    assert_eq!(s.node_of("r"), None);
    s.deallocate("a");
    assert_eq!(s.node_of("r"), Some("n0"));
}

#[test]
fn the_next_leader_finishes_or_plans_anew_and_holds_nothing_twice() {
    let mut s = Scene::with_devices();
    for rank in 0..2 {
        s.device_claim(&format!("c{rank}"), 2);
    }
    s.hold_binds = true;
    for rank in 0..2 {
        s.create(claiming(&format!("c{rank}"), member("g", rank, 2)));
    }
    s.run();
    let before = [s.devices_of("c0"), s.devices_of("c1")];
    assert!(before.iter().all(|devices| devices.len() == 2));
    s.see(Event::Follow);
    s.hold_binds = false;
    s.held.clear();
    s.lead(2);
    s.pass(60_000);
    assert_eq!((s.bound_of("g"), [s.devices_of("c0"), s.devices_of("c1")]), (2, before));
}

#[test]
fn a_claim_that_goes_while_it_is_prepared_leaves_nothing_assumed() {
    let mut s = Scene::with_devices();
    s.device_claim("c", 1);
    s.hold_binds = true;
    s.create(claiming("c", pod("p")));
    s.run();
    assert_eq!((s.held.len(), s.devices_of("c").len()), (1, 1));
    s.held.clear();
    s.delete("p");
    s.pass(60_000);
    assert_eq!(s.engine.snapshot().cluster().assumed_count(), 0);
    assert!(s.devices_of("c").is_empty(), "it was never bound: what was prepared is taken back");
}

#[test]
fn a_claim_that_is_stuck_where_its_pod_may_not_stand_is_freed_unless_others_reserve_it() {
    let mut s = Scene::with_devices();
    for name in ["c", "d"] {
        s.device_claim(name, 1);
        s.allocated_on(name, "n0");
    }
    let (claim, written) = s.claims.claims["d"].clone();
    s.put_device_claim(ClaimInfo { reserved_for: vec!["uid-other".into()], ..claim }, written);
    // n0 has no CPU left for them, the others have no use for what the claims have.
    s.create(pod("full").asks("cpu", 63_000).on("n0"));
    s.run();
    s.create(claiming("d", pod("stays").asks("cpu", 32_000)));
    s.run();
    assert!(s.message("stays").1.contains("resourceclaim not available on the node"), "{:?}", s.message("stays"));
    assert_eq!(s.devices_of("d"), ["n0/gpu-0"], "another reserves it");
    s.create(claiming("c", pod("moves").asks("cpu", 32_000)));
    s.pass(60_000);
    assert_eq!((s.node_of("moves"), s.devices_of("c")), (Some("n1"), vec!["n1/gpu-0".to_owned()]));
    assert_eq!((s.node_of("stays"), s.devices_of("d")), (None, vec!["n0/gpu-0".to_owned()]));
}

#[test]
fn stuck_claims_of_a_gang_are_freed_together() {
    let mut s = Scene::with_devices();
    s.create(pod("full").asks("cpu", 63_000).on("n0"));
    s.run();
    for rank in 0..2 {
        let claim = format!("c{rank}");
        s.device_claim(&claim, 1);
        s.allocated_on(&claim, "n0");
        s.create(claiming(&claim, member("g", rank, 2).asks("cpu", 32_000)));
    }
    s.pass(60_000);
    assert_eq!(s.bound_of("g"), 2);
    assert!(s.devices_of("c0").iter().chain(&s.devices_of("c1")).all(|device| device.starts_with("n1/")));
}
