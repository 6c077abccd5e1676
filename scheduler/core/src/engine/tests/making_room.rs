//! Stories of gangs that have others evicted.

use super::*;
use crate::fixture::NodeChain;
use proptest::prelude::*;

/// A node with room for 4 CPUs.
fn small(name: &str) -> NodeInfo {
    node(name).has("cpu", 4_000)
}

fn scene(nodes: &[&str]) -> Scene {
    let mut s = Scene::new();
    s.nodes(nodes.iter().map(|name| small(name)));
    s
}

impl Scene {
    /// A plain gang whose members take a node each.
    fn wide(&mut self, name: &str, size: u32, priority: i32) {
        (0..size).for_each(|rank| self.create(member(name, rank, size).asks("cpu", 4_000).priority(priority)));
    }

    fn wasted(&self) -> u32 {
        let pods = |o: &Observation| if let Observation::WastedEvictions(pods) = o { Some(*pods) } else { None };
        self.observations.iter().filter_map(pods).sum()
    }

    /// Everyone who is going is gone.
    fn let_go(&mut self) {
        let going: Vec<SmolStr> = self.pods.values().filter(|p| p.deleting).map(|p| p.key.name.clone()).collect();
        going.iter().for_each(|name| self.delete(name));
        self.run();
    }
}

#[test]
fn a_gang_evicts_a_lower_one_as_a_whole_and_stands_where_it_was_promised_to() {
    let mut s = scene(&["n1", "n2"]);
    s.wide("low", 2, 1);
    s.run();
    s.wide("high", 2, 10);
    s.run();
    s.evicted.sort();
    assert_eq!(s.evicted, ["low-0", "low-1"]);
    assert_eq!(s.nominated["high-0"].as_deref(), Some("n1"));
    assert_eq!(s.nominated["high-1"].as_deref(), Some("n2"));
    let (reason, message) = s.message("high-1");
    let told = "0/2 nodes are available: 2 Insufficient cpu. \
                preemption: room is made for the gang, evicting 2 pod(s): gang ns/low (2 pods).";
    assert!(reason == "Unschedulable" && message.ends_with(told), "{reason}: {message}");
    let note = "Preempted by gang ns/high on node n2".to_owned();
    assert!(s.events.contains(&("low-1".into(), EventKind::Preempted, note)), "{:?}", s.events);
    s.nodes([small("n3").has("cpu", 1_000)]);
    s.pass(60_000);
    assert!(s.message("high-0").1.ends_with("waiting until 2 pod(s) that are evicted for the gang have gone."));
    s.delete("low-0");
    s.run();
    assert_eq!((s.bound_of("high"), s.evicted.len()), (0, 2), "not before all are gone");
    s.delete("low-1");
    s.run();
    assert_eq!([s.node_of("high-0"), s.node_of("high-1")], [Some("n1"), Some("n2")]);
    assert_eq!(s.wasted(), 0);
}

#[test]
fn the_room_is_kept_from_others_while_the_victims_go() {
    let mut s = scene(&["n1", "n2", "n3"]);
    s.create(pod("a").asks("cpu", 4_000).priority(1).on("n1"));
    s.create(pod("b").asks("cpu", 4_000).priority(1).on("n2"));
    s.create(pod("c").asks("cpu", 4_000).priority(10).on("n3"));
    s.wide("high", 2, 10);
    s.run();
    s.create(pod("same").asks("cpu", 1_000).priority(10));
    s.create(pod("lower").asks("cpu", 1_000).priority(5));
    s.delete("a");
    s.run();
    assert_eq!([s.node_of("same"), s.node_of("lower"), s.node_of("high-0")], [None; 3]);
    s.let_go();
    assert_eq!((s.bound_of("high"), s.wasted()), (2, 0));
}

#[test]
fn two_gangs_of_one_priority_do_not_fight() {
    let mut s = scene(&["n1", "n2"]);
    s.wide("low", 2, 1);
    s.run();
    s.wide("one", 2, 10);
    s.wide("two", 2, 10);
    s.run();
    assert_eq!(s.evicted.len(), 2);
    s.let_go();
    s.pass(60_000);
    assert_eq!((s.bound_of("one"), s.bound_of("two"), s.evicted.len(), s.wasted()), (2, 0, 2, 0));
    let told = "preemption: evicting all who are less important would not make room for the gang.";
    assert!(s.message("two-0").1.ends_with(told), "{}", s.message("two-0").1);
}

#[test]
fn a_gang_with_a_member_that_must_not_preempt_says_so() {
    let mut s = scene(&["n1", "n2"]);
    s.wide("low", 2, 1);
    s.run();
    s.create(member("meek", 0, 2).asks("cpu", 4_000).priority(10));
    s.create(PodInfo { never_preempts: true, ..member("meek", 1, 2).asks("cpu", 4_000).priority(10) });
    s.pass(60_000);
    assert!(s.evicted.is_empty());
    assert!(s.message("meek-0").1.ends_with("preemption: not eligible due to preemptionPolicy=Never."));
}

#[test]
fn a_more_important_gang_takes_the_room_and_the_first_looks_again() {
    let mut s = scene(&["n1", "n2", "n3"]);
    s.wide("low", 2, 1);
    s.run();
    s.create(pod("other").asks("cpu", 4_000).priority(2));
    s.run();
    s.wide("high", 2, 10);
    s.run();
    assert_eq!(s.evicted.len(), 2);
    s.wide("higher", 3, 100);
    s.run();
    assert_eq!(s.evicted.len(), 3, "who goes already is not evicted again: {:?}", s.evicted);
    assert_eq!(s.nominated["high-0"], None);
    s.let_go();
    s.pass(60_000);
    assert_eq!((s.bound_of("higher"), s.bound_of("high")), (3, 0));
    assert_eq!(s.wasted(), 2, "what was evicted for the first one served it nothing");
}

#[test]
fn no_room_is_made_that_somebody_more_important_would_take() {
    let mut s = scene(&["n1"]);
    s.create(pod("low").asks("cpu", 4_000).on("n1"));
    s.create(PodInfo { never_preempts: true, ..pod("meek").asks("cpu", 4_000).priority(10) });
    s.run();
    s.wide("middle", 1, 5);
    s.pass(60_000);
    assert!(s.evicted.is_empty());
    let told = "preemption: room for the gang would go to the more important pod ns/meek, which waits, too.";
    assert!(s.message("middle-0").1.ends_with(told), "{}", s.message("middle-0").1);
    s.delete("meek");
    s.pass(20_000);
    assert_eq!(s.evicted, ["low"]);
    s.let_go();
    assert_eq!((s.bound_of("middle"), s.wasted()), (1, 0));
}

#[test]
fn the_room_of_a_gang_that_goes_away_is_free_and_counts_as_wasted() {
    let mut s = scene(&["n1", "n2"]);
    s.wide("low", 2, 1);
    s.run();
    s.wide("high", 2, 10);
    s.run();
    s.delete("high-0");
    s.run();
    assert_eq!((s.nominated["high-1"].as_deref(), s.wasted()), (None, 2));
    s.create(pod("small").asks("cpu", 4_000).priority(5));
    s.let_go();
    assert!(s.node_of("small").is_some());
}

#[test]
fn room_is_not_kept_for_ever() {
    let mut s = scene(&["n1", "n2"]);
    s.create(pod("a").asks("cpu", 4_000).priority(1).on("n1"));
    s.create(pod("stuck").asks("cpu", 4_000).priority(1).on("n2"));
    s.wide("high", 2, 10);
    s.run();
    s.delete("a");
    s.create(pod("waits").asks("cpu", 4_000).priority(5));
    s.pass(600_000);
    assert_eq!(s.node_of("waits"), None);
    s.pass(400_000);
    assert_eq!((s.node_of("waits"), s.wasted()), (Some("n1"), 2), "a pod that never ends must not idle a node");
}

#[test]
fn a_failed_eviction_is_tried_again_after_a_backoff() {
    let mut s = scene(&["n1", "n2"]);
    s.wide("low", 2, 1);
    s.run();
    s.evictions_fail = true;
    s.wide("high", 2, 10);
    s.run();
    assert!(s.evicted.is_empty());
    s.evictions_fail = false;
    s.pass(20_000);
    assert_eq!(s.evicted.len(), 2);
    s.let_go();
    assert_eq!(s.bound_of("high"), 2);
}

#[test]
fn an_elastic_gang_gets_room_for_its_minimum() {
    let mut s = scene(&["n1", "n2", "n3"]);
    ["n1", "n2", "n3"].iter().for_each(|n| s.create(pod(&format!("p-{n}")).asks("cpu", 4_000).priority(1).on(n)));
    let declared = gang("elastic", &[("worker", 3, 2)]);
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    (0..3).for_each(|r| s.create(declared_member(&declared, "worker", r).asks("cpu", 4_000).priority(10)));
    s.pass(2_000);
    assert_eq!(s.evicted.len(), 2, "no more than it needs to live");
    s.let_go();
    assert_eq!((s.bound_of("elastic"), s.wasted()), (2, 0));
}

/// An elastic gang of four that needs two, one to a node.
fn grown(s: &mut Scene) {
    let declared = gang("grown", &[("worker", 4, 2)]);
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    (0..4).for_each(|r| s.create(declared_member(&declared, "worker", r).asks("cpu", 4_000).priority(1)));
    s.run();
    assert_eq!(s.bound_of("grown"), 4);
}

#[test]
fn an_elastic_gang_shrinks_from_its_last_rank_for_a_gang_that_needs_no_more() {
    let mut s = scene(&["n1", "n2", "n3", "n4"]);
    grown(&mut s);
    s.wide("first", 1, 10);
    s.run();
    assert_eq!(s.evicted, ["grown-worker-3"]);
    s.let_go();
    assert_eq!((s.bound_of("grown"), s.bound_of("first")), (3, 1));
    s.wide("second", 1, 10);
    s.run();
    assert_eq!(s.evicted, ["grown-worker-3", "grown-worker-2"]);
    s.let_go();
    assert_eq!((s.bound_of("grown"), s.bound_of("second")), (2, 1));
    s.wide("third", 1, 10);
    s.run();
    s.evicted.sort();
    assert_eq!(s.evicted.len(), 4, "what it needs goes as a whole: {:?}", s.evicted);
}

#[test]
fn an_elastic_gang_goes_as_a_whole_where_its_surplus_is_not_enough() {
    let mut s = scene(&["n1", "n2", "n3", "n4"]);
    grown(&mut s);
    s.wide("high", 3, 10);
    s.run();
    assert_eq!(s.evicted.len(), 4, "{:?}", s.evicted);
    s.let_go();
    assert_eq!((s.bound_of("high"), s.wasted()), (3, 0));
}

#[test]
fn a_single_pod_takes_the_last_rank_of_an_elastic_gang() {
    let mut s = scene(&["n1", "n2", "n3", "n4"]);
    grown(&mut s);
    s.create(pod("high").asks("cpu", 4_000).priority(10));
    s.run();
    assert_eq!(s.evicted, ["grown-worker-3"]);
    s.let_go();
    s.create(pod("higher").asks("cpu", 4_000).priority(20));
    s.run();
    assert_eq!(s.evicted, ["grown-worker-3", "grown-worker-2"]);
}

#[test]
fn a_lost_member_of_a_live_gang_has_somebody_evicted_for_its_replacement() {
    let mut s = scene(&["n1", "n2"]);
    s.wide("live", 2, 10);
    s.run();
    assert_eq!(s.bound_of("live"), 2);
    s.delete("live-1");
    s.create(pod("quick").asks("cpu", 4_000).priority(1));
    s.run();
    assert!(s.node_of("quick").is_some());
    s.create(member("live", 1, 2).asks("cpu", 4_000).priority(10).uid("uid-live-1b"));
    s.pass(2_000);
    assert_eq!(s.evicted, ["quick"]);
    s.let_go();
    assert_eq!((s.bound_of("live"), s.wasted()), (2, 0));
}

#[test]
fn a_new_leader_keeps_the_promises_and_waits_for_the_victims_of_the_former_one() {
    let mut s = Scene::follower();
    s.nodes([small("n1"), small("n2")]);
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let pod = pod(name).asks("cpu", 4_000).priority(1).on(node).foreign();
        s.create(PodInfo { deleting: true, preempted: true, ..pod });
    }
    for (rank, node) in [(0, "n2"), (1, "n1")] {
        let pod = member("high", rank, 2).asks("cpu", 4_000).priority(10);
        s.create(PodInfo { nominated_node: Some(node.into()), ..pod });
    }
    s.wide("rival", 2, 10);
    s.lead(2);
    s.run();
    assert!(s.evicted.is_empty());
    s.let_go();
    assert_eq!([s.node_of("high-0"), s.node_of("high-1"), s.node_of("rival-0")], [Some("n2"), Some("n1"), None]);
}

/// What happens in a calm cluster: GPUs asked for, priority, size of a gang or 0 for a single pod; or somebody ends.
#[derive(Clone, Debug)]
enum Act {
    Come(u8, u8, u8),
    End(u8),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u8..9, 0u8..5, 0u8..4).prop_map(|(gpus, priority, size)| Act::Come(gpus, priority, size)),
        1 => any::<u8>().prop_map(Act::End),
        1 => (1u16..20_000).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn without_faults_no_eviction_for_a_gang_is_in_vain(acts in prop::collection::vec(act(), 1..40)) {
        let mut s = Scene::new();
        s.nodes((0..3).map(|n| dgx(&format!("n{n}"), "b", &format!("r{}", n / 2))));
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        for (at, act) in acts.iter().enumerate() {
            match act {
                Act::Come(gpus, priority, 0) => {
                    let pod = pod(&format!("p{at}")).asks("nvidia.com/gpu", i64::from(*gpus));
                    s.create(pod.priority(i32::from(*priority)));
                }
                Act::Come(gpus, priority, size) => {
                    let (name, size) = (format!("g{at}"), u32::from(*size));
                    for rank in 0..size {
                        let member = member(&name, rank, size).asks("nvidia.com/gpu", i64::from(*gpus));
                        s.create(member.priority(i32::from(*priority)));
                    }
                    sizes.insert(name, usize::try_from(size).unwrap());
                }
                Act::End(i) => {
                    let bound: Vec<SmolStr> =
                        s.pods.values().filter(|p| p.node_name.is_some()).map(|p| p.key.name.clone()).collect();
                    if let Some(name) = bound.get(usize::from(*i) % bound.len().max(1)) {
                        s.end(name);
                    }
                }
                Act::Wait(ms) => s.now += u64::from(*ms),
            }
            s.run();
            // Whoever was evicted goes before anything else happens; what comes of that may evict others.
            for _ in 0..20 {
                if !s.pods.values().any(|pod| pod.deleting) {
                    break;
                }
                s.let_go();
            }
            prop_assert_eq!(s.wasted(), 0);
            for (gang, size) in &sizes {
                let members = s.pods.values().filter(|p| p.gang.as_ref().is_some_and(|g| g.name == *gang));
                let (all, bound) = (members.clone().count(), members.filter(|p| p.node_name.is_some()).count());
                prop_assert!(bound == 0 || bound == *size || all < *size, "{} of {} of {}", bound, size, gang);
            }
        }
    }
}
