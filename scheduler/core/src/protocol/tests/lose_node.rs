//! A planned node is lost: members go elsewhere, but only when no Binding of theirs can land any more.

use super::*;
use expect_test::expect;

#[test]
fn a_member_is_fenced_and_its_place_given_up_before_another_is_asked_for() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.node_gone("n0");
    scene.fence_ok("g-0", "20");
    scene.journal_ok(0);
    scene.placed(&[("g-0", "n5")]);
    scene.journal_ok(0);
    scene.bind_ok("g-0");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > node n0 is gone
          fence g-0 @10
          observe Repair
        > fence g-0: ok
          write slot 0 @3: 1/3 1-1.0 open [g-0@- g-1@n1]
        > slot 0: ok
          REPLAN g-0 (was -)
        > placed
          write slot 0 @4: 1/4 1-1.0 open [g-0@n5 g-1@n1]
        > slot 0: ok
          bind g-0 @20 to n5 (1-1)
        > bind g-0: ok
          CONFIRM g-0 on n5
          write slot 0 @5: 1/5
        > slot 0: ok
          CLOSED bound, repaired
    "#]]);
}

#[test]
fn a_binding_that_landed_on_the_lost_node_leads_to_an_eviction() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.node_gone("n0");
    scene.fence("g-0", "conflict", WriteResult::Conflict);
    scene.found("on n0", on("n0", version("11", pod("g-0"))));
    scene.journal_ok(0);
    scene.mark_ok("g-0");
    scene.found("still there", on("n0", version("90", pod("g-0"))));
    scene.delete_ok("g-0");
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > node n0 is gone
          fence g-0 @10
          observe Repair
        > fence g-0: conflict
          read g-0
        > read g-0: on n0
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0! g-1@n1]
        > slot 0: ok
          mark g-0: the node of this member of gang ns/g is lost: a replacement takes its place
        > mark g-0: ok
          read g-0
        > read g-0: still there
          delete g-0
        > delete g-0: ok
          LOST g-0 worker 0
    "#]]);
}

#[test]
fn a_member_of_an_intolerant_owner_is_not_evicted() {
    let mut scene = Scene::leading();
    scene.begin(plan_of(&[(job_pod("g-0"), "n0"), (job_pod("g-1"), "n1")]));
    scene.journal_ok(0);
    scene.bind_ok("g-0");
    scene.transcript.clear();
    scene.node_gone("n0");
    scene.check(&expect![[r#"
        > node n0 is gone
    "#]]);
}

#[test]
fn a_place_refused_is_asked_for_again_until_the_deadline_and_then_rolled_back() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.node_gone("n0");
    scene.fence_ok("g-0", "20");
    scene.journal_ok(0);
    scene.no_place("no room in rack 1");
    scene.wait(1_000);
    scene.no_place("no room in rack 1");
    scene.transcript.clear();
    scene.wait(29_000);
    scene.check(&expect![[r#"
        > 29000 ms later
          event g-1 GangRollback: gang ns/g is rolled back: 1 of 2 members could not be bound: no room in rack 1
          observe Rollback
          write slot 0 @4: 1/4 1-1.0 ROLLING-BACK [g-0@- g-1@n1]
    "#]]);
}

#[test]
fn with_nothing_bound_a_refused_place_ends_the_intent_at_once() {
    let mut scene = Scene::leading();
    scene.begin(plan_of(&[(pod("g-0"), "n0"), (pod("g-1"), "n0")]));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.node_gone("n0");
    scene.fence_ok("g-0", "20");
    scene.fence_ok("g-1", "21");
    scene.journal_ok(0);
    scene.no_place("no room");
    scene.journal_ok(0);
    scene.no_place("no room");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > node n0 is gone
          fence g-0 @10
          fence g-1 @10
          observe Repair
        > fence g-0: ok
          write slot 0 @3: 1/3 1-1.0 open [g-0@- g-1@n0]
        > fence g-1: ok
        > slot 0: ok
          REPLAN g-0 (was -)
          write slot 0 @4: 1/4 1-1.0 open [g-0@- g-1@-]
        > no place
        > slot 0: ok
          REPLAN g-1 (was -)
        > no place
          write slot 0 @5: 1/5
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: NoPlace("2 of 2 members could not be bound: no room"), repaired
    "#]]);
}

#[test]
fn a_lost_place_stays_in_the_journal_while_a_binding_to_it_may_land() {
    let mut scene = Scene::leading();
    scene.begin(plan_of(&[(pod("g-0"), "n0"), (pod("g-1"), "n0")]));
    scene.journal_ok(0);
    scene.bind_ok("g-0");
    scene.node_gone("n0");
    scene.journal_ok(0);
    scene.fence_ok("g-1", "12");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n0]
        > slot 0: ok
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n0 (1-1)
        > bind g-0: ok
          CONFIRM g-0 on n0
        > node n0 is gone
          fence g-1 @10
          observe Repair
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0! g-1@n0]
        > slot 0: ok
          mark g-0: the node of this member of gang ns/g is lost: a replacement takes its place
        > fence g-1: ok
          write slot 0 @4: 1/4 1-1.0 open [g-0@n0! g-1@-]
        > slot 0: ok
          REPLAN g-1 (was -)
    "#]]);
}
