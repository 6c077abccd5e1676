//! Room for gangs: single cases, and that on small clusters there is no cheaper choice.

use super::*;
use crate::config::Config;
use crate::fixture::{NodeChain, PodChain, member, node, pod};
use crate::gang::{Ask, GangId, Planned, plan};
use crate::labels::LabelSelector;
use crate::model::{NodeInfo, PodInfo};
use proptest::prelude::*;
use smol_str::SmolStr;
use std::collections::BTreeMap;

const NOW: u64 = 10_000;
const RACK: &str = "fabric.topograph.run/tier-0";

fn small(name: &str, rack: &str) -> NodeInfo {
    node(name).has("cpu", 4_000).label(RACK, rack)
}

fn cpu(name: &str, cpu: i64, priority: i32) -> PodInfo {
    PodInfo { started_at_ms: Some(1_000), ..pod(name).asks("cpu", cpu).priority(priority) }
}

struct World {
    s: Snapshot,
    gangs: Gangs,
}

impl World {
    fn new(nodes: impl IntoIterator<Item = NodeInfo>, pods: impl IntoIterator<Item = PodInfo>) -> Self {
        let mut world = Self { s: Snapshot::new(&Config::default()), gangs: Gangs::default() };
        nodes.into_iter().for_each(|n| {
            world.s.upsert_node(n);
        });
        pods.into_iter().for_each(|p| {
            world.add(p);
        });
        world
    }

    fn add(&mut self, pod: PodInfo) -> (PodId, Option<GangId>) {
        let (namespace, membership) = (pod.key.namespace.clone(), pod.gang.clone());
        let id = self.s.upsert_pod(pod).unwrap().id;
        (id, membership.map(|membership| self.gangs.join(id, &namespace, &membership)))
    }

    fn protect(&mut self, app: &str, allowed: i32) {
        let selector = Some(LabelSelector::of(&[("app".into(), app.into())].into()));
        let budget = Budget { namespace: "ns".into(), name: app.into(), selector, allowed, ..Budget::default() };
        self.s.budgets_mut().set(budget);
    }

    /// A gang of so many that asks for room.
    fn asking(&mut self, size: u32, cpus: i64, priority: i32, rack: bool) -> (GangId, Ask) {
        let requests = cpu("", cpus, priority).requests;
        let members: Vec<(PodId, Option<GangId>)> = (0..size)
            .map(|rank| {
                self.add(PodInfo { requests: requests.clone(), ..member("asking", rank, size).priority(priority) })
            })
            .collect();
        let required = rack.then(|| self.s.cluster().tree().levels().find("rack").unwrap());
        let ask =
            Ask { members: members.iter().map(|(id, _)| *id).collect(), required, steps: 20_000, ..Ask::default() };
        (members[0].1.unwrap(), ask)
    }

    fn look(&mut self, own: GangId, ask: &Ask) -> Making {
        let priority = self.s.cluster().info(ask.members[0]).unwrap().priority;
        let around = Around { gangs: &self.gangs, own, doomed: &BTreeSet::new(), now: NOW };
        make_room(&mut self.s, ask, priority, around)
    }

    /// Names of the victims, sorted; or what came of it.
    fn victims(&mut self, size: u32, cpus: i64, priority: i32, rack: bool) -> String {
        let (own, ask) = self.asking(size, cpus, priority, rack);
        let before = facts(&self.s);
        let made = self.look(own, &ask);
        assert_eq!(before, facts(&self.s), "looking leaves a trace");
        match made {
            Making::Room(room) => {
                let pods = room.victims.iter().flat_map(|unit| &unit.pods);
                let mut names: Vec<&str> = pods.map(|p| self.s.cluster().pod(*p).unwrap().key.name.as_str()).collect();
                names.sort_unstable();
                names.join(" ")
            }
            other => format!("{other:?}"),
        }
    }
}

/// What a look must leave as it was.
fn facts(s: &Snapshot) -> String {
    let Cluster { nodes, pods, lanes, nominations, .. } = s.cluster();
    let nodes: Vec<_> =
        nodes.iter().map(|(id, n)| (id, &n.info, &n.pods, &n.ports, &n.devices, n.placeholder)).collect();
    format!("{:?}", (nodes, pods, lanes, nominations, s.budgets()))
}

fn three() -> Vec<NodeInfo> {
    ["n1", "n2", "n3"].map(|name| small(name, "r1")).to_vec()
}

#[test]
fn the_least_important_go_then_those_with_the_least_work_then_the_fewest() {
    let aged = |name: &str, priority, start| PodInfo { started_at_ms: Some(start), ..cpu(name, 4_000, priority) };
    let pods = [aged("a", 1, 1_000).on("n1"), aged("b", 1, 9_000).on("n2"), aged("c", 5, 9_500).on("n3")];
    assert_eq!(World::new(three(), pods.clone()).victims(2, 4_000, 10, false), "a b", "priority before work");
    assert_eq!(World::new(three(), pods.clone()).victims(1, 4_000, 10, false), "b", "the younger has done less");
    assert_eq!(World::new(three(), pods.clone()).victims(3, 4_000, 10, false), "a b c");
    assert_eq!(World::new(three(), pods).victims(3, 4_000, 5, false), "Nowhere", "an equal one is no victim");
    let halves = [aged("a1", 1, NOW).on("n1"), aged("b1", 1, NOW), aged("b2", 1, NOW), aged("c", 5, NOW).on("n3")];
    let halves = halves.map(|pod| if pod.key.name.starts_with('b') { pod.asks("cpu", 2_000).on("n2") } else { pod });
    assert_eq!(World::new(three(), halves).victims(1, 4_000, 10, false), "a1", "one is less than two");
}

#[test]
fn work_is_time_by_devices() {
    let gpus = |name: &str, gpus, start| PodInfo {
        started_at_ms: Some(start),
        ..pod(name).asks("nvidia.com/gpu", gpus).asks("cpu", 4_000).priority(1)
    };
    let nodes = three().into_iter().map(|n| n.has("nvidia.com/gpu", 8));
    // 8 devices for 2 s are more than one for 9 s.
    let pods = [gpus("wide", 8, 8_000).on("n1"), gpus("long", 1, 1_000).on("n2"), cpu("top", 4_000, 10).on("n3")];
    assert_eq!(World::new(nodes, pods).victims(1, 4_000, 10, false), "long");
}

#[test]
fn a_gang_goes_as_a_whole_and_only_where_that_costs_least() {
    let of = |rank: u32, on: &str| {
        let pod = member("low", rank, 2).asks("cpu", 4_000).priority(1).on(on);
        PodInfo { started_at_ms: Some(9_000), ..pod }
    };
    let young = PodInfo { started_at_ms: Some(9_900), ..cpu("young", 4_000, 1).on("n3") };
    let pods = || [of(0, "n1"), of(1, "n2"), young.clone()];
    assert_eq!(World::new(three(), pods()).victims(1, 4_000, 10, false), "young");
    assert_eq!(World::new(three(), pods()).victims(2, 4_000, 10, false), "low-0 low-1", "no member is left alone");
    let mixed = [PodInfo { priority: 10, ..of(0, "n1") }, of(1, "n2")];
    let nodes = || three().into_iter().take(2);
    assert_eq!(World::new(nodes(), mixed).victims(1, 4_000, 10, false), "Nowhere", "a gang counts as its highest");
}

#[test]
fn budgets_are_kept_as_long_as_somebody_else_can_go() {
    let pods = || [cpu("web", 4_000, 1).labelled("app", "web").on("n1"), cpu("other", 4_000, 9).on("n2")];
    let nodes = || three().into_iter().take(2);
    let mut world = World::new(nodes(), pods());
    world.protect("web", 0);
    assert_eq!(world.victims(1, 4_000, 10, false), "other");
    let mut world = World::new(nodes(), pods());
    world.protect("web", 0);
    assert_eq!(world.victims(2, 4_000, 10, false), "other web", "violations are the last resort");
}

#[test]
fn the_domain_that_the_gang_asks_for_decides() {
    let nodes = || [small("n1", "r1"), small("n2", "r1"), small("n3", "r2"), small("n4", "r2"), small("n5", "r3")];
    let pods = || {
        [
            cpu("a", 4_000, 1).on("n1"),
            cpu("b", 4_000, 7).on("n2"),
            cpu("c", 4_000, 5).on("n3"),
            cpu("d", 4_000, 5).on("n4"),
            cpu("e", 4_000, 1).on("n5"),
        ]
    };
    assert_eq!(World::new(nodes(), pods()).victims(2, 4_000, 10, false), "a e");
    assert_eq!(World::new(nodes(), pods()).victims(2, 4_000, 10, true), "c d", "in one rack");
    assert_eq!(World::new(nodes(), pods()).victims(3, 4_000, 10, true), "Nowhere");
}

#[test]
fn who_is_going_already_is_waited_for_and_nobody_else_goes() {
    let pods = || [PodInfo { deleting: true, ..cpu("going", 4_000, 50).on("n1") }, cpu("low", 4_000, 1).on("n2")];
    let nodes = || three().into_iter().take(2);
    assert_eq!(World::new(nodes(), pods()).victims(1, 4_000, 10, false), "Going");
    assert_eq!(World::new(nodes(), pods()).victims(2, 4_000, 10, false), "low");
}

/// A pod of a random cluster: node, CPUs, priority, start, gang (none from 2), protected.
type One = (u8, u8, u8, u8, u8, bool);

fn random(pods: &[One], budget: i32) -> World {
    let nodes = ["n0", "n1", "n2", "n3"].into_iter().enumerate();
    let mut world = World::new(nodes.map(|(at, name)| small(name, ["r0", "r1"][at / 2])), []);
    for (at, (n, cpus, priority, start, gang, protected)) in pods.iter().enumerate() {
        let base =
            if *gang < 2 { member(&format!("g{gang}"), u32::try_from(at).unwrap(), 9) } else { pod(&format!("p{at}")) };
        let base = base.asks("cpu", i64::from(*cpus) * 1_000).priority(i32::from(*priority)).on(&format!("n{n}"));
        let base = if *protected { base.labelled("app", "web") } else { base };
        world.add(PodInfo { started_at_ms: Some(u64::from(*start) * 1_000), ..base });
    }
    world.protect("web", budget);
    world
}

/// Pods that leave together, by name of the gang or pod, of those below a priority.
fn units(world: &World, pods: &[One], priority: i32) -> Vec<Vec<usize>> {
    let mut units: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, (.., gang, _)) in pods.iter().enumerate() {
        units.entry(if *gang < 2 { format!("g{gang}") } else { format!("p{at}") }).or_default().push(at);
    }
    assert!(world.s.cluster().pod_count() >= pods.len());
    units.into_values().filter(|unit| unit.iter().all(|at| i32::from(pods[*at].2) < priority)).collect()
}

fn name(pods: &[One], at: usize) -> SmolStr {
    if pods[at].4 < 2 { format!("uid-g{}-{at}", pods[at].4).into() } else { format!("uid-p{at}").into() }
}

/// What it costs that these pods go, said in other words than the code does.
fn cost(pods: &[One], gone: &[usize], budget: i32) -> Cost {
    let of = |at: &usize| &pods[*at];
    let protected = i64::try_from(gone.iter().filter(|at| of(at).5).count()).unwrap();
    Cost {
        violations: u32::try_from((protected - i64::from(budget)).max(0)).unwrap(),
        highest: gone.iter().map(|at| i32::from(of(at).2)).max().unwrap_or(i32::MIN),
        work: gone.iter().map(|at| NOW - u64::from(of(at).3) * 1_000).sum(),
        pods: gone.len(),
    }
}

fn one() -> impl Strategy<Value = One> {
    (0u8..4, 1u8..5, 0u8..5, 0u8..9, 0u8..6, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn where_some_choice_makes_room_the_cheapest_one_is_found(
        pods in prop::collection::vec(one(), 1..8),
        (size, cpus, priority, rack) in (1u32..5, 1u8..5, 1u8..6, any::<bool>()),
        budget in 0i32..3,
    ) {
        let mut world = random(&pods, budget);
        let (own, ask) = world.asking(size, i64::from(cpus) * 1_000, i32::from(priority), rack);
        let units = units(&world, &pods, i32::from(priority));
        let fits = |gone: &[usize]| {
            let mut s = world.s.clone();
            for at in gone {
                let id = s.cluster().find_pod(&name(&pods, *at)).unwrap();
                s.delete_pod(id);
            }
            matches!(plan(&mut s, &ask), Planned::Placed(_))
        };
        if fits(&[]) {
            return Ok(());
        }
        let choices = (1_u32..1 << units.len()).map(|mask| {
            let chosen = units.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
            chosen.flat_map(|(_, unit)| unit.iter().copied()).collect::<Vec<usize>>()
        });
        let best = choices.filter(|gone| fits(gone)).map(|gone| cost(&pods, &gone, budget)).min();
        let before = facts(&world.s);
        match (world.look(own, &ask), best) {
            (Making::Room(room), Some(best)) => {
                prop_assert_eq!(room.cost, best);
                prop_assert_eq!(room.places.len(), ask.members.len());
                let uid = |pod: &PodId| world.s.cluster().pod(*pod).unwrap().key.uid.clone();
                let gone: Vec<SmolStr> = room.victims.iter().flat_map(|unit| unit.pods.iter().map(uid)).collect();
                let gone: Vec<usize> = (0..pods.len()).filter(|at| gone.contains(&name(&pods, *at))).collect();
                prop_assert_eq!(cost(&pods, &gone, budget), best);
                let mut s = world.s.clone();
                for at in &gone {
                    let id = s.cluster().find_pod(&name(&pods, *at)).unwrap();
                    s.delete_pod(id);
                }
                prop_assert!(matches!(plan(&mut s, &ask), Planned::Placed(_)), "the victims make no room");
            }
            (Making::Nowhere, None) => {}
            (made, best) => prop_assert!(false, "{made:?}, and the best is {best:?}"),
        }
        prop_assert_eq!(before, facts(&world.s));
    }
}
