//! Taking back: what was prepared in vain leaves nothing, and no late write brings it back.

use super::prepare::*;
use super::*;
use crate::preparation::ResourceClaimFacts;
use expect_test::expect;

#[test]
fn a_provisioner_that_has_no_volume_there_undoes_the_gang() {
    let mut scene = provisioning();
    scene.pvc_seen("lost its node", &pvc("a", "7"));
    scene.pvc_read("no node", pvc("a", "7"));
    scene.pvc_read("no node", pvc("a", "7"));
    scene.pvc_read("still asked for", selected("n1", pvc("b", "6")));
    scene.wrote("select no node for pvc b", "7");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > watch: pvc a lost its node
          read pvc a
        > read pvc a: no node
          observe VolumesFailed(2)
          observe PrepareFailed
          read pvc a
          read pvc b
        > read pvc a: no node
        > read pvc b: still asked for
          select no node for pvc b @6
        > select no node for pvc b: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Unprepared("the provisioner has no volume for PersistentVolumeClaim ns/a on node n0")
    "#]]);
}

#[test]
fn a_volume_that_was_provisioned_stays_when_its_gang_is_undone() {
    let mut scene = provisioning();
    scene.pvc_seen("is bound", &selected("n1", bound("w", pvc("b", "7"))));
    scene.node_gone("n0");
    scene.pvc_read("still asked for", selected("n0", pvc("a", "6")));
    scene.pvc_read("bound", selected("n1", bound("w", pvc("b", "7"))));
    scene.wrote("select no node for pvc a", "7");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > watch: pvc b is bound
          PREPARED g-1 on n1
          observe Prepared { kind: Provision, took_ms: 0 }
        > node n0 is gone
          read pvc a
          observe VolumesFailed(2)
          observe PrepareFailed
          read pvc b
        > read pvc a: still asked for
          select no node for pvc a @6
        > read pvc b: bound
        > select no node for pvc a: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Changed("a member or its node was lost while its claims were prepared")
    "#]]);
}

#[test]
fn the_last_to_give_a_shared_claim_up_deallocates_it() {
    let mut scene = shared();
    scene.transcript.clear();
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    scene.claim_read("gpus", "both", devices_of("gpus", "7", &["g-0", "g-1"]));
    scene.claim_read("gpus", "both", devices_of("gpus", "7", &["g-0", "g-1"]));
    scene.wrote("unreserve claim gpus @7 for g-1", "8");
    scene.prepare("unreserve claim gpus @7 for g-0", "conflict", WriteResult::Conflict);
    scene.claim_read("gpus", "alone", devices_of("gpus", "8", &["g-0"]));
    scene.wrote("deallocate claim gpus @8 for g-0", "9");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > abort
          read claim gpus
          read claim gpus
        > read claim gpus: both
          unreserve claim gpus @7 for g-1
        > read claim gpus: both
          unreserve claim gpus @7 for g-0
        > unreserve claim gpus @7 for g-1: ok
        > unreserve claim gpus @7 for g-0: conflict
          read claim gpus
        > read claim gpus: alone
          deallocate claim gpus @8 for g-0
        > deallocate claim gpus @8 for g-0: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Aborted("canceled")
    "#]]);
}

#[test]
fn a_reservation_of_unknown_fate_is_fenced_before_the_gang_is_free() {
    let mut scene = sharing();
    scene.wrote("allocate and reserve claim gpus @5 for g-0", "6");
    scene.prepare("allocate and reserve claim gpus @5 for g-1", "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    scene.claim_read("gpus", "allocated", devices_of("gpus", "6", &["g-0"]));
    scene.wrote("deallocate claim gpus @6 for g-0", "7");
    scene.wait(50);
    scene.claim_read("gpus", "as it was planned", devices_of("gpus", "5", &[]));
    scene.wrote("fence claim gpus @5", "6");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > allocate and reserve claim gpus @5 for g-0: ok
          PREPARED g-0 on n0
          observe Prepared { kind: AllocateClaim, took_ms: 0 }
        > allocate and reserve claim gpus @5 for g-1: unknown
        > abort
          read claim gpus
        > read claim gpus: allocated
          deallocate claim gpus @6 for g-0
        > deallocate claim gpus @6 for g-0: ok
        > 50 ms later
          read claim gpus
        > read claim gpus: as it was planned
          fence claim gpus @5
        > fence claim gpus @5: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Aborted("canceled")
    "#]]);
}

#[test]
fn a_write_that_can_no_longer_land_needs_no_fence() {
    let mut scene = sharing();
    scene.wrote("allocate and reserve claim gpus @5 for g-0", "6");
    scene.prepare("allocate and reserve claim gpus @5 for g-1", "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    scene.claim_read("gpus", "allocated", devices_of("gpus", "6", &["g-0"]));
    scene.wrote("deallocate claim gpus @6 for g-0", "7");
    scene.transcript.clear();
    scene.wait(50);
    scene.claim_read("gpus", "moved on", devices_of("gpus", "7", &[]));
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > 50 ms later
          read claim gpus
        > read claim gpus: moved on
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Aborted("canceled")
    "#]]);
}

#[test]
fn a_refused_preparation_undoes_the_gang_with_that_reason() {
    let mut scene = Scene::leading();
    scene.begin(pair_with(provision("a", "n0"), provision("b", "n1")));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.prepare("select n0 for pvc a", "403", WriteResult::Refused("not allowed".to_owned()));
    scene.wrote("select n1 for pvc b", "6");
    scene.pvc_read("still asked for", selected("n1", pvc("b", "6")));
    scene.pvc_read("untouched", pvc("a", "5"));
    scene.wrote("fence pvc a @5", "6");
    scene.wrote("select no node for pvc b", "7");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > select n0 for pvc a: 403
          observe VolumesFailed(2)
          observe PrepareFailed
          read pvc a
        > select n1 for pvc b: ok
          read pvc b
        > read pvc b: still asked for
          select no node for pvc b @6
        > read pvc a: untouched
          fence pvc a @5
        > fence pvc a @5: ok
        > select no node for pvc b: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Refused("not allowed")
    "#]]);
}

#[test]
fn a_single_pod_whose_node_goes_after_it_was_prepared_is_planned_again() {
    let mut scene = Scene::leading();
    let mut plan = plan_of(&[(lone_pod("p"), "n0")]);
    plan.members[0].preparations = vec![allocate("gpus", &[])];
    scene.begin(plan);
    scene.journal_ok(0);
    scene.wrote("allocate and reserve claim gpus @5 for p", "6");
    scene.call("checked", |protocol, now, fx| protocol.checked(&lone_pod("p").key, Check::Sound, now, fx));
    scene.transcript.clear();
    scene.node_gone("n0");
    scene.fence_ok("p", "11");
    scene.claim_read("gpus", "ours", devices_of("gpus", "6", &["p"]));
    scene.wrote("deallocate claim gpus @6 for p", "7");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > node n0 is gone
          fence p @10
        > fence p: ok
          read claim gpus
        > read claim gpus: ours
          deallocate claim gpus @6 for p
        > deallocate claim gpus @6 for p: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE p
          CLOSED undone: Changed("the pod changed or its node went away while it was being bound")
    "#]]);
}

#[test]
fn the_next_leader_undoes_an_allocation_that_was_not_written() {
    let mut scene = Scene::new();
    scene.lead(2, sharing().journal_found());
    scene.journal_ok(0);
    scene.recovered(&[pod("g-0"), pod("g-1")]);
    scene.claim_read("gpus", "free", devices_of("gpus", "5", &[]));
    scene.wrote("fence claim gpus @5", "6");
    scene.claim_read("gpus", "free", devices_of("gpus", "6", &[]));
    scene.claim_read("gpus", "free", devices_of("gpus", "6", &[]));
    scene.fence_ok("g-0", "20");
    scene.fence_ok("g-1", "20");
    scene.claim_read("gpus", "free", devices_of("gpus", "6", &[]));
    scene.prepare("fence claim gpus @6", "conflict", WriteResult::Conflict);
    scene.claim_read("gpus", "free", devices_of("gpus", "7", &[]));
    scene.wrote("fence claim gpus @7", "8");
    scene.claim_read("gpus", "free", devices_of("gpus", "8", &[]));
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0+a:gpus g-1@n1+a:gpus]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          read claim gpus
          read claim gpus
        > read claim gpus: free
          fence claim gpus @5
        > fence claim gpus @5: ok
          read claim gpus
        > read claim gpus: free
          observe PrepareFailed
          fence g-0 @10
          fence g-1 @10
        > read claim gpus: free
        > fence g-0: ok
          fence claim gpus @6
        > fence g-1: ok
          read claim gpus
        > read claim gpus: free
        > fence claim gpus @6: conflict
          read claim gpus
        > read claim gpus: free
          fence claim gpus @7
        > fence claim gpus @7: ok
          read claim gpus
        > read claim gpus: free
          write slot 0 @2: 2/4
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Unprepared("the allocation of ResourceClaim ns/gpus ended with the former leader")
    "#]]);
}

#[test]
fn a_member_that_is_replanned_gives_back_before_it_gets_another_place() {
    let mut scene = shared();
    scene.checked("g-0", Check::Sound);
    scene.checked("g-1", Check::Sound);
    scene.bind_ok("g-0");
    scene.transcript.clear();
    scene.node_gone("n1");
    scene.fence_ok("g-1", "11");
    scene.claim_read("gpus", "reserved for both", devices_of("gpus", "7", &["g-0", "g-1"]));
    scene.wrote("unreserve claim gpus @7 for g-1", "8");
    scene.journal_ok(0);
    scene.call("placed", |protocol, now, fx| {
        let again = Preparation::ReserveClaim { claim: claim("gpus"), resource_version: "8".into() };
        let places = vec![place(&pod("g-1").key, "n2", vec![again])];
        protocol.replanned(&gang(), Replanned::Placed(places), now, fx);
    });
    scene.journal_ok(0);
    scene.wrote("reserve claim gpus @8 for g-1", "9");
    scene.claim_read("gpus", "reserved for both", devices_of("gpus", "9", &["g-0", "g-1"]));
    scene.checked("g-1", Check::Sound);
    scene.bind_ok("g-1");
    scene.check(&expect![[r#"
        > node n1 is gone
          fence g-1 @10
          observe Repair
        > fence g-1: ok
          read claim gpus
        > read claim gpus: reserved for both
          unreserve claim gpus @7 for g-1
        > unreserve claim gpus @7 for g-1: ok
          write slot 0 @3: 1/3 1-1.0 open [g-0@n0 g-1@-]
        > slot 0: ok
          REPLAN g-1 (was -)
        > placed
          write slot 0 @4: 1/4 1-1.0 open [g-0@n0 g-1@n2+r:gpus]
        > slot 0: ok
          reserve claim gpus @8 for g-1
        > reserve claim gpus @8 for g-1: ok
          read claim gpus
        > read claim gpus: reserved for both
          PREPARED g-1 on n2
        > g-1 is Sound
          bind g-1 @11 to n2 (1-1)
        > bind g-1: ok
          CONFIRM g-1 on n2
          write slot 0 @5: 1/5
    "#]]);
}

#[test]
fn a_deposed_leader_that_reads_a_later_fence_follows() {
    let mut scene = sharing();
    scene.prepare("allocate and reserve claim gpus @5 for g-0", "conflict", WriteResult::Conflict);
    let facts = devices_of("gpus", "6", &[]);
    scene.claim_read("gpus", "fenced", ResourceClaimFacts { fence: Some("2.7".into()), ..facts });
    scene.check(&expect![[r#"
        > allocate and reserve claim gpus @5 for g-0: conflict
          read claim gpus
        > read claim gpus: fenced
          FENCED by 2
    "#]]);
}

#[test]
fn the_journal_holds_no_place_without_what_was_prepared_for_it() {
    let mut scene = provisioning();
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    scene.pvc_read("bound", selected("n0", bound("v", pvc("a", "7"))));
    scene.begin(plan_named("h"));
    scene.check(&expect![[r#"
        > abort
          read pvc a
          read pvc b
        > read pvc a: bound
        > begin gang ns/h
          write slot 0 @3: 1/3 1-1.0 open [g-0@- g-1@n1+p:b] 1-2.0 open [h-0@n0 h-1@n1]
    "#]]);
}

#[test]
fn a_preparation_that_fails_beside_a_bound_member_of_an_intolerant_owner_is_repaired() {
    let mut scene = Scene::leading();
    let mut plan = plan_of(&[(job_pod("g-0"), "n0"), (job_pod("g-1"), "n1")]);
    plan.members[0].preparations = vec![provision("a", "n0")];
    plan.members[1].preparations = vec![provision("b", "n1")];
    scene.begin(plan);
    scene.journal_ok(0);
    scene.wrote("select n0 for pvc a", "6");
    scene.wrote("select n1 for pvc b", "6");
    scene.transcript.clear();
    scene.pod("g-0 was bound by someone", &on("n0", job_pod("g-0")));
    scene.pod_gone(&job_pod("g-1"));
    scene.pvc_read("still asked for", selected("n1", pvc("b", "6")));
    scene.wrote("select no node for pvc b", "7");
    scene.check(&expect![[r#"
        > g-0 was bound by someone
          CONFIRM g-0 on n0
        > g-1 is gone
          LOST g-1 worker 1
          LOST g-1 worker 1
          HELD 1 bound 1 missing: a member or its node was lost while its claims were prepared; it is held, not rolled back: the owner of a bound member does not tolerate a rollback
          read pvc b
          observe VolumesFailed(1)
          observe PrepareFailed
          observe Repair
        > read pvc b: still asked for
          select no node for pvc b @6
        > select no node for pvc b: ok
          LOST g-1 worker 1
    "#]]);
}
