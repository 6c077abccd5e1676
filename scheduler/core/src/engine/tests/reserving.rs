//! Reservations in time: who is let in meanwhile, who is not, and how a promise ends.

use super::*;
use crate::reserve::Reservation;

const MINUTE: Millis = 60_000;

/// What has run on a node since the start of the scene and declares so many minutes.
fn runs(name: &str, gpus: i64, node: &str, minutes: Option<Millis>) -> PodInfo {
    let pod = pod(name).asks("nvidia.com/gpu", gpus).on(node);
    PodInfo { started_at_ms: Some(1_000), expected: minutes.map(|m| Ok(m * MINUTE)), ..pod }
}

fn waits(name: &str, gpus: i64, minutes: Option<Millis>) -> PodInfo {
    PodInfo { expected: minutes.map(|m| Ok(m * MINUTE)), ..pod(name).asks("nvidia.com/gpu", gpus) }
}

/// Two nodes: one is busy for ten minutes, the other has 6 of 8 GPUs idle until then; a gang waits for both.
fn blocked() -> Scene {
    let mut scene = Scene::new();
    scene.nodes([dgx("n0", "b0", "r0"), dgx("n1", "b0", "r0")]);
    scene.create(runs("a", 8, "n0", Some(10)));
    scene.create(runs("b", 2, "n1", Some(10)));
    scene.gang("big", 2, 8);
    scene.run();
    assert_eq!(scene.bound_of("big"), 0);
    scene
}

fn only(scene: &Scene) -> Reservation {
    let all: Vec<&Reservation> = scene.engine.reservations().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn count(scene: &Scene, wanted: &Observation) -> usize {
    scene.observations.iter().filter(|seen| *seen == wanted).count()
}

#[test]
fn a_short_pod_is_let_in_and_a_long_one_waits_until_the_gang_has_started() {
    let mut scene = blocked();
    let reservation = only(&scene);
    assert_eq!((reservation.title(), reservation.until_ms), ("ns/big".to_owned(), 1_000 + 10 * MINUTE));
    scene.create(waits("long", 1, None));
    scene.create(waits("too-long", 1, Some(11)));
    scene.create(waits("short", 1, Some(5)));
    scene.run();
    assert_eq!((scene.node_of("short"), scene.node_of("long"), scene.node_of("too-long")), (Some("n1"), None, None));
    let (reason, message) = scene.message("long");
    assert_eq!(reason, "Unschedulable");
    assert!(message.contains("1 node(s) were reserved for gang ns/big until 1970-01-01T00:10:01Z"), "{message}");
    assert_eq!(count(&scene, &Observation::Backfilled(1)), 1);
    let stats = scene.engine.stats();
    assert_eq!((stats.reservations, stats.head_waits_since_ms), (1, Some(1_000)));
    assert_eq!(stats.unschedulable_by_plugin.get(&("FlowForgeReservation", "flowforge".into())), Some(&2));
    scene.pass(5 * MINUTE);
    scene.delete("short");
    scene.now += 5 * MINUTE;
    scene.delete("b");
    scene.delete("a");
    scene.run();
    assert_eq!((scene.bound_of("big"), scene.engine.reservations().count()), (2, 0));
    assert_eq!(count(&scene, &Observation::ReservationDelayed), 0);
    // What was reserved is nobody's any more.
    scene.delete("big-0");
    scene.delete("big-1");
    scene.run();
    assert!(scene.node_of("long").is_some() && scene.node_of("too-long").is_some());
}

#[test]
fn a_gang_that_would_delay_it_waits_and_says_for_whom() {
    let mut scene = blocked();
    scene.gang("small", 2, 2);
    scene.run();
    assert_eq!(scene.bound_of("small"), 0);
    let (_, message) = scene.message("small-0");
    assert!(message.contains("room on 1 node(s) is reserved for gang ns/big until 1970-01-01T00:10:01Z"), "{message}");
    for rank in 0..2 {
        scene.create(PodInfo { expected: Some(Ok(MINUTE)), ..member("quick", rank, 2).asks("nvidia.com/gpu", 2) });
    }
    scene.run();
    assert_eq!((scene.bound_of("quick"), scene.bound_of("small")), (2, 0));
    assert_eq!(count(&scene, &Observation::Backfilled(2)), 1);
}

#[test]
fn a_higher_priority_passes_and_the_promise_moves() {
    let mut scene = blocked();
    scene.create(PodInfo { started_at_ms: Some(1_000), ..waits("high", 4, Some(30)).priority(10) });
    scene.run();
    assert_eq!(scene.node_of("high"), Some("n1"));
    scene.pass(10_000);
    let moved = only(&scene);
    assert_eq!((moved.until_ms, moved.first_until_ms), (1_000 + 30 * MINUTE, 1_000 + 10 * MINUTE));
    assert_eq!(count(&scene, &Observation::ReservationDelayed), 1);
}

#[test]
fn who_outlives_what_it_declared_moves_the_promise_and_breaks_nothing() {
    let mut scene = blocked();
    scene.create(waits("long", 1, None));
    scene.pass(10 * MINUTE);
    scene.delete("b");
    scene.run();
    let late = only(&scene);
    assert!(late.until_ms > scene.now && late.first_until_ms == scene.now, "{late:?}");
    assert!(count(&scene, &Observation::ReservationDelayed) >= 1);
    scene.pass(20 * MINUTE);
    assert_eq!((scene.node_of("long"), scene.engine.reservations().count()), (None, 1));
    scene.delete("a");
    scene.run();
    assert_eq!(scene.bound_of("big"), 2);
}

#[test]
fn nothing_is_reserved_on_unknown_ends_until_the_gang_has_waited_too_long() {
    let mut scene = Scene::new();
    scene.nodes([dgx("n0", "b0", "r0"), dgx("n1", "b0", "r0")]);
    scene.create(runs("a", 8, "n0", None));
    scene.create(runs("b", 2, "n1", Some(10)));
    scene.gang("big", 2, 8);
    scene.run();
    assert_eq!(scene.engine.reservations().count(), 0);
    scene.create(waits("early", 1, None));
    scene.run();
    assert_eq!(scene.node_of("early"), Some("n1"));
    scene.pass(30 * MINUTE);
    let kept = only(&scene);
    assert!(kept.kept && kept.until_ms == scene.now + 30 * MINUTE, "{kept:?}");
    scene.create(waits("late", 1, None));
    scene.create(waits("short", 1, Some(5)));
    scene.run();
    assert_eq!((scene.node_of("late"), scene.node_of("short")), (None, Some("n1")));
    let (_, message) = scene.message("late");
    assert!(message.contains("kept for gang ns/big until it starts, but for work that ends by"), "{message}");
    // The time for those who are let in is fixed: at last nobody is.
    scene.delete("short");
    scene.pass(31 * MINUTE);
    scene.create(waits("shorter", 1, Some(1)));
    scene.run();
    assert_eq!((scene.node_of("shorter"), only(&scene).until_ms), (None, kept.until_ms));
    for name in ["a", "b", "early"] {
        scene.delete(name);
    }
    scene.run();
    assert_eq!((scene.bound_of("big"), scene.node_of("late")), (2, None));
}

#[test]
fn a_gang_that_goes_away_leaves_its_room_to_those_who_wait() {
    let mut scene = blocked();
    scene.create(waits("long", 1, None));
    scene.run();
    assert_eq!(scene.node_of("long"), None);
    scene.delete("big-0");
    scene.delete("big-1");
    scene.run();
    assert_eq!((scene.node_of("long"), scene.engine.reservations().count()), (Some("n1"), 0));
}

#[test]
fn only_the_first_gang_of_a_priority_has_one_and_priorities_do_not_share_room() {
    let mut scene = blocked();
    scene.now += 1_000;
    scene.gang("later", 2, 8);
    (0..2).for_each(|rank| scene.create(member("lower", rank, 2).asks("nvidia.com/gpu", 8).priority(-5)));
    scene.run();
    // Where the lower one could follow only after the other, whose end nobody knows, there is nothing to promise.
    assert_eq!(only(&scene).name, "big");
    scene.nodes([dgx("n2", "b0", "r1"), dgx("n3", "b0", "r1")]);
    scene.create(runs("c", 8, "n2", Some(20)));
    scene.create(runs("d", 8, "n3", Some(30)));
    scene.pass(10_000);
    let names: Vec<_> = scene.engine.reservations().map(|r| (r.name.clone(), r.until_ms / MINUTE)).collect();
    assert_eq!(names, [("big".into(), 10), ("lower".into(), 30)]);
}

#[test]
fn another_leader_reserves_the_same_again() {
    let mut scene = blocked();
    let before = only(&scene);
    scene.see(Event::Follow);
    assert_eq!(scene.engine.reservations().count(), 0);
    scene.now += 1_000;
    scene.lead(2);
    let after = only(&scene);
    assert_eq!((before.until_ms, before.places), (after.until_ms, after.places));
}

#[test]
fn who_declares_no_duration_is_told_so_where_it_would_matter() {
    let mut scene = blocked();
    scene.create(PodInfo { expected: Some(Err("soon".into())), ..waits("wrong", 1, None) });
    scene.run();
    let (_, message) = scene.message("wrong");
    assert!(message.contains("annotation flowforge.dev/expected-duration is no duration such as 90m"), "{message}");
}
