//! What is told of a gang beforehand is what the scheduler then does, and the telling changes nothing.

use super::*;
use crate::rehearsal::{DomainRoom, Lack, Outcome, Rehearsal};
use proptest::prelude::*;

impl Scene {
    fn rehearse(&mut self, name: &str) -> Rehearsal {
        let before = self.engine.snapshot.cluster().dump();
        let told = self.engine.rehearse(&"ns".into(), &name.into(), self.now).expect("a gang of that name");
        assert_eq!(self.engine.snapshot.cluster().dump(), before, "rollback_is_identity");
        told
    }
}

/// Two racks of two DGX each; gang `old` holds 12 GPUs of rack r1, 4 of which stand on each of two members' hosts.
fn racks() -> Scene {
    let mut s = Scene::new();
    s.nodes([dgx("a", "b1", "r1"), dgx("b", "b1", "r1"), dgx("c", "b1", "r2"), dgx("d", "b1", "r2")]);
    for (rank, node) in [(0, "a"), (1, "c"), (2, "c")] {
        let started = PodInfo { started_at_ms: Some(500), ..member("old", rank, 3).asks("nvidia.com/gpu", 4) };
        s.create(started.priority(1).on(node));
    }
    s.run();
    s
}

fn level<'a>(outcome: &'a Outcome, name: &str) -> &'a Lack {
    let Outcome::Refused { levels, .. } = outcome else { panic!("{outcome:?}") };
    levels.iter().find(|lack| lack.level == name).expect("the level")
}

fn best(lack: &Lack) -> &DomainRoom {
    lack.best.as_ref().expect("a domain")
}

#[test]
fn a_gang_that_fits_is_told_its_nodes_its_domain_and_its_pace() {
    let mut s = racks();
    (0..2).for_each(|rank| s.create(member("new", rank, 2).asks("nvidia.com/gpu", 8).within("block")));
    let told = s.rehearse("new");
    let Outcome::Fits { seats, domain, left, pace } = &told.outcome else { panic!("{told:?}") };
    let nodes: Vec<&str> = seats.iter().map(|seat| seat.node.as_str()).collect();
    assert_eq!((nodes, domain.as_str(), *left), (vec!["b", "d"], "block/b1", 0));
    assert_eq!((seats[0].rank, seats[0].devices), (Some(0), 8));
    assert_eq!(seats[1].path, ["block/b1", "rack/r2"]);
    assert_eq!((told.required.as_deref(), told.resource.as_str(), told.waiting), (Some("block"), "nvidia.com/gpu", 2));
    let pace = pace.as_ref().expect("GPUs take part");
    assert_eq!((pace.devices, pace.hosts, pace.level.as_str()), (16, 2, "block"));
    assert_eq!(pace.bottleneck, "network between b and d");
    // One port of 100 Gb/s as no NIC is known, half of it across racks: 2 · 15/16 · 1.0737 GB / 6 GB/s and some latency.
    assert!((pace.seconds_per_gib - 0.3356).abs() < 1e-3, "{pace:?}");
    s.run();
    assert_eq!([s.node_of("new-0"), s.node_of("new-1")], [Some("b"), Some("d")]);
    let stands = s.rehearse("new");
    assert_eq!((stands.waiting, stands.standing.len()), (0, 2));
    assert!(matches!(stands.outcome, Outcome::Stands { pace: Some(_) }), "{stands:?}");
}

#[test]
fn one_host_needs_no_network() {
    let mut s = racks();
    s.create(member("one", 0, 1).asks("nvidia.com/gpu", 8));
    let told = s.rehearse("one");
    let Outcome::Fits { domain, pace: Some(pace), .. } = &told.outcome else { panic!("{told:?}") };
    assert_eq!((domain.as_str(), pace.hosts, pace.level.as_str()), ("host/b", 1, "host"));
}

#[test]
fn a_gang_without_a_place_is_told_level_by_level_what_is_missing_and_who_holds_it() {
    let mut s = racks();
    (0..2).for_each(|rank| s.create(member("new", rank, 2).asks("nvidia.com/gpu", 8).within("rack").priority(1)));
    let told = s.rehearse("new");
    let rack = level(&told.outcome, "rack");
    assert_eq!((rack.required, rack.domains, rack.enough, rack.need), (true, 2, 0, 16));
    let best_rack = best(rack);
    assert_eq!((best_rack.domain.as_str(), best_rack.fit, best_rack.free, best_rack.total), ("rack/r1", 1, 12, 16));
    let nodes: Vec<(&str, i64, u32)> = best_rack.nodes.iter().map(|n| (n.name.as_str(), n.free, n.fit)).collect();
    assert_eq!(nodes, [("b", 8, 1), ("a", 4, 0)]);
    let [held] = best_rack.holders.as_slice() else { panic!("{best_rack:?}") };
    assert_eq!((held.kind, held.name.as_str(), held.units, held.pods), ("gang", "ns/old", 4, 1));
    assert_eq!((held.since_ms, held.less_important, held.leaving), (Some(500), false, false));
    let block = level(&told.outcome, "block");
    assert_eq!((block.required, block.enough, best(block).free), (false, 1, 20));
    let cluster = level(&told.outcome, "cluster");
    assert_eq!((cluster.enough, best(cluster).domain.as_str()), (1, "cluster"));
    let Outcome::Refused { reason, message, room, .. } = &told.outcome else { panic!("{told:?}") };
    assert_eq!((reason.as_str(), room.victims.len()), ("Unschedulable", 0));
    assert!(message.contains("needs 2 members placed together in one rack, 1 fit (in rack/r1)"), "{message}");
}

#[test]
fn nodes_that_refuse_anyway_are_told_apart_from_those_that_are_full() {
    let mut s = racks();
    s.nodes([NodeInfo { unschedulable: true, ..dgx("b", "b1", "r1") }]);
    (0..2).for_each(|rank| s.create(member("new", rank, 2).asks("nvidia.com/gpu", 8).within("rack")));
    let told = s.rehearse("new");
    let rack = best(level(&told.outcome, "rack"));
    assert_eq!((rack.domain.as_str(), rack.free), ("rack/r2", 8), "r1 has 4 free that count");
    let block = best(level(&told.outcome, "block"));
    assert_eq!(block.closed.len(), 1);
    assert_eq!((block.closed[0].nodes, block.closed[0].free, block.free), (1, 8, 12));
    assert!(block.closed[0].reason.contains("unschedulable"), "{:?}", block.closed);
}

#[test]
fn the_victims_that_are_told_are_those_that_are_evicted_then() {
    let mut s = racks();
    s.create(pod("alone").asks("nvidia.com/gpu", 2).priority(3).on("b"));
    (0..2).for_each(|rank| s.create(member("new", rank, 2).asks("nvidia.com/gpu", 8).within("rack").priority(5)));
    let told = s.rehearse("new");
    let Outcome::Refused { room, .. } = &told.outcome else { panic!("{told:?}") };
    let victims: Vec<(&str, &str, u32, i64)> =
        room.victims.iter().map(|v| (v.kind, v.name.as_str(), v.pods, v.units)).collect();
    assert_eq!(victims, [("gang", "ns/old", 3, 12)], "the less important of the two");
    assert!(room.message.contains("gang ns/old (3 pods)"), "{}", room.message);
    let nodes: Vec<SmolStr> = room.seats.iter().map(|seat| seat.node.clone()).collect();
    assert_eq!(s.evicted, Vec::<SmolStr>::new());
    s.run();
    s.evicted.sort();
    assert_eq!(s.evicted, ["old-0", "old-1", "old-2"]);
    ["old-0", "old-1", "old-2"].iter().for_each(|name| s.delete(name));
    s.run();
    assert_eq!([s.node_of("new-0"), s.node_of("new-1")], [Some(nodes[0].as_str()), Some(nodes[1].as_str())]);
}

#[test]
fn what_comes_before_the_nodes_is_told_as_that() {
    let mut s = racks();
    s.create(member("half", 0, 2).asks("nvidia.com/gpu", 1));
    let told = s.rehearse("half");
    let Outcome::Waits { reason, message } = &told.outcome else { panic!("{told:?}") };
    assert_eq!(reason, "WaitingForGang");
    assert!(message.contains("1 of 2"), "{message}");
    s.create(member("lost", 0, 1).within("row"));
    let told = s.rehearse("lost");
    assert!(matches!(&told.outcome, Outcome::Waits { message, .. } if message.contains("\"row\" is not configured")));
    assert_eq!(s.engine.rehearse(&"ns".into(), &"nobody".into(), 0), None);
}

#[test]
fn a_rehearsal_is_read_by_programs() {
    let mut s = racks();
    (0..2).for_each(|rank| s.create(member("new", rank, 2).asks("nvidia.com/gpu", 8).within("rack").priority(5)));
    let told = serde_json::to_value(s.rehearse("new")).expect("JSON");
    assert_eq!(told["outcome"], "refused");
    assert_eq!(told["levels"][0]["level"], "cluster");
    assert_eq!(told["room"]["victims"][0]["name"], "ns/old");
    assert!(told["levels"].as_array().is_some_and(|levels| levels.iter().any(|l| l["required"] == true)));
}

/// Small clusters, who stands there, and a gang that comes: members, GPUs of each, level, priority.
type World = (Vec<(u8, u8)>, Vec<(u8, u8, u8)>, (u8, u8, Option<&'static str>, u8));

fn world() -> impl Strategy<Value = World> {
    let nodes = proptest::collection::vec((0_u8..3, 0_u8..2), 1..7);
    let others = proptest::collection::vec((1_u8..4, 1_u8..9, 0_u8..4), 0..5);
    let level = prop_oneof![Just(None), Just(Some("rack")), Just(Some("block")), Just(Some("host"))];
    (nodes, others, (1_u8..5, 1_u8..9, level, 0_u8..4))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_rehearsal_is_what_the_scheduler_then_does((nodes, others, (size, gpus, level, priority)) in world()) {
        let mut s = Scene::new();
        s.nodes(nodes.iter().enumerate().map(|(at, (rack, block))| dgx(&format!("n{at}"), &format!("b{block}"), &format!("b{block}r{rack}"))));
        for (at, (size, gpus, priority)) in others.iter().enumerate() {
            let size = u32::from(*size);
            (0..size).for_each(|rank| {
                let pod = member(&format!("o{at}"), rank, size).asks("nvidia.com/gpu", i64::from(*gpus));
                s.create(pod.priority((*priority).into()));
            });
            s.run();
        }
        // Those who wait would go first, or evict for themselves.
        let waiting: Vec<SmolStr> = s.pods.values().filter(|p| p.node_name.is_none()).map(|p| p.key.name.clone()).collect();
        waiting.iter().for_each(|name| s.delete(name));
        s.run();
        let going: Vec<SmolStr> = s.pods.values().filter(|p| p.deleting).map(|p| p.key.name.clone()).collect();
        going.iter().for_each(|name| s.delete(name));
        s.run();
        s.evicted.clear();
        let size = u32::from(size);
        for rank in 0..size {
            let pod = member("g", rank, size).asks("nvidia.com/gpu", gpus.into()).priority(priority.into());
            s.create(level.map_or(pod.clone(), |level| pod.within(level)));
        }
        let told = s.rehearse("g");
        s.run();
        match &told.outcome {
            Outcome::Fits { seats, .. } => {
                for seat in seats {
                    prop_assert_eq!(s.node_of(&seat.pod), Some(seat.node.as_str()));
                }
                prop_assert_eq!(seats.len(), size as usize);
            }
            Outcome::Refused { levels, room, message, .. } => {
                prop_assert_eq!(s.bound_of("g"), 0);
                prop_assert!(s.message("g-0").1.starts_with(message.as_str()), "{message}");
                let victims: u32 = room.victims.iter().map(|victim| victim.pods).sum();
                prop_assert_eq!(s.evicted.len(), victims as usize);
                let asked = level.unwrap_or("cluster");
                let lack = levels.iter().find(|lack| lack.level == asked).expect("the level");
                prop_assert!(lack.required && lack.enough == 0, "{lack:?}");
                let best = lack.best.as_ref().expect("there are nodes");
                prop_assert!(best.fit < size, "{best:?}");
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
