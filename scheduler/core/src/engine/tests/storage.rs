//! Pods whose claims wait for them, from the claim to the Binding, with a volume controller and a provisioner.

use super::*;
use crate::command::OpId;
use crate::event::PrepareReadResult;
use crate::model::{NodeOperator, NodeRequirement, NodeSelectorTerm};
use crate::plugins::volume_binding::NO_PROVISIONER;
use crate::preparation::{ObjectFacts, PrepareWrite, PreparedObject, VolumeClaimFacts, VolumeFacts};
use crate::volumes::{ClaimRef, ClassInfo, StorageKind, StorageSize};

/// What the server holds of storage, and who answers there.
#[derive(Debug, Default)]
pub(super) struct Storage {
    claims: BTreeMap<SmolStr, ClaimInfo>,
    volumes: BTreeMap<SmolStr, VolumeInfo>,
    version: u64,
    /// Claims that the provisioner refuses.
    refused: BTreeSet<SmolStr>,
    /// Claims that nobody answers for the time being.
    silent: BTreeSet<SmolStr>,
    /// Where volumes of a claim are made, whatever node was selected.
    misplaced: BTreeMap<SmolStr, SmolStr>,
    /// Events of volumes are held back.
    slow_volumes: bool,
    /// What was written, in order.
    writes: Vec<String>,
}

fn on(node: &str) -> Option<Vec<NodeSelectorTerm>> {
    let required =
        NodeRequirement { key: "kubernetes.io/hostname".into(), operator: NodeOperator::In, values: vec![node.into()] };
    Some(vec![NodeSelectorTerm { match_expressions: vec![required], match_fields: Vec::new() }])
}

fn local(name: &str, node: &str) -> VolumeInfo {
    VolumeInfo {
        name: name.into(),
        uid: format!("uid-{name}").into(),
        class: "local".into(),
        capacity: StorageSize(1),
        available: true,
        affinity: on(node),
        ..VolumeInfo::default()
    }
}

fn mounts(claims: &[&str], pod: PodInfo) -> PodInfo {
    PodInfo { volumes: claims.iter().map(|claim| PodVolume::Claim((*claim).into())).collect(), ..pod }
}

impl Scene {
    /// Nodes n0 to n2; classes `made` and `local`, whose claims wait for a pod.
    fn with_storage() -> Self {
        let mut scene = Self::new();
        scene.nodes(["n0", "n1", "n2"].map(node));
        for (name, provisioner) in [("made", "csi.example"), ("local", NO_PROVISIONER)] {
            let class =
                ClassInfo { name: name.into(), provisioner: provisioner.into(), waits: true, ..ClassInfo::default() };
            scene.see(Event::StorageUpsert(Box::new(StorageFact::Class(class))));
        }
        scene
    }

    fn claim(&mut self, name: &str, class: &str) {
        let claim = ClaimInfo {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
            class: class.into(),
            ..ClaimInfo::default()
        };
        self.put_claim(claim);
    }

    fn put_claim(&mut self, claim: ClaimInfo) {
        self.storage.version += 1;
        let claim = ClaimInfo { resource_version: self.storage.version.to_string().into(), ..claim };
        self.storage.claims.insert(claim.name.clone(), claim.clone());
        self.see(Event::StorageUpsert(Box::new(StorageFact::Claim(claim))));
    }

    fn put_volume(&mut self, volume: VolumeInfo) {
        self.storage.version += 1;
        let volume = VolumeInfo { resource_version: self.storage.version.to_string().into(), ..volume };
        self.storage.volumes.insert(volume.name.clone(), volume.clone());
        if !self.storage.slow_volumes {
            self.see(Event::StorageUpsert(Box::new(StorageFact::Volume(volume))));
        }
    }

    fn volumes_are_seen(&mut self) {
        self.storage.slow_volumes = false;
        let volumes: Vec<VolumeInfo> = self.storage.volumes.values().cloned().collect();
        for volume in volumes {
            self.see(Event::StorageUpsert(Box::new(StorageFact::Volume(volume))));
        }
        self.run();
    }

    fn end_claim(&mut self, name: &str) {
        self.storage.claims.remove(name);
        let (kind, namespace, name) = (StorageKind::Claim, "ns".into(), name.into());
        self.see(Event::StorageDelete { kind, namespace, name });
    }

    pub(super) fn read_prepared(&mut self, op: OpId, object: &PreparedObject) {
        let found = match object {
            PreparedObject::Volume { name } => self.storage.volumes.get(name).map(|volume| {
                let claim = volume.claim.as_ref().map(|claim| crate::preparation::ClaimName {
                    namespace: claim.namespace.clone(),
                    name: claim.name.clone(),
                    uid: claim.uid.clone(),
                });
                let (uid, resource_version) = (volume.uid.clone(), volume.resource_version.clone());
                ObjectFacts::Volume(VolumeFacts { uid, resource_version, deleting: volume.deleting, claim })
            }),
            PreparedObject::VolumeClaim { name, .. } => self.storage.claims.get(name).map(|claim| {
                ObjectFacts::VolumeClaim(VolumeClaimFacts {
                    key: claim.claim_name(),
                    resource_version: claim.resource_version.clone(),
                    volume: claim.volume.clone(),
                    bound: claim.bind_completed,
                    selected_node: claim.selected_node.clone(),
                    ..VolumeClaimFacts::default()
                })
            }),
            PreparedObject::Pod { name, .. } => {
                let result = self.read_naming(name);
                return self.see(Event::Outcome(Outcome::PreparedRead { op, result }));
            }
            PreparedObject::ResourceClaim { name, .. } => {
                let result = self.read_device_claim(name);
                return self.see(Event::Outcome(Outcome::PreparedRead { op, result }));
            }
        };
        let result = found.map_or(PrepareReadResult::NotFound, |facts| PrepareReadResult::Found(Box::new(facts)));
        self.see(Event::Outcome(Outcome::PreparedRead { op, result }));
    }

    /// Writes under another resourceVersion than the object has are refused, as a server does.
    pub(super) fn prepare(&mut self, op: OpId, write: PrepareWrite) {
        let result = match write {
            PrepareWrite::ClaimVolume { volume, resource_version, claim, .. } => {
                let known = self.storage.volumes.get(&volume).cloned();
                self.storage.writes.push(format!("{volume} to {}", claim.name));
                self.write(known.map(|v| (v.resource_version.clone(), v)), &resource_version, |scene, known| {
                    let reference = ClaimRef { namespace: claim.namespace, name: claim.name, uid: claim.uid };
                    scene.put_volume(VolumeInfo { claim: Some(reference), available: false, ..known });
                })
            }
            PrepareWrite::SelectNode { claim, resource_version, node } => {
                let known = self.storage.claims.get(&claim.name).cloned();
                self.storage.writes.push(format!("{} on {}", claim.name, node.as_deref().unwrap_or("none")));
                self.write(known.map(|c| (c.resource_version.clone(), c)), &resource_version, |scene, known| {
                    scene.put_claim(ClaimInfo { selected_node: node, ..known });
                })
            }
            PrepareWrite::FenceClaim { object: PreparedObject::VolumeClaim { name, .. }, resource_version, .. } => {
                let known = self.storage.claims.get(&name).cloned();
                self.write(known.map(|c| (c.resource_version.clone(), c)), &resource_version, Self::put_claim)
            }
            other => return self.write_device_claim(op, other),
        };
        self.see(Event::Outcome(Outcome::Prepare { op, result }));
        self.controllers();
    }

    fn write<T>(
        &mut self,
        known: Option<(SmolStr, T)>,
        resource_version: &SmolStr,
        change: impl FnOnce(&mut Self, T),
    ) -> WriteResult {
        match known {
            None => WriteResult::NotFound,
            Some((version, _)) if version != *resource_version => WriteResult::Conflict,
            Some((_, known)) => {
                change(self, known);
                WriteResult::Ok(self.storage.version.to_string().into())
            }
        }
    }

    /// The volume controller binds what a volume names; the provisioner makes a volume where a node is selected.
    fn controllers(&mut self) {
        let waits = |claim: &&ClaimInfo| !claim.is_bound() && !self.storage.silent.contains(&claim.name);
        let open: Vec<ClaimInfo> = self.storage.claims.values().filter(waits).cloned().collect();
        for claim in open {
            let named = self.storage.volumes.values().find(|v| v.claim.as_ref().is_some_and(|c| c.is(&claim))).cloned();
            if let Some(volume) = named {
                self.put_claim(ClaimInfo { volume: Some(volume.name), bind_completed: true, ..claim });
                continue;
            }
            let Some(node) = claim.selected_node.clone() else { continue };
            if self.storage.refused.contains(&claim.name) {
                self.put_claim(ClaimInfo { selected_node: None, ..claim });
                continue;
            }
            let node = self.storage.misplaced.get(&claim.name).cloned().unwrap_or(node);
            let reference = ClaimRef { namespace: "ns".into(), name: claim.name.clone(), uid: claim.uid.clone() };
            let name = format!("made-{}", claim.name);
            self.put_volume(VolumeInfo {
                class: "made".into(),
                available: false,
                claim: Some(reference),
                ..local(&name, &node)
            });
            self.put_claim(ClaimInfo { volume: Some(name.into()), bind_completed: true, ..claim });
        }
    }

    fn nothing_assumed(&self) -> bool {
        self.engine.snapshot().cluster().assumed_count() == 0
    }
}

#[test]
fn a_claim_that_waits_for_its_pod_is_provisioned_on_its_node_before_the_pod_is_bound() {
    let mut s = Scene::with_storage();
    s.claim("data", "made");
    s.storage.silent.insert("data".into());
    s.create(mounts(&["data"], pod("p")));
    s.run();
    let node = s.storage.claims["data"].selected_node.clone();
    assert!(node.is_some());
    assert_eq!((s.node_of("p"), s.engine.stats().pending), (None, 1), "it waits for its volume");
    s.storage.silent.clear();
    s.controllers();
    s.run();
    assert_eq!((s.node_of("p"), s.storage.writes.len()), (node.as_deref(), 1));
    assert!(s.nothing_assumed());
}

#[test]
fn a_volume_on_a_node_is_given_to_the_claim_of_the_pod_that_goes_there() {
    let mut s = Scene::with_storage();
    s.put_volume(local("v1", "n1"));
    s.put_volume(local("v2", "n2"));
    for (claim, name) in [("a", "p"), ("b", "q"), ("c", "r")] {
        s.claim(claim, "local");
        s.create(mounts(&[claim], pod(name)));
    }
    s.run();
    assert_eq!(s.storage.writes, ["v1 to a", "v2 to b"]);
    assert_eq!((s.node_of("p"), s.node_of("q"), s.node_of("r")), (Some("n1"), Some("n2"), None));
    assert!(
        s.message("r").1.starts_with("0/3 nodes are available: 3 node(s) didn't find available persistent volumes")
    );
    s.put_volume(local("v0", "n0"));
    s.pass(60_000);
    assert_eq!(s.node_of("r"), Some("n0"));
}

#[test]
fn a_gang_is_bound_when_all_its_volumes_are_there_and_not_at_all_before() {
    let mut s = Scene::with_storage();
    for rank in 0..3 {
        s.claim(&format!("c{rank}"), "made");
    }
    s.storage.refused.insert("c2".into());
    for rank in 0..3 {
        s.create(mounts(&[&format!("c{rank}")], member("g", rank, 3)));
    }
    s.run();
    assert_eq!((s.bound_of("g"), s.nothing_assumed()), (0, true));
    assert_eq!(s.storage.claims["c2"].selected_node, None);
    let text = "the provisioner has no volume for PersistentVolumeClaim ns/c2 on node";
    assert!(s.message("g-0").1.contains(text), "{:?}", s.message("g-0"));
    s.storage.refused.clear();
    s.pass(60_000);
    assert_eq!((s.bound_of("g"), s.nothing_assumed()), (3, true));
    let provisioned = |claim: &str| s.storage.writes.iter().filter(|w| w.starts_with(claim)).count();
    assert_eq!((provisioned("c0"), provisioned("c1")), (1, 1), "a volume that was made stays");
}

#[test]
fn a_claim_that_nobody_answers_is_taken_back_in_time_and_tried_again() {
    let mut s = Scene::with_storage();
    s.claim("data", "made");
    s.storage.silent.insert("data".into());
    s.create(mounts(&["data"], pod("p")));
    s.run();
    s.pass(599_999);
    assert!(s.storage.claims["data"].selected_node.is_some());
    s.pass(1);
    assert_eq!((s.storage.claims["data"].selected_node.clone(), s.nothing_assumed()), (None, true));
    s.storage.silent.clear();
    s.pass(60_000);
    assert!(s.node_of("p").is_some());
}

#[test]
fn a_volume_that_was_made_elsewhere_decides_where_the_pod_goes() {
    let mut s = Scene::with_storage();
    s.claim("data", "made");
    s.storage.misplaced.insert("data".into(), "n2".into());
    let tied = PodInfo { node_selector: [("kubernetes.io/hostname".into(), "n1".into())].into(), ..pod("p") };
    s.create(mounts(&["data"], tied));
    s.run();
    assert_eq!((s.node_of("p"), s.nothing_assumed()), (None, true));
    s.pass(60_000);
    assert!(s.message("p").1.contains("didn't match PersistentVolume's node affinity"), "{:?}", s.message("p"));
    s.delete("p");
    s.create(mounts(&["data"], pod("q")));
    s.run();
    assert_eq!(s.node_of("q"), Some("n2"));
}

#[test]
fn a_volume_that_is_seen_after_its_claim_is_waited_for_without_a_clock() {
    let mut s = Scene::with_storage();
    s.claim("data", "made");
    s.storage.slow_volumes = true;
    s.create(mounts(&["data"], pod("p")));
    s.run();
    assert_eq!((s.storage.claims["data"].is_bound(), s.node_of("p")), (true, None));
    s.volumes_are_seen();
    assert!(s.node_of("p").is_some());
}

/// A gang whose claims are bound to volumes that are not seen yet.
fn unseen_volumes(s: &mut Scene) {
    for rank in 0..2 {
        s.claim(&format!("c{rank}"), "local");
        let claim = s.storage.claims[format!("c{rank}").as_str()].clone();
        s.put_claim(ClaimInfo { volume: Some(format!("v{rank}").into()), bind_completed: true, ..claim });
        s.create(mounts(&[&format!("c{rank}")], member("g", rank, 2)));
    }
    s.run();
    assert_eq!(s.bound_of("g"), 0);
}

#[test]
fn a_gang_that_is_tried_before_its_volumes_are_seen_is_tried_again_when_they_are() {
    let mut s = Scene::with_storage();
    unseen_volumes(&mut s);
    assert!(s.message("g-0").1.contains("\"v0\" not found"), "{:?}", s.message("g-0"));
    s.put_volume(local("v0", "n1"));
    s.run();
    assert!(s.message("g-0").1.contains("\"v1\" not found"), "{:?}", s.message("g-0"));
    s.put_volume(local("v1", "n2"));
    s.run();
    assert_eq!((s.node_of("g-0"), s.node_of("g-1")), (Some("n1"), Some("n2")));
}

#[test]
fn a_gang_whose_volumes_are_not_seen_is_not_tried_for_those_of_others() {
    let mut s = Scene::with_storage();
    unseen_volumes(&mut s);
    let attempts = |s: &Scene| s.engine.queue.iter().map(|(_, entry)| entry.attempts).collect::<Vec<_>>();
    let before = attempts(&s);
    for other in 0..3 {
        s.put_volume(local(&format!("other{other}"), "n0"));
        s.pass(10_000);
    }
    assert_eq!((attempts(&s), s.bound_of("g")), (before, 0));
}

#[test]
fn a_claim_that_is_deleted_while_it_is_prepared_ends_the_wait() {
    let mut s = Scene::with_storage();
    s.claim("data", "made");
    s.storage.silent.insert("data".into());
    s.create(mounts(&["data"], pod("p")));
    s.run();
    s.end_claim("data");
    s.run();
    assert!(s.nothing_assumed());
    s.pass(60_000);
    assert!(s.message("p").1.contains("persistentvolumeclaim \"data\" not found"), "{:?}", s.message("p"));
}

#[test]
fn the_next_leader_finishes_what_was_prepared() {
    let mut s = Scene::with_storage();
    for rank in 0..2 {
        let claim = format!("c{rank}");
        s.claim(&claim, "made");
        s.storage.silent.insert(claim.as_str().into());
        s.create(mounts(&[&claim], member("g", rank, 2)));
    }
    s.run();
    let selected = |s: &Scene| s.storage.claims.values().map(|c| c.selected_node.clone()).collect::<Vec<_>>();
    let before = selected(&s);
    assert!(before.iter().all(Option::is_some));
    s.see(Event::Follow);
    assert!(s.nothing_assumed());
    s.storage.silent.clear();
    s.controllers();
    s.lead(2);
    assert_eq!((s.bound_of("g"), selected(&s)), (2, before));
    s.run();
    assert!(s.nothing_assumed());
}

/// A gang of two of which rank 0 is bound and rank 1 is held back in flight.
fn half_bound(s: &mut Scene) -> SmolStr {
    s.hold_binds = true;
    for rank in 0..2 {
        s.create(mounts(&[&format!("c{rank}")], member("g", rank, 2)));
    }
    s.run();
    assert_eq!(s.held.len(), 2, "all is prepared");
    s.hold_binds = false;
    let held = std::mem::take(&mut s.held);
    let mut planned = SmolStr::default();
    for command in held {
        match command {
            Command::Bind { op, pod, node, intent, .. } if pod.name == "g-0" => s.bind(op, &pod.uid, node, intent),
            Command::Bind { node, .. } => planned = node,
            other => panic!("{other:?}"),
        }
    }
    planned
}

#[test]
fn a_replacement_gets_its_own_claim_prepared_before_it_is_bound_to_the_place_that_was_kept() {
    let mut s = Scene::with_storage();
    for claim in ["c0", "c1", "fresh"] {
        s.claim(claim, "made");
    }
    let planned = half_bound(&mut s);
    s.storage.silent.insert("fresh".into());
    s.delete("g-1");
    let again = PodInfo { key: pod("again").key, ..member("g", 1, 2) };
    s.create(mounts(&["fresh"], again));
    s.run();
    assert_eq!(s.storage.claims["fresh"].selected_node.as_deref(), Some(planned.as_str()));
    assert_eq!(s.bound_of("g"), 1, "its volume is not there yet");
    s.storage.silent.clear();
    s.controllers();
    s.run();
    assert_eq!((s.bound_of("g"), s.node_of("again")), (2, Some(planned.as_str())));
}

#[test]
fn a_replacement_is_not_bound_to_a_place_that_cannot_serve_its_claim() {
    let mut s = Scene::with_storage();
    for (at, node) in ["n0", "n1"].iter().enumerate() {
        s.put_volume(local(&format!("v{at}"), node));
        s.claim(&format!("c{at}"), "local");
    }
    s.claim("fresh", "local");
    let planned = half_bound(&mut s);
    s.delete("g-1");
    let again = PodInfo { key: pod("again").key, ..member("g", 1, 2) };
    s.create(mounts(&["fresh"], again));
    s.run();
    assert_eq!((s.bound_of("g"), s.node_of("again")), (1, None));
    assert_ne!(planned, "n2");
    s.put_volume(local("v2", "n2"));
    s.pass(2_000);
    assert_eq!((s.bound_of("g"), s.node_of("again")), (2, Some("n2")));
}
