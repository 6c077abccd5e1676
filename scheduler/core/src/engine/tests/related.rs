//! Pods that other pods matter to: what they wait for, and what wakes them.

use super::*;
use crate::labels::LabelSelector;
use crate::relations::{PodAffinityTerm, Scope};

const HOST: &str = "kubernetes.io/hostname";

fn term(app: &str) -> PodAffinityTerm {
    let selector = Some(LabelSelector::of(&[("app".into(), app.into())].into()));
    let scope = Scope { namespaces: ["ns".into()].into(), namespace_selector: None, selector };
    PodAffinityTerm { scope, topology_key: HOST.into() }
}

fn of(name: &str, app: &str) -> PodInfo {
    let mut pod = pod(name).asks("cpu", 1_000);
    pod.labels.insert("app".into(), app.into());
    pod
}

fn apart(name: &str) -> PodInfo {
    let mut pod = of(name, "web");
    pod.affinity.required_anti.push(term("web"));
    pod
}

#[test]
fn a_pod_that_keeps_apart_goes_when_the_other_leaves_and_not_for_anything_else() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    s.create(apart("a"));
    s.create(apart("b"));
    s.run();
    // It backs off once, because a pod came: that could have been who it waits for.
    s.pass(2_000);
    assert_eq!((s.node_of("a"), s.node_of("b")), (Some("n1"), None));
    let expected = "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. \
                    preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(s.message("b"), ("Unschedulable", expected));
    assert_eq!(s.engine.stats().unschedulable_by_plugin.get(&("InterPodAffinity", "flowforge".into())), Some(&1));
    s.pass(20_000);
    assert_eq!(s.engine.stats().unschedulable, 1, "nothing happened that could cure it");
    s.delete("a");
    s.pass(20_000);
    assert_eq!(s.node_of("b"), Some("n1"));
}

#[test]
fn a_pod_that_wants_company_goes_where_that_came_to() {
    let mut s = Scene::new();
    s.nodes([node("n1"), node("n2")]);
    let mut friend = of("friend", "db");
    friend.affinity.required.push(term("web"));
    s.create(friend);
    s.run();
    assert_eq!(
        s.message("friend").1,
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. \
                    preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    s.create(PodInfo { node_name: Some("n2".into()), ours: false, ..of("stranger", "web") });
    s.pass(20_000);
    assert_eq!(s.node_of("friend"), Some("n2"));
}

#[test]
fn members_of_a_gang_that_keep_apart_wait_for_the_last_node_and_go_together() {
    let mut s = Scene::new();
    s.nodes((0..2).map(|i| dgx(&format!("d{i}"), "b1", "r1")));
    for rank in 0..3 {
        let mut member = member("g", rank, 3).asks("nvidia.com/gpu", 1);
        member.labels.insert("app".into(), "web".into());
        member.affinity.required_anti.push(term("web"));
        s.create(member);
    }
    s.run();
    assert_eq!(s.bound_of("g"), 0);
    let (reason, message) = s.message("g-0");
    assert_eq!(reason, "Unschedulable");
    assert!(message.contains("2 node(s) didn't match pod anti-affinity rules"), "{message}");
    s.nodes([dgx("d2", "b1", "r1")]);
    s.pass(20_000);
    assert_eq!(s.bound_of("g"), 3);
    let nodes: BTreeSet<_> = (0..3).map(|r| s.node_of(&format!("g-{r}"))).collect();
    assert_eq!(nodes.len(), 3);
}
