//! Pods and the devices that they get.

use super::*;
use crate::config::Config;
use crate::cycle;
use crate::explain::Reason;
use crate::fixture::{NodeChain, PodChain, member, node, pod};
use crate::model::PodInfo;
use crate::opinion::opinions;
use crate::snapshot::{End, Place, PodId, Snapshot};
use smol_str::SmolStr;

fn snapshot(nodes: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::new(&Config::default());
    for name in nodes {
        snapshot.upsert_node(node(name).has("cpu", 8000));
        snapshot.note_device(DeviceFact::Slice(slice(name, &["gpu-0", "gpu-1"])));
    }
    let class = ClassInfo {
        name: "gpu".into(),
        selectors: vec![Some("device.driver == \"gpu.example\"".into())],
        ..ClassInfo::default()
    };
    snapshot.note_device(DeviceFact::Class(class));
    snapshot
}

fn slice(node: &str, devices: &[&str]) -> SliceInfo {
    let device = |name: &&str| DeviceInfo { name: (*name).into(), ..DeviceInfo::default() };
    SliceInfo {
        name: format!("slice-{node}").into(),
        driver: "gpu.example".into(),
        pool: node.into(),
        slices_in_pool: 1,
        reach: Reach::Node(node.into()),
        devices: devices.iter().map(device).collect(),
        ..SliceInfo::default()
    }
}

fn ask(count: i64) -> Ask {
    Ask {
        class: "gpu".into(),
        selectors: Vec::new(),
        count: Count::Exactly(count),
        admin: false,
        tolerations: Vec::new(),
        written_tolerations: Vec::new(),
        capacity: Amounts::new(),
        derived: false,
    }
}

fn claim(name: &str, count: i64) -> ClaimInfo {
    ClaimInfo {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("claim-{name}").into(),
        requests: vec![Request { name: "gpus".into(), kind: RequestKind::Exactly(ask(count)) }],
        ..ClaimInfo::default()
    }
}

fn claiming(pod: PodInfo, claim: &str) -> PodInfo {
    let source = ClaimSource::Named(claim.into());
    PodInfo { resource_claims: vec![PodClaim { name: "c".into(), source }], ..pod }
}

fn arrive(snapshot: &mut Snapshot, pod: PodInfo, devices: i64) -> PodId {
    let name = pod.key.name.clone();
    snapshot.note_device(DeviceFact::Claim(claim(&name, devices)));
    snapshot.upsert_pod(claiming(pod, &name)).unwrap().id
}

fn place(snapshot: &mut Snapshot, id: PodId) -> Result<SmolStr, String> {
    match cycle::find(snapshot, id) {
        Ok(node) => {
            snapshot.assume(id, node);
            Ok(snapshot.cluster().node_name(node))
        }
        Err(refusal) => Err(refusal.message()),
    }
}

#[test]
fn two_pods_never_get_one_device() {
    let mut s = snapshot(&["a"]);
    let pods: Vec<PodId> = (0..3).map(|i| arrive(&mut s, pod(&format!("p{i}")), 1)).collect();
    assert_eq!([place(&mut s, pods[0]), place(&mut s, pods[1])], [Ok("a".into()), Ok("a".into())]);
    assert_eq!(place(&mut s, pods[2]), Err("0/1 nodes are available: 1 cannot allocate all claims.".into()));
    s.forget(pods[0]);
    assert_eq!(place(&mut s, pods[2]), Ok("a".into()));
}

#[test]
fn what_is_rolled_back_leaves_no_trace() {
    let mut s = snapshot(&["a", "b"]);
    let pods: Vec<PodId> = (0..2).map(|i| arrive(&mut s, pod(&format!("p{i}")), 2)).collect();
    let before = s.cluster().devices.held();
    let a = s.cluster().find_node("a").unwrap();
    s.transact(|txn| {
        txn.place(pods[0], a);
        let mark = txn.mark();
        assert!(txn.consider(pods[1]).iter().any(|c| c.refused == [Reason::Devices]));
        txn.roll_back_to(mark);
        End::RollBack(())
    });
    assert_eq!(s.cluster().devices.held(), before);
}

#[test]
fn an_assumed_allocation_becomes_the_claims_own() {
    let mut s = snapshot(&["a"]);
    let id = arrive(&mut s, pod("p"), 1);
    place(&mut s, id).unwrap();
    let [pending] = &s.cluster().devices.pending.values().collect::<Vec<_>>()[..] else { panic!("nothing is assumed") };
    let allocated = ClaimInfo { allocation: Some(pending.allocation.as_ref().clone()), ..claim("p", 1) };
    s.note_device(DeviceFact::Claim(allocated));
    assert!(s.cluster().devices.pending.is_empty());
    s.confirm(id, &"a".into());
    s.delete_pod(id);
    let other = arrive(&mut s, pod("q"), 2);
    assert!(place(&mut s, other).is_err());
    s.note_device(DeviceFact::ClaimGone("ns".into(), "p".into()));
    assert_eq!(place(&mut s, other), Ok("a".into()));
}

#[test]
fn a_shared_claim_is_allocated_once_and_only_for_one_gang_at_a_time() {
    let mut s = snapshot(&["a"]);
    s.note_device(DeviceFact::Claim(claim("shared", 2)));
    let ids: Vec<PodId> =
        (0..2).map(|rank| s.upsert_pod(claiming(member("g", rank, 2), "shared")).unwrap().id).collect();
    let stranger = s.upsert_pod(claiming(pod("stranger"), "shared")).unwrap().id;
    assert_eq!([place(&mut s, ids[0]), place(&mut s, ids[1])], [Ok("a".into()), Ok("a".into())]);
    let busy = "0/1 nodes are available: resource claim ns/shared is in the process of being allocated.";
    assert_eq!(place(&mut s, stranger), Err(busy.into()));
    s.forget(ids[0]);
    assert_eq!(place(&mut s, stranger), Err(busy.into()));
    s.forget(ids[1]);
    assert_eq!(place(&mut s, stranger), Ok("a".into()));
}

#[test]
fn earlier_alternatives_are_worth_more() {
    let mut s = snapshot(&["a", "b"]);
    s.note_device(DeviceFact::Slice(slice("b", &["gpu-0"])));
    let alternatives = vec![("two".into(), ask(2)), ("one".into(), ask(1))];
    let requests = vec![Request { name: "gpus".into(), kind: RequestKind::FirstAvailable(alternatives) }];
    s.note_device(DeviceFact::Claim(ClaimInfo { requests, ..claim("p", 1) }));
    let id = s.upsert_pod(claiming(pod("p"), "p")).unwrap().id;
    let scores = opinions(&mut s, id).into_iter().map(|o| (o.node, o.scores.last().unwrap().1));
    assert_eq!(scores.collect::<Vec<_>>(), [("a".into(), 200), ("b".into(), 174)]);
    assert_eq!(place(&mut s, id), Ok("a".into()));
}

#[test]
fn what_is_missing_is_said_before_any_node_is_looked_at() {
    let mut s = snapshot(&["a"]);
    let id = s.upsert_pod(claiming(pod("p"), "none")).unwrap().id;
    let refused = |s: &mut Snapshot| place(s, id).unwrap_err();
    assert_eq!(refused(&mut s), "0/1 nodes are available: could not find ResourceClaim \"ns/none\".");
    s.note_device(DeviceFact::Claim(ClaimInfo { deleting: true, ..claim("none", 1) }));
    assert_eq!(refused(&mut s), "0/1 nodes are available: resourceclaim \"none\" is being deleted.");
    s.note_device(DeviceFact::Claim(claim("none", 1)));
    s.note_device(DeviceFact::ClassGone("gpu".into()));
    assert_eq!(refused(&mut s), "0/1 nodes are available: request gpus: device class gpu does not exist.");
}

#[test]
fn a_broken_selector_is_an_error_and_not_a_node_without_devices() {
    let mut s = snapshot(&["a"]);
    let broken = Ask { selectors: vec![Some("device.attributes[\"gpu.example\"].none == 1".into())], ..ask(1) };
    let requests = vec![Request { name: "gpus".into(), kind: RequestKind::Exactly(broken) }];
    s.note_device(DeviceFact::Claim(ClaimInfo { requests, ..claim("p", 1) }));
    let id = s.upsert_pod(claiming(pod("p"), "p")).unwrap().id;
    let refused = place(&mut s, id).unwrap_err();
    assert!(refused.contains("CEL runtime error: no such key: none"), "{refused}");
}

#[test]
fn an_ended_pod_gives_assumed_devices_back() {
    let mut s = snapshot(&["a"]);
    let id = arrive(&mut s, pod("p"), 2);
    place(&mut s, id).unwrap();
    s.upsert_pod(claiming(pod("p"), "p").phase(crate::model::PodPhase::Failed));
    assert!(s.cluster().pod(id).is_none_or(|p| p.place == Place::Ended));
    let other = arrive(&mut s, pod("q"), 2);
    assert_eq!(place(&mut s, other), Ok("a".into()));
}

#[test]
fn an_allocation_is_written_as_the_api_has_it() {
    let allocation = Allocation {
        results: vec![AllocatedDevice {
            request: "gpus".into(),
            id: ["d".into(), "p".into(), "gpu-0".into()],
            share: Some("s".into()),
            consumed: Some([("memory".into(), Quantity::whole(5))].into()),
            ..AllocatedDevice::default()
        }],
        ..Allocation::default()
    };
    let device = serde_json::json!({"request": "gpus", "driver": "d", "pool": "p", "device": "gpu-0", "shareID": "s",
        "consumedCapacity": {"memory": "5"}});
    assert_eq!(allocation.to_json(), serde_json::json!({"devices": {"results": [device]}}));
}
