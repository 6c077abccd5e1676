//! Stories of eviction: who goes, who waits for it, and who gets the place.

use super::*;
use crate::fixture::NodeChain;
use crate::labels::LabelSelector;
use crate::preempt::Budget;

/// A node with room for 4 CPUs.
fn small(name: &str) -> NodeInfo {
    let mut node = node(name);
    node.allocatable.insert("cpu".into(), 4_000);
    node
}

fn cpu(name: &str, cpu: i64, priority: i32) -> PodInfo {
    pod(name).asks("cpu", cpu).priority(priority)
}

fn scene(nodes: &[&str]) -> Scene {
    let mut s = Scene::new();
    s.nodes(nodes.iter().map(|name| small(name)));
    s
}

fn budget(app: &str, allowed: i32) -> Event {
    let selector = Some(LabelSelector::of(&[("app".into(), app.into())].into()));
    let budget = Budget { namespace: "ns".into(), name: app.into(), selector, allowed, ..Budget::default() };
    Event::BudgetUpsert(Box::new(budget))
}

#[test]
fn the_least_important_goes_and_the_pod_is_placed_as_soon_as_it_is_gone() {
    let mut s = scene(&["n1"]);
    s.create(cpu("low", 2_000, 1).on("n1").foreign());
    s.create(cpu("middle", 2_000, 5).on("n1"));
    s.create(cpu("high", 2_000, 10));
    s.run();
    assert_eq!(s.evicted, ["low"]);
    assert_eq!(s.nominated["high"].as_deref(), Some("n1"));
    let told = "0/1 nodes are available: 1 Insufficient cpu. \
                preemption: found a potential placement for pod on node n1, preempting 1 victims";
    assert_eq!(s.message("high"), ("Unschedulable", told));
    let note = "Preempted by pod uid-high on node n1".to_owned();
    assert!(s.events.contains(&("low".into(), EventKind::Preempted, note)));
    s.pass(1);
    assert_eq!((s.node_of("high"), s.evicted.len()), (None, 1));
    s.delete("low");
    s.run();
    assert_eq!(s.node_of("high"), Some("n1"));
}

#[test]
fn while_victims_end_the_pod_evicts_nobody_else_and_says_what_it_waits_for() {
    let mut s = scene(&["n1", "n2"]);
    s.create(cpu("a", 4_000, 1).on("n1"));
    s.create(cpu("b", 4_000, 2).on("n2"));
    s.create(cpu("high", 4_000, 10));
    s.run();
    assert_eq!(s.evicted, ["a"]);
    s.pass(60_000);
    s.nodes([small("n3").has("cpu", 1_000)]);
    s.pass(60_000);
    assert_eq!(s.evicted, ["a"]);
    assert!(s.message("high").1.ends_with("preemption: not eligible due to a terminating pod on the nominated node."));
    s.delete("a");
    s.run();
    assert_eq!(s.node_of("high"), Some("n1"));
}

#[test]
fn a_place_that_was_made_for_a_pod_is_kept_from_those_of_no_higher_priority() {
    let mut s = scene(&["n1"]);
    s.create(cpu("low", 4_000, 1).on("n1"));
    s.create(cpu("high", 3_000, 10));
    s.run();
    s.create(cpu("same", 2_000, 10));
    s.create(cpu("small", 1_000, 5));
    s.run();
    s.delete("low");
    s.run();
    s.pass(20_000);
    assert_eq!([s.node_of("high"), s.node_of("same"), s.node_of("small")], [Some("n1"), None, Some("n1")]);
}

#[test]
fn a_more_important_pod_takes_the_promised_place_and_the_promise_ends() {
    let mut s = scene(&["n1"]);
    s.create(cpu("low", 4_000, 1).on("n1"));
    s.create(cpu("high", 4_000, 10));
    s.run();
    s.create(cpu("higher", 4_000, 100));
    s.run();
    assert_eq!(s.evicted, ["low"], "who goes already is not evicted again");
    assert_eq!(s.nominated["higher"].as_deref(), Some("n1"));
    assert_eq!(s.nominated["high"], None);
    s.delete("low");
    s.pass(20_000);
    assert_eq!([s.node_of("high"), s.node_of("higher")], [None, Some("n1")]);
}

#[test]
fn a_pod_that_must_not_preempt_says_so() {
    let mut s = scene(&["n1"]);
    s.create(cpu("low", 4_000, 1).on("n1"));
    s.create(PodInfo { never_preempts: true, ..cpu("meek", 4_000, 10) });
    s.run();
    assert!(s.evicted.is_empty());
    let told = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(s.message("meek").1, told);
}

#[test]
fn a_spent_budget_protects_as_long_as_somebody_else_can_go() {
    let mut s = scene(&["n1", "n2"]);
    s.see(budget("web", 0));
    s.create(cpu("protected", 4_000, 1).on("n1").labelled("app", "web"));
    s.create(cpu("other", 4_000, 5).on("n2"));
    s.create(cpu("high", 4_000, 10));
    s.run();
    assert_eq!(s.evicted, ["other"]);
    s.create(cpu("high-2", 4_000, 10));
    s.run();
    assert_eq!(s.evicted, ["other", "protected"]);
}

#[test]
fn a_failed_eviction_is_tried_again_after_a_backoff() {
    let mut s = scene(&["n1"]);
    s.create(cpu("low", 4_000, 1).on("n1"));
    s.evictions_fail = true;
    s.create(cpu("high", 4_000, 10));
    s.run();
    assert!(s.evicted.is_empty());
    s.evictions_fail = false;
    s.pass(500);
    assert!(s.evicted.is_empty());
    s.pass(10_000);
    assert_eq!(s.evicted, ["low"]);
}

#[test]
fn a_gang_goes_as_a_whole_or_not_at_all() {
    let mut s = scene(&["n1", "n2", "n3"]);
    (0..2).for_each(|rank| s.create(member("g", rank, 2).asks("cpu", 4_000).priority(1)));
    s.run();
    assert_eq!(s.bound_of("g"), 2);
    s.create(cpu("single", 4_000, 1));
    s.run();
    s.create(cpu("high", 4_000, 10));
    s.run();
    assert_eq!(s.evicted, ["single"], "one pod is less than a gang of two");
    s.create(cpu("high-2", 4_000, 10));
    s.run();
    s.evicted.sort();
    assert_eq!(s.evicted, ["g-0", "g-1", "single"]);
}

#[test]
fn a_pod_whose_binding_has_not_landed_is_taken_back_and_not_deleted() {
    let mut s = scene(&["n1"]);
    s.hold_binds = true;
    s.create(cpu("low", 4_000, 1));
    s.run();
    s.hold_binds = false;
    s.create(cpu("high", 4_000, 10));
    s.run();
    assert_eq!((s.node_of("high"), s.node_of("low"), s.evicted.len()), (Some("n1"), None, 0));
    let note = "Preempted by pod uid-high on node n1 (in kube-scheduler memory).".to_owned();
    assert!(s.events.contains(&("low".into(), EventKind::Preempted, note)), "{:?}", s.events);
}

#[test]
fn a_pod_whose_binding_has_landed_unnoticed_is_evicted() {
    let mut s = scene(&["n1"]);
    s.hold_binds = true;
    s.create(cpu("low", 4_000, 1));
    s.run();
    s.hold_binds = false;
    s.pods.get_mut("uid-low").unwrap().node_name = Some("n1".into());
    s.create(cpu("high", 4_000, 10));
    s.run();
    assert_eq!((s.node_of("high"), s.evicted.as_slice()), (None, ["low".into()].as_slice()));
    s.delete("low");
    s.run();
    assert_eq!(s.node_of("high"), Some("n1"));
}

#[test]
fn pods_that_wait_find_their_victims_when_a_node_comes_within_reach() {
    let mut s = Scene::new();
    s.nodes([NodeInfo { unschedulable: true, ..small("n1") }]);
    s.create(cpu("low", 4_000, 1).on("n1"));
    s.create(cpu("high", 4_000, 10));
    s.run();
    let told = "0/1 nodes are available: 1 node(s) were unschedulable. \
                preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(s.message("high").1, told);
    s.nodes([small("n1")]);
    s.pass(20_000);
    assert_eq!(s.evicted, ["low"]);
}

#[test]
fn many_pods_of_one_shape_find_a_victim_each() {
    let names: Vec<String> = (0..8).map(|i| format!("n{i}")).collect();
    let mut s = Scene::new();
    s.nodes(names.iter().map(|name| small(name)));
    names.iter().for_each(|name| s.create(cpu(&format!("low-{name}"), 4_000, 1).on(name)));
    (0..10).for_each(|i| s.create(cpu(&format!("high-{i}"), 4_000, 10)));
    s.run();
    assert_eq!(s.evicted.len(), 8);
    names.iter().for_each(|name| s.delete(&format!("low-{name}")));
    s.run();
    assert_eq!((0..10).filter(|i| s.node_of(&format!("high-{i}")).is_some()).count(), 8);
}

#[test]
fn a_new_leader_keeps_the_promise_and_waits_for_the_victims_of_the_former_one() {
    let mut s = Scene::follower();
    s.nodes([small("n1")]);
    s.create(PodInfo { deleting: true, preempted: true, ..cpu("low", 4_000, 1).on("n1").foreign() });
    s.create(PodInfo { nominated_node: Some("n1".into()), ..cpu("high", 4_000, 10) });
    s.create(cpu("rival", 4_000, 10));
    s.lead(2);
    s.run();
    assert!(s.evicted.is_empty());
    s.delete("low");
    s.run();
    assert_eq!([s.node_of("high"), s.node_of("rival")], [Some("n1"), None]);
}
