//! Properties of the snapshot: sums, caches and transactions, after any sequence of events.

use super::*;
use crate::cycle;
use crate::fixture::{NodeChain, PodChain, dgx, node, pod};
use crate::model::{HostPort, NodeOperator, NodeRequirement, NodeSelectorTerm, PodPhase, Taint, TaintEffect};
use crate::shape::{Verdict, best_of, evaluation, scan};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn snapshot() -> Snapshot {
    Snapshot::new(&Config::default())
}

fn place_of(s: &Snapshot, name: &str) -> Option<SmolStr> {
    let id = s.cluster.find_pod(&format!("uid-{name}"))?;
    Some(s.cluster.node_name(s.cluster.pod(id)?.place.node()?))
}

fn free(s: &Snapshot, node: &str, resource: &str) -> i64 {
    s.cluster.free(s.cluster.find_node(node).unwrap(), resource).unwrap()
}

#[test]
fn a_watch_event_without_node_never_unassumes() {
    let mut s = snapshot();
    s.upsert_node(node("n1"));
    let id = s.upsert_pod(pod("p").asks("cpu", 1000)).unwrap().id;
    s.assume(id, s.cluster.find_node("n1").unwrap());
    s.upsert_pod(pod("p").asks("cpu", 1000));
    assert_eq!(
        (place_of(&s, "p").as_deref(), free(&s, "n1", "cpu"), s.cluster.assumed_count()),
        (Some("n1"), 63_000, 1)
    );
    s.upsert_pod(pod("p").asks("cpu", 1000).on("n1"));
    assert_eq!((free(&s, "n1", "cpu"), s.cluster.assumed_count()), (63_000, 0));
    s.upsert_pod(pod("p").asks("cpu", 1000));
    assert_eq!(place_of(&s, "p").as_deref(), Some("n1"));
}

#[test]
fn of_a_bound_pod_outside_a_gang_only_what_others_see_is_kept() {
    let mut s = snapshot();
    s.upsert_node(node("n1"));
    let mut web = pod("p").asks("cpu", 1000);
    web.labels.insert("app".into(), "web".into());
    web.priority = 7;
    let id = s.upsert_pod(web.clone()).unwrap().id;
    assert_eq!(s.cluster.info(id).unwrap().labels, web.labels);
    s.upsert_pod(web.clone().on("n1"));
    let info = s.cluster.info(id).unwrap();
    assert_eq!((info.labels.len(), info.requests.len(), info.priority), (0, 0, 7));
    let peer = s.cluster.relations.counts.peer(s.cluster.pod(id).unwrap().peer).unwrap();
    assert_eq!((&peer.labels, free(&s, "n1", "cpu")), (&web.labels, 63_000));
    let mut asks = s.upsert_pod(web.on("n1").asks("cpu", 3000)).unwrap();
    asks.cures = Cures::NONE;
    assert_eq!((asks.shape_changed, free(&s, "n1", "cpu")), (false, 61_000), "a resize counts");
}

#[test]
fn a_pod_seen_on_another_node_than_assumed_moves_there() {
    let mut s = snapshot();
    s.upsert_node(node("n1"));
    s.upsert_node(node("n2"));
    let id = s.upsert_pod(pod("p").asks("cpu", 1000)).unwrap().id;
    s.assume(id, s.cluster.find_node("n1").unwrap());
    let news = s.upsert_pod(pod("p").asks("cpu", 1000).on("n2")).unwrap();
    assert!(news.cures.meets(Cures::POD_GONE));
    assert_eq!([free(&s, "n1", "cpu"), free(&s, "n2", "cpu")], [64_000, 63_000]);
}

#[test]
fn terminal_pods_release_and_deleting_ones_do_not() {
    let mut s = snapshot();
    s.upsert_node(node("n1"));
    let mut p = pod("p").asks("cpu", 1000).on("n1");
    s.upsert_pod(p.clone());
    p.deleting = true;
    s.upsert_pod(p.clone());
    assert_eq!(free(&s, "n1", "cpu"), 63_000);
    let news = s.upsert_pod(p.phase(PodPhase::Failed)).unwrap();
    assert!(news.cures.meets(Cures::POD_GONE));
    assert_eq!((free(&s, "n1", "cpu"), s.cluster.pod_count()), (64_000, 0));
}

#[test]
fn pods_on_unknown_nodes_hold_a_placeholder_until_the_node_or_their_end_comes() {
    let mut s = snapshot();
    s.upsert_pod(pod("p").asks("cpu", 1000).on("ghost").foreign());
    assert_eq!(s.cluster.node_count(), 0);
    s.upsert_node(node("ghost"));
    assert_eq!((s.cluster.node_count(), free(&s, "ghost", "cpu")), (1, 63_000));
    s.delete_node("ghost");
    assert!(s.cluster.find_node("ghost").is_some());
    let id = s.cluster.find_pod("uid-p").unwrap();
    s.delete_pod(id);
    assert_eq!(s.cluster.find_node("ghost"), None);
}

#[test]
fn a_recreated_node_is_another_id_and_keeps_its_pods() {
    let mut s = snapshot();
    s.upsert_node(node("n1"));
    s.upsert_pod(pod("p").asks("cpu", 1000).on("n1").foreign());
    let old = s.cluster.find_node("n1").unwrap();
    s.upsert_node(NodeInfo { uid: "other".into(), ..node("n1") });
    let new = s.cluster.find_node("n1").unwrap();
    assert_ne!(old, new);
    assert!(s.cluster.node(old).is_none());
    assert_eq!((free(&s, "n1", "cpu"), s.cluster.node_count()), (63_000, 1));
}

#[test]
fn devices_follow_placement_by_numa_node() {
    let mut s = snapshot();
    s.upsert_node(dgx("d1", "b1", "r1"));
    let id = s.upsert_pod(pod("p").asks("nvidia.com/gpu", 3)).unwrap().id;
    let d1 = s.cluster.find_node("d1").unwrap();
    s.assume(id, d1);
    assert_eq!(s.cluster.node(d1).unwrap().devices()[0].free, [1, 4]);
    s.upsert_node(dgx("d1", "b1", "r1").has("nvidia.com/gpu", 4));
    assert_eq!(s.cluster.node(d1).unwrap().devices()[0].free, [0, 1]);
    s.forget(id);
    assert_eq!(s.cluster.node(d1).unwrap().devices()[0].free, [2, 2]);
}

#[test]
fn a_new_label_key_splits_classes_and_a_hostname_does_not() {
    let mut s = snapshot();
    s.upsert_node(node("a").label("pool", "x"));
    s.upsert_node(node("b").label("pool", "y"));
    assert_eq!(s.cluster.class_count(), 1);
    let mut p = pod("p");
    p.node_selector = [("pool".into(), "y".into())].into();
    let shape = s.upsert_pod(p).map(|n| s.cluster.pod(n.id).unwrap().shape.unwrap()).unwrap();
    assert_eq!(s.cluster.class_count(), 2);
    assert_eq!(cycle::find_for(&mut s, shape, &Ok(Demand::default())).ok(), s.cluster.find_node("b"));
    let mut q = pod("q");
    q.node_selector = [("kubernetes.io/hostname".into(), "a".into())].into();
    let shape = s.upsert_pod(q).map(|n| s.cluster.pod(n.id).unwrap().shape.unwrap()).unwrap();
    assert_eq!(s.cluster.class_count(), 2);
    assert_eq!(cycle::find_for(&mut s, shape, &Ok(Demand::default())).ok(), s.cluster.find_node("a"));
}

#[test]
fn the_cache_budget_drops_the_least_recently_used_and_forgets_unused_shapes() {
    let mut s = Snapshot::new(&Config { shape_cache_bytes: 6_000, ..Config::default() });
    for i in 0..4 {
        s.upsert_node(node(&format!("n{i}")).label("k", "v"));
    }
    for i in 0..300 {
        let news = s.upsert_pod(pod(&format!("p{i}")).asks("cpu", i + 1)).unwrap();
        let shape = s.cluster.pod(news.id).unwrap().shape.unwrap();
        assert!(cycle::find_for(&mut s, shape, &Ok(Demand::default())).is_ok());
        s.delete_pod(news.id);
    }
    s.trim();
    let (cached, bytes) = s.cache_size();
    assert!(cached < 10 && bytes <= 6_000, "{cached} caches, {bytes} bytes");
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Node { n: u8, gpus: u8, rack: u8, cordoned: bool, taint: u8, uid: bool },
    NodeGone { n: u8 },
    Pod { p: u8, cpu: u8, gpus: u8, port: u8, selector: u8, node: Option<u8>, end: bool },
    PodGone { p: u8 },
    Assume { p: u8, n: u8 },
    Forget { p: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..5, 0u8..4, 0u8..3, prop::bool::weighted(0.2), 0u8..4, prop::bool::weighted(0.1))
            .prop_map(|(n, gpus, rack, cordoned, taint, uid)| Step::Node { n, gpus, rack, cordoned, taint, uid }),
        1 => (0u8..5).prop_map(|n| Step::NodeGone { n }),
        6 => (0u8..8, 0u8..5, 0u8..4, 0u8..3, 0u8..4, prop::option::of(0u8..6), prop::bool::weighted(0.1))
            .prop_map(|(p, cpu, gpus, port, selector, node, end)| Step::Pod { p, cpu, gpus, port, selector, node, end }),
        1 => (0u8..8).prop_map(|p| Step::PodGone { p }),
        3 => (0u8..8, 0u8..5).prop_map(|(p, n)| Step::Assume { p, n }),
        1 => (0u8..8).prop_map(|p| Step::Forget { p }),
    ]
}

fn a_node(n: u8, gpus: u8, rack: u8, cordoned: bool, taint: u8, uid: bool) -> NodeInfo {
    let mut info = node(&format!("n{n}"))
        .label("fabric.topograph.run/tier-0", &format!("r{rack}"))
        .has("cpu", 4000)
        .has("pods", 4);
    if gpus > 0 {
        info = info.has("nvidia.com/gpu", i64::from(gpus) * 2).label("pool", &format!("g{gpus}"));
    }
    info.unschedulable = cordoned;
    let effect = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute];
    if let Some(effect) = effect.get(usize::from(taint)) {
        info.taints.push(Taint { key: "t".into(), value: "".into(), effect: *effect });
    }
    if uid {
        info.uid = format!("again-{n}").into();
    }
    info
}

fn a_pod(p: u8, cpu: u8, gpus: u8, port: u8, selector: u8) -> PodInfo {
    let mut info = pod(&format!("p{p}")).asks("cpu", i64::from(cpu) * 700).asks("nvidia.com/gpu", i64::from(gpus));
    if cpu == 4 {
        info = info.asks("memory", i64::MAX).asks("example.com/nowhere", 1);
    }
    if port > 0 {
        info.host_ports.push(HostPort { ip: "".into(), protocol: "".into(), port: u16::from(port) });
    }
    let term = |key: &str, operator, values: &[&str]| NodeSelectorTerm {
        match_expressions: vec![NodeRequirement {
            key: key.into(),
            operator,
            values: values.iter().map(|v| (*v).into()).collect(),
        }],
        match_fields: Vec::new(),
    };
    match selector {
        1 => info.node_selector = [("pool".into(), "g1".into())].into(),
        2 => info.preferred_node_affinity = vec![(7, term("pool", NodeOperator::Exists, &[]))],
        3 => info.required_node_affinity = Some(vec![term("kubernetes.io/hostname", NodeOperator::In, &["n1", "n2"])]),
        _ => {}
    }
    info
}

fn play(s: &mut Snapshot, step: &Step) {
    match step {
        Step::Node { n, gpus, rack, cordoned, taint, uid } => {
            s.upsert_node(a_node(*n, *gpus, *rack, *cordoned, *taint, *uid));
        }
        Step::NodeGone { n } => s.delete_node(&format!("n{n}")),
        Step::Pod { p, cpu, gpus, port, selector, node, end } => {
            let mut info = a_pod(*p, *cpu, *gpus, *port, *selector);
            info.node_name = node.map(|n| format!("n{n}").into());
            if *end {
                info.phase = PodPhase::Succeeded;
            }
            s.upsert_pod(info);
        }
        Step::PodGone { p } => {
            if let Some(id) = s.cluster.find_pod(&format!("uid-p{p}")) {
                s.delete_pod(id);
            }
        }
        Step::Assume { p, n } => {
            let (pod, node) = (s.cluster.find_pod(&format!("uid-p{p}")), s.cluster.find_node(&format!("n{n}")));
            if let (Some(pod), Some(node)) = (pod, node.filter(|n| !s.cluster.node(*n).unwrap().placeholder)) {
                s.assume(pod, node);
            }
        }
        Step::Forget { p } => {
            if let Some(id) = s.cluster.find_pod(&format!("uid-p{p}")) {
                s.forget(id);
            }
        }
    }
}

/// Every lane of every node equals the sum over the pods that stand there.
fn lanes_are_sums(s: &Snapshot) {
    for (id, record) in s.cluster.nodes.iter() {
        let on: Vec<_> = s.cluster.pods.iter().filter(|(_, p)| p.place.node() == Some(id)).collect();
        assert_eq!(on.len(), record.pods.len());
        for (name, (allocatable, used, free)) in s.cluster.lanes.row(id.index()) {
            let sum: i128 = on
                .iter()
                .map(|(pod, _)| {
                    if name == "pods" {
                        return 1;
                    }
                    let footprint = s.cluster.footprints.get(s.cluster.pod(*pod).unwrap().footprint).unwrap();
                    i128::from(footprint.request(&name))
                })
                .sum();
            assert_eq!(used, sum, "{name} on {}", record.info.name);
            assert_eq!(allocatable, record.info.allocatable.get(&name).copied().unwrap_or(0));
            let exact = i128::from(allocatable) - used;
            assert_eq!(i128::from(free), exact.clamp(i128::from(i64::MIN), i128::from(i64::MAX)));
        }
        for (at, table) in record.devices.iter().enumerate() {
            let taken: u32 = on.iter().map(|(_, p)| p.takes.get(at).map_or(0, |t| t.iter().sum())).sum();
            assert_eq!(table.free.iter().sum::<u32>() + taken, table.hardware.devices());
        }
    }
    let assumed = s.cluster.pods.iter().filter(|(_, p)| matches!(p.place, Place::Assumed(_))).count();
    assert_eq!(s.cluster.assumed_count(), assumed);
    assert_eq!(s.cluster.node_count(), s.cluster.nodes.iter().filter(|(_, n)| !n.placeholder).count());
}

/// Every cache in sync equals evaluating each node anew, and picks what a plain scan picks.
fn caches_equal_naive(s: &mut Snapshot) {
    let shapes: BTreeSet<_> = s.cluster.pods.iter().filter_map(|(_, p)| p.shape).collect();
    for id in shapes {
        let nodes: Vec<NodeId> = s.cluster.nodes.iter().filter(|(_, n)| !n.placeholder).map(|(id, _)| id).collect();
        let (cache, shape, cluster) = s.view_with_cluster(id).unwrap();
        let (cache, spec) = (cache.clone(), shape.spec.clone());
        let mut histogram: BTreeMap<Verdict, u32> = BTreeMap::new();
        let mut slots: BTreeMap<_, u64> = BTreeMap::new();
        for node in &nodes {
            let expected = evaluation(*node, &spec, cluster);
            assert_eq!(cache.node(node.dense()), expected);
            *histogram.entry(expected.verdict).or_default() += 1;
            for domain in cluster.tree().ancestors(cluster.leaf(*node).unwrap()) {
                *slots.entry(domain).or_default() += u64::from(expected.slots);
            }
        }
        assert_eq!(cache.histogram(), &histogram);
        for (domain, expected) in slots {
            assert_eq!(cache.slots_in(domain), expected, "{}", cluster.tree().describe(domain));
        }
        let best = best_of(&nodes, &spec, cluster).map(Id::dense);
        assert_eq!((cache.best(&spec), scan(&spec, cluster)), (best, best));
    }
}

fn facts(s: &Snapshot) -> impl PartialEq + std::fmt::Debug + use<> {
    let nodes: Vec<_> = s.cluster.nodes.iter().map(|(id, n)| (id, NodeRecord { generation: 0, ..n.clone() })).collect();
    let pods: Vec<_> = s.cluster.pods.iter().map(|(id, p)| (id, p.clone())).collect();
    (nodes, pods, s.cluster.lanes.clone(), s.cluster.assumed_count())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn lanes_and_caches_agree_with_a_naive_recomputation(steps in prop::collection::vec(step(), 1..60), every in 1usize..12) {
        let mut s = snapshot();
        for (at, step) in steps.iter().enumerate() {
            play(&mut s, step);
            lanes_are_sums(&s);
            if at % every == 0 {
                caches_equal_naive(&mut s);
            }
        }
        caches_equal_naive(&mut s);
    }

    #[test]
    fn rollback_is_identity(steps in prop::collection::vec(step(), 1..40), trial in prop::collection::vec((0u8..8, 0u8..5, any::<bool>()), 1..12)) {
        let mut s = snapshot();
        steps.iter().for_each(|step| play(&mut s, step));
        let before = facts(&s);
        s.transact(|txn| {
            let mut mark = txn.mark();
            for (p, n, partly) in &trial {
                let cluster = &txn.snapshot().cluster;
                let (pod, node) = (cluster.find_pod(&format!("uid-p{p}")), cluster.find_node(&format!("n{n}")));
                if *partly {
                    txn.roll_back_to(mark);
                    mark = txn.mark();
                }
                if let (Some(pod), Some(node)) = (pod, node.filter(|n| !txn.snapshot().cluster.node(*n).unwrap().placeholder)) {
                    txn.place(pod, node);
                }
                lanes_are_sums(txn.snapshot());
            }
            End::RollBack(())
        });
        prop_assert_eq!(before, facts(&s));
        caches_equal_naive(&mut s);
    }
}
