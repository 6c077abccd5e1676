//! The shadow of a gang, and what is held back for it, on a snapshot.

use super::*;
use crate::config::Config;
use crate::fixture::{NodeChain, PodChain, member, node, pod};
use crate::gang::{Ask, Planned, plan};
use crate::snapshot::{NodeId, Snapshot};
use std::collections::BTreeMap;

const NOW: Millis = 10_000_000;
const MINUTE: Millis = 60_000;

fn gpus(name: &str, amount: i64) -> PodInfo {
    pod(name).asks("nvidia.com/gpu", amount)
}

/// What runs since now and declares so many minutes.
fn runs(name: &str, amount: i64, on: &str, minutes: Option<Millis>) -> PodInfo {
    PodInfo {
        started_at_ms: Some(NOW),
        expected: minutes.map(|minutes| Ok(minutes * MINUTE)),
        ..gpus(name, amount).on(on)
    }
}

struct Scene {
    snapshot: Snapshot,
    members: Vec<PodId>,
}

impl Scene {
    /// Nodes of 8 GPUs in racks of two, what runs there, and a gang of members of 8 that waits.
    fn new(nodes: usize, running: Vec<PodInfo>, members: u32, level: Option<&str>) -> Self {
        let mut snapshot = Snapshot::new(&Config::default());
        for at in 0..nodes {
            let rack = format!("r{}", at / 2);
            snapshot.upsert_node(
                node(&format!("n{at}")).has("nvidia.com/gpu", 8).label("fabric.topograph.run/tier-0", &rack),
            );
        }
        for pod in running {
            snapshot.upsert_pod(pod);
        }
        snapshot.reservations_mut().set_now(NOW);
        let mut scene = Self { snapshot, members: Vec::new() };
        for rank in 0..members {
            let member = member("big", rank, members).asks("nvidia.com/gpu", 8);
            let id = scene.add(if let Some(level) = level { member.within(level) } else { member });
            scene.members.push(id);
        }
        scene
    }

    fn add(&mut self, pod: PodInfo) -> PodId {
        self.snapshot.upsert_pod(pod).expect("a pod").id
    }

    fn ask(&self, rack: bool) -> Ask {
        let rack = self.snapshot.cluster().tree().levels().find("rack").filter(|_| rack);
        Ask { members: self.members.clone(), required: rack, steps: 1_000, ..Ask::default() }
    }

    /// Minutes from now, and the nodes; None in time: nobody knows.
    fn shadow(&mut self, rack: bool, known: Known) -> Option<(Option<Millis>, Vec<String>)> {
        let ask = self.ask(rack);
        let before = self.snapshot.cluster().dump();
        let found = shadow(&mut self.snapshot, &ask, NOW, known);
        assert_eq!(before, self.snapshot.cluster().dump(), "looking leaves no trace");
        found.map(|shadow| (shadow.at_ms.map(|at| (at - NOW) / MINUTE), self.names(&shadow.places)))
    }

    fn names(&self, places: &[(PodId, NodeId)]) -> Vec<String> {
        places.iter().map(|(_, node)| self.snapshot.cluster().node_name(*node).to_string()).collect()
    }

    /// Reserves the gang's shadow.
    fn reserve(&mut self, priority: i32) -> Reservation {
        let ask = self.ask(false);
        let shadow = shadow(&mut self.snapshot, &ask, NOW, Known::Only).expect("a shadow");
        let until_ms = shadow.at_ms.expect("a time");
        let reservation = Reservation {
            gang: crate::snapshot::Slab::default().insert(gang_record()),
            namespace: "ns".into(),
            name: "big".into(),
            profile: 0,
            priority,
            since_ms: 0,
            until_ms,
            first_until_ms: until_ms,
            kept: false,
            places: shadow.places,
        };
        self.snapshot.cluster.reserve(reservation.clone());
        reservation
    }

    /// What keeps a pod off which node.
    fn kept_off(&mut self, pod: PodInfo) -> Vec<(String, String)> {
        let id = self.add(pod);
        let mut found = BTreeMap::new();
        self.snapshot.keep_off(id, &mut found);
        let cluster = self.snapshot.cluster();
        let name =
            |node: u32| cluster.nodes.at(node).map(|(id, _)| cluster.node_name(id).to_string()).unwrap_or_default();
        found.into_iter().map(|(node, reasons)| (name(node), reasons[0].to_string())).collect()
    }
}

fn gang_record() -> crate::gang::GangRecord {
    crate::gang::GangRecord {
        namespace: "ns".into(),
        name: "big".into(),
        declared: None,
        members: std::collections::BTreeSet::new(),
        last_arrival_ms: 0,
        whole_once: false,
        doomed: std::collections::BTreeSet::new(),
    }
}

fn busy(ends: &[Option<Millis>]) -> Vec<PodInfo> {
    let on = |(at, end): (usize, &Option<Millis>)| runs(&format!("b{at}"), 8, &format!("n{at}"), *end);
    ends.iter().enumerate().map(on).collect()
}

fn declares(pod: PodInfo, minutes: Millis) -> PodInfo {
    PodInfo { expected: Some(Ok(minutes * MINUTE)), ..pod }
}

#[test]
fn a_shadow_is_the_earliest_time_at_which_ends_make_room() {
    let mut scene = Scene::new(4, busy(&[Some(50), Some(10), Some(40), Some(20)]), 2, None);
    assert_eq!(scene.shadow(false, Known::Only), Some((Some(20), vec!["n1".into(), "n3".into()])));
}

#[test]
fn a_shadow_is_in_one_domain_where_the_gang_must_be() {
    let mut scene = Scene::new(4, busy(&[Some(50), Some(10), Some(40), Some(20)]), 2, Some("rack"));
    assert_eq!(scene.shadow(true, Known::Only), Some((Some(40), vec!["n2".into(), "n3".into()])));
}

#[test]
fn no_shadow_rests_on_an_end_that_nobody_knows() {
    let mut scene = Scene::new(2, busy(&[Some(10), None]), 2, None);
    assert_eq!(scene.shadow(false, Known::Only), None);
    assert_eq!(scene.shadow(false, Known::OrNot), Some((None, vec!["n0".into(), "n1".into()])));
    // Services, and what is not ours, never end.
    let owner = crate::model::Owner {
        api_version: "apps/v1".into(),
        kind: "StatefulSet".into(),
        name: "s".into(),
        uid: "s".into(),
    };
    let service = PodInfo { owner: Some(owner), ..runs("s", 8, "n1", None) };
    let mut scene = Scene::new(2, vec![runs("b", 8, "n0", Some(10)), service], 2, None);
    assert_eq!(scene.shadow(false, Known::OrNot), None);
    let mut scene = Scene::new(2, vec![runs("b", 8, "n0", Some(10)), runs("f", 8, "n1", None).foreign()], 2, None);
    assert_eq!(scene.shadow(false, Known::OrNot), None);
}

#[test]
fn who_outlives_what_it_declared_is_expected_to_take_as_long_again() {
    let late = PodInfo { started_at_ms: Some(NOW - 25 * MINUTE), ..runs("b0", 8, "n0", Some(20)) };
    let mut scene = Scene::new(1, vec![late], 1, None);
    assert_eq!(scene.shadow(false, Known::Only), Some((Some(5), vec!["n0".into()])));
}

#[test]
fn of_work_whose_end_is_unknown_the_youngest_is_expected_to_go_first() {
    let old = PodInfo { started_at_ms: Some(NOW - MINUTE), ..runs("b0", 8, "n0", None) };
    let mut scene = Scene::new(2, vec![old, runs("b1", 8, "n1", None)], 1, None);
    assert_eq!(scene.shadow(false, Known::OrNot), Some((None, vec!["n1".into()])));
}

#[test]
fn only_who_ends_in_time_or_uses_what_is_left_over_is_let_in() {
    // n0 ends in 20 minutes, n1 has 2 of 8 GPUs busy until then and 6 idle.
    let mut scene = Scene::new(2, vec![runs("b0", 8, "n0", Some(20)), runs("b1", 2, "n1", Some(20))], 2, None);
    scene.reserve(0);
    let reason = "node(s) were reserved for gang ns/big until 1970-01-01T03:06:40Z";
    let n1 = |reason: &str| vec![("n1".to_owned(), reason.to_owned())];
    assert_eq!(scene.kept_off(gpus("long", 1)), n1(reason));
    assert_eq!(scene.kept_off(declares(gpus("too-long", 1), 21)), n1(reason));
    assert_eq!(scene.kept_off(declares(gpus("short", 6), 15)), []);
    // It may stand beside the gang: it asks for no GPU.
    assert_eq!(scene.kept_off(pod("plain").asks("cpu", 1_000)), []);
    // Where it does not fit anyway, the node's own reason stands.
    assert_eq!(scene.kept_off(gpus("wide", 7)), []);
    let wrong = PodInfo { expected: Some(Err("soon".into())), ..gpus("wrong", 1) };
    let hint = format!("{reason} (annotation flowforge.dev/expected-duration is no duration such as 90m or 1h30m)");
    assert_eq!(scene.kept_off(wrong), n1(&hint));
}

#[test]
fn what_is_left_over_beside_the_gang_is_free_for_everyone() {
    // A member of 8 is to follow b0 on n0; n1 has 4 idle GPUs that nobody reserved.
    let mut scene = Scene::new(2, vec![runs("b0", 8, "n0", Some(20)), runs("b1", 4, "n1", None)], 1, None);
    scene.reserve(0);
    assert_eq!(scene.kept_off(gpus("long", 4)), []);
    // Of n0 nothing is free before it is reserved: when b0 ends early, it is held.
    let b0 = scene.snapshot.cluster().find_pod("uid-b0").expect("it is known");
    scene.snapshot.delete_pod(b0);
    assert_eq!(scene.kept_off(gpus("longer", 4)).len(), 1);
    assert_eq!(scene.kept_off(declares(gpus("short", 8), 10)), []);
}

#[test]
fn higher_priorities_pass_and_equal_ones_do_not() {
    let mut scene = Scene::new(2, vec![runs("b0", 8, "n0", Some(20)), runs("b1", 2, "n1", Some(20))], 2, None);
    scene.reserve(5);
    assert_eq!(scene.kept_off(gpus("high", 1).priority(6)), []);
    assert_eq!(scene.kept_off(gpus("equal", 1).priority(5)).len(), 1);
    assert_eq!(scene.kept_off(gpus("low", 1).priority(-3)).len(), 1);
}

#[test]
fn gangs_are_planned_around_what_is_reserved_unless_all_of_them_end_in_time() {
    let planned = |minutes: [Option<Millis>; 2]| {
        let mut scene = Scene::new(2, vec![runs("b0", 8, "n0", Some(20)), runs("b1", 2, "n1", Some(20))], 2, None);
        scene.reserve(0);
        let small = |(rank, minutes): (u32, Option<Millis>)| {
            let pod = member("small", rank, 2).asks("nvidia.com/gpu", 3);
            minutes.map_or(pod.clone(), |minutes| declares(pod, minutes))
        };
        let members = (0..).zip(minutes).map(small).map(|pod| scene.add(pod)).collect();
        let before = scene.snapshot.cluster().dump();
        let found = plan(&mut scene.snapshot, &Ask { members, steps: 1_000, ..Ask::default() });
        let placed = matches!(found, Planned::Placed(_));
        assert!(placed || before == scene.snapshot.cluster().dump(), "a refusal leaves no trace");
        placed
    };
    assert!(planned([Some(10), Some(15)]));
    assert!(!planned([Some(10), Some(30)]));
    assert!(!planned([Some(10), None]));
}

#[test]
fn a_less_important_gang_reserves_beside_a_more_important_one() {
    let mut scene = Scene::new(2, busy(&[Some(10), Some(20)]), 1, None);
    scene.reserve(0);
    let second = scene.add(member("second", 0, 1).asks("nvidia.com/gpu", 8));
    let ask = Ask { members: vec![second], steps: 1_000, ..Ask::default() };
    let found = shadow(&mut scene.snapshot, &ask, NOW, Known::Only).expect("a shadow");
    assert_eq!((found.at_ms, scene.names(&found.places)), (Some(NOW + 20 * MINUTE), vec!["n1".into()]));
}
