//! Relations through the snapshot: what they refuse, that they follow every change, and that trials leave no trace.

use super::relate::placed;
use super::*;
use crate::config::Config;
use crate::cycle;
use crate::demand;
use crate::fixture::{NodeChain, PodChain, dgx, member, node, pod};
use crate::gang::{Ask, Planned, plan};
use crate::labels::LabelSelector;
use crate::model::{NodeInfo, PodInfo};
use crate::snapshot::{End, PodId, Snapshot};
use proptest::prelude::*;

const ZONE: &str = "zone";
const HOST: &str = "kubernetes.io/hostname";

fn snapshot(nodes: impl IntoIterator<Item = NodeInfo>) -> Snapshot {
    let mut s = Snapshot::new(&Config::default());
    nodes.into_iter().for_each(|n| {
        s.upsert_node(n);
    });
    s
}

fn app(name: &str) -> LabelSelector {
    LabelSelector::of(&[("app".into(), name.into())].into())
}

fn term(name: &str, key: &str) -> PodAffinityTerm {
    let scope = Scope { namespaces: ["ns".into()].into(), namespace_selector: None, selector: Some(app(name)) };
    PodAffinityTerm { scope, topology_key: key.into() }
}

fn spread(name: &str, key: &str) -> SpreadConstraint {
    SpreadConstraint {
        max_skew: 1,
        topology_key: key.into(),
        hard: true,
        selector: Some(app(name)),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    }
}

trait Related: Sized {
    fn app(self, name: &str) -> Self;
    fn near(self, name: &str, key: &str) -> Self;
    fn apart(self, name: &str, key: &str) -> Self;
    fn spread(self, name: &str, key: &str) -> Self;
}

impl Related for PodInfo {
    fn app(mut self, name: &str) -> Self {
        self.labels.insert("app".into(), name.into());
        self
    }

    fn near(mut self, name: &str, key: &str) -> Self {
        self.affinity.required.push(term(name, key));
        self
    }

    fn apart(mut self, name: &str, key: &str) -> Self {
        self.affinity.required_anti.push(term(name, key));
        self
    }

    fn spread(mut self, name: &str, key: &str) -> Self {
        self.spread.push(spread(name, key));
        self
    }
}

/// Where the pod would go, or the message.
fn ask(s: &mut Snapshot, pod: PodInfo) -> Result<String, String> {
    let id = s.upsert_pod(pod).unwrap().id;
    let found = cycle::find(s, id);
    let shape = s.cluster().pod(id).unwrap().shape.unwrap();
    let (spec, demand) = (s.shape(shape).unwrap().spec.clone(), s.demand(id).unwrap());
    if s.cluster().node_count() > 0 {
        assert_eq!(
            found,
            demand::look_at_all(s, shape, &spec, &demand),
            "what is kept up to date is what a look finds"
        );
    }
    assert_eq!(s.may_demand(id), demand.refuses(), "what is said before rules are resolved is what they do");
    let answer = found.map(|node| s.cluster().node_name(node).to_string()).map_err(|refusal| refusal.message());
    s.delete_pod(id);
    answer
}

fn zones() -> Snapshot {
    snapshot([node("a1").label(ZONE, "a"), node("a2").label(ZONE, "a"), node("b1").label(ZONE, "b"), node("none")])
}

#[test]
fn spread_refuses_the_place_with_more_and_nodes_without_a_key() {
    let mut s = zones();
    s.upsert_pod(pod("p1").app("web").on("a1").foreign());
    assert_eq!(ask(&mut s, pod("q").app("web").spread("web", ZONE)), Ok("b1".to_owned()));
    s.upsert_node(NodeInfo { unschedulable: true, ..node("b1").label(ZONE, "b") });
    let message = ask(&mut s, pod("q").app("web").spread("web", ZONE)).unwrap_err();
    let expected = "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required \
                    label), 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints.";
    assert_eq!(message, expected);
    let mut gone = pod("p1").app("web").on("a1").foreign();
    gone.deleting = true;
    s.upsert_pod(gone);
    assert!(ask(&mut s, pod("q").app("web").spread("web", ZONE)).is_ok(), "a pod on its way out does not count");
}

#[test]
fn the_first_of_a_group_may_go_anywhere_and_the_next_must_follow() {
    let mut s = zones();
    let wanted = || pod("q").app("web").near("web", ZONE);
    assert_eq!(ask(&mut s, wanted()), Ok("a1".to_owned()));
    s.upsert_pod(pod("p1").app("web").on("b1").foreign());
    assert_eq!(ask(&mut s, wanted()), Ok("b1".to_owned()));
    assert_eq!(
        ask(&mut s, pod("q").near("db", ZONE)),
        Err("0/4 nodes are available: 4 node(s) didn't match pod affinity rules.".to_owned()),
        "who does not match its own term is never the first"
    );
}

#[test]
fn anti_affinity_holds_in_both_directions() {
    let mut s = zones();
    s.upsert_pod(pod("p1").app("db").apart("web", ZONE).on("a1").foreign());
    assert_eq!(ask(&mut s, pod("q").app("web")), Ok("b1".to_owned()));
    s.upsert_pod(pod("p2").app("cache").on("b1").foreign());
    let message = ask(&mut s, pod("q").app("web").apart("cache", ZONE).asks("cpu", 1)).map_err(drop);
    assert_eq!(message, Ok("none".to_owned()), "a node in no place is in nobody's place");
    s.delete_node("none");
    assert_eq!(
        ask(&mut s, pod("q").app("web").apart("cache", ZONE)),
        Err("0/3 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 2 node(s) didn't satisfy existing \
             pods anti-affinity rules."
            .to_owned())
    );
}

#[test]
fn namespaces_are_selected_by_the_labels_they_have_now() {
    let mut s = zones();
    let team: Labels = [("team".into(), "x".into())].into();
    let mut wanted = pod("q").apart("web", ZONE);
    wanted.affinity.required_anti[0].scope.namespaces.clear();
    wanted.affinity.required_anti[0].scope.namespace_selector = Some(LabelSelector::of(&team));
    s.upsert_pod(pod("p1").app("web").on("a1").foreign());
    assert_eq!(ask(&mut s, wanted.clone()), Ok("a1".to_owned()));
    s.set_namespace(&"ns".into(), Some(team));
    assert_eq!(ask(&mut s, wanted.clone()), Ok("b1".to_owned()));
    s.set_namespace(&"ns".into(), None);
    assert_eq!(ask(&mut s, wanted), Ok("a1".to_owned()));
}

#[test]
fn pods_of_a_service_are_spread_over_hosts_where_nothing_else_speaks() {
    let mut s = snapshot([node("n1"), node("n2")]);
    let selector = Some(app("web"));
    s.upsert_pod(pod("p1").app("web").on("n1").foreign());
    assert_eq!(ask(&mut s, pod("q").app("web")), Ok("n1".to_owned()), "one small pod makes no difference");
    s.set_selector(SelectorInfo { kind: SelectorKind::Service, namespace: "ns".into(), name: "web".into(), selector });
    assert_eq!(ask(&mut s, pod("q").app("web")), Ok("n2".to_owned()));
    s.remove_selector(SelectorKind::Service, &"ns".into(), &"web".into());
    assert_eq!(ask(&mut s, pod("q").app("web")), Ok("n1".to_owned()));
}

fn gang(s: &mut Snapshot, size: u32, related: impl Fn(PodInfo) -> PodInfo) -> (Vec<PodId>, Planned) {
    let one = |rank| s.upsert_pod(related(member("g", rank, size).app("web").asks("nvidia.com/gpu", 1))).unwrap().id;
    let members: Vec<PodId> = (0..size).map(one).collect();
    let planned = plan(s, &Ask { members: members.clone(), steps: 20_000, ..Ask::default() });
    (members, planned)
}

fn nodes_of(s: &Snapshot, planned: &Planned) -> Vec<String> {
    let Planned::Placed(places) = planned else { panic!("{planned:?}") };
    places.iter().map(|(_, node)| s.cluster().node_name(*node).to_string()).collect()
}

#[test]
fn members_of_a_gang_that_keep_apart_get_a_host_each_or_none_does() {
    let mut s = snapshot((0..3).map(|n| dgx(&format!("d{n}"), "b", "r")));
    let (_, planned) = gang(&mut s, 3, |p| p.apart("web", HOST));
    let mut nodes = nodes_of(&s, &planned);
    nodes.sort();
    assert_eq!(nodes, ["d0", "d1", "d2"]);

    let mut s = snapshot((0..3).map(|n| dgx(&format!("d{n}"), "b", "r")));
    let (_, planned) = gang(&mut s, 4, |p| p.apart("web", HOST));
    let Planned::Nowhere(nowhere) = planned else { panic!("{planned:?}") };
    assert_eq!(nowhere.fit, 3);
    let reasons: Vec<String> = nowhere.seen.reasons.keys().map(ToString::to_string).collect();
    assert_eq!(reasons, ["node(s) didn't match pod anti-affinity rules"]);
    assert!(s.assumed().is_empty(), "none is placed");
}

#[test]
fn members_of_a_gang_are_spread_and_drawn_together_as_they_ask() {
    let racks =
        || (0..4).map(|n| dgx(&format!("d{n}"), "b", &format!("r{}", n / 2)).label(ZONE, &format!("z{}", n / 2)));
    let mut s = snapshot(racks());
    let (_, planned) = gang(&mut s, 4, |p| p.spread("web", HOST));
    let mut nodes = nodes_of(&s, &planned);
    nodes.sort();
    assert_eq!(nodes, ["d0", "d1", "d2", "d3"]);
    let mut s = snapshot(racks());
    let (_, planned) = gang(&mut s, 10, |p| p.near("web", ZONE));
    let nodes = nodes_of(&s, &planned);
    assert!(nodes.iter().all(|n| n == "d0" || n == "d1") || nodes.iter().all(|n| n == "d2" || n == "d3"), "{nodes:?}");
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// Pod, app, node (4: none), affinity kind, whether it is on its way out.
    Pod(u8, u8, u8, u8, bool),
    Gone(u8),
    Node(u8, u8),
    NodeGone(u8),
    Namespace(Option<u8>),
    Ask(u8, u8),
    Trial(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..8, 0u8..3, 0u8..5, 0u8..6, any::<bool>()).prop_map(|(p, a, n, k, d)| Step::Pod(p, a, n, k, d)),
        2 => (0u8..8).prop_map(Step::Gone),
        2 => (0u8..4, 0u8..3).prop_map(|(n, z)| Step::Node(n, z)),
        1 => (0u8..4).prop_map(Step::NodeGone),
        1 => prop::option::of(0u8..2).prop_map(Step::Namespace),
        3 => (0u8..3, 0u8..6).prop_map(|(a, k)| Step::Ask(a, k)),
        2 => (0u8..8, 0u8..4).prop_map(|(p, n)| Step::Trial(p, n)),
    ]
}

fn app_name(a: u8) -> String {
    format!("app-{a}")
}

fn made(name: &str, a: u8, kind: u8) -> PodInfo {
    let pod = pod(name).app(&app_name(a));
    let mut pod = match kind {
        0 => pod.near(&app_name(a), ZONE),
        1 => pod.apart(&app_name(a), HOST),
        2 => pod.spread(&app_name(a), ZONE),
        3 => pod.apart(&app_name((a + 1) % 3), ZONE),
        _ => pod,
    };
    if kind == 3 {
        let team = [("team".into(), "x".into())].into();
        pod.affinity.required_anti[0].scope.namespace_selector = Some(LabelSelector::of(&team));
    }
    pod
}

fn play(s: &mut Snapshot, step: &Step) {
    match step {
        Step::Pod(p, a, n, kind, deleting) => {
            let mut pod = made(&format!("p{p}"), *a, *kind);
            pod.deleting = *deleting;
            s.upsert_pod(if *n < 4 { pod.on(&format!("n{n}")) } else { pod });
        }
        Step::Gone(p) => {
            if let Some(id) = s.cluster().find_pod(&format!("uid-p{p}")) {
                s.delete_pod(id);
            }
        }
        Step::Node(n, zone) => {
            s.upsert_node(node(&format!("n{n}")).label(ZONE, &format!("z{zone}")));
        }
        Step::NodeGone(n) => s.delete_node(&format!("n{n}")),
        Step::Namespace(team) => {
            let labels = |team: &u8| [("team".into(), if *team == 0 { "x" } else { "y" }.into())].into();
            s.set_namespace(&"ns".into(), team.as_ref().map(labels));
        }
        Step::Ask(a, kind) => drop(ask(s, made("asks", *a, *kind))),
        Step::Trial(p, n) => {
            let (pod, node) = (s.cluster().find_pod(&format!("uid-p{p}")), s.cluster().find_node(&format!("n{n}")));
            s.transact(|txn| {
                if let (Some(pod), Some(node)) = (pod, node) {
                    txn.place(pod, node);
                }
                counts_are_sums(txn.snapshot());
                End::RollBack(())
            });
        }
    }
}

fn counts_are_sums(s: &Snapshot) {
    let cluster = s.cluster();
    let all: Vec<_> = placed(&cluster.pods).collect();
    cluster.relations.counts.assert_sums(&cluster.relations.namespaces, &all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn counts_follow_everything_that_happens(steps in prop::collection::vec(step(), 1..60)) {
        let mut s = snapshot([]);
        for step in &steps {
            play(&mut s, step);
            counts_are_sums(&s);
        }
        // What was learned on the way is what a newcomer learns.
        let mut fresh = s.clone();
        fresh.cluster.relations.counts.trim(u64::MAX);
        fresh.cluster.relations.columns.trim(u64::MAX);
        for kind in 0..6 {
            prop_assert_eq!(ask(&mut s, made("asks", 0, kind)), ask(&mut fresh, made("asks", 0, kind)));
        }
        let pods: Vec<PodId> = s.cluster.pods.iter().map(|(id, _)| id).collect();
        pods.into_iter().for_each(|id| drop(s.delete_pod(id)));
        prop_assert_eq!(s.cluster.relations.counts.sizes(), (0, 0));
    }
}
