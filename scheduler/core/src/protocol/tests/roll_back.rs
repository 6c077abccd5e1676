//! Rollback: journaled first, then marked, read again and deleted by UID; and what is not deleted.

use super::*;
use expect_test::expect;

/// `g-0` bound, `g-1` gone; the deadline passes.
fn overdue(members: &[(PodInfo, &str)]) -> Scene {
    let mut scene = Scene::leading();
    scene.begin(plan_of(members));
    scene.journal_ok(0);
    scene.bind_ok("g-0");
    scene.pod_gone(&pod("g-1"));
    scene.transcript.clear();
    scene.wait(30_000);
    scene
}

#[test]
fn nothing_is_deleted_before_the_journal_says_rolling_back() {
    let mut scene = overdue(&[(pod("g-0"), "n0"), (pod("g-1"), "n1")]);
    scene.wait(1_000);
    scene.journal_ok(0);
    scene.mark_ok("g-0");
    scene.found("still bound", on("n0", version("90", pod("g-0"))));
    scene.delete_ok("g-0");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > 30000 ms later
          event g-0 GangRollback: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
          observe Rollback
          write slot 0 @3: 1/3 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > 1000 ms later
        > slot 0: ok
          mark g-0: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
        > mark g-0: ok
          read g-0
        > read g-0: still bound
          delete g-0
        > delete g-0: ok
          write slot 0 @4: 1/4
        > slot 0: ok
          RELEASE g-1
          CLOSED undone: NoPlace("1 of 2 members could not be bound: members were lost and not replaced in time"), repaired
    "#]]);
}

#[test]
fn a_replacement_that_comes_too_late_does_not_turn_a_rollback() {
    let mut scene = overdue(&[(pod("g-0"), "n0"), (pod("g-1"), "n1")]);
    let key = PodKey { name: "g-1b".into(), uid: "g-1b-uid".into(), ..pod("g-1").key };
    scene.pod("g-1b comes", &PodInfo { key, ..pod("g-1") });
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > 30000 ms later
          event g-0 GangRollback: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
          observe Rollback
          write slot 0 @3: 1/3 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > g-1b comes
        > slot 0: ok
          mark g-0: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
    "#]]);
}

#[test]
fn an_unbound_member_with_a_binding_in_flight_is_fenced() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-0");
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    scene.journal_ok(0);
    scene.fence("g-1", "conflict", WriteResult::Conflict);
    scene.found("bound after all", on("n1", version("12", pod("g-1"))));
    scene.check(&expect![[r#"
        > bind g-0: ok
          CONFIRM g-0 on n0
        > abort
          event g-0 GangRollback: gang ns/g is rolled back: canceled
          observe Rollback
          write slot 0 @3: 1/3 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > slot 0: ok
          mark g-0: gang ns/g is rolled back: canceled
          fence g-1 @10
        > fence g-1: conflict
          read g-1
        > read g-1: bound after all
          CONFIRM g-1 on n1
          mark g-1: gang ns/g is rolled back: canceled
    "#]]);
}

#[test]
fn marks_and_deletes_of_unknown_fate_are_repeated_until_the_pod_goes() {
    let mut scene = overdue(&[(pod("g-0"), "n0"), (pod("g-1"), "n1")]);
    scene.journal_ok(0);
    scene.mark("g-0", "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.wait(50);
    scene.mark("g-0", "conflict", WriteResult::Conflict);
    scene.wait(200);
    scene.found("still bound", on("n0", pod("g-0")));
    scene.mark_ok("g-0");
    scene.found("still bound", on("n0", pod("g-0")));
    scene.delete("g-0", "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.pod("g-0 is seen deleting", &PodInfo { deleting: true, ..on("n0", pod("g-0")) });
    scene.check(&expect![[r#"
        > 30000 ms later
          event g-0 GangRollback: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
          observe Rollback
          write slot 0 @3: 1/3 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > slot 0: ok
          mark g-0: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
        > mark g-0: unknown
        > 50 ms later
          mark g-0: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
        > mark g-0: conflict
        > 200 ms later
          read g-0
        > read g-0: still bound
          mark g-0: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
        > mark g-0: ok
          read g-0
        > read g-0: still bound
          delete g-0
        > delete g-0: unknown
        > g-0 is seen deleting
          write slot 0 @4: 1/4
    "#]]);
}

#[test]
fn a_pod_that_left_the_gang_meanwhile_is_spared() {
    let mut scene = overdue(&[(pod("g-0"), "n0"), (pod("g-1"), "n1")]);
    scene.journal_ok(0);
    scene.mark_ok("g-0");
    scene.found("without its label", PodInfo { gang: None, ..on("n0", pod("g-0")) });
    scene.check(&expect![[r#"
        > 30000 ms later
          event g-0 GangRollback: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
          observe Rollback
          write slot 0 @3: 1/3 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > slot 0: ok
          mark g-0: gang ns/g is rolled back: 1 of 2 members could not be bound: members were lost and not replaced in time
        > mark g-0: ok
          read g-0
        > read g-0: without its label
          write slot 0 @4: 1/4
    "#]]);
}

#[test]
fn a_refused_binding_undoes_the_gang_with_that_reason() {
    let mut scene = Scene::binding();
    scene.bind("g-0", "403", BindResult::Refused("forbidden by policy".to_owned()));
    scene.fence_ok("g-0", "19");
    scene.fence_ok("g-1", "20");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > bind g-0: 403
          fence g-0 @10
          fence g-1 @10
        > fence g-0: ok
        > fence g-1: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Refused("forbidden by policy")
    "#]]);
}

#[test]
fn a_gang_above_its_minimum_goes_on_without_the_rest() {
    let mut scene = Scene::leading();
    let mut plan = plan_of(&[(pod("g-0"), "n0"), (pod("g-1"), "n1"), (pod("g-2"), "n2")]);
    plan.quorum = Quorum::all(2);
    scene.begin(plan);
    scene.journal_ok(0);
    scene.bind_ok("g-0");
    scene.bind_ok("g-1");
    scene.node_gone("n2");
    scene.fence_ok("g-2", "20");
    scene.journal_ok(0);
    scene.no_place("no room");
    scene.transcript.clear();
    scene.wait(30_000);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > 30000 ms later
          write slot 0 @4: 1/4
        > slot 0: ok
          RELEASE g-2
          CLOSED bound without g-2, repaired
    "#]]);
}

#[test]
fn a_quorum_by_role_is_not_met_by_members_of_another_role() {
    let mut scene = Scene::leading();
    let mut plan = plan_of(&[(pod("g-0"), "n0"), (pod("g-1"), "n1"), (pod("g-2"), "n2")]);
    plan.members[2].role = "chief".into();
    plan.quorum = Quorum { total: 2, roles: [("chief".into(), 1)].into() };
    scene.begin(plan);
    scene.journal_ok(0);
    scene.bind_ok("g-0");
    scene.bind_ok("g-1");
    scene.pod_gone(&pod("g-2"));
    scene.transcript.clear();
    scene.wait(30_000);
    scene.check(&expect![[r#"
        > 30000 ms later
          event g-0 GangRollback: gang ns/g is rolled back: 1 of 3 members could not be bound: members were lost and not replaced in time
          event g-1 GangRollback: gang ns/g is rolled back: 1 of 3 members could not be bound: members were lost and not replaced in time
          observe Rollback
          write slot 0 @3: 1/3 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1 g-2@n2]
    "#]]);
}
