//! Gangs with a layout: what is expected of single ones, and a comparison with a search of every placement.

use super::exhaustive_tests::{Dice, Instance, Room};
use super::*;
use crate::config::Config;
use crate::fixture::{NodeChain, PodChain, dgx, gang, member, pod};
use crate::model::{GangInfo, GangRoleInfo, LayoutInfo, RoleSetInfo, RoleTopologyInfo, SegmentsInfo, SpreadInfo};
use crate::snapshot::{PodId, Snapshot};
use flowforge_topology_core::LevelIndex;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

const LEVELS: [&str; 3] = ["block", "rack", "host"];

/// Racks of DGX nodes with so many free GPUs, two racks to a block.
fn cluster(racks: &[&[i64]]) -> Snapshot {
    let mut s = Snapshot::new(&Config::default());
    for (r, rack) in racks.iter().enumerate() {
        for (n, free) in rack.iter().enumerate() {
            let name = format!("r{r}n{n}");
            s.upsert_node(dgx(&name, &format!("b{}", r / 2), &format!("r{r}")).label("nvidia.com/gpu.clique", "none"));
            s.upsert_pod(pod(&format!("fill-{name}")).asks("nvidia.com/gpu", 8 - free).on(&name).foreign());
        }
    }
    s
}

/// A gang of roles (name, members, GPUs), and what is asked for it.
fn ask(s: &mut Snapshot, roles: &[(&str, u32, i64)], layout: &LayoutInfo) -> Result<Ask, String> {
    let counts: Vec<(&str, u32, u32)> = roles.iter().map(|(name, n, _)| (*name, *n, *n)).collect();
    let GangInfo { roles: infos, .. } = gang("g", &counts);
    let mut slots = Vec::new();
    for (name, members, gpus) in roles {
        for rank in 0..*members {
            let pod = member(&format!("g-{name}"), rank, 1).asks("nvidia.com/gpu", *gpus);
            slots.push(Slot { pod: s.upsert_pod(pod).unwrap().id, role: (*name).into(), rank: Some(rank) });
        }
    }
    let members = slots.iter().map(|slot| slot.pod).collect();
    let layout =
        Layout::of(layout, &infos, &slots, s.cluster().tree().levels()).map_err(|reason| reason.to_string())?;
    Ok(Ask { members, layout, steps: 20_000, ..Ask::default() })
}

fn stand(s: &mut Snapshot, ask: &Ask) -> Vec<String> {
    match plan(s, ask) {
        Planned::Placed(places) => places.iter().map(|(_, n)| s.cluster().node_name(*n).to_string()).collect(),
        other => panic!("not placed: {other:?}"),
    }
}

fn unmet(s: &mut Snapshot, ask: &Ask) -> String {
    match plan(s, ask) {
        Planned::Nowhere(nowhere) => nowhere.part.expect("the layout is why"),
        other => panic!("unexpected {other:?}"),
    }
}

fn segments(size: u32, level: &str, balanced: bool) -> LayoutInfo {
    LayoutInfo { segments: Some(SegmentsInfo { size, level: level.into(), balanced }), ..LayoutInfo::default() }
}

fn spread(level: &str, min_domains: u32) -> LayoutInfo {
    LayoutInfo { spread: Some(SpreadInfo { level: level.into(), min_domains }), ..LayoutInfo::default() }
}

fn roles_at(roles: &[(&str, Option<&str>)]) -> LayoutInfo {
    let role = |(index, (role, required)): (usize, &(&str, Option<&str>))| RoleTopologyInfo {
        role: (*role).into(),
        index,
        required: required.map(SmolStr::from),
        preferred: Vec::new(),
    };
    LayoutInfo { roles: roles.iter().enumerate().map(role).collect(), ..LayoutInfo::default() }
}

fn set(level: &str, roles: &[&str]) -> Vec<RoleSetInfo> {
    vec![RoleSetInfo { level: level.into(), roles: roles.iter().map(|role| SmolStr::from(*role)).collect() }]
}

#[test]
fn balanced_segments_fill_racks_of_unequal_rest_in_rank_order() {
    let mut s = cluster(&[&[8, 8, 8], &[8, 8], &[8, 8, 8]]);
    let six = ask(&mut s, &[("worker", 6, 8)], &segments(4, "rack", true)).unwrap();
    assert_eq!(stand(&mut s, &six), ["r0n0", "r0n1", "r0n2", "r2n0", "r2n1", "r2n2"]);
    let mut s = cluster(&[&[8, 8, 8, 8], &[8, 8]]);
    let unbalanced = ask(&mut s, &[("worker", 6, 8)], &segments(4, "rack", false)).unwrap();
    assert_eq!(stand(&mut s, &unbalanced), ["r0n0", "r0n1", "r0n2", "r0n3", "r1n0", "r1n1"]);
}

#[test]
fn small_segments_share_the_tightest_rack_and_leave_whole_ones_alone() {
    let mut s = cluster(&[&[8, 8, 8, 8, 8], &[8, 8, 8, 8, 0]]);
    let four = ask(&mut s, &[("worker", 4, 8)], &segments(2, "rack", true)).unwrap();
    assert_eq!(stand(&mut s, &four), ["r1n0", "r1n1", "r1n2", "r1n3"]);
}

#[test]
fn segments_that_do_not_fit_are_told_as_such() {
    let mut s = cluster(&[&[8, 8, 8], &[8], &[8]]);
    let too_large = ask(&mut s, &[("worker", 4, 8)], &segments(4, "rack", true)).unwrap();
    assert_eq!(unmet(&mut s, &too_large), "segment 0 of role worker needs one rack for 4 members, 3 fit (in rack/r0)");
    let too_many = ask(&mut s, &[("w", 4, 8)], &segments(2, "rack", true)).unwrap();
    assert_eq!(unmet(&mut s, &too_many), "2 segments of 2 need one rack each, there is room for 1");
}

#[test]
fn a_spread_gang_stands_evenly_over_the_fewest_domains_that_will_do() {
    let mut s = cluster(&[&[8, 8, 8], &[8, 8, 8, 8], &[8, 8], &[8]]);
    let four = ask(&mut s, &[("worker", 4, 8)], &spread("rack", 2)).unwrap();
    assert_eq!(stand(&mut s, &four), ["r0n0", "r0n1", "r1n0", "r1n1"], "narrow levels first: one block");
    let mut s = cluster(&[&[8, 8, 8], &[8, 8, 8, 8], &[8, 8], &[8]]);
    let five = ask(&mut s, &[("worker", 5, 8)], &spread("rack", 4)).unwrap();
    let used: BTreeSet<String> = stand(&mut s, &five).into_iter().map(|n| n[..2].to_owned()).collect();
    assert_eq!(used.len(), 4);
    let mut s = cluster(&[&[8, 8, 8], &[8]]);
    let three = ask(&mut s, &[("worker", 4, 8)], &spread("rack", 3)).unwrap();
    assert_eq!(unmet(&mut s, &three), "spread needs 3 domains of level rack for at most 2 members each, 2 have room");
}

#[test]
fn workers_share_a_host_and_parameter_servers_stand_in_their_rack() {
    let mut s = cluster(&[&[4, 8], &[8, 2]]);
    let layout = LayoutInfo { colocate: set("rack", &["worker", "ps"]), ..roles_at(&[("worker", Some("host"))]) };
    let both = ask(&mut s, &[("worker", 4, 2), ("ps", 2, 1)], &layout).unwrap();
    assert_eq!(stand(&mut s, &both), ["r1n0", "r1n0", "r1n0", "r1n0", "r1n1", "r1n1"]);
}

#[test]
fn separated_roles_share_no_rack() {
    let mut s = cluster(&[&[8, 8], &[8, 8]]);
    let layout = LayoutInfo { separate: set("rack", &["main", "standby"]), ..LayoutInfo::default() };
    let both = ask(&mut s, &[("main", 3, 4), ("standby", 1, 4)], &layout).unwrap();
    let nodes = stand(&mut s, &both);
    assert!(nodes[..3].iter().all(|n| n[..2] == nodes[0][..2]) && nodes[3][..2] != nodes[0][..2], "{nodes:?}");
}

#[test]
fn a_replacement_goes_to_its_segment() {
    let mut s = cluster(&[&[8, 8, 8], &[8, 8, 8]]);
    let mut four = ask(&mut s, &[("worker", 4, 8)], &segments(2, "rack", true)).unwrap();
    // Both segments in the first rack would need four nodes: they stand in two.
    let placed = stand(&mut s, &four);
    assert_eq!(placed, ["r0n0", "r0n1", "r1n0", "r1n1"]);
    let lost = four.members[1];
    s.forget(lost);
    four.bound = four.members.iter().filter_map(|pod| s.cluster().pod(*pod)?.place.node()).collect();
    four.members = vec![lost];
    s.upsert_pod(pod("taken").asks("nvidia.com/gpu", 8).on("r0n1").foreign());
    assert_eq!(stand(&mut s, &four), ["r0n2"]);
    s.forget(lost);
    s.upsert_pod(pod("taken too").asks("nvidia.com/gpu", 8).on("r0n2").foreign());
    assert!(unmet(&mut s, &four).starts_with("segment 0 of role worker needs one rack for 1 members"));
}

#[test]
fn a_level_that_does_not_exist_is_refused_with_the_field_that_names_it() {
    let mut s = cluster(&[&[8]]);
    let mut refusal = |layout: &LayoutInfo| ask(&mut s, &[("w", 1, 1)], layout).unwrap_err();
    let known = "is not configured; the levels are zone, block, rack, nvlink, host";
    let at = |field: &str| format!("{field}: topology level \"row\" {known}");
    assert_eq!(refusal(&segments(1, "row", true)), at("spec.topology.segments.level"));
    assert_eq!(refusal(&spread("row", 1)), at("spec.topology.spread.level"));
    assert_eq!(refusal(&roles_at(&[("w", Some("row"))])), at("spec.roles[0].topology.required"));
    let sets = LayoutInfo { colocate: set("row", &["w", "x"]), ..LayoutInfo::default() };
    assert_eq!(refusal(&sets), at("spec.colocate[0].level"));
}

/// A random layout for the roles of an instance.
fn layout_of(dice: &mut Dice, roles: usize) -> LayoutInfo {
    let level = |dice: &mut Dice| SmolStr::from(LEVELS[usize::try_from(dice.below(3)).unwrap()]);
    let mut layout = LayoutInfo::default();
    let all: Vec<SmolStr> = (0..roles).map(|at| format!("role-{at}").into()).collect();
    if dice.one_in(2) {
        let size = u32::try_from(dice.within(1, 4)).unwrap();
        layout.segments = Some(SegmentsInfo { size, level: level(dice), balanced: dice.one_in(2) });
    }
    if dice.one_in(3) {
        layout.spread = Some(SpreadInfo { level: level(dice), min_domains: u32::try_from(dice.within(1, 3)).unwrap() });
    }
    if dice.one_in(3) {
        let role = RoleTopologyInfo {
            role: all[0].clone(),
            index: 0,
            required: dice.one_in(2).then(|| level(dice)),
            preferred: vec![level(dice)],
        };
        layout.roles.push(role);
    }
    if roles > 1 {
        if dice.one_in(3) {
            layout.colocate.push(RoleSetInfo { level: level(dice), roles: all[..2].to_vec() });
        }
        if dice.one_in(3) {
            layout.separate.push(RoleSetInfo { level: level(dice), roles: all[roles - 2..].to_vec() });
        }
    }
    layout
}

/// A member in the search of every placement: role, segment, needs.
#[derive(Clone, Copy, Debug)]
struct Piece {
    role: usize,
    segment: u32,
    gpus: i64,
    cpus: i64,
}

/// The segments of a role by hand: the first ones are the larger ones.
fn segment_sizes(members: u32, segments: &SegmentsInfo) -> Vec<u32> {
    let count = members.div_ceil(segments.size);
    let even = |at: u32| members / count + u32::from(at < members % count);
    let full = |at: u32| segments.size.min(members - at * segments.size);
    (0..count).map(|at| if segments.balanced { even(at) } else { full(at) }).collect()
}

struct Every<'a> {
    layout: &'a LayoutInfo,
    required: Option<usize>,
    pieces: &'a [Piece],
}

impl Every<'_> {
    /// Whether the rules hold for those that are placed; `whole`: all are.
    fn holds(&self, at: &[Room], whole: bool) -> bool {
        let level = |name: &SmolStr| LEVELS.iter().position(|l| l == name).unwrap();
        let one = |level: usize, member: &dyn Fn(&Piece) -> bool| {
            let domains =
                at.iter().zip(self.pieces).filter(|(_, piece)| member(piece)).map(|(room, _)| room.path[level]);
            domains.collect::<BTreeSet<usize>>()
        };
        let name = |role: usize| SmolStr::from(format!("role-{role}"));
        let tied = |level: usize, member: &dyn Fn(&Piece) -> bool| one(level, member).len() <= 1;
        let segments = self.layout.segments.as_ref().is_none_or(|segments| {
            let of = self.pieces.iter().map(|piece| (piece.role, piece.segment));
            of.collect::<BTreeSet<_>>()
                .into_iter()
                .all(|of| tied(level(&segments.level), &|piece| (piece.role, piece.segment) == of))
        });
        let roles = self.layout.roles.iter().all(|said| {
            let required = said.required.as_ref();
            required.is_none_or(|required| tied(level(required), &|piece| name(piece.role) == said.role))
        });
        let together = self
            .layout
            .colocate
            .iter()
            .all(|set| tied(level(&set.level), &|piece| set.roles.contains(&name(piece.role))));
        let apart = self.layout.separate.iter().all(|set| {
            let sides: Vec<BTreeSet<usize>> =
                set.roles.iter().map(|role| one(level(&set.level), &|piece| name(piece.role) == *role)).collect();
            sides[0].is_disjoint(&sides[1])
        });
        let spread = self.layout.spread.as_ref().is_none_or(|spread| {
            let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
            at.iter().for_each(|room| *counts.entry(room.path[level(&spread.level)]).or_default() += 1);
            let share = u32::try_from(self.pieces.len()).unwrap().div_ceil(spread.min_domains);
            counts.values().all(|n| *n <= share) && (!whole || counts.len() >= spread.min_domains as usize)
        });
        let all = self.required.is_none_or(|required| tied(required, &|_| true));
        all && segments && roles && together && apart && spread
    }

    fn exists(&self, rooms: &mut [Room], at: &mut Vec<Room>) -> bool {
        let Some(piece) = self.pieces.get(at.len()) else { return self.holds(at, true) };
        for n in 0..rooms.len() {
            let room = rooms[n];
            if room.gpus < piece.gpus || room.cpus < piece.cpus {
                continue;
            }
            rooms[n] = Room { gpus: room.gpus - piece.gpus, cpus: room.cpus - piece.cpus, ..room };
            at.push(room);
            let found = self.holds(at, false) && self.exists(rooms, at);
            at.pop();
            rooms[n] = room;
            if found {
                return true;
            }
        }
        false
    }
}

/// Whether there is a place; panics where the planner sees it otherwise or breaks a rule.
fn compare(seed: u64) -> bool {
    let mut instance = Instance::of(seed);
    instance.rooms.truncate(8);
    instance.roles.iter_mut().for_each(|role| role.members = role.members.min(3));
    instance.roles.truncate(2);
    let layout = layout_of(&mut Dice(!seed), instance.roles.len());
    let (mut s, members) = instance.snapshot();
    let infos: Vec<GangRoleInfo> = (0..)
        .zip(&instance.roles)
        .map(|(at, role)| GangRoleInfo { name: format!("role-{at}").into(), replicas: role.members, min: role.members })
        .collect();
    let (mut slots, mut pieces) = (Vec::new(), Vec::new());
    for (at, role) in instance.roles.iter().enumerate() {
        let sizes = layout.segments.as_ref().map_or(vec![role.members], |s| segment_sizes(role.members, s));
        let of = (0..).zip(sizes).flat_map(|(segment, size)| std::iter::repeat_n(segment, size as usize));
        for (rank, segment) in of.enumerate() {
            let rank = Some(u32::try_from(rank).unwrap());
            slots.push(Slot { pod: members[slots.len()], role: infos[at].name.clone(), rank });
            pieces.push(Piece { role: at, segment, gpus: role.gpus, cpus: role.cpus });
        }
    }
    let level = |level: usize| LevelIndex(u8::try_from(level).unwrap());
    let compiled = Layout::of(&layout, &infos, &slots, s.cluster().tree().levels()).unwrap();
    let required = instance.required.map(level);
    let ask = Ask { members: members.clone(), required, layout: compiled, steps: 2_000_000, ..Ask::default() };
    let every = Every { layout: &layout, required: instance.required, pieces: &pieces };
    let exists = every.exists(&mut instance.rooms.clone(), &mut Vec::new());
    match plan(&mut s, &ask) {
        Planned::Placed(places) => {
            assert_eq!(places.iter().map(|(pod, _)| *pod).collect::<Vec<PodId>>(), members);
            let host = |name: &str| name[1..].parse::<usize>().unwrap();
            let at = places.iter().map(|(_, node)| instance.rooms[host(s.cluster().node_name(*node).as_str())]);
            let at: Vec<Room> = at.collect();
            assert!(exists && every.holds(&at, true), "seed {seed}: {at:?} breaks {layout:?} of {instance:?}");
        }
        Planned::Nowhere(nowhere) => {
            assert!(!exists, "seed {seed}: {nowhere:?}, but there is a place for {layout:?} of {instance:?}");
        }
        other => panic!("seed {seed}: {other:?}"),
    }
    exists
}

fn compare_all(seeds: std::ops::Range<u64>) {
    let all = seeds.clone().count();
    let placed = seeds.filter(|seed| compare(*seed)).count();
    println!("{placed} of {all} gangs with a layout have a place");
    assert!(placed * 4 > all && placed * 10 < all * 9, "{placed} of {all}");
}

#[test]
fn a_layout_is_met_exactly_when_it_can_be() {
    compare_all(0..600);
}

#[test]
#[ignore = "takes minutes: cargo test -p flowforge-scheduler-core --lib ten_thousand -- --ignored --nocapture"]
fn ten_thousand_layouts() {
    compare_all(0..10_000);
}
