//! Whom the search finds: single cases, and that counting and trying out agree.

use super::unit::units_below;
use super::victims::Search;
use super::*;
use crate::config::Config;
use crate::fixture::{NodeChain, PodChain, gang, member, node, pod};
use crate::labels::LabelSelector;
use crate::model::{GangInfo, HostPort, NodeInfo, PodInfo, Terms};
use crate::relations::{PodAffinityTerm, Scope};
use proptest::prelude::*;
use smol_str::SmolStr;

fn small(name: &str) -> NodeInfo {
    node(name).has("cpu", 4_000).has("pods", 5)
}

fn cpu(name: &str, cpu: i64, priority: i32) -> PodInfo {
    PodInfo { started_at_ms: Some(1_000), ..pod(name).asks("cpu", cpu).priority(priority) }
}

fn snapshot(nodes: impl IntoIterator<Item = NodeInfo>, pods: impl IntoIterator<Item = PodInfo>) -> Snapshot {
    let mut s = Snapshot::new(&Config::default());
    nodes.into_iter().for_each(|n| {
        s.upsert_node(n);
    });
    pods.into_iter().for_each(|p| {
        s.upsert_pod(p);
    });
    s
}

/// `node: victims`, or what is said when there are none.
fn found(s: &mut Snapshot, preemptor: PodInfo, gangs: &Gangs) -> String {
    let id = s.upsert_pod(preemptor).unwrap().id;
    let around = Surroundings { gangs, doomed: &BTreeSet::new(), start: 0 };
    match evaluate(s, id, around).unwrap() {
        (_, Some(candidate)) => {
            let name = |pod: &PodId| s.cluster().pod(*pod).unwrap().key.name.to_string();
            let victims: Vec<String> = candidate.victims.iter().map(name).collect();
            format!("{}: {}", s.cluster().node_name(candidate.node), victims.join(" "))
        }
        (preemption, None) => preemption.to_string(),
    }
}

fn check(nodes: Vec<NodeInfo>, pods: Vec<PodInfo>, preemptor: PodInfo, expected: &str) {
    assert_eq!(found(&mut snapshot(nodes, pods), preemptor, &Gangs::default()), expected);
}

fn term(app: &str) -> PodAffinityTerm {
    let selector = Some(LabelSelector::of(&[("app".into(), app.into())].into()));
    let scope = Scope { namespaces: ["ns".into()].into(), namespace_selector: None, selector };
    PodAffinityTerm { scope, topology_key: "kubernetes.io/hostname".into() }
}

#[test]
fn the_fewest_go_and_the_more_important_and_older_stay() {
    let pods = vec![
        cpu("old", 1_000, 1).on("n1"),
        PodInfo { started_at_ms: Some(2_000), ..cpu("young", 1_000, 1).on("n1") },
        cpu("middle", 1_000, 2).on("n1").foreign(),
        cpu("equal", 1_000, 10).on("n1"),
    ];
    check(vec![small("n1")], pods.clone(), cpu("p", 1_000, 10), "n1: young");
    check(vec![small("n1")], pods.clone(), cpu("p", 2_000, 10), "n1: old young");
    check(vec![small("n1")], pods, cpu("p", 4_000, 10), "preemption: 0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn nodes_compete_by_violations_then_priority_then_number_then_start() {
    let nodes = || vec![small("n1"), small("n2"), small("n3")];
    let two = |n: &str| [cpu(&format!("{n}-a"), 2_000, 1).on(n), cpu(&format!("{n}-b"), 2_000, 1).on(n)];
    let one = |n: &str, priority| cpu(&format!("{n}-a"), 4_000, priority).on(n);
    let on = |parts: Vec<Vec<PodInfo>>| parts.concat();
    let p = || cpu("p", 4_000, 10);
    check(nodes(), on(vec![two("n1").to_vec(), vec![one("n2", 5)], vec![one("n3", 1)]]), p(), "n3: n3-a");
    check(nodes(), on(vec![two("n1").to_vec(), vec![one("n2", 5)], vec![one("n3", 6)]]), p(), "n1: n1-a n1-b");
    let late = PodInfo { started_at_ms: None, ..one("n2", 1) };
    check(nodes(), on(vec![vec![one("n1", 1)], vec![late], vec![one("n3", 1)]]), p(), "n2: n2-a");
}

#[test]
fn only_nodes_that_an_eviction_can_open_are_looked_at() {
    let cordoned = NodeInfo { unschedulable: true, ..small("n1") };
    let tiny = small("n2").has("cpu", 1_000);
    let pods = vec![cpu("a", 4_000, 1).on("n1"), cpu("b", 1_000, 1).on("n2"), cpu("c", 4_000, 10).on("n3")];
    let told = "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, \
                2 Preemption is not helpful for scheduling.";
    check(vec![cordoned, tiny, small("n3")], pods, cpu("p", 2_000, 10), told);
}

#[test]
fn ports_pod_counts_and_anti_affinity_end_by_eviction_too() {
    let port = |pod: PodInfo| PodInfo {
        host_ports: vec![HostPort { ip: SmolStr::default(), protocol: SmolStr::default(), port: 80 }],
        ..pod
    };
    let pods = vec![port(cpu("holder", 10, 1).on("n1")), cpu("bystander", 10, 0).on("n1")];
    check(vec![small("n1")], pods, port(cpu("p", 10, 10)), "n1: holder");
    let crowd: Vec<PodInfo> = (0..5).map(|i| cpu(&format!("p{i}"), 10, i).on("n1")).collect();
    check(vec![small("n1")], crowd, cpu("p", 10, 10), "n1: p0");
    let mut loner = cpu("p", 10, 10);
    loner.affinity.required_anti.push(term("web"));
    let pods = vec![cpu("web", 10, 1).labelled("app", "web").on("n1"), cpu("bystander", 10, 0).on("n1")];
    check(vec![small("n1")], pods, loner, "n1: web");
    let mut grumpy = cpu("grumpy", 10, 1).on("n1");
    grumpy.affinity.required_anti.push(term("web"));
    check(
        vec![small("n1")],
        vec![grumpy, cpu("bystander", 10, 0).on("n1")],
        cpu("p", 10, 10).labelled("app", "web"),
        "n1: grumpy",
    );
}

#[test]
fn a_promise_to_a_pod_of_the_same_priority_counts_and_one_to_a_lower_does_not() {
    let promised = |priority| PodInfo { nominated_node: Some("n1".into()), ..cpu("q", 2_000, priority) };
    let pods = |priority| vec![cpu("low", 4_000, 1).on("n1"), promised(priority).foreign()];
    let told = "preemption: 0/1 nodes are available: 1 Insufficient cpu.";
    check(vec![small("n1")], pods(10), cpu("p", 4_000, 10), told);
    check(vec![small("n1")], pods(9), cpu("p", 4_000, 10), "n1: low");
}

#[test]
fn a_gang_is_one_victim_wherever_its_members_stand() {
    let mut gangs = Gangs::default();
    let mut s = snapshot([small("n1"), small("n2")], [cpu("single", 4_000, 2).on("n2")]);
    for rank in 0..2 {
        let pod = member("g", rank, 2).asks("cpu", 2_000).priority(1).on("n1");
        let membership = pod.gang.clone().unwrap();
        let id = s.upsert_pod(pod).unwrap().id;
        gangs.join(id, &"ns".into(), &membership);
    }
    assert_eq!(found(&mut s, cpu("p", 1_000, 10), &gangs), "n1: g-0 g-1");
    let other = member("g", 2, 2).asks("cpu", 1).priority(5).on("n2");
    let membership = other.gang.clone().unwrap();
    let id = s.upsert_pod(other).unwrap().id;
    gangs.join(id, &"ns".into(), &membership);
    assert_eq!(found(&mut s, cpu("p", 1_000, 10), &gangs), "n2: single", "a gang counts as its most important member");
    assert_eq!(found(&mut s, cpu("q", 1_000, 5), &gangs), "n2: single", "and is spared by those who are not above it");
}

#[test]
fn members_that_may_part_are_victims_one_by_one() {
    let mut gangs = Gangs::default();
    let terms = Terms { parts_singly: true, ..Terms::default() };
    gangs.declare(GangInfo { terms, ..gang("g", &[("worker", 2, 1)]) });
    let mut s = snapshot([small("n1")], []);
    for rank in 0..2 {
        let pod = member("g", rank, 2).asks("cpu", 2_000).priority(1).on("n1");
        let membership = pod.gang.clone().unwrap();
        let id = s.upsert_pod(pod).unwrap().id;
        gangs.join(id, &"ns".into(), &membership);
    }
    assert_eq!(found(&mut s, cpu("p", 1_000, 10), &gangs), "n1: g-1");
}

/// A pod of a random crowd: node, CPU, memory, priority, start, app.
type One = (u8, u8, u8, u8, u8, u8);

fn crowd(s: &mut Snapshot, pods: &[One]) {
    for (at, (n, cpus, memory, priority, start, app)) in pods.iter().enumerate() {
        let info = cpu(&format!("p{at}"), i64::from(*cpus) * 300, i32::from(*priority))
            .asks("memory", i64::from(*memory) << 20)
            .labelled("app", ["web", "db", "x"][usize::from(*app) % 3])
            .on(&format!("n{n}"));
        s.upsert_pod(PodInfo { started_at_ms: Some(u64::from(*start)), ..info });
    }
}

/// What a search must leave as it was.
fn facts(s: &Snapshot) -> String {
    let Cluster { nodes, pods, lanes, changes, nominations, .. } = s.cluster();
    format!("{:?}", (nodes, pods, lanes, changes, nominations, s.budgets()))
}

fn one() -> impl Strategy<Value = One> {
    (0u8..3, 0u8..6, 0u8..8, 0u8..6, 0u8..9, 0u8..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn counting_and_trying_out_find_the_same_victims_and_leave_no_trace(
        pods in prop::collection::vec(one(), 0..18),
        (cpus, memory, priority) in (1u8..14, 0u8..12, 1u8..7),
        budget in 0i32..3,
        promised in prop::option::of((0u8..3, 1u8..8, 0u8..8)),
    ) {
        let mut s = snapshot((0..3).map(|n| small(&format!("n{n}")).has("memory", 12 << 20)), []);
        crowd(&mut s, &pods);
        s.budgets_mut().set(Budget {
            namespace: "ns".into(),
            name: "web".into(),
            selector: Some(LabelSelector::of(&[("app".into(), "web".into())].into())),
            allowed: budget,
            ..Budget::default()
        });
        if let Some((n, cpus, priority)) = promised {
            let node = Some(SmolStr::from(format!("n{n}")));
            s.upsert_pod(PodInfo { nominated_node: node, ..cpu("promised", i64::from(cpus) * 300, i32::from(priority)) });
        }
        let info = cpu("p", i64::from(cpus) * 300, i32::from(priority)).asks("memory", i64::from(memory) << 20);
        let id = s.upsert_pod(info).unwrap().id;
        let shape = s.cluster().pod(id).unwrap().shape.unwrap();
        let spec = s.shape(shape).unwrap().spec.clone();
        let demand = s.demand(id).unwrap();
        let ground = Ground::of(&mut s, shape, &spec);
        let gangs = Gangs::default();
        let before = facts(&s);
        let search = Search::new(&s, id, &spec, &demand, &ground, &gangs).unwrap();
        for n in 0..3 {
            let node = s.cluster().find_node(&format!("n{n}")).unwrap();
            let counted = search.victims(&mut s, node);
            let units = units_below(s.cluster(), &gangs, [node], i32::from(priority));
            if units.is_empty() {
                continue;
            }
            let others = s.cluster().promised(&s.cluster().node_name(node), id, i32::from(priority));
            let tried = search.try_out(&mut s, units, node, &others);
            match (counted, tried) {
                (Ok(candidate), Ok((victims, violations))) => {
                    prop_assert_eq!((candidate.victims, candidate.rank.violations), (victims, violations));
                }
                (Err(counted), Err(tried)) => prop_assert_eq!(counted, tried),
                // Where nobody has to go, there is nothing to choose.
                (Err(_), Ok((victims, _))) => prop_assert!(victims.is_empty()),
                (counted, tried) => prop_assert!(false, "{counted:?} {tried:?}"),
            }
        }
        prop_assert_eq!(before, facts(&s));
    }
}
