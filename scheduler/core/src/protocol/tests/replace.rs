//! A lost member and the pod that takes its slot.

use super::*;
use expect_test::expect;

/// Another pod of rank 0, as the owner makes it.
fn successor() -> PodInfo {
    let key = PodKey { namespace: "ns".into(), name: "g-0b".into(), uid: "g-0b-uid".into() };
    PodInfo { key, resource_version: "40".into(), ..pod("g-0") }
}

#[test]
fn a_replacement_is_bound_after_the_journal_has_its_uid_and_place() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.pod_gone(&pod("g-0"));
    scene.pod("its successor is seen", &successor());
    scene.journal_ok(0);
    scene.call("placed", |protocol, now, fx| {
        let places = vec![place(&successor().key, "n7", Vec::new())];
        protocol.replanned(&gang(), Replanned::Placed(places), now, fx);
    });
    scene.journal_ok(0);
    scene.bind_ok("g-0b");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > g-0 is gone
          LOST g-0 worker 0
          observe Repair
        > its successor is seen
          write slot 0 @3: 1/3 1-1.0 open [g-0b@- g-1@n1]
        > slot 0: ok
          REPLAN g-0b (was n0) for g-0-uid
        > placed
          write slot 0 @4: 1/4 1-1.0 open [g-0b@n7 g-1@n1]
        > slot 0: ok
          bind g-0b @40 to n7 (1-1)
        > bind g-0b: ok
          CONFIRM g-0b on n7
          write slot 0 @5: 1/5
        > slot 0: ok
          CLOSED bound, repaired
    "#]]);
}

#[test]
fn a_pod_of_another_rank_or_shape_does_not_take_the_slot() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.pod("g-0 failed", &lost(on("n0", pod("g-0"))));
    scene.pod("rank 5", &PodInfo { key: successor().key, ..pod("g-5") });
    scene.pod("larger", &PodInfo { requests: [("cpu".into(), 9)].into(), ..successor() });
    scene.pod("gated", &PodInfo { gated: true, ..successor() });
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > g-0 failed
          LOST g-0 worker 0
          observe Repair
        > rank 5
        > larger
        > gated
    "#]]);
}

#[test]
fn a_replacement_that_someone_else_bound_completes_the_gang() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.pod_gone(&pod("g-0"));
    scene.pod("its successor is seen on n9", &on("n9", successor()));
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > g-0 is gone
          LOST g-0 worker 0
          observe Repair
        > its successor is seen on n9
          FOREIGN g-0b on n9
          observe ForeignBind
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn a_gang_that_lost_all_members_is_closed_at_once() {
    let mut scene = Scene::binding();
    scene.pod_gone(&pod("g-0"));
    scene.pod_gone(&pod("g-1"));
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > g-0 is gone
          LOST g-0 worker 0
          observe Repair
        > g-1 is gone
          LOST g-1 worker 1
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: NoPlace("2 of 2 members could not be bound: members were lost and not replaced in time"), repaired
    "#]]);
}

#[test]
fn a_partial_gang_found_without_an_intent_is_journaled_fenced_and_completed() {
    let mut scene = Scene::leading();
    let found = PartialGang {
        gang: gang(),
        members: vec![Placement::found(&on("n0", pod("g-0"))), Placement::found(&pod("g-1"))],
        vacant: vec![("worker".into(), Some(2), None)],
        quorum: Quorum::all(3),
        may_roll_back: true,
    };
    scene.call("adopt", |protocol, now, fx| {
        protocol.adopt(found, now, fx).unwrap();
        protocol.flush(now, fx);
    });
    scene.journal_ok(0);
    scene.fence_ok("g-1", "20");
    scene.placed(&[("g-1", "n1")]);
    scene.journal_ok(0);
    scene.bind_ok("g-1");
    scene.pod("g-2 comes", &pod("g-2"));
    scene.journal_ok(0);
    scene.placed(&[("g-2", "n2")]);
    scene.journal_ok(0);
    scene.bind_ok("g-2");
    scene.check(&expect![[r#"
        > adopt
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@- ?@-]
        > slot 0: ok
          fence g-1 @10
          observe Repair
        > fence g-1: ok
          REPLAN g-1 (was -)
        > placed
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0 g-1@n1 ?@-]
        > slot 0: ok
          bind g-1 @20 to n1 (1-1)
        > bind g-1: ok
          CONFIRM g-1 on n1
        > g-2 comes
          write slot 0 @4: 1/4 1-1.0 open [g-0@n0 g-1@n1 g-2@-]
        > slot 0: ok
          REPLAN g-2 (was -)
        > placed
          write slot 0 @5: 1/5 1-1.0 open [g-0@n0 g-1@n1 g-2@n2]
        > slot 0: ok
          bind g-2 @10 to n2 (1-1)
        > bind g-2: ok
          CONFIRM g-2 on n2
          write slot 0 @6: 1/6
    "#]]);
}

#[test]
fn a_member_that_left_the_gang_is_fenced_before_it_is_let_go() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.bind_unknown("g-0");
    scene.wait(50);
    scene.found("without its label", PodInfo { gang: None, ..pod("g-0") });
    scene.wait(100);
    scene.fence_ok("g-0", "30");
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > bind g-0: unknown
        > 50 ms later
          read g-0
        > read g-0: without its label
        > 100 ms later
          fence g-0 @10
        > fence g-0: ok
          RELEASE g-0
          LOST g-0 worker 0
          observe Repair
    "#]]);
}

#[test]
fn a_slot_of_unknown_rank_is_not_for_a_pod_whose_rank_has_its_own() {
    let mut scene = Scene::leading();
    let found = PartialGang {
        gang: gang(),
        members: vec![Placement::found(&on("n0", pod("g-0")))],
        vacant: vec![("worker".into(), None, None)],
        quorum: Quorum::all(2),
        may_roll_back: true,
    };
    scene.call("adopt", |protocol, now, fx| {
        protocol.adopt(found, now, fx).unwrap();
        protocol.flush(now, fx);
    });
    scene.journal_ok(0);
    scene.pod("a successor of g-0 comes before g-0 is known to go", &successor());
    scene.pod("g-1 comes", &pod("g-1"));
    scene.check(&expect![[r#"
        > adopt
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 ?@-]
        > slot 0: ok
          observe Repair
        > a successor of g-0 comes before g-0 is known to go
        > g-1 comes
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0 g-1@-]
    "#]]);
}

#[test]
fn a_slot_whose_rank_a_live_member_has_is_for_the_rank_that_has_none() {
    let mut scene = Scene::leading();
    // The first g-0 is being deleted, which the watch did not tell when its successor was planned beside it.
    scene.begin(plan_of(&[(pod("g-0"), "n0"), (successor(), "n1")]));
    scene.journal_ok(0);
    scene.bind_ok("g-0b");
    scene.pod_gone(&pod("g-0"));
    scene.pod("a third pod of rank 0 comes", &PodInfo { key: pod("g-0c").key, ..successor() });
    scene.pod("g-1 comes", &pod("g-1"));
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-0b@n1]
        > slot 0: ok
          bind g-0 @10 to n0 (1-1)
          bind g-0b @40 to n1 (1-1)
        > bind g-0b: ok
          CONFIRM g-0b on n1
        > g-0 is gone
          LOST g-0 worker 0
          observe Repair
        > a third pod of rank 0 comes
        > g-1 comes
          write slot 0 @3: 1/3 1-1.0 open [g-1@- g-0b@n1]
    "#]]);
}

#[test]
fn of_two_vacant_slots_of_one_rank_one_is_for_the_rank_that_has_none() {
    let mut scene = Scene::leading();
    scene.begin(plan_of(&[(pod("g-0"), "n0"), (successor(), "n1"), (pod("g-2"), "n2")]));
    scene.journal_ok(0);
    scene.bind_ok("g-2");
    scene.pod_gone(&pod("g-0"));
    scene.pod_gone(&successor());
    scene.pod("g-1 comes", &pod("g-1"));
    scene.pod("a third pod of rank 0 comes", &PodInfo { key: pod("g-0c").key, ..successor() });
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-0b@n1 g-2@n2]
        > slot 0: ok
          bind g-0 @10 to n0 (1-1)
          bind g-0b @40 to n1 (1-1)
          bind g-2 @10 to n2 (1-1)
        > bind g-2: ok
          CONFIRM g-2 on n2
        > g-0 is gone
          LOST g-0 worker 0
          observe Repair
        > g-0b is gone
          LOST g-0b worker 0
        > g-1 comes
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0 g-1@- g-2@n2]
        > a third pod of rank 0 comes
        > slot 0: ok
          REPLAN g-1 (was n1) for g-0b-uid
          write slot 0 @4: 1/4 1-1.0 open [g-0c@- g-1@- g-2@n2]
    "#]]);
}
