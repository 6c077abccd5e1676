//! What the engine does in the cases that people ask about.

use super::*;
use crate::model::{SegmentsInfo, SpreadInfo};

#[test]
fn a_pod_is_bound_without_a_journal_and_its_event_says_so() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    let journal = s.journal.0;
    s.create(pod("p").asks("cpu", 1000));
    s.run();
    assert_eq!((s.node_of("p"), s.journal.0), (Some("n1"), journal));
    assert_eq!(s.events, [("p".into(), EventKind::Scheduled, "Successfully assigned ns/p to n1".into())]);
    assert_eq!((s.engine.stats().assumed, s.engine.stats().pending), (0, 0));
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_goes_as_soon_as_it_fits() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    s.create(pod("p").asks("nvidia.com/gpu", 8));
    s.run();
    let told = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. \
                preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(s.message("p"), ("Unschedulable", told));
    assert_eq!(s.engine.stats().unschedulable_by_plugin.get(&("NodeResourcesFit", "flowforge".into())), Some(&1));
    s.nodes([node("n2")]);
    s.run();
    assert_eq!(s.engine.stats().unschedulable, 1);
    s.nodes([dgx("d1", "b1", "r1")]);
    s.run();
    assert_eq!(s.node_of("p"), Some("d1"));
}

#[test]
fn a_gang_one_gpu_short_binds_nothing_and_goes_whole_when_the_node_comes() {
    let mut s = Scene::new();
    s.nodes((0..3).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    s.gang("g", 4, 8);
    s.run();
    assert_eq!((s.bound_of("g"), s.engine.stats().assumed, s.binds), (0, 0, 0));
    let expected = "gang ns/g needs 4 members placed together, 3 fit; \
                    member rank 3: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    for rank in 0..4 {
        assert_eq!(s.message(&format!("g-{rank}")), ("Unschedulable", expected));
    }
    s.nodes([dgx("d3", "b1", "r1")]);
    s.run();
    assert_eq!(s.bound_of("g"), 4);
    assert_eq!(s.engine.stats().open_intents, 0);
}

#[test]
fn of_two_gangs_that_need_most_of_the_cluster_one_runs_and_then_the_other() {
    let mut s = Scene::new();
    s.nodes((0..5).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    s.gang("a", 3, 8);
    s.gang("b", 3, 8);
    s.run();
    assert_eq!((s.bound_of("a"), s.bound_of("b")), (3, 0));
    for rank in 0..3 {
        s.end(&format!("a-{rank}"));
    }
    s.run();
    assert_eq!(s.bound_of("b"), 3);
}

#[test]
fn an_incomplete_gang_waits_without_being_unschedulable() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.create(member("g", 0, 3).asks("nvidia.com/gpu", 1));
    s.create(member("g", 1, 3).asks("nvidia.com/gpu", 1));
    s.run();
    assert_eq!(s.condition_writes, 0);
    s.pass(1_000);
    assert_eq!(s.message("g-1"), ("WaitingForGang", "gang ns/g: 2 of 3 members exist"));
    assert_eq!(s.engine.stats().incomplete, 2);
    assert_eq!(s.engine.waiting(10)[0].queue, "incomplete");
    s.create(member("g", 2, 3).asks("nvidia.com/gpu", 1));
    s.run();
    assert_eq!(s.bound_of("g"), 3);
}

#[test]
fn contradicting_sizes_unknown_levels_and_ended_gangs_are_named() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.create(member("odd", 0, 2));
    s.create(member("odd", 1, 3));
    s.create(member("lost", 0, 1).within("galaxy"));
    let ended = GangInfo { closed: true, ..gang("over", &[("worker", 1, 1)]) };
    s.see(Event::GangUpsert(Box::new(ended.clone())));
    s.create(declared_member(&ended, "worker", 0));
    s.run();
    assert_eq!(s.message("odd-0").0, "InvalidGang");
    assert!(s.message("odd-0").1.contains("contradict each other about the size (2 and 3)"));
    let unknown = "gang ns/lost: annotation flowforge.dev/topology-required: topology level \"galaxy\" is not configured; the levels are zone, block, rack, nvlink, host";
    assert_eq!(s.message("lost-0"), ("InvalidGang", unknown));
    assert_eq!(s.message("over-worker-0").0, "GangEnded");
}

#[test]
fn a_refused_gang_of_high_priority_blocks_nobody() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    for rank in 0..2 {
        let mut big = member("big", rank, 2).asks("nvidia.com/gpu", 8);
        big.priority = 1000;
        s.create(big);
    }
    s.create(pod("small").asks("nvidia.com/gpu", 1));
    s.run();
    assert_eq!((s.bound_of("big"), s.node_of("small")), (0, Some("d0")));
}

#[test]
fn a_refusal_is_written_once_and_its_own_echo_cures_nothing() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.gang("g", 2, 8);
    s.create(pod("p").asks("nvidia.com/gpu", 16));
    s.run();
    let writes = s.condition_writes;
    assert_eq!(writes, 3);
    s.nodes([node("cpu-only")]);
    s.create(pod("q").asks("cpu", 1));
    s.run();
    s.pass(60_000);
    assert_eq!(s.condition_writes, writes);
    assert_eq!(
        s.engine.queue.get(Entity::Gang(s.engine.gangs.find(&"ns".into(), &"g".into()).unwrap())).unwrap().attempts,
        1
    );
}

#[test]
fn a_follower_commands_nothing_and_a_leader_that_steps_down_assumes_nothing() {
    let mut s = Scene::follower();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.gang("g", 2, 4);
    s.run();
    assert_eq!(s.binds, 0);
    s.hold_binds = true;
    s.lead(1);
    assert_eq!((s.held.len(), s.engine.stats().assumed), (2, 2));
    s.see(Event::Follow);
    assert_eq!(s.engine.stats().assumed, 0);
    s.run();
    assert_eq!(s.binds, 0);
}

#[test]
fn a_new_leader_finishes_what_the_journal_holds() {
    let mut old = Scene::new();
    old.hold_binds = true;
    old.nodes((0..2).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    old.gang("g", 2, 8);
    old.run();
    assert_eq!(old.held.len(), 2);
    let first = old.held.remove(0);
    old.hold_binds = false;
    old.answer_one(first);
    let mut new = Scene::follower();
    new.journal = old.journal.clone();
    new.nodes((0..2).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    old.pods.values().cloned().for_each(|p| new.create(p));
    new.lead(2);
    assert_eq!(new.bound_of("g"), 2);
    assert_eq!((new.engine.stats().open_intents, new.engine.stats().assumed), (0, 0));
}

#[test]
fn a_leader_that_is_fenced_stops_and_says_by_whom() {
    let mut s = Scene::follower();
    let later = crate::protocol::journal::Slot { v: 1, epoch: 9, ..Default::default() };
    s.journal = (1, later.encode());
    s.lead(2);
    assert_eq!((s.engine.is_planning(), s.engine.fenced_by()), (false, Some(9)));
    s.lead(10);
    assert_eq!((s.engine.is_planning(), s.engine.fenced_by()), (true, None));
}

#[test]
fn a_new_leader_undoes_the_intent_of_a_gang_that_has_ended() {
    let ended = |closed| Event::GangUpsert(Box::new(GangInfo { closed, ..gang("g", &[("worker", 2, 2)]) }));
    let mut old = Scene::new();
    old.hold_binds = true;
    old.nodes((0..2).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    old.see(ended(false));
    (0..2).for_each(|r| old.create(declared_member(&gang("g", &[("worker", 2, 2)]), "worker", r)));
    old.run();
    let first = old.held.remove(0);
    old.hold_binds = false;
    old.answer_one(first);
    let mut new = Scene::follower();
    new.journal = old.journal.clone();
    new.nodes((0..2).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    new.see(ended(true));
    old.pods.values().cloned().for_each(|p| new.create(p));
    new.lead(2);
    assert_eq!((new.binds, new.bound_of("g")), (0, 0));
    assert_eq!((new.engine.stats().open_intents, new.engine.stats().assumed), (0, 0));
}

#[test]
fn a_node_lost_during_the_bind_is_replaced_by_another() {
    let mut s = Scene::new();
    s.nodes((0..3).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    s.hold_binds = true;
    s.gang("g", 2, 8);
    s.run();
    let Some(Command::Bind { node, .. }) = s.held.first().cloned() else { panic!("no bind") };
    s.held.remove(0);
    s.see(Event::NodeDelete { name: node.clone() });
    s.release_held();
    s.pass(20_000);
    assert_eq!(s.bound_of("g"), 2);
    assert!(s.pods.values().all(|p| p.node_name.as_ref() != Some(&node)));
    assert_eq!(s.engine.stats().assumed, 0);
}

#[test]
fn a_replacement_takes_the_place_of_a_member_that_was_deleted_during_the_bind() {
    let mut s = Scene::new();
    s.nodes((0..2).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    s.hold_binds = true;
    s.gang("g", 2, 8);
    s.run();
    s.delete("g-1");
    s.run();
    // Its place is kept: a pod that would fit there waits.
    s.create(pod("thief").asks("nvidia.com/gpu", 8));
    s.run();
    s.create(member("g", 1, 2).asks("nvidia.com/gpu", 8).uid("uid-again"));
    s.run();
    s.release_held();
    s.pass(5_000);
    assert_eq!((s.bound_of("g"), s.node_of("thief")), (2, None));
    assert_eq!(s.engine.stats().assumed, 0);
}

#[test]
fn a_gang_that_vanishes_during_the_bind_leaves_no_reservation() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.hold_binds = true;
    s.gang("g", 2, 4);
    s.run();
    s.delete("g-0");
    s.delete("g-1");
    s.release_held();
    s.pass(120_000);
    s.create(pod("next").asks("nvidia.com/gpu", 8));
    s.run();
    assert_eq!(s.node_of("next"), Some("d0"));
    assert_eq!((s.engine.stats().assumed, s.engine.stats().open_intents), (0, 0));
}

#[test]
fn an_elastic_gang_starts_with_its_minimum_and_grows_later() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    let elastic = gang("g", &[("worker", 4, 2)]);
    s.see(Event::GangUpsert(Box::new(elastic.clone())));
    (0..4).for_each(|r| s.create(declared_member(&elastic, "worker", r).asks("nvidia.com/gpu", 4)));
    s.run();
    assert_eq!(s.bound_of("g"), 2);
    assert!(s.gang_status[&SmolStr::from("g")].scheduled);
    s.nodes([dgx("d1", "b1", "r1")]);
    s.run();
    assert_eq!(s.bound_of("g"), 4);
    assert_eq!(s.gang_status[&SmolStr::from("g")].domain.as_deref(), Some("rack/r1"));
}

#[test]
fn the_status_of_a_declared_gang_follows_its_placement() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    let declared = gang("g", &[("worker", 2, 2)]);
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    s.create(declared_member(&declared, "worker", 0).asks("nvidia.com/gpu", 8));
    s.pass(1_000);
    assert_eq!(s.gang_status[&SmolStr::from("g")].reason, "WaitingForGang");
    s.create(declared_member(&declared, "worker", 1).asks("nvidia.com/gpu", 8));
    s.run();
    assert_eq!(s.gang_status[&SmolStr::from("g")].reason, "Unschedulable");
    s.nodes([dgx("d1", "b1", "r1")]);
    s.run();
    let status = &s.gang_status[&SmolStr::from("g")];
    assert_eq!(
        (status.scheduled, status.bound, status.nodes.as_slice()),
        (true, 2, ["d0".into(), "d1".into()].as_slice())
    );
}

#[test]
fn an_absurd_request_does_no_harm() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.create(pod("absurd").asks("nvidia.com/gpu", 1_000_000_000_000_000_000));
    s.create(pod("p").asks("nvidia.com/gpu", 8));
    s.run();
    assert_eq!((s.node_of("absurd"), s.node_of("p")), (None, Some("d0")));
}

#[test]
fn a_gated_pod_waits_outside_the_queue() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    let mut gated = pod("p");
    gated.gated = true;
    s.create(gated.clone());
    s.run();
    assert_eq!((s.engine.stats().gated, s.engine.stats().active, s.node_of("p")), (1, 0, None));
    gated.gated = false;
    s.create(gated);
    s.run();
    assert_eq!(s.node_of("p"), Some("n1"));
}

#[test]
fn what_a_new_list_does_not_name_is_gone() {
    let mut s = Scene::new();
    s.nodes([node("n1"), node("n2")]);
    s.create(pod("p").asks("cpu", 64_000));
    s.create(pod("q").asks("cpu", 64_000));
    s.create(pod("r").asks("cpu", 64_000));
    s.run();
    assert_eq!(s.engine.stats().unschedulable, 1);
    let keep: Vec<SmolStr> = vec!["uid-q".into(), "uid-r".into()];
    s.see(Event::Relisted(RelistedKind::Pods(keep)));
    s.run();
    assert!(s.node_of("r").is_some());
    s.see(Event::Relisted(RelistedKind::Nodes(vec!["n1".into()])));
    assert_eq!(s.engine.stats().nodes, 1);
}

#[test]
fn without_binding_plans_are_confirmed_at_once() {
    let mut engine = Engine::new(Config { bind: false, ..Config::default() });
    let mut out = Vec::new();
    engine.apply(Event::Synced, 0, &mut out);
    engine.apply(Event::NodeUpsert(Box::new(dgx("d0", "b", "r"))), 0, &mut out);
    for rank in 0..2 {
        engine.apply(Event::PodUpsert(Box::new(member("g", rank, 2).asks("nvidia.com/gpu", 4))), 0, &mut out);
    }
    engine.run(0, &mut out);
    assert_eq!((engine.stats().assumed, engine.stats().pending, engine.stats().active), (0, 0, 0));
    let assigned = |c: &&Command| matches!(c, Command::PodEvent { kind: EventKind::Scheduled, .. });
    assert_eq!(out.iter().filter(assigned).count(), 2);
}

#[test]
fn an_elastic_gang_is_woken_by_room_for_its_minimum() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    let elastic = gang("g", &[("worker", 4, 2)]);
    s.see(Event::GangUpsert(Box::new(elastic.clone())));
    (0..4).for_each(|r| s.create(declared_member(&elastic, "worker", r).asks("nvidia.com/gpu", 8)));
    s.run();
    assert_eq!(s.bound_of("g"), 0);
    s.nodes([dgx("d1", "b1", "r1")]);
    s.run();
    assert_eq!(s.bound_of("g"), 2);
}

#[test]
fn many_refused_pods_of_one_shape_go_in_order_as_room_appears() {
    let mut s = Scene::new();
    for p in 0..40 {
        s.now += 1;
        s.create(pod(&format!("p{p}")).asks("nvidia.com/gpu", 1));
    }
    s.run();
    assert_eq!(s.engine.stats().unschedulable, 40);
    s.nodes([dgx("d0", "b1", "r1"), dgx("d1", "b1", "r1")]);
    s.run();
    for p in 0..40 {
        assert_eq!(s.node_of(&format!("p{p}")).is_some(), p < 16, "p{p}");
    }
    s.end("p3");
    s.run();
    assert_eq!((s.node_of("p16").is_some(), s.node_of("p17"), s.engine.stats().unschedulable), (true, None, 23));
}

#[test]
fn unbound_claims_refuse_a_pod_and_a_gang_until_they_are_bound() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    let claim = ClaimInfo { namespace: "ns".into(), name: "data".into(), class: "fast".into(), ..ClaimInfo::default() };
    let see = |s: &mut Scene, fact| s.see(Event::StorageUpsert(Box::new(fact)));
    see(&mut s, StorageFact::Claim(claim.clone()));
    let mounts = || vec![PodVolume::Claim("data".into())];
    s.create(member("g", 0, 2));
    s.create(PodInfo { volumes: mounts(), ..member("g", 1, 2) });
    s.create(PodInfo { volumes: mounts(), ..pod("p") });
    s.run();
    let expected = ("Unschedulable", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    assert_eq!(s.message("g-0"), expected);
    let useless = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(s.message("p").1, format!("{}{useless}", expected.1));
    see(&mut s, StorageFact::Volume(VolumeInfo { name: "v".into(), ..VolumeInfo::default() }));
    see(&mut s, StorageFact::Claim(ClaimInfo { volume: Some("v".into()), bind_completed: true, ..claim }));
    s.run();
    assert_eq!((s.bound_of("g"), s.node_of("p")), (2, Some("d0")));
}

#[test]
fn a_refused_binding_is_told_and_backs_off() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    s.hold_binds = true;
    s.create(pod("p"));
    s.run();
    let Some(Command::Bind { op, .. }) = s.held.pop() else { panic!("no bind") };
    s.see(Event::Outcome(Outcome::Bind { op, result: BindResult::Refused("forbidden by policy".into()) }));
    s.run();
    assert_eq!(s.message("p"), ("SchedulerError", "the API server refuses the binding: forbidden by policy"));
    assert_eq!((s.engine.stats().backoff, s.held.len()), (1, 0));
    s.pass(1_000);
    assert_eq!(s.held.len(), 1);
}

#[test]
fn every_member_of_a_refused_gang_counts_as_an_attempt_and_so_does_every_placed_one() {
    let attempts = |s: &Scene, wanted: AttemptResult| {
        let of = |o: &&Observation| matches!(o, Observation::Attempt { result, .. } if *result == wanted);
        s.observations.iter().filter(of).count()
    };
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.gang("g", 3, 4);
    s.run();
    assert_eq!(attempts(&s, AttemptResult::Unschedulable), 3);
    s.nodes([dgx("d1", "b1", "r1")]);
    s.run();
    assert_eq!(attempts(&s, AttemptResult::Scheduled), 3);
    assert_eq!(s.observations.iter().filter(|o| **o == Observation::GangPlanned).count(), 1);
}

#[test]
fn a_surplus_member_does_not_shorten_the_time_that_a_gang_waited() {
    let mut s = Scene::new();
    let declared = gang("g", &[("worker", 2, 2)]);
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    (0..2).for_each(|r| s.create(declared_member(&declared, "worker", r).asks("nvidia.com/gpu", 8)));
    s.run();
    s.pass(60_000);
    s.create(declared_member(&declared, "worker", 2).asks("nvidia.com/gpu", 8));
    s.nodes([dgx("d0", "b1", "r1"), dgx("d1", "b1", "r1")]);
    s.pass(2_000);
    let placed = s.observations.iter().find_map(|o| match o {
        Observation::GangPlaced { members, queue_ms, .. } => Some((*members, *queue_ms)),
        _ => None,
    });
    assert_eq!(placed, Some((2, 62_000)));
}

#[test]
fn a_gang_keeps_its_segments_when_it_grows_and_says_what_it_lacks() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1"), dgx("d1", "b1", "r1"), dgx("d2", "b1", "r2")]);
    let mut declared = gang("g", &[("worker", 4, 2)]);
    declared.layout.segments = Some(SegmentsInfo { size: 2, level: "rack".into(), balanced: true });
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    (0..4).for_each(|r| s.create(declared_member(&declared, "worker", r).asks("nvidia.com/gpu", 8)));
    s.run();
    assert_eq!(s.bound_of("g"), 2, "one node of r2 is no room for the second segment");
    s.nodes([dgx("d3", "b1", "r3"), dgx("d4", "b1", "r3")]);
    s.run();
    assert_eq!(s.bound_of("g"), 4);
    let node = |rank: u32| s.pods[&SmolStr::from(format!("uid-g-worker-{rank}"))].node_name.clone().unwrap();
    let nodes: Vec<SmolStr> = (0..4).map(node).collect();
    assert_eq!(nodes, ["d0", "d1", "d3", "d4"]);
    let mut wide = gang("w", &[("worker", 3, 3)]);
    wide.layout.spread = Some(SpreadInfo { level: "rack".into(), min_domains: 3 });
    s.see(Event::GangUpsert(Box::new(wide.clone())));
    (0..3).for_each(|r| s.create(declared_member(&wide, "worker", r).asks("nvidia.com/gpu", 1)));
    s.run();
    let message = s.gang_status[&SmolStr::from("w")].message.clone();
    assert!(
        message.contains("spread needs 3 domains of level rack for at most 1 members each, 1 have room"),
        "{message}"
    );
    let mut unknown = gang("u", &[("worker", 1, 1)]);
    unknown.layout.spread = Some(SpreadInfo { level: "row".into(), min_domains: 1 });
    s.see(Event::GangUpsert(Box::new(unknown.clone())));
    s.create(declared_member(&unknown, "worker", 0).asks("nvidia.com/gpu", 1));
    s.run();
    let status = &s.gang_status[&SmolStr::from("u")];
    assert_eq!(status.reason, "InvalidGang");
    assert!(status.message.contains("spec.topology.spread.level: topology level \"row\" is not configured"));
}
