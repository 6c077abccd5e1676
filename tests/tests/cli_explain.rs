//! What the command line tells of gangs beforehand, on a real control plane: what `place` says is what the scheduler then does,
//! live or from a snapshot, and a gang without a place is told the level, the best domain and who holds it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_api::Gang;
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::program;
use kube::api::{Api, PostParams};
use scheduler::{bound, create, gang, install, label_node, members, namespace, node_names, node_of, pod, refused};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const SPACE: &str = "ask";

/// Six nodes of eight GPUs in two racks of three; gang `holder` has two nodes of one rack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_gang_is_what_the_scheduler_does() {
    let testbed = scheduler::testbed(Profile::DgxH100, 6).await;
    for (index, node) in node_names(&testbed).await.iter().enumerate() {
        label_node(&testbed, node, json!({"fabric.topograph.run/tier-0": format!("r{}", index / 3)})).await;
    }
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    testbed
        .apply_yaml("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: urgent}, value: 1000}")
        .await
        .unwrap();
    create(&testbed, SPACE, within_a_rack(gang("holder", 2, "8"))).await;
    bound(&testbed, SPACE, "holder", 2, SOON).await;
    let scene = Scene { testbed: &testbed, program: program("flowforge").unwrap() };
    scene.a_place_that_is_told_is_taken_then().await;
    scene.a_gang_without_a_place_is_told_why().await;
    scene.a_gang_that_waits_is_explained_the_same_way().await;
    scene.victims_are_told_and_nobody_is_evicted().await;
    scene.what_cannot_be_asked_says_what_would_help();
}

fn within_a_rack(mut pods: Vec<Value>) -> Vec<Value> {
    for pod in &mut pods {
        pod["metadata"]["annotations"]["flowforge.dev/topology-required"] = json!("rack");
    }
    pods
}

/// A file with a Gang whose members have a node each, in one rack.
fn file(name: &str, size: usize, class: &str) -> String {
    let mut template = pod("t", "8");
    template["spec"]["priorityClassName"] = json!(class);
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "t"},
        "template": {"spec": template["spec"]}});
    format!("{}\n---\n{template}\n", declared(name, size))
}

fn declared(name: &str, size: usize) -> Value {
    json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Gang", "metadata": {"name": name},
        "spec": {"minMember": size, "roles": [{"name": "worker", "replicas": size}], "topology": {"required": "rack"}}})
}

struct Scene<'t> {
    testbed: &'t Testbed,
    program: PathBuf,
}

impl Scene<'_> {
    /// Runs the command line; answers its stdout where exit code and parts of stdout and stderr are these.
    fn run(&self, args: &[&str], stdin: &str, code: i32, parts: &[&str]) -> String {
        let mut child = Command::new(&self.program)
            .args(args)
            .args(["-n", SPACE])
            .env("KUBECONFIG", self.testbed.admin_kubeconfig())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let told = format!("{stdout}{stderr}");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        for part in parts {
            assert!(told.contains(part), "{args:?}: no {part:?} in: {told}");
        }
        stdout
    }

    async fn a_place_that_is_told_is_taken_then(&self) {
        let asked = file("train", 3, "");
        let text =
            self.run(&["place", "-f", "-"], &asked, 0, &["there is a place for its 3 members", "24 GPUs on 3 nodes"]);
        assert!(text.contains("slowest at level rack: network between"), "{text}");
        let told: Value = serde_json::from_str(&self.run(&["place", "-f", "-", "-o", "json"], &asked, 0, &[])).unwrap();
        let nodes: Vec<&str> =
            told[0]["seats"].as_array().unwrap().iter().map(|seat| seat["node"].as_str().unwrap()).collect();
        assert_eq!(nodes.len(), 3, "{told}");

        let path = self.testbed.dir().join("snapshot.json");
        std::fs::write(&path, self.run(&["snapshot"], "", 0, &[])).unwrap();
        let path = path.to_string_lossy();
        let again = self.run(&["place", "-f", "-", "-o", "json", "--snapshot", &path], &asked, 0, &[]);
        assert_eq!(serde_json::from_str::<Value>(&again).unwrap()[0]["seats"], told[0]["seats"], "of a file as live");
        self.run(&["explain", "gang", "holder", "--snapshot", &path], "", 0, &["all 2 members stand"]);

        let gangs: Api<Gang> = Api::namespaced(self.testbed.client().clone(), SPACE);
        let made = serde_json::from_value(declared("train", 3)).unwrap();
        let uid = gangs.create(&PostParams::default(), &made).await.unwrap().metadata.uid.unwrap();
        let member = |rank: usize| {
            let mut member = pod(&format!("train-{rank}"), "8");
            member["metadata"]["labels"] = json!({"flowforge.dev/gang": "train", "flowforge.dev/role": "worker",
                "flowforge.dev/rank": rank.to_string()});
            member["metadata"]["annotations"] = json!({"flowforge.dev/gang-uid": uid});
            member
        };
        create(self.testbed, SPACE, (0..3).map(member).collect()).await;
        bound(self.testbed, SPACE, "train", 3, SOON).await;
        for (rank, node) in nodes.iter().enumerate() {
            let found = members(self.testbed, SPACE, "train").await;
            let of_rank = found.iter().find(|pod| pod.metadata.name == Some(format!("train-{rank}"))).unwrap();
            assert_eq!(node_of(of_rank), Some(*node), "rank {rank}, as it was told: {told}");
        }
        self.run(&["explain", "gang", "train"], "", 0, &["now: all 3 members stand", "24 GPUs on 3 nodes"]);
    }

    async fn a_gang_without_a_place_is_told_why(&self) {
        let parts = [
            "no place for its 2 members now",
            "needs 16 GPUs free in one rack; the best, rack/r",
            "has 8: 1 of 2 members fit",
            "16 GPUs by gang ask/holder in 2 pods",
            "evicting all who are less important would not make room",
        ];
        let text = self.run(&["place", "-f", "-"], &file("late", 2, ""), 1, &parts);
        println!("{text}");
        assert!(members(self.testbed, SPACE, "late").await.is_empty(), "nothing was made");
    }

    async fn a_gang_that_waits_is_explained_the_same_way(&self) {
        create(self.testbed, SPACE, within_a_rack(gang("waits", 2, "8"))).await;
        refused(self.testbed, SPACE, "flowforge.dev/gang=waits", "1 fit (in rack/r").await;
        let parts = ["Unschedulable", "now: no place for its 2 members now", "gang ask/holder", "rack *"];
        let text = self.run(&["explain", "gang", "waits"], "", 0, &parts);
        println!("{text}");
        let told: Value =
            serde_json::from_str(&self.run(&["explain", "gang", "waits", "-o", "json"], "", 0, &[])).unwrap();
        let levels = told["now"]["levels"].as_array().unwrap();
        let rack = levels.iter().find(|lack| lack["level"] == "rack").unwrap();
        assert_eq!(rack["required"], true, "{told}");
        assert_eq!(
            (&rack["best"]["free"], &rack["best"]["holders"][0]["name"]),
            (&json!(8), &json!("ask/holder")),
            "{told}"
        );
    }

    async fn victims_are_told_and_nobody_is_evicted(&self) {
        let parts = ["what would free it: at priority 1000 it may evict", "then it stands on"];
        self.run(&["place", "-f", "-"], &file("urgent", 2, "urgent"), 1, &parts);
        for (name, size) in [("holder", 2), ("train", 3)] {
            bound(self.testbed, SPACE, name, size, SOON).await;
        }
    }

    fn what_cannot_be_asked_says_what_would_help(&self) {
        self.run(&["explain", "gang", "nobody"], "", 2, &["there is no gang ask/nobody", "fix: "]);
        self.run(&["place", "-f", "-"], &file("x", 2, "none"), 2, &["there is no PriorityClass none", "urgent"]);
        let bad = file("x", 2, "").replace("\"replicas\":2", "\"replicas\":\"two\"");
        self.run(&["place", "-f", "-"], &bad, 2, &["stdin#1: spec.roles[0].replicas: invalid type", "fix: "]);
        self.run(&["place", "-f", "-", "--snapshot", "/dev/null"], &file("x", 2, ""), 2, &["is not a snapshot"]);
        let unknown = file("x", 2, "").replace("\"required\":\"rack\"", "\"required\":\"row\"");
        self.run(&["place", "-f", "-"], &unknown, 1, &["topology level \"row\" is not configured; the levels are"]);
    }
}
