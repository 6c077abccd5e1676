//! What is tried or said again, and when.

use super::*;

#[test]
fn a_report_that_was_dropped_is_said_again_with_the_next_refusal() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    let declared = gang("g", &[("worker", 1, 1)]);
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    s.create(declared_member(&declared, "worker", 0).asks("nvidia.com/gpu", 8));
    s.run();
    assert_eq!((s.condition_writes, s.gang_status.len()), (1, 1));
    s.gang_status.clear();
    s.engine.unsaid(&Unsaid::Condition { uid: "uid-g-worker-0".into() });
    s.engine.unsaid(&Unsaid::GangStatus { namespace: "ns".into(), name: "g".into() });
    s.pass(300_000);
    assert_eq!((s.condition_writes, s.gang_status.len()), (2, 1));
    s.pass(300_000);
    assert_eq!(s.condition_writes, 2);
}

fn attempts(s: &Scene, gang: &str) -> u32 {
    let id = s.engine.gangs.find(&"ns".into(), &gang.into()).unwrap();
    s.engine.queue.get(Entity::Gang(id)).unwrap().attempts
}

/// A gang whose members each fit somewhere, by the counters, but not together; beside a node whose pods end.
fn seems_to_fit() -> Scene {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1"), node("n1")]);
    (0..40).for_each(|p| s.create(pod(&format!("short-{p}")).asks("cpu", 100)));
    s.run();
    s.create(member("g", 0, 2).asks("nvidia.com/gpu", 8));
    s.create(member("g", 1, 2).asks("nvidia.com/gpu", 1));
    s.run();
    assert_eq!(attempts(&s, "g"), 1);
    s
}

#[test]
fn a_search_that_failed_backs_off_while_pods_end() {
    let mut s = seems_to_fit();
    for p in 0..40 {
        s.end(&format!("short-{p}"));
        s.pass(100);
    }
    // 4 s: one second after the first, two after the second.
    assert_eq!(attempts(&s, "g"), 3);
}

#[test]
fn a_search_that_backs_off_is_made_at_once_for_a_new_node() {
    let mut s = seems_to_fit();
    s.end("short-0");
    s.run();
    assert_eq!(s.engine.stats().backoff, 2);
    s.nodes([dgx("d1", "b1", "r1")]);
    s.run();
    assert_eq!(s.bound_of("g"), 2);
}

#[test]
fn a_refusal_that_the_counters_prove_is_tried_again_as_soon_as_they_disprove_it() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.create(pod("short").asks("nvidia.com/gpu", 1));
    s.run();
    s.gang("g", 2, 4);
    s.run();
    assert_eq!(s.bound_of("g"), 0);
    s.end("short");
    s.run();
    assert_eq!(s.bound_of("g"), 2);
}

#[test]
fn a_pod_that_changes_all_the_time_is_not_bound_in_a_hurry() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    s.hold_binds = true;
    s.create(pod("p"));
    s.run();
    let mut tries = 0;
    for version in 0..100 {
        while let Some(Command::Bind { op, .. }) = s.held.pop() {
            tries += 1;
            let changed = PodInfo { resource_version: format!("v{version}").into(), ..s.pods["uid-p"].clone() };
            s.create(changed);
            s.see(Event::Outcome(Outcome::Bind { op, result: BindResult::Conflict("changed".to_owned()) }));
        }
        s.pass(100);
    }
    assert!((3..=7).contains(&tries), "{tries} tries in 10 s");
}

#[test]
fn a_journal_that_cannot_be_written_is_told_and_its_gangs_go_when_it_can() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.journal_refusal = Some("forbidden".to_owned());
    s.gang("g", 2, 4);
    s.run();
    let expected = "the API server refuses the binding: the placement journal cannot be written: forbidden";
    assert_eq!(s.message("g-0"), ("SchedulerError", format!("gang ns/g: {expected}").as_str()));
    assert_eq!(s.engine.journal_refusal(), Some("forbidden"));
    assert_eq!(s.observations.pop(), Some(Observation::JournalRefused("forbidden".to_owned())));
    s.journal_refusal = None;
    s.pass(10_000);
    assert_eq!((s.bound_of("g"), s.engine.journal_refusal()), (2, None));
}

#[test]
fn a_journal_slot_that_cannot_be_decoded_is_told() {
    let mut s = Scene::follower();
    s.journal = (1, "{".to_owned());
    s.lead(2);
    let told = |o: &Observation| matches!(o, Observation::JournalUnreadable(what) if what.starts_with("slot 0: "));
    assert!(s.observations.iter().any(told), "{:?}", s.observations);
}

#[test]
fn when_room_appears_the_most_important_refused_pod_gets_it_whatever_its_shape() {
    let mut s = Scene::new();
    s.nodes([dgx("d0", "b1", "r1")]);
    s.create(PodInfo { priority: 100, ..pod("short").asks("nvidia.com/gpu", 8) });
    s.run();
    // The less important ones came first and are many, of several shapes.
    for i in 0..20 {
        s.create(PodInfo { priority: 5, ..pod(&format!("low-{i}")).asks("nvidia.com/gpu", 4 + i % 5) });
    }
    s.run();
    s.create(PodInfo { priority: 100, ..pod("high").asks("nvidia.com/gpu", 8).asks("cpu", 7) });
    s.run();
    assert_eq!(s.engine.stats().unschedulable, 21);
    s.end("short");
    s.run();
    assert_eq!(s.pods["uid-high"].node_name.as_deref(), Some("d0"));
    assert_eq!(s.engine.stats().unschedulable, 20);
}

#[test]
fn more_refused_pods_than_a_run_tries_do_not_hold_up_one_that_fits() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    for i in 0..1_500 {
        s.create(PodInfo { priority: 100, ..pod(&format!("never-{i}")).asks("cpu", 10_000_000 + i) });
    }
    s.create(pod("fits").asks("cpu", 100));
    s.run();
    assert_eq!(s.pods["uid-fits"].node_name.as_deref(), Some("n1"));
    assert_eq!(s.engine.stats().unschedulable, 1_500);
}

#[test]
fn a_refused_pod_is_tried_again_after_five_minutes_whatever_happened() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    s.create(pod("p").asks("cpu", 10_000_000));
    s.run();
    let attempts = |s: &Scene| {
        let refused = |o: &&Observation| matches!(o, Observation::Attempt { result: AttemptResult::Unschedulable, .. });
        s.observations.iter().filter(refused).count()
    };
    let before = attempts(&s);
    s.pass(299_000);
    assert_eq!(attempts(&s), before, "nothing happened that could cure it");
    s.pass(2_000);
    assert_eq!(attempts(&s), before + 1);
    let incoming = s.engine.take_incoming();
    assert_eq!(incoming.get(&("active", "UnschedulableTimeout")), Some(&1));
    assert_eq!(incoming.get(&("active", "UnscheduledPodAdd")), Some(&1));
}

#[test]
fn a_pod_is_woken_only_by_what_can_cure_it() {
    let mut s = Scene::new();
    s.nodes([node("n1"), NodeInfo { unschedulable: true, ..node("n2") }]);
    s.create(pod("other").asks("cpu", 100));
    s.create(pod("p").asks("cpu", 10_000_000));
    s.run();
    s.engine.take_incoming();
    // A pod ends, but what it frees is not enough; a node is uncordoned, but has too little.
    s.end("other");
    s.nodes([node("n2")]);
    s.run();
    assert_eq!(s.engine.take_incoming(), [].into());
    s.nodes([NodeInfo { allocatable: [("cpu".into(), 20_000_000), ("pods".into(), 10)].into(), ..node("n3") }]);
    s.run();
    assert_eq!(s.engine.take_incoming().keys().collect::<Vec<_>>(), [&("active", "NodeAdd")]);
    assert_eq!(s.pods["uid-p"].node_name.as_deref(), Some("n3"));
}
