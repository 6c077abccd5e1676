//! Journal writes: shared by plans that come together, compare-and-swap, and resolved by a read when their fate is unknown.

use super::*;
use expect_test::expect;

#[test]
fn plans_begun_before_a_flush_share_a_write() {
    let mut scene = Scene::leading();
    scene.call("begin a and b", |protocol, now, fx| {
        protocol.begin(plan_named("a"), now, fx).unwrap();
        protocol.begin(plan_named("b"), now, fx).unwrap();
        protocol.flush(now, fx);
    });
    scene.check(&expect![[r#"
        > begin a and b
          write slot 0 @2: 1/2 1-1.0 open [a-0@n0 a-1@n1] 1-2.0 open [b-0@n0 b-1@n1]
    "#]]);
}

#[test]
fn plans_that_come_while_a_write_is_in_flight_share_the_next() {
    let mut scene = Scene::leading();
    scene.begin(plan_named("a"));
    scene.begin(plan_named("b"));
    scene.begin(plan_named("c"));
    scene.journal_ok(0);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/a
          write slot 0 @2: 1/2 1-1.0 open [a-0@n0 a-1@n1]
        > begin gang ns/b
        > begin gang ns/c
        > slot 0: ok
          bind a-0 @10 to n0 (1-1)
          bind a-1 @10 to n1 (1-1)
          write slot 0 @3: 1/3 1-1.0 open [a-0@n0 a-1@n1] 1-2.0 open [b-0@n0 b-1@n1] 1-3.0 open [c-0@n0 c-1@n1]
        > slot 0: ok
          bind b-0 @10 to n0 (1-2)
          bind b-1 @10 to n1 (1-2)
          bind c-0 @10 to n0 (1-3)
          bind c-1 @10 to n1 (1-3)
    "#]]);
}

#[test]
fn an_idle_slot_is_preferred_to_a_busy_one() {
    let mut scene = Scene::new();
    scene.lead(1, fresh_slots(2));
    scene.journal_ok(0);
    scene.journal_ok(1);
    scene.transcript.clear();
    scene.begin(plan_named("a"));
    scene.begin(plan_named("b"));
    scene.check(&expect![[r#"
        > begin gang ns/a
          write slot 0 @2: 1/2 1-1.0 open [a-0@n0 a-1@n1]
        > begin gang ns/b
          write slot 1 @3: 1/2 1-2.0 open [b-0@n0 b-1@n1]
    "#]]);
}

#[test]
fn a_write_of_unknown_fate_that_landed_is_recognised_by_its_number() {
    let mut scene = Scene::leading();
    scene.begin(pair());
    scene.journal(0, "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.wait(50);
    let landed = scene.payloads[&0].clone();
    scene.journal_read(0, "60", &landed);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: unknown
        > 50 ms later
          read slot 0
        > slot 0 is read
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n1 (1-1)
    "#]]);
}

#[test]
fn a_write_of_unknown_fate_that_did_not_land_is_sent_again() {
    let mut scene = Scene::leading();
    let before = scene.payloads[&0].clone();
    scene.begin(pair());
    scene.journal(0, "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.wait(50);
    scene.journal_read(0, "2", &before);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: unknown
        > 50 ms later
          read slot 0
        > slot 0 is read
          write slot 0 @2: 1/3 1-1.0 open [g-0@n0 g-1@n1]
    "#]]);
}

#[test]
fn an_earlier_write_that_lands_late_only_moves_the_version() {
    let mut scene = Scene::leading();
    let before = scene.payloads[&0].clone();
    scene.begin(pair());
    let late = scene.payloads[&0].clone();
    scene.journal(0, "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.wait(50);
    scene.journal_read(0, "2", &before);
    scene.journal(0, "conflict, the first landed meanwhile", WriteResult::Conflict);
    scene.journal_read(0, "61", &late);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: unknown
        > 50 ms later
          read slot 0
        > slot 0 is read
          write slot 0 @2: 1/3 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: conflict, the first landed meanwhile
          read slot 0
        > slot 0 is read
          write slot 0 @61: 1/4 1-1.0 open [g-0@n0 g-1@n1]
    "#]]);
}

#[test]
fn a_refused_write_is_reported_and_tried_again_later() {
    let mut scene = Scene::leading();
    scene.begin(pair());
    scene.journal(0, "refused", WriteResult::Refused("forbidden".to_owned()));
    scene.wait(10_000);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: refused
          REFUSED journal: forbidden
          REFUSED gang ns/g: the placement journal cannot be written: forbidden
        > 10000 ms later
          write slot 0 @2: 1/3 1-1.0 open [g-0@n0 g-1@n1]
    "#]]);
}
