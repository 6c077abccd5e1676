//! Gangs whose owner does not tolerate a rollback, or that were whole before: held, reported, moved forward.

use super::*;
use expect_test::expect;

fn jobs() -> Scene {
    let mut scene = Scene::leading();
    scene.begin(plan_of(&[(job_pod("g-0"), "n0"), (job_pod("g-1"), "n1")]));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene
}

#[test]
fn a_job_is_held_partial_and_completed_when_its_pod_comes_back() {
    let mut scene = jobs();
    scene.bind_ok("g-0");
    scene.pod_gone(&job_pod("g-1"));
    scene.wait(30_000);
    assert_eq!(scene.protocol.stats().held_partial, 1);
    let key = PodKey { name: "g-1b".into(), uid: "g-1b-uid".into(), ..pod("g-1").key };
    let successor = PodInfo { key, ..job_pod("g-1") };
    scene.pod("g-1b comes", &successor);
    scene.journal_ok(0);
    scene.call("placed", |protocol, now, fx| {
        protocol.replanned(&gang(), Replanned::Placed(vec![place(&successor.key, "n1", Vec::new())]), now, fx);
    });
    scene.journal_ok(0);
    scene.bind_ok("g-1b");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > bind g-0: ok
          CONFIRM g-0 on n0
        > g-1 is gone
          LOST g-1 worker 1
          observe Repair
        > 30000 ms later
          HELD 1 bound 1 missing: 1 of 2 members could not be bound: members were lost and not replaced in time; it is held, not rolled back: the owner of a bound member does not tolerate a rollback
        > g-1b comes
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0 g-1b@-]
        > slot 0: ok
          REPLAN g-1b (was n1) for g-1-uid
        > placed
          write slot 0 @4: 1/4 1-1.0 open [g-0@n0 g-1b@n1]
        > slot 0: ok
          bind g-1b @10 to n1 (1-1)
        > bind g-1b: ok
          CONFIRM g-1b on n1
          write slot 0 @5: 1/5
        > slot 0: ok
          CLOSED bound, repaired
    "#]]);
    assert_eq!(scene.protocol.stats().held_partial, 0);
}

#[test]
fn a_refused_job_with_nothing_bound_is_withdrawn() {
    let mut scene = jobs();
    scene.bind("g-0", "403", BindResult::Refused("forbidden".to_owned()));
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
          CLOSED undone: Refused("forbidden")
    "#]]);
}

#[test]
fn a_job_member_that_lands_during_the_withdrawal_makes_the_gang_held() {
    let mut scene = jobs();
    scene.bind("g-0", "403", BindResult::Refused("forbidden".to_owned()));
    scene.fence_ok("g-0", "19");
    scene.fence("g-1", "conflict", WriteResult::Conflict);
    scene.found("bound after all", on("n1", version("12", job_pod("g-1"))));
    scene.check(&expect![[r#"
        > bind g-0: 403
          fence g-0 @10
          fence g-1 @10
        > fence g-0: ok
        > fence g-1: conflict
          read g-1
        > read g-1: bound after all
          CONFIRM g-1 on n1
          HELD 1 bound 1 missing: forbidden; it is held, not rolled back: the owner of a bound member does not tolerate a rollback
          observe Repair
          write slot 0 @3: 1/3 1-1.0 open [g-0@- g-1@n1]
    "#]]);
}

#[test]
fn a_held_member_whose_binding_was_refused_is_placed_again_but_not_bound_at_once() {
    let mut scene = jobs();
    scene.bind("g-0", "403", BindResult::Refused("forbidden".to_owned()));
    scene.fence_ok("g-0", "19");
    scene.fence("g-1", "conflict", WriteResult::Conflict);
    scene.found("bound after all", on("n1", version("12", job_pod("g-1"))));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.placed(&[("g-0", "n3")]);
    scene.journal_ok(0);
    scene.wait(9_999);
    scene.wait(1);
    scene.check(&expect![[r#"
        > placed
          write slot 0 @4: 1/4 1-1.0 open [g-0@n3 g-1@n1]
        > slot 0: ok
        > 9999 ms later
        > 1 ms later
          bind g-0 @19 to n3 (1-1)
    "#]]);
}

#[test]
fn a_gang_that_was_whole_before_is_held_whoever_owns_it() {
    let mut scene = Scene::leading();
    let found = PartialGang {
        gang: gang(),
        members: vec![Placement::found(&on("n0", pod("g-0")))],
        vacant: vec![("worker".into(), Some(1), None)],
        quorum: Quorum::all(2),
        may_roll_back: false,
    };
    scene.call("adopt", |protocol, now, fx| {
        protocol.adopt(found, now, fx).unwrap();
        protocol.flush(now, fx);
    });
    scene.journal_ok(0);
    scene.wait(30_000);
    scene.check(&expect![[r#"
        > adopt
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 ?@-]
        > slot 0: ok
          observe Repair
        > 30000 ms later
          HELD 1 bound 1 missing: 1 of 2 members could not be bound: members were lost and not replaced in time; it is held, not rolled back: the gang was whole before
    "#]]);
}

#[test]
fn a_held_gang_is_undone_when_its_bound_members_are_gone() {
    let mut scene = jobs();
    scene.bind_ok("g-0");
    scene.pod_gone(&job_pod("g-1"));
    scene.wait(30_000);
    scene.transcript.clear();
    scene.pod_gone(&job_pod("g-0"));
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > g-0 is gone
          LOST g-0 worker 0
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-1
          CLOSED undone: NoPlace("2 of 2 members could not be bound: members were lost and not replaced in time"), repaired
    "#]]);
}
