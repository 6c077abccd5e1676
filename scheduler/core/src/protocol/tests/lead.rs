//! Taking over: fence the journal, then finish or roll back what is open.

use super::*;
use crate::protocol::journal::epoch_to_lead;
use expect_test::expect;

/// What is in the journal of a leader that was killed while it bound the pair.
fn killed_while_binding() -> Vec<JournalSlotRead> {
    Scene::binding().journal_found()
}

/// The next leader, whose journal is fenced and whose lists show these pods of the pair.
fn took_over(journal: Vec<JournalSlotRead>, listed: &[PodInfo]) -> Scene {
    let mut scene = Scene::new();
    scene.lead(2, journal);
    scene.journal_ok(0);
    scene.recovered(listed);
    scene
}

#[test]
fn no_plan_is_taken_before_every_slot_is_fenced() {
    let mut scene = Scene::new();
    scene.lead(5, fresh_slots(2));
    scene.journal_ok(1);
    assert_eq!(scene.protocol.begin(pair(), 0, &mut Effects::default()), Err(BeginError::NotReady));
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 5
          write slot 0 @1: 5/1
          write slot 1 @1: 5/1
        > slot 1: ok
        > slot 0: ok
          READY
    "#]]);
    assert!(scene.protocol.is_ready());
}

#[test]
fn members_that_are_listed_are_kept_or_bound_where_the_journal_has_them_at_once() {
    let listed = [on("n0", version("11", pod("g-0"))), pod("g-1")];
    let mut scene = took_over(killed_while_binding(), &listed);
    scene.bind_ok("g-1");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          CONFIRM g-0 on n0
          bind g-1 @10 to n1 (1-1)
        > bind g-1: ok
          CONFIRM g-1 on n1
          write slot 0 @2: 2/4
        > slot 0: ok
          CLOSED bound
    "#]]);
}

#[test]
fn members_that_no_list_shows_are_read() {
    let mut scene = took_over(killed_while_binding(), &[]);
    scene.found("bound", on("n0", version("11", pod("g-0"))));
    scene.found("unbound", pod("g-1"));
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          read g-0
          read g-1
        > read g-0: bound
          CONFIRM g-0 on n0
        > read g-1: unbound
          bind g-1 @10 to n1 (1-1)
    "#]]);
}

#[test]
fn a_binding_of_the_former_leader_that_lands_before_ours_is_kept() {
    let listed = [on("n0", version("11", pod("g-0"))), pod("g-1")];
    let mut scene = took_over(killed_while_binding(), &listed);
    scene.bind_conflict("g-1");
    scene.found("bound meanwhile", on("n1", version("12", pod("g-1"))));
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          CONFIRM g-0 on n0
          bind g-1 @10 to n1 (1-1)
        > bind g-1: conflict
          read g-1
        > read g-1: bound meanwhile
          CONFIRM g-1 on n1
          write slot 0 @2: 2/4
    "#]]);
}

#[test]
fn an_inherited_member_is_fenced_before_it_is_moved() {
    let mut scene = Scene::new();
    scene.lead(2, killed_while_binding());
    scene.journal_ok(0);
    scene.node_gone("n1");
    scene.recovered(&[on("n0", version("11", pod("g-0"))), pod("g-1")]);
    scene.fence_ok("g-1", "12");
    scene.journal_ok(0);
    scene.placed(&[("g-1", "n7")]);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > node n1 is gone
        > recovered
          CONFIRM g-0 on n0
          fence g-1 @10
          observe Repair
        > fence g-1: ok
          write slot 0 @2: 2/4 1-1.0 open [g-0@n0 g-1@-]
        > slot 0: ok
          REPLAN g-1 (was -)
        > placed
          write slot 0 @3: 2/5 1-1.0 open [g-0@n0 g-1@n7]
        > slot 0: ok
          bind g-1 @12 to n7 (1-1)
    "#]]);
}

#[test]
fn an_ended_gang_is_aborted_before_anything_is_bound() {
    let mut scene = Scene::new();
    scene.lead(2, killed_while_binding());
    scene.journal_ok(0);
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "ended", now, fx));
    scene.recovered(&[on("n0", version("11", pod("g-0"))), pod("g-1")]);
    scene.fence_ok("g-1", "12");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > abort
        > recovered
          CONFIRM g-0 on n0
          fence g-1 @10
        > fence g-1: ok
          event g-0 GangRollback: gang ns/g is rolled back: ended
          observe Rollback
          write slot 0 @2: 2/4 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > slot 0: ok
          mark g-0: gang ns/g is rolled back: ended
    "#]]);
}

#[test]
fn a_fence_of_unknown_fate_is_recognised_by_its_epoch() {
    let mut scene = Scene::new();
    scene.lead(2, killed_while_binding());
    scene.journal_ok(0);
    scene.node_gone("n1");
    scene.recovered(&[on("n0", version("11", pod("g-0"))), pod("g-1")]);
    scene.fence("g-1", "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.wait(50);
    scene.transcript.clear();
    scene.found("fenced", PodInfo { fence: Some("2.9".into()), ..version("13", pod("g-1")) });
    scene.check(&expect![[r#"
        > read g-1: fenced
          write slot 0 @2: 2/4 1-1.0 open [g-0@n0 g-1@-]
    "#]]);
}

#[test]
fn an_inherited_rollback_is_continued_and_never_finished_as_a_bind() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-0");
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    let journal = scene.journal_found();
    let mut scene = took_over(journal, &[]);
    scene.found("bound", on("n0", version("11", pod("g-0"))));
    scene.found("unbound", pod("g-1"));
    scene.fence_ok("g-1", "12");
    scene.mark_ok("g-0");
    scene.found("still bound", on("n0", version("90", pod("g-0"))));
    scene.delete_ok("g-0");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/4 1-1.0 ROLLING-BACK [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          read g-0
          read g-1
        > read g-0: bound
          CONFIRM g-0 on n0
          mark g-0: gang ns/g is rolled back: canceled
        > read g-1: unbound
          fence g-1 @10
        > fence g-1: ok
        > mark g-0: ok
          read g-0
        > read g-0: still bound
          delete g-0
        > delete g-0: ok
          write slot 0 @2: 2/5
        > slot 0: ok
          RELEASE g-1
          CLOSED undone: Aborted("canceled")
    "#]]);
}

#[test]
fn a_write_of_the_former_leader_that_lands_before_the_fence_counts() {
    let mut scene = Scene::new();
    scene.lead(2, fresh_slots(1));
    scene.journal(0, "conflict", WriteResult::Conflict);
    let payload = killed_while_binding().remove(0).payload;
    scene.journal_read(0, "70", &payload);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @1: 2/1
        > slot 0: conflict
          read slot 0
        > slot 0 is read
          write slot 0 @70: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
    "#]]);
}

#[test]
fn a_lost_member_of_an_inherited_intent_is_reported_and_replaced() {
    let mut scene = took_over(killed_while_binding(), &[]);
    scene.found("bound", on("n0", version("11", pod("g-0"))));
    scene.read("g-1", "404", ReadResult::NotFound);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          read g-0
          read g-1
        > read g-0: bound
          CONFIRM g-0 on n0
        > read g-1: 404
          LOST g-1 worker 1
          observe Repair
    "#]]);
}

#[test]
fn tails_without_a_head_are_swept_away() {
    let mut scene = Scene::with(ProtocolConfig { slot_limit_bytes: 640, ..ProtocolConfig::default() });
    scene.lead(1, fresh_slots(3));
    (0..3).for_each(|slot| scene.journal_ok(slot));
    let members: Vec<_> = (0..6).map(|rank| (pod(&format!("g-{rank}")), "n0")).collect();
    scene.begin(plan_of(&members));
    let journal = scene.journal_found();
    let mut scene = Scene::new();
    scene.lead(2, journal);
    (0..3).for_each(|slot| scene.journal_ok(slot));
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/2
          write slot 1 @77: 2/3 1-1.1 tail [g-3@n0 g-4@n0 g-5@n0]
          write slot 2 @77: 2/2
        > slot 0: ok
        > slot 1: ok
        > slot 2: ok
          READY
          write slot 1 @3: 2/4
    "#]]);
}

#[test]
fn an_unreadable_slot_is_reported_and_taken_over_empty() {
    let mut scene = Scene::new();
    scene.lead(2, vec![slot_read(0, "5", "not json")]);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 2
          UNREADABLE slot 0
          write slot 0 @5: 2/1
        > slot 0: ok
          READY
    "#]]);
}

#[test]
fn a_journal_of_a_later_leader_makes_it_follow() {
    let mut scene = Scene::new();
    let later = Slot { v: 1, epoch: 9, ..Slot::default() };
    scene.lead(2, vec![slot_read(0, "5", &later.encode())]);
    scene.check(&expect![[r#"
        > lead 2
          FENCED by 9
    "#]]);
}

#[test]
fn a_lease_that_was_made_again_leads_above_the_journal() {
    let at = |slot: u32, epoch| slot_read(slot, "5", &Slot { v: 1, epoch, ..Slot::default() }.encode());
    assert_eq!(epoch_to_lead(7, 0, 700, &[at(0, 6), at(1, 4)]), 7, "as usual");
    assert_eq!(epoch_to_lead(1, 0, 700, &[at(0, 6), at(1, 9)]), 9 + 700);
    assert_eq!(epoch_to_lead(9, 0, 700, &[at(0, 9)]), 9 + 700, "an epoch is never used twice");
    assert_eq!(epoch_to_lead(1, 12, 700, &[at(0, 9)]), 12 + 700, "what is known besides counts");
    assert_eq!(epoch_to_lead(1, 0, 700, &fresh_slots(2)), 1, "a fresh journal");
    assert_eq!(epoch_to_lead(2, 0, 700, &[slot_read(0, "5", "not json"), at(1, 4)]), 4 + 700);
    let mut scene = Scene::new();
    scene.lead(epoch_to_lead(1, 0, 700, &killed_while_binding()), killed_while_binding());
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > lead 701
          write slot 0 @77: 701/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
    "#]]);
}

#[test]
fn slots_that_a_former_configuration_left_are_fenced_and_emptied_and_take_nothing_new() {
    let left = killed_while_binding().remove(0).payload;
    let mut scene = Scene::with(ProtocolConfig { journal_slots: 1, ..ProtocolConfig::default() });
    scene.lead(2, vec![slot_read(0, "1", ""), slot_read(1, "77", &left)]);
    (0..2).for_each(|slot| scene.journal_ok(slot));
    scene.recovered(&[on("n0", pod("g-0")), on("n1", pod("g-1"))]);
    // The first keeps slot 0 busy: the second would go to slot 1, which is idle.
    scene.begin(plan_named("h"));
    scene.begin(plan_named("i"));
    scene.journal_ok(1);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @1: 2/1
          write slot 1 @77: 2/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
        > slot 1: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          CONFIRM g-0 on n0
          CONFIRM g-1 on n1
          write slot 1 @3: 2/4
        > begin gang ns/h
          write slot 0 @2: 2/2 2-2.0 open [h-0@n0 h-1@n1]
        > begin gang ns/i
        > slot 1: ok
          CLOSED bound
    "#]]);
}
