//! A ClusterTopology on a real control plane: it overrides the levels while everything runs, says what the labels lack, and
//! loses nobody when it is wrong or goes away.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_api::topology::{DEFAULT, TopologyLevel};
use flowforge_api::{ClusterTopology, ClusterTopologySpec};
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::program;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use scheduler::{bound, create, gang, install, label_node, members, namespace, node_names, nodes_of, refused, until};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const ROW: &str = "example.com/row";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_change_while_everything_runs() {
    let testbed = scheduler::testbed(Profile::DgxH100, 4).await;
    install(&testbed, "").await;
    let nodes = node_names(&testbed).await;
    for (index, node) in nodes.iter().enumerate().take(3) {
        label_node(&testbed, node, json!({ROW: format!("row-{}", index.min(1))})).await;
    }
    namespace(&testbed, "levels").await;
    let topologies: Api<ClusterTopology> = Api::all(testbed.client().clone());
    a_gang_waits_for_its_level(&testbed).await;
    a_topology_gives_it(&testbed, &topologies, &nodes).await;
    a_broken_one_changes_nothing(&testbed, &topologies).await;
    without_one_the_configuration_counts_again(&testbed, &topologies).await;
}

/// Two members with all GPUs of a node each, in one domain of a level.
async fn create_gang(testbed: &Testbed, name: &str, level: &str) {
    let mut pods = gang(name, 2, "8");
    for pod in &mut pods {
        pod["metadata"]["annotations"]["flowforge.dev/topology-required"] = json!(level);
    }
    create(testbed, "levels", pods).await;
}

/// Waits until a member of a gang is told this.
async fn told(testbed: &Testbed, gang: &str, expected: &str) {
    refused(testbed, "levels", &format!("flowforge.dev/gang={gang}"), expected).await;
}

/// Waits for a condition with this reason.
async fn condition(topologies: &Api<ClusterTopology>, name: &str, type_: &str, reason: &str) -> Condition {
    until(&format!("{name} is {type_} for {reason}"), SOON, || async {
        let status = topologies.get(name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let found = status.conditions.iter().find(|have| have.type_ == type_ && have.reason == reason);
        found.cloned().ok_or(format!("{:?}", status.conditions))
    })
    .await
}

async fn a_gang_waits_for_its_level(testbed: &Testbed) {
    create_gang(testbed, "a", "row").await;
    told(testbed, "a", "topology level \"row\" is not configured").await;
}

async fn a_topology_gives_it(testbed: &Testbed, topologies: &Api<ClusterTopology>, nodes: &[String]) {
    let level = |name: &str, label: &str| TopologyLevel { name: name.into(), labels: vec![label.into()] };
    let levels = vec![level("row", ROW), level("host", "kubernetes.io/hostname")];
    let object = ClusterTopology::new(DEFAULT, ClusterTopologySpec { levels: levels.clone() });
    topologies.create(&PostParams::default(), &object).await.expect("created");
    let other = ClusterTopology::new("other", ClusterTopologySpec { levels });
    topologies.create(&PostParams::default(), &other).await.expect("created");
    bound(testbed, "levels", "a", 2, SOON).await;
    assert_eq!(nodes_of(&members(testbed, "levels", "a").await), [nodes[1].as_str(), &nodes[2]].into());
    condition(topologies, DEFAULT, "Ready", "InUse").await;
    // The fourth node has no row.
    let degraded = condition(topologies, DEFAULT, "Degraded", "MissingLabels").await;
    assert_eq!(degraded.message, format!("1 node without a label of level row: {}", nodes[3]));
    condition(topologies, "other", "Ready", "NotDefault").await;
    let status = topologies.get(DEFAULT).await.unwrap().status.unwrap();
    let counts: Vec<_> = status.levels.iter().map(|l| (l.name.as_str(), l.domains, l.nodes)).collect();
    assert_eq!((status.nodes, counts), (Some(4), vec![("row", 2, 3), ("host", 4, 4)]));
    label_node(testbed, &nodes[3], json!({ROW: "row-0"})).await;
    condition(topologies, DEFAULT, "Degraded", "Complete").await;
    let drawn = drawn(testbed);
    for (begin, end) in [
        ("cluster", "16 of 32 GPUs free"),
        ("├─ row/row-0", "16 of 16 GPUs free"),
        ("└─ row/row-1", "0 of 16 GPUs free"),
    ] {
        assert!(
            drawn.lines().any(|line| line.starts_with(begin) && line.ends_with(&format!(" {end}"))),
            "{begin}: {drawn}"
        );
    }
}

/// What `flowforge topology` answers.
fn drawn(testbed: &Testbed) -> String {
    let mut command = Command::new(program("flowforge").expect("built"));
    let output = command.arg("topology").env("KUBECONFIG", testbed.admin_kubeconfig()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

async fn a_broken_one_changes_nothing(testbed: &Testbed, topologies: &Api<ClusterTopology>) {
    let twice = json!({"spec": {"levels": [{"name": "row", "labels": [ROW]}, {"name": "aisle", "labels": [ROW]}]}});
    topologies.patch(DEFAULT, &PatchParams::default(), &Patch::Merge(&twice)).await.expect("the schema allows it");
    let ready = condition(topologies, DEFAULT, "Ready", "InvalidLevels").await;
    assert!(ready.message.contains("a label belongs to one level"), "{}", ready.message);
    assert!(ready.message.ends_with("levels row > host stay in force"), "{}", ready.message);
    create_gang(testbed, "b", "row").await;
    bound(testbed, "levels", "b", 2, SOON).await;
}

async fn without_one_the_configuration_counts_again(testbed: &Testbed, topologies: &Api<ClusterTopology>) {
    topologies.delete(DEFAULT, &DeleteParams::default()).await.expect("deleted");
    create_gang(testbed, "c", "row").await;
    told(testbed, "c", "the levels are zone, block, rack, nvlink, host").await;
    // Who stood stays.
    bound(testbed, "levels", "a", 2, SOON).await;
}
