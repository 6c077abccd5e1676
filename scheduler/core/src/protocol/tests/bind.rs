//! Journal, bind, commit; and what an answer that says nothing leads to.

use super::*;
use expect_test::expect;

#[test]
fn a_gang_is_journaled_then_bound_then_closed() {
    let mut scene = Scene::leading();
    scene.begin(pair());
    scene.journal_ok(0);
    scene.bind_ok("g-1");
    scene.bind_ok("g-0");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n1 (1-1)
        > bind g-1: ok
          CONFIRM g-1 on n1
        > bind g-0: ok
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3
        > slot 0: ok
          CLOSED bound
    "#]]);
    assert_eq!(scene.protocol.stats(), ProtocolStats::default());
    assert_eq!(scene.protocol.next_wakeup(), None);
}

#[test]
fn nothing_is_bound_before_the_journal_answers() {
    let mut scene = Scene::leading();
    scene.begin(pair());
    scene.wait(100);
    scene.pod("g-0 is seen unbound", &pod("g-0"));
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n1]
        > 100 ms later
        > g-0 is seen unbound
    "#]]);
}

#[test]
fn a_watch_event_confirms_before_the_answer_does() {
    let mut scene = Scene::binding();
    scene.pod("g-0 is seen on n0", &on("n0", pod("g-0")));
    scene.bind_ok("g-0");
    scene.check(&expect![[r#"
        > g-0 is seen on n0
          CONFIRM g-0 on n0
        > bind g-0: ok
    "#]]);
}

#[test]
fn an_unknown_binding_is_resolved_by_a_read_that_finds_it_done() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.bind_unknown("g-0");
    scene.wait(50);
    scene.found("on n0", on("n0", version("11", pod("g-0"))));
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > bind g-0: unknown
        > 50 ms later
          read g-0
        > read g-0: on n0
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn an_unknown_binding_that_did_not_happen_is_sent_again_to_the_same_node() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.bind_unknown("g-0");
    scene.wait(50);
    scene.found("unbound", pod("g-0"));
    scene.wait(100);
    scene.bind_ok("g-0");
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > bind g-0: unknown
        > 50 ms later
          read g-0
        > read g-0: unbound
        > 100 ms later
          bind g-0 @10 to n0 (1-1)
        > bind g-0: ok
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn a_conflict_because_the_pod_changed_is_retried_at_once_with_the_new_version() {
    let mut scene = Scene::binding();
    scene.bind_conflict("g-0");
    scene.found("unbound, changed", version("12", pod("g-0")));
    scene.check(&expect![[r#"
        > bind g-0: conflict
          read g-0
        > read g-0: unbound, changed
          bind g-0 @12 to n0 (1-1)
    "#]]);
}

#[test]
fn a_gated_pod_is_retried_with_a_backoff_and_becomes_trouble() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    for _ in 0..3 {
        scene.bind_conflict("g-0");
        scene.found("gated", PodInfo { gated: true, ..pod("g-0") });
        scene.wait(2_000);
    }
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > bind g-0: conflict
          read g-0
        > read g-0: gated
        > 2000 ms later
          bind g-0 @10 to n0 (1-1)
        > bind g-0: conflict
          read g-0
        > read g-0: gated
        > 2000 ms later
          bind g-0 @10 to n0 (1-1)
        > bind g-0: conflict
          read g-0
          observe Repair
        > read g-0: gated
        > 2000 ms later
          bind g-0 @10 to n0 (1-1)
    "#]]);
}

#[test]
fn a_silent_server_is_asked_again_and_never_becomes_trouble() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.bind_unknown("g-0");
    for _ in 0..40 {
        scene.wait(2_000);
        scene.read("g-0", "unknown", ReadResult::Unknown("timeout".to_owned()));
    }
    scene.transcript.clear();
    scene.wait(2_000);
    scene.found("on n0", on("n0", pod("g-0")));
    scene.check(&expect![[r#"
        > 2000 ms later
          read g-0
        > read g-0: on n0
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn an_outcome_that_never_comes_counts_as_unknown() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.wait(15_000);
    scene.wait(50);
    scene.bind_ok("g-0");
    scene.found("on n0", on("n0", pod("g-0")));
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > 15000 ms later
        > 50 ms later
          read g-0
        > bind g-0: ok
        > read g-0: on n0
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn a_pod_bound_elsewhere_by_someone_else_counts_as_bound() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.bind_conflict("g-0");
    scene.found("on n9", on("n9", pod("g-0")));
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > bind g-0: conflict
          read g-0
        > read g-0: on n9
          FOREIGN g-0 on n9
          observe ForeignBind
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn a_member_that_already_succeeded_counts_as_bound() {
    let mut scene = Scene::binding();
    scene.bind_ok("g-1");
    scene.pod("g-0 succeeded", &PodInfo { phase: PodPhase::Succeeded, ..on("n0", pod("g-0")) });
    scene.check(&expect![[r#"
        > bind g-1: ok
          CONFIRM g-1 on n1
        > g-0 succeeded
          CONFIRM g-0 on n0
          write slot 0 @3: 1/3
    "#]]);
}

#[test]
fn a_plan_is_refused_while_the_gang_or_a_pod_has_an_intent() {
    let mut scene = Scene::binding();
    let mut fx = Effects::default();
    assert_eq!(scene.protocol.begin(pair(), 0, &mut fx), Err(BeginError::AlreadyOpen));
    let alone = Plan { gang: GangKey::Pod(pod("g-0").key), ..plan_of(&[(pod("g-0"), "n0")]) };
    assert_eq!(scene.protocol.begin(alone, 0, &mut fx), Err(BeginError::AlreadyOpen));
    let nowhere = Plan { members: vec![Placement { node: None, ..Placement::new(&lone_pod("x"), "n") }], ..pair() };
    assert_eq!(scene.protocol.begin(nowhere, 0, &mut fx), Err(BeginError::Incomplete));
    assert!(fx.commands.is_empty() && fx.effects.is_empty());
}
