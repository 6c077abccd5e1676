//! The planner against expectations, and against brute force on small clusters.

use super::nowhere::{filled, seen_of};
use super::plan::{Group, may_fit, place_group};
use super::search::{Found, exhaust};
use super::*;
use crate::config::Config;
use crate::fixture::{NodeChain, PodChain, dgx, member, node};
use crate::model::{HostPort, PodInfo, Taint, TaintEffect};
use crate::snapshot::{End, NodeId, PodId, Snapshot};
use flowforge_topology_core::{DomainId, LevelIndex};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ZONE: LevelIndex = LevelIndex(0);
const RACK: LevelIndex = LevelIndex(2);

fn cluster(racks: &[usize]) -> Snapshot {
    let mut s = Snapshot::new(&Config::default());
    for (r, nodes) in racks.iter().enumerate() {
        for n in 0..*nodes {
            s.upsert_node(dgx(&format!("r{r}n{n}"), &format!("b{}", r / 8), &format!("r{r}")));
        }
    }
    s
}

/// Fills a node with a foreign pod that leaves so many GPUs.
fn leave(s: &mut Snapshot, node: &str, gpus: i64) {
    s.upsert_pod(crate::fixture::pod(&format!("fill-{node}")).asks("nvidia.com/gpu", 8 - gpus).on(node).foreign());
}

fn members(s: &mut Snapshot, name: &str, count: u32, gpus: i64) -> Vec<PodId> {
    (0..count).map(|r| add(s, member(name, r, count).asks("nvidia.com/gpu", gpus))).collect()
}

fn add(s: &mut Snapshot, pod: PodInfo) -> PodId {
    s.upsert_pod(pod).unwrap().id
}

fn ask(members: Vec<PodId>) -> Ask {
    Ask { members, steps: 20_000, ..Ask::default() }
}

fn names(s: &Snapshot, planned: &Planned) -> Vec<String> {
    match planned {
        Planned::Placed(places) => places.iter().map(|(_, n)| s.cluster().node_name(*n).to_string()).collect(),
        other => panic!("not placed: {other:?}"),
    }
}

#[test]
fn a_gang_fills_the_half_used_rack_and_leaves_whole_ones_alone() {
    let mut s = cluster(&[4, 4]);
    leave(&mut s, "r1n0", 0);
    leave(&mut s, "r1n1", 0);
    let gang = members(&mut s, "g", 2, 8);
    let planned = plan(&mut s, &ask(gang));
    assert_eq!(names(&s, &planned), ["r1n2", "r1n3"]);
}

#[test]
fn small_members_share_the_fullest_host_that_takes_all() {
    let mut s = cluster(&[2, 2]);
    leave(&mut s, "r1n1", 4);
    leave(&mut s, "r0n1", 3);
    let gang = members(&mut s, "g", 4, 1);
    let planned = plan(&mut s, &ask(gang));
    assert_eq!(names(&s, &planned), ["r1n1"; 4]);
}

#[test]
fn a_gang_larger_than_a_rack_uses_the_fewest_racks_in_rank_order() {
    let mut s = cluster(&[4, 3, 4]);
    let gang = members(&mut s, "g", 8, 8);
    let planned = plan(&mut s, &ask(gang));
    assert_eq!(names(&s, &planned), ["r0n0", "r0n1", "r0n2", "r0n3", "r2n0", "r2n1", "r2n2", "r2n3"]);
}

#[test]
fn a_required_level_is_never_crossed_and_the_refusal_names_the_best_domain() {
    let mut s = cluster(&[4, 4]);
    leave(&mut s, "r0n0", 0);
    leave(&mut s, "r1n0", 7);
    leave(&mut s, "r1n1", 7);
    let gang = members(&mut s, "g", 4, 8);
    let wanted = Ask { required: Some(RACK), ..ask(gang.clone()) };
    let Planned::Nowhere(nowhere) = plan(&mut s, &wanted) else { panic!("placed") };
    assert_eq!((nowhere.fit, nowhere.domain.as_deref(), nowhere.proven), (3, Some("rack/r0"), true));
    assert_eq!(nowhere.member, gang[3]);
    let seen: Vec<String> = nowhere.seen.reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
    assert_eq!(seen, ["6 Insufficient nvidia.com/gpu", "2 node(s) were outside rack/r0"]);
    assert_eq!(s.cluster().assumed_count(), 0);
    assert!(!may_fit(&mut s, &wanted));
    assert_eq!(names_at(&mut s, &ask(gang)), 4);
}

fn names_at(s: &mut Snapshot, ask: &Ask) -> usize {
    let planned = plan(s, ask);
    names(s, &planned).len()
}

#[test]
fn preferred_levels_are_tried_in_their_order_before_anything_else() {
    let mut s = Snapshot::new(&Config::default());
    for (name, rack, zone) in [("a", "r0", "z0"), ("b", "r0", "z0"), ("c", "r1", "z1")] {
        s.upsert_node(dgx(name, "b0", rack).label("topology.kubernetes.io/zone", zone));
    }
    leave(&mut s, "c", 2);
    let gang = members(&mut s, "g", 2, 1);
    let planned = plan(&mut s, &Ask { preferred: vec![ZONE], ..ask(gang) });
    assert_eq!(names(&s, &planned), ["c", "c"]);
}

#[test]
fn soft_taints_are_avoided_among_equal_places() {
    let mut s = cluster(&[3]);
    let taint = Taint { key: "t".into(), value: "".into(), effect: TaintEffect::PreferNoSchedule };
    let mut tainted = dgx("r0n0", "b0", "r0");
    tainted.taints.push(taint);
    s.upsert_node(tainted);
    let gang = members(&mut s, "g", 2, 8);
    let planned = plan(&mut s, &ask(gang));
    assert_eq!(names(&s, &planned), ["r0n1", "r0n2"]);
}

#[test]
fn a_replacement_stays_in_the_domain_of_the_bound_members() {
    let mut s = cluster(&[2, 2]);
    add(&mut s, member("g", 0, 2).asks("nvidia.com/gpu", 8).on("r1n0"));
    let bound = vec![s.cluster().find_node("r1n0").unwrap()];
    let lost = add(&mut s, member("g", 1, 2).asks("nvidia.com/gpu", 8));
    let wanted = Ask { required: Some(RACK), bound, ..ask(vec![lost]) };
    let planned = plan(&mut s, &wanted);
    assert_eq!(names(&s, &planned), ["r1n1"]);
    s.forget(lost);
    leave(&mut s, "r1n1", 0);
    assert!(matches!(plan(&mut s, &wanted), Planned::Nowhere(_)));
    let bound = vec![s.cluster().find_node("r1n0").unwrap(), s.cluster().find_node("r0n0").unwrap()];
    assert_eq!(plan(&mut s, &Ask { bound, ..wanted }), Planned::Split(RACK));
}

#[test]
fn mixed_shapes_are_searched_and_a_hopeless_search_ends() {
    let mut s = Snapshot::new(&Config::default());
    for n in 0..3 {
        s.upsert_node(node(&format!("n{n}")).has("cpu", 10_000));
    }
    let cpu = |s: &mut Snapshot, name: &str, cpu: i64| add(s, member(name, 0, 1).asks("cpu", cpu));
    // 6+4, 6+4, 5+5: filling the fives first on two nodes would leave no room.
    let gang: Vec<PodId> =
        [6, 4, 6, 4, 5, 5].iter().enumerate().map(|(i, c)| cpu(&mut s, &format!("m{i}"), c * 1000)).collect();
    let planned = plan(&mut s, &ask(gang.clone()));
    assert_eq!(names(&s, &planned).len(), 6);
    gang.iter().for_each(|g| assert!(s.forget(*g)));
    let more = cpu(&mut s, "more", 1);
    let too_much: Vec<PodId> = gang.into_iter().chain([more]).collect();
    assert!(matches!(plan(&mut s, &ask(too_much.clone())), Planned::Nowhere(_)));
    assert_eq!(plan(&mut s, &Ask { steps: 8, ..ask(too_much) }), Planned::SearchLimit(8));
    assert_eq!(s.cluster().assumed_count(), 0);
}

#[test]
fn domains_that_only_seem_to_fit_leave_steps_for_those_that_do() {
    // Each host takes a worker or the driver, by the counters of either shape, and no host takes both.
    let mut s = cluster(&[40, 40]);
    let mut gang = members(&mut s, "g", 1, 8);
    gang.push(add(&mut s, member("g", 1, 2).asks("nvidia.com/gpu", 1)));
    let planned = plan(&mut s, &Ask { steps: 100, ..ask(gang) });
    assert_eq!(names(&s, &planned), ["r0n0", "r0n1"]);
}

#[test]
fn every_look_at_a_node_is_a_step_of_the_search() {
    let mut s = cluster(&[4]);
    leave(&mut s, "r0n3", 7);
    let workers = members(&mut s, "g", 2, 8);
    let driver = add(&mut s, member("g", 2, 3).asks("nvidia.com/gpu", 7));
    let group = |s: &Snapshot, members: Vec<PodId>| Group {
        shape: s.cluster().pod(members[0]).unwrap().shape.unwrap(),
        members,
    };
    let groups = [group(&s, workers), group(&s, vec![driver])];
    let mut search = |mut steps: u32| {
        let found = s.transact(|txn| End::RollBack(exhaust(txn, &groups, DomainId::ROOT, &mut steps, false, None)));
        (found, steps)
    };
    // The workers look at n0, then at n0 and n1; the driver at n0, n1 and n2.
    assert_eq!(search(6), (Found::Placed, 0));
    assert_eq!(search(5), (Found::Limit, 0));
}

#[test]
fn host_ports_allow_one_member_a_node() {
    let mut s = cluster(&[2]);
    let gang: Vec<PodId> = (0..3)
        .map(|r| {
            let mut pod = member("g", r, 3).asks("nvidia.com/gpu", 1);
            pod.host_ports = vec![HostPort { ip: "".into(), protocol: "TCP".into(), port: 29500 }];
            add(&mut s, pod)
        })
        .collect();
    assert!(matches!(plan(&mut s, &ask(gang.clone())), Planned::Nowhere(_)));
    let planned = plan(&mut s, &ask(gang[..2].to_vec()));
    assert_eq!(names(&s, &planned), ["r0n0", "r0n1"]);
}

/// A random small cluster: racks of nodes with (gpus, cpus).
fn small() -> impl Strategy<Value = Vec<Vec<(u8, u8)>>> {
    prop::collection::vec(prop::collection::vec((0u8..5, 0u8..5), 1..4), 1..4)
}

fn build(racks: &[Vec<(u8, u8)>]) -> (Snapshot, Vec<(NodeId, usize)>) {
    let mut s = Snapshot::new(&Config::default());
    let mut nodes = Vec::new();
    for (r, rack) in racks.iter().enumerate() {
        for (n, (gpus, cpus)) in rack.iter().enumerate() {
            let name = format!("r{r}n{n}");
            s.upsert_node(
                dgx(&name, "b", &format!("r{r}")).has("nvidia.com/gpu", i64::from(*gpus)).has("cpu", i64::from(*cpus)),
            );
            nodes.push((s.cluster().find_node(&name).unwrap(), r));
        }
    }
    (s, nodes)
}

/// Whether some assignment holds everyone, tried one by one. `free` is (gpus, cpus, rack) of each node.
fn brute_force(free: &mut [(i64, i64, usize)], asks: &[(i64, i64)], rack: Option<usize>, one_rack: bool) -> bool {
    let Some(((gpus, cpus), rest)) = asks.split_first() else { return true };
    for n in 0..free.len() {
        let (g, c, r) = free[n];
        if g >= *gpus && c >= *cpus && (!one_rack || rack.is_none_or(|rack| rack == r)) {
            free[n] = (g - gpus, c - cpus, r);
            let found = brute_force(free, rest, Some(r), one_rack);
            free[n] = (g, c, r);
            if found {
                return true;
            }
        }
    }
    false
}

fn check_against_brute_force(
    racks: &[Vec<(u8, u8)>],
    asks: &[(i64, i64)],
    one_rack: bool,
) -> Result<(), TestCaseError> {
    let (mut s, nodes) = build(racks);
    let gang: Vec<PodId> = asks
        .iter()
        .enumerate()
        .map(|(r, (gpus, cpus))| {
            let rank = u32::try_from(r).unwrap();
            add(&mut s, member("g", rank, 1).asks("nvidia.com/gpu", *gpus).asks("cpu", *cpus))
        })
        .collect();
    let mut free: Vec<(i64, i64, usize)> = nodes
        .iter()
        .map(|(n, r)| (s.cluster().free(*n, "nvidia.com/gpu").unwrap(), s.cluster().free(*n, "cpu").unwrap(), *r))
        .collect();
    let exists = brute_force(&mut free, asks, None, one_rack);
    let wanted = Ask { required: one_rack.then_some(RACK), steps: 2_000_000, ..ask(gang.clone()) };
    let possible = may_fit(&mut s, &wanted);
    match plan(&mut s, &wanted) {
        Planned::Placed(places) => {
            prop_assert!(exists && possible);
            prop_assert_eq!(places.iter().map(|(p, _)| *p).collect::<Vec<_>>(), gang);
            let racks_used: BTreeSet<usize> =
                places.iter().map(|(_, n)| nodes.iter().find(|(id, _)| id == n).unwrap().1).collect();
            prop_assert!(!one_rack || racks_used.len() == 1);
            for (node, _) in &nodes {
                prop_assert!(s.cluster().free(*node, "nvidia.com/gpu").unwrap() >= 0);
                prop_assert!(s.cluster().free(*node, "cpu").unwrap() >= 0);
            }
        }
        Planned::Nowhere(nowhere) => {
            prop_assert!(!exists);
            prop_assert!((nowhere.fit as usize) < asks.len());
            prop_assert!(!nowhere.proven || !possible);
            prop_assert_eq!(s.cluster().assumed_count(), 0);
        }
        other => prop_assert!(false, "unexpected {other:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_a_full_domain_says_is_what_it_says_with_all_that_fit_placed(
        used in prop::collection::vec((0i64..9, 0i64..70_000), 6),
        gpus in 1i64..5,
        port in prop::bool::weighted(0.2),
        rack in any::<bool>(),
    ) {
        let mut s = cluster(&[3, 3]);
        for (n, (gpus, cpu)) in used.iter().enumerate() {
            let fill = crate::fixture::pod(&format!("fill-{n}")).asks("nvidia.com/gpu", *gpus).asks("cpu", *cpu);
            s.upsert_pod(fill.on(&format!("r{}n{}", n / 3, n % 3)).foreign());
        }
        let members: Vec<PodId> = (0..64)
            .map(|r| {
                let mut pod = member("g", r, 64).asks("nvidia.com/gpu", gpus).asks("cpu", 7_000);
                if port {
                    pod.host_ports.push(HostPort { ip: "".into(), protocol: "".into(), port: 80 });
                }
                add(&mut s, pod)
            })
            .collect();
        let shape = s.cluster().pod(members[0]).unwrap().shape.unwrap();
        let domain = if rack { s.cluster().tree().domains_at(RACK).next().unwrap() } else { DomainId::ROOT };
        s.transact(|txn| {
            let known = filled(txn, shape, domain, 64);
            let placed = place_group(txn, &Group { shape, members: members.clone() }, domain, 64);
            let seen = seen_of(txn, shape, domain).unwrap();
            assert_eq!(known, Some((placed, seen)));
            End::RollBack(())
        });
    }

    #[test]
    fn a_gang_of_one_shape_is_placed_exactly_when_a_place_exists(racks in small(), n in 1usize..7, gpus in 0i64..4, cpus in 1i64..4, one_rack: bool) {
        check_against_brute_force(&racks, &vec![(gpus, cpus); n], one_rack)?;
    }

    #[test]
    fn a_mixed_gang_is_placed_exactly_when_a_place_exists(racks in small(), asks in prop::collection::vec((0i64..4, 1i64..4), 1..6), one_rack: bool) {
        check_against_brute_force(&racks, &asks, one_rack)?;
    }
}
