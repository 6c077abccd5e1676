//! Losing the lease: silence.

use super::*;
use expect_test::expect;

#[test]
fn a_follower_commands_nothing_and_ignores_late_outcomes() {
    let mut scene = Scene::binding();
    scene.protocol.follow();
    scene.bind_ok("g-0");
    scene.pod("g-1 is seen on n1", &on("n1", pod("g-1")));
    scene.wait(60_000);
    scene.check(&expect![[r#"
        > bind g-0: ok
        > g-1 is seen on n1
        > 60000 ms later
    "#]]);
    assert!(!scene.protocol.is_ready() && !scene.protocol.is_open(&gang()));
    assert_eq!(scene.protocol.next_wakeup(), None);
    let refused = scene.protocol.begin(pair(), 0, &mut Effects::default());
    assert_eq!(refused, Err(BeginError::NotReady));
}

#[test]
fn outcomes_of_a_former_term_are_strangers_in_the_next() {
    let mut scene = Scene::binding();
    scene.protocol.follow();
    scene.lead(2, fresh_slots(1));
    scene.bind_ok("g-0");
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @1: 2/1
        > bind g-0: ok
    "#]]);
}

#[test]
fn a_leader_that_finds_a_larger_epoch_in_the_journal_follows() {
    let mut scene = Scene::leading();
    scene.begin(pair());
    scene.journal(0, "conflict", WriteResult::Conflict);
    let other = Slot { v: 1, epoch: 2, ..Slot::default() };
    scene.journal_read(0, "50", &other.encode());
    scene.wait(60_000);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: conflict
          read slot 0
        > slot 0 is read
          FENCED by 2
        > 60000 ms later
    "#]]);
    assert!(!scene.protocol.is_ready());
}

#[test]
fn a_leader_that_reads_a_fence_of_a_later_epoch_follows_instead_of_binding_past_it() {
    let mut scene = Scene::binding();
    scene.bind_unknown("g-0");
    scene.wait(50);
    scene.found("fenced by epoch 2", PodInfo { fence: Some("2.7".into()), ..version("20", pod("g-0")) });
    scene.wait(60_000);
    scene.check(&expect![[r#"
        > bind g-0: unknown
        > 50 ms later
          read g-0
        > read g-0: fenced by epoch 2
          FENCED by 2
        > 60000 ms later
    "#]]);
    assert!(!scene.protocol.is_ready());
}
