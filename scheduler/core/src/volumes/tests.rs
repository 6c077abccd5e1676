//! Choices follow places: what is kept and selected for whom, and that nothing of it outlasts a rollback.

use super::*;
use crate::config::Config;
use crate::cycle;
use crate::explain::{Reason, Refusal, VolumeReason};
use crate::fixture::{NodeChain, node, pod};
use crate::model::{NodeOperator, NodeRequirement, NodeSelectorTerm, PodInfo};
use crate::plugins::volume_binding::NO_PROVISIONER;
use crate::preparation::{ClaimName, Preparation};
use crate::profile::{Filter, Filters, Profile, Profiles};
use crate::protocol::Check;
use crate::snapshot::{End, PodId, Snapshot};
use proptest::prelude::*;
use smol_str::SmolStr;

fn claim(name: &str, class: &str) -> ClaimInfo {
    ClaimInfo {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
        resource_version: "7".into(),
        class: class.into(),
        modes: vec!["ReadWriteOnce".into()],
        request: Some(StorageSize(1)),
        ..ClaimInfo::default()
    }
}

fn class(name: &str, provisioner: &str) -> ClassInfo {
    ClassInfo { name: name.into(), provisioner: provisioner.into(), waits: true, topologies: Vec::new() }
}

/// A free volume of class `local` on one node.
fn local(name: &str, on: &str, size: i128) -> VolumeInfo {
    let required =
        NodeRequirement { key: "kubernetes.io/hostname".into(), operator: NodeOperator::In, values: vec![on.into()] };
    VolumeInfo {
        name: name.into(),
        uid: format!("uid-{name}").into(),
        resource_version: "3".into(),
        class: "local".into(),
        capacity: StorageSize(size),
        modes: vec!["ReadWriteOnce".into()],
        available: true,
        affinity: Some(vec![NodeSelectorTerm { match_expressions: vec![required], match_fields: Vec::new() }]),
        ..VolumeInfo::default()
    }
}

fn mounting(name: &str, claims: &[&str]) -> PodInfo {
    PodInfo { volumes: claims.iter().map(|claim| PodVolume::Claim((*claim).into())).collect(), ..pod(name) }
}

/// Nodes n0 to n2; classes `local` (by hand) and `made`.
fn snapshot(facts: impl IntoIterator<Item = StorageFact>) -> Snapshot {
    let mut s = Snapshot::new(&Config::default());
    for name in ["n0", "n1", "n2"] {
        s.upsert_node(node(name).label("zone", if name == "n2" { "b" } else { "a" }));
    }
    s.set_storage(StorageFact::Class(class("local", NO_PROVISIONER)));
    s.set_storage(StorageFact::Class(class("made", "csi.example")));
    facts.into_iter().for_each(|fact| drop(s.set_storage(fact)));
    s
}

fn enter(s: &mut Snapshot, pod: PodInfo) -> PodId {
    s.upsert_pod(pod).unwrap().id
}

fn place(s: &mut Snapshot, pod: PodId) -> Result<SmolStr, String> {
    match cycle::find(s, pod) {
        Ok(node) => {
            s.assume(pod, node);
            Ok(s.cluster().node_name(node))
        }
        Err(refusal) => Err(refusal.message()),
    }
}

fn on_node(s: &Snapshot, name: &str) -> crate::snapshot::NodeId {
    s.cluster().find_node(name).unwrap()
}

#[test]
fn a_volume_serves_one_claim_and_is_free_again_when_its_pod_gives_up() {
    let facts = [
        StorageFact::Claim(claim("a", "local")),
        StorageFact::Claim(claim("b", "local")),
        StorageFact::Volume(local("v", "n1", 5)),
    ];
    let mut s = snapshot(facts);
    let (first, second) = (enter(&mut s, mounting("p", &["a"])), enter(&mut s, mounting("q", &["b"])));
    assert_eq!(place(&mut s, first).as_deref(), Ok("n1"));
    let bound = Preparation::BindVolume {
        claim: ClaimName { namespace: "ns".into(), name: "a".into(), uid: "uid-a".into() },
        volume: "v".into(),
        volume_uid: "uid-v".into(),
        volume_resource_version: "3".into(),
    };
    assert_eq!(s.preparations(first), Ok(vec![bound]));
    let nowhere = "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(place(&mut s, second), Err(nowhere.to_owned()));
    s.forget(first);
    assert_eq!(place(&mut s, second).as_deref(), Ok("n1"));
    assert_eq!(s.preparations(first), Ok(Vec::new()));
}

#[test]
fn a_missing_claim_is_told_by_the_first_rule_that_is_on() {
    let says = |filters| {
        let mut profile = Profile::default();
        profile.filters = filters;
        let mut s = Snapshot::new(&Config { profiles: Profiles::new(vec![profile]), ..Config::default() });
        s.upsert_node(node("n0"));
        let id = enter(&mut s, mounting("p", &["absent"]));
        let refusal = cycle::find(&mut s, id).expect_err("there is no such claim");
        (refusal.message(), refusal.plugins().into_iter().collect::<Vec<_>>())
    };
    let message = "0/1 nodes are available: persistentvolumeclaim \"absent\" not found.".to_owned();
    assert_eq!(says(Filters::ALL), (message.clone(), vec!["VolumeRestrictions"]));
    let without_restrictions = Filters::ALL.without(Filter::VolumeRestrictions);
    assert_eq!(says(without_restrictions), (message.clone(), vec!["VolumeBinding"]));
    let without_binding = without_restrictions.without(Filter::VolumeBinding);
    assert_eq!(says(without_binding), (message, vec!["VolumeZone"]));
    let by_node = "0/1 nodes are available: 1 looking up PVC ns/absent: persistentvolumeclaim \"absent\" not found.";
    let only_limits = without_binding.without(Filter::VolumeZone);
    assert_eq!(says(only_limits), (by_node.to_owned(), vec!["NodeVolumeLimits"]));
}

#[test]
fn pods_that_share_a_claim_share_its_node_and_its_volume() {
    let facts = [
        StorageFact::Claim(claim("made", "made")),
        StorageFact::Claim(claim("local", "local")),
        StorageFact::Volume(local("v", "n2", 5)),
    ];
    let mut s = snapshot(facts);
    let pods = ["p", "q"].map(|name| enter(&mut s, mounting(name, &["made"])));
    let on = on_node(&s, "n1");
    s.assume(pods[0], on);
    assert_eq!(place(&mut s, pods[1]).as_deref(), Ok("n1"));
    let provision = s.preparations(pods[1]).unwrap();
    assert!(matches!(&provision[..], [Preparation::Provision { node, .. }] if node == "n1"));
    let sharers = ["r", "t"].map(|name| enter(&mut s, mounting(name, &["local"])));
    assert_eq!(place(&mut s, sharers[0]).as_deref(), Ok("n2"));
    assert_eq!(place(&mut s, sharers[1]).as_deref(), Ok("n2"));
    s.forget(sharers[0]);
    assert_eq!(s.preparations(sharers[1]).map(|all| all.len()), Ok(1), "the other one still has it");
}

#[test]
fn the_smallest_volume_is_taken_and_claims_that_ask_for_least_choose_first() {
    let large = ClaimInfo { request: Some(StorageSize(4)), ..claim("large", "local") };
    let facts = [
        StorageFact::Claim(claim("small", "local")),
        StorageFact::Claim(large),
        StorageFact::Volume(local("five", "n1", 5)),
        StorageFact::Volume(local("two", "n1", 2)),
    ];
    let mut s = snapshot(facts);
    let p = enter(&mut s, mounting("p", &["large", "small"]));
    assert_eq!(place(&mut s, p).as_deref(), Ok("n1"));
    let chosen: Vec<_> = s
        .preparations(p)
        .unwrap()
        .into_iter()
        .filter_map(|one| match one {
            Preparation::BindVolume { claim, volume, .. } => Some((claim.name, volume)),
            _ => None,
        })
        .collect();
    assert_eq!(chosen, [("small".into(), "two".into()), ("large".into(), "five".into())]);
}

#[test]
fn a_claim_that_serves_one_pod_refuses_the_next_until_that_is_gone() {
    let alone = ClaimInfo {
        volume: Some("v".into()),
        bind_completed: true,
        modes: vec![READ_WRITE_ONCE_POD.into()],
        ..claim("a", "made")
    };
    let mut s = snapshot([StorageFact::Claim(alone), StorageFact::Volume(local("v", "n0", 5))]);
    let pods = ["p", "q"].map(|name| enter(&mut s, mounting(name, &["a"])));
    assert_eq!(place(&mut s, pods[0]).as_deref(), Ok("n0"));
    assert_eq!(s.preparations(pods[0]), Ok(Vec::new()), "all is bound");
    assert!(place(&mut s, pods[1]).is_err_and(|message| message.contains("ReadWriteOncePod")));
    s.delete_pod(pods[0]);
    assert_eq!(place(&mut s, pods[1]).as_deref(), Ok("n0"));
}

#[test]
fn a_node_takes_so_many_volumes_of_a_driver_and_one_that_is_there_already_is_free() {
    let limits =
        CsiNodeInfo { name: "n0".into(), drivers: [("csi.example".into(), Some(1))].into(), ..CsiNodeInfo::default() };
    let bound = |name: &str| ClaimInfo {
        volume: Some(format!("v-{name}").into()),
        bind_completed: true,
        ..claim(name, "made")
    };
    let volume = |name: &str| VolumeInfo {
        source: VolumeSource::Csi(CsiHandle { driver: "csi.example".into(), handle: name.into() }),
        ..local(&format!("v-{name}"), "n0", 5)
    };
    let facts = [
        StorageFact::Claim(bound("a")),
        StorageFact::Claim(bound("b")),
        StorageFact::Volume(volume("a")),
        StorageFact::Volume(volume("b")),
        StorageFact::CsiNode(limits),
    ];
    let mut s = snapshot(facts);
    let [first, again, other] = ["a", "a", "b"].map(|name| mounting(name, &[name]));
    let again =
        PodInfo { key: crate::model::PodKey { uid: "again".into(), name: "again".into(), ..again.key }, ..again };
    let (first, again, other) = (enter(&mut s, first), enter(&mut s, again), enter(&mut s, other));
    assert_eq!(place(&mut s, first).as_deref(), Ok("n0"));
    assert_eq!(place(&mut s, again).as_deref(), Ok("n0"));
    assert!(place(&mut s, other).is_err_and(|message| message.contains("exceed max volume count")));
    s.forget(first);
    assert!(place(&mut s, other).is_err(), "the other pod still has it");
    s.forget(again);
    assert_eq!(place(&mut s, other).as_deref(), Ok("n0"));
}

#[test]
fn what_refuses_before_any_node_is_looked_at_says_which_claim() {
    let mut s = snapshot([]);
    let p = enter(&mut s, mounting("p", &["absent"]));
    let refusal = cycle::find(&mut s, p).unwrap_err();
    assert!(matches!(*refusal, Refusal::PreFilter { total: 3, reason: Reason::Volume(_) }));
    assert_eq!(refusal.message(), "0/3 nodes are available: persistentvolumeclaim \"absent\" not found.");
    let news = s.set_storage(StorageFact::Claim(claim("absent", "made")));
    assert_eq!(news.users, [p]);
    assert!(place(&mut s, p).is_ok());
}

#[test]
fn a_place_that_cannot_serve_the_claims_says_so_instead_of_nothing() {
    let facts = [StorageFact::Claim(claim("a", "local")), StorageFact::Volume(local("v", "n1", 5))];
    let mut s = snapshot(facts);
    let p = enter(&mut s, mounting("p", &["a"]));
    let (wrong, right) = (on_node(&s, "n0"), on_node(&s, "n1"));
    s.assume(p, wrong);
    assert_eq!(s.preparations(p), Err(Reason::Volume(VolumeReason::NoVolume)));
    s.forget(p);
    s.assume(p, right);
    assert!(s.preparations(p).is_ok_and(|all| all.len() == 1));
    s.forget(p);
    s.remove_storage(StorageKind::Claim, &"ns".into(), &"a".into());
    s.assume(p, right);
    assert_eq!(s.preparations(p), Err(Reason::Volume(VolumeReason::ClaimMissing("a".into()))));
}

#[test]
fn what_was_prepared_is_sound_when_the_node_can_reach_the_volume_that_the_claim_got() {
    let mut s = snapshot([StorageFact::Claim(claim("a", "made"))]);
    let p = enter(&mut s, mounting("p", &["a"]));
    let [n0, n1] = ["n0", "n1"].map(|name| on_node(&s, name));
    assert_eq!(s.check_prepared(p, n1), Check::NotYet);
    let bound = ClaimInfo { volume: Some("v".into()), bind_completed: true, ..claim("a", "made") };
    s.set_storage(StorageFact::Claim(bound));
    assert_eq!(s.check_prepared(p, n1), Check::NotYet, "its volume is not seen yet");
    s.set_storage(StorageFact::Volume(local("v", "n1", 5)));
    assert_eq!(s.check_prepared(p, n1), Check::Sound);
    let elsewhere = "PersistentVolume v of PersistentVolumeClaim ns/a cannot be reached from node n0";
    assert_eq!(s.check_prepared(p, n0), Check::Broken(elsewhere.to_owned()));
    s.remove_storage(StorageKind::Claim, &"ns".into(), &"a".into());
    assert_eq!(s.check_prepared(p, n1), Check::Broken("PersistentVolumeClaim ns/a is gone".to_owned()));
}

#[derive(Clone, Debug)]
enum Step {
    Place(u8, u8),
    Forget(u8),
    Bind(u8),
    Volume(u8, bool),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8, 0..3u8).prop_map(|(pod, node)| Step::Place(pod, node)),
        (0..6u8).prop_map(Step::Forget),
        (0..4u8).prop_map(Step::Bind),
        (0..5u8, any::<bool>()).prop_map(|(volume, there)| Step::Volume(volume, there)),
        (0..6u8).prop_map(Step::Delete),
    ]
}

/// Claims c0, c1 by hand and c2, c3 to be made; volumes on all nodes; pods that mount one or two of them.
fn world() -> Snapshot {
    let mut s =
        snapshot((0..4).map(|i| StorageFact::Claim(claim(&format!("c{i}"), if i < 2 { "local" } else { "made" }))));
    for i in 0..5i128 {
        s.set_storage(StorageFact::Volume(local(&format!("v{i}"), &format!("n{}", i % 3), 1 + i)));
    }
    for i in 0..6 {
        let names = [format!("c{}", i % 4), format!("c{}", (i + 1) % 4)];
        let names: Vec<&str> = names.iter().take(1 + i % 2).map(String::as_str).collect();
        enter(&mut s, mounting(&format!("p{i}"), &names));
    }
    s
}

fn play(s: &mut Snapshot, step: &Step) {
    let find = |s: &Snapshot, pod: u8| s.cluster().find_pod(&format!("uid-p{pod}"));
    match step {
        Step::Place(pod, node) => {
            if let Some(id) = find(s, *pod) {
                let node = on_node(s, &format!("n{node}"));
                s.assume(id, node);
            }
        }
        Step::Forget(pod) => {
            if let Some(id) = find(s, *pod) {
                s.forget(id);
            }
        }
        Step::Bind(at) => {
            let bound = ClaimInfo {
                volume: Some(format!("v{at}").into()),
                bind_completed: true,
                ..claim(&format!("c{at}"), "made")
            };
            s.set_storage(StorageFact::Claim(bound));
        }
        Step::Volume(at, true) => {
            let volume = local(&format!("v{at}"), &format!("n{}", at % 3), 1 + i128::from(*at));
            s.set_storage(StorageFact::Volume(volume));
        }
        Step::Volume(at, false) => {
            s.remove_storage(StorageKind::Volume, &SmolStr::default(), &format!("v{at}").into());
        }
        Step::Delete(pod) => {
            if let Some(id) = find(s, *pod) {
                s.delete_pod(id);
            }
        }
    }
}

/// Counts of what is kept and selected are those of the choices of assumed pods.
fn choices_are_counted(s: &Snapshot) {
    let volumes = &s.cluster().volumes;
    let assumed = s.assumed();
    assert!(volumes.choices.keys().all(|pod| assumed.contains(pod)));
    let kept: u32 = volumes.kept.values().map(|(_, count)| *count).sum();
    let selected: u32 = volumes.selected.values().map(|(_, _, count)| *count).sum();
    let chosen = volumes.choices.values().fold((0, 0), |sum, choice| {
        let (bind, provision) = choice.size();
        (sum.0 + bind, sum.1 + provision)
    });
    assert_eq!((kept as usize, selected as usize), chosen);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rollback_is_identity(steps in prop::collection::vec(step(), 0..30), trial in prop::collection::vec((0..6u8, 0..3u8, any::<bool>()), 1..12)) {
        let mut s = world();
        for step in &steps {
            play(&mut s, step);
            choices_are_counted(&s);
        }
        let before = facts(&s);
        s.transact(|txn| {
            let mut mark = txn.mark();
            for (pod, node, partly) in &trial {
                if *partly {
                    txn.roll_back_to(mark);
                    mark = txn.mark();
                }
                let (pod, node) = (txn.snapshot().cluster().find_pod(&format!("uid-p{pod}")), on_node(txn.snapshot(), &format!("n{node}")));
                if let Some(pod) = pod {
                    txn.place(pod, node);
                    choices_are_counted(txn.snapshot());
                    let _ = txn.demand(pod);
                }
            }
            End::RollBack(())
        });
        prop_assert_eq!(before, facts(&s));
    }
}

fn facts(s: &Snapshot) -> impl PartialEq + std::fmt::Debug + use<> {
    let volumes = &s.cluster().volumes;
    (volumes.choices.clone(), volumes.kept.clone(), volumes.selected.clone(), volumes.mounts.clone())
}
