//! Gangs that say where their parts may stand, on a real control plane: segments, failure domains, levels of roles, roles
//! together and apart; and what the API server and the scheduler refuse.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_api::Gang;
use flowforge_testbed::{Profile, Testbed};
use kube::api::{Api, DeleteParams, PostParams};
use scheduler::{bound, create, delete, install, label_node, members, namespace, node_names, node_of, pod, refused};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const SPACE: &str = "layouts";

/// Six nodes of eight GPUs in two racks of three.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_gangs_stand_where_they_are_told_to() {
    let testbed = scheduler::testbed(Profile::DgxH100, 6).await;
    let nodes = node_names(&testbed).await;
    for (index, node) in nodes.iter().enumerate() {
        let rack = format!("rack-{}", index / 3);
        label_node(&testbed, node, json!({"fabric.topograph.run/tier-0": rack})).await;
    }
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    let scene = Scene { testbed: &testbed, nodes };
    scene.segments_are_in_one_rack_each().await;
    scene.members_are_spread_over_racks().await;
    scene.roles_have_levels_of_their_own().await;
    scene.roles_that_are_separated_share_no_rack().await;
    scene.what_cannot_be_is_said().await;
    scene.what_is_wrong_is_refused_by_the_api_server().await;
}

struct Scene<'t> {
    testbed: &'t Testbed,
    nodes: Vec<String>,
}

/// A Gang of roles (name, members).
fn declared(name: &str, roles: &[(&str, usize)], more: &Value) -> Value {
    let members: usize = roles.iter().map(|(_, n)| n).sum();
    let roles: Vec<Value> = roles.iter().map(|(name, n)| json!({"name": name, "replicas": n})).collect();
    let mut spec = json!({"minMember": members, "roles": roles});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Gang", "metadata": {"name": name}, "spec": spec})
}

impl Scene<'_> {
    fn gangs(&self) -> Api<Gang> {
        Api::namespaced(self.testbed.client().clone(), SPACE)
    }

    /// Creates a gang, and pods for its roles that ask for so many GPUs each.
    async fn submit(&self, gang: Value, gpus: &[&str]) {
        let made = self.gangs().create(&PostParams::default(), &serde_json::from_value(gang).unwrap()).await;
        let made = made.expect("the API server takes it");
        let (name, uid) = (made.metadata.name.unwrap(), made.metadata.uid.unwrap());
        let mut pods = Vec::new();
        for (role, gpus) in made.spec.roles.iter().zip(gpus) {
            for rank in 0..role.replicas {
                let mut member = pod(&format!("{name}-{}-{rank}", role.name), gpus);
                let labels = json!({"flowforge.dev/gang": name, "flowforge.dev/rank": rank.to_string(), "flowforge.dev/role": role.name});
                member["metadata"]["labels"] = labels;
                member["metadata"]["annotations"] = json!({"flowforge.dev/gang-uid": uid});
                pods.push(member);
            }
        }
        create(self.testbed, SPACE, pods).await;
    }

    /// The node of every member, once all are bound.
    async fn places(&self, name: &str, size: usize) -> BTreeMap<String, usize> {
        bound(self.testbed, SPACE, name, size, SOON).await;
        let found = members(self.testbed, SPACE, name).await;
        let place = |node: &str| self.nodes.iter().position(|known| known == node).unwrap();
        found.iter().map(|pod| (pod.metadata.name.clone().unwrap(), place(node_of(pod).unwrap()))).collect()
    }

    async fn remove(&self, name: &str) {
        delete(self.testbed, SPACE, &format!("flowforge.dev/gang={name}")).await;
        self.gangs().delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    async fn segments_are_in_one_rack_each(&self) {
        let topology = json!({"topology": {"segments": {"size": 3, "level": "rack"}}});
        self.submit(declared("cut", &[("worker", 4)], &topology), &["8"]).await;
        let at = self.places("cut", 4).await;
        let racks: Vec<usize> = at.values().map(|node| node / 3).collect();
        assert_eq!(racks, [0, 0, 1, 1], "two balanced segments, ranks in the order of the racks: {at:?}");
        self.remove("cut").await;
    }

    async fn members_are_spread_over_racks(&self) {
        let topology = json!({"topology": {"spread": {"level": "rack", "minDomains": 2}}});
        self.submit(declared("wide", &[("worker", 2)], &topology), &["1"]).await;
        let at = self.places("wide", 2).await;
        assert_eq!(at.values().map(|node| node / 3).collect::<BTreeSet<_>>().len(), 2, "{at:?}");
        self.remove("wide").await;
    }

    async fn roles_have_levels_of_their_own(&self) {
        let mut gang = declared("mixed", &[("worker", 4), ("ps", 2)], &json!({}));
        gang["spec"]["roles"][0]["topology"] = json!({"required": "host"});
        gang["spec"]["colocate"] = json!([{"level": "rack", "roles": ["worker", "ps"]}]);
        self.submit(gang, &["2", "1"]).await;
        let at = self.places("mixed", 6).await;
        let of = |role: &str| at.iter().filter(|(name, _)| name.contains(role)).map(|(_, node)| *node).collect();
        let (workers, servers): (BTreeSet<usize>, BTreeSet<usize>) = (of("worker"), of("ps"));
        assert_eq!(workers.len(), 1, "{at:?}");
        assert!(servers.iter().all(|node| workers.iter().all(|worker| worker / 3 == node / 3)), "{at:?}");
        self.remove("mixed").await;
    }

    async fn roles_that_are_separated_share_no_rack(&self) {
        let apart = json!({"separate": [{"level": "rack", "roles": ["main", "standby"]}]});
        self.submit(declared("apart", &[("main", 2), ("standby", 1)], &apart), &["4", "4"]).await;
        let at = self.places("apart", 3).await;
        assert_eq!(at["apart-main-0"] / 3, at["apart-main-1"] / 3);
        assert_ne!(at["apart-main-0"] / 3, at["apart-standby-0"] / 3);
        self.remove("apart").await;
    }

    async fn what_cannot_be_is_said(&self) {
        let three = json!({"topology": {"spread": {"level": "rack", "minDomains": 3}}});
        self.submit(declared("three", &[("worker", 3)], &three), &["1"]).await;
        let expected = "spread needs 3 domains of level rack for at most 1 members each, 2 have room";
        let (reason, message) = refused(self.testbed, SPACE, "flowforge.dev/gang=three", expected).await;
        assert_eq!(reason, "Unschedulable", "{message}");
        self.remove("three").await;
        let unknown = json!({"topology": {"segments": {"size": 1, "level": "row"}}});
        self.submit(declared("unknown", &[("worker", 1)], &unknown), &["1"]).await;
        let expected = "spec.topology.segments.level: topology level \"row\" is not configured";
        let (reason, message) = refused(self.testbed, SPACE, "flowforge.dev/gang=unknown", expected).await;
        assert_eq!(reason, "InvalidGang", "{message}");
        self.remove("unknown").await;
    }

    async fn what_is_wrong_is_refused_by_the_api_server(&self) {
        let spread = json!({"topology": {"spread": {"level": "rack", "minDomains": 3}}});
        let stranger = json!({"colocate": [{"level": "rack", "roles": ["worker", "nobody"]}]});
        let empty = json!({"topology": {"segments": {"size": 0, "level": "rack"}}});
        for (more, expected) in [
            (spread, "spec.topology.spread.minDomains must not exceed spec.minMember"),
            (stranger, "spec.colocate[].roles must name roles of spec.roles"),
            (empty, "spec.topology.segments.size"),
        ] {
            let gang = serde_json::from_value(declared("wrong", &[("worker", 2)], &more)).unwrap();
            let error = self.gangs().create(&PostParams::default(), &gang).await.expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
