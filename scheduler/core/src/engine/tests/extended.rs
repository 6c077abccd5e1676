//! Extended resources that a DeviceClass stands for: devices for pods that ask as for any resource.

use super::devices::slice;
use super::*;
use crate::devices::{Ask, ClassInfo, ContainerAsk, Count, DeviceFact, Request, RequestKind};
use crate::event::PrepareReadResult;
use crate::fixture::NodeChain;
use crate::preparation::{ObjectFacts, PodFacts, PrepareWrite};
use serde_json::Value;

const GPU: &str = "example.com/gpu";

/// A pod of one container that asks for so many.
fn asking(count: i64, pod: PodInfo) -> PodInfo {
    let asks = [(GPU.into(), (1, count))].into();
    let container = ContainerAsk { name: "main".into(), index: 0, passing: false, asks };
    PodInfo { containers: vec![container], ..pod.asks(GPU, count) }
}

fn class(resource: Option<&str>) -> ClassInfo {
    ClassInfo { name: "gpu".into(), extended_resource: resource.map(SmolStr::from), ..ClassInfo::default() }
}

fn requests(of: &Value) -> Vec<Request> {
    let one = |of: &Value| {
        let exactly = &of["exactly"];
        let ask = Ask {
            class: exactly["deviceClassName"].as_str().unwrap().into(),
            selectors: Vec::new(),
            count: Count::Exactly(exactly["count"].as_i64().unwrap()),
            admin: false,
            tolerations: Vec::new(),
            written_tolerations: Vec::new(),
            capacity: BTreeMap::new(),
            derived: false,
        };
        Request { name: of["name"].as_str().unwrap().into(), kind: RequestKind::Exactly(ask) }
    };
    of.as_array().unwrap().iter().map(one).collect()
}

impl Scene {
    /// Nodes n0 to n2; n0 and n1 have two devices each, n2 a device plugin with one.
    fn with_backed() -> Self {
        let mut scene = Self::with_devices();
        scene.device(DeviceFact::Class(class(Some(GPU))));
        scene.nodes([node("n2").has(GPU, 1)]);
        scene
    }

    /// A write that only special claims have; None: another.
    pub(super) fn write_special_claim(&mut self, write: &PrepareWrite) -> Option<WriteResult> {
        let version = |scene: &Self, name: &str| {
            let (claim, _) = scene.claims.claims.get(name)?;
            Some(claim.resource_version.clone())
        };
        Some(match write {
            PrepareWrite::CreateClaim { claim, .. } if self.claims.claims.contains_key(&claim.name) => {
                WriteResult::Conflict
            }
            PrepareWrite::CreateClaim { claim, manifest } => {
                assert_eq!(manifest["metadata"]["name"], claim.name.as_str());
                let claim = crate::devices::ClaimInfo {
                    namespace: claim.namespace.clone(),
                    name: claim.name.clone(),
                    uid: format!("made-{}", self.claims.version).into(),
                    finalized: true,
                    special: true,
                    controller: manifest["metadata"]["ownerReferences"][0]["uid"].as_str().map(SmolStr::from),
                    requests: requests(&manifest["spec"]["devices"]["requests"]),
                    ..crate::devices::ClaimInfo::default()
                };
                let name = claim.name.clone();
                self.put_device_claim(claim, None);
                if self.claims.deaf {
                    return Some(WriteResult::Unknown("connection reset".to_owned()));
                }
                WriteResult::Ok(version(self, &name).unwrap())
            }
            PrepareWrite::NameClaim { pod, claim, mappings } => {
                let known = self.pods.get_mut(&pod.uid).unwrap();
                known.resource_version = format!("{}n", known.resource_version).into();
                let (known, mapped) = (known.clone(), mappings.as_array().unwrap().len());
                self.claims.named.insert(pod.name.clone(), (claim.clone(), mapped));
                self.see(Event::PodUpsert(Box::new(known.clone())));
                WriteResult::Ok(known.resource_version)
            }
            PrepareWrite::DeleteClaim { claim, resource_version } => match version(self, &claim.name) {
                None => WriteResult::NotFound,
                Some(known) if known != *resource_version => WriteResult::Conflict,
                Some(_) => {
                    let (gone, _) = self.claims.claims.remove(&claim.name).unwrap();
                    assert!(!gone.finalized && gone.uid == claim.uid);
                    self.device(DeviceFact::ClaimGone(gone.namespace, gone.name));
                    WriteResult::Ok("".into())
                }
            },
            _ => return None,
        })
    }

    /// What a pod's status names.
    pub(super) fn read_naming(&self, pod: &str) -> PrepareReadResult {
        let Some(pod) = self.pods.values().find(|known| known.key.name == pod) else {
            return PrepareReadResult::NotFound;
        };
        let facts = PodFacts {
            uid: pod.key.uid.clone(),
            resource_version: pod.resource_version.clone(),
            special_claim: self.claims.named.get(&pod.key.name).map(|(name, _)| name.clone()),
            fence: None,
        };
        PrepareReadResult::Found(Box::new(ObjectFacts::Pod(facts)))
    }

    /// The devices of a pod's special claim.
    fn devices_for(&self, pod: &str) -> Vec<String> {
        let uid = SmolStr::from(format!("uid-{pod}"));
        let owned = self.claims.claims.values().find(|(claim, _)| claim.special_for() == Some(&uid));
        owned.map(|(claim, _)| self.devices_of(&claim.name)).unwrap_or_default()
    }
}

#[test]
fn a_pod_gets_devices_for_an_extended_resource_where_no_plugin_offers_it() {
    let mut s = Scene::with_backed();
    s.create(asking(2, pod("p")));
    s.run();
    assert_eq!((s.node_of("p"), s.devices_for("p")), (Some("n0"), vec!["n0/gpu-0".to_owned(), "n0/gpu-1".to_owned()]));
    let (name, mappings) = &s.claims.named["p"];
    assert!(name.starts_with("p-extended-resources-") && *mappings == 1, "{name}");
    let (claim, _) = &s.claims.claims[name];
    assert_eq!(claim.reserved_for, ["uid-p"]);
    // A node whose device plugin offers it needs no claim.
    let node_selector = [("kubernetes.io/hostname".into(), "n2".into())].into();
    s.create(PodInfo { node_selector, ..asking(1, pod("r")) });
    s.run();
    assert_eq!((s.node_of("r"), s.devices_for("r").len(), s.claims.claims.len()), (Some("n2"), 0, 1));
    assert_eq!(s.engine.snapshot().cluster().assumed_count(), 0);
}

#[test]
fn it_is_refused_in_kube_schedulers_words_and_woken_when_a_class_stands_for_the_resource() {
    let mut s = Scene::with_backed();
    s.device(DeviceFact::Class(class(None)));
    s.create(asking(2, pod("p")));
    s.run();
    assert!(s.message("p").1.contains("3 Insufficient example.com/gpu"), "{:?}", s.message("p"));
    s.device(DeviceFact::Class(class(Some(GPU))));
    s.run();
    assert_eq!(s.node_of("p"), Some("n0"));
    s.create(asking(3, pod("q")));
    s.run();
    let told = s.message("q").1;
    assert!(told.contains("1 Insufficient example.com/gpu") && told.contains("2 cannot allocate all claims"), "{told}");
}

#[test]
fn a_gang_gets_all_its_devices_or_none_and_no_claim_is_made_before() {
    let mut s = Scene::with_backed();
    for rank in 0..3 {
        s.create(asking(2, member("g", rank, 3)));
    }
    s.run();
    assert!(s.message("g-0").1.contains("cannot allocate all claims"), "{:?}", s.message("g-0"));
    assert_eq!((s.bound_of("g"), s.claims.claims.len()), (0, 0));
    s.nodes([node("n3")]);
    s.device(DeviceFact::Slice(slice("n3", 2)));
    s.pass(60_000);
    let held: BTreeSet<String> = (0..3).flat_map(|rank| s.devices_for(&format!("g-{rank}"))).collect();
    assert_eq!((s.bound_of("g"), held.len(), s.claims.named.len()), (3, 6, 3));
}

#[test]
fn devices_of_a_special_claim_that_no_watch_has_shown_are_nobody_elses() {
    let mut s = Scene::with_backed();
    s.claims_are_slow();
    s.create(asking(2, pod("p")));
    s.create(asking(2, pod("q")));
    s.run();
    assert_eq!([s.node_of("p"), s.node_of("q")], [Some("n0"), Some("n1")]);
    s.delete("p");
    s.create(asking(2, pod("r")));
    s.run();
    assert_eq!(s.node_of("r"), None, "the server has the devices with the claim of p");
    s.claims_are_seen();
    assert_eq!(s.node_of("r"), None);
    s.collect("p");
    s.pass(60_000);
    assert_eq!(s.node_of("r"), Some("n0"));
}

#[test]
fn what_was_made_for_a_pod_that_goes_before_it_is_bound_is_deleted() {
    let mut s = Scene::with_backed();
    s.hold_binds = true;
    s.create(asking(1, pod("p")));
    s.run();
    assert_eq!((s.held.len(), s.devices_for("p").len()), (1, 1));
    s.held.clear();
    s.delete("p");
    s.pass(60_000);
    assert_eq!((s.claims.claims.len(), s.engine.snapshot().cluster().assumed_count()), (0, 0));
}

#[test]
fn a_claim_whose_making_was_not_answered_is_found_and_used() {
    let mut s = Scene::with_backed();
    s.claims.deaf = true;
    s.create(asking(1, pod("p")));
    s.run();
    s.pass(60_000);
    assert_eq!(
        (s.node_of("p"), s.devices_for("p"), s.claims.claims.len()),
        (Some("n0"), vec!["n0/gpu-0".to_owned()], 1)
    );
}

#[test]
fn a_claim_that_is_left_over_is_deleted_before_its_pod_is_tried_again() {
    let mut s = Scene::with_backed();
    let claim = crate::devices::ClaimInfo {
        namespace: "ns".into(),
        name: "left".into(),
        uid: "uid-left".into(),
        special: true,
        finalized: true,
        controller: Some("uid-p".into()),
        ..crate::devices::ClaimInfo::default()
    };
    s.put_device_claim(claim, None);
    s.create(asking(2, pod("p")));
    s.run();
    let told = s.message("p").1;
    let expected = "1 Insufficient example.com/gpu, 2 cannot schedule extended resource claim";
    assert!(told.contains(expected), "{told}");
    assert_eq!(s.node_of("p"), Some("n0"), "it was woken when the claim was gone");
    assert!(!s.claims.claims.contains_key("left"));
}

#[test]
fn the_next_leader_binds_what_was_prepared_and_deletes_what_was_not() {
    for deaf in [false, true] {
        let mut s = Scene::with_backed();
        s.claims.deaf = deaf;
        s.hold_binds = true;
        for rank in 0..2 {
            s.create(asking(2, member("g", rank, 2)));
        }
        s.run();
        let before: BTreeSet<String> = (0..2).flat_map(|rank| s.devices_for(&format!("g-{rank}"))).collect();
        assert_eq!(before.len(), if deaf { 0 } else { 4 });
        s.see(Event::Follow);
        (s.hold_binds, s.claims.deaf) = (false, false);
        s.held.clear();
        s.lead(2);
        s.pass(60_000);
        s.pass(60_000);
        let after: BTreeSet<String> = (0..2).flat_map(|rank| s.devices_for(&format!("g-{rank}"))).collect();
        assert_eq!((s.bound_of("g"), after.len(), s.claims.claims.len()), (2, 4, 2), "deaf: {deaf}");
    }
}
