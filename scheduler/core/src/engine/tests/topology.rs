//! Other levels at run time: who waited for one goes on, who stands stays, and nothing is lost.

use super::*;
use crate::fixture::NodeChain;
use crate::model::TopologyLevels;

const ROW: &str = "example.com/row";

fn levels(spec: &[(&str, &str)]) -> Event {
    let levels: TopologyLevels = spec.iter().map(|(name, key)| ((*name).into(), vec![(*key).into()])).collect();
    Event::Topology(levels)
}

fn in_rows() -> Scene {
    let mut s = Scene::new();
    s.nodes([
        dgx("d0", "b1", "r1").label(ROW, "x"),
        dgx("d1", "b1", "r2").label(ROW, "y"),
        dgx("d2", "b1", "r3").label(ROW, "y"),
    ]);
    s
}

fn within(s: &mut Scene, name: &str, level: &str) {
    (0..2).for_each(|rank| s.create(member(name, rank, 2).asks("nvidia.com/gpu", 8).within(level)));
    s.run();
}

#[test]
fn a_gang_that_asks_for_a_level_that_comes_later_is_placed_then() {
    let mut s = in_rows();
    within(&mut s, "g", "row");
    assert!(s.message("g-0").1.contains("topology level \"row\" is not configured"), "{:?}", s.message("g-0"));
    s.see(levels(&[("row", ROW), ("host", "kubernetes.io/hostname")]));
    s.run();
    let mut nodes = [s.node_of("g-0"), s.node_of("g-1")];
    nodes.sort();
    assert_eq!(nodes, [Some("d1"), Some("d2")]);
}

#[test]
fn a_gang_that_fits_no_rack_fits_when_racks_are_rows() {
    let mut s = in_rows();
    within(&mut s, "g", "rack");
    assert_eq!((s.bound_of("g"), s.message("g-0").0), (0, "Unschedulable"));
    s.see(levels(&[("rack", ROW)]));
    s.run();
    assert_eq!(s.bound_of("g"), 2);
}

#[test]
fn what_is_bound_or_being_bound_stays_and_unusable_levels_change_nothing() {
    let mut s = in_rows();
    s.hold_binds = true;
    within(&mut s, "g", "block");
    assert_eq!(s.held.len(), 2);
    let before = s.engine.snapshot().cluster().tree().levels().clone();
    s.see(levels(&[("row", ROW), ("row", "other")]));
    assert_eq!(*s.engine.snapshot().cluster().tree().levels(), before);
    s.see(levels(&[("row", ROW)]));
    s.run();
    assert_eq!(s.held.len(), 2, "nothing is bound twice");
    s.release_held();
    assert_eq!(s.bound_of("g"), 2);
    s.see(Event::Topology(Vec::new()));
    s.run();
    s.create(pod("p"));
    s.run();
    assert!(s.node_of("p").is_some(), "without any level pods are placed as ever");
}

#[test]
fn the_survey_follows_labels_and_devices() {
    let mut s = in_rows();
    s.see(levels(&[("row", ROW)]));
    let cluster = |s: &Scene| s.engine.snapshot().cluster().clone();
    let (epoch, found) = (cluster(&s).survey_epoch(), cluster(&s).survey());
    assert_eq!((found.nodes, found.levels[0].domains, found.findings.len()), (3, 2, 0));
    s.see(Event::NodeUpsert(Box::new(dgx("d2", "b1", "r3"))));
    assert_ne!(cluster(&s).survey_epoch(), epoch);
    assert_eq!(cluster(&s).survey().findings[0].message, "1 node without a label of level row: d2");
    let epoch = cluster(&s).survey_epoch();
    s.see(Event::NodeUpsert(Box::new(dgx("d2", "b1", "r3").label("example.com/other", "1"))));
    assert_eq!(cluster(&s).survey_epoch(), epoch, "a label that no level reads says nothing");
}
