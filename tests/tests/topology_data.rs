//! Descriptions of real networks give the counts that are known of them.
//!
//! They lie beside the project (`../shared/data`, or where `FLOWFORGE_DATA` says), each with its licence; where they are absent these
//! tests are skipped.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use flowforge_tests::skip;
use flowforge_topology_core::LevelIndex;
use flowforge_topology_core::fabric::{Fabric, clos, ibnetdiscover, model, netq};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The content of a file of the data; None where there is none, and the test is noted as skipped.
fn data(file: &str) -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FLOWFORGE_DATA").map_or(beside, PathBuf::from);
    let found = std::fs::read_to_string(folder.join(file));
    found.map_err(|error| skip("data", &format!("{file} is not in {}: {error}", folder.display()))).ok()
}

fn counts(fabric: &Fabric) -> (usize, Vec<usize>) {
    let (tree, names) = fabric.tree().unwrap();
    (names.len(), tree.levels().iter().map(|level| tree.count_at(level)).collect())
}

#[test]
fn a_clos_of_847_hosts_has_119_top_of_rack_switches_in_3_pods() {
    let Some(text) = data("alibaba-lingjun-2023/topo.csv") else { return };
    let fabric = clos::read(&text).unwrap();
    assert_eq!(fabric.levels, ["dsw", "psw", "asw"]);
    assert_eq!(counts(&fabric), (847, vec![1, 3, 119]));
    let (tree, _) = fabric.tree().unwrap();
    let mut pods: Vec<u32> = tree.domains_at(LevelIndex(1)).map(|pod| tree.size(pod)).collect();
    pods.sort_unstable();
    assert_eq!(pods, [179, 306, 362]);
}

#[test]
fn a_gb200_fabric_has_119_trays_in_8_racks_on_31_leaves_and_9_spines() {
    let Some(text) = data("topograph-fixtures/tests_output_ibnetdiscover_example.out") else { return };
    let found = ibnetdiscover::read(&text).unwrap();
    assert_eq!((found.leaves().count(), found.spines().count()), (31, 9));
    let trays: BTreeMap<_, _> = found.hosts.iter().filter(|(host, _)| host.contains("-dgx-")).collect();
    let with = |adapters: usize| trays.values().filter(|have| have.len() == adapters).count();
    assert_eq!((trays.len(), with(4), with(3)), (119, 109, 10));
    let mut by_leaf: BTreeMap<_, usize> = BTreeMap::new();
    trays.values().flat_map(|adapters| adapters.values()).for_each(|leaf| *by_leaf.entry(leaf).or_default() += 1);
    assert!(by_leaf.values().all(|trays| (10..=18).contains(trays)), "{by_leaf:?}");
    assert!(found.leaves().all(|leaf| (14..=18).contains(&leaf.uplinks)));
    let fabric = found.fabric();
    // A rack in the names of trays (a05-p1-dgx-01-c07) is one in the wiring.
    let mut racks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for tray in trays.keys() {
        let rack = fabric.hosts[tray.as_str()][0].as_deref().unwrap_or_else(|| panic!("{tray} stands in no rack"));
        racks.entry(rack).or_default().push(tray.split('-').next().unwrap());
    }
    assert_eq!(racks.len(), 8);
    for (rack, names) in &racks {
        assert!(names.iter().all(|name| *name == names[0]), "{rack}: {names:?}");
    }
}

#[test]
fn model_clusters_have_the_nodes_that_their_ranges_say() {
    let read = |file: &str| {
        let text = data(&format!("topograph-fixtures/tests_models_{file}.yaml"))?;
        let model: model::Model = serde_saphyr::from_str(&text).unwrap();
        Some(model::read(&model).unwrap())
    };
    // Hosts; regions, zones, cores, spines, leaves, NVLink domains.
    if let Some(nvl72) = read("nvl72") {
        assert_eq!(counts(&nvl72), (72, vec![1, 1, 1, 2, 4, 4]));
    }
    if let Some(medium) = read("medium") {
        assert_eq!(counts(&medium), (8, vec![1, 2, 2, 2, 4, 4]));
    }
    if let Some(large) = read("large") {
        assert_eq!(counts(&large), (96, vec![1, 3, 3, 6, 12, 12]));
    }
    if let Some(dual) = read("dual-xclr-regular") {
        // An NVLink domain that spans racks is a domain below each of them.
        assert_eq!(counts(&dual), (96, vec![1, 3, 3, 6, 12, 12]));
    }
}

#[test]
fn netq_tells_domains_and_racks() {
    if let Some(text) = data("topograph-fixtures/tests_output_netq_computeNodes.json") {
        let nodes: Vec<netq::ComputeNode> = serde_json::from_str(&text).unwrap();
        assert_eq!(counts(&netq::compute_nodes(&nodes)), (2, vec![1]));
    }
    if let Some(text) = data("topograph-fixtures/tests_output_netq_topologyGraph.json") {
        let graphs: Vec<netq::Graph> = serde_json::from_str(&text).unwrap();
        let fabric = netq::graph(&graphs);
        assert_eq!(counts(&fabric), (8, vec![2]));
        assert_eq!(fabric.left_out, Vec::<String>::new());
    }
}
